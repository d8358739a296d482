"""Which values of a DynamoDB type a column of a SQL type holds, exactly, and in which form.

A codec never rounds, trims, pads or reformats: `encode` answers None for a content that would not come
back identical, and the overflow column takes it instead. Where a pair of types is lossless by
construction there is nothing to compare; elsewhere `encode` decodes its own result and compares.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from functools import partial
from struct import error as struct_error
from struct import pack, unpack, unpack_from
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from psycopg.postgres import types as builtins
from psycopg.types.json import Json, Jsonb
from psycopg.types.numeric import NumericBinaryLoader
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from dualstore.items import content_of
from dualstore.mapping.documents import decimal_text, plain_list, plain_map, plain_value
from dualstore.mapping.text import escape, unescape

POSTGRESQL = PGDialect_psycopg()  # type: ignore[no-untyped-call]
_WIDE = Context(prec=400)
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Codec:
    """How contents of one DynamoDB type are held in one column.

    Attributes:
        type: the DynamoDB type, such as `"N"`.
        pg_type: psycopg's name of the type that values are sent as, for `Copy.set_types`.
        encode: from a content to the value to send, or None where it would not come back identical.
        decode: from a stored value to the content.
        total: whether every content of the type fits.
        cast: the SQL type to cast a parameter to, where it is not `pg_type`.
        read_as: the SQL type to cast the column to where it is read, or None to read it as it is.
        sent_by: the SQL expression of `{0}` that makes bytes of the column where it is read, if its text says
            something else for `extra_float_digits` and `bytea_output`, which a role, a database or anybody
            may set.
        converted: whether the column holds what a team's own function makes of a content.
    """

    type: str
    pg_type: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    total: bool = False
    cast: str = ""
    read_as: str | None = None
    sent_by: str = ""
    converted: bool = False


def codec_for(attribute_type: str, column_type: sa.types.TypeEngine[Any]) -> Codec | None:
    """The codec for an attribute of this DynamoDB type in a column of this SQL type.

    Args:
        attribute_type: the DynamoDB type, such as `"S"`.
        column_type: the column's SQLAlchemy type.

    Returns:
        None where dualstore keeps such attributes in the overflow only. Type decorators are among
        those: what they do to a value is known to Python, not to PostgreSQL.
    """
    actual = actual_type(column_type)
    if isinstance(actual, sa.types.TypeDecorator):
        return None
    for type_, sql_class, build in _BUILDERS:
        if type_ == attribute_type and isinstance(actual, sql_class):
            return build(actual)
    return None


def actual_type(column_type: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """The type that a column has on PostgreSQL: what `with_variant` sets aside for it, where it does."""
    # `dialect_impl` would give it too, but not say whether a float is REAL or a string CHAR.
    return column_type._variant_mapping.get(POSTGRESQL.name, column_type)  # noqa: SLF001


def _same(content: Any) -> Any:
    return content


def _text(column_type: sa.String) -> Codec:
    length = column_type.length
    # The same bytes on the wire, but an array names the type of its members.
    pg_type = "varchar" if column_type.compile(dialect=POSTGRESQL).startswith("VARCHAR") else "text"
    if length is None:
        # citext holds every string, but as a key it would confuse two that differ in case only.
        exact = not isinstance(column_type, postgresql.CITEXT)
        return Codec("S", pg_type, escape, unescape, total=exact)

    def encode(text: str) -> str | None:
        stored = escape(text)
        return stored if len(stored) <= length else None

    return Codec("S", pg_type, encode, unescape)


def _padded_text(column_type: sa.CHAR | sa.NCHAR) -> Codec:
    length = column_type.length or 1

    def encode(text: str) -> str | None:
        stored = escape(text)
        return stored if len(stored) == length else None

    return Codec("S", "text", encode, unescape, cast="bpchar")  # psycopg has no dumper for bpchar


def _enumeration(column_type: sa.Enum) -> Codec:
    """Labels; for a Python enumeration of strings, its members' values, whatever SQLAlchemy stores."""
    labels = {label: label for label in column_type.enums}
    if column_type.enum_class is not None:
        values = [member.value for member in column_type.enum_class]
        if len(values) == len(labels) and all(isinstance(value, str) for value in values):
            labels = dict(zip(values, column_type.enums, strict=True))
    texts = {label: text for text, label in labels.items()}
    cast = column_type.compile(dialect=POSTGRESQL) if column_type.native_enum else "text"
    return Codec("S", "text", labels.get, texts.__getitem__, cast=cast, read_as="text")


