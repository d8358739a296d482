"""The rate of a backfill and the sum of its pieces."""

from datetime import timedelta
from uuid import UUID

from dualstore.backfill import Phase
from dualstore.backfill.progress import Board, Pace
from dualstore.stores.postgres_load import Piece
from dualstore.stores.postgres_runs import PieceRow, PieceState


def piece(number, *, state=PieceState.COPYING, items=0, inserted=0, settled=0, failed=0):
    return Piece(
        PieceRow(UUID(int=0), number, 1, state, None, items, inserted, settled, 10 * items), failed=failed
    )


def board(*segments, left_overs=None, report=lambda _: None):
    return Board(segments, left_overs or piece(len(segments)), report)


def test_progress_is_the_sum_of_all_pieces_and_counts_what_former_attempts_did():
    reports = []
    copied = board(piece(0, items=5, inserted=4, failed=1), piece(1), report=reports.append)

    copied.segment_advanced(piece(1, state=PieceState.COPIED, items=7, inserted=5, settled=2))

    (report,) = reports
    assert (report.items, report.inserted, report.settled, report.failed) == (12, 9, 2, 1)
    assert (report.bytes, report.segments_done, report.segments_total) == (120, 1, 2)
    assert report.phase is Phase.COPYING


def test_a_piece_that_advances_again_replaces_its_own_counts():
    copied = board(piece(0))

    copied.segment_advanced(piece(0, items=5))
    copied.segment_advanced(piece(0, items=9))

    assert copied.progress().items == 9


def test_rows_from_before_the_run_are_no_segment_but_their_keys_are_settled_or_failed():
    reports = []
    copied = board(piece(0, items=5, settled=1), report=reports.append)

    copied.left_overs_advanced(piece(1, state=PieceState.COPIED, items=7, settled=3, failed=1))

    (report,) = reports
    assert report.phase is Phase.CLEARING
    assert (report.items, report.bytes, report.rows_looked_up) == (5, 50, 7)
    assert (report.settled, report.failed) == (4, 1)
    assert (report.segments_done, report.segments_total) == (0, 1)


def test_keys_settled_at_the_end_are_counted_with_the_others():
    copied = board(piece(0, settled=2))

    copied.overlaps_settled(3, failed=1)

    assert (copied.progress().settled, copied.progress().failed) == (5, 1)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_without_a_limit_nobody_waits():
    assert Pace(None).delay_after(1_000_000) == timedelta(0)


def test_workers_share_one_rate():
    pace = Pace(100, clock=Clock())

    assert pace.delay_after(50) == timedelta(seconds=0.5)
    assert pace.delay_after(50) == timedelta(seconds=1)


def test_time_spent_otherwise_counts_as_waiting():
    clock = Clock()
    pace = Pace(100, clock=clock)
    pace.delay_after(100)
    clock.now = 0.75

    assert pace.delay_after(0) == timedelta(seconds=0.25)


def test_a_pause_is_not_followed_by_a_rush():
    clock = Clock()
    pace = Pace(100, clock=clock)
    clock.now = 60.0

    assert pace.delay_after(100) == timedelta(seconds=1)
