"""What OpenTelemetry's SDK receives (its in-memory reader, no network)."""

import gc

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from dualstore.stages import Dials, Side, Stage
from dualstore.telemetry import FellBack, GateSeen, Role, StageSeen, Telemetry, export, names
from dualstore.telemetry.otel import MAX_REPLAYED


class Collected:
    def __init__(self):
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        self.meter = self.provider.get_meter("dualstore")

    def metrics(self):
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, metric):
        found = self.metrics().get(metric.name)
        return [] if found is None else list(found.data.data_points)


@pytest.fixture
def collected():
    collected = Collected()
    yield collected
    collected.provider.shutdown()


@pytest.fixture
def telemetry(collected):
    telemetry = Telemetry()
    export(telemetry, collected.meter)
    return telemetry


def test_operations_are_exported_with_conventional_attributes(telemetry, collected):
    telemetry.operation("orders", "GetItem", Side.POSTGRES, Role.MIRROR, 0.002)
    telemetry.operation("orders", "PutItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.2, "ThrottlingException")
    points = {tuple(sorted(p.attributes.items())): p.value for p in collected.points(names.OPERATIONS)}
    assert points == {
        (
            ("db.collection.name", "orders"),
            ("db.operation.name", "GetItem"),
            ("db.system.name", "postgresql"),
            ("dualstore.role", "mirror"),
        ): 1,
        (
            ("db.collection.name", "orders"),
            ("db.operation.name", "PutItem"),
            ("db.system.name", "aws.dynamodb"),
            ("dualstore.role", "authoritative"),
            ("error.type", "ThrottlingException"),
        ): 1,
    }


def test_durations_arrive_in_the_collection_that_follows_them(telemetry, collected):
    for _ in range(10):
        telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.0025)
    telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.75)
    (point,) = collected.points(names.DURATION)
    assert point.explicit_bounds == names.DURATION_BOUNDARIES
    assert point.bucket_counts == (0, 10, 0, 0, 0, 0, 1, 0, 0, 0)
    assert point.sum == pytest.approx(0.775, rel=0.04)
    telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.0025)
    (point,) = collected.points(names.DURATION)
    assert point.count == 12, "each duration is recorded once"


def test_of_very_many_durations_an_even_sample_is_recorded_and_all_are_counted(telemetry, collected):
    for n in range(20_000):
        telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.MIRROR, 2.0 if n % 10 == 0 else 0.002)
    metrics = collected.metrics()
    (duration,) = metrics[names.DURATION.name].data.data_points
    (operations,) = metrics[names.OPERATIONS.name].data.data_points
    assert operations.value == 20_000
    assert duration.count == pytest.approx(MAX_REPLAYED, abs=1)
    assert duration.bucket_counts[7] == pytest.approx(MAX_REPLAYED / 10, abs=1)


def test_counters_and_gauges_are_exported_under_their_labels(telemetry, collected):
    telemetry.record(FellBack("orders", "Query", "dirty"))
    telemetry.record(GateSeen("orders", is_open=False))
    telemetry.record(StageSeen("orders", Stage.SHADOW, Dials(10.0)))
    (fallback,) = collected.points(names.FALLBACKS)
    assert fallback.value == 1
    assert dict(fallback.attributes) == {
        "db.collection.name": "orders",
        "db.operation.name": "Query",
        "dualstore.reason": "dirty",
    }
    assert [p.value for p in collected.points(names.GATE_OPEN)] == [0]
    assert [p.value for p in collected.points(names.STAGE)] == [2]
    assert [p.value for p in collected.points(names.POSTGRES_READ_PERCENT)] == [10]


def test_every_metric_is_exported_under_its_name_and_unit(telemetry, collected, events):
    for event in events:
        telemetry.record(event)
    metrics = collected.metrics()
    assert set(metrics) == {metric.name for metric in names.METRICS}
    for metric in names.METRICS:
        assert metrics[metric.name].unit == metric.unit
        assert metrics[metric.name].description == metric.description


def test_nothing_is_reported_of_a_telemetry_that_is_gone(collected):
    telemetry = Telemetry()
    export(telemetry, collected.meter)
    telemetry.record(GateSeen("orders", is_open=True))
    assert collected.points(names.GATE_OPEN)
    del telemetry
    gc.collect()
    assert not collected.points(names.GATE_OPEN)


def test_without_an_sdk_exporting_is_harmless():
    telemetry = Telemetry()
    export(telemetry)
    telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.MIRROR, 0.1)
    assert telemetry.snapshot().latencies().count == 1
