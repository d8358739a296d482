"""One write that brings DynamoDB after PostgreSQL: what to send for a key, and what its answer means."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

from dualstore.items import (
    MAX_ITEM_SIZE_BYTES,
    PREDECESSOR,
    STAMP,
    AttributeValue,
    Item,
    Key,
    TableShape,
    item_size_bytes,
    items_equal,
)
from dualstore.operations import ConditionalWrite, DeleteItem, PutItem, TransactWriteItems
from dualstore.stores.dynamo import Outcome, outcome
from dualstore.stores.outbox import Onto, Sending

_KEY_NAME, _STAMP_NAME, _SEEN_VALUE = "#dualstoreKey", "#dualstoreStamp", ":dualstoreSeen"


class Verdict(StrEnum):
    """What came of a key."""

    EQUAL = "equal"
    """Both sides held the same, stamp included: nothing was sent."""
    CREATED = "created"
    REPLACED = "replaced"
    DELETED = "deleted"
    CHANGED = "changed"
    """DynamoDB held something else by then: to be settled afresh."""
    UNKNOWN = "unknown"
    """No answer: to be settled afresh, or sent again under its token."""
    THROTTLED = "throttled"
    """Not carried out, and may be if it is sent again."""
    REFUSED = "refused"
    """DynamoDB does not take this item."""
    DENIED = "denied"
    """DynamoDB takes nothing: a permission, a missing table."""
    STALE = "stale"
    """Not sent: the lane's lease is over."""


DONE = frozenset({Verdict.EQUAL, Verdict.CREATED, Verdict.REPLACED, Verdict.DELETED})
"""DynamoDB now holds what PostgreSQL held when it was read."""
STRAINED = frozenset({Verdict.UNKNOWN, Verdict.THROTTLED, Verdict.DENIED})
"""The lane should be given a pause."""


@dataclass(frozen=True, slots=True)
class Step:
    """A conditional write of one key.

    Attributes:
        key: the primary key.
        image: what DynamoDB is to hold, or None.
        onto: what it must hold for that: an item with this stamp, or what no stamp names.
    """

    key: Key
    image: Item | None
    onto: AttributeValue | Onto

    @property
    def repeatable(self) -> bool:
        """Whether its condition could be met again later, so that it needs a token."""
        return isinstance(self.onto, Onto)

    @property
    def done(self) -> Verdict:
        """What has come of the key once this is carried out."""
        if self.image is None:
            return Verdict.DELETED
        return Verdict.CREATED if self.onto is Onto.NOTHING else Verdict.REPLACED

    def marked(self) -> Sending:
        """This write under a token of its own.

        Not one derived from key and stamp: where an item was created and then deleted by a stranger (a TTL, a
        console) within ten minutes, creating it again under the same token would be answered with success,
        and not be carried out.
        """
        assert isinstance(self.onto, Onto)  # noqa: S101 - `repeatable` says so
        return Sending(self.image, self.onto, str(uuid.uuid4()))


def step(key: Key, *, theirs: Item | None, ours: Item | None) -> Step | None:
    """What brings DynamoDB after PostgreSQL for a key.

    Equal items with different stamps are not equal. Suppose DynamoDB holds A under stamp 1, a worker that saw
    B (stamp 2) in PostgreSQL sent "B onto 1" and died, and PostgreSQL holds A again, under stamp 3. Were
    nothing written now, the dead worker's request could still be carried out, and B would stay.

    Args:
        key: the primary key.
        theirs: what DynamoDB held, read consistently.
        ours: what PostgreSQL held at some moment *after* that.

    Returns:
        The write to send, or None where there is nothing to do.
    """
    image = None if ours is None else fitting(ours)
    if theirs is None:
        return None if image is None else Step(key, image, Onto.NOTHING)
    shown = {name: value for name, value in theirs.items() if name != PREDECESSOR}
    if image is not None and items_equal(image, shown, ignore_stamps=False):
        return None
    return Step(key, image, shown.get(STAMP, Onto.UNSTAMPED))


