"""TransactGetItems and TransactWriteItems as the single reads and writes that they are made of."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from dualstore.errors import RequestRejected, invalid
from dualstore.items import Item, TableShape, item_size_bytes, key_bytes, validate_item
from dualstore.operations import (
    ConditionalWrite,
    DeleteItem,
    GetItem,
    PutItem,
    Response,
    TableOperation,
    TransactGetItems,
    Transaction,
    TransactWriteItems,
    UpdateItem,
)
from dualstore.stores.semantics.capacity import (
    Units,
    add_capacity_by_table,
    item_read_units,
    write_units,
)
from dualstore.stores.semantics.constraints import check_constraints
from dualstore.stores.semantics.reads import projected
from dualstore.stores.semantics.requests import check_expressions, shape_named
from dualstore.stores.semantics.writes import ConditionCheck, Written, key_in, write

_MAX_TRANSACTION_SIZE_BYTES = 4 * 1_048_576

_ActionT = TypeVar("_ActionT", bound=TableOperation)

_WRITES: Mapping[str, type[ConditionalWrite]] = {
    "Put": PutItem,
    "Update": UpdateItem,
    "Delete": DeleteItem,
    "ConditionCheck": ConditionCheck,
}

# How a refusal of one action is named among the reasons for which the transaction was cancelled.
_REASONS = {
    "ConditionalCheckFailedException": "ConditionalCheckFailed",
    "ValidationException": "ValidationError",
}


def transact_gets(operation: TransactGetItems, shapes: Mapping[str, TableShape]) -> tuple[GetItem, ...]:
    """The reads of a TransactGetItems, checked. All are strongly consistent.

    Args:
        operation: the operation.
        shapes: of the tables, by physical name.

    Raises:
        RequestRejected: too many reads or none, a key twice (`ValidationException`), an unknown table, or
            a read that DynamoDB would refuse (`TransactionCanceledException`).
    """
    actions = _actions(operation, {"Get": GetItem})
    _check_actions(actions, shapes)
    return actions


def transact_get_response(
    operation: TransactGetItems, gets: Sequence[GetItem], items: Sequence[Item | None]
) -> Response:
    """The answer to a TransactGetItems.

    Args:
        operation: the operation.
        gets: its reads.
        items: what was found, in the order of `gets`.

    Raises:
        RequestRejected: they are larger than 4 MB together, whatever is projected of them.
    """
    _check_size(sum(item_size_bytes(item) for item in items if item is not None))
    pairs = list(zip(gets, items, strict=True))
    response: Response = {
        "Responses": [{} if item is None else {"Item": projected(get, item)} for get, item in pairs]
    }
    units = ((get.table, Units(item_read_units(item, consistent=True))) for get, item in pairs)
    add_capacity_by_table(response, operation.request, units, transactional="ReadCapacityUnits")
    return response


def transact_writes(
    operation: TransactWriteItems, shapes: Mapping[str, TableShape]
) -> tuple[ConditionalWrite, ...]:
    """The actions of a TransactWriteItems, checked.

    Args:
        operation: the operation.
        shapes: of the tables, by physical name.

    Returns:
        A `PutItem`, `UpdateItem`, `DeleteItem` or `ConditionCheck` for each action, in order.

    Raises:
        RequestRejected: as `transact_gets`; or the token is empty or longer than 36 characters.
    """
    actions = _actions(operation, _WRITES)
    size_bytes = 0
    for action in actions:
        content = action.request.get("Item") or action.request.get("Key") or {}
        validate_item(content)
        _check_not_empty(content, shape_named(shapes, action.table))
        size_bytes += item_size_bytes(content)
    _check_size(size_bytes)
    _check_actions(actions, shapes)
    return actions


def transact_write(
    writes: Sequence[ConditionalWrite],
    shapes: Mapping[str, TableShape],
    olds: Sequence[Item | None],
) -> tuple[Written, ...]:
    """What the actions of a transaction do to their items, all or none.

    Args:
        writes: the actions, as `transact_writes` gave them.
        shapes: of the tables, by physical name.
        olds: the item that each action finds, or None.

    Returns:
        The outcome of each action, in order; that of a ConditionCheck leaves its item as it was.

    Raises:
        RequestRejected: `TransactionCanceledException` with a reason for each action.
    """
    pairs = list(zip(writes, olds, strict=True))
    return _all_or_none([partial(write, action, shapes[action.table], old) for action, old in pairs])


def transact_write_response(
    operation: TransactWriteItems,
    shapes: Mapping[str, TableShape],
    writes: Sequence[ConditionalWrite],
    outcomes: Sequence[Written],
) -> Response:
    """The answer to a TransactWriteItems that was carried out."""
    response: Response = {}
    units = (
        (action.table, write_units(shapes[action.table], outcome.old_item, outcome.new_item))
        for action, outcome in zip(writes, outcomes, strict=True)
    )
    add_capacity_by_table(response, operation.request, units, transactional="WriteCapacityUnits")
    return response


def _actions(operation: Transaction, kinds: Mapping[str, type[_ActionT]]) -> tuple[_ActionT, ...]:
    check_constraints(operation)
    actions = tuple(kinds[kind](body) for kind, body in operation.actions)
    for action in actions:
        check_expressions(action)
    return actions


def _check_size(size_bytes: int) -> None:
    if size_bytes > _MAX_TRANSACTION_SIZE_BYTES:
        raise invalid("The items of a transaction may not be larger than 4 MB together")


def _check_not_empty(content: Item, shape: TableShape) -> None:
    """Reject empty key attributes: unlike other faults of a key, they are no reason of one action."""
    for attribute in shape.keys.attributes:
        if content.get(attribute.name) in ({"S": ""}, {"B": b""}):
            raise invalid(f"The AttributeValue for a key attribute cannot be empty. Key: {attribute.name}")


def _check_actions(actions: Sequence[TableOperation], shapes: Mapping[str, TableShape]) -> None:
    named = [(action, shape_named(shapes, action.table)) for action in actions]
    keys = _all_or_none([partial(key_in, shape, action) for action, shape in named])
    identities = {
        (shape.name, key_bytes(shape.keys, key)) for (_, shape), key in zip(named, keys, strict=True)
    }
    if len(identities) < len(actions):
        raise invalid("Transaction request cannot include multiple operations on one item")


_OutcomeT = TypeVar("_OutcomeT")


def _all_or_none(steps: Sequence[Callable[[], _OutcomeT]]) -> tuple[_OutcomeT, ...]:
    """Run every step; if any is refused, refuse them all, with a reason for each."""
    outcomes: list[_OutcomeT] = []
    reasons: list[dict[str, Any]] = []
    for step in steps:
        try:
            outcomes.append(step())
        except RequestRejected as rejected:
            reasons.append(_reason(rejected))
        else:
            reasons.append({"Code": "None"})
    if len(outcomes) < len(steps):
        codes = ", ".join(reason["Code"] for reason in reasons)
        raise RequestRejected(
            "TransactionCanceledException",
            f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
            reasons=reasons,
        )
    return tuple(outcomes)


def _reason(rejected: RequestRejected) -> dict[str, Any]:
    reason: dict[str, Any] = {"Code": _REASONS[rejected.code], "Message": rejected.message}
    if rejected.item is not None:
        reason["Item"] = rejected.item
    return reason
