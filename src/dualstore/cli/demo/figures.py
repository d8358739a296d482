"""The figures that screen and report show of a tally, each computed in one place."""

from dataclasses import dataclass

from dualstore.cli.demo.measures import Tally
from dualstore.telemetry import Latencies
from dualstore.telemetry.latency import combined

DYNAMODB_READS = "DynamoDB reads"
DYNAMODB_WRITES = "DynamoDB writes"
POSTGRES_READS = "PostgreSQL reads"
POSTGRES_WRITES = "PostgreSQL writes"
SHADOW_READS = ("DynamoDB shadow reads", "PostgreSQL shadow reads")
SIDES = {
    "DynamoDB": (DYNAMODB_READS, DYNAMODB_WRITES),
    "PostgreSQL": (POSTGRES_READS, POSTGRES_WRITES, SHADOW_READS[1]),
}
"""The works of each side that callers' operations cause."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a tally says of a stretch of time.

    Attributes:
        calls_per_second: what callers got done.
        callers: what they waited.
        worst_ms: the longest that any of them waited, in milliseconds.
        sides: what each side took, by its name.
        postgres_read_share: the share of reads that PostgreSQL answered, from 0 to 1; None without reads.
        compared: shadow comparisons.
        mismatches: those that found a difference that stayed.
        errors: failed calls.
        stale_reads: reads that did not show the reader's own write.
    """

    calls_per_second: float
    callers: Latencies
    worst_ms: float
    sides: dict[str, Latencies]
    postgres_read_share: float | None
    compared: int
    mismatches: int
    errors: int
    stale_reads: int


def figures(tally: Tally, seconds: float) -> Figures:
    """The figures of a tally taken over this many seconds."""
    callers = tally.waited()
    on_postgres = _count(tally, POSTGRES_READS)
    reads = on_postgres + _count(tally, DYNAMODB_READS)
    return Figures(
        calls_per_second=callers.count / seconds if seconds > 0 else 0.0,
        callers=callers,
        worst_ms=tally.worst_seconds * 1_000,
        sides={side: side_latencies(tally, works) for side, works in SIDES.items()},
        postgres_read_share=on_postgres / reads if reads else None,
        compared=tally.counts["compared"],
        mismatches=tally.counts["mismatches"],
        errors=tally.errors.total(),
        stale_reads=tally.counts["stale reads"] + tally.counts["wrong pages"],
    )


def side_latencies(tally: Tally, works: tuple[str, ...]) -> Latencies:
    """The latencies of these works of one side together."""
    return combined(tally.sides[work] for work in works if work in tally.sides)


def _count(tally: Tally, work: str) -> int:
    return tally.sides[work].count if work in tally.sides else 0


def ms(value: float | None) -> str:
    """Milliseconds for people: two significant figures, or a dash."""
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"  # noqa: PLR2004 - below, a decimal says something


def p50_p99(latencies: Latencies) -> str:
    """Median and 99th percentile in milliseconds, as `1.2 / 3.4`."""
    return "-" if not latencies.count else f"{ms(latencies.p50_ms)} / {ms(latencies.p99_ms)}"


def percent(share: float | None) -> str:
    """A share from 0 to 1 as whole percents, or a dash."""
    return "-" if share is None else f"{share:.0%}"
