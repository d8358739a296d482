"""Tables of all kinds for the mapping's tests, and items that DynamoDB would accept in them."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from hypothesis import strategies as st
from pynamodb.attributes import (
    BinaryAttribute,
    BinarySetAttribute,
    BooleanAttribute,
    JSONAttribute,
    ListAttribute,
    MapAttribute,
    NumberAttribute,
    NumberSetAttribute,
    TTLAttribute,
    UnicodeAttribute,
    UnicodeSetAttribute,
    UTCDateTimeAttribute,
    VersionAttribute,
)
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, IncludeProjection, LocalSecondaryIndex
from pynamodb.models import Model
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dualstore.items import Item, KeyAttribute, KeySchema, TableShape
from dualstore.mapping import Converter, Mirrored, TableMapping, map_table, unmapped_table


class Base(DeclarativeBase):
    type_annotation_map = {Decimal: sa.Numeric, datetime: sa.DateTime(timezone=True)}  # noqa: RUF012


class Status(StrEnum):
    OPEN = "open"
    SHUT = "shut"
    GONE = "gone away"


class Size(Enum):
    SMALL = 1
    LARGE = 2


class ByStatus(GlobalSecondaryIndex[Any]):
    class Meta:
        index_name = "by_status"
        projection = IncludeProjection(["total"])

    status = UnicodeAttribute(hash_key=True)
    total = NumberAttribute(range_key=True)


class ByPlaced(LocalSecondaryIndex[Any]):
    class Meta:
        index_name = "by_placed"
        projection = AllProjection()

    customer = UnicodeAttribute(hash_key=True, attr_name="c")
    placed = UTCDateTimeAttribute(range_key=True)


class Order(Model):
    """Attributes whose columns hold nearly everything."""

    class Meta:
        table_name = "orders-prod"

    customer = UnicodeAttribute(hash_key=True, attr_name="c")
    number = NumberAttribute(range_key=True)
    status = UnicodeAttribute()
    total = NumberAttribute(null=True)
    note = UnicodeAttribute(null=True, attr_name="n")
    photo: Any = BinaryAttribute(null=True, legacy_encoding=False)
    paid = BooleanAttribute(null=True)
    placed = UTCDateTimeAttribute(null=True)
    expires = TTLAttribute(null=True)
    version = VersionAttribute()
    address: Any = MapAttribute(null=True)
    lines: Any = ListAttribute(null=True)
    tags = UnicodeSetAttribute(null=True)
    sizes = NumberSetAttribute(null=True)
    thumbs: Any = BinarySetAttribute(null=True, legacy_encoding=False)
    settings = JSONAttribute(null=True)
    by_status = ByStatus()
    by_placed = ByPlaced()


class OrderRow(Mirrored, Base):
    __tablename__ = "orders"

    customer: Mapped[str] = mapped_column("customer_id", sa.Text(collation="C"), primary_key=True)
    number: Mapped[Decimal] = mapped_column(primary_key=True)
    status: Mapped[str | None] = mapped_column(sa.Text(collation="C"))
    total: Mapped[Decimal | None]
    remark: Mapped[str | None] = mapped_column(sa.Text, info={"dynamodb": "n"})
    photo: Mapped[bytes | None]
    paid: Mapped[bool | None]
    placed: Mapped[datetime | None]
    expires: Mapped[datetime | None]
    version: Mapped[int | None] = mapped_column(sa.BigInteger)
    address: Mapped[Any | None] = mapped_column(JSONB)
    lines: Mapped[Any | None] = mapped_column(JSONB)
    tags: Mapped[list[str] | None] = mapped_column(sa.ARRAY(sa.Text))
    sizes: Mapped[list[Decimal] | None] = mapped_column(sa.ARRAY(sa.Numeric))
    thumbs: Mapped[list[bytes] | None] = mapped_column(sa.ARRAY(sa.LargeBinary))
    settings: Mapped[Any | None] = mapped_column(JSONB)
    made_by: Mapped[str] = mapped_column(sa.Text, server_default="service")


class Reading(Model):
    """Attributes whose columns are narrow: much of what DynamoDB accepts does not fit them."""

    class Meta:
        table_name = "readings"

    sensor: Any = BinaryAttribute(hash_key=True, legacy_encoding=False)
    status = UnicodeAttribute(null=True)
    size = UnicodeAttribute(null=True)
    label = UnicodeAttribute(null=True)
    code = UnicodeAttribute(null=True)
    trace = UnicodeAttribute(null=True)
    day = UnicodeAttribute(null=True)
    at = UTCDateTimeAttribute(null=True)
    coarse = UTCDateTimeAttribute(null=True)
    since = NumberAttribute(null=True)
    price = NumberAttribute(null=True)
    thousands = NumberAttribute(null=True)
    small = NumberAttribute(null=True)
    medium = NumberAttribute(null=True)
    double = NumberAttribute(null=True)
    single = NumberAttribute(null=True)
    raw: Any = MapAttribute(null=True)
    words: Any = ListAttribute(null=True)
    counts = NumberSetAttribute(null=True)
    short_tags = UnicodeSetAttribute(null=True)


class ReadingRow(Mirrored, Base):
    __tablename__ = "readings"

    sensor: Mapped[bytes] = mapped_column(sa.LargeBinary, primary_key=True)
    status: Mapped[Status | None] = mapped_column(sa.Enum(Status, name="reading_status"))
    size: Mapped[Size | None] = mapped_column(sa.Enum(Size, native_enum=False))
    label: Mapped[str | None] = mapped_column(sa.String(5))
    code: Mapped[str | None] = mapped_column(sa.CHAR(3))
    trace: Mapped[Any | None] = mapped_column(sa.Uuid)
    day: Mapped[date | None]
    at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=False))
    coarse: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True, precision=3))
    since: Mapped[datetime | None]
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(10, 2))
    thousands: Mapped[Decimal | None] = mapped_column(sa.Numeric(4, -3))
    small: Mapped[int | None] = mapped_column(sa.SmallInteger)
    medium: Mapped[int | None] = mapped_column(sa.Integer)
    double: Mapped[float | None] = mapped_column(sa.Double)
    single: Mapped[float | None] = mapped_column(sa.REAL)
    raw: Mapped[Any | None] = mapped_column(sa.JSON)
    words: Mapped[list[str] | None] = mapped_column(sa.ARRAY(sa.Text))
    counts: Mapped[list[int] | None] = mapped_column(sa.ARRAY(sa.Integer))
    short_tags: Mapped[list[str] | None] = mapped_column(sa.ARRAY(sa.String(3)))


class Ware(Model):
    """Attributes whose columns hold what converters make of them."""

    class Meta:
        table_name = "wares"

    name = UnicodeAttribute(hash_key=True)
    price = NumberAttribute(null=True)
    share = NumberAttribute(null=True)
    fill = UnicodeAttribute(null=True)
    token = UnicodeAttribute(null=True)
    since = UnicodeAttribute(null=True)
    seen = UnicodeAttribute(null=True)
    sold = UnicodeAttribute(null=True)
    motto = UnicodeAttribute(null=True)
    seal: Any = BinaryAttribute(null=True, legacy_encoding=False)
    tags = UnicodeSetAttribute(null=True)


CENTS = Converter(lambda text: int(Decimal(text) * 100), lambda cents: str(Decimal(cents) / 100))
PER_MILLE = Converter(lambda text: Decimal(text) * 1000, lambda value: str(value / 1000))
FILLS = Converter(
    {"open": Status.OPEN.name, "": Status.SHUT.name}.__getitem__, {"OPEN": "open", "SHUT": ""}.get
)
TOKENS = Converter(UUID, lambda token: token.hex)
DAYS = Converter(lambda text: datetime.strptime(text, "%Y%m%d").date(), lambda day: f"{day:%Y%m%d}")  # noqa: DTZ007 - a day
MINUTES = Converter(datetime.fromisoformat, lambda moment: moment.isoformat(timespec="minutes"))
FLAGS = Converter({"open": True, "shut": False}.get, lambda is_sold: "open" if is_sold else "shut")
BACKWARDS = Converter(lambda text: text[::-1], lambda text: text[::-1])
SEALS = Converter(
    lambda data: bytes(255 - each for each in data), lambda data: bytes(255 - each for each in data)
)
WORDS = Converter(lambda members: " ".join(sorted(members)), str.split)


def _converted(type_: Any, converter: Converter) -> Any:
    return mapped_column(type_, info={"converter": converter})


class WareRow(Mirrored, Base):
    __tablename__ = "wares"

    name: Mapped[str] = mapped_column(sa.Text(collation="C"), primary_key=True)
    price: Mapped[int | None] = _converted(sa.BigInteger, CENTS)
    share: Mapped[Decimal | None] = _converted(sa.Numeric(12, 1), PER_MILLE)
    fill: Mapped[Status | None] = _converted(sa.Enum(Status, name="reading_status"), FILLS)
    token: Mapped[Any | None] = _converted(sa.Uuid, TOKENS)
    since: Mapped[date | None] = _converted(sa.Date, DAYS)
    seen: Mapped[datetime | None] = _converted(sa.DateTime(timezone=True), MINUTES)
    sold: Mapped[bool | None] = _converted(sa.Boolean, FLAGS)
    motto: Mapped[str | None] = _converted(sa.String(6), BACKWARDS)
    seal: Mapped[bytes | None] = _converted(sa.LargeBinary, SEALS)
    tags: Mapped[str | None] = _converted(sa.Text, WORDS)


WARES = map_table("wares", Ware, WareRow)
ORDERS = map_table("orders", Order, OrderRow)
READINGS = map_table("readings", Reading, ReadingRow)
SESSIONS = unmapped_table(
    "sessions",
    TableShape("sessions-prod", KeySchema(KeyAttribute("user", "N"), KeyAttribute('odd "name"', "S"))),
    metadata=Base.metadata,
)
MAPPINGS = {mapping.logical_name: mapping for mapping in (ORDERS, READINGS, SESSIONS, WARES)}

# Texts that are special to a column of some kind, and near misses of them.
_SPECIAL_TEXTS = [
    "", "\x00", "\x01", "\x01\x02\x00", "open", "OPEN", "shut", "SMALL", "1", "ab ", "abc", "abcde", "abcdef",
    "gone away", "2020-02-29", "2021-02-29", "0001-01-01", "9999-12-31", "20200229", "2020-W01-1",
    "2024-05-06T07:08:09.123456+0000", "2024-05-06T07:08:09.123000+0000", "2024-05-06T07:08:09.123456+0100",
    "0001-01-01T00:00:00.000000+0000", "9999-12-31T23:59:59.999999+0000", "2024-05-06T07:08:09+0000",
    "2024-05-06T24:00:00.000000+0000", "2024-05-06", "2024-05-06T07:08:09.123456", "2024-05-06T07:08+00:00",
    "2024-05-06T07:08+05:30",
    "f47ac10b-58cc-4372-a567-0e02b2c3d479", "F47AC10B-58CC-4372-A567-0E02B2C3D479",
    "f47ac10b58cc4372a5670e02b2c3d479", '{"a": 1}', "null", '"', "\\u0000", "\\", "é", "\uffff", "\U00010000",
]  # fmt: skip
_SPECIAL_NUMBERS = [
    "0", "-0", "1", "1.0", "1E2", "-1", "0.1", "0.5", "1.23", "1.234", "12345678.90", "123456789.01",
    "32767", "32768", "-32768", "-32769", "2147483647", "2147483648", "9223372036854775807",
    "9223372036854775808", "1000", "1500", "9999000", "10000000", "16777216", "16777217", "3.4e38", "0.1e-6",
    "9.9999999999999999999999999999999999999E+125", "1E-130", "-1E-130", "1E125", "1700000000",
    "1700000000.123456", "1700000000.1234567", "-62135596800", "-62135596801", "253402300799", "253402300800",
    "12345678901234567890123456789012345678", "0.00000000000000000000000000000000000001",
]  # fmt: skip

texts = st.sampled_from(_SPECIAL_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = (
    st.sampled_from(_SPECIAL_NUMBERS)
    | st.integers(-(10**38) + 1, 10**38 - 1).map(str)
    | st.builds(
        lambda digits, exponent: f"{digits}E{exponent}",
        st.integers(-(10**18), 10**18),
        st.integers(-100, 100),
    )
)
binaries = st.binary(max_size=8)
moments = st.datetimes(timezones=st.just(UTC)).map(
    lambda moment: f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}+0000"
)


def _sets(members: st.SearchStrategy[Any], *, key: Callable[[Any], Any] | None = None) -> Any:
    return st.lists(members, min_size=1, max_size=4, unique_by=key or (lambda member: member))


_CONTENTS: dict[str, st.SearchStrategy[Any]] = {
    "S": texts | moments,
    "N": numbers,
    "B": binaries,
    "BOOL": st.booleans(),
    "NULL": st.just(True),
    "SS": _sets(texts),
    "NS": _sets(numbers, key=Decimal),
    "BS": _sets(binaries),
}


def _of_type(type_: str, contents: st.SearchStrategy[Any]) -> st.SearchStrategy[Item]:
    return contents.map(lambda content: {type_: content})


scalars = st.one_of([_of_type(type_, contents) for type_, contents in _CONTENTS.items()])
values = st.recursive(
    scalars,
    lambda inner: (
        _of_type("L", st.lists(inner, max_size=4))
        | _of_type("M", st.dictionaries(texts.filter(bool), inner, max_size=4))
    ),
    max_leaves=8,
)
"""Any attribute value that DynamoDB accepts."""

plain_values = st.recursive(
    st.one_of([_of_type(type_, _CONTENTS[type_]) for type_ in ("S", "N", "BOOL", "NULL")]),
    lambda inner: (
        _of_type("L", st.lists(inner, max_size=4))
        | _of_type("M", st.dictionaries(texts.filter(bool), inner, max_size=4))
    ),
    max_leaves=8,
)
"""A value that a JSON column holds as it is: no binary, no sets."""
_TYPED = {
    **{type_: _of_type(type_, contents) for type_, contents in _CONTENTS.items()},
    "L": _of_type("L", st.lists(plain_values, max_size=4) | st.lists(_of_type("S", texts), max_size=4)),
    "M": _of_type("M", st.dictionaries(texts.filter(bool), plain_values, max_size=4)),
}


@st.composite
def items(draw: st.DrawFn, mapping: TableMapping) -> Item:
    """An item of the table: mostly of the declared types, sometimes of others, with unknown attributes."""
    item: Item = {
        attribute.name: draw(_of_type(attribute.type, _CONTENTS[attribute.type].filter(bool)))
        for attribute in mapping.shape.keys.attributes
    }
    for column in mapping.columns[len(item) :]:
        match draw(st.integers(0, 9)):
            case 0 | 1:
                continue
            case 2:
                item[column.attribute] = draw(values)
            case _:
                item[column.attribute] = draw(_TYPED[column.type])
    for name in draw(st.lists(texts.filter(bool), max_size=2)):
        item.setdefault(name, draw(values))
    if draw(st.booleans()):
        item["_dsv"] = draw(_of_type("B", st.binary(min_size=16, max_size=16)) | values)
    return item
