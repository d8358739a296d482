"""Every gate by tables: what it says of which evidence."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dualstore.control import Gate
from dualstore.rollout import EvidenceSnapshot, GateResult, Judgement, Limits, judged, worst
from dualstore.rollout.gates import GATES
from dualstore.stages import Stage
from dualstore.store.evidence import Speeds, upper_bound
from dualstore.telemetry.figures import Work
from dualstore.telemetry.latency import Latencies, LatencyCell

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MET, NOT_YET, NOT_MET, NOT_ASKED = Judgement


def latencies(count: int, *, around_ms: float = 5.0) -> Latencies:
    """Durations from 0.8 to 1.2 of a middle, evenly."""
    cell = LatencyCell()
    for number in range(count):
        cell.add(around_ms / 1_000 * (0.8 + 0.4 * number / max(count - 1, 1)))
    return cell.read()


def speeds(*, dynamodb_ms: float = 5.0, postgres_ms: float = 5.0, count: int = 5_000) -> tuple[Speeds, ...]:
    reads = Speeds(
        Work.READ, latencies(count, around_ms=dynamodb_ms), latencies(count, around_ms=postgres_ms)
    )
    return reads, Speeds(Work.LISTING, Latencies(), Latencies())


GOOD = EvidenceSnapshot(
    table="orders",
    stage=Stage.SHADOW,
    taken_at=NOW,
    since=NOW - timedelta(hours=1),
    verified=True,
    verified_at=NOW - timedelta(hours=2),
    processes=3,
    comparisons=10_000,
    calls=50_000,
    speeds=speeds(),
)


def said(gate: str, limits: Limits | None = None, **changes: Any) -> GateResult:
    """What a gate says of the good evidence with something changed."""
    return GATES[gate](gate, replace(GOOD, **changes), limits or Limits())


def test_good_evidence_meets_every_gate() -> None:
    results = judged(GOOD, Limits(p99_ms=50, comparisons=10_000))
    assert worst(results) is MET, [str(each) for each in results]
    assert [each.gate for each in results] == list(GATES)


@pytest.mark.parametrize(
    ("gate", "changes", "expected"),
    [
        ("processes", {"unconfirmed": ("host:1",)}, NOT_YET),
        ("processes", {"processes": 0}, NOT_YET),
        ("dirty keys", {"dirty_keys": 1}, NOT_YET),
        ("dirty keys", {"dirty_keys": None}, NOT_YET),
        ("dirty keys", {"read_gate": Gate.SHUT}, NOT_YET),
        ("dirty keys", {"suspects": 1}, NOT_YET),
        ("journal", {"journal_keys": 1}, NOT_YET),
        ("journal", {"journal_keys": 1, "stage": Stage.LIVE}, NOT_ASKED),
        ("outbox", {}, NOT_ASKED),
        ("outbox", {"stage": Stage.LIVE}, MET),
        ("outbox", {"stage": Stage.LIVE, "outbox_age": timedelta(seconds=11)}, NOT_YET),
        ("outbox", {"stage": Stage.RAMPDOWN, "outbox_refused": 1}, NOT_YET),
        ("outbox", {"stage": Stage.LIVE, "outbox_age": None}, NOT_YET),
        ("verification", {"verified": False}, NOT_YET),
        ("verification", {"verified_at": None}, NOT_YET),
        ("verification", {"verified_at": NOW - timedelta(hours=24, seconds=1)}, NOT_YET),
        ("verification", {"verified_at": NOW - timedelta(hours=24)}, MET),
        ("verification", {"verified": False, "stage": Stage.LIVE}, MET),
        ("mismatch rate", {"comparisons": 0}, NOT_YET),
        ("mismatch rate", {"comparisons": 2_994}, NOT_YET),
        ("mismatch rate", {"comparisons": 2_995}, MET),
        ("mismatch rate", {"mismatches": 1, "comparisons": 4_000}, NOT_YET),
        ("mismatch rate", {"mismatches": 1, "comparisons": 4_743}, MET),
        ("mismatch rate", {"mismatches": 30, "comparisons": 10_000}, NOT_MET),
        ("mismatch rate", {"mismatches": 3, "comparisons": 3}, NOT_MET),
        ("mismatch rate", {"stage": Stage.RAMPDOWN, "comparisons": 0}, NOT_ASKED),
        ("error rate", {"calls": 100}, NOT_YET),
        ("error rate", {"calls": 50_000, "errors": 20}, MET),
        ("error rate", {"calls": 50_000, "errors": 100}, NOT_MET),
        ("latency", {"speeds": speeds(postgres_ms=5.9)}, MET),
        ("latency", {"speeds": speeds(postgres_ms=6.5)}, NOT_MET),
        ("latency", {"speeds": speeds(postgres_ms=50, count=499)}, NOT_MET),
        ("latency", {"speeds": speeds(count=99)}, NOT_YET),
        ("latency", {"speeds": speeds(count=499)}, NOT_YET),
        ("latency", {"speeds": ()}, NOT_YET),
        ("service level", {}, NOT_ASKED),
    ],
)
def test_what_a_gate_says(gate: str, changes: dict[str, Any], expected: Judgement) -> None:
    result = said(gate, **changes)
    assert result.judgement is expected, str(result)
    assert bool(result.remedy) is (expected in {NOT_YET, NOT_MET}), "it says what to do, where there is"


def test_an_absolute_service_level_is_asked_of_every_class_of_reads() -> None:
    assert said("service level", Limits(p99_ms=10)).judgement is MET
    slow = Speeds(Work.LISTING, Latencies(), latencies(5_000, around_ms=100))
    result = said("service level", Limits(p99_ms=10), speeds=(GOOD.speeds[0], slow))
    assert result.judgement is NOT_MET
    assert "listing p99 12" in result.saw, result.saw


def test_a_latency_beyond_the_limit_by_chance_is_waited_for() -> None:
    few = Speeds(Work.READ, latencies(5_000), _mostly_fast(600, slow=7, slow_ms=30))
    result = said("latency", speeds=(few,))
    assert result.judgement is NOT_YET, str(result)
    many = Speeds(Work.READ, latencies(5_000), _mostly_fast(60_000, slow=700, slow_ms=30))
    assert said("latency", speeds=(many,)).judgement is NOT_MET


def _mostly_fast(count: int, *, slow: int, slow_ms: float) -> Latencies:
    cell = LatencyCell()
    for number in range(count):
        cell.add((slow_ms if number < slow else 5.0) / 1_000)
    return cell.read()


def test_a_rate_that_is_not_known_says_how_much_it_takes() -> None:
    result = said("mismatch rate", comparisons=100)
    assert "2,995" in result.remedy
    assert upper_bound(0, 2_995) * 100 <= 0.1 < upper_bound(0, 2_994) * 100


def test_a_minimum_of_comparisons_is_asked_besides_the_rate() -> None:
    assert said("comparisons", Limits(comparisons=10_001)).judgement is NOT_YET
    assert said("comparisons", Limits(comparisons=10_000)).judgement is MET


def test_limits_of_none_are_not_asked() -> None:
    off = Limits().overlaid(dict.fromkeys(("verified_within", "mismatch_percent", "error_percent")))
    for gate in ("verification", "mismatch rate", "error rate"):
        assert said(gate, off, verified=False, comparisons=0, calls=0).judgement is NOT_ASKED


def test_the_worst_of_several_gates_decides() -> None:
    by = {each: GateResult("g", each, "") for each in Judgement}
    assert worst([by[MET], by[NOT_ASKED]]) is MET
    assert worst([by[MET], by[NOT_YET]]) is NOT_YET
    assert worst([by[NOT_YET], by[NOT_MET]]) is NOT_MET


def test_a_snapshot_is_recorded_as_plain_values() -> None:
    document = GOOD.to_json()
    assert document["comparisons"] == 10_000
    assert document["latencies_ms"]["read"]["postgres"]["p99"] == pytest.approx(6, rel=0.1)
