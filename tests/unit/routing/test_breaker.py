"""A breaker opens on a share of bad reads or of the time they took, and closes by one probe at a time."""

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from dualstore.routing.breaker import Admission, Breaker, BreakerLimits, BreakerState
from unit.replication.processes import SteppedClock

QUICK, SLOW = 0.001, 2.5
LIMITS = BreakerLimits(window=timedelta(seconds=10), least_bad=5, slow=timedelta(seconds=0.5), probes=3)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def changes() -> list[BreakerState]:
    return []


@pytest.fixture
def breaker(clock: SteppedClock, changes: list[BreakerState]) -> Breaker:
    return Breaker(LIMITS, on_change=changes.append, clock=clock)


def read(breaker: Breaker, times: int = 1, *, seconds: float = QUICK, failed: bool = False) -> None:
    for _ in range(times):
        breaker.note(breaker.admit(), breaker._clock.now(), seconds, failed=failed)


def fail(breaker: Breaker, times: int = 1) -> None:
    read(breaker, times, failed=True)


@pytest.fixture
def opened(breaker: Breaker) -> Breaker:
    fail(breaker, LIMITS.least_bad)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_it_opens_on_no_fewer_bad_reads_than_its_limit(breaker: Breaker) -> None:
    fail(breaker, 4)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker)
    assert breaker.state is BreakerState.OPEN


def test_failures_that_are_a_small_share_of_all_reads_do_not_open_it(breaker: Breaker) -> None:
    for _ in range(50):
        read(breaker, 2)
        fail(breaker)
    assert breaker.state is BreakerState.CLOSED


def test_half_of_the_reads_open_it(breaker: Breaker) -> None:
    read(breaker, 6)
    fail(breaker, 5)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker)
    assert breaker.state is BreakerState.OPEN


def test_slow_reads_are_bad_ones_though_they_are_answered(breaker: Breaker) -> None:
    read(breaker, 5, seconds=0.5)
    assert breaker.state is BreakerState.OPEN


def test_few_reads_that_hang_open_it_in_spite_of_many_good_ones(breaker: Breaker) -> None:
    read(breaker, 5_000)
    read(breaker, 4, seconds=SLOW, failed=True)
    assert breaker.state is BreakerState.CLOSED
    read(breaker, 1, seconds=SLOW, failed=True)
    assert breaker.state is BreakerState.OPEN


def test_reads_of_two_windows_ago_are_forgotten(breaker: Breaker, clock: SteppedClock) -> None:
    read(breaker, 5_000)
    for _ in range(2):
        clock.advance(10)
        read(breaker, 5)
    fail(breaker, 10)
    assert breaker.state is BreakerState.OPEN


def test_bad_reads_of_two_windows_ago_are_forgotten(breaker: Breaker, clock: SteppedClock) -> None:
    read(breaker, 5)
    fail(breaker, 4)
    for _ in range(2):
        clock.advance(10)
        read(breaker, 5)
    fail(breaker, 4)
    assert breaker.state is BreakerState.CLOSED


def test_where_there_are_few_reads_the_window_waits_for_them(breaker: Breaker, clock: SteppedClock) -> None:
    for _ in range(5):
        clock.advance(60)
        fail(breaker)
    assert breaker.state is BreakerState.OPEN


def test_while_it_is_open_nothing_passes_until_a_pause_is_over(opened: Breaker, clock: SteppedClock) -> None:
    assert opened.admit() is Admission.REFUSED
    clock.advance(0.24)
    assert opened.admit() is Admission.REFUSED
    clock.advance(0.02)
    assert opened.admit() is Admission.PROBE


def test_only_one_probe_is_under_way_at_a_time(opened: Breaker, clock: SteppedClock) -> None:
    clock.advance(0.3)
    probe = opened.admit()
    assert opened.admit() is Admission.REFUSED
    opened.note(probe, clock.now(), QUICK, failed=False)
    assert opened.admit() is Admission.PROBE


def test_many_threads_get_one_probe_between_them(opened: Breaker, clock: SteppedClock) -> None:
    clock.advance(0.3)
    start = threading.Barrier(8)
    admitted: list[Admission] = []

    def ask() -> None:
        start.wait()
        admitted.append(opened.admit())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(admitted) == [Admission.REFUSED] * 7 + [Admission.PROBE]


def test_good_probes_in_a_row_close_it(
    opened: Breaker, clock: SteppedClock, changes: list[BreakerState]
) -> None:
    clock.advance(0.3)
    read(opened, 2)
    assert opened.state is BreakerState.OPEN
    read(opened)
    assert opened.state is BreakerState.CLOSED
    assert changes == [BreakerState.OPEN, BreakerState.CLOSED]
    fail(opened, 4)
    assert opened.state is BreakerState.CLOSED


@pytest.mark.parametrize("bad_probe", [fail, partial(read, seconds=SLOW)])
def test_a_bad_probe_doubles_the_pause_and_the_good_ones_begin_anew(
    opened: Breaker, clock: SteppedClock, bad_probe: Callable[[Breaker], None]
) -> None:
    clock.advance(0.3)
    read(opened, 2)
    bad_probe(opened)
    clock.advance(0.45)
    assert opened.admit() is Admission.REFUSED
    clock.advance(0.1)
    read(opened, 2)
    assert opened.state is BreakerState.OPEN
    read(opened)
    assert opened.state is BreakerState.CLOSED


def test_a_read_that_began_before_it_opened_is_no_probe(opened: Breaker, clock: SteppedClock) -> None:
    clock.advance(0.3)
    for _ in range(5):
        opened.note(Admission.PASSED, clock.now(), QUICK, failed=False)
    assert opened.state is BreakerState.OPEN
    opened.note(Admission.PASSED, clock.now(), SLOW, failed=True)
    assert opened.admit() is Admission.PROBE


def test_a_probe_that_never_reports_is_given_up_after_a_window(opened: Breaker, clock: SteppedClock) -> None:
    clock.advance(0.3)
    assert opened.admit() is Admission.PROBE
    clock.advance(9.9)
    assert opened.admit() is Admission.REFUSED
    clock.advance(0.2)
    assert opened.admit() is Admission.PROBE
