"""The ledger of runs (backfill, verify) and their pieces, as rows of the `dualstore` schema."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore import schema
from dualstore.errors import ConfigurationError
from dualstore.stores.ledger import (
    PieceRow,
    PieceState,
    Pulse,
    Run,
    RunState,
    TakenOver,
    Totals,
    Wish,
    WorkerSeen,
)
from dualstore.stores.postgres_transaction import Cursor, explained, session, transaction

__all__ = [
    "PieceRow",
    "PieceState",
    "PostgresRuns",
    "Pulse",
    "Run",
    "RunState",
    "TakenOver",
    "Totals",
    "Wish",
    "WorkerSeen",
    "checkpoint",
]

# How long a run waits for another run of the same kind to let go of the table: a killed process's
# session ends only when the server notices.
_EXCLUSIVE_WAIT = "5s"

_RUN_FIELDS = "id, kind, table_name, state, parameters, phase, wish, wish_by, wish_reason, started_at"
_RUN = f"SELECT {_RUN_FIELDS} FROM dualstore.runs"
_PIECE_FIELDS = (
    "run_id, piece, attempts, state, cursor, items, inserted, settled, bytes,"
    " rejected, read_units, failures, description, seconds, rate, worker, error"
)
_FENCED = (
    " WHERE run_id = %(run)s AND piece = %(piece)s AND attempts = %(attempt)s"
    # A worker that outlives its run may hold a page that writes have passed by since.
    " AND EXISTS (SELECT FROM dualstore.runs WHERE id = run_id AND runs.state = 'running')"
)
_CLAIMED = (
    "attempts = attempts + 1, worker = %(worker)s, updated_at = clock_timestamp(),"
    " lease_until = clock_timestamp() + %(lease)s::interval, not_before = NULL,"
    " state = CASE state WHEN 'pending' THEN 'copying' ELSE state END"
)
_CLAIM = (
    f"UPDATE dualstore.run_pieces SET {_CLAIMED} WHERE run_id = %(run)s AND piece = %(piece)s"
    f" RETURNING {_PIECE_FIELDS}"
)
_RECLAIM = f"UPDATE dualstore.run_pieces SET {_CLAIMED}{_FENCED} RETURNING {_PIECE_FIELDS}"
# The run is looked at first: its row is not locked, and who asks it to pause has only to commit.
_CLAIM_NEXT = (
    f"UPDATE dualstore.run_pieces SET {_CLAIMED} WHERE (run_id, piece) = ("
    " SELECT run_id, piece FROM dualstore.run_pieces"
    " WHERE run_id = %(run)s AND shared AND state IN ('pending', 'copying')"
    # Who asks holds none: what is his by the ledger, he was never told of.
    " AND (lease_until IS NULL OR lease_until < clock_timestamp() OR worker = %(worker)s)"
    " AND (not_before IS NULL OR not_before < clock_timestamp())"
    " AND (%(only)s::int IS NULL OR piece = %(only)s)"
    # A key that is settled before its item is loaded may leave nothing behind that keeps the item out.
    " AND ((description -> 'catch_up') IS DISTINCT FROM 'true' OR NOT EXISTS ("
    " SELECT FROM dualstore.run_pieces AS first WHERE first.run_id = %(run)s AND first.shared"
    " AND first.state IN ('pending', 'copying')"
    " AND (first.description -> 'catch_up') IS DISTINCT FROM 'true'))"
    " AND EXISTS (SELECT FROM dualstore.runs WHERE id = %(run)s AND state = 'running' AND wish = 'go')"
    " ORDER BY failures, piece LIMIT 1 FOR UPDATE SKIP LOCKED"
    f") RETURNING {_PIECE_FIELDS}"
)
_FAIL = (
    "UPDATE dualstore.run_pieces SET failures = failures + 1, error = %(error)s, lease_until = NULL,"
    " not_before = clock_timestamp() + %(backoff)s::interval, rate = 0, updated_at = clock_timestamp(),"
    f" state = CASE WHEN failures + 1 >= %(attempts)s THEN 'failed' ELSE state END{_FENCED} RETURNING state"
)
_PULSE = (
    f"SELECT {_RUN_FIELDS}, workers, items, rejected, unfinished FROM dualstore.runs, LATERAL ("
    " SELECT count(DISTINCT worker) FILTER (WHERE lease_until > clock_timestamp()) AS workers,"
    " coalesce(sum(items) FILTER (WHERE shared), 0)::bigint AS items,"
    " coalesce(sum(rejected), 0)::bigint AS rejected,"
    " count(*) FILTER (WHERE shared AND run_pieces.state IN ('pending', 'copying')) AS unfinished"
    " FROM dualstore.run_pieces WHERE run_id = runs.id) AS pieces WHERE id = %s"
)
_TOTALS = (
    f"SELECT {_RUN_FIELDS}, count, done, failed, items, inserted, bytes, read_units, own, settled, rejected,"
    " workers, extract(epoch FROM coalesce(finished_at, clock_timestamp()) - started_at)::float8"
    " FROM dualstore.runs, LATERAL ("
    " SELECT count(*) FILTER (WHERE shared) AS count,"
    " count(*) FILTER (WHERE shared AND p.state IN ('copied', 'done')) AS done,"
    " count(*) FILTER (WHERE shared AND p.state = 'failed') AS failed,"
    " coalesce(sum(items) FILTER (WHERE shared), 0)::bigint AS items,"
    " coalesce(sum(inserted), 0)::bigint AS inserted,"
    " coalesce(sum(bytes) FILTER (WHERE shared), 0)::bigint AS bytes,"
    " coalesce(sum(read_units), 0) AS read_units,"
    " coalesce(sum(items) FILTER (WHERE NOT shared), 0)::bigint AS own,"
    " coalesce(sum(settled), 0)::bigint AS settled, coalesce(sum(rejected), 0)::bigint AS rejected,"
    " coalesce(jsonb_agg(jsonb_build_array(worker, piece, items, rate, error) ORDER BY worker, piece)"
    " FILTER (WHERE shared AND lease_until > clock_timestamp()"
    " AND p.state IN ('pending', 'copying')), '[]') AS workers"
    " FROM dualstore.run_pieces p WHERE run_id = runs.id) AS pieces WHERE id = %s"
)


class PostgresRuns:
    """The runs that the `dualstore` schema of a database knows.

    Several processes, on several machines, work on the pieces of one run. Whoever claims a piece holds it for
    the length of a lease, which every checkpoint renews. A lease is no fence: that is the number of the
    claim, which every write of the piece checks, so that one who comes back after his lease writes nothing.

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

    def start(
        self,
        kind: str,
        table: str,
        parameters: Mapping[str, Any],
        *,
        planned: Sequence[Mapping[str, Any]] = (),
        pieces: int = 0,
    ) -> Run:
        """Record a new run and its pieces.

        Args:
            kind: of the run.
            table: the physical DynamoDB name.
            parameters: what a process needs in order to join it; no secret.
            planned: the descriptions of the pieces that anybody may claim, numbered from 0. Those with a
                member `catch_up` that is true are claimed once all others are copied or given up.
            pieces: how many more there are, numbered after them, that only `claim` takes.
        """
        run = Run(uuid4(), kind, table, RunState.RUNNING, dict(parameters))
        with transaction(self._engine, f"Starting a {kind} of table {table}") as cursor:
            cursor.execute(
                "INSERT INTO dualstore.runs (id, kind, table_name, state, parameters, started_at)"
                " VALUES (%s, %s, %s, %s, %s, clock_timestamp())",
                [run.id, kind, table, run.state, Jsonb(run.parameters)],
            )
            cursor.execute(
                "INSERT INTO dualstore.run_pieces (run_id, piece, state, description, shared)"
                " SELECT %s, number - 1, %s, description, true"
                " FROM jsonb_array_elements(%s) WITH ORDINALITY AS planned (description, number)",
                [run.id, PieceState.PENDING, Jsonb([dict(each) for each in planned])],
            )
            cursor.execute(
                "INSERT INTO dualstore.run_pieces (run_id, piece, state)"
                " SELECT %s, number, %s FROM generate_series(%s::int, %s::int) AS number",
                [run.id, PieceState.PENDING, len(planned), len(planned) + pieces - 1],
            )
        return run

    def find(self, run_id: UUID) -> Run | None:
        """The run of this id, or None."""
        return self._run(f"{_RUN} WHERE id = %s", [run_id])

    def latest(self, kind: str, table: str) -> Run | None:
        """The latest run of this kind and table, or None."""
        return self._run(
            f"{_RUN} WHERE kind = %s AND table_name = %s ORDER BY started_at DESC LIMIT 1", [kind, table]
        )

    def latest_unfinished(self, kind: str, table: str, *, engine: str | None = None) -> Run | None:
        """The latest run of this kind and table that has not come to an end, or None.

        Args:
            kind: of the run.
            table: the physical DynamoDB name.
            engine: what carries it out, by its parameter `engine`; None: whatever does.
        """
        return self._run(
            f"{_RUN} WHERE kind = %s AND table_name = %s AND state = %s"
            " AND (%s::text IS NULL OR parameters ->> 'engine' = %s) ORDER BY started_at DESC LIMIT 1",
            [kind, table, RunState.RUNNING, engine, engine],
        )

    def first_start(self, kind: str, table: str, *, epoch: int | None) -> datetime | None:
        """When the first run of this kind and table began under an epoch of dual writes, or None."""
        with transaction(self._engine, f"Looking for the first {kind} of table {table}") as cursor:
            cursor.execute(
                "SELECT min(started_at) FROM dualstore.runs WHERE kind = %s AND table_name = %s"
                " AND (parameters ->> 'epoch')::bigint = %s::bigint",
                [kind, table, epoch],
            )
            row = cursor.fetchone()
        return None if row is None else row[0]

    def set_phase(self, run_id: UUID, phase: str) -> None:
        """Record what a run is doing now."""
        with transaction(self._engine, f"Noting the phase of run {run_id}") as cursor:
            cursor.execute("UPDATE dualstore.runs SET phase = %s WHERE id = %s", [phase, run_id])

    def set_parameters(self, run_id: UUID, changes: Mapping[str, Any]) -> None:
        """Change parameters of a run that is under way; its workers see them at their next pulse."""
        with transaction(self._engine, f"Changing parameters of run {run_id}") as cursor:
            cursor.execute(
                "UPDATE dualstore.runs SET parameters = parameters || %s WHERE id = %s AND state = %s",
                [Jsonb(dict(changes)), run_id, RunState.RUNNING],
            )

    def ask(self, run_id: UUID, wish: Wish, *, by: str, reason: str = "") -> bool:
        """Ask something of a run; whether it is still under way.

        Args:
            run_id: the run.
            wish: its workers see it at their next pulse.
            by: who asks, for those who find it paused.
            reason: why; no item's value.
        """
        with transaction(self._engine, f"Asking run {run_id} to {wish}") as cursor:
            cursor.execute(
                "UPDATE dualstore.runs SET wish = %s, wish_by = %s, wish_reason = %s"
                " WHERE id = %s AND state = %s",
                [wish, by, reason or None, run_id, RunState.RUNNING],
            )
            return cursor.rowcount == 1

    def finish(self, run: Run, state: RunState, result: Mapping[str, Any]) -> bool:
        """Record how a run ended, unless it has ended already; whether it had not."""
        with transaction(self._engine, f"Finishing run {run.id}") as cursor:
            cursor.execute(
                "UPDATE dualstore.runs SET state = %s, result = %s, finished_at = clock_timestamp()"
                " WHERE id = %s AND state = %s",
                [state, Jsonb(dict(result)), run.id, RunState.RUNNING],
            )
            return cursor.rowcount == 1

    def pieces(self, run: Run) -> Sequence[PieceRow]:
        """The pieces of a run, in order."""
        with transaction(self._engine, f"Reading the pieces of run {run.id}") as cursor:
            cursor.execute(
                f"SELECT {_PIECE_FIELDS} FROM dualstore.run_pieces WHERE run_id = %s ORDER BY piece", [run.id]
            )
            return [_piece(row) for row in cursor]

    def failed_pieces(self, run: Run) -> Sequence[PieceRow]:
        """The pieces of a run that are given up, in order."""
        return [piece for piece in self.pieces(run) if piece.state is PieceState.FAILED]

    def pulse(self, run_id: UUID) -> Pulse:
        """What is asked of a run, and how many are at work on it, in one round trip."""
        with transaction(self._engine, f"Looking after run {run_id}") as cursor:
            row = _found(cursor.execute(_PULSE, [run_id]).fetchone(), run_id)
        return Pulse(_run(row[:10]), *row[10:])

    def totals(self, run_id: UUID) -> Totals:
        """The sum of a run's pieces, and who works on them."""
        with transaction(self._engine, f"Adding up run {run_id}") as cursor:
            row = _found(cursor.execute(_TOTALS, [run_id]).fetchone(), run_id)
        *sums, workers, seconds = row[10:]
        seen = tuple(WorkerSeen(*each) for each in workers)
        return Totals(*(_run(row[:10]), *sums, seen, seconds))  # pyright: ignore[reportCallIssue] - the columns of _TOTALS

    def claim(
        self, run_id: UUID, number: int, *, worker: str | None = None, lease: timedelta = timedelta(0)
    ) -> PieceRow:
        """Take a certain piece over from whoever had it, and learn where it stands.

        Waits for a checkpoint of the former holder that is being committed; any later one of his fails.
        """
        values = {"run": run_id, "piece": number, "worker": worker, "lease": lease}
        with transaction(self._engine, f"Claiming piece {number} of run {run_id}") as cursor:
            row = cursor.execute(_CLAIM, values).fetchone()
        if row is None:
            raise ConfigurationError(
                f"Run {run_id} has no piece {number}: was its row deleted? Start a new run"
            )
        return _piece(row)

    def reclaim(self, piece: PieceRow, *, lease: timedelta) -> PieceRow:
        """Claim a piece again after something failed, to learn where it stands.

        Raises:
            TakenOver: it is not this claim's any more.
        """
        values = _fence(piece) | {"worker": piece.worker, "lease": lease}
        with transaction(self._engine, f"Claiming piece {piece.number} of run {piece.run_id}") as cursor:
            row = cursor.execute(_RECLAIM, values).fetchone()
        if row is None:
            raise _taken_over(piece)
        return _piece(row)

    def claim_next(
        self, run_id: UUID, *, worker: str, lease: timedelta, only: int | None = None
    ) -> PieceRow | None:
        """Take the next piece that is free: untouched, given back, or held under a lease that has run out.

        Args:
            run_id: the run.
            worker: who takes it.
            lease: how long it is his without a checkpoint.
            only: the piece of this number; None: any.

        Returns:
            The piece; None where none is free now, the run has ended, or it is asked to pause or halt.
        """
        values = {"run": run_id, "worker": worker, "lease": lease, "only": only}
        with transaction(self._engine, f"Claiming a piece of run {run_id}") as cursor:
            row = cursor.execute(_CLAIM_NEXT, values).fetchone()
        return None if row is None else _piece(row)

    def is_unfinished(self, run_id: UUID, number: int) -> bool:
        """Whether a shared piece still has to be copied, whoever holds it."""
        with transaction(self._engine, f"Looking at piece {number} of run {run_id}") as cursor:
            cursor.execute(
                "SELECT FROM dualstore.run_pieces WHERE run_id = %s AND piece = %s AND shared"
                " AND state IN ('pending', 'copying')",
                [run_id, number],
            )
            return cursor.fetchone() is not None

    def renew(self, piece: PieceRow, *, lease: timedelta) -> None:
        """Hold a piece for longer.

        Raises:
            TakenOver: it is not this claim's any more.
        """
        self._fenced(piece, "lease_until = clock_timestamp() + %(lease)s::interval", lease=lease)

    def release(self, piece: PieceRow) -> None:
        """Give a piece back where it stands: nothing failed."""
        self._fenced(piece, "lease_until = NULL, rate = 0")

    def forsake(self, run_id: UUID, *, worker: str) -> None:
        """Let others have what a worker holds that is known to be dead."""
        with transaction(self._engine, f"Giving back the pieces of a dead worker of run {run_id}") as cursor:
            cursor.execute(
                "UPDATE dualstore.run_pieces SET lease_until = NULL, rate = 0"
                " WHERE run_id = %s AND worker = %s AND lease_until IS NOT NULL",
                [run_id, worker],
            )

    def fail(self, piece: PieceRow, error: str, *, attempts: int, backoff: timedelta) -> PieceState:
        """Give a piece back because of an error; it goes on from its last checkpoint.

        Args:
            piece: as it was claimed.
            error: what happened; holds no item's value.
            attempts: the number of failures in a row with which it is given up.
            backoff: how long nobody takes it.

        Returns:
            `FAILED` where it is given up; else the state that it keeps.

        Raises:
            TakenOver: it is not this claim's any more.
        """
        values = _fence(piece) | {"error": error, "attempts": attempts, "backoff": backoff}
        with transaction(self._engine, f"Noting a failure of run {piece.run_id}") as cursor:
            row = cursor.execute(_FAIL, values).fetchone()
        if row is None:
            raise _taken_over(piece)
        return PieceState(row[0])

    def note_error(self, piece: PieceRow, error: str) -> None:
        """Record why a worker left a piece unfinished; the text holds no item's value."""
        with transaction(self._engine, f"Noting an error of run {piece.run_id}") as cursor:
            cursor.execute(
                "UPDATE dualstore.run_pieces SET error = %s, updated_at = clock_timestamp()"
                " WHERE run_id = %s AND piece = %s",
                [error, piece.run_id, piece.number],
            )

    def done(self, run: Run) -> None:
        """Record that every piece of a run that is copied has passed to done."""
        with transaction(self._engine, f"Closing run {run.id}") as cursor:
            cursor.execute(
                "UPDATE dualstore.run_pieces SET state = %s, error = NULL, updated_at = clock_timestamp()"
                " WHERE run_id = %s AND state = %s",
                [PieceState.DONE, run.id, PieceState.COPIED],
            )

    def _fenced(self, piece: PieceRow, changes: LiteralString, **values: Any) -> None:
        with transaction(self._engine, f"Holding piece {piece.number} of run {piece.run_id}") as cursor:
            cursor.execute(
                f"UPDATE dualstore.run_pieces SET {changes}, updated_at = clock_timestamp(){_FENCED}",
                _fence(piece) | values,
            )
            if cursor.rowcount != 1:
                raise _taken_over(piece)

    def _run(self, query: LiteralString, parameters: Sequence[Any]) -> Run | None:
        with transaction(self._engine, "Looking for a run") as cursor:
            row = cursor.execute(query, parameters).fetchone()
        return None if row is None else _run(row)


