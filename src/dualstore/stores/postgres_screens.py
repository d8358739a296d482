"""What screens show of the past and of what is open, read from PostgreSQL in short transactions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy import Engine

from dualstore.errors import SchemaError
from dualstore.stores.ledger import RunState
from dualstore.stores.postgres_transaction import Cursor, transaction
from dualstore.telemetry.figures import Figures

_PATIENCE = timedelta(seconds=5)

# A note since when all is mirrored is kept beside the runs, and is none.
_RUNS = """
SELECT r.kind, r.state, r.phase, r.wish, r.wish_by, r.started_at, r.finished_at, r.result,
       coalesce(sum(p.items), 0)::bigint,
       count(*) FILTER (WHERE p.state IN ('copied', 'done')), count(p.piece),
       coalesce(sum(p.rejected), 0)::bigint, (r.parameters->>'expected_items')::bigint,
       max(p.updated_at), r.id::text
  FROM dualstore.runs AS r LEFT JOIN dualstore.run_pieces AS p ON p.run_id = r.id
 WHERE r.id IN (SELECT id FROM dualstore.runs WHERE table_name = %(table)s AND kind <> 'dual writes'
                 ORDER BY started_at DESC LIMIT %(limit)s)
 GROUP BY r.id ORDER BY r.started_at DESC
"""
_ALERTS = """
SELECT key, is_open, opened_at, closed_at, times, summary FROM dualstore.alerts
 WHERE table_name = %(table)s AND (is_open OR opened_at >= %(since)s) ORDER BY opened_at DESC LIMIT %(limit)s
"""
_DISCREPANCIES = """
SELECT class, finder, count(*), sum(count)::bigint, max(last_seen) FROM dualstore.discrepancies
 WHERE table_name = %(table)s AND state = 'open' GROUP BY class, finder ORDER BY 3 DESC, 1, 2
"""
_QUARANTINED = "SELECT count(*) FROM dualstore.quarantine WHERE table_name = %(table)s AND state = 'open'"
_WINDOWS = """
SELECT began_at, ended_at, stage, read_percent::float8, mirror_percent::float8, shadow_percent::float8,
       figures
  FROM dualstore.rollup WHERE table_name = %(table)s AND ended_at >= %(since)s
 ORDER BY ended_at
"""


@dataclass(frozen=True, slots=True)
class RunSeen:
    """A backfill, a verification or a repair.

    Attributes:
        kind: which of them.
        state: where it stands.
        phase: what it is doing, in the words of its kind; None where it has told nothing.
        wish: what is asked of it: `go`, `pause`, `halt`.
        wish_by: who asked.
        started_at: when it was.
        finished_at: when it was; None while it is not.
        result: what came of it; None while it is not finished.
        items: read so far.
        pieces_done: read whole.
        pieces: of all.
        rejected: items that could be neither loaded nor settled.
        expected_items: about how many items there are; None where nobody knows.
        moved_at: when a piece last got on; None without any.
        id: names it.
    """

    kind: str
    state: RunState
    phase: str | None
    wish: str
    wish_by: str | None
    started_at: datetime
    finished_at: datetime | None
    result: Mapping[str, Any] | None
    items: int
    pieces_done: int
    pieces: int
    rejected: int
    expected_items: int | None
    moved_at: datetime | None
    id: str


@dataclass(frozen=True, slots=True)
class AlertSeen:
    """An alert of the monitor: its key, whether it is open, since and until when, how often, one line."""

    key: str
    is_open: bool
    opened_at: datetime
    closed_at: datetime | None
    times: int
    summary: str


@dataclass(frozen=True, slots=True)
class DiscrepanciesSeen:
    """Open discrepancies of one class by one finder: how many keys, how often seen, and when last."""

    kind: str
    finder: str
    keys: int
    times: int
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class WindowSeen:
    """What was counted in a stretch of time, under which stage and dials."""

    began_at: datetime
    ended_at: datetime
    stage: str
    read_percent: float
    mirror_percent: float
    shadow_percent: float
    figures: Figures


class PostgresScreens:
    """What screens read; tables by their physical names, but for alerts.

    Every method raises `Unavailable` where PostgreSQL does not answer in time, and `SchemaError` where the
    `dualstore` schema is older than this version.

    Args:
        engine: an engine with the psycopg driver.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def runs(self, table: str, *, limit: int = 5) -> Sequence[RunSeen]:
        """The last runs of a table, the latest first."""
        with self._reading() as cursor:
            rows = cursor.execute(_RUNS, {"table": table, "limit": limit}).fetchall()
        return [RunSeen(kind, RunState(state), *rest) for kind, state, *rest in rows]

    def alerts(self, table: str, *, since: datetime, limit: int = 100) -> Sequence[AlertSeen]:
        """The open alerts of a table (logical name), and those opened since a moment; the latest first."""
        with self._reading() as cursor:
            rows = cursor.execute(_ALERTS, {"table": table, "since": since, "limit": limit}).fetchall()
        return [AlertSeen(*row) for row in rows]

    def discrepancies(self, table: str) -> Sequence[DiscrepanciesSeen]:
        """The open discrepancies, counted by class and finder."""
        with self._reading() as cursor:
            rows = cursor.execute(_DISCREPANCIES, {"table": table}).fetchall()
        return [DiscrepanciesSeen(*row) for row in rows]

    def quarantined(self, table: str) -> int:
        """How many items a backfill has put aside, still."""
        with self._reading() as cursor:
            ((count,),) = cursor.execute(_QUARANTINED, {"table": table}).fetchall()
        return int(count)

    def windows(self, table: str, *, since: datetime) -> Sequence[WindowSeen]:
        """Everything that was counted since a moment, in order; older hours are one window for each step."""
        with self._reading() as cursor:
            cursor.execute(_WINDOWS, {"table": table, "since": since})
            return [
                WindowSeen(began, ended, stage, read, mirror, shadow, Figures.from_json(figures))
                for began, ended, stage, read, mirror, shadow, figures in cursor
            ]

    @contextmanager
    def _reading(self) -> Iterator[Cursor]:
        try:
            with transaction(self._engine, "Reading for a screen", patience=_PATIENCE) as cursor:
                yield cursor
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.InvalidSchemaName,
        ):
            raise SchemaError(
                "the `dualstore` schema is missing or older: run `dualstore schema upgrade`"
            ) from None
