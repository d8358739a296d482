"""What PostgreSQL answers on one connection, read from libpq until the deadline of the thread.

psycopg does the same with generators, one inside the other, which a wait function drives. That takes a third
more of the client's processor for two empty statements in a pipeline.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import ExecStatus

from dualstore.stores.postgres import deadlines, sockets

logger = logging.getLogger(__name__)

_ENDS_EARLY = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH, ExecStatus.PIPELINE_SYNC)


class Late(NamedTuple):
    """What is done about statements that are late.

    Attributes:
        spared_ms: how long before the thread's deadline they are.
        cancel: cancels them.
    """

    spared_ms: float
    cancel: Callable[[], object]


class Wire:
    """The results of statements that are queued in libpq.

    Args:
        connection: its socket stays the same for as long as it lives.
    """

    __slots__ = ("_pgconn", "_readable", "_writable")

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._pgconn = connection.pgconn
        socket = self._pgconn.socket
        self._readable = sockets.until_readable(socket)
        self._writable = sockets.until_readable_or_writable(socket)

    def results(self, late: Late | None = None) -> list[Any]:
        """Send what is queued, and read what is answered, up to the Sync in a pipeline.

        Args:
            late: what is done, once, about an answer that is late; then it is waited for until the deadline.

        Returns:
            libpq's, one for each message. A failure of the commit that a Sync implies comes as one more.

        Raises:
            psycopg.OperationalError: the connection is lost.
            DeadlinePassed: there was no answer in time; the connection is in the middle of an exchange.
        """
        pgconn = self._pgconn
        while pgconn.flush():
            _wait(self._writable, 0.0)
            if self._readable(0):  # a server that answers meanwhile may wait for us to read
                pgconn.consume_input()
        results = self._read(late)
        deliver_notifications(pgconn)
        return results

    def _read(self, late: Late | None) -> list[Any]:
        pgconn, readable = self._pgconn, self._readable
        results: list[Any] = []
        between = False
        while True:
            while pgconn.is_busy():
                try:
                    _wait(readable, 0.0 if late is None else late.spared_ms)
                except deadlines.DeadlinePassed:
                    if late is None:
                        raise
                    late.cancel()
                    late = None
                else:
                    pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                # Behind each statement's results, and behind all of them where there is no pipeline.
                if results and not pgconn.pipeline_status:
                    return results
                if between:
                    raise psycopg.OperationalError("the connection was lost before the last answer")
                between = True
                continue
            between = False
            if result.status in _ENDS_EARLY:
                return results
            results.append(result)


def deliver_notifications(pgconn: Any) -> None:
    """Hand what has been notified meanwhile to psycopg, which keeps it for the application.

    What a handler raises is logged, and hides no answer: the write may have been committed.
    """
    while notification := pgconn.notifies():
        if pgconn.notify_handler:
            _deliver(pgconn.notify_handler, notification)


@contextmanager
def failing_handlers_logged(pgconn: Any) -> Iterator[None]:
    """Have psycopg deliver notifications as `deliver_notifications` does."""
    handler = pgconn.notify_handler
    pgconn.notify_handler = handler and partial(_deliver, handler)
    try:
        yield
    finally:
        pgconn.notify_handler = handler


def _deliver(handler: Callable[[Any], object], notification: Any) -> None:
    try:
        handler(notification)
    except Exception as failure:  # noqa: BLE001 - whatever an application raises
        # As psycopg does for handlers of notices; of the failure only its type, since payloads may be values.
        logger.warning("A handler of notifications failed: %s", type(failure).__name__)


def _wait(ready: Callable[[float | None], object], spared_ms: float) -> None:
    """Wait until a socket is ready.

    Args:
        ready: waits so many milliseconds.
        spared_ms: how much of the time that is left is not to be used up.

    Raises:
        DeadlinePassed: it was not in time.
    """
    while not ready(left_ms := deadlines.left_ms(spared_ms)):
        if left_ms is not None and not deadlines.left_ms(spared_ms):
            raise deadlines.DeadlinePassed("PostgreSQL did not answer in time")
