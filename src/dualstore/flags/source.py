"""What every source of flags answers: the stage and dials that somebody asked for, or nothing."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Protocol

from dualstore.stages import Stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Requested:
    """What the flags of one table ask for. They only ask: the control record decides.

    Attributes:
        stage: the stage to be at.
        postgres_read_percent: share of partition keys whose reads PostgreSQL is to serve.
        mirror_percent: share of partition keys to be written to both sides.
        shadow_percent: share of reads to run on the other side as well.

    None is "stay where you are": the flag is missing, malformed, different for different contexts, or its
    service cannot be reached.
    """

    stage: Stage | None = None
    postgres_read_percent: float | None = None
    mirror_percent: float | None = None
    shadow_percent: float | None = None


NOTHING_REQUESTED = Requested()


class FlagSource(Protocol):
    """Where stage and dials come from."""

    def requested(self, table: str) -> Requested:
        """What is asked for a table, by its logical name; a look-up in memory, never an evaluation."""
        ...

    def close(self) -> None:
        """Stop listening. `requested` keeps answering what it last knew."""
        ...


class ProblemKind(StrEnum):
    """Why a flag has no value to follow."""

    MISSING = "missing"
    UNREACHABLE = "unreachable"
    MALFORMED = "malformed"
    OFF = "off"
    """Its targeting is off, and it has no variation for that."""
    SPLIT = "split"
    """It has different values for different contexts."""


@dataclass(frozen=True, slots=True)
class FlagProblem:
    """One flag of one table without a usable value.

    Attributes:
        table: the table's logical name, or None where all tables are concerned.
        flag: the flag's key, or the flag file.
        kind: what is wrong with it.
    """

    table: str | None
    flag: str
    kind: ProblemKind

    def __str__(self) -> str:
        """The problem and its remedy, for a log or a terminal."""
        where = f"table {self.table}" if self.table else "all tables"
        return (
            f"Flag {self.flag} of {where} is {self.kind}: staying at the last recorded stage and dials; "
            f"{_REMEDIES[self.kind]}"
        )


_REMEDIES = {
    ProblemKind.MISSING: "create the flag, or ignore this if it is not meant to move",
    ProblemKind.UNREACHABLE: "check that the flag service or file can be read",
    ProblemKind.MALFORMED: "give it a value of the right type and range",
    ProblemKind.OFF: "turn its targeting on, or give it an off variation",
    ProblemKind.SPLIT: "serve one value to every context, without a percentage rollout and without rules "
    "or targets by key: all processes must follow the same stage and dials",
}


class Problems:
    """Counts every problem and logs each one once, until it is gone and comes back.

    Args:
        listener: also told of every occurrence, for metrics.
    """

    def __init__(self, listener: Callable[[FlagProblem], None] | None = None) -> None:
        self._listener = listener
        self._lock = Lock()
        self._counts: Counter[FlagProblem] = Counter()
        self._open: set[FlagProblem] = set()

    def occurred(self, problem: FlagProblem) -> None:
        """Note one occurrence."""
        with self._lock:
            self._counts[problem] += 1
            is_news = problem not in self._open
            self._open.add(problem)
        if is_news:
            logger.warning("%s", problem)
        if self._listener is not None:
            self._listener(problem)

    def resolved(self, table: str | None, flag: str) -> None:
        """Note that a flag has a usable value (again)."""
        with self._lock:
            self._open -= {FlagProblem(table, flag, kind) for kind in ProblemKind}

    def present(self, table: str) -> tuple[FlagProblem, ...]:
        """The problems that a table has now, those of all tables included."""
        with self._lock:
            return tuple(sorted((p for p in self._open if p.table in {None, table}), key=str))

    def counts(self) -> Mapping[FlagProblem, int]:
        """How often each problem occurred so far."""
        with self._lock:
            return dict(self._counts)
