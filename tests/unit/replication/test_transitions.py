"""Which change may follow which: the whole table of moves, and un-mirroring in two steps."""

import itertools
import re
from dataclasses import replace

import pytest

from dualstore.control import ControlRecord, Phase
from dualstore.errors import IllegalTransition
from dualstore.flags import Requested
from dualstore.replication.transitions import Step, next_step
from dualstore.stages import Dials, Stage

OFF, DUALWRITE, SHADOW = Stage.OFF, Stage.DUALWRITE, Stage.SHADOW
REACHABLE = (OFF, DUALWRITE, SHADOW)


def record(stage: Stage, *, loaded: bool = False, read: float = 0.0, mirror: float = 100.0) -> ControlRecord:
    dials = Dials(postgres_read_percent=read, mirror_percent=mirror)
    return ControlRecord("items", stage=stage, dials=dials, loaded=loaded, generation=7)


def step(present: ControlRecord, *, reads_stopped: bool = True, **requested: object) -> Step:
    return next_step(present, Requested(**requested), reads_stopped=reads_stopped)  # type: ignore[arg-type]


@pytest.mark.parametrize(("present", "asked"), list(itertools.product(REACHABLE, Stage)))
def test_a_stage_may_be_followed_by_its_neighbours(present: Stage, asked: Stage) -> None:
    near = abs(list(Stage).index(present) - list(Stage).index(asked)) <= 1
    if not near:
        with pytest.raises(IllegalTransition, match="not next to it") as refused:
            step(record(present), stage=asked)
        named = re.search(r"Ask for (\w+) first", str(refused.value))
        assert named
        assert Stage(named[1]) in present.neighbours() - {present}
    elif asked is present:
        assert step(record(present), stage=asked) == Step({}, satisfied=True)
    elif asked.rule.authority is not present.rule.authority:
        taken = step(record(present), stage=asked)
        assert taken == Step({"phase": Phase.CLOSED, "target": asked}, towards=asked)
    else:
        taken = step(record(present), stage=asked)
        assert taken.satisfied
        assert taken.changes["stage"] is asked


@pytest.mark.parametrize(
    ("present", "asked", "first"),
    [(SHADOW, OFF, DUALWRITE), (OFF, SHADOW, DUALWRITE), (OFF, Stage.COMPLETE, DUALWRITE)],
)
def test_a_refused_jump_names_the_stage_in_between(present: Stage, asked: Stage, first: Stage) -> None:
    with pytest.raises(IllegalTransition, match=f"Ask for {first} first"):
        step(record(present), stage=asked)


def test_nothing_requested_is_satisfied_as_things_are() -> None:
    for stage in REACHABLE:
        assert step(record(stage)) == Step({}, satisfied=True)


READS_REFUSED = {
    "at stage off": (record(OFF, loaded=True), {}, "not every write is mirrored"),
    "while going off": (record(DUALWRITE, loaded=True), {"stage": OFF}, "not every write is mirrored"),
    "with a mirror dial that goes down": (
        record(SHADOW, loaded=True), {"mirror_percent": 50.0}, "mirror-percent 100",
    ),
    "while some keys are not mirrored": (record(DUALWRITE, loaded=True, mirror=50), {}, "mirror-percent 100"),
    "before the history is copied": (record(DUALWRITE), {}, "dualstore backfill"),
    "in the step that begins to mirror": (record(OFF), {"stage": DUALWRITE}, "dualstore backfill"),
    "where another key begins to be mirrored": (
        record(DUALWRITE, mirror=50), {"mirror_percent": 100.0}, "dualstore backfill",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READS_REFUSED)
def test_reads_are_not_dialled_to_a_mirror_that_may_lack_something(case: str) -> None:
    present, also, reason = READS_REFUSED[case]
    with pytest.raises(IllegalTransition, match=reason):
        step(present, postgres_read_percent=1.0, **also)


@pytest.mark.parametrize("stage", [DUALWRITE, SHADOW])
def test_reads_are_dialled_up_and_down_in_one_step_once_the_history_is_copied(stage: Stage) -> None:
    present = record(stage, loaded=True)
    up = step(present, postgres_read_percent=25.0)
    assert (up.satisfied, up.changes["dials"].postgres_read_percent) == (True, 25.0)
    assert "loaded" not in up.changes
    down = step(replace(present, **up.changes), postgres_read_percent=0.0)
    assert (down.satisfied, down.changes["dials"].postgres_read_percent) == (True, 0.0)


UNMIRRORING = {"stage off": {"stage": OFF}, "a lower mirror dial": {"mirror_percent": 10.0}}


@pytest.mark.parametrize("how", UNMIRRORING)
def test_mirroring_does_not_end_silently_under_dialled_reads(how: str) -> None:
    with pytest.raises(IllegalTransition, match="read-percent 0"):
        step(record(DUALWRITE, loaded=True, read=100), **UNMIRRORING[how])


@pytest.mark.parametrize("how", UNMIRRORING)
def test_mirroring_ends_only_after_reads_have_been_stopped_and_nobody_holds_a_grant(how: str) -> None:
    present = record(DUALWRITE, loaded=True, read=100)
    request = {"postgres_read_percent": 0.0, **UNMIRRORING[how]}

    first = step(present, reads_stopped=False, **request)
    assert not first.satisfied
    assert first.changes == {"dials": Dials(postgres_read_percent=0.0), "loaded": False, "verified": False}
    unread = replace(present, **first.changes)

    assert step(unread, reads_stopped=False, **request) == Step({})

    last = step(unread, reads_stopped=True, **request)
    assert last.satisfied
    assert last.changes["loaded"] is False
    after = replace(unread, **last.changes)
    assert not after.mirrors_every_key
    assert after.dials.postgres_read_percent == 0.0


@pytest.mark.parametrize(
    ("present", "request_", "since"),
    [
        (record(OFF), {"stage": DUALWRITE}, 8),
        (record(OFF, mirror=50), {"stage": DUALWRITE}, None),
        (record(DUALWRITE, mirror=50), {"mirror_percent": 100.0}, 8),
        (record(DUALWRITE, mirror=50), {"mirror_percent": 60.0}, None),
        (record(DUALWRITE), {"stage": SHADOW}, None),
        (record(SHADOW), {"stage": DUALWRITE}, None),
        (record(DUALWRITE), {"shadow_percent": 5.0}, None),
    ],
)
def test_the_generation_in_which_every_key_began_to_be_mirrored_is_noted(
    present: ControlRecord, request_: dict[str, object], since: int | None
) -> None:
    assert step(present, **request_).changes.get("mirrored_since") == since


def test_a_history_that_was_copied_before_a_key_went_unmirrored_does_not_count() -> None:
    present = record(DUALWRITE, loaded=True)
    less = replace(present, **step(present, mirror_percent=99.0).changes)
    again = replace(less, **step(less, mirror_percent=100.0).changes)
    assert not again.loaded
    with pytest.raises(IllegalTransition, match="backfill"):
        step(again, postgres_read_percent=1.0)


def test_a_step_between_mirroring_stages_keeps_what_is_known_of_the_copy() -> None:
    present = record(SHADOW, loaded=True, read=100)
    back = replace(present, **step(present, stage=DUALWRITE).changes)
    assert back.mirror_readable
    assert back.dials.postgres_read_percent == 100.0
