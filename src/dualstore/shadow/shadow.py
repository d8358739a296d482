"""Compares reads with the other side off the caller's path, and reports only what persists."""

import heapq
import logging
import time
from collections.abc import Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue
from threading import Condition, Lock, Thread
from typing import Literal, Self

from botocore.exceptions import ClientError

from dualstore.items import TableShape
from dualstore.operations import Operation, Response
from dualstore.replication.served import ServedTable
from dualstore.shadow.answers import Answer, NoAnswer, Refusal, ask, is_legacy, refusal
from dualstore.shadow.comparison import Finding, compare
from dualstore.shadow.rechecks import Read, Suspicion, look_again
from dualstore.stages import Side
from dualstore.telemetry import (
    OK,
    Discrepancy,
    DiscrepancySink,
    Role,
    ShadowCompared,
    ShadowDropped,
    Telemetry,
    Verdict,
)

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Shadowed:
    """A read that one side answered, on its way through comparison."""

    table: ServedTable
    operation: Operation
    side: Side
    answer: Response | ClientError
    weight: int
    context: Context
    deadline: float
    seen_at: float
    looks: int = 0
    suspicions: tuple[Suspicion, ...] = ()


@dataclass(order=True, slots=True)
class _Later:
    due: float
    shadowed: _Shadowed = field(compare=False)


_Signal = Literal["look again", "stop"]


