"""Consumed capacity, counted as AWS, "DynamoDB throughput capacity", counts it."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from dualstore.items import Item, item_size_bytes
from dualstore.operations import Request, Response

_READ_UNIT_BYTES = 4_096
_WRITE_UNIT_BYTES = 1_024

TRANSACTIONAL = 2
"""How many times the units of a plain read or write its transactional form costs."""


def read_units(size_bytes: int, *, consistent: bool) -> float:
    """The units of a read: one per 4 KB begun, half of that where it is eventually consistent."""
    return _units(size_bytes, _READ_UNIT_BYTES) * (1.0 if consistent else 0.5)


def item_read_units(item: Item | None, *, consistent: bool) -> float:
    """The units of reading one item; an absent one costs what the smallest does."""
    return read_units(0 if item is None else item_size_bytes(item), consistent=consistent)


def write_units(old: Item | None, new: Item | None, *, new_size_bytes: int | None = None) -> float:
    """The units of a write: one per 1 KB begun of the larger of the old and the new item.

    Args:
        old: the item that was there, or None.
        new: the item that is there, or None.
        new_size_bytes: what it counts for, where that is known.
    """
    before = 0 if old is None else item_size_bytes(old)
    if new_size_bytes is None:
        new_size_bytes = 0 if new is None else item_size_bytes(new)
    return write_units_of(max(before, new_size_bytes))


def write_units_of(size_bytes: int) -> float:
    """The units of a write whose larger item is so large."""
    return float(_units(size_bytes, _WRITE_UNIT_BYTES))


def _units(size_bytes: int, unit_bytes: int) -> int:
    return max(1, -(-size_bytes // unit_bytes))


def asks_for_capacity(request: Request) -> bool:
    """Whether the caller wants to know; counting an item's size takes longer than reading a small one."""
    return request.get("ReturnConsumedCapacity") in {"TOTAL", "INDEXES"}


def consumed(
    request: Request, table: str, units: float, *, index: str | None = None, is_global: bool = False
) -> dict[str, Any]:
    """The ConsumedCapacity of one table.

    Args:
        request: says whether the part of the index is told apart.
        table: the physical name.
        units: what was consumed.
        index: the index that was read, if one was.
        is_global: whether that index is a global one.
    """
    consumption: dict[str, Any] = {"TableName": table, "CapacityUnits": units}
    if request["ReturnConsumedCapacity"] != "INDEXES":
        return consumption
    consumption["Table"] = {"CapacityUnits": 0.0 if index else units}
    if index:
        kind = "GlobalSecondaryIndexes" if is_global else "LocalSecondaryIndexes"
        consumption[kind] = {index: {"CapacityUnits": units}}
    return consumption


def add_capacity_by_table(
    response: Response, request: Request, units: Iterable[tuple[str, float]], *, times: int = 1
) -> None:
    """Put the ConsumedCapacity of an operation on several items into its response, if it was asked for.

    Args:
        response: changed.
        request: the operation's request.
        units: table and units of each item.
        times: what each of them counts for.
    """
    if not asks_for_capacity(request):
        return
    sums: defaultdict[str, float] = defaultdict(float)
    for table, each in units:
        sums[table] += each * times
    response["ConsumedCapacity"] = [consumed(request, table, total) for table, total in sums.items()]
