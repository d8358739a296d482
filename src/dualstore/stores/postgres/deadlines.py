"""A deadline for everything that a thread asks of PostgreSQL, also of a server that has stopped answering.

`statement_timeout` is kept by the server, so it is worth nothing once the server hangs; TCP's own timeouts do
not help either, since the kernel of a hung host still acknowledges. psycopg drives every exchange through
`Connection.wait`, a public method, as a generator that is woken at least every 100 ms: that is where the
deadline is looked at. Connections that the team's own code uses meanwhile behave as ever.
"""

import threading
import time
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import event

_thread = threading.local()


class DeadlinePassed(psycopg.OperationalError):
    """PostgreSQL did not answer in time; the connection is in the middle of an exchange."""


class Deadline:
    """Gives everything that this thread asks of PostgreSQL inside the block this long, all in all.

    An enclosing deadline that ends earlier stays.

    Args:
        patience: how long, from when the block is entered.
    """

    __slots__ = ("_outer", "_patience")

    def __init__(self, patience: timedelta) -> None:
        self._patience = patience

    def __enter__(self) -> None:
        self._outer = outer = _ends()
        ends = time.monotonic() + self._patience.total_seconds()
        _thread.ends = ends if outer is None else min(ends, outer)

    def __exit__(self, *_: object) -> None:
        _thread.ends = self._outer


def install(engine: sqlalchemy.Engine) -> None:
    """Let connections of this engine keep the deadlines that `Deadline` sets; others notice nothing."""
    if not event.contains(engine, "do_connect", _limit_connect):
        event.listen(engine, "do_connect", _limit_connect)
        # Before SQLAlchemy's own listener, which asks the first connection for the server's version.
        event.listen(engine, "connect", _on_connect, insert=True)


def bind(connection: psycopg.Connection[Any]) -> None:
    """Let a connection keep the deadlines of whichever thread uses it."""
    if "wait" in vars(connection):
        return
    wait = connection.wait

    def bounded_wait(exchange: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        ends = _ends()
        return wait(exchange if ends is None else _until(ends, exchange), *args, **kwargs)

    connection.wait = bounded_wait  # type: ignore[assignment,method-assign]


def left_ms(spared_ms: float = 0.0) -> float | None:
    """How long this thread may still wait, in milliseconds, 0 or more; None: for as long as it likes.

    Args:
        spared_ms: of this time, not to be used up.
    """
    ends = _ends()
    return None if ends is None else max(0.0, (ends - time.monotonic()) * 1000 - spared_ms)


def _ends() -> float | None:
    ends: float | None = getattr(_thread, "ends", None)
    return ends


def _until(ends: float, exchange: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """The same exchange, given up at `ends`."""
    try:
        awaited = next(exchange)
        while True:
            ready = yield awaited
            if not ready and time.monotonic() >= ends:
                raise DeadlinePassed("PostgreSQL did not answer in time")
            awaited = exchange.send(ready)
    except StopIteration as end:
        return end.value


def _on_connect(connection: psycopg.Connection[Any], _record: object) -> None:
    bind(connection)


def _limit_connect(_dialect: object, _record: object, _args: object, parameters: dict[str, Any]) -> None:
    ends = _ends()
    if ends is not None:
        patience_s = max(2, round(ends - time.monotonic()))  # libpq: whole seconds, at least two
        given_s = int(float(parameters.get("connect_timeout") or 0))
        parameters["connect_timeout"] = min(given_s, patience_s) if given_s > 0 else patience_s
