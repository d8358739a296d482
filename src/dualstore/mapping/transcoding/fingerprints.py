"""Fingerprints of COPY text: 128 bits for a row, the same for equal rows however they are written."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from struct import iter_unpack
from typing import Any

from dualstore.errors import ConfigurationError
from dualstore.mapping.codecs import Codec
from dualstore.mapping.splits import Mapped
from dualstore.mapping.tables import TableMapping
from dualstore.mapping.transcoding.accelerated import accelerator
from dualstore.mapping.transcoding.forms import Form, fields_of

KEY_BYTES = 16
_ARRAY_HEADER_BYTES = 20


class Kind(IntEnum):
    """What is equal in a field. The numbers are the accelerator's."""

    TEXT = 0
    """Characters."""
    NUMBER = 1
    """Values, whatever their zeros."""
    MOMENT = 2
    """Moments of one zone."""
    JSON = 3
    """Documents, their members in any order."""
    TEXTS = 4
    """Arrays of texts, in any order."""
    NUMBERS = 5
    """Arrays of numbers, in any order."""
    LEFT_OUT = 6
    """Anything at all."""


_KINDS: dict[Form, Kind] = {
    Form.TEXT: Kind.TEXT,
    Form.NUMERIC: Kind.NUMBER,
    Form.DECIMAL: Kind.NUMBER,
    Form.INTEGER: Kind.NUMBER,
    Form.BOOLEAN: Kind.TEXT,
    Form.BINARY: Kind.TEXT,
    Form.MOMENT: Kind.MOMENT,
    Form.JSON: Kind.JSON,
    Form.TEXTS: Kind.TEXTS,
    Form.NUMBERS: Kind.NUMBERS,
}
# What is copied in and what PostgreSQL copies out are alike, character by character.
_WRITTEN_ALIKE = frozenset({"text", "varchar", "date", "uuid"})
# As psycopg writes what a converter makes: an identifier it writes otherwise than PostgreSQL, a moment, too.
_KINDS_CONVERTED = {
    **dict.fromkeys(("text", "date", "bool", "bytea"), Kind.TEXT),
    **dict.fromkeys(("int2", "int4", "int8", "numeric"), Kind.NUMBER),
}


def kinds_of(part: TableMapping) -> tuple[Kind, ...] | None:
    """What is equal in each column, in the order of `part.column_names`.

    Returns:
        None where a column's type is written in ways whose equality only PostgreSQL knows.
    """
    fields = fields_of(part)
    kinds = [_kind(field.form, column.codec) for field, column in zip(fields, part.columns, strict=True)]
    known = [kind for kind in kinds if kind is not None]
    return (*known, Kind.JSON, Kind.LEFT_OUT) if len(known) == len(kinds) else None


def has_fingerprints(mapping: Mapped) -> bool:
    """Whether the accelerator is installed, and knows what is equal in every column of a table."""
    try:
        accelerator()
    except ConfigurationError:
        return False
    return all(kinds_of(part) is not None for part in mapping.parts)


def _kind(form: Form, codec: Codec) -> Kind | None:
    if form is Form.CALLED:
        if codec.cast:
            return _KINDS_CONVERTED.get(codec.pg_type)
        return Kind.TEXT if codec.pg_type in _WRITTEN_ALIKE else None
    return _KINDS[form]


@dataclass(frozen=True, slots=True)
class Taken:
    """The fingerprints of some rows, in their order.

    Attributes:
        count: how many rows.
        sums: of the first halves and of the second ones, as 64 bits with a sign each.
        first: the first halves as PostgreSQL's `bigint[]` in binary.
        second: the second halves.
    """

    count: int
    sums: tuple[int, int]
    first: bytes
    second: bytes

    def pairs(self) -> list[tuple[int, int]]:
        """Both halves of each."""
        return list(zip(_numbers(self.first), _numbers(self.second), strict=True))


def _numbers(array: bytes) -> list[int]:
    return [number for _, number in iter_unpack(">iq", memoryview(array)[_ARRAY_HEADER_BYTES:])]


class Fingerprints:
    """Takes the fingerprints of the rows of one SQL table, with the accelerator.

    Rows of equal content have equal fingerprints; of what the accelerator cannot read as the type of its
    column, only where it is written alike. Rows of different content have different ones, but for a chance
    of 2 to the power of -128 for each pair. Not for several threads at once.

    Args:
        part: the table.
        key: 16 bytes that nobody who writes items can foresee.
        also: how many fields stand before the columns, and count for nothing.

    Raises:
        ConfigurationError: there is no accelerator for this version.
        ValueError: `kinds_of` knows no answer for the table.
    """

    def __init__(self, part: TableMapping, key: bytes, *, also: int = 0) -> None:
        kinds = kinds_of(part)
        if kinds is None:
            raise ValueError("a column of this table is of a type that has no fingerprint")
        all_kinds = tuple(map(int, chain([Kind.LEFT_OUT] * also, kinds)))
        taking: Any = accelerator().Fingerprints(all_kinds, key)
        self._add, self._take = taking.add, taking.take

    @property
    def add(self) -> Callable[[bytes | memoryview], None]:
        """Takes the fingerprints of whole lines of COPY text; raises ValueError where they are none."""
        add: Callable[[bytes | memoryview], None] = self._add
        return add

    def take(self) -> Taken:
        """All that were taken since the last call."""
        count, first_sum, second_sum, first, second = self._take()
        return Taken(count, (first_sum, second_sum), first, second)
