"""Which values fit which columns, and what is sent for them."""

import math
import struct
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from dualstore.mapping import codec_for


class Status(StrEnum):
    OPEN = "open"
    SHUT = "shut"


class Size(Enum):
    SMALL = 1
    LARGE = 2


MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
LABELS = sa.Enum(Status, values_callable=lambda statuses: [status.value for status in statuses])


@pytest.mark.parametrize(
    ("attribute_type", "column_type", "content", "stored"),
    [
        ("S", sa.Text(), "a\x00b", "a\x01\x01b"),
        ("S", sa.String(3), "abc", "abc"),
        ("S", sa.Enum("open", "shut", name="state"), "open", "open"),
        ("S", sa.Enum(Status), "open", "OPEN"),
        ("S", LABELS, "open", "open"),
        ("S", sa.Enum(Size), "SMALL", "SMALL"),
        ("S", sa.Uuid(), str(uuid.UUID(int=5)), uuid.UUID(int=5)),
        ("S", sa.DateTime(timezone=True), "2024-05-06T07:08:09.123456+0000", MOMENT),
        ("S", sa.DateTime(), "2024-05-06T07:08:09.123456+0000", MOMENT.replace(tzinfo=None)),
        ("S", sa.Date(), "2024-02-29", date(2024, 2, 29)),
        ("N", sa.Numeric(), "1E-130", Decimal("1E-130")),
        ("N", sa.Numeric(4, 2), "12.30", Decimal("12.3")),
        ("N", sa.SmallInteger(), "-32768", -32768),
        ("N", sa.Integer(), "1E2", 100),
        ("N", sa.BigInteger(), "9223372036854775807", 9223372036854775807),
        ("N", sa.Float(), "0.1", 0.1),
        ("N", sa.REAL(), "0.5", 0.5),
        ("N", sa.DateTime(timezone=True), "1714979289.123456", MOMENT),
        ("B", sa.LargeBinary(), b"\x00\xff", b"\x00\xff"),
        ("BOOL", sa.Boolean(), False, False),
        ("SS", sa.ARRAY(sa.Text), ["b", "a"], ["b", "a"]),
        ("NS", sa.ARRAY(sa.Numeric), ["1.5"], [Decimal("1.5")]),
        ("NS", sa.ARRAY(sa.Integer), ["1", "2"], [1, 2]),
        ("BS", sa.ARRAY(sa.LargeBinary), [b"x"], [b"x"]),
        ("L", sa.ARRAY(sa.Text), [{"S": "a"}], ["a"]),
        ("L", sa.ARRAY(sa.Boolean), [{"BOOL": False}], [False]),
        ("S", sa.String(3).with_variant(sa.Text(), "postgresql"), "long enough", "long enough"),
    ],
)
def test_a_value_that_fits_is_sent_as_the_columns_own_kind(attribute_type, column_type, content, stored):
    codec = codec_for(attribute_type, column_type)
    assert codec.encode(content) == stored
    assert type(codec.encode(content)) is type(stored)


@pytest.mark.parametrize(
    ("attribute_type", "column_type", "content"),
    [
        ("S", sa.String(3), "abcd"),
        ("S", sa.String(3), "ab\x00"),  # three characters, four once escaped
        ("S", sa.CHAR(3), "ab"),  # would come back padded
        ("S", sa.NCHAR(3), "ab"),
        ("S", sa.Enum("open", "shut", name="state"), "OPEN"),
        ("S", sa.Enum(Status), "OPEN"),  # the member's name, where values are the rule
        ("S", sa.Uuid(), "not a uuid"),
        ("S", sa.Uuid(), "F47AC10B-58CC-4372-A567-0E02B2C3D479"),
        ("S", sa.Uuid(), "{f47ac10b-58cc-4372-a567-0e02b2c3d479}"),
        ("S", sa.DateTime(timezone=True), "2024-05-06T07:08:09Z"),
        ("S", sa.DateTime(timezone=True), "2024-05-06T07:08:09.123456+0100"),
        ("S", sa.DateTime(timezone=True), "2024-05-06T07:08:09.123456"),
        ("S", sa.DateTime(timezone=True), "0001-01-01T00:00:00.000000+0000"),
        ("S", sa.DateTime(timezone=True), "9999-12-31T23:59:59.999999+0000"),
        ("S", pg.TIMESTAMP(timezone=True, precision=3), "2024-05-06T07:08:09.123456+0000"),
        ("S", sa.Date(), "20240229"),
        ("S", sa.Date(), "2023-02-29"),
        ("N", sa.Numeric(4, 2), "1.234"),
        ("N", sa.Numeric(4, 2), "100"),
        ("N", sa.Numeric(4), "1.5"),
        ("N", sa.Numeric(4, -3), "1500"),
        ("N", sa.SmallInteger(), "32768"),
        ("N", sa.Integer(), "1.5"),
        ("N", sa.Integer(), "-2147483649"),
        ("N", sa.BigInteger(), "9.9E125"),
        ("N", sa.BigInteger(), "1E-130"),
        ("N", sa.Float(), "12345678901234567890"),
        ("N", sa.Float(), "0.1234567890123456789"),
        ("N", sa.REAL(), "0.1"),
        ("N", sa.REAL(), "16777217"),
        ("N", sa.REAL(), "1E39"),
        ("N", sa.DateTime(timezone=True), "1714979289.1234567"),
        ("N", sa.DateTime(timezone=True), "1E125"),
        ("N", sa.DateTime(timezone=True), "-62135596800"),
        ("SS", sa.ARRAY(sa.String(3)), ["a", "abcd"]),
        ("NS", sa.ARRAY(sa.Integer), ["1", "1.5"]),
        ("L", sa.ARRAY(sa.Text), [{"S": "a"}, {"NULL": True}]),
        ("L", pg.JSONB(), [{"B": b"x"}]),
        ("M", sa.JSON(), {"a": {"SS": ["x"]}}),
    ],
)
def test_a_value_that_would_not_come_back_identical_does_not_fit(attribute_type, column_type, content):
    assert codec_for(attribute_type, column_type).encode(content) is None


