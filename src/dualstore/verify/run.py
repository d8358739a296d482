"""A full comparison of both sides of a table, in both directions, while both take writes."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

from dualstore.errors import ConfigurationError, DualStoreError, Unavailable
from dualstore.items import Item, Key, TableShape, key_bytes, key_hash
from dualstore.mapping.expiry import has_expired
from dualstore.stores.base import NOTHING, Mirror, Store
from dualstore.stores.bulk import each_segment, patiently
from dualstore.stores.postgres_runs import Run, RunState
from dualstore.stores.scan import read_page, transient_as_unavailable
from dualstore.telemetry import Discrepancy, DiscrepancySink, Finder
from dualstore.telemetry.discrepancies import current_trace_id
from dualstore.verify.findings import Finding, Observation, Verification, observe_pair
from dualstore.verify.recheck import Candidate, Sides, Verdict, recheck
from dualstore.verify.tally import Tally, VerifyProgress

KIND = "verify"
OPERATION = "Verify"
"""What discrepancies name as the operation that saw them."""
_KEYS_AT_ONCE = 500
_CANDIDATES_AT_ONCE = 1000

T = TypeVar("T")


class SeenKeys(Protocol):
    """The keys seen on DynamoDB, beside the rows of PostgreSQL."""

    def add(self, keys: Sequence[Key]) -> None:
        """Note that these keys were seen."""
        ...

    def row_count(self) -> int:
        """How many rows the SQL table holds now."""
        ...

    def unseen(self) -> Iterator[Sequence[Key]]:
        """The keys of the rows that were not seen, in pages of bounded size."""
        ...


class Ledger(Protocol):
    """Where runs are recorded."""

    def check(self) -> None:
        """Raise `SchemaError` where runs cannot be recorded."""
        ...

    def start(self, kind: str, table: str, parameters: dict[str, Any]) -> Run:
        """Record a new run."""
        ...

    def finish(self, run: Run, state: RunState, result: dict[str, Any]) -> None:
        """Record how a run ended."""
        ...


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Compares all items of a table on both sides.

    The Scan's pages are compared with the rows of the same keys; the rows whose keys no page held are looked
    up on DynamoDB. Whatever seems to differ is looked at again, on both sides, until it is equal, truly
    different, or has kept moving. Memory is bounded: a page and a thousand candidates for each worker.

    Attributes:
        shape: the table; `shape.name` is its physical DynamoDB name.
        dynamodb: the DynamoDB side.
        postgres: the PostgreSQL side.
        seen: makes the place where seen keys are kept (`PostgresSeenKeys` for a real table).
        runs: the ledger (`PostgresRuns` for a real table).
        settle: settles keys, as many of them as it can, and raises where it could not settle all; needed for
            `repair`.
        repair: whether to settle the keys that differ, and to look at them again.
        record: takes each difference, as the comparison of reads records it.
        ttl_attribute: the attribute by which items expire, or None. A row that has expired, and whose item
            DynamoDB holds no more, is counted apart: whoever sweeps the table will come to it.
        segments: how many segments DynamoDB is scanned in.
        workers: how many threads.
        rounds: how often a key that seems to differ is looked at again, at most.
        pause: the time between two such looks: longer than a write takes to reach the mirror.
        differences_kept: how many differences the result holds; all are counted.
        patience: how long to wait for a database that is away.
        progress: called after each page, never by two threads at once.
    """

    shape: TableShape
    dynamodb: Store
    postgres: Mirror
    seen: Callable[[], AbstractContextManager[SeenKeys]]
    runs: Ledger
    settle: Callable[[Sequence[Key]], object] | None = None
    repair: bool = False
    record: DiscrepancySink = lambda _: None
    ttl_attribute: str | None = None
    segments: int = 4
    workers: int = 2
    rounds: int = 5
    pause: timedelta = timedelta(seconds=1)
    differences_kept: int = 1000
    patience: timedelta = timedelta(minutes=1)
    progress: Callable[[VerifyProgress], None] = lambda _: None

    def run(self) -> Verification:
        """Verify the table.

        Raises:
            ConfigurationError: repair is asked for, but nothing to settle with was given.
            SchemaError: the bookkeeping schema is missing or of another version.
            Unavailable: a database was away for longer than `patience`.
        """
        if self.repair and self.settle is None:
            raise ConfigurationError("a verification that repairs needs `settle`")
        self.runs.check()
        run = self.runs.start(KIND, self.shape.name, {"segments": self.segments, "repair": self.repair})
        started = datetime.now(UTC)
        try:
            tally, rows_postgres = self._compare(run.id)
        except BaseException:
            with suppress(DualStoreError):
                self.runs.finish(run, RunState.ABANDONED, {})
            raise
        verification = tally.verification(
            run_id=run.id,
            table=self.shape.name,
            rows_postgres=rows_postgres,
            started=started,
            finished=datetime.now(UTC),
        )
        self.runs.finish(run, RunState.FINISHED, _summary(verification))
        return verification

    def _compare(self, run_id: UUID) -> tuple[Tally, int]:
        tally = Tally(segments=self.segments, differences_kept=self.differences_kept, progress=self.progress)
        with self.seen() as seen:
            comparison = _Comparison(self, seen, tally, run_id)
            each_segment(comparison.segment, range(self.segments), workers=self.workers)
            rows_postgres = seen.row_count()
            for page in seen.unseen():
                comparison.judge([Candidate(key) for key in page])
        return tally, rows_postgres


