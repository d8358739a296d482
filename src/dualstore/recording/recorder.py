"""Notes a share of the operations of some tables: off their callers' way, bounded, counting what it drops."""

import logging
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeAlias

import msgspec

from dualstore.items import TableShape
from dualstore.operations import Operation, Response
from dualstore.recording.files import RecordingFiles, RecordingFull
from dualstore.recording.identities import Identities, place_hash
from dualstore.recording.lines import (
    VERSION,
    Line,
    Lost,
    Note,
    Opened,
    TableNamed,
    Touch,
    size_class_bytes,
)
from dualstore.recording.noting import KeySeen, Seen, seen
from dualstore.telemetry import RecordingDropped, Telemetry
from dualstore.telemetry.ticking import Ticker

logger = logging.getLogger(__name__)


class Recorded(Protocol):
    """A table, as operations on it are recorded."""

    @property
    def logical(self) -> str:
        """The name in flags, configuration and metrics."""
        ...

    @property
    def shape(self) -> TableShape:
        """Its keys and indexes."""
        ...


CarryOut: TypeAlias = Callable[[Any, Any], Response]
"""Carries out an operation (the second argument) of a table that is served (the first)."""

_PAUSE = timedelta(milliseconds=250)
_BLOCK_BYTES = 256 * 1024


