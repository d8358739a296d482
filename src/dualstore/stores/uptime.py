"""The clock that goes on while a process is stopped, or its machine suspended."""

import time

# CLOCK_MONOTONIC stands still during suspend: what is measured by it seems younger. macOS has only that.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def uptime() -> float:
    """Seconds since the machine was started, suspended time included."""
    return time.clock_gettime(_CLOCK)
