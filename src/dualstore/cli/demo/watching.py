"""Watches a demonstration from beside it: a sample a second, and where the migration stands."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.cli.demo.measures import SIDE_NAMES
from dualstore.cli.demo.timeline import SAMPLE_SECONDS, Standing, Timeline
from dualstore.control import Gate
from dualstore.errors import DualStoreError, Unavailable
from dualstore.store import TableStatus

_LOOK_SECONDS = 0.15


class Watch:
    """Looks at the table's status again and again; a context manager.

    Args:
        timeline: takes where the migration stands.
        status: looks; that costs both databases a few round trips.
        pause: the time between two looks, where nobody waits for something.
    """

    def __init__(
        self,
        timeline: Timeline,
        status: Callable[[], TableStatus],
        *,
        pause: timedelta = timedelta(seconds=1),
    ) -> None:
        self._timeline = timeline
        self._status = status
        self._pause_seconds = pause.total_seconds()
        self._in_doubt_since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def until(self, reached: Callable[[TableStatus], bool], *, what: str, patience: timedelta) -> None:
        """Looks until there is what is waited for.

        Args:
            reached: tells whether a status does; called in the caller's thread, may take its time.
            what: what is waited for, for the error.
            patience: how long to wait.

        Raises:
            Unavailable: it has not come in time.
        """
        deadline = time.monotonic() + patience.total_seconds()
        while True:
            status = self._look()
            if status is not None and reached(status):
                return
            if time.monotonic() > deadline:
                seen = "no status could be had" if status is None else str(status)
                raise Unavailable(f"waited in vain for {what}: {seen}")
            time.sleep(_LOOK_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(self._pause_seconds):
            self._look()

    def _look(self) -> TableStatus | None:
        """The status now; None where it could not be had."""
        try:
            seen = self._status()
        except (DualStoreError, ClientError, BotoCoreError):
            return None
        self._timeline.standing = self._standing(seen)
        return seen

    def _standing(self, seen: TableStatus) -> Standing:
        pending = seen.pending or seen.dirty_keys is None
        waiting = seen.outbox
        self._in_doubt_since = (self._in_doubt_since or time.monotonic()) if pending else None
        since = self._in_doubt_since
        return Standing(
            stage=seen.record.stage,
            authority=SIDE_NAMES[seen.record.authority],
            postgres_read_percent=seen.record.dials.postgres_read_percent,
            gate="open" if seen.record.gate is Gate.OPEN and not seen.record.suspects else "shut",
            dirty_keys=seen.dirty_keys,
            journal_entries=seen.journal_keys,
            suspects=len(seen.record.suspects),
            lag_seconds=0.0 if since is None else time.monotonic() - since,
            outbox_entries=None if waiting is None else waiting.entries,
            outbox_seconds=0.0 if waiting is None else waiting.oldest_age.total_seconds(),
        )


@contextmanager
def sampling(timeline: Timeline) -> Iterator[None]:
    """Closes a sample of the timeline every second."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            timeline.sample()

    thread = threading.Thread(target=run, name="sampler", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        timeline.sample()
