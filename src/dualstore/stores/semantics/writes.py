"""What a write of one item does to it, and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dualstore.errors import RequestRejected, invalid
from dualstore.expressions import (
    Update,
    apply_update,
    evaluate,
    project,
    touched_paths,
    updated_key_attribute,
)
from dualstore.expressions.updates import Add, Set
from dualstore.items import Item, Key, TableShape, normalized_item
from dualstore.operations import (
    ConditionalWrite,
    DeleteItem,
    KeyedOperation,
    PutItem,
    Response,
    TableOperation,
    UpdateItem,
)
from dualstore.stores.semantics.capacity import asks_for_capacity, consumed, write_units
from dualstore.stores.semantics.requests import check_request


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a write of one item.

    Attributes:
        old_item: what the key held, or None.
        new_item: what the key holds afterwards, normalised, or None where it holds nothing. It may share
            structure with the request and the old item.
        response: the answer, shaped as boto3's low-level client gives it. It too may share structure.
    """

    old_item: Item | None
    new_item: Item | None
    response: Response


class ConditionCheck(ConditionalWrite, KeyedOperation):
    """The action of a transaction that only looks at an item."""

    name = "ConditionCheck"


def checked_key(operation: TableOperation, shape: TableShape) -> Key:
    """The key that an operation on one item is about, once its whole request is known to be sound.

    To be called before anything is read: none of this depends on the old item.

    Args:
        operation: GetItem, PutItem, UpdateItem or DeleteItem.
        shape: of its table.

    Returns:
        The key as it is stored (a number in its one text).

    Raises:
        RequestRejected: an option, expression, item or key that DynamoDB would refuse.
    """
    check_request(operation)
    return key_in(shape, operation)


def key_in(shape: TableShape, operation: TableOperation) -> Key:
    """As `checked_key`, where `check_request` has been done."""
    if isinstance(operation, PutItem):
        return shape.check_keys(operation.stored.item)
    assert isinstance(operation, KeyedOperation)  # noqa: S101 - the other operations have many keys
    key = shape.keys.exact_key(operation.key)
    if isinstance(operation, UpdateItem) and operation.update is not None:
        _check_leaves_key(operation.update, shape)
    return normalized_item(key)


def _check_leaves_key(update: Update, shape: TableShape) -> None:
    changed = updated_key_attribute(update, shape.keys)
    if changed is not None:
        raise invalid(
            f"One or more parameter values were invalid: Cannot update attribute {changed}. "
            "This attribute is part of the key"
        )


def put(operation: PutItem, shape: TableShape, old: Item | None) -> Written:
    """Carry out a PutItem whose key has been checked.

    Args:
        operation: the operation.
        shape: of its table.
        old: the item that is there, or None.

    Raises:
        RequestRejected: the condition does not hold.
    """
    _check_condition(operation, old)
    return _put(operation, shape, old)


def _put(operation: PutItem, shape: TableShape, old: Item | None) -> Written:
    stored = operation.stored
    return _written(operation, shape, old, stored.item, new_size_bytes=stored.size_bytes)


def delete(operation: DeleteItem, shape: TableShape, old: Item | None) -> Written:
    """Carry out a DeleteItem whose key has been checked (see `put`)."""
    _check_condition(operation, old)
    return _delete(operation, shape, old)


def _delete(operation: DeleteItem, shape: TableShape, old: Item | None) -> Written:
    return _written(operation, shape, old, None)


def update(operation: UpdateItem, shape: TableShape, old: Item | None) -> Written:
    """Carry out an UpdateItem whose key has been checked (see `put`).

    Raises:
        RequestRejected: the condition does not hold, the expression cannot be applied to this item, or
            the outcome is not an item that DynamoDB would store.
    """
    _check_condition(operation, old)
    return _update(operation, shape, old)


def _update(operation: UpdateItem, shape: TableShape, old: Item | None) -> Written:
    new = _updated(operation, old)
    if new is not None and operation.update is not None:
        shape.check_item(new)
    return _written(operation, shape, old, new)


