"""The copy of everything a table held before it was dual-written: resumable, exactly once, harmless."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from dualstore.backfill.crew import Crew, Threads
from dualstore.backfill.equipment import Equipment
from dualstore.backfill.progress import BackfillProgress, Phase, progress_of
from dualstore.errors import ConfigurationError, RunHalted, Unavailable
from dualstore.items import key_bytes
from dualstore.stores.base import Mirror
from dualstore.stores.bulk import patiently
from dualstore.stores.ledger import PieceRow, Run, RunState, Totals, Wish
from dualstore.stores.postgres_load import Piece
from dualstore.stores.postgres_upkeep import TOMBSTONE_RETENTION
from dualstore.stores.scan import read_items

KIND = "backfill"
_CATCH_UP = "catch-up"
_FIRST_REVISION = "first_revision"
_TUNING = frozenset({"tuning", "expected_items"})
"""Parameters of a source that say how it is read, not what."""
_LOOK = timedelta(seconds=1)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """How a backfill ended.

    Attributes:
        run_id: its row in `dualstore.runs`.
        table: the table's physical DynamoDB name.
        state: `FINISHED`, or `FINISHED_WITH_FAILURES` where items or pieces could not be loaded.
        totals: what was done, over all attempts of the run.
        failed_pieces: the pieces that were given up, and why.
    """

    run_id: UUID
    table: str
    state: RunState
    totals: BackfillProgress
    failed_pieces: tuple[PieceRow, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether every key was loaded or settled."""
        return self.state is RunState.FINISHED


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """Copies a DynamoDB table into the SQL table it is mapped to, while both take writes.

    Rows that were there before are looked up at the source first, and settled where their item is gone: it
    was deleted while its key was not mirrored, and no source tells of it. Then the source is read, piece by
    piece. Each batch is loaded in one transaction with its checkpoint: a row is inserted only where there is
    neither row nor tombstone, keys that differ are settled. A run that was interrupted, however, goes on
    where it stood when it is run again; and several may be run at a time, on several machines: they all work
    on the same run. Whoever comes first clears and closes it; the others wait meanwhile.

    Nobody may read the mirror while a run is unfinished. Rows may still be left over, or out of date; and a
    batch that is being loaded does not see a deletion that is acknowledged meanwhile, so that a deleted item
    can be back until the run has settled its key.

    Attributes:
        equipment: what this process works with.
        mirror: PostgreSQL, where keys with both row and tombstone are looked up.
        confirm_dualwrite: raises unless every live process mirrors every write, with no earlier operation
            in flight, and has stopped reading the mirror; reads stay stopped until a run has come to its
            end. Returns the epoch since which every write has been mirrored without a break, or None where
            epochs are not kept: a run of another epoch is not resumed, since writes passed it by.
        crew: who copies the pieces.
        settings: what holds for all workers of the run; given to one that is under way, it replaces what it
            was. `worker.PACE` is the most rows a second of all together, `worker.QUARANTINE_LIMIT` the most
            items put aside before it halts, as text (see `QuarantineLimit`).
        resume: the run to resume; None resumes the table's unfinished run, if there is one.
        dual_writes_since: from when on every process has mirrored every write, by the word of who knows;
            None: since the first run under the same epoch began, or now. A source that misses writes, or
            would bring deleted items back, is refused by it.
        preflight: called before a new run is started, with dual writes confirmed; raises where none may be.
        closing_patience: how long to wait for transactions older than the copy.
        loaded: called with what `confirm_dualwrite` returned when all is copied, before another backfill of
            the table can begin: the mirror may be read again.
        progress: called now and then, never by two threads at once.
    """

    equipment: Equipment
    mirror: Mirror
    confirm_dualwrite: Callable[[], int | None]
    crew: Crew = field(default_factory=Threads)
    settings: Mapping[str, Any] | None = None
    resume: UUID | None = None
    dual_writes_since: datetime | None = None
    preflight: Callable[[], None] = lambda: None
    closing_patience: timedelta = timedelta(minutes=10)
    loaded: Callable[[int | None], None] = lambda _: None
    progress: Callable[[BackfillProgress], None] = lambda _: None

    def run(self) -> BackfillResult:
        """Copy the table, help with a run that is under way, or go on with one that was interrupted.

        Raises:
            ConfigurationError: the run to resume cannot be resumed, one is under way that copies something
                else, or dual writes are not confirmed.
            SchemaError: the bookkeeping schema or the SQL table is missing.
            MirrorFenced: PostgreSQL is not the mirror any more: the table is at another stage.
            RunHalted: it was cancelled, or more was put aside than may be.
            Unavailable: a database was away for longer than `patience`, or older transactions have not ended.
                Run it again to go on.
        """
        self.equipment.runs.check()
        self.equipment.load.check()
        with self._alone():
            epoch = self._confirmed()
            attempt = _Attempt(self, self._run_to_do(epoch))
            attempt.clear()
        attempt.copy()
        with self._alone():
            return attempt.close(epoch)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from clearing and closing; wait for those who do it to the run that is under way."""
        runs, table = self.equipment.runs, self.equipment.shape.name
        while True:
            held = runs.exclusive(KIND, table)
            try:
                held.__enter__()
            except Unavailable:
                run = self._patiently(lambda _: runs.latest_unfinished(KIND, table))
                if run is None:
                    raise
                self.progress(progress_of(self._patiently(partial(self._totals, run))))
                time.sleep(_LOOK.total_seconds())
                continue
            break
        try:
            yield
        finally:
            held.__exit__(None, None, None)

    def _totals(self, run: Run, _attempt: int) -> Totals:
        return self.equipment.runs.totals(run.id)

    def _confirmed(self) -> int | None:
        """The epoch of the dual writes; None before they have begun, where batches go straight."""
        return None if self.equipment.straight else self.confirm_dualwrite()

    def _run_to_do(self, epoch: int | None) -> Run:
        """The run to go on with: the one asked for, the unfinished one, or a new one."""
        runs, table = self.equipment.runs, self.equipment.shape.name
        found = runs.latest_unfinished(KIND, table) if self.resume is None else runs.find(self.resume)
        if found is not None and (found.kind, found.table, found.state) == (KIND, table, RunState.RUNNING):
            if found.parameters.get("epoch") == epoch:
                return self._joined(found)
            if self.equipment.straight and not found.parameters.get("straight"):
                raise ConfigurationError(
                    f"an ordinary backfill of {table} is under way ({found.id}), so nothing can be copied "
                    "straight; go on with it, or end it with `dualstore backfill cancel`"
                )
            runs.finish(found, RunState.ABANDONED, {"reason": "dual writes were interrupted"})
            if self.resume is not None:
                raise ConfigurationError(
                    f"run {found.id} began before dual writes of {table} were interrupted, so writes passed "
                    "it by; start a new run"
                )
        elif self.resume is not None:
            raise ConfigurationError(
                f"run {self.resume} is not an unfinished backfill of table {table}; leave out `resume` to "
                "go on with the unfinished one, or to start a new one"
            )
        return self._started(epoch)

    def _joined(self, run: Run) -> Run:
        """A run that is under way, with what is to hold from now on."""
        runs, mine = self.equipment.runs, self._identity()
        differing = sorted(name for name, value in mine.items() if _of_run(run).get(name) != value)
        if differing:
            raise ConfigurationError(
                f"a backfill of {run.table} is under way that copies from something else "
                f"({', '.join(differing)}); leave these options out to go on with it, or end it with "
                "`dualstore backfill cancel`"
            )
        if self.settings:
            runs.set_parameters(run.id, self.settings)
        if run.wish is Wish.HALT:
            runs.ask(run.id, Wish.GO, by="backfill", reason="gone on with")
        return run

    def _started(self, epoch: int | None) -> Run:
        """A new run: one piece for each of the source's, and one for the rows from before."""
        equipment = self.equipment
        if equipment.source.kind == _CATCH_UP:
            raise ConfigurationError(
                f"incremental exports alone do not hold the history of {equipment.shape.name}: give the full "
                "export that they follow as well, and both in one run"
            )
        self.preflight()
        if equipment.straight:
            equipment.load.check_straight()
        planned = equipment.source.pieces()
        if not equipment.straight:
            self._see_that_nothing_is_missed(epoch)
        parameters = {
            "epoch": epoch,
            "started": datetime.now(UTC).isoformat(),
            "source": dict(equipment.source.parameters()),
            "straight": equipment.straight,
            "expected_items": equipment.source.expected_items,
            # Drawn after dual writes were confirmed and a former run was abandoned: whatever was written
            # without either has an earlier one.
            _FIRST_REVISION: equipment.load.draw_revision(),
        }
        parameters |= self.settings or {}
        return equipment.runs.start(KIND, equipment.shape.name, parameters, planned=planned, pieces=1)

    def _see_that_nothing_is_missed(self, epoch: int | None) -> None:
        """Refuse a source that is older than the dual writes, or than the tombstones that are still there."""
        now = datetime.now(UTC)
        confirmed = self.equipment.runs.first_start(KIND, self.equipment.shape.name, epoch=epoch)
        since = self.dual_writes_since or confirmed or now
        kept = now - TOMBSTONE_RETENTION
        self.equipment.source.covers(since, tombstones_since=kept if since < kept else None)

    def _identity(self) -> dict[str, Any]:
        """What a run has to have in common with this one."""
        source = self.equipment.source.parameters()
        return {name: value for name, value in source.items() if name not in _TUNING} | {
            "straight": self.equipment.straight
        }

    def _patiently(self, call: Callable[[int], T]) -> T:
        return patiently(call, self.equipment.patience)


