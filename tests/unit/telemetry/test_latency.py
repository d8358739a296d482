"""Latency histograms: exact counts, quantiles within three percent, sums of parts."""

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstore.telemetry.latency import LatencyCell, combined


def cell_of(durations):
    cell = LatencyCell()
    for seconds in durations:
        cell.add(seconds)
    return cell


@given(st.lists(st.floats(2e-6, 100), min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_a_bucket_of_the_true_one(durations, quantile):
    """A bucket is a 16th of an octave at most 6.25 % wide."""
    rank = max(1, -(-quantile * len(durations) // 1))
    true_ms = sorted(durations)[int(rank) - 1] * 1_000
    assert cell_of(durations).read().quantile_ms(quantile) == pytest.approx(true_ms, rel=0.0626)


def test_the_median_of_a_smooth_distribution_is_within_three_percent():
    durations = [0.001 * random.Random(n).lognormvariate(0, 1) for n in range(5_000)]
    latencies = cell_of(durations).read()
    for quantile in (0.5, 0.95, 0.99):
        true_ms = sorted(durations)[int(quantile * 5_000)] * 1_000
        assert latencies.quantile_ms(quantile) == pytest.approx(true_ms, rel=0.03)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-12, 2e-6, 127.9, 128.0, 1e9])
def test_the_shortest_and_the_longest_durations_are_counted_too(seconds):
    assert cell_of([seconds]).read().count == 1


def test_without_any_duration_there_is_no_quantile():
    latencies = LatencyCell().read()
    assert (latencies.p50_ms, latencies.p95_ms, latencies.p99_ms, latencies.mean_ms) == (None,) * 4


def test_a_later_reading_less_an_earlier_one_is_what_happened_in_between():
    cell = cell_of([0.001] * 5)
    earlier = cell.read()
    for _ in range(3):
        cell.add(1.0)
    between = cell.read().since(earlier)
    assert between.count == 3
    assert between.mean_ms == pytest.approx(1_000)
    assert between.p50_ms == pytest.approx(1_000, rel=0.0626)


def test_kinds_taken_together_count_every_duration():
    both = combined([cell_of([0.001] * 3).read(), cell_of([0.1]).read()])
    assert both.count == 4
    assert both.p50_ms == pytest.approx(1, rel=0.07)
    assert both.quantile_ms(1.0) == pytest.approx(100, rel=0.07)


def test_no_count_is_lost_between_threads():
    cell = LatencyCell()
    threads = [threading.Thread(target=lambda: [cell.add(0.001) for _ in range(5_000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cell.read().count == 40_000
    assert cell.read().seconds == pytest.approx(40)


@given(
    st.lists(st.floats(2e-6, 100), min_size=1, max_size=300),
    st.integers(1, 400),
    st.floats(0, 1, exclude_max=True),
)
def test_a_sample_has_the_size_asked_for_or_is_everything(durations, limit, phase):
    latencies = cell_of(durations).read()
    taken = sum(count for _, count in latencies.sample(limit, phase=phase))
    if limit >= len(durations):
        assert taken == len(durations)
    else:
        assert abs(taken - limit) <= 1


def test_a_sample_keeps_the_shape_of_the_distribution():
    latencies = cell_of([0.001] * 9_000 + [1.0] * 1_000).read()
    sample = list(latencies.sample(100, phase=0.5))
    assert [count for _, count in sample] == [90, 10]
    assert [seconds for seconds, _ in sample] == pytest.approx([0.001, 1.0], rel=0.04)
