"""The control records and the register of processes in PostgreSQL, and the fence that its rows are.

A record decides while PostgreSQL is the authority. While DynamoDB is, the row is a copy, and all the same the
fence: every write to the mapped table looks in its own statement for the epoch and the role that stand here.
Each call is one statement in autocommit, so one round trip.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.control import ControlRecord, FailedOver, Gate, Phase, PostgresRole, ProcessEntry, Stop
from dualstore.errors import Unavailable
from dualstore.stages import Dials, Side, Stage
from dualstore.stores.postgres.exchanges import Row
from dualstore.stores.postgres.faults import unavailable
from dualstore.stores.postgres.sessions import Session, Sessions

_PATIENCE = timedelta(seconds=5)
_BEFORE_ANY_RECORD = -1

_COLUMNS: Mapping[str, str] = {
    "table_name": "text",
    "epoch": "bigint",
    "stage": "text",
    "read_percent": "numeric",
    "mirror_percent": "numeric",
    "shadow_percent": "numeric",
    "gate": "text",
    "gate_sequence": "bigint",
    "generation": "bigint",
    "loaded": "boolean",
    "mirrored_since": "bigint",
    "verified": "boolean",
    "suspects": "jsonb",
    "phase": "text",
    "target": "text",
    "deferred": "boolean",
    "streamed": "boolean",
    "stopped": "jsonb",
    "failed_over": "jsonb",
    "role": "text",
}
"""The columns that a record is made of, with their types; the role is made of the others."""

_NAMES = ", ".join(_COLUMNS)
_PLACEHOLDERS = ", ".join(f"${n}::{type_}" for n, type_ in enumerate(_COLUMNS.values(), 1))
_INSERT = f"INSERT INTO dualstore.control AS known ({_NAMES}) VALUES ({_PLACEHOLDERS})"
_SEEN_GENERATION, _SEEN_PHASE = f"${len(_COLUMNS) + 1}::bigint", f"${len(_COLUMNS) + 2}::text"

_READ_ALL = f"SELECT {_NAMES} FROM dualstore.control"
_CREATE = f"{_INSERT} ON CONFLICT (table_name) DO NOTHING"
# A fence may have been raised since without a new generation.
_CHANGE = (
    f"UPDATE dualstore.control SET ({_NAMES}, updated_at) = ROW({_PLACEHOLDERS}, clock_timestamp()) "
    f"WHERE table_name = $1::text AND epoch <= $2::bigint "
    f"AND generation = {_SEEN_GENERATION} AND phase = {_SEEN_PHASE} RETURNING 1"
)
_SHUT_GATE = (
    "UPDATE dualstore.control SET gate = 'shut', gate_sequence = gate_sequence + 1, "
    "generation = generation + 1, updated_at = clock_timestamp() "
    "WHERE table_name = $1::text AND gate <> 'shut' AND phase <> 'moved'"
)
_COPIED = [name for name in _COLUMNS if name not in {"table_name", "epoch", "role"}]
_INSTALL = (
    f"{_INSERT} ON CONFLICT (table_name) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COPIED)
    + ", epoch = greatest(known.epoch, excluded.epoch), "
    "role = CASE WHEN known.epoch > excluded.epoch THEN known.role ELSE excluded.role END, "
    "updated_at = clock_timestamp() "
    "WHERE known.phase = 'moved' AND known.generation < excluded.generation RETURNING 1"
)
# A record that decides is a fence by itself: its role moves with it, or not at all.
_RAISE = (
    f"{_INSERT} ON CONFLICT (table_name) DO UPDATE "
    "SET epoch = excluded.epoch, role = excluded.role, updated_at = clock_timestamp() "
    "WHERE known.phase = 'moved' AND known.epoch < excluded.epoch"
)
# Whatever stands there is of an earlier epoch, also where it claims to decide. It becomes the copy in all:
# a generation that counted on in a database that nobody heeded any more must not look like a later one.
_OVERRULE = (
    f"{_INSERT} ON CONFLICT (table_name) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in (*_COPIED, "epoch", "role"))
    + ", updated_at = clock_timestamp() WHERE known.epoch < excluded.epoch RETURNING 1"
)

_MARK_STOPPED = (
    "INSERT INTO dualstore.stops (table_name, stopped_by, reason, stopped_at) "
    "VALUES ($1, $2, $3, to_timestamp($4::float8)) ON CONFLICT (table_name) DO NOTHING"
)
_UNMARK_STOPPED = "DELETE FROM dualstore.stops WHERE table_name = $1"
_STOP_MARKS = (
    "SELECT table_name, stopped_by, extract(epoch FROM stopped_at)::float8, reason FROM dualstore.stops"
)

_IS_PREPARED = "SELECT 1 WHERE to_regclass('dualstore.control') IS NOT NULL"

_PROCESSES = (
    "SELECT id, beat, confirmed, label, extract(epoch FROM seen_at)::float8, version, deferring "
    "FROM dualstore.processes ORDER BY id"
)
_ENTRY = "$2::bigint, $3::jsonb, $4::text, to_timestamp($5::float8), $6::text, $7::jsonb"
_BEAT = (
    "UPDATE dualstore.processes SET (beat, confirmed, label, seen_at, version, deferring) "
    f"= ROW({_ENTRY}) WHERE id = $1::text RETURNING 1"
)
_ENTER = (
    "INSERT INTO dualstore.processes (id, beat, confirmed, label, seen_at, version, deferring) "
    f"VALUES ($1::text, {_ENTRY}) ON CONFLICT (id) DO UPDATE "
    "SET (beat, confirmed, label, seen_at, version, deferring) = ROW(excluded.beat, excluded.confirmed, "
    "excluded.label, excluded.seen_at, excluded.version, excluded.deferring) RETURNING 1"
)
_REMOVE = "DELETE FROM dualstore.processes WHERE id = $1::text AND ($2::bigint IS NULL OR beat = $2::bigint)"


class PostgresControl:
    """A `ControlHome`, `Prepared`, `Fence`, `StopMarks`: on the tables `control`, `processes`, `stops`.

    Every method raises `Unavailable` where PostgreSQL does not answer within five seconds, or lacks the
    bookkeeping schema. A statement whose answer got lost is tried once more.

    Args:
        engine: an engine with the psycopg driver.

    Raises:
        ConfigurationError: the engine has another driver.
    """

    side = Side.POSTGRES

    def __init__(self, engine: Engine) -> None:
        self._sessions = Sessions(engine, statement_timeout=_PATIENCE)

    def read_all(self) -> Mapping[str, ControlRecord]:
        """See `ControlHome.read_all`.

        A table whose fence was raised before any record came has one of generation -1.
        """
        records = map(_record, self._run(_READ_ALL, (), "reading the control records"))
        return {record.table: record for record in records}

    def create(self, table: str) -> None:
        """See `ControlHome.create`."""
        self._run(_CREATE, _values(ControlRecord(table)), f"creating the control record of {table!r}")

    def change(self, seen: ControlRecord, **changes: Any) -> ControlRecord | None:
        """See `ControlHome.change`.

        What PostgreSQL is for the table changes with it, at one moment for all writes.
        """
        if not seen.decides:
            return None
        wanted = seen.changed(**changes)
        values = (*_values(wanted), seen.generation, seen.phase.value)
        changed = self._run(_CHANGE, values, f"changing the control record of {seen.table!r}")
        return wanted if changed else None

    def shut_gate(self, table: str) -> None:
        """See `ControlHome.shut_gate`; a copy is left as it is."""
        self._run(_SHUT_GATE, (table,), f"shutting the gate of {table!r}")

    def install(self, record: ControlRecord) -> bool:
        """See `ControlHome.install`; the fence never goes back to an earlier epoch."""
        doing = f"installing the control record of {record.table!r}"
        return bool(self._run(_INSTALL, _values(record), doing))

    def raise_fence(self, table: str, *, epoch: int, role: PostgresRole) -> None:
        """See `Fence.raise_fence`.

        It stops the statements that begin after it: what is being written at this moment may still be
        committed, as if it had come before.
        """
        fence = ControlRecord(table, generation=_BEFORE_ANY_RECORD, epoch=epoch, phase=Phase.MOVED)
        self._run(_RAISE, _values(fence, role), f"raising the fence of {table!r}")

    def overrule(self, record: ControlRecord) -> bool:
        """See `Fence.overrule`; as for `raise_fence`, what is being written at this moment may still be."""
        copy = replace(record, phase=Phase.MOVED)
        doing = f"telling PostgreSQL that {record.table!r} was failed over"
        return bool(self._run(_OVERRULE, _values(copy), doing))

    def mark_stopped(self, table: str, stop: Stop) -> None:
        """See `StopMarks.mark_stopped`."""
        values = (table, stop.by, stop.reason, stop.at)
        self._run(_MARK_STOPPED, values, f"stopping the reads of {table!r}")

    def unmark_stopped(self, table: str) -> None:
        """See `StopMarks.unmark_stopped`."""
        self._run(_UNMARK_STOPPED, (table,), f"releasing the reads of {table!r}")

    def stop_marks(self) -> Mapping[str, Stop]:
        """See `StopMarks.stop_marks`."""
        rows = self._run(_STOP_MARKS, (), "reading which reads are stopped")
        return {table: Stop(by, at, reason) for table, by, at, reason in rows}

    def is_prepared(self) -> bool:
        """See `Prepared.is_prepared`."""
        return bool(self._run(_IS_PREPARED, (), "looking for the schema dualstore"))

    def processes(self) -> list[ProcessEntry]:
        """See `ControlHome.processes`."""
        return [_process(row) for row in self._run(_PROCESSES, (), "reading the register of processes")]

    def write_process(self, entry: ProcessEntry, *, is_new: bool) -> bool:
        """See `ControlHome.write_process`."""
        values = (
            entry.id,
            entry.beat,
            Jsonb(dict(entry.confirmed)),
            entry.label,
            entry.seen_at,
            entry.version,
            Jsonb(sorted(entry.deferring)),
        )
        return bool(self._run(_ENTER if is_new else _BEAT, values, "writing to the register of processes"))

    def remove_process(self, entry: ProcessEntry, *, if_beat: bool) -> None:
        """See `ControlHome.remove_process`."""
        beat = entry.beat if if_beat else None
        self._run(_REMOVE, (entry.id, beat), "taking an entry out of the register of processes")

    def _run(self, statement: str, values: Sequence[Any], doing: str) -> list[Row]:
        def work(session: Session) -> list[Row]:
            (rows,) = session.batch((statement, values))
            return rows

        return self._sessions.run(work, doing=doing, explain=_unavailable)


def _unavailable(error: BaseException, doing: str) -> Unavailable:
    return unavailable(error, doing, Unavailable)


def _values(record: ControlRecord, role: PostgresRole | None = None) -> tuple[Any, ...]:
    """A record as values of `_COLUMNS`."""
    dials = record.dials
    return (
        record.table,
        record.epoch,
        record.stage.value,
        _exactly(dials.postgres_read_percent),
        _exactly(dials.mirror_percent),
        _exactly(dials.shadow_percent),
        record.gate.value,
        record.gate_sequence,
        record.generation,
        record.loaded,
        record.mirrored_since,
        record.verified,
        Jsonb(sorted(record.suspects)),
        record.phase.value,
        None if record.target is None else record.target.value,
        record.deferred,
        record.streamed,
        None if record.stopped is None else Jsonb(asdict(record.stopped)),
        None if record.failed_over is None else Jsonb(asdict(record.failed_over)),
        (role or record.postgres_role).value,
    )


def _exactly(percent: float | None) -> Decimal | None:
    return None if percent is None else Decimal(str(percent))


def _record(row: Row) -> ControlRecord:
    column = dict(zip(_COLUMNS, row, strict=True))
    shadow, target = column["shadow_percent"], column["target"]
    return ControlRecord(
        table=column["table_name"],
        stage=Stage(column["stage"]),
        dials=Dials(
            postgres_read_percent=float(column["read_percent"]),
            mirror_percent=float(column["mirror_percent"]),
            shadow_percent=None if shadow is None else float(shadow),
        ),
        gate=Gate(column["gate"]),
        gate_sequence=column["gate_sequence"],
        generation=column["generation"],
        loaded=column["loaded"],
        mirrored_since=column["mirrored_since"],
        verified=column["verified"],
        suspects=frozenset(column["suspects"]),
        epoch=column["epoch"],
        phase=Phase(column["phase"]),
        target=None if target is None else Stage(target),
        deferred=column["deferred"],
        streamed=column["streamed"],
        stopped=None if column["stopped"] is None else Stop(**column["stopped"]),
        failed_over=None if column["failed_over"] is None else FailedOver(**column["failed_over"]),
    )


def _process(row: Row) -> ProcessEntry:
    id_, beat, confirmed, label, seen_at, version, deferring = row
    return ProcessEntry(
        id=id_,
        beat=beat,
        confirmed=confirmed,
        label=label,
        seen_at=seen_at,
        version=version,
        deferring=frozenset(deferring),
    )
