"""What is made of a sample: shares, and sums for the whole."""

from datetime import timedelta
from typing import Any

import pytest

from dualstore.backfill.preflight import Preflight, Prices, share_of
from dualstore.errors import ConfigurationError

SAMPLE: dict[str, Any] = {
    "share": 0.01,
    "items": 1000,
    "fitting": 1000,
    "problems": {},
    "not_tried": [],
    "json_bytes": 350_000,
    "table_bytes": 300_000,
    "index_bytes": 100_000,
    "seconds": 0.02,
    "read_units": 88.0,
    "expected_items": 100_000_000,
    "keys_to_settle": 0,
    "s3_requests": 5000,
}


def test_a_sample_stands_for_all() -> None:
    found = Preflight(**SAMPLE, workers=4)

    assert (found.source_bytes, found.postgres_bytes) == (35 * 10**9, 40 * 10**9)
    assert found.index_share == 0.25
    assert found.all_read_units == 8_800_000
    assert found.expected_time == timedelta(seconds=500)
    assert found.fits


def test_reading_costs_units_and_requests() -> None:
    prices = Prices(million_read_units=0.5, thousand_s3_requests=0.01)

    assert Preflight(**SAMPLE, prices=prices).dollars == pytest.approx(8.8 * 0.5 + 5 * 0.01)


def test_a_limit_of_read_units_may_take_longer_than_loading() -> None:
    assert Preflight(**SAMPLE, workers=4, read_units_per_second=1000).expected_time == timedelta(seconds=8800)


def test_where_nobody_knows_how_many_items_there_are_nothing_is_made_up() -> None:
    found = Preflight(**SAMPLE | {"expected_items": None})

    assert (found.postgres_bytes, found.expected_time, found.dollars) == (None, None, None)


def test_an_empty_table_takes_nothing() -> None:
    nothing = dict.fromkeys(
        ["items", "fitting", "json_bytes", "table_bytes", "expected_items", "s3_requests"], 0
    )

    assert Preflight(**SAMPLE | nothing).postgres_bytes == 0
    assert Preflight(**SAMPLE | nothing).dollars == 0


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.1%", 0.001), ("100%", 1.0)])
def test_a_sample_is_a_share_in_percent(text: str, share: float) -> None:
    assert share_of(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["1", "0%", "101%", "all", "-1%", "nan%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="1%"):
        share_of(text)
