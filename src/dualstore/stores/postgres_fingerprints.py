"""Both sides of a table as fingerprints: taken piece by piece, and equal where their sums are.

The rows of a piece come as `COPY … TO STDOUT` of some blocks of the SQL table's file, and their fingerprints
are taken beside those of the items. Where the sums of both sides agree, the sides hold the same rows: no join
is needed. Where they do not, PostgreSQL joins the fingerprints, and what stands alone on either side is read
once more, to learn its key. What a key is then called is somebody else's verdict.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.items import Key
from dualstore.mapping import Mapped
from dualstore.mapping.transcoding import Rejected, Transcoded, Unreadable, read_line
from dualstore.mapping.transcoding.fingerprints import Fingerprints, Taken, has_fingerprints
from dualstore.stores.comparison_sql import scanning
from dualstore.stores.ledger import PieceRow, PieceState, TakenOver
from dualstore.stores.postgres_comparison import Compared, Marked, decoded, note
from dualstore.stores.postgres_copy_out import copy_out
from dualstore.stores.postgres_keys import PostgresKeys
from dualstore.stores.postgres_runs import checkpoint
from dualstore.stores.postgres_transaction import Cursor, transaction

ROWS = "rows"
"""The member of a piece's description that says that it is of rows, not of items."""

# How PostgreSQL writes moments and binary must not depend on who asks.
_SETTINGS = (
    "SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true),"
    " set_config('bytea_output', 'hex', true), set_config('client_encoding', 'UTF8', true)"
)
_JOIN_SETTINGS = "SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true)"
# Of the rows of one batch, which may have large values beside the table's file.
_BATCH_PATIENCE = timedelta(minutes=9)
_PATIENCE = timedelta(hours=12)
_BATCH_BYTES = 16 * 1024 * 1024
_MOST_PIECES = 16
_MOST_BATCHES_OF_A_PIECE = 16

