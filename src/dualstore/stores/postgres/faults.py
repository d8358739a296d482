"""What went wrong in PostgreSQL, in words that hold no item's value.

PostgreSQL's own messages quote values ("Key (id)=(42) already exists"), so they are never passed on: only
SQLSTATE codes and the names of constraints, columns and tables are.
"""

from enum import Enum
from typing import TypeVar

import psycopg
from psycopg import errors as pg
from sqlalchemy import exc

from dualstore.errors import (
    MirrorRefused,
    MirrorUnavailable,
    MirrorUnreadable,
    RequestRejected,
    Unavailable,
    invalid,
)
from dualstore.mapping import Unreadable
from dualstore.stores.postgres.deadlines import DeadlinePassed

CAUGHT = (psycopg.Error, exc.SQLAlchemyError)
"""What the driver and the pool raise."""


class Fault(Enum):
    """What a failure means for whoever ran into it."""

    LOST = "lost"
    """The connection is gone; others of the same age are, too."""
    LATE = "late"
    """No answer in time."""
    CONTENTION = "contention"
    """Deadlock or serialization failure: run the transaction again."""
    ALTERED = "altered"
    """A table has been altered since a statement was prepared; on this connection it will be anew."""
    FULL = "full"
    """There is no room left; nothing was written."""
    REFUSED = "refused"
    """The SQL table cannot hold the row: a constraint, a type, a length. Or it holds none that is an item."""
    SCHEMA = "schema"
    """A table, column, sequence or schema is missing."""
    OTHER = "other"


_FAULTS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Fault], ...] = (
    ((DeadlinePassed, pg.ConnectionTimeout, exc.TimeoutError), Fault.LATE),
    ((pg.QueryCanceled, pg.LockNotAvailable), Fault.LATE),
    ((pg.SerializationFailure, pg.DeadlockDetected), Fault.CONTENTION),
    ((pg.UndefinedTable, pg.UndefinedColumn, pg.InvalidSchemaName, pg.UndefinedObject), Fault.SCHEMA),
    (pg.FeatureNotSupported, Fault.ALTERED),
    (pg.DiskFull, Fault.FULL),
    # Class 22, data exceptions; 23, integrity violations; 54000 and 54001, a row or key too long for its
    # table or index; class P0, a trigger of the team's own that raises or asserts.
    (
        (
            *(psycopg.DataError, psycopg.IntegrityError, pg.ProgramLimitExceeded, pg.StatementTooComplex),
            *(pg.PlpgsqlError, pg.RaiseException, pg.NoDataFound, pg.TooManyRows, pg.AssertFailure),
        ),
        Fault.REFUSED,
    ),
    # Refused logins, too many connections, server shutting down, broken sockets.
    ((psycopg.OperationalError, psycopg.InterfaceError), Fault.LOST),
)


def driver_error(error: BaseException) -> BaseException:
    """The driver's exception, also where SQLAlchemy has wrapped it."""
    original = getattr(error, "orig", None)
    return original if isinstance(original, BaseException) else error


def fault_of(error: BaseException) -> Fault:
    """What a failure means."""
    error = driver_error(error)
    if type(error) is exc.InvalidRequestError and "connection is closed" in str(error):
        return Fault.LOST  # a pool whose connections ended as fast as they were opened (`hangups`)
    return next((fault for kinds, fault in _FAULTS if isinstance(error, kinds)), Fault.OTHER)


U = TypeVar("U", bound=Unavailable)


def unavailable(error: BaseException, doing: str, kind: type[U]) -> U:
    """The exception that reports a failure.

    Args:
        error: what the driver or the pool raised.
        doing: what was being done, such as `PutItem on 'orders'`.
        kind: which exception to make.
    """
    error = driver_error(error)
    return kind(_message(error, doing))


def as_mirror(error: BaseException, doing: str) -> MirrorUnavailable:
    """What a failed operation of a mirror is reported as: refused by the SQL table, or not answered."""
    if isinstance(driver_error(error), Unreadable):
        return unavailable(error, doing, MirrorUnreadable)
    refused = fault_of(error) in {Fault.REFUSED, Fault.SCHEMA}
    return unavailable(error, doing, MirrorRefused if refused else MirrorUnavailable)


def as_store(error: BaseException, doing: str) -> Unavailable | RequestRejected:
    """What a failed operation of a store is reported as: refused, or not carried out."""
    return refusal(error, doing) or unavailable(error, doing, Unavailable)


def refusal(error: BaseException, doing: str) -> RequestRejected | None:
    """The refusal of an item that breaks a rule of its SQL table; None where that is not what happened."""
    return invalid(_message(driver_error(error), doing)) if fault_of(error) is Fault.REFUSED else None


def _message(error: BaseException, doing: str) -> str:
    return f"PostgreSQL did not carry out {doing}: {_EXPLAINED[fault_of(error)]}{_facts(error)}"


_EXPLAINED = {
    Fault.LOST: "the connection failed",
    Fault.LATE: "no answer in time, or no free connection or lock",
    Fault.CONTENTION: "it kept colliding with other transactions",
    Fault.ALTERED: "a table was altered, or PostgreSQL does not know a feature",
    Fault.FULL: "there is no room left on its disk, so make some",
    Fault.REFUSED: "the item breaks a rule of its SQL table",
    Fault.SCHEMA: (
        "the database lacks something that dualstore expects; run `dualstore schema upgrade`, "
        "and create the mapped tables"
    ),
    Fault.OTHER: "it failed",
}


def _facts(error: BaseException) -> str:
    """Names and codes of a failure, in brackets."""
    facts = [str(error) if isinstance(error, Unreadable) else type(error).__name__]
    if isinstance(error, psycopg.Error):
        diagnosis = error.diag
        facts += [
            f"{label} {value}"
            for label, value in (
                ("SQLSTATE", error.sqlstate),
                ("table", diagnosis.table_name),
                ("column", diagnosis.column_name),
                ("constraint", diagnosis.constraint_name),
            )
            if value
        ]
    return f" ({', '.join(facts)})"
