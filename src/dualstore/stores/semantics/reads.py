"""What a read of one item answers, and how Query and Scan turn items into pages."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from dualstore.errors import invalid
from dualstore.expressions import (
    Condition,
    KeyCondition,
    attributes_read,
    evaluate,
    matches,
    project,
)
from dualstore.items import (
    Index,
    Item,
    Key,
    KeySchema,
    TableShape,
    item_size_bytes,
    normalized_item,
    partition_bytes,
    values_equal,
)
from dualstore.operations import GetItem, PagedRead, Query, Response, Scan
from dualstore.stores.semantics.capacity import (
    Units,
    asks_for_capacity,
    consumed,
    item_read_units,
    read_units,
)
from dualstore.stores.semantics.requests import check_request

MAX_PAGE_SIZE_BYTES = 1_048_576


def get_response(operation: GetItem, shape: TableShape, item: Item | None) -> Response:
    """The answer to a GetItem whose key has been checked.

    Args:
        operation: the operation.
        shape: of its table.
        item: the item that is there, or None.
    """
    response: Response = {}
    if item is not None:
        response["Item"] = projected(operation, item)
    if asks_for_capacity(operation.request):
        units = Units(item_read_units(item, consistent=operation.consistent))
        response["ConsumedCapacity"] = consumed(operation.request, shape.name, units)
    return response


def projected(operation: GetItem | PagedRead, item: Item) -> Item:
    """What an operation's ProjectionExpression leaves of an item."""
    return item if operation.projection is None else project(operation.projection, item)


@dataclass(frozen=True, slots=True)
class PagePlan:
    """A Query or Scan whose request is known to be sound: what a store has to walk, and from where.

    The store walks the items of the table or index in the order of `keys`, leaving out those that lack an
    index key, those outside `key_condition`, and those up to and including `start_key`; `page` does the rest.

    Attributes:
        operation: the operation.
        shape: of its table.
        index: what is read, or None for the table itself.
        keys: the key by which the items are ordered: the index's, or the table's.
        position: the names of the attributes that say where an item stands: those of `keys` and of
            the table's key.
        key_condition: the partition and the range of its sort key; None for a Scan.
        start_key: the position after which to begin, normalised, or None.
        projected: the attributes that the index holds, or None where whole items are read.
    """

    operation: PagedRead
    shape: TableShape
    index: Index | None
    keys: KeySchema
    position: tuple[str, ...]
    key_condition: KeyCondition | None
    start_key: Key | None
    projected: frozenset[str] | None

    @property
    def forward(self) -> bool:
        """Whether the sort key ascends."""
        return not isinstance(self.operation, Query) or self.operation.forward

    @property
    def partition(self) -> bytes | None:
        """`partition_bytes` of the one partition of the *table* that is read, or None: it may be any.

        An index that has the table's partition key, as every local one, reads one too.
        """
        if self.key_condition is None or self.keys.partition != self.shape.keys.partition:
            return None
        return partition_bytes(self.keys, {self.keys.partition.name: self.key_condition.partition})


def plan(operation: Query | Scan, shape: TableShape) -> PagePlan:
    """Check a Query or Scan, and say what to walk.

    Args:
        operation: the operation.
        shape: of its table.

    Raises:
        RequestRejected: an option, expression, index or ExclusiveStartKey that DynamoDB would refuse.
    """
    check_request(operation)
    index = _index(operation, shape)
    keys = shape.keys if index is None else index.keys
    _check_select(operation, index)
    if isinstance(operation, Query):
        key_condition = operation.key_condition(keys)
        _check_filter_keys(operation.filter, keys)
    else:
        key_condition = None
        _check_segment(operation)
    position = tuple(dict.fromkeys((*shape.keys.names, *keys.names)))
    return PagePlan(
        operation=operation,
        shape=shape,
        index=index,
        keys=keys,
        position=position,
        key_condition=key_condition,
        start_key=_start_key(operation, shape, keys, position, key_condition),
        projected=_projected_attributes(operation, index, shape),
    )


class Scanned(NamedTuple):
    """An item that a Query or Scan comes by, as far as its store has fetched it.

    Attributes:
        size_bytes: what it counts for, or what the index holds of it.
        is_found: whether the filter lets it through; None where that is still to be seen.
        entry: what is read of it; None where nobody asks: the item is left out, or only counted.
        item: gives the item, or those of its attributes at least that say where it stands.
    """

    size_bytes: int
    is_found: bool | None
    entry: Item | None
    item: Callable[[], Item]


def scanned(planned: PagePlan, item: Item, *, is_found: bool | None = None) -> Scanned:
    """A whole item that a Query or Scan comes by.

    Args:
        planned: the operation.
        item: the item, or of one that an index holds in part that part at least.
        is_found: see `Scanned`.
    """
    held = planned.projected
    entry = item if held is None else {name: item[name] for name in item.keys() & held}
    return Scanned(item_size_bytes(entry), is_found, entry, lambda: item)


def page(planned: PagePlan, items: Iterable[Item]) -> Response:
    """One page of a Query or Scan; see `page_of`.

    Args:
        planned: the operation, as `plan` gave it.
        items: whole items in the order of the walk, beginning where the page begins.
    """
    return page_of(planned, (scanned(planned, item) for item in items))


