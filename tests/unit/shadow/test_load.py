"""The share of comparison reads that the other side bears, by a clock of the test's own."""

from datetime import timedelta

import pytest

from dualstore.shadow.load import AdaptiveShare


class Passing:
    """A share whose windows pass when the test says so."""

    def __init__(self, **options):
        self.now = 0.0
        self.told = []
        self.adaptive = AdaptiveShare(clock=lambda: self.now, changed=self.told.append, **options)

    def window(self, *latencies, kind="GetItem", filled=0.0):
        """A window in which reads took so long; the share after it."""
        for seconds in latencies:
            self.adaptive.answered(kind, seconds)
        self.adaptive.queued(filled)
        self.now += 1.0
        self.adaptive.queued(filled)
        return self.adaptive.share


@pytest.fixture
def passing():
    return Passing()


def test_a_side_that_is_well_bears_everything(passing):
    assert [passing.window(0.001, 0.002) for _ in range(5)] == [1.0] * 5


def test_the_share_halves_in_each_window_in_which_the_side_is_slower_than_its_normal(passing):
    passing.window(0.001)
    assert [passing.window(0.2) for _ in range(3)] == [0.5, 0.25, 0.125]


def test_the_share_comes_back_by_small_steps(passing):
    passing.window(0.001)
    assert passing.window(0.2) == 0.5
    recovering = [passing.window(0.001) for _ in range(12)]
    assert recovering[:2] == pytest.approx([0.55, 0.6])
    assert recovering[-3:] == pytest.approx([1.0, 1.0, 1.0])


def test_a_few_milliseconds_more_are_not_slow(passing):
    passing.window(0.001)
    assert passing.window(0.015) == 1.0


def test_a_side_beyond_the_limit_is_slow_from_the_first_window_on():
    passing = Passing(limit=timedelta(milliseconds=100))
    assert [passing.window(0.2) for _ in range(2)] == [0.5, 0.25]


def test_a_side_that_stays_slow_within_the_limit_becomes_normal(passing):
    passing.window(0.001)
    shares = [passing.window(0.1) for _ in range(60)]
    assert min(shares) == 0.01
    assert shares[-1] > shares[10]


def test_one_kind_of_reads_is_not_measured_by_another(passing):
    """A Scan takes longer than a GetItem, and nothing is wrong with that."""
    passing.window(0.001, kind="GetItem")
    assert passing.window(0.2, kind="Scan") == 1.0


def test_a_queue_that_stays_full_halves_the_share_though_nothing_was_answered(passing):
    """A side that hangs answers nothing."""
    assert passing.window(filled=0.6) == 0.5
    assert passing.window(filled=1.0) == 0.25
    assert passing.window(filled=0.4) == pytest.approx(0.3)


def test_a_queue_that_is_full_for_a_moment_is_none_that_grows(passing):
    """One large page fills it."""
    passing.adaptive.queued(1.0)
    assert passing.window(filled=0.0) == 1.0


def test_a_read_that_was_dropped_halves_the_share_once(passing):
    passing.adaptive.dropped()
    assert [passing.window(), passing.window()] == pytest.approx([0.5, 0.55])


def test_some_reads_always_find_out_whether_the_side_is_well_again(passing):
    assert [passing.window(filled=1.0) for _ in range(10)][-1] == 0.01


def test_the_share_is_told_after_every_window_and_only_then(passing):
    passing.adaptive.queued(0.9)
    passing.adaptive.queued(0.9)
    assert passing.told == []
    passing.now = 1.0
    passing.adaptive.queued(0.9)
    passing.adaptive.queued(0.9)
    assert passing.told == [0.5]
