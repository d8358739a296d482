"""When a step may begin: by the days and clocks of a time zone, its summer time included."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from dualstore.rollout.durations import duration_of, said
from dualstore.rollout.windows import Window, window_of

BERLIN = ZoneInfo("Europe/Berlin")


def window(**content: object) -> Window:
    return window_of({"days": "mon-fri", "hours": "09:00-17:00", "timezone": "Europe/Berlin", **content})


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("at", "opens"),
    [
        ("2026-11-20T09:00", "2026-11-20T09:00"),  # a Friday
        ("2026-11-20T16:59", "2026-11-20T16:59"),
        ("2026-11-20T17:00", "2026-11-23T09:00"),
        ("2026-11-20T03:00", "2026-11-20T09:00"),
        ("2026-11-21T12:00", "2026-11-23T09:00"),
    ],
)
def test_a_window_is_open_on_its_days_and_hours_alone(at: str, opens: str) -> None:
    assert window().next_opening(local(at)) == local(opens)


def test_the_clock_of_the_zone_counts_not_that_of_the_machine() -> None:
    assert window().next_opening(datetime(2026, 11, 20, 8, 30, tzinfo=UTC)) == local("2026-11-20T09:30")
    assert window().next_opening(datetime(2026, 7, 20, 6, 30, tzinfo=UTC)) == local("2026-07-20T09:00")


def test_a_window_past_midnight_belongs_to_the_day_on_which_it_opened() -> None:
    night = window(days="sat", hours="22:00-06:00")
    assert night.next_opening(local("2026-11-22T05:00")) == local("2026-11-22T05:00"), "Sunday morning"
    assert night.next_opening(local("2026-11-22T06:00")) == local("2026-11-28T22:00")


def test_a_window_over_the_end_of_summer_time_is_an_hour_longer() -> None:
    night = window(days="sat", hours="22:00-06:00")
    opens = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)
    last = opens + timedelta(hours=9) - timedelta(seconds=1)
    assert night.next_opening(opens) == opens
    assert night.next_opening(last) == last
    assert night.next_opening(opens + timedelta(hours=9)) != opens + timedelta(hours=9)


def test_a_window_that_closes_in_the_hour_that_comes_twice_closes_the_first_time() -> None:
    night = window(days="sat", hours="22:00-02:30")
    first, second = datetime(2026, 10, 25, 0, 15, tzinfo=UTC), datetime(2026, 10, 25, 1, 15, tzinfo=UTC)
    opened = night.next_opening(first)
    assert opened is not None
    assert opened.astimezone(UTC) == first  # across zones, a time that comes twice equals none
    assert night.next_opening(second) == local("2026-10-31T22:00")


def test_closed_days_and_weeks_that_go_round() -> None:
    assert window(closed=["2026-11-23"]).next_opening(local("2026-11-20T18:00")) == local("2026-11-24T09:00")
    assert window(days="fri-mon").days == {4, 5, 6, 0}
    assert str(window(days="mon-wed,fri", hours="00:00-24:00")) == "mon-wed,fri 00:00-24:00 Europe/Berlin"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"timezone": "Mars/Base"}, "Mars/Base is no time zone"),
        ({"days": "mon-foo"}, "'mon-foo' is no day"),
        ({"closed": ["tomorrow"]}, "'tomorrow' is no date"),
    ],
)
def test_what_makes_no_window_says_why(content: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        window(**content)


def test_durations_are_read_and_said() -> None:
    assert duration_of("90s") == timedelta(seconds=90)
    assert duration_of("1.5h") == timedelta(minutes=90)
    assert duration_of("300ms") == timedelta(milliseconds=300)
    assert [said(duration_of(text)) for text in ("300ms", "90s", "15m", "24h", "36h")] == [
        "0.3 s",
        "90 s",
        "15 min",
        "1 d",
        "36 h",
    ]
    with pytest.raises(ValueError, match="no duration"):
        duration_of("soon")
