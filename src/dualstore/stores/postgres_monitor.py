"""What the monitor reads and keeps in PostgreSQL: windows of figures, alerts, rollbacks, and who leads."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.errors import SchemaError
from dualstore.stores.postgres import deadlines
from dualstore.stores.postgres_transaction import Cursor, session, transaction
from dualstore.telemetry.figures import Figures
from dualstore.telemetry.rollup import Step

_PATIENCE = timedelta(seconds=3)
_LEADER = "dualstore monitor"
_TAKE_THE_LEAD = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_GIVE_UP_THE_LEAD = "SELECT pg_advisory_unlock(hashtextextended(%s, 0))"

# As PostgresRollup.of_step: what stands now has stood since the last window of other dials.
_WINDOWS = """
SELECT floor(extract(epoch FROM ended_at) / %(seconds)s)::bigint AS number, figures FROM dualstore.rollup
 WHERE table_name = %(table)s AND process IS NOT NULL
   AND ended_at >= to_timestamp(%(first)s::float8 * %(seconds)s)
   AND generation > coalesce((
       SELECT max(generation) FROM dualstore.rollup
        WHERE table_name = %(table)s
          AND (stage, read_percent, mirror_percent, shadow_percent)
              IS DISTINCT FROM (%(stage)s::text, %(read)s::numeric, %(mirror)s::numeric, %(shadow)s::numeric)
       ), -1)
"""
_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
# pg_stat_activity shows every client's session, if not what it does, to everybody.
_CONNECTIONS = """
SELECT count(*)::float8 * 100 / current_setting('max_connections')::int
  FROM pg_stat_activity WHERE backend_type = 'client backend'
"""

# One row for each key, and only who changes it tells: two monitors that see the same tell it once.
_OPEN = """
INSERT INTO dualstore.alerts AS known (key, table_name, is_open, times, summary, evidence)
VALUES (%(key)s, %(table)s, true, 1, %(summary)s, %(evidence)s)
ON CONFLICT (key) DO UPDATE
   SET is_open = true, told_at = clock_timestamp(), closed_at = NULL, summary = excluded.summary,
       evidence = excluded.evidence, times = known.times + (NOT known.is_open)::int,
       opened_at = CASE WHEN known.is_open THEN known.opened_at ELSE clock_timestamp() END
 WHERE NOT known.is_open OR known.told_at < clock_timestamp() - %(again)s
RETURNING opened_at
"""
_CLOSE = """
UPDATE dualstore.alerts SET is_open = false, closed_at = clock_timestamp()
 WHERE key = %(key)s AND is_open RETURNING opened_at
"""
_OPEN_NOW = "SELECT key FROM dualstore.alerts WHERE table_name = %s AND is_open"

_ROLLED_BACK = """
INSERT INTO dualstore.rollbacks (table_name, by, reason, began, ended, outcome, seconds, evidence)
VALUES (%(table)s, %(by)s, %(reason)s, %(began)s, %(ended)s, %(outcome)s, %(seconds)s, %(evidence)s)
"""
_ROLLBACKS = """
SELECT at, by, reason, began, ended, outcome, seconds, evidence FROM dualstore.rollbacks
 WHERE table_name = %s ORDER BY number DESC LIMIT %s
