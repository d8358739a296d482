"""The tables of these tests: one with columns of all sorts, one with none but its key."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, KeysOnlyProjection
from pynamodb.models import Model
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dualstore import schema
from dualstore.control import PostgresRole
from dualstore.items import Index, Item, Key, KeyAttribute, KeySchema, TableShape
from dualstore.mapping import Mirrored, TableMapping, map_table, unmapped_table
from dualstore.operations import parse
from dualstore.stores import Store
from dualstore.stores.postgres_control import PostgresControl


def _index(name: str, sort: str | None, sort_type: type = NumberAttribute, *, keys_only: bool = False) -> Any:
    projection = KeysOnlyProjection() if keys_only else AllProjection()
    members: dict[str, Any] = {
        "Meta": type("Meta", (), {"index_name": name, "projection": projection}),
        "status": UnicodeAttribute(hash_key=True),
    }
    if sort is not None:
        members[sort] = sort_type(range_key=True)
    return type(name, (GlobalSecondaryIndex,), members)()


class Order(Model):
    class Meta:
        table_name = "orders-prod"
        region = "us-east-1"

    customer = UnicodeAttribute(hash_key=True)
    number = NumberAttribute(range_key=True)
    status = UnicodeAttribute(null=True)
    price = NumberAttribute(null=True)
    quantity = NumberAttribute(null=True)
    placed = NumberAttribute(null=True)
    weight = NumberAttribute(null=True)
    code = UnicodeAttribute(null=True)
    label = UnicodeAttribute(null=True)

    by_status = _index("by_status", None, keys_only=True)
    by_price = _index("by_price", "price")  # a column that is the attribute
    by_quantity = _index("by_quantity", "quantity")  # an integer: fractions are in the overflow
    by_weight = _index("by_weight", "weight")  # no column
    by_placed = _index("by_placed", "placed")  # a timestamp, which SQL cannot show as the number that it was
    by_label = _index("by_label", "label", UnicodeAttribute)  # text of limited length, in another collation


class Base(DeclarativeBase):
    pass


class OrderRow(Mirrored, Base):
    __tablename__ = "orders"

    customer: Mapped[str] = mapped_column(sa.Text(collation="C"), primary_key=True)
    number: Mapped[Decimal] = mapped_column(sa.Numeric, primary_key=True)
    status: Mapped[str | None] = mapped_column(sa.Text(collation="C"), index=True)
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric)
    quantity: Mapped[int | None] = mapped_column(sa.Integer)
    placed: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    code: Mapped[str | None] = mapped_column(sa.Text(collation="C"), unique=True)
    label: Mapped[str | None] = mapped_column(sa.String(6))
    batch: Mapped[int | None] = mapped_column(info={"dynamodb": None})

    __table_args__ = (
        sa.CheckConstraint("price >= 0", name="price_not_negative"),
        sa.UniqueConstraint("price", name="one_price", deferrable=True, initially="DEFERRED"),
    )


ORDERS = map_table("orders", Order, OrderRow)
NOTES = unmapped_table(
    "notes",
    TableShape(
        "notes-prod",
        KeySchema(KeyAttribute("id", "B")),
        {"by_author": Index("by_author", KeySchema(KeyAttribute("author", "S"), KeyAttribute("seal", "B")))},
    ),
)
TABLES: Mapping[str, TableMapping] = {mapping.shape.name: mapping for mapping in (ORDERS, NOTES)}
TABLE, NOTE_TABLE = TABLES
EPOCH = 1
"""At which PostgreSQL is the mirror of both tables."""


def key(customer: str = "ann", number: int | str = 1) -> Key:
    return {"customer": {"S": customer}, "number": {"N": str(number)}}


def order(customer: str = "ann", number: int | str = 1, *, stamp: bytes | None = None, **rest: Any) -> Item:
    """An order; keyword values are strings, or numbers as integers."""
    item = key(customer, number)
    for name, value in rest.items():
        item[name] = {"S": value} if isinstance(value, str) else {"N": str(value)}
    if stamp is not None:
        item["_dsv"] = {"B": stamp}
    return item


def stamp(number: int) -> bytes:
    return number.to_bytes(16, "big")


def call(store: Store, operation: str, **request: Any) -> dict[str, Any]:
    """Carry out an operation on the orders; `values` stands for ExpressionAttributeValues."""
    if "values" in request:
        request["ExpressionAttributeValues"] = request.pop("values")
    return store.execute(parse(operation, {"TableName": TABLE, **request}))


def numbers(response: Mapping[str, Any]) -> list[str]:
    """The sort keys of the items of a page."""
    return [item["number"]["N"] for item in response["Items"]]


def create(engine: sa.Engine) -> None:
    """Create the bookkeeping schema and the tables, all of them mirrors."""
    schema.upgrade(engine)
    Base.metadata.create_all(engine)
    schema.create_unmapped(engine, NOTES)
    become_mirror(engine)


def become_mirror(engine: sa.Engine) -> None:
    """Let mirror writes of `EPOCH` pass."""
    for table in TABLES:
        PostgresControl(engine).raise_fence(table, epoch=EPOCH, role=PostgresRole.MIRROR)
