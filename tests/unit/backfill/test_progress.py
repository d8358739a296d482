"""The rate of a backfill, what a run may put aside, and what is said of its progress."""

from datetime import timedelta
from uuid import UUID

import pytest

from dualstore.backfill import Phase
from dualstore.backfill.progress import Pace, progress_of
from dualstore.backfill.quarantine import QuarantineLimit
from dualstore.backfill.worker import limits_after
from dualstore.errors import ConfigurationError
from dualstore.stores.ledger import Run, RunState, Totals, Wish, WorkerSeen


def totals(run=None, *, items=0, workers=(), **counts):
    run = run or Run(UUID(int=0), "backfill", "t", RunState.RUNNING, {})
    sums = dict.fromkeys(("pieces", "pieces_done", "pieces_failed", "inserted", "size_bytes"), 0)
    sums |= dict.fromkeys(("read_units", "own", "settled", "rejected"), 0)
    return Totals(run=run, items=items, workers=workers, seconds=2.0, **(sums | counts))


def test_progress_is_what_the_ledger_says_whoever_asks():
    workers = (WorkerSeen("a", 0, 5, 10.0), WorkerSeen("b", 1, 2, 20.0))

    done = progress_of(totals(items=7, pieces=3, pieces_done=1, rejected=2, own=4, workers=workers))

    assert (done.items, done.pieces_done, done.pieces_total, done.failed) == (7, 1, 3, 2)
    assert (done.rows_looked_up, done.rate, done.elapsed) == (4, 30.0, timedelta(seconds=2))
    assert done.phase is Phase.COPYING


def test_what_is_left_is_told_only_while_items_are_copied_and_expected():
    expecting = Run(UUID(int=0), "backfill", "t", RunState.RUNNING, {"expected_items": 100}, phase="copying")
    at_work = (WorkerSeen("a", 0, 5, 10.0),)

    assert progress_of(totals(expecting, items=40, workers=at_work)).eta == timedelta(seconds=6)
    assert progress_of(totals(expecting, items=400, workers=at_work)).eta == timedelta(0)
    assert progress_of(totals(expecting, items=40)).eta is None
    assert progress_of(totals(items=40, workers=at_work)).eta is None
    assert progress_of(totals(expecting, items=40, workers=at_work), phase=Phase.CLOSING).eta is None


def test_a_paused_run_says_who_has_paused_it_and_why():
    run = Run(UUID(int=0), "backfill", "t", RunState.RUNNING, {}, None, Wish.PAUSE, "ann", "month's end")

    assert progress_of(totals(run)).paused_by == "ann: month's end"
    assert progress_of(totals()).paused_by is None


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_without_a_limit_nobody_waits():
    assert Pace().delay_after(1_000_000, None) == timedelta(0)


def test_time_spent_otherwise_counts_as_waiting():
    clock = Clock()
    pace = Pace(clock=clock)
    pace.delay_after(100, 100)
    clock.now = 0.75

    assert pace.delay_after(0, 100) == timedelta(seconds=0.25)


def test_a_pause_is_not_followed_by_a_rush():
    clock = Clock()
    pace = Pace(clock=clock)
    clock.now = 60.0

    assert pace.delay_after(100, 100) == timedelta(seconds=1)


def test_a_smaller_share_holds_from_the_next_batch_on():
    pace = Pace(clock=Clock())

    assert pace.delay_after(100, 100) == timedelta(seconds=1)
    assert pace.delay_after(100, 50) == timedelta(seconds=3)


def test_a_limit_is_a_number_or_a_share_of_at_least_a_thousand_items():
    assert not QuarantineLimit.of(None).is_passed(10**9, 10**9)
    assert [QuarantineLimit.of("3").is_passed(rejected, 10) for rejected in (3, 4)] == [False, True]
    share = QuarantineLimit.of("0.5%")
    assert [share.is_passed(rejected, 1000) for rejected in (5, 6)] == [False, True]
    assert not share.is_passed(6, 999)
    assert (str(QuarantineLimit.of("1000")), str(share)) == ("1,000", "0.5%")


@pytest.mark.parametrize("text", ["", "-1", "1.5", "5 %", "many"])
def test_a_limit_that_is_neither_is_refused(text):
    with pytest.raises(ConfigurationError, match="max-quarantine"):
        QuarantineLimit.of(text)


def test_each_failure_halves_a_batch_down_to_a_floor():
    whole, *smaller = (limits_after(failures) for failures in range(40))

    assert whole.page_items is None
    assert [limits.page_items for limits in smaller[:3]] == [1000, 500, 250]
    assert smaller[0].batch_bytes == whole.batch_bytes // 2
    assert (smaller[-1].batch_bytes, smaller[-1].page_items, smaller[-1].batch_keys) == (64 * 1024, 1, 1)