class _Comparison:
    """One verification at work."""

    def __init__(self, plan: Verify, seen: SeenKeys, tally: Tally, run_id: UUID) -> None:
        self._plan = plan
        self._run_id = run_id
        self._keys = plan.shape.keys
        self._sides = Sides(plan.shape, plan.dynamodb, plan.postgres, self._has_expired)
        self._seen = seen
        self._tally = tally

    def segment(self, number: int, stop: threading.Event) -> None:
        """Compare one segment of DynamoDB with the rows of its keys."""
        candidates: list[Candidate] = []
        for items in self._chunks(number):
            if stop.is_set():
                return
            candidates += self._compare_items(items)
            if len(candidates) >= _CANDIDATES_AT_ONCE:
                self.judge(candidates)
                candidates = []
        self.judge(candidates)
        self._tally.segment_done()

    def judge(self, candidates: Sequence[Candidate]) -> None:
        """Look at candidates again until each has a verdict; repair where that is asked for."""
        if not candidates:
            return
        verdicts = self._patiently(lambda: list(self._recheck(candidates)))
        different: list[tuple[Key, Observation]] = []
        for verdict in verdicts:
            if verdict.observation is None:
                self._tally.moving()
            elif verdict.observation.finding is Finding.EXPIRED:
                self._tally.expired()
            elif verdict.observation.finding.is_difference:
                different.append((verdict.key, verdict.observation))
            else:
                self._tally.equal(stamps_only=verdict.observation.finding is Finding.STAMP)
        repaired = self._repaired([key for key, _ in different])
        for key, observation in different:
            done = key_bytes(self._keys, key) in repaired
            self._record(key, observation, repaired=done)
            self._tally.differs(self._keys, key, observation, repaired=done)

    def _record(self, key: Key, observation: Observation, *, repaired: bool) -> None:
        now = datetime.now(UTC)
        assert observation.kind is not None  # noqa: S101 - it is a difference
        discrepancy = Discrepancy(
            table=self._plan.shape.name,
            key_hash=key_hash(self._keys, key),
            operation=OPERATION,
            kind=observation.kind,
            paths=observation.paths,
            first_seen=now,
            last_seen=now,
            versions=observation.versions,
            finder=Finder.VERIFY,
            trace_id=current_trace_id(),
            run_id=self._run_id,
            repaired=repaired,
            key=key_bytes(self._keys, key),
        )
        self._patiently(lambda: self._plan.record(discrepancy))

    def _has_expired(self, item: Item) -> bool:
        attribute = self._plan.ttl_attribute
        return attribute is not None and has_expired(item, attribute, now=time.time())

    def _recheck(self, candidates: Sequence[Candidate]) -> Iterator[Verdict]:
        return recheck(self._sides, candidates, rounds=self._plan.rounds, pause=self._plan.pause)

    def _chunks(self, segment: int) -> Iterator[Sequence[Item]]:
        """The items of a segment, page after page, a bounded number at once."""
        plan, start = self._plan, None
        while True:
            after = start
            page = self._patiently(
                lambda after=after: read_page(  # type: ignore[misc]
                    plan.dynamodb, plan.shape.name, segment=segment, segments=plan.segments, start=after
                )
            )
            for begin in range(0, len(page.items), _KEYS_AT_ONCE):
                yield page.items[begin : begin + _KEYS_AT_ONCE]
            start = page.next_start
            if start is None:
                return

    def _compare_items(self, items: Sequence[Item]) -> list[Candidate]:
        """Compare items with the rows of their keys; the keys that seem to differ."""
        keys = [self._keys.key_of(item) for item in items]
        states = self._patiently(lambda: self._plan.postgres.items_of(self._plan.shape.name, keys))
        self._seen.add(keys)
        candidates = []
        for key, item in zip(keys, items, strict=True):
            state = states.get(key_bytes(self._keys, key))
            observation = observe_pair(
                item,
                None if state is None else state.item,
                revision=NOTHING if state is None else state.revision,
            )
            if observation.finding is not Finding.EQUAL:
                candidates.append(Candidate(key, observation))
        self._tally.compared(items=len(items), equal=len(items) - len(candidates))
        return candidates

    def _repaired(self, keys: Sequence[Key]) -> frozenset[bytes]:
        """Settle keys that differ, if that is asked for, and look at them again; those that are equal now."""
        settle = self._plan.settle
        if not keys or not self._plan.repair or settle is None:
            return frozenset()
        # What fails, as where the SQL table refuses a row, goes on differing.
        with (
            suppress(Unavailable),
            transient_as_unavailable(f"Settling keys of table {self._plan.shape.name}"),
        ):
            settle(keys)
        again = self._patiently(lambda: list(self._sides.observe(keys)))
        return frozenset(
            key_bytes(self._keys, key) for key, observation in again if not observation.finding.is_difference
        )

    def _patiently(self, call: Callable[[], T]) -> T:
        return patiently(lambda _attempt: call(), self._plan.patience)


def _summary(verification: Verification) -> dict[str, Any]:
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
