"""Deferred mirroring: the caller is answered by the authority alone, its key is settled a moment later.

What is queued here is an unfinished write of this process, and is counted as one until the key is settled or
recorded as doubtful: a stage may not change behind its back, and a process that dies with a queue is suspect.
DESIGN, replication protocol, rules 3, 4 and 8.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from threading import Condition, Thread
from typing import Self

from dualstore.items import Key, key_bytes
from dualstore.replication.clocks import SYSTEM_CLOCK, Clock
from dualstore.replication.served import ServedTable

logger = logging.getLogger(__name__)

Settle = Callable[[ServedTable, Sequence[Key]], object]
"""Settles different keys of a table, or records them as doubtful, before it returns; `Mirroring.settle`."""

Unfinished = Callable[[str, int], AbstractContextManager[object]]
"""Counts a write of a table (physical name), begun under a generation, as unfinished while it is open.

Entering it neither waits nor fails. It is left by another thread than entered it.
"""


@dataclass(frozen=True, slots=True)
class Deferral:
    """What a process has put off, at one moment.

    Attributes:
        waiting: keys that wait or are at work.
        oldest_age: how long the oldest of them has waited; zero where there is none.
        settled: keys that are done with, since the start.
        coalesced: writes whose key was waiting already.
        refused: writes that found no room, and were mirrored by their callers.
    """

    waiting: int
    oldest_age: timedelta
    settled: int
    coalesced: int
    refused: int


@dataclass(slots=True, eq=False)
class _Waiting:
    """A key that waits, under the oldest generation that any of its writes began under."""

    table: ServedTable
    key: Key
    name: bytes
    since: float
    generation: int
    unfinished: ExitStack

    def count_under(self, generation: int, unfinished: ExitStack) -> None:
        """Count as unfinished under an older generation; what counted it so far is left to the caller."""
        mine, self.unfinished = self.unfinished, unfinished.pop_all()
        unfinished.push(mine)
        self.generation = generation


class Deferred:
    """A bounded queue of keys to settle, and the threads that do it; a context manager that drains it.

    Args:
        settle: settles keys, or records them as doubtful; what it raises is tried again.
        unfinished: keeps a write counted as unfinished.
        capacity_keys: the most keys that wait or are at work.
        workers: how many threads; started by the first key, daemons.
        batch_keys: the most keys of a table that are settled together.
        retry_pause: how long a worker rests after `settle` has raised.
        clock: measures ages and pauses.
    """

    def __init__(
        self,
        settle: Settle,
        unfinished: Unfinished,
        *,
        capacity_keys: int = 10_000,
        workers: int = 2,
        batch_keys: int = 25,
        retry_pause: timedelta = timedelta(seconds=1),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._settle = settle
        self._unfinished = unfinished
        self._capacity = capacity_keys
        self._batch = batch_keys
        self._retry_seconds = retry_pause.total_seconds()
        self._clock = clock
        self._changed = Condition()
        self._queues: dict[str, dict[bytes, _Waiting]] = {}  # each in the order of `since`
        self._at_work: list[_Waiting] = []
        self._settled = self._coalesced = self._refused = 0
        self._closing = False
        self._threads = [
            Thread(target=self._work, name=f"dualstore-deferred-{n}", daemon=True) for n in range(workers)
        ]
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, table: ServedTable, key: Key, *, generation: int) -> bool:
        """Have a key settled soon. Never waits for either side.

        Call it after the authority's reply, and while the write itself still counts as unfinished.

        Args:
            table: the table.
            key: the key that was written.
            generation: of the control record that the write began under.

        Returns:
            False where there is no room, or the queue is being closed: the caller mirrors the write itself.
        """
        name = key_bytes(table.shape.keys, key)
        with ExitStack() as held:
            held.enter_context(self._unfinished(table.physical, generation))
            with self._changed:
                waiting = self._queues.get(table.physical, {}).get(name)
                accepted = waiting is not None or self._has_room
                if waiting is not None:
                    # It has not been read at the authority yet: it will be read after this write, too.
                    self._coalesced += 1
                    if generation < waiting.generation:
                        waiting.count_under(generation, held)
                elif accepted:
                    since = self._clock.now()
                    self._enqueue(_Waiting(table, key, name, since, generation, held.pop_all()))
                    self._changed.notify_all()  # one waiter of `drain` might take the call for itself
                else:
                    self._refused += 1
        return accepted

    def seen(self) -> Deferral:
        """What waits now, and what has become of the rest."""
        with self._changed:
            waiting = [*self._at_work, *(next(iter(queue.values())) for queue in self._queues.values())]
            oldest = min((each.since for each in waiting), default=None)
            return Deferral(
                waiting=self._size,
                oldest_age=timedelta(seconds=0 if oldest is None else self._clock.now() - oldest),
                settled=self._settled,
                coalesced=self._coalesced,
                refused=self._refused,
            )

    def drain(self, *, timeout: timedelta = timedelta(seconds=10)) -> bool:
        """Wait until nothing is put off any more; False where that has not come about in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._size, timeout.total_seconds())

    def close(self, *, timeout: timedelta = timedelta(seconds=10)) -> bool:
        """Take nothing more, settle what waits, and end the threads.

        Returns:
            False where keys are left: they stay counted as unfinished, so that the process, which ends
            without them, is suspect.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        drained = self.drain(timeout=timeout)
        if drained and self._started:
            for thread in self._threads:
                thread.join(timeout.total_seconds())
        return drained

    @property
    def _size(self) -> int:
        return len(self._at_work) + sum(map(len, self._queues.values()))

    @property
    def _has_room(self) -> bool:
        return not self._closing and self._size < self._capacity

    def _enqueue(self, waiting: _Waiting) -> None:
        self._queues.setdefault(waiting.table.physical, {})[waiting.name] = waiting
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()

    def _work(self) -> None:
        while batch := self._next():
            failure: Exception | None = None
            try:
                self._settle(batch[0].table, [each.key for each in batch])
            except Exception as error:  # noqa: BLE001 - neither settled nor recorded: both sides are away
                failure = error
            self._finished(batch, failure)

    def _next(self) -> Sequence[_Waiting]:
        """The keys to settle next, all of one table; none where the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._queues or self._closing)
            if not self._queues:
                return ()
            table, queue = min(self._queues.items(), key=lambda entry: next(iter(entry[1].values())).since)
            batch = [queue.pop(name) for name in list(islice(queue, self._batch))]
            if not queue:
                del self._queues[table]
            self._at_work += batch
            return batch

    def _finished(self, batch: Sequence[_Waiting], failure: Exception | None) -> None:
        if failure is not None:
            logger.warning(
                "%d deferred keys of %s could neither be settled nor recorded: %s",
                *(len(batch), batch[0].table.logical, type(failure).__name__),
            )
            self._clock.sleep(self._retry_seconds)
        else:
            for each in batch:
                each.unfinished.close()
        with self._changed:
            self._at_work = [each for each in self._at_work if each not in batch]
            if failure is not None:
                self._put_back(batch)
            else:
                self._settled += len(batch)
            self._changed.notify_all()

    def _put_back(self, batch: Sequence[_Waiting]) -> None:
        """Let keys wait again, at the head, together with what was written to them meanwhile."""
        table = batch[0].table.physical
        newer = self._queues.pop(table, {})
        for each in batch:
            again = newer.pop(each.name, None)
            if again is not None:
                with again.unfinished as unneeded:
                    if again.generation < each.generation:
                        each.count_under(again.generation, unneeded)
        self._queues[table] = {each.name: each for each in batch} | newer
