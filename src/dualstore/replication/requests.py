"""Stamped requests: what dualstore adds to a caller's write, and what it takes out of the reply.

DESIGN, replication protocol, rule 1. Names and values are added under placeholders of our own; a caller's
expression is extended, never rewritten.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dualstore.expressions import LEGACY_PARAMETERS, creates_item, project, touched_paths, with_set_actions
from dualstore.items import PREDECESSOR, STAMP, Item, Key, KeySchema, normalized_item, without_stamps
from dualstore.operations import ConditionalWrite, DeleteItem, PutItem, Request, Response, UpdateItem
from dualstore.replication.stamps import predecessor_of, stamp_of

_STAMP_NAME, _PREDECESSOR_NAME = "#dualstoreStamp", "#dualstorePredecessor"
_STAMP_VALUE, _NONE_VALUE, _MINE_VALUE = ":dualstoreStamp", ":dualstoreNone", ":dualstoreMine"
_SET_STAMP = (
    f"{_PREDECESSOR_NAME} = if_not_exists({_STAMP_NAME}, {_NONE_VALUE}), {_STAMP_NAME} = {_STAMP_VALUE}"
)
_NAMES = {_STAMP_NAME: STAMP, _PREDECESSOR_NAME: PREDECESSOR}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the authority's reply to one write says.

    Attributes:
        response: the response as the caller would have got it without stamps.
        known: whether `predecessor` and `image` are certain, so that the mirror may be written directly.
        predecessor: the stamp that was replaced, or None where there was none.
        image: the item as it is now, its stamp included, or None where it was deleted.
    """

    response: Response
    known: bool = False
    predecessor: bytes | None = None
    image: Item | None = None


def key_of(operation: ConditionalWrite, keys: KeySchema) -> Key:
    """The primary key that a single-item write is about.

    Raises:
        KeyError, RequestRejected: it names no key that the table could have.
    """
    return keys.key_of(operation.item if isinstance(operation, PutItem) else operation.request["Key"])


def is_legacy(request: Request) -> bool:
    """Whether a request still has legacy parameters: `parse` could not say them anew, so they are refused."""
    return not LEGACY_PARAMETERS.isdisjoint(request)


def stamped(operation: ConditionalWrite, stamp: bytes, *, mirrored: bool) -> dict[str, Any] | None:
    """The caller's request with a stamp, asking back what the mirror needs.

    Args:
        operation: the caller's write.
        stamp: the stamp of this attempt.
        mirrored: whether the reply must name the predecessor and, for an update, the new image.

    Returns:
        The request to send, or None where no stamp can be added: a legacy update, and one that only
        takes away.

    Raises:
        RequestRejected: an expression is none.
    """
    return _ADD_STAMP[type(operation)](operation, stamp, mirrored)


def update_with_stamp(request: Request, stamp: bytes) -> dict[str, Any]:
    """An update (of UpdateItem, or in a transaction) that also notes its stamp and the one it replaces."""
    return {
        **request,
        "UpdateExpression": with_set_actions(request.get("UpdateExpression"), _SET_STAMP),
        "ExpressionAttributeNames": {**(request.get("ExpressionAttributeNames") or {}), **_NAMES},
        "ExpressionAttributeValues": {
            **(request.get("ExpressionAttributeValues") or {}),
            _STAMP_VALUE: {"B": stamp},
            _NONE_VALUE: {"NULL": True},
        },
    }


def may_create(request: Request) -> bool:
    """Whether an update brings an absent item into being: one that only takes away does not.

    A stamp would create what the caller did not, so such an update goes without. Source: ScyllaDB issue 5862
    (seen on AWS), and of the older parameters AttributeUpdates in the API Reference: "nothing happens".

    Raises:
        RequestRejected: the expression is not one.
    """
    return creates_item(request.get("UpdateExpression"))


def put_with_stamp(request: Request, stamp: bytes) -> dict[str, Any]:
    """A put (PutItem, in a batch, or in a transaction) whose item carries its stamp."""
    return {**request, "Item": {**request["Item"], STAMP: {"B": stamp}}}


