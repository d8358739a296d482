"""Reading a whole table through the seam, consistently: Scan pages, segment by segment, and many keys."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import Unavailable
from dualstore.items import Item, Key, TableShape
from dualstore.operations import BatchGetItem, Scan
from dualstore.stores.base import Store
from dualstore.stores.dynamo import Outcome, outcome

# Amazon DynamoDB API Reference, BatchGetItem.
_BATCH_GET_KEYS = 100


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


def read_items(store: Store, shape: TableShape, keys: Sequence[Key]) -> Iterator[Item]:
    """Read the items of many different keys, consistently; those without an item are left out.

    Args:
        store: the store that holds the table.
        shape: the table.
        keys: the keys, each once.

    Yields:
        The items as they are stored, in any order; no more than one answer, of 16 MB, is held at a time.

    Raises:
        Unavailable: throttled or out of reach; trying again is right.
    """
    doing, asked = f"BatchGetItem on table {shape.name}", list(keys)
    while asked:
        some, asked = asked[:_BATCH_GET_KEYS], asked[_BATCH_GET_KEYS:]
        with transient_as_unavailable(doing):
            response = store.execute(
                BatchGetItem({"RequestItems": {shape.name: {"Keys": some, "ConsistentRead": True}}})
            )
        unprocessed = response.get("UnprocessedKeys", {}).get(shape.name, {}).get("Keys", [])
        if len(unprocessed) == len(some):
            raise Unavailable(f"{doing}: DynamoDB answered for none of the keys; try again")
        asked += unprocessed
        yield from response.get("Responses", {}).get(shape.name, ())
