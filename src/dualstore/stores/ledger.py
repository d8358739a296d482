"""What the ledger of runs says: runs, their pieces, and what is asked of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from dualstore.errors import DualStoreError

WAITING = "waiting: "
"""How the error of a piece begins that is none: its worker waits for PostgreSQL to have less to bear."""


class RunState(StrEnum):
    """Where a run stands. A run that was interrupted stays `running` until it is resumed."""

    RUNNING = "running"
    FINISHED = "finished"
    FINISHED_WITH_FAILURES = "finished with failures"
    ABANDONED = "abandoned"


class PieceState(StrEnum):
    """Where a piece of a run stands: all of it is read when it is `copied`, and proven when `done`.

    `failed` is for good: a piece that may be tried again is `pending` or `copying`.
    """

    PENDING = "pending"
    COPYING = "copying"
    COPIED = "copied"
    DONE = "done"
    FAILED = "failed"


class Wish(StrEnum):
    """What is asked of a run that is under way."""

    GO = "go"
    PAUSE = "pause"
    """Workers give their pieces back and wait."""
    HALT = "halt"
    """Workers end, and so do those who started them; the run can be gone on with."""


class TakenOver(DualStoreError):  # noqa: N818 - named for what happened
    """Another worker has claimed the piece since; this one has to stop."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        parameters: as it was started, but for what `PostgresRuns.set_parameters` has changed.
        phase: what it is doing, in the words of its kind.
        wish: what is asked of it.
        wish_by: who asked.
        wish_reason: why; no item's value.
        started_at: by PostgreSQL's clock.
    """

    id: UUID
    kind: str
    table: str
    state: RunState
    parameters: Mapping[str, Any]
    phase: str | None = None
    wish: Wish = Wish.GO
    wish_by: str | None = None
    wish_reason: str | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PieceRow:
    """One piece of a run, as its row tells.

    Attributes:
        attempt: which claim of the piece this is; every write of the piece checks it.
        cursor: what the run's kind needs in order to go on; None before the first checkpoint.
        items: read so far.
        inserted: rows inserted.
        settled: keys handed to settle.
        size_bytes: the size of what was read.
        rejected: items that could be neither loaded nor settled.
        read_units: consumed at DynamoDB.
        failures: how often work on it ended in an error since it last got on.
        description: which part of the source it is; None where it is none.
        seconds: how long workers have worked on it.
        rate: items a second, lately.
        worker: who holds it, as long as its lease lasts.
        error: why a worker last left it unfinished.
    """

    run_id: UUID
    number: int
    attempt: int
    state: PieceState
    cursor: Mapping[str, Any] | None
    items: int
    inserted: int
    settled: int
    size_bytes: int
    rejected: int = 0
    read_units: float = 0.0
    failures: int = 0
    description: Mapping[str, Any] | None = None
    seconds: float = 0.0
    rate: float = 0.0
    worker: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a worker looks at between two batches.

    Attributes:
        run: the run, now.
        workers: how many workers hold a piece under a lease.
        items: read by all.
        rejected: items that could be neither loaded nor settled, of all pieces.
        unfinished: shared pieces that are neither copied nor failed.
    """

    run: Run
    workers: int
    items: int
    rejected: int
    unfinished: int


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker that holds a piece.

    Attributes:
        name: the worker.
        piece: the piece's number.
        items: read of the piece so far, by whoever held it.
        rate: items a second, lately.
        error: why the piece was last left alone, or what it waits for; None since it last got on.
    """

    name: str
    piece: int
    items: int
    rate: float
    error: str | None = None

    @property
    def waits_for(self) -> str | None:
        """Why it holds its piece without going on; None where it goes on."""
        if self.error is None or not self.error.startswith(WAITING):
            return None
        return self.error.removeprefix(WAITING)


@dataclass(frozen=True, slots=True)
class Totals:
    """The sum of a run's pieces.

    Attributes:
        run: the run, now.
        pieces: how many there are of those that anybody may claim.
        pieces_done: those of them that have been copied.
        pieces_failed: those of them that are given up.
        items: as all counts below, of the shared pieces.
        own: the items of the other pieces.
        settled: of all pieces.
        rejected: of all pieces.
        workers: who is at work.
        seconds: since the run was started, by PostgreSQL's clock.
    """

    run: Run
    pieces: int
    pieces_done: int
    pieces_failed: int
    items: int
    inserted: int
    size_bytes: int
    read_units: float
    own: int
    settled: int
    rejected: int
    workers: tuple[WorkerSeen, ...]
    seconds: float
