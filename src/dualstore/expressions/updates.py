"""What an UpdateExpression says: its actions, bound to their values.

Syntax: AWS, "Using update expressions in DynamoDB".
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dualstore.expressions.conditions import Attribute, Constant, Placeholder
from dualstore.expressions.paths import Path
from dualstore.items import AttributeValue, KeySchema


@dataclass(frozen=True, slots=True)
class IfNotExists:
    """`if_not_exists(path, otherwise)`: the value at the path, or the other where there is none."""

    attribute: Attribute
    otherwise: "Source"


@dataclass(frozen=True, slots=True)
class ListAppend:
    """`list_append(first, second)`: one list after the other."""

    first: "Source"
    second: "Source"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`left + right` or `left - right`."""

    operator: Literal["+", "-"]
    left: "Source"
    right: "Source"


Source: TypeAlias = Attribute | Placeholder | Constant | IfNotExists | ListAppend | Arithmetic
"""Where SET takes a value from."""


@dataclass(frozen=True, slots=True)
class Set:
    """`SET path = source`."""

    path: Path
    source: Source


@dataclass(frozen=True, slots=True)
class Remove:
    """`REMOVE path`."""

    path: Path


@dataclass(frozen=True, slots=True)
class Add:
    """`ADD path value`: a number, or the members of a set."""

    path: Path
    value: AttributeValue


@dataclass(frozen=True, slots=True)
class Delete:
    """`DELETE path value`: the members of a set."""

    path: Path
    value: AttributeValue


Action: TypeAlias = Set | Remove | Add | Delete


@dataclass(frozen=True, slots=True)
class Update:
    """An update of one request, its names and values bound.

    Attributes:
        actions: what to do, in the order of the text; no two paths overlap.
    """

    actions: tuple[Action, ...]


def touched_paths(update: Update) -> tuple[Path, ...]:
    """Where an update writes: what UPDATED_OLD and UPDATED_NEW show (see `project`)."""
    return tuple(action.path for action in update.actions)


def updated_key_attribute(update: Update, keys: KeySchema) -> str | None:
    """The first key attribute that an update writes to, or inside, which DynamoDB refuses; None: no one."""
    return next((str(path[0]) for path in touched_paths(update) if path[0] in keys.names), None)
