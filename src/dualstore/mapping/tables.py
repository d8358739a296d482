"""How a DynamoDB table is held in a SQL table: an item as a row, and the row as the item."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
import sqlalchemy as sa

from dualstore.items import PREDECESSOR, STAMP, AttributeValue, Item, Key, TableShape
from dualstore.mapping.codecs import Codec, ParsedJson, json_text, jsonb
from dualstore.mapping.documents import typed_item, typed_json
from dualstore.mapping.rows import OVERFLOW_COLUMN, STAMP_COLUMN
from dualstore.mapping.text import quoted

_STAMP_SIZE_BYTES = 16


class Unfit(Exception):  # noqa: N818 - said of a value, which is in order
    """A value does not come back identical from its column, so the overflow holds it."""


class Unreadable(psycopg.DataError):
    """A row holds what no item can be made of, or psycopg no value; the message shows nothing of it.

    As psycopg says itself of values that it cannot load.
    """


@dataclass(frozen=True, slots=True)
class MappedColumn:
    """A DynamoDB attribute and the SQL column that holds it.

    Attributes:
        attribute: the attribute's name in DynamoDB.
        column: the SQL column.
        codec: how values are held.
    """

    attribute: str
    column: sa.Column[Any]
    codec: Codec

    @property
    def name(self) -> str:
        """The column's name in PostgreSQL."""
        return str(self.column.name)

    @property
    def type(self) -> str:
        """The DynamoDB type that the column holds, such as `"S"`; other types go to the overflow."""
        return self.codec.type

    @property
    def cast(self) -> str:
        """The SQL type to cast a parameter for the column to."""
        return self.codec.cast or self.codec.pg_type

    @property
    def read_type(self) -> str:
        """The SQL type of what `read` selects."""
        return "bytea" if self.codec.sent_by else self.codec.read_as or self.cast

    @property
    def total(self) -> bool:
        """Whether the column holds every value of its DynamoDB type.

        Only then is a NULL in the column an attribute that is missing or of another type.
        """
        return self.codec.total

    @property
    def sortable(self) -> bool:
        """Whether PostgreSQL orders the column as DynamoDB orders the attribute."""
        if self.codec.type == "S":
            return self.total and getattr(self.column.type, "collation", None) in BYTEWISE
        return not self.codec.cast and self.codec.pg_type in {"numeric", "int2", "int4", "int8", "bytea"}

    def encode(self, value: AttributeValue) -> Any:
        """The value to send to the column.

        Raises:
            Unfit: the column cannot hold this value exactly.
        """
        stored = self.codec.encode(value[self.codec.type]) if self.codec.type in value else None
        if stored is None:
            raise Unfit(f"a value of attribute {self.attribute!r} does not fit column {self.name!r}")
        return stored

    def read(self, expression: str) -> str:
        """What to select for `decode`, where an SQL expression is the column's value."""
        codec = self.codec
        if codec.sent_by:
            return codec.sent_by.format(expression)
        return f"{expression}::{codec.read_as}" if codec.read_as else expression

    def decode(self, stored: Any) -> AttributeValue:
        """The attribute value behind what the column holds (not NULL), as sent or as `read` gives it."""
        return {self.codec.type: self.codec.decode(stored)}


BYTEWISE = frozenset({"C", "POSIX", "ucs_basic"})
"""Collations under which PostgreSQL orders text by its UTF-8 bytes."""


