"""When what was seen of a table is an alarm: a pure function of some windows, which does not flap."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from dualstore.control import ControlRecord
from dualstore.stages import Side
from dualstore.store.evidence import upper_bound
from dualstore.telemetry import Latencies, Role, Verdict
from dualstore.telemetry.figures import THROTTLED, Figures, Work

_ONE_SIDED_95 = 1.645
"""Standard deviations of the normal distribution."""
_P95, _P99 = 0.95, 0.99
_QUANTILES = (_P95, _P99)
_LEAST_BEYOND = 2
"""A quantile counts where so many durations are beyond it; its bound by order statistics does the rest."""
_SHORTEST_MS = 1e-3
_READS = (Work.READ, Work.LISTING)
_SERVED = (Role.MIRROR, Role.AUTHORITATIVE, Role.READER)
_COMPARED = (Verdict.EQUAL, Verdict.LAG, Verdict.MISMATCH)


class Signal(StrEnum):
    """What the monitor looks at by itself; CloudWatch's metrics go by the names that they are given."""

    ERRORS = "errors"
    """Per cent of PostgreSQL's calls that were not answered."""
    FALLBACKS = "fallbacks"
    """Per cent of the reads dialled to PostgreSQL that DynamoDB had to answer, as for an open breaker."""
    MISMATCHES = "mismatches"
    """Per cent of compared reads that differ, and go on to."""
    LATENCY = "latency"
    """By how many per cent PostgreSQL's reads are slower than DynamoDB's, at p95 or p99."""
    SERVICE_LEVEL = "service_level"
    """PostgreSQL's p99, in milliseconds, of the slower class of reads."""
    THROTTLES = "throttles"
    """Per cent of DynamoDB's calls that it throttled."""
    POOL = "pool"
    """Per cent of PostgreSQL's connections that are in use."""
    STREAM_LAG = "stream_lag"
    """Seconds that the relay is behind DynamoDB's stream."""
    OUTBOX_AGE = "outbox_age"
    """Seconds that DynamoDB is behind PostgreSQL, the authority."""
    JOURNAL_AGE = "journal_age"
    """Seconds that the oldest key waits in the journal."""
    DIRTY_KEYS = "dirty_keys"
    """Keys in doubt on PostgreSQL."""
    UNREACHABLE = "unreachable"
    """1 while PostgreSQL does not answer the monitor."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one window says of one signal.

    Attributes:
        value: the figure.
        at_least: what it surely is at least, with 95 % confidence; the figure itself where it is no sample.
        samples: of how many calls, reads or looks.
    """

    value: float
    at_least: float
    samples: int = 1


Window = Mapping[str, Reading]
"""What was seen in one stretch of time, by signal; a signal that was not seen is not there."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """When one signal is an alarm.

    Attributes:
        enter: a window that is surely above this speaks for an alarm.
        leave: a window that is not above this speaks for its end; what is in between speaks for neither.
        samples: a window of fewer says nothing.
        rolls_back: whether an alarm takes traffic off PostgreSQL, or is told only.

    Raises:
        ValueError: it would be left before it is entered.
    """

    enter: float
    leave: float
    samples: int = 1
    rolls_back: bool = False

    def __post_init__(self) -> None:
        if self.leave > self.enter:
            raise ValueError("leave must not be above enter: an alarm would end where it begins")

    def is_over(self, reading: Reading | None) -> bool:
        """Whether a reading speaks for an alarm."""
        return reading is not None and reading.samples >= self.samples and reading.at_least > self.enter

    def is_under(self, reading: Reading | None) -> bool:
        """Whether a reading does not keep an alarm up; one that is missing, or of too few, does not."""
        return reading is None or reading.samples < self.samples or reading.value <= self.leave


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a table's signals are alarms.

    Attributes:
        signals: by name.
        windows: so many of the last windows have to speak for an alarm.
        of: which are looked at; an alarm ends when none of them keeps it up.

    Raises:
        ValueError: more windows would have to speak than are looked at.
    """

    signals: Mapping[str, Threshold]
    windows: int = 3
    of: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.windows <= self.of:
            raise ValueError("windows must be at least 1, and not more than `of`")


DEFAULTS: Mapping[str, Threshold] = {
    Signal.ERRORS: Threshold(1.0, 0.5, samples=50, rolls_back=True),
    Signal.FALLBACKS: Threshold(5.0, 1.0, samples=50, rolls_back=True),
    Signal.MISMATCHES: Threshold(0.1, 0.05, samples=50, rolls_back=True),
    Signal.LATENCY: Threshold(50.0, 20.0, samples=100, rolls_back=True),
    Signal.THROTTLES: Threshold(1.0, 0.1, samples=50),
    Signal.POOL: Threshold(85.0, 70.0),
    Signal.STREAM_LAG: Threshold(60.0, 10.0),
    Signal.OUTBOX_AGE: Threshold(30.0, 10.0),
    Signal.JOURNAL_AGE: Threshold(60.0, 10.0),
    Signal.DIRTY_KEYS: Threshold(1_000.0, 100.0),
    Signal.UNREACHABLE: Threshold(0.5, 0.5, rolls_back=True),
}
"""What is asked where a table's configuration says nothing; a service level is the team's to name."""


