"""Waiting for a socket of libpq's."""

import select
from collections.abc import Callable

Wait = Callable[[float | None], object]
"""Gives something true once the socket is ready, something false after so many milliseconds; None: never."""


def until_readable(socket: int) -> Wait:
    """Waits until there is something to read, if only the end."""
    return _waiting(socket, write=False)


def until_readable_or_writable(socket: int) -> Wait:
    """Waits until there is something to read or room to write."""
    return _waiting(socket, write=True)


def _waiting(socket: int, *, write: bool) -> Wait:
    if not hasattr(select, "poll"):  # Windows, and greenlets that have put their own in its place
        written = [socket] if write else []
        return lambda ms: any(select.select([socket], written, [], None if ms is None else ms / 1000))
    watch = select.poll()
    watch.register(socket, select.POLLIN | select.POLLOUT if write else select.POLLIN)
    return watch.poll
