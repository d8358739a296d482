"""PostgreSQL stopped, restarted, hung, slow or full: what callers see, and that nobody hangs."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dualstore.errors import ConfigurationError, MirrorUnavailable, OutcomeUnknown, Unavailable
from dualstore.stores.base import NOTHING
from dualstore.stores.postgres import PostgresStore
from dualstore.testing.servers import PostgresServer
from integration.postgres.orders import EPOCH, TABLE, TABLES, call, create, key, order, stamp
from integration.postgres.test_interleavings import after_a_deletion

A, B = stamp(1), stamp(2)
TIMEOUT = timedelta(milliseconds=300)
SOON_SECONDS = 15
"""A server that hangs does so for ever; machines are slow at times."""


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that these tests may stop."""
    with PostgresServer(settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture
def engine(own_server: PostgresServer) -> Iterator[sa.Engine]:
    engine = sa.create_engine(own_server.create_database(), pool_size=3)
    create(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: sa.Engine) -> PostgresStore:
    return PostgresStore(engine, TABLES, statement_timeout=TIMEOUT)


@contextmanager
def answered_within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def fill_pool(engine: sa.Engine) -> None:
    connections = [engine.connect() for _ in range(3)]
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_the_first_call_after_a_restart_works_though_every_idle_connection_is_dead(
    own_server, store, engine, mode
):
    store.write_settled(TABLE, key(), order(stamp=A), seen=NOTHING, epoch=EPOCH)
    fill_pool(engine)
    own_server.restart(mode)
    assert store.state(TABLE, key()).item == order(stamp=A)
    fill_pool(engine)
    own_server.restart(mode)
    assert store.write_direct(TABLE, key(), order(stamp=B), stamp=B, predecessor=A, epoch=EPOCH)
    fill_pool(engine)
    own_server.restart(mode)
    assert call(store, "PutItem", Item=order(number=2)) == {}
    fill_pool(engine)
    own_server.restart(mode)
    assert call(store, "Scan")["Count"] == 2


def test_a_stopped_server_is_unavailable_at_once_and_back_when_it_is_back(own_server, store):
    own_server.stop()
    try:
        with answered_within(SOON_SECONDS), pytest.raises(MirrorUnavailable):
            store.state(TABLE, key())
        with answered_within(SOON_SECONDS), pytest.raises(Unavailable) as caught:
            call(store, "PutItem", Item=order())
        assert not isinstance(caught.value, OutcomeUnknown | MirrorUnavailable)
    finally:
        own_server.start()
    assert store.state(TABLE, key()).item is None


@contextmanager
def hung(server: PostgresServer) -> Iterator[None]:
    """The server with all its processes stopped in their tracks; its kernel still answers for it."""
    pids = [server.pid, *children(server.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_server_that_hangs_is_given_up_in_time(own_server, store, engine):
    fill_pool(engine)
    with hung(own_server):
        with answered_within(SOON_SECONDS), pytest.raises(MirrorUnavailable, match="no answer in time"):
            store.state(TABLE, key())
        # Now with a connection that has to be opened; libpq's shortest patience is two seconds.
        with answered_within(SOON_SECONDS), pytest.raises(MirrorUnavailable):
            store.write_direct(TABLE, key(), order(stamp=A), stamp=A, predecessor=None, epoch=EPOCH)
        with answered_within(SOON_SECONDS), pytest.raises(Unavailable):
            call(store, "PutItem", Item=order())
    assert store.state(TABLE, key()).item is None


def test_a_server_that_hangs_under_a_key_lock_is_given_up_in_time(own_server, store):
    def settle() -> None:
        with store.locked(TABLE, key()):
            assert store.write_settled(TABLE, key(), order(stamp=A), seen=NOTHING, epoch=EPOCH)
            with hung(own_server), answered_within(SOON_SECONDS):
                store.state(TABLE, key())

    with pytest.raises(MirrorUnavailable):
        settle()
    assert store.state(TABLE, key()).item is None


def test_a_statement_that_takes_too_long_is_given_up_and_stopped_on_the_server(store, engine):
    with engine.begin() as blocker:
        blocker.execute(sa.text("LOCK TABLE orders"))
        with answered_within(SOON_SECONDS), pytest.raises(MirrorUnavailable, match="no answer in time"):
            store.state(TABLE, key())
        with answered_within(SOON_SECONDS), pytest.raises(MirrorUnavailable, match="no answer in time"):
            store.write_settled(TABLE, key(), order(), seen=NOTHING, epoch=EPOCH)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ends = time.monotonic() + SOON_SECONDS
        while blocker.scalar(sa.text(waiting)):
            assert time.monotonic() < ends, "the statement still waits on the server"
            time.sleep(0.02)
    assert store.state(TABLE, key()).item is None


def test_a_connection_killed_by_an_administrator_is_replaced(store, engine):
    fill_pool(engine)
    other = sa.create_engine(engine.url)
    with other.connect() as connection:
        connection.execute(sa.text(KILL_OTHERS))
    other.dispose()
    assert store.state(TABLE, key()).item is None


def test_a_commit_whose_answer_is_lost_has_an_unknown_outcome(own_server, engine):
    store = PostgresStore(engine, TABLES, statement_timeout=timedelta(seconds=5))
    with engine.begin() as connection:
        connection.execute(sa.text(KILL_AT_COMMIT))
        connection.execute(sa.text(KILLER))
    with pytest.raises(OutcomeUnknown):
        call(store, "PutItem", Item=order())


KILL_AT_COMMIT = """
CREATE FUNCTION kill() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"""
KILLER = """
CREATE CONSTRAINT TRIGGER killer AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION kill()"""
KILL_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""


def test_an_exhausted_pool_makes_the_mirror_unavailable(own_server):
    url = own_server.create_database()
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    store = PostgresStore(engine, TABLES)
    with engine.connect(), pytest.raises(MirrorUnavailable, match="no free connection"):
        store.state(TABLE, key())
    engine.dispose()


def test_borrowed_connections_come_back_as_they_were(store, engine):
    setting = sa.text("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
    with engine.connect() as connection:
        before = connection.execute(setting).one(), driver(connection).autocommit
    store.write_settled(TABLE, key(), order(), seen=NOTHING, epoch=EPOCH)
    call(store, "PutItem", Item=order())
    with pytest.raises(MirrorUnavailable):
        store.write_settled(
            TABLE, key(), order(price=-1), seen=store.state(TABLE, key()).revision, epoch=EPOCH
        )
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    with engine.connect() as connection:
        assert (connection.execute(setting).one(), driver(connection).autocommit) == before


def test_a_repeatable_read_default_of_the_database_does_not_bring_deleted_rows_back(store, engine):
    with engine.begin() as connection:
        name = connection.scalar(sa.text("SELECT current_database()"))
        change = f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'"
        connection.execute(sa.text(change))
    engine.dispose()
    store.write_direct(TABLE, key(), order(stamp=A), stamp=A, predecessor=None, epoch=EPOCH)
    seen = store.state(TABLE, key()).revision
    patient = PostgresStore(engine, TABLES)
    write = lambda: patient.write_settled(TABLE, key(), order(stamp=A), seen=seen, epoch=EPOCH)  # noqa: E731
    assert not after_a_deletion(patient, engine, write)


def test_another_driver_is_refused_before_any_input_or_output():
    with pytest.raises(ConfigurationError, match="psycopg 3"):
        PostgresStore(sa.create_engine("sqlite://"), TABLES)


def driver(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection
