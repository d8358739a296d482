"""A served table that is named by its ARN is served, and answered for by its ARN."""

from typing import Any

import pytest
from botocore.exceptions import ClientError
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.models import Model

from dualstore.bind import bind_model, unbind_table
from dualstore.client import RoutedClient
from dualstore.errors import ConfigurationError
from dualstore.operations import parse
from dualstore.routing.arns import answered_by_arn, asked_by_name, named_by_arn
from dualstore.stages import Side
from unit.replication.processes import TABLE
from unit.routing.conftest import Routing, item, key

ARN = f"arn:aws:dynamodb:eu-west-1:123456789012:table/{TABLE}"
FOREIGN = "arn:aws:dynamodb:eu-west-1:123456789012:table/not-served"
P = Side.POSTGRES


class Beyond:
    """The wrapped client, which a served table's operations must not get to."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} went around the router")


class Passed:
    """The wrapped client, where that is as it should be."""

    def put_item(self, **request: Any) -> Any:
        return request


def held(routing: Routing) -> list[bool]:
    return [
        store.state(TABLE, key()).item is not None
        for store in (routing.world.authority, routing.world.mirror)
    ]


REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "put_item": ("put_item", {"TableName": ARN, "Item": item()}),
    "update_item": ("update_item", {"TableName": ARN, "Key": key()}),
    "batch_write_item": (
        "batch_write_item",
        {"RequestItems": {ARN: [{"PutRequest": {"Item": item()}}]}},
    ),
    "transact_write_items": (
        "transact_write_items",
        {"TransactItems": [{"Put": {"TableName": ARN, "Item": item()}}]},
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_write_of_a_table_named_by_its_arn_is_mirrored(routing: Routing, name: str) -> None:
    method, request = REQUESTS[name]
    getattr(RoutedClient(Beyond(), routing.router), method)(**request)
    assert held(routing) == [True, True]


@pytest.mark.parametrize("arn", [ARN, TABLE])
def test_a_read_is_dialled_and_answered_by_the_name_that_it_was_asked_by(routing: Routing, arn: str) -> None:
    routing.put()
    client = RoutedClient(Beyond(), routing.router)
    total = {"ReturnConsumedCapacity": "TOTAL"}
    one: dict[str, Any] = {}
    batch: dict[str, Any] = {}
    assert routing.sides(lambda: one.update(client.get_item(TableName=arn, Key=key(), **total))) == [P]
    assert one["Item"] == item()
    assert one["ConsumedCapacity"]["TableName"] == arn
    asked = {arn: {"Keys": [key()]}}
    assert routing.sides(lambda: batch.update(client.batch_get_item(RequestItems=asked, **total))) == [P]
    assert batch["Responses"] == {arn: [item()]}
    assert [each["TableName"] for each in batch["ConsumedCapacity"]] == [arn]
    assert asked == {arn: {"Keys": [key()]}}


@pytest.mark.parametrize(
    ("name", "left"), [("BatchWriteItem", "UnprocessedItems"), ("BatchGetItem", "UnprocessedKeys")]
)
def test_what_a_batch_hands_back_can_be_asked_for_again_as_it_is(name: str, left: str) -> None:
    operation = parse(name, {"RequestItems": {ARN: {}, FOREIGN: {}}})
    arns = named_by_arn(operation.tables, {TABLE})
    asked = asked_by_name(operation, arns)["RequestItems"]
    assert set(asked) == {TABLE, FOREIGN}
    assert answered_by_arn(operation, {left: asked}, arns) == {left: operation.request["RequestItems"]}


@pytest.mark.parametrize("name", ["BatchGetItem", "BatchWriteItem"])
def test_a_batch_that_names_a_table_twice_is_refused(routing: Routing, name: str) -> None:
    asked = {"BatchGetItem": {"Keys": [key()]}, "BatchWriteItem": [{"PutRequest": {"Item": item()}}]}[name]
    with pytest.raises(ClientError, match="named twice") as refused:
        routing.router.execute(name, {"RequestItems": {TABLE: asked, ARN: asked}})
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert held(routing) == [False, False]


@pytest.mark.parametrize("table", [FOREIGN, "not-served", 5, None, ["a"]], ids=repr)
def test_any_other_table_is_the_wrapped_client_s(routing: Routing, table: Any) -> None:
    request = {"TableName": table, "Item": item()}
    assert RoutedClient(Passed(), routing.router).put_item(**request) == request


@pytest.fixture
def model() -> Any:
    class Order(Model):
        class Meta:
            table_name = TABLE
            region = "eu-west-1"

        customer = UnicodeAttribute(hash_key=True)
        number = NumberAttribute(range_key=True)

    return Order


def test_a_bound_model_whose_table_is_then_named_by_its_arn_stays_routed(
    routing: Routing, model: Any
) -> None:
    bind_model(model, routing.router)
    try:
        model.Meta.table_name = ARN
        model("ann", 1).save()
        assert held(routing) == [True, True]
        with model.batch_write() as batch:
            batch.delete(model("ann", 1))
        assert held(routing) == [False, False]
        model.Meta.table_name = FOREIGN
        with pytest.raises(ConfigurationError, match="Bind it again"):
            model("ann", 1).save()
    finally:
        unbind_table(TABLE, routing.router)
