"""What a request is refused for before anything is read: in DynamoDB's order and words, without values."""

import re

import pytest

from dualstore.errors import RequestRejected
from dualstore.items import Index, KeyAttribute, KeySchema, TableShape
from dualstore.operations import parse
from dualstore.stores import MemoryStore, semantics

KEYS = KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N"))
SHAPES = {
    "things": TableShape(
        "things",
        KEYS,
        {
            "by-g": Index("by-g", KeySchema(KeyAttribute("g", "S")), "KEYS_ONLY"),
            "by-l": Index(
                "by-l", KeySchema(KeyAttribute("pk", "S"), KeyAttribute("l", "B")), is_global=False
            ),
        },
    )
}
KEY = {"pk": {"S": "secret"}, "sk": {"N": "4711"}}
ONE = {"TableName": "things", "Key": KEY}
PUT = {"TableName": "things", "Item": KEY}
QUERY = {
    "TableName": "things",
    "KeyConditionExpression": "pk = :p",
    "ExpressionAttributeValues": {":p": {"S": "secret"}},
}
VALUE = {":v": {"S": "secret"}}
OVER = "failed to satisfy constraint: "


def message_of(name, request):
    """Why a store refuses a request."""
    with pytest.raises(Exception) as caught:
        MemoryStore(SHAPES).execute(parse(name, request))
    error = caught.value.response["Error"]
    assert "secret" not in error["Message"]
    assert "4711" not in error["Message"]
    return f"{error['Code']}: {error['Message']}"


@pytest.mark.parametrize(
    ("name", "request_", "message"),
    [
        ("GetItem", {"Key": KEY}, f"Value null at 'tableName' {OVER}Member must not be null"),
        ("GetItem", {"TableName": "things"}, f"Value null at 'key' {OVER}Member must not be null"),
        ("PutItem", {"TableName": "things"}, f"Value null at 'item' {OVER}Member must not be null"),
        (
            "GetItem",
            {**ONE, "TableName": ""},
            f"Value '' at 'tableName' {OVER}Member must have length greater",
        ),
        ("GetItem", {**ONE, "TableName": "x" * 256}, "Member must have length less than or equal to 255"),
        ("GetItem", {**ONE, "TableName": "x!"}, "regular expression pattern: [a-zA-Z0-9_.-]+"),
        (
            "GetItem",
            {**ONE, "ReturnConsumedCapacity": "ALL"},
            f"Value 'ALL' at 'returnConsumedCapacity' {OVER}Member must satisfy enum value set: [INDE",
        ),
        (
            "Scan",
            {"TableName": "things", "Limit": 0},
            f"Value '0' at 'limit' {OVER}Member must have value gr",
        ),
        ("Query", {**QUERY, "Limit": 0}, f"1 validation error detected: Value at 'Limit' {OVER}"),
        ("Scan", {"TableName": "things", "Segment": 1_000_000, "TotalSegments": 1}, "equal to 999999"),
        (
            "BatchGetItem",
            {"RequestItems": {"things": {"Keys": [KEY] * 101}}},
            f"Value at 'RequestItems.things.member.Keys' {OVER}Member must have length less than or equal to",
        ),
        (
            "BatchGetItem",
            {"RequestItems": {"things": {"Keys": []}}},
            "Value '[]' at 'requestItems.things.mem",
        ),
        ("BatchGetItem", {"RequestItems": {"things": {}}}, "Value null at 'requestItems.things.member.keys'"),
        ("BatchGetItem", {"RequestItems": {}}, "The requestItems parameter is required for BatchGetItem"),
        ("BatchGetItem", {}, f"Value null at 'requestItems' {OVER}"),
        ("BatchWriteItem", {"RequestItems": {"x!": []}}, "Map keys must satisfy constraint"),
        (
            "BatchWriteItem",
            {"RequestItems": {"things": [{"PutRequest": {"Item": KEY}}] * 26}},
            f"Value '{{things=[26 requests]}}' at 'requestItems' {OVER}Map value must satisfy constrai",
        ),
        (
            "BatchWriteItem",
            {"RequestItems": {name: [{"PutRequest": {"Item": KEY}}] * 20 for name in ("things", "others")}},
            "Too many items requested for the BatchWriteItem call",
        ),
        (
            "BatchWriteItem",
            {"RequestItems": {"things": [{"PutRequest": {}}]}},
            "Value null at 'requestItems.things.member.1.member.putRequest.item'",
        ),
        ("TransactWriteItems", {"TransactItems": []}, f"Value '[]' at 'transactItems' {OVER}"),
        ("TransactGetItems", {"TransactItems": [{"Get": ONE}] * 101}, "Value '[101 actions]' at 'transactIt"),
        (
            "TransactWriteItems",
            {"TransactItems": [{"Put": PUT}, {"Update": ONE}]},
            "Value null at 'transactItems.2.member.update.updateExpression'",
        ),
        (
            "TransactWriteItems",
            {"TransactItems": [{"Put": PUT}], "ClientRequestToken": "x" * 37},
            "at 'clientRequestToken'",
        ),
    ],
)
def test_a_parameter_that_cannot_be_is_told_with_its_constraint(name, request_, message):
    told = message_of(name, request_)
    assert told.startswith("ValidationException")
    assert message in told


