"""The clock by which grants and windows are measured: it goes on while a virtual machine is suspended."""

import time
from typing import Protocol

from dualstore.stores.uptime import uptime


class Clock(Protocol):
    """Time as one process sees it."""

    def now(self) -> float:
        """Seconds since some moment of the past; never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own."""

    def now(self) -> float:
        """Seconds since the machine was started, suspended time included."""
        return uptime()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
