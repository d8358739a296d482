"""What backfill, verification and sweeper use of PostgreSQL besides the stores, in memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID, uuid4

from dualstore.control import PostgresRole
from dualstore.errors import AuthorityMoved, MirrorFenced, Unavailable
from dualstore.items import Item, Key, items_equal, key_bytes, normalized_item
from dualstore.mapping.expiry import has_expired
from dualstore.mapping.transcoding import Rejected, Transcoded, TranscodedPage, read_line
from dualstore.mapping.transcoding.rows import lines_of
from dualstore.operations import DeleteItem
from dualstore.store.proving import ProofOrder
from dualstore.stores.base import Mirror
from dualstore.stores.ledger import PieceRow, PieceState, Pulse, Run, RunState, TakenOver, Totals
from dualstore.stores.memory.authority import MemoryAuthority
from dualstore.stores.memory.tables import Table
from dualstore.stores.postgres_expiry import Deleted, ExpiredPage, ExpiredRow
from dualstore.stores.postgres_load import Piece, RowPage
from dualstore.verify import Judge, Verification, Verify
from replication.histories import KEYS, SHAPE

_KEYS = SHAPE.keys


@dataclass
class MemoryRuns:
    """The ledger of runs (`PostgresRuns`)."""

    now: Callable[[], float]
    _runs: dict[UUID, Run] = field(default_factory=dict)
    _pieces: dict[tuple[UUID, int], PieceRow] = field(default_factory=dict)
    _until: dict[tuple[UUID, int], float] = field(default_factory=dict)
    _taken: set[tuple[str, str]] = field(default_factory=set)

    def check(self) -> None: ...

    @contextmanager
    def exclusive(self, kind: str, table: str) -> Iterator[None]:
        if (kind, table) in self._taken:
            raise Unavailable(f"another {kind} of {table} is at work")
        self._taken.add((kind, table))
        try:
            yield
        finally:  # also where its process crashes: the session ends
            self._taken.discard((kind, table))

    def start(
        self,
        kind: str,
        table: str,
        parameters: Mapping[str, Any],
        *,
        planned: Sequence[Mapping[str, Any]] = (),
        pieces: int = 0,
    ) -> Run:
        began = datetime.fromtimestamp(len(self._runs), UTC)  # in their order, as PostgreSQL's one clock says
        run = Run(uuid4(), kind, table, RunState.RUNNING, dict(parameters), started_at=began)
        self._runs[run.id] = run
        for number, description in enumerate((*planned, *(None,) * pieces)):
            row = PieceRow(run.id, number, 0, PieceState.PENDING, None, 0, 0, 0, 0, description=description)
            self._pieces[run.id, number] = row
        return run

    def find(self, run_id: UUID) -> Run | None:
        return self._runs.get(run_id)

    def latest(self, kind: str, table: str) -> Run | None:
        runs = (run for run in self._runs.values() if (run.kind, run.table) == (kind, table))
        return next(iter(reversed(list(runs))), None)

    def latest_unfinished(self, kind: str, table: str) -> Run | None:
        unfinished = (
            run
            for run in self._runs.values()
            if (run.kind, run.table, run.state) == (kind, table, RunState.RUNNING)
        )
        return next(iter(reversed(list(unfinished))), None)

    def first_start(self, _kind: str, _table: str, *, epoch: int | None) -> None:
        return None

    def set_phase(self, run_id: UUID, phase: str) -> None:
        self._runs[run_id] = replace(self._runs[run_id], phase=phase)

    def finish(self, run: Run, state: RunState, _result: Mapping[str, Any]) -> bool:
        if self._runs[run.id].state is not RunState.RUNNING:
            return False
        self._runs[run.id] = replace(run, state=state)
        return True

    def failed_pieces(self, run: Run) -> Sequence[PieceRow]:
        return [row for row in self._of(run.id) if row.state is PieceState.FAILED]

    def pulse(self, run_id: UUID) -> Pulse:
        unfinished = sum(row.description is not None and row.state in _UNFINISHED for row in self._of(run_id))
        return Pulse(self._runs[run_id], 1, 0, sum(row.rejected for row in self._of(run_id)), unfinished)

    def totals(self, run_id: UUID) -> Totals:
        rows = self._of(run_id)
        shared = [row for row in rows if row.description is not None]
        return Totals(
            run=self._runs[run_id],
            pieces=len(shared),
            pieces_done=sum(row.state in {PieceState.COPIED, PieceState.DONE} for row in shared),
            pieces_failed=sum(row.state is PieceState.FAILED for row in shared),
            items=0,
            inserted=0,
            size_bytes=0,
            read_units=0.0,
            own=0,
            settled=0,
            rejected=sum(row.rejected for row in rows),
            workers=(),
            seconds=0.0,
        )

    def claim(
        self, run_id: UUID, number: int, *, worker: str | None = None, lease: timedelta = timedelta(0)
    ) -> PieceRow:
        row = self._pieces[run_id, number]
        state = PieceState.COPYING if row.state is PieceState.PENDING else row.state
        row = replace(row, attempt=row.attempt + 1, state=state, worker=worker)
        self._until[run_id, number] = self.now() + lease.total_seconds()
        self._pieces[run_id, number] = row
        return row

    def reclaim(self, row: PieceRow, *, lease: timedelta) -> PieceRow:
        self._look_at_fence(row)
        return self.claim(row.run_id, row.number, worker=row.worker, lease=lease)

    def claim_next(
        self, run_id: UUID, *, worker: str, lease: timedelta, only: int | None = None
    ) -> PieceRow | None:
        if self._runs[run_id].state is not RunState.RUNNING:
            return None
        rows = [row for row in self._of(run_id) if only in {None, row.number}]
        for row in rows:
            free = self._until.get((run_id, row.number), 0.0) <= self.now() or row.worker == worker
            if row.description is not None and row.state in _UNFINISHED and free:
                return self.claim(run_id, row.number, worker=worker, lease=lease)
        return None

    def renew(self, row: PieceRow, *, lease: timedelta) -> None:
        self._look_at_fence(row)
        self._until[row.run_id, row.number] = self.now() + lease.total_seconds()

    def release(self, row: PieceRow) -> None:
        self.renew(row, lease=timedelta(0))

    def fail(self, row: PieceRow, _error: str, *, attempts: int, backoff: timedelta) -> PieceState:
        self.renew(row, lease=backoff)
        failures = self._pieces[row.run_id, row.number].failures + 1
        state = PieceState.FAILED if failures >= attempts else row.state
        self._pieces[row.run_id, row.number] = replace(
            self._pieces[row.run_id, row.number], failures=failures, state=state
        )
        return state

    def advance(self, row: PieceRow, lease: timedelta) -> None:
        """Move a piece's checkpoint, unless somebody else has claimed the piece."""
        self.renew(row, lease=lease)
        self._pieces[row.run_id, row.number] = row

    def note_error(self, _piece: PieceRow, _error: str) -> None: ...

    def done(self, run: Run) -> None:
        for place, row in self._pieces.items():
            if row.run_id == run.id and row.state is PieceState.COPIED:
                self._pieces[place] = replace(row, state=PieceState.DONE)

    def _of(self, run_id: UUID) -> list[PieceRow]:
        return [row for (of_run, _), row in sorted(self._pieces.items()) if of_run == run_id]

    def _look_at_fence(self, row: PieceRow) -> None:
        if self._pieces[row.run_id, row.number].attempt != row.attempt:
            raise TakenOver(f"piece {row.number} was taken over")
        if self._runs[row.run_id].state is not RunState.RUNNING:
            raise TakenOver(f"the run of piece {row.number} has ended")


