"""Attribute values: their types, their equality and their order.

An attribute value is a dictionary with one entry, from its DynamoDB type to its content:
`{"S": str}`, `{"N": str}`, `{"B": bytes}`, `{"BOOL": bool}`, `{"NULL": True}`, `{"SS": [str]}`,
`{"NS": [str]}`, `{"BS": [bytes]}`, `{"L": [value]}`, `{"M": {str: value}}`. An item maps attribute
names to such values.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeAlias

from dualstore.items.numbers import number

AttributeValue: TypeAlias = dict[str, Any]
Item: TypeAlias = dict[str, AttributeValue]
Key: TypeAlias = Item

STAMP = "_dsv"
"""The attribute that names the write which made an item."""
PREDECESSOR = "_dsp"
"""The attribute that names the write which an update replaced."""


def without_stamps(item: Item) -> Item:
    """The item as its application knows it; the same object where it carries no stamp."""
    if STAMP not in item and PREDECESSOR not in item:
        return item
    known = item.copy()  # a quarter of the time that a comprehension takes
    known.pop(STAMP, None)
    known.pop(PREDECESSOR, None)
    return known


def type_of(value: AttributeValue) -> str:
    """The DynamoDB type of a value, such as `"S"` or `"NS"`."""
    return next(iter(value))


def content_of(value: AttributeValue) -> Any:
    """What a value holds, without its type."""
    return next(iter(value.values()))


def canonical(value: AttributeValue) -> Hashable:
    """A hashable form that two values share exactly when DynamoDB holds them equal."""
    kind, content = next(iter(value.items()))
    return kind, _CANONICAL[kind](content)


_CANONICAL: dict[str, Callable[[Any], Hashable]] = {
    "S": str,
    "N": number,
    "B": bytes,
    "BOOL": bool,
    "NULL": bool,
    "SS": frozenset,
    "NS": lambda members: frozenset(map(number, members)),
    "BS": lambda members: frozenset(map(bytes, members)),
    "L": lambda elements: tuple(map(canonical, elements)),
    "M": lambda entries: frozenset((name, canonical(v)) for name, v in entries.items()),
}


def values_equal(a: AttributeValue, b: AttributeValue) -> bool:
    """Whether DynamoDB holds two values equal.

    Types must match; numbers compare numerically, sets without order, lists and maps in depth.
    """
    return a == b or (a.keys() == b.keys() and canonical(a) == canonical(b))


def items_equal(a: Item, b: Item, *, ignore_stamps: bool = True) -> bool:
    """Whether two items hold the same attributes with equal values."""
    if ignore_stamps:
        a, b = without_stamps(a), without_stamps(b)
    return a == b or (a.keys() == b.keys() and all(values_equal(value, b[name]) for name, value in a.items()))


def differing_paths(a: Item, b: Item, *, ignore_stamps: bool = True) -> list[str]:
    """Where two items differ, without saying what they hold.

    Args:
        a: one item.
        b: another.
        ignore_stamps: whether to leave the stamps out.

    Returns:
        Attribute paths in order, such as `["lines[2].price", "tags"]`. Lists of different
        lengths differ as a whole.
    """
    if ignore_stamps:
        a, b = without_stamps(a), without_stamps(b)
    return list(_differing_entries("", a, b))


def _differing_entries(prefix: str, a: Item, b: Item) -> Iterator[str]:
    for name in sorted(a.keys() | b.keys()):
        if name in a and name in b:
            yield from _differing(prefix + name, a[name], b[name])
        else:
            yield prefix + name


def _differing(path: str, a: AttributeValue, b: AttributeValue) -> Iterator[str]:
    if values_equal(a, b):
        return
    if "M" in a and "M" in b:
        yield from _differing_entries(f"{path}.", a["M"], b["M"])
    elif "L" in a and "L" in b and len(a["L"]) == len(b["L"]):
        for index, (left, right) in enumerate(zip(a["L"], b["L"], strict=True)):
            yield from _differing(f"{path}[{index}]", left, right)
    else:
        yield path


_SORTABLE: dict[str, Callable[[Any], Any]] = {
    "S": str,  # by code points, which order as their UTF-8 bytes do
    "N": number,
    "B": bytes,
}


def compare(a: AttributeValue, b: AttributeValue) -> int:
    """Order two strings (by UTF-8 bytes), numbers or binaries (by unsigned bytes) of one type.

    Returns:
        A negative number, 0 or a positive number, as `a` is less than, equal to or greater than `b`.

    Raises:
        TypeError: the types differ, or have no order.
    """
    kind = type_of(a)
    if kind not in _SORTABLE or kind not in b:
        raise TypeError(f"DynamoDB gives {kind} and {type_of(b)} no order")
    as_sortable = _SORTABLE[kind]
    left, right = as_sortable(a[kind]), as_sortable(b[kind])
    return int(left > right) - int(left < right)
