"""A full comparison at the speed of COPY: in pieces that several processes share, gone on with after any end.

What `Verify` does through the stores' own reads, this does with blocks of DynamoDB-JSON, which PostgreSQL
compares with its rows itself. The verdicts are given the same way: only what stays different is called so.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from dualstore.errors import ConfigurationError, Unavailable
from dualstore.items import Key, key_bytes
from dualstore.mapping import Mapped
from dualstore.mapping.transcoding import Transcoded, Transcoder
from dualstore.mapping.transcoding.fingerprints import KEY_BYTES
from dualstore.stores.batch_limits import Limits
from dualstore.stores.fingerprint_ways import form_of
from dualstore.stores.ledger import PieceState, Run, RunState, TakenOver
from dualstore.stores.postgres.trigger_functions import sql_table
from dualstore.stores.postgres_comparison import PostgresComparison
from dualstore.stores.postgres_findings import PostgresFindings, Verdict
from dualstore.stores.postgres_fingerprints import ROWS, PostgresFingerprints, batches_of, hashes_of
from dualstore.stores.postgres_rules import PostgresRules
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.stores.postgres_unmatched import Contradicted, PostgresUnmatched
from dualstore.stores.postgres_waiting import outlast_writers
from dualstore.verify.findings import Difference, Finding, Verification
from dualstore.verify.judging import Judge
from dualstore.verify.past import PastJudge
from dualstore.verify.recheck import Candidate
from dualstore.verify.second_look import SecondLook
from dualstore.verify.tally import VerifyProgress
from dualstore.verify.worker import (
    CANDIDATES_AT_ONCE,
    FINGERPRINT_KEY,
    LEASE,
    Worker,
    fingerprint_key_of,
    verdict_of,
)
from dualstore.verify.working import Crew, Source, Threads, interleaved

KIND = "verify"
_ENGINE = "bulk"
_JOINED = "joined"
_FIRST_REVISION = "first_revision"
_COUNTABLE = "countable"
_COLUMNS = "columns"
_FORM = "form"
_FIRST_LOOK = timedelta(milliseconds=5)
_WRITERS_PATIENCE = timedelta(seconds=30)
_EPOCH = "epoch_under_dynamodb"
_DIFFERENCES = [finding for finding in Finding if finding.is_difference]

logger = logging.getLogger(__name__)


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
        goes_on: whether a run that began in such a context, and was interrupted, is gone on with; else it is
            abandoned, and another one begun.
        at_once: whether each batch is joined with its rows at once, by the keys' index: right for a source
            that changes while it is read, such as a Scan. Otherwise both sides are held together by their
            fingerprints, which takes 32 bytes an item on PostgreSQL's disk meanwhile. What stands alone is
            then read a second time, so the source has to stay as it is.
        fingerprints: what takes them, where `at_once` is false; None: PostgreSQL. Where the accelerator does,
            whoever works on the run needs it.
        crew: who compares the pieces.
        limits: of a batch.
        lease: how long a piece is its worker's without a checkpoint, and so how long others wait for one
            that has died; a batch has to be compared within.
        items_per_second: the most items to read per second and worker, and so to look up the rows of where
            that is done at once; None for no limit.
        rows_per_second: the most rows to look up, or to read for their fingerprints, per second and worker,
            or None.
        differences_kept: how many differences the result holds; all are counted.
        progress: called now and then, and when all pieces are compared; never by two threads at once.
    """

    mapping: Mapped
    source: Source
    transcoder: Transcoder
    comparison: PostgresComparison
    findings: PostgresFindings
    runs: PostgresRuns
    judge: Judge
    context: Mapping[str, Any] = field(default_factory=dict)
    goes_on: Callable[[Mapping[str, Any]], bool] = lambda _: True
    at_once: bool = True
    fingerprints: PostgresFingerprints | None = None
    crew: Crew = field(default_factory=Threads)
    limits: Limits = field(default_factory=Limits)
    lease: timedelta = LEASE
    items_per_second: float | None = None
    rows_per_second: float | None = None
    differences_kept: int = 1000
    progress: Callable[[VerifyProgress], None] = lambda _: None

    def run(self) -> Verification:
        """Verify the table, or go on with a verification of the same source that was interrupted.

        Raises:
            ConfigurationError: the source cannot be read as a whole.
            SchemaError: the bookkeeping schema or the SQL table is missing, or of another version; or a
                column is of another type than the mapping says.
            Unavailable: a database was away for too long, or a piece was given up: run it again to go on.
        """
        self.judge.check()
        self.runs.check()
        with self.runs.exclusive(KIND, self.mapping.shape.name):
            self.judge.patiently(self.comparison.check)
            run = self._with_first_revision(self._run_to_do())
            self.crew.work(self, run.id, lambda: self._report(run.id))
            self._check_pieces(run)
            try:
                rows = self._compare_rows(run)
                verification = self._result(run, rows)
                self._check_counts(run, verification)
                self._check_columns(run)
            except Contradicted:
                # Gone on with, it would end like this for ever.
                self.runs.finish(run, RunState.ABANDONED, {"reason": "what was read does not fit together"})
                raise
            state = RunState.FINISHED if verification.proven else RunState.FINISHED_WITH_FAILURES
            self.runs.finish(run, state, summary(verification))
            self.comparison.tidy()
        return verification

    def work(
        self,
        run_id: UUID,
        *,
        name: str,
        stop: threading.Event,
        look: timedelta,
        advanced: Callable[[], None] = lambda: None,
        only: int | None = None,
    ) -> None:
        """Compare pieces of a run until none is left; any number of processes may do so at once.

        Args:
            run_id: the run.
            name: the worker's, which no other has.
            stop: set where it is to give its piece back and end.
            look: how long to wait at most before looking again for a piece that somebody else holds, who may
                die.
            advanced: called after each batch.
            only: the piece of this number; None: any.

        Raises:
            ConfigurationError: the run takes the accelerator, which is not installed here.
        """
        run = self.judge.patiently(lambda: self.runs.find(run_id))
        if run is None:
            raise ConfigurationError(f"there is no run {run_id}: was its row deleted? Start a new one")
        form = form_of(self.mapping)
        if run.parameters.get(_FORM, form) != form:
            raise ConfigurationError(
                f"verification {run_id} was started by a process with another mapping of "
                f"{self.mapping.shape.name}, or another version of dualstore: have all run the same, and "
                "start a new one"
            )
        worker = Worker(self, run, stop, advanced)
        idle = first_look = min(_FIRST_LOOK, look)  # the last pieces of a run end at about the same time
        while not stop.is_set():
            piece = self.judge.patiently(
                lambda: self.runs.claim_next(run_id, worker=name, lease=self.lease, only=only)
            )
            if piece is not None:
                worker.take(piece)
                idle = first_look
            elif self._is_left(run_id, only):
                stop.wait(idle.total_seconds())
                idle = min(2 * idle, look)
            else:
                return

    def _is_left(self, run_id: UUID, only: int | None) -> bool:
        """Whether there is something to be done, though nobody may claim it now."""
        if only is not None:
            return self.runs.is_unfinished(run_id, only)
        return bool(self.runs.pulse(run_id).unfinished)

    def _run_to_do(self) -> Run:
        table, parameters = self.mapping.shape.name, self._parameters()
        # Those of other engines, such as of certain keys, hold no lock: they may be at work.
        found = self.runs.latest_unfinished(KIND, table, engine=_ENGINE)
        if found is not None:
            reason = self._why_not(found, parameters)
            if reason is None:
                self._take_back(found)
                return found
            self.runs.finish(found, RunState.ABANDONED, {"reason": reason})
        self.comparison.tidy()
        planned: Sequence[Mapping[str, Any]] = self.source.pieces()
        beside: dict[str, Any] = {"context": dict(self.context)}
        if self.taking is not None:
            planned = interleaved(planned, self.taking.pieces())
            beside[FINGERPRINT_KEY] = secrets.token_hex(KEY_BYTES)
        return self.runs.start(KIND, table, parameters | beside, planned=planned)

    def _why_not(self, found: Run, parameters: Mapping[str, Any]) -> str | None:
        """Why a run that was interrupted is not gone on with, or None."""
        if {name: found.parameters.get(name) for name in parameters} != parameters:
            return "another verification was started"
        if not self.goes_on(found.parameters.get("context", {})):
            return "what it has compared may differ since: writes passed one side by, or became suspect"
        return None

    def _with_first_revision(self, run: Run) -> Run:
        """A run that knows from which revision on rows were written since it began, before it reads any."""
        if _FIRST_REVISION in run.parameters:
            return run
        # First of all: who has written at another epoch is then waited for.
        epoch = self.judge.patiently(self.comparison.epoch_under_dynamodb)
        revision = self.judge.patiently(self._counting.draw_revision)
        known = {_FIRST_REVISION: revision, _EPOCH: epoch, _COUNTABLE: self._outlasts_older_writers()}
        self.runs.set_parameters(run.id, known)
        return replace(run, parameters={**run.parameters, **known})

    def _deletes_by_dualstore_alone(self, run: Run) -> bool:
        """Whether nobody else has had a right to delete rows since the run began, so that tombstones tell.

        Where PostgreSQL decides, or has decided meanwhile, the team's own SQL may: of that nothing is left
        before long.
        """
        epoch = run.parameters.get(_EPOCH)
        return epoch is not None and epoch == self.judge.patiently(self.comparison.epoch_under_dynamodb)

    def _outlasts_older_writers(self) -> bool:
        """Wait for those who have drawn a revision before this moment; whether all have ended.

        What they write would be seen to have been there before the run began, though it came later.
        """
        doing = f"Waiting for transactions that have written to {self.mapping.shape.name}"
        try:
            for part in self.mapping.parts:
                outlast_writers(
                    self.comparison.engine, sql_table(part), doing, _WRITERS_PATIENCE, lambda _: None
                )
        except Unavailable:
            logger.warning(
                "%s: transactions that have written before the verification began go on; it does not compare "
                "how many items and rows there are",
                self.mapping.shape.name,
            )
            return False
        return True

    @property
    def _counting(self) -> PostgresFingerprints:
        """What knows of the rows that change meanwhile, in either way of comparing."""
        return self.taking or hashes_of(self.comparison.engine, self.mapping)

    @property
    def _rules(self) -> PostgresRules:
        return PostgresRules(self.comparison)

    @property
    def taking(self) -> PostgresFingerprints | None:
        """What takes fingerprints; None where batches are compared at once."""
        if self.at_once:
            return None
        return self.fingerprints or hashes_of(self.comparison.engine, self.mapping)

    def _take_back(self, run: Run) -> None:
        """Have nobody wait for the lease of a process that has died; who lives claims another piece."""
        for piece in self.runs.pieces(run):
            if piece.state is PieceState.COPYING:
                with suppress(TakenOver):
                    self.runs.release(piece)

    def _parameters(self) -> dict[str, Any]:
        source = {name: value for name, value in self.source.parameters().items() if name != "tuning"}
        return {
            "engine": _ENGINE,
            "source": source,
            "repair": self.judge.repair,
            "at_once": self.at_once,
            _COLUMNS: self.judge.patiently(self.comparison.columns),
            "fingerprints": None if self.taking is None else self.taking.way,
            _FORM: form_of(self.mapping),
            "past": self.judge.context if isinstance(self.judge, PastJudge) else None,
        }

    def transcoded(self, blocks: Sequence[bytes]) -> Iterator[tuple[int, Transcoded]]:
        """Items as rows, each block with the number of the part of the mapping it belongs to."""
        for block in blocks:
            yield from self.transcoder.block(block).by_part()

    def _check_pieces(self, run: Run) -> None:
        failed = self.runs.failed_pieces(run)
        if failed:
            # Gone on with, it would end like this for ever.
            self.runs.finish(run, RunState.ABANDONED, {"reason": "pieces could not be compared"})
            raise Unavailable(
                f"{len(failed)} piece(s) of verification {run.id} could not be compared, the first because: "
                f"{failed[0].error}; mend that, and start a new one"
            )

    def _compare_rows(self, run: Run) -> Sequence[int]:
        """Find what the pieces alone do not show: rows without an item, rows that break a rule.

        Returns:
            How many rows each part of the mapping holds.
        """
        if self.taking is None:
            self.judge.patiently(lambda: self.comparison.note_unseen(run.id))
        else:
            self._join(run, self.taking.unmatched)
        self.give_verdicts(run.id)
        return self.judge.patiently(lambda: self._rules.note_broken(run.id, self.judge.mend))

    def _join(self, run: Run, unmatched: PostgresUnmatched) -> None:
        """Join the fingerprints of both sides, and look again at what found no equal."""
        agree = self.judge.patiently(lambda: unmatched.agree(run.id))
        if not agree:
            self._look_again(run, unmatched)
        # A row that stands alone, and was written between the two looks, is not met again. Where both sides
        # agree, a write that is on one side alone may have come behind the first look.
        since = run.parameters[_FIRST_REVISION]
        changed = self.judge.patiently(lambda: unmatched.note_changed_since(run.id, since))
        if agree:
            return
        left = self.judge.patiently(lambda: unmatched.rows_not_met(run.id))
        noted = sum(each.count for each in self.findings.sums(run.id))
        if left <= changed * len(self.mapping.parts) and (
            noted or self.judge.patiently(lambda: unmatched.repeated(run.id))
        ):
            return
        if not left or not run.parameters[_COUNTABLE] or self._deletes_by_dualstore_alone(run):
            raise Contradicted(
                f"the items and rows of {self.mapping.shape.name} did not agree, and verification {run.id} "
                "does not find all that differs: were rows written, or moved, past dualstore meanwhile? "
                "Start a new one"
            )
        # The team's SQL may have deleted them, which nothing tells: so they are nowhere.
        key, described = fingerprint_key_of(run), (piece.description or {} for piece in self.runs.pieces(run))
        batches = [batch for each in described if ROWS in each for batch in batches_of(each[ROWS])]
        self.judge.patiently(lambda: unmatched.look_everywhere(run.id, batches, key=key))
        self.judge.patiently(lambda: unmatched.note_changed_since(run.id, since))

    def _look_again(self, run: Run, unmatched: PostgresUnmatched) -> None:
        """Note the keys of the items and rows that found no equal."""
        if _JOINED not in run.parameters:
            self.judge.patiently(lambda: unmatched.mark(run.id))
            self.runs.set_parameters(run.id, {_JOINED: True})
        look = SecondLook(
            run_id=run.id,
            key=fingerprint_key_of(run),
            unmatched=unmatched,
            source=self.source,
            transcoded=self.transcoded,
            limits=self.limits,
            judge=self.judge,
        )
        look.take({piece.number: piece.description or {} for piece in self.runs.pieces(run)})

    def _check_counts(self, run: Run, verification: Verification) -> None:
        """See that both sides' counts differ by no more than by what was found, or written meanwhile."""
        if not (run.parameters[_COUNTABLE] and self._deletes_by_dualstore_alone(run)):
            return
        items = verification.items_dynamodb - verification.unreadable
        rows, unmatched = verification.rows_postgres, self._counting.unmatched
        since = run.parameters[_FIRST_REVISION]
        explain: tuple[Callable[[], int], ...] = (
            lambda: sum(each.count for each in self.findings.sums(run.id)),
            lambda: unmatched.count_changed_since(since),
            lambda: unmatched.repeated(run.id),
        )
        unexplained = abs(items - rows)
        for count in explain:
            if unexplained <= 0:
                return
            unexplained -= self.judge.patiently(count) * len(self.mapping.parts)  # of a key each has a row
        if unexplained > 0 and self._deletes_by_dualstore_alone(run):  # until all was counted
            raise Contradicted(
                f"{self.mapping.shape.name} has {items} items and {rows} rows, and what verification "
                f"{run.id} found does not explain it: were rows written past dualstore meanwhile? "
                "Start a new one"
            )

    def _check_columns(self, run: Run) -> None:
        """See that what was compared is what is there: nobody has altered a column meanwhile."""
        if self.judge.patiently(self.comparison.columns) != run.parameters[_COLUMNS]:
            raise Contradicted(
                f"a column of {self.mapping.shape.name} was altered during verification {run.id}, which may "
                "have changed what it had compared: start a new one. SET DEFAULT, SET NOT NULL, "
                "SET STATISTICS and a GRANT on a column count as that, too"
            )

    def give_verdicts(self, run_id: UUID, *, piece: int | None = None) -> None:
        """Give every key that waits for one its verdict; of one piece, or of all."""
        while True:
            keys = self.judge.patiently(
                lambda: self.findings.waiting(run_id, piece=piece, limit=CANDIDATES_AT_ONCE)
            )
            if not keys:
                return
            judged = self.judge.judge([Candidate(key) for key in keys], run_id=run_id)
            verdicts = self._where_they_belong(list(map(verdict_of, judged)))
            self.judge.patiently(lambda verdicts=verdicts: self.findings.judge(run_id, verdicts))  # type: ignore[misc]

    def _where_they_belong(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """The same, where what is equal stands in the wrong SQL table told as that, or mended."""
        equal = [each.key for each in verdicts if each.finding in {Finding.EQUAL, Finding.STAMP}]
        elsewhere = self.judge.patiently(lambda: self._rules.misplaced(equal))
        if not elsewhere:
            return list(verdicts)
        self.judge.mend(elsewhere)
        named = self._names(elsewhere)
        left = self._names(self.judge.patiently(lambda: self._rules.misplaced(elsewhere)))
        return [
            Verdict(each.key, Finding.MISPLACED, repaired=name not in left) if name in named else each
            for each in verdicts
            for name in self._names([each.key])
        ]

    def _names(self, keys: Sequence[Key]) -> set[bytes]:
        return {key_bytes(self.mapping.shape.keys, key) for key in keys}

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

    def _result(self, run: Run, rows: Sequence[int]) -> Verification:
        run = self.runs.find(run.id) or run
        pieces = self.runs.pieces(run)
        items, rejected = (
            sum(values) for values in zip(*((p.items, p.rejected) for p in pieces), strict=True)
        )
        sums = self.findings.sums(run.id)
        count = {finding: sum(each.count for each in sums if each.finding == finding) for finding in Finding}
        of_items = sum(each.count for each in sums if each.of_items)
        # A key that was noted for its row alone was either no item's, or counted when its item was taken.
        settled_equal = sum(
            each.count for each in sums if each.of_items and each.finding in {Finding.EQUAL, Finding.STAMP}
        )
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
            later=count[Finding.LATER],
            undecided=count[Finding.UNDECIDED],
            started=run.started_at or datetime.now(UTC),
            finished=datetime.now(UTC),
            context=run.parameters.get("context", {}),
        )


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
