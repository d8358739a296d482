"""Exports and dual writes together tell of every write, or are refused with what is missing."""

from datetime import UTC, datetime, timedelta

import pytest

from dualstore.backfill.sources.manifests import Export, ExportType
from dualstore.backfill.sources.windows import MARGIN, check_chain, check_covers
from dualstore.errors import UnusableSource

T = datetime(2026, 1, 14, 10, tzinfo=UTC)


def hours(number):
    return T + timedelta(hours=number)


def export(name, type_, *, time=None, begin=None, end=None):
    return Export(
        url=name,
        type=type_,
        arn=name,
        table="t",
        items=0,
        time=time,
        begin=begin,
        end=end,
        in_place=True,
        files=[],
    )


def full(time=T):
    return export("full", ExportType.FULL, time=time)


def window(begin, end, name="increment"):
    return export(name, ExportType.INCREMENTAL, begin=hours(begin), end=hours(end))


def test_an_export_that_is_later_than_the_dual_writes_needs_nothing_more():
    check_covers([full()], T - MARGIN)


@pytest.mark.parametrize("since", [T, T - MARGIN / 2, hours(1)])
def test_an_export_that_is_older_than_the_dual_writes_is_refused_without_a_catch_up(since):
    with pytest.raises(
        UnusableSource, match=r"tells of writes up to 2026-01-14T10:00:00.000Z.*incremental export from"
    ):
        check_covers([full()], since)


def test_increments_close_the_gap_in_any_order_and_may_overlap():
    chain = [window(1, 3), full(), window(0, 1), window(2, 5)]
    check_covers(chain, hours(5) - MARGIN)
    with pytest.raises(UnusableSource, match="last incremental export tells of writes up to 2026-01-14T15"):
        check_covers(chain, hours(5))


def test_an_increment_within_another_shortens_nothing():
    check_covers([full(), window(0, 6), window(1, 2), window(5, 8)], hours(7))


@pytest.mark.parametrize(
    "windows",
    [
        [window(1, 3)],  # a gap behind the full export
        [window(0, 1), window(2, 9)],  # a gap between two
    ],
)
def test_a_gap_is_refused_with_the_export_that_fills_it(windows):
    with pytest.raises(UnusableSource, match=r"take an incremental export from 2026-01-14T1[01]"):
        check_chain([full(), *windows])


def test_the_first_increment_begins_at_the_full_export_and_no_earlier():
    """Else an item made before it and deleted behind it, in one window, would come back."""
    with pytest.raises(UnusableSource, match=r"the full export is of 2026-01-14T10:00:00\.000Z"):
        check_chain([full(), window(-1, 5)])


def test_a_full_export_within_a_second_is_told_to_be_taken_again():
    with pytest.raises(UnusableSource, match="at a whole second"):
        check_chain([full(T + timedelta(milliseconds=622)), window(0, 5)])


def test_deletions_whose_tombstones_are_gone_have_to_be_told_by_an_export():
    check_covers([full()], hours(-40), tombstones_since=hours(-25))
    with pytest.raises(UnusableSource, match="deletions are remembered since 2026-01-14T13"):
        check_covers([full()], hours(-40), tombstones_since=hours(3))
    check_covers([full(), window(0, 4)], hours(-40), tombstones_since=hours(3))


def test_a_catch_up_alone_covers_up_to_its_end():
    check_covers([window(0, 4)], hours(3))
    assert check_chain([window(1, 2), window(0, 1)]) == (None, [window(0, 1), window(1, 2)])


def test_two_full_exports_are_refused():
    with pytest.raises(UnusableSource, match="both full exports"):
        check_chain([full(), full()])
