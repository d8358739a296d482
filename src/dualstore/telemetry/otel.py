"""Hands what was counted to OpenTelemetry when it collects, through its API alone."""

import random
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from threading import Lock

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from dualstore.telemetry import names
from dualstore.telemetry.latency import Latencies
from dualstore.telemetry.names import ATTRIBUTES, METRICS, OK, Kind, Metric, attributes_of
from dualstore.telemetry.recorder import Telemetry
from dualstore.telemetry.snapshot import OperationKey

MAX_REPLAYED = 1_000
"""The most durations that one collection records in the histogram: 13 ms of work."""
_YIELD_AFTER = 64

Attributes = dict[str, str]


def export(telemetry: Telemetry, meter: Meter | None = None) -> None:
    """Register every metric of `names` with OpenTelemetry; call it once per process and telemetry.

    Counters and gauges are observable: the SDK asks, the cells answer, and callers pay nothing. The API
    has no observable histogram, and recording costs 13 µs a call with the SDK; so
    the durations counted since the last collection are recorded when the next one begins, off the caller's
    path. Of more than `MAX_REPLAYED`, an even sample is: the shape of the distribution stays, and the
    exact number is `dualstore.operations`.

    Args:
        telemetry: where things are counted. Only referred to weakly: once it is gone, nothing is reported.
        meter: None takes that of the global meter provider, also of one that is set later.
    """
    meter = meter or get_meter(names.METER)
    durations = meter.create_histogram(
        names.DURATION.name,
        unit=names.DURATION.unit,
        description=names.DURATION.description,
        explicit_bucket_boundaries_advisory=names.DURATION_BOUNDARIES,
    )
    replay = _Replay(durations.record)
    source = weakref.ref(telemetry)

    def observe(metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            telemetry = source()
            if telemetry is None:
                return ()
            if metric is not names.OPERATIONS:
                return [
                    Observation(value, attributes_of(metric.labels, series.labels))
                    for series, value in telemetry.values(metric).items()
                ]
            operations = telemetry.snapshot().operations
            replay.follow(operations)
            return [
                Observation(latencies.count, operation_attributes(key))
                for key, latencies in operations.items()
            ]

        return callback

    for metric in METRICS:
        create = {
            Kind.COUNTER: meter.create_observable_counter,
            Kind.GAUGE: meter.create_observable_gauge,
        }.get(metric.kind)
        if create is not None:
            create(metric.name, [observe(metric)], unit=metric.unit, description=metric.description)


def operation_attributes(key: OperationKey) -> Attributes:
    """The attributes of an operation: the system by its conventional name, no error where there was none."""
    attributes = attributes_of(names.OPERATIONS.labels, map(str, key))
    if key.outcome == OK:
        del attributes[ATTRIBUTES["outcome"]]
    return attributes


class _Replay:
    """Records in a histogram what was counted since the last time."""

    def __init__(self, record: Callable[[float, Attributes], None]) -> None:
        self._record = record
        self._lock = Lock()
        self._replayed: dict[OperationKey, Latencies] = {}

    def follow(self, operations: Mapping[OperationKey, Latencies]) -> None:
        none = Latencies()
        with self._lock:
            news = {key: now.since(self._replayed.get(key, none)) for key, now in operations.items()}
            self._replayed = dict(operations)
        total = sum(latencies.count for latencies in news.values())
        if not total:
            return
        recorded = 0
        for key, latencies in news.items():
            attributes = operation_attributes(key)
            limit = latencies.count * MAX_REPLAYED / max(total, MAX_REPLAYED)
            for seconds, count in latencies.sample(limit, phase=random.random()):  # noqa: S311 - no secret
                for _ in range(count):
                    self._record(seconds, attributes)
                    recorded += 1
                    if recorded % _YIELD_AFTER == 0:
                        time.sleep(0)  # lets callers run, who would otherwise wait 5 ms for the interpreter
