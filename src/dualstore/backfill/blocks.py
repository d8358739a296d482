"""Compressed files as blocks of whole lines, of a bounded size."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from dualstore.stores.batch_limits import BATCH_BYTES, BLOCK_BYTES

try:
    from isal import isal_zlib
except ImportError:
    isal_zlib = None  # type: ignore[assignment]

_GZIP = 31  # zlib: 15 bits of window, with a gzip header
_READ_BYTES = 64 * 1024  # an export's shrink to a tenth; the most that deflate can do is a thousandth

DAMAGED: tuple[type[Exception], ...] = (EOFError, zlib.error)
if isal_zlib is not None:
    _isal_error: Any = isal_zlib.IsalError  # its stub says that this is an error, and no class
    DAMAGED = (*DAMAGED, _isal_error)
"""What reading a file raises that is cut off, damaged, or not compressed at all."""


class Readable(Protocol):
    """What has bytes to read."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, none at the end."""
        ...


_decompressor: Callable[[int], Any] = zlib.decompressobj if isal_zlib is None else isal_zlib.decompressobj


def gunzipped(compressed: Readable, *, read_bytes: int = _READ_BYTES) -> Iterator[bytes]:
    """The content of a gzip file, some at a time; by isal where it is installed, at least twice as fast.

    Args:
        compressed: a file, or anything with `read`, such as the body of an S3 object.
        read_bytes: how much of it to read at a time.

    Raises:
        EOFError: the file ends in the middle.
        zlib.error: it is no gzip file, or damaged; with isal, `isal_zlib.IsalError`.
    """
    gunzip = _decompressor(_GZIP)
    while data := compressed.read(read_bytes):
        while data:
            if gunzip.eof:  # several gzip members may make one file
                gunzip = _decompressor(_GZIP)
            yield gunzip.decompress(data)
            data = gunzip.unused_data if gunzip.eof else b""
    if not gunzip.eof:
        raise EOFError("the compressed file ends in the middle: read it again")


def blocks_of_lines(parts: Iterable[bytes], *, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Cut content into blocks that end where a line does.

    Args:
        parts: the content, cut anywhere.
        block_bytes: the size from which on a block ends with the next line.

    Yields:
        Blocks that together are the content; the last one may lack the end of its line.
    """
    left = b""
    for part in parts:
        end = 0
        if len(left) + len(part) >= block_bytes:
            end = part.find(b"\n", max(0, block_bytes - 1 - len(left))) + 1
        if not end:
            left += part
            continue
        yield left + part[:end]  # what is left of one part is copied once, and never the whole of the next
        while len(part) - end >= block_bytes:
            newline = part.find(b"\n", end + block_bytes - 1)
            if newline < 0:
                break
            yield part[end : newline + 1]
            end = newline + 1
        left = part[end:]
    if left:
        yield left


def batches_of(
    blocks: Iterable[bytes], *, batch_bytes: int = BATCH_BYTES
) -> Iterator[tuple[list[bytes], bool]]:
    """Group blocks into what one transaction loads.

    Args:
        blocks: from `blocks_of_lines`.
        batch_bytes: the size from which on a batch ends with its block.

    Yields:
        The blocks of a batch, and whether it is the last one.
    """
    batch: list[bytes] = []
    size = 0
    for block in blocks:
        if size >= batch_bytes:
            yield batch, False
            batch, size = [], 0
        batch.append(block)
        size += len(block)
    if batch:
        yield batch, True
