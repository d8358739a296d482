"""How much of the dialled share of comparison reads the other side bears: halved at once, regained slowly."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock

_LEAST = 0.01
"""A share that is never left, so that it is noticed when the other side is well again."""
_STEP = 0.05
_STANDING_QUEUE = 0.5
"""A queue that is never less full than this grows faster than it is worked off."""
_SLOWER = 3.0
"""So many times its normal latency is slow."""
_SLACK_SECONDS = 0.02
"""And so much more at least: a millisecond that becomes four is nobody's trouble."""
_NORMAL_WEIGHT = 0.05
"""Of the latest window in what counts as normal: some twenty windows are remembered."""


@dataclass(slots=True)
class _Kind:
    """The latency of one kind of reads.

    Attributes:
        normal: seconds, as they were lately; None before the first window.
        total: seconds in this window.
        count: how many in this window.
    """

    normal: float | None = None
    total: float = 0.0
    count: int = 0


class AdaptiveShare:
    """The share, from 0.01 to 1, by which the dialled percentage is multiplied.

    Once a window it is looked at how the other side fared. Where a kind of reads took longer than `limit`, or
    than three times what is normal for it, or the queue was half full all the time, or dropped something, the
    share halves; else it grows by 0.05. (Additive increase, multiplicative decrease: Chiu and Jain, 1989.) A
    side that stays slow but within the limit is the new normal after a while.

    Args:
        limit: the mean latency of a window beyond which the other side is slow, whatever is normal for it.
        window: how often the share is decided upon.
        clock: tells the time in seconds, from any moment on.
        changed: told of the share after every window.
    """

    def __init__(
        self,
        *,
        limit: timedelta = timedelta(seconds=1),
        window: timedelta = timedelta(seconds=1),
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.share = 1.0
        self._limit_seconds = limit.total_seconds()
        self._window_seconds = window.total_seconds()
        self._clock = clock
        self._changed = changed
        self._lock = Lock()
        self._kinds: dict[str, _Kind] = {}
        self._emptiest: float | None = None
        self._dropped = False
        self._ends_at = clock() + self._window_seconds

    def answered(self, kind: str, seconds: float) -> None:
        """Take note of how long the other side took.

        Args:
            kind: reads that take equally long when all is well, such as `GetItem`.
            seconds: from asking to the answer, or to the time limit.
        """
        with self._lock:
            measured = self._kinds.setdefault(kind, _Kind())
            measured.total += seconds
            measured.count += 1

    def queued(self, filled: float) -> None:
        """Take note of the queue, and decide where a window is over.

        Args:
            filled: how full it is, from 0 to 1.
        """
        if self._clock() >= self._ends_at:
            self._decide()
        self._emptiest = filled if self._emptiest is None else min(self._emptiest, filled)

    def dropped(self) -> None:
        """Take note of a read that there was no room or no time for."""
        self._dropped = True

    def _decide(self) -> None:
        with self._lock:
            now = self._clock()
            if now < self._ends_at:
                return  # another thread was faster
            self._ends_at = now + self._window_seconds
            slow = [self._is_slow(kind) for kind in self._kinds.values() if kind.count]
            if any(slow) or self._dropped or (self._emptiest or 0.0) > _STANDING_QUEUE:
                self.share = max(_LEAST, self.share / 2)
            else:
                self.share = min(1.0, self.share + _STEP)
            self._emptiest, self._dropped = None, False
            share = self.share
        self._changed(share)

    def _is_slow(self, kind: _Kind) -> bool:
        """Whether a kind of reads was slow in this window, which ends for it."""
        mean = kind.total / kind.count
        kind.total, kind.count = 0.0, 0
        if kind.normal is None:
            kind.normal = mean
        slow = mean > max(kind.normal * _SLOWER, kind.normal + _SLACK_SECONDS) or mean > self._limit_seconds
        kind.normal += (mean - kind.normal) * _NORMAL_WEIGHT
        return slow