def conditional(shape: TableShape, step: Step) -> ConditionalWrite:
    """The step as a PutItem or DeleteItem."""
    body = _body(shape, step)
    return DeleteItem(body) if step.image is None else PutItem(body)


def transaction(shape: TableShape, key: Key, sending: Sending) -> TransactWriteItems:
    """A write as a transaction of one action: carried out once for each token in ten minutes."""
    kind = "Delete" if sending.image is None else "Put"
    body = _body(shape, Step(key, sending.image, sending.onto))
    return TransactWriteItems({"TransactItems": [{kind: body}], "ClientRequestToken": sending.token})


def verdict_of(error: Exception) -> Verdict:
    """What an exception of a DynamoDB client says of the write that it ended; see `stores.dynamo.outcome`."""
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        reasons = {str(reason.get("Code")) for reason in error.response.get("CancellationReasons", ())}
        for named, verdict in _VERDICTS.items():
            if code == named or (code == "TransactionCanceledException" and named in reasons):
                return verdict
    return _OTHERWISE[outcome(error)]


def reason_of(error: Exception) -> str:
    """A refusal in words without an item's value: DynamoDB's code."""
    if not isinstance(error, ClientError):
        return type(error).__name__
    reasons = [reason.get("Code") for reason in error.response.get("CancellationReasons", ())]
    named = [str(reason) for reason in reasons if reason and reason != "None"]
    return named[0] if named else str(error.response.get("Error", {}).get("Code"))


# AWS, "Error handling with DynamoDB", and TransactWriteItems, for the reasons of a cancelled transaction.
_VERDICTS: Mapping[str, Verdict] = {
    "ConditionalCheckFailedException": Verdict.CHANGED,
    "ConditionalCheckFailed": Verdict.CHANGED,
    "IdempotentParameterMismatchException": Verdict.CHANGED,  # never to be carried out under this token
    "ValidationException": Verdict.REFUSED,
    "ValidationError": Verdict.REFUSED,
    "ItemCollectionSizeLimitExceededException": Verdict.REFUSED,
    "ItemCollectionSizeLimitExceeded": Verdict.REFUSED,
}
_OTHERWISE: Mapping[Outcome, Verdict] = {
    Outcome.REFUSED: Verdict.DENIED,
    Outcome.RETRY: Verdict.THROTTLED,
    Outcome.UNKNOWN: Verdict.UNKNOWN,
}


def fitting(item: Item) -> Item:
    """The item as it is sent: without its stamp where that would make it too large."""
    if STAMP not in item or item_size_bytes(item) <= MAX_ITEM_SIZE_BYTES:
        return item
    return {name: value for name, value in item.items() if name != STAMP}


def _body(shape: TableShape, step: Step) -> dict[str, Any]:
    written = {"Key": step.key} if step.image is None else {"Item": step.image}
    return {"TableName": shape.name, **written, **_condition(shape, step.onto)}


def _condition(shape: TableShape, onto: AttributeValue | Onto) -> dict[str, Any]:
    key, stamp = {_KEY_NAME: shape.keys.partition.name}, {_STAMP_NAME: STAMP}
    if onto is Onto.NOTHING:
        return {
            "ConditionExpression": f"attribute_not_exists({_KEY_NAME})",
            "ExpressionAttributeNames": key,
        }
    if onto is Onto.UNSTAMPED:
        return {
            "ConditionExpression": f"attribute_exists({_KEY_NAME}) AND attribute_not_exists({_STAMP_NAME})",
            "ExpressionAttributeNames": key | stamp,
        }
    return {
        "ConditionExpression": f"{_STAMP_NAME} = {_SEEN_VALUE}",
        "ExpressionAttributeNames": stamp,
        "ExpressionAttributeValues": {_SEEN_VALUE: onto},
    }
