"""Where a table stands, in words."""

import pytest

from dualstore.control import ControlRecord, Phase
from dualstore.stages import Stage
from dualstore.store import ProcessStatus, TableStatus


def status(record, processes=()):
    return TableStatus(
        logical="orders",
        record=record,
        processes=processes,
        dirty_keys=0,
        journal_keys=0,
        mirror_up=True,
        refusal=None,
    )


@pytest.mark.parametrize(
    ("record", "position"),
    [
        (ControlRecord("t", Stage.SHADOW), "shadow (DynamoDB authoritative)"),
        (ControlRecord("t", Stage.LIVE), "live (PostgreSQL authoritative)"),
        (
            ControlRecord("t", Stage.SHADOW, phase=Phase.CLOSED, target=Stage.LIVE),
            "shadow, writes pause: PostgreSQL takes over",
        ),
        (
            ControlRecord("t", Stage.LIVE, phase=Phase.CLOSED, target=Stage.SHADOW),
            "live, writes pause: DynamoDB takes over",
        ),
        (ControlRecord("t", Stage.LIVE, phase=Phase.MOVED), "live, about to begin: PostgreSQL takes over"),
    ],
)
def test_the_position_says_who_decides_writes(record, position):
    assert status(record).position == position


def test_every_process_is_named_with_whether_it_has_taken_the_last_decision():
    taken = {"a:1": True, "b:2": False}
    processes = [ProcessStatus(label, "1.0", 0.0, confirmed) for label, confirmed in taken.items()]
    assert status(ControlRecord("t"), processes).confirmed == taken


def test_a_suspect_process_leaves_a_table_pending():
    assert not status(ControlRecord("t")).pending
    assert status(ControlRecord("t", suspects=frozenset({"p"}))).pending