def _of_run(run: Run) -> Mapping[str, Any]:
    return {**run.parameters.get("source", {}), "straight": run.parameters.get("straight", False)}


class _Attempt:
    """One attempt at a run."""

    def __init__(self, plan: Backfill, run: Run) -> None:
        self._plan = plan
        self._equipment = plan.equipment
        self._run = run

    def clear(self) -> None:
        """Settle the keys of the rows from before the run whose items are gone, or what is left of them.

        Before anything is loaded: such a row may hold a unique value that another item has by now. Only rows
        with earlier revisions are looked up, once all of these can be seen: a later one was written while
        every deletion was mirrored. Before dual writes the table is empty.
        """
        load = self._equipment.load
        if self._equipment.straight:
            return
        piece = self._own_piece()
        if piece.read_to_the_end:
            return
        self._enter(Phase.CLEARING)
        if piece.position is None and not piece.at_end:
            self._patiently(lambda _: load.wait_for_writers(*self._waiting()))
        while not piece.read_to_the_end:
            piece = self._again(piece, self._look_up)
            self._report(Phase.CLEARING)

    def copy(self) -> None:
        """Have the crew load what is left of all pieces.

        Raises:
            RunHalted: it is to end before its end.
        """
        self._enter(Phase.COPYING)
        runs = self._equipment.runs
        self._plan.crew.work(self._equipment, self._run.id, lambda: self._report(Phase.COPYING))
        pulse = self._patiently(lambda _: runs.pulse(self._run.id))
        run = pulse.run
        if run.state is RunState.ABANDONED:
            raise RunHalted(f"backfill {run.id} of {run.table} was ended: {run.wish_reason or 'cancelled'}")
        if run.wish is Wish.HALT:
            raise RunHalted(f"backfill {run.id} of {run.table} was halted: {run.wish_reason}")
        if run.state is RunState.RUNNING and pulse.unfinished:
            raise Unavailable(
                f"backfill {run.id} of {run.table} was left before its end, with {pulse.unfinished} piece(s) "
                "to be loaded: run it again to go on"
            )

    def close(self, epoch: int | None) -> BackfillResult:
        """Wait until nobody can leave a tombstone beside a row that was loaded, and settle where one is.

        DESIGN, replication protocol, rule 4: only then is a piece done. Whoever comes later finds that it was
        closed, and how.
        """
        runs, run = self._equipment.runs, self._run
        found = self._patiently(lambda _: runs.find(run.id))
        if found is not None and found.state is RunState.RUNNING:
            if not self._equipment.straight:
                self._patiently(lambda _: self._settle_overlaps())
            self._finish(epoch)
            found = self._patiently(lambda _: runs.find(run.id))
        totals = progress_of(self._patiently(lambda _: runs.totals(run.id)))
        failed = tuple(self._patiently(lambda _: runs.failed_pieces(run))) if totals.pieces_failed else ()
        state = RunState.ABANDONED if found is None else found.state
        return BackfillResult(run.id, run.table, state, totals, failed)

    def _finish(self, epoch: int | None) -> None:
        runs, run = self._equipment.runs, self._run
        runs.done(run)
        totals = progress_of(self._patiently(lambda _: runs.totals(run.id)))
        whole = not totals.failed and not totals.pieces_failed
        runs.finish(run, RunState.FINISHED if whole else RunState.FINISHED_WITH_FAILURES, _summary(totals))
        # Keys in quarantine are dirty, and so no read of the mirror misses them; what has no key is missed.
        complete = not totals.pieces_failed and not self._equipment.quarantine.without_key(run.id)
        if complete and not self._equipment.straight:
            self._plan.loaded(epoch)

    def _settle_overlaps(self) -> None:
        plan, equipment = self._plan, self._equipment
        self._enter(Phase.WAITING)
        equipment.load.wait_for_older_writers(*self._waiting())
        self._enter(Phase.CLOSING)
        piece = self._own_piece()
        for keys in equipment.load.tombstoned_keys():
            states = plan.mirror.items_of(equipment.shape.name, keys)
            overlapping = [
                key
                for key in keys
                if (state := states.get(key_bytes(equipment.shape.keys, key))) is not None
                and state.item is not None
                and state.revision.tombstone is not None
            ]
            if overlapping:
                piece = equipment.settled(piece, overlapping, found=len(overlapping))
                self._report(Phase.CLOSING)
        for keys in equipment.load.doubled_keys():
            piece = equipment.settled(piece, keys, found=len(keys))
            self._report(Phase.CLOSING)

    def _look_up(self, piece: Piece) -> Piece:
        """Look up the next page of rows at the source, and leave the keys unsettled that it does not have."""
        equipment = self._equipment
        if piece.unsettled:
            return equipment.settled(piece, piece.unsettled)
        first_revision = self._run.parameters[_FIRST_REVISION]
        page = equipment.load.row_page(revision=first_revision, start=equipment.load.start_of(piece))
        items = read_items(equipment.authority, equipment.shape, page.older)
        there = {key_bytes(equipment.shape.keys, item) for item in items}
        gone = [key for key in page.older if key_bytes(equipment.shape.keys, key) not in there]
        return equipment.load.pass_rows(piece, page, unsettled=gone)

    def _own_piece(self) -> Piece:
        """The piece that is no part of the source, claimed: rows from before, and what closing settles."""
        load, runs = self._equipment.load, self._equipment.runs
        number = self._patiently(lambda _: runs.totals(self._run.id)).pieces
        return self._patiently(lambda _: load.piece(runs.claim(self._run.id, number)))

    def _again(self, piece: Piece, step: Callable[[Piece], Piece]) -> Piece:
        """One step of the own piece; after a failure, from where the ledger says that the piece stands."""
        return self._patiently(lambda attempt: step(piece if attempt == 1 else self._own_piece()))

    def _waiting(self) -> tuple[timedelta, Callable[[int], None]]:
        """How long to wait for others' transactions, and where to report it."""
        return self._plan.closing_patience, lambda count: self._report(Phase.WAITING, waiting_for=count)

    def _enter(self, phase: Phase) -> None:
        self._patiently(lambda _: self._equipment.runs.set_phase(self._run.id, phase))
        self._report(phase)

    def _report(self, phase: Phase, *, waiting_for: int = 0) -> None:
        totals = self._patiently(lambda _: self._equipment.runs.totals(self._run.id))
        self._plan.progress(progress_of(totals, phase=phase, waiting_for=waiting_for))

    def _patiently(self, call: Callable[[int], T]) -> T:
        return patiently(call, self._equipment.patience)


def _summary(totals: BackfillProgress) -> dict[str, Any]:
    return {
        "items": totals.items,
        "inserted": totals.inserted,
        "settled": totals.settled,
        "failed": totals.failed,
        "pieces_failed": totals.pieces_failed,
        "rows_looked_up": totals.rows_looked_up,
        "bytes": totals.bytes,
        "read_units": totals.read_units,
        "seconds": totals.elapsed.total_seconds(),
    }
