"""How what was counted becomes points of a chart."""

from datetime import UTC, datetime, timedelta

from dualstore.rollout.screens.history import points
from dualstore.stores.postgres_screens import WindowSeen
from dualstore.telemetry import Verdict
from dualstore.telemetry.figures import Figures

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def window(second: float, *, read: float = 0.0, equal: int = 0, mismatches: int = 0) -> WindowSeen:
    counts = {Verdict.EQUAL.value: equal, Verdict.MISMATCH.value: mismatches}
    ended = NOON + timedelta(seconds=second)
    return WindowSeen(ended - timedelta(seconds=1), ended, "shadow", read, 100.0, 100.0, Figures({}, counts))


def test_nothing_that_was_counted_is_left_out_and_there_are_not_many_more_points_than_asked_for() -> None:
    seen = list(points([window(n, equal=1) for n in range(1_000)], limit=10))
    assert seen[-1].comparisons == 1_000
    assert len(seen) <= 11


def test_no_point_crosses_a_move_of_the_dials_however_coarse_they_are() -> None:
    seen = list(points([window(1, read=1.0), window(2, read=5.0), window(100, read=5.0)], limit=1))
    assert [each.read_percent for each in seen][:2] == [1.0, 5.0]


def test_the_bound_of_mismatches_begins_anew_when_the_dials_move() -> None:
    before, after = points([window(1, equal=999, mismatches=1), window(2, read=1.0, equal=10)])
    assert (before.comparisons, before.mismatches) == (1_000, 1)
    assert (after.comparisons, after.mismatches) == (10, 0)


def test_without_comparisons_there_is_no_bound_to_draw() -> None:
    (point,) = points([window(1)])
    assert point.mismatch_bound_percent is None