def test_all_parameters_that_cannot_be_are_told_together():
    told = message_of(
        "PutItem",
        {
            **PUT,
            "ReturnConsumedCapacity": "A",
            "ReturnItemCollectionMetrics": "B",
            "ReturnValues": "C",
        },
    )
    assert "3 validation errors detected: Value 'A' at" in told
    assert re.findall("at '(.+?)'", told) == [
        "returnConsumedCapacity",
        "returnItemCollectionMetrics",
        "returnValues",
    ]


def test_a_table_name_that_cannot_be_is_told_alone():
    told = message_of("PutItem", {"TableName": "", "ReturnValues": "X"})
    assert told.startswith("ValidationException: 1 validation error detected: Value '' at 'tableName'")


@pytest.mark.parametrize(
    ("name", "request_", "message"),
    [
        ("GetItem", {**ONE, "ProjectionExpression": "!!! no"}, 'Projection.*token: "!", near: "!!"$'),
        ("UpdateItem", {**ONE, "UpdateExpression": "NO WAY OUT"}, 'Update.*token: "NO", near: "NO WAY"$'),
        ("UpdateItem", {**ONE, "UpdateExpression": "SET a = 5"}, 'token: "5", near: "= 5"$'),
        ("Query", {**QUERY, "KeyConditionExpression": ""}, "KeyConditionExpression: The expression can not"),
        ("Query", {**QUERY, "FilterExpression": "#f = :p"}, "Invalid FilterExpression: .* name: #f$"),
        ("PutItem", {**PUT, "ConditionExpression": "a = :x"}, "ConditionExpression: .* value: :x$"),
        ("PutItem", {**PUT, "ExpressionAttributeValues": VALUE}, ": ConditionExpression is null$"),
        (
            "UpdateItem",
            {**ONE, "ExpressionAttributeValues": VALUE},
            "UpdateExpression and ConditionExpression are null$",
        ),
        ("GetItem", {**ONE, "ExpressionAttributeNames": {"#a": "a"}}, "can only be specified when using"),
        (
            "UpdateItem",
            {**ONE, "UpdateExpression": "REMOVE a", "AttributeUpdates": {"a": {"Action": "DELETE"}}},
            r"Non-expression parameters: {AttributeUpdates} Expression parameters: {UpdateExpression}$",
        ),
        ("PutItem", {**PUT, "ReturnValues": "ALL_NEW"}, "ReturnValues can only be ALL_OLD or NONE"),
        (
            "UpdateItem",
            {**ONE, "UpdateExpression": "REMOVE sk"},
            "Cannot update attribute sk. This attribute",
        ),
        ("GetItem", {**ONE, "Key": {"pk": {"S": "x"}}}, "provided key element does not match the schema"),
        (
            "GetItem",
            {**ONE, "Key": {**KEY, "x": KEY["pk"]}},
            "provided key element does not match the schema",
        ),
        ("GetItem", {**ONE, "Key": {**KEY, "pk": {"N": "1"}}}, "key element does not match the schema"),
        ("PutItem", {**PUT, "Item": {"pk": {"S": "x"}}}, "Missing the key sk in the item"),
        ("PutItem", {**PUT, "Item": {**KEY, "pk": {"N": "1"}}}, "key pk expected: S actual: N$"),
        ("PutItem", {**PUT, "Item": {**KEY, "pk": {"S": ""}}}, "an empty string value. Key: pk$"),
        (
            "PutItem",
            {**PUT, "Item": {**KEY, "g": {"N": "1"}}},
            "Index Key g Expected: S Actual: N IndexName: b",
        ),
        (
            "PutItem",
            {**PUT, "Item": {**KEY, "l": {"B": b""}}},
            "empty binary value. IndexName: by-l, IndexKey",
        ),
        ("PutItem", {**PUT, "Item": {**KEY, "s": {"SS": []}}}, "An string set  may not be empty"),
        ("PutItem", {**PUT, "Item": {**KEY, "s": {"NS": []}}}, "An number set  may not be empty"),
        ("PutItem", {**PUT, "Item": {**KEY, "s": {"BS": []}}}, "Binary sets should not be empty"),
        ("PutItem", {**PUT, "Item": {**KEY, "s": {"SS": ["secret"] * 2}}}, "contains duplicates"),
        ("Scan", {"TableName": "things", "Segment": 0}, "The TotalSegments parameter is required"),
        ("Scan", {"TableName": "things", "TotalSegments": 2}, "The Segment parameter is required"),
        (
            "Scan",
            {"TableName": "things", "Segment": 2, "TotalSegments": 2},
            "Segment: 2 is not less than Tot",
        ),
        ("Query", {**QUERY, "FilterExpression": "sk = :p"}, "Primary key attribute: sk"),
        ("Query", {"TableName": "things"}, "KeyConditions or KeyConditionExpression parameter must be"),
    ],
)
def test_what_cannot_be_said_of_a_table_is_told_in_dynamodbs_words(name, request_, message):
    told = message_of(name, request_)
    assert told.startswith("ValidationException")
    assert re.search(message, told)


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("GetItem", {**ONE, "ReturnConsumedCapacity": "ALL"}),
        ("GetItem", {**ONE, "ProjectionExpression": "!"}),
        ("GetItem", {**ONE, "Key": {"pk": {"NS": ["1", "1"]}}}),
        ("PutItem", {**PUT, "ReturnValues": "ALL_NEW"}),
        ("PutItem", {**PUT, "Item": {"a": {"SS": []}}}),
        ("UpdateItem", {**ONE, "UpdateExpression": "NO"}),
        ("Query", {**QUERY, "Limit": 0}),
        ("Query", {**QUERY, "KeyConditionExpression": "pk ="}),
    ],
)
def test_a_request_that_no_table_takes_is_refused_for_that_and_not_for_its_table(name, request_):
    assert message_of(name, {**request_, "TableName": "nothing"}).startswith("ValidationException")
    if name == "GetItem":
        assert message_of(name, {**ONE, "TableName": "nothing"}).startswith("ResourceNotFoundException")


def test_the_table_is_looked_for_before_the_key_is_held_against_it():
    told = message_of("GetItem", {"TableName": "nothing", "Key": {"x": {"S": "y"}}})
    assert told == "ResourceNotFoundException: Requested resource not found"


def test_an_expression_that_cannot_be_refuses_a_transaction_and_a_key_cancels_it():
    bad = {"Get": {**ONE, "ProjectionExpression": "!"}}
    assert message_of("TransactGetItems", {"TransactItems": [bad]}).startswith(
        "ValidationException: Invalid P"
    )
    bad = {"Get": {**ONE, "Key": {}}}
    assert message_of("TransactGetItems", {"TransactItems": [bad]}).startswith("TransactionCanceledException")


def test_an_arn_is_a_name_that_dynamodb_takes():
    arn = "arn:aws:dynamodb:us-east-1:123456789012:table/things"
    with pytest.raises(RequestRejected, match="ResourceNotFoundException"):
        semantics.shape_of(SHAPES, parse("GetItem", {**ONE, "TableName": arn}))
