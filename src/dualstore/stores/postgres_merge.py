"""Rows into their SQL tables: COPY, and a merge where nothing is; what PostgreSQL refuses stands alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

from dualstore.errors import Unavailable
from dualstore.items import Key
from dualstore.mapping import Mapped
from dualstore.mapping.transcoding import Reason, Rejected, read_line
from dualstore.mapping.transcoding.binary_rows import Pack, packing
from dualstore.stores.postgres.faults import Fault, fault_of, unavailable
from dualstore.stores.postgres_batch import Batch, Row
from dualstore.stores.postgres_staging import CopyInto, LoadStatements
from dualstore.stores.postgres_transaction import Cursor

Refuse = Callable[[Row, str], None]
"""Called with a row that PostgreSQL refuses, and why."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of some items.

    Attributes:
        inserted: how many rows were inserted.
        unsettled: the keys of those that were not, and are not there as they were read.
    """

    inserted: int = 0
    unsettled: tuple[Key, ...] = ()

    def __add__(self, other: "Merged") -> "Merged":
        return Merged(self.inserted + other.inserted, self.unsettled + other.unsettled)


class Merge:
    """Merges batches into the SQL tables of one DynamoDB table, in transactions of the caller's.

    Args:
        mapping: the table.
        statements: for each SQL table.
        epoch: that their guard asks for.

    Attributes:
        statements: for each SQL table.
        guard: of all of them: a query of one row where the table may be loaded.
        parameters: of the statements and the guard.
    """

    def __init__(self, mapping: Mapped, statements: Sequence[LoadStatements], *, epoch: int) -> None:
        self._mapping = mapping
        self.statements = statements
        self.guard = statements[0].guard
        self.parameters: Mapping[str, Any] = {"table": mapping.shape.name, "epoch": epoch}

    def staged(self, cursor: Cursor, batch: Batch) -> Merged:
        """Insert rows where there is neither row nor tombstone, by way of staging tables."""
        merged = Merged()
        if len(self.statements) == 1:  # text is still being made while it is sent
            cursor.execute(self.statements[0].begin, prepare=False)
            return self._merge(cursor, self.statements[0], batch, self._refusing(batch))
        for place, part in batch.by_part(self._mapping):
            cursor.execute(self.statements[place].begin, prepare=False)
            merged += self._merge(cursor, self.statements[place], part, self._refusing(batch))
        return merged

    def straight(self, cursor: Cursor, batch: Batch) -> Merged:
        """Copy rows into the SQL tables themselves; where PostgreSQL refuses one, all are merged."""
        merged = Merged()
        for place, part in batch.by_part(self._mapping):
            merged += self._copy_straight(cursor, self.statements[place], part, self._refusing(batch))
        return merged

    def decoded(self, values: Sequence[Any]) -> Key:
        """A key, from the columns that hold it."""
        columns = self._mapping.key_columns
        return {column.attribute: column.decode(value) for column, value in zip(columns, values, strict=True)}

    def _refusing(self, batch: Batch) -> Refuse:
        def refuse(row: Row, reason: str) -> None:
            item = row.item or read_line(self._mapping.shape, row.line or b"")
            key = self._mapping.shape.keys.key_of(item)
            batch.rejected.append(Rejected(Reason.REFUSED, reason, row.line or b"", key))

        return refuse

    def _copy_straight(
        self, cursor: Cursor, statements: LoadStatements, batch: Batch, refuse: Refuse
    ) -> Merged:
        try:
            with cursor.connection.transaction():
                merged = Merged(copied(cursor, statements.straight, batch).rows)
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.Error as error:
            if fault_of(error) is not Fault.REFUSED:
                raise
            cursor.execute(statements.begin, prepare=False)
            alone = Batch(statements.mapping, rows=batch.alone())
            return self._merge(cursor, statements, alone, refuse)
        return merged

    def _merge(
        self,
        cursor: Cursor,
        statements: LoadStatements,
        batch: Batch,
        refuse: Refuse,
    ) -> Merged:
        """Merge rows; where PostgreSQL refuses them, halve them until the bad one stands alone."""
        try:
            with cursor.connection.transaction():
                return self._merge_all(cursor, statements, batch)
        except psycopg.Error as error:
            if fault_of(error) is not Fault.REFUSED:
                raise
            reason = str(unavailable(error, f"a row of {self._mapping.shape.name}", Unavailable))
        rows = batch.alone()
        if len(rows) == 1:
            refuse(rows[0], reason)
            return Merged()
        merged = Merged()
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            cursor.execute(statements.empty_staging)
            merged += self._merge(cursor, statements, Batch(statements.mapping, rows=half), refuse)
        return merged

    def _merge_all(self, cursor: Cursor, statements: LoadStatements, batch: Batch) -> Merged:
        rows, in_order = copied(cursor, statements.staged, batch)
        if not rows:
            return Merged()
        insert = statements.insert_in_order if in_order else statements.insert
        cursor.execute(insert, self.parameters)
        inserted = cursor.rowcount  # none where the fence is in the way: the checkpoint will report it
        # A deferred constraint would fail at COMMIT, where no single row can be blamed.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        if inserted == rows:
            return Merged(inserted)
        cursor.execute(statements.differing, self.parameters)
        return Merged(inserted, tuple(map(self.decoded, cursor)))


class Copied(NamedTuple):
    """What was sent by COPY: how many rows, and whether in the order of their keys."""

    rows: int
    in_order: bool


def copied(cursor: Cursor, into: CopyInto, batch: Batch) -> Copied:
    """Send a batch by COPY, its blocks in binary and in key order where they can be."""
    pack = None if batch.rows else _packing(cursor, into)
    if pack is None:
        with cursor.copy(into.text) as copy:
            batch.write(copy)
        return Copied(batch.size, in_order=False)
    parts, left = batch.packed(pack)
    with cursor.copy(into.binary) as copy:
        for part in parts:
            copy.write(part)
    if left or batch.rows:
        with cursor.copy(into.text) as copy:
            batch.write_rest(copy, left)
    return Copied(batch.size, in_order=not left and not batch.rows)


def _packing(cursor: Cursor, into: CopyInto) -> Pack | None:
    """What packs rows for the types that the columns have in this transaction: no mapping can know them."""
    cursor.execute(into.types, prepare=False)
    cursor.nextset()
    (types,) = cursor.fetchone() or (None,)
    return packing(types or (), keys=into.keys)
