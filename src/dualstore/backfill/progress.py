"""How far a backfill has come, and how fast it may go."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from dualstore.stores.ledger import RunState, Totals, Wish, WorkerSeen


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
    """How far a backfill has come, over all its attempts and all who work on it.

    Attributes:
        items: items read and loaded.
        inserted: rows inserted; the other items were there already, or were settled, or put aside.
        settled: keys that differed, or whose items are gone, and were handed to settle.
        failed: items that could be neither loaded nor settled, as where no SQL row can hold them: they are in
            quarantine, and their keys are marked dirty.
        bytes: the size of the items, as JSON.
        pieces_done: pieces of the source that have been loaded.
        pieces_failed: pieces that were given up.
        pieces_total: how many there are.
        elapsed: time since the run began.
        phase: what is being done.
        waiting_for: how many older transactions are waited for.
        rows_looked_up: rows from before the run that were looked up at the source.
        read_units: read capacity consumed at DynamoDB.
        rate: items a second, of all who are at work now.
        expected_items: how many items there will be, perhaps roughly; None where nobody knows.
        workers: who is at work now.
        paused_by: who has paused the run, and why; None while it goes on.
    """

    items: int
    inserted: int
    settled: int
    failed: int
    bytes: int
    pieces_done: int
    pieces_total: int
    elapsed: timedelta
    pieces_failed: int = 0
    phase: Phase = Phase.COPYING
    waiting_for: int = 0
    rows_looked_up: int = 0
    read_units: float = 0.0
    rate: float = 0.0
    expected_items: int | None = None
    workers: tuple[WorkerSeen, ...] = ()
    paused_by: str | None = None

    @property
    def waits_for(self) -> str | None:
        """Why workers hold back, where any does: PostgreSQL has too much to bear."""
        return next((each.waits_for for each in self.workers if each.waits_for), None)

    @property
    def eta(self) -> timedelta | None:
        """How long it will still take at this rate; None where that cannot be said."""
        if self.phase is not Phase.COPYING or self.expected_items is None or not self.rate:
            return None
        return timedelta(seconds=max(0, self.expected_items - self.items) / self.rate)


def progress_of(totals: Totals, *, phase: Phase | None = None, waiting_for: int = 0) -> BackfillProgress:
    """What the ledger says of a run.

    Args:
        totals: the sum of its pieces.
        phase: what it is doing; None: what the ledger says.
        waiting_for: how many older transactions are waited for.
    """
    run = totals.run
    return BackfillProgress(
        items=totals.items,
        inserted=totals.inserted,
        settled=totals.settled,
        failed=totals.rejected,
        bytes=totals.size_bytes,
        pieces_done=totals.pieces_done,
        pieces_total=totals.pieces,
        elapsed=timedelta(seconds=totals.seconds),
        pieces_failed=totals.pieces_failed,
        phase=phase or Phase(run.phase or Phase.COPYING),
        waiting_for=waiting_for,
        rows_looked_up=totals.own,
        read_units=totals.read_units,
        rate=sum(worker.rate for worker in totals.workers),
        expected_items=run.parameters.get("expected_items"),
        workers=totals.workers,
        paused_by=_asked(totals) if run.wish is Wish.PAUSE and run.state is RunState.RUNNING else None,
    )


def _asked(totals: Totals) -> str:
    run = totals.run
    return f"{run.wish_by or 'somebody'}{f': {run.wish_reason}' if run.wish_reason else ''}"


class Pace:
    """Keeps one worker under its share of a rate.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._free_at = clock()

    def delay_after(self, items: int, items_per_second: float | None) -> timedelta:
        """Account for items that were read, and say how long to wait before the next are.

        What was not used while nobody read is not saved up: a pause is not followed by a rush. What was taken
        in one go is paid for in full, at the share that holds now.

        Args:
            items: since the last call.
            items_per_second: this worker's share now, or None for no limit.
        """
        now = self._clock()
        if items_per_second is None:
            self._free_at = now
            return timedelta(0)
        self._free_at = max(self._free_at, now) + items / items_per_second
        return timedelta(seconds=self._free_at - now)
