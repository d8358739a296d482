"""Limits with hysteresis: what goes beyond holds a backfill back until it has been calm for a while."""

from datetime import timedelta

from dualstore.backfill.load_limits import CALM_LOOKS, Gauge, LoadAware, Reading
from dualstore.errors import Unavailable


class Readings:
    """Readings as a gauge takes them, the last one for ever."""

    def __init__(self, *shares: float | None) -> None:
        self._shares = list(shares)
        self.looks = 0

    def __call__(self) -> Reading | None:
        self.looks += 1
        share = self._shares.pop(0) if len(self._shares) > 1 else self._shares[0]
        return None if share is None else Reading(share, f"{share:g} of the limit")


def looks(*shares: float | None) -> list[str | None]:
    gauge = Gauge(Readings(*shares))
    return [gauge.look() for _ in shares]


def test_what_is_at_its_limit_holds_nothing_back() -> None:
    assert looks(None, 0.0, 1.0) == [None, None, None]


def test_what_went_beyond_holds_until_it_is_calm_several_times_in_a_row() -> None:
    assert CALM_LOOKS == 3
    assert looks(1.1, 0.9, 0.5, 0.5, 0.6, 0.5, 0.5, 0.5, 0.9) == ["1.1 of the limit"] * 7 + [None] * 2


def test_the_reason_is_of_the_latest_reading_beyond_the_limit() -> None:
    assert looks(1.1, 2.0, 0.9) == ["1.1 of the limit", "2 of the limit", "2 of the limit"]


def test_postgresql_is_looked_at_once_in_a_while_however_many_batches_there_are() -> None:
    now, readings = [0.0], Readings(2.0, None)
    aware = LoadAware([Gauge(readings)], look=timedelta(seconds=1), clock=lambda: now[0])

    assert {aware() for _ in range(100)} == {"2 of the limit"}
    assert readings.looks == 1
    for now[0] in (1.0, 2.0, 3.0):
        last = aware()
    assert (last, readings.looks) == (None, 4)


def test_every_gauge_is_looked_at_and_the_first_that_holds_gives_the_reason() -> None:
    calm, beyond, further = Readings(None), Readings(1.5), Readings(3.0)
    aware = LoadAware([Gauge(calm), Gauge(beyond), Gauge(further)])

    assert aware() == "1.5 of the limit"
    assert [calm.looks, beyond.looks, further.looks] == [1, 1, 1]


def test_a_database_that_does_not_say_how_it_is_gets_no_more_load() -> None:
    def read() -> Reading:
        raise Unavailable("no answer")

    assert "does not say" in (LoadAware([Gauge(read)])() or "")


def test_without_gauges_everything_is_admitted() -> None:
    assert LoadAware([])() is None
