"""How far a backfill has come, and how fast it may go."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from dualstore.stores.postgres_load import Piece


class Phase(StrEnum):
    """What a backfill is doing."""

    COPYING = "copying"
    WAITING = "waiting"
    """Everything is loaded; transactions that are older than that have to end first."""
    CLOSING = "closing"
    """Keys with both a row and a tombstone are being settled."""


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """How far a backfill has come, over all its attempts.

    Attributes:
        items: items read and loaded.
        inserted: rows inserted; the other items were there already, or were settled, or failed.
        settled: keys that differed and were handed to settle.
        failed: items that no SQL row can hold; their keys are marked dirty.
        bytes: their size, as DynamoDB counts it.
        segments_done: segments that have been loaded.
        segments_total: how many there are.
        elapsed: time since this attempt began.
        phase: what is being done.
        waiting_for: how many older transactions are waited for.
    """

    items: int
    inserted: int
    settled: int
    failed: int
    bytes: int
    segments_done: int
    segments_total: int
    elapsed: timedelta
    phase: Phase = Phase.COPYING
    waiting_for: int = 0


class Board:
    """Where the workers of a backfill report. Safe to share by threads.

    Args:
        pieces: all pieces as they stood at the start.
        report: called with the sum of it, never by two threads at once.
    """

    def __init__(self, pieces: Iterable[Piece], report: Callable[[BackfillProgress], None]) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._pieces = {piece.row.number: piece for piece in pieces}
        self._report = report
        self._overlaps = self._overlaps_failed = 0

    def advanced(self, piece: Piece) -> None:
        """A piece has a new checkpoint."""
        with self._lock:
            self._pieces[piece.row.number] = piece
            self._report(self._progress())

    def overlaps_settled(self, keys: int, *, failed: int) -> None:
        """Keys with both a row and a tombstone were settled, all but some."""
        with self._lock:
            self._overlaps += keys
            self._overlaps_failed += failed
            self._report(self._progress(Phase.CLOSING))

    def phase(self, phase: Phase, *, waiting_for: int = 0) -> None:
        """The backfill does something else now, or still waits."""
        with self._lock:
            self._report(self._progress(phase, waiting_for=waiting_for))

    def progress(self) -> BackfillProgress:
        """How far it has come."""
        with self._lock:
            return self._progress()

    def _progress(self, phase: Phase = Phase.COPYING, *, waiting_for: int = 0) -> BackfillProgress:
        pieces = self._pieces.values()
        return BackfillProgress(
            items=sum(piece.row.items for piece in pieces),
            inserted=sum(piece.row.inserted for piece in pieces),
            settled=sum(piece.row.settled for piece in pieces) + self._overlaps,
            failed=sum(piece.failed for piece in pieces) + self._overlaps_failed,
            bytes=sum(piece.row.size_bytes for piece in pieces),
            segments_done=sum(piece.read_to_the_end for piece in pieces),
            segments_total=len(pieces),
            elapsed=timedelta(seconds=time.monotonic() - self._began),
            phase=phase,
            waiting_for=waiting_for,
        )


class Pace:
    """Keeps all workers together under a rate. Safe to share by threads.

    Args:
        items_per_second: the rate, or None for no limit.
        clock: monotonic seconds.
    """

    def __init__(
        self, items_per_second: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds_per_item = 0.0 if items_per_second is None else 1 / items_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def delay_after(self, items: int) -> timedelta:
        """Account for items that were read, and say how long to wait before the next are.

        What was not used while nobody read is not saved up: a pause is not followed by a rush.
        """
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + items * self._seconds_per_item
            return timedelta(seconds=self._free_at - now)
