"""A parsed condition with its names and values, checked as DynamoDB checks it before it reads an item."""

from collections.abc import Mapping

from dualstore.expressions.condition_parser import parse_condition
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
from dualstore.expressions.paths import Binding, path_text, reported_as
from dualstore.expressions.tokens import MalformedExpression
from dualstore.items import AttributeValue, compare, type_of

_ORDERED_TYPES = frozenset({"S", "N", "B"})
_UNSIZED_TYPES = frozenset({"N", "BOOL", "NULL"})
_TYPE_NAMES = frozenset({"S", "N", "B", "SS", "NS", "BS", "BOOL", "NULL", "L", "M"})


def condition(
    text: str,
    names: Mapping[str, str] | None = None,
    values: Mapping[str, AttributeValue] | None = None,
    *,
    kind: str = "ConditionExpression",
) -> Condition:
    """Read a condition or filter.

    Args:
        text: the expression.
        names: ExpressionAttributeNames.
        values: ExpressionAttributeValues.
        kind: which parameter it is, for the message of a refusal.

    Returns:
        The condition, to be tried with `evaluate`.

    Raises:
        RequestRejected: DynamoDB would refuse the expression whatever the item.
    """
    with reported_as(kind):
        return Condition(_bind(parse_condition(text), Binding(names or {}, values or {})))


def attributes_read(bound_condition: Condition) -> frozenset[str]:
    """The top-level attributes that a condition looks at; a Query's filter may not name a key's."""
    found: set[str] = set()
    pending: list[Predicate | Operand] = [bound_condition.predicate]
    while pending:
        match pending.pop():
            case Attribute(path):
                found.add(str(path[0]))
            case Comparison(_, left, right):
                pending += (left, right)
            case Between(operand, lower, upper):
                pending += (operand, lower, upper)
            case Membership(operand, choices):
                pending += (operand, *choices)
            case Call(_, operands):
                pending += operands
            case And(terms) | Or(terms):
                pending += terms
            case Size(operand) | Not(operand):
                pending.append(operand)
            case Constant() | Placeholder():
                pass
    return frozenset(found)


def _bind(predicate: Predicate, binding: Binding) -> Predicate:
    match predicate:
        case And(terms):
            return And(tuple([_bind(term, binding) for term in terms]))
        case Or(terms):
            return Or(tuple([_bind(term, binding) for term in terms]))
        case Not(term):
            return Not(_bind(term, binding))
        case _:
            return _bind_leaf(predicate, binding)


def _bind_leaf(leaf: Leaf, binding: Binding) -> Leaf:
    match leaf:
        case Comparison(operator, left, right):
            left, right = _bind_operand(left, binding), _bind_operand(right, binding)
            _reject_same_attribute(operator, left, right)
            if operator not in {"=", "<>"}:
                _reject_unordered(operator, left, right)
            return Comparison(operator, left, right)
        case Between(operand, lower, upper):
            operand = _bind_operand(operand, binding)
            lower, upper = _bind_operand(lower, binding), _bind_operand(upper, binding)
            _reject_unordered("BETWEEN", operand, lower, upper)
            _reject_reversed_bounds(lower, upper)
            return Between(operand, lower, upper)
        case Membership(operand, choices):
            return Membership(
                _bind_operand(operand, binding),
                tuple([_bind_operand(choice, binding) for choice in choices]),
            )
        case Call(function, operands):
            call = Call(function, tuple([_bind_operand(each, binding) for each in operands]))
            _check_call(call)
            return call


def _bind_operand(operand: Operand, binding: Binding) -> Operand:
    match operand:
        case Attribute(path):
            return Attribute(binding.path(path))
        case Placeholder(name):
            return Constant(binding.value(name))
        case Size(inner):
            inner = _bind_operand(inner, binding)
            if _known_type(inner) in _UNSIZED_TYPES:
                raise _wrong_type("size", inner)
            return Size(inner)
        case Constant():
            return operand


def _known_type(operand: Operand) -> str | None:
    """The type of an operand as far as the expression alone tells it."""
    match operand:
        case Constant(value):
            return type_of(value)
        case Size():
            return "N"
        case _:
            return None


def _wrong_type(function: str, operand: Operand) -> MalformedExpression:
    return MalformedExpression(
        "Incorrect operand type for operator or function; "
        f"operator or function: {function}, operand type: {_known_type(operand)}"
    )


def _reject_same_attribute(function: str, left: Operand, right: Operand) -> None:
    if isinstance(left, Attribute) and left == right:
        raise MalformedExpression(
            "The first operand must be distinct from the remaining operands for this operator or "
            f"function; operator: {function}, first operand: {path_text(left.path)}"
        )


def _reject_unordered(operator: str, *operands: Operand) -> None:
    for operand in operands:
        if _known_type(operand) not in _ORDERED_TYPES | {None}:
            raise _wrong_type(operator, operand)


def _reject_reversed_bounds(lower: Operand, upper: Operand) -> None:
    if not (isinstance(lower, Constant) and isinstance(upper, Constant)):
        return
    if _known_type(lower) != _known_type(upper):
        raise MalformedExpression("The BETWEEN operator requires same data type for lower and upper bounds")
    if compare(lower.value, upper.value) > 0:
        raise MalformedExpression(
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound"
        )


def _check_call(call: Call) -> None:
    match call:
        case Call("attribute_exists" | "attribute_not_exists", (operand,)):
            if not isinstance(operand, Attribute):
                raise MalformedExpression(
                    f"Operator or function requires a document path; operator or function: {call.function}"
                )
        case Call("attribute_type", (_, wanted)):
            if not isinstance(wanted, Constant) or "S" not in wanted.value:
                raise _wrong_type(call.function, wanted)
            if wanted.value["S"] not in _TYPE_NAMES:
                raise MalformedExpression("Invalid attribute type name found")
        case Call("begins_with", (whole, start)):
            for operand in (whole, start):
                if _known_type(operand) not in {"S", "B", None}:
                    raise _wrong_type(call.function, operand)
            _reject_same_attribute(call.function, whole, start)
        case Call("contains", (container, member)):
            _reject_same_attribute(call.function, container, member)