def judge(
    history: Sequence[Window], thresholds: Thresholds, *, alarms: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Which signals are alarms now.

    An alarm begins when `windows` of the last `of` windows are surely above `enter`, and ends when none of
    these keeps it up. So one bad window begins nothing, and a figure that moves between `leave` and `enter`
    changes nothing. An alarm lasts for at least `of` windows, and the next one begins at the earliest
    `windows` windows after its end.

    Args:
        history: windows of equal length without a gap, the last one last; more than `of` is not looked at.
        thresholds: of the table.
        alarms: what were alarms before the last window.

    Returns:
        What are alarms now. The same again where it is asked again with these.
    """
    last = history[-thresholds.of :]
    now = set()
    for name, threshold in thresholds.signals.items():
        readings = [window.get(name) for window in last]
        begins = sum(threshold.is_over(each) for each in readings) >= thresholds.windows
        lasts = len(last) < thresholds.of or not all(threshold.is_under(each) for each in readings)
        if begins or (name in alarms and lasts):
            now.add(name)
    return frozenset(now)


def to_roll_back(history: Sequence[Window], thresholds: Thresholds, record: ControlRecord) -> frozenset[str]:
    """The signals for which traffic is taken off PostgreSQL, by what was seen since the dials last moved.

    From `live` on a mismatch does not do it: it does not say which side is wrong, and DynamoDB would come to
    decide with what may be wrong there.

    Args:
        history: as for `judge`, of windows under the present dials alone.
        thresholds: of the table.
        record: its control record.
    """
    acting = {name for name, threshold in thresholds.signals.items() if threshold.rolls_back}
    if record.authority is Side.POSTGRES:
        acting -= {Signal.MISMATCHES, Signal.UNREACHABLE}
    return judge(history, thresholds) & acting


# -- what figures say ---------------------------------------------------------------------------


def readings_of(figures: Figures) -> Window:
    """What a window of the fleet's figures says."""
    counts = figures.counts
    asked = figures.by(side=Side.POSTGRES, works=tuple(Work))
    answered = figures.by(side=Side.POSTGRES, works=_READS, roles=_SERVED).latencies.count
    fell_back = counts.get("fallbacks", 0)
    compared = sum(counts.get(verdict, 0) for verdict in _COMPARED)
    by_dynamodb = figures.by(side=Side.DYNAMODB, works=tuple(Work))
    found = {
        Signal.ERRORS: _share(asked.errors, asked.count),
        Signal.FALLBACKS: _share(fell_back, fell_back + answered),
        Signal.MISMATCHES: _share(counts.get(Verdict.MISMATCH, 0), compared),
        Signal.THROTTLES: _share(counts.get(THROTTLED, 0), by_dynamodb.count),
        Signal.LATENCY: _worst(figures, _increase),
        Signal.SERVICE_LEVEL: _worst(figures, _p99),
    }
    return {name: reading for name, reading in found.items() if reading is not None}


def _share(events: int, trials: int) -> Reading | None:
    """A rate in per cent, and its lower 95 % confidence bound (Clopper and Pearson)."""
    if not trials:
        return None
    events = min(events, trials)
    return Reading(events / trials * 100, (1 - upper_bound(trials - events, trials)) * 100, trials)


def _worst(figures: Figures, measure: Callable[[Latencies, Latencies], Iterable[Reading]]) -> Reading | None:
    """The reading of the class of reads, and the quantile, that speaks loudest."""
    sides = (Side.DYNAMODB, Side.POSTGRES)
    readings = [
        reading
        for work in _READS
        for reading in measure(*(figures.by(side=side, works=[work]).latencies for side in sides))
    ]
    return max(readings, key=lambda reading: reading.at_least, default=None)


def _increase(dynamodb: Latencies, postgres: Latencies) -> Iterator[Reading]:
    """By how many per cent PostgreSQL is slower, at each quantile with enough durations on both sides."""
    samples = min(dynamodb.count, postgres.count)
    for quantile in _QUANTILES:
        if samples * (1 - quantile) >= _LEAST_BEYOND:
            value = _quantile_ms(postgres, quantile) / _quantile_ms(dynamodb, quantile)
            surely = _quantile_ms(postgres, quantile, -_ONE_SIDED_95) / _quantile_ms(
                dynamodb, quantile, _ONE_SIDED_95
            )
            yield Reading((value - 1) * 100, (surely - 1) * 100, samples)


def _p99(_: Latencies, postgres: Latencies) -> Iterator[Reading]:
    if postgres.count * (1 - _P99) >= _LEAST_BEYOND:
        yield Reading(
            _quantile_ms(postgres, _P99), _quantile_ms(postgres, _P99, -_ONE_SIDED_95), postgres.count
        )


def _quantile_ms(latencies: Latencies, quantile: float, deviations: float = 0.0) -> float:
    """A quantile, or a bound of it by order statistics: its rank is binomial."""
    moved = quantile + deviations * sqrt(quantile * (1 - quantile) / latencies.count)
    return latencies.quantile_ms(min(max(moved, 0.0), 1.0)) or _SHORTEST_MS
