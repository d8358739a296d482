"""Hands alerts to channels, each in a thread and a bounded queue of its own: none holds up anything."""

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from dualstore.rollout.alerts.alert import Alert
from dualstore.rollout.alerts.channels import Channel

logger = logging.getLogger(__name__)

_WAITING = 100
_TRIES = 3
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Counts:
    """What came of the alerts of one channel: told, given up after some tries, dropped from a full queue."""

    told: int = 0
    failed: int = 0
    dropped: int = 0


class Dispatch:
    """Tells alerts; whoever hands one over goes on at once, whatever the channels do.

    A channel that takes longer than its time limit holds up its own queue alone; what no longer fits there is
    dropped and counted. Threads are daemons: a process ends though a channel hangs.

    Args:
        channels: to whom, by name.
        timeout: for one try at one alert; a channel is told of it.
        waiting: how many alerts may wait for a channel.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        timeout: timedelta = timedelta(seconds=5),
        waiting: int = _WAITING,
    ) -> None:
        self._lanes = [_Lane(channel, timeout, waiting) for channel in channels]

    def tell(self, alert: Alert) -> None:
        """Have all channels tell an alert; never waits, never fails."""
        for lane in self._lanes:
            lane.put(alert)

    def counts(self) -> Mapping[str, Counts]:
        """What came of the alerts so far, by channel."""
        return {lane.name: lane.counts for lane in self._lanes}

    def close(self, *, patience: timedelta = timedelta(seconds=10)) -> None:
        """Tell what waits, but for no longer than this."""
        ends = time.monotonic() + patience.total_seconds()
        for lane in self._lanes:
            lane.close(max(ends - time.monotonic(), 0.0))


class _Lane:
    """One channel with its queue and its thread."""

    def __init__(self, channel: Channel, timeout: timedelta, waiting: int) -> None:
        self.name = channel.name
        self.counts = Counts()
        self._channel = channel
        self._timeout = timeout
        self._queue: queue.Queue[Alert | None] = queue.Queue(waiting)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, alert: Alert) -> None:
        with self._lock:
            if self._thread is None:
                name = f"dualstore-alerts-{self.name}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
        try:
            self._queue.put_nowait(alert)
        except queue.Full:
            self._count(dropped=1)

    def close(self, seconds: float) -> None:
        self._closing.set()
        if self._thread is None:
            return
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return  # it hangs: what waits there is lost with the process
        self._thread.join(seconds)

    def _run(self) -> None:
        while (alert := self._queue.get()) is not None:
            self._tell(alert)

    def _tell(self, alert: Alert) -> None:
        for number in range(_TRIES):
            try:
                self._channel.deliver(alert, self._timeout)
            except Exception as error:  # noqa: BLE001 - the team's own callable may raise anything
                # Its text may hold the address, which is a secret.
                logger.warning("Alerts cannot be told by %s: %s", self.name, type(error).__name__)
            else:
                self._count(told=1)
                return
            if number + 1 < _TRIES and self._closing.wait(_PAUSE_SECONDS):
                break
        self._count(failed=1)

    def _count(self, *, told: int = 0, failed: int = 0, dropped: int = 0) -> None:
        with self._lock:
            known = self.counts
            self.counts = Counts(known.told + told, known.failed + failed, known.dropped + dropped)
