"""What screens say in words."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dualstore.control import ControlRecord, Gate
from dualstore.rollout.screens import PlanPicture, Shown, TablePicture, words
from dualstore.rollout.standing import EventKind, PlanEvent, StepState
from dualstore.stages import Stage
from dualstore.store import TableStatus
from dualstore.stores.ledger import RunState
from dualstore.stores.outbox import OutboxDepth
from dualstore.stores.postgres_screens import RunSeen

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUN = RunSeen(
    "backfill", RunState.RUNNING, "copying", "go", None, NOON, None, None, 1_000, 2, 8, 0, 4_000, NOON, "1"
)


def status(stage: Stage = Stage.SHADOW, *, record: Any = None, **changed: Any) -> TableStatus:
    record = ControlRecord("orders", stage=stage, **(record or {}))
    return replace(TableStatus("orders", record, [], 0, 0, mirror_up=True, refusal=None), **changed)


def test_a_stage_is_said_with_whose_word_is_final() -> None:
    shown = TablePicture(name="orders", shown=Shown(status(Stage.LIVE)))
    assert words.position(shown) == "live (PostgreSQL authoritative)"
    known = TablePicture(name="orders", last_known=ControlRecord("orders", stage=Stage.LIVE))
    assert words.position(known) == "last known: live (PostgreSQL authoritative)"
    assert words.position(TablePicture(name="orders")) == "unknown"


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (status(), "none"),
        (status(Stage.LIVE, outbox=OutboxDepth()), "none"),
        (status(dirty_keys=2), "2 key(s) in doubt"),
        (status(dirty_keys=None), "PostgreSQL does not answer"),
        (status(journal_keys=3), "3 in the journal"),
        (status(record={"gate": Gate.SHUT}), "the mirror may not be read"),
        (status(record={"suspects": frozenset({"a"})}), "only a verification clears them"),
        (
            status(Stage.LIVE, outbox=OutboxDepth(5, oldest_age=timedelta(seconds=2))),
            "5 waiting, oldest 2.0 s",
        ),
    ],
)
def test_pending_mirror_writes_are_said_in_words(seen: TableStatus, said: str) -> None:
    assert words.pending(seen).startswith("pending mirror writes: ")
    assert said in words.pending(seen)


def test_a_run_under_way_tells_how_far_it_is_and_who_paused_it() -> None:
    assert "1,000 items of about 4,000, 2/8 pieces" in words.run(RUN)
    assert "asked to pause by kim" in words.run(replace(RUN, wish="pause", wish_by="kim"))


def test_a_verification_that_ended_tells_what_it_found() -> None:
    ended = replace(
        RUN,
        kind="verify",
        state=RunState.FINISHED,
        finished_at=NOON + timedelta(seconds=90),
        result={"difference_count": 3, "repaired": 2},
    )
    assert "verify finished in 90 s" in words.run(ended)
    assert "3 difference(s), 2 repaired" in words.run(ended)


def test_a_halted_plan_tells_who_halted_it_and_why() -> None:
    halt = PlanEvent(EventKind.HALTED, None, "kim", NOON, reason="p99 doubled")
    plan = PlanPicture(
        name="move", steps=(("a", StepState.DONE), ("b", StepState.FAILED)), halted=halt, holder=None
    )
    said = words.plan(plan)
    assert "1 of 2 steps done, at b (failed), halted by kim" in said
    assert "p99 doubled" in said
