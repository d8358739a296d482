"""`boto3.resource("dynamodb").Table` on the router: boto3's types and conditions, the router's answers."""

import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.conditions import Attr, Key
from boto3.dynamodb.types import Binary
from botocore.exceptions import ClientError

from dualstore import DualStore
from dualstore.errors import ConfigurationError, UnsupportedOperation
from dualstore.flags import StaticFlags
from dualstore.stages import Side
from dualstore.stores.dynamo import DynamoClients
from integration.deployment import LASTING, WHOLE_MIGRATION, Deployment, bring_to, mirrored, served_by

NAME = "orders"


@pytest.fixture(scope="module")
def store(deployment: Deployment) -> Iterator[DualStore]:
    with deployment.store(StaticFlags(), grants=LASTING) as one:
        model, row = deployment.table()
        one.repository(model, row, name=NAME)
        bring_to(one, NAME, WHOLE_MIGRATION["shadow"])
        yield one


@pytest.fixture
def table(store: DualStore) -> Any:
    return store.resource().Table(store.table(NAME).physical)


@pytest.fixture
def p() -> str:
    return uuid.uuid4().hex


def test_python_values_go_in_and_come_out_and_both_sides_have_them(
    store: DualStore, table: Any, p: str
) -> None:
    item = {
        "pk": p,
        "sk": Decimal(1),
        "name": "a",
        "bytes": Binary(b"\x00\xff"),
        "tags": {"x", "y"},
        "nested": {"list": [Decimal("1.5"), None, True]},
    }
    before = served_by(store, Side.POSTGRES)
    table.put_item(Item=item)
    assert table.get_item(Key={"pk": p, "sk": 1})["Item"] == item
    assert served_by(store, Side.POSTGRES) == before + 1
    (held,) = mirrored(store, store.table(NAME).physical, p)
    assert held["bytes"] == {"B": b"\x00\xff"}


def test_boto3s_conditions_are_understood(table: Any, p: str) -> None:
    for number in range(5):
        table.put_item(Item={"pk": p, "sk": number, "name": "even" if number % 2 == 0 else "odd"})
    found = table.query(
        KeyConditionExpression=Key("pk").eq(p) & Key("sk").gte(1),
        FilterExpression=Attr("name").eq("even"),
        ScanIndexForward=False,
    )
    assert [item["sk"] for item in found["Items"]] == [4, 2]
    with pytest.raises(ClientError) as refused:
        table.put_item(Item={"pk": p, "sk": 1}, ConditionExpression=Attr("pk").not_exists())
    assert refused.value.response["Error"]["Code"] == "ConditionalCheckFailedException"
    assert type(refused.value) is table.meta.client.exceptions.ConditionalCheckFailedException


def test_updates_and_deletes_return_python_values(table: Any, p: str) -> None:
    answer = table.update_item(
        Key={"pk": p, "sk": 1},
        UpdateExpression="SET n = if_not_exists(n, :zero) + :one",
        ExpressionAttributeValues={":zero": 0, ":one": Decimal("0.1")},
        ReturnValues="ALL_NEW",
    )
    assert answer["Attributes"] == {"pk": p, "sk": 1, "n": Decimal("0.1")}
    deleted = table.delete_item(Key={"pk": p, "sk": 1}, ReturnValues="ALL_OLD")
    assert deleted["Attributes"]["n"] == Decimal("0.1")


def test_a_batch_writer_and_a_batch_get_are_routed(store: DualStore, table: Any, p: str) -> None:
    with table.batch_writer() as batch:
        for number in range(30):
            batch.put_item(Item={"pk": p, "sk": number})
    assert len(mirrored(store, table.name, p)) == 30
    asked = {table.name: {"Keys": [{"pk": p, "sk": 0}, {"pk": p, "sk": 29}]}}
    found = store.resource().batch_get_item(RequestItems=asked)["Responses"][table.name]
    assert sorted(item["sk"] for item in found) == [0, 29]


def test_what_is_no_item_operation_is_dynamodbs_and_partiql_is_refused(store: DualStore, table: Any) -> None:
    assert table.key_schema[0]["AttributeName"] == "pk"
    with pytest.raises(UnsupportedOperation, match="PartiQL"):
        table.meta.client.execute_statement(Statement="SELECT * FROM t")


def test_a_table_that_is_not_served_is_asked_of_dynamodb(
    store: DualStore, deployment: Deployment, p: str
) -> None:
    model, _ = deployment.table()
    name = model.Meta.table_name
    store.resource().Table(name).put_item(Item={"pk": p, "sk": 1})
    key = {"pk": {"S": p}, "sk": {"N": "1"}}
    assert deployment.dynamodb.get_item(TableName=name, Key=key)["Item"] == key


def test_the_stores_own_clients_know_nothing_of_the_resource(store: DualStore, table: Any, p: str) -> None:
    table.put_item(Item={"pk": p, "sk": 1})
    found = store.client().get_item(TableName=table.name, Key={"pk": {"S": p}, "sk": {"N": "1"}})
    assert found["Item"]["sk"] == {"N": "1"}


def test_clients_of_somebodys_own_make_no_resource(deployment: Deployment) -> None:
    clients = DynamoClients(reads=deployment.clients.reads, writes=deployment.clients.writes)
    with (
        DualStore(engine=deployment.engine, dynamodb=clients, flags=StaticFlags()) as store,
        pytest.raises(ConfigurationError, match="dynamo_clients"),
    ):
        store.resource()