def _updated(operation: UpdateItem, old: Item | None) -> Item | None:
    """What an update makes of an item, whether or not DynamoDB would store that."""
    changes = operation.update
    if old is None and changes is not None and not _creates(changes):
        return None
    start = normalized_item(operation.key) if old is None else old
    return start if changes is None else apply_update(changes, start, is_new=old is None)


def check(operation: ConditionCheck, shape: TableShape, old: Item | None) -> Written:
    """Carry out a ConditionCheck: nothing changes."""
    _check_condition(operation, old)
    return _written(operation, shape, old, old)


def write(operation: ConditionalWrite, shape: TableShape, old: Item | None) -> Written:
    """Carry out a write of any of these kinds whose key has been checked (see `put`)."""
    return _WRITES[type(operation)](operation, shape, old)


_WRITES: Mapping[type[ConditionalWrite], Callable[..., Written]] = {
    PutItem: put,
    UpdateItem: update,
    DeleteItem: delete,
    ConditionCheck: check,
}


def carried_out(operation: ConditionalWrite, shape: TableShape, old: Item | None) -> Written:
    """As `write`, where the condition is known to hold of the old item."""
    return _CARRIED_OUT[type(operation)](operation, shape, old)


def answered(operation: ConditionalWrite, shape: TableShape, old: Item | None) -> Response:
    """What is answered to a write that has been carried out on the old item."""
    if isinstance(operation, UpdateItem):
        return _written(operation, shape, old, _updated(operation, old)).response
    return carried_out(operation, shape, old).response


def repeated(operation: ConditionalWrite, shape: TableShape, new: Item) -> Response:
    """What is answered to the repetition of a write that has made this item, if it changes nothing more."""
    return _written(operation, shape, new, new).response


_CARRIED_OUT: Mapping[type[ConditionalWrite], Callable[..., Written]] = {
    PutItem: _put,
    UpdateItem: _update,
    DeleteItem: _delete,
}


def _creates(changes: Update) -> bool:
    """Whether an update brings an absent item into being: one that only takes away does not.

    AWS, API Reference, AttributeUpdates: "DELETE … if no item with the specified key is found: nothing
    happens". Scylla's suite, which is run against AWS, holds it of REMOVE (test_update_item_non_existent).
    """
    return any(isinstance(action, Set | Add) for action in changes.actions)


def _check_condition(operation: ConditionalWrite, old: Item | None) -> None:
    if operation.condition is not None and not evaluate(operation.condition, old):
        raise RequestRejected(
            "ConditionalCheckFailedException",
            "The conditional request failed",
            item=old if operation.returns_old_on_refusal else None,
        )


_RETURNED: Mapping[str, Callable[[ConditionalWrite, Item | None, Item | None], Item | None]] = {
    "NONE": lambda _, _old, _new: None,
    "ALL_OLD": lambda _, old, _new: old,
    "ALL_NEW": lambda _, _old, new: new,
    "UPDATED_OLD": lambda operation, old, _new: _touched(operation, old),
    "UPDATED_NEW": lambda operation, _old, new: _touched(operation, new),
}


def _touched(operation: ConditionalWrite, item: Item | None) -> Item | None:
    changes = getattr(operation, "update", None)
    return None if item is None or changes is None else project(touched_paths(changes), item)


def _written(
    operation: ConditionalWrite,
    shape: TableShape,
    old: Item | None,
    new: Item | None,
    *,
    new_size_bytes: int | None = None,
) -> Written:
    response: Response = {}
    attributes = _RETURNED[operation.return_values](operation, old, new)
    if attributes:
        response["Attributes"] = attributes
    if asks_for_capacity(operation.request):
        response["ConsumedCapacity"] = consumed(
            operation.request, shape.name, write_units(shape, old, new, new_size_bytes=new_size_bytes)
        )
    return Written(old, new, response)
