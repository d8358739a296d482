"""A full comparison at the speed of COPY: in pieces that several processes share, gone on with after any end.

What `Verify` does through the stores' own reads, this does with blocks of DynamoDB-JSON, which PostgreSQL
compares with its rows itself. The verdicts are given the same way: only what stays different is called so.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from dualstore.errors import ConfigurationError, DualStoreError, Unavailable
from dualstore.mapping import Mapped
from dualstore.mapping.transcoding import Transcoded, Transcoder
from dualstore.mapping.transcoding.fingerprints import KEY_BYTES
from dualstore.stores.bulk import collector_paused, each_segment
from dualstore.stores.ledger import PieceRow, PieceState, Run, RunState, TakenOver
from dualstore.stores.postgres_comparison import Compared, Marked, PostgresComparison
from dualstore.stores.postgres_findings import PostgresFindings, Verdict
from dualstore.stores.postgres_fingerprints import ROWS, PostgresFingerprints
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.verify.findings import Difference, Finding, Verification
from dualstore.verify.judging import Judge, Judged
from dualstore.verify.recheck import Candidate
from dualstore.verify.tally import VerifyProgress

KIND = "verify"
_LEASE = timedelta(minutes=10)  # longer than a batch is waited for
_CANDIDATES_AT_ONCE = 1000
_TRIES = 5
_BACKOFF = timedelta(seconds=1)
_LOOK_AGAIN_SECONDS = 0.2
_JOINED = "joined"
_FIRST_REVISION = "first_revision"
_FINGERPRINT_KEY = "fingerprint_key"
_DIFFERENCES = [finding for finding in Finding if finding.is_difference]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a batch may be.

    Attributes:
        batch_bytes: the size from which on a batch ends: what one transaction compares.
        page_items: the most items of a page of a Scan; None leaves it to DynamoDB.
        batch_keys: of sources that have keys, not items; there are none here.
        block_bytes: what is parsed at a time stays in the cache.
    """

    batch_bytes: int = 8 * 1024 * 1024
    page_items: int | None = None
    batch_keys: int = 1000
    block_bytes: int = 256 * 1024

    @property
    def bytes_at_a_time(self) -> int:
        """The size of a block that fits into the batch."""
        return min(self.block_bytes, self.batch_bytes)


class Lines(Protocol):
    """Some of a piece, as it came.

    Attributes:
        blocks: whole lines, each `{"Item":{…}}`.
        position_after: where the next begin; None where the piece ends.
    """

    @property
    def blocks(self) -> Sequence[bytes]: ...  # noqa: D102 - see above
    @property
    def position_after(self) -> Mapping[str, Any] | None: ...  # noqa: D102


class Source(Protocol):
    """Where items are read from, in pieces: a Scan, an export, files. See `backfill.sources`."""

    def pieces(self) -> Sequence[Mapping[str, Any]]:
        """Plan the pieces, once for a run."""
        ...

    def parameters(self) -> Mapping[str, Any]:
        """What makes this source this one, as JSON; how it is read, but not what, is in `tuning`."""
        ...

    def read_raw(
        self, description: Mapping[str, Any], position: Mapping[str, Any] | None, limits: Any
    ) -> Iterator[Lines]:
        """Read a piece on from a position."""
        ...


