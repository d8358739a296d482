"""Time to live: which attribute, when an item has expired, and what would help to find it."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from pynamodb.attributes import NumberAttribute, TTLAttribute, UnicodeAttribute
from pynamodb.models import Model
from sqlalchemy.orm import DeclarativeBase, mapped_column

from dualstore.items import KeyAttribute, KeySchema, TableShape
from dualstore.mapping import Mirrored, map_table, unmapped_table
from dualstore.mapping.expiry import ExpiryPlace, has_expired, ttl_attribute_of_model

NOW = 1_700_000_000.0
YEAR = 365 * 86_400


class Session(Model):
    class Meta:
        table_name = "sessions-prod"

    id = UnicodeAttribute(hash_key=True)
    expires = TTLAttribute(null=True, attr_name="ttl")
    total = NumberAttribute(null=True)


class Plain(Model):
    class Meta:
        table_name = "plain"

    id = UnicodeAttribute(hash_key=True)
    expires = NumberAttribute(null=True)


def test_the_model_s_ttl_attribute_goes_by_its_name_in_dynamodb():
    assert ttl_attribute_of_model(Session) == "ttl"
    assert ttl_attribute_of_model(Plain) is None


@pytest.mark.parametrize(
    ("value", "expired"),
    [
        ({"N": "1699999999"}, True),
        ({"N": "1699999999.5"}, True),
        ({"N": "1700000000"}, False),
        ({"N": "1700000001"}, False),
        ({"N": "1699999999000"}, False),
        ({"N": "1E+120"}, False),
        ({"N": "0"}, False),
        ({"N": "-1E+120"}, False),
        ({"N": str(1_700_000_000 - 5 * YEAR)}, True),
        ({"N": str(1_700_000_000 - 5 * YEAR - 1)}, False),
        ({"S": "1699999999"}, False),
        ({"NULL": True}, False),
        ({"L": [{"N": "1699999999"}]}, False),
        ({"NS": ["1699999999"]}, False),
    ],
)
def test_an_item_expires_when_its_number_of_seconds_has_passed_within_five_years(value, expired):
    assert has_expired({"id": {"S": "a"}, "ttl": value}, "ttl", now=NOW) is expired


def test_an_item_without_the_attribute_never_expires():
    assert not has_expired({"id": {"S": "a"}}, "ttl", now=NOW)


def test_the_grace_is_added_to_an_item_s_time():
    item = {"ttl": {"N": str(int(NOW) - 60)}}
    assert has_expired(item, "ttl", now=NOW, grace=timedelta(seconds=59))
    assert not has_expired(item, "ttl", now=NOW, grace=timedelta(seconds=60))


def place(column: object, *, index: bool = False, model: type[Model] = Session) -> ExpiryPlace:
    class Base(DeclarativeBase):
        pass

    class Row(Mirrored, Base):
        __tablename__ = "sessions"
        id = mapped_column(sa.Text(collation="C"), primary_key=True)
        expires = mapped_column(column, nullable=True, index=index)

    return ExpiryPlace(map_table("sessions", model, Row), "ttl")


@pytest.mark.parametrize(
    ("column", "overflows"),
    [
        (sa.Numeric(), False),
        (sa.Numeric(12, 0), True),
        (sa.BigInteger(), True),
        (sa.DateTime(timezone=True), True),
        (sa.Double(), True),
    ],
)
def test_a_column_that_does_not_hold_every_number_leaves_some_to_the_overflow(column, overflows):
    found = place(column)
    assert found.column is not None
    assert found.overflows is overflows


@pytest.mark.parametrize("column", [sa.Text(), sa.JSON()])
def test_a_column_that_holds_no_numbers_is_no_place_for_them(column):
    found = place(column)
    assert found.column is None
    assert found.overflows


def test_a_table_without_a_column_for_it_is_told_so():
    shape = TableShape("loose", KeySchema(KeyAttribute("id", "S")))
    (note,) = ExpiryPlace(unmapped_table("loose", shape), "ttl").notes()
    assert "no column holds it" in note


def test_a_column_without_an_index_is_told_so_and_one_with_it_is_not():
    (note,) = place(sa.BigInteger()).notes()
    assert "add Index(None, 'expires')" in note
    assert place(sa.BigInteger(), index=True).notes() == []
