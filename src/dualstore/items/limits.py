"""What DynamoDB would store: types, nesting, sets, sizes; and the form in which it gives it back."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dualstore.errors import RequestRejected, invalid
from dualstore.items.numbers import canonical_numeral, is_canonical, number, number_text
from dualstore.items.values import AttributeValue, Item, canonical

MAX_ITEM_SIZE_BYTES = 409_600
MAX_NESTING_LEVELS = 32


def text_size_bytes(text: str) -> int:
    """The length of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _digits_size_bytes(text: str) -> int:
    """As `_number_size_bytes`, of a canonical numeral: its digits can be counted as they stand."""
    return 1 + (len(text.strip("-0.").replace(".", "")) + 1) // 2 + (text[0] == "-")


def _number_size_bytes(text: str) -> int:
    if is_canonical(text):  # as nearly all are
        return _digits_size_bytes(text)
    value = number(text)
    if not value:
        return 1
    return 1 + (len(value.as_tuple().digits) + 1) // 2 + (value < 0)


_SIZE_BYTES: dict[str, Callable[[Any], int]] = {
    "S": text_size_bytes,
    "N": _number_size_bytes,
    "B": len,
    "BOOL": lambda _: 1,
    "NULL": lambda _: 1,
    "SS": lambda members: sum(map(text_size_bytes, members)),
    "NS": lambda members: sum(map(_number_size_bytes, members)),
    "BS": lambda members: sum(map(len, members)),
    "L": lambda elements: 3 + sum(1 + value_size_bytes(element) for element in elements),
    "M": lambda entries: 3 + len(entries) + item_size_bytes(entries),
}


def value_size_bytes(value: AttributeValue) -> int:
    """The bytes that a value counts for (see `item_size_bytes`)."""
    kind, content = next(iter(value.items()))
    return _SIZE_BYTES[kind](content)


def item_size_bytes(item: Item) -> int:
    """The bytes that an item counts for, by AWS, "DynamoDB item sizes and formats".

    Names and strings count as UTF-8, a number 1 byte per two significant digits and 1 (one more below
    zero), a Boolean or null 1, a list or map 3 and 1 for each element.
    """
    size = 0  # a loop of its own: Query counts every item that it reads, and most hold plain strings
    for name, value in item.items():
        size += len(name) if name.isascii() else len(name.encode())
        text = value.get("S")
        if text is None:
            size += value_size_bytes(value)
        else:
            size += len(text) if text.isascii() else len(text.encode())
    return size


def _check_type(content: object, *types: type) -> None:
    if not isinstance(content, types):
        raise invalid("Supplied AttributeValue does not hold content of its type")


def _check_text(text: object) -> None:
    _check_type(text, str)
    if str(text).isascii():
        return
    try:
        str(text).encode()
    except UnicodeEncodeError:
        raise invalid("A string is not valid Unicode: it holds a lone surrogate") from None


def _check_number(text: Any) -> None:
    _check_type(text, str)
    if not is_canonical(text):
        number(text)


def _check_null(content: object) -> None:
    if content is not True:
        raise invalid(
            "One or more parameter values were invalid: "
            "Null attribute value types must have the value of true"
        )


# DynamoDB's own words, its spaces included.
_EMPTY_SETS = {
    "S": "An string set  may not be empty",
    "N": "An number set  may not be empty",
    "B": "Binary sets should not be empty",
}


def _check_set(kind: str, members: Any, levels: int) -> None:
    _check_type(members, list, tuple, set, frozenset)
    if not members:
        raise invalid(f"One or more parameter values were invalid: {_EMPTY_SETS[kind]}")
    for member in members:
        _CHECKS[kind](member, levels)
    if len({canonical({kind: member}) for member in members}) < len(members):
        raise invalid("One or more parameter values were invalid: Input collection contains duplicates")


def _check_list(elements: Any, levels: int) -> None:
    _check_type(elements, list, tuple)
    for element in elements:
        validate_value(element, levels=levels - 1)


def _check_map(entries: Any, levels: int) -> None:
    _check_type(entries, Mapping)
    for name, element in entries.items():
        _check_text(name)
        validate_value(element, levels=levels - 1)


_CHECKS: dict[str, Callable[[Any, int], None]] = {
    "S": lambda content, _: _check_text(content),
    "N": lambda content, _: _check_number(content),
    "B": lambda content, _: _check_type(content, bytes, bytearray),
    "BOOL": lambda content, _: _check_type(content, bool),
    "NULL": lambda content, _: _check_null(content),
    "SS": lambda members, levels: _check_set("S", members, levels),
    "NS": lambda members, levels: _check_set("N", members, levels),
    "BS": lambda members, levels: _check_set("B", members, levels),
    "L": _check_list,
    "M": _check_map,
}


