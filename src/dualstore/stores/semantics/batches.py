"""BatchGetItem and BatchWriteItem as the single reads and writes that they are made of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from dualstore.errors import invalid
from dualstore.items import Item, TableShape, item_size_bytes, key_bytes
from dualstore.operations import BatchGetItem, BatchWriteItem, DeleteItem, GetItem, PutItem, Request, Response
from dualstore.stores.semantics.capacity import Units, add_capacity_by_table, item_read_units, write_units
from dualstore.stores.semantics.constraints import check_constraints
from dualstore.stores.semantics.reads import projected
from dualstore.stores.semantics.requests import check_expressions, shape_named
from dualstore.stores.semantics.writes import Written, key_in

_MAX_BATCH_SIZE_BYTES = 16 * 1_048_576


def batch_gets(operation: BatchGetItem, shapes: Mapping[str, TableShape]) -> tuple[GetItem, ...]:
    """The reads of a BatchGetItem, checked.

    Args:
        operation: the operation.
        shapes: of the tables, by physical name.

    Raises:
        RequestRejected: too many keys or none, a key twice, or anything that `checked_key` refuses.
    """
    check_constraints(operation)
    gets = tuple(_gets(operation.request))
    _check_keys(gets, shapes)
    return gets


def _gets(request: Request) -> Iterator[GetItem]:
    for table, asked in request["RequestItems"].items():
        common = {name: value for name, value in asked.items() if name != "Keys"}
        check_expressions(GetItem({"TableName": table, **common}))
        for key in asked["Keys"]:
            yield GetItem({"TableName": table, "Key": key, **common})


def batch_get_response(
    operation: BatchGetItem,
    gets: Sequence[GetItem],
    items: Sequence[Item | None],
    *,
    in_doubt: Iterable[bool] = repeat(False),
) -> Response:
    """The answer to a BatchGetItem.

    Args:
        operation: the operation.
        gets: its reads.
        items: what was found, in the order of `gets`.
        in_doubt: in the same order, whether what was found is not to be trusted; none is, by default.

    Returns:
        The response; keys in doubt, and those past 16 MB of items, are left to `UnprocessedKeys`.
    """
    found: dict[str, list[Item]] = {table: [] for table in operation.request["RequestItems"]}
    left: dict[str, list[Any]] = {}
    units: list[tuple[str, Units]] = []
    size_bytes = 0
    for get, item, doubtful in zip(gets, items, in_doubt, strict=False):
        if doubtful:
            left.setdefault(get.table, []).append(get.key)
            continue
        size_bytes += 0 if item is None else item_size_bytes(item)
        if size_bytes > _MAX_BATCH_SIZE_BYTES:
            left.setdefault(get.table, []).append(get.key)
            continue
        units.append((get.table, Units(item_read_units(item, consistent=get.consistent))))
        if item is not None:
            found[get.table].append(projected(get, item))
    asked = operation.request["RequestItems"]
    unprocessed = {table: {**asked[table], "Keys": keys} for table, keys in left.items()}
    response: Response = {"Responses": found, "UnprocessedKeys": unprocessed}
    add_capacity_by_table(response, operation.request, units)
    return response


def batch_writes(
    operation: BatchWriteItem, shapes: Mapping[str, TableShape]
) -> tuple[PutItem | DeleteItem, ...]:
    """The writes of a BatchWriteItem, checked: if one is refused, none is to be carried out.

    Args:
        operation: the operation.
        shapes: of the tables, by physical name.

    Raises:
        RequestRejected: too many writes or none, a key twice, or anything that `checked_key` refuses.
    """
    check_constraints(operation)
    writes = tuple(_writes(operation.request))
    _check_keys(writes, shapes)
    return writes


def _writes(request: Request) -> Iterator[PutItem | DeleteItem]:
    for table, asked in request["RequestItems"].items():
        for entry in asked:
            match entry:
                case {"PutRequest": body, **rest} if not rest:
                    yield PutItem({"TableName": table, "Item": body["Item"]})
                case {"DeleteRequest": body, **rest} if not rest:
                    yield DeleteItem({"TableName": table, "Key": body["Key"]})
                case _:
                    raise invalid("A write request holds exactly one of PutRequest and DeleteRequest")


def batch_write_response(
    operation: BatchWriteItem, shapes: Mapping[str, TableShape], outcomes: Sequence[tuple[str, Written]]
) -> Response:
    """The answer to a BatchWriteItem of which every write was carried out.

    Args:
        operation: the operation.
        shapes: of the tables, by physical name.
        outcomes: table and outcome of each write.
    """
    response: Response = {"UnprocessedItems": {}}
    units = ((table, write_units(shapes[table], each.old_item, each.new_item)) for table, each in outcomes)
    add_capacity_by_table(response, operation.request, units)
    return response


def _check_keys(
    operations: Sequence[GetItem | PutItem | DeleteItem], shapes: Mapping[str, TableShape]
) -> None:
    seen: set[tuple[str, bytes]] = set()
    for operation in operations:
        shape = shape_named(shapes, operation.table)
        key = operation.table, key_bytes(shape.keys, key_in(shape, operation))
        if key in seen:
            raise invalid("Provided list of item keys contains duplicates")
        seen.add(key)
