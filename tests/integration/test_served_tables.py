"""Tables on PostgreSQL alone: what several processes see of them, and what is removed with time."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg import RawCursor

from dualstore.errors import RequestRejected
from dualstore.mapping import TableMapping  # noqa: TC001 - one import, not worth a block
from dualstore.operations import parse
from dualstore.schema import upgrade
from dualstore.serving.apis import StoreApi
from dualstore.serving.tables import ServedTables
from dualstore.serving.upkeep import Upkeep
from dualstore.stores import semantics
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres.catalog import Catalog
from dualstore.stores.postgres.collections import size_statements, sizes_bytes
from dualstore.stores.postgres_upkeep import PostgresUpkeep
from dualstore.testing.servers import Postgres


@pytest.fixture(scope="module")
def engine(postgres_server: Postgres) -> Iterator[sa.Engine]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    upgrade(engine)
    yield engine
    engine.dispose()
    postgres_server.drop_database(url)


class Process:
    """What one `dualstore serve` has, with a clock of its own."""

    def __init__(self, engine: sa.Engine) -> None:
        self.time = 0.0
        self.mappings: dict[str, TableMapping] = {}
        self.tables = ServedTables(engine, self.mappings, monotonic=lambda: self.time)
        self.store = PostgresStore(engine, self.mappings)
        self.api = StoreApi(self.store, self.tables)

    def ask(self, operation: str, **request: Any) -> Any:
        return self.api.execute(operation, request)

    def create(self, name: str, *, key: str = "pk", local_index: bool = False) -> None:
        attributes = [key, "sk", "l"] if local_index else [key]
        keys = [{"AttributeName": key, "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
        index = {
            "IndexName": "by-l",
            "KeySchema": [keys[0], {"AttributeName": "l", "KeyType": "RANGE"}],
            "Projection": {"ProjectionType": "ALL"},
        }
        self.ask(
            "CreateTable",
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": each, "AttributeType": "S"} for each in attributes],
            KeySchema=keys if local_index else keys[:1],
            **({"LocalSecondaryIndexes": [index]} if local_index else {}),
        )


@pytest.fixture
def name() -> str:
    return f"served-{uuid.uuid4().hex[:8]}"


def item(text: str, **more: Any) -> dict[str, Any]:
    return {"pk": {"S": text}, **more}


def test_a_process_knows_at_once_of_a_table_that_another_has_made(engine: sa.Engine, name: str):
    one, other = Process(engine), Process(engine)
    other.tables.reload()
    other.time = -1.0  # what it knows is not old enough to be looked at again
    one.create(name)
    other.ask("PutItem", TableName=name, Item=item("a"))
    assert one.ask("GetItem", TableName=name, Key=item("a"))["Item"] == item("a")


def test_a_process_does_not_go_on_with_a_table_that_another_has_removed(engine: sa.Engine, name: str):
    one, other = Process(engine), Process(engine)
    one.create(name)
    other.ask("PutItem", TableName=name, Item=item("a"))
    one.ask("DeleteTable", TableName=name)
    with pytest.raises(Exception, match="ResourceNotFoundException"):
        other.ask("PutItem", TableName=name, Item=item("b"))
    one.create(name)
    assert other.ask("Scan", TableName=name)["Items"] == []


def test_a_process_writes_nothing_into_a_table_made_anew_by_what_it_knew_of_the_one_before(
    engine: sa.Engine, name: str
):
    one, other = Process(engine), Process(engine)
    one.create(name)
    other.ask("PutItem", TableName=name, Item=item("a"))
    one.ask("DeleteTable", TableName=name)
    one.create(name, key="another")
    with pytest.raises(Exception, match="Missing the key another"):
        other.ask("PutItem", TableName=name, Item=item("b"))
    assert one.ask("Scan", TableName=name)["Items"] == []


def test_another_processs_index_is_known_when_what_is_known_is_a_second_old(engine: sa.Engine, name: str):
    one, other = Process(engine), Process(engine)
    one.create(name)
    other.ask("PutItem", TableName=name, Item=item("a", g={"S": "x"}))
    keys = [{"AttributeName": "g", "KeyType": "HASH"}]
    index = {"IndexName": "by-g", "KeySchema": keys, "Projection": {"ProjectionType": "ALL"}}
    one.ask(
        "UpdateTable",
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "g", "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[{"Create": index}],
    )
    query = {
        "TableName": name,
        "IndexName": "by-g",
        "KeyConditionExpression": "g = :g",
        "ExpressionAttributeValues": {":g": {"S": "x"}},
    }
    with pytest.raises(Exception, match="specified index"):
        other.ask("Query", **query)
    other.time += 1.1
    assert other.ask("Query", **query)["Count"] == 1


def test_changes_of_one_table_by_several_processes_are_all_kept(engine: sa.Engine, name: str):
    processes = [Process(engine), Process(engine)] * 4
    processes[0].create(name)
    arn = processes[0].ask("DescribeTable", TableName=name)["Table"]["TableArn"]

    def tag(number: int) -> None:
        tags = [{"Key": f"k{number}", "Value": "v"}]
        processes[number % 8].ask("TagResource", ResourceArn=arn, Tags=tags)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tag, range(24)))
    found = processes[1].ask("ListTagsOfResource", ResourceArn=arn)["Tags"]
    assert {each["Key"] for each in found} == {f"k{number}" for number in range(24)}


def test_a_table_whose_creation_fails_leaves_nothing(engine: sa.Engine, name: str, monkeypatch):
    process = Process(engine)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr(sa.Table, "create", broken)
        with pytest.raises(RuntimeError):
            process.create(name)
    with pytest.raises(RequestRejected, match="ResourceNotFoundException"):
        process.ask("DescribeTable", TableName=name)
    process.create(name)


def test_what_has_expired_is_removed_and_nothing_else(engine: sa.Engine, name: str):
    process, now = Process(engine), time.time()
    process.create(name)
    process.ask(
        "UpdateTimeToLive",
        TableName=name,
        TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": True},
    )
    year = 365 * 86_400
    for text, ttl in (
        ("expired", {"N": str(int(now - 10))}),
        ("later", {"N": str(int(now + 1_000))}),
        ("ancient", {"N": str(int(now - 6 * year))}),
        ("text", {"S": str(int(now - 10))}),
    ):
        process.ask("PutItem", TableName=name, Item=item(text, ttl=ttl))
    process.ask("PutItem", TableName=name, Item=item("none"))
    keeper = PostgresUpkeep(engine, tombstone_retention=timedelta(0))
    Upkeep(process.store, process.tables, keeper).round()
    kept = {each["pk"]["S"] for each in process.ask("Scan", TableName=name)["Items"]}
    assert kept == {"later", "ancient", "text", "none"}
    with engine.connect() as connection:
        count = "SELECT count(*) FROM dualstore.tombstones WHERE table_name = %s"
        assert connection.exec_driver_sql(count, (name,)).scalar_one() == 0


def test_what_is_changed_while_it_is_about_to_expire_stays(engine: sa.Engine, name: str):
    process, now = Process(engine), int(time.time())
    process.create(name)
    process.ask(
        "UpdateTimeToLive",
        TableName=name,
        TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": True},
    )
    process.ask("PutItem", TableName=name, Item=item("a", ttl={"N": str(now - 10)}))

    class Overtaken(PostgresStore):
        """A store whose application is faster than the upkeep."""

        def execute(self, operation: Any) -> Any:
            response = super().execute(operation)
            if operation.name == "Scan" and operation.table == name:
                prolonged = {"TableName": name, "Item": item("a", ttl={"N": str(now + 1_000)})}
                super().execute(parse("PutItem", prolonged))
            return response

    store = Overtaken(engine, process.mappings)
    Upkeep(store, process.tables, PostgresUpkeep(engine)).round()
    assert "Item" in process.ask("GetItem", TableName=name, Key=item("a"))


def test_a_large_collection_is_estimated_without_being_read(engine: sa.Engine, name: str):
    process = Process(engine)
    process.create(name, local_index=True)
    for start in range(0, 1_000, 25):
        entries = [
            {"PutRequest": {"Item": item("p", sk={"S": f"{n:04}"}, l={"S": "x"}, a={"S": f"{n:04}" * 100})}}
            for n in range(start, start + 25)
        ]
        process.ask("BatchWriteItem", RequestItems={name: entries})
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    put = parse(
        "PutItem",
        {"TableName": name, "Item": item("p", sk={"S": "x"}), "ReturnItemCollectionMetrics": "SIZE"},
    )
    catalog = Catalog(process.mappings)
    collections = semantics.plan_write(put, catalog).collections
    answers = []
    with engine.connect() as connection:
        cursor = RawCursor(connection.connection.driver_connection)
        for statement, values in size_statements(catalog, collections):
            answers.append(cursor.execute(statement, values).fetchall())
    (estimated,) = sizes_bytes(catalog, collections, answers)
    items = process.ask(
        "Query",
        TableName=name,
        KeyConditionExpression="pk = :p",
        ExpressionAttributeValues={":p": {"S": "p"}},
    )["Items"]
    exact = semantics.collection_size_bytes(process.mappings[name].shape, items)
    assert len(items) == 1_000
    assert exact / 2 < estimated < exact * 2
    assert process.api.execute("PutItem", put.request)["ItemCollectionMetrics"] == {
        "ItemCollectionKey": {"pk": {"S": "p"}},
        "SizeEstimateRangeGB": [0.0, 1.0],
    }
