"""How a key attribute of a table or index looks in SQL.

A column that holds every value of its type, in DynamoDB's order, *is* the attribute. Of any other attribute
some or all values are in the overflow: that is read as well, which is right but cannot use a plain index.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from dualstore.items import AttributeValue, KeyAttribute, content_of
from dualstore.mapping import OVERFLOW_COLUMN, MappedColumn, TableMapping, escape, quoted


class Values(list[Any]):
    """The values of a statement in the making."""

    def bind(self, value: Any, type_: str) -> str:
        """Add a value of this SQL type; its placeholder."""
        self.append(value)
        return f"${len(self)}::{type_}"


@dataclass(frozen=True, slots=True)
class _KeyType:
    """What values of a DynamoDB key type are in SQL, wherever they are stored."""

    sql: str
    encode: Callable[[Any], Any]
    from_overflow: str
    collation: str = ""


_KEY_TYPES: Mapping[str, _KeyType] = {
    "S": _KeyType("text", escape, "{}", ' COLLATE "C"'),
    "N": _KeyType("numeric", Decimal, "({})::numeric"),
    "B": _KeyType("bytea", bytes, "decode({}, 'base64')"),
}
# Columns of these types show their values to a cast as they are; enumerations, times and floats do not.
_CASTABLE = frozenset({"text", "numeric", "int2", "int4", "int8", "bytea", "uuid"})


@dataclass(frozen=True)
class SqlAttribute:
    """One key attribute in the SQL of one table, whose alias is `t`.

    Attributes:
        key: the attribute.
        column: the column that holds its values, or those that fit; None where there is none.
    """

    key: KeyAttribute
    column: MappedColumn | None

    @property
    def plain(self) -> bool:
        """Whether the column alone is the attribute, order included."""
        return self.column is not None and self.column.total and self.column.sortable

    @property
    def sortable(self) -> bool:
        """Whether SQL can put the attribute in DynamoDB's order."""
        column = self.column
        return column is None or (column.codec.pg_type in _CASTABLE and not column.codec.cast)

    def expression(self, values: Values) -> str:
        """The attribute, null where it is absent; only where it is `sortable`."""
        form = _KEY_TYPES[self.key.type]
        if self.plain:
            return self._column
        parts = [self._from_overflow(values)]
        if self.column is not None:
            parts.insert(0, f"{self._column}::{form.sql}")
        return f"(COALESCE({', '.join(parts)}){form.collation})"

    def equals(self, value: AttributeValue, values: Values) -> str:
        """The condition that the attribute has this value. A value has one place: its column, if it fits."""
        column = self.column
        stored = None if column is None else column.codec.encode(content_of(value))
        if column is not None and stored is not None:
            return f"{self._column} = {values.bind(stored, column.codec.cast or column.codec.pg_type)}"
        return f"{self._from_overflow(values)} = {self.bind(value, values)}"

    def present(self, values: Values) -> str:
        """The condition that the attribute is there, with the type that the key has."""
        if self.column is None:
            return f"{self._from_overflow(values)} IS NOT NULL"
        if self.column.total:
            return f"{self._column} IS NOT NULL"
        return f"({self._column} IS NOT NULL OR {self._from_overflow(values)} IS NOT NULL)"

    def bind(self, value: AttributeValue, values: Values) -> str:
        """A value to compare `expression` with."""
        form = _KEY_TYPES[self.key.type]
        return values.bind(form.encode(content_of(value)), form.sql)

    @cached_property
    def _column(self) -> str:
        return "" if self.column is None else f"t.{quoted(self.column.name)}"

    def _from_overflow(self, values: Values) -> str:
        name = values.bind(escape(self.key.name), "text")
        member = f"t.{quoted(OVERFLOW_COLUMN)} -> {name} ->> '{self.key.type}'"
        return _KEY_TYPES[self.key.type].from_overflow.format(f"({member})")


def sql_attribute(mapping: TableMapping, key: KeyAttribute) -> SqlAttribute:
    """A key attribute of the table or of an index, in SQL."""
    column = mapping.column_of.get(key.name)
    return SqlAttribute(key, column if column is not None and column.type == key.type else None)
