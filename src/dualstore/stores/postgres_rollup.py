"""The fleet's figures: windows that the processes hand in, added up when somebody reads them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.control import ControlRecord
from dualstore.errors import SchemaError
from dualstore.stages import Dials
from dualstore.stores.postgres_transaction import Cursor, transaction
from dualstore.telemetry.figures import Figures
from dualstore.telemetry.rollup import Step, Window

RETENTION = timedelta(days=30)
FOLDED_AFTER = timedelta(minutes=5)
"""Then windows of the same table, step and hour become one row."""

_PATIENCE = timedelta(seconds=3)
_FOLDED_AT_ONCE = 5_000

# A window that has arrived already is the same one: its process did not get the reply.
_ADD = """
INSERT INTO dualstore.rollup (id, table_name, process, generation, stage, read_percent, mirror_percent,
                              shadow_percent, began_at, ended_at, figures)
VALUES (%(id)s, %(table)s, %(process)s, %(generation)s, %(stage)s, %(read)s, %(mirror)s, %(shadow)s,
        statement_timestamp() - %(began)s, statement_timestamp() - %(ended)s, %(figures)s)
ON CONFLICT (id) DO NOTHING
"""

# Generations count every change of the control record: what stands now has stood since the last window of
# other dials.
_OF_STEP = """
SELECT figures, began_at, ended_at, process FROM dualstore.rollup
 WHERE table_name = %(table)s AND generation > coalesce((
       SELECT max(generation) FROM dualstore.rollup
        WHERE table_name = %(table)s
          AND (stage, read_percent, mirror_percent, shadow_percent)
              IS DISTINCT FROM (%(stage)s::text, %(read)s::numeric, %(mirror)s::numeric, %(shadow)s::numeric)
       ), -1)
"""
_SINCE = """
SELECT figures, began_at, ended_at, process FROM dualstore.rollup
 WHERE table_name = %(table)s AND began_at >= %(since)s
"""
_LATELY = """
SELECT figures, began_at, ended_at, process FROM dualstore.rollup
 WHERE table_name = %(table)s AND ended_at > statement_timestamp() - %(within)s AND process IS NOT NULL
"""

_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('dualstore.rollup', 0))"
# Rows that were folded before are taken up again while windows of their hour still come.
_RIPE = """
SELECT DISTINCT table_name, generation, date_trunc('hour', ended_at) FROM (
    SELECT table_name, generation, ended_at FROM dualstore.rollup
     WHERE process IS NOT NULL AND ended_at < statement_timestamp() - %(ripe)s LIMIT %(rows)s
) AS ripe
"""
_TAKE = """
DELETE FROM dualstore.rollup
 WHERE table_name = %s AND generation = %s AND ended_at >= %s AND ended_at < %s + interval '1 hour'
   AND (process IS NULL OR ended_at < statement_timestamp() - %s)
RETURNING stage, read_percent, mirror_percent, shadow_percent, began_at, ended_at, figures
"""
_PUT_FOLDED = """
INSERT INTO dualstore.rollup (id, table_name, generation, stage, read_percent, mirror_percent, shadow_percent,
                              began_at, ended_at, figures)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_PRUNE = """
DELETE FROM dualstore.rollup WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM dualstore.rollup WHERE ended_at < statement_timestamp() - %(retention)s
    LIMIT %(rows)s FOR UPDATE SKIP LOCKED
))
"""


@dataclass(frozen=True, slots=True)
class Rolled:
    """What several processes counted, added up.

    Attributes:
        figures: the sum.
        began_at: when the first window began; None without any.
        ended_at: when the last one ended; None without any.
        processes: how many processes handed in windows that are not folded yet.
    """

    figures: Figures
    began_at: datetime | None
    ended_at: datetime | None
    processes: int


