"""How PostgreSQL bears its load: how far replicas lag, and who waits for locks."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from sqlalchemy import Engine

from dualstore.stores.postgres_transaction import transaction

LOADER = "dualstore backfill"
"""The `application_name` of a transaction that loads: whoever waits for its locks waits for us."""

_PATIENCE = timedelta(seconds=3)

_IS_AURORA = "SELECT to_regprocedure('aurora_replica_status()') IS NOT NULL"
# PostgreSQL, "pg_stat_replication": replay_lag is null for a standby that has replayed everything, and for
# whoever may not see it (pg_monitor may).
_STANDBYS = """
SELECT application_name, extract(epoch FROM replay_lag)::float8 FROM pg_stat_replication
 WHERE replay_lag IS NOT NULL ORDER BY replay_lag DESC LIMIT 1
"""
# Aurora User Guide, "aurora_replica_status": the writer is a row like the others.
_AURORA_READERS = """
SELECT server_id, replica_lag_in_msec::float8 / 1000 FROM aurora_replica_status()
 WHERE session_id <> 'MASTER_SESSION_ID' AND replica_lag_in_msec IS NOT NULL
 ORDER BY replica_lag_in_msec DESC LIMIT 1
"""
# Advisory locks are left out: a second backfill that waits for its turn holds nobody up. So is who loads.
_WAITS = """
SELECT extract(epoch FROM clock_timestamp() - locks.waitstart)::float8 AS seconds, locks.locktype, ours
  FROM pg_stat_activity AS waiting
  JOIN pg_locks AS locks ON locks.pid = waiting.pid AND NOT locks.granted
 CROSS JOIN LATERAL (
       SELECT EXISTS (SELECT FROM pg_stat_activity AS holder
                       WHERE holder.pid = ANY (pg_blocking_pids(waiting.pid))
                         AND holder.application_name = %(loader)s)) AS blocked (ours)
 WHERE waiting.wait_event_type = 'Lock' AND waiting.datname = current_database()
   AND waiting.application_name <> %(loader)s AND locks.locktype <> 'advisory'
   AND locks.waitstart IS NOT NULL
 ORDER BY ours DESC, seconds DESC
"""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the replica that is furthest behind lags."""

    replica: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LockWait:
    """A session that waits for a lock.

    Attributes:
        seconds: for how long.
        lock: of which type, such as `relation` or `transactionid`.
        ours: whether a transaction that loads holds it.
    """

    seconds: float
    lock: str
    ours: bool


class PostgresPressure:
    """Looks at PostgreSQL's own statistics; every look is one short transaction.

    Args:
        engine: an engine with the psycopg driver.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @cached_property
    def _lag_statement(self) -> str:
        with transaction(self._engine, "Looking whether this is Aurora", patience=_PATIENCE) as cursor:
            return _AURORA_READERS if cursor.execute(_IS_AURORA).fetchone() == (True,) else _STANDBYS

    def lag(self) -> Lag | None:
        """The longest replication lag; None without a replica that lags, or where it may not be seen.

        Raises:
            Unavailable: PostgreSQL does not answer in time.
        """
        statement = self._lag_statement
        with transaction(self._engine, "Looking at the replication lag", patience=_PATIENCE) as cursor:
            row = cursor.execute(statement.encode()).fetchone()
        return None if row is None else Lag(row[0] or "a replica", row[1])

    def lock_waits(self) -> list[LockWait]:
        """Who waits for locks in this database, apart from who loads: who waits for us first, longest first.

        Raises:
            Unavailable: PostgreSQL does not answer in time.
        """
        with transaction(self._engine, "Looking for lock waits", patience=_PATIENCE) as cursor:
            return [LockWait(*row) for row in cursor.execute(_WAITS, {"loader": LOADER})]
