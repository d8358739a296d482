"""The copy of everything a table held before it was dual-written: resumable, exactly once, harmless."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from dualstore.backfill.progress import BackfillProgress, Board, Pace, Phase
from dualstore.errors import ConfigurationError, DualStoreError, MirrorFenced, MirrorUnavailable
from dualstore.items import Key, TableShape, key_bytes
from dualstore.stores.base import Mirror, Store
from dualstore.stores.bulk import each_segment, patiently
from dualstore.stores.postgres_load import Piece, PostgresLoad
from dualstore.stores.postgres_runs import PostgresRuns, Run, RunState
from dualstore.stores.scan import read_items, read_page, transient_as_unavailable

KIND = "backfill"
# A second try tells a passing trouble of the mirror from a row that its table refuses.
_SETTLE_TRIES = 2
_FIRST_REVISION = "first_revision"


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """How a backfill ended.

    Attributes:
        run_id: its row in `dualstore.runs`.
        table: the table's physical DynamoDB name.
        state: `FINISHED`, or `FINISHED_WITH_FAILURES` where items could not be loaded.
        totals: what was done, over all attempts of the run.
    """

    run_id: UUID
    table: str
    state: RunState
    totals: BackfillProgress

    @property
    def succeeded(self) -> bool:
        """Whether every key was loaded or settled."""
        return self.state is RunState.FINISHED


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """Copies a DynamoDB table into the SQL table it is mapped to, while both take writes.

    Rows that were there before are looked up at the source first, and settled where their item is gone: it
    was deleted while its key was not mirrored, and no Scan tells of it. Then the table is read by a parallel,
    consistent Scan. Each page is loaded in one transaction with its checkpoint: a row is inserted only where
    there is neither row nor tombstone, keys that differ are settled. A run that was interrupted, however,
    goes on where it stood when it is run again.

    Nobody may read the mirror while a run is unfinished. Rows may still be left over, or out of date; and a
    page that is being loaded does not see a deletion that is acknowledged meanwhile, so that a deleted item
    can be back until the run has settled its key.

    Attributes:
        shape: the table; `shape.name` is its physical DynamoDB name.
        source: DynamoDB, the authority.
        mirror: PostgreSQL, where keys that fail are marked dirty.
        load: loads pages into the SQL table.
        runs: the ledger of runs.
        settle: settles one key.
        confirm_dualwrite: raises unless every live process mirrors every write, with no earlier operation
            in flight, and has stopped reading the mirror; reads stay stopped until a run has come to its
            end. Returns the epoch since which every write has been mirrored without a break, or None where
            epochs are not kept: a run of another epoch is not resumed, since writes passed it by.
        segments: how many segments a new run is scanned in; a resumed one keeps its own.
        workers: how many threads, each with one connection and one page.
        page_items: the most items in a page; None leaves it to DynamoDB, which ends a page at 1 MB.
        items_per_second: the most items to read per second, or None for no limit.
        resume: the run to resume; None resumes the table's unfinished run, if there is one.
        patience: how long to wait for a database that is away, each time.
        closing_patience: how long to wait for transactions older than the copy.
        loaded: called with what `confirm_dualwrite` returned when all is copied, before another backfill of
            the table can begin: the mirror may be read again.
        progress: called after each page, never by two threads at once.
    """

    shape: TableShape
    source: Store
    mirror: Mirror
    load: PostgresLoad
    runs: PostgresRuns
    settle: Callable[[Key], object]
    confirm_dualwrite: Callable[[], int | None]
    segments: int = 8
    workers: int = 2
    page_items: int | None = None
    items_per_second: float | None = None
    resume: UUID | None = None
    patience: timedelta = timedelta(minutes=1)
    closing_patience: timedelta = timedelta(minutes=10)
    loaded: Callable[[int | None], None] = lambda _: None
    progress: Callable[[BackfillProgress], None] = lambda _: None

    def run(self) -> BackfillResult:
        """Copy the table, or go on with a run that was interrupted.

        Raises:
            ConfigurationError: the run to resume cannot be resumed, or dual writes are not confirmed.
            SchemaError: the bookkeeping schema or the SQL table is missing.
            MirrorFenced: PostgreSQL is not the mirror any more: the table is at another stage.
            Unavailable: a database was away for longer than `patience`, another backfill of the table is
                at work, or older transactions have not ended. Run it again to go on.
        """
        self.runs.check()
        self.load.check()
        with self.runs.exclusive(KIND, self.shape.name):
            epoch = self.confirm_dualwrite()
            run = self._run_to_do(epoch)
            *segments, left_overs = [self.load.piece(row) for row in self.runs.pieces(run)]
            board = Board(segments, left_overs, self.progress)
            copy = _Copy(self, run, len(segments), board)
            copy.clear(left_overs)
            each_segment(copy.segment, [piece.row.number for piece in segments], workers=self.workers)
            copy.close()
            totals = board.progress()
            state = RunState.FINISHED_WITH_FAILURES if totals.failed else RunState.FINISHED
            self.runs.finish(run, state, _summary(totals))
            self.loaded(epoch)
        return BackfillResult(run.id, self.shape.name, state, totals)

    def _run_to_do(self, epoch: int | None) -> Run:
        """The run to go on with: the one asked for, the unfinished one, or a new one."""
        table = self.shape.name
        found = (
            self.runs.latest_unfinished(KIND, table) if self.resume is None else self.runs.find(self.resume)
        )
        if found is not None and (found.kind, found.table, found.state) == (KIND, table, RunState.RUNNING):
            if found.parameters.get("epoch") == epoch:
                return found
            self.runs.finish(found, RunState.ABANDONED, {"reason": "dual writes were interrupted"})
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
        parameters = {
            "segments": self.segments,
            "epoch": epoch,
            "started": datetime.now(UTC).isoformat(),
            # Drawn after dual writes were confirmed and a former run was abandoned: whatever was written
            # without either has an earlier one.
            _FIRST_REVISION: self.load.draw_revision(),
        }
        # One piece for each segment, and one for the rows from before the run.
        return self.runs.start(KIND, table, parameters, pieces=self.segments + 1)


class _Copy:
    """One attempt at a run."""

    def __init__(self, plan: Backfill, run: Run, segments: int, board: Board) -> None:
        self._plan = plan
        self._run = run
        self._segments = segments
        self._board = board
        self._pace = Pace(plan.items_per_second)

    def clear(self, left_overs: Piece) -> None:
        """Settle the keys of the rows from before the run whose items are gone, or what is left of them.

        Before anything is loaded: such a row may hold a unique value that another item has by now. Only rows
        with earlier revisions are looked up, once all of these can be seen: a later one was written while
        every deletion was mirrored.
        """
        if not left_overs.read_to_the_end:
            patiently(lambda _: self._plan.load.wait_for_writers(*self._waiting()), self._plan.patience)
        self._work(left_overs.row.number, self._look_up, self._board.left_overs_advanced, threading.Event())

    def segment(self, number: int, stop: threading.Event) -> None:
        """Load what is left of a segment, and settle the keys that differed."""
        self._work(number, self._load, self._board.segment_advanced, stop)

    def _work(
        self,
        number: int,
        read: Callable[[Piece], Piece],
        advanced: Callable[[Piece], None],
        stop: threading.Event,
    ) -> None:
        """Read what is left of a piece, page by page, and settle the keys that each page leaves unsettled."""
        piece = self._claimed(number)
        try:
            while not stop.is_set() and (piece.unsettled or not piece.read_to_the_end):
                before = piece.row.items
                piece = self._step_patiently(piece, read)
                advanced(piece)
                stop.wait(self._pace.delay_after(piece.row.items - before).total_seconds())
        except DualStoreError as error:
            self._plan.runs.note_error(piece.row, str(error))
            raise

    def close(self) -> None:
        """Wait until nobody can leave a tombstone beside a row that was loaded, and settle where one is.

        DESIGN, replication protocol, rule 4: only then is a piece done.
        """
        patiently(lambda _attempt: self._close(), self._plan.patience)

    def _close(self) -> None:
        plan = self._plan
        self._board.phase(Phase.WAITING)
        plan.load.wait_for_older_writers(*self._waiting())
        self._board.phase(Phase.CLOSING)
        for keys in plan.load.tombstoned_keys():
            states = plan.mirror.items_of(plan.shape.name, keys)
            overlapping = [
                key
                for key in keys
                if (state := states.get(key_bytes(plan.shape.keys, key))) is not None
                and state.item is not None
                and state.revision.tombstone is not None
            ]
            if overlapping:
                self._board.overlaps_settled(len(overlapping), failed=self._settle(overlapping))
        plan.runs.done(self._run)

    def _waiting(self) -> tuple[timedelta, Callable[[int], None]]:
        """How long to wait for others' transactions, and where to report it."""
        return self._plan.closing_patience, lambda count: self._board.phase(Phase.WAITING, waiting_for=count)

    def _claimed(self, number: int) -> Piece:
        plan = self._plan
        return patiently(lambda _: plan.load.piece(plan.runs.claim(self._run.id, number)), plan.patience)

    def _step_patiently(self, piece: Piece, read: Callable[[Piece], Piece]) -> Piece:
        """One step of a piece; after a failure, from where the ledger says that the piece stands."""

        def attempt(number: int) -> Piece:
            return self._step(piece if number == 1 else self._claimed(piece.row.number), read)

        return patiently(attempt, self._plan.patience)

    def _step(self, piece: Piece, read: Callable[[Piece], Piece]) -> Piece:
        """Settle the keys that are left from the last page or, if there are none, read the next one."""
        if piece.unsettled:
            failed = self._settle(piece.unsettled)
            return replace(piece, unsettled=(), failed=piece.failed + failed)
        return read(piece)

    def _look_up(self, piece: Piece) -> Piece:
        """Look up the next page of rows at the source, and leave the keys unsettled that it does not have."""
        plan = self._plan
        page = plan.load.row_page(revision=self._run.parameters[_FIRST_REVISION], start=piece.start)
        items = read_items(plan.source, plan.shape, page.older)
        there = {key_bytes(plan.shape.keys, item) for item in items}
        gone = [key for key in page.older if key_bytes(plan.shape.keys, key) not in there]
        return plan.load.pass_rows(piece, page, unsettled=gone)

    def _load(self, piece: Piece) -> Piece:
        """Load the next page of a segment."""
        plan = self._plan
        page = read_page(
            plan.source,
            plan.shape.name,
            segment=piece.row.number,
            segments=self._segments,
            start=piece.start,
            page_items=plan.page_items,
        )
        return plan.load.load(piece, page.items, next_start=page.next_start, on_failure=self._mark_dirty)

    def _settle(self, keys: Sequence[Key]) -> int:
        """Settle keys, and mark those dirty that no SQL row can hold; the number of these."""
        return sum(not self._settled(key) for key in keys)

    def _settled(self, key: Key) -> bool:
        reason = ""
        for _ in range(_SETTLE_TRIES):
            try:
                with transient_as_unavailable(f"Settling a key of table {self._plan.shape.name}"):
                    self._plan.settle(key)
            except MirrorFenced:
                raise
            except MirrorUnavailable as error:
                reason = str(error)
            else:
                return True
        # Where PostgreSQL is away this fails as well, and the whole step is tried again later.
        self._mark_dirty(key, reason)
        return False

    def _mark_dirty(self, key: Key, reason: str) -> None:
        text = f"backfill {self._run.id}: {reason}"
        self._plan.mirror.mark_dirty(self._plan.shape.name, key, nonce=uuid4().hex, reason=text)


def _summary(totals: BackfillProgress) -> dict[str, Any]:
    return {
        "items": totals.items,
        "inserted": totals.inserted,
        "settled": totals.settled,
        "failed": totals.failed,
        "rows_looked_up": totals.rows_looked_up,
        "bytes": totals.bytes,
        "seconds": totals.elapsed.total_seconds(),
    }