_SEE = (
    "INSERT INTO dualstore.verify_seen"
    " (run_id, place, piece, position, of_rows, first, second, sum_first, sum_second)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
# Sums are of 64 bits: they wrap around. A difference of zero by chance takes both halves at once.
_SUMS_AGREE = (
    "SELECT coalesce(bool_and(count = 0 AND mod(first, 18446744073709551616) = 0"
    " AND mod(second, 18446744073709551616) = 0), true) FROM (SELECT"
    " sum(CASE WHEN of_rows THEN -cardinality(first) ELSE cardinality(first) END) AS count,"
    " sum(CASE WHEN of_rows THEN -sum_first::numeric ELSE sum_first END) AS first,"
    " sum(CASE WHEN of_rows THEN -sum_second::numeric ELSE sum_second END) AS second"
    " FROM dualstore.verify_seen WHERE run_id = %s GROUP BY place) AS of_place"
)
_ONE_SIDE = (
    "(SELECT id, unnest(first) AS first, unnest(second) AS second FROM dualstore.verify_seen"
    " WHERE run_id = %(run)s AND place = %(place)s AND "
)
# Duplicates count: a pair that stands twice on one side stands alone once on it.
_MARK = (
    "UPDATE dualstore.verify_seen AS seen SET differs = true,"
    " unmatched_first = alone.firsts, unmatched_second = alone.seconds FROM ("
    " SELECT coalesce(items.id, rows.id) AS id, array_agg(coalesce(items.first, rows.first)) AS firsts,"
    " array_agg(coalesce(items.second, rows.second)) AS seconds"
    f" FROM {_ONE_SIDE} NOT of_rows) AS items FULL JOIN {_ONE_SIDE} of_rows) AS rows"
    " ON items.first = rows.first AND items.second = rows.second"
    " WHERE items.id IS NULL OR rows.id IS NULL GROUP BY 1) AS alone WHERE seen.id = alone.id"
)
_MARKED = (
    "SELECT id, piece, place, position, of_rows FROM dualstore.verify_seen"
    " WHERE run_id = %s AND differs ORDER BY piece, id"
)


@dataclass(frozen=True, slots=True)
class MarkedFingerprints(Marked):
    """A batch with fingerprints that stand alone.

    Attributes:
        of_rows: whether it is of rows; else it is of items.
    """

    of_rows: bool = False


@dataclass(frozen=True, slots=True)
class _Array:
    """`bigint[]` as PostgreSQL takes it in binary."""

    content: bytes


class _ArrayDumper(Dumper):
    format = Format.BINARY
    oid = 1016  # bigint[]

    def dump(self, obj: _Array) -> Buffer | None:
        return obj.content


class PostgresFingerprints:
    """Takes the fingerprints of both sides of one DynamoDB table, and finds what differs by them.

    Args:
        engine: an engine with the psycopg driver.
        mapping: the table; `kinds_of` knows an answer for each of its parts.
        batch_bytes: about how much of the SQL table one transaction reads.
    """

    def __init__(self, engine: Engine, mapping: Mapped, *, batch_bytes: int = _BATCH_BYTES) -> None:
        self._engine = engine
        self._mapping = mapping
        self._table = mapping.shape.name
        self._batch_bytes = batch_bytes

    def pieces(self) -> list[Mapping[str, Any]]:
        """Plan the pieces of the rows as they stand now: blocks of the SQL tables' files.

        The last piece of each table goes on to its end, however long that is by then.
        """
        planned: list[Mapping[str, Any]] = []
        for place, part in enumerate(self._mapping.parts):
            with transaction(self._engine, f"Measuring {self._table}") as cursor:
                row = cursor.execute(scanning(part).size).fetchone()
            blocks, size_bytes = (0, 0) if row is None else (int(row[0]), int(row[1]))
            batch = max(1, min(blocks, blocks * self._batch_bytes // max(size_bytes, 1)))
            piece = max(batch, min(-(-blocks // _MOST_PIECES), batch * _MOST_BATCHES_OF_A_PIECE))
            starts = list(range(0, max(blocks, 1), piece))
            planned += [
                {ROWS: {"place": place, "start": start, "end": start + piece, "batch": batch, "open": False}}
                for start in starts
            ]
            planned[-1][ROWS]["open"] = True
        return planned

    def take_items(
        self,
        piece: PieceRow,
        blocks: Iterable[tuple[int, Transcoded]],
        *,
        key: bytes,
        position: Mapping[str, Any] | None,
        lease: timedelta,
    ) -> Compared:
        """Take the fingerprints of a batch of items, and move the piece's checkpoint past it.

        Items that the transcoder declines are candidates at once.

        Raises:
            TakenOver: somebody else has claimed the piece since; nothing was noted.
            Unavailable: see `PostgresComparison.compare`.
        """
        taking: dict[int, Fingerprints] = {}
        items = size_bytes = 0
        keys: list[Key] = []
        rejected: list[Rejected] = []
        for place, block in blocks:
            if place not in taking:
                taking[place] = Fingerprints(self._mapping.parts[place], key)
            taking[place].add(block.text)
            items += block.rows + len(block.declined)
            size_bytes += block.json_bytes
            self._read_declined(block, keys, rejected)
        done = replace(
            piece,
            state=PieceState.COPIED if position is None else PieceState.COPYING,
            cursor={"position": None if position is None else dict(position)},
            items=piece.items + items,
            size_bytes=piece.size_bytes + size_bytes,
            rejected=piece.rejected + len(rejected),
        )
        with transaction(self._engine, f"Noting fingerprints of items of {self._table}") as cursor:
            for place, each in taking.items():
                _see(cursor, piece, place, each.take(), of_rows=False)
            noted = note(cursor, self._mapping.shape.keys, piece.run_id, piece.number, keys)
            done = replace(done, settled=piece.settled + noted)
            _advance(cursor, done, lease)
        return Compared(done, noted, rejected)

    def take_rows(self, piece: PieceRow, *, key: bytes, lease: timedelta) -> Compared:
        """Take the fingerprints of the next rows of a piece of rows, and move its checkpoint past them.

        Raises:
            TakenOver: somebody else has claimed the piece since; nothing was noted.
            Unavailable: see `PostgresComparison.compare`.
        """
        described = (piece.description or {})[ROWS]
        before = piece.cursor or {}
        first = (before.get("position") or {}).get("block", described["start"])
        last, is_last = _end_of_batch(described, first)
        part = self._mapping.parts[described["place"]]
        fingerprints = Fingerprints(part, key)
        doing = f"Taking fingerprints of the rows of {self._table}"
        with transaction(self._engine, doing, patience=_BATCH_PATIENCE) as cursor:
            cursor.execute(_SETTINGS)
            copy_out(cursor.connection, scanning(part).lines(first, last), fingerprints.add)
            taken = fingerprints.take()
            _see(cursor, piece, described["place"], taken, of_rows=True)
            done = replace(
                piece,
                state=PieceState.COPIED if is_last else PieceState.COPYING,
                cursor={
                    "position": None if is_last else {"block": last},
                    ROWS: before.get(ROWS, 0) + taken.count,
                },
            )
            _advance(cursor, done, lease)
        return Compared(done, 0, ())

    def agree(self, run_id: UUID) -> bool:
        """Whether both sides have the same fingerprints, each as often, in each SQL table."""
        with transaction(self._engine, f"Adding up the fingerprints of {self._table}") as cursor:
            row = cursor.execute(_SUMS_AGREE, [run_id]).fetchone()
        return row is not None and bool(row[0])

    def mark(self, run_id: UUID) -> None:
        """Mark the batches with fingerprints that stand alone. It can be done again after an interruption."""
        doing = f"Joining the fingerprints of {self._table}"
        with transaction(self._engine, doing, patience=_PATIENCE) as cursor:
            cursor.execute(_JOIN_SETTINGS)
            for place in range(len(self._mapping.parts)):
                cursor.execute(_MARK, {"run": run_id, "place": place})

    def marked(self, run_id: UUID) -> Sequence[MarkedFingerprints]:
        """The marked batches that have not been looked at again."""
        with transaction(self._engine, f"Reading the batches of run {run_id}") as cursor:
            return [MarkedFingerprints(*row) for row in cursor.execute(_MARKED, [run_id])]

    def look_again_at_items(
        self,
        run_id: UUID,
        marked: MarkedFingerprints,
        blocks: Iterable[tuple[int, Transcoded]],
        *,
        key: bytes,
    ) -> None:
        """Note the keys of the items of a batch whose fingerprints stand alone, and unmark it."""
        part = self._mapping.parts[marked.place]
        fingerprints = Fingerprints(part, key)
        with transaction(self._engine, f"Noting items of {self._table} without an equal row") as cursor:
            alone, keys = _alone(cursor, marked), []
            for place, block in blocks:
                if place != marked.place:
                    continue
                fingerprints.add(block.text)
                pairs = fingerprints.take().pairs()
                if alone.isdisjoint(pairs):
                    continue
                keys += [
                    part.shape.keys.key_of(read_line(part.shape, line))
                    for pair, (_, line) in zip(pairs, block.pairs(), strict=True)
                    if pair in alone
                ]
            note(cursor, self._mapping.shape.keys, run_id, marked.piece, keys)
            _unmark(cursor, marked)

    def look_again_at_rows(
        self, run_id: UUID, marked: MarkedFingerprints, described: Mapping[str, Any], *, key: bytes
    ) -> None:
        """Note the keys of the rows of a batch whose fingerprints stand alone, and unmark it.

        Rows that have changed since are not found again: see `note_changed_since`.
        """
        part = self._mapping.parts[marked.place]
        fingerprints = Fingerprints(part, key, also=1)
        first = (marked.position or {}).get("block", described["start"])
        last, _ = _end_of_batch(described, first)
        doing = f"Noting rows of {self._table} without an equal item"
        with transaction(self._engine, doing, patience=_BATCH_PATIENCE) as cursor:
            # A row is to stand where it stood when its key is read.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute(_SETTINGS)
            alone, places = _alone(cursor, marked), []

            def take(line: memoryview) -> None:
                places.append(bytes(line).partition(b"\t")[0].decode())
                fingerprints.add(line)

            copy_out(cursor.connection, scanning(part).lines(first, last, placed=True), take)
            pairs = fingerprints.take().pairs()
            found = [place for place, pair in zip(places, pairs, strict=True) if pair in alone]
            rows = cursor.execute(scanning(part).keys_at, [found]).fetchall()
            note(cursor, self._mapping.shape.keys, run_id, None, [decoded(part, row) for row in rows])
            _unmark(cursor, marked)

    def draw_revision(self) -> int:
        """A revision: whatever is written from now on has a greater one."""
        with transaction(self._engine, f"Drawing a revision for {self._table}") as cursor:
            (revision,) = cursor.execute("SELECT nextval('dualstore.revision')").fetchone() or (0,)
        return int(revision)

    def note_changed_since(self, run_id: UUID, revision: int) -> None:
        """Note the keys that were written since a revision, deletions among them."""
        for keys in PostgresKeys(self._engine, self._mapping).changed_since(revision):
            with transaction(self._engine, f"Noting keys of {self._table} that have changed") as cursor:
                note(cursor, self._mapping.shape.keys, run_id, None, keys)

    def _read_declined(self, block: Transcoded, keys: list[Key], rejected: list[Rejected]) -> None:
        shape = self._mapping.shape
        for line in block.declined_lines():
            try:
                keys.append(shape.keys.key_of(read_line(shape, line)))
            except Unreadable as unreadable:
                rejected.append(Rejected(unreadable.reason, unreadable.detail, line))


def fingerprints_of(engine: Engine, mapping: Mapped) -> PostgresFingerprints | None:
    """What takes the fingerprints of a table, where the accelerator is there and knows all its columns."""
    return PostgresFingerprints(engine, mapping) if has_fingerprints(mapping) else None


def _end_of_batch(described: Mapping[str, Any], first: int) -> tuple[int | None, bool]:
    """The block behind a batch of rows, None for the table's end; and whether the piece ends with it."""
    last = first + described["batch"]
    if last < described["end"]:
        return last, False
    return None if described["open"] else described["end"], True


def _see(cursor: Cursor, piece: PieceRow, place: int, taken: Taken, *, of_rows: bool) -> None:
    if not taken.count:
        return
    cursor.adapters.register_dumper(_Array, _ArrayDumper)
    position = (piece.cursor or {}).get("position")
    cursor.execute(
        _SEE,
        [
            *(piece.run_id, place, piece.number, None if position is None else Jsonb(position), of_rows),
            *(_Array(taken.first), _Array(taken.second), *taken.sums),
        ],
    )


def _advance(cursor: Cursor, piece: PieceRow, lease: timedelta) -> None:
    if not checkpoint(cursor, piece, lease=lease):
        raise TakenOver(
            f"Piece {piece.number} of run {piece.run_id} was taken over by another worker, or its run ended"
        )


def _alone(cursor: Cursor, marked: Marked) -> set[tuple[int, int]]:
    statement = "SELECT unmatched_first, unmatched_second FROM dualstore.verify_seen WHERE id = %s"
    first, second = cursor.execute(statement, [marked.id]).fetchone() or ([], [])
    return set(zip(first, second, strict=True))


def _unmark(cursor: Cursor, marked: Marked) -> None:
    cursor.execute("UPDATE dualstore.verify_seen SET differs = false WHERE id = %s", [marked.id])
