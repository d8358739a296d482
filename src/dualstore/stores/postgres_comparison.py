"""Items of the other side beside the rows of PostgreSQL: staged, joined, and compared by PostgreSQL itself.

A batch of items is copied into a temporary table and joined with the rows of its keys. PostgreSQL's own
equality says which are equal; whatever it does not find equal is a candidate, which somebody looks at again.
Which keys have been seen is kept as hashes, so that the rows without an item can be found afterwards. All of
it is committed with the piece's checkpoint, so that a piece that is gone on with counts nothing twice.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import blake2b, sha256
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.control import PostgresRole
from dualstore.errors import SchemaError
from dualstore.items import Key, KeySchema, key_bytes, key_hash
from dualstore.mapping import Mapped, TableMapping
from dualstore.mapping.transcoding import Rejected, Transcoded, read_line
from dualstore.stores.comparison_sql import comparing, scanning
from dualstore.stores.ledger import PieceRow, PieceState, TakenOver
from dualstore.stores.postgres.column_types import unlike_columns
from dualstore.stores.postgres.faults import Fault, fault_of
from dualstore.stores.postgres.trigger_functions import sql_table
from dualstore.stores.postgres_batch import Batch
from dualstore.stores.postgres_findings import Verdict, note_verdicts
from dualstore.stores.postgres_runs import checkpoint
from dualstore.stores.postgres_transaction import Cursor, explained, transaction

# Hashes are of the bytes that PostgreSQL sends: texts must not depend on who asks.
SETTINGS = (
    "SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true),"
    " set_config('client_encoding', 'UTF8', true)"
)
# A batch costs what its rows cost: without statistics of the staging table the planner may choose to read the
# whole table for it.
_BY_INDEX = "SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"
# Reading all of a large table takes hours; no answer for longer is a fault.
PATIENCE = timedelta(hours=12)
# Of a batch whose rows all have to be fetched from a slow disk, one by one.
_BATCH_PATIENCE = timedelta(minutes=5)
_PAGE_ROWS = 1000

_NOTE = (
    "INSERT INTO dualstore.verify_findings AS f (run_id, digest, key, key_hash, piece)"
    " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (run_id, digest) DO UPDATE SET piece = excluded.piece"
    " WHERE f.piece IS NULL AND excluded.piece IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class Compared:
    """What comparing a batch came to.

    Attributes:
        piece: with its new checkpoint.
        candidates: how many of its keys did not seem equal.
        rejected: its lines that are no items.
    """

    piece: PieceRow
    candidates: int
    rejected: Sequence[Rejected] = field(repr=False)


@dataclass(slots=True)
class Found:
    """What has been found in a batch so far.

    Attributes:
        items: how many there were.
        size_bytes: their size.
        stamps_only: how many differ in their stamps alone.
        keys: of those that did not seem equal.
        rejected: lines that are no items.
    """

    items: int = 0
    size_bytes: int = 0
    stamps_only: int = 0
    keys: list[Key] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


# ALTER TABLE writes a column's row in the catalog anew.
_COLUMNS_NOW = (
    "SELECT array_agg(format('%%s %%s %%s %%s %%s', attname, atttypid, atttypmod, attcollation, xmin)"
    " ORDER BY attnum) FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = ANY(%s)"
)
# The authority moves with a new epoch, there and back.
_FENCE = "SELECT epoch, role FROM dualstore.control WHERE table_name = %s"


class PostgresComparison:
    """Compares the items of one DynamoDB table with the rows of the SQL tables it is mapped to.

    Nothing is written to these tables, and no lock of theirs is held that a writer would wait for.

    Args:
        engine: an engine with the psycopg driver.
        mapping: the table.
    """

    def __init__(self, engine: Engine, mapping: Mapped) -> None:
        self._engine = engine
        self._mapping = mapping
        self._table = mapping.shape.name

    @property
    def engine(self) -> Engine:
        """Where the SQL tables are."""
        return self._engine

    @property
    def mapping(self) -> Mapped:
        """How items become rows."""
        return self._mapping

    @property
    def keys(self) -> KeySchema:
        """The table's key."""
        return self._mapping.shape.keys

    def check(self) -> None:
        """See that items can be compared with the columns as they are.

        A column that is only narrower than the model says is compared as any other: what it has lost is a
        difference.

        Raises:
            SchemaError: a column is of another type, of which PostgreSQL's equality says nothing about items.
            Unavailable: PostgreSQL does not answer.
        """
        with explained(f"Looking at the columns of {self._table}"):
            others = [each for each in unlike_columns(self._engine, self._mapping) if each.is_other_type]
        if others:
            listed = "".join(f"\n- {each}" for each in others)
            raise SchemaError(f"{self._table} cannot be compared with its rows:{listed}")

    def columns(self) -> str:
        """A hash that changes where a mapped column is altered, if only there and back.

        Raises:
            Unavailable: PostgreSQL does not answer.
        """
        tables = [sql_table(part) for part in self._mapping.parts]
        names = [list(part.column_names) for part in self._mapping.parts]
        with transaction(self._engine, f"Looking at the columns of {self._table}") as cursor:
            rows = [
                cursor.execute(_COLUMNS_NOW, [table, columns]).fetchone()
                for table, columns in zip(tables, names, strict=True)
            ]
        return blake2b(repr(rows).encode(), digest_size=16).hexdigest()

    def compare(
        self,
        piece: PieceRow,
        blocks: Iterable[tuple[int, Transcoded]],
        *,
        position: Mapping[str, Any] | None,
        lease: timedelta,
        judged: Callable[[Sequence[Key]], Sequence[Verdict]] | None = None,
    ) -> Compared:
        """Compare a batch with the rows of its keys, and move the piece's checkpoint past it.

        Args:
            piece: the piece, as this worker's claim or its last batch left it.
            blocks: the items as rows, each block with the number of the part of the mapping it belongs to.
            position: where the next batch begins; None where the piece ends with this one.
            lease: how long the piece is this worker's without another checkpoint.
            judged: gives the keys that do not seem equal their verdicts before any of this is committed,
                where that takes the items; else they wait for theirs.

        Raises:
            TakenOver: somebody else has claimed the piece since; nothing was noted.
            Unavailable: nothing was noted, or, where the reply of COMMIT got lost, perhaps all of it: claim
                the piece again and go on from where it stands.
        """
        of_part: dict[int, list[Transcoded]] = {}
        for place, block in blocks:
            of_part.setdefault(place, []).append(block)
        found = Found()
        doing = f"Comparing items of {self._table} with their rows"
        with transaction(self._engine, doing, patience=_BATCH_PATIENCE) as cursor:
            cursor.execute(SETTINGS)
            cursor.execute(_BY_INDEX)
            for place, those in of_part.items():
                part = self._mapping.parts[place]
                if stage(cursor, part, place, those, found):
                    _compare_staged(cursor, part, place, found)
                self._see(cursor, piece, place)
            if judged is None:
                noted = self._note(cursor, piece.run_id, piece.number, found.keys)
            else:
                verdicts = judged(found.keys)
                noted = note_verdicts(cursor, self.keys, piece.run_id, piece.number, verdicts)
            compared = advanced(piece, found, noted, position)
            if not checkpoint(cursor, compared, lease=lease):
                raise TakenOver(
                    f"Piece {piece.number} of run {piece.run_id} was taken over by another worker, or its "
                    "run ended"
                )
        return Compared(compared, noted, found.rejected)

    def row_counts(self) -> Sequence[int]:
        """How many rows each part holds now."""
        with transaction(self._engine, f"Counting the rows of {self._table}", patience=PATIENCE) as cursor:
            return [_count(cursor, scanning(part).count) for part in self._mapping.parts]

    def epoch_under_dynamodb(self) -> int | None:
        """Since which epoch DynamoDB has decided without a break; None where PostgreSQL decides.

        As PostgreSQL itself knows it, which writes accordingly: after a failover it may be behind.
        """
        with transaction(self._engine, f"Reading what PostgreSQL is for {self._table}") as cursor:
            row = cursor.execute(_FENCE, [self._table]).fetchone()
        epoch, role = row or (0, PostgresRole.NONE)
        return None if role in {PostgresRole.AUTHORITY, PostgresRole.PAUSED} else int(epoch)

    def size_bytes(self) -> int:
        """How large the SQL tables are without their indexes; of a partitioned one its largest partition."""
        with transaction(self._engine, f"Measuring {self._table}") as cursor:
            sizes = [cursor.execute(scanning(part).size).fetchone() for part in self._mapping.parts]
        return sum(int(row[1]) for row in sizes if row is not None)

    def note_unseen(self, run_id: UUID) -> None:
        """Note the keys of all rows that no item has been seen for, as candidates.

        It is one statement for each part, which PostgreSQL sorts or hashes on its own disk where it does not
        fit in memory. Noting a key twice is noting it once, so it can be done again after an interruption.
        """
        for place, part in enumerate(self._mapping.parts):
            for rows in self.pages(scanning(part).unseen, {"run": run_id, "place": place}):
                keys = [decoded(part, row) for row in rows]
                with transaction(self._engine, f"Noting rows of {self._table} without an item") as cursor:
                    self._note(cursor, run_id, None, keys)

    def pages(
        self, statement: sql.Composed, parameters: Mapping[str, Any]
    ) -> Iterator[Sequence[tuple[Any, ...]]]:
        """The rows of a query, as of its beginning, in pages of bounded size."""
        doing = f"Reading the keys of the rows of {self._table}"
        with transaction(self._engine, doing, patience=PATIENCE) as cursor:
            cursor.execute(SETTINGS)
            with cursor.connection.cursor("dualstore_rows") as reading:
                reading.execute(statement, parameters or None)
                while rows := reading.fetchmany(_PAGE_ROWS):
                    yield rows

    def tidy(self) -> None:
        """Remove what only runs under way need, of those that have ended."""
        with transaction(self._engine, f"Tidying up after verifications of {self._table}") as cursor:
            cursor.execute(
                "DELETE FROM dualstore.verify_seen USING dualstore.runs WHERE runs.id = run_id"
                " AND runs.table_name = %s AND runs.state <> 'running'",
                [self._table],
            )

    def _see(self, cursor: Cursor, piece: PieceRow, place: int) -> None:
        """Note the hashes of the staged keys, and where they stand, and forget them."""
        statements = comparing(self._mapping.parts[place], place)
        position = (piece.cursor or {}).get("position")
        cursor.execute(
            statements.see_keys,
            {
                "run": piece.run_id,
                "place": place,
                "piece": piece.number,
                "position": None if position is None else Jsonb(position),
            },
        )
        cursor.execute(statements.drop)

    def _note(self, cursor: Cursor, run_id: UUID, piece: int | None, keys: Sequence[Key]) -> int:
        return note(cursor, self.keys, run_id, piece, keys)


