"""The reads that wait to be compared: bounded, taken by the handful, some to be looked at again later."""

import heapq
import time
from dataclasses import dataclass, field
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Condition, Lock
from typing import Literal

from dualstore.operations import GetItem
from dualstore.shadow.judging import ShadowRead


@dataclass(order=True, slots=True)
class _Later:
    due: float
    read: ShadowRead = field(compare=False)


_Signal = Literal["look again", "stop"]


class Backlog:
    """Holds reads from when they are handed in until they are done with; safe to share by threads.

    Args:
        size: the most there is room for, by the reads' weights. These count items: what items hold is kept
            alive by them, 400 KB each at the most.
        handful: the most reads that are taken at once.
        linger: how long `take` waits for more GetItems, to be asked together.
    """

    def __init__(self, size: int, *, handful: int, linger: timedelta) -> None:
        self._size = size
        self._handful = handful
        self._linger_seconds = linger.total_seconds()
        self._queue: SimpleQueue[ShadowRead | _Signal] = SimpleQueue()
        self._waiting: list[_Later] = []
        self._held = 0
        self._lock = Lock()
        self._idle = Condition(self._lock)
        self._taking = Lock()
        self.closed = False

    @property
    def filled(self) -> float:
        """How full it is, from 0 to 1, or more where it holds one page that is larger than all of it."""
        return self._held / self._size

    def put(self, read: ShadowRead) -> bool:
        """Take a read in; False where there is no room, or no longer. Never waits."""
        with self._lock:
            # A page that is larger than all the room has its turn when nothing else is there.
            has_room = not self._held or self._held + read.weight <= self._size
            if not has_room or self.closed:
                return False
            self._held += read.weight
            self._queue.put(read)
            return True

    def take(self) -> list[ShadowRead]:
        """The next reads to look at: one whose pause is over, or those that wait longest; none to stop.

        One thread takes at a time: two that gathered reads would each have half of them.
        """
        with self._taking:
            while True:
                with self._lock:
                    pause = max(0.0, self._waiting[0].due - time.monotonic()) if self._waiting else None
                    if pause == 0 and not self.closed:
                        return [heapq.heappop(self._waiting).read]
                try:
                    following = self._queue.get(timeout=pause)
                except Empty:
                    continue
                if following == "stop":
                    return []
                if isinstance(following, ShadowRead):
                    return self._with_others(following)

    def _with_others(self, first: ShadowRead) -> list[ShadowRead]:
        """A read and those behind it, after a moment in which there may be more of them."""
        if isinstance(first.operation, GetItem) and self._queue.qsize() + 1 < self._handful:
            time.sleep(self._linger_seconds)
        taken = [first]
        while len(taken) < self._handful:
            try:
                following = self._queue.get_nowait()
            except Empty:
                break
            if not isinstance(following, ShadowRead):
                self._queue.put(following)
                break
            taken.append(following)
        return taken

    def look_later(self, read: ShadowRead, pause_seconds: float) -> None:
        """Hand a read out again after a pause."""
        with self._lock:
            heapq.heappush(self._waiting, _Later(time.monotonic() + pause_seconds, read))
        # The workers that wait without end for something to come now learn that this will.
        self._queue.put("look again")

    def release(self, *reads: ShadowRead) -> None:
        """Reads are done with: there is room again."""
        with self._idle:
            self._held -= sum([read.weight for read in reads])
            if not self._held:
                self._idle.notify_all()

    def drain(self, timeout: timedelta) -> bool:
        """Wait until every read is done with; False when time ran out."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._held, timeout.total_seconds())

    def close(self, *, takers: int) -> None:
        """Take nothing in any more, and have so many takers stop."""
        self.closed = True
        for _ in range(takers):
            self._queue.put("stop")

    def left_over(self) -> list[ShadowRead]:
        """The reads that were to be looked at later, once nobody takes any more."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        return [later.read for later in waiting]
