"""What bulk jobs share: their segments on a few threads, and patience with a database that is away."""

import contextvars
import gc
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import stamina

from dualstore.errors import MirrorFenced, StorageFull, Unavailable

T = TypeVar("T")

_FIRST_PAUSE = timedelta(milliseconds=50)
_LONGEST_PAUSE = timedelta(seconds=5)
_KEPT_BYTES = 31 * 1024 * 1024  # just below the most that glibc adapts to


def each_segment(
    work: Callable[[int, threading.Event], None], segments: Iterable[int], *, workers: int
) -> None:
    """Do the work of every segment, some at a time.

    Args:
        work: takes the segment's number and an event: once that is set, it returns at the next page.
        segments: their numbers.
        workers: how many threads.

    Raises:
        BaseException: the first error of any segment, after all threads have ended.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="segment") as pool:
        # Each in a copy of the caller's context, so that spans find their parent.
        futures = [pool.submit(contextvars.copy_context().run, work, each, stop) for each in segments]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def patiently(call: Callable[[int], T], patience: timedelta) -> T:
    """Call again, with growing pauses, for as long as a database is away.

    Args:
        call: takes the number of the attempt, from 1.
        patience: how long to keep trying after the first failure.

    Raises:
        Unavailable: the last one, when patience has ended; at once `MirrorFenced`, since the same call can
            never succeed, and `StorageFull`, since trying again takes what room there is from others.
    """
    for attempt in stamina.retry_context(
        on=_may_pass,
        attempts=None,
        timeout=patience,
        wait_initial=_FIRST_PAUSE,
        wait_max=_LONGEST_PAUSE,
    ):
        with attempt:
            return call(attempt.num)
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector away from a piece of work whose objects are all alive until they are freed.

    Parsing a page of 4,000 items makes tens of thousands of dictionaries and no cycle; to go through them
    again and again takes three times as long as to make them. This is for the whole process, so for processes
    that do little else.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def keep_freed_memory() -> None:
    """Have the C library keep what a batch frees for the next one, in a process that does little else.

    Memory given back to the system comes again page by page, which took a tenth of the time of reading and
    transcoding. glibc keeps twice the size of the largest block that was mapped for itself and freed since
    (mallopt(3), M_MMAP_THRESHOLD); so one is, never touched. Elsewhere nothing happens.
    """
    bytes(_KEPT_BYTES)


def _may_pass(error: Exception) -> bool:
    return isinstance(error, Unavailable) and not isinstance(error, MirrorFenced | StorageFull)
