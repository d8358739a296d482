"""What an UpdateItem does to the columns of a row, in the SQL of one table.

A row is changed in place: the columns of the attributes that the update names, and of the overflow those
attributes only. So nobody has to have read the row, but for its size: an item may be 400 KB large, and how
large the one that results is, only its decoded form tells. It is surely small enough where a generous
estimate of the row is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from dualstore.expressions import SqlNumber, SqlUpdate
from dualstore.items import MAX_ITEM_SIZE_BYTES, MAX_SORT_KEY_BYTES, STAMP
from dualstore.mapping import OVERFLOW_COLUMN, MappedColumn, TableMapping, escape, quoted
from dualstore.mapping.codecs import actual_type
from dualstore.stores.postgres.trigger_functions import literal

# A document counts for at most twice its text, since an element counts for a byte more than it says; a text
# in a database with another encoding for at most three times its bytes.
_TIMES = 4
# Numbers, moments, dates and identifiers count for less.
_SHORT_BYTES = 64
_SHORT = frozenset(
    {
        "numeric",
        "int2",
        "int4",
        "int8",
        "float4",
        "float8",
        "bool",
        "uuid",
        "date",
        "timestamp",
        "timestamptz",
    }
)
_PLAIN = frozenset({"text", "varchar", "bytea"})
_DOCUMENTS = frozenset({"json", "jsonb"})
# PostgreSQL holds NaN and infinity to be beyond all other numbers, and DynamoDB none from here on.
_NUMBERS, _BEYOND = frozenset({"numeric", "float4", "float8"}), "1e126"
# Beyond these, infinity included, psycopg reads none, in no time zone.
_LONG = ("0002-01-01 00:00:00+00", "9998-12-31 00:00:00+00")
READABLE_MOMENTS = {"timestamp": _LONG, "timestamptz": _LONG, "date": ("0001-01-01", "9999-12-31")}
"""The first and the last moment of a SQL type that an item can be made of."""
_BITS = {"int2": 15, "int4": 31, "int8": 63}


@dataclass(frozen=True)
class RowUpdates:
    """Updates of the rows of one table."""

    mapping: TableMapping

    @cached_property
    def numbers(self) -> Mapping[str, SqlNumber]:
        """The columns to compute with, of the row `t`."""
        return {
            column.attribute: SqlNumber(f"t.{quoted(column.name)}", holds)
            for column in self.mapping.columns
            if (holds := _held(column)) is not None
        }

    @cached_property
    def readable(self) -> str:
        """The condition that the columns hold what an item can be made of, as far as SQL can see.

        An item that cannot be read must not be written: what would the answer be? Others who write to the
        table may use labels of an enumeration, moments and numbers that are none here.
        """
        return " AND ".join(filter(None, map(_readable, self.mapping.columns))) or "true"

    @cached_property
    def _sized(self) -> tuple[str, int] | None:
        """The part of the row's size that the row tells, in SQL, and the part that all rows share at most.

        None where a column's values are larger than anybody can say.
        """
        if any(column.codec.converted for column in self.mapping.columns):
            return None
        told, shared = [f"coalesce(octet_length(t.{quoted(OVERFLOW_COLUMN)}::text), 0)"], 0
        for column in self.mapping.columns:
            shared += len(column.attribute.encode()) + _SHORT_BYTES
            most = largest_bytes(column)
            if most is not None:
                shared += most
                continue
            size = _told(column)
            if size is None:
                return None
            told.append(f"coalesce(octet_length({size}), 0)")
        return f"{_TIMES} * ({' + '.join(told)})", shared

    @cached_property
    def watched(self) -> Sequence[str]:
        """The keys of indexes that have a column: a row that has one elsewhere is for the evaluator."""
        return [name for name in self._index_keys if name in self.mapping.column_of]

    @cached_property
    def sound(self) -> str:
        """The condition that all indexes can hold the row, but for `watched`; null: they cannot.

        DynamoDB refuses every write to an item that an index of its table cannot hold (AWS, "Detecting and
        correcting index key violations"): there may be such items, older than the index.
        """
        return " AND ".join(map(self._sound, self._index_keys)) or "true"

    @cached_property
    def _index_keys(self) -> Mapping[str, str]:
        """The types of the attributes that are keys of indexes, but for the table's own."""
        shape = self.mapping.shape
        keys = {each.name: each.type for index in shape.indexes.values() for each in index.keys.attributes}
        return {name: type_ for name, type_ in keys.items() if name not in shape.keys.names}

    def _sound(self, name: str) -> str:
        type_, column = self._index_keys[name], self.mapping.column_of.get(name)
        size = f"BETWEEN 1 AND {MAX_SORT_KEY_BYTES}"
        if column is None:
            held = f"t.{quoted(OVERFLOW_COLUMN)} -> {literal(escape(name))}"
            if type_ == "N":
                return f"coalesce({held} ? 'N', true)"
            bytes_ = f"octet_length(convert_to({held} ->> '{type_}', 'UTF8'))"
            return f"CASE WHEN ({held}) IS NULL THEN true ELSE {bytes_} {size} END"
        if column.type != type_ or column.codec.converted:
            return f"t.{quoted(column.name)} IS NULL"
        if column.codec.pg_type in _PLAIN:
            value = f"t.{quoted(column.name)}"
            held = value if type_ == "B" else f"convert_to({value}::text, 'UTF8')"
            return f"coalesce(octet_length({held}) {size}, true)"
        return "true"

    def room(self, added_bytes: int) -> tuple[str, int] | None:
        """How large the rest of a row may be: its estimated size in SQL, and the most that it may be.

        Args:
            added_bytes: the size of what an update sets.

        Returns:
            None where that cannot be said of this table.
        """
        if self._sized is None:
            return None
        told, shared = self._sized
        return told, MAX_ITEM_SIZE_BYTES - shared - added_bytes

    def assignments(self, update: SqlUpdate, touched: str) -> str:
        """What UPDATE sets but for the revision, of the row `t`.

        Args:
            update: its constants and defaults are in the row's own placeholders.
            touched: the placeholder of the names in `touched`.
        """
        mapping, given = (
            self.mapping,
            dict(zip(self.mapping.column_names, self.mapping.placeholders, strict=True)),
        )
        sets = []
        for column in mapping.columns:
            name, value = quoted(column.name), None
            if column.attribute in update.constants:
                value = given[column.name]
            elif column.attribute in update.defaults:
                value = f"coalesce(t.{name}, {given[column.name]})"
            elif column.attribute in update.computed:
                value = f"trim_scale({update.computed[column.attribute]})::{column.cast}"
            elif column.attribute in update.removed:
                value = "NULL"
            if value is not None:
                sets.append(f"{name} = {value}")
        *_, overflow, stamp = mapping.column_names
        old, new = f"t.{quoted(overflow)}", given[overflow]
        left = f"({old} - {touched}::text[]) || coalesce({new}, '{{}}')"
        sets.append(
            f"{quoted(overflow)} = CASE WHEN {old} IS NULL THEN {new} ELSE nullif({left}, '{{}}') END"
        )
        sets.append(f"{quoted(stamp)} = {given[stamp]}")
        return ", ".join(sets)


def touched(update: SqlUpdate) -> Sequence[str]:
    """The attributes that are elsewhere after an update, if they were in the overflow: the stamp is one."""
    return [*update.constants, *update.defaults, *update.computed, *update.removed, STAMP]


_updates: WeakKeyDictionary[TableMapping, RowUpdates] = WeakKeyDictionary()


def row_updates(mapping: TableMapping) -> RowUpdates:
    """Updates of the rows of a table, made once."""
    found = _updates.get(mapping)
    if found is None:
        found = _updates[mapping] = RowUpdates(mapping)
    return found


def _held(column: MappedColumn) -> Callable[[str], str] | None:
    """The condition that a column holds an SQL number as it is; None where it is no column of numbers."""
    codec, type_ = column.codec, actual_type(column.column.type)
    if codec.type != "N" or codec.cast or codec.read_as is not None:
        return None
    if codec.pg_type in _BITS:
        return partial(_held_by_integer, _BITS[codec.pg_type])
    if codec.pg_type != "numeric" or not isinstance(type_, sa.Numeric):
        return None
    if type_.precision is None:
        return lambda _: "true"
    return partial(_held_by_decimal, type_.precision, type_.scale or 0)


def _held_by_integer(bits: int, number: str) -> str:
    return f"{number} = trunc({number}) AND {number} BETWEEN {-(1 << bits)} AND {(1 << bits) - 1}"


def _held_by_decimal(precision: int, scale: int, number: str) -> str:
    return f"{number} = round({number}, {scale}) AND abs({number}) < 1e{precision - scale}"


def largest_bytes(column: MappedColumn) -> int | None:
    """The size of a column's largest value; None where it has none."""
    codec, type_ = column.codec, actual_type(column.column.type)
    if isinstance(type_, sa.Enum):
        members = [] if type_.enum_class is None else [str(each.value) for each in type_.enum_class]
        return max((len(each.encode()) for each in (*type_.enums, *members)), default=0)
    return _SHORT_BYTES if codec.pg_type in _SHORT else None


def _told(column: MappedColumn) -> str | None:
    """A text that is about as large as a column's value; None where there is no telling."""
    codec, name = column.codec, f"t.{quoted(column.name)}"
    if codec.pg_type in _PLAIN:
        return name
    return f"{name}::text" if codec.pg_type in _DOCUMENTS or codec.pg_type.endswith("[]") else None


def _readable(column: MappedColumn) -> str | None:
    """The condition that a column's value can be read; None where every one can, or SQL cannot tell."""
    codec, value = column.codec, f"t.{quoted(column.name)}"
    type_ = actual_type(column.column.type)
    if isinstance(type_, sa.Enum):
        labels = ", ".join(map(literal, type_.enums))
        return f"coalesce({value}::text IN ({labels}), true)"
    if codec.pg_type in _NUMBERS:
        return f"coalesce({value} BETWEEN -{_BEYOND} AND {_BEYOND}, true)"
    if codec.pg_type.removesuffix("[]") in _NUMBERS:
        return f"coalesce({_BEYOND} >= ALL ({value}) AND -{_BEYOND} <= ALL ({value}), {value} IS NULL)"
    if codec.pg_type in READABLE_MOMENTS:
        earliest, latest = (
            f"{codec.pg_type} {literal(moment)}" for moment in READABLE_MOMENTS[codec.pg_type]
        )
        return f"coalesce({value} BETWEEN {earliest} AND {latest}, true)"
    return None
