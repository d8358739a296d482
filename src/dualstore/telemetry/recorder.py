"""The object that everything reports to: cells in the process, read by a snapshot or by OpenTelemetry."""

import logging
import time
from collections.abc import Callable, Mapping
from threading import Lock

from opentelemetry.trace import Tracer

from dualstore.stages import Side
from dualstore.telemetry import spans
from dualstore.telemetry.events import MEASURED, Event, OperationFinished, Role
from dualstore.telemetry.latency import LatencyCell
from dualstore.telemetry.names import OK, SPAN_EVENTS, Kind, Metric, attributes_of
from dualstore.telemetry.snapshot import OperationKey, Series, Snapshot

logger = logging.getLogger(__name__)

Listener = Callable[[Event], None]

_MAX_CELLS = 4_096
OTHER = "other"
"""The outcome that is counted once there are more kinds of operations than cells."""


class Telemetry:
    """Counts what happens.

    An operation costs about 1 µs here whether or not OpenTelemetry's SDK is installed: its instruments
    (13 µs a call) are fed when they are collected, by `otel.export`, and spans (15 µs each) are made of a
    share of the traces that the application records.

    Args:
        span_percent: the share of all traces in which operations get spans; see `Spans`.
        tracer: makes the spans; None takes that of the global tracer provider.
    """

    def __init__(self, *, span_percent: float = spans.DEFAULT_PERCENT, tracer: Tracer | None = None) -> None:
        self.spans = spans.Spans(span_percent, tracer)
        """Makes the spans; where `spans.on`, `with spans.around(...)` holds what is done for an operation."""
        self._lock = Lock()
        self._cells: dict[tuple[str, str, Side, Role, str], LatencyCell] = {}
        self._counters: dict[Series, int] = {}
        self._gauges: dict[Series, float] = {}
        self._listeners: tuple[Listener, ...] = ()

    def operation(  # noqa: PLR0917 - keywords would add 0.1 µs to every operation
        self, table: str, operation: str, side: Side, role: Role, seconds: float, outcome: str = OK
    ) -> None:
        """Count an operation that a side answered or failed to answer.

        Args:
            table: the table's logical name.
            operation: the DynamoDB API operation, such as `GetItem`.
            side: who was asked.
            role: as what.
            seconds: how long it took.
            outcome: `ok`, DynamoDB's error code, or the class of the error.
        """
        cell = self._cells.get((table, operation, side, role, outcome))
        if cell is None:
            cell = self._new_cell(OperationKey(table, operation, side, role, outcome))
        cell.add(seconds)
        if self.spans.on:
            self.spans.after(table, operation, side, role, seconds, outcome)
        if self._listeners:
            self._tell(OperationFinished(table, operation, side, role, seconds, outcome))

    def record(self, event: Event, *, times: int = 1) -> None:
        """Count an event, or remember what it says of the present.

        Args:
            event: what happened.
            times: so often, one after the other; an operation that finished is counted by itself.
        """
        if isinstance(event, OperationFinished):
            self.operation(event.table, event.operation, event.side, event.role, event.seconds, event.outcome)
            return
        measured = [
            (metric, Series(metric, tuple([str(getattr(event, label)) for label in metric.labels])))
            for metric in MEASURED[type(event)]
        ]
        with self._lock:
            for metric, series in measured:
                if metric.kind is Kind.GAUGE:
                    self._gauges[series] = float(getattr(event, metric.value or ""))
                else:
                    self._counters[series] = self._counters.get(series, 0) + times
        if self.spans.on:
            for metric, series in measured:
                if metric in SPAN_EVENTS:
                    spans.note(SPAN_EVENTS[metric], attributes_of(metric.labels, series.labels))
        if self._listeners:
            for _ in range(times):
                self._tell(event)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell somebody of every event from now on, in the thread where it happens.

        Returns:
            What ends it when called.
        """
        with self._lock:
            self._listeners = (*self._listeners, listener)
        return lambda: self._forget(listener)

    def snapshot(self) -> Snapshot:
        """Everything counted so far. `later.since(earlier)` is what happened in between."""
        self.spans.look()
        with self._lock:
            counters, gauges = dict(self._counters), dict(self._gauges)
            cells = list(self._cells.items())
        operations = {OperationKey(*key): cell.read() for key, cell in cells}
        return Snapshot(time.monotonic(), operations, counters, gauges)

    def values(self, metric: Metric) -> Mapping[Series, float]:
        """The present values of one counter or gauge, by its labels."""
        kept = self._gauges if metric.kind is Kind.GAUGE else self._counters
        with self._lock:
            return {series: value for series, value in kept.items() if series.metric is metric}

    def _new_cell(self, key: OperationKey) -> LatencyCell:
        self.spans.look()
        with self._lock:
            if len(self._cells) >= _MAX_CELLS:
                key = OperationKey(OTHER, key.operation, key.side, key.role, OTHER)
            return self._cells.setdefault(key, LatencyCell())

    def _forget(self, listener: Listener) -> None:
        with self._lock:
            self._listeners = tuple(other for other in self._listeners if other is not listener)

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("A telemetry listener failed on %s; it stays", type(event).__name__)