@dataclass(frozen=True, eq=False, repr=False)
class TableMapping:
    """A DynamoDB table, the SQL table that holds its items, and the way between them.

    Attributes:
        logical_name: the table's name in flags, configuration and metrics.
        shape: its shape in DynamoDB; `shape.name` is the physical name.
        table: the SQL table.
        columns: the attributes that have columns, key attributes first.
        notes: what its owner may not expect, a sentence each: columns that stay NULL or may refuse items.
    """

    logical_name: str
    shape: TableShape
    table: sa.Table
    columns: tuple[MappedColumn, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<TableMapping {self.logical_name}: {self.shape.name} in {self.table.fullname}>"

    @property
    def parts(self) -> tuple["TableMapping", ...]:
        """The SQL tables that hold the items: this one. `SplitMapping` has several."""
        return (self,)

    def place_of(self, item: Item) -> int:  # noqa: ARG002 - every item is in the one part
        """The number of the part that holds an item."""
        return 0

    @cached_property
    def key_columns(self) -> tuple[MappedColumn, ...]:
        """The partition key's column and, where there is one, the sort key's."""
        return self.columns[: len(self.shape.keys.names)]

    @cached_property
    def column_of(self) -> dict[str, MappedColumn]:
        """The mapped columns by DynamoDB attribute name."""
        return {column.attribute: column for column in self.columns}

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The SQL columns in the order of `encode` and `decode`."""
        return (*(column.name for column in self.columns), OVERFLOW_COLUMN, STAMP_COLUMN)

    @cached_property
    def pg_types(self) -> tuple[str, ...]:
        """The types that `encode` answers, by psycopg's names, for `Copy.set_types`."""
        return (*(column.codec.pg_type for column in self.columns), "jsonb", "bytea")

    @cached_property
    def cast_types(self) -> tuple[str, ...]:
        """The SQL types to cast the parameters from `encode` to, in the order of `column_names`."""
        return (*(column.cast for column in self.columns), "jsonb", "bytea")

    @cached_property
    def placeholders(self) -> tuple[str, ...]:
        """The parameters from `encode`, numbered and cast, such as `$1::text`."""
        return tuple(f"${number}::{type_}" for number, type_ in enumerate(self.cast_types, 1))

    @cached_property
    def key_types(self) -> tuple[str, ...]:
        """The SQL types to cast the parameters from `encode_key` to."""
        return tuple(column.cast for column in self.key_columns)

    def read_expressions(self, alias: str | None = None) -> tuple[str, ...]:
        """What to select for `decode`.

        Args:
            alias: what the statement calls the table, where a column's name alone would not do.

        Returns:
            The quoted columns in the order of `column_names`, as text or bytes where digits would be lost.
        """
        prefix = "" if alias is None else f"{alias}."
        *named, overflow, stamp = (f"{prefix}{quoted(name)}" for name in self.column_names)
        read = (column.read(name) for column, name in zip(self.columns, named, strict=True))
        return (*read, f"{overflow}::text", stamp)

    @cached_property
    def _encoders(self) -> tuple[tuple[str, str, Callable[[Any], Any]], ...]:
        return tuple((column.attribute, column.type, column.codec.encode) for column in self.columns)

    @cached_property
    def _decoders(self) -> tuple[tuple[str, str, Callable[[Any], Any]], ...]:
        return tuple((column.attribute, column.type, column.codec.decode) for column in self.columns)

    def encode(self, item: Item) -> tuple[Any, ...]:
        """The row that holds an item.

        Args:
            item: an item that DynamoDB accepts; never changed. Its `_dsp` is dropped.

        Returns:
            Values for psycopg in the order of `column_names`, for parameters as for `Copy.write_row`
            after `Copy.set_types(mapping.pg_types)`.
        """
        rest = item.copy()
        row: list[Any] = []
        for attribute, type_, encode in self._encoders:
            value = rest.get(attribute)
            stored = encode(value[type_]) if value is not None and type_ in value else None
            if stored is not None:
                del rest[attribute]
            row.append(stored)
        rest.pop(PREDECESSOR, None)
        stamp = rest.get(STAMP, {}).get("B")
        if stamp is not None and len(stamp) == _STAMP_SIZE_BYTES:
            del rest[STAMP]
        else:
            stamp = None
        row.append(jsonb(typed_json(rest)) if rest else None)
        row.append(stamp)
        return tuple(row)

    def decode(self, row: Sequence[Any]) -> Item:
        """The item that a row holds; the inverse of `encode`.

        Args:
            row: what PostgreSQL answers for `read_expressions`, or what `encode` answered.

        Returns:
            The item, numbers in their canonical text, `_dsv` where the row is stamped.

        Raises:
            Unreadable: somebody else has written to a column what no attribute is made of.
        """
        *stored, overflow, stamp = row
        text = None if overflow is None else json_text(overflow)
        attribute = OVERFLOW_COLUMN
        try:
            item: Item = {} if text is None else typed_item(text)
            for value, (attribute, type_, decode) in zip(stored, self._decoders, strict=True):
                if value is not None:
                    item[attribute] = {type_: decode(value)}
        except ParsedJson:
            raise
        except Exception as error:  # noqa: BLE001 - a converter may raise anything, and its text may be the value
            place = OVERFLOW_COLUMN if attribute == OVERFLOW_COLUMN else self.column_of[attribute].name
            raise Unreadable(
                f"column {place!r} of {self.table.fullname!r} holds what is no attribute "
                f"({type(error).__name__}): look at it in SQL"
            ) from None
        if stamp is not None:
            item[STAMP] = {"B": stamp}
        return item

    def encode_key(self, key: Key) -> tuple[Any, ...]:
        """The values of `key_columns` for a key, or for an item that holds one."""
        return tuple(column.encode(key[column.attribute]) for column in self.key_columns)
