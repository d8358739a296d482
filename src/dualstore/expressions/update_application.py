"""Carrying out an update on an item, without changing the item that was given.

An update is applied as DynamoDB applies it: every value is read from the item as it was before, all
list indexes mean the list as it was before, and elements set past the end are appended in the order of
their indexes.
"""

from collections.abc import Callable
from typing import TypeAlias

from dualstore.errors import RequestRejected, invalid
from dualstore.expressions.conditions import Attribute, Constant, Placeholder
from dualstore.expressions.paths import resolve
from dualstore.expressions.updates import (
    Action,
    Add,
    Arithmetic,
    Delete,
    IfNotExists,
    ListAppend,
    Remove,
    Set,
    Source,
    Update,
)
from dualstore.items import (
    AttributeValue,
    Item,
    add_numbers,
    canonical,
    subtract_numbers,
    type_of,
)

Branch: TypeAlias = "dict[str | int, Branch | Action]"
"""Actions whose paths begin alike, merged: what to do in each part of a map or list."""


def apply_update(update: Update, item: Item, *, is_new: bool = False) -> Item:
    """Carry out an update.

    Args:
        update: the update.
        item: the item before it; for an item that does not exist yet, its key attributes.
        is_new: whether the item does not exist yet. DynamoDB then ignores a REMOVE of a path that
            leads nowhere, which it refuses on an existing item.

    Returns:
        The item after it, which shares the untouched parts of the one before.

    Raises:
        RequestRejected: an operand is missing or of the wrong type, a number leaves the limits, or a
            path leads through something that is missing or that is not a map or list.
    """
    root: Branch = {}
    for action in update.actions:
        if is_new and isinstance(action, Remove):
            continue
        branch = root
        for step in action.path[:-1]:
            inner = branch.setdefault(step, {})
            if not isinstance(inner, dict):
                raise _invalid_path()
            branch = inner
        branch[action.path[-1]] = action
    return _changed_entries(root, item, item)


def _changed_entries(branch: Branch, entries: Item, item: Item) -> Item:
    changed = dict(entries)
    for name, change in branch.items():
        if not isinstance(name, str):
            raise _invalid_path()
        value = _changed(change, entries.get(name), item)
        if value is not None:
            changed[name] = value
        else:
            changed.pop(name, None)
    return changed


def _changed_elements(branch: Branch, elements: list[AttributeValue], item: Item) -> list[AttributeValue]:
    changed: list[AttributeValue | None] = list(elements)
    for index in sorted(index for index in branch if isinstance(index, int)):
        if index < len(elements):
            changed[index] = _changed(branch[index], elements[index], item)
        else:
            changed.append(_changed(branch[index], None, item))
    return [element for element in changed if element is not None]


def _changed(change: "Branch | Action", value: AttributeValue | None, item: Item) -> AttributeValue | None:
    """A value after what is to be done to it or inside it; None where there is none any more."""
    match change:
        case Set(_, source):
            return _read(source, item)
        case Remove():
            return None
        case Add(_, operand):
            return _sum(value, operand)
        case Delete(_, operand):
            return _difference(value, operand)
    if value is not None and "M" in value:
        return {"M": _changed_entries(change, value["M"], item)}
    if value is not None and "L" in value and all(isinstance(index, int) for index in change):
        return {"L": _changed_elements(change, value["L"], item)}
    raise _invalid_path()


def _read(source: Source, item: Item) -> AttributeValue:
    """The value that SET takes from an item."""
    match source:
        case Constant(value):
            return value
        case Attribute(path):
            found = resolve(path, item)
            if found is None:
                raise invalid(
                    "The provided expression refers to an attribute that does not exist in the item"
                )
            return found
        case IfNotExists(attribute, otherwise):
            found = resolve(attribute.path, item)
            return _read(otherwise, item) if found is None else found
        case ListAppend(first, second):
            lists = _read(first, item), _read(second, item)
            if any("L" not in value for value in lists):
                raise _wrong_type()
            return {"L": [*lists[0]["L"], *lists[1]["L"]]}
        case Arithmetic(operator, left, right):
            numbers = _read(left, item), _read(right, item)
            if any("N" not in value for value in numbers):
                raise _wrong_type()
            return {"N": _ARITHMETIC[operator](numbers[0]["N"], numbers[1]["N"])}
        case Placeholder(name):
            raise TypeError(f"{name} is not bound to a value")


_ARITHMETIC: dict[str, Callable[[str, str], str]] = {"+": add_numbers, "-": subtract_numbers}


def _sum(value: AttributeValue | None, operand: AttributeValue) -> AttributeValue:
    kind = type_of(operand)
    if value is None:
        return operand
    if kind not in value:
        raise _wrong_type()
    if kind == "N":
        return {"N": add_numbers(value["N"], operand["N"])}
    present = _members(value)
    added = [member for key, member in _members(operand).items() if key not in present]
    return {kind: [*value[kind], *added]}


def _difference(value: AttributeValue | None, operand: AttributeValue) -> AttributeValue | None:
    kind = type_of(operand)
    if value is None:
        return None
    if kind not in value:
        raise _wrong_type()
    unwanted = _members(operand)
    kept = [member for key, member in _members(value).items() if key not in unwanted]
    return {kind: kept} if kept else None


def _members(value: AttributeValue) -> dict[object, str | bytes]:
    """The members of a set, by what makes two of them the same."""
    kind = type_of(value)
    return {canonical({kind[0]: member}): member for member in value[kind]}


def _wrong_type() -> RequestRejected:
    return invalid("An operand in the update expression has an incorrect data type")


def _invalid_path() -> RequestRejected:
    return invalid("The document path provided in the update expression is invalid for update")
