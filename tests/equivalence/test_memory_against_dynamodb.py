"""MemoryStore gives the answers of DynamoDB, for any short history of one table."""

import copy
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import shapes
from contract.tables import comparable
from dualstore.operations import parse
from dualstore.stores import DynamoStore, MemoryStore, Store, dynamo_clients
from equivalence.operations import Call, operations
from volume import examples


@pytest.fixture(scope="module")
def dynamo(dynamodb_server: Any) -> Iterator[DynamoStore]:
    if dynamodb_server.engine == "ministack":
        pytest.skip("ministack differs from AWS in too much to be an oracle: see contract/divergences.py")
    with dynamo_clients(endpoint_url=dynamodb_server.endpoint_url) as clients:
        yield DynamoStore(reads=clients.reads, writes=clients.writes)


@pytest.fixture(scope="module")
def table(dynamodb: Any) -> Iterator[str]:
    """The name of one table for all examples: each has partitions of its own."""
    name = f"equivalence-{uuid.uuid4().hex[:12]}"
    dynamodb.create_table(**shapes.create_request("things", name))
    dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    yield name
    dynamodb.delete_table(TableName=name)


def answer(store: Store, call: Call, table: str, prefix: str) -> Any:
    """The response, or the code of the refusal."""
    name, request = call
    request = in_its_own_partitions(copy.deepcopy(request), prefix)
    try:
        response = store.execute(parse(name, {"TableName": table, **request}))
    except ClientError as refused:
        return refused.response["Error"]["Code"]
    return comparable({part: value for part, value in response.items() if part != "ResponseMetadata"})


def in_its_own_partitions(request: dict[str, Any], prefix: str) -> dict[str, Any]:
    for keyed in (request.get("Key"), request.get("Item")):
        if keyed is not None:
            keyed["pk"] = {"S": prefix + keyed["pk"]["S"]}
    filled = request.get("ExpressionAttributeValues", {})
    if ":pk" in filled:
        filled[":pk"] = {"S": prefix + filled[":pk"]["S"]}
    return request


@settings(max_examples=examples(80))
@given(history=st.lists(operations(), min_size=1, max_size=12))
def test_any_history_gets_the_same_answers(dynamo: DynamoStore, table: str, history: list[Call]):
    prefix = uuid.uuid4().hex
    memory = MemoryStore({table: shapes.shape("things", table)})
    for call in history:
        expected = answer(dynamo, call, table, prefix)
        assert answer(memory, call, table, prefix) == expected, call
