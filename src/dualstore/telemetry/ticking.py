"""Something that is done again and again in a thread of its own."""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

logger = logging.getLogger(__name__)

_JOIN_SECONDS = 5.0


class Ticker:
    """Does something again and again, whatever becomes of it, until it is closed.

    Args:
        name: of the thread.
        act: what to do.
        pause: how long to wait before each time.
    """

    def __init__(self, name: str, act: Callable[[], object], *, pause: timedelta) -> None:
        self._name = name
        self._act = act
        self._pause_seconds = pause.total_seconds()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; harmless where it has begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End, after what is being done."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
            self._thread = None

    def _run(self) -> None:
        while not self._stop.wait(self._pause_seconds):
            try:
                self._act()
            except Exception:
                logger.exception("A round of %s failed; the next one follows", self._name)
