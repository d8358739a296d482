"""Discrepancies as rows of a real PostgreSQL."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from dualstore import schema
from dualstore.errors import Unavailable
from dualstore.stores.discrepancies import PostgresDiscrepancies
from dualstore.telemetry import Discrepancy, DiscrepancyKind

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def seen(first, last, *, paths=("total",), kind=DiscrepancyKind.VALUE):
    return Discrepancy("orders-prod", "0123456789abcdef", "GetItem", kind, paths, first, last)


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
    sink(seen(LATER, LATER, paths=("note", "total")))
    sink(seen(NOON, NOON, kind=DiscrepancyKind.ERROR, paths=()))
    error, value = rows(engine)
    assert (value.table_name, value.key_hash, value.operation) == (
        "orders-prod",
        "0123456789abcdef",
        "GetItem",
    )
    assert (value.first_seen, value.last_seen, value.count) == (NOON, LATER, 2)
    assert (value.paths, value.state, value.run_id) == (["note", "total"], "open", None)
    assert (error.count, error.paths) == (1, [])


@pytest.mark.parametrize(("state", "after"), [("repaired", "open"), ("ignored", "ignored")])
def test_one_that_was_repaired_is_open_again_and_one_to_be_ignored_stays_so(engine, state, after):
    sink = PostgresDiscrepancies(engine)
    sink(seen(NOON, NOON))
    with engine.begin() as connection:
        connection.execute(sa.update(schema.discrepancies).values(state=state))
    sink(seen(LATER, LATER))
    (row,) = rows(engine)
    assert (row.state, row.count) == (after, 2)


def test_a_database_that_is_not_there_is_unavailable():
    engine = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match="Recording a discrepancy"):
        PostgresDiscrepancies(engine)(seen(NOON, NOON))
    engine.dispose()
