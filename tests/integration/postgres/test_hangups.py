"""Connections on which the server has hung up while they lay in the pool: nobody is handed one."""

import os
import select
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from dualstore.errors import Unavailable
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres.faults import Fault, fault_of, unavailable
from dualstore.stores.postgres.sessions import Session, Sessions
from dualstore.stores.postgres.store import DOUBT_PATIENCE
from integration.postgres.orders import TABLES

BACKEND = sa.text("SELECT pg_backend_pid()")


@pytest.fixture(scope="module")
def database(postgres_server: Any) -> Iterator[str]:
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    """A pool in which connections that are not needed may lie for long."""
    engine = sa.create_engine(database, pool_use_lifo=True)
    PostgresStore(engine, TABLES)
    yield engine
    engine.dispose()


@pytest.fixture
def administrator(database: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def backends(engine: sa.Engine, count: int) -> list[int]:
    """The server processes behind so many connections, which lie in the pool afterwards."""
    connections = [engine.connect() for _ in range(count)]
    found = [connection.scalar(BACKEND) for connection in connections]
    for connection in connections:
        connection.close()
    return found


def end(administrator: sa.Connection, pids: list[int]) -> None:
    """Returns when they are gone."""
    for pid in pids:
        assert administrator.scalar(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def test_the_applications_own_statements_meet_no_connection_that_has_ended(engine, administrator):
    end(administrator, backends(engine, 3))
    assert len(backends(engine, 3)) == 3


def test_one_that_has_ended_has_all_of_its_age_opened_afresh(engine, administrator):
    of_before = backends(engine, 3)
    end(administrator, of_before[-1:])  # which was given back last, and is handed out first
    assert not set(backends(engine, 3)) & set(of_before)


def test_a_connection_with_a_notification_to_read_is_kept(engine, administrator):
    with engine.connect() as connection:
        before = connection.scalar(BACKEND)
        connection.exec_driver_sql("LISTEN something")
        connection.commit()
    administrator.execute(sa.text("NOTIFY something"))
    with engine.connect() as connection:
        assert connection.scalar(BACKEND) == before
        heard = connection.connection.driver_connection.notifies(timeout=2, stop_after=1)
        assert [each.channel for each in heard] == ["something"]


def test_a_connection_that_somebody_has_closed_is_opened_afresh(engine):
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
    number = driver.fileno()
    driver.close()
    reading, writing = os.pipe()
    os.dup2(reading, number)  # the number is something else's now, which has nothing to say
    try:
        assert len(backends(engine, 1)) == 1
    finally:
        for each in {number, reading, writing}:
            os.close(each)


def test_one_that_ends_after_it_was_handed_out_is_replaced_once(engine):
    sessions = Sessions(engine, statement_timeout=DOUBT_PATIENCE)
    calls = 0

    def end_itself(session: Session) -> int:
        nonlocal calls
        calls += 1
        session.rows("SELECT pg_terminate_backend(pg_backend_pid())")
        return calls

    def end_once(session: Session) -> int:
        return end_itself(session) if not calls else len(session.rows("SELECT 1"))

    def explain(error: BaseException, doing: str) -> Exception:
        return unavailable(error, doing, Unavailable)

    assert sessions.run(end_once, doing="a look", explain=explain) == 1
    calls = 0
    with pytest.raises(Unavailable):
        sessions.run(end_itself, doing="a look", explain=explain)
    assert calls == 2


def test_a_notification_whose_handler_fails_is_no_hangup(engine, administrator):
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        driver.autocommit = True
        driver.execute("LISTEN something")
        driver.autocommit = False
        pid = connection.scalar(BACKEND)

    def fail(_: object) -> None:
        raise psycopg.OperationalError

    driver.add_notify_handler(fail)
    administrator.exec_driver_sql("NOTIFY something")
    assert select.select([driver], [], [], 10)[0]
    with engine.connect() as connection:
        assert connection.scalar(BACKEND) == pid


def test_a_pool_whose_connections_end_as_they_are_opened_is_a_database_that_is_away(engine):
    """As behind a proxy that accepts connections for a server that is gone."""
    sa.event.listen(engine, "checkout", dead)
    sessions = Sessions(engine, statement_timeout=timedelta(milliseconds=200))
    seen = []
    with pytest.raises(Unavailable):
        sessions.run(
            lambda session: session.rows("SELECT 1"),
            doing="a look",
            explain=lambda error, doing: (
                seen.append(fault_of(error)) or unavailable(error, doing, Unavailable)
            ),
        )
    assert seen == [Fault.LOST]


def dead(*_: object) -> None:
    raise sa.exc.DisconnectionError


@pytest.mark.parametrize(
    "mistake", [sa.exc.InvalidRequestError("what is that"), sa.exc.NoSuchTableError("t")]
)
def test_a_mistake_in_the_use_of_sqlalchemy_is_no_lost_connection(mistake):
    assert fault_of(mistake) is Fault.OTHER
