"""The routed boto3-shaped client, and what its callers see while PostgreSQL is away."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from dualstore import DualStore, Stage
from dualstore.control import Gate
from dualstore.errors import ConfigurationError, UnsupportedOperation
from dualstore.flags import StaticFlags
from dualstore.items import STAMP
from dualstore.stages import Side
from dualstore.testing.servers import DynamoDB, PostgresServer
from integration.deployment import (
    LASTING,
    WHOLE_MIGRATION,
    Deployment,
    authoritative,
    bring_to,
    deployed,
    eventually,
    mirrored,
    served_by,
)

NAME = "orders"


@pytest.fixture(scope="module")
def store(deployment: Deployment) -> Iterator[DualStore]:
    with deployment.store(StaticFlags(), grants=LASTING) as one:
        model, row = deployment.table()
        one.repository(model, row, name=NAME)
        bring_to(one, NAME, WHOLE_MIGRATION["shadow"])
        yield one


@pytest.fixture
def table(store: DualStore) -> str:
    return store.table(NAME).physical


@pytest.fixture
def p() -> str:
    return uuid.uuid4().hex


def key(p: str, sk: int = 1) -> dict[str, Any]:
    return {"pk": {"S": p}, "sk": {"N": str(sk)}}


def test_the_ten_item_operations_are_routed_and_answer_as_boto3_does(
    store: DualStore, deployment: Deployment, table: str, p: str
) -> None:
    client, boto = store.client(), deployment.dynamodb
    item = {**key(p), "b": {"B": b"\x00\xff"}, "s": {"SS": ["x"]}, "m": {"M": {"l": {"L": [{"NULL": True}]}}}}
    client.put_item(TableName=table, Item=item)
    client.update_item(
        TableName=table,
        Key=key(p),
        UpdateExpression="SET n = :v",
        ExpressionAttributeValues={":v": {"N": "7"}},
    )
    client.batch_write_item(
        RequestItems={table: [{"PutRequest": {"Item": key(p, sk)}} for sk in (2, 3)]}
        | {table: [{"PutRequest": {"Item": {**key(p, sk), "n": {"N": "0"}}}} for sk in (2, 3)]}
    )
    client.transact_write_items(TransactItems=[{"Delete": {"TableName": table, "Key": key(p, 3)}}])
    client.delete_item(TableName=table, Key=key(p, 404))
    query = {
        "TableName": table,
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": {"S": p}},
        "Limit": 1,
    }
    assert client.get_item(TableName=table, Key=key(p))["Item"] == item | {"n": {"N": "7"}}
    before = served_by(store, Side.POSTGRES)
    pages = list(client.get_paginator("query").paginate(**{**query, "Limit": 1}))
    assert served_by(store, Side.POSTGRES) - before == len(pages) >= 2
    assert [each["sk"]["N"] for page in pages for each in page["Items"]] == ["1", "2"]
    assert pages[0]["LastEvaluatedKey"] == boto.query(**query)["LastEvaluatedKey"] == key(p)
    assert STAMP in boto.query(**query)["Items"][0]
    assert STAMP not in repr(pages)
    assert mirrored(store, table, p) == authoritative(deployment, table, p)


def test_refusals_are_boto3s_own(store: DualStore, table: str, p: str) -> None:
    client = store.client()
    with pytest.raises(client.exceptions.ConditionalCheckFailedException) as refused:
        client.put_item(TableName=table, Item=key(p), ConditionExpression="attribute_exists(pk)")
    assert refused.value.response["Error"]["Code"] == "ConditionalCheckFailedException"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_item(TableName="there-is-no-such-table", Key=key(p))


def test_what_is_no_item_operation_is_the_clients_own_and_partiql_is_refused(
    store: DualStore, table: str
) -> None:
    client = store.client()
    assert client.describe_table(TableName=table)["Table"]["TableName"] == table
    assert client.meta.region_name
    assert client.can_paginate("scan")
    with pytest.raises(UnsupportedOperation, match="PartiQL"):
        client.execute_statement(Statement="SELECT 1")
    with pytest.raises(AttributeError):
        client.no_such_operation()


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("get_item", {"Key": key("x")}),
        ("batch_get_item", {}),
        ("transact_write_items", {"TransactItems": [{"Put": {"Item": key("x")}}]}),
    ],
)
def test_a_request_that_names_no_table_is_refused_by_the_client_itself(
    store: DualStore, deployment: Deployment, method: str, request_: dict[str, Any]
) -> None:
    with pytest.raises(Exception) as refused:
        getattr(deployment.clients.reads, method)(**request_)
    with pytest.raises(refused.type):
        getattr(store.client(), method)(**request_)
    assert refused.type is not KeyError


def test_a_table_is_found_by_its_logical_name_only(store: DualStore, table: str) -> None:
    assert store.table(NAME).physical == table
    assert [each.physical for each in store.tables()] == [table]
    with pytest.raises(ConfigurationError, match="known: orders"):
        store.table("elsewhere")


# Invariant I3


@pytest.fixture
def fragile(dynamodb: Any, dynamodb_server: DynamoDB) -> Iterator[tuple[PostgresServer, Deployment]]:
    """A PostgreSQL of its own, to be stopped."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(PostgresServer(settings={"fsync": "off"}))
        except ConfigurationError as error:
            if os.environ.get("DUALSTORE_REQUIRE_SERVERS") == "1":
                raise
            pytest.skip(str(error))
        yield (
            server,
            stack.enter_context(deployed(server.create_database(), dynamodb, dynamodb_server.endpoint_url)),
        )


