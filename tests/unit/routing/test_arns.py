"""A served table that is named by its ARN is served, and answered for by its ARN."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.models import Model

from dualstore import bind
from dualstore.bind import bind_model, unbind_table
from dualstore.client import RoutedClient
from dualstore.errors import ConfigurationError
from dualstore.operations import parse
from dualstore.routing.arns import OwnArns, answered_by_arn, asked_by_name, named_by_arn
from dualstore.stages import Side
from unit.replication.processes import TABLE
from unit.routing.conftest import Routing, item, key

ARN = f"arn:aws:dynamodb:eu-west-1:123456789012:table/{TABLE}"
FOREIGN = "arn:aws:dynamodb:eu-west-1:123456789012:table/not-served"
OF_OTHERS = [ARN.replace("123456789012", "210987654321"), ARN.replace("eu-west-1", "us-east-1")]
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
    arns = named_by_arn(operation.tables, {TABLE}, lambda _: ARN)
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


# Tables of the same name, of other accounts and in other regions


def failing(error: Exception) -> Callable[[str], str | None]:
    def describe(_: str) -> str | None:
        raise error

    return describe


@pytest.mark.parametrize("arn", OF_OTHERS)
def test_a_table_of_the_same_name_elsewhere_is_another_table(
    routing_of: Callable[..., Routing], arn: str
) -> None:
    routing = routing_of(arn_of=OwnArns(lambda _: ARN))
    request = {"TableName": arn, "Item": item()}
    assert RoutedClient(Passed(), routing.router).put_item(**request) == request
    assert held(routing) == [False, False]
    RoutedClient(Beyond(), routing.router).put_item(**{**request, "TableName": ARN})
    assert held(routing) == [True, True]


def test_of_a_batch_over_two_accounts_only_the_served_table_is_routed(
    routing_of: Callable[..., Routing],
) -> None:
    routing = routing_of(arn_of=OwnArns(lambda _: ARN))
    operation = parse("BatchGetItem", {"RequestItems": {ARN: {}, OF_OTHERS[0]: {}}})
    arns = named_by_arn(operation.tables, {TABLE}, OwnArns(lambda _: ARN))
    assert set(asked_by_name(operation, arns)["RequestItems"]) == {TABLE, OF_OTHERS[0]}
    assert routing.router.serves(operation.tables)
    assert not routing.router.serves(frozenset(OF_OTHERS))


@pytest.mark.parametrize("told", [None, ARN.replace("123456789012", "000000000000")])
def test_at_a_stand_in_which_has_no_accounts_a_table_goes_by_its_name(
    routing_of: Callable[..., Routing], told: str | None
) -> None:
    routing = routing_of(arn_of=OwnArns(lambda _: told))
    RoutedClient(Beyond(), routing.router).put_item(TableName=ARN, Item=item())
    assert held(routing) == [True, True]


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "AccessDeniedException"}}, "DescribeTable"),
        EndpointConnectionError(endpoint_url="https://nowhere"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_where_nobody_can_tell_whose_table_it_is_nothing_is_done(
    routing_of: Callable[..., Routing], error: Exception
) -> None:
    routing = routing_of(arn_of=OwnArns(failing(error)))
    client = RoutedClient(Beyond(), routing.router)
    with pytest.raises(ClientError, match="use the table's name"):
        client.put_item(TableName=ARN, Item=item())
    assert held(routing) == [False, False]
    client.put_item(TableName=TABLE, Item=item())
    assert held(routing) == [True, True]


def test_whose_a_table_is_is_asked_once() -> None:
    asked: list[str] = []
    arn_of = OwnArns(lambda name: asked.append(name) or ARN)
    assert [arn_of(TABLE), arn_of(TABLE)] == [ARN, ARN]
    assert asked == [TABLE]


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


def test_a_bound_model_goes_past_the_router_to_a_table_of_another_account(
    routing_of: Callable[..., Routing], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By PynamoDB's own connection: it may have that account's credentials."""
    routing = routing_of(arn_of=OwnArns(lambda _: ARN))
    passed: list[tuple[str, str]] = []
    monkeypatch.setattr(
        bind,
        "_original",
        lambda connection, name, request: (
            passed.append((type(connection).__name__, request["TableName"])) or {}
        ),
    )

    class Theirs(Model):
        class Meta:
            table_name = OF_OTHERS[0]
            region = "eu-west-1"

        customer = UnicodeAttribute(hash_key=True)
        number = NumberAttribute(range_key=True)

    bind_model(model, routing.router)
    try:
        Theirs("ann", 1).save()
    finally:
        unbind_table(TABLE, routing.router)
    assert passed == [("Connection", OF_OTHERS[0])]
    assert held(routing) == [False, False]
