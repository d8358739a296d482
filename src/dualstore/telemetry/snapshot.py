"""What was counted up to a moment, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dualstore.stages import Side
from dualstore.telemetry.events import Role
from dualstore.telemetry.latency import Latencies, combined
from dualstore.telemetry.names import Metric


class OperationKey(NamedTuple):
    """A kind of operations whose latencies are counted together."""

    table: str
    operation: str
    side: Side
    role: Role
    outcome: str


class Series(NamedTuple):
    """A metric with the values of its labels, in the order of `metric.labels`."""

    metric: Metric
    labels: tuple[str, ...]

    def has(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels, among others, have these values."""
        own = dict(zip(self.metric.labels, self.labels, strict=True))
        return all(own.get(name) == value for name, value in labels.items())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything counted up to a moment, or between two.

    Attributes:
        taken_at: `time.monotonic()` of the moment.
        operations: the latencies of each kind of operations.
        counters: how often each thing happened.
        gauges: what was last said of the present.
        began_at: where counting began; None for the start of the process.
    """

    taken_at: float
    operations: Mapping[OperationKey, Latencies]
    counters: Mapping[Series, int]
    gauges: Mapping[Series, float]
    began_at: float | None = None

    def since(self, earlier: "Snapshot") -> "Snapshot":
        """What happened after an earlier snapshot of the same process; gauges stay as they are."""
        none = Latencies()
        return Snapshot(
            taken_at=self.taken_at,
            operations={
                key: now.since(earlier.operations.get(key, none)) for key, now in self.operations.items()
            },
            counters={key: now - earlier.counters.get(key, 0) for key, now in self.counters.items()},
            gauges=self.gauges,
            began_at=earlier.taken_at,
        )

    def latencies(
        self,
        *,
        table: str | None = None,
        operation: str | None = None,
        side: Side | None = None,
        role: Role | None = None,
        outcome: str | None = None,
    ) -> Latencies:
        """The latencies of all operations that are of this kind; None takes any."""
        wanted = (table, operation, side, role, outcome)
        return combined(
            latencies
            for key, latencies in self.operations.items()
            if all(want is None or want == has for want, has in zip(wanted, key, strict=True))
        )

    def count(self, metric: Metric, **labels: str) -> int:
        """How often something happened, over all series with these labels (`table="orders"`)."""
        return sum(
            count for series, count in self.counters.items() if series.metric is metric and series.has(labels)
        )

    def gauge(self, metric: Metric, **labels: str) -> float | None:
        """What was last said of the present, summed over the series with these labels; None if nothing."""
        values = [
            value for series, value in self.gauges.items() if series.metric is metric and series.has(labels)
        ]
        return sum(values) if values else None

    def per_second(self, count: int) -> float | None:
        """A count as a rate; None for a snapshot that is not `since` another."""
        if self.began_at is None or self.taken_at <= self.began_at:
            return None
        return count / (self.taken_at - self.began_at)
