"""What is kept of an operation until it is written: its kind, numbers, and the bytes of its keys."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dualstore.items import Key, KeySchema, TableShape, item_size_bytes, key_bytes, partition_bytes
from dualstore.operations import (
    BatchGetItem,
    BatchWriteItem,
    DeleteItem,
    GetItem,
    Operation,
    PagedRead,
    PutItem,
    Query,
    Response,
    Scan,
    TransactGetItems,
    Transaction,
    TransactWriteItems,
    UpdateItem,
)


class KeySeen(NamedTuple):
    """A key in the clear, in memory only.

    Attributes:
        partition: `partition_bytes` of it.
        item: `key_bytes` of it; None for a whole partition.
        act: as `lines.Touch.act`.
        size_bytes: what is written there, or was read; 0: not told.
    """

    partition: bytes
    item: bytes | None
    act: str = ""
    size_bytes: int = 0


class Seen(NamedTuple):
    """An operation on one table; the fields are those of `lines.Note`."""

    at: float
    table: str
    operation: str
    index_name: str
    consistent: bool
    conditional: bool
    ranged: bool
    limit: int
    answered: int
    keys: Sequence[KeySeen]


def seen(
    operation: Operation, shape: TableShape, response: Response | None, *, at: float, table: str
) -> Seen:
    """What is to be noted of an operation.

    Args:
        operation: as it came.
        shape: of the table that is asked about: the only one, or one of several.
        response: the answer, if there was one.
        at: when it came.
        table: the table's logical name.

    Raises:
        RequestRejected, KeyError, TypeError, ValueError, AttributeError: the request is malformed.
    """
    request = operation.request
    index, ranged = "", False
    if isinstance(operation, Query):
        index = operation.index or ""
        keys = shape.indexes[index].keys if index else shape.keys
        asked = operation.key_condition(keys)
        ranged = asked.sort is not None
        touched = [KeySeen(partition_bytes(keys, {keys.partition.name: asked.partition}), None)]
    elif isinstance(operation, Scan):
        index, touched = operation.index or "", []
    else:
        touched = list(_KEYS[type(operation)](operation, shape, response))
    return Seen(
        at,
        table,
        operation.name,
        index,
        _is_consistent(operation, shape.name),
        "ConditionExpression" in request or "FilterExpression" in request,
        ranged,
        (operation.limit or 0) if isinstance(operation, PagedRead) else 0,
        -1 if response is None else _answered(operation, shape.name, response),
        touched,
    )


def _is_consistent(operation: Operation, table: str) -> bool:
    if isinstance(operation, BatchGetItem):
        return bool(operation.request["RequestItems"][table].get("ConsistentRead"))
    return bool(operation.request.get("ConsistentRead"))


def _answered(operation: Operation, table: str, response: Response) -> int:
    match operation:
        case GetItem():
            return int("Item" in response)
        case Query() | Scan():
            return int(response["Count"])
        case BatchGetItem():
            return len(response["Responses"].get(table, ()))
        case TransactGetItems():
            mine = [body["TableName"] == table for _, body in operation.actions]
            return sum(own and "Item" in each for own, each in zip(mine, response["Responses"], strict=True))
        case _:
            return -1


def _key(keys: KeySchema, key: Key, act: str = "", size_bytes: int = 0) -> KeySeen:
    return KeySeen(
        partition_bytes(keys, key), None if keys.sort is None else key_bytes(keys, key), act, size_bytes
    )


def _of_get(operation: GetItem, shape: TableShape, response: Response | None) -> Iterator[KeySeen]:
    item = (response or {}).get("Item")
    # A projection says nothing of the item's size.
    whole = item is not None and "ProjectionExpression" not in operation.request
    yield _key(shape.keys, operation.key, size_bytes=item_size_bytes(item) if whole and item else 0)


def _of_put(operation: PutItem, shape: TableShape, _: Response | None) -> Iterator[KeySeen]:
    yield _key(shape.keys, operation.item, size_bytes=item_size_bytes(operation.item))


def _of_update(operation: UpdateItem, shape: TableShape, _: Response | None) -> Iterator[KeySeen]:
    yield _key(shape.keys, operation.key, size_bytes=_written_bytes(operation.request))


def _of_delete(operation: DeleteItem, shape: TableShape, _: Response | None) -> Iterator[KeySeen]:
    yield _key(shape.keys, operation.key)


def _written_bytes(body: Mapping[str, Any]) -> int:
    """What an UpdateItem brings along: about what it writes."""
    return item_size_bytes(body.get("ExpressionAttributeValues") or {})


def _of_batch_get(operation: BatchGetItem, shape: TableShape, _: Response | None) -> Iterator[KeySeen]:
    for key in operation.request["RequestItems"][shape.name]["Keys"]:
        yield _key(shape.keys, key)


def _of_batch_write(operation: BatchWriteItem, shape: TableShape, _: Response | None) -> Iterator[KeySeen]:
    for entry in operation.request["RequestItems"][shape.name]:
        if "PutRequest" in entry:
            item = entry["PutRequest"]["Item"]
            yield _key(shape.keys, item, "Put", item_size_bytes(item))
        else:
            yield _key(shape.keys, entry["DeleteRequest"]["Key"], "Delete")


def _of_transaction(operation: Transaction, shape: TableShape, _: Response | None) -> Iterator[KeySeen]:
    for act, body in operation.actions:
        if body["TableName"] != shape.name:
            continue
        if act == "Put":
            yield _key(shape.keys, body["Item"], act, item_size_bytes(body["Item"]))
        else:
            yield _key(shape.keys, body["Key"], act, _written_bytes(body) if act == "Update" else 0)


_KEYS: Mapping[type[Operation], Callable[[Any, TableShape, Response | None], Iterator[KeySeen]]] = {
    GetItem: _of_get,
    PutItem: _of_put,
    UpdateItem: _of_update,
    DeleteItem: _of_delete,
    BatchGetItem: _of_batch_get,
    BatchWriteItem: _of_batch_write,
    TransactGetItems: _of_transaction,
    TransactWriteItems: _of_transaction,
}
