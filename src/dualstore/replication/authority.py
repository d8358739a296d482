"""Carry out one write at the authority: a stamp per attempt, own retries, a definite answer if there is one.

DESIGN, replication protocol, rule 1: botocore's retries are off for writes, because it repeats a request
whose reply was lost; the repetition then fails on its own condition, or adds 1 twice.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import stamina
from botocore.exceptions import ClientError

from dualstore.errors import RequestRejected
from dualstore.items import without_stamps
from dualstore.operations import ConditionalWrite, DeleteItem, Operation
from dualstore.replication.requests import (
    Reply,
    carries,
    guarded,
    is_legacy,
    read_reply,
    recovered_reply,
    stamped,
    unstamped_reply,
)
from dualstore.replication.stamps import new_stamp, stamp_of
from dualstore.stores.base import Store
from dualstore.stores.dynamo import Outcome, outcome

_CONDITION_FAILED = "ConditionalCheckFailedException"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a write is tried at the authority.

    Attributes:
        attempts: the most attempts, the first one included.
        timeout: no attempt begins later than this after the first.
        first_wait: the wait before the third attempt; doubles from there, with jitter. The second follows
            at once: most lost replies are a single broken connection.
        longest_wait: the most that one wait grows to.
    """

    attempts: int = 6
    timeout: timedelta = timedelta(seconds=15)
    first_wait: timedelta = timedelta(milliseconds=50)
    longest_wait: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write that the authority has carried out.

    Attributes:
        reply: the caller's response, and what the mirror needs.
        stamp: the stamp of the attempt that counted, or None where it was left out.
        certain: whether the mirror may be written directly; False means settle.
    """

    reply: Reply
    stamp: bytes | None
    certain: bool


class WriteRefused(Exception):  # noqa: N818 - carries another exception to the caller's side of the seam
    """The authority did not confirm a write.

    Attributes:
        error: what the caller is to see.
        doubtful: whether some attempt may have been carried out all the same, now or later.
    """

    def __init__(self, error: Exception, *, doubtful: bool) -> None:
        super().__init__(type(error).__name__)
        self.error = error
        self.doubtful = doubtful


def write(store: Store, operation: ConditionalWrite, *, mirrored: bool, policy: RetryPolicy) -> Acknowledged:
    """Carry out one write, however often it must be sent.

    Args:
        store: the authority.
        operation: a PutItem, UpdateItem or DeleteItem as its caller made it.
        mirrored: whether the mirror is to be written next.
        policy: how long to try.

    Raises:
        WriteRefused: with the error that the caller is to see.
    """
    attempts = _Attempts(store, operation, mirrored=mirrored)
    try:
        return attempts.send()
    except Exception as error:
        if not attempts.may_repeat(error):
            raise attempts.refused(error) from error
    try:
        for retry in stamina.retry_context(
            on=attempts.may_repeat,
            attempts=max(policy.attempts - 1, 1),
            timeout=policy.timeout,
            wait_initial=policy.first_wait,
            wait_max=policy.longest_wait,
            wait_jitter=policy.first_wait,
        ):
            with retry:
                return attempts.send()
    except Exception as error:
        raise attempts.refused(error) from error
    raise AssertionError("the retry loop neither returned nor raised")


@dataclass
class _Attempts:
    """The attempts at one write, and what is in doubt about them."""

    store: Store
    operation: ConditionalWrite
    mirrored: bool
    unknown: list[bytes] = field(default_factory=list)
    lost_reply: Exception | None = None
    without_stamp: bool = False
    over: bool = False

    @property
    def doubtful(self) -> bool:
        return self.lost_reply is not None

    def may_repeat(self, error: BaseException) -> bool:
        if not isinstance(error, Exception):
            return False  # whoever interrupts a write wants it ended
        found = outcome(error)
        if self.over or found is Outcome.REFUSED:
            return False
        # Without a stamp nothing would show that the attempt before was carried out.
        return found is Outcome.RETRY or not (self.without_stamp or is_legacy(self.operation.request))

    def refused(self, error: Exception) -> WriteRefused:
        """What the caller is told: after a lost reply nothing but a failed condition is an answer."""
        if self.lost_reply is not None and error_code(error) != _CONDITION_FAILED:
            error = self.lost_reply
        return WriteRefused(error, doubtful=self.doubtful)

    def send(self) -> Acknowledged:
        stamp = new_stamp()
        request = self._stamped(stamp)
        if request is None:
            return self._send_unstamped()
        if self.unknown:
            request = self._guarded(request)
        try:
            response = self.store.execute(type(self.operation)(request))
        except Exception as error:  # noqa: BLE001 - `_failed` raises it again where it does not answer it
            return self._failed(error, stamp)
        reply = read_reply(self.operation, request, response, mirrored=self.mirrored)
        if self.lost_reply is not None and isinstance(self.operation, DeleteItem):
            return self._deleted_again(reply, stamp, self.lost_reply)
        return Acknowledged(reply, stamp, certain=reply.known)

    def _deleted_again(self, reply: Reply, stamp: bytes, lost_reply: Exception) -> Acknowledged:
        """A deletion leaves nothing that would show whether an earlier attempt or this one did it."""
        if self.operation.return_values == "ALL_OLD" and "Attributes" not in reply.response:
            self.over = True
            raise lost_reply  # what was deleted is lost with the reply
        return Acknowledged(reply, stamp, certain=False)

    def _stamped(self, stamp: bytes) -> dict[str, Any] | None:
        if self.without_stamp:
            return None
        try:
            request = stamped(self.operation, stamp, mirrored=self.mirrored)
        except RequestRejected:
            request = None  # refused by the authority, in its own words
        self.without_stamp = request is None
        return request

    def _send_unstamped(self) -> Acknowledged:
        try:
            response = self.store.execute(self.operation)
        except Exception as error:
            self._hide_stamps(error)
            self._note(error)
            raise
        return Acknowledged(unstamped_reply(response), None, certain=False)

    def _guarded(self, request: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(self.operation, DeleteItem):
            return guarded(request, self.unknown)
        if "ConditionExpression" not in request:
            return request
        return request | {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}

    def _failed(self, error: Exception, stamp: bytes) -> Acknowledged:
        """Answer for a failed attempt, or raise what the caller or the retry loop is to see."""
        code = error_code(error)
        if code == "ValidationException" and not self.doubtful:
            # 400 KB, 4 KB of expression, 300 operators: the stamp may be what did not fit.
            self.without_stamp = True
            return self._send_unstamped()
        if code == _CONDITION_FAILED and isinstance(error, ClientError):
            return self._condition_failed(error)
        self._note(error, stamp)
        raise error

    def _condition_failed(self, error: ClientError) -> Acknowledged:
        old = error.response.get("Item")
        if self.unknown and carries(old, self.unknown):
            # My own attempt, whose reply was lost, is what the condition met: the write has succeeded.
            found = recovered_reply(self.operation, old, current=stamp_of(old) in self.unknown)
            if found is not None:
                return Acknowledged(found, None, certain=False)
            # What the caller asked to get back is lost with the reply. Sent again, it might be done twice.
            self.over = True
        elif isinstance(self.operation, DeleteItem) and not old:
            self.over = self.doubtful  # gone, and nobody can tell by whom: the outcome stays unknown
        if self.over and self.lost_reply is not None:
            raise self.lost_reply
        self._hide_stamps(error)
        raise error

    def _hide_stamps(self, error: Exception) -> None:
        if not isinstance(error, ClientError) or (old := error.response.get("Item")) is None:
            return
        if self.operation.returns_old_on_refusal:
            error.response["Item"] = without_stamps(old)
        else:
            del error.response["Item"]

    def _note(self, error: Exception, stamp: bytes | None = None) -> None:
        if outcome(error) is Outcome.UNKNOWN:
            self.lost_reply = error
            if stamp is not None:
                self.unknown.append(stamp)


def error_code(error: BaseException) -> str | None:
    """DynamoDB's code of an error, or None where it is no answer of a store."""
    return error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None


def consistently(operation: Operation) -> Operation:
    """The same read, strongly consistent."""
    return type(operation)({**operation.request, "ConsistentRead": True})
