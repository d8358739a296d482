"""Several GetItems that wait, asked in one BatchGetItem, where that answers each of them the same."""

from collections.abc import Hashable, Sequence

from dualstore.errors import RequestRejected
from dualstore.items import Item, TableShape, key_bytes
from dualstore.operations import BatchGetItem, GetItem, Operation, Response

MAX_KEYS = 100
"""Amazon DynamoDB API Reference, BatchGetItem."""

_SHARED = ("ConsistentRead", "ProjectionExpression", "ExpressionAttributeNames")
_CARRIED = frozenset({"TableName", "Key", "ReturnConsumedCapacity", *_SHARED})


def group_of(operation: Operation, shape: TableShape) -> Hashable | None:
    """What reads must have in common to be asked together; None for one that is to be asked alone.

    Alone are asked: what is no GetItem, and a projection that leaves out the key, by which answers are told
    apart.

    Args:
        operation: a read that was answered: what is refused, the refusal is its own.
        shape: its table.
    """
    request = operation.request
    if not isinstance(operation, GetItem) or not request.keys() <= _CARRIED:
        return None
    if "ProjectionExpression" not in request:  # nearly all, and this is done for every read
        return request["TableName"], operation.consistent
    try:
        projected = operation.projection or ()
    except RequestRejected:
        return None
    if not {(name,) for name in shape.keys.names} <= set(projected):
        return None
    names = tuple(sorted(operation.names.items()))
    return request["TableName"], operation.consistent, request["ProjectionExpression"], names


def together(shape: TableShape, gets: Sequence[GetItem]) -> BatchGetItem:
    """One operation for GetItems of one group; keys that are asked for twice are in it once."""
    first = gets[0].request
    shared = {name: first[name] for name in _SHARED if name in first}
    keys = {key_bytes(shape.keys, get.key): get.key for get in gets}
    return BatchGetItem({"RequestItems": {shape.name: {"Keys": list(keys.values()), **shared}}})


def apart(shape: TableShape, gets: Sequence[GetItem], response: Response) -> list[Response | None]:
    """What each GetItem would have been answered, in their order; None where its key was left unprocessed."""
    found = _by_key(shape, response["Responses"].get(shape.name, ()))
    unprocessed = (response.get("UnprocessedKeys") or {}).get(shape.name, {}).get("Keys", ())
    left_out = _by_key(shape, unprocessed).keys()
    names = [key_bytes(shape.keys, get.key) for get in gets]
    return [None if name in left_out else {"Item": found[name]} if name in found else {} for name in names]


def _by_key(shape: TableShape, items: Sequence[Item]) -> dict[bytes, Item]:
    return {key_bytes(shape.keys, item): item for item in items}
