"""A table on both sides, the way applications write it, and the jobs that copy and compare it."""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.models import Model
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dualstore import schema
from dualstore.backfill import Backfill, Equipment, Threads
from dualstore.backfill.scanning import StoreScan
from dualstore.control import PostgresRole
from dualstore.items import Item, Key, items_equal, key_bytes, number
from dualstore.mapping import Mirrored, TableMapping, map_table
from dualstore.operations import DeleteItem, PutItem, Scan
from dualstore.replication.settle import settle
from dualstore.stores.base import Store
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_load import PostgresLoad
from dualstore.stores.postgres_quarantine import PostgresQuarantine
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.stores.postgres_verify import PostgresSeenKeys
from dualstore.verify import Verify

LEASE = timedelta(milliseconds=500)
"""Of a piece of a backfill: so soon somebody takes over what a killed worker held."""
EPOCH = 1
"""At which PostgreSQL is the mirror of the table."""


class Base(DeclarativeBase):
    type_annotation_map = {Decimal: sa.Numeric}  # noqa: RUF012


class OrderRow(Mirrored, Base):
    """A team's table, with rules of its own."""

    __tablename__ = "orders"
    __table_args__ = (sa.CheckConstraint("name <> 'forbidden'"), {"schema": "shop"})

    customer: Mapped[str] = mapped_column(sa.Text(collation="C"), primary_key=True)
    number: Mapped[Decimal] = mapped_column(sa.Numeric, primary_key=True)
    name: Mapped[str | None]
    code: Mapped[str | None] = mapped_column(unique=True)
    total: Mapped[Decimal | None]


def mapping_of(table: str) -> TableMapping:
    """The mapping of a DynamoDB table of this physical name."""

    class Order(Model):
        class Meta:
            table_name = table
            region = "us-east-1"

        customer = UnicodeAttribute(hash_key=True)
        number = NumberAttribute(range_key=True)
        name = UnicodeAttribute(null=True)
        code = UnicodeAttribute(null=True)
        total = NumberAttribute(null=True)

    return map_table("orders", Order, OrderRow)


def order(n: int, **attributes: Any) -> Item:
    """An item; every seventh customer is the same."""
    return {
        "customer": {"S": f"customer-{n % 7}"},
        "number": {"N": str(n)},
        "name": {"S": f"order {n}"},
        "lines": {"L": [{"M": {"price": {"N": f"{n}.5"}}}]},
    } | attributes


