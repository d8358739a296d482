"""The SQL of one table's point reads and writes, composed once.

Values are always bound; names are quoted. Each statement numbers its values for itself: the mapped columns
first, where it writes a row (`$1` … are then also the key), else the key; and after those the names below.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from dualstore.items import Item, Key
from dualstore.mapping import REVISION_COLUMN as REVISION
from dualstore.mapping import TableMapping, quoted

NEXT = "nextval('dualstore.revision')"


FENCE_HELD = "EXISTS (SELECT FROM fence)"
"""The condition that the fence lets a statement write, in a statement that begins with it."""


def fence(table: str, epoch: str) -> str:
    """A common table expression with one row where PostgreSQL is the mirror of a table at an epoch.

    In the statement that writes, so that both see the database at one moment.

    Args:
        table: the placeholder of the physical DynamoDB name.
        epoch: the placeholder of the epoch.
    """
    return f"fence AS ({passing(table, epoch)})"


def passing(table: str, epoch: str) -> str:
    """One row, without columns, where the fence lets mirror writes pass; arguments as for `fence`."""
    return (
        f"SELECT FROM dualstore.control WHERE table_name = {table} "
        f"AND epoch = {epoch}::bigint AND role = 'mirror'"
    )


def is_key(placeholder: str, prefix: str = "") -> str:
    """The condition that a bookkeeping row is of a key: its index is on the hash, see `schema.tables`."""
    return f"sha256({prefix}key) = sha256({placeholder}::bytea)"


@dataclass(frozen=True)
class TableStatements:
    """The statements for one table.

    All that write expect the key's lock to be held by a statement *before* (DESIGN, section 3, rule 9). Those
    for a mirror, direct and settled writes, answer one row of two Booleans: whether the key now is as the
    caller wants it, and whether the fence let the statement write (rule 8). Where it did not, the first says
    nothing.
    """

    mapping: TableMapping

    def writing(self, item: Item) -> Self:  # noqa: ARG002 - one table takes every item
        """The statements that write this item: these."""
        return self

    def reading(self, key: Key) -> Self:  # noqa: ARG002 - one table holds every key
        """The statements that read the item at a key: these."""
        return self

    @cached_property
    def table(self) -> str:
        """The SQL table's name, quoted, with its schema."""
        table = self.mapping.table
        return ".".join(quoted(part) for part in (table.schema, table.name) if part is not None)

    @cached_property
    def key_names(self) -> tuple[str, ...]:
        """The key's column names, quoted."""
        return tuple(quoted(column.name) for column in self.mapping.key_columns)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The column names in the order of `TableMapping.encode`, quoted."""
        return tuple(map(quoted, self.mapping.column_names))

    @cached_property
    def columns(self) -> str:
        """What `TableMapping.decode` takes, where nothing else is read."""
        return ", ".join(self.mapping.read_expressions())

    @cached_property
    def get(self) -> str:
        """One row by its key. Values: key."""
        return f"SELECT {self.columns} FROM {self.table} WHERE {self.key}"

    @cached_property
    def get_undoubted(self) -> str:
        """One row by its key, its revision (null: no row), and whether the key, or every read, is in doubt.

        Values: key, table name, key bytes.
        """
        table, key = self.after_key(2)
        return (
            f"SELECT {self.read}, "
            f"EXISTS (SELECT FROM dualstore.dirty WHERE table_name = {table} AND {is_key(key)}) "
            f"OR EXISTS (SELECT FROM dualstore.stops WHERE table_name = {table}) "
            f"FROM (SELECT) one LEFT JOIN {self.table} t ON {self.key_of('t.')}"
        )

    @cached_property
    def state(self) -> str:
        """One row, its revision (null: no row), and its tombstone's stamp and revision (null: none).

        Values: key, table name, key bytes.
        """
        table, key = self.after_key(2)
        return (
            f"SELECT {self.read}, gone.stamp, gone.revision "
            f"FROM (SELECT) one LEFT JOIN {self.table} t ON {self.key_of('t.')} "
            f"LEFT JOIN dualstore.tombstones gone ON gone.table_name = {table} AND {is_key(key, 'gone.')}"
        )

    @cached_property
    def states(self) -> str:
        """As `state`, for many keys, those with neither row nor tombstone left out; ends with the key bytes.

        Values: table name, array of key bytes, an array for each key column.
        """
        arrays = ", ".join(f"${n}::{type_}[]" for n, type_ in enumerate(self._key_types, 3))
        asked = ", ".join(f"k{n}" for n in range(len(self.key_names)))
        on = " AND ".join(f"t.{name} = asked.k{n}" for n, name in enumerate(self.key_names))
        return (
            f"SELECT {self.read}, gone.stamp, gone.revision, asked.key "
            f"FROM unnest($2::bytea[], {arrays}) AS asked (key, {asked}) LEFT JOIN {self.table} t ON {on} "
            "LEFT JOIN dualstore.tombstones gone "
            "ON gone.table_name = $1 AND sha256(gone.key) = sha256(asked.key) "
            f"WHERE t.{REVISION} IS NOT NULL OR gone.revision IS NOT NULL"
        )

    @cached_property
    def in_order(self) -> str:
        """One row for each of many keys, in the order they are asked for, and its revision (null: no row).

        By the index, whatever the planner believes of the table: it flattens no subquery with a limit.
        Values: an array for each key column.
        """
        arrays = ", ".join(f"${n}::{type_}[]" for n, type_ in enumerate(self._key_types, 1))
        asked = ", ".join(f"k{n}" for n in range(len(self.key_names)))
        on = " AND ".join(f"t.{name} = asked.k{n}" for n, name in enumerate(self.key_names))
        return (
            f"SELECT found.* FROM unnest({arrays}) WITH ORDINALITY AS asked ({asked}, n) "
            f"LEFT JOIN LATERAL (SELECT {self.read} FROM {self.table} t WHERE {on} LIMIT 1) AS found "
            "ON true ORDER BY asked.n"
        )

    def page(self, rows: int, *, after: bool) -> str:
        """Rows in the order of the key, where asked from behind one. Values: none, or that key."""
        names, values = ", ".join(self.key_names), ", ".join(self.key_values)
        start = f"WHERE ({names}) > ({values}) " if after else ""
        return f"SELECT {self.columns} FROM {self.table} {start}ORDER BY {names} LIMIT {rows:d}"

    @cached_property
    def put_over(self) -> str:
        """A direct write over the item with the predecessor's stamp.

        A row beside a tombstone is in doubt (a backfill may have brought it back): not written over.
        Values: row, table name, epoch, key bytes, stamp, predecessor.
        """
        table, epoch, key, stamp, predecessor = self.after_row(5)
        return (
            f"WITH {fence(table, epoch)}, "
            f"written AS (UPDATE {self.table} SET {self.assignments}, {REVISION} = {NEXT} "
            f"WHERE {self.key} AND dualstore_stamp = {predecessor} AND {FENCE_HELD} "
            f"AND NOT EXISTS ({self.tombstone(table, key)}) RETURNING 1) "
            f"SELECT EXISTS (SELECT FROM written) OR {self._has(stamp)}, {FENCE_HELD}"
        )

    @cached_property
    def put_new(self) -> str:
        """A direct write where there is neither row nor tombstone.

        Values: row, table name, epoch, key bytes, stamp.
        """
        table, epoch, key, stamp = self.after_row(4)
        return (
            f"WITH {fence(table, epoch)}, "
            f"written AS ({self.insert} WHERE {FENCE_HELD} AND NOT EXISTS ({self.tombstone(table, key)}) "
            f"ON CONFLICT ({', '.join(self.key_names)}) DO NOTHING RETURNING 1) "
            f"SELECT EXISTS (SELECT FROM written) OR {self._has(stamp)}, {FENCE_HELD}"
        )

    @cached_property
    def delete_over(self) -> str:
        """A direct deletion of the item with the predecessor's stamp, which its tombstone remembers.

        Values: key, table name, epoch, key bytes, predecessor.
        """
        table, epoch, key, predecessor = self.after_key(4)
        recorded = self.bury(table, key, f"{predecessor}::bytea", "EXISTS (SELECT FROM gone)")
        return (
            f"WITH {fence(table, epoch)}, gone AS (DELETE FROM {self.table} WHERE {self.key} "
            f"AND dualstore_stamp = {predecessor} AND {FENCE_HELD} RETURNING 1), "
            f"recorded AS ({recorded} RETURNING 1) "
            f"SELECT EXISTS (SELECT FROM recorded) OR (NOT EXISTS ({self.row}) "
            f"AND EXISTS ({self.tombstone(table, key)} AND stamp = {predecessor})), {FENCE_HELD}"
        )

    @cached_property
    def delete_nothing(self) -> str:
        """A direct deletion that found nothing: renews the tombstone.

        Values: key, table name, epoch, key bytes.
        """
        table, epoch, key = self.after_key(3)
        stamp = f"({self.tombstone(table, key, 'stamp')})"
        condition = f"{FENCE_HELD} AND NOT EXISTS ({self.row})"
        return (
            f"WITH {fence(table, epoch)}, "
            f"recorded AS ({self.bury(table, key, stamp, condition)} RETURNING 1) "
            f"SELECT EXISTS (SELECT FROM recorded), {FENCE_HELD}"
        )

    @cached_property
    def settle_present(self) -> str:
        """Write the row and remove the tombstone, if both are as they were seen.

        `ON CONFLICT` looks again at what a backfill, which takes no lock, may have inserted meanwhile.
        Values: row, table name, epoch, key bytes, the row's revision, the tombstone's revision.
        """
        table, epoch, key, row, tombstone = self.after_row(5)
        as_seen = self._as_seen(table, key, row, tombstone)
        return (
            f"WITH {fence(table, epoch)}, written AS ({self.insert} WHERE {FENCE_HELD} AND {as_seen} "
            f"ON CONFLICT ({', '.join(self.key_names)}) DO UPDATE SET {self.excluded} "
            f"WHERE t.{REVISION} = {row}::bigint RETURNING 1), "
            f"cleared AS (DELETE FROM dualstore.tombstones WHERE table_name = {table} AND {is_key(key)} "
            "AND EXISTS (SELECT FROM written)) "
            f"SELECT EXISTS (SELECT FROM written), {FENCE_HELD}"
        )

    @cached_property
    def settle_absent(self) -> str:
        """Remove the row and write or renew the tombstone, if both are as they were seen.

        Values: key, table name, epoch, key bytes, the row's revision, the tombstone's revision.
        """
        table, epoch, key, row, tombstone = self.after_key(5)
        stamp = (
            "CASE WHEN EXISTS (SELECT FROM gone) THEN (SELECT dualstore_stamp FROM gone) "
            f"ELSE ({self.tombstone(table, key, 'stamp')}) END"
        )
        allowed = f"{FENCE_HELD} AND {self._as_seen(table, key, row, tombstone)}"
        removed = f"({row}::bigint IS NULL OR EXISTS (SELECT FROM gone))"
        return (
            f"WITH {fence(table, epoch)}, gone AS (DELETE FROM {self.table} WHERE {self.key} AND {allowed} "
            f"AND {REVISION} = {row}::bigint RETURNING dualstore_stamp), "
            f"recorded AS ({self.bury(table, key, stamp, f'{allowed} AND {removed}')} RETURNING 1) "
            f"SELECT EXISTS (SELECT FROM recorded), {FENCE_HELD}"
        )

    @cached_property
    def put(self) -> str:
        """Write the row, whatever is there, and remove the tombstone. Values: row, table name, key bytes."""
        table, key = self.after_row(2)
        return (
            "WITH cleared AS (DELETE FROM dualstore.tombstones "
            f"WHERE table_name = {table} AND {is_key(key)}) "
            f"{self.insert} ON CONFLICT ({', '.join(self.key_names)}) DO UPDATE SET {self.excluded} "
            "RETURNING true"
        )

    @cached_property
    def delete(self) -> str:
        """Remove the row, if there is one, and then leave a tombstone. Values: key, table name, key bytes."""
        table, key = self.after_key(2)
        return (
            f"WITH gone AS (DELETE FROM {self.table} WHERE {self.key} RETURNING dualstore_stamp) "
            + self.bury(table, key, "(SELECT dualstore_stamp FROM gone)", "EXISTS (SELECT FROM gone)")
            + " RETURNING true"
        )

    # -- parts -----------------------------------------------------------------------------------

    def after_row(self, count: int) -> tuple[str, ...]:
        """The placeholders of so many values after those of a row."""
        return tuple(f"${len(self.names) + n}" for n in range(1, count + 1))

    def after_key(self, count: int) -> tuple[str, ...]:
        """The placeholders of so many values after those of a key."""
        return tuple(f"${len(self.key_names) + n}" for n in range(1, count + 1))

    @property
    def _key_types(self) -> tuple[str, ...]:
        return self.mapping.cast_types[: len(self.key_names)]

    @cached_property
    def key_values(self) -> tuple[str, ...]:
        """The key's placeholders: its columns come first in a row as in a key."""
        return tuple(f"${n}::{type_}" for n, type_ in enumerate(self._key_types, 1))

    @cached_property
    def key(self) -> str:
        """The condition that a row is the key's."""
        return self.key_of("")

    def key_of(self, prefix: str) -> str:
        """As `key`, of a table with an alias, such as `t.`."""
        pairs = zip(self.key_names, self.key_values, strict=True)
        return " AND ".join(f"{prefix}{name} = {value}" for name, value in pairs)

    @cached_property
    def read(self) -> str:
        """What `TableMapping.decode` takes, and the revision, from the table as `t`."""
        return ", ".join((*self.mapping.read_expressions("t"), f"t.{REVISION}"))

    @cached_property
    def row(self) -> str:
        """The key's row, for EXISTS."""
        return f"SELECT FROM {self.table} WHERE {self.key}"

    @cached_property
    def stamped(self) -> str:
        """A row where the key's row has one of these stamps. Values: key, stamps."""
        (stamps,) = self.after_key(1)
        return f"SELECT 1 FROM {self.table} WHERE {self.key} AND dualstore_stamp = ANY ({stamps}::bytea[])"

    def _has(self, stamp: str) -> str:
        return f"EXISTS ({self.row} AND dualstore_stamp = {stamp})"

    @cached_property
    def insert(self) -> str:
        """Insert the row into the table as `t`; a condition may follow."""
        return (
            f"INSERT INTO {self.table} AS t ({', '.join(self.names)}, {REVISION}) "
            f"SELECT {', '.join(self.mapping.placeholders)}, {NEXT}"
        )

    @cached_property
    def assignments(self) -> str:
        """The row's columns as an UPDATE sets them, but for the key's and the revision."""
        pairs = list(zip(self.names, self.mapping.placeholders, strict=True))
        return ", ".join(f"{name} = {value}" for name, value in pairs[len(self.key_names) :])

    @cached_property
    def excluded(self) -> str:
        """What ON CONFLICT sets: all columns but the key's."""
        written = (*self.names[len(self.key_names) :], REVISION)
        return ", ".join(f"{name} = EXCLUDED.{name}" for name in written)

    def _as_seen(self, table: str, key: str, row: str, tombstone: str) -> str:
        return (
            f"(SELECT {REVISION} FROM {self.table} WHERE {self.key}) IS NOT DISTINCT FROM {row}::bigint "
            f"AND ({self.tombstone(table, key, 'revision')}) IS NOT DISTINCT FROM {tombstone}::bigint"
        )

    @staticmethod
    def tombstone(table: str, key: str, column: str = "") -> str:
        """The key's tombstone."""
        return f"SELECT {column} FROM dualstore.tombstones WHERE table_name = {table} AND {is_key(key)}"

    @staticmethod
    def bury(table: str, key: str, stamp: str, condition: str) -> str:
        """Write the tombstone, over an older one too, where the condition holds."""
        return (
            "INSERT INTO dualstore.tombstones (table_name, key, stamp, revision, deleted_at) "
            f"SELECT {table}::text, {key}::bytea, {stamp}, {NEXT}, clock_timestamp() WHERE {condition} "
            "ON CONFLICT (table_name, sha256(key)) DO UPDATE SET stamp = EXCLUDED.stamp, "
            "revision = EXCLUDED.revision, deleted_at = EXCLUDED.deleted_at"
        )
