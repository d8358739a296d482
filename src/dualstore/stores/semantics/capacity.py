"""Consumed capacity, counted as AWS, "DynamoDB throughput capacity", counts it."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from dualstore.items import Index, Item, TableShape, item_size_bytes, items_equal
from dualstore.operations import Request, Response

_READ_UNIT_BYTES = 4_096
_WRITE_UNIT_BYTES = 1_024

_TRANSACTIONAL = 2
"""How many times the units of a plain read or write its transactional form costs."""

Kind: TypeAlias = Literal["ReadCapacityUnits", "WriteCapacityUnits"]
"""What units are told to be, where DynamoDB tells it: of transactions."""


class Units(NamedTuple):
    """What an operation consumes of one table.

    Attributes:
        table: of the table itself.
        indexes: of each of its indexes that is read or written.
    """

    table: float
    indexes: Sequence[tuple[Index, float]] = ()

    @property
    def total(self) -> float:
        """Of all of them."""
        return self.table + sum(units for _, units in self.indexes)

    def in_a_transaction(self) -> "Units":
        """What the same costs there: twice as much of the table, and no more of an index.

        Nobody documents the second half; nubo-db/dynoxide has it measured at AWS (tests of August 2026).
        """
        return self._replace(table=self.table * _TRANSACTIONAL)

    def plus(self, other: "Units") -> "Units":
        """Both together."""
        sums = dict(self.indexes)
        for index, units in other.indexes:
            sums[index] = sums.get(index, 0.0) + units
        return Units(self.table + other.table, list(sums.items()))


def read_units(size_bytes: int, *, consistent: bool) -> float:
    """The units of a read: one per 4 KB begun, half of that where it is eventually consistent."""
    return _units(size_bytes, _READ_UNIT_BYTES) * (1.0 if consistent else 0.5)


def item_read_units(item: Item | None, *, consistent: bool) -> float:
    """The units of reading one item; an absent one costs what the smallest does."""
    return read_units(0 if item is None else item_size_bytes(item), consistent=consistent)


def write_units(
    shape: TableShape, old: Item | None, new: Item | None, *, new_size_bytes: int | None = None
) -> Units:
    """The units of a write: one per 1 KB begun of the larger of the old and the new item, and its indexes'.

    Args:
        shape: of the table.
        old: the item that was there, or None.
        new: the item that is there, or None.
        new_size_bytes: what it counts for, where that is known.
    """
    before = 0 if old is None else item_size_bytes(old)
    if new_size_bytes is None:
        new_size_bytes = 0 if new is None else item_size_bytes(new)
    written = [(index, _index_units(shape, index, old, new)) for index in shape.indexes.values()]
    return Units(
        write_units_of(max(before, new_size_bytes)), [(index, units) for index, units in written if units]
    )


def _index_units(shape: TableShape, index: Index, old: Item | None, new: Item | None) -> float:
    """The units of what a write does to an index.

    AWS, Developer Guide, "Write capacity units" of global and of local secondary indexes: an entry is
    written where it is made, changed or removed; where its key changes it is removed and made. An entry that
    stays as it was costs nothing.
    """
    before, after = (None if item is None else index.entry_of(item, shape.keys) for item in (old, new))
    if before is not None and after is not None:
        if items_equal(before, after):
            return 0.0
        if items_equal(_place(index, before), _place(index, after)):
            return write_units_of(max(item_size_bytes(before), item_size_bytes(after)))
    return sum(write_units_of(item_size_bytes(entry)) for entry in (before, after) if entry is not None)


def _place(index: Index, entry: Item) -> Item:
    return {name: entry[name] for name in index.keys.names}


def write_units_of(size_bytes: int) -> float:
    """The units of a write whose larger item is so large."""
    return float(_units(size_bytes, _WRITE_UNIT_BYTES))


def _units(size_bytes: int, unit_bytes: int) -> int:
    return max(1, -(-size_bytes // unit_bytes))


def asks_for_capacity(request: Request) -> bool:
    """Whether the caller wants to know; counting an item's size takes longer than reading a small one."""
    return request.get("ReturnConsumedCapacity") in {"TOTAL", "INDEXES"}


def consumed(request: Request, table: str, units: Units, *, kind: Kind | None = None) -> dict[str, Any]:
    """The ConsumedCapacity of one table.

    Args:
        request: says whether the parts of the indexes are told apart.
        table: the physical name.
        units: what was consumed.
        kind: what the units are told to be, too.
    """

    def told(each: float) -> dict[str, float]:
        return {"CapacityUnits": each, **({} if kind is None else {kind: each})}

    consumption: dict[str, Any] = {"TableName": table, **told(units.total)}
    if request["ReturnConsumedCapacity"] != "INDEXES":
        return consumption
    consumption["Table"] = told(units.table)
    for index, each in units.indexes:
        parts = "GlobalSecondaryIndexes" if index.is_global else "LocalSecondaryIndexes"
        consumption.setdefault(parts, {})[index.name] = told(each)
    return consumption


def add_capacity_by_table(
    response: Response,
    request: Request,
    units: Iterable[tuple[str, Units]],
    *,
    transactional: Kind | None = None,
) -> None:
    """Put the ConsumedCapacity of an operation on several items into its response, if it was asked for.

    Args:
        response: changed.
        request: the operation's request.
        units: table and units of each item.
        transactional: of a transaction, what its units are.
    """
    if not asks_for_capacity(request):
        return
    sums: dict[str, Units] = {}
    for table, each in units:
        counted = each if transactional is None else each.in_a_transaction()
        sums[table] = sums[table].plus(counted) if table in sums else counted
    response["ConsumedCapacity"] = [
        consumed(request, table, total, kind=transactional) for table, total in sums.items()
    ]
