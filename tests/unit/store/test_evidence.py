"""Evidence: the confidence bound against known values, and how it is told."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstore.stages import Dials, Stage
from dualstore.store.evidence import Evidence, Speeds, render, upper_bound
from dualstore.telemetry.figures import Work
from dualstore.telemetry.latency import LatencyCell

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("events", "trials", "bound"),
    [
        (0, 40, 0.0721575),  # 1 - 0.05 ** (1 / 40)
        (0, 1, 0.95),
        (0, 3_000, 0.000998079),  # the rule of three: 3 / n
        (1, 10, 0.394163),
        (2, 10, 0.506901),
        (5, 10, 0.777559),
        (9, 10, 0.994884),
        (10, 10, 1.0),
        (0, 0, 1.0),
    ],
)
def test_the_bound_is_that_of_clopper_and_pearson(events, trials, bound):
    assert upper_bound(events, trials) == pytest.approx(bound, rel=1e-5)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_at_the_bound_so_few_events_have_a_probability_of_a_twentieth(counts):
    events, trials = counts
    rate = upper_bound(events, trials)
    tail = sum(comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(events + 1))
    assert tail == pytest.approx(0.05, rel=1e-6)


@given(st.integers(0, 10**4), st.integers(1, 10**9))
def test_the_bound_is_above_the_rate_seen_and_falls_with_more_trials(events, more):
    trials = events + more
    bound = upper_bound(events, trials)
    assert events / trials < bound <= 1
    assert upper_bound(events, trials + 1_000_000) < bound


def test_many_events_in_very_many_trials_come_near_the_normal_distribution():
    assert upper_bound(10_000, 10**7) == pytest.approx(0.001 + 1.645 * (0.001 / 10**7) ** 0.5, rel=1e-3)


def seen(**changed):
    evidence = Evidence(
        table="orders",
        stage=Stage.SHADOW,
        dials=Dials(10.0, 100.0, 5.0),
        since=NOON,
        until=NOON + timedelta(seconds=90),
        comparisons=40,
        mismatches=0,
        lagging=0,
        unusable=0,
        dropped=0,
        fallbacks=0,
        mirror_failures=0,
        speeds=(),
    )
    return replace(evidence, **changed)


def latencies(seconds, count):
    cell = LatencyCell()
    for _ in range(count):
        cell.add(seconds)
    return cell.read()


def test_no_mismatch_in_few_reads_is_not_told_as_safe():
    assert render(seen()) == (
        "orders: stage shadow, read-percent 10, shadow-percent 5\n"
        "  seen for 90 s, since 2026-01-01 12:00:00 UTC\n"
        "  0 of 40 compared reads differ: with 95 % confidence at most 7.2 % of all do"
    )


def test_nothing_compared_is_told_as_nothing_known():
    text = render(seen(comparisons=0, since=None, until=None))
    assert "nothing is known" in text
    assert "%" not in text.splitlines()[-1]


def test_what_else_happened_is_told():
    text = render(seen(comparisons=1_000_000, mismatches=3, lagging=2, dropped=1_500))
    assert "3 of 1,000,000 compared reads differ: with 95 % confidence at most 0.00078 % of all do" in text
    assert "2 differed for a moment, 1,500 comparisons dropped" in text


def test_latencies_are_compared_where_there_are_enough_of_them():
    slower = Speeds(Work.READ, latencies(0.002, 120), latencies(0.003, 120))
    assert slower.ratio("p50") == pytest.approx(1.5, rel=0.07)
    assert slower.ratio("p99") is None
    told = render(seen(speeds=(slower,))).splitlines()[-1]
    assert told.startswith("  PostgreSQL's time by DynamoDB's, read: p50 1.")
    assert "p99" not in told
    few = Speeds(Work.LISTING, latencies(0.002, 3), latencies(0.003, 0))
    assert "too few listings to compare latencies: 3 by DynamoDB, 0 by PostgreSQL" in render(
        seen(speeds=(few,))
    )
