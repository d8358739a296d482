"""Whether a condition holds for an item: the truth that every store must agree with.

Two-valued: a missing attribute makes every comparison false but `<>`, which it makes true.
"""

from collections.abc import Callable
from operator import ge, gt, le, lt

from dualstore.expressions.conditions import (
    And,
    Attribute,
    Between,
    Call,
    Comparison,
    Condition,
    Constant,
    Leaf,
    Membership,
    Not,
    Operand,
    Or,
    Placeholder,
    Predicate,
    Size,
)
from dualstore.expressions.paths import resolve
from dualstore.items import AttributeValue, Item, compare, type_of, values_equal


def evaluate(condition: Condition, item: Item | None) -> bool:
    """Whether a condition holds.

    Args:
        condition: the condition.
        item: the item; None for an absent one, which counts as an item without attributes.
    """
    return _holds(condition.predicate, item or {})


def _holds(predicate: Predicate, item: Item) -> bool:
    match predicate:
        case And(terms):
            return all(_holds(term, item) for term in terms)
        case Or(terms):
            return any(_holds(term, item) for term in terms)
        case Not(term):
            return not _holds(term, item)
        case _:
            return _leaf_holds(predicate, item)


def _leaf_holds(leaf: Leaf, item: Item) -> bool:
    match leaf:
        case Comparison(operator, left, right):
            return COMPARISONS[operator](_value(left, item), _value(right, item))
        case Call(function, operands):
            return _FUNCTIONS[function](*[_value(operand, item) for operand in operands])
        case Between(operand, lower, upper):
            value = _value(operand, item)
            not_below = COMPARISONS[">="](value, _value(lower, item))
            return not_below and COMPARISONS["<="](value, _value(upper, item))
        case Membership(operand, choices):
            value = _value(operand, item)
            return any(_equal(value, _value(choice, item)) for choice in choices)


def _value(operand: Operand, item: Item) -> AttributeValue | None:
    match operand:
        case Constant(value):
            return value
        case Attribute(path):
            return resolve(path, item)
        case Size(inner):
            return _size(_value(inner, item))
        case Placeholder(name):
            raise TypeError(f"{name} is not bound to a value")


_SIZES: dict[str, Callable[[AttributeValue], int]] = {
    # As Java counts: UTF-16 code units.
    "S": lambda value: len(value["S"].encode("utf-16-le")) // 2,
    "B": lambda value: len(value["B"]),
    "SS": lambda value: len(value["SS"]),
    "NS": lambda value: len(value["NS"]),
    "BS": lambda value: len(value["BS"]),
    "L": lambda value: len(value["L"]),
    "M": lambda value: len(value["M"]),
}


def _size(value: AttributeValue | None) -> AttributeValue | None:
    if value is None or type_of(value) not in _SIZES:
        return None
    return {"N": str(_SIZES[type_of(value)](value))}


Relation = Callable[[AttributeValue | None, AttributeValue | None], bool]


def _equal(left: AttributeValue | None, right: AttributeValue | None) -> bool:
    return left is not None and right is not None and values_equal(left, right)


def _ordered(holds: Callable[[int, int], bool]) -> Relation:
    def relation(left: AttributeValue | None, right: AttributeValue | None) -> bool:
        if left is None or right is None or type_of(left) != type_of(right):
            return False
        return type_of(left) in {"S", "N", "B"} and holds(compare(left, right), 0)

    return relation


COMPARISONS: dict[str, Relation] = {
    "=": _equal,
    "<>": lambda left, right: not _equal(left, right),
    "<": _ordered(lt),
    "<=": _ordered(le),
    ">": _ordered(gt),
    ">=": _ordered(ge),
}


def begins_with(value: AttributeValue | None, start: AttributeValue | None) -> bool:
    """Whether both are strings, or both binary, and one begins with the other."""
    if value is None or start is None:
        return False
    return any(kind in value and kind in start and value[kind].startswith(start[kind]) for kind in ("S", "B"))


def _contains(container: AttributeValue | None, member: AttributeValue | None) -> bool:
    if container is None or member is None:
        return False
    kind, wanted = type_of(container), type_of(member)
    if kind in {"S", "B"}:
        return kind == wanted and member[kind] in container[kind]
    if kind in {"SS", "NS", "BS"}:
        return kind[0] == wanted and any(values_equal({wanted: each}, member) for each in container[kind])
    return kind == "L" and any(values_equal(each, member) for each in container["L"])


def _is_of_type(value: AttributeValue | None, wanted: AttributeValue | None) -> bool:
    return value is not None and wanted is not None and type_of(value) == wanted["S"]


_FUNCTIONS: dict[str, Callable[..., bool]] = {
    "attribute_exists": lambda value: value is not None,
    "attribute_not_exists": lambda value: value is None,
    "attribute_type": _is_of_type,
    "begins_with": begins_with,
    "contains": _contains,
}
