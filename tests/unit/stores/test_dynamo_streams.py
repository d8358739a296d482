"""The stream reader, against answers in the form that AWS documents."""

from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.stub import Stubber

from dualstore.errors import ConfigurationError
from dualstore.stores.dynamo import DynamoClients, dynamo_clients
from dualstore.stores.dynamo_streams import DynamoStreams, table_of_arn
from dualstore.stores.streams import Change, IteratorExpired, PositionTrimmed, Shard, ShardGone

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/items-prod/stream/2026-01-01T00:00:00.000"
AT = datetime(2026, 1, 1, tzinfo=UTC)
DESCRIPTION = {
    "StreamArn": ARN,
    "StreamStatus": "ENABLED",
    "StreamViewType": "NEW_AND_OLD_IMAGES",
    "CreationRequestDateTime": AT,
}
PREFIX = "shardId-" + "0" * 20


class Stubbed:
    """The reader, and the two clients whose answers are canned."""

    def __init__(self) -> None:
        options: Any = {"region_name": "us-east-1", "config": Config(retries={"total_max_attempts": 1})}
        reads, streams = boto3.client("dynamodb", **options), boto3.client("dynamodbstreams", **options)
        self.reads, self.streams = Stubber(reads), Stubber(streams)
        self.reads.activate()
        self.streams.activate()
        self.reader = DynamoStreams(DynamoClients(reads, reads, lambda: streams))


@pytest.fixture
def stubbed() -> Stubbed:
    return Stubbed()


def described(stubbed: Stubbed, **table: Any) -> None:
    stubbed.reads.add_response("describe_table", {"Table": {"TableName": "items-prod", **table}})


def test_a_table_without_a_stream_has_none(stubbed):
    described(stubbed)
    assert stubbed.reader.stream_of("items-prod") is None


def test_a_stream_that_is_long_gone_is_none(stubbed):
    described(stubbed, LatestStreamArn=ARN)
    stubbed.streams.add_client_error("describe_stream", "ResourceNotFoundException")
    assert stubbed.reader.stream_of("items-prod") is None


def test_all_pages_of_a_description_are_read(stubbed):
    described(stubbed, LatestStreamArn=ARN)
    first = {"Shards": [{"ShardId": PREFIX + "-a"}], "LastEvaluatedShardId": PREFIX + "-a"}
    second = {"Shards": [{"ShardId": PREFIX + "-b", "ParentShardId": PREFIX + "-a"}]}
    stubbed.streams.add_response("describe_stream", {"StreamDescription": {**DESCRIPTION, **first}})
    stubbed.streams.add_response(
        "describe_stream",
        {"StreamDescription": {**DESCRIPTION, **second}},
        {"StreamArn": ARN, "ExclusiveStartShardId": PREFIX + "-a"},
    )
    stream = stubbed.reader.stream_of("items-prod")
    assert stream is not None
    assert stream.shards == (Shard(PREFIX + "-a"), Shard(PREFIX + "-b", PREFIX + "-a"))
    assert (stream.arn, stream.enabled, stream.created_at) == (ARN, True, AT)


@pytest.mark.parametrize(
    ("status", "enabled"), [("ENABLED", True), ("ENABLING", True), ("DISABLING", False), ("DISABLED", False)]
)
def test_a_stream_is_enabled_while_changes_go_into_it(stubbed, status, enabled):
    described(stubbed, LatestStreamArn=ARN)
    description = {**DESCRIPTION, "StreamStatus": status, "Shards": []}
    stubbed.streams.add_response("describe_stream", {"StreamDescription": description})
    stream = stubbed.reader.stream_of("items-prod")
    assert stream is not None
    assert (stream.enabled, stream.enabling) == (enabled, status == "ENABLING")


@pytest.mark.parametrize(
    ("after", "place"),
    [
        (None, {"ShardIteratorType": "TRIM_HORIZON"}),
        ("7", {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "7" * 21}),
    ],
)
def test_reading_goes_on_after_the_checkpoint_or_with_the_oldest_record(stubbed, after, place):
    wanted = {"StreamArn": ARN, "ShardId": PREFIX + "-a", **place}
    stubbed.streams.add_response("get_shard_iterator", {"ShardIterator": "i"}, wanted)
    sequence = None if after is None else after * 21
    assert stubbed.reader.iterator(ARN, PREFIX + "-a", after=sequence) == "i"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("TrimmedDataAccessException", PositionTrimmed),
        ("ExpiredIteratorException", IteratorExpired),
        ("ResourceNotFoundException", ShardGone),
    ],
)
def test_errors_that_call_for_another_place_are_told_apart(stubbed, code, error):
    stubbed.streams.add_client_error("get_records", code)
    with pytest.raises(error):
        stubbed.reader.page("i", limit=10)


def test_a_record_is_read_whole(stubbed):
    stubbed.streams.add_response(
        "get_records",
        {
            "Records": [
                {
                    "eventName": "MODIFY",
                    "dynamodb": {
                        "ApproximateCreationDateTime": AT,
                        "Keys": {"id": {"S": "a"}},
                        "NewImage": {"id": {"S": "a"}, "_dsv": {"B": b"new"}},
                        "OldImage": {"id": {"S": "a"}, "_dsv": {"B": b"old"}},
                        "SequenceNumber": "7" * 21,
                    },
                },
                removal({"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}),
                removal({"Type": "Service", "PrincipalId": "replication.dynamodb.amazonaws.com"}),
                removal(None),
            ],
            "NextShardIterator": "next",
        },
        {"ShardIterator": "i", "Limit": 10},
    )
    page = stubbed.reader.page("i", limit=10)
    record, *removals = page.records
    assert (record.change, record.key, record.sequence) == (Change.MODIFY, {"id": {"S": "a"}}, "7" * 21)
    assert (record.new_stamp, record.old_stamp, record.created_at) == (b"new", b"old", AT)
    assert [removed.is_ttl_deletion for removed in removals] == [True, False, False]
    assert removals[0].new_image is None
    assert page.iterator == "next"


def removal(identity: dict[str, str] | None) -> dict[str, Any]:
    return {
        "eventName": "REMOVE",
        **({} if identity is None else {"userIdentity": identity}),
        "dynamodb": {
            "ApproximateCreationDateTime": AT,
            "Keys": {"id": {"S": "a"}},
            "SequenceNumber": "7" * 21,
        },
    }


def test_the_end_of_a_closed_shard_has_no_iterator(stubbed):
    stubbed.streams.add_response("get_records", {"Records": []})
    assert stubbed.reader.page("i", limit=10).iterator is None


def test_a_stream_names_its_table():
    assert table_of_arn(ARN) == "items-prod"


def test_the_client_of_streams_is_made_when_it_is_asked_for_and_once():
    with dynamo_clients(endpoint_url="http://127.0.0.1:9", region="us-east-1") as clients:
        assert "streams" not in vars(clients)
        assert clients.streams is clients.streams
        assert clients.streams.meta.service_model.service_name == "dynamodbstreams"
        assert clients.streams.meta.endpoint_url == "http://127.0.0.1:9"


def test_clients_that_cannot_read_streams_say_so():
    with pytest.raises(ConfigurationError, match="dynamo_clients"):
        _ = DynamoClients(None, None).streams