@dataclass(frozen=True, kw_only=True)
class BulkVerify:
    """Compares all items of a table with their rows, in both directions, while both take writes.

    Memory: each worker holds one batch (`Limits.batch_bytes`) as lines and as rows, and a thousand
    candidates; PostgreSQL sorts within 64 MB a session, and else on its disk.

    Attributes:
        mapping: the table.
        source: where its items are read from.
        transcoder: of the table.
        comparison: what compares them.
        findings: what is kept of what was found.
        runs: the ledger.
        judge: what gives candidates their verdicts.
        context: JSON, kept with the run from its start and handed back with its result.
        at_once: whether each batch is joined with its rows at once, by the keys' index: right for a source
            that changes while it is read, such as a Scan. Otherwise hashes of all rows are joined at the
            end, in one pass over the table, which takes 16 bytes an item on PostgreSQL's disk meanwhile.
            Batches that differ are then read a second time, so the source has to stay as it is.
        fingerprints: with the accelerator, and where `at_once` is false: what takes the fingerprints of both
            sides, instead of hashes that PostgreSQL works out of staged rows. Takes 32 bytes an item on
            PostgreSQL's disk meanwhile. Whoever works on the run needs the accelerator then.
        workers: how many threads.
        limits: of a batch.
        items_per_second: the most items to read per second and worker, or None for no limit.
        rows_per_second: the most rows to read per second and worker for their fingerprints, or None.
        differences_kept: how many differences the result holds; all are counted.
        progress: called after each batch, never by two threads at once.
    """

    mapping: Mapped
    source: Source
    transcoder: Transcoder
    comparison: PostgresComparison
    findings: PostgresFindings
    runs: PostgresRuns
    judge: Judge
    context: Mapping[str, Any] = field(default_factory=dict)
    at_once: bool = True
    fingerprints: PostgresFingerprints | None = None
    workers: int = 2
    limits: Limits = Limits()
    items_per_second: float | None = None
    rows_per_second: float | None = None
    differences_kept: int = 1000
    progress: Callable[[VerifyProgress], None] = lambda _: None

    def run(self) -> Verification:
        """Verify the table, or go on with a verification of the same source that was interrupted.

        Raises:
            ConfigurationError: the source cannot be read as a whole.
            SchemaError: the bookkeeping schema or the SQL table is missing, or of another version.
            Unavailable: a database was away for too long, or a piece was given up: run it again to go on.
        """
        self.judge.check()
        self.runs.check()
        with self.runs.exclusive(KIND, self.mapping.shape.name):
            run = self._run_to_do()
            each_segment(lambda _, stop: self.work(run, stop), range(self.workers), workers=self.workers)
            self._check_pieces(run)
            self._compare_rows(run)
            verification = self._result(run)
            state = RunState.FINISHED if verification.proven else RunState.FINISHED_WITH_FAILURES
            self.runs.finish(run, state, summary(verification))
            self.comparison.tidy()
        return verification

    def work(self, run: Run, stop: threading.Event) -> None:
        """Compare pieces of a run until none is left; any number of processes may do so at once."""
        worker = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"
        while not stop.is_set():
            piece = self.judge.patiently(lambda: self.runs.claim_next(run.id, worker=worker, lease=_LEASE))
            if piece is not None:
                self._work_on(run, piece, stop)
            elif self.runs.pulse(run.id).unfinished:
                stop.wait(_LOOK_AGAIN_SECONDS)  # held by somebody else, who may die
            else:
                return

    def _run_to_do(self) -> Run:
        table, parameters = self.mapping.shape.name, self._parameters()
        found = self.runs.latest_unfinished(KIND, table)
        if found is not None:
            if {name: found.parameters.get(name) for name in parameters} == parameters:
                self._take_back(found)
                return found
            self.runs.finish(found, RunState.ABANDONED, {"reason": "another verification was started"})
        self.comparison.tidy()
        planned: Sequence[Mapping[str, Any]] = self.source.pieces()
        beside: dict[str, Any] = {"context": dict(self.context)}
        if self._takes_fingerprints is not None:
            planned = _interleaved(planned, self._takes_fingerprints.pieces())
            beside[_FINGERPRINT_KEY] = secrets.token_hex(KEY_BYTES)
            beside[_FIRST_REVISION] = self._takes_fingerprints.draw_revision()
        return self.runs.start(KIND, table, parameters | beside, planned=planned)

    @property
    def _takes_fingerprints(self) -> PostgresFingerprints | None:
        return None if self.at_once else self.fingerprints

    def _take_back(self, run: Run) -> None:
        """Have nobody wait for the lease of a process that has died; who lives claims another piece."""
        for piece in self.runs.pieces(run):
            if piece.state is PieceState.COPYING:
                with suppress(TakenOver):
                    self.runs.release(piece)

    def _parameters(self) -> dict[str, Any]:
        source = {name: value for name, value in self.source.parameters().items() if name != "tuning"}
        return {
            "engine": "bulk",
            "source": source,
            "repair": self.judge.repair,
            "at_once": self.at_once,
            "fingerprints": self._takes_fingerprints is not None,
        }

    def _work_on(self, run: Run, piece: PieceRow, stop: threading.Event) -> None:
        try:
            if ROWS in (piece.description or {}):
                self._take_rows(run, piece, stop)
            else:
                self._compare(run, piece, stop)
            self._judge(piece.run_id, piece=piece.number)
        except TakenOver:
            return
        except DualStoreError as error:
            attempts, said = _TRIES if isinstance(error, Unavailable) else 1, str(error)
            self.judge.patiently(lambda: self.runs.fail(piece, said, attempts=attempts, backoff=_BACKOFF))

    def _compare(self, run: Run, piece: PieceRow, stop: threading.Event) -> None:
        description = piece.description or {}
        position = (piece.cursor or {}).get("position")
        compare = self._comparing(run)
        candidates, pace = 0, _Pace(self.items_per_second)
        for lines in self.source.read_raw(description, position, self.limits):
            before = piece.items
            with collector_paused():
                done = compare(piece, self._transcoded(lines.blocks), position=lines.position_after)
            piece = done.piece
            candidates += done.candidates
            if candidates >= _CANDIDATES_AT_ONCE:
                self._judge(piece.run_id, piece=piece.number)
                candidates = 0
            self._report(piece.run_id)
            pace.keep(piece.items - before, stop)
            if stop.is_set():
                self.runs.release(piece)
                return
        if piece.state is not PieceState.COPIED:  # an empty piece has no last batch
            compare(piece, (), position=None)

    def _comparing(self, run: Run) -> Callable[..., Compared]:
        """What compares a batch of items, or notes what is compared later."""
        if self._takes_fingerprints is None:
            return partial(self.comparison.compare, lease=_LEASE, at_once=self.at_once)
        return partial(self._takes_fingerprints.take_items, lease=_LEASE, key=_key_of(run))

    def _take_rows(self, run: Run, piece: PieceRow, stop: threading.Event) -> None:
        fingerprints, pace = self._needed_fingerprints(), _Pace(self.rows_per_second)
        while piece.state is not PieceState.COPIED:
            before = (piece.cursor or {}).get(ROWS, 0)
            piece = fingerprints.take_rows(piece, key=_key_of(run), lease=_LEASE).piece
            self._report(piece.run_id)
            pace.keep((piece.cursor or {})[ROWS] - before, stop)
            if stop.is_set():
                self.runs.release(piece)
                return

    def _needed_fingerprints(self) -> PostgresFingerprints:
        if self._takes_fingerprints is None:
            raise ConfigurationError(
                "this verification was started with the accelerator, which is not installed here: install it"
            )
        return self._takes_fingerprints

    def _transcoded(self, blocks: Sequence[bytes]) -> Iterator[tuple[int, Transcoded]]:
        for block in blocks:
            yield from self.transcoder.block(block).by_part()

    def _check_pieces(self, run: Run) -> None:
        failed = self.runs.failed_pieces(run)
        if failed:
            raise Unavailable(
                f"{len(failed)} piece(s) of verification {run.id} could not be compared, the first because: "
                f"{failed[0].error}; mend that, and start a new one"
            )

    def _compare_rows(self, run: Run) -> None:
        """Find what the pieces alone do not show: rows without an item, rows that break a rule."""
        if self.at_once:
            self.judge.patiently(lambda: self.comparison.note_unseen(run.id))
        else:
            self._join(run)
        self._judge(run.id)
        self.judge.patiently(lambda: self.comparison.note_broken_rules(run.id))

    def _join(self, run: Run) -> None:
        """Join what was noted of both sides, and look again at the batches where some found no equal."""
        if self._takes_fingerprints is not None:
            self._join_fingerprints(run, self._takes_fingerprints)
            return
        if _JOINED not in run.parameters:
            self.judge.patiently(lambda: self.comparison.note_unmatched(run.id))
            self.runs.set_parameters(run.id, {_JOINED: True})
        described = {piece.number: piece.description or {} for piece in self.runs.pieces(run)}
        for marked in self.comparison.marked(run.id):
            blocks = self._read_again(described[marked.piece], marked)
            with collector_paused():
                self.comparison.look_again(run.id, marked, blocks)

    def _join_fingerprints(self, run: Run, fingerprints: PostgresFingerprints) -> None:
        if self.judge.patiently(lambda: fingerprints.agree(run.id)):
            return
        if _JOINED not in run.parameters:
            self.judge.patiently(lambda: fingerprints.mark(run.id))
            self.runs.set_parameters(run.id, {_JOINED: True})
        key = _key_of(run)
        described = {piece.number: piece.description or {} for piece in self.runs.pieces(run)}
        for marked in fingerprints.marked(run.id):
            if marked.of_rows:
                rows = described[marked.piece][ROWS]
                self.judge.patiently(partial(fingerprints.look_again_at_rows, run.id, marked, rows, key=key))
            else:
                blocks = self._read_again(described[marked.piece], marked)
                with collector_paused():
                    fingerprints.look_again_at_items(run.id, marked, blocks, key=key)
        # A row that stands alone, and was written between the two looks, is not found by its fingerprint.
        since = run.parameters[_FIRST_REVISION]
        self.judge.patiently(lambda: fingerprints.note_changed_since(run.id, since))

    def _read_again(self, described: Mapping[str, Any], marked: Marked) -> Iterator[tuple[int, Transcoded]]:
        lines = next(iter(self.source.read_raw(described, marked.position, self.limits)))
        return self._transcoded(lines.blocks)

    def _judge(self, run_id: UUID, *, piece: int | None = None) -> None:
        """Give every key that waits for one its verdict."""
        while True:
            keys = self.judge.patiently(
                lambda: self.findings.waiting(run_id, piece=piece, limit=_CANDIDATES_AT_ONCE)
            )
            if not keys:
                return
            judged = self.judge.judge([Candidate(key) for key in keys], run_id=run_id)
            verdicts = [_verdict(each) for each in judged]
            self.judge.patiently(lambda verdicts=verdicts: self.findings.judge(run_id, verdicts))  # type: ignore[misc]

    def _report(self, run_id: UUID) -> None:
        totals = self.runs.totals(run_id)
        self.progress(
            VerifyProgress(
                totals.items,
                totals.items - totals.settled - totals.rejected,
                totals.rejected,
                totals.settled,
                totals.pieces_done,
                totals.pieces,
                timedelta(seconds=totals.seconds),
            )
        )

    def _result(self, run: Run) -> Verification:
        run = self.runs.find(run.id) or run
        pieces = self.runs.pieces(run)
        items, rejected = (
            sum(values) for values in zip(*((p.items, p.rejected) for p in pieces), strict=True)
        )
        sums = self.findings.sums(run.id)
        count = {finding: sum(each.count for each in sums if each.finding == finding) for finding in Finding}
        of_items = sum(each.count for each in sums if each.of_items)
        settled_equal = count[Finding.EQUAL] + count[Finding.STAMP]
        rows = self.comparison.row_counts()
        return Verification(
            run_id=run.id,
            table=self.mapping.shape.name,
            items_dynamodb=items,
            rows_postgres=sum(rows),
            equal=items - rejected - of_items + settled_equal,
            stamps_only=count[Finding.STAMP]
            + sum((piece.cursor or {}).get("stamps_only", 0) for piece in pieces),
            differences=tuple(
                Difference(each.key_hash, Finding(each.finding), each.paths, each.repaired)
                for each in self.findings.first(run.id, _DIFFERENCES, limit=self.differences_kept)
            ),
            difference_count=sum(count[finding] for finding in _DIFFERENCES) + rejected,
            repaired=sum(each.repaired for each in sums),
            moving=count[Finding.MOVING],
            expired=count[Finding.EXPIRED],
            unreadable=rejected,
            unmapped=rows[-1] if len(rows) > 1 else 0,
            started=run.started_at or datetime.now(UTC),
            finished=datetime.now(UTC),
            context=run.parameters.get("context", {}),
        )


