"""Which rows of a SQL table are not among the keys that were seen elsewhere: staged keys, one anti-join."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from sqlalchemy import Engine

from dualstore.items import Key
from dualstore.mapping import Mapped, TableMapping, Unfit
from dualstore.stores.hashing_sql import exactly
from dualstore.stores.postgres import deadlines
from dualstore.stores.postgres_staging import composed
from dualstore.stores.postgres_transaction import session

_PAGE_KEYS = 1000
# Reading all of a large table takes minutes; no answer for hours is a fault.
_PATIENCE = timedelta(hours=2)


class PostgresSeenKeys:
    """A temporary table of the keys seen on the other side; a context manager, safe to share by threads.

    The keys are kept in the SQL key columns' own types, so that PostgreSQL compares what it holds. They
    live in one session's temporary table: nothing is left behind, whatever happens to this process.

    Args:
        engine: an engine with the psycopg driver; not through a pooler that splits sessions.
        mapping: the table.
    """

    def __init__(self, engine: Engine, mapping: Mapped) -> None:
        self._engine = engine
        self._mapping = mapping
        self._sql = _Statements(mapping)
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def __enter__(self) -> Self:
        doing = f"Verifying the rows of {self._mapping.shape.name}"
        self._connection = self._stack.enter_context(session(self._engine, doing))
        self._connection.execute(self._sql.create)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection = None
        self._stack.__exit__(kind, error, traceback)

    def add(self, keys: Sequence[Key]) -> None:
        """Note that these keys were seen.

        A key that no row can hold is left out: there is no row to find for it.
        """
        types = [column.codec.pg_type for column in self._mapping.key_columns]
        rows = [row for row in map(self._row, keys) if row is not None]
        with (
            self._lock,
            deadlines.Deadline(_PATIENCE),
            self._open.cursor() as cursor,
            cursor.copy(self._sql.copy) as copy,
        ):
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)

    def row_count(self) -> int:
        """How many rows the SQL table holds now."""
        with self._lock, deadlines.Deadline(_PATIENCE):
            row = self._open.execute(self._sql.count).fetchone()
        return 0 if row is None else int(row[0])

    def unseen(self) -> Iterator[Sequence[Key]]:
        """The keys of the rows that were not seen, as of now, in pages of bounded size.

        PostgreSQL works the answer out at once and keeps it on its own disk, so that no transaction stays
        open while the caller looks into the keys.
        """
        with self._lock, deadlines.Deadline(_PATIENCE):
            self._open.execute(self._sql.analyze)
            cursor = self._open.cursor("dualstore_unseen", withhold=True)
            cursor.execute(self._sql.unseen)
        with cursor:
            while True:
                with self._lock, deadlines.Deadline(_PATIENCE):
                    rows = cursor.fetchmany(_PAGE_KEYS)
                if not rows:
                    return
                yield [self._key(row) for row in rows]

    @property
    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None:
            raise RuntimeError("PostgresSeenKeys is a context manager: use it inside `with`")
        return self._connection

    def _row(self, key: Key) -> tuple[Any, ...] | None:
        try:
            return self._mapping.encode_key(key)
        except Unfit:
            return None

    def _key(self, row: Sequence[Any]) -> Key:
        columns = self._mapping.key_columns
        return {column.attribute: column.decode(each) for column, each in zip(columns, row, strict=True)}


class _Statements:
    """The SQL of comparing one table's keys, composed once."""

    def __init__(self, mapping: Mapped) -> None:
        seen = sql.Identifier("pg_temp", "dualstore_seen")
        # Under names of our own: the key's columns may have others in each SQL table.
        places = [sql.Identifier(f"k{number}") for number in range(len(mapping.key_columns))]
        parts = [_named(part) for part in mapping.parts]
        keys = sql.SQL(", ").join(places)
        self.create = sql.SQL(
            "CREATE TEMPORARY TABLE dualstore_seen ({}) AS SELECT {staged} FROM {table} {}"
        ).format(keys, sql.SQL("WITH NO DATA"), **parts[0])
        self.copy = sql.SQL("COPY {} ({}) FROM STDIN").format(seen, keys)
        counts = (sql.SQL("(SELECT count(*) FROM {table})").format(**part) for part in parts)
        self.count = sql.SQL("SELECT {}").format(sql.SQL(" + ").join(counts))
        # The planner knows nothing of a temporary table that nobody has analysed.
        self.analyze = sql.SQL("ANALYZE {}").format(seen)
        self.unseen = sql.SQL(" UNION ALL ").join(
            sql.SQL(
                "SELECT {read} FROM {table} t WHERE NOT EXISTS (SELECT FROM {seen} s WHERE {same})"
            ).format(
                seen=seen,
                same=sql.SQL(" AND ").join(
                    sql.SQL("{} = {}").format(
                        exactly(column, sql.SQL("s.{}").format(place)),
                        exactly(column, sql.Identifier("t", column.name)),
                    )
                    for place, column in zip(places, part.key_columns, strict=True)
                ),
                **names,
            )
            for part, names in zip(mapping.parts, parts, strict=True)
        )


def _named(part: TableMapping) -> dict[str, sql.Composable]:
    """What statements call one SQL table and its key."""
    keys = part.key_columns
    return {
        "table": sql.Identifier(*filter(None, (part.table.schema, part.table.name))),
        # In the mapping's types: the SQL table's may round or cut a key as they have done with the row's.
        "staged": sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Identifier(column.name), composed(column.cast)) for column in keys
        ),
        "read": sql.SQL(", ").join(map(composed, part.read_expressions("t")[: len(keys)])),
    }
