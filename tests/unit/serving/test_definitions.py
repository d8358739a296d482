"""What CreateTable and UpdateTable make of a table, and what they refuse."""

import copy

import pytest

from dualstore.errors import RequestRejected
from dualstore.items import table_shape_from_description
from dualstore.serving.definitions import check_name, created, described, updated

NOW = 1_700_000_000.0
TABLE = {
    "TableName": "things",
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [
        {"AttributeName": name, "AttributeType": kind}
        for name, kind in (("pk", "S"), ("sk", "N"), ("l", "B"))
    ],
    "KeySchema": [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ],
    "LocalSecondaryIndexes": [
        {
            "IndexName": "by-l",
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "l", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
}
INDEX = {
    "IndexName": "by-g",
    "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
    "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["a"]},
}


def changed(**changes):
    return {**copy.deepcopy(TABLE), **changes}


def added(definition):
    return updated(
        definition,
        {
            "AttributeDefinitions": [{"AttributeName": "g", "AttributeType": "S"}],
            "GlobalSecondaryIndexUpdates": [{"Create": INDEX}],
        },
        now=NOW,
    )


def test_a_table_is_active_at_once():
    definition = created(TABLE, now=NOW)
    assert definition["TableStatus"] == "ACTIVE"
    assert definition["CreationDateTime"] == NOW
    assert definition["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    shape = table_shape_from_description(definition)
    assert shape.keys.names == ("pk", "sk")
    assert not shape.indexes["by-l"].is_global


def test_what_is_told_of_a_shape_has_that_shape():
    shape = table_shape_from_description(added(created(TABLE, now=NOW)))
    assert table_shape_from_description(described(shape)) == shape


def test_an_index_comes_and_goes_with_the_definitions_of_its_attributes():
    before = created(TABLE, now=NOW)
    with_index = added(before)
    assert table_shape_from_description(with_index).indexes["by-g"].projection == ("a",)
    after = updated(with_index, {"GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "by-g"}}]}, now=NOW)
    assert table_shape_from_description(after) == table_shape_from_description(before)
    assert after["AttributeDefinitions"] == before["AttributeDefinitions"]


def test_a_definition_is_never_changed_in_place():
    definition = added(created(TABLE, now=NOW))
    before = copy.deepcopy(definition)
    updated(definition, {"GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "by-g"}}]}, now=NOW)
    updated(definition, {"DeletionProtectionEnabled": True}, now=NOW)
    assert definition == before


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (changed(TableName=None), "TableName"),
        (changed(TableName="ab"), "greater than or equal to 3"),
        (changed(TableName="a" * 256), "less than or equal to 255"),
        (changed(TableName="with space"), "regular expression pattern"),
        (changed(KeySchema=[]), "keySchema"),
        (changed(AttributeDefinitions=[]), "attributeDefinitions"),
        (changed(BillingMode="FREE"), "billingMode"),
        (changed(BillingMode="PROVISIONED"), "must both be specified"),
        (
            changed(ProvisionedThroughput={"ReadCapacityUnits": 1, "WriteCapacityUnits": 1}),
            "when BillingMode is PAY_PER_REQUEST",
        ),
        (
            changed(
                BillingMode="PROVISIONED",
                ProvisionedThroughput={"ReadCapacityUnits": 0, "WriteCapacityUnits": 0},
            ),
            "2 validation errors detected",
        ),
        (changed(LocalSecondaryIndexes=[]), "does not exactly match"),
        (changed(KeySchema=TABLE["KeySchema"][1:]), "not a HASH"),
        (changed(KeySchema=[TABLE["KeySchema"][0]] * 2), "not a RANGE"),
        (changed(KeySchema=[*TABLE["KeySchema"]] * 2), "less than or equal to 2"),
        (changed(LocalSecondaryIndexes=TABLE["LocalSecondaryIndexes"] * 2), "Duplicate index name"),
        (changed(LocalSecondaryIndexes=[{**TABLE["LocalSecondaryIndexes"][0], "Projection": {}}]), "null"),
    ],
)
def test_a_table_that_cannot_be_is_refused(request_, message):
    with pytest.raises(RequestRejected, match=message) as caught:
        created(request_, now=NOW)
    assert caught.value.code == "ValidationException"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({}, "ValidationException"),
        ({"GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "none"}}]}, "ResourceNotFoundException"),
        (
            {"GlobalSecondaryIndexUpdates": [{"Create": {**INDEX, "IndexName": "by-l"}}]},
            "ValidationException",
        ),
        ({"GlobalSecondaryIndexUpdates": [{"Create": INDEX}]}, "ValidationException"),
        ({"GlobalSecondaryIndexUpdates": [{"Create": INDEX}] * 2}, "LimitExceededException"),
    ],
)
def test_a_change_that_cannot_be_is_refused(request_, code):
    with pytest.raises(RequestRejected) as caught:
        updated(created(TABLE, now=NOW), request_, now=NOW)
    assert caught.value.code == code


def test_a_name_is_given_back():
    assert check_name("things.of-all_sorts") == "things.of-all_sorts"
