"""A worker of a full comparison: it takes pieces, compares them batch by batch, and judges what differs."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from dualstore.errors import ConfigurationError, DualStoreError, Unavailable
from dualstore.items import Key, key_bytes
from dualstore.mapping.transcoding import Unreadable, read_line
from dualstore.stores.bulk import collector_paused
from dualstore.stores.ledger import PieceRow, PieceState, Run, TakenOver
from dualstore.stores.postgres_comparison import Compared
from dualstore.stores.postgres_findings import Verdict
from dualstore.stores.postgres_fingerprints import ROWS
from dualstore.verify.findings import Finding
from dualstore.verify.judging import Judged
from dualstore.verify.past import PastJudge
from dualstore.verify.recheck import Candidate
from dualstore.verify.working import Pace

if TYPE_CHECKING:
    from dualstore.verify.bulk import BulkVerify

LEASE = timedelta(minutes=10)
"""Of a piece: longer than a batch is waited for."""
CANDIDATES_AT_ONCE = 1000
FINGERPRINT_KEY = "fingerprint_key"
"""The parameter of a run with the key of its fingerprints, in hexadecimal."""
_TRIES = 5
_BACKOFF = timedelta(seconds=1)


class Worker:
    """One worker on the pieces of one run."""

    def __init__(
        self, plan: "BulkVerify", run: Run, stop: threading.Event, advanced: Callable[[], None]
    ) -> None:
        self._plan = plan
        self._run = run
        self._stop = stop
        self._advanced = advanced
        way = run.parameters.get("fingerprints")
        self._fingerprints = plan.taking.in_way(way) if way and plan.taking else None
        if way and self._fingerprints is None:
            raise ConfigurationError(
                "this verification was started with the accelerator, which is not installed here: install it"
            )

    def take(self, piece: PieceRow) -> None:
        """Compare a piece that was claimed, and give its candidates their verdicts."""
        plan = self._plan
        try:
            if ROWS in (piece.description or {}):
                self._take_rows(piece)
            else:
                self._compare(piece)
            plan.give_verdicts(piece.run_id, piece=piece.number)
        except TakenOver:
            return
        except DualStoreError as error:
            attempts, said = _TRIES if isinstance(error, Unavailable) else 1, str(error)
            with suppress(TakenOver):
                plan.judge.patiently(lambda: plan.runs.fail(piece, said, attempts=attempts, backoff=_BACKOFF))

    def _compare(self, piece: PieceRow) -> None:
        plan = self._plan
        description = piece.description or {}
        position = (piece.cursor or {}).get("position")
        # Each item that is compared at once has its row looked up.
        limits = [plan.items_per_second, plan.rows_per_second if plan.at_once else None]
        candidates, pace = 0, Pace(min((each for each in limits if each is not None), default=None))
        for lines in plan.source.read_raw(description, position, plan.limits):
            before = piece.items
            with collector_paused():
                done = self._compare_batch(piece, lines.blocks, lines.position_after)
            piece = done.piece
            candidates += done.candidates
            if candidates >= CANDIDATES_AT_ONCE:
                plan.give_verdicts(piece.run_id, piece=piece.number)
                candidates = 0
            self._advanced()
            pace.keep(piece.items - before, self._stop)
            if self._stop.is_set():
                plan.runs.release(piece)
                return
        if piece.state is not PieceState.COPIED:  # an empty piece has no last batch
            self._compare_batch(piece, (), None)

    def _compare_batch(
        self, piece: PieceRow, blocks: Sequence[bytes], position: Mapping[str, Any] | None
    ) -> Compared:
        """Compare a batch of items, or note what is compared later."""
        plan, rows = self._plan, self._plan.transcoded(blocks)
        if self._fingerprints is not None:
            key = fingerprint_key_of(self._run)
            return self._fingerprints.take_items(
                piece, rows, key=key, position=position, lease=self._plan.lease
            )
        judged = partial(self._judged, blocks) if isinstance(plan.judge, PastJudge) else None
        return plan.comparison.compare(piece, rows, position=position, lease=self._plan.lease, judged=judged)

    def _judged(self, blocks: Sequence[bytes], keys: Sequence[Key]) -> list[Verdict]:
        """Verdicts on keys of a batch, by its items, which nobody can ask for again."""
        judge, shape = self._plan.judge, self._plan.mapping.shape
        assert isinstance(judge, PastJudge)  # noqa: S101 - see its call
        wanted, items = {key_bytes(shape.keys, key) for key in keys}, {}
        for line in b"".join(blocks).splitlines() if wanted else ():
            with suppress(Unreadable):
                item = read_line(shape, line)
                name = key_bytes(shape.keys, shape.keys.key_of(item))
                if name in wanted:
                    items[name] = item
        each_once = list({key_bytes(shape.keys, key): Candidate(key) for key in keys}.values())
        judged = judge.judge(each_once, run_id=self._run.id, items=items)
        return [verdict_of(each) for each in judged]

    def _take_rows(self, piece: PieceRow) -> None:
        assert self._fingerprints is not None  # noqa: S101 - the run has pieces of rows by it alone
        plan, pace = self._plan, Pace(self._plan.rows_per_second)
        while piece.state is not PieceState.COPIED:
            before = (piece.cursor or {}).get(ROWS, 0)
            piece = self._fingerprints.take_rows(
                piece, key=fingerprint_key_of(self._run), lease=self._plan.lease
            ).piece
            self._advanced()
            pace.keep((piece.cursor or {})[ROWS] - before, self._stop)
            if self._stop.is_set():
                plan.runs.release(piece)
                return


def fingerprint_key_of(run: Run) -> bytes:
    """The key of a run's fingerprints."""
    return bytes.fromhex(run.parameters[FINGERPRINT_KEY])


def verdict_of(judged: Judged) -> Verdict:
    """A verdict as it is kept."""
    seen = judged.observation
    if seen is None:
        return Verdict(judged.key, Finding.MOVING)
    return Verdict(judged.key, seen.finding, seen.kind, seen.paths, judged.repaired)
