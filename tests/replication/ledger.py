"""What the callers of a simulated history know, and whether what the stores hold can be explained by it."""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

ABSENT = None
"""The value of a key without an item."""


class Fate(Enum):
    """What the caller of a write was told."""

    UNANSWERED = auto()
    """Nothing yet; nothing ever, where its process crashed."""
    ACKNOWLEDGED = auto()
    REFUSED = auto()
    """It had no effect."""
    UNKNOWN = auto()


@dataclass(eq=False)
class Write:
    """One write, as its caller saw it.

    Attributes:
        value: what it leaves at the key; no other write leaves the same, but for `ABSENT`.
        began: its place among all beginnings and ends of the history.
        ended: likewise; infinite where it may take effect later than its caller was answered.
        fate: what its caller was told.
        late: whether one of its requests was given up by its sender, and may arrive at any later time, as in
            plain DynamoDB (DESIGN, rule 10): it may take effect whatever its caller was told of a later one.
        doubtful: whether an answer to one of its requests was lost: it may have taken effect, and been
            written over, though its caller was told that a later one was refused.
        left_over: whether it waited in the outbox when DynamoDB took over without PostgreSQL: reads may miss
            it, though it is not lost in the end.
    """

    value: str | None
    began: int
    ended: float = math.inf
    fate: Fate = Fate.UNANSWERED
    late: bool = False
    doubtful: bool = False
    left_over: bool = False


@dataclass(frozen=True)
class Read:
    """One read and its answer."""

    value: str | None
    began: int
    ended: int
    served_by: str


@dataclass
class Ledger:
    """The reads and writes of one key.

    Attributes:
        writes: all of them, and that the key had no item before.
        reads: all of them.
        increments: how many of a counter, by their fates.
        places: numbers all events, those of other keys of the same history among them.
    """

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    increments: dict[Fate, int] = field(default_factory=lambda: dict.fromkeys(Fate, 0))
    places: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.writes.append(Write(ABSENT, began=0, ended=0, fate=Fate.ACKNOWLEDGED))

    def place(self) -> int:
        """The next place in the order of all events."""
        return next(self.places)

    def begin(self, value: str | None) -> Write:
        """A write is about to be sent."""
        write = Write(value, began=self.place())
        self.writes.append(write)
        return write

    def end(self, write: Write, fate: Fate) -> None:
        """Its caller has been answered."""
        write.fate = fate
        if fate is Fate.ACKNOWLEDGED and not write.late:
            write.ended = self.place()

    def read(self, value: str | None, began: int, served_by: str) -> None:
        """A read has been answered."""
        self.reads.append(Read(value, began, self.place(), served_by))

    def explains(self, value: str | None) -> bool:
        """Whether the key may hold a value at the end: I1.

        Some write left it there, and no acknowledged write began after that one was acknowledged.
        """
        return any(self._stands(write, math.inf) for write in self._sources(value))

    def unexplained_read(self) -> Read | None:
        """A read that missed a write acknowledged before it began, or saw what nobody wrote: I6."""
        for read in self.reads:
            sources = (write for write in self._sources(read.value) if write.began < read.ended)
            if not any(self._stands(write, read.began, but_left_over=True) for write in sources):
                return read
        return None

    def may_follow(self, value: str | None, write: Write) -> bool:
        """Whether a key that holds a value may hold it since another write took effect, or by that write."""
        return any(not source.ended < write.began for source in self._sources(value))

    @property
    def counter_bounds(self) -> tuple[int, int]:
        """Between which numbers a counter may stand that began at 0: I1."""
        sure = self.increments[Fate.ACKNOWLEDGED]
        return sure, sure + self.increments[Fate.UNKNOWN] + self.increments[Fate.UNANSWERED]

    def _sources(self, value: str | None) -> Iterable[Write]:
        return (
            w
            for w in self.writes
            if w.value == value and (w.late or w.doubtful or w.fate is not Fate.REFUSED)
        )

    def _stands(self, source: Write, until: float, *, but_left_over: bool = False) -> bool:
        """Whether nothing acknowledged before `until` began after the source was acknowledged."""
        return not any(
            source.ended < write.began and write.fate is Fate.ACKNOWLEDGED and write.ended < until
            for write in self.writes
            if not (but_left_over and write.left_over)
        )