class Recorder:
    """Records the operations that go through `around`.

    What waits to be written are numbers and the bytes of keys, so 3 KB a key at the most; no item is kept.

    Args:
        directory: where the files go.
        percents: by logical name, the share of a table's operations that is noted.
        tables: the served tables by physical name; may grow.
        telemetry: told of what is dropped.
        places: names the databases of a table, by its physical name, for `identities.place_hash`; may ask
            them, and raise.
        secret: see `Identities`.
        queue_keys: the most keys that wait to be written.
        rotate_bytes: see `RecordingFiles`.
        limit_bytes: likewise.
        flush: what was noted is in the file after so long.
        chance: a number from 0 to 1 for each operation: whether it is noted.
    """

    def __init__(
        self,
        directory: Path,
        percents: Mapping[str, float],
        tables: Mapping[str, Recorded],
        *,
        telemetry: Telemetry,
        places: Callable[[str], tuple[str, ...]] = lambda _: (),
        secret: str | None = None,
        queue_keys: int = 20_000,
        rotate_bytes: int = 16 * 1024 * 1024,
        limit_bytes: int = 256 * 1024 * 1024,
        flush: timedelta = timedelta(seconds=5),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._shares = {name: percent / 100 for name, percent in percents.items() if percent}
        self._tables = tables
        self._telemetry = telemetry
        self._places = places
        self._identities = Identities(secret)
        self._queue_keys = queue_keys
        self._flush_seconds = flush.total_seconds()
        self._chance = chance
        began = time.time()
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(began))}-{uuid.uuid4().hex[:8]}"
        self._opened = Opened(VERSION, name, self._identities.name, began)
        self._zero = time.monotonic()
        self._files = RecordingFiles(directory, name, rotate_bytes=rotate_bytes, limit_bytes=limit_bytes)
        self._lock = Lock()
        self._waiting: list[tuple[Seen, str]] = []
        self._waiting_keys = 0
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._ended: str | None = None
        self._lines: list[bytes] = []
        self._lines_bytes = 0
        self._named: dict[str, bytes] = {}
        self._flushed = self._zero
        self._writing = Lock()
        self._ticker = Ticker("dualstore-recording", self.write, pause=_PAUSE)

    def start(self) -> None:
        """Write in the background from now on; harmless where that has begun."""
        self._ticker.start()

    def close(self) -> None:
        """Write what waits, and end."""
        self._ticker.close()
        self.write(everything=True)
        self._ended = self._ended or "closed"
        self._files.close()

    def around(self, carry_out: CarryOut) -> CarryOut:
        """The same, with its operations noted."""

        def recorded(served: Any, operation: Operation) -> Response:
            draw = self._chance()
            chosen = self._chosen(served, operation, draw) if self._ended is None else ()
            if not chosen:
                return carry_out(served, operation)
            at = time.monotonic()
            response: Response | None = None
            try:
                response = carry_out(served, operation)
                return response
            finally:
                for table in chosen:
                    self._note(table, operation, response, at)

        return recorded

    def _chosen(self, served: Recorded, operation: Operation, draw: float) -> tuple[Recorded, ...]:
        """The tables for which this operation is noted."""
        if "TableName" in operation.request:
            return (served,) if draw < self._shares.get(served.logical, 0.0) else ()
        named = (self._tables[name] for name in sorted(operation.tables) if name in self._tables)
        return tuple(table for table in named if draw < self._shares.get(table.logical, 0.0))

    def _note(self, table: Recorded, operation: Operation, response: Response | None, at: float) -> None:
        try:
            note = seen(operation, table.shape, response, at=at - self._zero, table=table.logical)
        except Exception:  # noqa: BLE001 - a malformed request is its caller's affair: it has been refused
            self._drop(table.logical, "malformed")
            return
        keys = len(note.keys) + 1
        with self._lock:
            has_room = self._waiting_keys + keys <= self._queue_keys
            if has_room:
                self._waiting.append((note, table.shape.name))
                self._waiting_keys += keys
        if not has_room:
            self._drop(table.logical, "queue_full")

    def _drop(self, table: str, reason: str, *, times: int = 1) -> None:
        with self._lock:
            self._dropped[table, reason] += times
        self._telemetry.record(RecordingDropped(table, reason), times=times)

    def write(self, *, everything: bool = False) -> None:
        """Write what waits; what makes no whole block stays for a while, unless `everything` is to go."""
        with self._writing:
            with self._lock:
                waiting, self._waiting, self._waiting_keys = self._waiting, [], 0
                # What was no operation is none that is missing in the recording.
                lost = {
                    table: n for (table, reason), n in self._dropped.items() if reason == "queue_full" and n
                }
                self._dropped.clear()
            if self._ended is not None:
                for note, _ in waiting:
                    self._drop(note.table, self._ended)
                return
            for note, physical in waiting:
                self._name_table(note.table, physical)
                self._add(self._line(note))
            for table, operations in lost.items():
                self._add(Lost(table, operations))
            now = time.monotonic()
            due = now - self._flushed >= self._flush_seconds or self._lines_bytes >= _BLOCK_BYTES
            if self._lines and (everything or due):
                self._flushed = now
                self._write_block(len(waiting))

    def _write_block(self, operations: int) -> None:
        lines, self._lines, self._lines_bytes = self._lines, [], 0
        if self._files.is_due:
            lines = [_encoded(self._opened), *self._named.values(), *lines]
        try:
            self._files.append(b"".join(lines))
        except (OSError, RecordingFull) as error:
            full = isinstance(error, RecordingFull)
            self._ended = "limit" if full else "failed"
            logger.warning(
                "The recording of operations has ended: %s",
                "its directory has reached recording.limit_bytes; move its files away, and start again"
                if full
                else f"its file cannot be written ({error}); mend that, and start again",
            )
            self._telemetry.record(RecordingDropped("*", self._ended), times=max(operations, 1))

    def _add(self, line: Line) -> None:
        text = _encoded(line)
        self._lines.append(text)
        self._lines_bytes += len(text)

    def _name_table(self, table: str, physical: str) -> None:
        """Say whose table it is, before its first note."""
        if table in self._named:
            return
        try:
            places = tuple(place_hash(place) for place in self._places(physical))
        except Exception as error:  # noqa: BLE001 - of whatever database; the recording goes on without
            logger.warning(
                "Where table %s is recorded could not be told (%s): a load test cannot know this place again",
                table,
                type(error).__name__,
            )
            places = ()
        named = TableNamed(table, self._shares[table] * 100, places)
        self._named[table] = _encoded(named)
        if not self._files.is_due:
            self._add(named)

    def _line(self, note: Seen) -> Note:
        return Note(
            at=round(note.at, 4),
            table=note.table,
            operation=note.operation,
            index=note.index_name,
            consistent=note.consistent,
            conditional=note.conditional,
            ranged=note.ranged,
            limit=note.limit,
            answered=note.answered,
            touched=tuple(map(self._touch, note.keys)),
        )

    def _touch(self, key: KeySeen) -> Touch:
        return Touch(
            self._identities.partition(key.partition),
            "" if key.item is None else self._identities.item(key.item),
            key.act,
            size_class_bytes(key.size_bytes),
        )


def _encoded(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"
