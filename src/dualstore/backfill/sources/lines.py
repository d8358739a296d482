"""Lines of DynamoDB JSON that other tools have written: in files, or on standard input."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dualstore.backfill.blocks import Readable
from dualstore.backfill.sources.base import Batch, Description, Position, RawBatch, transcoded
from dualstore.backfill.sources.content import Expected, line_batches
from dualstore.backfill.sources.windows import MARGIN
from dualstore.errors import UnusableSource
from dualstore.mapping.transcoding import Transcoder
from dualstore.stores.batch_limits import Limits
from dualstore.stores.places import folder_of, parent_and_name

STANDARD_INPUT = "-"
_OPENING = b'{"Item"'
_ENVELOPE = re.compile(rb'\{\s*"Item"\s*:')
_STDIN = "standard input"
_BEGINNING: Position = {"offset": 0}


def enveloped(block: bytes) -> bytes:
    """Lines as those of a full export, one for one: bare items `{…}` become `{"Item":{…}}`.

    A line that begins with the member `Item` is taken for one of an export; a bare item whose first attribute
    has that name is refused later, since it has other members. Write such items as an export does.
    """
    ends = block.count(b"\n") - block.endswith(b"\n")
    if block.startswith(_OPENING) and block.count(b"\n" + _OPENING) == ends:
        return block
    return b"\n".join(map(_enveloped_line, block.split(b"\n")))


def _enveloped_line(line: bytes) -> bytes:
    text = line.strip()
    return text if not text or _ENVELOPE.match(text) else b'{"Item":%b}' % text


class LineFiles:
    """Files of lines, gzip or not, on S3 or on this machine; each is a piece.

    Args:
        urls: of the files.
        s3: makes the client of S3, where one is needed.
        taken_at: when what they hold was read from the table; None: nobody says.
    """

    kind = "lines"
    expected_items = None

    def __init__(
        self, urls: Sequence[str], *, s3: Callable[[], Any], taken_at: datetime | None = None
    ) -> None:
        self._urls = tuple(urls)
        self._s3 = s3
        self._taken_at = taken_at

    def parameters(self) -> Mapping[str, Any]:
        """See `Source.parameters`."""
        taken_at = None if self._taken_at is None else self._taken_at.isoformat()
        return {"kind": self.kind, "files": list(self._urls), "taken_at": taken_at, "tuning": {}}

    def pieces(self) -> Sequence[Description]:
        """See `Source.pieces`."""
        return list(map(self._piece, self._urls))

    def _piece(self, url: str) -> Description:
        parent, name = parent_and_name(url)
        stat = folder_of(parent, self._s3).stats([name]).get(name)
        if stat is None:
            raise UnusableSource(f"{url}: there is no such file")
        return {"file": url, "items": None, "bytes": stat.size_bytes, "version": stat.version}

    def read(
        self, description: Description, position: Position | None, transcoder: Transcoder, limits: Limits
    ) -> Iterator[Batch]:
        """See `Source.read`."""
        return transcoded(self.read_raw(description, position, limits), transcoder)

    def read_raw(
        self, description: Description, position: Position | None, limits: Limits
    ) -> Iterator[RawBatch]:
        """See `Source.read_raw`."""
        url = description["file"]
        parent, name = parent_and_name(url)
        with folder_of(parent, self._s3).open(name, version=description.get("version")) as body:
            yield from line_batches(
                body, position, limits, place=url, expected=Expected(), prepared=enveloped
            )

    def covers(self, since: datetime, *, tombstones_since: datetime | None = None) -> None:
        """See `Source.covers`: from `taken_at` on every write has to be mirrored."""
        _check_taken(self._taken_at, since, tombstones_since)


class StandardInput:
    """Lines that another program writes while they are read: one piece, for one process.

    What has been read cannot be read again, but for the batch at hand: where loading it fails it can be tried
    once more. A run that was interrupted is started anew, with the same input from its beginning; what is
    there already is left as it is.

    Args:
        stream: binary.
        taken_at: see `LineFiles`.
    """

    kind = "stdin"
    expected_items = None

    def __init__(self, stream: Readable, *, taken_at: datetime | None = None) -> None:
        self._stream = stream
        self._taken_at = taken_at
        self._coming: Iterator[RawBatch] | None = None
        self._begin: Position = _BEGINNING
        self._at_hand: RawBatch | None = None

    def parameters(self) -> Mapping[str, Any]:
        """See `Source.parameters`."""
        taken_at = None if self._taken_at is None else self._taken_at.isoformat()
        return {"kind": self.kind, "taken_at": taken_at, "tuning": {}}

    def pieces(self) -> Sequence[Description]:
        """See `Source.pieces`."""
        return [{"file": STANDARD_INPUT, "items": None, "bytes": None}]

    def read(
        self, description: Description, position: Position | None, transcoder: Transcoder, limits: Limits
    ) -> Iterator[Batch]:
        """See `Source.read`; the limits of the first call hold for all that follow."""
        return transcoded(self.read_raw(description, position, limits), transcoder)

    def read_raw(
        self, description: Description, position: Position | None, limits: Limits
    ) -> Iterator[RawBatch]:
        """See `Source.read_raw`."""
        del description
        begin = _BEGINNING if position is None else position
        held = self._at_hand
        if begin != self._begin and (held is None or begin != held.position_after):
            raise UnusableSource(
                f"{_STDIN} cannot be read again from the middle: abandon this run and start a new one with "
                "the same input from its beginning. What has been copied is left as it is"
            )
        if self._coming is None:
            self._coming = line_batches(
                self._stream, None, limits, place=_STDIN, expected=Expected(), prepared=enveloped
            )
        if held is not None and begin == self._begin:
            yield held
        while held is None or held.position_after is not None:
            batch = next(self._coming)  # the last one has no position after it
            self._begin = _BEGINNING if held is None else held.position_after or _BEGINNING
            self._at_hand = held = batch
            yield batch

    def covers(self, since: datetime, *, tombstones_since: datetime | None = None) -> None:
        """See `Source.covers`: from `taken_at` on every write has to be mirrored."""
        _check_taken(self._taken_at, since, tombstones_since)


def _check_taken(taken_at: datetime | None, since: datetime, tombstones_since: datetime | None) -> None:
    if taken_at is None:
        raise UnusableSource(
            "nobody says when these lines were read from the table: give the time at which reading them "
            "began (`--taken-at`), which has to be after every write began to be mirrored"
        )
    if taken_at > datetime.now(UTC) + MARGIN:
        raise UnusableSource(
            f"the lines cannot be of {taken_at.isoformat()}, which is to come: give the time with its offset "
            "from UTC (`--taken-at`)"
        )
    for moment, what in ((since, "every write is mirrored"), (tombstones_since, "deletions are remembered")):
        if moment is not None and taken_at < moment + MARGIN:
            raise UnusableSource(
                f"the lines are of {taken_at.isoformat()}, and {what} since {moment.isoformat()} only: "
                "read the table again"
            )
