"""Projections: which parts of an item a read returns.

AWS, "Using projection expressions in DynamoDB".
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeAlias

from dualstore.expressions.paths import Binding, Path, parse_path, reject_overlaps, reported_as
from dualstore.expressions.tokens import CACHED_TEXTS, Cursor
from dualstore.items import AttributeValue, Item

Branch: TypeAlias = "dict[str | int, Branch | None]"
"""Paths that begin alike, merged: what is wanted of each part; None where all of it is."""


@lru_cache(CACHED_TEXTS)
def _parse(text: str) -> tuple[Path, ...]:
    cursor = Cursor(text)
    paths = [parse_path(cursor)]
    while cursor.skip_symbol(","):
        paths.append(parse_path(cursor))
    cursor.take_kind("end")
    return tuple(paths)


def projection(text: str, names: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Read a ProjectionExpression.

    Args:
        text: the expression.
        names: ExpressionAttributeNames.

    Raises:
        RequestRejected: a syntax error, an undefined name, or paths that overlap or conflict.
    """
    with reported_as("ProjectionExpression"):
        binding = Binding(names or {})
        paths = tuple(binding.path(path) for path in _parse(text))
        reject_overlaps(paths)
        return paths


def project(paths: Iterable[Path], item: Item) -> Item:
    """The parts of an item at these paths, each inside the maps and lists that hold it.

    Elements picked from a list move together, in the order of the list. Where a path leads nowhere
    it adds nothing, not even empty maps.
    """
    root: Branch = {}
    for path in paths:
        branch = root
        for step in path[:-1]:
            inner = branch.setdefault(step, {})
            branch = inner if inner is not None else {}
        branch[path[-1]] = None
    return _selected_entries(root, item)


def _selected_entries(branch: Branch, entries: Item) -> Item:
    selected = {
        name: _selected(inner, entries[name])
        for name, inner in branch.items()
        if isinstance(name, str) and name in entries
    }
    return {name: value for name, value in selected.items() if value is not None}


def _selected(branch: "Branch | None", value: AttributeValue) -> AttributeValue | None:
    if branch is None:
        return value
    if "M" in value:
        entries = _selected_entries(branch, value["M"])
        return {"M": entries} if entries else None
    if "L" in value:
        elements = [
            _selected(branch[index], element) for index, element in enumerate(value["L"]) if index in branch
        ]
        found = [element for element in elements if element is not None]
        return {"L": found} if found else None
    return None
