"""Where a plan stands, folded from what happened."""

from datetime import UTC, datetime, timedelta

from dualstore.rollout import EventKind, PlanEvent, StepState, standing

BEGAN = datetime(2026, 11, 20, tzinfo=UTC)


def events(*happened: tuple[EventKind, str | None]) -> list[PlanEvent]:
    return [
        PlanEvent(kind, step, "Ada", BEGAN + timedelta(minutes=number), attempt=1, reason="r", number=number)
        for number, (kind, step) in enumerate(happened)
    ]


def test_nothing_has_happened_to_a_step_that_nobody_began() -> None:
    found = standing([])
    assert (found.of("a").state, found.of("a").has_begun, found.halted) == (StepState.PENDING, False, None)


def test_a_step_is_started_then_done() -> None:
    happened = events((EventKind.STARTED, "a"), (EventKind.MARKED, "a"), (EventKind.FINISHED, "a"))
    assert [standing(happened[:count]).of("a").state for count in (1, 2, 3)] == [
        StepState.STARTED,
        StepState.STARTED,
        StepState.DONE,
    ]


def test_the_first_of_two_equal_marks_counts() -> None:
    happened = events((EventKind.MARKED, "a"), (EventKind.MARKED, "a"))
    assert standing(happened).of("a").marks["r"].at == BEGAN


def test_a_refusal_before_the_act_leaves_nothing_to_take_back() -> None:
    assert not standing(events((EventKind.FAILED, "a"))).of("a").has_begun
    assert standing(events((EventKind.STARTED, "a"), (EventKind.FAILED, "a"))).of("a").has_begun


def test_a_rollback_takes_marks_and_approvals_with_it() -> None:
    happened = events(
        (EventKind.APPROVED, "a"),
        (EventKind.STARTED, "a"),
        (EventKind.MARKED, "a"),
        (EventKind.ROLLBACK_STARTED, "a"),
        (EventKind.ROLLED_BACK, "a"),
    )
    before, after = standing(happened[:3]).of("a"), standing(happened).of("a")
    assert (before.approved_by, set(before.marks)) == (("Ada",), {"r"})
    assert (after.approved_by, dict(after.marks), after.attempt) == ((), {}, 1)
    assert (after.state, after.has_begun) == (StepState.ROLLED_BACK, False)
    broken_off = standing(happened[:4]).of("a")
    assert broken_off.has_begun, "a rollback that was broken off is taken up by the next"


def test_a_halt_stands_until_a_person_resumes() -> None:
    happened = events((EventKind.HALTED, None), (EventKind.RESUMED, None))
    halted = standing(happened[:1]).halted
    assert halted is not None
    assert halted.by == "Ada"
    assert standing(happened).halted is None
