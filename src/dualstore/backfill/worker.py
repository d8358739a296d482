"""A worker of a backfill: claims a piece of the run, copies it batch by batch, and claims the next."""

import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from datetime import timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from dualstore.backfill.equipment import Equipment
from dualstore.backfill.progress import Pace
from dualstore.backfill.quarantine import QuarantineLimit
from dualstore.backfill.sources.base import Batch
from dualstore.errors import DualStoreError, MirrorFenced, StorageFull, Unavailable
from dualstore.stores.batch_limits import Limits
from dualstore.stores.bulk import patiently
from dualstore.stores.ledger import WAITING, Pulse, RunState, TakenOver, Wish
from dualstore.stores.postgres_load import Piece

T = TypeVar("T")

logger = logging.getLogger(__name__)

PACE, QUARANTINE_LIMIT = "max_rows_per_second", "max_quarantine"
"""Parameters of a run that hold for all its workers, and can be changed while it is under way."""

_LEAST_BATCH_BYTES = 64 * 1024
_FIRST_SMALLER_PAGE_ITEMS = 1000
_LONGEST_LOOK = timedelta(seconds=1)
_FIRST_LOOK_SECONDS = 0.05
_NEVER = 1_000_000


def limits_after(failures: int) -> Limits:
    """How much a batch may be after failures in a row: half with each, so that the fault is cornered."""
    whole = Limits()
    if not failures:
        return whole
    return Limits(
        batch_bytes=max(_LEAST_BATCH_BYTES, whole.batch_bytes >> failures),
        page_items=max(1, _FIRST_SMALLER_PAGE_ITEMS >> (failures - 1)),
        batch_keys=max(1, whole.batch_keys >> failures),
        block_bytes=whole.block_bytes,
    )


class Worker:
    """Works on a run until nothing of it is left to be claimed.

    Args:
        equipment: what it works with.
        run_id: the run.
        name: names it; no two workers have the same name.
        stop: once it is set, the worker gives its piece back after the next checkpoint.
        advanced: called after each batch, and now and then while there is nothing to do.
        resting: what a batch is loaded in, such as `bulk.collector_paused` in a process of its own.
        look: how long to wait at most before looking again for a piece, and for leave to go on.
    """

    def __init__(
        self,
        equipment: Equipment,
        run_id: UUID,
        *,
        name: str,
        stop: threading.Event,
        advanced: Callable[[], None] = lambda: None,
        resting: Callable[[], AbstractContextManager[None]] = nullcontext,
        look: timedelta = _LONGEST_LOOK,
    ) -> None:
        self.equipment = equipment
        self.name = name
        self._run_id = run_id
        self._stop = stop
        self._advanced = advanced
        self._resting = resting
        self._look = look.total_seconds()
        self._pace = Pace()

    def work(self, *, only: int | None = None) -> None:
        """Copy pieces; returns when none is left, the run has ended or is to halt, or `stop` is set.

        Args:
            only: the piece of this number, and no other. It is waited for while somebody else holds it, since
                he may die.

        Raises:
            MirrorFenced: PostgreSQL is not the mirror of the table any more.
            Unavailable: a database was away for too long; the piece was given back. Where PostgreSQL has no
                room left, the run is paused instead.
        """
        runs, lease = self.equipment.runs, self.equipment.lease
        idle = _FIRST_LOOK_SECONDS  # the last pieces of a run end at about the same time
        while not self._stop.is_set():
            pulse = self._pulse()
            halted = pulse.run.state is not RunState.RUNNING or pulse.run.wish is Wish.HALT
            if halted or not pulse.unfinished:
                return
            row = self._patiently(
                lambda _: runs.claim_next(self._run_id, worker=self.name, lease=lease, only=only)
            )
            if row is None and only is not None and not self._is_unfinished(only):
                return
            if row is None:  # others hold what is left, it is left alone for a while, or the run is paused
                self._advanced()
                self._stop.wait(min(idle, self._look))
                idle *= 2
                continue
            idle = _FIRST_LOOK_SECONDS
            self._copy(self.equipment.load.piece(row))

    def _copy(self, piece: Piece) -> None:
        """Copy a piece, as far as it goes; what fails is noted, and claimed again by whoever is free then."""
        equipment, hold = self.equipment, _Hold(self.equipment, piece)
        try:
            with closing(hold):
                self._advance(hold)
        except TakenOver:  # by somebody who found that the lease had run out: it is his now
            return
        except MirrorFenced:
            raise
        except StorageFull as error:
            self._pause(hold.piece, error)
        except Unavailable as error:  # no fault of the piece: it is never given up for that
            with suppress(DualStoreError):
                self._fail(hold.piece, str(error), attempts=_NEVER)
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a piece must not end the others
            self._fail(hold.piece, _told(error), attempts=equipment.attempts)

    def _advance(self, hold: "_Hold") -> None:
        while not hold.piece.read_to_the_end:
            if not self._admitted(hold):
                break
            before = hold.piece.row.items
            with self._resting():
                self._patiently(hold.step)
            self._advanced()
            pulse = self._pulse()
            self._look_at_quarantine(pulse)
            if self._stop.is_set() or pulse.run.wish is not Wish.GO:
                break
            if pulse.run.state is not RunState.RUNNING:
                return
            rate = pulse.run.parameters.get(PACE)
            share = None if rate is None else rate / max(1, pulse.workers)
            self._stop.wait(self._pace.delay_after(hold.piece.row.items - before, share).total_seconds())
        if not hold.piece.read_to_the_end:
            self._patiently(lambda _: self.equipment.runs.release(hold.piece.row))

    def _admitted(self, hold: "_Hold") -> bool:
        """Wait until PostgreSQL can bear more, holding the piece; whether it can, and nobody asks to stop."""
        while (reason := self.equipment.admission()) is not None:
            self._patiently(partial(self._note_waiting, hold.piece, reason))
            self._advanced()
            if self._stop.wait(self._look) or self._pulse().run.wish is not Wish.GO:
                return False
        return True

    def _note_waiting(self, piece: Piece, reason: str, _attempt: int) -> None:
        self.equipment.runs.renew(piece.row, lease=self.equipment.lease)
        self.equipment.runs.note_error(piece.row, f"{WAITING}{reason}")

    def _look_at_quarantine(self, pulse: Pulse) -> None:
        """Have everybody halt once more is put aside than the run may."""
        limit = QuarantineLimit.of(pulse.run.parameters.get(QUARANTINE_LIMIT))
        if pulse.run.wish is not Wish.HALT and limit.is_passed(pulse.rejected, pulse.items):
            reason = (
                f"{pulse.rejected:,} of {pulse.items:,} items are in quarantine, and {limit} was the most: "
                "look at `dualstore backfill quarantine`, then go on with a greater --max-quarantine"
            )
            self._patiently(
                lambda _: self.equipment.runs.ask(self._run_id, Wish.HALT, by=self.name, reason=reason)
            )
            self._stop.set()

    def _pause(self, piece: Piece, error: StorageFull) -> None:
        """Have everybody pause: what room is left belongs to the service, until a person has made more."""
        reason = f"{error}; then `dualstore backfill resume`"
        self._patiently(
            lambda _: self.equipment.runs.ask(self._run_id, Wish.PAUSE, by=self.name, reason=reason)
        )
        with suppress(TakenOver):
            self._patiently(lambda _: self.equipment.runs.release(piece.row))

    def _fail(self, piece: Piece, error: str, *, attempts: int) -> None:
        row, runs = piece.row, self.equipment.runs
        backoff = self.equipment.backoff * 2 ** min(row.failures, 6)
        with suppress(TakenOver):
            self._patiently(lambda _: runs.fail(row, error, attempts=attempts, backoff=backoff))

    def _is_unfinished(self, number: int) -> bool:
        return self._patiently(lambda _: self.equipment.runs.is_unfinished(self._run_id, number))

    def _pulse(self) -> Pulse:
        return self._patiently(lambda _: self.equipment.runs.pulse(self._run_id))

    def _patiently(self, call: Callable[[int], T]) -> T:
        return patiently(call, self.equipment.patience)


