"""Waiting until the transactions that touched a SQL table before now have ended."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlalchemy import Engine

from dualstore.errors import Unavailable
from dualstore.stores.postgres_transaction import Cursor, transaction

_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 1.0

# PostgreSQL, "Explicit Locking". Whoever has written to a table in a transaction holds one of the first on it
# until the end; whoever has only read it, one of the others. VACUUM, ANALYZE and CREATE INDEX CONCURRENTLY
# hold a ShareUpdateExclusiveLock, possibly for hours, and write no rows.
_WRITING = ("RowExclusiveLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")
_READING = ("AccessShareLock", "RowShareLock", "ShareLock")

_HOLDERS = """
    SELECT DISTINCT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND granted AND mode = ANY(%s)
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (relation IN (to_regclass(%s)::oid, 'dualstore.tombstones'::regclass::oid)
           OR relation IN (SELECT relid::oid FROM pg_partition_tree(to_regclass(%s))))
      AND pid IS DISTINCT FROM pg_backend_pid()
"""


def outlast_writers(
    engine: Engine, table: str, doing: str, patience: timedelta, waiting: Callable[[int], None]
) -> None:
    """Wait until every transaction that has written to a table by now has ended.

    What it wrote is visible then, or was rolled back. Those that only read, such as `pg_dump`, do not count.

    Args:
        engine: an engine with the psycopg driver.
        table: the SQL table's name, quoted.
        doing: what is waited for, for the message.
        patience: how long to wait at most.
        waiting: called, now and then, with the number of transactions waited for.

    Raises:
        Unavailable: some are still there.
    """
    with transaction(engine, doing) as cursor:
        older = _holders(cursor, table, _WRITING)

    def left(cursor: Cursor) -> int:
        older.intersection_update(_holders(cursor, table, _WRITING))
        return len(older)

    _outlast(engine, doing, patience, waiting, left)


class OlderWriters:
    """The transactions that had written to a table at one moment, for who cannot wait in one place.

    Args:
        engine: an engine with the psycopg driver.
        table: the SQL table's name, quoted.
        doing: what is waited for, for messages.

    Raises:
        Unavailable: PostgreSQL could not be reached in time.
    """

    def __init__(self, engine: Engine, table: str, doing: str) -> None:
        self._engine = engine
        self._table = table
        self._doing = doing
        with transaction(engine, doing) as cursor:
            self._left = _holders(cursor, table, _WRITING)

    def left(self) -> int:
        """How many of them have not ended yet."""
        if self._left:
            with transaction(self._engine, self._doing) as cursor:
                self._left &= _holders(cursor, self._table, _WRITING)
        return len(self._left)


def outlast_readers_and_writers(
    engine: Engine, table: str, doing: str, patience: timedelta, waiting: Callable[[int], None]
) -> None:
    """Wait until no transaction is left that may have looked at a table before now; as `outlast_writers`.

    `pg_snapshot_xmin` alone would miss a transaction that has only read so far: it has no transaction id yet.
    It does hold a lock on a table it has read, and one that locks the table later will see what is there now.
    """
    modes = _WRITING + _READING
    with transaction(engine, doing) as cursor:
        cursor.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
        (horizon,) = cursor.fetchone() or (None,)
        older = _holders(cursor, table, modes)

    def left(cursor: Cursor) -> int:
        older.intersection_update(_holders(cursor, table, modes))
        cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot()) >= %s::text::xid8", [horizon])
        # The snapshot tells that there are some, not how many.
        return len(older) or int(cursor.fetchone() != (True,))

    _outlast(engine, doing, patience, waiting, left)


def _outlast(
    engine: Engine,
    doing: str,
    patience: timedelta,
    waiting: Callable[[int], None],
    left: Callable[[Cursor], int],
) -> None:
    """Look again, each time in a transaction of its own, until none is left."""
    give_up = time.monotonic() + patience.total_seconds()
    pause = _FIRST_PAUSE_S
    while True:
        with transaction(engine, doing) as cursor:
            count = left(cursor)
        if not count:
            return
        if time.monotonic() >= give_up:
            raise Unavailable(
                f"{doing}: {count} or more still run after {patience}; look for old entries of "
                "pg_stat_activity.xact_start (or pg_prepared_xacts), end them, and resume the run"
            )
        waiting(count)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _holders(cursor: Cursor, table: str, modes: Sequence[str]) -> set[str]:
    """The other transactions that hold a lock of these modes on the table, or on the tombstones."""
    cursor.execute(_HOLDERS, [list(modes), table, table])
    return {transaction_name for (transaction_name,) in cursor}