def _uuid(column_type: sa.Uuid[Any]) -> Codec | None:
    if not column_type.native_uuid:
        return None

    def encode(text: str) -> UUID | None:
        try:
            value = UUID(text)
        except ValueError:
            return None
        return value if str(value) == text else None

    return Codec("S", "uuid", encode, str)


# psycopg cannot read a timestamp whose *local* year, in the session's time zone, is not between 1 and 9999.
_EARLIEST = datetime(2, 1, 1, tzinfo=UTC)
_LATEST = datetime(9998, 12, 31, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _moments(
    type_: str,
    column_type: sa.DateTime,
    read: Callable[[str], datetime],
    write: Callable[[datetime], str],
) -> Codec:
    """Timestamps; a column without time zone holds UTC."""
    precision = getattr(column_type, "precision", None)
    step_microseconds = 1 if precision is None else 10 ** (6 - precision)

    def encode(text: str) -> datetime | None:
        try:
            moment = read(text)
            fits = _EARLIEST <= moment <= _LATEST and moment.microsecond % step_microseconds == 0
        except (ValueError, OverflowError, InvalidOperation, TypeError):
            return None
        if not fits or write(moment) != text:
            return None
        return moment if column_type.timezone else moment.replace(tzinfo=None)

    def decode(moment: datetime) -> str:
        return write(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC))

    return Codec(type_, "timestamptz" if column_type.timezone else "timestamp", encode, decode)


def _utc_text(moment: datetime) -> str:
    """The text of PynamoDB's `UTCDateTimeAttribute`, 31 characters."""
    return f"{moment.isoformat(timespec='microseconds')[:-6]}+0000"


def _from_epoch(text: str) -> datetime:
    microseconds = Decimal(text).scaleb(6, _WIDE)
    return _EPOCH + int(microseconds) * _MICROSECOND