"""
_UNFINISHED = "SELECT content FROM dualstore.plans WHERE content->'tables' ? %s ORDER BY created_at DESC"


@dataclass(frozen=True, slots=True)
class RollbackRow:
    """One rollback of one table.

    Attributes:
        at: when it was recorded.
        by: who did it.
        reason: why.
        began: stage and dials before it.
        ended: after it; None where it failed.
        outcome: what came of it, in words.
        seconds: how long it took.
        evidence: on what grounds.
    """

    at: datetime
    by: str
    reason: str
    began: Mapping[str, Any]
    ended: Mapping[str, Any] | None
    outcome: str
    seconds: float
    evidence: Mapping[str, Any]


class PostgresMonitor:
    """The monitor's view of PostgreSQL; every call is one short transaction.

    Every method raises `Unavailable` where PostgreSQL does not answer within three seconds, and `SchemaError`
    where the `dualstore` schema is older.

    Args:
        engine: an engine with the psycopg driver.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- what is seen --------------------------------------------------------------------------

    def now(self) -> float:
        """The moment by PostgreSQL's clock, in seconds since the epoch."""
        with self._transaction("Asking for the time") as cursor:
            return float(_one(cursor.execute(_NOW).fetchone()))

    def windows(self, table: str, step: Step, *, first: int, length: timedelta) -> Mapping[int, Figures]:
        """What all processes counted under the present dials, by numbered stretches of time.

        Args:
            table: the physical name.
            step: where stage and dials stand.
            first: the number of the first stretch: its beginning, in seconds since the epoch, by `length`.
            length: of a stretch; what a process counted goes to the one in which it ended.
        """
        dials = step.dials
        values = {
            "table": table,
            "seconds": length.total_seconds(),
            "first": first,
            "stage": step.stage.value,
            "read": dials.postgres_read_percent,
            "mirror": dials.mirror_percent,
            "shadow": dials.shadow_percent,
        }
        found: dict[int, list[Figures]] = {}
        with self._transaction("Adding figures up") as cursor:
            for number, figures in cursor.execute(_WINDOWS, values):
                found.setdefault(number, []).append(Figures.from_json(figures))
        return {number: Figures.sum(parts) for number, parts in found.items()}

    def connections_percent(self) -> float:
        """How many of the connections that PostgreSQL allows are in use, in per cent."""
        with self._transaction("Counting connections") as cursor:
            return float(_one(cursor.execute(_CONNECTIONS).fetchone()))

    # -- alerts --------------------------------------------------------------------------------

    def open_alert(
        self, key: str, table: str, summary: str, evidence: Mapping[str, Any], *, again: timedelta
    ) -> bool:
        """Note that something is wrong; whether the caller is the one to tell it.

        Args:
            key: names what is wrong; one alert at a time is open under it.
            table: the physical name.
            summary: one line.
            evidence: as JSON without any item's value.
            again: after so long an alert that is still open is told again.
        """
        values = {
            "key": key,
            "table": table,
            "summary": summary,
            "evidence": Jsonb(dict(evidence)),
            "again": again,
        }
        with self._transaction("Recording an alert") as cursor:
            return cursor.execute(_OPEN, values).fetchone() is not None

    def close_alert(self, key: str) -> bool:
        """Note that something is no longer wrong; whether the caller is the one to tell it."""
        with self._transaction("Closing an alert") as cursor:
            return cursor.execute(_CLOSE, {"key": key}).fetchone() is not None

    def open_alerts(self, table: str) -> frozenset[str]:
        """The keys of a table's open alerts (physical name)."""
        with self._transaction("Reading alerts") as cursor:
            return frozenset(key for (key,) in cursor.execute(_OPEN_NOW, [table]))

    # -- rollbacks -----------------------------------------------------------------------------

    def record_rollback(
        self,
        table: str,
        *,
        by: str,
        reason: str,
        began: Mapping[str, Any],
        ended: Mapping[str, Any] | None,
        outcome: str,
        seconds: float,
        evidence: Mapping[str, Any],
    ) -> None:
        """Record a rollback; see `RollbackRow`. `table` is the physical name."""
        values = {
            "table": table,
            "by": by,
            "reason": reason,
            "began": Jsonb(dict(began)),
            "ended": None if ended is None else Jsonb(dict(ended)),
            "outcome": outcome,
            "seconds": seconds,
            "evidence": Jsonb(dict(evidence)),
        }
        with self._transaction("Recording a rollback") as cursor:
            cursor.execute(_ROLLED_BACK, values)

    def rollbacks(self, table: str, *, limit: int = 20) -> Sequence[RollbackRow]:
        """The last rollbacks of a table (physical name), the latest first."""
        with self._transaction("Reading rollbacks") as cursor:
            return [RollbackRow(*row) for row in cursor.execute(_ROLLBACKS, [table, limit])]

    def plans_of(self, table: str) -> Sequence[Mapping[str, Any]]:
        """The content of the plans that move a table (logical name), the latest first."""
        with self._transaction("Looking for plans") as cursor:
            return [content for (content,) in cursor.execute(_UNFINISHED, [table])]

    # -- who leads -----------------------------------------------------------------------------

    @contextmanager
    def leading(self) -> Iterator["Lead | None"]:
        """Lead all monitors for as long as the block runs; None where another one does."""
        with session(self._engine, "Becoming the leading monitor") as connection:
            with deadlines.Deadline(_PATIENCE):
                leads = _one(connection.execute(_TAKE_THE_LEAD, [_LEADER]).fetchone())
            if not leads:
                yield None
                return
            try:
                yield Lead(connection)
            finally:
                # PostgreSQL ends a session some time after its client has: the next one need not wait.
                with suppress(psycopg.Error), deadlines.Deadline(_PATIENCE):
                    connection.execute(_GIVE_UP_THE_LEAD, [_LEADER])

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[Cursor]:
        try:
            with transaction(self._engine, doing, patience=_PATIENCE) as cursor:
                yield cursor
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            raise SchemaError(
                "the database has no tables of a monitor: run `dualstore schema upgrade`"
            ) from None


class Lead:
    """That this process, and no other, leads; its session holds the lock."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def holds(self) -> bool:
        """Whether the session that holds the lock still answers, looked up now."""
        with suppress(psycopg.Error), deadlines.Deadline(_PATIENCE):
            return self._connection.execute("SELECT 1").fetchone() is not None
        return False


def _one(row: tuple[Any, ...] | None) -> Any:
    assert row is not None  # noqa: S101 - these statements give exactly one row
    return row[0]