class PostgresRollup:
    """Keeps windows, and adds them up.

    Args:
        engine: an engine with the psycopg driver.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, windows: Sequence[Window], *, process: str) -> None:
        """Keep the windows of a process, each once, however often it is handed in.

        Raises:
            Unavailable: PostgreSQL could not be reached in time; they may have been kept all the same.
        """
        now = time.monotonic()
        rows = [
            {
                "id": window.id,
                "table": window.table,
                "process": process,
                **_values_of(window.step),
                "generation": window.step.generation,
                "began": timedelta(seconds=now - window.began),
                "ended": timedelta(seconds=now - window.ended),
                "figures": Jsonb(window.figures.to_json()),
            }
            for window in windows
        ]
        with transaction(self._engine, "Recording figures", patience=_PATIENCE) as cursor:
            # Figures are not worth a wait for the disk: what a crash of the server loses is a second of them.
            cursor.execute("SET LOCAL synchronous_commit = off")
            cursor.executemany(_ADD, rows)

    def of_step(self, table: str, step: Step) -> Rolled:
        """What was counted since stage and dials last changed to what they are.

        Args:
            table: the physical name.
            step: where they stand.

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
            SchemaError: the `dualstore` schema is older than this version.
        """
        return self._rolled(_OF_STEP, {"table": table, **_values_of(step)})

    def since(self, table: str, moment: datetime) -> Rolled:
        """What was counted in windows that began at a moment or later, whatever the dials were."""
        return self._rolled(_SINCE, {"table": table, "since": moment})

    def lately(self, table: str, *, within: timedelta) -> Rolled:
        """What was counted in windows that ended lately; at most `FOLDED_AFTER` ago."""
        return self._rolled(_LATELY, {"table": table, "within": within})

    def fold(self, *, older_than: timedelta = FOLDED_AFTER) -> int:
        """Make one row of the windows of each table, generation and hour; how many rows fewer there are.

        One process at a time does it; where another does, nothing is done.
        """
        with transaction(self._engine, "Adding figures up") as cursor:
            ((mine,),) = cursor.execute(_LOCK).fetchall()
            if not mine:
                return 0
            ripe = cursor.execute(_RIPE, {"ripe": older_than, "rows": _FOLDED_AT_ONCE}).fetchall()
            return sum(_fold(cursor, table, generation, hour, older_than) for table, generation, hour in ripe)

    def prune(self, *, older_than: timedelta = RETENTION, rows: int = 1_000) -> int:
        """Remove at most so many rows that are so old; how many."""
        with transaction(self._engine, "Removing old figures") as cursor:
            return cursor.execute(_PRUNE, {"retention": older_than, "rows": rows}).rowcount

    def _rolled(self, statement: str, values: dict[str, Any]) -> Rolled:
        try:
            with transaction(self._engine, "Adding figures up", patience=_PATIENCE) as cursor:
                rows = cursor.execute(statement.encode(), values).fetchall()
        except psycopg.errors.UndefinedTable:
            raise SchemaError(
                "the database has no table dualstore.rollup: run `dualstore schema upgrade`"
            ) from None
        return Rolled(
            figures=Figures.sum(Figures.from_json(figures) for figures, *_ in rows),
            began_at=min((began for _, began, _, _ in rows), default=None),
            ended_at=max((ended for _, _, ended, _ in rows), default=None),
            processes=len({process for *_, process in rows if process is not None}),
        )


def step_of(record: ControlRecord) -> Step:
    """Where a control record puts stage and dials."""
    dials = record.effective_dials
    shadow = dials.effective_shadow_percent(record.stage)
    return Step(
        record.stage,
        Dials(dials.postgres_read_percent, dials.mirror_percent, shadow),
        record.generation,
    )


def _values_of(step: Step) -> dict[str, Any]:
    dials = step.dials
    return {
        "stage": str(step.stage),
        "read": dials.postgres_read_percent,
        "mirror": dials.mirror_percent,
        "shadow": dials.shadow_percent,
    }


def _fold(cursor: Cursor, table: str, generation: int, hour: datetime, ripe: timedelta) -> int:
    taken = cursor.execute(_TAKE, [table, generation, hour, hour, ripe]).fetchall()
    steps = sorted({tuple(row[:4]) for row in taken})
    for step in steps:
        rows = [row for row in taken if tuple(row[:4]) == step]
        figures = Figures.sum(Figures.from_json(row[6]) for row in rows)
        folded = [min(row[4] for row in rows), max(row[5] for row in rows), Jsonb(figures.to_json())]
        cursor.execute(_PUT_FOLDED, [uuid4(), table, generation, *step, *folded])
    return len(taken) - len(steps)
