"""A last look before a request leaves: taken after it was signed.

A process may be stopped for minutes between any two of its instructions. Whatever it checks before it calls
boto3 it has checked before the request was signed, and a signature made after the pause is as good as new.
A look taken *after* signing makes the pause harmless: AWS refuses a signature more than five minutes old.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_Check = Callable[[], None]

_last_check: ContextVar[_Check | None] = ContextVar("dualstore_last_check", default=None)


class LeaseOver(Exception):  # noqa: N818 - control flow of whoever checks
    """The request was not sent: the sender's lease is over."""


@contextmanager
def checked_last(check: _Check) -> Iterator[None]:
    """Have clients that `watch` knows call this just before a request of this thread leaves.

    Args:
        check: raises LeaseOver where the request must not leave.
    """
    token = _last_check.set(check)
    try:
        yield
    finally:
        _last_check.reset(token)


def watch(client: Any) -> None:
    """Let a boto3 DynamoDB client take the look; requests without one notice nothing."""
    client.meta.events.register_last("before-send.dynamodb", _look, unique_id="dualstore-last-look")


def _look(**_: Any) -> None:
    check = _last_check.get()
    if check is not None:
        check()
