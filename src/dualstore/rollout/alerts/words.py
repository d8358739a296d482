"""What is told of a signal: what is wrong, in words and in figures, and what to look at next."""

from collections.abc import Mapping, Sequence
from typing import Any

from dualstore.rollout.thresholds import Reading, Signal, Window

NEXT_LOOK: Mapping[str, str] = {
    Signal.ERRORS: "PostgreSQL's log and `dualstore status`: which operations fail, and how",
    Signal.FALLBACKS: "the log of the processes: which breaker or guard is open; then PostgreSQL's load",
    Signal.MISMATCHES: "`dualstore discrepancies {table}`, then `dualstore verify {table}`",
    Signal.LATENCY: "PostgreSQL's slowest statements (pg_stat_statements), missing indexes, the pool",
    Signal.SERVICE_LEVEL: "PostgreSQL's slowest statements (pg_stat_statements), missing indexes, the pool",
    Signal.THROTTLES: "the table's capacity and its hot keys: CloudWatch's ReadThrottleEvents",
    Signal.POOL: "how many processes there are by the size of their pools; RDS Proxy; idle transactions",
    Signal.STREAM_LAG: "whether `dualstore relay` runs, and its log",
    Signal.OUTBOX_AGE: "whether `dualstore relay` runs; `dualstore status` tells what DynamoDB refuses",
    Signal.JOURNAL_AGE: "`dualstore repair {table}`, and whether PostgreSQL takes writes",
    Signal.DIRTY_KEYS: "`dualstore repair {table}`, and whether PostgreSQL takes writes",
    Signal.UNREACHABLE: "PostgreSQL itself: whether it runs, can be reached, and has connections left",
}
_WORDS: Mapping[str, str] = {
    Signal.ERRORS: "{value:.2g} % of PostgreSQL's calls fail",
    Signal.FALLBACKS: "{value:.2g} % of the reads dialled to PostgreSQL are answered by DynamoDB",
    Signal.MISMATCHES: "{value:.2g} % of compared reads differ",
    Signal.LATENCY: "PostgreSQL's reads are {value:.0f} % slower than DynamoDB's",
    Signal.SERVICE_LEVEL: "PostgreSQL's p99 is {value:.0f} ms",
    Signal.THROTTLES: "DynamoDB throttles {value:.2g} % of its calls",
    Signal.POOL: "{value:.0f} % of PostgreSQL's connections are in use",
    Signal.STREAM_LAG: "the relay is {value:.0f} s behind the stream",
    Signal.OUTBOX_AGE: "DynamoDB is {value:.0f} s behind PostgreSQL",
    Signal.JOURNAL_AGE: "a key has waited in the journal for {value:.0f} s",
    Signal.DIRTY_KEYS: "{value:,.0f} keys are in doubt on PostgreSQL",
    Signal.UNREACHABLE: "PostgreSQL does not answer",
}


def said_of(signal: str, history: Sequence[Window]) -> str:
    """A signal's worst reading in words."""
    readings = [window[signal] for window in history if signal in window]
    worst = max(readings, key=lambda reading: reading.at_least, default=Reading(0.0, 0.0, 0))
    text = _WORDS.get(signal, f"{signal} is {{value:g}}").format(value=worst.value)
    return f"{text} (of {worst.samples:,} in the worst window)" if worst.samples > 1 else text


def readings_json(window: Window) -> dict[str, Any]:
    """A window's readings as plain values, for the record."""
    return {
        str(signal): {
            "value": round(reading.value, 4),
            "at_least": round(reading.at_least, 4),
            "samples": reading.samples,
        }
        for signal, reading in window.items()
    }