_UNFINISHED = frozenset({PieceState.PENDING, PieceState.COPYING})
LEASE = timedelta(seconds=5)


@dataclass
class MemoryQuarantine:
    """Items that could not be loaded (`PostgresQuarantine`): here each one is marked dirty."""

    store: MemoryAuthority

    def put(
        self, _cursor: None, rejected: Sequence[Rejected], *, piece: PieceRow, mark: bool = True, **_: object
    ) -> None:
        assert mark
        for each in rejected:
            assert each.key is not None
            self.store.mark_dirty(SHAPE.name, each.key, nonce=uuid4().hex, reason=f"backfill {piece.run_id}")

    def without_key(self, _run_id: UUID) -> int:
        return 0


class ExactLines:
    """A transcoder that leaves every item to the exact path."""

    def block(self, block: bytes) -> Transcoded:
        lines = lines_of(block)
        return Transcoded(b"", 0, range(len(lines)), len(block), lambda: lines)

    def page(self, body: bytes) -> TranscodedPage:
        raise NotImplementedError


@dataclass
class MemoryLoad:
    """Loads batches (`PostgresLoad`): a transaction whose statements others may come between.

    Attributes:
        store: the mirror.
        runs: the ledger.
        epoch: of the control record in force when dual writes were confirmed.
        overtaken: lets others go on.
    """

    store: MemoryAuthority
    runs: MemoryRuns
    epoch: int
    overtaken: Callable[[], None]
    transcoder = ExactLines()

    def check(self) -> None: ...

    def piece(self, row: PieceRow) -> Piece:
        cursor: Mapping[str, Any] = row.cursor or {}
        return Piece(
            row,
            position=cursor.get("position"),
            at_end=cursor.get("at_end", False),
            unsettled=tuple(cursor.get("unsettled", ())),
            since=0.0,
        )

    def load_blocks(
        self,
        piece: Piece,
        blocks: Iterable[Transcoded],
        *,
        position: Mapping[str, Any] | None,
        reject: object,
        **_: object,
    ) -> Piece:
        items = [read_line(SHAPE, line) for block in blocks for line in block.lines()]
        absent = [item for item in items if not self._is_buried(item)]
        self.overtaken()
        unsettled = tuple(_KEYS.key_of(item) for item in items if self._differs(item))
        self.overtaken()
        loaded = self._advanced(piece, position, position is None, unsettled)
        for item in absent:
            self._insert(item)
        return loaded

    def draw_revision(self) -> int:
        return next(self.store._revisions)

    def row_page(self, *, revision: int, start: Key | None) -> RowPage:
        assert start is None, "all rows are in one page"
        rows = self._table._rows.values()
        return RowPage([_KEYS.key_of(row.item) for row in rows if row.revision < revision], None)

    def start_of(self, _piece: Piece) -> Key | None:
        return None

    def pass_rows(self, piece: Piece, page: RowPage, *, unsettled: Sequence[Key]) -> Piece:
        assert page.next_start is None
        return self._advanced(piece, None, True, tuple(unsettled))

    def pass_settled(
        self,
        piece: Piece,
        rejected: Sequence[Rejected],
        *,
        reject: Callable[[None, Sequence[Rejected]], None],
        found: int = 0,
    ) -> Piece:
        passed = self._advanced(piece, piece.position, piece.at_end, (), rejected=len(rejected))
        if rejected:
            reject(None, rejected)
        return passed

    def wait_for_writers(self, _patience: timedelta, _waiting: Callable[[int], None]) -> None: ...

    wait_for_older_writers = wait_for_writers  # a write in memory is seen at once

    def doubled_keys(self) -> Iterator[Sequence[Key]]:
        return iter(())

    def tombstoned_keys(self) -> Iterator[Sequence[Key]]:
        yield [key for key in KEYS if self._is_buried(key)]

    @property
    def _table(self) -> Table:
        return self.store._table(SHAPE.name)

    def _is_buried(self, item: Item) -> bool:
        return self._table.state(_raw(item)).revision.tombstone is not None

    def _differs(self, item: Item) -> bool:
        """Whether a row has to be settled; one that is missing is about to be inserted."""
        held = self._table.item(_raw(item))
        return self._is_buried(item) or (held is not None and not items_equal(held, normalized_item(item)))

    def _insert(self, item: Item) -> None:
        """Insert a row where there is none, and leave a tombstone where it is."""
        raw, table = _raw(item), self._table
        buried = table._tombstones.get(raw)
        if table.item(raw) is None:
            table.put(raw, dict(normalized_item(item)))
            if buried is not None:
                table._tombstones[raw] = buried

    def _advanced(
        self,
        piece: Piece,
        position: Mapping[str, Any] | None,
        at_end: bool,  # noqa: FBT001 - as the checkpoint has it
        unsettled: tuple[Key, ...],
        *,
        rejected: int = 0,
    ) -> Piece:
        """The last statement before the COMMIT: nothing passes a fence, or without the claim."""
        if self.store.fence_of(SHAPE.name) != (self.epoch, PostgresRole.MIRROR):
            raise MirrorFenced("PostgreSQL is not the mirror at this epoch any more")
        state = PieceState.COPIED if at_end and not unsettled else PieceState.COPYING
        cursor = {"position": position, "at_end": at_end, "unsettled": unsettled}
        row = replace(piece.row, state=state, cursor=cursor, rejected=piece.row.rejected + rejected)
        self.runs.advance(row, LEASE)
        return Piece(row, position=position, at_end=at_end, unsettled=unsettled, since=0.0)


