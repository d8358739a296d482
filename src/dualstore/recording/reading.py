"""Reads recordings back, to the last whole block of one that was cut short."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dualstore.errors import ConfigurationError
from dualstore.recording.files import SUFFIX
from dualstore.recording.lines import VERSION, Line, Opened

_GZIP = b"\x1f\x8b"


def is_recording(path: Path) -> bool:
    """Whether a file is a recording, or a directory of some, by what it begins with.

    Raises:
        ConfigurationError: it cannot be read.
    """
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_GZIP)) == _GZIP
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); check its name") from None


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a recording, or of all recordings of a directory, file by file.

    A file that its process could not finish ends where its last whole block does.

    Raises:
        ConfigurationError: it is no recording, or one of another version.
    """
    for file in sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]:
        yield from _read_file(file)


def _read_file(path: Path) -> Iterator[Line]:
    decoder = msgspec.json.Decoder(Line)
    first = True
    try:
        with gzip.open(path) as lines:
            for number, text in enumerate(_whole(lines), 1):
                line = _decoded(decoder, text, path, number)
                if first and not (isinstance(line, Opened) and line.version == VERSION):
                    raise ConfigurationError(
                        f"{path}: no recording of version {VERSION}; record with this version of dualstore, "
                        "or condense it with the one that recorded it"
                    )
                first = False
                yield line
    except (OSError, zlib.error) as error:
        raise ConfigurationError(f"{path}: cannot be read as a recording ({error})") from None


def _whole(lines: gzip.GzipFile) -> Iterator[bytes]:
    try:
        for text in lines:
            if text.endswith(b"\n"):
                yield text
    except EOFError:
        return  # cut short in its last block


def _decoded(decoder: "msgspec.json.Decoder[Line]", text: bytes, path: Path, number: int) -> Line:
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: line {number} is not one of a recording: {error}") from None