def stage(cursor: Cursor, part: TableMapping, place: int, blocks: Iterable[Transcoded], found: Found) -> bool:
    """Stage items of one part in the table that `comparing` names.

    Args:
        cursor: the transaction's.
        part: the part.
        place: its number.
        blocks: the items.
        found: what is known of the batch; counts are added to it.

    Returns:
        False where PostgreSQL refuses a value: it is in no row, so each item of the batch is to be looked at
        by itself. Their keys are found then, and keys alone are staged.
    """
    statements = comparing(part, place)
    batch = Batch(part, blocks=iter(blocks))
    cursor.execute(statements.stage)
    refused = False
    try:
        with cursor.connection.transaction(), cursor.copy(statements.copy) as copy:
            batch.write(copy)
    except psycopg.Error as error:
        if fault_of(error) is not Fault.REFUSED:
            raise
        refused = True
        shape = part.shape
        keys = [shape.keys.key_of(row.item or read_line(shape, row.line or b"")) for row in batch.alone()]
        with cursor.copy(statements.copy_keys) as copy:
            copy.set_types([column.codec.pg_type for column in part.key_columns])
            for key in keys:
                copy.write_row(part.encode_key(key))
        found.keys += keys
    found.rejected += batch.rejected
    found.items += sum(block.rows + len(block.declined) for block in batch.sent)
    found.size_bytes += sum(block.json_bytes for block in batch.sent)
    return not refused


