"""What those who live in psql ask: `dualstore.verify_migration()`, orphans, and the progress of runs."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from bulk_sides import BulkSides, bulk_sides, order
from dualstore.items import KeyAttribute, KeySchema, TableShape
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres_mapped import register

TABLE = "orders-prod"
SHAPE = TableShape(TABLE, KeySchema(KeyAttribute("customer", "S"), KeyAttribute("number", "N")))

QUARANTINE = f"""
INSERT INTO dualstore.quarantine (table_name, key_hash, run_id, piece, reason, detail, form, state)
VALUES ('{TABLE}', 'x', gen_random_uuid(), 0, 'r', 'd', 'plain', 'open')
"""
DISCREPANCY = f"""
INSERT INTO dualstore.discrepancies (table_name, key_hash, operation, class, paths, state)
VALUES ('{TABLE}', 'x', 'Verify', 'value', '[]', 'open')
"""
ORPHAN = """
CREATE TABLE shop.parents (id text PRIMARY KEY);
ALTER TABLE shop.orders ADD CONSTRAINT of_parent FOREIGN KEY (name) REFERENCES shop.parents NOT VALID
"""


@pytest.fixture
def sides(bulk_url) -> Iterator[BulkSides]:
    with bulk_sides(bulk_url, MemoryStore({TABLE: SHAPE}), TABLE) as both:
        register(both.engine, both.mapping)
        yield both


def told(sides: BulkSides) -> sa.Row:
    with sides.engine.connect() as connection:
        return connection.exec_driver_sql("SELECT * FROM dualstore.verify_migration()").one()


def run(sides: BulkSides, kind: str, state: str, *, items: int = 0) -> None:
    with sides.engine.begin() as connection:
        connection.exec_driver_sql(
            "WITH r AS (INSERT INTO dualstore.runs (id, kind, table_name, state, parameters, finished_at)"
            " VALUES (gen_random_uuid(), %s, %s, %s, '{}', CASE %s WHEN 'running' THEN NULL"
            " ELSE clock_timestamp() END) RETURNING id)"
            " INSERT INTO dualstore.run_pieces (run_id, piece, state, items, shared)"
            " SELECT id, 0, 'done', %s, true FROM r",
            (kind, TABLE, state, state, items),
        )


def execute(sides: BulkSides, statement: str) -> None:
    with sides.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_the_status_of_a_table_follows_its_migration(sides: BulkSides):
    assert told(sides)[:4] == (TABLE, '"shop"."orders"', 0, None)
    assert told(sides).status == "not copied"
    run(sides, "backfill", "running", items=1)
    assert told(sides).status == "copying"
    execute(sides, "UPDATE dualstore.runs SET state = 'finished', finished_at = clock_timestamp()")
    for n in range(3):
        sides.mirror(order(n), order(n))
    run(sides, "backfill", "finished", items=3)
    assert told(sides)[2:7] == (3, 3, 0, 0, 0)
    assert told(sides).status == "not verified"
    run(sides, "verify", "finished with failures")
    assert told(sides).status == "differences"
    run(sides, "verify", "finished")
    assert (told(sides).status, told(sides).last_verified is not None) == ("verified", True)


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        (QUARANTINE, "items in quarantine"),
        (DISCREPANCY, "differences"),
        (ORPHAN, "orphans"),
        ("DROP TABLE shop.orders", "SQL table missing"),
    ],
)
def test_what_stands_in_the_way_is_told(sides: BulkSides, statement, status):
    sides.mirror(order(1), order(1))
    run(sides, "backfill", "finished", items=1)
    run(sides, "verify", "finished")
    assert told(sides).status == "verified"

    execute(sides, statement)

    assert told(sides).status == status


def test_the_progress_of_a_run_is_a_view(sides: BulkSides):
    run(sides, "backfill", "running", items=7)

    with sides.engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT * FROM dualstore.progress").one()

    assert (row.table_name, row.kind, row.state, row.pieces, row.pieces_done, row.items) == (
        *(TABLE, "backfill", "running"),
        *(1, 1, 7),
    )
