"""The record of migration plans in PostgreSQL: what happened, who carries a plan out, and that only one does.

One operator at a time is held by a session's advisory locks, of the plan and of each of its tables. Behind a
pooler that shares sessions these say little, so there is also a row with a heartbeat: whoever writes an event
names the holder that he is, and a holder that was replaced writes no more.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.errors import ConfigurationError, DualStoreError, SchemaError, Unavailable
from dualstore.stores.postgres import deadlines
from dualstore.stores.postgres_transaction import session, transaction

logger = logging.getLogger(__name__)

_PATIENCE = timedelta(seconds=5)
_BEAT = timedelta(seconds=1)
SILENT_AFTER = timedelta(seconds=15)
"""A holder whose session nobody can look at is gone after so long without a heartbeat."""
# The server ends a session that has fallen silent, with its locks: its host may be gone without a word.
_SESSION_ENDS_AFTER = "30s"
_IDLE_SESSION_TIMEOUT_FROM = 140000

_EVENT_FIELDS = "number, step, kind, by, at, attempt, seconds, reason, evidence"
_GONE = """
(holder_id IS NULL OR heartbeat_at < clock_timestamp() - %(silent)s OR NOT EXISTS (
    SELECT FROM pg_stat_activity AS a
     WHERE a.pid = holder_pid AND (a.backend_start IS NULL OR a.backend_start = holder_began_at)))
