"""Idle connections on which the server has hung up are found when they are asked for, before they are used.

A server that crashes, restarts or ends a session says so on the socket, where nobody reads while the
connection lies in the pool. Looking whether there is anything to read takes 2 µs, and no round trip. So a
pool may hand out the connection that was last given back, whose server process has everything at hand: those
below it may lie there, dead, for as long as they are not needed.
"""

from typing import Any, cast

import psycopg
import sqlalchemy
from psycopg.pq import ConnStatus
from sqlalchemy import event, exc
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from dualstore.stores.postgres import sockets
from dualstore.stores.postgres.wire import deliver_notifications

_LOOK = "dualstore.something_to_read"


def install(engine: sqlalchemy.Engine) -> None:
    """Have an engine's pool open such connections, and all that are as old, afresh; others notice nothing."""
    if not event.contains(engine, "checkout", _look):
        event.listen(engine, "checkout", _look)


def _look(connection: Any, entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
    driver = cast("psycopg.Connection[Any]", connection)
    if driver.pgconn.status == ConnStatus.BAD:
        raise exc.InvalidatePoolError
    kept = entry.info  # for as long as the pool keeps the connection
    something_to_read = kept.get(_LOOK)
    if something_to_read is None:
        something_to_read = kept[_LOOK] = sockets.until_readable(driver.fileno())
    if something_to_read(0) and not _is_alive(driver, something_to_read):
        raise exc.InvalidatePoolError


def _is_alive(connection: psycopg.Connection[Any], something_to_read: sockets.Wait) -> bool:
    """Whether what there is to read is a message and not the end: a notification, a changed setting."""
    try:
        while something_to_read(0):
            connection.pgconn.consume_input()
            deliver_notifications(connection.pgconn)
    except psycopg.OperationalError:
        return False
    return True
