"""Spans: for which operations there are any, what they tell, and what they never do."""

from contextlib import suppress

import pytest
from botocore.exceptions import ClientError
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from dualstore.stages import Side
from dualstore.telemetry import BreakerSeen, FellBack, Role, Telemetry, Verdict, names
from dualstore.telemetry.events import MirrorFailed, ShadowCompared

CANARY = "canary-value"


class Failing(SpanProcessor):
    """A span processor of somebody else's that fails where it is told to."""

    def __init__(self, where):
        self.where = where

    def on_start(self, span, parent_context=None):
        self._fail("start", span)

    def on_end(self, span):
        self._fail("end", span)

    def _fail(self, where, span):
        if where == self.where and span.name != "request":
            raise RuntimeError(CANARY)


class CountedIds(RandomIdGenerator):
    """Trace ids that are spread evenly over all of them."""

    def __init__(self, traces):
        self.step = (1 << 64) // traces
        self.next = self.step // 2

    def generate_trace_id(self):
        self.next += self.step
        return (1 << 64) + self.next - self.step


class Traced:
    def __init__(self, percent=100.0, **options):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("service")
        self.telemetry = Telemetry(span_percent=percent, tracer=self.tracer)

    def request(self):
        return self.tracer.start_as_current_span("request")

    def spans(self):
        return [span for span in self.exporter.get_finished_spans() if span.name != "request"]


def read(telemetry, outcome="ok", side=Side.DYNAMODB, role=Role.AUTHORITATIVE):
    telemetry.operation("orders", "GetItem", side, role, 0.25, outcome)


def test_an_operation_has_a_client_span_below_the_callers_with_conventional_attributes():
    traced = Traced()
    with traced.request() as request:
        read(traced.telemetry)
    (span,) = traced.spans()
    assert (span.name, span.kind) == ("GetItem orders", SpanKind.CLIENT)
    assert span.parent.span_id == request.get_span_context().span_id
    assert dict(span.attributes) == {
        "db.system.name": "aws.dynamodb",
        "db.operation.name": "GetItem",
        "db.collection.name": "orders",
        "dualstore.role": "authoritative",
    }
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(0.25)
    assert span.status.status_code is StatusCode.UNSET


def test_an_operation_that_failed_says_how():
    traced = Traced()
    with traced.request():
        read(traced.telemetry, "ThrottlingException")
    (span,) = traced.spans()
    assert span.attributes["error.type"] == "ThrottlingException"
    assert span.status.status_code is StatusCode.ERROR


def test_a_condition_that_does_not_hold_is_an_answer():
    traced = Traced()
    with traced.request():
        read(traced.telemetry, "ConditionalCheckFailedException")
    (span,) = traced.spans()
    assert span.attributes["error.type"] == "ConditionalCheckFailedException"
    assert span.status.status_code is StatusCode.UNSET


def test_without_a_callers_span_there_is_none():
    traced = Traced()
    read(traced.telemetry, "ThrottlingException")
    assert traced.spans() == []


def test_a_trace_that_is_not_recorded_gets_none():
    traced = Traced(sampler=ALWAYS_OFF)
    with traced.request(), traced.telemetry.spans.around("orders", "GetItem"):
        read(traced.telemetry, "ThrottlingException")
    assert traced.spans() == []


def test_what_the_caller_does_not_sample_is_not_even_asked_for():
    """Its own tracer would record it: a tracer need not follow its parent."""
    traced, caller = Traced(sampler=ALWAYS_ON), TracerProvider(sampler=ALWAYS_OFF).get_tracer("service")
    with caller.start_as_current_span("request"), traced.telemetry.spans.around("orders", "GetItem"):
        read(traced.telemetry, "ThrottlingException")
    assert traced.spans() == []


