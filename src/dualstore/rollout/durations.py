"""Durations as people write them in a plan: `90s`, `15m`, `24h`, `2d`."""

import re
from datetime import timedelta

PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration_of(text: str) -> timedelta:
    """The duration that a text such as `15m` stands for.

    Raises:
        ValueError: it is none.
    """
    if re.match(PATTERN, text) is None:
        raise ValueError(f"{text!r} is no duration; write 90s, 15m, 24h or 2d")
    number, unit = re.findall(r"[0-9.]+|[a-z]+", text)
    return timedelta(**{_UNITS[unit]: float(number)})


def said(duration: timedelta) -> str:
    """A duration in the largest unit that leaves a short number."""
    seconds = duration.total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length or seconds == length:
            return (
                f"{seconds / length:g} {unit}" if seconds % length == 0 else f"{seconds / length:.1f} {unit}"
            )
    return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - ten seconds
