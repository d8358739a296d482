"""Operations on several tables whose authorities may be different databases."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from dualstore.errors import OutcomeUnknown, Unavailable, client_error, invalid
from dualstore.operations import BatchGetItem, BatchWriteItem, Operation, Response
from dualstore.replication.views import View
from dualstore.stages import Side

Ask = Callable[[Operation, Mapping[str, View]], Response]

# What a response of a batch has by table.
_BY_TABLE = ("Responses", "UnprocessedKeys", "UnprocessedItems", "ItemCollectionMetrics")
_UNPROCESSED: Mapping[type[Operation], str] = {
    BatchGetItem: "UnprocessedKeys",
    BatchWriteItem: "UnprocessedItems",
}


def by_authority(operation: Operation, views: Mapping[str, View], dynamodb: Ask, postgres: Ask) -> Response:
    """Carry out an operation where the authorities of its tables are.

    A batch, which promises nothing about its parts together, is taken apart and its answers put together;
    what PostgreSQL does not carry out comes back as unprocessed. A transaction must be whole on one side.

    Args:
        operation: of any number of tables.
        views: of the served ones among them; the others are DynamoDB's.
        dynamodb: carries out an operation there; given the views of its tables.
        postgres: likewise.

    Raises:
        botocore.exceptions.ClientError: a transaction spans both databases.
        OutcomeUnknown: a part of a batch may or may not have been written.
        AuthorityMoved: as `dynamodb` raises it, or `postgres` where it has every table; nothing was done.
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
    except (Unavailable, ClientError) as error:
        if isinstance(error, OutcomeUnknown) or (operation.reads and isinstance(error, ClientError)):
            raise
        # The rest is done: what is not is the caller's to send again, as a batch's caller must be able to.
        # Where it was refused, it is then refused alone, and so truly: nothing of that request is done.
        second = {_UNPROCESSED[type(operation)]: part.request["RequestItems"]}
    return together(first, second)


def _part(operation: Operation, tables: set[str] | frozenset[str]) -> Operation:
    requests = {name: asked for name, asked in operation.request["RequestItems"].items() if name in tables}
    return type(operation)({**operation.request, "RequestItems": requests})


def together(first: Response, second: Response) -> Response:
    """One response from those of two parts of a batch, which may be of the same table; changes neither."""
    merged: dict[str, Any] = {**second, **first}
    for name in _BY_TABLE:
        if name in first and name in second:
            merged[name] = _joined_by_table(first[name] or {}, second[name] or {})
    if "ConsumedCapacity" in first and "ConsumedCapacity" in second:
        merged["ConsumedCapacity"] = _summed([*first["ConsumedCapacity"], *second["ConsumedCapacity"]])
    return merged


def _joined_by_table(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    joined = {**second, **first}
    for table in first.keys() & second.keys():
        mine, theirs = first[table], second[table]
        if isinstance(mine, Mapping):  # of UnprocessedKeys
            joined[table] = {**mine, **theirs, "Keys": [*mine["Keys"], *theirs["Keys"]]}
        else:
            joined[table] = [*mine, *theirs]
    return joined


def _summed(capacities: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """ConsumedCapacity with one entry a table."""
    by_table: dict[str, Mapping[str, Any]] = {}
    for each in capacities:
        known = by_table.get(each["TableName"])
        by_table[each["TableName"]] = each if known is None else _sum(known, each)
    return list(by_table.values())


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two capacities, number by number, however deep."""
    total: dict[str, Any] = {**one, **other}
    for name in one.keys() & other.keys():
        if isinstance(one[name], Mapping):
            total[name] = _sum(one[name], other[name])
        elif not isinstance(one[name], str):
            total[name] = one[name] + other[name]
    return total
