"""What was counted as lines of CloudWatch's embedded metric format, for whatever collects the log.

AWS, "Specification: Embedded metric format": one JSON document a line, at most 100 metrics and 30 dimensions
in a directive, at most 100 values of a metric.
"""

import json
import logging
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from threading import Lock
from typing import Any, Literal, NamedTuple

from dualstore.telemetry import names
from dualstore.telemetry.latency import Latencies, combined
from dualstore.telemetry.names import ATTRIBUTES, OK, Kind, Metric, attributes_of
from dualstore.telemetry.recorder import Telemetry
from dualstore.telemetry.snapshot import Snapshot
from dualstore.telemetry.ticking import Ticker

logger = logging.getLogger(__name__)

NAMESPACE = "dualstore"
MAX_METRICS = 100
MAX_VALUES = 100

_UNITS = {"s": "Seconds", "%": "Percent"}
# A metric is billed for each combination of its dimensions: the operation's name would be a factor of ten.
_LEFT_OUT = "operation"
_OF_TABLE = (ATTRIBUTES["table"],)


class _Value(NamedTuple):
    metric: Metric
    dimensions: Mapping[str, str]
    value: float | list[float]


def dimensions_of(metric: Metric) -> tuple[tuple[str, ...], ...]:
    """The sets of dimensions that a metric is published under; `error.type` is absent where all went well.

    Its attributes but for the operation's name; a counter of something that has a reason or a verdict is
    also published by table alone.
    """
    own = tuple(ATTRIBUTES[label] for label in metric.labels if label != _LEFT_OUT)
    by_table_too = metric.kind is Kind.COUNTER and metric is not names.OPERATIONS and own != _OF_TABLE
    return (own, _OF_TABLE) if by_table_too else (own,)


def unit_of(metric: Metric) -> str:
    """CloudWatch's name of a metric's unit."""
    return _UNITS.get(metric.unit, "Count")


def lines(counted: Snapshot, *, milliseconds: int, namespace: str = NAMESPACE) -> Iterator[str]:
    """The documents that tell what was counted: counters by how much they grew, gauges as they are.

    Args:
        counted: `later.since(earlier)`.
        milliseconds: the time of it, since the epoch.
        namespace: of the metrics in CloudWatch.

    Yields:
        One JSON document, without a line break.
    """
    groups: dict[tuple[tuple[str, str], ...], list[_Value]] = {}
    for value in _values(counted):
        groups.setdefault(tuple(value.dimensions.items()), []).append(value)
    for dimensions, values in groups.items():
        for first in range(0, len(values), MAX_METRICS):
            yield _document(dict(dimensions), values[first : first + MAX_METRICS], milliseconds, namespace)


def _document(dimensions: dict[str, str], values: Iterable[_Value], milliseconds: int, namespace: str) -> str:
    directives: dict[tuple[tuple[str, ...], ...], list[dict[str, str]]] = {}
    document: dict[str, Any] = dict(dimensions)
    for value in values:
        sets = tuple(
            tuple(name for name in each if name in dimensions) for each in dimensions_of(value.metric)
        )
        definition = {"Name": value.metric.name, "Unit": unit_of(value.metric)}
        directives.setdefault(sets, []).append(definition)
        document[value.metric.name] = value.value
    document["_aws"] = {
        "Timestamp": milliseconds,
        "CloudWatchMetrics": [
            {"Namespace": namespace, "Dimensions": sets, "Metrics": metrics}
            for sets, metrics in directives.items()
        ],
    }
    return json.dumps(document, separators=(",", ":"))


def _values(counted: Snapshot) -> Iterator[_Value]:
    latencies: dict[tuple[str, ...], list[Latencies]] = {}
    for key, each in counted.operations.items():
        labels = zip(names.OPERATIONS.labels, map(str, key), strict=True)
        latencies.setdefault(tuple(value for label, value in labels if label != _LEFT_OUT), []).append(each)
    for values, parts in latencies.items():
        together = combined(parts)
        if together.count:
            dimensions = _dimensions(names.OPERATIONS, values)
            yield _Value(names.OPERATIONS, dimensions, together.count)
            yield _Value(names.DURATION, dimensions, _sampled(together))
    counts: dict[tuple[Metric, tuple[str, ...]], int] = {}
    for series, count in counted.counters.items():
        labels = zip(series.metric.labels, series.labels, strict=True)
        identity = series.metric, tuple(value for label, value in labels if label != _LEFT_OUT)
        counts[identity] = counts.get(identity, 0) + count
    for (metric, values), count in counts.items():
        if count:
            yield _Value(metric, _dimensions(metric, values), count)
    for series, gauge in counted.gauges.items():
        yield _Value(series.metric, _dimensions(series.metric, series.labels), gauge)


def _dimensions(metric: Metric, values: Iterable[str]) -> dict[str, str]:
    labels = [label for label in metric.labels if label != _LEFT_OUT]
    dimensions = attributes_of(labels, values)
    if dimensions.get(ATTRIBUTES["outcome"]) == OK:
        del dimensions[ATTRIBUTES["outcome"]]
    return dimensions


def _sampled(latencies: Latencies) -> list[float]:
    """Durations distributed as all are, as many as a document may hold."""
    phase = random.random()  # noqa: S311 - no secret
    sample = latencies.sample(MAX_VALUES - 1, phase=phase)
    return [round(seconds, 9) for seconds, count in sample for _ in range(count)]


class EmfWriter:
    """Writes what was counted since the last time, now and then, in a thread of its own.

    Args:
        telemetry: where things are counted.
        write: takes a line, with its line break.
        pause: the time between two reports.
        namespace: of the metrics in CloudWatch.
        clock: the time in seconds since the epoch.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        write: Callable[[str], object],
        *,
        pause: timedelta = timedelta(minutes=1),
        namespace: str = NAMESPACE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._telemetry = telemetry
        self._write = write
        self._namespace = namespace
        self._clock = clock
        self._lock = Lock()
        self._told = Snapshot(time.monotonic(), {}, {}, {})
        self._ticker = Ticker("dualstore-emf", self.flush, pause=pause)

    def start(self) -> None:
        """Go on in a thread of its own; harmless where it does already."""
        self._ticker.start()

    def close(self) -> None:
        """Stop, and write what is left."""
        self._ticker.close()
        self.flush()

    def flush(self) -> None:
        """Write what was counted since the last time."""
        with self._lock:
            now = self._telemetry.snapshot()
            counted, self._told = now.since(self._told), now
            for line in lines(counted, milliseconds=int(self._clock() * 1_000), namespace=self._namespace):
                self._write(line + "\n")


def to_stream(name: Literal["stdout", "stderr"]) -> Callable[[str], None]:
    """What writes a line to the process's own output, also where the program has redirected it since."""

    def write(line: str) -> None:
        stream = getattr(sys, name)
        stream.write(line)
        stream.flush()

    return write