def page_of(planned: PagePlan, walked: Iterable[Scanned]) -> Response:
    """One page of a Query or Scan.

    Reads no further than the page goes, so `walked` may be a cursor.

    Args:
        planned: the operation, as `plan` gave it.
        walked: what it comes by in the order of the walk, beginning where the page begins.
    """
    operation = planned.operation
    limit, condition = operation.limit, operation.filter
    found: list[Item] = []
    count = scanned_count = size_bytes = 0
    last: Item | None = None
    for each in walked:
        scanned_count += 1
        size_bytes += each.size_bytes
        is_found = each.is_found
        if is_found is None:
            is_found = condition is None or evaluate(condition, each.entry)
        if is_found:
            count += 1
            if each.entry is not None:
                found.append(each.entry)
        if scanned_count == limit or size_bytes >= MAX_PAGE_SIZE_BYTES:
            last = each.item()
            break
    response: Response = {"Count": count, "ScannedCount": scanned_count}
    if operation.select != "COUNT":
        response["Items"] = [projected(operation, item) for item in found]
    if last is not None:
        response["LastEvaluatedKey"] = {name: last[name] for name in planned.position}
    _add_capacity(response, planned, size_bytes)
    return response


def _add_capacity(response: Response, planned: PagePlan, size_bytes: int) -> None:
    operation, index = planned.operation, planned.index
    if asks_for_capacity(operation.request):
        units = read_units(size_bytes, consistent=operation.consistent)
        response["ConsumedCapacity"] = consumed(
            operation.request,
            planned.shape.name,
            Units(units) if index is None else Units(0.0, [(index, units)]),
        )


def _index(operation: PagedRead, shape: TableShape) -> Index | None:
    if operation.index is None:
        return None
    index = shape.indexes.get(operation.index)
    if index is None:
        raise invalid(f"The table does not have the specified index: {operation.index}")
    if operation.consistent and index.is_global:
        raise invalid("Consistent reads are not supported on global secondary indexes")
    return index


def _check_select(operation: PagedRead, index: Index | None) -> None:
    select, projection = operation.select, operation.projection
    if projection is not None and select not in {None, "SPECIFIC_ATTRIBUTES"}:
        wanted = "only the Count" if select == "COUNT" else select
        raise invalid(f"Cannot specify the ProjectionExpression when choosing to get {wanted}")
    if projection is None and select == "SPECIFIC_ATTRIBUTES":
        raise invalid(
            "Must specify the AttributesToGet or ProjectionExpression when choosing to get "
            "SPECIFIC_ATTRIBUTES"
        )
    if select == "ALL_PROJECTED_ATTRIBUTES" and index is None:
        raise invalid("ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")


def _check_filter_keys(condition: Condition | None, keys: KeySchema) -> None:
    read = frozenset[str]() if condition is None else attributes_read(condition)
    for name in keys.names:
        if name in read:
            raise invalid(
                "Filter Expression can only contain non-primary key attributes: "
                f"Primary key attribute: {name}"
            )


def _check_segment(operation: Scan) -> None:
    segment, total = operation.request.get("Segment"), operation.request.get("TotalSegments")
    if segment is not None and total is None:
        raise invalid(
            "The TotalSegments parameter is required but was not present in the request when Segment "
            "parameter is present"
        )
    if segment is None and total is not None:
        raise invalid(
            "The Segment parameter is required but was not present in the request when parameter "
            "TotalSegments is present"
        )
    if segment is not None and total is not None and segment >= total:
        raise invalid(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            f"Segment: {segment} is not less than TotalSegments: {total}"
        )


def _start_key(
    operation: PagedRead,
    shape: TableShape,
    keys: KeySchema,
    position: tuple[str, ...],
    key_condition: KeyCondition | None,
) -> Key | None:
    given = operation.start_key
    if given is None:
        return None
    if given.keys() != set(position):
        raise invalid("The provided starting key is invalid")
    start = normalized_item({**shape.keys.key_of(given), **keys.key_of(given)})
    if key_condition is None:
        return start
    if not values_equal(start[keys.partition.name], key_condition.partition):
        raise invalid("The provided starting key is outside query boundaries based on provided conditions")
    wanted = key_condition.sort
    if wanted is not None and keys.sort is not None and not matches(wanted, start[keys.sort.name]):
        raise invalid("The provided starting key does not match the range key predicate")
    return start


def _projected_attributes(
    operation: PagedRead, index: Index | None, shape: TableShape
) -> frozenset[str] | None:
    """The attributes that a read sees, or None for all.

    AWS, "Using Global Secondary Indexes" and "Local secondary indexes": a local index fetches from the
    table what it lacks, a global one cannot. No index evaluates a filter on what it lacks.
    """
    held = None if index is None else index.held_attributes(shape.keys)
    if index is None or held is None:
        return None
    if operation.filter is not None and (lacking := attributes_read(operation.filter) - held):
        raise invalid(
            f"One or more parameter values were invalid: Secondary index {index.name} "
            f"does not project one or more filter attributes: {sorted(lacking)}"
        )
    wanted = {str(path[0]) for path in operation.projection or ()}
    fetches = operation.select == "ALL_ATTRIBUTES" or not wanted <= held
    if fetches and index.is_global:
        raise invalid(
            "One or more parameter values were invalid: "
            + (
                f"Global secondary index {index.name} does not project {sorted(wanted - held)}"
                if wanted
                else f"Select type ALL_ATTRIBUTES is not supported for global secondary index {index.name} "
                "because its projection type is not ALL"
            )
        )
    return None if fetches else held
