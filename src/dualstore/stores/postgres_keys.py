"""Keys of a mapped table that are chosen by PostgreSQL: at random, or for having changed lately."""

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql
from sqlalchemy import Engine

from dualstore.items import Key, key_bytes
from dualstore.mapping import REVISION_COLUMN, STAMP_COLUMN, Mapped, TableMapping
from dualstore.stores.key_bytes import key_from_bytes
from dualstore.stores.postgres_staging import composed
from dualstore.stores.postgres_transaction import transaction

# Of a look at all rows of a table, and of what is done with each page meanwhile.
_PATIENCE = timedelta(hours=12)
_PAGE_ROWS = 1000
_LINE_POINTERS = 291  # of a page of 8 KB at most (MaxHeapTuplesPerPage)
_SLOTS_AT_ONCE = 5000
_FRUITLESS_DRAWS = 20


class PostgresKeys:
    """Chooses keys among the rows of one table.

    Args:
        engine: an engine with the psycopg driver.
        mapping: the table.
    """

    def __init__(self, engine: Engine, mapping: Mapped) -> None:
        self._engine = engine
        self._mapping = mapping
        self._table = mapping.shape.name

    def sample(self, count: int, *, chance: random.Random | None = None) -> list[Key]:
        """Keys of rows drawn at random, each row as likely as any other.

        A place in the table's file is drawn, and drawn again where no row stands there: so no row is favoured
        by its neighbours, as `TABLESAMPLE SYSTEM` would, and the table is not read whole.

        Args:
            count: how many keys; fewer where the table has hardly any rows.
            chance: where chance comes from; None: the system's.
        """
        draw = chance or random.SystemRandom()
        found: dict[tuple[int, str], Key] = {}
        parts = [(place, part, self._blocks(part)) for place, part in enumerate(self._mapping.parts)]
        blocks = sum(each for _, _, each in parts)
        fruitless = 0
        while blocks and len(found) < count and fruitless < _FRUITLESS_DRAWS:
            before = len(found)
            slots = [
                (draw.randrange(blocks), draw.randrange(1, _LINE_POINTERS + 1)) for _ in range(_SLOTS_AT_ONCE)
            ]
            first = 0
            for place, part, size in parts:
                mine = [f"({b - first},{o})" for b, o in slots if first <= b < first + size]
                first += size
                for ctid, key in self._rows_at(part, mine):
                    if len(found) < count:
                        found[place, ctid] = key
            fruitless = fruitless + 1 if len(found) == before else 0
        return list(found.values())

    def changed_since(self, since: int | datetime) -> Iterator[Sequence[Key]]:
        """The keys written since a revision, or since a moment, deletions among them.

        Args:
            since: a revision (`dualstore_revision`); or a moment, which stamps tell of where dualstore has
                given them (they are UUIDs of version 7) and deletions always.
        """
        for part in self._mapping.parts:
            yield from self._pages(part, since)
        if isinstance(since, int):
            statement, value = "revision >= %s", since
        else:
            statement, value = "deleted_at >= %s", since  # type: ignore[assignment]
        doing = f"Reading the deletions of {self._table}"
        with (
            transaction(self._engine, doing, patience=_PATIENCE) as cursor,
            cursor.connection.cursor("dualstore_deleted") as reading,
        ):
            reading.execute(
                composed(f"SELECT key FROM dualstore.tombstones WHERE table_name = %s AND {statement}"),
                [self._table, value],
            )
            while rows := reading.fetchmany(_PAGE_ROWS):
                yield [key_from_bytes(self._mapping.shape.keys, bytes(key)) for (key,) in rows]

    def deleted_at(self, keys: Sequence[Key]) -> dict[bytes, datetime]:
        """When keys were deleted, of those that have a tombstone, by `items.key_bytes`."""
        named = [key_bytes(self._mapping.shape.keys, key) for key in keys]
        with transaction(self._engine, f"Reading the deletions of {self._table}") as cursor:
            cursor.execute(
                "SELECT key, deleted_at FROM dualstore.tombstones WHERE table_name = %s AND key = ANY(%s)",
                [self._table, named],
            )
            return {bytes(key): moment for key, moment in cursor}

    def _pages(self, part: TableMapping, since: int | datetime) -> Iterator[Sequence[Key]]:
        if isinstance(since, int):
            column, value = sql.Identifier(REVISION_COLUMN), sql.Literal(since)
        else:
            milliseconds = int(since.timestamp() * 1000)
            column, value = sql.Identifier(STAMP_COLUMN), sql.Literal(milliseconds.to_bytes(6, "big"))
        statement = sql.SQL("SELECT {} FROM {} t WHERE {} >= {}").format(
            _keys(part), _table(part), column, value
        )
        doing = f"Reading the changed rows of {self._table}"
        with (
            transaction(self._engine, doing, patience=_PATIENCE) as cursor,
            cursor.connection.cursor("dualstore_changed") as reading,
        ):
            reading.execute(statement)
            while rows := reading.fetchmany(_PAGE_ROWS):
                yield [_decoded(part, row) for row in rows]

    def _blocks(self, part: TableMapping) -> int:
        with transaction(self._engine, f"Measuring {self._table}") as cursor:
            cursor.execute(
                "SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::bigint",
                [_table(part).as_string(None)],
            )
            (blocks,) = cursor.fetchone() or (0,)
        return int(blocks)

    def _rows_at(self, part: TableMapping, slots: Sequence[str]) -> Iterator[tuple[str, Key]]:
        if not slots:
            return
        statement = sql.SQL("SELECT {}, t.ctid::text FROM {} t WHERE t.ctid = ANY(%s::tid[])").format(
            _keys(part), _table(part)
        )
        with transaction(self._engine, f"Drawing rows of {self._table}") as cursor:
            for row in cursor.execute(statement, [list(slots)]).fetchall():
                yield row[-1], _decoded(part, row)


def _table(part: TableMapping) -> sql.Identifier:
    return sql.Identifier(*filter(None, (part.table.schema, part.table.name)))


def _keys(part: TableMapping) -> sql.Composed:
    read = part.read_expressions("t")[: len(part.key_columns)]
    return sql.SQL(", ").join(map(composed, read))


def _decoded(part: TableMapping, row: Sequence[Any]) -> Key:
    return {
        column.attribute: column.decode(value) for column, value in zip(part.key_columns, row, strict=False)
    }