class Shadow:
    """Runs reads on the other side too and compares the answers.

    The caller puts a read in a queue and goes on. Workers ask the other side, compare, and look again a few
    times where the answers differ, with a pause before each look that holds up no worker. A difference that
    one look refutes was lag; one that no look refutes and two confirm is a discrepancy. What a write
    changes during a look is neither refuted nor confirmed by it.

    Args:
        read: runs a read on a side. Its own time limits bound each read; it raises `Unavailable` where
            the side cannot be reached or is in doubt.
        tables: the tables by physical name; may grow.
        telemetry: told of every comparison, of what was dropped, and of the other side's latency.
        sink: takes each confirmed discrepancy; runs in a worker, may do I/O.
        queue_size: the most reads that wait or are at work; a page counts as its number of items.
        workers: how many threads; started by the first read, daemons.
        timeout: a read that is not judged so long after it was handed in is dropped.
        rechecks: how often a difference is looked at again.
        recheck_pause: how long to wait before each look.
    """

    def __init__(
        self,
        read: Read,
        tables: Mapping[str, ServedTable],
        *,
        telemetry: Telemetry,
        sink: DiscrepancySink,
        queue_size: int = 1_000,
        workers: int = 2,
        timeout: timedelta = timedelta(seconds=5),
        rechecks: int = 3,
        recheck_pause: timedelta = timedelta(milliseconds=200),
    ) -> None:
        self._read = read
        self._tables = tables
        self._telemetry = telemetry
        self._sink = sink
        self._queue_size = queue_size
        self._timeout_seconds = timeout.total_seconds()
        self._rechecks = rechecks
        self._pause_seconds = recheck_pause.total_seconds()
        self._queue: SimpleQueue[_Shadowed | _Signal] = SimpleQueue()
        self._waiting: list[_Later] = []
        self._held = 0
        self._closed = False
        self._lock = Lock()
        self._idle = Condition(self._lock)
        self._workers = [
            Thread(target=self._work, name=f"dualstore-shadow-{n}", daemon=True) for n in range(workers)
        ]
        self._started = False

    def submit(
        self, table: ServedTable, operation: Operation, side: Side, answer: Response | ClientError
    ) -> bool:
        """Hand in a read to be compared. Never waits, and never raises for what the comparison meets.

        Args:
            table: the table, or one of the tables, that was read.
            operation: the read, as its caller made it.
            side: who answered it.
            answer: the response, which nobody may change from now on, or the refusal.

        Returns:
            Whether there was room. If not, the drop is counted.
        """
        shadowed = _Shadowed(
            table=table,
            operation=operation,
            side=side,
            answer=answer,
            weight=_weight(answer),
            context=copy_context(),
            deadline=time.monotonic() + self._timeout_seconds,
            seen_at=time.time(),
        )
        with self._lock:
            # A page that is larger than the whole queue has its turn when the queue is empty.
            has_room = not self._held or self._held + shadowed.weight <= self._queue_size
            if has_room and not self._closed:
                self._held += shadowed.weight
                if not self._started:
                    self._start()
                self._queue.put(shadowed)
                return True
        reason = "closed" if self._closed else "queue_full"
        self._telemetry.record(ShadowDropped(table.logical, operation.name, reason))
        return False

    def drain(self, timeout: timedelta = timedelta(seconds=30)) -> bool:
        """Wait until everything handed in so far has been judged or dropped; False when time ran out."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._held, timeout.total_seconds())

    def close(self, timeout: timedelta = timedelta(seconds=10)) -> None:
        """Drop what waits, let what is at work finish, and end the workers."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._started:
                return
            for _ in self._workers:
                self._queue.put("stop")
        deadline = time.monotonic() + timeout.total_seconds()
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for later in waiting:
            self._drop(later.shadowed, "closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        self._started = True
        for worker in self._workers:
            worker.start()

    def _work(self) -> None:
        while (shadowed := self._next()) is not None:
            # OpenTelemetry's trace context and the caller's own variables travel in it.
            shadowed.context.run(self._attend, shadowed)

    def _next(self) -> _Shadowed | None:
        """The next read to look at: one whose pause is over, or the longest waiting; None to stop."""
        while True:
            with self._lock:
                pause = max(0.0, self._waiting[0].due - time.monotonic()) if self._waiting else None
                if pause == 0 and not self._closed:
                    return heapq.heappop(self._waiting).shadowed
            try:
                following = self._queue.get(timeout=pause)
            except Empty:
                continue
            if following == "stop":
                return None
            if isinstance(following, _Shadowed):
                return following

    def _attend(self, shadowed: _Shadowed) -> None:
        if self._closed or time.monotonic() > shadowed.deadline:
            self._drop(shadowed, "closed" if self._closed else "timeout")
            return
        try:
            verdict = self._look_again(shadowed) if shadowed.suspicions else self._first_look(shadowed)
        except NoAnswer as failure:
            verdict = Verdict.FAILED if failure.comparable else Verdict.INCOMPARABLE
        except Exception as error:  # noqa: BLE001 - whatever it is, the next read is to be compared
            # Its text may hold a value.
            logger.warning("Comparing a %s failed with %s", shadowed.operation.name, type(error).__name__)
            verdict = Verdict.FAILED
        if verdict is None:
            self._look_later(shadowed)
            return
        self._telemetry.record(ShadowCompared(shadowed.table.logical, shadowed.operation.name, verdict))
        self._release(shadowed)

    def _first_look(self, shadowed: _Shadowed) -> Verdict | None:
        """Ask the other side and compare; None where that has to be looked at again."""
        operation, side = shadowed.operation, shadowed.side
        if is_legacy(operation):
            raise NoAnswer("legacy parameters", comparable=False)
        shapes = self._shapes(operation)
        primary = refusal(shadowed.answer) if isinstance(shadowed.answer, ClientError) else shadowed.answer
        answers = {side: primary, side.other: self._timed_answer(shadowed)}
        shadowed.answer = {}  # let go: from here on both sides are read again
        found = compare(operation, shapes, answers)
        shadowed.suspicions = tuple(map(Suspicion, found.findings))
        if shadowed.suspicions:
            return None
        return Verdict.EQUAL if found.comparable else Verdict.INCOMPARABLE

    def _timed_answer(self, shadowed: _Shadowed) -> Answer:
        operation, side = shadowed.operation, shadowed.side.other
        outcome = OK
        started = time.perf_counter()
        try:
            answer = ask(lambda: self._read(side, operation))
            if isinstance(answer, Refusal):
                outcome = answer.code
        except NoAnswer as failure:
            outcome = failure.outcome
            raise
        finally:
            seconds = time.perf_counter() - started
            self._telemetry.operation(
                shadowed.table.logical, operation.name, side, Role.SHADOW, seconds, outcome
            )
        return answer

    def _look_again(self, shadowed: _Shadowed) -> Verdict | None:
        """Read both sides again; None where that is to be done once more."""
        operation = shadowed.operation
        look = look_again(self._read, self._shapes(operation), operation, shadowed.side)
        shadowed.looks += 1
        shadowed.suspicions = look.judge(shadowed.suspicions)
        if not shadowed.suspicions:
            return Verdict.LAG
        if shadowed.looks < self._rechecks:
            return None
        certain = [s.finding for s in shadowed.suspicions if s.confirmed >= min(2, self._rechecks)]
        for finding in certain:
            self._report(shadowed, finding)
        return Verdict.MISMATCH if certain else Verdict.INCOMPARABLE

    def _shapes(self, operation: Operation) -> Mapping[str, TableShape]:
        try:
            return {table: self._tables[table].shape for table in operation.tables}
        except KeyError:
            raise NoAnswer("not served", comparable=False) from None

    def _report(self, shadowed: _Shadowed, finding: Finding) -> None:
        discrepancy = Discrepancy(
            table=finding.table,
            key_hash=finding.key_hash,
            operation=shadowed.operation.name,
            kind=finding.kind,
            paths=finding.paths,
            first_seen=datetime.fromtimestamp(shadowed.seen_at, UTC),
            last_seen=datetime.now(UTC),
        )
        try:
            self._sink(discrepancy)
        except Exception as error:  # noqa: BLE001 - the sink is somebody else's, and does I/O
            logger.warning("Recording a discrepancy failed with %s", type(error).__name__)

    def _look_later(self, shadowed: _Shadowed) -> None:
        with self._lock:
            heapq.heappush(self._waiting, _Later(time.monotonic() + self._pause_seconds, shadowed))
        # The workers that wait without end for something to come now learn that this will.
        self._queue.put("look again")

    def _drop(self, shadowed: _Shadowed, reason: str) -> None:
        self._telemetry.record(ShadowDropped(shadowed.table.logical, shadowed.operation.name, reason))
        self._release(shadowed)

    def _release(self, shadowed: _Shadowed) -> None:
        with self._idle:
            self._held -= shadowed.weight
            if not self._held:
                self._idle.notify_all()


def _weight(answer: Response | ClientError) -> int:
    """How much room an answer takes in the queue: its number of items."""
    if isinstance(answer, ClientError):
        return 1
    responses = answer.get("Responses")
    if isinstance(responses, dict):
        return sum(map(len, responses.values())) or 1
    return len(responses or ()) or answer.get("Count") or 1