@dataclass(frozen=True)
class BulkSides:
    """One table on DynamoDB and PostgreSQL, and what works on it."""

    mapping: TableMapping
    engine: sa.Engine
    dynamodb: Store
    postgres: PostgresStore

    @property
    def table(self) -> str:
        return self.mapping.shape.name

    @property
    def load(self) -> PostgresLoad:
        return PostgresLoad(self.engine, self.mapping, epoch=EPOCH, lease=LEASE)

    @property
    def runs(self) -> PostgresRuns:
        return PostgresRuns(self.engine)

    def key(self, item: Item) -> Key:
        return self.mapping.shape.keys.key_of(item)

    def settle(self, key: Key) -> None:
        settle(self.postgres, self.dynamodb, self.mapping.shape, key, epoch=EPOCH)

    def settle_all(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.settle(key)

    def put(self, *items: Item) -> None:
        """Write items as they were written before there was dualstore."""
        for item in items:
            self.dynamodb.execute(PutItem({"TableName": self.table, "Item": item}))

    def delete(self, key: Key) -> None:
        """Delete an item as it was deleted before there was dualstore."""
        self.dynamodb.execute(DeleteItem({"TableName": self.table, "Key": key}))

    def mirror(self, item: Item, image: Item | None) -> None:
        """Make PostgreSQL hold this image, whatever DynamoDB holds."""
        key = self.key(item)
        seen = self.postgres.state(self.table, key).revision
        assert self.postgres.write_settled(self.table, key, image, seen=seen, epoch=EPOCH)

    def dual_write(self, item: Item, image: Item | None) -> None:
        """Put or delete an item as a bound model does: stamped, then mirrored onto its predecessor."""
        key, stamp = self.key(item), uuid.uuid4().bytes
        stamped = None if image is None else image | {"_dsv": {"B": stamp}}
        request = {"TableName": self.table, "ReturnValues": "ALL_OLD"}
        answer = self.dynamodb.execute(
            DeleteItem(request | {"Key": key}) if stamped is None else PutItem(request | {"Item": stamped})
        )
        predecessor = answer.get("Attributes", {}).get("_dsv", {}).get("B")
        predecessor = None if predecessor is None else bytes(predecessor)
        known = "_dsv" in answer.get("Attributes", {}) or not answer.get("Attributes")
        if not known or not self.postgres.write_direct(
            self.table, key, stamped, stamp=stamp, predecessor=predecessor, epoch=EPOCH
        ):
            self.settle(key)

    def tombstone(self, item: Item) -> bool:
        """Whether there is one of this item's key."""
        return self.postgres.state(self.table, self.key(item)).revision.tombstone is not None

    def bury(self, item: Item) -> None:
        """Leave a tombstone beside the row, as a deletion does that has looked before it was there."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO dualstore.tombstones (table_name, key, revision, deleted_at)"
                " VALUES (%s, %s, nextval('dualstore.revision'), now())",
                (self.table, key_bytes(self.mapping.shape.keys, self.key(item))),
            )

    @property
    def quarantine(self) -> PostgresQuarantine:
        return PostgresQuarantine(self.engine, self.mapping.shape)

    def equipment(
        self, *, dynamodb: Any = None, segments: int = 3, page_items: int | None = 10, **options: Any
    ) -> Equipment:
        """What a worker on this table works with; `dynamodb` is read in place of the real one."""
        dynamodb = dynamodb or self.dynamodb
        defaults = {
            "source": StoreScan(dynamodb, self.mapping.shape, segments=segments, page_items=page_items),
            "shape": self.mapping.shape,
            "authority": dynamodb,
            "load": self.load,
            "runs": self.runs,
            "quarantine": self.quarantine,
            "settle": self.settle,
            "patience": timedelta(seconds=20),
            "lease": LEASE,
        }
        return Equipment(**(defaults | options))

    def backfill(self, *, workers: int = 2, **options: Any) -> Backfill:
        """A backfill in threads; options are those of `Backfill`, and else of `equipment`."""
        own = {name: options.pop(name) for name in list(options) if name in Backfill.__dataclass_fields__}
        defaults = {
            "mirror": self.postgres,
            "confirm_dualwrite": lambda: 1,
            "crew": Threads(workers, look=timedelta(milliseconds=20)),
        }
        equipment = own.pop("equipment", None) or self.equipment(**options)
        return Backfill(equipment=equipment, **(defaults | own))

    def verify(self, **options: Any) -> Verify:
        defaults = {
            "shape": self.mapping.shape,
            "dynamodb": self.dynamodb,
            "postgres": self.postgres,
            "seen": lambda: PostgresSeenKeys(self.engine, self.mapping),
            "runs": self.runs,
            "pause": timedelta(milliseconds=20),
        }
        return Verify(**(defaults | options))

    def items_on_dynamodb(self) -> dict[bytes, Item]:
        """All items, by an independent way: one Scan after the other, no segments."""
        items: dict[bytes, Item] = {}
        request: dict[str, Any] = {"TableName": self.table, "ConsistentRead": True}
        while True:
            answer = self.dynamodb.execute(Scan(request))
            items |= {key_bytes(self.mapping.shape.keys, self.key(item)): item for item in answer["Items"]}
            if "LastEvaluatedKey" not in answer:
                return items
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def rows_on_postgres(self) -> dict[bytes, Item]:
        """All items that rows hold, read by nothing but SQL and the codec."""
        reads = ", ".join(self.mapping.read_expressions("t"))
        with self.engine.connect() as connection:
            rows = connection.exec_driver_sql(f"SELECT {reads} FROM shop.orders t").all()
        items = [self.mapping.decode(row) for row in rows]
        return {key_bytes(self.mapping.shape.keys, self.key(item)): item for item in items}

    def assert_equal(self) -> None:
        """Both sides hold the same items, and no key is both there and gone."""
        dynamodb, postgres = self.items_on_dynamodb(), self.rows_on_postgres()
        assert dynamodb.keys() == postgres.keys()
        assert [key for key, item in dynamodb.items() if not items_equal(item, postgres[key])] == []
        with self.engine.connect() as connection:
            gone = connection.exec_driver_sql("SELECT key FROM dualstore.tombstones").scalars().all()
        assert postgres.keys().isdisjoint(map(bytes, gone))

    def numbers_of_dirty_keys(self) -> set[int]:
        return {int(number(dirty.key["number"]["N"])) for dirty in self.postgres.dirty_keys(self.table)}

    def empty(self) -> None:
        """Forget everything on PostgreSQL."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(
                "TRUNCATE shop.orders, dualstore.tombstones, dualstore.dirty, dualstore.runs,"
                " dualstore.quarantine CASCADE"
            )


@contextmanager
def bulk_sides(url: str, dynamodb: Store, table: str) -> Iterator[BulkSides]:
    """Both sides of a table, on a new database at this URL: empty, or a copy of one that is prepared."""
    with bulk_sides_at(url, dynamodb, table) as sides:
        if not sa.inspect(sides.engine).has_schema("shop"):
            prepare(sides.engine)
        PostgresControl(sides.engine).raise_fence(table, epoch=EPOCH, role=PostgresRole.MIRROR)
        yield sides


def prepare(engine: sa.Engine) -> None:
    """Create everything that both sides need on PostgreSQL: 0.3 s of two processors."""
    schema.upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA shop")
    Base.metadata.create_all(engine)


@contextmanager
def bulk_sides_at(url: str, dynamodb: Store, table: str) -> Iterator[BulkSides]:
    """Both sides of a table, on a database where `bulk_sides` has been."""
    engine = sa.create_engine(url, pool_size=20)
    try:
        mapping = mapping_of(table)
        postgres = PostgresStore(engine, {table: mapping}, statement_timeout=timedelta(seconds=10))
        yield BulkSides(mapping, engine, dynamodb, postgres)
    finally:
        engine.dispose()


def create_table(client: Any, table: str) -> None:
    """Create the table on DynamoDB."""
    client.create_table(
        TableName=table,
        KeySchema=[
            {"AttributeName": "customer", "KeyType": "HASH"},
            {"AttributeName": "number", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "customer", "AttributeType": "S"},
            {"AttributeName": "number", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
