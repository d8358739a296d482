"""Pruning of the bookkeeping: what goes, what stays, and by which index it is found."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from dualstore import schema
from dualstore.stores import postgres_upkeep
from dualstore.stores.postgres_upkeep import PostgresUpkeep, Pruned

TABLE, OTHER = "orders-prod", "notes-prod"
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def module_engine(postgres_server: Any) -> Iterator[sa.Engine]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    schema.upgrade(engine)
    yield engine
    engine.dispose()
    postgres_server.drop_database(url)


@pytest.fixture
def engine(module_engine: sa.Engine) -> sa.Engine:
    run(
        module_engine,
        "TRUNCATE dualstore.tombstones, dualstore.dirty, dualstore.runs, dualstore.run_pieces, "
        "dualstore.outbox, dualstore.receipts, dualstore.tokens, dualstore.stream_shards CASCADE",
    )
    return module_engine


def run(engine: sa.Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(statement), values)


def count(engine: sa.Engine, table: str) -> int:
    with engine.begin() as connection:
        return connection.scalar(sa.text(f"SELECT count(*) FROM dualstore.{table}"))


def bury(engine: sa.Engine, *, age: timedelta, rows: int = 1, table: str = TABLE) -> None:
    run(
        engine,
        "INSERT INTO dualstore.tombstones (table_name, key, revision, deleted_at) "
        "SELECT :table, uuid_send(gen_random_uuid()), 1, clock_timestamp() - :age "
        "FROM generate_series(1, :rows)",
        table=table,
        age=age,
        rows=rows,
    )


def open_run(engine: sa.Engine, *, age: timedelta, table: str = TABLE, state: str = "running") -> None:
    run(
        engine,
        "INSERT INTO dualstore.runs (id, kind, table_name, state, started_at) "
        "VALUES (:id, 'backfill', :table, :state, clock_timestamp() - :age)",
        id=uuid4(),
        table=table,
        state=state,
        age=age,
    )


def doubt(engine: sa.Engine, *, age: timedelta, table: str = TABLE) -> None:
    run(
        engine,
        "INSERT INTO dualstore.dirty (table_name, key, item_key, nonce, reason, since) "
        "VALUES (:table, 'k', '{}', 'n', 'r', clock_timestamp() - :age)",
        table=table,
        age=age,
    )


def follow(
    engine: sa.Engine,
    *,
    age: timedelta | None,
    table: str = TABLE,
    state: str = "open",
    recorded: timedelta = timedelta(0),
) -> None:
    run(
        engine,
        "INSERT INTO dualstore.stream_shards"
        " (table_name, stream_arn, shard_id, state, caught_up_at, updated_at)"
        " VALUES (:table, 'arn', :id, :state, clock_timestamp() - CAST(:age AS interval),"
        " clock_timestamp() - :recorded)",
        recorded=recorded,
        table=table,
        id=uuid4().hex,
        state=state,
        age=age,
    )


def test_a_tombstone_goes_when_it_is_older_than_the_retention(engine):
    bury(engine, age=24 * HOUR, rows=3)
    bury(engine, age=26 * HOUR, rows=5)
    assert PostgresUpkeep(engine).prune_tombstones(TABLE, journal_oldest=None) == 5
    assert count(engine, "tombstones") == 3


def test_a_tombstone_outlives_a_copy_that_began_while_it_was_kept(engine):
    # What is copied may be from before the deletion: an export that was 25 hours old when the run began.
    open_run(engine, age=7 * HOUR)
    bury(engine, age=26 * HOUR, rows=3)
    bury(engine, age=33 * HOUR, rows=2)
    assert PostgresUpkeep(engine).prune_tombstones(TABLE, journal_oldest=None) == 2


def test_the_retention_is_an_option(engine):
    bury(engine, age=24 * HOUR)
    upkeep = PostgresUpkeep(engine, tombstone_retention=2 * HOUR)
    assert upkeep.prune_tombstones(TABLE, journal_oldest=None) == 1


@pytest.mark.parametrize("keep", [open_run, doubt])
def test_a_tombstone_outlives_what_was_open_before_it(engine, keep):
    bury(engine, age=40 * HOUR)
    keep(engine, age=50 * HOUR)
    bury(engine, age=80 * HOUR)
    assert PostgresUpkeep(engine).prune_tombstones(TABLE, journal_oldest=None) == 1
    assert count(engine, "tombstones") == 1


@pytest.mark.parametrize(
    ("shard", "pruned"),
    [
        ({"age": 10 * HOUR}, ["20 h", "30 h", "60 h"]),
        ({"age": 25 * HOUR}, ["30 h", "60 h"]),
        ({"age": None}, ["30 h", "60 h"]),  # anything of the last day may be unread
        ({"age": None, "recorded": 10 * HOUR}, ["60 h"]),
        ({"age": 99 * HOUR}, ["60 h"]),  # nobody follows this stream any more
    ],
)
def test_a_tombstone_outlives_what_may_not_have_been_read_of_a_stream(engine, shard, pruned):
    for hours in (5, 20, 30, 60):
        bury(engine, age=hours * HOUR)
    follow(engine, **shard)
    follow(engine, age=timedelta(0))
    upkeep = PostgresUpkeep(engine, tombstone_retention=HOUR)
    assert upkeep.prune_tombstones(TABLE, journal_oldest=None) == len(pruned)


def test_a_tombstone_outlives_the_oldest_entry_of_the_journal(engine):
    bury(engine, age=40 * HOUR)
    bury(engine, age=60 * HOUR)
    oldest = time.time() - (50 * HOUR).total_seconds()
    assert PostgresUpkeep(engine).prune_tombstones(TABLE, journal_oldest=oldest) == 1


def test_a_tombstone_outlives_a_journal_entry_by_a_clock_that_is_ahead(engine):
    bury(engine, age=50 * HOUR)
    fast = time.time() - (50 * HOUR - timedelta(minutes=30)).total_seconds()
    assert PostgresUpkeep(engine).prune_tombstones(TABLE, journal_oldest=fast) == 0


@pytest.mark.parametrize(
    "ended",
    [
        lambda e: open_run(e, age=99 * HOUR, state="finished"),
        lambda e: follow(e, age=99 * HOUR, state="done"),
        lambda e: open_run(e, age=99 * HOUR, table=OTHER),
        lambda e: doubt(e, age=99 * HOUR, table=OTHER),
        lambda e: follow(e, age=99 * HOUR, table=OTHER),
    ],
)
def test_what_has_ended_or_is_of_another_table_keeps_no_tombstone(engine, ended):
    bury(engine, age=26 * HOUR)
    ended(engine)
    assert PostgresUpkeep(engine).prune_tombstones(TABLE, journal_oldest=None) == 1


def test_the_tombstones_of_a_table_whose_journal_is_not_known_stay(engine):
    bury(engine, age=26 * HOUR)
    bury(engine, age=26 * HOUR, table=OTHER)
    assert PostgresUpkeep(engine).prune({TABLE: None}) == Pruned(tombstones=1)
    assert count(engine, "tombstones") == 1


def test_a_round_is_bounded_and_the_next_one_goes_on(engine):
    bury(engine, age=26 * HOUR, rows=25)
    upkeep = PostgresUpkeep(engine, batch_rows=5, batches=3)
    assert [upkeep.prune_tombstones(TABLE, journal_oldest=None) for _ in range(3)] == [15, 10, 0]


def test_finished_outbox_rows_go_after_fifteen_minutes_and_unfinished_ones_never(engine):
    run(
        engine,
        "INSERT INTO dualstore.outbox (table_name, lane, key, created_at, done_at) VALUES "
        "('t', 0, '{a}', now() - interval '9 days', NULL), "
        "('t', 0, '{b}', now() - interval '9 days', now() - interval '14 minutes'), "
        "('t', 0, '{c}', now() - interval '9 days', now() - interval '16 minutes')",
    )
    assert PostgresUpkeep(engine).prune({}) == Pruned(outbox=1)
    assert count(engine, "outbox") == 2


def test_receipts_go_after_fifteen_minutes(engine):
    run(
        engine,
        "INSERT INTO dualstore.receipts (stamp, written_at) VALUES "
        "('a', now() - interval '14 minutes'), ('b', now() - interval '16 minutes')",
    )
    assert PostgresUpkeep(engine).prune({}) == Pruned(receipts=1)
    assert count(engine, "receipts") == 1


def test_receipts_of_what_was_given_up_go_after_twenty_five_hours(engine):
    run(
        engine,
        "INSERT INTO dualstore.receipts (stamp, voided, written_at) VALUES "
        "('a', true, now() - interval '24 hours'), ('b', true, now() - interval '26 hours')",
    )
    assert PostgresUpkeep(engine).prune({}) == Pruned(receipts=1)
    with engine.connect() as connection:
        assert connection.scalars(sa.text("SELECT stamp FROM dualstore.receipts")).all() == [b"a"]


def test_tokens_go_after_ten_minutes(engine):
    run(
        engine,
        "INSERT INTO dualstore.tokens (token, created_at) VALUES "
        "('a', now() - interval '9 minutes'), ('b', now() - interval '11 minutes')",
    )
    assert PostgresUpkeep(engine).prune({}) == Pruned(tokens=1)
    assert count(engine, "tokens") == 1


def test_a_tombstone_that_is_being_renewed_stays_and_holds_nobody_up(engine):
    bury(engine, age=26 * HOUR, rows=2)
    renew = (
        "UPDATE dualstore.tombstones SET deleted_at = clock_timestamp() "
        "WHERE ctid = (SELECT min(ctid) FROM dualstore.tombstones)"
    )
    with engine.begin() as connection:
        connection.execute(sa.text(renew))
        started = time.monotonic()
        assert PostgresUpkeep(engine).prune_tombstones(TABLE, journal_oldest=None) == 1
        assert time.monotonic() - started < 5
    assert PostgresUpkeep(engine).prune_tombstones(TABLE, journal_oldest=None) == 0
    assert count(engine, "tombstones") == 1


def test_processes_that_prune_at_once_remove_each_row_once(engine):
    bury(engine, age=26 * HOUR, rows=400)
    removed: list[int] = []

    def prune() -> None:
        upkeep = PostgresUpkeep(engine, batch_rows=20)
        removed.extend(upkeep.prune_tombstones(TABLE, journal_oldest=None) for _ in range(5))

    threads = [threading.Thread(target=prune) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(removed) == 400
    assert count(engine, "tombstones") == 0


@pytest.mark.parametrize(
    ("statement", "moment", "fill"),
    [
        (postgres_upkeep._TOMBSTONES, "deleted_at", lambda e: bury(e, age=HOUR, rows=20_000)),
        (
            postgres_upkeep._OUTBOX,
            "done_at",
            lambda e: run(
                e,
                "INSERT INTO dualstore.outbox (table_name, lane, key, done_at) "
                "SELECT 't', 0, '{a}', CASE WHEN n % 2 = 0 THEN now() END FROM generate_series(1, 20000) n",
            ),
        ),
        (
            postgres_upkeep._RECEIPTS,
            "written_at",
            lambda e: run(
                e,
                "INSERT INTO dualstore.receipts (stamp) SELECT uuid_send(gen_random_uuid()) "
                "FROM generate_series(1, 20000)",
            ),
        ),
        (
            postgres_upkeep._TOKENS,
            "created_at",
            lambda e: run(
                e, "INSERT INTO dualstore.tokens (token) SELECT n::text FROM generate_series(1, 20000) n"
            ),
        ),
    ],
)
def test_pruning_finds_what_is_old_by_an_index(engine, statement, moment, fill):
    fill(engine)
    run(engine, "ANALYZE dualstore.tombstones, dualstore.outbox, dualstore.receipts, dualstore.tokens")
    values = {
        "table": TABLE,
        "horizon": datetime.now(UTC) - 25 * HOUR,
        "retention": timedelta(minutes=15),
        "voided": timedelta(hours=25),
        "rows": 1000,
    }
    with engine.begin() as connection:
        driver = connection.connection.driver_connection
        plan = "\n".join(row[0] for row in driver.execute(f"EXPLAIN {statement}", values))
    assert any("Index Cond" in line and f"{moment} <" in line for line in plan.splitlines()), plan
    assert "Seq Scan" not in plan