def _compare_staged(cursor: Cursor, part: TableMapping, place: int, found: Found) -> None:
    """Find those of the staged items that differ from their rows."""
    row = cursor.execute(comparing(part, place).compare).fetchone()
    assert row is not None  # noqa: S101 - an aggregate answers one row
    stamps_only, *columns = row
    found.stamps_only += stamps_only
    found.keys += [decoded(part, values) for values in zip(*(each or () for each in columns), strict=True)]


def advanced(piece: PieceRow, found: Found, candidates: int, position: Mapping[str, Any] | None) -> PieceRow:
    """A piece with its checkpoint behind a batch."""
    before: Mapping[str, Any] = piece.cursor or {}
    return replace(
        piece,
        state=PieceState.COPIED if position is None else PieceState.COPYING,
        cursor={
            "position": None if position is None else dict(position),
            "stamps_only": before.get("stamps_only", 0) + found.stamps_only,
        },
        items=piece.items + found.items,
        settled=piece.settled + candidates,
        size_bytes=piece.size_bytes + found.size_bytes,
        rejected=piece.rejected + len(found.rejected),
    )


def note(cursor: Cursor, schema: KeySchema, run_id: UUID, piece: int | None, keys: Sequence[Key]) -> int:
    """Note keys as candidates, in a transaction of the caller's. Noting a key twice is noting it once.

    Args:
        cursor: the transaction's.
        schema: of the keys.
        run_id: the run.
        piece: the piece of items that the keys come from; None where they come from rows.
        keys: the keys.

    Returns:
        How many were new.
    """
    if not keys:
        return 0
    # In one order: several may note the same keys, and would wait for each other for ever.
    cursor.executemany(_NOTE, [(run_id, *each, piece) for each in sorted(named(schema, key) for key in keys)])
    return cursor.rowcount


def named(schema: KeySchema, key: Key) -> tuple[bytes, bytes, str]:
    """What a key is kept by, in three forms: a digest, its bytes, and its hash for people."""
    encoded = key_bytes(schema, key)
    return sha256(encoded).digest(), encoded, key_hash(schema, key)


def decoded(part: TableMapping, row: Sequence[Any]) -> Key:
    """The key whose columns a row begins with."""
    return {
        column.attribute: column.decode(value) for column, value in zip(part.key_columns, row, strict=False)
    }


def _count(cursor: Cursor, statement: Any) -> int:
    row = cursor.execute(statement).fetchone()
    return 0 if row is None else int(row[0])
