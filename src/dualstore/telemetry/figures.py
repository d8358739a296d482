"""What a process counted of one table in a stretch of time, small enough to be kept: values that add up."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Self

from dualstore.stages import Side
from dualstore.telemetry import names
from dualstore.telemetry.events import Role, Verdict
from dualstore.telemetry.latency import Latencies, combined
from dualstore.telemetry.names import ANSWERS, Metric
from dualstore.telemetry.snapshot import Snapshot


class Work(StrEnum):
    """Operations that take a similar time."""

    READ = "read"
    LISTING = "listing"
    WRITE = "write"


_READS = frozenset({"GetItem", "BatchGetItem", "TransactGetItems"})
_LISTINGS = frozenset({"Query", "Scan"})

COUNTED: Mapping[str, Metric] = {
    "mirror_failures": names.MIRROR_FAILURES,
    "fallbacks": names.FALLBACKS,
    "dropped": names.SHADOW_DROPPED,
}
"""What is counted of a table besides operations and comparisons."""

THROTTLED = "throttled"
"""How often DynamoDB answered that it was asked too much."""
_THROTTLES = frozenset(
    {"ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"}
)

SHARE_SEEN, SHARE_SUM = "share_windows", "share_percents"
"""Of the share of reads that are compared: in how many windows it was seen, and the sum of what it was."""


def work_of(operation: str) -> Work:
    """The class of an operation; what is no read of DynamoDB's API writes, as mirroring and settling do."""
    if operation in _READS:
        return Work.READ
    return Work.LISTING if operation in _LISTINGS else Work.WRITE


class Doer(NamedTuple):
    """Who did which work as what."""

    work: Work
    side: Side
    role: Role


@dataclass(frozen=True, slots=True)
class Done:
    """What somebody did.

    Attributes:
        latencies: of what was answered; a condition's no is an answer.
        errors: how often there was none.
    """

    latencies: Latencies = field(default_factory=Latencies)
    errors: int = 0

    @property
    def count(self) -> int:
        """How often it was tried."""
        return self.latencies.count + self.errors


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted of one table in a stretch of time.

    Attributes:
        done: by work, side and role.
        counts: comparisons by their verdict, how often the things of `COUNTED` happened, and what
            `shadow_share` is made of.
    """

    done: Mapping[Doer, Done] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.done or self.counts)

    @classmethod
    def of(cls, snapshot: Snapshot, table: str) -> Self:
        """What a snapshot (`later.since(earlier)`) says of a table, by its logical name."""
        answered: dict[Doer, list[Latencies]] = {}
        errors: Counter[Doer] = Counter()
        for key, latencies in snapshot.operations.items():
            if key.table != table or not latencies.count:
                continue
            doer = Doer(work_of(key.operation), key.side, key.role)
            parts = answered.setdefault(doer, [])
            if key.outcome in ANSWERS:
                parts.append(latencies)
            else:
                errors[doer] += latencies.count
        counts = {
            verdict.value: snapshot.count(names.SHADOW_COMPARED, table=table, verdict=verdict)
            for verdict in Verdict
        }
        counts |= {name: snapshot.count(metric, table=table) for name, metric in COUNTED.items()}
        counts[THROTTLED] = sum(
            latencies.count
            for key, latencies in snapshot.operations.items()
            if key.table == table and key.side is Side.DYNAMODB and key.outcome in _THROTTLES
        )
        figures = cls(
            {doer: Done(combined(parts), errors[doer]) for doer, parts in answered.items()},
            {name: count for name, count in counts.items() if count},
        )
        share = snapshot.gauge(names.SHADOW_EFFECTIVE, table=table)
        if figures and share is not None:  # where nothing was read the share is of another time
            return cls(figures.done, {**figures.counts, SHARE_SEEN: 1, SHARE_SUM: round(share)})
        return figures

    @classmethod
    def sum(cls, parts: Iterable["Figures"]) -> Self:
        """Several stretches, or processes, taken together."""
        latencies: dict[Doer, list[Latencies]] = {}
        errors: Counter[Doer] = Counter()
        counts: Counter[str] = Counter()
        for part in parts:
            for doer, done in part.done.items():
                latencies.setdefault(doer, []).append(done.latencies)
                errors[doer] += done.errors
            counts.update(part.counts)
        return cls(
            {doer: Done(combined(each), errors[doer]) for doer, each in latencies.items()}, dict(counts)
        )

    @property
    def shadow_share(self) -> float | None:
        """The share of reads that processes compared, in percent, on average; None where none told any."""
        windows = self.counts.get(SHARE_SEEN)
        return self.counts.get(SHARE_SUM, 0) / windows if windows else None

    def by(self, *, side: Side, works: Iterable[Work], roles: Iterable[Role] = tuple(Role)) -> Done:
        """What a side did of some works, in some roles, together."""
        works, roles = frozenset(works), frozenset(roles)
        chosen = [
            done
            for doer, done in self.done.items()
            if doer.side is side and doer.work in works and doer.role in roles
        ]
        return Done(combined(each.latencies for each in chosen), sum(each.errors for each in chosen))

    def to_json(self) -> dict[str, Any]:
        """These figures as plain values; of the buckets of a histogram only those that hold something."""
        return {
            "done": [
                [*doer, done.errors, done.latencies.seconds, done.latencies.sparse()]
                for doer, done in self.done.items()
            ],
            "counts": dict(self.counts),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Figures that `to_json` wrote."""
        done = {}
        for work, side, role, errors, seconds, buckets in document["done"]:
            doer = Doer(Work(work), Side(side), Role(role))
            done[doer] = Done(Latencies.from_sparse(buckets, seconds), errors)
        return cls(done, dict(document["counts"]))
