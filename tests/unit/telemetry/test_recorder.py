"""What is counted, and what it costs."""

import dataclasses
import logging
import typing

import pytest

from dualstore.stages import Dials, Side, Stage
from dualstore.telemetry import (
    DirtySeen,
    Event,
    FellBack,
    GrantExpired,
    Role,
    StageSeen,
    Telemetry,
    names,
)
from dualstore.telemetry.events import MEASURED


def test_every_event_has_an_example_and_a_metric(events):
    assert {type(event) for event in events} == set(typing.get_args(Event)) == set(MEASURED)
    assert {metric for metrics in MEASURED.values() for metric in metrics} == set(names.METRICS)


def test_every_label_and_value_of_a_metric_is_a_field_of_its_event(events):
    for event in events:
        for metric in MEASURED[type(event)]:
            for label in metric.labels:
                assert label in names.ATTRIBUTES
                assert isinstance(getattr(event, label), str)
            if metric.value is not None:
                assert isinstance(getattr(event, metric.value), int | float)


def test_no_two_metrics_share_a_name():
    assert len({metric.name for metric in names.METRICS}) == len(names.METRICS)


def test_events_are_frozen_and_listened_to(events):
    telemetry, heard = Telemetry(), []
    stop = telemetry.listen(heard.append)
    for event in events:
        telemetry.record(event)
    stop()
    for event in events:
        telemetry.record(event)
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.table = "carts"
    assert heard == events


def test_what_happens_is_counted_by_its_labels():
    telemetry = Telemetry()
    telemetry.record(FellBack("orders", "Query", "dirty"))
    telemetry.record(FellBack("orders", "Query", "timeout"))
    telemetry.record(FellBack("carts", "Query", "timeout"))
    snapshot = telemetry.snapshot()
    assert snapshot.count(names.FALLBACKS) == 3
    assert snapshot.count(names.FALLBACKS, table="orders") == 2
    assert snapshot.count(names.FALLBACKS, table="orders", reason="timeout") == 1
    assert snapshot.count(names.FALLBACKS, table="absent") == 0


def test_a_gauge_holds_what_was_said_last():
    telemetry = Telemetry()
    assert telemetry.snapshot().gauge(names.DIRTY_KEYS) is None
    for keys in (5, 2):
        telemetry.record(DirtySeen("orders", keys))
    telemetry.record(DirtySeen("carts", 1))
    assert telemetry.snapshot().gauge(names.DIRTY_KEYS, table="orders") == 2
    assert telemetry.snapshot().gauge(names.DIRTY_KEYS) == 3


@pytest.mark.parametrize(
    ("stage", "dials", "seen"),
    [
        (Stage.OFF, Dials(50.0), (0, 0, 0, 0)),
        (Stage.DUALWRITE, Dials(10.0, 20.0), (1, 10, 20, 0)),
        (Stage.SHADOW, Dials(10.0), (2, 10, 100, 100)),
        (Stage.LIVE, Dials(10.0, 100.0, 5.0), (3, 100, 100, 5)),
        (Stage.COMPLETE, Dials(), (5, 100, 0, 0)),
    ],
)
def test_the_dials_shown_are_those_in_force_at_the_stage(stage, dials, seen):
    telemetry = Telemetry()
    telemetry.record(StageSeen("orders", stage, dials))
    snapshot = telemetry.snapshot()
    metrics = (names.STAGE, names.POSTGRES_READ_PERCENT, names.MIRROR_PERCENT, names.SHADOW_PERCENT)
    assert tuple(snapshot.gauge(metric, table="orders") for metric in metrics) == seen


def test_latencies_are_kept_by_table_operation_side_role_and_outcome():
    telemetry = Telemetry()
    telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.001)
    telemetry.operation("orders", "GetItem", Side.POSTGRES, Role.SHADOW, 0.010)
    telemetry.operation("orders", "PutItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.100, "ThrottlingException")
    snapshot = telemetry.snapshot()
    assert snapshot.latencies().count == 3
    assert snapshot.latencies(side=Side.POSTGRES).p50_ms == pytest.approx(10, rel=0.07)
    assert snapshot.latencies(side=Side.DYNAMODB, outcome="ok").count == 1
    assert snapshot.latencies(operation="PutItem", role=Role.AUTHORITATIVE).count == 1
    assert snapshot.latencies(table="carts").count == 0


def test_a_snapshot_since_an_earlier_one_holds_what_happened_in_between():
    telemetry = Telemetry()
    telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.001)
    telemetry.record(GrantExpired("orders", "read"))
    earlier = telemetry.snapshot()
    assert earlier.per_second(1) is None
    for _ in range(4):
        telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.001)
    telemetry.operation("carts", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.001)
    between = telemetry.snapshot().since(earlier)
    assert between.latencies(table="orders").count == 4
    assert between.latencies(table="carts").count == 1
    assert between.count(names.GRANTS_EXPIRED) == 0
    assert between.per_second(5) > 0


def test_a_listener_that_fails_hurts_nobody(caplog):
    telemetry, heard = Telemetry(), []
    telemetry.listen(lambda _: 1 / 0)
    telemetry.listen(heard.append)
    with caplog.at_level(logging.ERROR):
        telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.001)
    assert len(heard) == 1
    assert "listener failed" in caplog.text


def test_memory_stays_bounded_however_many_outcomes_there_are():
    telemetry = Telemetry()
    for n in range(5_000):
        telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.MIRROR, 0.001, f"Error{n}")
    snapshot = telemetry.snapshot()
    assert len(snapshot.operations) < 4_200
    assert snapshot.latencies().count == 5_000


def test_an_event_that_happened_several_times_is_counted_and_told_so_often():
    telemetry, heard = Telemetry(), []
    telemetry.listen(heard.append)
    fell_back = FellBack("orders", "GetItem", "dirty")
    telemetry.record(fell_back, times=3)
    telemetry.record(fell_back)
    assert telemetry.snapshot().count(names.FALLBACKS, table="orders", reason="dirty") == 4
    assert heard == [fell_back] * 4
