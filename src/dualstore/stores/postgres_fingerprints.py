"""Both sides of a table as fingerprints: taken piece by piece, and equal where their sums are.

The rows of a piece are some blocks of the SQL table's file, and their fingerprints are taken beside those of
the items. Where the sums of both sides agree, the sides hold the same rows: no join is needed. Where they do
not, see `postgres_unmatched`. What a key is then called is somebody else's verdict.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine

from dualstore.mapping import Mapped
from dualstore.mapping.transcoding import Transcoded
from dualstore.stores.comparison_sql import between, scanning
from dualstore.stores.fingerprint_ways import Batch, InsidePostgres, Way, ways_of
from dualstore.stores.ledger import PieceRow, PieceState, TakenOver
from dualstore.stores.postgres_comparison import Compared, Found, advanced, note
from dualstore.stores.postgres_runs import checkpoint
from dualstore.stores.postgres_transaction import Cursor, transaction
from dualstore.stores.postgres_unmatched import PostgresUnmatched

ROWS = "rows"
"""The member of a piece's description that says that it is of rows, not of items."""

# Of the rows of one batch, which may have large values beside the table's file.
BATCH_PATIENCE = timedelta(minutes=9)
_BATCH_BYTES = 16 * 1024 * 1024
_MOST_PIECES = 16
_MOST_BATCHES_OF_A_PIECE = 16


class PostgresFingerprints:
    """Takes the fingerprints of both sides of one DynamoDB table.

    Args:
        engine: an engine with the psycopg driver.
        mapping: the table.
        way: how they are taken.
        batch_bytes: about how much of the SQL table one transaction reads.
    """

    def __init__(self, engine: Engine, mapping: Mapped, way: Way, *, batch_bytes: int = _BATCH_BYTES) -> None:
        self._engine = engine
        self._mapping = mapping
        self._way = way
        self._table = mapping.shape.name
        self._batch_bytes = batch_bytes

    @property
    def way(self) -> str:
        """The name of the way."""
        return self._way.name

    @property
    def unmatched(self) -> PostgresUnmatched:
        """What finds those without an equal."""
        return PostgresUnmatched(self._engine, self._mapping, self._way)

    def in_way(self, name: str) -> "PostgresFingerprints | None":
        """The same, taken in the way of this name; None where this process cannot."""
        if name == self.way:
            return self
        way = ways_of(self._mapping).get(name)
        if way is None:
            return None
        return PostgresFingerprints(self._engine, self._mapping, way, batch_bytes=self._batch_bytes)

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

        Items that have none are candidates at once.

        Raises:
            TakenOver: somebody else has claimed the piece since; nothing was noted.
            Unavailable: see `PostgresComparison.compare`.
        """
        found, begins = Found(), (piece.cursor or {}).get("position")
        doing = f"Noting fingerprints of items of {self._table}"
        with transaction(self._engine, doing, patience=BATCH_PATIENCE) as cursor:
            for place, those in _of_each_part(blocks, len(self._mapping.parts)):
                batch = Batch(piece.run_id, place, piece.number, begins)
                self._way.note_items(cursor, batch, those, found, key=key)
            noted = note(cursor, self._mapping.shape.keys, piece.run_id, piece.number, found.keys)
            done = advanced(piece, found, noted, position)
            _advance(cursor, done, lease)
        return Compared(done, noted, found.rejected)

    def take_rows(self, piece: PieceRow, *, key: bytes, lease: timedelta) -> Compared:
        """Take the fingerprints of the next rows of a piece of rows, and move its checkpoint past them.

        Raises:
            TakenOver: somebody else has claimed the piece since; nothing was noted.
            Unavailable: see `PostgresComparison.compare`.
        """
        described = (piece.description or {})[ROWS]
        before = piece.cursor or {}
        begins = before.get("position")
        first, last, is_last = bounds_of(described, begins)
        batch = Batch(piece.run_id, described["place"], piece.number, begins, of_rows=True)
        doing = f"Taking fingerprints of the rows of {self._table}"
        with transaction(self._engine, doing, patience=BATCH_PATIENCE) as cursor:
            count = self._way.note_rows(cursor, batch, between(first, last), key=key)
            done = replace(
                piece,
                state=PieceState.COPIED if is_last else PieceState.COPYING,
                cursor={
                    "position": None if is_last else {"block": last},
                    ROWS: before.get(ROWS, 0) + count,
                },
            )
            _advance(cursor, done, lease)
        return Compared(done, 0, ())

    def draw_revision(self) -> int:
        """A revision: whatever is written from now on has a greater one."""
        with transaction(self._engine, f"Drawing a revision for {self._table}") as cursor:
            (revision,) = cursor.execute("SELECT nextval('dualstore.revision')").fetchone() or (0,)
        return int(revision)


def fingerprints_of(engine: Engine, mapping: Mapped) -> PostgresFingerprints:
    """What takes the fingerprints of a table in the best way that this process can go."""
    return PostgresFingerprints(engine, mapping, next(iter(ways_of(mapping).values())))


def hashes_of(engine: Engine, mapping: Mapped) -> PostgresFingerprints:
    """What has PostgreSQL take the fingerprints of a table."""
    return PostgresFingerprints(engine, mapping, InsidePostgres(mapping))


def bounds_of(
    described: Mapping[str, Any], position: Mapping[str, Any] | None
) -> tuple[int, int | None, bool]:
    """A batch of a piece of rows.

    Returns:
        Its first block, the one behind it, None for the table's end; and whether the piece ends with it.
    """
    first = (position or {}).get("block", described["start"])
    last = first + described["batch"]
    if last < described["end"]:
        return first, last, False
    return first, None if described["open"] else described["end"], True


def batches_of(described: Mapping[str, Any]) -> Iterator[tuple[int, tuple[int, int | None]]]:
    """All batches of a piece of rows: its part's place, the first block, and the one behind the last."""
    first: int | None = described["start"]
    is_last = False
    while not is_last:
        begins, ends, is_last = bounds_of(described, {"block": first})
        yield described["place"], (begins, ends)
        first = ends


def _of_each_part(
    blocks: Iterable[tuple[int, Transcoded]], parts: int
) -> Iterable[tuple[int, Iterable[Transcoded]]]:
    """The blocks of each part; of one part alone they are still being made while they are taken."""
    if parts == 1:
        return [(0, (block for _, block in blocks))]
    of_part: dict[int, list[Transcoded]] = {}
    for place, block in blocks:
        of_part.setdefault(place, []).append(block)
    return of_part.items()


def _advance(cursor: Cursor, piece: PieceRow, lease: timedelta) -> None:
    if not checkpoint(cursor, piece, lease=lease):
        raise TakenOver(
            f"Piece {piece.number} of run {piece.run_id} was taken over by another worker, or its run ended"
        )
