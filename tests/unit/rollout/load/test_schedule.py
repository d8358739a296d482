"""When operations are due: whatever becomes of them, at the rate that is asked for."""

from itertools import pairwise
from random import Random

import pytest

from dualstore.rollout.load import Schedule


def due(schedule: Schedule, seed: int = 1) -> list[float]:
    return list(schedule.due(Random(seed)))


def test_even_arrivals_are_at_equal_distances() -> None:
    assert due(Schedule(10, 1, arrivals="even")) == pytest.approx([n / 10 for n in range(1, 10)])


def test_arrivals_come_at_the_rate_that_is_asked_for() -> None:
    assert len(due(Schedule(100, 50))) == pytest.approx(5000, rel=0.04)


def test_independent_callers_come_in_bursts() -> None:
    gaps = [later - earlier for earlier, later in pairwise(due(Schedule(100, 50)))]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation / mean == pytest.approx(1, abs=0.06), "as in a Poisson process"


@pytest.mark.parametrize("arrivals", ["poisson", "even"])
def test_in_a_ramp_the_rate_grows_evenly_from_nothing(arrivals) -> None:
    moments = due(Schedule(100, 40, 40, arrivals))
    quarters = [sum(10 * n <= at < 10 * (n + 1) for at in moments) for n in range(8)]
    assert quarters == pytest.approx([125, 375, 625, 875, 1000, 1000, 1000, 1000], rel=0.15, abs=30)
    assert moments == sorted(moments)
    assert moments[-1] < 80


def test_the_same_seed_gives_the_same_moments() -> None:
    assert due(Schedule(10, 10), seed=3) == due(Schedule(10, 10), seed=3)
    assert due(Schedule(10, 10), seed=3) != due(Schedule(10, 10), seed=4)
