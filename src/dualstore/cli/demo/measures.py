"""Counts and latencies that several processes take and one adds up."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from dualstore.cli.demo.moments import Failure
from dualstore.stages import Side
from dualstore.telemetry import OK, Latencies, Role, Snapshot, Verdict, names
from dualstore.telemetry.latency import LatencyCell, combined

_READS = frozenset({"GetItem", "Query", "Scan", "BatchGetItem", "TransactGetItems"})
_VERDICTS = {"equal": Verdict.EQUAL, "lagging": Verdict.LAG, "mismatches": Verdict.MISMATCH}
"""The verdicts of a comparison that took place; any other means that it could not."""


@dataclass(slots=True)
class Tally:
    """What one or several processes did in a stretch of time.

    Attributes:
        calls: what callers waited, by the name of the call.
        worst_seconds: the longest that any caller waited.
        sides: what the databases took where they answered, by work: "DynamoDB reads", "PostgreSQL writes"
        counts: what happened inside dualstore, and to callers: "refused", "own reads", "stale reads", ...
        failures: calls that failed.
    """

    calls: dict[str, Latencies] = field(default_factory=dict)
    worst_seconds: float = 0.0
    sides: dict[str, Latencies] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def __iadd__(self, other: Self) -> Self:
        for mine, others in ((self.calls, other.calls), (self.sides, other.sides)):
            for name, latencies in others.items():
                mine[name] = combined((mine[name], latencies)) if name in mine else latencies
        self.worst_seconds = max(self.worst_seconds, other.worst_seconds)
        self.counts.update(other.counts)
        self.failures += other.failures
        return self

    @property
    def errors(self) -> Counter[str]:
        """The failures by their kind."""
        return Counter(failure.kind for failure in self.failures)

    def waited(self, among: Iterable[str] | None = None) -> Latencies:
        """What callers waited in all calls, or in those named, together."""
        return combined(latencies for call, latencies in self.calls.items() if among is None or call in among)

    def to_json(self) -> dict[str, Any]:
        """This tally as plain values."""
        return {
            "calls": {name: _sparse(latencies) for name, latencies in self.calls.items()},
            "sides": {name: _sparse(latencies) for name, latencies in self.sides.items()},
            "worst_seconds": self.worst_seconds,
            "counts": self.counts,
            "failures": [asdict(failure) for failure in self.failures],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The tally that `to_json` made these of."""
        return cls(
            calls={name: _dense(latencies) for name, latencies in plain["calls"].items()},
            worst_seconds=plain["worst_seconds"],
            sides={name: _dense(latencies) for name, latencies in plain["sides"].items()},
            counts=Counter(plain["counts"]),
            failures=[Failure(**failure) for failure in plain["failures"]],
        )


def _sparse(latencies: Latencies) -> list[Any]:
    return [
        len(latencies.counts),
        [pair for pair in enumerate(latencies.counts) if pair[1]],
        latencies.seconds,
    ]


def _dense(sparse: list[Any]) -> Latencies:
    size, pairs, seconds = sparse
    counts = [0] * size
    for bucket, count in pairs:
        counts[bucket] = count
    return Latencies(tuple(counts), seconds)


class Meter:
    """A tally that the threads of one process write to; the reader takes what has come since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, LatencyCell] = {}
        self._tally = Tally()

    def call(self, name: str, seconds: float) -> None:
        """Records that a call was answered after this time."""
        with self._lock:
            self._calls.setdefault(name, LatencyCell()).add(seconds)
            self._tally.worst_seconds = max(self._tally.worst_seconds, seconds)

    def failed(self, failure: Failure) -> None:
        """Records that a call failed."""
        with self._lock:
            self._tally.failures.append(failure)

    def count(self, what: str, times: int = 1) -> None:
        """Records that something happened."""
        if times:
            with self._lock:
                self._tally.counts[what] += times

    def take(self) -> Tally:
        """What has been recorded since the last time."""
        with self._lock:
            taken, self._tally = self._tally, Tally()
            calls, self._calls = self._calls, {}
        taken.calls = {name: cell.read() for name, cell in calls.items()}
        return taken


def side_tally(snapshot: Snapshot) -> Tally:
    """What dualstore's own telemetry says of a stretch of time (`later.since(earlier)`)."""
    tally = Tally(counts=_counts(snapshot))
    works: dict[str, list[Latencies]] = {}
    for key, latencies in snapshot.operations.items():
        # A side that is known to be down refuses in no time at all: that is not how long it takes.
        if latencies.count and key.outcome == OK:
            works.setdefault(_work(key.side, key.role, key.operation), []).append(latencies)
    tally.sides = {work: combined(parts) for work, parts in works.items()}
    return tally


def _counts(snapshot: Snapshot) -> Counter[str]:
    counts = Counter(
        {name: snapshot.count(names.SHADOW_COMPARED, verdict=verdict) for name, verdict in _VERDICTS.items()}
    )
    counts["compared"] = counts.total()
    return counts


SIDE_NAMES = {Side.DYNAMODB: "DynamoDB", Side.POSTGRES: "PostgreSQL"}


def _work(side: Side, role: Role, operation: str) -> str:
    work = "reads" if operation in _READS else "writes"
    return f"{SIDE_NAMES[side]} {'shadow ' if role is Role.SHADOW else ''}{work}"
