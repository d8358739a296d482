"""A table's history by the Scan of any store, where none of its pages comes as bytes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from dualstore.backfill.sources.base import Batch, Description, Position, RawBatch, transcoded
from dualstore.items import Item, TableShape, key_bytes
from dualstore.mapping.transcoding import Transcoder
from dualstore.stores.base import Store
from dualstore.stores.batch_limits import Limits
from dualstore.stores.key_bytes import key_from_bytes
from dualstore.stores.scan import read_page


@dataclass(frozen=True)
class StoreScan:
    """The parallel, consistent Scan of a table, page by page; a batch for each page.

    Attributes:
        store: the store that holds the table.
        shape: the table; `shape.name` is its physical DynamoDB name.
        segments: how many segments it is read in.
        page_items: the most items in a page; None leaves it to DynamoDB, which ends a page at 1 MB.
    """

    store: Store
    shape: TableShape
    segments: int = 8
    page_items: int | None = None
    kind: str = "scan"
    expected_items: int | None = None

    def parameters(self) -> Mapping[str, Any]:
        """See `Source.parameters`."""
        return {
            "kind": self.kind,
            "table": self.shape.name,
            "tuning": {"segments": self.segments, "page_items": self.page_items},
        }

    def pieces(self) -> Sequence[Description]:
        """See `Source.pieces`."""
        return [{"segment": number, "segments": self.segments} for number in range(self.segments)]

    def read(
        self, description: Description, position: Position | None, transcoder: Transcoder, limits: Limits
    ) -> Iterator[Batch]:
        """See `Source.read`."""
        return transcoded(self.read_raw(description, position, limits), transcoder)

    def read_raw(
        self, description: Description, position: Position | None, limits: Limits
    ) -> Iterator[RawBatch]:
        """See `Source.read_raw`."""
        keys, start = self.shape.keys, None
        if position is not None:
            start = key_from_bytes(keys, bytes.fromhex(position["start"]))
        while True:
            page = read_page(
                self.store,
                self.shape.name,
                segment=description["segment"],
                segments=description["segments"],
                start=start,
                page_items=_fewer(self.page_items, limits.page_items),
            )
            start = page.next_start
            lines = b"".join(map(_line, page.items))
            yield RawBatch(
                [lines] if lines else [],
                None if start is None else {"start": key_bytes(keys, start).hex()},
                size_bytes=len(lines),
                place=f"segment {description['segment']} of {description['segments']}",
            )
            if start is None:
                return

    def covers(self, since: datetime, *, tombstones_since: datetime | None = None) -> None:
        """See `Source.covers`: what is read from now on was written before, or is mirrored."""


def _line(item: Item) -> bytes:
    return msgspec.json.encode({"Item": item}) + b"\n"  # bytes become base64, as DynamoDB-JSON has them


def _fewer(*limits: int | None) -> int | None:
    return min((each for each in limits if each is not None), default=None)
