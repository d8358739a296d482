"""What the fleet has seen of a table: evidence that the sides agree, and how fast each answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import exp, lgamma, log, log1p

from dualstore.control import ControlRecord
from dualstore.stages import Dials, Side, Stage
from dualstore.stores.postgres_rollup import PostgresRollup, Rolled, step_of
from dualstore.telemetry import Latencies, Role, Verdict
from dualstore.telemetry.figures import SHARE_SEEN, SHARE_SUM, Done, Figures, Work

CONFIDENCE = 0.95
LATELY = timedelta(minutes=1)

_READS = (Work.READ, Work.LISTING)
_QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
# A quantile of fewer durations than this says nothing: of 100, one is beyond the 99th percentile.
_ENOUGH = {"p50": 20, "p95": 100, "p99": 500}
_BISECTIONS = 100
_NEGLIGIBLE = 1e-18


@dataclass(frozen=True, slots=True)
class Speeds:
    """How long each side took for reads of one class, while the dials stood as they do.

    Attributes:
        work: the class.
        dynamodb: DynamoDB's latencies.
        postgres: PostgreSQL's.
    """

    work: Work
    dynamodb: Latencies
    postgres: Latencies

    def ratio(self, quantile: str) -> float | None:
        """PostgreSQL's `p50`, `p95` or `p99` by DynamoDB's; None where either has too few durations."""
        if min(self.dynamodb.count, self.postgres.count) < _ENOUGH[quantile]:
            return None
        dynamodb, postgres = (
            side.quantile_ms(_QUANTILES[quantile]) for side in (self.dynamodb, self.postgres)
        )
        return postgres / dynamodb if dynamodb and postgres is not None else None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of a table at one step of the dials, or since a moment.

    Attributes:
        table: the logical name.
        stage: the stage now.
        dials: the dials in force now.
        since: when the first of it was counted; None where nothing was yet.
        until: when the last of it was.
        comparisons: reads that were compared and could have shown a difference.
        mismatches: those that differed, and went on to.
        lagging: those that differed once and no longer did.
        unusable: comparisons that could not be made: no answer, or nothing to compare by.
        dropped: reads that were to be compared and were not.
        fallbacks: reads that were dialled to PostgreSQL and answered by DynamoDB.
        mirror_failures: writes that the mirror did not take at once.
        speeds: of the sides, by class of reads.
    """

    table: str
    stage: Stage
    dials: Dials
    since: datetime | None
    until: datetime | None
    comparisons: int
    mismatches: int
    lagging: int
    unusable: int
    dropped: int
    fallbacks: int
    mirror_failures: int
    speeds: tuple[Speeds, ...]

    @property
    def mismatch_bound(self) -> float:
        """With 95 % confidence, the share of reads that differ is not above this (one-sided).

        1 without any comparison: then nothing is known. It takes reads for independent of each other; a few
        keys that are read again and again tell less than their number.
        """
        return upper_bound(self.mismatches, self.comparisons)


