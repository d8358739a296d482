"""Files of lines as batches, read on anywhere, and checked against what a manifest says of them."""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from dualstore.backfill.blocks import DAMAGED, Readable, batches_of, blocks_of_lines, gunzipped
from dualstore.backfill.sources.base import Position, RawBatch
from dualstore.errors import UnusableSource
from dualstore.mapping.transcoding import Transcoded, Transcoder
from dualstore.stores.batch_limits import Limits

_GZIP_MAGIC = b"\x1f\x8b"
_READ_BYTES = 64 * 1024
_TAKE_AGAIN = "copy the file again, or take the export again"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file has to be.

    Attributes:
        md5: of the file as it lies there, in base64; None: not known.
        lines: how many lines it has; None: not known.
    """

    md5: str | None = None
    lines: int | None = None


class _Checked:
    """Bytes on their way, with what is known of all of them."""

    def __init__(self, body: Readable) -> None:
        self._body = body
        self._digest = hashlib.md5(usedforsecurity=False)
        self._held: bytes | None = None
        self.is_gzip = False
        self.bytes = 0

    def look(self) -> None:
        """Find out of the first bytes what it is."""
        self._held = self._taken(_READ_BYTES)
        self.is_gzip = self._held.startswith(_GZIP_MAGIC)

    def read(self, size: int = -1, /) -> bytes:
        if self._held is not None:
            held, self._held = self._held, None
            return held
        return self._taken(size)

    @property
    def md5(self) -> str:
        return b64encode(self._digest.digest()).decode()

    def _taken(self, size: int) -> bytes:
        data = self._body.read(size)
        self._digest.update(data)
        self.bytes += len(data)
        return data


class Tally:
    """How many lines have gone by.

    Counting line ends takes 0.1 µs an item, twice as long as the MD5. So it is left to the transcoder, which
    goes through them anyway, wherever it has gone through all of a batch.
    """

    def __init__(self) -> None:
        self.lines = 0
        self._blocks: Sequence[bytes] = ()
        self._seen = self._counted = 0

    def hand_out(self, blocks: Sequence[bytes]) -> None:
        """A batch goes out."""
        self._blocks, self._seen, self._counted = blocks, 0, 0

    def saw(self, block: Transcoded) -> None:
        """A block of the batch that went out last has been transcoded."""
        self._seen += 1
        self._counted += block.rows + len(block.declined)

    def take_back(self) -> None:
        """The batch is done with."""
        complete = self._seen == len(self._blocks)
        self.lines += self._counted if complete else sum(map(_lines_in, self._blocks))
        self.hand_out(())


class CountingTranscoder:
    """Transcodes blocks, and counts their items for a tally.

    Args:
        transcoder: of the table.
        tally: of the file.
    """

    def __init__(self, transcoder: Transcoder, tally: Tally) -> None:
        self._transcode = transcoder.block
        self._tally = tally

    def block(self, block: bytes) -> Transcoded:
        """See `Transcoder.block`."""
        done = self._transcode(block)
        self._tally.saw(done)
        return done


def _lines_in(block: bytes) -> int:
    return block.count(b"\n")


def line_batches(
    body: Readable,
    position: Position | None,
    limits: Limits,
    *,
    place: str,
    expected: Expected,
    prepared: Callable[[bytes], bytes] = bytes,
    tally: Tally | None = None,
) -> Iterator[RawBatch]:
    """The batches of a file, gzip or not, from a position on.

    Nobody can jump into a gzip file, so it is read from its beginning, and what was read before is passed
    over: cheap beside loading it, and every check of the whole file stays as it is.

    Args:
        body: the file, from its beginning.
        position: where to go on: `offset`, in bytes of the content.
        limits: how much a batch may be.
        place: the file's name, for messages.
        expected: what the file has to be; checked before the last batch is handed out.
        prepared: makes lines of an export out of those of a block, line by line.
        tally: counts lines.

    Raises:
        UnusableSource: it is damaged, cut off, not what is expected, or not the file that was read before.
    """
    checked = _Checked(body)
    tally = tally or Tally()
    offset = 0 if position is None else int(position["offset"])
    parts = _passed(_parts(checked, place, expected), offset, tally, place)
    blocks = blocks_of_lines(parts, block_bytes=limits.bytes_at_a_time)
    is_last = False
    for batch, is_last in batches_of(blocks, batch_bytes=limits.batch_bytes):
        tally.take_back()
        size = sum(map(len, batch))
        offset += size
        if is_last:
            _check_lines(tally.lines, batch, expected, place)
        ready: Sequence[bytes] = batch if prepared is bytes else list(map(prepared, batch))
        tally.hand_out(batch)
        yield RawBatch(
            ready,
            None if is_last else {"offset": offset},
            size_bytes=size,
            place=place,
            first_line=tally.lines + 1,
        )
        del batch, ready  # their memory serves the next ones
    if not is_last:
        _check_lines(tally.lines, (), expected, place)
        yield RawBatch((), None, place=place)


def _parts(checked: _Checked, place: str, expected: Expected) -> Iterator[bytes]:
    """The content, and at its end the checks of the whole file."""
    checked.look()
    try:
        yield from gunzipped(checked, read_bytes=_READ_BYTES) if checked.is_gzip else _plain(checked)
    except DAMAGED as error:
        raise UnusableSource(f"{place} is cut off or damaged ({error}): {_TAKE_AGAIN}") from None
    if expected.md5 is not None and checked.md5 != expected.md5:
        raise UnusableSource(
            f"{place} is not the file that its manifest names (its MD5 is {checked.md5}, not {expected.md5})"
            f": {_TAKE_AGAIN}"
        )


def _plain(body: Readable) -> Iterator[bytes]:
    while data := body.read(_READ_BYTES):
        yield data


def _passed(parts: Iterable[bytes], offset: int, tally: Tally, place: str) -> Iterator[bytes]:
    """What comes behind an offset, once it is known that a line ends there."""
    if not offset:
        yield from parts
        return
    parts = iter(parts)
    left, last = offset, b""
    for part in parts:
        before = part[:left]
        tally.lines += _lines_in(before)
        left -= len(before)
        last = before[-1:] or last
        if not left:
            if last != b"\n":
                break
            if rest := part[len(before) :]:
                yield rest
            yield from parts
            return
    raise UnusableSource(
        f"{place} is not the file that was read before: no line ends where reading stopped. Start a new run"
    )


def _check_lines(before: int, batch: Sequence[bytes], expected: Expected, place: str) -> None:
    if expected.lines is None:
        return
    lines = before + sum(map(_lines_in, batch)) + bool(batch and not batch[-1].endswith(b"\n"))
    if lines != expected.lines:
        raise UnusableSource(
            f"{place} has {lines} items where its manifest says {expected.lines}: {_TAKE_AGAIN}"
        )
