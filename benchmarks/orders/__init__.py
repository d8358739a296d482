"""The table that is written: its models on both sides, and an item in the forms that writers take."""

from typing import Any

import sqlalchemy as sa
from pynamodb.attributes import BooleanAttribute, MapAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.models import Model
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

from dualstore.mapping import Mirrored

REGION = "us-east-1"
ACCOUNT = {"access_key_id": "benchmark", "secret_access_key": "benchmark"}


class Base(DeclarativeBase): ...


class PlainRow(Base):
    __tablename__ = "orders_plain"
    customer = sa.Column(sa.Text(collation="C"), primary_key=True)
    number = sa.Column(sa.Numeric, primary_key=True)
    note = sa.Column(sa.Text(collation="C"))
    total = sa.Column(sa.Numeric)
    paid = sa.Column(sa.Boolean)
    address = sa.Column(JSONB)


class OrderRow(Mirrored, Base):
    __tablename__ = "orders"
    customer = sa.Column(sa.Text(collation="C"), primary_key=True)
    number = sa.Column(sa.Numeric, primary_key=True)
    note = sa.Column(sa.Text(collation="C"))
    total = sa.Column(sa.Numeric)
    paid = sa.Column(sa.Boolean)
    address = sa.Column(JSONB)


class Address(MapAttribute):
    street = UnicodeAttribute()
    door = NumberAttribute()


def order_model(table: str, endpoint: str) -> type[Model]:
    class Order(Model):
        class Meta:
            table_name = table
            region = REGION
            host = endpoint
            aws_access_key_id = "benchmark"
            aws_secret_access_key = "benchmark"

        customer = UnicodeAttribute(hash_key=True)
        number = NumberAttribute(range_key=True)
        note = UnicodeAttribute()
        total = NumberAttribute()
        paid = BooleanAttribute()
        address = Address()

    return Order


NOTE, CHANGED_NOTE = "n" * 200, "c" * 200


def key_of(number: int) -> dict[str, Any]:
    return {"customer": {"S": f"customer-{number % 97}"}, "number": {"N": str(number)}}


def item_of(number: int) -> dict[str, Any]:
    return {
        **key_of(number),
        "note": {"S": NOTE},
        "total": {"N": "12.5"},
        "paid": {"BOOL": False},
        "address": {"M": {"street": {"S": "High Street"}, "door": {"N": "7"}}},
    }


def row_of(number: int) -> dict[str, Any]:
    return {
        "customer": f"customer-{number % 97}",
        "number": number,
        "note": NOTE,
        "total": "12.5",
        "paid": False,
        "address": {"street": "High Street", "door": 7},
    }
