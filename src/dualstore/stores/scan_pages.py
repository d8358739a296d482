"""Scan pages as the bytes in which they came: botocore signs and sends, and its parser is left out.

botocore's parser takes 80 µs an item, most of which the garbage collector spends on going through a page that
is all alive (see `bulk.collector_paused`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from dualstore.errors import Unavailable
from dualstore.items import Key
from dualstore.mapping.transcoding import Transcoded, Transcoder
from dualstore.mapping.transcoding.parsed import restored
from dualstore.stores.scan import transient_as_unavailable

_BODY = "dualstore_body"
_OK = 200
# AWS, "Error handling with DynamoDB": more was asked for than table, partition or account allow.
_THROTTLED = frozenset(
    {"ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"}
)

StoredKey = Mapping[str, Mapping[str, str]]
"""A key as JSON has it: binary is base64 text."""


class Throttled(Unavailable):
    """DynamoDB refuses a request because more was asked for than it allows.

    Args:
        message: what was being done.
        reasons: its `ThrottlingReasons`, such as `TableReadProvisionedThroughputExceeded`.
    """

    def __init__(self, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class RawPage:
    """What one Scan request answered, as it came.

    Attributes:
        body: the answer.
        next_start: where the next page begins, as JSON has it; None after the last page.
        read_units: what the request consumed, where the answer says so.
    """

    body: bytes
    next_start: StoredKey | None
    read_units: float | None


@dataclass(frozen=True, slots=True)
class ScannedPage:
    """What one Scan request answered.

    Attributes:
        rows: the items as rows, and those that the transcoder declined.
        next_start: where the next page begins, or None after the last page.
        read_units: what the request consumed, where the answer says so.
        stored_start: `next_start` as JSON has it.
    """

    rows: Transcoded
    next_start: Key | None
    read_units: float | None
    stored_start: StoredKey | None = None


class ScanPages:
    """Reads a table page by page, and transcodes what it reads.

    Args:
        client: a boto3 DynamoDB client whose Scans nobody else uses: they answer without items.
        transcoder: of the table; None where only `read_raw` is called.
        table: the table's physical DynamoDB name.
        consistent: whether to read consistently, as a backfill of a live table has to (DESIGN, rule 4).
    """

    def __init__(
        self, client: Any, transcoder: Transcoder | None, table: str, *, consistent: bool = True
    ) -> None:
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
            Throttled: more was asked for than DynamoDB allows.
            Unavailable: out of reach, or half an answer; trying again is right.
        """
        doing, body = self._asked(segment, segments, start, page_items)
        assert self._transcoder is not None  # noqa: S101 - said in the docstring
        try:
            page = self._transcoder.page(body)
            rest = msgspec.json.decode(page.rest, type=_Rest)
        except ValueError:
            raise _half(doing) from None
        stored = rest.LastEvaluatedKey
        start = None if stored is None else restored("M", stored)
        return ScannedPage(page.rows, start, rest.units, stored)

    def read_raw(
        self, *, segment: int = 0, segments: int = 1, start: Key | None = None, page_items: int | None = None
    ) -> RawPage:
        """Read one page of a segment as it came; arguments and errors are those of `read`."""
        doing, body = self._asked(segment, segments, start, page_items)
        try:
            rest = msgspec.json.decode(body, type=_Rest)
        except ValueError:
            raise _half(doing) from None
        return RawPage(body, rest.LastEvaluatedKey, rest.units)

    def _asked(
        self, segment: int, segments: int, start: Key | None, page_items: int | None
    ) -> tuple[str, bytes]:
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
        try:
            with transient_as_unavailable(doing):
                body: bytes = self._scan(**request)[_BODY]
        except Unavailable as error:
            raise _throttled(error) or error from error.__cause__
        return doing, body


class _Capacity(msgspec.Struct):
    CapacityUnits: float | None = None


class _Rest(msgspec.Struct):
    LastEvaluatedKey: dict[str, dict[str, str]] | None = None
    ConsumedCapacity: _Capacity | None = None

    @property
    def units(self) -> float | None:
        return None if self.ConsumedCapacity is None else self.ConsumedCapacity.CapacityUnits


def _half(doing: str) -> Unavailable:
    return Unavailable(f"{doing}: the answer is not one of Scan; try again")


def _throttled(error: Unavailable) -> Throttled | None:
    cause = error.__cause__
    if not isinstance(cause, ClientError) or cause.response["Error"]["Code"] not in _THROTTLED:
        return None
    # One exception spells the member in lower case (botocore's model of the service).
    told = cause.response.get("ThrottlingReasons") or cause.response.get("throttlingReasons") or ()
    reasons = [str(each["reason"]) for each in told if "reason" in each]
    named = f" [{', '.join(reasons)}]" if reasons else ""
    return Throttled(f"{error}{named}", reasons)


def _keep_body(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Mapping[str, Any]
) -> None:
    """Give botocore an empty answer to parse; an error it gets as it is."""
    if response_dict["status_code"] == _OK:
        customized_response_dict[_BODY] = response_dict["body"]
        response_dict["body"] = b"{}"
