"""What a replay's result says: rates, quantiles, thresholds, and whose limit was reached."""

from collections import Counter
from datetime import timedelta

import pytest

from dualstore.rollout.load import (
    OperationRate,
    OperationTally,
    Outcome,
    PartitionClass,
    Replay,
    TableLoad,
    Tally,
    Thresholds,
    outcome,
)
from dualstore.telemetry import Latencies
from dualstore.telemetry.latency import LatencyCell

PLANNED = Replay(
    load=TableLoad((OperationRate("GetItem", 10.0),), (PartitionClass(1, {"every": 100.0}),)),
    multiple=10,
    duration=timedelta(seconds=10),
)


def latencies(*milliseconds: float) -> Latencies:
    cell = LatencyCell()
    for each in milliseconds:
        cell.add(each / 1000)
    return cell.read()


def tally(of: Latencies, *, planned: int = 1000, errors: int = 0, **more) -> Tally:
    counted = Counter({"ThrottlingException": errors} if errors else {})
    kind = OperationTally(planned, of, of, 1.0, counted, more.pop("unbegun", 0))
    return Tally(
        {0: kind},
        **{"seconds": 10.0, "writers": 4, "sent": 1000, "busy": 50.05, "elapsed_seconds": 10.0, **more},
    )


EVENLY = latencies(*range(1, 1001))


def judged(found: Tally, **thresholds) -> Outcome:
    return outcome(PLANNED, found, Thresholds(**thresholds))


def test_rates_and_quantiles_are_told_of_every_operation() -> None:
    (row,) = judged(tally(EVENLY)).rows
    assert (row.name, row.planned_per_second, row.achieved_per_second) == ("GetItem", 100, 100)
    assert (row.p50_ms, row.p95_ms, row.p99_ms) == (
        pytest.approx(500, rel=0.03),
        pytest.approx(950, rel=0.03),
        pytest.approx(990, rel=0.03),
    )
    assert row.longest_ms == 1000


@pytest.mark.parametrize(("limit", "holds"), [(900, False), (1100, True)])
def test_a_threshold_is_of_the_99th_percentile(limit: int, *, holds: bool) -> None:
    failures = judged(tally(EVENLY), p99_under=timedelta(milliseconds=limit)).failures
    assert (failures == ()) is holds


def test_what_was_never_answered_is_not_fast() -> None:
    found = judged(tally(Latencies(), errors=1000), p99_under=timedelta(seconds=1))
    assert "nothing was answered" in found.failures[0]


@pytest.mark.parametrize(("errors", "holds"), [(0, True), (4, True), (5, False)])
def test_a_threshold_may_be_of_errors(errors: int, *, holds: bool) -> None:
    found = judged(tally(EVENLY, errors=errors), errors_under_percent=0.5)
    assert (found.failures == ()) is holds
    assert found.total.errors == ({"ThrottlingException": errors} if errors else {})


def test_what_has_not_begun_has_failed() -> None:
    found = judged(tally(EVENLY, unbegun=10), errors_under_percent=0.5)
    assert found.failures == ("1 % of the operations failed, not under 0.5 %",)
    assert found.total.unbegun == 10


def test_a_quantile_is_never_behind_the_longest() -> None:
    (row,) = judged(tally(latencies(1005, 1010))).rows
    assert row.p99_ms == row.longest_ms == 1000


def test_a_load_that_was_not_there_proves_nothing() -> None:
    (failure,) = judged(tally(EVENLY, planned=1100)).failures
    assert "100.0 operations a second were made, not 110.0" in failure


def test_a_generator_that_kept_the_pace_is_not_blamed() -> None:
    assert judged(tally(EVENLY, late_busy=5, late_free=5)).held_up is None


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        (
            {"late_busy": 300, "processor_percent": 97.0},
            "a process used 97 % of a core; give it more --processes",
        ),
        ({"late_free": 300}, "for want of a processor"),
        ({"late_busy": 300, "starved_percent": 60.0}, "waited for 60 % of the time in"),
        ({"late_busy": 300}, "all 4 writers waited for answers"),
        ({"unbegun": 300}, "all 4 writers waited for answers"),
    ],
)
def test_it_is_said_whose_limit_was_reached(counted, said: str) -> None:
    held_up = judged(tally(EVENLY, **counted)).held_up
    assert held_up is not None
    assert said in held_up
    assert "30 % of the operations began late or not at all" in held_up


def test_as_many_writers_are_advised_as_the_rate_takes() -> None:
    """100 a second that take half a second each keep 50 writers busy."""
    held_up = judged(tally(EVENLY, late_busy=300)).held_up
    assert held_up is not None
    assert "50.0 on average" in held_up or "50.1 on average" in held_up
    assert "--writers 76" in held_up


def test_the_document_for_programs_has_it_all() -> None:
    document = judged(tally(EVENLY, errors=1, late_free=300), errors_under_percent=0.01).to_json()
    assert document["well"] is False
    assert document["generator_was_the_bottleneck"] is True
    assert document["operations"][0]["errors"] == {"ThrottlingException": 1}
    assert document["total"]["p99_ms"] == pytest.approx(990, rel=0.03)
