"""What DynamoDB says of a table beyond its shape: replicas, stream, time to live."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_IMAGES = "NEW_AND_OLD_IMAGES"
_IN_FORCE = frozenset({"ENABLED", "ENABLING"})


@dataclass(frozen=True, slots=True)
class TableDescription:
    """A DynamoDB table, as far as a migration depends on it.

    Attributes:
        table: the physical name.
        active: whether it takes reads and writes.
        other_regions: the regions of a global table, apart from this one: applications may write there.
        stream_view: what the stream's records hold, such as `NEW_AND_OLD_IMAGES`; None without a stream.
    """

    table: str
    active: bool
    other_regions: tuple[str, ...] = ()
    stream_view: str | None = None

    @property
    def streams_images(self) -> bool:
        """Whether the stream's records show each item before and after its change."""
        return self.stream_view == _IMAGES


def describe(client: Any, table: str) -> TableDescription:
    """Ask DynamoDB for the description of a table.

    Args:
        client: a boto3 DynamoDB client.
        table: the physical name.

    Raises:
        botocore.exceptions.ClientError: there is no such table, or it may not be described.
        botocore.exceptions.BotoCoreError: DynamoDB does not answer.
    """
    return description_of(client.describe_table(TableName=table)["Table"])


def description_of(described: Mapping[str, Any]) -> TableDescription:
    """Read what DescribeTable answers in `Table`."""
    arn = str(described.get("TableArn", "")).split(":")
    own_region = arn[3] if len(arn) > 3 else None  # noqa: PLR2004 - arn:aws:dynamodb:<region>:…
    replicas = described.get("Replicas") or ()
    stream = described.get("StreamSpecification") or {}
    return TableDescription(
        table=described["TableName"],
        active=described.get("TableStatus", "ACTIVE") in {"ACTIVE", "UPDATING"},
        other_regions=tuple(
            sorted(each["RegionName"] for each in replicas if each["RegionName"] != own_region)
        ),
        stream_view=stream.get("StreamViewType") if stream.get("StreamEnabled") else None,
    )


def described_ttl_attribute(client: Any, table: str) -> str | None:
    """The attribute by which DynamoDB itself deletes items of a table, or None where it deletes none.

    Args:
        client: a boto3 DynamoDB client.
        table: the physical name.

    Raises:
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: DynamoDB does not say: the table
            is gone, the role may not ask, the stand-in knows no time to live.
    """
    described = client.describe_time_to_live(TableName=table).get("TimeToLiveDescription", {})
    in_force = described.get("TimeToLiveStatus") in _IN_FORCE
    return described.get("AttributeName") if in_force else None
