"""When a step may begin: days and hours of a week, in a time zone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MIDNIGHT = time(0)
_LONGEST_CLOSURE_DAYS = 366


@dataclass(frozen=True, slots=True)
class Window:
    """Stretches of time in which steps may begin.

    Attributes:
        days: of the week, Monday is 0; hours past midnight belong to the day on which they began.
        opens: the first moment, by the clocks of the zone.
        closes: the first moment after it; not after `opens` where the window goes past midnight.
        zone: the time zone.
        closed: days on which it does not open, such as holidays.
    """

    days: frozenset[int]
    opens: time
    closes: time
    zone: ZoneInfo
    closed: frozenset[date] = frozenset()

    def next_opening(self, at: datetime) -> datetime | None:
        """The first moment from `at` on at which it is open: `at` itself where it is; None: never again.

        Args:
            at: a moment with a time zone.

        Returns:
            In the window's own zone.
        """
        local = at.astimezone(self.zone)
        for offset in range(-1, _LONGEST_CLOSURE_DAYS):
            day = local.date() + timedelta(days=offset)
            if day.weekday() not in self.days or day in self.closed:
                continue
            # Moments are compared in UTC: within one zone Python compares the faces of the clocks.
            begins, ends = self._bounds(day)
            if at.astimezone(UTC) < ends.astimezone(UTC):
                return local if begins.astimezone(UTC) <= at.astimezone(UTC) else begins
        return None

    def _bounds(self, day: date) -> tuple[datetime, datetime]:
        last = day if self.closes > self.opens else day + timedelta(days=1)
        begins = datetime.combine(day, self.opens, self.zone)
        return begins, datetime.combine(last, self.closes, self.zone)

    def __str__(self) -> str:
        days = _said_days(self.days)
        closes = "24:00" if self.closes == _MIDNIGHT else f"{self.closes:%H:%M}"
        return f"{days} {self.opens:%H:%M}-{closes} {self.zone.key}"


def window_of(content: Mapping[str, Any]) -> Window:
    """A window as a plan has it: `{days: mon-fri, hours: 09:00-17:00, timezone: Europe/Berlin}`.

    Raises:
        ValueError: there is no such time zone, or a list of days or hours makes no sense; the message says.
    """
    try:
        zone = ZoneInfo(str(content["timezone"]))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"timezone: {content['timezone']} is no time zone of the IANA database, such as Europe/Berlin"
        ) from None
    opens, _, closes = str(content.get("hours", "00:00-24:00")).partition("-")
    closed = frozenset(_date(each) for each in content.get("closed", ()))
    return Window(_days(str(content.get("days", "mon-sun"))), _time(opens), _time(closes), zone, closed)


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.replace(" ", "").lower().split(","):
        first, _, last = part.partition("-")
        try:
            begin, end = DAYS.index(first), DAYS.index(last or first)
        except ValueError:
            raise ValueError(f"days: {part!r} is no day or range of days; write mon-fri or mon,wed") from None
        found |= {day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)}
    return frozenset(found)


def _time(text: str) -> time:
    if text == "24:00":
        return _MIDNIGHT
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise ValueError(f"hours: {text!r} is no time of day; write 09:00-17:00") from None


def _date(content: object) -> date:
    if isinstance(content, date):
        return content
    try:
        return date.fromisoformat(str(content))
    except ValueError:
        raise ValueError(f"closed: {content!r} is no date; write 2026-12-24") from None


def _said_days(days: frozenset[int]) -> str:
    """Runs of days: `mon-fri`, `mon,wed`."""
    parts: list[str] = []
    for day in sorted(days):
        if day - 1 in days and parts:
            parts[-1] = f"{parts[-1].partition('-')[0]}-{DAYS[day]}"
        else:
            parts.append(DAYS[day])
    return ",".join(parts)
