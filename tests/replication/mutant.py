"""What a mutant is: the protocol without one of its mechanisms, and where that is found out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from replication.environment import simulated
from replication.histories import seeded
from replication.scenarios import SCENARIOS

Replacement = tuple[Any, str, Any]


@dataclass(frozen=True)
class Mutant:
    """The protocol without one of its mechanisms.

    Attributes:
        rule: its number in DESIGN, section 3, and in docs/explanation/replication.md.
        removed: the mechanism, in words.
        scenario: where its lack is found out.
        replaced: what stands in its place.
        within: so many schedules find it.
    """

    rule: str
    removed: str
    scenario: str
    replaced: tuple[Replacement, ...]
    within: int = 2_000

    def found_after(self, seeds: Iterable[int]) -> int | None:
        """After how many schedules an invariant is broken; None where all hold."""
        with simulated(*self.replaced):
            for number, seed in enumerate(seeds, 1):
                if SCENARIOS[self.scenario](seeded(seed)):
                    return number
        return None