def test_callers_get_the_authoritys_answers_while_postgresql_is_away_and_repair_catches_up(
    fragile: tuple[PostgresServer, Deployment], p: str
) -> None:
    server, deployment = fragile
    model, row = deployment.table()
    with deployment.store(StaticFlags()) as store:
        store.bind(model, row, name=NAME)
        table = bring_to(store, NAME, WHOLE_MIGRATION["shadow"])
        model(p, 1, name="before", n=1).save()
        model(p, 2, name="before", n=1).save()
        assert model.get(p, 1).name == "before"
        assert served_by(store, Side.POSTGRES) == 1

        server.stop("immediate")
        reads = [(item.sk, item.name) for item in model.query(p)]
        assert reads == [(1, "before"), (2, "before")]
        started = time.monotonic()
        item = model.get(p, 1)
        item.name = "during"
        item.save()
        assert time.monotonic() - started < 10  # one wait of a second, and connections that are refused
        model(p, 2).delete(add_version_condition=False)
        started = time.monotonic()
        with model.batch_write() as batch:
            for sk in range(3, 8):
                batch.save(model(p, sk, name="during"))
        for sk in range(8, 12):
            model(p, sk, name="during").save()
            assert model.get(p, sk).name == "during"
        assert time.monotonic() - started < 8  # a wait for each write would be nine
        assert [item.sk for item in model.query(p)] == [1, *range(3, 12)]
        status = table.status()
        assert (status.mirror_up, status.record.gate, status.dirty_keys) == (False, Gate.SHUT, None)
        assert status.journal_keys == 11

        with deployment.store(StaticFlags()) as started_meanwhile:
            started_meanwhile.repository(model, row, name=NAME).save(model(p, 99, name="newcomer"))

        server.start()
        eventually(lambda: not table.status().pending, seconds=20)
        assert mirrored(store, table.physical, p) == authoritative(deployment, table.physical, p)
        assert table.verify(segments=1, workers=1).proven
        before = served_by(store, Side.POSTGRES)
        eventually(lambda: table.view.record.mirror_readable)
        assert model.get(p, 99).name == "newcomer"
        eventually(lambda: model.get(p, 1).name == "during" and served_by(store, Side.POSTGRES) > before)


def test_a_store_starts_binds_and_writes_while_postgresql_is_away(
    fragile: tuple[PostgresServer, Deployment], p: str
) -> None:
    server, deployment = fragile
    model, row = deployment.table()
    flags = StaticFlags()
    with deployment.store(flags) as store:
        store.bind(model, row, name=NAME)
        flags.set(NAME, stage=Stage.DUALWRITE)
        store.table(NAME).wait_until(lambda record: record.stage is Stage.DUALWRITE)
        store.unbind(model)
    server.stop("immediate")
    with deployment.store(flags) as store:
        store.bind(model, row, name=NAME)
        table = store.table(NAME)
        model(p, 1, name="first").save()
        assert model.get(p, 1).name == "first"
        server.start()
        eventually(lambda: not table.status().pending, seconds=20)
        assert mirrored(store, table.physical, p) == authoritative(deployment, table.physical, p)
