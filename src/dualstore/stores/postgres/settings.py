"""What a role, a database or an application may have set on a connection, and values depend on.

PostgreSQL reports these settings to its clients, so looking at them takes no round trip. Those that it does
not report, `bytea_output` and `extra_float_digits`, change nothing of what dualstore reads: see `Codec`.
"""

from typing import Any

import psycopg
import sqlalchemy
from psycopg.pq import ExecStatus
from sqlalchemy import event

from dualstore.stores.postgres.wire import Wire

_SET = b"SELECT set_config('client_encoding', 'UTF8', false), set_config('DateStyle', 'ISO', false)"


def install(engine: sqlalchemy.Engine) -> None:
    """Let connections of this engine come with what values need."""
    if not event.contains(engine, "connect", _on_connect):
        event.listen(engine, "connect", _on_connect)


def fit(connection: psycopg.Connection[Any]) -> bool:
    """Whether texts are in UTF-8, as psycopg takes JSON to be, and days are written as it reads them."""
    status = connection.pgconn.parameter_status
    return status(b"client_encoding") == b"UTF8" and (status(b"DateStyle") or b"ISO").startswith(b"ISO")


def set_right(connection: psycopg.Connection[Any]) -> None:
    """Have them fit, for as long as the connection lasts or until somebody sets them again.

    Only how a day is written is set, not the order in which it is read. An application that talks through
    psycopg notices neither.

    Args:
        connection: outside a transaction, whose rollback would undo it.

    Raises:
        psycopg.Error: it failed.
    """
    connection.pgconn.send_query_params(_SET, None)
    for result in Wire(connection).results():
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)


def _on_connect(connection: psycopg.Connection[Any], _record: object) -> None:
    if not fit(connection):
        set_right(connection)


def takes_backslashes_for_escapes(connection: psycopg.Connection[Any]) -> bool:
    """Whether psycopg writes arrays of bytes wrong on this connection: it doubles their backslashes."""
    return connection.pgconn.parameter_status(b"standard_conforming_strings") == b"off"
