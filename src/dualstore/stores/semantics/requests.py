"""What every request is checked for before anything is read: parameters, expressions, placeholders, tables.

DynamoDB looks at the parameters first and at the expressions next, then for the table, and at the keys last.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import NoReturn

from dualstore.errors import RequestRejected, invalid
from dualstore.expressions import LEGACY_PARAMETERS, check_placeholders, reject_unused
from dualstore.items import TableShape, validate_item, validate_value
from dualstore.operations import (
    ConditionalWrite,
    DeleteItem,
    KeyedOperation,
    PagedRead,
    PutItem,
    Query,
    Request,
    TableOperation,
    UpdateItem,
)
from dualstore.stores.semantics.constraints import check_constraints

# The expressions of each operation that may use values, in the order in which DynamoDB names them.
_WITH_VALUES: Mapping[str, Sequence[str]] = {
    "GetItem": (),
    "PutItem": ("ConditionExpression",),
    "DeleteItem": ("ConditionExpression",),
    "ConditionCheck": ("ConditionExpression",),
    "UpdateItem": ("UpdateExpression", "ConditionExpression"),
    "Query": ("FilterExpression", "KeyConditionExpression"),
    "Scan": ("FilterExpression",),
}
_EXPRESSIONS = (
    "UpdateExpression",
    "ConditionExpression",
    "KeyConditionExpression",
    "FilterExpression",
    "ProjectionExpression",
)


_OF_EXPRESSIONS = LEGACY_PARAMETERS.union(
    _EXPRESSIONS, ("ExpressionAttributeNames", "ExpressionAttributeValues")
)


def check_request(operation: TableOperation) -> None:
    """Reject a request on one table that cannot be, whatever the table and its items.

    Raises:
        RequestRejected: as DynamoDB would, and for the first reason that it would name.
    """
    check_constraints(operation)
    check_expressions(operation)


def check_expressions(operation: TableOperation) -> None:
    """Reject expressions that cannot be, and names and values that no expression uses.

    Raises:
        RequestRejected: as DynamoDB would.
    """
    request = operation.request
    if _OF_EXPRESSIONS.isdisjoint(request) and isinstance(operation, PutItem | DeleteItem):
        _check_returned(operation)  # as of nearly every put
        return
    texts = [name for name in _EXPRESSIONS if request.get(name) is not None]
    if not LEGACY_PARAMETERS.isdisjoint(request):
        _refuse_legacy(request, request.keys() & LEGACY_PARAMETERS, texts)
    names, values = request.get("ExpressionAttributeNames"), request.get("ExpressionAttributeValues")
    if names is not None and not texts:
        raise invalid("ExpressionAttributeNames can only be specified when using expressions")
    if values is not None:
        _check_values_have_use(operation.name, texts)
    if isinstance(operation, ConditionalWrite) and not isinstance(operation, UpdateItem):
        _check_returned(operation)
    if names is not None or values is not None:
        check_placeholders(names, values)
    if texts or not isinstance(operation, PutItem | DeleteItem):
        _parse(operation)
    if names is not None or values is not None:
        reject_unused(names, values, *(request[name] for name in texts))


def _parse(operation: TableOperation) -> None:
    """Parse the expressions, which keep their trees: so they are refused even where there is no item."""
    if isinstance(operation, UpdateItem):
        _ = operation.update
    if isinstance(operation, ConditionalWrite):
        _ = operation.condition
    if isinstance(operation, Query):
        _ = operation.key_predicate
    if isinstance(operation, PagedRead):
        _ = operation.filter
    _ = operation.projection


def _check_returned(operation: ConditionalWrite) -> None:
    if operation.return_values not in {"NONE", "ALL_OLD"}:
        raise invalid("ReturnValues can only be ALL_OLD or NONE")


def _check_values_have_use(name: str, texts: Sequence[str]) -> None:
    possible = _WITH_VALUES[name]
    if possible and not any(text in texts for text in possible):
        absent = f"{' and '.join(possible)} {'is' if len(possible) == 1 else 'are'} null"
        raise invalid(f"ExpressionAttributeValues can only be specified when using expressions: {absent}")


def _refuse_legacy(request: Request, legacy: AbstractSet[str], texts: Sequence[str]) -> NoReturn:
    """Refuse legacy parameters that `parse` could not say as expressions: each of them says nothing."""
    named = ", ".join(sorted(legacy))
    if texts:
        raise invalid(
            "Can not use both expression and non-expression parameters in the same request: "
            f"Non-expression parameters: {{{named}}} Expression parameters: {{{', '.join(texts)}}}"
        )
    for parameter in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
        if request.get(parameter) is not None:
            raise invalid(f"{parameter} can only be specified when using expressions")
    raise invalid(f"One or more parameter values were invalid: {named}")


def shape_named(shapes: Mapping[str, TableShape], table: str) -> TableShape:
    """The shape of a table by its physical name.

    Raises:
        RequestRejected: `ResourceNotFoundException`, there is no such table.
    """
    try:
        return shapes[table]
    except KeyError:
        raise RequestRejected("ResourceNotFoundException", "Requested resource not found") from None


def shape_of(shapes: Mapping[str, TableShape], operation: TableOperation) -> TableShape:
    """The shape of the table of an operation.

    Raises:
        RequestRejected: there is no such table. As in DynamoDB, a request that could not be carried out on
            any table is refused for that.
    """
    with suppress(KeyError):
        return shapes[operation.request["TableName"]]
    check_request(operation)
    _check_content(operation)
    return shape_named(shapes, operation.table)


def _check_content(operation: TableOperation) -> None:
    if isinstance(operation, PutItem):
        validate_item(operation.item)
    if isinstance(operation, KeyedOperation):
        for value in operation.key.values():
            validate_value(value)
