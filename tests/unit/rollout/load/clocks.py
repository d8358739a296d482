"""Time that passes when somebody waits, and not otherwise."""

import threading


class WaitedTime:
    """A clock for several threads: it stands still but for those who sleep."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since whenever."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Wait, at once."""
        with self._lock:
            self._now += seconds

    @staticmethod
    def scheduled() -> tuple[float, float]:
        """Nobody waits for a processor."""
        return 0.0, 0.0
