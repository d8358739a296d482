"""Loading a page of items into its SQL table: COPY, merge where nothing is, and the checkpoint with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.errors import MirrorFenced, SchemaError, Unavailable
from dualstore.items import Item, Key, item_size_bytes, key_bytes
from dualstore.mapping import TableMapping
from dualstore.stores.key_bytes import key_from_bytes
from dualstore.stores.postgres.faults import Fault, fault_of, unavailable
from dualstore.stores.postgres.statements import passing
from dualstore.stores.postgres_runs import PieceRow, PieceState, RunState, TakenOver
from dualstore.stores.postgres_transaction import Cursor, transaction
from dualstore.stores.postgres_waiting import outlast_readers_and_writers, outlast_writers

_TOMBSTONE_PAGE_KEYS = 1000
_ROW_PAGE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a backfill, a segment or the rows from before it, and how far it has come.

    Attributes:
        row: its row in the ledger.
        start: where the next page begins; None before the first page, and after the last.
        unsettled: keys of the last page to be settled before the piece goes on.
        failed: how many items no SQL row could hold.
    """

    row: PieceRow
    start: Key | None = None
    unsettled: tuple[Key, ...] = ()
    failed: int = 0

    @property
    def read_to_the_end(self) -> bool:
        """Whether the last page has been loaded; keys may still be unsettled."""
        return self.row.state in {PieceState.COPIED, PieceState.DONE}


@dataclass(frozen=True, slots=True)
class RowPage:
    """Some rows of the SQL table, next to each other in the order of its primary key.

    Attributes:
        older: the keys of those that were last written before the revision asked for.
        next_start: the key behind which the next page begins, or None after the last page.
    """

    older: Sequence[Key]
    next_start: Key | None


@dataclass(frozen=True, slots=True)
class _Merged:
    """What became of some items."""

    inserted: int = 0
    unsettled: tuple[Key, ...] = ()
    failed: int = 0

    def __add__(self, other: "_Merged") -> "_Merged":
        return _Merged(
            self.inserted + other.inserted, self.unsettled + other.unsettled, self.failed + other.failed
        )


