"""What the soak writes: two tables, keys of several kinds, items that tell who wrote them.

A partition key begins with its kind:

- `own-…`: registers that one thread writes, so that the order of its writes is known;
- `hot-…`: registers that all threads write;
- `sum-…`: counters that all threads raise; `cnt-…`: counters of one thread;
- `twin-…`: two registers that only transactions write, both at once;
- `old-…`: items from before dualstore, which nobody writes again;
- `sql-…`: rows that psycopg writes while PostgreSQL is the authority;
- `rogue-…`: items that a plain boto3 client writes while DynamoDB is.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.models import Model
from sqlalchemy.orm import DeclarativeBase

from dualstore.mapping import Mirrored

ORDERS, PARCELS = "orders", "parcels"
TABLES = (ORDERS, PARCELS)
"""Logical and physical names; `orders` has a SQL model, `parcels` has none."""

COUNTERS = ("sum", "cnt")
DESCRIPTION: Mapping[str, Any] = {
    "KeySchema": [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ],
    "AttributeDefinitions": [
        {"AttributeName": "pk", "AttributeType": "S"},
        {"AttributeName": "sk", "AttributeType": "N"},
    ],
    "BillingMode": "PAY_PER_REQUEST",
    "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
}


class Order(Model):
    """The team's PynamoDB model of `orders`."""

    class Meta:
        table_name = ORDERS
        region = "us-east-1"

    pk = UnicodeAttribute(hash_key=True)
    sk = NumberAttribute(range_key=True)
    written = UnicodeAttribute(null=True)
    proof = UnicodeAttribute(null=True)
    n = NumberAttribute(null=True)


class Base(DeclarativeBase):
    pass


class OrderRow(Mirrored, Base):
    """The team's SQLAlchemy model of `orders`; `extra` and `members` have no column."""

    __tablename__ = ORDERS

    pk = sa.Column(sa.Text(collation="C"), primary_key=True)
    sk = sa.Column(sa.Numeric, primary_key=True)
    written = sa.Column(sa.Text(collation="C"), nullable=True)
    proof = sa.Column(sa.Text(collation="C"), nullable=True)
    n = sa.Column(sa.Numeric, nullable=True)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One key of one table."""

    table: str
    pk: str
    sk: int

    @property
    def kind(self) -> str:
        """What its partition key begins with."""
        return self.pk.partition("-")[0]

    @property
    def key(self) -> dict[str, Any]:
        """The key as boto3 takes it."""
        return {"pk": {"S": self.pk}, "sk": {"N": str(self.sk)}}

    def __str__(self) -> str:
        return f"{self.table}/{self.pk}/{self.sk}"

    @classmethod
    def parse(cls, text: str) -> "Place":
        """The place that `str` made this text of."""
        table, pk, sk = text.split("/")
        return cls(table, pk, int(sk))

    @classmethod
    def of_item(cls, table: str, item: Mapping[str, Any]) -> "Place":
        """Where an item is."""
        return cls(table, item["pk"]["S"], int(item["sk"]["N"]))


def proof(token: str) -> str:
    """What stands beside a token, so that half an item, or a mixture of two, is seen."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def register_item(place: Place, token: str) -> dict[str, Any]:
    """The item that a put with this token leaves; such a token begins with `p`, one of an update with `u`."""
    return {
        **place.key,
        "written": {"S": token},
        "proof": {"S": proof(token)},
        "extra": {"S": token},
    }
