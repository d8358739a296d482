"""One transaction of a bulk job: READ COMMITTED, bounded in time, on the team's own pool."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from sqlalchemy import Connection, Engine

from dualstore.errors import StorageFull, Unavailable
from dualstore.stores.postgres import deadlines, settings
from dualstore.stores.postgres.faults import CAUGHT, Fault, fault_of, unavailable
from dualstore.stores.postgres.wire import failing_handlers_logged

Cursor = psycopg.Cursor[tuple[Any, ...]]

# A page of 1 MB takes tens of milliseconds; a lock held by the team's own DDL, or a dying disk, may not
# hold a worker for ever.
PATIENCE = timedelta(seconds=60)

_EXPLAINED: dict[Fault, type[Unavailable]] = {
    Fault.LOST: Unavailable,
    Fault.LATE: Unavailable,
    Fault.CONTENTION: Unavailable,
    Fault.FULL: StorageFull,
}


@contextmanager
def transaction(engine: Engine, doing: str, *, patience: timedelta = PATIENCE) -> Iterator[Cursor]:
    """One READ COMMITTED transaction (DESIGN, replication protocol, rule 9).

    Args:
        engine: an engine with the psycopg driver.
        doing: what the transaction is for, for the message; holds no item's value.
        patience: how long all of it may take.

    Yields:
        A psycopg cursor; what it does is committed at the end of the block.

    Raises:
        Unavailable: the connection was lost, or the transaction took too long or fell victim to others:
            trying again is right. A COMMIT whose reply was lost may have succeeded.
        StorageFull: PostgreSQL has no room for it.
    """
    with explained(doing), deadlines.Deadline(patience), engine.connect() as connection:
        connection.execution_options(isolation_level="READ COMMITTED")
        driver = driver_of(connection)
        with (
            failing_handlers_logged(driver.pgconn),
            connection.begin(),
            _thrown_away_if_lost(connection),
            driver.cursor(row_factory=tuple_row) as cursor,
        ):
            if settings.takes_backslashes_for_escapes(cursor.connection):
                cursor.execute("SET LOCAL standard_conforming_strings = on")
            yield cursor


@contextmanager
def session(engine: Engine, doing: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection in autocommit that nobody else gets afterwards, for locks and temporary tables.

    The errors are those of `transaction`; each exchange has its deadline from `deadlines.Deadline`.
    """
    with explained(doing), engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        driver = driver_of(connection)
        try:
            with failing_handlers_logged(driver.pgconn):
                yield driver
        finally:
            connection.invalidate()


def driver_of(connection: Connection) -> psycopg.Connection[tuple[Any, ...]]:
    """The psycopg connection behind SQLAlchemy's, bound to the deadlines of its thread."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - dualstore's engines speak psycopg
    deadlines.bind(driver)
    if driver.pgconn.transaction_status == TransactionStatus.IDLE and not settings.fit(driver):
        settings.set_right(driver)
    return driver


@contextmanager
def _thrown_away_if_lost(connection: Connection) -> Iterator[None]:
    """Keep a connection that is broken, or in the middle of an exchange, out of the pool."""
    try:
        yield
    except CAUGHT as error:
        fault = fault_of(error)
        if fault is Fault.LOST:
            # As SQLAlchemy does on a disconnect of its own: after a restart of the server all idle
            # connections of the same age are dead, and are opened afresh when they are next asked for.
            connection.engine.pool._invalidate(connection.connection, None, False)  # noqa: SLF001 - not public
        if fault in {Fault.LOST, Fault.LATE}:
            connection.invalidate()
        raise


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Report what may pass as `Unavailable`, or as `StorageFull`; all other errors as they are."""
    try:
        yield
    except CAUGHT as error:
        kind = _EXPLAINED.get(fault_of(error))
        if kind is None:
            raise
        raise unavailable(error, doing, kind) from None