class _Hold:
    """A piece in the hands of a worker."""

    def __init__(self, equipment: Equipment, piece: Piece) -> None:
        self.piece = piece
        self._equipment = equipment
        self._failures = piece.row.failures
        self._batches: Iterator[Batch] | None = None

    def close(self) -> None:
        """Stop reading."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
        self._batches = None

    def step(self, attempt: int) -> None:
        """Settle the keys that the last batch left or, if there are none, load the next one.

        Args:
            attempt: after the first, it is done again from where the ledger says that the piece stands, with
                smaller batches.
        """
        equipment = self._equipment
        if attempt > 1:
            self.close()
            row = equipment.runs.reclaim(self.piece.row, lease=equipment.lease)
            self.piece = equipment.load.piece(row)
            self._failures = row.failures + attempt - 1
        if self.piece.read_to_the_end:
            return
        if self.piece.unsettled:
            self.piece = equipment.settled(self.piece, self.piece.unsettled)
            return
        if self._batches is None:
            self._batches = self._read(self._failures)
        batch = next(self._batches, None)
        if batch is not None and _says_nothing(batch, self.piece):
            equipment.runs.renew(self.piece.row, lease=equipment.lease)
            return
        self.piece = self._loaded(batch)
        if self._failures:  # it got on: what comes next is read in greater batches again
            self._failures //= 2
            self.close()

    def _read(self, failures: int) -> Iterator[Batch]:
        equipment = self._equipment
        return equipment.source.read(
            self.piece.row.description or {},
            self.piece.position,
            equipment.load.transcoder,
            limits_after(failures),
        )

    def _loaded(self, batch: Batch | None) -> Piece:
        equipment, piece = self._equipment, self.piece
        load = equipment.load.load_straight if equipment.straight else equipment.load.load_blocks
        reject = equipment.reject_of(piece, batch)
        if batch is None:
            return load(piece, (), position=None, reject=reject)
        return load(
            piece,
            batch.blocks,
            position=batch.position_after,
            reject=reject,
            keys=batch.keys,
            rejected=batch.rejected,
            read_units=batch.read_units,
        )


def _says_nothing(batch: Batch, piece: Piece) -> bool:
    """Whether a source only says that it still waits for what comes next."""
    if batch.raw is None or batch.raw.blocks or batch.keys or batch.position_after is None:
        return False
    return batch.position_after == piece.position


def _told(error: Exception) -> str:
    """An error in words that hold no item's value: those of others may quote one."""
    if isinstance(error, DualStoreError):
        return str(error)
    logger.error(
        "%s while a piece was read or loaded:\n%s",
        type(error).__name__,
        "".join(traceback.format_tb(error.__traceback__)),
    )
    return f"{type(error).__name__} while reading or loading it; the worker's log has the traceback"
