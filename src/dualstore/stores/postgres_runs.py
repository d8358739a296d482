"""The ledger of runs (backfill, verify) and their pieces, as rows of the `dualstore` schema."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, LiteralString
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore import schema
from dualstore.errors import ConfigurationError, DualStoreError
from dualstore.stores.postgres_transaction import explained, session, transaction

# How long a run waits for another run of the same kind to let go of the table: a killed process's
# session ends only when the server notices.
_EXCLUSIVE_WAIT = "5s"


class RunState(StrEnum):
    """Where a run stands. A run that was interrupted stays `running` until it is resumed."""

    RUNNING = "running"
    FINISHED = "finished"
    FINISHED_WITH_FAILURES = "finished with failures"
    ABANDONED = "abandoned"


class PieceState(StrEnum):
    """Where a piece of a run stands: all of it is read when it is `copied`, and proven when `done`."""

    PENDING = "pending"
    COPYING = "copying"
    COPIED = "copied"
    DONE = "done"


class TakenOver(DualStoreError):  # noqa: N818 - named for what happened
    """Another worker has claimed the piece since; this one has to stop."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as it was started."""

    id: UUID
    kind: str
    table: str
    state: RunState
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PieceRow:
    """One piece of a run, as its row tells.

    Attributes:
        attempt: which claim of the piece this is; every write of the piece checks it.
        cursor: what the run's kind needs in order to go on; None before the first checkpoint.
    """

    run_id: UUID
    number: int
    attempt: int
    state: PieceState
    cursor: Mapping[str, Any] | None
    items: int
    inserted: int
    settled: int
    size_bytes: int


_RUN = "SELECT id, kind, table_name, state, parameters FROM dualstore.runs"
_PIECE_FIELDS = "run_id, piece, attempts, state, cursor, items, inserted, settled, bytes"


class PostgresRuns:
    """The runs that the `dualstore` schema of a database knows.

    Args:
        engine: an engine with the psycopg driver.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def check(self) -> None:
        """See that the bookkeeping schema is there.

        Raises:
            SchemaError: it is missing, or not of this version.
            Unavailable: PostgreSQL could not be reached.
        """
        with explained("Checking the dualstore schema"):
            schema.require_current(self._engine)

    @contextmanager
    def exclusive(self, kind: str, table: str) -> Iterator[None]:
        """Keep other runs of this kind away from the table, for as long as this session lives.

        Losing the session in the middle does no harm: every write of a piece checks its claim.

        Raises:
            Unavailable: another run of this kind works on the table.
        """
        doing = f"{kind} of table {table}: taking the table (another {kind} of it may be at work)"
        with session(self._engine, doing) as connection:
            connection.execute("SELECT set_config('lock_timeout', %s, false)", [_EXCLUSIVE_WAIT])
            connection.execute(
                "SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"dualstore {kind} {table}"]
            )
            yield

    def start(self, kind: str, table: str, parameters: Mapping[str, Any], *, pieces: int = 0) -> Run:
        """Record a new run and its pieces."""
        run = Run(uuid4(), kind, table, RunState.RUNNING, dict(parameters))
        with transaction(self._engine, f"Starting a {kind} of table {table}") as cursor:
            cursor.execute(
                "INSERT INTO dualstore.runs (id, kind, table_name, state, parameters, started_at)"
                " VALUES (%s, %s, %s, %s, %s, clock_timestamp())",
                [run.id, kind, table, run.state, Jsonb(run.parameters)],
            )
            cursor.execute(
                "INSERT INTO dualstore.run_pieces"
                " (run_id, piece, state, items, inserted, settled, bytes, attempts, updated_at)"
                " SELECT %s, number, %s, 0, 0, 0, 0, 0, clock_timestamp()"
                " FROM generate_series(0, %s - 1) AS number",
                [run.id, PieceState.PENDING, pieces],
            )
        return run

    def find(self, run_id: UUID) -> Run | None:
        """The run of this id, or None."""
        return self._run(f"{_RUN} WHERE id = %s", [run_id])

    def latest_unfinished(self, kind: str, table: str) -> Run | None:
        """The latest run of this kind and table that has not come to an end, or None."""
        return self._run(
            f"{_RUN} WHERE kind = %s AND table_name = %s AND state = %s ORDER BY started_at DESC LIMIT 1",
            [kind, table, RunState.RUNNING],
        )

    def finish(self, run: Run, state: RunState, result: Mapping[str, Any]) -> None:
        """Record how a run ended."""
        with transaction(self._engine, f"Finishing run {run.id}") as cursor:
            cursor.execute(
                "UPDATE dualstore.runs SET state = %s, result = %s, finished_at = clock_timestamp()"
                " WHERE id = %s",
                [state, Jsonb(dict(result)), run.id],
            )

    def pieces(self, run: Run) -> Sequence[PieceRow]:
        """The pieces of a run, in order."""
        with transaction(self._engine, f"Reading the pieces of run {run.id}") as cursor:
            cursor.execute(
                f"SELECT {_PIECE_FIELDS} FROM dualstore.run_pieces WHERE run_id = %s ORDER BY piece", [run.id]
            )
            return [_piece(row) for row in cursor]

    def claim(self, run_id: UUID, number: int) -> PieceRow:
        """Take a piece over from whoever had it, and learn where it stands.

        Waits for a checkpoint of the former holder that is being committed; any later one of his fails.
        """
        with transaction(self._engine, f"Claiming piece {number} of run {run_id}") as cursor:
            cursor.execute(
                "UPDATE dualstore.run_pieces SET attempts = attempts + 1, updated_at = clock_timestamp(),"
                " state = CASE state WHEN %s THEN %s ELSE state END"
                f" WHERE run_id = %s AND piece = %s RETURNING {_PIECE_FIELDS}",
                [PieceState.PENDING, PieceState.COPYING, run_id, number],
            )
            row = cursor.fetchone()
        if row is None:
            raise ConfigurationError(
                f"Run {run_id} has no piece {number}: was its row deleted? Start a new run"
            )
        return _piece(row)

    def note_error(self, piece: PieceRow, error: str) -> None:
        """Record why a worker left a piece unfinished; the text holds no item's value."""
        with transaction(self._engine, f"Noting an error of run {piece.run_id}") as cursor:
            cursor.execute(
                "UPDATE dualstore.run_pieces SET error = %s, updated_at = clock_timestamp()"
                " WHERE run_id = %s AND piece = %s",
                [error, piece.run_id, piece.number],
            )

    def done(self, run: Run) -> None:
        """Record that every piece of a run has passed from copied to done."""
        with transaction(self._engine, f"Closing run {run.id}") as cursor:
            cursor.execute(
                "UPDATE dualstore.run_pieces SET state = %s, error = NULL, updated_at = clock_timestamp()"
                " WHERE run_id = %s AND state = %s",
                [PieceState.DONE, run.id, PieceState.COPIED],
            )

    def _run(self, query: LiteralString, parameters: Sequence[Any]) -> Run | None:
        with transaction(self._engine, "Looking for a run") as cursor:
            cursor.execute(query, parameters)
            row = cursor.fetchone()
        if row is None:
            return None
        run_id, kind, table, state, parameters = row
        return Run(run_id, kind, table, RunState(state), dict(parameters or {}))


def _piece(row: Sequence[Any]) -> PieceRow:
    run_id, number, attempt, state, *rest = row
    return PieceRow(run_id, number, attempt, PieceState(state), *rest)
