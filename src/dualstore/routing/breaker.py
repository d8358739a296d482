"""A breaker: leaves a way of reading alone while it fails or is slow, and tries it read by read."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum, StrEnum
from functools import partial
from threading import Lock

from dualstore.replication.clocks import SYSTEM_CLOCK, Clock
from dualstore.replication.health import GrowingPause


class BreakerState(StrEnum):
    """Whether reads go through."""

    CLOSED = "closed"
    """They do."""
    OPEN = "open"
    """They do not, but for one probe at a time once a pause is over."""


class Admission(IntEnum):
    """What a breaker says to a read; false where it is to go elsewhere."""

    REFUSED = 0
    PASSED = 1
    PROBE = 2


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When a breaker opens and closes.

    Attributes:
        window: reads count for so long, and for twice that at most.
        least_bad: it opens on no fewer bad reads; the window grows where it holds fewer reads than that.
        bad_percent: the share of bad reads at which it opens: of their number, or of the time they took.
        slow: a read that takes so long is a bad one.
        probes: so many good probes in a row close it.
    """

    window: timedelta = timedelta(seconds=10)
    least_bad: int = 5
    bad_percent: float = 50.0
    slow: timedelta = timedelta(seconds=0.5)
    probes: int = 3


@dataclass(slots=True)
class _Tally:
    reads: int = 0
    bad: int = 0
    seconds: float = 0.0
    bad_seconds: float = 0.0


class Breaker:
    """Counts good and bad reads of one way of reading.

    Two windows, the present and the last one, make a sliding one. Time is counted beside numbers because few
    callers are left to count when each waits for a deadline: twenty reads that hang for two seconds are as
    many as a thousand good ones a second before them would let pass for ten more.

    Args:
        limits: when it opens and closes.
        on_change: told of its state whenever that changes, in the thread that changes it.
        clock: measures windows and pauses.
    """

    def __init__(
        self,
        limits: BreakerLimits,
        *,
        on_change: Callable[[BreakerState], None] = lambda _: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._limits = limits
        self._slow_seconds = limits.slow.total_seconds()
        self._window_seconds = limits.window.total_seconds()
        self._on_change = on_change
        self._clock = clock
        self._lock = Lock()
        self._pause = GrowingPause(clock=clock)
        self._present, self._last = _Tally(), _Tally()
        self._window_ends_at = clock.now() + self._window_seconds
        self._probing_since: float | None = None
        self._good_probes = 0
        self._is_held = False
        self.state = BreakerState.CLOSED

    def admit(self) -> Admission:
        """Whether a read may go through; if so, `note` is to be told what came of it."""
        if self.state is BreakerState.CLOSED:
            return Admission.PASSED
        with self._lock:
            now = self._clock.now()
            if self._is_held or self._pause.lasts or self._is_probing(now):
                return Admission.REFUSED
            self._probing_since = now
        return Admission.PROBE

    def hold(self) -> None:
        """Let no read through, nor a probe, until `let_go`."""
        with self._lock:
            before, self.state, self._is_held = self.state, BreakerState.OPEN, True
            self._good_probes = 0
        if before is not BreakerState.OPEN:
            self._on_change(BreakerState.OPEN)

    def let_go(self) -> None:
        """End what `hold` began: good probes close it."""
        with self._lock:
            self._is_held = False

    def note(self, admission: Admission, now: float, seconds: float, *, failed: bool) -> None:
        """Count a read that went through.

        Args:
            admission: as `admit` gave it.
            now: when it ended, by the breaker's clock.
            seconds: how long it took.
            failed: whether it got no answer.
        """
        bad = failed or seconds >= self._slow_seconds
        with self._lock:
            before = self.state
            if admission is Admission.PROBE:
                self._judge(now, bad=bad)
            elif before is BreakerState.CLOSED:  # else it began before the breaker opened: known already
                tally = self._present
                tally.reads += 1
                tally.seconds += seconds
                if bad:
                    self._count_bad(tally, seconds)
                if now >= self._window_ends_at:
                    self._move_window(now)
            after = self.state
        if after is not before:
            self._on_change(after)

    def _is_probing(self, now: float) -> bool:
        # A probe whose thread was killed reports nothing; no read lasts for a window.
        return self._probing_since is not None and now - self._probing_since < self._window_seconds

    def _count_bad(self, tally: _Tally, seconds: float) -> None:
        tally.bad += 1
        tally.bad_seconds += seconds
        if self._is_too_bad():
            self.state = BreakerState.OPEN
            self._good_probes = 0
            self._pause.failed()

    def _move_window(self, now: float) -> None:
        if self._present.reads >= self._limits.least_bad:
            self._last, self._present = self._present, _Tally()
            self._window_ends_at = now + self._window_seconds

    def _is_too_bad(self) -> bool:
        present, last = self._present, self._last
        bad = present.bad + last.bad
        if bad < self._limits.least_bad:
            return False
        share = self._limits.bad_percent / 100
        by_number = bad >= share * (present.reads + last.reads)
        return by_number or present.bad_seconds + last.bad_seconds >= share * (present.seconds + last.seconds)

    def _judge(self, now: float, *, bad: bool) -> None:
        self._probing_since = None
        if bad:
            self._good_probes = 0
            self._pause.failed()
            return
        self._good_probes += 1
        if self._is_held or self._good_probes < self._limits.probes:
            return
        self.state = BreakerState.CLOSED
        self._pause.relieved()
        self._present, self._last = _Tally(), _Tally()
        self._window_ends_at = now + self._window_seconds


class Breakers:
    """The breakers of one role, by the logical names of their tables.

    Args:
        limits: when they open and close.
        on_change: told of a table's logical name and the state of its breaker whenever that changes.
        clock: measures windows and pauses.
    """

    def __init__(
        self, limits: BreakerLimits, *, on_change: Callable[[str, BreakerState], None], clock: Clock
    ) -> None:
        self._limits = limits
        self._on_change = on_change
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}

    def of(self, logical: str) -> Breaker:
        """The breaker of one table."""
        breaker = self._breakers.get(logical)
        if breaker is None:
            new = Breaker(self._limits, on_change=partial(self._on_change, logical), clock=self._clock)
            breaker = self._breakers.setdefault(logical, new)
        return breaker
