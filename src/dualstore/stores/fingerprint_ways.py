"""Two ways of taking the same kind of thing, 128 bits for a row: outside PostgreSQL and inside.

Both note the fingerprints of a batch in its order, with their sums, and both tell later which of some items
and rows have certain ones. What they answer cannot be compared with each other: a run is of one way.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

from psycopg import sql
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format
from psycopg.types.json import Jsonb

from dualstore.items import Key
from dualstore.mapping import Mapped
from dualstore.mapping.codecs import POSTGRESQL
from dualstore.mapping.transcoding import Rejected, Transcoded, Unreadable, read_line
from dualstore.mapping.transcoding.fingerprints import Fingerprints, Taken, has_fingerprints
from dualstore.stores.comparison_sql import comparing, scanning
from dualstore.stores.postgres_comparison import SETTINGS, Found, decoded, stage
from dualstore.stores.postgres_copy_out import copy_out
from dualstore.stores.postgres_transaction import Cursor

_FORM = 3
"""Counts up where the same content gets other fingerprints, or other hashes of its key, than before."""

Pair = tuple[int, int]
"""Both halves of a fingerprint."""

# How PostgreSQL writes moments, floats and binary must not depend on who asks.
_WRITING = (
    "SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true),"
    " set_config('extra_float_digits', '1', true),"
    " set_config('bytea_output', 'hex', true), set_config('client_encoding', 'UTF8', true)"
)
_SEE = (
    "INSERT INTO dualstore.verify_seen"
    " (run_id, place, piece, position, of_rows, first, second, sum_first, sum_second)"
    " VALUES (%(run)s, %(place)s, %(piece)s, %(position)s, %(of_rows)s, %(first)s, %(second)s, %(sum_first)s,"
    " %(sum_second)s)"
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Where a batch stands whose fingerprints are noted.

    Attributes:
        run_id: the run.
        place: the part of the mapping.
        piece: the piece it is of.
        position: where it begins in the piece.
        of_rows: whether it is of rows; else it is of items.
    """

    run_id: UUID
    place: int
    piece: int
    position: Mapping[str, Any] | None
    of_rows: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        """As statements take it."""
        position = None if self.position is None else Jsonb(dict(self.position))
        return {
            "run": self.run_id,
            "place": self.place,
            "piece": self.piece,
            "position": position,
            "of_rows": self.of_rows,
        }


@dataclass(frozen=True, slots=True)
class Matches:
    """Which of the wanted fingerprints were met.

    Attributes:
        pairs: those.
        keys: of the items or rows that have them.
        refused: whether PostgreSQL takes one of the items in no row: then none was met, and `keys` are all.
    """

    pairs: set[Pair]
    keys: Sequence[Key]
    refused: bool = False


class Way(Protocol):
    """Takes fingerprints. A key of 16 bytes, drawn for each run, is part of all of them."""

    @property
    def name(self) -> str:
        """What a run remembers the way by."""
        ...

    def note_items(
        self, cursor: Cursor, batch: Batch, blocks: Iterable[Transcoded], found: Found, *, key: bytes
    ) -> None:
        """Note the fingerprints of items in their order, and add what else is known of them to `found`.

        Items without a fingerprint are found as keys.
        """
        ...

    def note_rows(self, cursor: Cursor, batch: Batch, where: sql.Composable, *, key: bytes) -> int:
        """Note the fingerprints of rows in their order; how many there were."""
        ...

    def items_among(
        self, cursor: Cursor, place: int, blocks: Iterable[Transcoded], wanted: set[Pair], *, key: bytes
    ) -> Matches:
        """Those of some items that have a wanted fingerprint."""
        ...

    def rows_among(
        self, cursor: Cursor, place: int, where: sql.Composable, wanted: set[Pair], *, key: bytes
    ) -> Matches:
        """Those of some rows that have a wanted fingerprint."""
        ...


class OutsidePostgres:
    """The accelerator takes them, of the lines that dualstore and PostgreSQL write.

    Args:
        mapping: the table; `has_fingerprints` of it.
    """

    name = "accelerator"

    def __init__(self, mapping: Mapped) -> None:
        self._parts = mapping.parts

    def note_items(
        self, cursor: Cursor, batch: Batch, blocks: Iterable[Transcoded], found: Found, *, key: bytes
    ) -> None:
        """See `Way`."""
        part = self._parts[batch.place]
        fingerprints = Fingerprints(part, key)
        for block in blocks:
            fingerprints.add(block.text)
            found.items += block.rows + len(block.declined)
            found.size_bytes += block.json_bytes
            for line in block.declined_lines():
                try:
                    found.keys.append(part.shape.keys.key_of(read_line(part.shape, line)))
                except Unreadable as unreadable:
                    found.rejected.append(Rejected(unreadable.reason, unreadable.detail, line))
        _see(cursor, batch, fingerprints.take())

    def note_rows(self, cursor: Cursor, batch: Batch, where: sql.Composable, *, key: bytes) -> int:
        """See `Way`."""
        part = self._parts[batch.place]
        fingerprints = Fingerprints(part, key)
        cursor.execute(_WRITING)
        copy_out(cursor.connection, scanning(part).lines(where), fingerprints.add)
        taken = fingerprints.take()
        _see(cursor, batch, taken)
        return taken.count

    def items_among(
        self, cursor: Cursor, place: int, blocks: Iterable[Transcoded], wanted: set[Pair], *, key: bytes
    ) -> Matches:
        """See `Way`."""
        del cursor  # PostgreSQL has no part in it
        part, met, keys = self._parts[place], set[Pair](), list[Key]()
        fingerprints = Fingerprints(part, key)
        for block in blocks:
            fingerprints.add(block.text)
            pairs = fingerprints.take().pairs()
            if wanted.isdisjoint(pairs):
                continue
            met.update(wanted.intersection(pairs))
            keys += [
                part.shape.keys.key_of(read_line(part.shape, line))
                for pair, (_, line) in zip(pairs, block.pairs(), strict=True)
                if pair in wanted
            ]
        return Matches(met, keys)

    def rows_among(
        self, cursor: Cursor, place: int, where: sql.Composable, wanted: set[Pair], *, key: bytes
    ) -> Matches:
        """See `Way`."""
        part = self._parts[place]
        fingerprints, places = Fingerprints(part, key, also=1), list[str]()
        cursor.execute(_WRITING)

        def take(line: memoryview) -> None:
            places.append(bytes(line).partition(b"\t")[0].decode())
            fingerprints.add(line)

        copy_out(cursor.connection, scanning(part).lines(where, placed=True), take)
        pairs = fingerprints.take().pairs()
        met = [each for each, pair in zip(places, pairs, strict=True) if pair in wanted]
        rows = cursor.execute(scanning(part).keys_at, [met]).fetchall()
        return Matches(wanted.intersection(pairs), [decoded(part, row) for row in rows])