"""
_TAKE = """
UPDATE dualstore.plans
   SET holder_id = %(id)s, holder = %(who)s, heartbeat_at = clock_timestamp(),
       (holder_pid, holder_began_at) =
           (SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
 WHERE name = %(plan)s AND (%(force)s OR {gone})
"""
_BEAT_ON = """
UPDATE dualstore.plans SET heartbeat_at = clock_timestamp() WHERE name = %(plan)s AND holder_id = %(id)s
RETURNING (SELECT kind = 'halted' FROM dualstore.plan_events
            WHERE plan = %(plan)s AND kind IN ('halted', 'resumed') ORDER BY number DESC LIMIT 1)
"""
_RELEASE = """
UPDATE dualstore.plans SET holder_id = NULL, holder = NULL, holder_pid = NULL, holder_began_at = NULL
 WHERE name = %(plan)s AND holder_id = %(id)s
"""
# The holder's row is locked: nobody replaces him between this look and the commit.
_APPEND = """
INSERT INTO dualstore.plan_events (plan, step, kind, by, attempt, seconds, reason, evidence)
SELECT name, %(step)s, %(kind)s, %(by)s, %(attempt)s, %(seconds)s, %(reason)s, %(evidence)s
  FROM dualstore.plans WHERE name = %(plan)s AND (%(holder)s::uuid IS NULL OR holder_id = %(holder)s)
   FOR SHARE
RETURNING at
"""
_PROVEN = """
SELECT max(started_at) FROM dualstore.runs
 WHERE table_name = %s AND kind = 'verify' AND state = 'finished'
   AND coalesce(parameters->>'mode', 'full') = 'full'
   AND coalesce(parameters->'source'->>'kind', 'scan') = 'scan'
   AND (result->>'difference_count')::bigint = (result->>'repaired')::bigint
   AND coalesce((result->>'moving')::bigint, 0) = 0
"""


class PlanTaken(DualStoreError):  # noqa: N818 - named for what happened
    """Somebody else carries the plan out, or has taken it over; the message says who."""


class PlanHalted(DualStoreError):  # noqa: N818 - named for what happened
    """The plan was halted while it was carried out: going forward needs a person."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event, as its row tells; the names are those of `rollout.standing.PlanEvent`."""

    number: int
    step: str | None
    kind: str
    by: str
    at: datetime
    attempt: int
    seconds: float | None
    reason: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A plan as it was last run.

    Attributes:
        name: its name.
        digest: of its file.
        content: the file.
        holder: who carries it out now; None: nobody.
        heartbeat_age: when he last showed himself; None: nobody does.
    """

    name: str
    digest: str
    content: Mapping[str, Any]
    holder: str | None
    heartbeat_age: timedelta | None


class Hold:
    """That this process, and no other, carries a plan out; beats in a thread of its own.

    Attributes:
        id: names this hold in the record.
        obeys_halts: whether a halt ends it; what rolls back goes on.
    """

    def __init__(
        self,
        connection: psycopg.Connection[tuple[Any, ...]],
        plan: str,
        hold_id: UUID,
        *,
        obeys_halts: bool,
    ) -> None:
        self.id = hold_id
        self.obeys_halts = obeys_halts
        self._connection = connection
        self._values = {"plan": plan, "id": hold_id}
        self._lost: DualStoreError | None = None
        self._ends = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="dualstore-plan", daemon=True)
        self._beating.start()

    def check(self) -> None:
        """See that it still holds, looked up now.

        Raises:
            PlanTaken: somebody else has taken the plan over.
            PlanHalted: somebody has halted it.
            Unavailable: the session that holds the locks is lost.
        """
        if self._lost is None:
            self._look()
        if self._lost is not None:
            raise self._lost

    def pause(self, duration: timedelta) -> None:
        """Sleep, but no longer than it holds; errors as for `check`."""
        ends = time.monotonic() + duration.total_seconds()
        while (left := ends - time.monotonic()) > 0:
            if self._lost is not None:
                raise self._lost
            self._ends.wait(min(left, 0.1))

    def end(self) -> None:
        """Beat no more, and let others have the plan."""
        self._ends.set()
        self._beating.join()
        with suppress(psycopg.Error), deadlines.Deadline(_PATIENCE):
            self._connection.execute(_RELEASE, self._values)

    def _beat(self) -> None:
        while self._lost is None and not self._ends.wait(_BEAT.total_seconds()):
            self._look()

    def _look(self) -> None:
        try:
            with deadlines.Deadline(_PATIENCE):
                row = self._connection.execute(_BEAT_ON, self._values).fetchone()
        except psycopg.Error as error:
            self._lost = Unavailable(
                f"plan {self._values['plan']}: the session that holds its lock is lost "
                f"({type(error).__name__}): see that PostgreSQL can be reached, and run the plan again"
            )
            return
        if row is None:
            self._lost = PlanTaken(f"plan {self._values['plan']} was taken over by somebody else")
        elif row[0] and self.obeys_halts:
            self._lost = PlanHalted(
                f"plan {self._values['plan']} was halted: `dualstore plan show` says why, and `dualstore "
                "plan resume --as NAME` goes on"
            )


class PostgresPlans:
    """The plans that a database knows.

    Args:
        engine: an engine with the psycopg driver.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        """The moment, by PostgreSQL's clock."""
        with transaction(self._engine, "Asking for the time", patience=_PATIENCE) as cursor:
            now: datetime = self._one(cursor.execute("SELECT clock_timestamp()").fetchone())
        return now

    def find(self, plan: str) -> PlanRow | None:
        """A plan by its name, or None where it has never been run.

        Raises:
            SchemaError: the schema is older than this version.
            Unavailable: PostgreSQL could not be reached in time.
        """
        try:
            with transaction(self._engine, f"Looking for plan {plan}", patience=_PATIENCE) as cursor:
                row = cursor.execute(
                    "SELECT name, digest, content, holder, clock_timestamp() - heartbeat_at"
                    " FROM dualstore.plans WHERE name = %s",
                    [plan],
                ).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            raise SchemaError("the database keeps no plans yet: run `dualstore schema upgrade`") from None
        return None if row is None else PlanRow(*row)

    def names(self) -> Sequence[str]:
        """The names of all plans, the latest first."""
        with transaction(self._engine, "Listing plans", patience=_PATIENCE) as cursor:
            rows = cursor.execute("SELECT name FROM dualstore.plans ORDER BY created_at DESC").fetchall()
        return [name for (name,) in rows]

    def keep(self, plan: str, digest: str, content: Mapping[str, Any], *, replaces: bool = False) -> PlanRow:
        """Record a plan where there is none of its name, or what its file says now; gives the record."""
        with transaction(self._engine, f"Recording plan {plan}", patience=_PATIENCE) as cursor:
            cursor.execute(
                "INSERT INTO dualstore.plans AS p (name, digest, content) VALUES (%s, %s, %s)"
                " ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, content = excluded.content"
                " WHERE %s AND p.digest <> excluded.digest",
                [plan, digest, Jsonb(dict(content)), replaces],
            )
        kept = self.find(plan)
        if kept is None:
            raise ConfigurationError(f"plan {plan} was deleted while it was recorded; run it again")
        return kept

    def events(self, plan: str) -> Sequence[EventRow]:
        """What happened to a plan, in order."""
        with transaction(self._engine, f"Reading plan {plan}", patience=_PATIENCE) as cursor:
            cursor.execute(
                f"SELECT {_EVENT_FIELDS} FROM dualstore.plan_events WHERE plan = %s ORDER BY number", [plan]
            )
            return [EventRow(*row) for row in cursor]

    def append(
        self,
        plan: str,
        kind: str,
        *,
        by: str,
        step: str | None = None,
        attempt: int = 0,
        seconds: float | None = None,
        reason: str = "",
        evidence: Mapping[str, Any] | None = None,
        holder: UUID | None = None,
    ) -> datetime:
        """Record an event; gives back its moment.

        Args:
            plan: the plan's name.
            kind: what happened.
            by: who did it.
            step: to which step.
            attempt: its attempt.
            seconds: how long it took.
            reason: why; no item's value.
            evidence: what was seen, as JSON without any item's value.
            holder: whoever carries the plan out says so; None: anybody, as for an approval.

        Raises:
            PlanTaken: the holder has been replaced.
            ConfigurationError: there is no such plan.
        """
        values = {
            "plan": plan,
            "kind": kind,
            "by": by,
            "step": step,
            "attempt": attempt,
            "seconds": seconds,
            "reason": reason,
            "evidence": Jsonb(dict(evidence or {})),
            "holder": holder,
        }
        with transaction(
            self._engine, f"Recording what happened to plan {plan}", patience=_PATIENCE
        ) as cursor:
            row = cursor.execute(_APPEND, values).fetchone()
        if row is None and holder is not None:
            raise PlanTaken(f"plan {plan} was taken over by somebody else; nothing more is done here")
        if row is None:
            raise ConfigurationError(f"no plan is called {plan}; known: {', '.join(self.names()) or 'none'}")
        at: datetime = self._one(row)
        return at

    def proven_at(self, table: str) -> datetime | None:
        """When the last verification ended that left no difference of a table (physical name), or None."""
        with transaction(self._engine, "Looking for verifications", patience=_PATIENCE) as cursor:
            row = cursor.execute(_PROVEN, [table]).fetchone()
        found: datetime | None = None if row is None else row[0]
        return found

    @contextmanager
    def holding(
        self,
        plan: str,
        tables: Sequence[str],
        *,
        who: str,
        patience: timedelta = timedelta(0),
        force: bool = False,
        obeys_halts: bool = True,
    ) -> Iterator[Hold]:
        """Carry a plan out, alone, for as long as the block runs.

        Args:
            plan: its name, recorded before.
            tables: the physical names of its tables: no two plans move one table.
            who: for those who find it held.
            patience: how long to wait for another holder to let go.
            force: take it over after that, as a rollback does: what the other records then is refused.
            obeys_halts: see `Hold`.

        Raises:
            PlanTaken: somebody else holds it; the message says who.
            Unavailable: PostgreSQL could not be reached in time.
        """
        with session(self._engine, f"Taking plan {plan}") as connection, ExitStack() as stack:
            hold_id = uuid4()
            ends = time.monotonic() + patience.total_seconds()
            # The server ends a session a moment after its client has: the next holder need not wait for that.
            stack.callback(_unlock, connection)
            with deadlines.Deadline(patience + _PATIENCE):
                _prepare(connection)
                while not self._taken(connection, plan, tables, who, hold_id, force=False):
                    if time.monotonic() < ends:
                        time.sleep(0.1)
                    elif force:
                        self._taken(connection, plan, tables, who, hold_id, force=True)
                        break
                    else:
                        raise PlanTaken(self._held(plan, tables))
            hold = Hold(connection, plan, hold_id, obeys_halts=obeys_halts)
            try:
                yield hold
            finally:
                hold.end()

    def _taken(
        self,
        connection: psycopg.Connection[tuple[Any, ...]],
        plan: str,
        tables: Sequence[str],
        who: str,
        hold_id: UUID,
        *,
        force: bool,
    ) -> bool:
        """Try all locks, then the row; what was got of the locks is kept for the next try."""
        keys = [f"dualstore plan {plan}", *(f"dualstore plan of table {table}" for table in sorted(tables))]
        for key in keys:
            # The session takes a lock that it has once more; all end with it.
            row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [key]).fetchone()
            if not (force or self._one(row)):
                return False
        values = {"id": hold_id, "who": who, "plan": plan, "force": force, "silent": SILENT_AFTER}
        return connection.execute(_TAKE.format(gone=_GONE).encode(), values).rowcount > 0

    def _held(self, plan: str, tables: Sequence[str]) -> str:
        kept = self.find(plan)
        if kept is None:
            return f"no plan is called {plan}"
        if kept.holder is None:
            return (
                f"another plan moves a table of plan {plan} ({', '.join(tables)}): one plan at a time; "
                "`dualstore plan show` of the other one says who runs it"
            )
        age = kept.heartbeat_age or timedelta(0)
        return (
            f"plan {plan} is carried out by {kept.holder}, last seen {age.total_seconds():.0f} s ago. If "
            f"that process is gone, wait until {_SESSION_ENDS_AFTER} after it was last seen"
        )

    @staticmethod
    def _one(row: Sequence[Any] | None) -> Any:
        assert row is not None  # noqa: S101 - the statement always gives a row
        return row[0]


def _unlock(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    with suppress(psycopg.Error), deadlines.Deadline(_PATIENCE):
        connection.execute("SELECT pg_advisory_unlock_all()")


def _prepare(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    if connection.info.server_version >= _IDLE_SESSION_TIMEOUT_FROM:
        connection.execute("SELECT set_config('idle_session_timeout', %s, false)", [_SESSION_ENDS_AFTER])
