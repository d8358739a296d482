"""Figures: what is taken out of a snapshot, that they add up, and that nothing is lost on the way to JSON."""

import json

from hypothesis import given
from hypothesis import strategies as st

from dualstore.stages import Side
from dualstore.telemetry import (
    FellBack,
    MirrorFailed,
    Role,
    ShadowCompared,
    ShadowDropped,
    ShadowShare,
    Telemetry,
    Verdict,
)
from dualstore.telemetry.figures import Doer, Figures, Work
from dualstore.telemetry.snapshot import Snapshot

NOTHING = Snapshot(0.0, {}, {}, {})
DYNAMODB_READS = Doer(Work.READ, Side.DYNAMODB, Role.AUTHORITATIVE)


def counted(telemetry, table="orders"):
    return Figures.of(telemetry.snapshot().since(NOTHING), table)


def test_operations_are_added_up_by_work_side_and_role():
    telemetry = Telemetry()
    for name in ("GetItem", "BatchGetItem", "Query", "PutItem", "DeleteItem"):
        telemetry.operation("orders", name, Side.DYNAMODB, Role.AUTHORITATIVE, 0.01)
    telemetry.operation("orders", "WriteDirect", Side.POSTGRES, Role.MIRROR, 0.01)
    telemetry.operation("carts", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.01)
    figures = counted(telemetry)
    assert {doer: done.count for doer, done in figures.done.items()} == {
        DYNAMODB_READS: 2,
        Doer(Work.LISTING, Side.DYNAMODB, Role.AUTHORITATIVE): 1,
        Doer(Work.WRITE, Side.DYNAMODB, Role.AUTHORITATIVE): 2,
        Doer(Work.WRITE, Side.POSTGRES, Role.MIRROR): 1,
    }


def test_what_was_not_answered_is_an_error_and_has_no_latency():
    telemetry = Telemetry()
    for outcome in ("ok", "ConditionalCheckFailedException", "Unavailable", "ThrottlingException"):
        telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.01, outcome)
    done = counted(telemetry).done[DYNAMODB_READS]
    assert (done.count, done.errors, done.latencies.count) == (4, 2, 2)


def test_comparisons_fallbacks_and_failures_of_a_table_are_counted():
    telemetry = Telemetry()
    for verdict in (Verdict.EQUAL, Verdict.EQUAL, Verdict.MISMATCH):
        telemetry.record(ShadowCompared("orders", "GetItem", verdict))
    telemetry.record(ShadowCompared("carts", "GetItem", Verdict.MISMATCH))
    telemetry.record(ShadowDropped("orders", "GetItem", "queue_full"))
    telemetry.record(FellBack("orders", "GetItem", "dirty"))
    telemetry.record(MirrorFailed("orders", "PutItem", "timeout"))
    assert counted(telemetry).counts == {
        "equal": 2,
        "mismatch": 1,
        "dropped": 1,
        "fallbacks": 1,
        "mirror_failures": 1,
    }


def test_what_was_counted_before_is_left_out():
    telemetry = Telemetry()
    telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.01)
    before = telemetry.snapshot()
    assert not Figures.of(telemetry.snapshot().since(before), "orders")
    telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.01)
    assert Figures.of(telemetry.snapshot().since(before), "orders").done[DYNAMODB_READS].count == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["GetItem", "Query", "PutItem"]),
            st.sampled_from(list(Side)),
            st.sampled_from(list(Role)),
            st.floats(1e-6, 100),
            st.sampled_from(["ok", "Unavailable"]),
            st.booleans(),
        )
    )
)
def test_the_parts_add_up_to_the_whole_also_by_way_of_json(operations):
    parts, whole = (Telemetry(), Telemetry()), Telemetry()
    for name, side, role, seconds, outcome, first in operations:
        for telemetry in (parts[first], whole):
            telemetry.operation("orders", name, side, role, seconds, outcome)
            telemetry.record(ShadowCompared("orders", name, Verdict.EQUAL))
    told = [Figures.from_json(json.loads(json.dumps(counted(part).to_json()))) for part in parts]
    added, expected = Figures.sum(told), counted(whole)
    assert added.counts == expected.counts
    assert added.done.keys() == expected.done.keys()
    for doer, done in expected.done.items():
        assert added.done[doer].errors == done.errors
        assert added.done[doer].latencies.sparse() == done.latencies.sparse()


def test_one_side_in_several_roles_is_taken_together():
    telemetry = Telemetry()
    telemetry.operation("orders", "GetItem", Side.POSTGRES, Role.MIRROR, 0.01)
    telemetry.operation("orders", "GetItem", Side.POSTGRES, Role.SHADOW, 0.01, "Unavailable")
    telemetry.operation("orders", "Query", Side.POSTGRES, Role.SHADOW, 0.01)
    done = counted(telemetry).by(side=Side.POSTGRES, works=[Work.READ])
    assert (done.count, done.errors) == (2, 1)


def test_the_share_that_is_compared_is_the_mean_of_what_the_processes_told():
    parts = []
    for percent in (100.0, 19.0, None):
        telemetry = Telemetry()
        telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.01)
        if percent is not None:
            telemetry.record(ShadowShare("orders", percent))
        parts.append(Figures.from_json(json.loads(json.dumps(counted(telemetry).to_json()))))
    assert [part.shadow_share for part in parts] == [100, 19, None]
    assert Figures.sum(parts).shadow_share == 59.5


def test_a_share_alone_is_nothing_to_report():
    """It stays what it was when the last read came, however long ago that is."""
    telemetry = Telemetry()
    telemetry.record(ShadowShare("orders", 100.0))
    assert not counted(telemetry)
