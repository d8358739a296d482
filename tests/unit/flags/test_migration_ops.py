"""LaunchDarkly's migration metrics, as its event service gets them from the real SDK."""

import time
from datetime import timedelta

import pytest
from pydantic import SecretStr

from dualstore.flags import Connection, LaunchDarklyFlags
from dualstore.flags.migration_ops import MigrationOps
from dualstore.stages import Side, Stage
from dualstore.telemetry import OperationFinished, Role, ShadowCompared, Telemetry, Verdict
from unit.flags.launchdarkly_service import flag

STAGE = "dualstore-orders-stage"
STAGES = ("off", "dualwrite", "shadow", "live", "rampdown", "complete")


class Unused:
    """An SDK client that must not be asked."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} in the caller's thread")


def finished(operation="GetItem", *, side=Side.DYNAMODB, role=Role.AUTHORITATIVE, **parts):
    return OperationFinished("orders", operation, side, role, **{"seconds": 0.0125, **parts})


def reported(launchdarkly, *events, per_second=100, **parts):
    """What LaunchDarkly is told of some events."""
    launchdarkly.put(flag(STAGE, *STAGES, serve=2, **parts))
    telemetry = Telemetry()
    uris = dict.fromkeys(("base_uri", "stream_uri", "events_uri"), launchdarkly.url)
    connection = Connection(sdk_key=SecretStr("key"), start_wait=timedelta(seconds=5), **uris)
    with LaunchDarklyFlags(connection, listen=telemetry.listen, operations_per_second=per_second) as flags:
        assert flags.requested("orders").stage is Stage.SHADOW
        for event in events:
            telemetry.record(event)
    deadline = time.monotonic() + 5
    while not launchdarkly.of_kind("summary") and time.monotonic() < deadline:
        time.sleep(0.005)
    return launchdarkly.of_kind("migration_op")


def measurements(event):
    return {each["key"]: each.get("values", each.get("value")) for each in event["measurements"]}


def test_an_operation_is_reported_with_origin_and_latency(launchdarkly):
    (told,) = reported(launchdarkly, finished())
    assert (told["operation"], told["evaluation"]["key"], told["evaluation"]["value"]) == (
        "read",
        STAGE,
        "shadow",
    )
    assert measurements(told) == {"invoked": {"old": True}, "latency_ms": {"old": 12.5}}


@pytest.mark.parametrize(
    ("event", "operation", "origin"),
    [
        (finished("PutItem"), "write", "old"),
        (finished("PutItem", side=Side.POSTGRES, role=Role.MIRROR), "write", "new"),
        (finished("Query", side=Side.POSTGRES), "read", "new"),
        (finished("Query", side=Side.POSTGRES, role=Role.SHADOW), "read", "new"),
        (finished("TransactWriteItems"), "write", "old"),
        (finished("BatchGetItem"), "read", "old"),
    ],
)
def test_sides_are_origins_and_operations_read_or_write(launchdarkly, event, operation, origin):
    (told,) = reported(launchdarkly, event)
    assert (told["operation"], measurements(told)["invoked"]) == (operation, {origin: True})


def test_a_failure_is_an_error_of_its_origin_and_a_refusal_is_none(launchdarkly):
    failed, refused = reported(
        launchdarkly,
        finished("PutItem", side=Side.POSTGRES, outcome="MirrorUnavailable"),
        finished("PutItem", outcome="ConditionalCheckFailedException"),
    )
    assert measurements(failed)["error"] == {"new": True}
    assert "error" not in measurements(refused)


@pytest.mark.parametrize(
    ("verdict", "consistent"), [(Verdict.EQUAL, True), (Verdict.LAG, True), (Verdict.MISMATCH, False)]
)
def test_a_comparison_is_a_consistency_check_of_both_origins(launchdarkly, verdict, consistent):
    (told,) = reported(launchdarkly, ShadowCompared("orders", "GetItem", verdict))
    assert measurements(told) == {"invoked": {"old": True, "new": True}, "consistent": consistent}


def test_a_comparison_that_proved_nothing_is_not_reported(launchdarkly):
    assert reported(launchdarkly, ShadowCompared("orders", "Scan", Verdict.INCOMPARABLE)) == []


def test_a_table_without_a_stage_flag_has_nothing_to_report_to(launchdarkly):
    other = OperationFinished("carts", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.01)
    assert reported(launchdarkly, other) == []


def test_the_check_ratio_of_the_migration_flag_is_kept(launchdarkly):
    compared = [ShadowCompared("orders", "GetItem", Verdict.EQUAL)] * 100
    told = reported(launchdarkly, *compared, migration={"checkRatio": 0})
    assert len(told) == 100
    assert not any("consistent" in measurements(event) for event in told), "one in 0 is none"


def test_no_more_than_so_many_a_second_are_reported(launchdarkly):
    assert len(reported(launchdarkly, *[finished()] * 50, per_second=7)) == 7


def test_a_caller_pays_for_a_queue_and_never_for_the_sdk():
    reports = MigrationOps(Unused(), None, stage_of=lambda _: Stage.SHADOW, per_second=2)
    for _ in range(5):
        reports.note(finished())
    assert reports.dropped == 3
    with pytest.raises(AssertionError, match="migration_variation"):
        reports.report()
