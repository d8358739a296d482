"""Discrepancies as rows of a real PostgreSQL."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from dualstore import schema
from dualstore.errors import Unavailable
from dualstore.stores.discrepancies import DiscrepancyState, PostgresDiscrepancies
from dualstore.stores.postgres_upkeep import PostgresUpkeep
from dualstore.telemetry import Discrepancy, DiscrepancyKind, Finder, Versions

TABLE = "orders-prod"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
RUN = UUID(int=7)


def seen(first, last, *, paths=("total",), kind=DiscrepancyKind.VALUE, **others):
    known = Discrepancy(TABLE, "0123456789abcdef", "GetItem", kind, paths, first, last)
    return replace(known, **others)


@pytest.fixture
def engine(postgres_url):
    engine = sa.create_engine(postgres_url)
    schema.upgrade(engine)
    yield engine
    engine.dispose()


def rows(engine):
    with engine.connect() as connection:
        return connection.execute(
            sa.select(schema.discrepancies).order_by(schema.discrepancies.c["class"])
        ).all()


def test_a_discrepancy_seen_again_is_one_row_with_its_first_and_last_time(engine):
    sink = PostgresDiscrepancies(engine)
    sink(seen(NOON, NOON))
    sink(seen(LATER, LATER, paths=("note", "total"), operation="Query"))
    sink(seen(NOON, NOON, kind=DiscrepancyKind.ERROR, paths=(), of_request=True))
    error, value = rows(engine)
    assert (value.table_name, value.key_hash, value.operation) == (TABLE, "0123456789abcdef", "Query")
    assert (value.first_seen, value.last_seen, value.count) == (NOON, LATER, 2)
    assert (value.paths, value.state, value.run_id) == (["note", "total"], "open", None)
    assert (value.of_request, error.of_request) == (False, True)
    assert (error.count, error.paths) == (1, [])


def test_shadow_and_verify_share_one_record_which_reads_back_as_it_was_written(engine):
    sink = PostgresDiscrepancies(engine, plain_keys=True)
    sink(seen(NOON, NOON, trace_id="a" * 32))
    found = seen(
        LATER,
        LATER,
        operation="Verify",
        versions=Versions(str(UUID(int=1)), str(UUID(int=2))),
        finder=Finder.VERIFY,
        run_id=RUN,
        key=b"key",
    )
    sink(found)
    (kept,) = sink.recorded(TABLE)
    expected = replace(found, first_seen=NOON, count=2, trace_id="a" * 32)
    assert (kept.state, kept.discrepancy) == (DiscrepancyState.OPEN, expected)
    assert kept.discrepancy.key == b"key"
    assert sink.one(TABLE, kept.id) == kept
    assert sink.one("another", kept.id) is None


def test_keys_are_not_recorded_unless_they_are_asked_for(engine):
    sink = PostgresDiscrepancies(engine)
    sink(seen(NOON, NOON, key=b"key"))
    (row,) = rows(engine)
    assert row.key is None


@pytest.mark.parametrize(("state", "after"), [("repaired", "open"), ("ignored", "ignored")])
def test_one_that_was_repaired_is_open_again_and_one_to_be_ignored_stays_so(engine, state, after):
    sink = PostgresDiscrepancies(engine)
    sink(seen(NOON, NOON))
    (kept,) = sink.recorded(TABLE)
    assert sink.mark(TABLE, [kept.id], DiscrepancyState(state)) == 1
    sink(seen(LATER, LATER))
    (row,) = rows(engine)
    assert (row.state, row.count) == (after, 2)


def test_what_a_verification_has_repaired_is_recorded_as_such(engine):
    sink = PostgresDiscrepancies(engine)
    sink(seen(NOON, NOON))
    sink(seen(LATER, LATER, repaired=True))
    (row,) = rows(engine)
    assert row.state == "repaired"


def test_what_a_proof_found_equal_is_repaired_but_for_what_was_seen_since_and_whole_answers(engine):
    sink = PostgresDiscrepancies(engine)
    sink(seen(NOON, NOON))
    sink(seen(NOON, LATER, key_hash="later"))
    sink(seen(NOON, NOON, key_hash="order", kind=DiscrepancyKind.ORDER, of_request=True))
    assert sink.mark_all_repaired(TABLE, before=LATER) == 1
    states = {each.discrepancy.key_hash: each.state for each in sink.recorded(TABLE)}
    assert states == {"0123456789abcdef": "repaired", "later": "open", "order": "open"}


def test_the_record_is_bounded_and_what_is_known_is_counted_on(engine):
    sink = PostgresDiscrepancies(engine, rows_per_table=3)
    for number in range(6):
        sink(seen(NOON, NOON, key_hash=str(number)))
    sink(seen(LATER, LATER, key_hash="0"))
    sink(replace(seen(NOON, NOON), table="another"))
    kept = {(each.table_name, each.key_hash): each.count for each in rows(engine)}
    assert kept == {
        **{(TABLE, key): count for key, count in (("0", 2), ("1", 1), ("2", 1))},
        ("another", "0123456789abcdef"): 1,
    }


def test_the_list_is_by_table_state_and_class_and_the_last_seen_first(engine):
    sink = PostgresDiscrepancies(engine)
    sink(seen(NOON, NOON))
    sink(seen(LATER, LATER, key_hash="1", kind=DiscrepancyKind.TYPE))
    sink(replace(seen(NOON, NOON), table="another"))
    assert [each.discrepancy.kind for each in sink.recorded(TABLE)] == ["type", "value"]
    assert len(sink.recorded()) == 3
    assert len(sink.recorded(limit=2)) == 2
    assert len(sink.recorded(TABLE, kinds=[DiscrepancyKind.TYPE])) == 1
    assert sink.recorded(TABLE, states=[DiscrepancyState.IGNORED]) == []


def test_what_nobody_has_seen_for_long_is_forgotten_but_not_what_is_ignored(engine):
    sink = PostgresDiscrepancies(engine)
    now = datetime.now(UTC)
    for key, days in (("fresh", 6), ("aged", 8), ("ignored", 8)):
        sink(seen(now - timedelta(days=9), now - timedelta(days=days), key_hash=key))
    ignored = [each.id for each in sink.recorded(TABLE) if each.discrepancy.key_hash == "ignored"]
    sink.mark(TABLE, ignored, DiscrepancyState.IGNORED)
    upkeep = PostgresUpkeep(engine, discrepancy_retention=timedelta(days=7))
    assert upkeep.prune({}).discrepancies == 1
    assert {each.discrepancy.key_hash for each in sink.recorded(TABLE)} == {"fresh", "ignored"}


def test_a_database_that_is_not_there_is_unavailable():
    engine = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match="Recording a discrepancy"):
        PostgresDiscrepancies(engine)(seen(NOON, NOON))
    engine.dispose()