class Shouting(sa.types.TypeDecorator[str]):
    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value and value.upper()


@pytest.mark.parametrize(
    ("attribute_type", "column_type"),
    [
        ("S", Shouting()),
        ("S", sa.Numeric()),
        ("S", pg.JSONB()),
        ("S", sa.Uuid(native_uuid=False)),
        ("S", sa.Text().with_variant(Shouting(), "postgresql")),
        ("N", sa.Text()),
        ("N", sa.Boolean()),
        ("BOOL", sa.Integer()),
        ("NULL", sa.Text()),
        ("SS", pg.JSONB()),
        ("SS", sa.ARRAY(sa.Text, dimensions=2)),
        ("SS", sa.ARRAY(sa.Numeric)),
        ("L", sa.ARRAY(sa.JSON)),
    ],
)
def test_what_has_no_codec_belongs_in_the_overflow(attribute_type, column_type):
    assert codec_for(attribute_type, column_type) is None


@pytest.mark.parametrize(
    ("attribute_type", "column_type", "total"),
    [
        ("S", sa.Text(), True),
        ("S", sa.String(), True),
        ("S", sa.String(4096), False),
        ("S", pg.CITEXT(), False),
        ("N", sa.Numeric(), True),
        ("N", sa.Numeric(38, 0), False),
        ("N", sa.BigInteger(), False),
        ("B", sa.LargeBinary(), True),
        ("BOOL", sa.Boolean(), True),
        ("M", pg.JSONB(), False),
        ("NS", sa.ARRAY(sa.Numeric), True),
        ("NS", sa.ARRAY(sa.Integer), False),
    ],
)
def test_a_codec_is_total_only_where_every_value_fits(attribute_type, column_type, total):
    assert codec_for(attribute_type, column_type).total is total


def sent(number: float, letter: str, times: int = 1) -> bytes:
    """What PostgreSQL's `array_send` makes of an array of one number, of `real` or of `double precision`."""
    payload = struct.pack(f">{letter}", number)
    each = struct.pack(">i", len(payload)) + payload
    return struct.pack(">iiIii", 1, 0, {"f": 700, "d": 701}[letter], times, 1) + each * times


@pytest.mark.parametrize(
    ("column_type", "letter", "number", "text"),
    [
        (sa.Double(), "d", 0.1, "0.1"),
        (sa.Double(), "f", 0.1, "0.1"),
        (sa.Double(), "f", 16777216.0, "16777216"),
        (sa.Double(), "f", 3.4028234663852886e38, "34028235" + "0" * 31),
        (sa.Double(), "f", 1e-45, "0." + "0" * 44 + "1"),
        (sa.Double(), "f", -0.0, "0"),
        (sa.REAL(), "f", 0.1, "0.10000000149011612"),
        (sa.REAL(), "d", 0.1, "0.10000000149011612"),
        (sa.Float(24), "d", -0.5, "-0.5"),
        (sa.Double(), "f", math.inf, "Infinity"),
        (sa.Double(), "f", math.nan, "NaN"),
    ],
)
def test_a_float_is_read_by_the_width_that_its_column_has(column_type, letter, number, text):
    """The column of the database may be narrower or wider than the model says; a text as PostgreSQL's own."""
    assert codec_for("N", column_type).decode(sent(number, letter)) == text


def test_floats_are_read_by_the_width_that_their_array_has():
    codec = codec_for("NS", sa.ARRAY(sa.Double))
    assert codec.decode(sent(0.1, "f", times=2)) == codec.decode(sent(0.1, "d", times=2)) == ["0.1", "0.1"]


@pytest.mark.parametrize("oid", [16, 25, 1184, 20_000])
@pytest.mark.parametrize("codec", [codec_for("N", sa.Double()), codec_for("BS", sa.ARRAY(sa.LargeBinary))])
def test_nothing_is_made_of_bytes_of_another_type(codec, oid):
    """Eight bytes of a moment are no number."""
    with pytest.raises(ValueError, match=rf"OID {oid}"):
        codec.decode(struct.pack(">iiIiiid", 1, 0, oid, 1, 1, 8, 0.5))
