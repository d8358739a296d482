"""The files of a recording: blocks of gzip, rotated, and never more than a limit in their directory."""

import gzip
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".jsonl.gz"
PREFIX = "recording-"


class RecordingFull(Exception):  # noqa: N818 - said of a directory, which is in order
    """The files of the directory have reached their limit."""


class RecordingFiles:
    """Appends to the files of one recording.

    Every block is a gzip member of its own: what a crash leaves behind can be read to the last whole block.

    Args:
        directory: where the files are; made where it is missing. Others may record there as well.
        name: of the recording.
        rotate_bytes: a file that has become so large is followed by another.
        limit_bytes: the most that all recordings of the directory take together.
    """

    def __init__(self, directory: Path, name: str, *, rotate_bytes: int, limit_bytes: int) -> None:
        self._directory = directory
        self._name = name
        self._rotate_bytes = rotate_bytes
        self._limit_bytes = limit_bytes
        self._file: BinaryIO | None = None
        self._number = 0

    @property
    def is_due(self) -> bool:
        """Whether the next block begins a file, which then has to begin with what every file begins with."""
        return self._file is None

    def append(self, block: bytes) -> None:
        """Write a block, and let it reach the file.

        Raises:
            RecordingFull: there is no room left; nothing was written.
            OSError: the file cannot be written.
        """
        packed = gzip.compress(block, compresslevel=6, mtime=0)
        if self._taken_bytes() + len(packed) > self._limit_bytes:
            raise RecordingFull
        if self._file is None:
            self._file = self._opened()
        self._file.write(packed)
        self._file.flush()
        if self._file.tell() >= self._rotate_bytes:
            self.close()

    def close(self) -> None:
        """Close the file at hand; harmless where there is none."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _opened(self) -> BinaryIO:
        self._number += 1
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{PREFIX}{self._name}-{self._number:04}{SUFFIX}"
        # Nobody else's business, though no key and no value is in it.
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def _taken_bytes(self) -> int:
        taken_bytes = 0
        for path in self._directory.glob(f"{PREFIX}*{SUFFIX}"):
            with suppress(FileNotFoundError):  # moved away just now
                taken_bytes += path.stat().st_size
        return taken_bytes
