"""A service between two real databases: its models, and `DualStore`s that serve their tables."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from pynamodb.attributes import (
    ListAttribute,
    MapAttribute,
    NumberAttribute,
    UnicodeAttribute,
    UnicodeSetAttribute,
    VersionAttribute,
)
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex
from pynamodb.models import Model
from sqlalchemy.orm import DeclarativeBase

from dualstore import DualStore, Stage
from dualstore.flags import FlagSource, Requested, StaticFlags
from dualstore.items import Item
from dualstore.mapping import Mirrored
from dualstore.replication.agent import GrantTimes
from dualstore.stages import Side
from dualstore.store import Options
from dualstore.store.table import MigratedTable
from dualstore.stores.dynamo import DynamoClients, dynamo_clients
from dualstore.telemetry import Role

REGION = "us-east-1"
QUICK = Options(
    grants=GrantTimes(poll=timedelta(milliseconds=50), read=timedelta(seconds=1)),
    repair_pause=timedelta(milliseconds=100),
    statement_timeout=timedelta(seconds=2),
)

LASTING = replace(QUICK.grants, read=timedelta(seconds=10))
"""Grants that no stall of the machine outlasts, for tests of who answers; copies take that long to begin."""

WHOLE_MIGRATION: Mapping[str, Requested] = {
    "off": Requested(stage=Stage.OFF),
    "dualwrite": Requested(stage=Stage.DUALWRITE),
    "shadow": Requested(stage=Stage.SHADOW, postgres_read_percent=100.0),
}
"""The stages at which an application must not notice anything."""


class Address(MapAttribute):
    street = UnicodeAttribute()
    number = NumberAttribute(null=True)


def order_model(table: str, host: str) -> Any:
    """A PynamoDB model of one table, as a team has it."""

    class ByName(GlobalSecondaryIndex):
        class Meta:
            index_name = "by-name"
            projection = AllProjection()

        name = UnicodeAttribute(hash_key=True)
        n = NumberAttribute(range_key=True)

    class Order(Model):
        class Meta:
            table_name = table
            region = REGION
            aws_access_key_id = "dualstore"
            aws_secret_access_key = "dualstore"

        pk = UnicodeAttribute(hash_key=True)
        sk = NumberAttribute(range_key=True)
        name = UnicodeAttribute(null=True)
        n = NumberAttribute(null=True)
        tags = UnicodeSetAttribute(null=True)
        address = Address(null=True)
        lines = ListAttribute(null=True)
        version = VersionAttribute()
        by_name = ByName()

    Order.Meta.host = host
    return Order


def order_row(sql_name: str) -> Any:
    """The SQL model beside it; `n` has a rule of the team's own, and `tags` and others have no column."""

    class Base(DeclarativeBase):
        pass

    class OrderRow(Mirrored, Base):
        __tablename__ = sql_name

        pk = sa.Column(sa.Text(collation="C"), primary_key=True)
        sk = sa.Column(sa.Numeric, primary_key=True)
        name = sa.Column(sa.Text(collation="C"), nullable=True)
        n = sa.Column(sa.Numeric, nullable=True)
        version = sa.Column(sa.BigInteger, nullable=True)
        __table_args__ = (sa.CheckConstraint("n < 1000000", name="n_is_small"),)

    return OrderRow


@dataclass
class Deployment:
    """Two databases, and what is put together on them."""

    engine: sa.Engine
    dynamodb: Any
    clients: DynamoClients
    endpoint_url: str
    bookkeeping: str = field(default_factory=lambda: f"dualstore-{uuid.uuid4().hex[:8]}")
    created: list[str] = field(default_factory=list)

    def store(self, flags: FlagSource | None = None, **changed: Any) -> DualStore:
        """One process's store, quick but for what is changed; several may be open at a time."""
        options = replace(QUICK, bookkeeping_table=self.bookkeeping, **changed)
        return DualStore(
            engine=self.engine, dynamodb=self.clients, flags=flags or StaticFlags(), options=options
        )

    def table(self) -> tuple[Any, Any]:
        """A new DynamoDB table with its models; the SQL table is there too."""
        name = f"orders-{uuid.uuid4().hex[:8]}"
        model, row = order_model(name, self.endpoint_url), order_row(name.replace("-", "_"))
        model.create_table(billing_mode="PAY_PER_REQUEST", wait=True)
        self.created.append(name)
        row.__table__.create(self.engine)
        return model, row


@contextlib.contextmanager
def deployed(url: str, dynamodb: Any, endpoint_url: str) -> Iterator[Deployment]:
    """A deployment with its bookkeeping prepared."""
    engine = sa.create_engine(url, connect_args={"connect_timeout": 1})
    clients = dynamo_clients(
        endpoint_url=endpoint_url,
        region=REGION,
        access_key_id="dualstore",
        secret_access_key="dualstore",
    )
    deployment = Deployment(engine, dynamodb, clients, endpoint_url)
    deployment.created.append(deployment.bookkeeping)
    try:
        with clients, deployment.store() as store:
            store.prepare()
            yield deployment
    finally:
        engine.dispose()
        for table in deployment.created:
            with contextlib.suppress(dynamodb.exceptions.ResourceNotFoundException):
                dynamodb.delete_table(TableName=table)


def bring_to(store: DualStore, name: str, requested: Requested) -> MigratedTable:
    """Take a table, stage by stage, to what is requested; its history is copied on the way."""
    table, flags = store.table(name), store.flags
    assert isinstance(flags, StaticFlags)
    for stage in list(Stage)[1 : list(Stage).index(requested.stage or Stage.OFF) + 1]:
        flags.set(name, stage=stage)
        table.wait_until(lambda record, stage=stage: record.stage is stage)
        if stage is Stage.DUALWRITE:
            table.backfill(segments=1, workers=1)
    if requested.postgres_read_percent is not None:
        flags.set(name, postgres_read_percent=requested.postgres_read_percent)
        table.wait_until(lambda record: record.dials.postgres_read_percent == requested.postgres_read_percent)
    return table


def eventually(holds: Callable[[], Any], *, seconds: float = 15) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)


def mirrored(store: DualStore, table: str, partition: str) -> list[Item]:
    """The items of a partition that PostgreSQL holds, with their stamps."""
    pages = store._mirroring.mirror.all_items(table)
    return [item for page in pages for item in page if item["pk"] == {"S": partition}]


def authoritative(deployment: Deployment, table: str, partition: str) -> list[Item]:
    """The items of a partition that DynamoDB holds, with their stamps."""
    answer = deployment.dynamodb.query(
        TableName=table,
        KeyConditionExpression="pk = :p",
        ExpressionAttributeValues={":p": {"S": partition}},
        ConsistentRead=True,
    )
    items: list[Item] = answer["Items"]
    for item in items:
        item.pop("_dsp", None)
    return items


def served_by(store: DualStore, side: Side) -> int:
    """How many of the callers' reads a side has answered."""
    role = Role.MIRROR if side is Side.POSTGRES else Role.AUTHORITATIVE
    latencies = [
        store.telemetry.snapshot().latencies(operation=operation, side=side, role=role, outcome="ok")
        for operation in ("GetItem", "Query", "Scan", "BatchGetItem", "TransactGetItems")
    ]
    return sum(each.count for each in latencies)