def guarded(request: dict[str, Any], mine: Sequence[bytes]) -> dict[str, Any]:
    """The request, refused where one of my earlier attempts has already been carried out.

    An attempt of mine shows as the item's stamp, or as the stamp that one later update replaced.

    Args:
        request: a stamped request without legacy parameters.
        mine: the stamps of the attempts whose outcome is unknown.
    """
    listed = {f"{_MINE_VALUE}{number}": {"B": stamp} for number, stamp in enumerate(mine)}
    inside = f"IN ({', '.join(listed)})"
    guard = f"NOT ({_STAMP_NAME} {inside}) AND NOT ({_PREDECESSOR_NAME} {inside})"
    condition = request.get("ConditionExpression")
    return request | {
        "ConditionExpression": guard if not condition else f"({condition}) AND {guard}",
        "ExpressionAttributeNames": {**(request.get("ExpressionAttributeNames") or {}), **_NAMES},
        "ExpressionAttributeValues": {**(request.get("ExpressionAttributeValues") or {}), **listed},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def carries(item: Item | None, mine: Sequence[bytes]) -> bool:
    """Whether an item shows that one of my attempts was carried out."""
    return stamp_of(item) in mine or predecessor_of(item) in mine


def read_reply(operation: ConditionalWrite, sent: Request, response: Response, *, mirrored: bool) -> Reply:
    """What the reply to a stamped request means, and the caller's view of it.

    Args:
        operation: the caller's write.
        sent: the stamped request that was answered.
        response: DynamoDB's answer; taken over and changed.
        mirrored: as given to `stamped`.
    """
    returned: Item | None = response.pop("Attributes", None)
    asked = operation.return_values
    if not mirrored:
        return Reply(_with_attributes(response, returned))
    if isinstance(operation, UpdateItem):
        return _read_update(operation, sent, response, returned)
    shown = returned if asked == "ALL_OLD" else None
    # As DynamoDB stores it: `1.0` is `1`.
    image = normalized_item(sent["Item"]) if isinstance(operation, PutItem) else None
    return Reply(_with_attributes(response, shown), known=True, predecessor=stamp_of(returned), image=image)


def unstamped_reply(response: Response) -> Reply:
    """The reply to a request that was sent without a stamp."""
    return Reply(_with_attributes(response, response.pop("Attributes", None)))


def recovered_reply(operation: ConditionalWrite, item: Item, *, current: bool) -> Reply | None:
    """The reply to a write that succeeded but whose reply was lost, as far as the item still tells it.

    Args:
        operation: the caller's write.
        item: the item as a later attempt found it.
        current: whether the write is the last one on the item; else one update has followed it.

    Returns:
        The reply, its image unknown, or None where the values that the caller asked for cannot be told.
    """
    answer: Response = {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0}}
    if operation.return_values == "NONE":
        return Reply(answer)
    if not current or not isinstance(operation, UpdateItem) or not _image_tells(operation):
        return None
    return Reply(_read_update(operation, {"ReturnValues": "ALL_NEW"}, answer, item).response)


def _read_update(operation: UpdateItem, sent: Request, response: Response, returned: Item | None) -> Reply:
    if sent["ReturnValues"] != "ALL_NEW" or returned is None:
        return Reply(_with_attributes(response, returned))
    image = {name: value for name, value in returned.items() if name != PREDECESSOR}
    shown: Item | None = None
    if operation.return_values == "ALL_NEW":
        shown = image
    elif operation.return_values == "UPDATED_NEW" and operation.update is not None:
        shown = project(touched_paths(operation.update), image)
    return Reply(
        _with_attributes(response, shown), known=True, predecessor=predecessor_of(returned), image=image
    )


def _with_attributes(response: Response, attributes: Item | None) -> Response:
    shown = without_stamps(attributes) if attributes else None
    if shown:
        response["Attributes"] = shown
    return response


def _stamp_put(operation: ConditionalWrite, stamp: bytes, mirrored: bool) -> dict[str, Any] | None:  # noqa: FBT001
    request = put_with_stamp(operation.request, stamp)
    if mirrored:
        request["ReturnValues"] = "ALL_OLD"
    return request


def _stamp_delete(operation: ConditionalWrite, stamp: bytes, mirrored: bool) -> dict[str, Any] | None:  # noqa: ARG001, FBT001
    request = dict(operation.request)
    if mirrored:
        request["ReturnValues"] = "ALL_OLD"
    return request


def _stamp_update(operation: ConditionalWrite, stamp: bytes, mirrored: bool) -> dict[str, Any] | None:  # noqa: FBT001
    if is_legacy(operation.request) or not may_create(operation.request):
        return None
    returned = "ALL_NEW" if mirrored and _image_tells(operation) else operation.return_values
    return {**update_with_stamp(operation.request, stamp), "ReturnValues": returned}


def _image_tells(operation: ConditionalWrite) -> bool:
    """Whether the caller's ReturnValues can be computed from the whole new item.

    Old values cannot. Neither can `UPDATED_NEW` of a list element: `SET l[9]` of a short list appends.
    """
    if operation.return_values in {"NONE", "ALL_NEW"}:
        return True
    if operation.return_values != "UPDATED_NEW" or not isinstance(operation, UpdateItem):
        return False
    changes = operation.update
    return changes is None or all(isinstance(step, str) for path in touched_paths(changes) for step in path)


_ADD_STAMP: Mapping[
    type[ConditionalWrite], Callable[[ConditionalWrite, bytes, bool], dict[str, Any] | None]
] = {PutItem: _stamp_put, UpdateItem: _stamp_update, DeleteItem: _stamp_delete}
