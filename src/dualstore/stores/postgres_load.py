"""Loading the history into its SQL table: COPY, merge where nothing is, and the checkpoint with them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.errors import ConfigurationError, MirrorFenced, SchemaError, Unavailable
from dualstore.items import Item, Key, item_size_bytes, key_bytes
from dualstore.mapping import TableMapping
from dualstore.mapping.transcoding import Reason, Rejected, Transcoded, read_line
from dualstore.stores.key_bytes import key_from_bytes
from dualstore.stores.postgres.faults import Fault, fault_of, unavailable
from dualstore.stores.postgres_batch import Batch, Row
from dualstore.stores.postgres_runs import PieceRow, PieceState, RunState, TakenOver
from dualstore.stores.postgres_staging import MIRROR, NOBODY, SETTINGS, LoadStatements, composed
from dualstore.stores.postgres_transaction import Cursor, transaction
from dualstore.stores.postgres_waiting import outlast_readers_and_writers, outlast_writers

_TOMBSTONE_PAGE_KEYS = 1000
_ROW_PAGE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a backfill, a segment or the rows from before it, and how far it has come.

    Attributes:
        row: its row in the ledger.
        start: where the next page of a Scan begins; None before the first page, and after the last.
        position: where the next block of any other source begins, in that source's own words.
        unsettled: keys of the last page to be settled before the piece goes on.
        failed: how many items no SQL row could hold.
    """

    row: PieceRow
    start: Key | None = None
    position: Mapping[str, Any] | None = None
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


