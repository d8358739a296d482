"""Reading a whole table through the seam: consistent Scan pages, segment by segment."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import Unavailable
from dualstore.items import Item, Key
from dualstore.operations import Scan
from dualstore.stores.base import Store
from dualstore.stores.dynamo import Outcome, outcome


@dataclass(frozen=True, slots=True)
class Page:
    """What one Scan request answered.

    Attributes:
        items: the items as they are stored, bookkeeping attributes included; may be empty.
        next_start: where the next page begins, or None after the last page.
    """

    items: Sequence[Item]
    next_start: Key | None


@contextmanager
def transient_as_unavailable(doing: str) -> Iterator[None]:
    """Turn what may pass by itself (throttling, a lost connection, a server's fault) into `Unavailable`.

    Args:
        doing: what was being done, for the message; holds no item's value.
    """
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        if outcome(error) is Outcome.REFUSED:
            raise
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise Unavailable(f"{doing}: DynamoDB did not carry it out ({code}); try again") from error


def read_page(
    store: Store, table: str, *, segment: int, segments: int, start: Key | None, page_items: int | None = None
) -> Page:
    """Read one page of a segment, consistently.

    Args:
        store: the store that holds the table.
        table: the table's physical DynamoDB name.
        segment: which segment, from 0.
        segments: how many segments the table is read in.
        start: where the page before ended, or None for the first page.
        page_items: the most items to read; None leaves it to DynamoDB, which ends a page at 1 MB.

    Raises:
        Unavailable: throttled or out of reach; trying again is right.
    """
    request: dict[str, Any] = {
        "TableName": table,
        "ConsistentRead": True,
        "Segment": segment,
        "TotalSegments": segments,
    }
    if start is not None:
        request["ExclusiveStartKey"] = start
    if page_items is not None:
        request["Limit"] = page_items
    with transient_as_unavailable(f"Scan of table {table}, segment {segment} of {segments}"):
        response = store.execute(Scan(request))
    return Page(response.get("Items", ()), response.get("LastEvaluatedKey"))
