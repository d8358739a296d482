"""Operations on several tables whose authorities may be different databases."""

from collections.abc import Callable, Mapping
from typing import Any

from dualstore.errors import Unavailable, client_error, invalid
from dualstore.operations import BatchGetItem, BatchWriteItem, Operation, Response
from dualstore.replication.views import View
from dualstore.stages import Side

Ask = Callable[[Operation, Mapping[str, View]], Response]

# What a response of a batch has by table, and what it has in a list.
_BY_TABLE = ("Responses", "UnprocessedKeys", "UnprocessedItems", "ItemCollectionMetrics")
_LISTED = ("ConsumedCapacity",)
_UNPROCESSED: Mapping[type[Operation], str] = {
    BatchGetItem: "UnprocessedKeys",
    BatchWriteItem: "UnprocessedItems",
}


def by_authority(operation: Operation, views: Mapping[str, View], dynamodb: Ask, postgres: Ask) -> Response:
    """Carry out an operation where the authorities of its tables are.

    A batch, which promises nothing about its parts together, is taken apart and its answers put together;
    what PostgreSQL does not answer comes back as unprocessed. A transaction must be whole on one side.

    Args:
        operation: of any number of tables.
        views: of the served ones among them; the others are DynamoDB's.
        dynamodb: carries out an operation there; given the views of its tables.
        postgres: likewise.

    Raises:
        botocore.exceptions.ClientError: a transaction spans both databases.
    """
    there = {name for name, view in views.items() if view.record.authority is Side.POSTGRES}
    here = operation.tables - there
    if not there:
        return dynamodb(operation, views)
    if not here:
        return postgres(operation, views)
    if not isinstance(operation, BatchGetItem | BatchWriteItem):
        raise client_error(
            operation.name,
            invalid(
                f"a transaction cannot span tables of PostgreSQL's ({', '.join(sorted(there))}) and "
                f"others ({', '.join(sorted(here))}): bring them to the same stage"
            ),
        )
    first = dynamodb(_part(operation, here), {name: view for name, view in views.items() if name in here})
    part = _part(operation, there)
    try:
        second = postgres(part, {name: views[name] for name in there})
    except Unavailable:
        # The rest is done: what is not is the caller's to send again, as a batch's caller must be able to.
        second = {_UNPROCESSED[type(operation)]: part.request["RequestItems"]}
    return _together(first, second)


def _part(operation: Operation, tables: set[str] | frozenset[str]) -> Operation:
    requests = {name: asked for name, asked in operation.request["RequestItems"].items() if name in tables}
    return type(operation)({**operation.request, "RequestItems": requests})


def _together(first: Response, second: Response) -> Response:
    merged: dict[str, Any] = dict(first)
    for name in _BY_TABLE:
        if name in second:
            merged[name] = {**first.get(name, {}), **second[name]}
    for name in _LISTED:
        if name in second:
            merged[name] = [*first.get(name, ()), *second[name]]
    return merged
