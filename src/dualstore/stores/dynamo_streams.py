"""DynamoDB Streams, through boto3's low-level client, and the records that Lambda hands over."""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from dualstore.items import AttributeValue, Item
from dualstore.stores.dynamo import DynamoClients
from dualstore.stores.streams import (
    Change,
    IteratorExpired,
    Page,
    PositionTrimmed,
    Shard,
    ShardGone,
    Stream,
    StreamRecord,
)

# AWS, "DynamoDB Streams and Time to Live": who removed an item that had expired.
_TTL_IDENTITY = ("Service", "dynamodb.amazonaws.com")
_ENABLED = frozenset({"ENABLING", "ENABLED"})

_EXPLAINED = {
    "TrimmedDataAccessException": PositionTrimmed,
    "ExpiredIteratorException": IteratorExpired,
    "ResourceNotFoundException": ShardGone,
}


class DynamoStreams:
    """The streams of one DynamoDB.

    Args:
        clients: its clients.
    """

    def __init__(self, clients: DynamoClients) -> None:
        self._clients = clients

    def stream_of(self, table: str) -> Stream | None:
        """The latest stream of a table, with all its shards, or None (see `Streams.stream_of`).

        Raises:
            botocore.exceptions.ClientError: there is no such table, or it may not be described.
        """
        arn = self._clients.reads.describe_table(TableName=table)["Table"].get("LatestStreamArn")
        if arn is None:
            return None
        try:
            with _explained():
                return self._described(arn)
        except ShardGone:  # switched off a day ago: AWS still names it, and has nothing of it
            return None

    def _described(self, arn: str) -> Stream:
        shards: dict[str, Shard] = {}
        request = {"StreamArn": arn}
        while True:
            description = self._clients.streams.describe_stream(**request)["StreamDescription"]
            for shard in description["Shards"]:
                shards[shard["ShardId"]] = Shard(shard["ShardId"], shard.get("ParentShardId"))
            if (last := description.get("LastEvaluatedShardId")) is None:
                break
            request["ExclusiveStartShardId"] = last
        return Stream(
            arn=arn,
            enabled=description["StreamStatus"] in _ENABLED,
            enabling=description["StreamStatus"] == "ENABLING",
            created_at=description["CreationRequestDateTime"],
            view_type=description["StreamViewType"],
            shards=tuple(shards.values()),
        )

    def iterator(self, stream_arn: str, shard_id: str, *, after: str | None) -> str:
        """Where to read on in a shard (see `Streams.iterator`)."""
        place: dict[str, str] = {"ShardIteratorType": "TRIM_HORIZON"}
        if after is not None:
            place = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
        with _explained():
            answer = self._clients.streams.get_shard_iterator(StreamArn=stream_arn, ShardId=shard_id, **place)
        iterator: str = answer["ShardIterator"]
        return iterator

    def page(self, iterator: str, *, limit: int) -> Page:
        """Read some records (see `Streams.page`)."""
        with _explained():
            answer = self._clients.streams.get_records(ShardIterator=iterator, Limit=limit)
        records = [_record(record) for record in answer["Records"]]
        return Page(records, answer.get("NextShardIterator"), _date_of(answer))


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        explanation = _EXPLAINED.get(error.response["Error"]["Code"])
        if explanation is None:
            raise
        raise explanation(f"{error.operation_name}: {error.response['Error']['Code']}") from None


def _date_of(answer: Mapping[str, Any]) -> datetime | None:
    """The `Date` header of an answer, which AWS sets to the time of the answer."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if date is None:
        return None
    try:
        return parsedate_to_datetime(date)
    except ValueError:
        return None


def _record(record: Mapping[str, Any]) -> StreamRecord:
    change = record["dynamodb"]
    identity = record.get("userIdentity") or {}
    return StreamRecord(
        sequence=change["SequenceNumber"],
        change=Change(record["eventName"]),
        key=change["Keys"],
        new_image=change.get("NewImage"),
        old_image=change.get("OldImage"),
        created_at=change["ApproximateCreationDateTime"],
        is_ttl_deletion=(_either(identity, "type"), _either(identity, "principalId")) == _TTL_IDENTITY,
    )


def _either(identity: Mapping[str, Any], name: str) -> Any:
    """A field of `userIdentity`: the API spells it `Type`, Lambda's events `type`."""
    return identity.get(name, identity.get(name[0].upper() + name[1:]))


def record_of_event(record: Mapping[str, Any]) -> StreamRecord:
    """A record as Lambda hands it over: the API's in JSON, bytes in base64, times in seconds.

    Args:
        record: an element of the event's `Records`.
    """
    change = record["dynamodb"]
    decoded = {name: _item(change[name]) for name in ("Keys", "NewImage", "OldImage") if name in change}
    at = datetime.fromtimestamp(float(change["ApproximateCreationDateTime"]), UTC)
    return _record({**record, "dynamodb": {**change, **decoded, "ApproximateCreationDateTime": at}})


def table_of_arn(stream_arn: str) -> str:
    """The physical name of the table that a stream belongs to."""
    return stream_arn.split(":table/", 1)[-1].split("/", 1)[0]


def _item(item: Item) -> Item:
    return {name: _value(value) for name, value in item.items()}


def _value(value: AttributeValue) -> AttributeValue:
    (kind, content), *_ = value.items()
    match kind:
        case "B":
            return {"B": base64.b64decode(content)}
        case "BS":
            return {"BS": [base64.b64decode(member) for member in content]}
        case "L":
            return {"L": [_value(element) for element in content]}
        case "M":
            return {"M": _item(content)}
        case _:
            return value
