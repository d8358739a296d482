"""Columns that hold what a team's own functions make of an attribute.

A converter is Python: PostgreSQL cannot compare, order or compute with what the attribute was. So such a
column is read and written, and everything else about its attribute the evaluator decides.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from dualstore.errors import MappingError
from dualstore.items import content_of, normalized
from dualstore.mapping.codecs import POSTGRESQL, Codec, actual_type

_CONTENTS: Mapping[str, type] = {"S": str, "N": str, "BOOL": bool, "NULL": bool}
_ONE, _WIDE = Decimal(1), Context(prec=1000)  # as NUMERIC(precision, scale) has at most
_INTEGER_BITS = {"SMALLINT": (16, "int2"), "INTEGER": (32, "int4"), "BIGINT": (64, "int8")}


@dataclass(frozen=True, slots=True)
class Converter:
    """How an attribute's content becomes the value of its column, and the value the content again.

    ```python
    cents = Converter(lambda text: int(Decimal(text) * 100), lambda value: str(Decimal(value) / 100))
    price: Mapped[int | None] = mapped_column(BigInteger, info={"converter": cents})
    ```

    Nothing is lost where a function is wrong or narrow: what does not come back identical, or for which
    a function raises or `to_column` answers None, is in the overflow. Both must be pure, and stay as they are
    while the column has values: what they made before is read by them later.

    Attributes:
        to_column: from the content of the attribute's DynamoDB type (`"12.5"` of `{"N": "12.5"}`, a number in
            its one text) to the value that psycopg sends to the column: str, int, Decimal, datetime, bytes …
        from_column: from the value that psycopg reads to the content.
    """

    to_column: Callable[[Any], Any]
    from_column: Callable[[Any], Any]


def converted(
    converter: object, attribute_type: str, column_type: sa.types.TypeEngine[Any], *, at: str
) -> Codec:
    """The codec of a column with a converter.

    Args:
        converter: what stands in the column's `info`.
        attribute_type: the DynamoDB type of the attribute.
        column_type: the column's SQLAlchemy type; of a type decorator that which it decorates.
        at: what is mapped, for the error.

    Raises:
        MappingError: it is no converter, or the column is of a type that converters do not fill.
    """
    if not isinstance(converter, Converter):
        raise MappingError(
            f'{at}: info={{"converter": …}} holds a {type(converter).__name__}: give a '
            "dualstore.mapping.Converter(to_column, from_column)"
        )
    sent = _sent_as(actual_type(column_type))
    if sent is None:
        raise MappingError(
            f"{at}: a converter fills no column of type {column_type!r}: declare it as Text, "
            "Numeric(precision, scale), an integer, Boolean, LargeBinary, Uuid, Enum, DateTime or Date"
        )

    def decode(stored: Any) -> Any:
        # psycopg reads a moment in the session's time zone, which is not for a function to see.
        is_aware = isinstance(stored, datetime) and stored.tzinfo is not None
        content = converter.from_column(stored.astimezone(UTC) if is_aware else stored)
        if not isinstance(content, _CONTENTS.get(attribute_type, object)):
            raise TypeError(f"a converter gives {type(content).__name__} for {attribute_type}")
        return content_of(normalized({attribute_type: content}))

    def encode(content: Any) -> Any:
        try:
            stored = converter.to_column(content)
            read = None if stored is None else sent.as_read(stored)
            is_same = read is not None and _text_of(decode(read)) == _text_of(
                content_of(normalized({attribute_type: content}))
            )
        except Exception:  # noqa: BLE001 - what a team's function may raise nobody can list, and the overflow takes it
            return None
        return stored if is_same else None

    return Codec(
        attribute_type,
        sent.pg_type,
        encode,
        decode,
        cast=sent.cast,
        read_as=sent.read_as,
        converted=True,
    )


def _text_of(content: Any) -> str:
    """A text that tells contents apart which Python calls equal: to it True is 1, and to JSON it is not."""
    return json.dumps(content, sort_keys=True, default=repr)


@dataclass(frozen=True, slots=True)
class _Sent:
    """How values are sent to a column.

    Attributes:
        pg_type: see `Codec`.
        cast: see `Codec`; never empty, by which everybody knows a column that is not the attribute itself.
        as_read: a value as the column gives it back, or None where it does not hold it.
        read_as: see `Codec`.
    """

    pg_type: str
    cast: str
    as_read: Callable[[Any], Any]
    read_as: str | None = None


def _sent_as(type_: sa.types.TypeEngine[Any]) -> _Sent | None:
    if isinstance(type_, sa.types.TypeDecorator):
        type_ = actual_type(type_.impl_instance)
    # What rounds, what psycopg knows nothing of, and what calls equal what a function may tell apart: two
    # texts, or 1.5 and 1.50.
    if isinstance(type_, sa.Float | postgresql.CITEXT) or getattr(type_, "native_uuid", True) is False:
        return None
    if isinstance(type_, sa.Numeric) and type_.precision is None:
        return None
    return next((build(type_) for class_, build in _BUILDERS if isinstance(type_, class_)), None)


def _enumeration(type_: sa.Enum) -> _Sent:
    labels = {label: label for label in type_.enums}
    cast = type_.compile(dialect=POSTGRESQL) if type_.native_enum else "text"
    return _Sent("text", cast, labels.get, read_as="text")


def _text(type_: sa.String) -> _Sent:
    shortest, longest = 0, float("inf") if type_.length is None else type_.length
    is_padded = isinstance(type_, sa.CHAR | sa.NCHAR)
    if is_padded:
        shortest = longest = type_.length or 1

    def as_read(value: Any) -> str | None:
        holds = isinstance(value, str) and "\0" not in value and shortest <= len(value) <= longest
        # A lone surrogate, which no database takes, raises.
        return value.encode().decode() if holds else None

    return _Sent("text", "bpchar" if is_padded else "text", as_read)


def _integer(type_: sa.Integer) -> _Sent:
    bits, name = _INTEGER_BITS[type_.compile(dialect=POSTGRESQL)]
    limit = 1 << (bits - 1)
    return _Sent(name, name, lambda value: value if type(value) is int and -limit <= value < limit else None)


def _number(type_: sa.Numeric[Any]) -> _Sent:
    scale = type_.scale or 0
    unit, limit = _ONE.scaleb(-scale), _ONE.scaleb((type_.precision or 0) - scale)

    def as_read(value: Any) -> Decimal | None:
        """With as many digits behind the point as the column gives, and no `-0`."""
        if not isinstance(value, Decimal) or not abs(value) < limit:
            return None
        read = abs(value).quantize(unit, context=_WIDE).copy_sign(value or _ONE)
        return read if read == value else None

    return _Sent("numeric", "numeric", as_read)


def _moment(type_: sa.DateTime) -> _Sent:
    precision = getattr(type_, "precision", None)
    step_microseconds = 1 if precision is None else 10 ** (6 - precision)

    def as_read(value: Any) -> datetime | None:
        if not isinstance(value, datetime) or (value.tzinfo is None) is type_.timezone:
            return None
        # psycopg reads no year that is not between 1 and 9999 in the session's zone.
        holds = 1 < value.year < 9999 and value.microsecond % step_microseconds == 0  # noqa: PLR2004
        return value if holds else None

    name = "timestamptz" if type_.timezone else "timestamp"
    return _Sent(name, name, as_read)


def _plain(name: str, python: type) -> Callable[[Any], _Sent]:
    return lambda _: _Sent(name, name, lambda value: value if type(value) is python else None)


# The first row that fits decides; a class comes before the classes it derives from.
_BUILDERS: tuple[tuple[type[Any], Callable[[Any], _Sent]], ...] = (
    (sa.Enum, _enumeration),
    (sa.Uuid, _plain("uuid", UUID)),
    (sa.String, _text),
    (sa.DateTime, _moment),
    (sa.Date, _plain("date", date)),
    (sa.Numeric, _number),
    (sa.Integer, _integer),
    (sa.LargeBinary, _plain("bytea", bytes)),
    (sa.Boolean, _plain("bool", bool)),
)
