"""Legacy parameters become the expressions that mean the same, or stay as they are to be refused."""

import copy

import pytest

from dualstore.expressions import with_expressions
from dualstore.operations import parse

KEY = {"pk": {"S": "p"}}


def test_a_request_without_legacy_parameters_is_the_same_object():
    request = {"TableName": "t", "Key": KEY, "ConditionExpression": "attribute_exists(pk)"}
    assert with_expressions(request) is request


def test_every_parameter_is_said_anew_and_the_rest_is_kept():
    request = {
        "TableName": "t",
        "KeyConditions": {"pk": {"ComparisonOperator": "EQ", "AttributeValueList": [{"S": "p"}]}},
        "QueryFilter": {
            "size": {"ComparisonOperator": "GT", "AttributeValueList": [{"N": "1"}]},
            "pk.x": {"ComparisonOperator": "NULL"},
        },
        "ConditionalOperator": "OR",
        "AttributesToGet": ["size", "pk"],
        "Limit": 5,
    }
    before = copy.deepcopy(request)
    assert with_expressions(request) == {
        "TableName": "t",
        "Limit": 5,
        "FilterExpression": "#legacy0 > :legacy0 OR attribute_not_exists(#legacy1)",
        "KeyConditionExpression": "#legacy2 = :legacy1",
        "ProjectionExpression": "#legacy0, #legacy2",
        "ExpressionAttributeNames": {"#legacy0": "size", "#legacy1": "pk.x", "#legacy2": "pk"},
        "ExpressionAttributeValues": {":legacy0": {"N": "1"}, ":legacy1": {"S": "p"}},
    }
    assert request == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"Expected": {"n": {"Value": {"N": "1"}}}, "ConditionExpression": "attribute_exists(pk)"},
        {"Expected": {"n": {"ComparisonOperator": "LIKE", "AttributeValueList": [{"N": "1"}]}}},
        {"Expected": {"n": {}}},
        {"Expected": {"n": "1"}},
        {"Expected": ["n"]},
        {"Expected": {"n": {"Value": {"N": "1"}}}, "ConditionalOperator": "OR"},
        {"AttributesToGet": []},
        {"KeyConditions": {}},
        {"AttributeUpdates": {"n": {"Action": "REPLACE", "Value": {"N": "1"}}}},
        {"AttributeUpdates": {"n": {"Action": "ADD", "Value": {"N": "1", "S": "1"}}}},
    ],
)
def test_what_says_nothing_stays_as_it_is(wrong):
    request = {"TableName": "t", "Key": KEY, **wrong}
    assert with_expressions(request) is request


def test_a_batch_of_gets_is_said_anew_table_by_table():
    asked = {"a": {"Keys": [KEY], "AttributesToGet": ["n"]}, "b": {"Keys": [KEY]}}
    said = parse("BatchGetItem", {"RequestItems": asked}).request["RequestItems"]
    assert said["b"] == asked["b"]
    assert said["a"] == {
        "Keys": [KEY],
        "ProjectionExpression": "#legacy0",
        "ExpressionAttributeNames": {"#legacy0": "n"},
    }
