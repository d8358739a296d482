"""In which form COPY takes a column's attribute: the codec's rule of what fits, told again for speed."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import sqlalchemy as sa
from psycopg.adapt import PyFormat, Transformer

from dualstore.items import MAX_PARTITION_KEY_BYTES, MAX_SORT_KEY_BYTES
from dualstore.mapping.codecs import Codec, actual_type
from dualstore.mapping.tables import MappedColumn, TableMapping
from dualstore.mapping.transcoding.parsed import restored
from dualstore.mapping.transcoding.texts import copy_field


class Form(IntEnum):
    """How a content becomes a field of COPY text. The numbers are the accelerator's."""

    TEXT = 0
    """A string, of `limit` characters at most."""
    NUMERIC = 1
    """A number of any size."""
    DECIMAL = 2
    """A number with `limit` digits before the point and `scale` behind it at most."""
    INTEGER = 3
    """A whole number of `limit` bits, sign included."""
    BOOLEAN = 4
    BINARY = 5
    MOMENT = 6
    """PynamoDB's text of a moment, in steps of `limit` microseconds; `scale`: 1 for a column with a zone."""
    JSON = 7
    """A map or list as plain JSON."""
    TEXTS = 8
    """A set of strings as an array."""
    NUMBERS = 9
    """A set of numbers as an array."""
    CALLED = 10
    """Anything else: the codec itself is asked, through `Field.call`."""


UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class Field:
    """How one column is filled.

    Attributes:
        attribute: the attribute's name in DynamoDB.
        type: the DynamoDB type that the column holds.
        form: how.
        limit: see the forms.
        scale: see the forms.
        key_bytes: the most bytes of a key attribute, 0 where it is none. A key without it is no key.
        call: for `CALLED`: from a content, as it was parsed and found valid, to the field, or None where the
            overflow holds it.
    """

    attribute: str
    type: str
    form: Form
    limit: int = UNLIMITED
    scale: int = 0
    key_bytes: int = 0
    call: Callable[[Any], str | None] | None = None


def fields_of(mapping: TableMapping) -> tuple[Field, ...]:
    """How each mapped column of a table is filled, in the order of `mapping.columns`."""
    key_bytes = dict(
        zip(mapping.shape.keys.names, (MAX_PARTITION_KEY_BYTES, MAX_SORT_KEY_BYTES), strict=False)
    )
    return tuple(_field(column, key_bytes.get(column.attribute, 0)) for column in mapping.columns)


_SIMPLE: dict[tuple[str, str], tuple[Form, int]] = {
    ("N", "int2"): (Form.INTEGER, 16),
    ("N", "int4"): (Form.INTEGER, 32),
    ("N", "int8"): (Form.INTEGER, 64),
    ("B", "bytea"): (Form.BINARY, UNLIMITED),
    ("BOOL", "bool"): (Form.BOOLEAN, UNLIMITED),
    ("M", "jsonb"): (Form.JSON, UNLIMITED),
    ("M", "json"): (Form.JSON, UNLIMITED),
    ("L", "jsonb"): (Form.JSON, UNLIMITED),
    ("L", "json"): (Form.JSON, UNLIMITED),
    ("SS", "text[]"): (Form.TEXTS, UNLIMITED),
    ("NS", "numeric[]"): (Form.NUMBERS, UNLIMITED),
}


def _field(column: MappedColumn, key_bytes: int) -> Field:
    codec = column.codec
    form, limit, scale = _form(codec, actual_type(column.column.type))
    call = _through(codec) if form is Form.CALLED else None
    return Field(column.attribute, codec.type, form, limit, scale, key_bytes, call)


def _form(codec: Codec, column_type: sa.types.TypeEngine[Any]) -> tuple[Form, int, int]:
    if codec.cast:  # not the attribute itself: a label, padded, or what a converter makes of it
        return Form.CALLED, UNLIMITED, 0
    match codec.type, codec.pg_type:
        case simple if simple in _SIMPLE and (codec.total or simple[0] not in {"SS", "NS"}):
            return *_SIMPLE[simple], 0
        case "S", ("text" | "varchar") if isinstance(column_type, sa.String):
            return Form.TEXT, UNLIMITED if column_type.length is None else column_type.length, 0
        case "N", "numeric" if isinstance(column_type, sa.Numeric):
            return _numeric(column_type)
        case "S", ("timestamp" | "timestamptz") as pg_type:
            precision = getattr(column_type, "precision", None)
            step = 1 if precision is None else 10 ** (6 - precision)
            return Form.MOMENT, step, int(pg_type == "timestamptz")
        case _:
            return Form.CALLED, UNLIMITED, 0


def _numeric(column_type: sa.Numeric[Any]) -> tuple[Form, int, int]:
    if column_type.precision is None:
        return Form.NUMERIC, UNLIMITED, 0
    scale = column_type.scale or 0
    if 0 <= scale <= column_type.precision:
        return Form.DECIMAL, column_type.precision - scale, scale
    return Form.CALLED, UNLIMITED, 0


def _through(codec: Codec) -> Callable[[Any], str | None]:
    """The field for what the codec answers, as psycopg would write it."""
    if (
        codec.pg_type == "uuid" and not codec.cast
    ):  # its text is the content: as PostgreSQL writes it, not as psycopg does
        return lambda content: None if codec.encode(content) is None else content
    dumped = _BINARIES.get(codec.pg_type) or _dumped()

    def call(content: Any) -> str | None:
        stored = codec.encode(restored(codec.type, content))
        return None if stored is None else copy_field(dumped(stored))

    return call


def _dumped() -> Callable[[Any], str]:
    transformer = Transformer()
    return lambda stored: bytes(transformer.get_dumper(stored, PyFormat.TEXT).dump(stored) or b"").decode()


def _dumped_binary(stored: bytes) -> str:
    return rf"\x{stored.hex()}"


def _dumped_binaries(stored: list[bytes]) -> str:
    return "{" + ",".join([f'"\\\\x{each.hex()}"' for each in stored]) + "}"


# Without a connection psycopg would have libpq escape binary as for servers before 9.1.
_BINARIES: dict[str, Callable[[Any], str]] = {"bytea": _dumped_binary, "bytea[]": _dumped_binaries}
