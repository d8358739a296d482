"""The log of confirmed discrepancies."""

from datetime import UTC, datetime, timedelta

import pytest

from dualstore.telemetry import Discrepancy, DiscrepancyKind, DiscrepancyLog

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def seen(at, *, key_hash="0", kind=DiscrepancyKind.VALUE, paths=("total",)):
    return Discrepancy("orders-prod", key_hash, "GetItem", kind, paths, at, at)


def test_a_discrepancy_seen_again_is_one_record_with_its_first_and_last_time():
    log = DiscrepancyLog()
    log(seen(NOON))
    log(seen(LATER, paths=("note",)))
    (record,) = log.records()
    assert (record.first_seen, record.last_seen, record.count, record.paths) == (NOON, LATER, 2, ("note",))


@pytest.mark.parametrize("other", [{"key_hash": "1"}, {"kind": DiscrepancyKind.ERROR}])
def test_another_key_or_another_kind_is_another_discrepancy(other):
    log = DiscrepancyLog()
    log(seen(NOON))
    log(seen(NOON, **other))
    assert len(log.records()) == 2


def test_the_log_is_bounded_and_counts_what_it_leaves_out():
    log = DiscrepancyLog(limit=2)
    for n in range(5):
        log(seen(NOON, key_hash=str(n)))
    log(seen(LATER, key_hash="0"))
    assert [record.count for record in log.records()] == [2, 1]
    assert log.left_out == 3