def test_a_span_around_an_operation_holds_what_the_sides_did():
    traced = Traced()
    with traced.request() as request, traced.telemetry.spans.around("orders", "PutItem"):
        traced.telemetry.operation("orders", "PutItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.01)
        traced.telemetry.operation("orders", "WriteDirect", Side.POSTGRES, Role.MIRROR, 0.01)
    authority, mirror, around = traced.spans()
    assert (around.name, around.kind) == ("dualstore PutItem orders", SpanKind.INTERNAL)
    assert around.parent.span_id == request.get_span_context().span_id
    assert {authority.parent.span_id, mirror.parent.span_id} == {around.context.span_id}


def test_a_span_around_an_operation_that_raises_tells_the_class_and_not_the_text():
    traced = Traced()
    with traced.request(), pytest.raises(ValueError), traced.telemetry.spans.around("orders", "PutItem"):
        raise ValueError("canary")
    (span,) = traced.spans()
    assert span.attributes["error.type"] == "ValueError"
    assert "canary" not in span.to_json()


def test_a_span_around_an_operation_that_dynamodb_refuses_names_its_code():
    traced = Traced()
    refusal = {"Error": {"Code": "ConditionalCheckFailedException", "Message": "canary"}}
    with traced.request(), suppress(ClientError), traced.telemetry.spans.around("orders", "PutItem"):
        raise ClientError(refusal, "PutItem")
    (span,) = traced.spans()
    assert span.attributes["error.type"] == "ConditionalCheckFailedException"
    assert "canary" not in span.to_json()


@pytest.mark.parametrize("where", ["start", "end"])
def test_a_span_processor_that_fails_hurts_nobody_and_its_words_are_not_logged(where, caplog):
    traced = Traced()
    traced.provider.add_span_processor(Failing(where))
    with traced.request() as request:
        with traced.telemetry.spans.around("orders", "Query"):
            read(traced.telemetry)
        assert trace.get_current_span() is request
        with (
            pytest.raises(ValueError, match="the caller's"),
            traced.telemetry.spans.around("orders", "Query"),
        ):
            raise ValueError("the caller's")
        assert trace.get_current_span() is request
    assert len(traced.telemetry.snapshot().operations) == 1
    assert "RuntimeError" in caplog.text
    assert CANARY not in caplog.text


def test_an_event_that_its_span_does_not_take_hurts_nobody(caplog):
    class Refusing(trace.NonRecordingSpan):
        def is_recording(self):
            return True

        def add_event(self, *_, **__):
            raise RuntimeError(CANARY)

    traced = Traced()
    with trace.use_span(Refusing(trace.INVALID_SPAN_CONTEXT)):
        traced.telemetry.record(FellBack("orders", "GetItem", "dirty"))
    assert traced.telemetry.snapshot().count(names.FALLBACKS) == 1
    assert "RuntimeError" in caplog.text
    assert CANARY not in caplog.text


def test_what_is_done_after_the_callers_span_has_ended_still_belongs_to_its_trace():
    """As a shadow read, which runs in the context of its caller later."""
    traced = Traced()
    with traced.request() as request:
        pass
    with trace.use_span(request, end_on_exit=False):
        read(traced.telemetry, role=Role.SHADOW)
    (span,) = traced.spans()
    assert span.context.trace_id == request.get_span_context().trace_id


def test_a_share_of_the_traces_has_all_spans_and_the_others_none():
    traced = Traced(percent=25.0, id_generator=CountedIds(100))
    for _ in range(100):
        with traced.request(), traced.telemetry.spans.around("orders", "GetItem"):
            read(traced.telemetry)
            read(traced.telemetry)
    by_trace = [span.context.trace_id for span in traced.spans()]
    assert len(set(by_trace)) == 25
    assert all(by_trace.count(each) == 3 for each in by_trace)


def test_where_the_application_samples_less_every_trace_that_it_records_has_spans():
    traced = Traced(percent=10.0, sampler=TraceIdRatioBased(0.05), id_generator=CountedIds(1_000))
    for _ in range(1_000):
        with traced.request():
            read(traced.telemetry)
    requests = [span for span in traced.exporter.get_finished_spans() if span.name == "request"]
    assert len(requests) == len(traced.spans()) == 50


def test_what_failed_has_a_span_in_every_recorded_trace():
    traced = Traced(percent=1e-9)
    with traced.request():
        read(traced.telemetry, "Unavailable")
        read(traced.telemetry)
    assert [span.attributes["error.type"] for span in traced.spans()] == ["Unavailable"]


def test_with_a_share_of_0_there_are_none_at_all():
    traced = Traced(percent=0)
    with traced.request(), traced.telemetry.spans.around("orders", "GetItem"):
        read(traced.telemetry, "Unavailable")
    assert traced.spans() == []


@pytest.mark.parametrize(
    ("event", "told", "attributes"),
    [
        (
            FellBack("orders", "Query", "dirty"),
            "dualstore.fallback",
            {
                "db.collection.name": "orders",
                "db.operation.name": "Query",
                "dualstore.reason": "dirty",
            },
        ),
        (
            MirrorFailed("orders", "WriteDirect", "Unavailable"),
            "dualstore.mirror.failure",
            {
                "db.collection.name": "orders",
                "db.operation.name": "WriteDirect",
                "dualstore.reason": "Unavailable",
            },
        ),
        (
            BreakerSeen("orders", Side.POSTGRES, role=Role.MIRROR, is_open=True),
            "dualstore.breaker",
            {"db.collection.name": "orders", "db.system.name": "postgresql", "dualstore.role": "mirror"},
        ),
    ],
)
def test_what_went_another_way_is_an_event_of_the_callers_span(event, told, attributes):
    traced = Traced()
    with traced.request() as request:
        traced.telemetry.record(event)
        traced.telemetry.record(ShadowCompared("orders", "GetItem", Verdict.EQUAL))
    assert [(each.name, dict(each.attributes)) for each in request.events] == [(told, attributes)]


def test_spans_begin_once_an_sdk_is_there(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(span_percent=100)
    with provider.get_tracer("service").start_as_current_span("request"):
        read(telemetry)
        assert exporter.get_finished_spans() == ()
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        telemetry.snapshot()  # as the reports in the background take it
        read(telemetry)
    assert [span.name for span in exporter.get_finished_spans()] == ["GetItem orders", "request"]