class InsidePostgres:
    """PostgreSQL takes them, as hashes of its own of rows and of staged items.

    Args:
        mapping: the table.
    """

    name = "postgresql"

    def __init__(self, mapping: Mapped) -> None:
        self._parts = mapping.parts

    def note_items(
        self, cursor: Cursor, batch: Batch, blocks: Iterable[Transcoded], found: Found, *, key: bytes
    ) -> None:
        """See `Way`."""
        part = self._parts[batch.place]
        statements = comparing(part, batch.place)
        cursor.execute(SETTINGS)
        if stage(cursor, part, batch.place, blocks, found):
            cursor.execute(statements.see_rows, batch.parameters | _seeds(key))
        cursor.execute(statements.drop)

    def note_rows(self, cursor: Cursor, batch: Batch, where: sql.Composable, *, key: bytes) -> int:
        """See `Way`."""
        cursor.execute(SETTINGS)
        see = scanning(self._parts[batch.place]).see_rows(where)
        row = cursor.execute(see, batch.parameters | _seeds(key)).fetchone()
        return 0 if row is None else int(row[0])

    def items_among(
        self, cursor: Cursor, place: int, blocks: Iterable[Transcoded], wanted: set[Pair], *, key: bytes
    ) -> Matches:
        """See `Way`."""
        part, found = self._parts[place], Found()
        statements = comparing(part, place)
        cursor.execute(SETTINGS)
        met = Matches(set(), found.keys, refused=True)
        if stage(cursor, part, place, blocks, found):
            met = self._among(cursor, place, statements.among, wanted, key)
        cursor.execute(statements.drop)
        return met

    def rows_among(
        self, cursor: Cursor, place: int, where: sql.Composable, wanted: set[Pair], *, key: bytes
    ) -> Matches:
        """See `Way`."""
        cursor.execute(SETTINGS)
        return self._among(cursor, place, scanning(self._parts[place]).among(where), wanted, key)

    def _among(
        self, cursor: Cursor, place: int, statement: sql.Composed, wanted: set[Pair], key: bytes
    ) -> Matches:
        part = self._parts[place]
        firsts, seconds = ([pair[half] for pair in wanted] for half in (0, 1))
        values = {"firsts": firsts, "seconds": seconds} | _seeds(key)
        rows = cursor.execute(statement, values).fetchall()
        return Matches({(row[-2], row[-1]) for row in rows}, [decoded(part, row) for row in rows])


def ways_of(mapping: Mapped) -> dict[str, Way]:
    """The ways that this process can go for a table, by their names, the best first."""
    outside: list[Way] = [OutsidePostgres(mapping)] if has_fingerprints(mapping) else []
    return {way.name: way for way in (*outside, InsidePostgres(mapping))}


def form_of(mapping: Mapped) -> str:
    """What fingerprints depend on beside contents, as a digest: those of another form are of no use."""
    parts = [
        (
            part.table.fullname,
            [
                (each.attribute, each.name, each.type, each.codec.pg_type, each.cast, each.codec.converted)
                for each in part.columns
            ],
            [each.column.type.compile(dialect=POSTGRESQL) for each in part.columns],
        )
        for part in mapping.parts
    ]
    return sha256(repr((_FORM, parts)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Array:
    """`bigint[]` as PostgreSQL takes it in binary."""

    content: bytes


class _ArrayDumper(Dumper):
    format = Format.BINARY
    oid = 1016  # bigint[]

    def dump(self, obj: _Array) -> Buffer | None:
        return obj.content


def _see(cursor: Cursor, batch: Batch, taken: Taken) -> None:
    if not taken.count:
        return
    cursor.adapters.register_dumper(_Array, _ArrayDumper)
    halves = {"first": _Array(taken.first), "second": _Array(taken.second)}
    sums = dict(zip(("sum_first", "sum_second"), taken.sums, strict=True))
    cursor.execute(_SEE, batch.parameters | halves | sums)


def _seeds(key: bytes) -> dict[str, int]:
    half = len(key) // 2
    return {
        "first_seed": int.from_bytes(key[:half], "big", signed=True),
        "second_seed": int.from_bytes(key[half:], "big", signed=True),
    }