class PostgresLoad:
    """Loads pages of one DynamoDB table into the SQL table it is mapped to.

    Whatever is already there stays as it is: a row is inserted only where there is neither row nor
    tombstone (DESIGN, replication protocol, rule 4). And nothing is written where PostgreSQL is not the
    mirror of the table at the epoch of this load (rule 8).

    Args:
        engine: an engine with the psycopg driver.
        mapping: the table.
        epoch: of the control record in force when dual writes were confirmed.
    """

    def __init__(self, engine: Engine, mapping: TableMapping, *, epoch: int) -> None:
        self._engine = engine
        self._mapping = mapping
        self._epoch = epoch
        self._keys = mapping.shape.keys
        self._table = mapping.shape.name
        self._sql = _Statements(mapping)
        self._table_sql = self._sql.table.as_string(None)

    def check(self) -> None:
        """See that the mapped SQL table is there.

        Raises:
            SchemaError: it is not.
            Unavailable: PostgreSQL could not be reached.
        """
        name = self._table_sql
        with transaction(self._engine, f"Looking for the SQL table {name}") as cursor:
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [name])
            if cursor.fetchone() != (True,):
                raise SchemaError(
                    f"the SQL table {name}, to which {self._table} is mapped, does not exist: "
                    "create it with your own migrations, then start again"
                )

    def piece(self, row: PieceRow) -> Piece:
        """A piece, from its row in the ledger."""
        cursor: Mapping[str, Any] = row.cursor or {}
        start = cursor.get("start")
        return Piece(
            row,
            start=None if start is None else self._key(bytes.fromhex(start)),
            unsettled=tuple(self._key(bytes.fromhex(key)) for key in cursor.get("unsettled", ())),
            failed=cursor.get("failed", 0),
        )

    def load(
        self,
        piece: Piece,
        items: Sequence[Item],
        *,
        next_start: Key | None,
        on_failure: Callable[[Key, str], None],
    ) -> Piece:
        """Load a page and move the piece's checkpoint past it, in one transaction.

        Args:
            piece: the piece, as this worker's claim or its last page left it; nothing is left unsettled.
            items: the page.
            next_start: where the next page begins, or None after the last page.
            on_failure: called with the key and the reason for each item that no SQL row can hold, before
                the transaction commits; the rest of the page is loaded. The reason holds no values.

        Returns:
            The piece with its new checkpoint, which names the keys to settle next.

        Raises:
            TakenOver: somebody else has claimed the piece since.
            MirrorFenced: PostgreSQL is not the mirror at this epoch any more; nothing was loaded.
            Unavailable: nothing was loaded, or, where the reply of COMMIT got lost, perhaps all of it:
                claim the piece again and go on from where it stands.
        """
        with transaction(self._engine, f"Loading a page of {self._table}") as cursor:
            cursor.execute(self._sql.begin, prepare=False)
            merged = self._merge(cursor, items, on_failure)
            loaded = self._advanced(
                piece, merged, next_start, items=len(items), size_bytes=sum(map(item_size_bytes, items))
            )
            self._checkpoint(cursor, loaded)
        return loaded

    def draw_revision(self) -> int:
        """A new revision: greater than that of every write so far, smaller than that of every later one."""
        with transaction(self._engine, "Drawing a revision") as cursor:
            cursor.execute("SELECT nextval('dualstore.revision')")
            (revision,) = cursor.fetchone() or (0,)
        return int(revision)

    def row_page(self, *, revision: int, start: Key | None) -> RowPage:
        """Read a page of the SQL table, to find the rows that were last written before a revision.

        Every page reads the same number of rows, however few of them are so old.

        Args:
            revision: from `draw_revision`.
            start: where the page before ended, or None for the first page.
        """
        after = () if start is None else self._mapping.encode_key(start)
        with transaction(self._engine, f"Reading the keys of the rows of {self._table}") as cursor:
            cursor.execute(self._sql.rows_after if after else self._sql.rows, [revision, *after])
            rows = [(self._decoded(key), older) for *key, older in cursor]
        return RowPage(
            older=[key for key, older in rows if older],
            next_start=rows[-1][0] if len(rows) == _ROW_PAGE_ROWS else None,
        )

    def pass_rows(self, piece: Piece, page: RowPage, *, unsettled: Sequence[Key]) -> Piece:
        """Move a piece's checkpoint past a page of rows; the errors are those of `load`.

        Args:
            piece: the piece, as this worker's claim or its last page left it; nothing is left unsettled.
            page: the page.
            unsettled: which of its keys to settle next.
        """
        with transaction(self._engine, f"Passing a page of rows of {self._table}") as cursor:
            found = _Merged(unsettled=tuple(unsettled))
            passed = self._advanced(piece, found, page.next_start, items=len(page.older), size_bytes=0)
            self._checkpoint(cursor, passed)
        return passed

    def wait_for_writers(self, patience: timedelta, waiting: Callable[[int], None]) -> None:
        """Wait until every row that was given a revision so far is there to be seen, or was rolled back.

        Args:
            patience: how long to wait at most.
            waiting: called, now and then, with the number of transactions waited for.

        Raises:
            Unavailable: some are still there.
        """
        doing = f"Waiting for transactions that have written to the SQL table of {self._table}"
        outlast_writers(self._engine, self._table_sql, doing, patience, waiting)

    def wait_for_older_writers(self, patience: timedelta, waiting: Callable[[int], None]) -> None:
        """Wait until no transaction is left that may have looked at the table before the last page's COMMIT.

        Such a transaction may have seen no row where there is one now, and left a tombstone beside it.
        Arguments and errors are those of `wait_for_writers`.
        """
        doing = f"Waiting for transactions older than the copy of {self._table}"
        outlast_readers_and_writers(self._engine, self._table_sql, doing, patience, waiting)

    def tombstoned_keys(self) -> Iterator[Sequence[Key]]:
        """The keys of the table that have a tombstone, in pages of bounded size."""
        after: bytes | None = None
        while True:
            with transaction(self._engine, f"Reading the tombstones of {self._table}") as cursor:
                cursor.execute(
                    "SELECT key FROM dualstore.tombstones WHERE table_name = %s"
                    " AND (%s::bytea IS NULL OR sha256(key) > sha256(%s::bytea))"
                    " ORDER BY sha256(key) LIMIT %s",
                    [self._table, after, after, _TOMBSTONE_PAGE_KEYS],
                )
                page = [bytes(key) for (key,) in cursor]
            if not page:
                return
            yield [self._key(key) for key in page]
            after = page[-1]

    def _key(self, encoded: bytes) -> Key:
        return key_from_bytes(self._keys, encoded)

    def _decoded(self, values: Sequence[Any]) -> Key:
        columns = self._mapping.key_columns
        return {column.attribute: column.decode(value) for column, value in zip(columns, values, strict=True)}

    def _merge(
        self, cursor: Cursor, items: Sequence[Item], on_failure: Callable[[Key, str], None]
    ) -> _Merged:
        """Merge some items; where PostgreSQL refuses them, halve them until the bad one stands alone."""
        if not items:
            return _Merged()
        try:
            with cursor.connection.transaction():
                return self._merge_all(cursor, items)
        except psycopg.Error as error:
            if fault_of(error) is not Fault.REFUSED:
                raise
            reason = str(unavailable(error, f"a row of {self._table}", Unavailable))
        if len(items) == 1:
            on_failure(self._keys.key_of(items[0]), reason)
            return _Merged(failed=1)
        middle = len(items) // 2
        return self._merge(cursor, items[:middle], on_failure) + self._merge(
            cursor, items[middle:], on_failure
        )

    def _merge_all(self, cursor: Cursor, items: Sequence[Item]) -> _Merged:
        encode, keys = self._mapping.encode, self._keys
        cursor.execute(self._sql.empty_staging)
        with cursor.copy(self._sql.copy) as copy:
            copy.set_types(("bytea", *self._mapping.pg_types))
            for item in items:
                copy.write_row((key_bytes(keys, item), *encode(item)))
        cursor.execute(self._sql.insert, {"table": self._table, "epoch": self._epoch})
        inserted = cursor.rowcount  # none where the fence is in the way: the checkpoint will report it
        # A deferred constraint would fail at COMMIT, where no single row can be blamed.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        if inserted == len(items):
            return _Merged(inserted)
        cursor.execute(self._sql.differing, {"table": self._table})
        return _Merged(inserted, tuple(self._key(bytes(key)) for (key,) in cursor))

    def _advanced(
        self, piece: Piece, merged: _Merged, next_start: Key | None, *, items: int, size_bytes: int
    ) -> Piece:
        failed = piece.failed + merged.failed
        row = replace(
            piece.row,
            state=PieceState.COPIED if next_start is None else PieceState.COPYING,
            cursor={
                "start": None if next_start is None else key_bytes(self._keys, next_start).hex(),
                "unsettled": [key_bytes(self._keys, key).hex() for key in merged.unsettled],
                "failed": failed,
            },
            items=piece.row.items + items,
            inserted=piece.row.inserted + merged.inserted,
            settled=piece.row.settled + len(merged.unsettled),
            size_bytes=piece.row.size_bytes + size_bytes,
        )
        return Piece(row, start=next_start, unsettled=merged.unsettled, failed=failed)

    def _checkpoint(self, cursor: Cursor, piece: Piece) -> None:
        row = piece.row
        cursor.execute(
            "UPDATE dualstore.run_pieces SET state = %s, cursor = %s, items = %s, inserted = %s,"
            " settled = %s, bytes = %s, transaction_id = pg_current_xact_id()::text::bigint, error = NULL,"
            " updated_at = clock_timestamp() WHERE run_id = %s AND piece = %s AND attempts = %s"
            # A worker that outlives its run may hold a page that writes have passed by since.
            " AND EXISTS (SELECT FROM dualstore.runs WHERE id = run_id AND state = %s)"
            f" AND EXISTS ({passing('%s', '%s')})",  # pyright: ignore[reportArgumentType] - constants
            [
                *(
                    row.state,
                    Jsonb(dict(row.cursor or {})),
                    row.items,
                    row.inserted,
                    row.settled,
                    row.size_bytes,
                ),
                *(row.run_id, row.number, row.attempt, RunState.RUNNING),
                *(self._table, self._epoch),
            ],
        )
        if cursor.rowcount == 1:
            return
        cursor.execute(_composed(passing("%s", "%s")), [self._table, self._epoch])
        if cursor.rowcount == 0:
            raise MirrorFenced(
                f"PostgreSQL is not the mirror of {self._table} at epoch {self._epoch} any more, so nothing "
                "more is loaded: start the backfill again when the table is at stage dualwrite or shadow"
            )
        raise TakenOver(
            f"Piece {row.number} of run {row.run_id} was taken over by another worker, or its run ended"
        )


