"""A table in memory: its items, its tombstones, and the orders in which its items are read."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from xxhash import xxh3_64_intdigest

from dualstore.errors import invalid
from dualstore.expressions import matches
from dualstore.items import STAMP, Item, KeySchema, TableShape, key_bytes, number, partition_bytes
from dualstore.operations import Scan
from dualstore.stores.base import NOTHING, MirrorState, Revision
from dualstore.stores.semantics import PagePlan

_T = TypeVar("_T")

Position: TypeAlias = tuple[int, bytes, Any, int, bytes]
"""Hash of the partition key, partition key, sort key, hash of the primary key, primary key."""

_SORTABLE: Mapping[str, Callable[[Any], Any]] = {"S": str.encode, "N": number, "B": bytes}
_TOKEN_BITS = 64


def detached(value: _T) -> _T:
    """A copy that shares nothing that can change with the original: an item, a response, a request."""
    if isinstance(value, dict):
        return {name: detached(inner) for name, inner in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return [detached(inner) for inner in value]  # type: ignore[return-value]
    return value


def stamp_of(item: Item) -> bytes | None:
    """The stamp of the write that made an item, or None where it carries none."""
    value = item.get(STAMP)
    stamp: bytes | None = None if value is None else value.get("B")
    return stamp


def sortable(keys: KeySchema, item: Item) -> tuple[Any, ...]:
    """A key as values that order as DynamoDB orders it."""
    return tuple(
        _SORTABLE[attribute.type](item[attribute.name][attribute.type]) for attribute in keys.attributes
    )


class Ordering:
    """The items of a table or of an index, in the order in which they are read.

    Partitions follow each other by a hash, and so do items that tie in an index: whoever relies on an
    order that DynamoDB does not promise is found out.

    Args:
        keys: the key of the table or index.
        table_keys: the key of the table.
    """

    def __init__(self, keys: KeySchema, table_keys: KeySchema) -> None:
        self._keys = keys
        self._table_keys = table_keys
        self._positions: list[Position] = []

    def add(self, item: Item) -> None:
        """Take an item in, if it has the key."""
        if self._covers(item):
            insort(self._positions, self._position(item))

    def remove(self, item: Item) -> None:
        """Leave an item out that was taken in."""
        if self._covers(item):
            del self._positions[bisect_left(self._positions, self._position(item))]

    def keys_of(self, planned: PagePlan) -> Iterator[bytes]:
        """The primary keys of the items to walk, from where the page begins; before sort conditions."""
        low, high = self._span(planned)
        span = range(low, high) if planned.forward else range(high - 1, low - 1, -1)
        return (self._positions[place][-1] for place in span)

    def keys_of_partition(self, key: Item) -> Iterator[bytes]:
        """The primary keys of the items of one partition, in order."""
        return (self._positions[place][-1] for place in range(*self._partition_span(key)))

    def _partition_span(self, key: Item) -> tuple[int, int]:
        partition = partition_bytes(self._keys, key)
        token = xxh3_64_intdigest(partition)
        return self._between((token, partition), (token, partition + b"\0"))

    def _covers(self, item: Item) -> bool:
        return all(attribute.type in item.get(attribute.name, ()) for attribute in self._keys.attributes)

    def _position(self, item: Item) -> Position:
        partition = partition_bytes(self._keys, item)
        primary = key_bytes(self._table_keys, item)
        return (
            xxh3_64_intdigest(partition),
            partition,
            sortable(self._keys, item)[1:],
            xxh3_64_intdigest(primary),
            primary,
        )

    def _span(self, planned: PagePlan) -> tuple[int, int]:
        low, high = self._whole_span(planned)
        if planned.start_key is None:
            return low, high
        start = self._position(planned.start_key)
        after, before = bisect_right(self._positions, start), bisect_left(self._positions, start)
        if not low <= before <= high:
            raise invalid("The provided starting key does not map to the provided segment")
        return (after, high) if planned.forward else (low, before)

    def _whole_span(self, planned: PagePlan) -> tuple[int, int]:
        operation = planned.operation
        if planned.key_condition is not None:
            return self._partition_span({self._keys.partition.name: planned.key_condition.partition})
        if isinstance(operation, Scan) and operation.segment is not None:
            segment, total = operation.segment
            return self._between((_first_token(segment, total),), (_first_token(segment + 1, total),))
        return 0, len(self._positions)

    def _between(self, low: tuple[Any, ...], high: tuple[Any, ...]) -> tuple[int, int]:
        positions: list[Any] = self._positions
        return bisect_left(positions, low), bisect_left(positions, high)


def _first_token(segment: int, total: int) -> int:
    return -((-segment << _TOKEN_BITS) // total)


@dataclass(frozen=True, slots=True)
class _Row:
    item: Item
    revision: int


@dataclass(frozen=True, slots=True)
class _Tombstone:
    stamp: bytes | None
    revision: int


class Table:
    """The items of one table, each under its `key_bytes`. Items are never changed in place.

    Args:
        shape: of the table.
        next_revision: gives the revisions.
    """

    def __init__(self, shape: TableShape, next_revision: Callable[[], int]) -> None:
        self.shape = shape
        self._next_revision = next_revision
        self._rows: dict[bytes, _Row] = {}
        self._tombstones: dict[bytes, _Tombstone] = {}
        self._primary = Ordering(shape.keys, shape.keys)
        self._secondary = {index.name: Ordering(index.keys, shape.keys) for index in shape.indexes.values()}

    def item(self, key: bytes) -> Item | None:
        """The item at a key, or None. Not to be changed."""
        row = self._rows.get(key)
        return None if row is None else row.item

    def state(self, key: bytes) -> MirrorState:
        """What a mirror has to tell of a key. The item is not to be changed."""
        row, tombstone = self._rows.get(key), self._tombstones.get(key)
        if row is None and tombstone is None:
            return MirrorState(None, None, NOTHING)
        return MirrorState(
            item=None if row is None else row.item,
            tombstone_stamp=None if tombstone is None else tombstone.stamp,
            revision=Revision(
                row=None if row is None else row.revision,
                tombstone=None if tombstone is None else tombstone.revision,
            ),
        )

    def put(self, key: bytes, item: Item) -> None:
        """Hold an item, and no tombstone. The item is the table's own from now on."""
        self._take_out(key)
        self._tombstones.pop(key, None)
        self._rows[key] = _Row(item, self._next_revision())
        for ordering in self._orderings:
            ordering.add(item)

    def bury(self, key: bytes) -> None:
        """Hold no item, and a tombstone that names the stamp of the last item that there was."""
        row, buried = self._take_out(key), self._tombstones.get(key)
        known = None if buried is None else buried.stamp
        stamp = known if row is None else stamp_of(row.item)
        self._tombstones[key] = _Tombstone(stamp, self._next_revision())

    def walk(self, planned: PagePlan) -> Iterator[Item]:
        """The items that a page is made of. Not to be changed."""
        index = planned.index
        ordering = self._primary if index is None else self._secondary[index.name]
        items = (self._rows[key].item for key in ordering.keys_of(planned))
        sort = planned.key_condition.sort if planned.key_condition else None
        if sort is None or planned.keys.sort is None:
            return items
        name = planned.keys.sort.name
        return (item for item in items if matches(sort, item[name]))

    def partition(self, key: Item) -> Iterator[Item]:
        """The items of one partition key. Not to be changed."""
        return (self._rows[raw].item for raw in self._primary.keys_of_partition(key))

    def keys_in_order(self) -> list[bytes]:
        """The keys of all items, by partition key, then sort key."""
        return sorted(self._rows, key=lambda key: sortable(self.shape.keys, self._rows[key].item))

    def reshaped(self, shape: TableShape) -> "Table":
        """The same items in a table with other indexes."""
        table = Table(shape, self._next_revision)
        table._rows, table._tombstones = self._rows, self._tombstones
        for row in self._rows.values():
            for ordering in table._orderings:
                ordering.add(row.item)
        return table

    @property
    def _orderings(self) -> tuple[Ordering, ...]:
        return (self._primary, *self._secondary.values())

    def _take_out(self, key: bytes) -> _Row | None:
        row = self._rows.pop(key, None)
        if row is not None:
            for ordering in self._orderings:
                ordering.remove(row.item)
        return row