class NoDiscrepancies:
    """Findings of shadow reads (`PostgresDiscrepancies`): nobody compares here."""

    def mark_repaired(self, *_: object, **__: object) -> None: ...

    mark_all_repaired = __call__ = mark_repaired


class MemorySeenKeys:
    """The keys that a verification has seen (`PostgresSeenKeys`)."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._seen: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def add(self, keys: Sequence[Key]) -> None:
        self._seen.update(map(_raw, keys))

    def row_count(self) -> int:
        return sum(map(len, self._mirror.all_items(SHAPE.name)))

    def unseen(self) -> Iterator[Sequence[Key]]:
        for items in self._mirror.all_items(SHAPE.name):
            yield [key for key in map(_KEYS.key_of, items) if _raw(key) not in self._seen]


@dataclass(frozen=True, kw_only=True)
class StreamedProving:
    """What compares both sides through their stores, where PostgreSQL is not there to do it (`Proving`).

    No comparison is interrupted here, so `goes_on` is asked of none.
    """

    logical: str
    mapping: Any
    engine: Any
    judge: Judge
    past: Any
    context: Mapping[str, Any]
    goes_on: Callable[[Mapping[str, Any]], bool]

    def run(self, order: ProofOrder) -> Verification:
        judge = self.judge
        found = Verify(
            shape=judge.shape,
            dynamodb=judge.dynamodb,
            postgres=judge.postgres,
            seen=self.engine.seen_keys,
            runs=self.engine.runs,
            settle=judge.settle,
            repair=judge.repair,
            record=judge.record,
            ttl_attribute=judge.ttl_attribute,
            segments=1,
            workers=order.workers,
        ).run()
        return replace(found, context=self.context)


@dataclass
class MemoryExpiringRows:
    """Expired rows (`PostgresExpiry`).

    Attributes:
        store: PostgreSQL.
        now: the time, in seconds.
        expired: told of a key, and given what deletes its row.
    """

    store: MemoryAuthority
    now: Callable[[], float]
    expired: Callable[[Key, Callable[[], object]], None]

    def by_column(self, table: str, attribute: str, *, after: object, rows: int) -> ExpiredPage:
        now = self.now()
        found = self.store._table(table)._rows.values()
        expired = (row for row in found if has_expired(row.item, attribute, now=now))
        return ExpiredPage(tuple(ExpiredRow(_KEYS.key_of(row.item), row.revision) for row in expired), None)

    def in_overflow(self, _table: str, _attribute: str, *, after: object, rows: int) -> ExpiredPage:
        return ExpiredPage((), None)

    def anywhere(self, _table: str, _attribute: str) -> None:
        return None

    def delete(self, table: str, rows: Sequence[ExpiredRow], *, epoch: int) -> Deleted:
        return Deleted(sum(self._deleted(table, row, epoch) for row in rows))

    def _deleted(self, table: str, row: ExpiredRow, epoch: int) -> bool:
        if self.store.fence_of(table) != (epoch, PostgresRole.AUTHORITY):
            raise AuthorityMoved("PostgreSQL is not the authority at this epoch")
        if not self._is_as_seen(table, row):
            return False
        delete = DeleteItem({"TableName": table, "Key": row.key})
        self.expired(row.key, lambda: self.store.execute_as_authority(delete, epochs={table: epoch}))
        return True

    def _is_as_seen(self, table: str, row: ExpiredRow) -> bool:
        return self.store.state(table, row.key).revision.row == row.revision


def _raw(key: Mapping[str, Any]) -> bytes:
    return key_bytes(_KEYS, dict(key))
