"""What DynamoDB's descriptions mean for a migration."""

import pytest

from dualstore.stores.dynamo_description import TableDescription, described_ttl_attribute, description_of

ARN = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders-prod"
TABLE = {"TableName": "orders-prod", "TableArn": ARN, "TableStatus": "ACTIVE"}


def test_a_plain_table_has_neither_stream_nor_replicas():
    assert description_of(TABLE) == TableDescription("orders-prod", active=True)


@pytest.mark.parametrize(
    "status", ["CREATING", "DELETING", "ARCHIVED", "INACCESSIBLE_ENCRYPTION_CREDENTIALS"]
)
def test_only_an_active_or_updating_table_is_active(status):
    assert not description_of({**TABLE, "TableStatus": status}).active
    assert description_of({**TABLE, "TableStatus": "UPDATING"}).active


def test_replicas_in_other_regions_are_told_and_the_own_one_is_not():
    replicas = [
        {"RegionName": "us-east-1", "ReplicaStatus": "ACTIVE"},
        {"RegionName": "eu-central-1", "ReplicaStatus": "ACTIVE"},
        {"RegionName": "ap-south-1", "ReplicaStatus": "CREATING"},
    ]
    assert description_of({**TABLE, "Replicas": replicas}).other_regions == ("ap-south-1", "us-east-1")


def test_a_replica_counts_where_the_own_region_is_not_known():
    table = {"TableName": "orders-prod", "Replicas": [{"RegionName": "us-east-1"}]}
    assert description_of(table).other_regions == ("us-east-1",)


@pytest.mark.parametrize(
    ("specification", "view", "images"),
    [
        ({"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}, "NEW_AND_OLD_IMAGES", True),
        ({"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}, "NEW_IMAGE", False),
        ({"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}, "KEYS_ONLY", False),
        ({"StreamEnabled": False, "StreamViewType": "NEW_AND_OLD_IMAGES"}, None, False),
    ],
)
def test_a_stream_counts_while_it_is_enabled(specification, view, images):
    described = description_of({**TABLE, "StreamSpecification": specification})
    assert (described.stream_view, described.streams_images) == (view, images)


class Client:
    """Answers DescribeTimeToLive."""

    def __init__(self, **description: str) -> None:
        self.description = description

    def describe_time_to_live(self, TableName: str) -> dict[str, dict[str, str]]:  # noqa: N803 - boto3's
        assert TableName == "orders-prod"
        return {"TimeToLiveDescription": self.description}


@pytest.mark.parametrize(
    ("status", "attribute"),
    [("ENABLED", "ttl"), ("ENABLING", "ttl"), ("DISABLING", None), ("DISABLED", None)],
)
def test_an_attribute_expires_items_only_while_time_to_live_is_on(status, attribute):
    client = Client(TimeToLiveStatus=status, AttributeName="ttl")
    assert described_ttl_attribute(client, "orders-prod") == attribute
