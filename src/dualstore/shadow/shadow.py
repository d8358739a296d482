"""Compares reads with the other side off the caller's path, and reports only what persists."""

import logging
import os
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from itertools import repeat
from random import random
from threading import Lock, Thread
from typing import Self, TypeVar, cast

from botocore.exceptions import ClientError

from dualstore.operations import BatchGetItem, GetItem, Operation, Response
from dualstore.replication.served import ServedTable
from dualstore.shadow import batches
from dualstore.shadow.answers import NoAnswer, Refusal, ask
from dualstore.shadow.backlog import Backlog
from dualstore.shadow.judging import Judge, ShadowRead, equal_at_sight
from dualstore.shadow.load import AdaptiveShare
from dualstore.shadow.rules import NormaliserFailed
from dualstore.stages import Side
from dualstore.telemetry import (
    DIRTY,
    OK,
    Discrepancy,
    DiscrepancySink,
    Role,
    ShadowCompared,
    ShadowDropped,
    ShadowNoise,
    ShadowShare,
    Telemetry,
    Verdict,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Answers = Iterator[Response | NoAnswer | None]

_FEWEST_TOGETHER = 3
_ALONE_EVERY_SECONDS = 1.0
"""So often one of a group is asked alone, so that it stays known how long a single read takes."""
_JUDGED_AT_ONCE = 4
_GIVE_WAY_SECONDS = 0.000_2
"""After so many comparisons a worker sleeps for so long: callers would otherwise wait for the interpreter
until its work is done, or 5 ms. After `time.sleep(0)` it has the interpreter back before they wake."""


class ShadowMismatch(AssertionError):  # noqa: N818 - read as "there is a mismatch"
    """A confirmed mismatch, in the thread of the caller whose read met it. For tests; holds no values.

    Args:
        discrepancies: what persists.
    """

    def __init__(self, discrepancies: Sequence[Discrepancy]) -> None:
        self.discrepancies = tuple(discrepancies)
        super().__init__(
            "; ".join(
                f"{each.operation} of table {each.table}: {each.kind}, key {each.key_hash}, attributes: "
                f"{', '.join(each.paths) or '-'}"
                for each in discrepancies
            )
        )


class Shadow:
    """Runs reads on the other side too and compares the answers, as its `Judge` does.

    The caller puts a read in a queue and goes on. Workers take the reads that wait, ask the other side for as
    many of them together as one request can answer, compare, and look again a few times where the answers
    differ, with a pause before each look that holds up no worker.

    Args:
        judge: compares. Its reads have time limits of their own, and raise `Unavailable` where a side cannot
            be reached or is in doubt.
        telemetry: told of every comparison, of what was dropped, and of the other side's latency.
        sink: takes each confirmed discrepancy; runs in a worker, may do I/O.
        queue_size: the most reads that wait or are at work; a page counts as its number of items. Bytes are
            not counted, for the caller's sake: a thousand items of 400 KB, the largest there are, are 400 MB.
        workers: how many threads; started by the first read, daemons.
        timeout: a read that is not judged so long after it was handed in is dropped.
        recheck_pause: how long to wait before each further look.
        latency_limit: the other side is slow beyond it, whatever is normal; see `AdaptiveShare`.
        batch_keys: the most GetItems that are asked together; 1 asks each alone.
        linger: how long a worker waits for more reads to be asked together.
        raise_on_mismatch: compare in the caller's thread and raise `ShadowMismatch`. For tests.
        clock: the clock of the adaptive share.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        telemetry: Telemetry,
        sink: DiscrepancySink,
        queue_size: int = 1_000,
        workers: int = 2,
        timeout: timedelta = timedelta(seconds=5),
        recheck_pause: timedelta = timedelta(milliseconds=200),
        latency_limit: timedelta = timedelta(seconds=1),
        batch_keys: int = 50,
        linger: timedelta = timedelta(milliseconds=100),
        raise_on_mismatch: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._judge = judge
        self._counted = ShadowNoise if judge.same_side else ShadowCompared
        self._telemetry = telemetry
        self._sink = sink
        self._timeout_seconds = timeout.total_seconds()
        self._pause_seconds = recheck_pause.total_seconds()
        self._batches = batch_keys > 1
        self._raises = raise_on_mismatch
        self._percents: dict[str, float] = {}
        self._load = AdaptiveShare(limit=latency_limit, clock=clock, changed=self._tell_shares)
        handful = max(1, min(batch_keys, batches.MAX_KEYS))
        self._backlog = Backlog(queue_size, handful=handful, linger=linger)
        self._workers = [
            Thread(target=self._work, name=f"dualstore-shadow-{n}", daemon=True) for n in range(workers)
        ]
        self._next_alone_at = 0.0
        self._starting = Lock()
        self._started = False
        self._forked = False
        _forked_with.add(self)

    def observe(
        self,
        table: ServedTable,
        operation: Operation,
        side: Side,
        answer: Response | ClientError,
        *,
        percent: float,
    ) -> None:
        """Hand in a read if it is in the share that is compared; arguments as for `wants` and `submit`.

        The read is its caller's, whatever goes wrong here.

        Raises:
            ShadowMismatch: the sides differ, and mismatches are to be raised.
        """
        try:
            if self.wants(table, percent):
                self.submit(table, operation, side, answer)
        except ShadowMismatch:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller has an answer
            _note_failure(operation, error)

    def wants(self, table: ServedTable, percent: float) -> bool:
        """Whether a read is in the share that is compared; costs under a microsecond.

        None is in a child after a fork: the workers are the parent's.

        Args:
            table: the table that was read.
            percent: the dialled share of its reads; the load may allow less of it.
        """
        if self._forked:
            return False
        if self._percents.get(table.logical) != percent:
            self._percents[table.logical] = percent
            self._tell_share(table.logical, percent, self._load.share)
        self._load.queued(self._backlog.filled)
        if not percent:
            return False
        effective = percent * self._load.share
        return effective >= 100 or random() * 100 < effective  # noqa: PLR2004, S311 - a sample, in percent

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
            Whether there was room, and a worker. If not, the drop is counted.

        Raises:
            ShadowMismatch: the sides differ, and mismatches are to be raised.
        """
        read = ShadowRead(
            table=table,
            operation=operation,
            side=side,
            answer=answer,
            weight=_weight(answer),
            context=copy_context(),
            deadline=time.monotonic() + self._timeout_seconds,
            seen_at=time.time(),
        )
        if self._raises:
            return self._judge_here(read)
        if not self._started and not self._start():
            self._count_drop(read, "closed" if self._backlog.closed else "failed")
            return False
        if not self._backlog.put(read):
            self._count_drop(read, "closed" if self._backlog.closed else "queue_full")
            return False
        return True

    def drain(self, timeout: timedelta = timedelta(seconds=30)) -> bool:
        """Wait until everything handed in so far has been judged or dropped; False when time ran out."""
        return self._backlog.drain(timeout)

    def close(self, timeout: timedelta = timedelta(seconds=10)) -> None:
        """Drop what waits, let what is at work finish, and end the workers."""
        with self._starting:
            if self._backlog.closed:
                return
            self._backlog.close(takers=len(self._workers))
        deadline = time.monotonic() + timeout.total_seconds()
        for worker in filter(_is_started, self._workers):
            worker.join(max(0.0, deadline - time.monotonic()))
        for read in self._backlog.left_over():
            self._drop(read, "closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> bool:
        """Start the workers that do not run yet, and say whether one runs. The next read tries the others."""
        with self._starting:
            if self._backlog.closed:
                return False
            try:
                for worker in self._workers:
                    if not _is_started(worker):
                        worker.start()
                self._started = True
            except RuntimeError as error:  # no more threads, or the interpreter shuts down
                logger.warning("A worker of the comparisons was not started: %s", type(error).__name__)
            return any(map(_is_started, self._workers))

    def forget_parent(self) -> None:
        """In a child after a fork: the workers are not this process's."""
        self._forked = True

    # Workers

    def _work(self) -> None:
        while handful := self._backlog.take():
            self._attend(handful)

    def _attend(self, handful: Sequence[ShadowRead]) -> None:
        groups: dict[Hashable, list[ShadowRead]] = {}
        for read in handful:
            self._safely(read, self._sort, read, groups)
        for reads in groups.values():
            alone = len(reads) if len(reads) < _FEWEST_TOGETHER else self._alone_now()
            for read in reads[:alone]:
                self._safely(read, self._attend_alone, read)
            if together := reads[alone:]:
                self._attend_together(together)

    def _safely(self, read: ShadowRead, attend: Callable[..., object], *args: object) -> None:
        """Attend to a read. Where that fails, by counting perhaps, it is let go and the next has its turn.

        To attend ends with letting the read go or putting it off: neither was done where it failed.
        """
        try:
            attend(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on
            _note_failure(read.operation, error)
            self._release(read)

    def _sort(self, read: ShadowRead, groups: dict[Hashable, list[ShadowRead]]) -> None:
        if self._backlog.closed or time.monotonic() > read.deadline:
            self._drop(read, "closed" if self._backlog.closed else "timeout")
        else:
            groups.setdefault(self._group_of(read), []).append(read)

    def _alone_now(self) -> int:
        """How many reads of a group are to be asked alone: one now and then, and none in between."""
        now = time.monotonic()
        if now < self._next_alone_at:
            return 0
        self._next_alone_at = now + _ALONE_EVERY_SECONDS
        return 1

    def _group_of(self, read: ShadowRead) -> Hashable:
        """What reads share that are asked together; a read that is asked alone shares it with none."""
        group = None
        if self._batches and not read.suspicions and not isinstance(read.answer, ClientError):
            group = batches.group_of(read.operation, read.table.shape)
        return id(read) if group is None else (read.side, group)

    def _attend_alone(self, read: ShadowRead) -> None:
        look = self._judge.look_again if read.suspicions else self._first_look
        self._attend_by(read, partial(look, read))

    def _attend_by(self, read: ShadowRead, look: Callable[[], Verdict | None]) -> None:
        # OpenTelemetry's trace context and the caller's own variables travel in its context. That is left
        # before the read is put off: another worker may enter it at once, and two threads cannot be in one.
        if not read.context.run(self._is_judged, read, look):
            self._look_later(read)

    def _attend_together(self, reads: Sequence[ShadowRead]) -> None:
        time.sleep(_GIVE_WAY_SECONDS)
        answers = reads[0].context.run(self._asked_together, reads)
        for start in range(0, len(reads), _JUDGED_AT_ONCE):
            time.sleep(_GIVE_WAY_SECONDS)
            some = reads[start : start + _JUDGED_AT_ONCE]
            self._note_equal([read for read in some if self._is_equal(read, answers)])

    def _is_equal(self, read: ShadowRead, answers: _Answers) -> bool:
        """Whether a read and the next answer are the same at sight; any other is attended to for itself."""
        try:
            answer = next(answers)
        except Exception:  # noqa: BLE001 - its row, perhaps: the read meets that alone, and is counted
            answer = None
        if answer is None:
            self._safely(read, self._attend_alone, read)
            return False
        if not isinstance(answer, NoAnswer) and equal_at_sight(read, answer):
            return True
        self._safely(read, self._attend_by, read, partial(self._compare, read, answer))
        return False

    def _note_equal(self, reads: Sequence[ShadowRead]) -> None:
        """Count reads of one table that were equal, and let them go."""
        if not reads:
            return
        try:
            equal = self._counted(reads[0].table.logical, GetItem.name, Verdict.EQUAL)
            self._telemetry.record(equal, times=len(reads))
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on
            _note_failure(reads[0].operation, error)
        finally:
            self._backlog.release(*reads)

    def _asked_together(self, reads: Sequence[ShadowRead]) -> _Answers:
        """The answers of several GetItems, asked for at once; None for each that is to be asked alone."""
        gets = [cast("GetItem", read.operation) for read in reads]
        first, shape = reads[0], reads[0].table.shape
        try:
            self._judge.shapes(first.operation)
            answers = self._timed(
                first,
                lambda side: self._judge.read_together(side, shape, gets),
                kind=BatchGetItem.name,
            )
        except NoAnswer as failure:
            # Keys in doubt are in the way of all that are asked with them.
            return repeat(None if failure.outcome == DIRTY else failure)
        except Exception:  # noqa: BLE001 - whatever it is, each read meets it alone, and is counted
            return repeat(None)
        return repeat(None) if isinstance(answers, Refusal) else answers

    def _compare(self, read: ShadowRead, answer: Response | NoAnswer) -> Verdict | None:
        if isinstance(answer, NoAnswer):
            raise answer
        return self._judge.first_look(read, answer)

    # Looks

    def _judge_here(self, read: ShadowRead) -> bool:
        """Judge a read in the caller's thread."""
        look: Callable[[ShadowRead], Verdict | None] = self._first_look
        while not self._is_judged(read, partial(look, read)):
            look = self._judge.look_again
            time.sleep(self._pause_seconds)
        if read.confirmed:
            raise ShadowMismatch(read.confirmed)
        return True

    def _is_judged(self, read: ShadowRead, look: Callable[[], Verdict | None]) -> bool:
        """Take a look; whether the read is done with, and counted. Whatever the look meets ends here."""
        try:
            verdict = look()
        except NormaliserFailed as failure:
            logger.debug("The normaliser of table %s raised %s", read.table.logical, failure)
            self._drop(read, "normaliser")
            return True
        except NoAnswer as failure:
            verdict = Verdict.FAILED if failure.comparable else Verdict.INCOMPARABLE
        except Exception as error:  # noqa: BLE001 - whatever it is, the next read is to be compared
            _note_failure(read.operation, error)
            verdict = Verdict.FAILED
        if verdict is None:
            return False
        self._telemetry.record(self._counted(read.table.logical, read.operation.name, verdict))
        self._report(read)
        self._release(read)
        return True

    def _first_look(self, read: ShadowRead) -> Verdict | None:
        """Ask the other side and compare; None where that has to be looked at again."""
        self._judge.shapes(read.operation)
        operation = read.operation
        answer = self._timed(read, lambda side: self._judge.read(side, operation), kind=operation.name)
        return self._judge.first_look(read, answer)

    def _timed(self, read: ShadowRead, run: Callable[[Side], T], *, kind: str) -> T | Refusal:
        """What the side to compare with answers; how long it took is counted."""
        side = self._judge.other(read.side)
        outcome = OK
        started = time.perf_counter()
        try:
            answer = ask(lambda: run(side))
            if isinstance(answer, Refusal):
                outcome = answer.code
        except NoAnswer as failure:
            outcome = failure.outcome
            raise
        finally:
            seconds = time.perf_counter() - started
            self._load.answered(kind, seconds)
            self._telemetry.operation(read.table.logical, kind, side, Role.SHADOW, seconds, outcome)
        return answer

    def _report(self, read: ShadowRead) -> None:
        for discrepancy in read.confirmed:
            try:
                self._sink(discrepancy)
            except Exception as error:  # noqa: BLE001 - the sink is somebody else's, and does I/O
                logger.warning("Recording a discrepancy failed with %s", type(error).__name__)

    def _look_later(self, read: ShadowRead) -> None:
        self._backlog.look_later(read, self._pause_seconds)

    # Counting

    def _tell_share(self, table: str, percent: float, share: float) -> None:
        self._telemetry.record(ShadowShare(table, percent * share))

    def _tell_shares(self, share: float) -> None:
        for table, percent in list(self._percents.items()):
            self._tell_share(table, percent, share)

    def _drop(self, read: ShadowRead, reason: str) -> None:
        self._count_drop(read, reason)
        self._release(read)

    def _count_drop(self, read: ShadowRead, reason: str) -> None:
        if reason in _OVERLOADED:
            self._load.dropped()
        self._telemetry.record(ShadowDropped(read.table.logical, read.operation.name, reason))

    def _release(self, read: ShadowRead) -> None:
        if not self._raises:  # else it was never held
            self._backlog.release(read)


def _is_started(worker: Thread) -> bool:
    return worker.ident is not None


def _note_failure(operation: Operation, error: Exception) -> None:
    # Its text may hold a value.
    logger.warning("Comparing a %s failed with %s", operation.name, type(error).__name__)


_forked_with: "weakref.WeakSet[Shadow]" = weakref.WeakSet()


def _after_fork() -> None:
    for shadow in list(_forked_with):
        shadow.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_OVERLOADED = frozenset({"queue_full", "timeout"})


def _weight(answer: Response | ClientError) -> int:
    """How much room an answer takes in the queue: its number of items."""
    if isinstance(answer, ClientError):
        return 1
    responses = answer.get("Responses")
    if isinstance(responses, dict):
        return sum(map(len, responses.values())) or 1
    return len(responses or ()) or answer.get("Count") or 1
