"""At stage `complete` a write is one statement that takes its lock itself: its snapshot is the older one.

A function in front of PostgreSQL's own holds a statement up between the two, while others write.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError

from dualstore.control import PostgresRole
from dualstore.errors import Unavailable
from dualstore.stages import Stage
from dualstore.stores.postgres import PostgresStore, authority, calm, triggers
from dualstore.stores.postgres.sessions import Session
from integration.postgres.authority import ask, empty, outbox, receipts, run, set_role
from integration.postgres.orders import TABLE, TABLES, key, order, stamp
from integration.postgres.test_interleavings import lock_held, once_waiting

TIMEOUT = timedelta(milliseconds=400)
GATE = 4711

SLOW_PATH = {"options": "-csearch_path=slow,public,pg_catalog"}
SLOW_LOCKS = f"""
CREATE SCHEMA IF NOT EXISTS slow;
CREATE OR REPLACE FUNCTION slow.pg_try_advisory_xact_lock(key bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared({GATE});
    RETURN pg_catalog.pg_try_advisory_xact_lock(key);
END $$"""


@pytest.fixture
def complete(engine: sa.Engine) -> Iterator[sa.Engine]:
    """PostgreSQL alone has the tables; the mirror's role comes back."""
    for mapping in TABLES.values():
        triggers.install(engine, mapping)
    empty(engine)
    set_role(engine, PostgresRole.AUTHORITY, stage=Stage.COMPLETE)
    yield engine
    set_role(engine, PostgresRole.NONE)
    for mapping in TABLES.values():
        triggers.remove(engine, mapping)


def store_on(engine: sa.Engine, **options: Any) -> PostgresStore:
    """A store that knows the stage."""
    store = PostgresStore(engine, TABLES, **options)
    ask(store, "DeleteItem", Key=key(number=99))
    return store


@pytest.fixture
def writer(complete: sa.Engine) -> PostgresStore:
    return store_on(complete)


@pytest.fixture
def alone(complete: sa.Engine) -> Iterator[sa.Engine]:
    """An engine with one connection."""
    engine = sa.create_engine(complete.url, pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


@pytest.fixture
def held_up(complete: sa.Engine) -> Iterator[sa.Engine]:
    """An engine of one connection, whose statements wait at the gate once they have their snapshots."""
    run(complete, SLOW_LOCKS)
    engine = sa.create_engine(complete.url, connect_args=SLOW_PATH, pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()
    run(complete, "DROP SCHEMA slow CASCADE")


@pytest.fixture
def slow(held_up: sa.Engine) -> PostgresStore:
    return store_on(held_up)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How locks are taken: `locking` by the statement that writes, `under_lock` by one before it."""
    seen: list[str] = []

    def spy(name: str) -> None:
        way = getattr(Session, name)

        def spied(*args: Any) -> Any:
            seen.append(name)
            return way(*args)

        monkeypatch.setattr(Session, name, spied)

    spy("locking")
    spy("under_lock")
    return seen


def overtaken(engine: sa.Engine, write: Callable[[], Any], meanwhile: Callable[[], Any]) -> Any:
    """What a write answers during which, between its snapshot and its lock, others write."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = :gate AND NOT granted"
    with ThreadPoolExecutor(1) as pool:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as gate:
            gate.execute(sa.select(sa.func.pg_advisory_lock(GATE)))
            try:
                going: Future[Any] = pool.submit(write)
                ends = time.monotonic() + 5
                while not gate.scalar(sa.text(waiting), {"gate": GATE}):
                    assert time.monotonic() < ends, "the write takes no lock of its own"
                    time.sleep(0.002)
                meanwhile()
            finally:
                gate.execute(sa.select(sa.func.pg_advisory_unlock(GATE)))
        return going.result()


def held(store: PostgresStore) -> dict[str, Any] | None:
    item = ask(store, "GetItem", Key=key()).get("Item")
    return None if item is None else {name: value for name, value in item.items() if name != "_dsv"}


def updating(expression: str, number: int) -> dict[str, Any]:
    return {"Key": key(), "UpdateExpression": expression, "values": {":n": {"N": str(number)}}}


def increment(store: PostgresStore) -> None:
    ask(store, "UpdateItem", **updating("ADD quantity :n", 1))


def create_and_delete(store: PostgresStore) -> None:
    ask(store, "PutItem", Item=order(price=1))
    ask(store, "DeleteItem", Key=key())


WRITES: dict[str, tuple[str, dict[str, Any]]] = {
    "put": ("PutItem", {"Item": order(price=2)}),
    "conditional put": (
        "PutItem",
        {"Item": order(price=2), "ConditionExpression": "attribute_exists(customer)"},
    ),
    "update": ("UpdateItem", updating("SET price = :n", 2)),
    "deletion": ("DeleteItem", {"Key": key()}),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_one_statement_and_leaves_a_receipt(writer, complete, ways, write):
    ask(writer, "PutItem", Item=order(price=1))
    receipts(complete)
    ways.clear()
    operation, request = WRITES[write]
    ask(writer, operation, **dict(request))
    assert held(writer) == (None if write == "deletion" else order(price=2))
    assert ways == ["locking"]
    (receipt,) = receipts(complete)
    assert run(complete, "SELECT dualstore_stamp FROM orders") == (
        [] if write == "deletion" else [(receipt,)]
    )
    assert outbox(complete) == []


def test_once_the_stage_is_another_a_write_is_noted(writer, complete, ways):
    set_role(complete, PostgresRole.AUTHORITY, stage=Stage.RAMPDOWN)
    for price in (1, 2):
        ask(writer, "PutItem", Item=order(price=price))
    assert len(outbox(complete)) == 2
    assert receipts(complete) == []
    assert ways == ["locking", "under_lock", "under_lock"]


def test_what_was_created_and_deleted_behind_its_snapshot_leaves_no_tombstone(slow, writer, complete):
    overtaken(complete, lambda: ask(slow, "PutItem", Item=order(price=2)), lambda: create_and_delete(writer))
    assert held(writer) == order(price=2)
    assert writer.state(TABLE, key()).revision.tombstone is None


def test_a_statement_with_the_snapshot_of_its_transaction_does_nothing(slow, held_up, writer, complete):
    """It would see no tombstone that is younger, whatever it calls."""
    run(held_up, "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    overtaken(complete, lambda: ask(slow, "PutItem", Item=order(price=2)), lambda: create_and_delete(writer))
    assert held(writer) == order(price=2)
    assert writer.state(TABLE, key()).revision.tombstone is None


def test_what_was_deleted_behind_its_snapshot_is_created(slow, writer, complete):
    ask(writer, "PutItem", Item=order(price=1))
    overtaken(
        complete,
        lambda: ask(slow, "PutItem", Item=order(price=2)),
        lambda: ask(writer, "DeleteItem", Key=key()),
    )
    assert held(writer) == order(price=2)
    assert writer.state(TABLE, key()).revision.tombstone is None


def test_what_was_created_behind_its_snapshot_is_there(slow, writer, complete):
    only_new = {"Item": order(price=2), "ConditionExpression": "attribute_not_exists(customer)"}
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        overtaken(
            complete,
            lambda: ask(slow, "PutItem", **only_new),
            lambda: ask(writer, "PutItem", Item=order(price=1)),
        )
    assert held(writer) == order(price=1)


def test_a_condition_that_held_in_its_snapshot_alone_does_not_hold(slow, writer, complete):
    ask(writer, "PutItem", Item=order(price=1))
    only_at_one = {"ConditionExpression": "price = :one", "values": {":one": {"N": "1"}}}
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        overtaken(
            complete,
            lambda: ask(slow, "PutItem", Item=order(price=2), **only_at_one),
            lambda: ask(writer, "PutItem", Item=order(price=7)),
        )
    assert held(writer) == order(price=7)


def test_what_was_added_behind_its_snapshot_is_not_lost(slow, writer, complete):
    ask(writer, "PutItem", Item=order(quantity=1))
    overtaken(complete, lambda: increment(slow), lambda: increment(writer))
    assert held(writer) == order(quantity=3)


def test_what_was_changed_behind_its_snapshot_is_deleted_all_the_same(slow, writer, complete):
    ask(writer, "PutItem", Item=order(quantity=1))
    overtaken(
        complete,
        lambda: ask(slow, "DeleteItem", Key=key()),
        lambda: ask(writer, "PutItem", Item=order(quantity=2)),
    )
    assert held(writer) is None
    assert writer.state(TABLE, key()).revision.tombstone is not None


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_is_given_up_behind_its_snapshot_is_not_carried_out(
    slow, writer, complete, monkeypatch, write
):
    """Stamps are voided where nobody waits for them any more; here somebody does."""
    ask(writer, "PutItem", Item=order(price=1))
    given_up = stamp(77)
    void = "INSERT INTO dualstore.receipts (stamp, voided) VALUES (:stamp, true)"
    monkeypatch.setattr(authority, "new_stamp", lambda: given_up)
    operation, request = WRITES[write]
    with pytest.raises(ClientError, match="pk_receipts"):
        overtaken(
            complete,
            lambda: ask(slow, operation, **dict(request)),
            lambda: run(complete, void, stamp=given_up),
        )
    assert held(writer) == order(price=1)


def test_while_the_lock_is_anothers_a_write_waits_for_it_in_a_statement_of_its_own(writer, complete, ways):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: increment(writer), range(200)))
    assert held(writer) == order(quantity=200)
    ways.clear()
    with ThreadPoolExecutor(1) as pool:
        with lock_held(complete):
            waits = pool.submit(increment, writer)
            once_waiting(complete)
        waits.result()
    assert ways == ["locking", "under_lock"]
    assert held(writer) == order(quantity=201)


SLEEP_SECONDS = 5
SLEEP = f"""
CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep({SLEEP_SECONDS}); RETURN NEW; END $$;
CREATE TRIGGER sleeper BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION sleep()"""


def pid(engine: sa.Engine) -> Any:
    ((found,),) = run(engine, "SELECT pg_backend_pid()")
    return found


@pytest.mark.parametrize("earlier", [1, 5, 9], ids=["unprepared", "being prepared", "prepared"])
def test_a_statement_that_is_late_is_cancelled_and_the_next_has_its_timeout_set(
    alone, complete, ways, monkeypatch, earlier
):
    store = store_on(alone, statement_timeout=TIMEOUT)
    for _ in range(earlier):
        ask(store, "PutItem", Item=order(price=1))
    before = pid(alone)
    run(complete, SLEEP)
    try:
        for way in ("locking", "under_lock"):
            ways.clear()
            started = time.monotonic()
            with pytest.raises(Unavailable, match=r"no answer in time.*SQLSTATE 57014"):
                ask(store, "PutItem", Item=order(price=2))
            assert TIMEOUT.total_seconds() <= time.monotonic() - started < SLEEP_SECONDS
            assert ways == [way]
            assert (pid(alone) == before) is (way == "under_lock"), "a cancellation may come later still"
            before = pid(alone)
    finally:
        run(complete, "DROP FUNCTION sleep CASCADE")
    assert held(store) == order(price=1)
    now = calm.uptime() + timedelta(minutes=1).total_seconds()
    monkeypatch.setattr(calm, "uptime", lambda: now)
    ways.clear()
    ask(store, "PutItem", Item=order(price=2))
    assert ways == ["locking"], "it is calm again"


def test_a_row_that_somebody_holds_is_waited_for_no_longer_than_the_timeout(alone, complete, ways):
    # PostgreSQL gives the row up after nine tenths of it, and the client what comes later than all.
    store = store_on(alone, statement_timeout=timedelta(seconds=4))
    ask(store, "PutItem", Item=order(price=1))
    before = pid(alone)
    with complete.begin() as connection:
        connection.execute(sa.text("UPDATE orders SET price = 7"))
        with pytest.raises(Unavailable, match=r"no answer in time.*SQLSTATE 55P03"):
            ask(store, "PutItem", Item=order(price=2))
    assert pid(alone) == before, "nothing was cancelled"
    ways.clear()
    ask(store, "PutItem", Item=order(price=2))
    assert ways == ["locking"], "all is calm"
    assert held(store) == order(price=2)


def test_a_connection_that_begins_transactions_to_read_writes_all_the_same(alone):
    store = store_on(alone)
    ask(store, "PutItem", Item=order(price=1))
    run(alone, "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    for price in (2, 3):
        ask(store, "PutItem", Item=order(price=price))
    assert held(store) == order(price=3)


@pytest.mark.parametrize("stage", [Stage.LIVE, Stage.COMPLETE])
def test_a_constraint_that_is_checked_at_the_end_refuses_the_write(writer, complete, stage):
    set_role(complete, PostgresRole.AUTHORITY, stage=stage)
    ask(writer, "PutItem", Item=order(number=2, price=7))
    receipts(complete)
    with pytest.raises(ClientError, match="one_price"):
        ask(writer, "PutItem", Item=order(price=7))
    assert held(writer) is None
    assert receipts(complete) == []
    ask(writer, "PutItem", Item=order(price=8))
    assert held(writer) == order(price=8)
