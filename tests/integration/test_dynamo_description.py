"""DynamoDB's own answers, read as a migration needs them."""

from typing import Any

from dualstore.stores.dynamo_description import describe, described_ttl_attribute


def create(dynamodb: Any, name: str, **options: Any) -> None:
    dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        **options,
    )
    dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})


def test_a_plain_table_is_active_and_has_no_stream(dynamodb, table_name):
    create(dynamodb, table_name)
    description = describe(dynamodb, table_name)
    assert description.active
    assert description.stream_view is None
    assert description.other_regions == ()


def test_a_stream_with_both_images_is_seen(dynamodb, table_name):
    stream = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    create(dynamodb, table_name, StreamSpecification=stream)
    assert describe(dynamodb, table_name).streams_images


def test_the_ttl_attribute_is_known_once_it_is_enabled(dynamodb, table_name):
    create(dynamodb, table_name)
    assert described_ttl_attribute(dynamodb, table_name) is None
    dynamodb.update_time_to_live(
        TableName=table_name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
    )
    assert described_ttl_attribute(dynamodb, table_name) == "ttl"