_CHECKPOINT = (
    "UPDATE dualstore.run_pieces SET state = %(state)s, cursor = %(cursor)s, items = %(items)s,"
    " inserted = %(inserted)s, settled = %(settled)s, bytes = %(bytes)s, rejected = %(rejected)s,"
    " read_units = %(read_units)s, seconds = %(seconds)s, rate = %(rate)s, error = NULL, failures = 0,"
    " lease_until = CASE WHEN %(ended)s THEN NULL ELSE clock_timestamp() + %(lease)s::interval END,"
    " transaction_id = pg_current_xact_id()::text::bigint, updated_at = clock_timestamp()"
    f"{_FENCED}"
)


def checkpoint(
    cursor: Cursor,
    piece: PieceRow,
    *,
    lease: timedelta = timedelta(0),
    guard: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> bool:
    """Write where a piece stands, in a transaction of the caller's, and hold it for longer.

    Args:
        cursor: the transaction's.
        piece: all that its row is to say; its failures are forgotten, since it has got on.
        lease: how long it is still its holder's without another checkpoint.
        guard: a query of one row where it may be written.
        values: the guard's parameters.

    Returns:
        False where it is not this claim's any more, its run has ended, or the guard is in the way: nothing
        was written, and nothing of the transaction may be.
    """
    cursor.execute(
        _CHECKPOINT + ("" if guard is None else f" AND EXISTS ({guard})"),  # pyright: ignore[reportArgumentType] - a constant
        dict(values or {})
        | _fence(piece)
        | {
            "state": piece.state,
            "cursor": Jsonb(dict(piece.cursor or {})),
            "items": piece.items,
            "inserted": piece.inserted,
            "settled": piece.settled,
            "bytes": piece.size_bytes,
            "rejected": piece.rejected,
            "read_units": piece.read_units,
            "seconds": piece.seconds,
            "rate": piece.rate,
            "ended": piece.state is PieceState.COPIED,
            "lease": lease,
        },
    )
    return cursor.rowcount == 1


def _fence(piece: PieceRow) -> dict[str, Any]:
    return {"run": piece.run_id, "piece": piece.number, "attempt": piece.attempt}


def _taken_over(piece: PieceRow) -> TakenOver:
    return TakenOver(
        f"Piece {piece.number} of run {piece.run_id} was taken over by another worker, or its run ended"
    )


def _found(row: tuple[Any, ...] | None, run_id: UUID) -> tuple[Any, ...]:
    if row is None:
        raise ConfigurationError(f"There is no run {run_id}: was its row deleted? Start a new run")
    return row


def _run(row: Sequence[Any]) -> Run:
    run_id, kind, table, state, parameters, phase, wish, *rest = row
    return Run(run_id, kind, table, RunState(state), dict(parameters or {}), phase, Wish(wish), *rest)


def _piece(row: Sequence[Any]) -> PieceRow:
    run_id, number, attempt, state, *rest = row
    return PieceRow(run_id, number, attempt, PieceState(state), *rest)
