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

    CLEARING = "clearing"
    """Rows that were there before the run are looked up; those whose items are gone are being settled."""
    COPYING = "copying"
    WAITING = "waiting"
    """Transactions that are older than what was read or loaded have to end first."""
    CLOSING = "closing"
    """Keys with both a row and a tombstone are being settled."""


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """How far a backfill has come, over all its attempts.

    Attributes:
        items: items read and loaded.
        inserted: rows inserted; the other items were there already, or were settled, or failed.
        settled: keys that differed, or whose items are gone, and were handed to settle.
        failed: keys that could be neither loaded nor settled, as where no SQL row can hold the item; they
            are marked dirty.
        bytes: their size, as DynamoDB counts it.
        segments_done: segments that have been loaded.
        segments_total: how many there are.
        elapsed: time since this attempt began.
        phase: what is being done.
        waiting_for: how many older transactions are waited for.
        rows_looked_up: rows from before the run that were looked up at the source.
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
    rows_looked_up: int = 0


class Board:
    """Where the workers of a backfill report. Safe to share by threads.

    Args:
        segments: all segments as they stood at the start.
        left_overs: the piece that is not a segment but the rows from before the run, as it stood.
        report: called with the sum of it, never by two threads at once.
    """

    def __init__(
        self, segments: Iterable[Piece], left_overs: Piece, report: Callable[[BackfillProgress], None]
    ) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._segments = {piece.row.number: piece for piece in segments}
        self._left_overs = left_overs
        self._report = report
        self._overlaps = self._overlaps_failed = 0

    def segment_advanced(self, piece: Piece) -> None:
        """A segment has a new checkpoint."""
        with self._lock:
            self._segments[piece.row.number] = piece
            self._report(self._progress())

    def left_overs_advanced(self, piece: Piece) -> None:
        """The rows from before the run have a new checkpoint."""
        with self._lock:
            self._left_overs = piece
            self._report(self._progress(Phase.CLEARING))

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
        segments = self._segments.values()
        pieces = (*segments, self._left_overs)
        return BackfillProgress(
            items=sum(piece.row.items for piece in segments),
            inserted=sum(piece.row.inserted for piece in segments),
            settled=sum(piece.row.settled for piece in pieces) + self._overlaps,
            failed=sum(piece.failed for piece in pieces) + self._overlaps_failed,
            bytes=sum(piece.row.size_bytes for piece in segments),
            segments_done=sum(piece.read_to_the_end for piece in segments),
            segments_total=len(segments),
            elapsed=timedelta(seconds=time.monotonic() - self._began),
            phase=phase,
            waiting_for=waiting_for,
            rows_looked_up=self._left_overs.row.items,
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
