"""What came of a replay: latencies from when each operation was due, errors, and who held it up."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock
from typing import Any, Self

from dualstore.telemetry import Latencies
from dualstore.telemetry.latency import LatencyCell, combined
from dualstore.telemetry.names import ANSWERS

LATE_SECONDS = 0.01
"""What begins so long after it was due began late."""
TOLERATED_PERCENT = 1.0
"""So many may begin late, or be missing at the end, before the generator is said to be the limit."""
BUSY_PERCENT = 85.0
"""A process with one interpreter that uses so much of a core has no more to give."""

STARVED_PERCENT = 50.0
"""Of the time for which writers wanted a processor: who waits for so much of it measures this machine."""

UNPROCESSED = "UnprocessedItems"
"""The code of a batch that was answered in part."""


class Cause(StrEnum):
    """What kept the generator from keeping the pace."""

    PROCESSOR = "processor"
    """It used up its core."""
    WRITERS = "writers"
    """Every writer was still waiting for an answer."""
    STARVED = "starved"
    """Its writers got no processor, free ones too: something else has it."""


@dataclass(slots=True)
class OperationTally:
    """What came of one kind of operations, of those that were due after the ramp.

    Attributes:
        planned: how many were due.
        latencies: from when they were due until they were answered.
        service: from when they were sent.
        longest_seconds: the longest of the first.
        errors: by code, what was not answered; a condition's no is an answer.
        unbegun: how many had not begun when time was up.
    """

    planned: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    service: Latencies = field(default_factory=Latencies)
    longest_seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    unbegun: int = 0

    @property
    def failed(self) -> int:
        """How many got no answer."""
        return self.errors.total()

    def plus(self, other: "OperationTally") -> "OperationTally":
        """Both together."""
        return OperationTally(
            self.planned + other.planned,
            combined((self.latencies, other.latencies)),
            combined((self.service, other.service)),
            max(self.longest_seconds, other.longest_seconds),
            self.errors + other.errors,
            self.unbegun + other.unbegun,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "planned": self.planned,
            "latencies": [self.latencies.seconds, self.latencies.sparse()],
            "service": [self.service.seconds, self.service.sparse()],
            "longest_seconds": self.longest_seconds,
            "errors": dict(self.errors),
            "unbegun": self.unbegun,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` wrote."""
        read = {
            name: Latencies.from_sparse(document[name][1], document[name][0])
            for name in ("latencies", "service")
        }
        return cls(
            document["planned"],
            read["latencies"],
            read["service"],
            document["longest_seconds"],
            Counter(document["errors"]),
            document["unbegun"],
        )


