"""What is configured about the reads of one table."""

from collections.abc import Callable
from dataclasses import dataclass, field

CohortOf = Callable[[str | bytes], str | None]
"""The cohort of a partition key's value: a string, a number's one text, or bytes. None: it is in none."""


@dataclass(frozen=True, slots=True)
class ReadRules:
    """What is configured about the reads of one table.

    Attributes:
        always_on: cohorts that read PostgreSQL as soon as it may be read at all, at 0 % too.
        always_off: cohorts that do not read it while it is the mirror, at 100 % neither; they win.
        stale_reads: whether DynamoDB, the mirror, may answer eventually consistent reads while PostgreSQL,
            the authority, does not.
        names_cohorts: whether it matters to any read which cohort it is of.
    """

    always_on: frozenset[str] = frozenset()
    always_off: frozenset[str] = frozenset()
    stale_reads: bool = False
    names_cohorts: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names_cohorts", bool(self.always_on or self.always_off))


PLAIN = ReadRules()
"""Of a table for which nothing is configured."""
