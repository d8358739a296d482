"""Gates: whether what was seen of a table allows the next step. Pure functions of a snapshot."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import sqrt

from dualstore.control import Gate as ReadGate
from dualstore.rollout.durations import said
from dualstore.rollout.judgement import QUANTILES, EvidenceSnapshot, GateResult, Judgement, Limits
from dualstore.stages import Side, Stage
from dualstore.store.evidence import Speeds, upper_bound
from dualstore.telemetry import Latencies

_ENOUGH = {"p95": 100, "p99": 500}
"""A quantile of fewer durations says nothing: of 500, five are beyond the 99th percentile."""
_ONE_SIDED_95 = 1.645
"""Standard deviations of the normal distribution."""


def judged(seen: EvidenceSnapshot, limits: Limits) -> list[GateResult]:
    """What every gate says of a snapshot, in a fixed order."""
    return [gate(name, seen, limits) for name, gate in GATES.items()]


# -- what stands still: doubts, and who has followed ---------------------------------------------


def _fresh_verify(name: str, seen: EvidenceSnapshot, limits: Limits) -> GateResult:
    if limits.verified_within is None or seen.stage in {Stage.OFF, Stage.COMPLETE}:
        return GateResult(name, Judgement.NOT_ASKED, "not asked")
    limit = f"proven equal within {said(limits.verified_within)}"
    remedy = f"run `dualstore verify {seen.table} --repair`"
    # What PostgreSQL, the authority, holds needs no proof; DynamoDB is compared with it all the same.
    proven = seen.verified or seen.stage.rule.authority is Side.POSTGRES
    if not proven or seen.verified_at is None:
        return GateResult(name, Judgement.NOT_YET, "both sides are not proven equal", limit, remedy)
    age = max(seen.taken_at - seen.verified_at, timedelta(0))
    saw = f"proven equal {said(age)} ago"
    if age > limits.verified_within:
        return GateResult(name, Judgement.NOT_YET, saw, limit, remedy)
    return GateResult(name, Judgement.MET, saw, limit)


def _no_dirty_keys(name: str, seen: EvidenceSnapshot, limits: Limits) -> GateResult:
    if limits.dirty_keys is None:
        return GateResult(name, Judgement.NOT_ASKED, "not asked")
    limit = f"at most {limits.dirty_keys:,}"
    if seen.dirty_keys is None:
        remedy = "see that PostgreSQL can be reached"
        return GateResult(name, Judgement.NOT_YET, "PostgreSQL does not answer", limit, remedy)
    saw = f"{seen.dirty_keys:,} key(s) in doubt, the gate is {seen.read_gate}, {seen.suspects} suspect(s)"
    if seen.dirty_keys <= limits.dirty_keys and seen.read_gate is ReadGate.OPEN and not seen.suspects:
        return GateResult(name, Judgement.MET, saw, limit)
    remedy = f"run `dualstore verify {seen.table} --repair`" if seen.suspects else "wait for the repair"
    return GateResult(name, Judgement.NOT_YET, saw, limit, remedy)


def _empty_journal(name: str, seen: EvidenceSnapshot, limits: Limits) -> GateResult:
    if limits.journal_keys is None or seen.stage.rule.authority is Side.POSTGRES:
        return GateResult(name, Judgement.NOT_ASKED, "not asked")
    saw, limit = f"{seen.journal_keys:,} key(s) wait in the journal", f"at most {limits.journal_keys:,}"
    if seen.journal_keys <= limits.journal_keys:
        return GateResult(name, Judgement.MET, saw, limit)
    return GateResult(name, Judgement.NOT_YET, saw, limit, f"wait, or run `dualstore repair {seen.table}`")


def _outbox_followed(name: str, seen: EvidenceSnapshot, limits: Limits) -> GateResult:
    if limits.outbox_age is None or seen.stage not in {Stage.LIVE, Stage.RAMPDOWN}:
        return GateResult(name, Judgement.NOT_ASKED, "not asked")
    limit = f"DynamoDB at most {said(limits.outbox_age)} behind, nothing refused"
    remedy = "see that `dualstore relay` runs; `dualstore status` tells what DynamoDB refuses"
    if seen.outbox_age is None:
        return GateResult(name, Judgement.NOT_YET, "nobody knows how far DynamoDB is behind", limit, remedy)
    saw = f"DynamoDB is {said(seen.outbox_age)} behind, {seen.outbox_refused:,} change(s) refused"
    good = seen.outbox_age <= limits.outbox_age and not seen.outbox_refused
    return GateResult(name, Judgement.MET if good else Judgement.NOT_YET, saw, limit, "" if good else remedy)


def _all_confirmed(name: str, seen: EvidenceSnapshot, _: Limits) -> GateResult:
    late = ", ".join(seen.unconfirmed)
    limit = "every live process has taken the last decision"
    if late:
        saw = f"{len(seen.unconfirmed)} of {seen.processes} process(es) have not: {late}"
        return GateResult(name, Judgement.NOT_YET, saw, limit, "wait; restart a process that stays behind")
    if not seen.processes:
        return GateResult(name, Judgement.NOT_YET, "no process serves the table", limit, "start the service")
    return GateResult(name, Judgement.MET, f"all {seen.processes} process(es) have", limit)


# -- what is counted: rates with their confidence ------------------------------------------------


def _mismatches(name: str, seen: EvidenceSnapshot, limits: Limits) -> GateResult:
    if limits.mismatch_percent is None or seen.stage not in {Stage.DUALWRITE, Stage.SHADOW, Stage.LIVE}:
        return GateResult(name, Judgement.NOT_ASKED, "not asked")
    return _rate(
        name,
        seen.mismatches,
        seen.comparisons,
        limits.mismatch_percent,
        what="compared reads differ",
        against=f"look at `dualstore discrepancies {seen.table}`",
    )


def _enough_comparisons(name: str, seen: EvidenceSnapshot, limits: Limits) -> GateResult:
    if limits.comparisons is None or seen.stage not in {Stage.DUALWRITE, Stage.SHADOW, Stage.LIVE}:
        return GateResult(name, Judgement.NOT_ASKED, "not asked")
    saw, limit = f"{seen.comparisons:,} reads compared", f"at least {limits.comparisons:,}"
    if seen.comparisons >= limits.comparisons:
        return GateResult(name, Judgement.MET, saw, limit)
    return GateResult(name, Judgement.NOT_YET, saw, limit, "wait for more traffic")


def _errors(name: str, seen: EvidenceSnapshot, limits: Limits) -> GateResult:
    if limits.error_percent is None:
        return GateResult(name, Judgement.NOT_ASKED, "not asked")
    return _rate(
        name,
        seen.errors,
        seen.calls,
        limits.error_percent,
        what="calls of PostgreSQL failed",
        against="look at `dualstore status` and PostgreSQL's log",
    )


def _rate(name: str, events: int, trials: int, percent: float, *, what: str, against: str) -> GateResult:
    """Met where the rate is surely below the limit, not met where it is surely above; else too few trials."""
    bound = upper_bound(events, trials) * 100
    saw = f"{events:,} of {trials:,} {what}: at most {bound:.2g} %, with 95 % confidence"
    limit = f"at most {percent:g} %"
    if bound <= percent:
        return GateResult(name, Judgement.MET, saw, limit)
    if events and trials and (1 - upper_bound(trials - events, trials)) * 100 > percent:
        return GateResult(name, Judgement.NOT_MET, saw, limit, against)
    needed = _trials_needed(events, percent / 100)
    return GateResult(name, Judgement.NOT_YET, saw, limit, f"wait: it takes {needed:,} to say so")


def _trials_needed(events: int, share: float) -> int:
    """How many trials it takes until so many events leave the bound at a share."""
    low, high = events, max(1, events)
    while upper_bound(events, high) > share:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if upper_bound(events, middle) > share else (low, middle)
    return high


# -- what is measured: latencies -----------------------------------------------------------------


def _latency_increase(name: str, seen: EvidenceSnapshot, limits: Limits) -> GateResult:
    if limits.latency_increase_percent is None or seen.stage not in {
        Stage.DUALWRITE,
        Stage.SHADOW,
        Stage.LIVE,
    }:
        return GateResult(name, Judgement.NOT_ASKED, "not asked")
    limit = 1 + limits.latency_increase_percent / 100
    return _latency(
        name,
        seen,
        f"PostgreSQL at most {limits.latency_increase_percent:g} % over DynamoDB at p95 and p99",
        lambda speeds, quantile: _ratio(speeds, quantile, limit),
    )


def _service_level(name: str, seen: EvidenceSnapshot, limits: Limits) -> GateResult:
    asked = {q: ms for q, ms in (("p95", limits.p95_ms), ("p99", limits.p99_ms)) if ms is not None}
    if not asked:
        return GateResult(name, Judgement.NOT_ASKED, "not asked")
    return _latency(
        name,
        seen,
        ", ".join(f"{quantile} at most {ms:g} ms" for quantile, ms in asked.items()),
        lambda speeds, quantile: _absolute(speeds, quantile, asked[quantile]),
        quantiles=tuple(asked),
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """One quantile of one class of reads; None: too few durations."""

    text: str
    judgement: Judgement | None


def _latency(
    name: str,
    seen: EvidenceSnapshot,
    limit: str,
    measure: Callable[[Speeds, str], _Measured],
    *,
    quantiles: Iterable[str] = tuple(QUANTILES),
) -> GateResult:
    """Every quantile of every class with enough durations is judged; of one class all have to be."""
    measured = [
        (each, quantile, measure(each, quantile))
        for each in seen.speeds
        for quantile in quantiles
        if each.postgres.count or each.dynamodb.count
    ]
    saw = ", ".join(f"{each.work} {quantile} {one.text}" for each, quantile, one in measured) or "no reads"
    judgements = [one.judgement for _, _, one in measured]
    if Judgement.NOT_MET in judgements:
        return GateResult(
            name, Judgement.NOT_MET, saw, limit, "look at plans, indexes and pool of PostgreSQL"
        )
    if Judgement.NOT_YET in judgements:
        return GateResult(name, Judgement.NOT_YET, saw, limit, "wait: it may be chance")
    known = [
        each for each in seen.speeds if all(one.judgement for other, _, one in measured if other is each)
    ]
    if not any(each.postgres.count for each in known):
        return GateResult(name, Judgement.NOT_YET, saw, limit, "wait for more traffic")
    return GateResult(name, Judgement.MET, saw, limit)


def _ratio(speeds: Speeds, quantile: str, limit: float) -> _Measured:
    fewest = min(speeds.dynamodb.count, speeds.postgres.count)
    if fewest < _ENOUGH[quantile]:
        return _Measured(f"of too few ({fewest:,})", None)
    ratio = _quantile(speeds.postgres, quantile) / _quantile(speeds.dynamodb, quantile)
    surely = _quantile(speeds.postgres, quantile, deviations=-_ONE_SIDED_95) / _quantile(
        speeds.dynamodb, quantile, deviations=_ONE_SIDED_95
    )
    return _Measured(f"ratio {ratio:.2f}", _judged(ratio, surely, limit))


def _absolute(speeds: Speeds, quantile: str, limit_ms: float) -> _Measured:
    if speeds.postgres.count < _ENOUGH[quantile]:
        return _Measured(f"of too few ({speeds.postgres.count:,})", None)
    found_ms = _quantile(speeds.postgres, quantile)
    surely_ms = _quantile(speeds.postgres, quantile, deviations=-_ONE_SIDED_95)
    return _Measured(f"{found_ms:.1f} ms", _judged(found_ms, surely_ms, limit_ms))


def _judged(found: float, surely: float, limit: float) -> Judgement:
    if found <= limit:
        return Judgement.MET
    return Judgement.NOT_MET if surely > limit else Judgement.NOT_YET


def _quantile(latencies: Latencies, quantile: str, *, deviations: float = 0.0) -> float:
    """A quantile in milliseconds, or a bound of it by order statistics: its rank is binomial."""
    share, count = QUANTILES[quantile], latencies.count
    moved = share + deviations * sqrt(share * (1 - share) / count)
    return latencies.quantile_ms(min(max(moved, 0.0), 1.0)) or 0.0


GATES: Mapping[str, Callable[[str, EvidenceSnapshot, Limits], GateResult]] = {
    "processes": _all_confirmed,
    "dirty keys": _no_dirty_keys,
    "journal": _empty_journal,
    "outbox": _outbox_followed,
    "verification": _fresh_verify,
    "comparisons": _enough_comparisons,
    "mismatch rate": _mismatches,
    "error rate": _errors,
    "latency": _latency_increase,
    "service level": _service_level,
}
"""By name, in the order in which they are told."""
