"""Converters of a team's own: what they get wrong is in the overflow; nobody takes them for the attribute."""

import struct
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from pynamodb.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    ListAttribute,
    NumberAttribute,
    TTLAttribute,
    UnicodeAttribute,
)
from pynamodb.models import Model
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dualstore.errors import MappingError
from dualstore.items import Index, KeyAttribute, KeySchema
from dualstore.mapping import Codec, Converter, Mirrored, TableMapping, Unreadable, map_table
from dualstore.mapping.expiry import ExpiryPlace
from dualstore.mapping.transcoding.forms import Form, fields_of
from dualstore.stores.postgres.row_updates import RowUpdates
from mapping_cases import BACKWARDS, CENTS, WARES


def stored(attribute: str, content: Any) -> Any:
    """What the column of an attribute holds; None: the overflow does."""
    column = WARES.column_of[attribute]
    return column.codec.encode(content)


@pytest.mark.parametrize(
    ("attribute", "content", "value"),
    [
        ("price", "12.5", 1250),
        ("share", "0.0125", Decimal("12.5")),
        ("fill", "open", "OPEN"),
        ("fill", "", "SHUT"),
        ("sold", "shut", False),
        ("motto", "abc", "cba"),
        ("seen", "2024-05-06T07:08+00:00", datetime(2024, 5, 6, 7, 8, tzinfo=UTC)),
    ],
)
def test_a_column_holds_what_its_converter_makes(attribute, content, value):
    assert stored(attribute, content) == value
    assert WARES.column_of[attribute].codec.decode(value) == content


@pytest.mark.parametrize(
    ("attribute", "content"),
    [
        ("price", "12.345"),  # rounded on its way
        ("price", "9" * 30),  # too large for the column
        ("share", "0.01234"),  # rounded by the column
        ("fill", "shut"),  # raises KeyError
        ("sold", "?"),  # answers None
        ("motto", "abcdefg"),  # too long for the column
        ("motto", "a\0"),  # which PostgreSQL refuses
        ("seen", "2024-05-06T07:08+05:30"),  # comes back in another zone
        ("seen", "2024-05-06T07:08"),  # has none, and the column has
        ("since", "2024-05-06"),  # raises ValueError
    ],
)
def test_what_does_not_come_back_identical_is_in_the_overflow(attribute, content):
    assert stored(attribute, content) is None
    item = {"name": {"S": "w"}, attribute: {WARES.column_of[attribute].type: content}}
    assert WARES.decode(WARES.encode(item)) == item


@pytest.mark.parametrize("column", WARES.columns[1:], ids=lambda column: column.attribute)
def test_nobody_takes_a_converted_column_for_the_attribute(column):
    """It has another order, other values and another text."""
    assert column.cast
    assert not column.total
    assert not column.sortable
    form = {field.attribute: field.form for field in fields_of(WARES)}[column.attribute]
    assert form is Form.CALLED


class Base(DeclarativeBase):
    pass


def mapped(attribute: Any, type_: Any, converter: Any, **settings: Any) -> TableMapping:
    meta = type("Meta", (), {"table_name": "t"})
    model: Any = type(
        "Thing", (Model,), {"Meta": meta, "id": UnicodeAttribute(hash_key=True), "a": attribute}
    )

    class Local(DeclarativeBase):
        pass

    class Row(Mirrored, Local):
        __tablename__ = "t"
        id: Mapped[str] = mapped_column(sa.Text(collation="C"), primary_key=True)
        a: Mapped[Any | None] = mapped_column(type_, info={"converter": converter}, **settings)

    return map_table("t", model, Row)


def codec_of(attribute: Any, type_: Any, to_column: Any, from_column: Any) -> Codec:
    return mapped(attribute, type_, Converter(to_column, from_column)).column_of["a"].codec


def raises(_: Any) -> Any:
    raise struct.error("a secret")


def test_whatever_a_function_raises_the_overflow_takes_the_value():
    codec = codec_of(UnicodeAttribute(null=True), sa.Text, raises, str)
    assert codec.encode("a secret") is None


