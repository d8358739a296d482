"""Writing a LaunchDarkly flag file so that no reader ever sees half of it and no writer undoes another."""

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple, TypeGuard

from dualstore.errors import ConfigurationError
from dualstore.stages import Stage

_MTIME_STEP_NS = 1_000_000


class Signature(NamedTuple):
    """What changes when a file is replaced or written."""

    inode: int
    modified_ns: int
    size_bytes: int


def signature(path: Path) -> Signature | None:
    """A file's present signature, or None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Signature(status.st_ino, status.st_mtime_ns, status.st_size)


def create(path: Path) -> None:
    """Write a flag file without flags, if there is no file yet."""
    with _directory_locked(path) as directory:
        if not path.exists():
            _replace(path, {"flagValues": {}}, directory)


def set_values(path: Path, values: Mapping[str, Stage | float | None]) -> Callable[[], None]:
    """Give flags plain values, or remove them where the value is None; all others stay.

    Returns:
        What puts these flags back as they were, when called.

    Raises:
        ConfigurationError: the file is not a JSON flag file, or its folder is missing.
    """
    plain = {key: value for key, value in values.items() if value is not None}
    before = _exchange(path, set(values), {"flagValues": plain})

    def put_back() -> None:
        _exchange(path, set(values), before)

    return put_back


def _exchange(
    path: Path, keys: Collection[str], entries: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Mapping[str, Any]]:
    """Replace all that a file has under some keys; returns what was there, by the part of the file."""
    with _directory_locked(path) as directory:
        document = _read(path)
        document.setdefault("flagValues", {})
        before: dict[str, dict[str, Any]] = {}
        # Every part: the SDK refuses a file that has one key in two.
        for part in document.keys() & {"flagValues", "flags"}:
            before[part] = {key: document[part].pop(key) for key in keys if key in document[part]}
        for part, added in entries.items():
            document.setdefault(part, {}).update(added)
        _replace(path, document, directory)
    return before


@contextmanager
def _directory_locked(path: Path) -> Iterator[int]:
    """Hold the folder's lock; yields its descriptor. The file itself is replaced, so it cannot be locked."""
    try:
        directory = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigurationError(
            f"Flag file {path}: its folder cannot be opened ({error.strerror}); create it"
        ) from None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield directory
    finally:
        os.close(directory)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise ConfigurationError(f"Flag file {path} is not JSON; correct it, or edit YAML by hand") from None
    if not _is_flag_file(document):
        raise ConfigurationError(
            f'Flag file {path} is not a LaunchDarkly flag file; it holds {{"flagValues": {{key: value}}}}'
        )
    return document


def _is_flag_file(document: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(document, dict) and all(
        isinstance(document.get(part, {}), dict) for part in ("flagValues", "flags")
    )


def _replace(path: Path, document: Mapping[str, Any], directory: int) -> None:
    """Put a new file in place of the old one, durably, with a later time of modification."""
    path = path.resolve()  # a symbolic link stays one
    previous = signature(path)
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as written:
        try:
            if previous is not None:
                os.fchmod(written.fileno(), stat.S_IMODE(path.stat().st_mode))
            json.dump(document, written, indent=2, ensure_ascii=False)
            written.write("\n")
            written.flush()
            # Readers compare modification times, and the file system's clock ticks every few milliseconds.
            later = max(time.time_ns(), previous.modified_ns + _MTIME_STEP_NS if previous else 0)
            os.utime(written.fileno(), ns=(later, later))
            os.fsync(written.fileno())
            Path(written.name).replace(path)
        except BaseException:
            Path(written.name).unlink(missing_ok=True)
            raise
    os.fsync(directory)
