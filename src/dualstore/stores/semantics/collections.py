"""ItemCollectionMetrics: how large the items of one partition key are together, of tables with a local index.

AWS, API Reference, ItemCollectionMetrics: an estimate in gigabytes, as a lower and an upper bound, of the
items and of what the table's local indexes hold of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dualstore.items import Item, Key, TableShape, item_size_bytes, normalized_item
from dualstore.operations import (
    BatchWriteItem,
    ConditionalWrite,
    KeyedOperation,
    Operation,
    PutItem,
    Response,
    TransactWriteItems,
)

_GB = 1 << 30


@dataclass(frozen=True, slots=True)
class Collection:
    """The items of one partition key.

    Attributes:
        shape: of their table.
        key: the partition key, as it is stored.
    """

    shape: TableShape
    key: Key = field(hash=False)


def collections_asked(
    operation: Operation, writes: Iterable[ConditionalWrite], shapes: Mapping[str, TableShape]
) -> list[Collection]:
    """The collections of which the caller of a write wants to know the size, each once.

    Args:
        operation: the operation that was asked for.
        writes: the writes of one item that it is made of, checked.
        shapes: of the tables, by physical name.
    """
    if operation.request.get("ReturnItemCollectionMetrics") != "SIZE":
        return []
    found: list[Collection] = []
    for write in writes:
        shape = shapes[write.table]
        if any(not index.is_global for index in shape.indexes.values()):
            collection = Collection(shape, _partition_key(write, shape))
            if collection not in found:
                found.append(collection)
    return found


def _partition_key(write: ConditionalWrite, shape: TableShape) -> Key:
    name = shape.keys.partition.name
    if isinstance(write, PutItem):
        return normalized_item({name: write.item[name]})
    assert isinstance(write, KeyedOperation)  # noqa: S101 - all writes but PutItem are
    return normalized_item({name: write.key[name]})


def collection_size_bytes(shape: TableShape, items: Iterable[Item]) -> int:
    """What items count for, and what the table's local indexes hold of them."""
    total = 0
    for item in items:
        size_bytes = item_size_bytes(item)
        total += size_bytes
        for index in shape.indexes.values():
            entry = None if index.is_global else index.entry_of(item, shape.keys)
            if entry is not None:
                total += size_bytes if entry is item else item_size_bytes(entry)
    return total


def tell_collections(
    response: Response, operation: Operation, collections: Sequence[Collection], sizes_bytes: Iterable[int]
) -> None:
    """Put the ItemCollectionMetrics of a write into its response, if they were asked for.

    Args:
        response: changed.
        operation: the operation that was asked for.
        collections: from `collections_asked`.
        sizes_bytes: of each.
    """
    if not collections:
        return
    told = [
        (each.shape.name, {"ItemCollectionKey": each.key, "SizeEstimateRangeGB": _bounds_gb(size_bytes)})
        for each, size_bytes in zip(collections, sizes_bytes, strict=True)
    ]
    if not isinstance(operation, BatchWriteItem | TransactWriteItems):
        response["ItemCollectionMetrics"] = told[0][1]
        return
    by_table: dict[str, list[Response]] = {}
    for table, metrics in told:
        by_table.setdefault(table, []).append(metrics)
    response["ItemCollectionMetrics"] = by_table


def _bounds_gb(size_bytes: int) -> list[float]:
    """Whole gigabytes below and above, as DynamoDB tells them."""
    return [float(size_bytes // _GB), float(size_bytes // _GB + 1)]
