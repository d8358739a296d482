"""Scan pages as the bytes in which they came: botocore signs, sends and retries, and its parser is left out.

botocore's parser takes 80 µs an item, most of which the garbage collector spends on going through a page that
is all alive (see `bulk.collector_paused`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from dualstore.errors import Unavailable
from dualstore.items import Key
from dualstore.mapping.transcoding import Transcoded, Transcoder
from dualstore.mapping.transcoding.parsed import restored
from dualstore.stores.scan import transient_as_unavailable

_BODY = "dualstore_body"
_OK = 200


@dataclass(frozen=True, slots=True)
class ScannedPage:
    """What one Scan request answered.

    Attributes:
        rows: the items as rows, and those that the transcoder declined.
        next_start: where the next page begins, or None after the last page.
        read_units: what the request consumed, where the answer says so.
    """

    rows: Transcoded
    next_start: Key | None
    read_units: float | None


class ScanPages:
    """Reads a table page by page, and transcodes what it reads.

    Args:
        client: a boto3 DynamoDB client that is used for nothing else: its Scans answer without items.
        transcoder: of the table.
        table: the table's physical DynamoDB name.
        consistent: whether to read consistently, as a backfill of a live table has to (DESIGN, rule 4).
    """

    def __init__(self, client: Any, transcoder: Transcoder, table: str, *, consistent: bool = True) -> None:
        client.meta.events.register("before-parse.dynamodb.Scan", _keep_body, unique_id=_BODY)
        self._scan = client.scan
        self._transcoder = transcoder
        self._table = table
        self._consistent = consistent

    def read(
        self, *, segment: int = 0, segments: int = 1, start: Key | None = None, page_items: int | None = None
    ) -> ScannedPage:
        """Read one page of a segment.

        Args:
            segment: which segment, from 0.
            segments: how many segments the table is read in.
            start: where the page before ended, or None for the first page.
            page_items: the most items to read; None leaves it to DynamoDB, which ends a page at 1 MB.

        Raises:
            Unavailable: throttled, out of reach, or half an answer; trying again is right.
        """
        request: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": self._consistent,
            "Segment": segment,
            "TotalSegments": segments,
            "ReturnConsumedCapacity": "TOTAL",
        }
        if start is not None:
            request["ExclusiveStartKey"] = start
        if page_items is not None:
            request["Limit"] = page_items
        doing = f"Scan of table {self._table}, segment {segment} of {segments}"
        with transient_as_unavailable(doing):
            response = self._scan(**request)
        try:
            page = self._transcoder.page(response[_BODY])
            rest = msgspec.json.decode(page.rest, type=_Rest)
        except ValueError:
            raise Unavailable(f"{doing}: the answer is not one of Scan; try again") from None
        capacity = rest.ConsumedCapacity
        return ScannedPage(
            page.rows,
            None if rest.LastEvaluatedKey is None else restored("M", rest.LastEvaluatedKey),
            None if capacity is None else capacity.CapacityUnits,
        )


class _Capacity(msgspec.Struct):
    CapacityUnits: float | None = None


class _Rest(msgspec.Struct):
    LastEvaluatedKey: dict[str, dict[str, str]] | None = None
    ConsumedCapacity: _Capacity | None = None


def _keep_body(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Mapping[str, Any]
) -> None:
    """Give botocore an empty answer to parse; an error it gets as it is."""
    if response_dict["status_code"] == _OK:
        customized_response_dict[_BODY] = response_dict["body"]
        response_dict["body"] = b"{}"
