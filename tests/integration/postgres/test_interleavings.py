"""Threads on one key of a real server: what lock-first buys, and that it is bought.

Two hazards: with lock and write in one statement a deleted row comes back, since the snapshot is older than
the lock; and a deletion and an upsert in concurrent transactions miss each other's uncommitted row.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError

from dualstore.control import PostgresRole
from dualstore.errors import MirrorUnavailable
from dualstore.items import key_bytes
from dualstore.stages import Stage
from dualstore.stores.base import NOTHING
from dualstore.stores.postgres import PostgresStore, triggers
from dualstore.stores.postgres.catalog import lock_key
from integration.postgres.authority import ask, set_role
from integration.postgres.orders import EPOCH, TABLE, TABLES, call, key, order, stamp

A, B, C = map(stamp, range(1, 4))


@contextmanager
def lock_held(engine: sa.Engine) -> Iterator[sa.Connection]:
    """The key's lock in a transaction of its own, which commits at the end."""
    lock = lock_key(TABLE, key_bytes(TABLES[TABLE].shape.keys, key()))
    with engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
        yield connection


def once_waiting(engine: sa.Engine) -> None:
    """Return when a session of this database waits for an advisory lock."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'"
    )
    ends = time.monotonic() + 30
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(waiting):
            assert time.monotonic() < ends, "nobody came to wait for the lock"
            time.sleep(0.002)


DELETE_ROW = """
WITH gone AS (DELETE FROM orders RETURNING dualstore_stamp)
INSERT INTO dualstore.tombstones (table_name, key, stamp, revision)
SELECT :table, :key, dualstore_stamp, nextval('dualstore.revision') FROM gone"""


def delete_row(connection: sa.Connection) -> None:
    encoded = key_bytes(TABLES[TABLE].shape.keys, key())
    connection.execute(sa.text(DELETE_ROW), {"table": TABLE, "key": encoded})


def after_a_deletion(store: PostgresStore, engine: sa.Engine, write: Callable[[], Any]) -> Any:
    """What a write answers that waited for its lock while the row was being deleted."""
    with ThreadPoolExecutor(1) as pool:
        with lock_held(engine) as connection:
            waiting: Future[Any] = pool.submit(write)
            once_waiting(engine)
            delete_row(connection)
        return waiting.result()


def test_a_settled_write_that_waited_sees_the_deletion_it_waited_for(store, engine):
    store.write_direct(TABLE, key(), order(stamp=A), stamp=A, predecessor=None, epoch=EPOCH)
    seen = store.state(TABLE, key()).revision
    image = order(stamp=A)
    assert not after_a_deletion(
        store, engine, lambda: store.write_settled(TABLE, key(), image, seen=seen, epoch=EPOCH)
    )
    assert store.state(TABLE, key()).item is None


def test_a_direct_creation_that_waited_sees_the_tombstone_it_waited_for(store, engine):
    store.write_direct(TABLE, key(), order(stamp=A), stamp=A, predecessor=None, epoch=EPOCH)
    assert not after_a_deletion(
        store,
        engine,
        lambda: store.write_direct(TABLE, key(), order(stamp=B), stamp=B, predecessor=None, epoch=EPOCH),
    )
    state = store.state(TABLE, key())
    assert state.item is None
    assert state.tombstone_stamp == A


def test_an_update_by_the_authority_that_waited_sees_the_deletion_it_waited_for(store, engine):
    call(store, "PutItem", Item=order(price=1))

    def conditional_update() -> Any:
        return call(
            store,
            "UpdateItem",
            Key=key(),
            UpdateExpression="ADD price :one",
            ConditionExpression="attribute_exists(customer)",
            values={":one": {"N": "1"}},
        )

    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        after_a_deletion(store, engine, conditional_update)
    assert store.state(TABLE, key()).item is None


def test_a_counter_that_many_threads_add_to_loses_nothing(store):
    def add(_: int) -> None:
        call(store, "UpdateItem", Key=key(), UpdateExpression="ADD #q :one",
             ExpressionAttributeNames={"#q": "quantity"}, values={":one": {"N": "1"}})  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(100)))
    assert call(store, "GetItem", Key=key())["Item"]["quantity"] == {"N": "100"}


def test_of_many_direct_writes_onto_one_predecessor_one_is_done(store):
    store.write_direct(TABLE, key(), order(stamp=A), stamp=A, predecessor=None, epoch=EPOCH)

    def write(number: int) -> bool:
        new = stamp(number)
        image = order(stamp=new) if number % 2 else None
        return store.write_direct(TABLE, key(), image, stamp=new, predecessor=A, epoch=EPOCH)

    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(write, range(100, 108)))
        state = store.state(TABLE, key())
        # Repeated deletions of one stamp are all done; else only one write is.
        assert sum(done) == (4 if state.item is None else 1)
        assert (state.item is None) != (state.revision.tombstone is None)
        store.write_settled(TABLE, key(), order(stamp=A), seen=state.revision, epoch=EPOCH)


def test_transactions_over_the_same_keys_in_opposite_order_do_not_deadlock(store):
    puts = [{"Put": {"TableName": TABLE, "Item": order("t", n)}} for n in range(8)]

    def transact(actions: list[Any]) -> None:
        call(store, "TransactWriteItems", TransactItems=actions)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(transact, [puts, puts[::-1]] * 12))
    assert call(store, "Scan")["Count"] == 8


def test_under_the_key_lock_the_same_thread_settles_and_others_wait(store, engine):
    other: list[bool] = []
    with store.locked(TABLE, key()):
        thread = threading.Thread(
            target=lambda: other.append(
                store.write_direct(TABLE, key(), order(stamp=B), stamp=B, predecessor=None, epoch=EPOCH)
            )
        )
        thread.start()
        once_waiting(engine)
        assert store.write_settled(
            TABLE, key(), order(stamp=A), seen=store.state(TABLE, key()).revision, epoch=EPOCH
        )
        assert store.state(TABLE, key()).item == order(stamp=A)
        assert not other
    thread.join()
    assert other == [False]
    assert store.state(TABLE, key()).item == order(stamp=A)


def test_the_key_lock_waits_for_its_turn_no_longer_than_the_timeout(store, engine):
    hasty = PostgresStore(engine, TABLES, statement_timeout=timedelta(milliseconds=100))
    with lock_held(engine):
        started = time.monotonic()
        with pytest.raises(MirrorUnavailable, match="no answer in time"):
            hasty.write_direct(TABLE, key(), order(stamp=A), stamp=A, predecessor=None, epoch=EPOCH)
        with pytest.raises(MirrorUnavailable), hasty.locked(TABLE, key()):
            pytest.fail("the lock is another's")
        assert time.monotonic() - started < 10
    assert store.write_direct(TABLE, key(), order(stamp=A), stamp=A, predecessor=None, epoch=EPOCH)


def test_what_failed_under_the_key_lock_does_not_pass_for_done(store):
    taken = order("bob", code="taken")
    assert store.write_settled(TABLE, taken, taken, seen=NOTHING, epoch=EPOCH)

    def settle() -> None:
        with store.locked(TABLE, key()):
            assert store.write_settled(TABLE, key(), order(stamp=A), seen=NOTHING, epoch=EPOCH)
            seen = store.state(TABLE, key()).revision
            with pytest.raises(MirrorUnavailable, match="orders_code_key"):
                store.write_settled(TABLE, key(), order(stamp=A, code="taken"), seen=seen, epoch=EPOCH)

    with pytest.raises(MirrorUnavailable):
        settle()
    assert store.state(TABLE, key()).item is None


@pytest.fixture(params=[Stage.LIVE, Stage.COMPLETE])
def authority(engine: sa.Engine, request: pytest.FixtureRequest) -> Iterator[PostgresStore]:
    """A store on the same tables as their authority, with triggers; the mirror's role comes back.

    At stage `complete` it takes locks by the statement that writes, if they are free.
    """
    for mapping in TABLES.values():
        triggers.install(engine, mapping)
    set_role(engine, PostgresRole.AUTHORITY, stage=request.param)
    store = PostgresStore(engine, TABLES)
    ask(store, "DeleteItem", Key=key(number=99))  # it knows the stage by now
    yield store
    set_role(engine, PostgresRole.NONE)
    for mapping in TABLES.values():
        triggers.remove(engine, mapping)


ONLY_THERE = {"ConditionExpression": "attribute_exists(customer)"}
ONLY_NEW = {"ConditionExpression": "attribute_not_exists(customer)"}
ONLY_AT_ONE = {"ConditionExpression": "price = :one", "values": {":one": {"N": "1"}}}


def test_a_put_in_one_round_trip_that_waited_does_not_bring_a_deleted_row_back(authority, engine):
    ask(authority, "PutItem", Item=order(price=1))
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        after_a_deletion(
            authority, engine, lambda: ask(authority, "PutItem", Item=order(price=2), **ONLY_THERE)
        )
    assert authority.state(TABLE, key()).item is None


def test_a_creation_in_one_round_trip_that_waited_sees_that_the_key_is_free_again(authority, engine):
    ask(authority, "PutItem", Item=order(price=1))
    after_a_deletion(authority, engine, lambda: ask(authority, "PutItem", Item=order(price=2), **ONLY_NEW))
    assert authority.state(TABLE, key()).item["price"] == {"N": "2"}
    assert authority.state(TABLE, key()).revision.tombstone is None


def test_a_deletion_in_one_round_trip_that_waited_buries_what_it_waited_for(authority, engine):
    ask(authority, "PutItem", Item=order(price=1))
    with ThreadPoolExecutor(1) as pool:
        with lock_held(engine) as connection:
            waiting = pool.submit(ask, authority, "DeleteItem", Key=key(), **ONLY_AT_ONE)
            once_waiting(engine)
            connection.execute(sa.text("UPDATE orders SET price = 2"))
        with pytest.raises(ClientError, match="ConditionalCheckFailed"):
            waiting.result()
    assert authority.state(TABLE, key()).item["price"] == {"N": "2"}


def row_changed_meanwhile(engine: sa.Engine, write: Callable[[], Any], change: str) -> Any:
    """What a write answers whose row somebody changes who takes no lock, between its look and its write."""
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            connection.execute(sa.text(change))
            waiting: Future[Any] = pool.submit(write)
            waits = sa.text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock' AND wait_event IN ('transactionid', 'tuple')"
            )
            ends = time.monotonic() + 30
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watcher:
                while not watcher.scalar(waits):
                    assert time.monotonic() < ends, "nobody came to wait for the row"
                    time.sleep(0.002)
        return waiting.result()


CHANGES = {
    "changed": "UPDATE orders SET price = 7",
    "deleted": "DELETE FROM orders",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_put_whose_row_is_taken_by_an_orm_looks_again(authority, engine, change):
    """Its condition held of the row that it looked at, which is no more."""
    ask(authority, "PutItem", Item=order(price=1))
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        row_changed_meanwhile(
            engine,
            lambda: ask(authority, "PutItem", Item=order(price=2), **ONLY_AT_ONE),
            CHANGES[change],
        )
    found = authority.state(TABLE, key()).item
    assert found is None if change == "deleted" else found["price"] == {"N": "7"}


def test_a_creation_whose_key_is_taken_by_an_orm_is_refused(authority, engine):
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        row_changed_meanwhile(
            engine,
            lambda: ask(authority, "PutItem", Item=order(price=2), **ONLY_NEW),
            "INSERT INTO orders (customer, number, price) VALUES ('ann', 1, 7)",
        )
    assert authority.state(TABLE, key()).item["price"] == {"N": "7"}
