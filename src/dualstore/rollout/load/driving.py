"""Drives operations at the pace of a schedule, whatever the answers take."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import DualStoreError
from dualstore.operations import Response
from dualstore.rollout.load.requests import Asked
from dualstore.rollout.load.tally import LATE_SECONDS, UNPROCESSED, Counting, Tally
from dualstore.telemetry import OK

Execute: TypeAlias = Callable[[str, Mapping[str, Any]], Response]
"""Carries out an operation by its name and request."""

_LOOK_SECONDS = 0.5
"""So often a writer that waits looks whether it is to stop."""
_GRACE_SECONDS = 2.0
"""What has not begun so long after the end is not begun any more."""
_SCHEDULING = Path("/proc/thread-self/schedstat")


class Clock(Protocol):
    """Time, as a replay goes by it."""

    def now(self) -> float:
        """Seconds since whenever."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def scheduled(self) -> tuple[float, float]:
        """For how many seconds this thread has had a processor, and has waited for one."""
        ...


class WallClock:
    """Time as it passes."""

    now = staticmethod(time.monotonic)

    @staticmethod
    def sleep(seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    @staticmethod
    def scheduled() -> tuple[float, float]:
        """As the kernel counts it (its sched-stats); nothing where none tells."""
        try:
            ran, waited, _ = _SCHEDULING.read_text().split()
        except (OSError, ValueError):
            return 0.0, 0.0
        return int(ran) / 1e9, int(waited) / 1e9


def drive(
    execute: Execute,
    arrivals: Iterator[tuple[float, Asked]],
    *,
    kinds: int,
    writers: int,
    measured_from: float = 0.0,
    ends: float,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
) -> Tally:
    """Send operations when they are due, in several threads, and count what comes of them.

    The loop is open: nothing waits for the answer of what was due before, as long as a writer is free, and a
    latency is counted from when its operation was due. So a service that stands still for a second has a
    second of late operations, as its callers would.

    Args:
        execute: sends one.
        arrivals: when each is due, in seconds since the beginning, and what it is; in order.
        kinds: how many kinds of operations there are.
        writers: how many may be under way at a time.
        measured_from: what is due earlier is sent, and not counted: the ramp.
        ends: when the last may be due.
        clock: time; None takes it as it passes.
        stop: ends it early when set.

    Returns:
        What was counted.
    """
    driver = _Driver(
        execute, arrivals, Counting(kinds), clock=clock or WallClock(), stop=stop or threading.Event()
    )
    return driver.run(writers, measured_from=measured_from, ends=ends)


class _Driver:
    """Sends arrivals; the arguments are those of `drive`."""

    def __init__(
        self,
        execute: Execute,
        arrivals: Iterator[tuple[float, Asked]],
        counting: Counting,
        *,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._execute = execute
        self._arrivals = arrivals
        self._counting = counting
        self._clock = clock
        self._stop = stop
        self._taking = threading.Lock()

    def run(self, writers: int, *, measured_from: float, ends: float) -> Tally:
        """Send all of them."""
        began, processor = self._clock.now(), time.process_time()

        def write() -> None:
            ran, waited = self._clock.scheduled()
            while (arrival := self._take()) is not None:
                self._carry_out(*arrival, began, is_measured=arrival[0] >= measured_from, ends=ends)
            ran_until, waited_until = self._clock.scheduled()
            self._counting.scheduled(ran=ran_until - ran, waited=waited_until - waited)

        with ThreadPoolExecutor(writers, thread_name_prefix="dualstore-load") as pool:
            for done in [pool.submit(write) for _ in range(writers)]:
                done.result()
        elapsed = self._clock.now() - began
        until = elapsed if self._stop.is_set() else max(elapsed, ends)
        return self._counting.tally(
            elapsed=elapsed,
            seconds=max(until - measured_from, 1e-9),
            processor_percent=100 * (time.process_time() - processor) / max(elapsed, 1e-9),
            writers=writers,
        )

    def _take(self) -> tuple[float, Asked] | None:
        with self._taking:
            return None if self._stop.is_set() else next(self._arrivals, None)

    def _carry_out(
        self, offset: float, asked: Asked, began: float, *, is_measured: bool, ends: float
    ) -> None:
        clock, counting = self._clock, self._counting
        due = began + offset
        if is_measured:
            counting.due(asked.kind)
        free = clock.now() <= due
        while (left := due - clock.now()) > 0 and not self._stop.is_set():
            clock.sleep(min(left, _LOOK_SECONDS))
        sent = clock.now()
        if sent - began > ends + _GRACE_SECONDS:
            if is_measured:
                counting.unbegun(asked.kind)
            return
        if is_measured and sent - due > LATE_SECONDS:
            counting.late(free=free)
        outcome = _outcome(self._execute, asked)
        ended = clock.now()
        counting.done(ended - sent, asked.partitions)
        if is_measured:
            counting.ended(asked.kind, outcome, since_due=ended - due, since_sent=ended - sent)


def _outcome(execute: Execute, asked: Asked) -> str:
    try:
        response = execute(asked.operation, asked.request)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    except (BotoCoreError, DualStoreError) as error:
        return type(error).__name__
    return UNPROCESSED if response.get("UnprocessedItems") or response.get("UnprocessedKeys") else OK
