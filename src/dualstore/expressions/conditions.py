"""What a ConditionExpression, FilterExpression or KeyConditionExpression says, as a tree."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dualstore.expressions.paths import Path
from dualstore.items import AttributeValue

Comparator: TypeAlias = Literal["=", "<>", "<", "<=", ">", ">="]
FunctionName: TypeAlias = Literal[
    "attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains"
]


@dataclass(frozen=True, slots=True)
class Attribute:
    """The value at a path of the item, if there is one."""

    path: Path


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A `:value` whose value is not yet known. A bound tree has none."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that came with the request."""

    value: AttributeValue


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a value: characters, bytes, members, elements or entries; none for other types."""

    operand: "Operand"


Operand: TypeAlias = Attribute | Placeholder | Constant | Size


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left operator right`."""

    operator: Comparator
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class Between:
    """`operand BETWEEN lower AND upper`, both ends included."""

    operand: Operand
    lower: Operand
    upper: Operand


@dataclass(frozen=True, slots=True)
class Membership:
    """`operand IN (choice, …)`."""

    operand: Operand
    choices: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function that is true or false, such as `contains(a, b)`."""

    function: FunctionName
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """`NOT term`."""

    term: "Predicate"


@dataclass(frozen=True, slots=True)
class And:
    """`term AND term …`, two terms at least."""

    terms: tuple["Predicate", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """`term OR term …`, two terms at least."""

    terms: tuple["Predicate", ...]


Leaf: TypeAlias = Comparison | Between | Membership | Call
Predicate: TypeAlias = Leaf | Not | And | Or


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition or filter of one request, its names and values bound.

    Attributes:
        predicate: what must hold.
    """

    predicate: Predicate
