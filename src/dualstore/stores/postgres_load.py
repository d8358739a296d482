"""Loading the history into its SQL table: COPY, merge where nothing is, and the checkpoint with them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

from psycopg import sql
from sqlalchemy import Engine

from dualstore.errors import ConfigurationError, MirrorFenced, SchemaError
from dualstore.items import Key, key_bytes
from dualstore.mapping import Mapped
from dualstore.mapping.transcoding import (
    Rejected,
    Transcoded,
    Transcoder,
    transcoder_of,
)
from dualstore.stores.key_bytes import key_from_bytes
from dualstore.stores.ledger import PieceRow, PieceState, TakenOver
from dualstore.stores.postgres.split_statements import doubled
from dualstore.stores.postgres_batch import Batch
from dualstore.stores.postgres_merge import Merge, Merged
from dualstore.stores.postgres_runs import checkpoint
from dualstore.stores.postgres_staging import (
    MIRROR,
    NOBODY,
    SETTINGS,
    composed,
    in_key_order,
    load_statements,
)
from dualstore.stores.postgres_transaction import Cursor, transaction
from dualstore.stores.postgres_waiting import outlast_readers_and_writers, outlast_writers

_TOMBSTONE_PAGE_KEYS = 1000
_ROW_PAGE_ROWS = 1000


LEASE = timedelta(minutes=1)
"""How long a piece stays its worker's without a checkpoint: as long as a transaction may take."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a backfill, of its source or the rows from before it, and how far it has come.

    Attributes:
        row: its row in the ledger.
        position: where the next batch begins, in the source's own words; None before the first one.
        at_end: whether the last batch has been loaded.
        unsettled: keys of the last batch to be settled before the piece goes on.
        since: when it was claimed or last got on, in this process's monotonic seconds.
    """

    row: PieceRow
    position: Mapping[str, Any] | None = None
    at_end: bool = False
    unsettled: tuple[Key, ...] = ()
    since: float = field(default_factory=time.monotonic, compare=False)

    @property
    def read_to_the_end(self) -> bool:
        """Whether all of it has been loaded, and its keys settled."""
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
        lease: how long a piece stays its worker's after each checkpoint.
    """

    def __init__(self, engine: Engine, mapping: Mapped, *, epoch: int, lease: timedelta = LEASE) -> None:
        self._engine = engine
        self._mapping = mapping
        self._epoch = epoch
        self._lease = lease
        self._keys = mapping.shape.keys
        self._table = mapping.shape.name
        self._mirrored = Merge(mapping, load_statements(mapping, MIRROR), epoch=epoch)
        self._unmirrored = Merge(mapping, load_statements(mapping, NOBODY), epoch=epoch)

    @property
    def mapping(self) -> Mapped:
        """The table."""
        return self._mapping

    @property
    def _tables_sql(self) -> list[str]:
        """The names of the SQL tables."""
        return [each.table.as_string(None) for each in self._mirrored.statements]

    @property
    def epoch(self) -> int:
        """The epoch at which it loads."""
        return self._epoch

    @cached_property
    def transcoder(self) -> Transcoder:
        """Makes rows of what a source reads; by the accelerator where it is installed."""
        return transcoder_of(self._mapping)

    def check(self) -> None:
        """See that the mapped SQL table is there.

        Raises:
            SchemaError: it is not.
            Unavailable: PostgreSQL could not be reached.
        """
        for name in self._tables_sql:
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
        return Piece(
            row,
            position=cursor.get("position"),
            at_end=cursor.get("at_end", False),
            unsettled=tuple(self._key(bytes.fromhex(key)) for key in cursor.get("unsettled", ())),
        )

    def load_blocks(
        self,
        piece: Piece,
        blocks: Iterable[Transcoded],
        *,
        position: Mapping[str, Any] | None,
        reject: Reject,
        keys: Sequence[Key] = (),
        rejected: Sequence[Rejected] = (),
        read_units: float = 0.0,
    ) -> Piece:
        """Load blocks of a source and move the piece's checkpoint past them, in one transaction.

        Args:
            piece: the piece, as this worker's claim or its last blocks left it; nothing is left unsettled.
            blocks: from a `Transcoder`, asked for once. All of them are kept until the end, in case
                PostgreSQL refuses a row. Ten to fifty thousand items are a good number.
            position: where the next blocks begin, to be found again in `Piece.position`; None after the last.
            reject: called once with the items that no row was made of, unless there are none. What it does
                with the cursor is committed with the rows. Reasons hold no values.
            keys: to be settled next, besides those that differ; each counts as an item that was read.
            rejected: what the source has found to be no item, or no key; each counts as an item, too.
            read_units: consumed at DynamoDB in order to read this.

        Returns:
            The piece with its new checkpoint, which names the keys to settle next.

        Raises:
            TakenOver: somebody else has claimed the piece since, or its run has ended.
            MirrorFenced: PostgreSQL is not the mirror at this epoch any more; nothing was loaded.
            Unavailable: nothing was loaded, or, where the reply of COMMIT got lost, perhaps all of it:
                claim the piece again and go on from where it stands.
        """
        batch = Batch(self._mapping.parts[-1], blocks=iter(blocks), rejected=list(rejected))
        with transaction(self._engine, f"Loading blocks of {self._table}") as cursor:
            merged = self._mirrored.staged(cursor, batch) + Merged(unsettled=tuple(keys))
            loaded = self._loaded(
                piece, batch, merged, position, others=len(keys) + len(rejected), read_units=read_units
            )
            self._finish(cursor, MIRROR, batch.rejected, loaded, reject)
        return loaded

    def check_straight(self) -> None:
        """See that the table may be loaded straight: it is empty, and nobody writes it yet.

        Raises:
            ConfigurationError: it is not so.
        """
        names = ", ".join(self._tables_sql)
        with transaction(self._engine, f"Looking whether {names} is empty") as cursor:
            cursor.execute(composed(f"SELECT EXISTS ({NOBODY})"), self._mirrored.parameters)
            if cursor.fetchone() != (True,):
                raise ConfigurationError(
                    f"{self._table} is mirrored already, so it cannot be copied straight into its SQL table: "
                    "start an ordinary backfill"
                )
            there_are = [
                sql.SQL("EXISTS (SELECT FROM {})").format(each.table) for each in self._mirrored.statements
            ]
            cursor.execute(sql.SQL("SELECT {}").format(sql.SQL(" OR ").join(there_are)))
            if cursor.fetchone() != (False,):
                raise ConfigurationError(
                    f"the SQL table {names} holds rows, so it cannot be copied into straight: "
                    "empty it, or start an ordinary backfill"
                )

    def load_straight(
        self,
        piece: Piece,
        blocks: Iterable[Transcoded],
        *,
        position: Mapping[str, Any] | None,
        reject: Reject,
        keys: Sequence[Key] = (),
        rejected: Sequence[Rejected] = (),
        read_units: float = 0.0,
    ) -> Piece:
        """Load blocks by COPY into the SQL table itself, without staging and merge, while nobody writes it.

        `check_straight` comes before the first piece. An ordinary backfill has to follow once every write is
        mirrored, since nothing tells of what was written meanwhile; what is there already costs it little.
        Where PostgreSQL refuses a row, one that is there already among them, the blocks are merged.
        Arguments and result are those of `load_blocks`.

        Raises:
            ConfigurationError: the table is being mirrored by now; nothing was loaded.
            TakenOver, Unavailable: as for `load_blocks`.
        """
        if keys:
            raise ConfigurationError(f"{self._table} is not mirrored yet, so no key of it can be settled")
        batch = Batch(self._mapping.parts[-1], blocks=iter(blocks), rejected=list(rejected))
        with transaction(self._engine, f"Copying blocks straight into {self._table}") as cursor:
            cursor.execute(composed(SETTINGS))
            # Held until the end: nobody begins to mirror the table beside this transaction.
            cursor.execute("SELECT FROM dualstore.control WHERE table_name = %s FOR SHARE", [self._table])
            merged = self._unmirrored.straight(cursor, batch)
            loaded = self._loaded(piece, batch, merged, position, others=len(rejected), read_units=read_units)
            self._finish(cursor, NOBODY, batch.rejected, loaded, reject)
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
            found = [
                each.rows_after(_ROW_PAGE_ROWS) if after else each.rows(_ROW_PAGE_ROWS)
                for each in self._mirrored.statements
            ]
            cursor.execute(
                in_key_order(self._mapping, found, _ROW_PAGE_ROWS), [revision, *after] * len(found)
            )
            rows = [(self._mirrored.decoded(key), older) for *key, older in cursor]
        return RowPage(
            older=[key for key, older in rows if older],
            next_start=rows[-1][0] if len(rows) == _ROW_PAGE_ROWS else None,
        )

    def pass_rows(self, piece: Piece, page: RowPage, *, unsettled: Sequence[Key]) -> Piece:
        """Move a piece's checkpoint past a page of rows; the errors are those of `load_blocks`.

        Args:
            piece: the piece, as this worker's claim or its last page left it; nothing is left unsettled.
            page: the page.
            unsettled: which of its keys to settle next.
        """
        start = page.next_start
        position = None if start is None else {"start": key_bytes(self._keys, start).hex()}
        with transaction(self._engine, f"Passing a page of rows of {self._table}") as cursor:
            found = Merged(unsettled=tuple(unsettled))
            passed = self._advanced(piece, found, position=position, items=len(page.older))
            self._checkpoint(cursor, passed, MIRROR)
        return passed

    def start_of(self, piece: Piece) -> Key | None:
        """Behind which row the next page of a piece begins that `pass_rows` moves; None: the first one."""
        return None if piece.position is None else self._key(bytes.fromhex(piece.position["start"]))

    def pass_settled(
        self, piece: Piece, rejected: Sequence[Rejected], *, reject: Reject, found: int = 0
    ) -> Piece:
        """Move a piece's checkpoint past the keys that had to be settled; errors are those of `load_blocks`.

        Args:
            piece: the piece.
            rejected: those of the keys that could not be settled, without the items.
            reject: as for `load_blocks`.
            found: how many keys were settled besides those that the piece's checkpoint names.
        """
        with transaction(self._engine, f"Passing settled keys of {self._table}") as cursor:
            passed = self._advanced(
                piece,
                Merged(),
                position=piece.position,
                at_end=piece.at_end,
                settled=found,
                rejected=len(rejected),
            )
            self._finish(cursor, MIRROR, rejected, passed, reject)
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
        for name in self._tables_sql:
            outlast_writers(self._engine, name, doing, patience, waiting)

    def wait_for_older_writers(self, patience: timedelta, waiting: Callable[[int], None]) -> None:
        """Wait until no transaction is left that may have looked at the table before the last page's COMMIT.

        Such a transaction may have seen no row where there is one now, and left a tombstone beside it.
        Arguments and errors are those of `wait_for_writers`.
        """
        doing = f"Waiting for transactions older than the copy of {self._table}"
        for name in self._tables_sql:
            outlast_readers_and_writers(self._engine, name, doing, patience, waiting)

    def doubled_keys(self) -> Iterator[Sequence[Key]]:
        """The keys that have rows in several SQL tables of the table, in pages of bounded size.

        No primary key holds these apart, and this load takes no locks: a row of it can come beside one that a
        writer makes at the same moment. None where the table is in one SQL table.
        """
        statement = doubled(self._mapping)
        if not statement:
            return
        with transaction(self._engine, f"Looking for keys of {self._table} in two SQL tables") as cursor:
            cursor.execute(composed(statement))
            found = [self._mirrored.decoded(row) for row in cursor]
        for start in range(0, len(found), _TOMBSTONE_PAGE_KEYS):
            yield found[start : start + _TOMBSTONE_PAGE_KEYS]

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

    def _loaded(
        self,
        piece: Piece,
        batch: Batch,
        merged: Merged,
        position: Mapping[str, Any] | None,
        *,
        others: int,
        read_units: float,
    ) -> Piece:
        return self._advanced(
            piece,
            merged,
            position=position,
            items=sum(block.rows + len(block.declined) for block in batch.sent) + others,
            size_bytes=sum(block.json_bytes for block in batch.sent),
            rejected=len(batch.rejected),
            read_units=read_units,
        )

    def _finish(
        self,
        cursor: Cursor,
        guard: str,
        rejected: Sequence[Rejected],
        piece: Piece,
        reject: Reject,
    ) -> None:
        if rejected:
            reject(cursor, rejected)
        self._checkpoint(cursor, piece, guard)

    def _advanced(
        self,
        piece: Piece,
        merged: Merged,
        *,
        position: Mapping[str, Any] | None,
        at_end: bool | None = None,
        items: int = 0,
        size_bytes: int = 0,
        settled: int = 0,
        rejected: int = 0,
        read_units: float = 0.0,
    ) -> Piece:
        at_end = position is None if at_end is None else at_end
        now = time.monotonic()
        row = replace(
            piece.row,
            state=PieceState.COPIED if at_end and not merged.unsettled else PieceState.COPYING,
            cursor={
                "position": None if position is None else dict(position),
                "at_end": at_end,
                "unsettled": [key_bytes(self._keys, key).hex() for key in merged.unsettled],
            },
            items=piece.row.items + items,
            inserted=piece.row.inserted + merged.inserted,
            settled=piece.row.settled + len(merged.unsettled) + settled,
            size_bytes=piece.row.size_bytes + size_bytes,
            rejected=piece.row.rejected + rejected,
            read_units=piece.row.read_units + read_units,
            seconds=piece.row.seconds + now - piece.since,
            rate=items / max(now - piece.since, 1e-6) if items else piece.row.rate,
            failures=0,
        )
        return Piece(row, position=position, at_end=at_end, unsettled=merged.unsettled, since=now)

    def _checkpoint(self, cursor: Cursor, piece: Piece, guard: str) -> None:
        row = piece.row
        if checkpoint(cursor, row, lease=self._lease, guard=guard, values=self._mirrored.parameters):
            return
        cursor.execute(composed(f"SELECT EXISTS ({guard})"), self._mirrored.parameters)
        if cursor.fetchone() == (True,):
            raise TakenOver(
                f"Piece {row.number} of run {row.run_id} was taken over by another worker, or its run ended"
            )
        if guard == NOBODY:
            raise ConfigurationError(
                f"{self._table} is being mirrored by now, so nothing more is copied straight into its SQL "
                "table: start an ordinary backfill"
            )
        raise MirrorFenced(
            f"PostgreSQL is not the mirror of {self._table} at epoch {self._epoch} any more, so nothing "
            "more is loaded: start the backfill again when the table is at stage dualwrite or shadow"
        )