def _epoch_text(moment: datetime) -> str:
    seconds, microseconds = divmod((moment - _EPOCH) // _MICROSECOND, 1_000_000)
    if not microseconds:
        return str(seconds)
    return decimal_text(Decimal(seconds) + Decimal(microseconds).scaleb(-6))


def _date(_: sa.Date) -> Codec:
    def encode(text: str) -> date | None:
        try:
            day = date.fromisoformat(text)
        except ValueError:
            return None
        return day if day.isoformat() == text else None

    return Codec("S", "date", encode, date.isoformat)


def _exact_number(text: str) -> Decimal:
    return Decimal(text) or _ZERO  # `-0` is 0


def _numeric(column_type: sa.Numeric[Any]) -> Codec:
    """`NUMERIC` holds DynamoDB's whole range; `NUMERIC(p, s)` rounds, so what it would round stays out."""
    if column_type.precision is None:
        return Codec("N", "numeric", _exact_number, decimal_text, total=True)
    scale = column_type.scale or 0
    unit, limit = Decimal(1).scaleb(-scale), Decimal(1).scaleb(column_type.precision - scale)

    def encode(text: str) -> Decimal | None:
        value = _exact_number(text)
        return value if abs(value) < limit and value.quantize(unit, context=_WIDE) == value else None

    return Codec("N", "numeric", encode, decimal_text)


def _integer(column_type: sa.Integer) -> Codec:
    bits, pg_type = _INTEGERS[column_type.compile(dialect=POSTGRESQL)]
    limit = 1 << (bits - 1)

    def encode(text: str) -> int | None:
        try:
            value = int(text)
        except ValueError:  # `1.0` and `1E2` are integers too
            exact = Decimal(text)
            if exact.adjusted() > bits or exact != (value := int(exact)):
                return None
        return value if -limit <= value < limit else None

    return Codec("N", pg_type, encode, str)


_INTEGERS = {"SMALLINT": (16, "int2"), "INTEGER": (32, "int4"), "BIGINT": (64, "int8")}
# What is sent says of which type it is; by the sign in front, a domain is sent as what is behind it.
_SENT_ALONE, _SENT = "CASE WHEN {0} IS NOT NULL THEN array_send(ARRAY[+{0}]) END", "array_send({0})"
_REALS = frozenset({"REAL", *(f"FLOAT({precision})" for precision in range(1, 25))})


def _float(column_type: sa.Float[Any]) -> Codec:
    """Binary floating point: the numbers that are the shortest text of some float.

    The column of the database may be of another type of numbers: what it holds is read as it is.
    """
    single = column_type.compile(dialect=POSTGRESQL) in _REALS

    def rounded(value: float) -> float:
        return float(unpack("f", pack("f", value))[0]) if single else value

    def encode(text: str) -> float | None:
        try:
            value = rounded(float(text))
        except (OverflowError, struct_error):
            return None
        return value if Decimal(repr(value)) == Decimal(text) else None

    def decode(stored: float | Decimal | bytes) -> str:
        value = _elements(stored)[0] if isinstance(stored, bytes) else stored
        return decimal_text(Decimal(repr(rounded(value))) if isinstance(value, float) else Decimal(value))

    name = "float4" if single else "float8"
    return Codec("N", name, encode, decode, sent_by=_SENT_ALONE)


def _shortest(value: bytes) -> float:
    """What a `real` holds, taken for the shortest text of it, as PostgreSQL writes it."""
    number: float = unpack(">f", value)[0]
    shortened = (float(f"{number:.{digits}g}") for digits in range(1, 10))
    return next((each for each in shortened if _is_packed(each, value)), number)


def _is_packed(number: float, value: bytes) -> bool:
    try:
        return pack(">f", number) == value
    except OverflowError:  # the widest, rounded up, are none
        return False


def _json(type_: str, write: Callable[[Any], str | None]) -> Callable[[sa.JSON], Codec]:
    def build(column_type: sa.JSON) -> Codec:
        binary = isinstance(column_type, postgresql.JSONB)
        wrap = Jsonb if binary else Json

        def encode(content: Any) -> Json | Jsonb | None:
            text = write(content)
            return None if text is None else wrap(text, dumps=_same)

        def decode(stored: Any) -> Any:
            return content_of(plain_value(json_text(stored)))

        return Codec(type_, "jsonb" if binary else "json", encode, decode, read_as="text")

    return build


class ParsedJson(TypeError):  # noqa: N818 - named for what happened
    """A JSON column was parsed on its way here: a mistake in a statement."""


def json_text(stored: Any) -> str:
    """The text of a JSON column: as it was read with a cast to text, or as it is about to be sent.

    Raises:
        ParsedJson: the column was parsed on its way here, and numbers may have been rounded.
    """
    if isinstance(stored, (Json, Jsonb)):
        stored = stored.obj
    if not isinstance(stored, str):
        raise ParsedJson(
            "read JSON columns as text, with TableMapping.read_expressions: parsing rounds numbers"
        )
    return stored


def jsonb(text: str) -> Jsonb:
    """A JSON text, ready to be sent to a `jsonb` column."""
    return Jsonb(text, dumps=_same)


def _array(type_: str, member_type: str) -> Callable[[sa.ARRAY[Any]], Codec | None]:
    """Sets as arrays of their members."""

    def build(column_type: sa.ARRAY[Any]) -> Codec | None:
        member = _member(column_type, member_type)
        if member is None:
            return None

        def encode(members: Any) -> list[Any] | None:
            values = [member.encode(each) for each in members]
            return None if None in values else values

        def decode(values: Any) -> list[Any]:
            return [member.decode(each) for each in _elements(values)]

        sent_by = _sent_by(member)
        return Codec(type_, f"{member.pg_type}[]", encode, decode, total=member.total, sent_by=sent_by)

    return build


def _list_array(column_type: sa.ARRAY[Any]) -> Codec | None:
    """Lists whose elements are all of one type as arrays of them."""
    member = next(filter(None, (_member(column_type, each) for each in ("S", "N", "B", "BOOL"))), None)
    if member is None:
        return None
    type_ = member.type

    def encode(elements: Any) -> list[Any] | None:
        values = [member.encode(each[type_]) if type_ in each else None for each in elements]
        return None if None in values else values

    def decode(values: Any) -> list[Any]:
        return [{type_: member.decode(each)} for each in _elements(values)]

    return Codec("L", f"{member.pg_type}[]", encode, decode, sent_by=_sent_by(member))


def _sent_by(member: Codec) -> str:
    return _SENT if member.sent_by or member.pg_type == "bytea" else ""


def _elements(values: Any) -> Sequence[Any]:
    """The elements of an array that psycopg has loaded, or in the bytes that `array_send` makes of one.

    These are big-endian numbers of 32 bits (PostgreSQL, `array_send`): dimensions, whether there are nulls,
    the type, for each dimension its length and first index, then for each element its length and its bytes.

    Raises:
        ValueError: it is of several dimensions or of another type, or has a null.
    """
    if not isinstance(values, bytes):
        if any(each is None or isinstance(each, list) for each in values):
            raise ValueError("an array with a null, or of several dimensions")
        return list(values)
    dimensions, _, type_ = unpack_from(">iiI", values)
    if not dimensions:
        return []
    if dimensions != 1:
        raise ValueError(f"an array of {dimensions} dimensions")
    if type_ not in _SENT_ELEMENTS:
        raise ValueError(f"an array of the type with the OID {type_}")
    (count, _), at, load = unpack_from(">ii", values, 12), 20, _SENT_ELEMENTS[type_]
    elements = []
    for _ in range(count):
        (length,) = unpack_from(">i", values, at)
        if length < 0:
            raise ValueError("an array with a null")
        elements.append(load(values[at + 4 : at + 4 + length]))
        at += 4 + length
    return elements


# By OID, which PostgreSQL keeps for the types of its own.
_SENT_ELEMENTS: Mapping[int, Callable[[bytes], Any]] = {
    builtins["bytea"].oid: bytes,
    builtins["float4"].oid: _shortest,
    builtins["float8"].oid: lambda value: unpack(">d", value)[0],
    builtins["numeric"].oid: NumericBinaryLoader(builtins["numeric"].oid).load,
    **{
        builtins[name].oid: partial(int.from_bytes, byteorder="big", signed=True)
        for _, name in _INTEGERS.values()
    },
}


def _member(column_type: sa.ARRAY[Any], member_type: str) -> Codec | None:
    if column_type.dimensions not in (None, 1):
        return None
    codec = codec_for(member_type, column_type.item_type)
    return codec if codec is not None and codec.pg_type in _MEMBER_TYPES and not codec.cast else None


_MEMBER_TYPES = frozenset(
    {"text", "varchar", "uuid", "numeric", "int2", "int4", "int8", "float8", "bytea", "bool"}
)


# The first row that fits decides; a class comes before the classes it derives from.
_BUILDERS: tuple[tuple[str, type[Any], Callable[[Any], Codec | None]], ...] = (
    ("S", sa.Enum, _enumeration),
    ("S", sa.Uuid, _uuid),
    ("S", sa.CHAR, _padded_text),
    ("S", sa.NCHAR, _padded_text),
    ("S", sa.String, _text),
    ("S", sa.DateTime, lambda column_type: _moments("S", column_type, datetime.fromisoformat, _utc_text)),
    ("S", sa.Date, _date),
    ("N", sa.Float, _float),
    ("N", sa.Numeric, _numeric),
    ("N", sa.Integer, _integer),
    ("N", sa.DateTime, lambda column_type: _moments("N", column_type, _from_epoch, _epoch_text)),
    ("B", sa.LargeBinary, lambda _: Codec("B", "bytea", bytes, bytes, total=True)),
    ("BOOL", sa.Boolean, lambda _: Codec("BOOL", "bool", bool, bool, total=True)),
    ("M", sa.JSON, _json("M", plain_map)),
    ("L", sa.JSON, _json("L", plain_list)),
    ("L", sa.ARRAY, _list_array),
    ("SS", sa.ARRAY, _array("SS", "S")),
    ("NS", sa.ARRAY, _array("NS", "N")),
    ("BS", sa.ARRAY, _array("BS", "B")),
)

TYPES: Mapping[str, str] = {
    "S": "Text, String, Enum, Uuid, DateTime or Date",
    "N": "Numeric, BigInteger, Integer, Float or DateTime",
    "B": "LargeBinary",
    "BOOL": "Boolean",
    "M": "JSONB or JSON",
    "L": "JSONB, JSON or ARRAY",
    "SS": "ARRAY(Text)",
    "NS": "ARRAY(Numeric)",
    "BS": "ARRAY(LargeBinary)",
}
"""The SQLAlchemy types that have a codec, by DynamoDB type, as messages name them."""