def validate_value(value: AttributeValue, *, levels: int = MAX_NESTING_LEVELS) -> None:
    """Reject what DynamoDB would not store.

    Args:
        value: an attribute value.
        levels: how many levels of values it may have, itself included.

    Raises:
        RequestRejected: an unknown type or content that is not of its type, a number outside the
            limits, an empty set or one with duplicates, a null that is not true, nesting too deep.
    """
    if not isinstance(value, (dict, Mapping)) or len(value) != 1:  # dict first: an ABC is slow to ask
        raise invalid("Supplied AttributeValue must contain exactly one of the supported datatypes")
    kind, content = next(iter(value.items()))
    check = _CHECKS.get(kind)
    if check is None:
        raise invalid("Supplied AttributeValue must contain exactly one of the supported datatypes")
    if levels <= 0:
        raise invalid("Nesting Levels have exceeded supported limits")
    check(content, levels)


def validate_item(item: Item) -> None:
    """Reject an item that DynamoDB would not store, whatever its table's keys.

    Raises:
        RequestRejected: a value is invalid (see `validate_value`), an attribute has an empty name,
            or the item is larger than 400 KB.
    """
    for name, value in item.items():
        _check_text(name)
        if not name:
            raise invalid("One or more parameter values were invalid: Attribute name is empty")
        validate_value(value)
    if item_size_bytes(item) > MAX_ITEM_SIZE_BYTES:
        raise _too_large()


def _too_large() -> RequestRejected:
    return invalid("Item size has exceeded the maximum allowed size")


def normalized(value: AttributeValue) -> AttributeValue:
    """A value as DynamoDB gives it back: every number in its one text, sets as lists in order.

    Raises:
        RequestRejected: a number is outside the limits.
    """
    kind, content = next(iter(value.items()))
    return {kind: _NORMALIZED[kind](content)} if kind in _NORMALIZED else value


_NORMALIZED: dict[str, Callable[[Any], Any]] = {
    "N": canonical_numeral,
    "B": bytes,
    "SS": sorted,
    "NS": lambda members: [number_text(each) for each in sorted(map(number, members))],
    "BS": lambda members: sorted(map(bytes, members)),
    "L": lambda elements: [normalized(element) for element in elements],
    "M": lambda entries: {name: normalized(element) for name, element in entries.items()},
}


def normalized_item(item: Item) -> Item:
    """An item as DynamoDB gives it back (see `normalized`)."""
    return {name: normalized(value) for name, value in item.items()}


class StoredItem(NamedTuple):
    """An item as DynamoDB holds it.

    Attributes:
        item: its normalised form (see `normalized_item`); it may share structure with what it was made of.
        size_bytes: the bytes that it counts for.
    """

    item: Item
    size_bytes: int


def stored_item(item: Item) -> StoredItem:
    """An item as DynamoDB would store it: `validate_item`, `normalized_item` and `item_size_bytes` at once.

    Every put needs all three, and one pass over what most items hold takes a third of their time.

    Raises:
        RequestRejected: as `validate_item`.
    """
    if "" in item:
        validate_item(item)  # says so, or what is wrong with an attribute before it
    stored = _stored(item, MAX_NESTING_LEVELS)
    if stored.size_bytes > MAX_ITEM_SIZE_BYTES:
        raise _too_large()
    return stored


_NO_VALUE = (("", None),)


def _checked_size_bytes(name: str) -> int:
    _check_text(name)
    return text_size_bytes(name)


def _stored(entries: Item, levels: int) -> StoredItem:
    size = 0
    stored: Item = {}
    for name, value in entries.items():
        size += len(name) if type(name) is str and name.isascii() else _checked_size_bytes(name)
        ((kind, content),) = value.items() if type(value) is dict and len(value) == 1 else _NO_VALUE
        if kind == "S" and type(content) is str and content.isascii():
            size += len(content)
        elif kind == "BOOL" and type(content) is bool:
            size += 1
        elif kind == "N" and type(content) is str and is_canonical(content):
            size += _digits_size_bytes(content)
        elif kind == "M" and type(content) is dict and levels > 1:
            inner = _stored(content, levels - 1)
            size += 3 + len(content) + inner.size_bytes
            value = {"M": inner.item}  # noqa: PLW2901 - the same value, normalised
        else:
            validate_value(value, levels=levels)
            value = normalized(value)  # noqa: PLW2901 - as above
            size += value_size_bytes(value)
        stored[name] = value
    return StoredItem(stored, size)
