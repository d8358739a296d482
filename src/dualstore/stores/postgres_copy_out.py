"""COPY TO STDOUT, line by line, at the speed of libpq: psycopg's own waits anew for each line."""

from collections.abc import Callable, Generator
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.errors import error_from_result
from psycopg.waiting import Ready, Wait


def copy_out(
    connection: psycopg.Connection[Any], statement: sql.Composed, take: Callable[[memoryview], object]
) -> None:
    """Hand over each line of what a COPY writes, its newline included.

    It is an exchange like any other of the connection, with its deadline. Where `take` raises, the connection
    is closed, since the rest of the lines is still on its way.

    Args:
        connection: with no other exchange under way.
        statement: a `COPY … TO STDOUT` in text format.
        take: called with each line, which is only there until it returns.

    Raises:
        psycopg.Error: PostgreSQL refused it, or the connection is gone.
    """
    query = statement.as_bytes(connection)
    try:
        with connection.lock:
            connection.wait(_exchange(connection.pgconn, query, take))
    except psycopg.Error:
        raise
    except BaseException:
        connection.close()
        raise


def _exchange(
    pgconn: pq.abc.PGconn, query: bytes, take: Callable[[memoryview], object]
) -> Generator[Wait, Ready | int, None]:
    pgconn.send_query(query)
    while pgconn.flush():
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
    yield from _result(pgconn, pq.ExecStatus.COPY_OUT)
    get_copy_data = pgconn.get_copy_data  # of millions of lines
    while True:
        size, line = get_copy_data(1)
        if size > 0:
            take(line)
        elif size < 0:
            break
        else:
            yield Wait.R
            pgconn.consume_input()
    yield from _result(pgconn, pq.ExecStatus.COMMAND_OK)


def _result(pgconn: pq.abc.PGconn, expected: pq.ExecStatus) -> Generator[Wait, Ready | int, None]:
    """Wait for what PostgreSQL says; where it is not what was expected, for all that it says."""
    result = yield from _next_result(pgconn)
    if result is not None and result.status == expected == pq.ExecStatus.COPY_OUT:
        return
    while (yield from _next_result(pgconn)) is not None:
        pass
    if result is None or result.status != expected:
        raise psycopg.InterfaceError("COPY has no result") if result is None else error_from_result(result)


def _next_result(pgconn: pq.abc.PGconn) -> Generator[Wait, Ready | int, pq.abc.PGresult | None]:
    while pgconn.is_busy():
        yield Wait.R
        pgconn.consume_input()
    return pgconn.get_result()
