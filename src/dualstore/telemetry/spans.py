"""Spans of the operations that belong to a recorded trace, for a share of all traces.

Span processors are the application's. What one of them raises is logged by its class, and ends here: spans
are made in the midst of callers' reads and writes.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from time import time_ns
from typing import TypeAlias

from botocore.exceptions import ClientError
from opentelemetry.context import attach, detach
from opentelemetry.trace import (
    INVALID_SPAN,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    get_tracer,
    get_tracer_provider,
    set_span_in_context,
)

from dualstore.stages import Side
from dualstore.telemetry.names import ANSWERS, ATTRIBUTES, OK, SYSTEMS, TRACER

logger = logging.getLogger(__name__)

DEFAULT_PERCENT = 3.0

Attributes: TypeAlias = dict[str, str]

_NANOSECONDS = 1_000_000_000
_LOW_BITS = (1 << 64) - 1
_NOTHING = nullcontext()


class _Around:
    """Makes a span the current one within a block; of an error it tells its code, or its class, alone."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._token = attach(set_span_in_context(self._span))

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        detach(self._token)
        try:
            if error is not None:
                self._span.set_attribute(ATTRIBUTES["outcome"], _error_type(error))
            self._span.end()
        except Exception as failure:  # noqa: BLE001 - a processor of somebody else's
            _note_failure(failure)


class Spans:
    """Makes spans where the caller's own span is recorded, in the share of traces that is asked for.

    The share is taken by the trace's id, as OpenTelemetry's `TraceIdRatioBased` sampler takes its own (by the
    lower 64 bits, from below). So a trace has all of dualstore's spans or none; and where the application
    samples no more traces than this share, every trace that it records has them. What failed has its span
    in every recorded trace.

    Args:
        percent: the share of all traces, from 0 to 100.
        tracer: None takes that of the global tracer provider, also of one that is set later.
    """

    __slots__ = ("_bound", "_is_given", "_tracer", "on")

    def __init__(self, percent: float = DEFAULT_PERCENT, tracer: Tracer | None = None) -> None:
        self._bound = round((_LOW_BITS + 1) * percent / 100)
        self._is_given = tracer is not None
        self._tracer = tracer or get_tracer(TRACER)
        self.on = False
        """Whether anybody records spans at all: looking for the caller's takes 0.2 µs, looking here 0.01."""
        self.look()

    def look(self) -> None:
        """See whether anybody records spans by now."""
        has_sdk = not isinstance(get_tracer_provider(), ProxyTracerProvider)
        self.on = self._bound > 0 and (self._is_given or has_sdk)

    def around(self, table: str, operation: str) -> AbstractContextManager[None]:
        """A span around all that is done for an operation; nothing at all where it is not to be recorded."""
        if not self.on:
            return _NOTHING
        parent = get_current_span()
        if parent is INVALID_SPAN or not self._covers(parent.get_span_context()):
            return _NOTHING
        attributes = {ATTRIBUTES["table"]: table, ATTRIBUTES["operation"]: operation}
        try:
            return _Around(self._tracer.start_span(f"dualstore {operation} {table}", attributes=attributes))
        except Exception as failure:  # noqa: BLE001 - a processor of somebody else's
            _note_failure(failure)
            return _NOTHING

    def after(  # noqa: PLR0917 - as `Telemetry.operation`, for its speed
        self, table: str, operation: str, side: Side, role: str, seconds: float, outcome: str
    ) -> None:
        """A span of what a side has just answered, or failed to answer; below the caller's own span."""
        parent = get_current_span()
        if parent is INVALID_SPAN:
            return
        context = parent.get_span_context()
        if not self._covers(context, failed=outcome not in ANSWERS):
            return
        attributes: Attributes = {
            ATTRIBUTES["side"]: SYSTEMS[side],
            ATTRIBUTES["table"]: table,
            ATTRIBUTES["operation"]: operation,
            ATTRIBUTES["role"]: role,
        }
        if outcome != OK:
            attributes[ATTRIBUTES["outcome"]] = outcome
        ended = time_ns()
        try:
            span = self._tracer.start_span(
                f"{operation} {table}",
                kind=SpanKind.CLIENT,
                attributes=attributes,
                start_time=ended - int(seconds * _NANOSECONDS),
            )
            if outcome not in ANSWERS:
                span.set_status(Status(StatusCode.ERROR))
            span.end(ended)
        except Exception as failure:  # noqa: BLE001 - a processor of somebody else's
            _note_failure(failure)

    def _covers(self, parent: SpanContext, *, failed: bool = False) -> bool:
        """Whether a trace is recorded, and of the share; an ended span still says so of its trace."""
        if not parent.trace_flags.sampled:
            return False
        return failed or parent.trace_id & _LOW_BITS < self._bound


def _error_type(error: BaseException) -> str:
    """DynamoDB's code of an error, or the class of one that has none."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ClientError.__name__))
    return type(error).__name__


def note(name: str, attributes: Attributes) -> None:
    """An event of the span that is current, where that is recorded."""
    span = get_current_span()
    try:
        if span is not INVALID_SPAN and span.is_recording():
            span.add_event(name, attributes)
    except Exception as failure:  # noqa: BLE001 - the span is somebody else's
        _note_failure(failure)


def _note_failure(failure: Exception) -> None:
    # Its text may hold anything.
    logger.warning("A span was not recorded: %s", type(failure).__name__)
