"""The running counts of a verification, shared by its threads."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from dualstore.items import KeySchema, key_hash
from dualstore.verify.findings import Difference, Finding, Verification
from dualstore.verify.judging import Judged


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """How far a verification has come.

    Attributes:
        items: items read from DynamoDB.
        equal: keys found equal.
        differences: keys found different.
        moving: keys that could not be judged.
        segments_done: segments of DynamoDB that have been compared.
        segments_total: how many there are.
        elapsed: time since the start.
    """

    items: int
    equal: int
    differences: int
    moving: int
    segments_done: int
    segments_total: int
    elapsed: timedelta


class Tally:
    """Counts what has been found. Safe to share by threads.

    Args:
        segments: how many segments there are.
        differences_kept: how many differences to keep; all are counted.
        progress: called after each count, under the tally's lock.
    """

    def __init__(
        self, *, segments: int, differences_kept: int, progress: Callable[[VerifyProgress], None]
    ) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._segments = segments
        self._kept = differences_kept
        self._progress = progress
        self._items = self._equal = self._stamps_only = self._moving = self._expired = 0
        self._repaired = self._difference_count = self._segments_done = 0
        self._differences: list[Difference] = []

    def compared(self, *, items: int, equal: int) -> None:
        """Some items of a page were compared, and so many of them were equal at once."""
        with self._lock:
            self._items += items
            self._equal += equal
            self._report()

    def judged(self, keys: KeySchema, judged: Judged) -> None:
        """A candidate has its verdict."""
        seen = judged.observation
        with self._lock:
            if seen is None:
                self._moving += 1
            elif seen.finding is Finding.EXPIRED:
                self._expired += 1
            elif seen.finding.is_difference:
                self._differs(
                    Difference(
                        key_hash(keys, judged.key),
                        seen.finding,
                        seen.paths,
                        repaired=judged.repaired,
                        key=judged.key,
                    )
                )
            else:
                self._equal += 1
                self._stamps_only += seen.finding is Finding.STAMP
            self._report()

    def _differs(self, difference: Difference) -> None:
        self._difference_count += 1
        self._repaired += difference.repaired
        if len(self._differences) < self._kept:
            self._differences.append(difference)

    def segment_done(self) -> None:
        """A segment has been compared."""
        with self._lock:
            self._segments_done += 1
            self._report()

    def verification(
        self, *, run_id: UUID, table: str, rows_postgres: int, started: datetime, finished: datetime
    ) -> Verification:
        """The result."""
        with self._lock:
            return Verification(
                run_id=run_id,
                table=table,
                items_dynamodb=self._items,
                rows_postgres=rows_postgres,
                equal=self._equal,
                stamps_only=self._stamps_only,
                differences=tuple(self._differences),
                difference_count=self._difference_count,
                repaired=self._repaired,
                moving=self._moving,
                expired=self._expired,
                started=started,
                finished=finished,
            )

    def _report(self) -> None:
        elapsed = timedelta(seconds=time.monotonic() - self._began)
        self._progress(
            VerifyProgress(
                self._items,
                self._equal,
                self._difference_count,
                self._moving,
                self._segments_done,
                self._segments,
                elapsed,
            )
        )
