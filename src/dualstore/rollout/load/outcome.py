"""A replay's result for people and programs: rates, latencies, errors, and whether the thresholds hold."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from math import ceil
from typing import Any

from dualstore.rollout.load.replay import Replay
from dualstore.rollout.load.tally import Cause, OperationTally, Tally

_ACHIEVED_PERCENT = 95.0
"""Below this share of the planned rate, the load that was asked for was not there."""
_FREE = 1.5
"""So many times as many writers as are busy on average are free often enough."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What must hold; None does not ask.

    Attributes:
        p99_under: of every kind of operations, from when they were due.
        errors_under_percent: of all operations together.
    """

    p99_under: timedelta | None = None
    errors_under_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one kind of operations, or of all; latencies in milliseconds, from when they were due."""

    name: str
    planned_per_second: float
    achieved_per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    longest_ms: float
    sent_p99_ms: float | None
    errors: dict[str, int]
    unbegun: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a replay.

    Attributes:
        rows: of every kind of operations.
        total: of all of them.
        held_up: what kept the generator from keeping the pace, and what to do; None: it kept it.
        failures: the thresholds that do not hold, in words.
    """

    rows: tuple[Row, ...]
    total: Row
    held_up: str | None
    failures: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "well": not self.failures,
            "failures": list(self.failures),
            "generator_was_the_bottleneck": self.held_up is not None,
            "held_up": self.held_up,
            "operations": [_document(row) for row in self.rows],
            "total": _document(self.total),
        }


def outcome(planned: Replay, tally: Tally, thresholds: Thresholds) -> Outcome:
    """Judge what was counted."""
    seconds = planned.duration.total_seconds()
    rows = tuple(
        _row(rate.label, tally.kinds[number], tally.seconds, seconds)
        for number, rate in enumerate(planned.load.operations)
    )
    whole = OperationTally()
    for each in tally.kinds.values():
        whole = whole.plus(each)
    total = _row("all", whole, tally.seconds, seconds)
    return Outcome(rows, total, _held_up(tally), tuple(_failures(rows, total, whole, thresholds)))


def _row(name: str, kind: OperationTally, took_seconds: float, seconds: float) -> Row:
    done = kind.latencies.count + kind.failed
    return Row(
        name,
        kind.planned / seconds,
        done / took_seconds,
        _within(kind.latencies.p50_ms, kind),
        _within(kind.latencies.p95_ms, kind),
        _within(kind.latencies.p99_ms, kind),
        kind.longest_seconds * 1000,
        kind.service.p99_ms,
        dict(kind.errors.most_common()),
        kind.unbegun,
    )


def _within(quantile_ms: float | None, kind: OperationTally) -> float | None:
    """A quantile that is read of a bucket may lie behind the longest of all."""
    return None if quantile_ms is None else min(quantile_ms, kind.longest_seconds * 1000)


def _failures(
    rows: tuple[Row, ...], total: Row, whole: OperationTally, thresholds: Thresholds
) -> Iterator[str]:
    if thresholds.p99_under is not None:
        limit_ms = thresholds.p99_under.total_seconds() * 1000
        for row in rows:
            if row.p99_ms is not None and row.p99_ms >= limit_ms:
                yield f"{row.name}: p99 is {row.p99_ms:.1f} ms, not under {limit_ms:g} ms"
            elif row.p99_ms is None and row.planned_per_second:
                yield f"{row.name}: nothing was answered, so its p99 is not under {limit_ms:g} ms"
    if thresholds.errors_under_percent is not None:
        percent = 100 * (whole.failed + whole.unbegun) / max(whole.planned, 1)
        if percent >= thresholds.errors_under_percent:
            yield f"{percent:.3g} % of the operations failed, not under {thresholds.errors_under_percent:g} %"
    if total.achieved_per_second < total.planned_per_second * _ACHIEVED_PERCENT / 100:
        yield (
            f"{total.achieved_per_second:.1f} operations a second were made, not "
            f"{total.planned_per_second:.1f}: the load that was asked for was not there"
        )


def _held_up(tally: Tally) -> str | None:
    late = tally.late_busy + tally.late_free + tally.unbegun
    share = f"{100 * late / max(tally.planned, 1):.0f} % of the operations began late or not at all"
    match tally.cause:
        case None:
            return None
        case Cause.PROCESSOR:
            return (
                f"the load generator was the bottleneck: {share}, and a process used "
                f"{tally.processor_percent:.0f} % of a core; give it more --processes, or a larger machine"
            )
        case Cause.STARVED:
            return (
                f"the load generator was the bottleneck: {share}, for want of a processor: its writers "
                f"waited for {tally.starved_percent:.0f} % of the time in which they needed one; run it on a "
                "machine of its own"
            )
        case Cause.WRITERS:
            return (
                f"the load generator was at its limit: {share}, because all {tally.writers} writers waited "
                f"for answers, {tally.busy:.1f} on average; either the service is too slow for this rate, "
                f"or it takes --writers {_needed(tally)} to tell"
            )


def _needed(tally: Tally) -> int:
    """How many writers the planned rate takes, by Little's law: rate times how long an operation takes."""
    sent_seconds = tally.busy * tally.elapsed_seconds
    wanted = tally.planned / tally.seconds * sent_seconds / max(tally.sent, 1) * _FREE
    return max(ceil(wanted), tally.writers * 2)


def _document(row: Row) -> dict[str, Any]:
    return {
        name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(row).items()
    }