@dataclass(frozen=True, slots=True)
class Worked:
    """What one side did lately in one role, over the whole fleet."""

    work: Work
    side: Side
    role: Role
    done: Done


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the whole fleet did with a table lately.

    Attributes:
        table: the logical name.
        within: how lately.
        processes: how many processes reported.
        worked: what was done, by class of operations, side and role.
        counts: comparisons by verdict, `dropped`, `fallbacks`, `mirror_failures`.
        shadow_share: the share of reads, in percent, that processes compared as the other side bore the load,
            on average: the dial, or less; None where none told any.
    """

    table: str
    within: timedelta
    processes: int
    worked: tuple[Worked, ...]
    counts: Mapping[str, int]
    shadow_share: float | None = None

    def per_second(self, worked: Worked) -> float:
        """How often a second something was done."""
        return worked.done.count / self.within.total_seconds()


def upper_bound(events: int, trials: int, *, confidence: float = CONFIDENCE) -> float:
    """The one-sided upper confidence bound of a rate, exact (Clopper and Pearson, Biometrika 26, 1934).

    The rate at which so few events, or fewer, in so many trials would be seen with a probability of only
    1 - `confidence`: 0 of 40 leaves up to 7.2 %.

    Args:
        events: how often it happened.
        trials: how often it could have.
        confidence: of the bound.
    """
    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if _at_most(events, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(events: int, trials: int, rate: float) -> float:
    """The probability of at most so many events at a rate above `events / trials`: the binomial tail.

    From the largest term down: each is a fixed factor of the one before, so none over- or underflows
    before it stops to count.
    """
    log_term = (
        lgamma(trials + 1)
        - lgamma(events + 1)
        - lgamma(trials - events + 1)
        + events * log(rate)
        + (trials - events) * log1p(-rate)
    )
    odds = (1 - rate) / rate
    total, term = 0.0, 1.0
    for count in range(events, -1, -1):
        total += term
        term *= count / (trials - count + 1) * odds
        if term < total * _NEGLIGIBLE:
            break
    return exp(log_term) * total


def evidence(
    rollup: PostgresRollup, logical: str, record: ControlRecord, *, since: datetime | None = None
) -> Evidence:
    """What was seen of a table.

    Args:
        rollup: the fleet's figures.
        logical: the table's name.
        record: its control record.
        since: from when on; None: since stage or dials last changed.

    Raises:
        Unavailable: PostgreSQL could not be reached in time.
    """
    step = step_of(record)
    rolled = rollup.of_step(record.table, step) if since is None else rollup.since(record.table, since)
    return _evident(logical, step.stage, step.dials, rolled)


def _evident(logical: str, stage: Stage, dials: Dials, rolled: Rolled) -> Evidence:
    counts = rolled.figures.counts
    judged = (Verdict.EQUAL, Verdict.LAG, Verdict.MISMATCH)
    return Evidence(
        table=logical,
        stage=stage,
        dials=dials,
        since=rolled.began_at,
        until=rolled.ended_at,
        comparisons=sum(counts.get(verdict, 0) for verdict in judged),
        mismatches=counts.get(Verdict.MISMATCH, 0),
        lagging=counts.get(Verdict.LAG, 0),
        unusable=sum(counts.get(verdict, 0) for verdict in set(Verdict) - set(judged)),
        dropped=counts.get("dropped", 0),
        fallbacks=counts.get("fallbacks", 0),
        mirror_failures=counts.get("mirror_failures", 0),
        speeds=tuple(_speeds(rolled.figures, work) for work in _READS),
    )


def _speeds(figures: Figures, work: Work) -> Speeds:
    return Speeds(
        work, *(figures.by(side=side, works=[work]).latencies for side in (Side.DYNAMODB, Side.POSTGRES))
    )


def fleet(rollup: PostgresRollup, logical: str, table: str, *, within: timedelta = LATELY) -> Fleet:
    """What the whole fleet did with a table lately.

    Args:
        rollup: the fleet's figures.
        logical: the table's name.
        table: its physical name.
        within: how lately.

    Raises:
        Unavailable: PostgreSQL could not be reached in time.
    """
    rolled = rollup.lately(table, within=within)
    worked = [Worked(*doer, done) for doer, done in sorted(rolled.figures.done.items())]
    figures = rolled.figures
    counts = {name: count for name, count in figures.counts.items() if name not in {SHARE_SEEN, SHARE_SUM}}
    return Fleet(logical, within, rolled.processes, tuple(worked), counts, figures.shadow_share)


def render(found: Evidence) -> str:
    """Evidence in plain text, a few lines for people."""
    dials = found.dials
    position = f"read-percent {dials.postgres_read_percent:g}, shadow-percent {dials.shadow_percent:g}"
    lines = [
        f"{found.table}: stage {found.stage}, {position}",
        f"  seen {_period(found)}",
        f"  {_compared(found)}",
    ]
    asides = {
        "differed for a moment": found.lagging,
        "could not be compared": found.unusable,
        "comparisons dropped": found.dropped,
        "reads fell back": found.fallbacks,
        "mirror writes failed": found.mirror_failures,
    }
    if any(asides.values()):
        lines.append("  " + ", ".join(f"{count:,} {what}" for what, count in asides.items() if count))
    lines += [f"  {text}" for text in _latency_lines(found.speeds)]
    return "\n".join(lines)


def _period(found: Evidence) -> str:
    if found.since is None or found.until is None:
        return "nothing yet since the dials moved: processes report every few seconds"
    seconds = (found.until - found.since).total_seconds()
    length = f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004 - ten minutes
    return f"for {length}, since {found.since:%Y-%m-%d %H:%M:%S %Z}"


def _compared(found: Evidence) -> str:
    if not found.comparisons:
        return "0 reads compared: nothing is known of how often the sides differ"
    return (
        f"{found.mismatches:,} of {found.comparisons:,} compared reads differ: with 95 % confidence at most "
        f"{_share(found.mismatch_bound)} of all do"
    )


def _share(share: float) -> str:
    return f"{share * 100:.2g} %" if share < 0.1 else f"{share * 100:.0f} %"  # noqa: PLR2004 - ten per cent


def _latency_lines(speeds: Iterable[Speeds]) -> Iterable[str]:
    for each in speeds:
        ratios = {quantile: each.ratio(quantile) for quantile in _QUANTILES}
        known = [f"{quantile} {ratio:.2f}" for quantile, ratio in ratios.items() if ratio is not None]
        if known:
            yield f"PostgreSQL's time by DynamoDB's, {each.work}: {', '.join(known)}"
        elif each.dynamodb.count or each.postgres.count:
            yield (
                f"too few {each.work}s to compare latencies: {each.dynamodb.count:,} by DynamoDB, "
                f"{each.postgres.count:,} by PostgreSQL"
            )