@dataclass(slots=True)
class Tally:
    """What came of a replay in one process, or in several.

    Attributes:
        kinds: by the number of the kind in `TableLoad.operations`.
        seconds: from the end of the ramp until the last operation ended, at least as long as was planned.
        late_busy: how many began late while every writer waited for an answer.
        late_free: how many began late although a writer was free.
        processor_percent: how much of a core the busiest process used.
        starved_percent: how long its writers waited for a processor, of the time for which they wanted one.
        writers: how many there were.
        sent: how many operations were sent, in the ramp, too.
        busy: how many were under way on average.
        elapsed_seconds: how long it all took, with the ramp.
        partitions: the ranks of the partitions that were written to.
    """

    kinds: dict[int, OperationTally]
    seconds: float
    late_busy: int = 0
    late_free: int = 0
    processor_percent: float = 0.0
    starved_percent: float = 0.0
    writers: int = 1
    sent: int = 0
    busy: float = 0.0
    elapsed_seconds: float = 0.0
    partitions: set[int] = field(default_factory=set)

    @property
    def planned(self) -> int:
        """How many operations were due."""
        return sum(kind.planned for kind in self.kinds.values())

    @property
    def unbegun(self) -> int:
        """How many operations had not begun when time was up."""
        return sum(kind.unbegun for kind in self.kinds.values())

    @property
    def cause(self) -> Cause | None:
        """What kept the generator from keeping the pace, or None where it kept it."""
        tolerated = self.planned * TOLERATED_PERCENT / 100
        if self.late_busy + self.late_free + self.unbegun <= tolerated:
            return None
        if self.processor_percent >= BUSY_PERCENT:
            return Cause.PROCESSOR
        if self.starved_percent >= STARVED_PERCENT or self.late_free > self.late_busy + self.unbegun:
            return Cause.STARVED
        return Cause.WRITERS

    def plus(self, other: "Tally") -> "Tally":
        """Both processes together."""
        numbers = self.kinds.keys() | other.kinds.keys()
        return Tally(
            {
                number: self.kinds.get(number, OperationTally()).plus(
                    other.kinds.get(number, OperationTally())
                )
                for number in sorted(numbers)
            },
            max(self.seconds, other.seconds),
            self.late_busy + other.late_busy,
            self.late_free + other.late_free,
            max(self.processor_percent, other.processor_percent),
            max(self.starved_percent, other.starved_percent),
            self.writers + other.writers,
            self.sent + other.sent,
            self.busy + other.busy,
            max(self.elapsed_seconds, other.elapsed_seconds),
            self.partitions | other.partitions,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values, for another process."""
        return {
            "kinds": {str(number): kind.to_json() for number, kind in self.kinds.items()},
            "seconds": self.seconds,
            "late_busy": self.late_busy,
            "late_free": self.late_free,
            "processor_percent": self.processor_percent,
            "starved_percent": self.starved_percent,
            "writers": self.writers,
            "sent": self.sent,
            "busy": self.busy,
            "elapsed_seconds": self.elapsed_seconds,
            "partitions": sorted(self.partitions),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` wrote."""
        kinds = {int(number): OperationTally.from_json(each) for number, each in document["kinds"].items()}
        return cls(**{**document, "kinds": kinds, "partitions": set(document["partitions"])})


class Counting:
    """Counts in many threads; `tally` gives what was counted.

    Args:
        kinds: how many kinds of operations there are.
    """

    def __init__(self, kinds: int) -> None:
        self._lock = Lock()
        self._planned = [0] * kinds
        self._latencies = [LatencyCell() for _ in range(kinds)]
        self._service = [LatencyCell() for _ in range(kinds)]
        self._longest = [0.0] * kinds
        self._errors: list[Counter[str]] = [Counter() for _ in range(kinds)]
        self._partitions: set[int] = set()
        self._late = {False: 0, True: 0}
        self._unbegun = [0] * kinds
        self._sent = 0
        self._busy_seconds = 0.0
        self._ran_seconds = self._waited_seconds = 0.0

    def due(self, kind: int) -> None:
        """An operation was due after the ramp."""
        with self._lock:
            self._planned[kind] += 1

    def done(self, seconds: float, partitions: Sequence[int]) -> None:
        """An operation took so long since it was sent, and wrote to some partitions."""
        with self._lock:
            self._sent += 1
            self._busy_seconds += seconds
            self._partitions.update(partitions)

    def scheduled(self, *, ran: float, waited: float) -> None:
        """A writer had a processor for so many seconds, and waited for one for so many."""
        with self._lock:
            self._ran_seconds += ran
            self._waited_seconds += waited

    def late(self, *, free: bool) -> None:
        """An operation began late, although a writer was free or because none was."""
        with self._lock:
            self._late[free] += 1

    def unbegun(self, kind: int) -> None:
        """An operation was due and has not begun in time."""
        with self._lock:
            self._unbegun[kind] += 1

    def ended(self, kind: int, outcome: str, *, since_due: float, since_sent: float) -> None:
        """An operation ended.

        Args:
            kind: its number.
            outcome: `ok`, or a code.
            since_due: how long after it was due, in seconds.
            since_sent: how long after it was sent.
        """
        if outcome in ANSWERS:
            self._latencies[kind].add(since_due)
            self._service[kind].add(since_sent)
            with self._lock:
                self._longest[kind] = max(self._longest[kind], since_due)
        else:
            with self._lock:
                self._errors[kind][outcome] += 1

    def tally(self, *, elapsed: float, seconds: float, processor_percent: float, writers: int) -> Tally:
        """What was counted.

        Args:
            elapsed: how long it took, in seconds.
            seconds: how long of that was measured.
            processor_percent: as `Tally` has it.
            writers: likewise.
        """
        wanted = self._ran_seconds + self._waited_seconds
        return Tally(
            {
                number: OperationTally(
                    planned,
                    self._latencies[number].read(),
                    self._service[number].read(),
                    self._longest[number],
                    self._errors[number],
                    self._unbegun[number],
                )
                for number, planned in enumerate(self._planned)
            },
            seconds,
            self._late[False],
            self._late[True],
            processor_percent,
            100 * self._waited_seconds / wanted if wanted else 0.0,
            writers,
            self._sent,
            self._busy_seconds / max(elapsed, 1e-9),
            elapsed,
            self._partitions,
        )
