"""Exports of a table on S3, or a local copy: the items of a full one, the keys that incremental ones name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any

import msgspec

from dualstore.backfill.sources.base import (
    Batch,
    Description,
    Position,
    RawBatch,
    transcoded,
)
from dualstore.backfill.sources.content import CountingTranscoder, Expected, Tally, line_batches
from dualstore.backfill.sources.manifests import Export, ExportType, read_export
from dualstore.backfill.sources.windows import check_chain, check_covers
from dualstore.errors import RequestRejected, UnusableSource
from dualstore.items import Key, TableShape, key_bytes
from dualstore.mapping.transcoding import Reason, Rejected, Transcoder
from dualstore.mapping.transcoding.parsed import Declined, restored
from dualstore.stores.batch_limits import Limits
from dualstore.stores.dynamo_exports import TableIdentity
from dualstore.stores.places import Folder, folder_of, is_s3

_MISSING_SHOWN = 3
_RECORD_BYTES = 64  # no record is shorter: its names alone are longer
_STEP_BYTES = 16 * 1024


class ExportSource:
    """A full export, incremental ones that follow it, or incremental ones alone.

    An incremental export says which keys were written, deletions included. Their images are left alone: each
    key is settled, so it does not matter in which order they come.

    Args:
        urls: of the exports, `s3://bucket/prefix/AWSDynamoDB/<export id>/` or folders, in any order.
        shape: the table.
        s3: makes the client of S3, where one is needed.
        identity: of the table; None: its name has to do.
        expected_items: what `pieces` has found, where it was called before.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        shape: TableShape,
        s3: Callable[[], Any],
        identity: TableIdentity | None = None,
        expected_items: int | None = None,
        kind: str | None = None,
    ) -> None:
        self._urls = tuple(url.rstrip("/") + "/" for url in urls)
        self._shape = shape
        self._s3 = s3
        self._identity = identity
        self._expected_items = expected_items
        self._kind = kind

    @property
    def kind(self) -> str:
        """`export`, or `catch-up` where there are incremental exports alone."""
        if self._kind is None:
            self._kind = "catch-up" if check_chain(self._exports)[0] is None else "export"
        return self._kind

    @property
    def expected_items(self) -> int | None:
        """See `Source.expected_items`; keys that are to be settled count as items."""
        return self._expected_items

    @property
    def taken_at(self) -> datetime:
        """The moment whose state a full export holds.

        Raises:
            UnusableSource: there are incremental ones, which hold no state.
        """
        full, increments = check_chain(self._exports)
        if full is None or increments or full.time is None:
            raise UnusableSource("the state of a moment is in one full export: give that, and it alone")
        return full.time

    def parameters(self) -> Mapping[str, Any]:
        """See `Source.parameters`."""
        return {
            "kind": self.kind,
            "exports": list(self._urls),
            "tuning": {"expected_items": self._expected_items},
        }

    def pieces(self) -> Sequence[Description]:
        """See `Source.pieces`: a piece for each file, those of the full export first."""
        full, increments = check_chain(self._exports)
        exports = [*([] if full is None else [full]), *increments]
        self._expected_items = sum(each.items for each in exports)
        return [piece for export in exports for piece in self._pieces_of(export)]

    def read(
        self, description: Description, position: Position | None, transcoder: Transcoder, limits: Limits
    ) -> Iterator[Batch]:
        """See `Source.read`."""
        if description.get("catch_up"):
            return self._keys(description, position, limits)
        tally = Tally()
        raw = self._lines(description, position, limits, tally)
        return transcoded(raw, CountingTranscoder(transcoder, tally))

    def read_raw(
        self, description: Description, position: Position | None, limits: Limits
    ) -> Iterator[RawBatch]:
        """See `Source.read_raw`; of an incremental export these are records, and no items."""
        return self._lines(description, position, limits, Tally())

    def _lines(
        self, description: Description, position: Position | None, limits: Limits, tally: Tally
    ) -> Iterator[RawBatch]:
        folder = self._folder(description["export"])
        name = description["file"]
        expected = Expected(md5=description["md5"], lines=description["items"])
        with folder.open(name, version=description.get("version")) as body:
            place = f"{folder.url}{name}"
            yield from line_batches(body, position, limits, place=place, expected=expected, tally=tally)

    def covers(self, since: datetime, *, tombstones_since: datetime | None = None) -> None:
        """See `Source.covers`."""
        check_covers(self._exports, since, tombstones_since=tombstones_since)

    @cached_property
    def _exports(self) -> Sequence[Export]:
        """All of them, read once."""
        if not self._urls:
            raise UnusableSource("no export is given")
        return [
            read_export(self._folder(url), table=self._shape.name, identity=self._identity)
            for url in self._urls
        ]

    def _folder(self, url: str) -> Folder:
        return folder_of(url, self._s3)

    def _pieces_of(self, export: Export) -> Iterator[Description]:
        there = self._folder(export.url).stats([file.name for file in export.files])
        missing = [file.name for file in export.files if file.name not in there]
        if missing:
            shown = ", ".join(missing[:_MISSING_SHOWN]) + (", …" if missing[_MISSING_SHOWN:] else "")
            raise UnusableSource(
                f"{export.url}: {len(missing)} of {len(export.files)} data files are missing ({shown}): copy "
                "the export again, or take it again"
            )
        for file in export.files:
            stat = there[file.name]
            if export.in_place and file.etag is not None and file.etag.strip('"') != stat.version:
                raise UnusableSource(
                    f"{export.url}{file.name} is not what DynamoDB wrote (another ETag): take another export"
                )
            yield {
                "export": export.url,
                "file": file.name,
                "items": file.items,
                "bytes": stat.size_bytes,
                "md5": file.md5,
                **({"version": stat.version} if is_s3(export.url) else {}),
                **({"catch_up": True} if export.type is ExportType.INCREMENTAL else {}),
            }

    def _keys(self, description: Description, position: Position | None, limits: Limits) -> Iterator[Batch]:
        """Records as batches of keys, each key once in a batch."""
        step_bytes = max(1, min(_STEP_BYTES, limits.batch_bytes, limits.batch_keys * _RECORD_BYTES))
        most_in_a_step = step_bytes // _RECORD_BYTES + 1
        steps = self.read_raw(description, position, Limits(batch_bytes=step_bytes, block_bytes=step_bytes))
        keys: dict[bytes, Key] = {}
        rejected: list[Rejected] = []
        size = 0
        for step in steps:
            size += step.size_bytes
            for key in self._keys_of(step, rejected):
                keys[key_bytes(self._shape.keys, key)] = key
            full = (
                len(keys) + len(rejected) + most_in_a_step > limits.batch_keys or size >= limits.batch_bytes
            )
            if full or step.position_after is None:
                yield Batch(
                    (), step.position_after, size_bytes=size, keys=list(keys.values()), rejected=rejected
                )
                keys, rejected, size = {}, [], 0

    def _keys_of(self, raw: RawBatch, rejected: list[Rejected]) -> Iterator[Key]:
        for line in chain.from_iterable(block.split(b"\n") for block in raw.blocks):
            if not line.strip():
                continue
            try:
                yield self._shape.keys.exact_key(restored("M", _record(line).Keys))
            except (msgspec.MsgspecError, Declined):
                detail = f"{raw.place_of(line)} is not a record of an incremental export"
                rejected.append(Rejected(Reason.NO_ITEM, detail, line))
            except RequestRejected as refusal:
                detail = f"{raw.place_of(line)}: {refusal.message}"
                rejected.append(Rejected(Reason.NO_KEY, detail, line))


class _Record(msgspec.Struct, gc=False):
    """What became of an item; its images and the time of its last write are not looked at."""

    Keys: dict[str, dict[str, str]]


_record = msgspec.json.Decoder(_Record).decode
