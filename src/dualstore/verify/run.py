"""A full comparison of both sides of a table, in both directions, while both take writes."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

from dualstore.errors import DualStoreError
from dualstore.items import Item, Key, TableShape, key_bytes
from dualstore.stores.base import NOTHING, Mirror, Store
from dualstore.stores.bulk import each_segment
from dualstore.stores.postgres_runs import Run, RunState
from dualstore.stores.scan import read_page
from dualstore.telemetry import DiscrepancySink
from dualstore.verify.bulk import KIND, summary
from dualstore.verify.findings import Finding, Verification, observe_pair
from dualstore.verify.judging import Judge
from dualstore.verify.recheck import Candidate, states_of
from dualstore.verify.tally import Tally, VerifyProgress

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

    def finish(self, run: Run, state: RunState, result: Mapping[str, Any]) -> object:
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
        self.judge.check()
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
        self.runs.finish(run, RunState.FINISHED, summary(verification))
        return verification

    @property
    def judge(self) -> Judge:
        """What gives keys their verdicts."""
        return Judge(
            shape=self.shape,
            dynamodb=self.dynamodb,
            postgres=self.postgres,
            settle=self.settle,
            repair=self.repair,
            record=self.record,
            ttl_attribute=self.ttl_attribute,
            rounds=self.rounds,
            pause=self.pause,
            patience=self.patience,
        )

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
        self._judge = plan.judge
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
        """Look at candidates again until each has a verdict, and count the verdicts."""
        for judged in self._judge.judge(candidates, run_id=self._run_id):
            self._tally.judged(self._keys, judged)

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
        states = self._patiently(lambda: states_of(self._plan.postgres, self._plan.shape, keys))
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

    def _patiently(self, call: Callable[[], T]) -> T:
        return self._judge.patiently(call)