@dataclass
class _Pace:
    """Keeps a worker from going faster than it may; None: it may go as fast as it can."""

    per_second: float | None
    free_at: float = field(default_factory=time.monotonic)

    def keep(self, done: int, stop: threading.Event) -> None:
        if self.per_second is not None:
            self.free_at = max(self.free_at, time.monotonic()) + done / self.per_second
            stop.wait(self.free_at - time.monotonic())


def _interleaved(
    items: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Both in turn, so that one worker reads files while another has PostgreSQL write."""
    placed = [
        ((number + 0.5) / len(some), piece) for some in (items, rows) for number, piece in enumerate(some)
    ]
    return [piece for _, piece in sorted(placed, key=lambda each: each[0])]


def _key_of(run: Run) -> bytes:
    return bytes.fromhex(run.parameters[_FINGERPRINT_KEY])


def _verdict(judged: Judged) -> Verdict:
    seen = judged.observation
    if seen is None:
        return Verdict(judged.key, Finding.MOVING)
    return Verdict(judged.key, seen.finding, seen.kind, seen.paths, judged.repaired)


def summary(verification: Verification) -> dict[str, Any]:
    """The result as the ledger keeps it: counts, and the differences without their keys."""
    return {
        "items_dynamodb": verification.items_dynamodb,
        "rows_postgres": verification.rows_postgres,
        "equal": verification.equal,
        "stamps_only": verification.stamps_only,
        "difference_count": verification.difference_count,
        "repaired": verification.repaired,
        "moving": verification.moving,
        "expired": verification.expired,
        "unreadable": verification.unreadable,
        "success_rate": verification.success_rate,
        "seconds": (verification.finished - verification.started).total_seconds(),
        "differences": [
            {
                "key_hash": each.key_hash,
                "class": each.finding,
                "paths": list(each.paths),
                "repaired": each.repaired,
            }
            for each in verification.differences
        ],
    }