Reject = Callable[[Cursor, Sequence[Rejected]], None]
"""Called once a transaction, in it, with the items that no row was made of."""


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
        self._sql = LoadStatements(mapping, MIRROR)
        self._straight = LoadStatements(mapping, NOBODY)
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
            position=cursor.get("position"),
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
        batch = Batch(self._mapping, rows=[Row(None, item, None) for item in items])

        def fail(row: Row, reason: str) -> None:
            on_failure(self._keys.key_of(row.item or {}), reason)

        with transaction(self._engine, f"Loading a page of {self._table}") as cursor:
            cursor.execute(self._sql.begin, prepare=False)
            merged = self._merge(cursor, self._sql, batch, fail)
            loaded = self._advanced(
                piece, merged, start=next_start, items=len(items), size_bytes=sum(map(item_size_bytes, items))
            )
            self._checkpoint(cursor, loaded, self._sql)
        return loaded

    def load_blocks(
        self,
        piece: Piece,
        blocks: Iterable[Transcoded],
        *,
        position: Mapping[str, Any] | None,
        reject: Reject,
    ) -> Piece:
        """Load blocks of a source and move the piece's checkpoint past them, in one transaction.

        Args:
            piece: the piece, as this worker's claim or its last blocks left it; nothing is left unsettled.
            blocks: from a `Transcoder`. They are asked for while the former ones are being copied, so that
                transcoding and PostgreSQL work at the same time; all of them are kept until the end, in case
                PostgreSQL refuses a row. Ten to fifty thousand items are a good number.
            position: where the next blocks begin, to be found again in `Piece.position`; None after the last.
            reject: called once with the items that no row was made of, unless there are none. What it does
                with the cursor is committed with the rows.

        Returns:
            The piece with its new checkpoint, which names the keys to settle next.

        Raises:
            TakenOver: as for `load`; and so are the others.
            MirrorFenced: PostgreSQL is not the mirror at this epoch any more; nothing was loaded.
            Unavailable: nothing was loaded, or, where the reply of COMMIT got lost, perhaps all of it.
        """
        batch = Batch(self._mapping, blocks=iter(blocks))
        with transaction(self._engine, f"Loading blocks of {self._table}") as cursor:
            cursor.execute(self._sql.begin, prepare=False)
            merged = self._merge(cursor, self._sql, batch, self._rejecting(batch))
            loaded = self._loaded(piece, batch, merged, position)
            self._finish(cursor, self._sql, batch, loaded, reject)
        return loaded

    def check_straight(self) -> None:
        """See that the table may be loaded straight: it is empty, and nobody writes it yet.

        Raises:
            ConfigurationError: it is not so.
        """
        with transaction(self._engine, f"Looking whether {self._table_sql} is empty") as cursor:
            cursor.execute(composed(f"SELECT EXISTS ({NOBODY})"), self._parameters)
            if cursor.fetchone() != (True,):
                raise ConfigurationError(
                    f"{self._table} is mirrored already, so it cannot be copied straight into its SQL table: "
                    "start an ordinary backfill"
                )
            cursor.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(self._sql.table))
            if cursor.fetchone() != (False,):
                raise ConfigurationError(
                    f"the SQL table {self._table_sql} holds rows, so it cannot be copied into straight: "
                    "empty it, or start an ordinary backfill"
                )

    def load_straight(
        self,
        piece: Piece,
        blocks: Iterable[Transcoded],
        *,
        position: Mapping[str, Any] | None,
        reject: Reject,
    ) -> Piece:
        """Load blocks by COPY into the SQL table itself, without staging and merge, while nobody writes it.

        `check_straight` comes before the first piece. An ordinary backfill has to follow once every write is
        mirrored, since nothing tells of what was written meanwhile; what is there already costs it little.
        Where PostgreSQL refuses a row, one that is there already among them, the blocks are merged.
        Arguments and result are those of `load_blocks`.

        Raises:
            ConfigurationError: the table is being mirrored by now; nothing was loaded.
            TakenOver: as for `load`.
            Unavailable: as for `load`.
        """
        batch = Batch(self._mapping, blocks=iter(blocks))
        statements = self._straight
        with transaction(self._engine, f"Copying blocks straight into {self._table}") as cursor:
            cursor.execute(composed(SETTINGS))
            # Held until the end: nobody begins to mirror the table beside this transaction.
            cursor.execute("SELECT FROM dualstore.control WHERE table_name = %s FOR SHARE", [self._table])
            try:
                with cursor.connection.transaction():
                    merged = _Merged(self._copy(cursor, statements.copy_straight, batch))
                    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            except psycopg.Error as error:
                if fault_of(error) is not Fault.REFUSED:
                    raise
                cursor.execute(statements.begin, prepare=False)
                merged = self._merge(
                    cursor, statements, Batch(self._mapping, rows=batch.alone()), self._rejecting(batch)
                )
            loaded = self._loaded(piece, batch, merged, position)
            self._finish(cursor, statements, batch, loaded, reject)
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
            rows_in_order = self._sql.rows_after if after else self._sql.rows
            cursor.execute(rows_in_order(_ROW_PAGE_ROWS), [revision, *after])
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
            passed = self._advanced(piece, found, start=page.next_start, items=len(page.older), size_bytes=0)
            self._checkpoint(cursor, passed, self._sql)
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

    @property
    def _parameters(self) -> dict[str, Any]:
        return {"table": self._table, "epoch": self._epoch}

    def _rejecting(self, batch: Batch) -> Callable[[Row, str], None]:
        def reject(row: Row, reason: str) -> None:
            item = row.item or read_line(self._mapping.shape, row.line or b"")
            key = self._keys.key_of(item)
            batch.rejected.append(Rejected(Reason.REFUSED, reason, row.line or b"", key))

        return reject

    def _merge(
        self,
        cursor: Cursor,
        statements: LoadStatements,
        batch: Batch,
        refuse: Callable[[Row, str], None],
    ) -> _Merged:
        """Merge rows; where PostgreSQL refuses them, halve them until the bad one stands alone."""
        try:
            with cursor.connection.transaction():
                return self._merge_all(cursor, statements, batch)
        except psycopg.Error as error:
            if fault_of(error) is not Fault.REFUSED:
                raise
            reason = str(unavailable(error, f"a row of {self._table}", Unavailable))
        rows = batch.alone()
        if len(rows) == 1:
            refuse(rows[0], reason)
            return _Merged(failed=1)
        merged = _Merged()
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            cursor.execute(statements.empty_staging)
            merged += self._merge(cursor, statements, Batch(self._mapping, rows=half), refuse)
        return merged

    def _merge_all(self, cursor: Cursor, statements: LoadStatements, batch: Batch) -> _Merged:
        copied = self._copy(cursor, statements.copy, batch)
        if not copied:
            return _Merged()
        cursor.execute(statements.insert, self._parameters)
        inserted = cursor.rowcount  # none where the fence is in the way: the checkpoint will report it
        # A deferred constraint would fail at COMMIT, where no single row can be blamed.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        if inserted == copied:
            return _Merged(inserted)
        cursor.execute(statements.differing, self._parameters)
        return _Merged(inserted, tuple(map(self._decoded, cursor)))

    @staticmethod
    def _copy(cursor: Cursor, statement: sql.Composed, batch: Batch) -> int:
        with cursor.copy(statement) as copy:
            return batch.write(copy)

    def _loaded(
        self, piece: Piece, batch: Batch, merged: _Merged, position: Mapping[str, Any] | None
    ) -> Piece:
        return self._advanced(
            piece,
            merged + _Merged(failed=sum(each.reason is not Reason.REFUSED for each in batch.rejected)),
            position=position,
            items=sum(block.rows + len(block.declined) for block in batch.sent),
            size_bytes=sum(block.json_bytes for block in batch.sent),
        )

    def _finish(
        self, cursor: Cursor, statements: LoadStatements, batch: Batch, piece: Piece, reject: Reject
    ) -> None:
        if batch.rejected:
            reject(cursor, batch.rejected)
        self._checkpoint(cursor, piece, statements)

    def _advanced(
        self,
        piece: Piece,
        merged: _Merged,
        *,
        start: Key | None = None,
        position: Mapping[str, Any] | None = None,
        items: int,
        size_bytes: int,
    ) -> Piece:
        failed = piece.failed + merged.failed
        row = replace(
            piece.row,
            state=PieceState.COPIED if start is None and position is None else PieceState.COPYING,
            cursor={
                "start": None if start is None else key_bytes(self._keys, start).hex(),
                "position": None if position is None else dict(position),
                "unsettled": [key_bytes(self._keys, key).hex() for key in merged.unsettled],
                "failed": failed,
            },
            items=piece.row.items + items,
            inserted=piece.row.inserted + merged.inserted,
            settled=piece.row.settled + len(merged.unsettled),
            size_bytes=piece.row.size_bytes + size_bytes,
        )
        return Piece(row, start=start, position=position, unsettled=merged.unsettled, failed=failed)

    def _checkpoint(self, cursor: Cursor, piece: Piece, statements: LoadStatements) -> None:
        row = piece.row
        cursor.execute(
            composed(
                "UPDATE dualstore.run_pieces SET state = %(state)s, cursor = %(cursor)s, items = %(items)s,"
                " inserted = %(inserted)s, settled = %(settled)s, bytes = %(bytes)s, error = NULL,"
                " transaction_id = pg_current_xact_id()::text::bigint, updated_at = clock_timestamp()"
                " WHERE run_id = %(run)s AND piece = %(piece)s AND attempts = %(attempt)s"
                # A worker that outlives its run may hold a page that writes have passed by since.
                " AND EXISTS (SELECT FROM dualstore.runs WHERE id = run_id AND runs.state = %(running)s)"
                f" AND EXISTS ({statements.guard})"
            ),
            {
                **self._parameters,
                "state": row.state,
                "cursor": Jsonb(dict(row.cursor or {})),
                "items": row.items,
                "inserted": row.inserted,
                "settled": row.settled,
                "bytes": row.size_bytes,
                "run": row.run_id,
                "piece": row.number,
                "attempt": row.attempt,
                "running": RunState.RUNNING,
            },
        )
        if cursor.rowcount == 1:
            return
        cursor.execute(composed(f"SELECT EXISTS ({statements.guard})"), self._parameters)
        if cursor.fetchone() == (True,):
            raise TakenOver(
                f"Piece {row.number} of run {row.run_id} was taken over by another worker, or its run ended"
            )
        if statements.guard == NOBODY:
            raise ConfigurationError(
                f"{self._table} is being mirrored by now, so nothing more is copied straight into its SQL "
                "table: start an ordinary backfill"
            )
        raise MirrorFenced(
            f"PostgreSQL is not the mirror of {self._table} at epoch {self._epoch} any more, so nothing "
            "more is loaded: start the backfill again when the table is at stage dualwrite or shadow"
        )
