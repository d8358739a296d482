"""How fast a full comparison may go, how often it tells how far it has come, and in which order it works."""

import threading
import time
from datetime import timedelta
from types import SimpleNamespace

from dualstore.verify.working import Pace, Threads, interleaved


class Stop(threading.Event):
    """Never set; remembers how long it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = timedelta(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.waited += timedelta(seconds=max(timeout or 0, 0))
        return False


def test_a_worker_waits_as_long_as_its_pace_asks_for():
    stop, pace = Stop(), Pace(1000, free_at=time.monotonic())
    pace.keep(60_000, stop)
    assert timedelta(seconds=59) < stop.waited <= timedelta(seconds=60)


def test_what_was_done_before_its_time_is_paid_for_later():
    stop, pace = Stop(), Pace(1000, free_at=time.monotonic())
    for _ in range(3):
        pace.keep(60_000, stop)
    # Nobody has really waited: the second is due 120 seconds from the beginning, the third 180.
    assert timedelta(seconds=350) < stop.waited <= timedelta(seconds=360)


def test_without_a_limit_nobody_waits():
    stop = Stop()
    Pace(None).keep(10**9, stop)
    assert stop.waited == timedelta(0)


def test_threads_tell_how_far_they_have_come_now_and_then_and_at_the_end():
    told = []
    done = 0

    def work(_run_id: object, *, advanced, **_: object) -> None:
        nonlocal done
        for _each in range(1000):
            done += 1
            advanced()

    Threads(1).work(SimpleNamespace(work=work), None, lambda: told.append(done))

    assert told[-1] == 1000
    assert len(told) < 1000


def test_pieces_of_items_and_of_rows_take_turns_however_many_there_are():
    items, rows = [{"file": n} for n in range(2)], [{"rows": n} for n in range(4)]
    assert [next(iter(piece)) for piece in interleaved(items, rows)] == [
        *("rows", "file", "rows", "rows", "file", "rows")
    ]
