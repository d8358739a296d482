"""Key conditions: which items a Query reads.

AWS, "Key condition expressions for the Query operation".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from dualstore.errors import RequestRejected, invalid
from dualstore.expressions.condition_binding import condition
from dualstore.expressions.conditions import (
    And,
    Attribute,
    Between,
    Call,
    Comparison,
    Condition,
    Constant,
    Membership,
    Not,
    Or,
    Predicate,
)
from dualstore.expressions.evaluation import COMPARISONS, begins_with
from dualstore.items import AttributeValue, KeyAttribute, KeySchema

SortOperator: TypeAlias = Literal["=", "<", "<=", ">", ">=", "BETWEEN", "begins_with"]

_MIRRORED: dict[str, SortOperator] = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class SortCondition:
    """What a Query asks of the sort key.

    Attributes:
        operator: how the sort key relates to the operands.
        operands: two for BETWEEN, else one; all of the sort key's type.
    """

    operator: SortOperator
    operands: tuple[AttributeValue, ...]


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """Which items a Query reads: one partition, and perhaps a part of it.

    Attributes:
        partition: the value of the partition key.
        sort: what is asked of the sort key, if anything.
    """

    partition: AttributeValue
    sort: SortCondition | None = None


def key_condition(
    text: str,
    names: Mapping[str, str] | None,
    values: Mapping[str, AttributeValue] | None,
    keys: KeySchema,
) -> KeyCondition:
    """Read a KeyConditionExpression.

    Args:
        text: the expression.
        names: ExpressionAttributeNames.
        values: ExpressionAttributeValues.
        keys: the key of the table or index that is queried.

    Raises:
        RequestRejected: DynamoDB would refuse the expression: anything but equality on the partition
            key, optionally with one condition on the sort key, or a value of another type than its key.
    """
    return key_condition_of(key_predicate(text, names, values), keys)


def key_predicate(
    text: str, names: Mapping[str, str] | None, values: Mapping[str, AttributeValue] | None
) -> Condition:
    """Read a KeyConditionExpression as far as that goes without the key; arguments as for `key_condition`.

    Raises:
        RequestRejected: DynamoDB would refuse the expression whatever the key.
    """
    return condition(text, names, values, kind="KeyConditionExpression")


def key_condition_of(parsed: Condition, keys: KeySchema) -> KeyCondition:
    """What a KeyConditionExpression says of a key.

    Args:
        parsed: from `key_predicate`.
        keys: the key of the table or index that is queried.

    Raises:
        RequestRejected: as `key_condition`.
    """
    by_name: dict[str, SortCondition] = {}
    for predicate in _terms(parsed.predicate):
        name, wanted = _on_one_key(predicate)
        if name in by_name:
            raise invalid("KeyConditionExpressions must only contain one condition per key")
        by_name[name] = wanted
    partition = by_name.pop(keys.partition.name, None)
    if partition is None:
        raise invalid(f"Query condition missed key schema element: {keys.partition.name}")
    if partition.operator != "=":
        raise invalid("Query key condition not supported")
    sort = None
    if keys.sort is not None and keys.sort.name in by_name:
        sort = by_name.pop(keys.sort.name)
        _check_types(keys.sort, sort)
    if by_name:
        raise invalid("Query key condition not supported")
    _check_types(keys.partition, partition)
    KeySchema(keys.partition).key_of({keys.partition.name: partition.operands[0]})
    return KeyCondition(partition.operands[0], sort)


def matches(sort_condition: SortCondition, value: AttributeValue) -> bool:
    """Whether a sort key meets a condition."""
    first, last = sort_condition.operands[0], sort_condition.operands[-1]
    match sort_condition.operator:
        case "BETWEEN":
            return COMPARISONS["<="](first, value) and COMPARISONS["<="](value, last)
        case "begins_with":
            return begins_with(value, first)
        case operator:
            return COMPARISONS[operator](value, first)


def _terms(predicate: Predicate) -> tuple[Predicate, ...]:
    return predicate.terms if isinstance(predicate, And) else (predicate,)


def _on_one_key(predicate: Predicate) -> tuple[str, SortCondition]:
    """The attribute that a predicate is about, and what it asks of it."""
    match predicate:
        case Comparison("<>"):
            raise _invalid_operator("<>")
        case Comparison(operator, Constant(value), Attribute() as attribute):
            return _name(attribute), SortCondition(_MIRRORED[operator], (value,))
        case Comparison(operator, Attribute() as attribute, Constant(value)):
            return _name(attribute), SortCondition(cast("SortOperator", operator), (value,))
        case Between(Attribute() as attribute, Constant(lower), Constant(upper)):
            return _name(attribute), SortCondition("BETWEEN", (lower, upper))
        case Call("begins_with", (Attribute() as attribute, Constant(start))):
            return _name(attribute), SortCondition("begins_with", (start,))
        case Call(function) if function != "begins_with":
            raise _invalid_operator(function)
        case Or() | Not() | And():
            raise _invalid_operator(type(predicate).__name__.upper())
        case Membership():
            raise _invalid_operator("IN")
        case _:
            raise invalid(
                "Invalid condition in KeyConditionExpression: it must compare one key attribute with values"
            )


def _invalid_operator(operator: str) -> RequestRejected:
    return invalid(f"Invalid operator used in KeyConditionExpression: {operator}")


def _name(attribute: Attribute) -> str:
    name, *nested = attribute.path
    if nested:
        raise invalid("KeyConditionExpressions cannot have conditions on nested attributes")
    return str(name)


def _check_types(key: KeyAttribute, wanted: SortCondition) -> None:
    if any(key.type not in operand for operand in wanted.operands):
        raise invalid(
            "One or more parameter values were invalid: Condition parameter type does not match schema type"
        )