def test_what_a_function_does_not_read_is_said_without_the_value():
    mapping = mapped(UnicodeAttribute(null=True), sa.Text, Converter(str.upper, raises))
    with pytest.raises(Unreadable, match="column 'a' of 't'") as caught:
        mapping.decode(("k", "a secret", None, None))
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_text_that_no_database_takes_is_in_the_overflow():
    codec = codec_of(
        BinaryAttribute(null=True, legacy_encoding=False),
        sa.Text,
        lambda data: data.decode(errors="surrogateescape"),
        lambda text: text.encode(errors="surrogateescape"),
    )
    assert (codec.encode(b"abc"), codec.encode(b"\xff")) == ("abc", None)


def test_what_is_no_boolean_is_not_taken_for_one():
    """To Python 1 is True; to DynamoDB it is not."""
    codec = codec_of(BooleanAttribute(null=True), sa.SmallInteger, int, int)
    assert codec.encode(True) is None
    with pytest.raises(TypeError):
        codec.decode(1)
    nested = codec_of(ListAttribute(null=True), sa.SmallInteger, lambda _: 1, lambda _: [{"BOOL": 1}])
    assert nested.encode([{"BOOL": True}]) is None


@pytest.mark.parametrize(
    ("content", "fits"),
    [("1.5", False), ("1.50", True), ("99.99", True), ("100.00", False), ("0E-20000", False)],
)
def test_a_number_is_told_by_its_value_alone(content, fits):
    """A column has one scale, so of contents that PostgreSQL calls equal it holds one."""
    codec = codec_of(UnicodeAttribute(null=True), sa.Numeric(4, 2), Decimal, str)
    assert (codec.encode(content) is not None) == fits


def test_a_number_of_a_scale_beyond_its_precision_fits_as_postgresql_says():
    codec = codec_of(NumberAttribute(null=True), sa.Numeric(2, 4), Decimal, str)
    assert (codec.encode("0.01"), codec.encode("0.0099")) == (None, Decimal("0.0099"))


@pytest.mark.parametrize("type_", [sa.CHAR(2), sa.Enum("AA", "BB", name="codes"), sa.BigInteger, sa.Text])
def test_nobody_guesses_the_size_of_what_a_converter_has_made_small(type_):
    assert RowUpdates(mapped(UnicodeAttribute(null=True), type_, BACKWARDS)).room(0) is None


def test_no_index_of_an_older_item_is_judged_by_what_a_converter_has_made_of_its_key():
    index = Index("by", KeySchema(KeyAttribute("a", "S")))
    whole = mapped(UnicodeAttribute(null=True), sa.Text, BACKWARDS)
    indexed = replace(whole, shape=replace(whole.shape, indexes={"by": index}))
    assert RowUpdates(indexed).sound == 't."a" IS NULL'


class Shouted(sa.types.TypeDecorator[str]):
    impl = sa.Text
    cache_ok = True


def test_what_a_type_decorator_decorates_is_what_the_converter_fills():
    upper = Converter(str.upper, str.lower)
    codec = mapped(UnicodeAttribute(null=True), Shouted, upper).column_of["a"].codec
    assert (codec.encode("abc"), codec.encode("aBc"), codec.cast) == ("ABC", None, "text")


@pytest.mark.parametrize(
    ("type_", "converter", "said"),
    [
        (JSONB, CENTS, "fills no column"),
        (sa.Numeric, CENTS, r"Numeric\(precision, scale\)"),  # holds 1.5 and 1.50, and calls them equal
        (sa.REAL, CENTS, "fills no column"),
        (sa.ARRAY(sa.Text), CENTS, "fills no column"),
        (sa.BigInteger, (int, str), "holds a tuple"),
    ],
)
def test_a_converter_that_cannot_be_is_refused_at_start_up(type_, converter, said):
    with pytest.raises(MappingError, match=said):
        mapped(NumberAttribute(null=True), type_, converter)


def test_a_key_has_no_converter():
    class Row(Mirrored, Base):
        __tablename__ = "keyed"
        id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, info={"converter": CENTS})

    class Keyed(Model):
        class Meta:
            table_name = "keyed"

        id = NumberAttribute(hash_key=True)

    with pytest.raises(MappingError, match="cannot hold every key"):
        map_table("keyed", Keyed, Row)


def test_expiry_does_not_read_a_converted_column():
    with pytest.raises(MappingError, match="expires"):
        mapped(TTLAttribute(null=True), sa.BigInteger, CENTS)
    place = ExpiryPlace(mapped(NumberAttribute(null=True), sa.BigInteger, CENTS), "a")
    assert place.column is None
