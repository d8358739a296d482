"""The stores that are compared: a DynamoDB, PostgreSQL with the team's own table, and memory."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import sqlalchemy as sa
from pynamodb.models import Model

from dualstore import schema
from dualstore.control import ControlRecord
from dualstore.errors import ConfigurationError, RequestRejected
from dualstore.items import Item, Key, TableShape, key_bytes, without_stamps
from dualstore.mapping import TableMapping, map_table, shape_of_model, unmapped_table
from dualstore.operations import BatchWriteItem, GetItem, Operation, Response, Scan
from dualstore.stages import Stage
from dualstore.stores.dynamo import DynamoStore, dynamo_clients
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres import PostgresStore, triggers
from dualstore.stores.postgres_control import PostgresControl
from dualstore.testing.servers import DynamoDB

_EPOCH = 1
_BATCH_ITEMS = 25
_STAND_IN_ACCOUNT = {"access_key_id": "dualstore", "secret_access_key": "dualstore", "region": "us-east-1"}

DYNAMODB, POSTGRES, MEMORY = "DynamoDB", "PostgreSQL", "MemoryStore"


class Answers(Protocol):
    """Answers operations without stamps, as the router hands them to an application."""

    def execute(self, operation: Operation) -> Response:
        """Carry out one operation."""
        ...


class AsAuthority:
    """PostgreSQL as the authority of its tables, as at stage `complete`.

    Args:
        store: PostgreSQL.
    """

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def execute(self, operation: Operation) -> Response:
        """Carry out one operation; its answer carries no stamp."""
        epochs = dict.fromkeys(operation.tables, _EPOCH)
        response: Response = _unstamped(self._store.execute_as_authority(operation, epochs=epochs))
        return response


def _unstamped(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_unstamped(each) for each in answer]
    if not isinstance(answer, dict):
        return answer
    return {name: _unstamped(inner) for name, inner in without_stamps(answer).items()}


@dataclass
class Sides:
    """The stores that are compared; every history begins with empty tables.

    Attributes:
        table: the physical name of the table, the same in all of them.
        shape: of the table.
        postgres: PostgreSQL.
        dynamodb: a DynamoDB, or None where there is none to be trusted.
        engine: what plays DynamoDB: `dynoxide`, or `endpoint` for one that a URL names.
        empty: empties the tables of both.
        memory: afresh for every history.
    """

    table: str
    shape: TableShape
    postgres: Answers
    dynamodb: Answers | None
    engine: str
    empty: Callable[[], None]
    memory: MemoryStore

    def begin(self) -> None:
        """Empty all tables."""
        self.empty()
        self.memory = MemoryStore({self.table: self.shape})

    @property
    def stores(self) -> Mapping[str, Answers]:
        """The stores by name, the one that is believed first."""
        named = {DYNAMODB: self.dynamodb, POSTGRES: self.postgres, MEMORY: self.memory}
        return {name: store for name, store in named.items() if store is not None}

    def keys_in(self, items: Sequence[Item]) -> list[Key]:
        """The different keys in some items; what is no key of the table is left out."""
        found: dict[bytes, Key] = {}
        for item in items:
            with contextlib.suppress(RequestRejected):
                key = self.shape.keys.key_of(item)
                found[key_bytes(self.shape.keys, key)] = key
        return list(found.values())

    def carry_over(self, keys: Sequence[Item]) -> None:
        """Give DynamoDB the items that memory has, after a step that its stand-in is not asked."""
        if self.dynamodb is None:
            return
        writes = []
        for key in self.keys_in(keys):
            there = self.memory.execute(GetItem({"TableName": self.table, "Key": key})).get("Item")
            writes.append(
                {"DeleteRequest": {"Key": key}} if there is None else {"PutRequest": {"Item": there}}
            )
        if writes:
            request = {"RequestItems": {self.table: writes}}
            self.dynamodb.execute(BatchWriteItem(request))


@contextlib.contextmanager
def sides_of(
    model: type[Model],
    row: type[Any] | None,
    *,
    engine: sa.Engine,
    dynamodb: DynamoDB | None,
) -> Iterator[Sides]:
    """Both databases with empty tables of a model, and memory.

    Tables that are missing are created, in PostgreSQL all of the SQL model's metadata, and those that were
    created are dropped again. Items are deleted time and again, so tables that have any are refused.

    Args:
        model: the PynamoDB model.
        row: the SQLAlchemy model; None keeps the items in a table of key columns and overflow.
        engine: a PostgreSQL database for tests; the schema `dualstore` is created in it.
        dynamodb: what plays DynamoDB; `ministack` differs from AWS in too much and is not asked.

    Raises:
        ConfigurationError: a table is there and has items, which would be lost.
        MappingError: the SQL model cannot hold the table's items.
    """
    shape = shape_of_model(model)
    mapping = unmapped_table(shape.name, shape) if row is None else map_table(shape.name, model, row)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_sql_table(engine, mapping))
        store = PostgresStore(engine, {shape.name: mapping})
        trusted = dynamodb is not None and dynamodb.engine != "ministack"
        there = stack.enter_context(_DynamoTable(dynamodb, shape)) if trusted and dynamodb else None

        def empty() -> None:
            with engine.begin() as connection:
                connection.execute(mapping.table.delete())
                for bookkeeping in (schema.tombstones, schema.outbox):
                    connection.execute(bookkeeping.delete().where(bookkeeping.c.table_name == shape.name))
            if there is not None:
                there.empty()

        yield Sides(
            table=shape.name,
            shape=shape,
            postgres=AsAuthority(store),
            dynamodb=None if there is None else there.store,
            engine="none" if dynamodb is None else dynamodb.engine,
            empty=empty,
            memory=MemoryStore({shape.name: shape}),
        )


@contextlib.contextmanager
def _sql_table(engine: sa.Engine, mapping: TableMapping) -> Iterator[None]:
    """The SQL table, empty, with its triggers, and a record that PostgreSQL alone has its items."""
    schema.upgrade(engine)
    table, control = mapping.table, PostgresControl(engine)
    present = sa.inspect(engine).has_table(table.name, schema=table.schema)
    if present:
        with engine.connect() as connection:
            if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
                raise ConfigurationError(
                    f"the SQL table {table.fullname!r} has rows, and the equivalence kit would delete them: "
                    "give it a database of its own (the fixture dualstore_engine)"
                )
    before = set(sa.inspect(engine).get_table_names())
    table.metadata.create_all(engine)
    triggers.install(engine, mapping)
    control.install(ControlRecord(mapping.shape.name, stage=Stage.COMPLETE, epoch=_EPOCH, generation=1))
    try:
        yield
    finally:
        triggers.remove(engine, mapping)
        created = [each for each in table.metadata.sorted_tables if each.name not in before]
        table.metadata.drop_all(engine, tables=created)


class _DynamoTable:
    """The table in a DynamoDB; a context manager that makes it and drops it."""

    def __init__(self, server: DynamoDB, shape: TableShape) -> None:
        account: dict[str, Any] = {} if ".amazonaws.com" in server.endpoint_url else _STAND_IN_ACCOUNT
        self._clients = dynamo_clients(endpoint_url=server.endpoint_url, **account)
        self._shape = shape
        self.store = DynamoStore(reads=self._clients.reads, writes=self._clients.reads)

    def __enter__(self) -> Self:
        client = self._clients.reads
        try:
            client.create_table(**create_request(self._shape))
        except client.exceptions.ResourceInUseException:
            self._clients.__exit__()
            raise ConfigurationError(
                f"the DynamoDB table {self._shape.name!r} is there, and the equivalence kit would delete its "
                "items: give it a DynamoDB of its own (the fixture dualstore_dynamodb)"
            ) from None
        client.get_waiter("table_exists").wait(TableName=self._shape.name, WaiterConfig={"Delay": 1})
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.reads.delete_table(TableName=self._shape.name)
        self._clients.__exit__()

    def empty(self) -> None:
        """Delete all items."""
        names = self._shape.keys.names
        start: Mapping[str, Any] = {}
        while True:
            found = self.store.execute(Scan({"TableName": self._shape.name, "ConsistentRead": True, **start}))
            keys = [{name: item[name] for name in names} for item in found["Items"]]
            for first in range(0, len(keys), _BATCH_ITEMS):
                asked = [{"DeleteRequest": {"Key": key}} for key in keys[first : first + _BATCH_ITEMS]]
                self.store.execute(BatchWriteItem({"RequestItems": {self._shape.name: asked}}))
            if "LastEvaluatedKey" not in found:
                return
            start = {"ExclusiveStartKey": found["LastEvaluatedKey"]}


def create_request(shape: TableShape) -> dict[str, Any]:
    """The CreateTable request of a table of this shape, paid per request."""
    indexes: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for index in shape.indexes.values():
        projection: dict[str, Any] = (
            {"ProjectionType": index.projection}
            if isinstance(index.projection, str)
            else {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(index.projection)}
        )
        indexes[index.is_global].append(
            {"IndexName": index.name, "KeySchema": _key_schema(index.keys.names), "Projection": projection}
        )
    attributes = {
        attribute.name: attribute.type
        for keys in (shape.keys, *(index.keys for index in shape.indexes.values()))
        for attribute in keys.attributes
    }
    request: dict[str, Any] = {
        "TableName": shape.name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": kind} for name, kind in attributes.items()
        ],
        "KeySchema": _key_schema(shape.keys.names),
        "GlobalSecondaryIndexes": indexes[True],
        "LocalSecondaryIndexes": indexes[False],
    }
    return {parameter: value for parameter, value in request.items() if value}


def _key_schema(names: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"AttributeName": name, "KeyType": role} for name, role in zip(names, ("HASH", "RANGE"), strict=False)
    ]