_STAGING = sql.Identifier("pg_temp", "dualstore_staging")
_KEY = sql.Identifier("dualstore_key")
# `json` has no equality. The texts are compared: a false difference costs one settle.
_COMPARED_AS_TEXT = frozenset({"json", "json[]"})


class _Statements:
    """The SQL of loading one table, composed once."""

    def __init__(self, mapping: TableMapping) -> None:
        table = mapping.table
        self.table = sql.Identifier(*filter(None, (table.schema, table.name)))
        columns = [sql.Identifier(name) for name in mapping.column_names]
        keys = columns[: len(mapping.key_columns)]
        names = {
            "table": self.table,
            "staging": _STAGING,
            "key": _KEY,
            "columns": sql.SQL(", ").join(columns),
            "keys": sql.SQL(", ").join(keys),
            "same_key": sql.SQL(" AND ").join(sql.SQL("t.{0} = s.{0}").format(name) for name in keys),
            "differs": sql.SQL(" OR ").join(
                sql.SQL("t.{0}{1} IS DISTINCT FROM s.{0}{1}").format(
                    name, sql.SQL("::text" if pg_type in _COMPARED_AS_TEXT else "")
                )
                for name, pg_type in zip(columns, mapping.pg_types, strict=True)
            ),
            "passing": _composed(passing("%(table)s", "%(epoch)s")),
            "buried": sql.SQL(
                "EXISTS (SELECT FROM dualstore.tombstones gone"
                " WHERE gone.table_name = %(table)s AND sha256(gone.key) = sha256(s.dualstore_key))"
            ),
        }
        # A copy of the columns' types, and of nothing else: no NOT NULL, no CHECK, no default.
        # Without values, so that both statements go in one round trip.
        self.begin = sql.SQL(
            "SELECT set_config('dualstore.writer', 'mirror', true);"
            " CREATE TEMPORARY TABLE dualstore_staging ON COMMIT DROP AS"
            " SELECT ''::bytea AS {key}, {columns} FROM {table} WITH NO DATA"
        ).format(**names)
        self.empty_staging = sql.SQL("TRUNCATE {staging}").format(**names)
        self.copy = sql.SQL("COPY {staging} ({key}, {columns}) FROM STDIN").format(**names)
        # In key order, so that two transactions that insert many rows wait for each other in one direction.
        self.insert = sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging} s"
            " WHERE EXISTS ({passing}) AND NOT {buried} ORDER BY {keys} ON CONFLICT ({keys}) DO NOTHING"
        ).format(**names)
        # A statement of its own: it sees what was committed while the one before it waited.
        self.differing = sql.SQL(
            "SELECT s.{key} FROM {staging} s LEFT JOIN {table} t ON {same_key}"
            " WHERE t.dualstore_revision IS NULL OR {differs} OR {buried}"
        ).format(**names)
        # `dualstore_revision` has no index: a page is bounded by the rows it reads, not by those it finds.
        rows = sql.SQL("SELECT {}, t.dualstore_revision < %s FROM {} t").format(
            sql.SQL(", ").join(map(_composed, mapping.read_expressions("t")[: len(keys)])), self.table
        )
        behind = sql.SQL(" WHERE ({}) > ({})").format(
            names["keys"], sql.SQL(", ").join(_composed(f"%s::{type_}") for type_ in mapping.key_types)
        )
        in_order = sql.SQL(" ORDER BY {} LIMIT {}").format(names["keys"], _ROW_PAGE_ROWS)
        self.rows = rows + in_order
        self.rows_after = rows + behind + in_order


def _composed(text: str) -> sql.SQL:
    """SQL that the mapping has composed of quoted names and type names, which a type checker cannot see."""
    return sql.SQL(text)  # pyright: ignore[reportArgumentType]
