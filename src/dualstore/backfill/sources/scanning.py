"""A parallel Scan of the live table: segments, within the read capacity that it may use."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from dualstore.backfill.sources.base import Batch, Description, Position, RawBatch
from dualstore.backfill.sources.pacing import AlarmWatch, ReadPace
from dualstore.errors import ConfigurationError, Unavailable, UnusableSource
from dualstore.items import TableShape
from dualstore.mapping.transcoding import Transcoded, Transcoder
from dualstore.mapping.transcoding.parsed import restored
from dualstore.mapping.transcoding.pure import lines_of_page
from dualstore.stores.batch_limits import Limits
from dualstore.stores.scan_pages import RawPage, ScannedPage, ScanPages, Throttled

T = TypeVar("T")

_BREATH_SECONDS = 10.0
"""How long reading may pause before that is said, so that a lease can be renewed."""
_SHORT_SECONDS = 1.0
_PATIENCE_SECONDS = 300.0
"""How long a segment may be throttled without a page."""
_SEGMENT_BYTES = 256 * 1024 * 1024
_FEWEST_SEGMENTS, _MOST_SEGMENTS = 8, 4096


@dataclass(frozen=True, slots=True)
class ScanTuning:
    """How a table is scanned.

    Attributes:
        segments: how many pieces; None: by the size of the table, one for 256 MB.
        read_units_per_second: the most read capacity units of all workers together; None: no limit but
            throttling.
        workers: how many processes share them.
        pause_on_alarms: names of CloudWatch alarms; while one of them rings nothing is read.
    """

    segments: int | None = None
    read_units_per_second: float | None = None
    workers: int = 1
    pause_on_alarms: Sequence[str] = ()


class ScanSource:
    """Reads the table as it is, segment by segment.

    A segment that is throttled, or held back by an alarm, hands out a batch without items every ten seconds.

    Args:
        shape: the table.
        client: makes a boto3 DynamoDB client that sends each request once, and whose Scans nobody else uses.
        cloudwatch: makes a client of CloudWatch; asked where there are alarms to look at.
        consistent: whether to read consistently, as a backfill of a table that is written to has to.
        tuning: how to scan.
        expected_items: what `pieces` has found, where it was called before.
        clock: monotonic seconds.
        sleep: waits some seconds.
    """

    kind = "scan"

    def __init__(
        self,
        *,
        shape: TableShape,
        client: Callable[[], Any],
        cloudwatch: Callable[[], Any],
        consistent: bool = True,
        tuning: ScanTuning | None = None,
        expected_items: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        tuning = tuning or ScanTuning()
        if tuning.read_units_per_second is not None and tuning.read_units_per_second <= 0:
            raise ConfigurationError("a limit of read capacity units per second has to be more than 0")
        self._shape = shape
        self._client = client
        self._consistent = consistent
        self._tuning = tuning
        self._expected_items = expected_items
        rate = tuning.read_units_per_second
        self._pace = ReadPace(None if rate is None else rate / max(1, tuning.workers), clock=clock)
        self._alarms = AlarmWatch(cloudwatch, tuning.pause_on_alarms, clock=clock)
        self._clock = clock
        self._sleep = sleep

    @property
    def expected_items(self) -> int | None:
        """See `Source.expected_items`; DynamoDB counts every six hours."""
        return self._expected_items

    @property
    def units_per_second(self) -> float | None:
        """The rate that this process reads at, at most; None where there is no limit."""
        return self._pace.units_per_second

    def parameters(self) -> Mapping[str, Any]:
        """See `Source.parameters`."""
        tuning = asdict(self._tuning) | {"pause_on_alarms": list(self._tuning.pause_on_alarms)}
        return {
            "kind": self.kind,
            "consistent": self._consistent,
            "tuning": tuning | {"expected_items": self._expected_items},
        }

    def pieces(self) -> Sequence[Description]:
        """See `Source.pieces`."""
        self._alarms.check()
        described = self._described()
        items, size = described.get("ItemCount"), described.get("TableSizeBytes") or 0
        self._expected_items = items
        by_size = min(_MOST_SEGMENTS, max(_FEWEST_SEGMENTS, size // _SEGMENT_BYTES))
        segments = self._tuning.segments or by_size
        self._tuning = replace(self._tuning, segments=segments)
        share = None if items is None else items // segments
        return [
            {"segment": each, "segments": segments, "items": share, "bytes": size // segments or None}
            for each in range(segments)
        ]

    def read(
        self, description: Description, position: Position | None, transcoder: Transcoder, limits: Limits
    ) -> Iterator[Batch]:
        """See `Source.read`; pages are transcoded as they come."""
        pages = ScanPages(self._client(), transcoder, self._shape.name, consistent=self._consistent)
        for group in self._groups(description, position, limits, pages.read, _of_page):
            raw = RawBatch((), group.position_after, group.read_units, group.size_bytes, _place(description))
            yield Batch(group.parts, raw.position_after, raw.read_units, raw.size_bytes, raw=raw)

    def read_raw(
        self, description: Description, position: Position | None, limits: Limits
    ) -> Iterator[RawBatch]:
        """See `Source.read_raw`."""
        pages = ScanPages(self._client(), None, self._shape.name, consistent=self._consistent)
        for group in self._groups(description, position, limits, pages.read_raw, _of_raw_page):
            yield RawBatch(
                group.parts, group.position_after, group.read_units, group.size_bytes, _place(description)
            )

    def covers(self, since: datetime, *, tombstones_since: datetime | None = None) -> None:
        """See `Source.covers`: what is read from now on misses nothing that was written before."""
        del since, tombstones_since

    def _described(self) -> Mapping[str, Any]:
        try:
            described: Mapping[str, Any] = self._client().describe_table(TableName=self._shape.name)["Table"]
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise UnusableSource(f"table {self._shape.name} cannot be described ({code})") from error
        except BotoCoreError as error:
            raise Unavailable(f"DynamoDB does not answer ({type(error).__name__}); try again") from error
        return described

    def _groups(
        self,
        description: Description,
        position: Position | None,
        limits: Limits,
        read: Callable[..., Any],
        part_of: Callable[[Any], "_Part[T]"],
    ) -> Iterator["_Group[T]"]:
        """Pages that are handled together; an empty group where nothing could be read for a while."""
        group: _Group[T] = _Group({"start": None} if position is None else position)
        paused_since = self._clock()
        while True:
            delay = self._delay()
            if delay:
                # What has been read waits for what comes next, but not for long.
                if delay > (_SHORT_SECONDS if group.parts else _BREATH_SECONDS):
                    yield group
                    group = _Group(group.position_after or {})
                self._sleep(min(delay, _BREATH_SECONDS))
                continue
            try:
                page = read(
                    segment=description["segment"],
                    segments=description["segments"],
                    start=_key(group.position_after or {}),
                    page_items=self._page_items(limits),
                )
            except Throttled:
                self._pace.throttled()
                if self._clock() - paused_since > _PATIENCE_SECONDS:
                    raise
                continue
            except Unavailable:
                if not group.parts:
                    raise
                yield group  # however often pages fail, each that has come is passed by
                group = _Group(group.position_after)
                continue
            paused_since = self._clock()
            part = part_of(page)
            self._pace.spent(part.read_units, items=part.items)
            group = group.with_part(part)
            if group.position_after is None or group.size_bytes >= limits.batch_bytes:
                yield group
                if group.position_after is None:
                    return
                group = _Group(group.position_after)

    def _delay(self) -> float:
        return _BREATH_SECONDS * 2 if self._alarms.ringing() else self._pace.delay()

    def _page_items(self, limits: Limits) -> int | None:
        wishes = [each for each in (limits.page_items, self._pace.page_items()) if each is not None]
        return min(wishes, default=None)


@dataclass(frozen=True, slots=True)
class _Part(Generic[T]):
    """A page, or what was made of it."""

    content: T
    start: Mapping[str, Any] | None
    read_units: float
    size_bytes: int
    items: int


@dataclass(frozen=True, slots=True)
class _Group(Generic[T]):
    """Pages, and where the next one begins."""

    position_after: Position | None
    parts: Sequence[T] = ()
    read_units: float = 0.0
    size_bytes: int = 0

    def with_part(self, part: _Part[T]) -> "_Group[T]":
        return _Group(
            None if part.start is None else {"start": part.start},
            [*self.parts, part.content],
            self.read_units + part.read_units,
            self.size_bytes + part.size_bytes,
        )


def _of_page(page: ScannedPage) -> _Part[Transcoded]:
    rows = page.rows
    items = rows.rows + len(rows.declined)
    return _Part(rows, page.stored_start, page.read_units or 0.0, rows.json_bytes, items)


def _of_raw_page(page: RawPage) -> _Part[bytes]:
    lines = lines_of_page(page.body)
    content = b"".join(line + b"\n" for line in lines)
    return _Part(content, page.next_start, page.read_units or 0.0, len(content), len(lines))


def _place(description: Description) -> str:
    return f"segment {description['segment']} of {description['segments']}"


def _key(position: Position) -> Any:
    start = position.get("start")
    return None if start is None else restored("M", msgspec.convert(start, dict[str, dict[str, str]]))
