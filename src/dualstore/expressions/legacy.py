"""DynamoDB's parameters from before expressions, said as the expressions that mean the same.

What each means is in the Amazon DynamoDB Developer Guide, "Legacy conditional parameters". They speak of
top-level attributes only, and may not be mixed with expressions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

LEGACY_PARAMETERS = frozenset(
    {
        "AttributesToGet",
        "AttributeUpdates",
        "ConditionalOperator",
        "Expected",
        "KeyConditions",
        "QueryFilter",
        "ScanFilter",
    }
)
EXPRESSION_PARAMETERS = frozenset(
    {
        "ConditionExpression",
        "ExpressionAttributeNames",
        "ExpressionAttributeValues",
        "FilterExpression",
        "KeyConditionExpression",
        "ProjectionExpression",
        "UpdateExpression",
    }
)

_CONDITIONS = {
    "Expected": "ConditionExpression",
    "QueryFilter": "FilterExpression",
    "ScanFilter": "FilterExpression",
}

# Each comparison with as many values as it takes; `a` stands for the attribute, `v`, `w` for the values.
_COMPARISONS: Mapping[str, tuple[int, str]] = {
    "EQ": (1, "{a} = {v}"),
    "NE": (1, "{a} <> {v}"),
    "LE": (1, "{a} <= {v}"),
    "LT": (1, "{a} < {v}"),
    "GE": (1, "{a} >= {v}"),
    "GT": (1, "{a} > {v}"),
    "NOT_NULL": (0, "attribute_exists({a})"),
    "NULL": (0, "attribute_not_exists({a})"),
    "CONTAINS": (1, "contains({a}, {v})"),
    "NOT_CONTAINS": (1, "NOT contains({a}, {v})"),
    "BEGINS_WITH": (1, "begins_with({a}, {v})"),
    "BETWEEN": (2, "{a} BETWEEN {v} AND {w}"),
}
_SETS = frozenset({"SS", "NS", "BS"})
_ADDED = _SETS | {"N"}


class _Malformed(Exception):  # noqa: N818 - no fault of ours: DynamoDB refuses such a request in its own words
    """A legacy parameter that says nothing."""


def with_expressions(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request of one table that says in expressions what it said in legacy parameters.

    Args:
        request: the parameters of one operation, or of one table within a BatchGetItem; never changed.

    Returns:
        The request itself where it uses none, and where it cannot be said so: legacy parameters that are
        malformed, or mixed with expressions. DynamoDB refuses those.
    """
    if LEGACY_PARAMETERS.isdisjoint(request) or not EXPRESSION_PARAMETERS.isdisjoint(request):
        return request
    try:
        return _translated(request)
    except (_Malformed, AttributeError, KeyError, TypeError):
        return request


def _translated(request: Mapping[str, Any]) -> Mapping[str, Any]:
    placeholders = _Placeholders()
    said: dict[str, str] = {}
    joined = _operator(request)
    for parameter, expression in _CONDITIONS.items():
        if request.get(parameter):
            said[expression] = joined.join(_conditions(request[parameter], placeholders))
    if "KeyConditions" in request:
        said["KeyConditionExpression"] = " AND ".join(
            _some(_conditions(request["KeyConditions"], placeholders))
        )
    if "AttributesToGet" in request:
        said["ProjectionExpression"] = ", ".join(_some(map(placeholders.name, request["AttributesToGet"])))
    if request.get("AttributeUpdates"):
        said["UpdateExpression"] = _update(request["AttributeUpdates"], placeholders)
    kept = {name: value for name, value in request.items() if name not in LEGACY_PARAMETERS}
    return {**kept, **said, **placeholders.parameters}


def _some(texts: Iterable[str]) -> Sequence[str]:
    found = tuple(texts)
    if not found:
        raise _Malformed
    return found


class _Placeholders:
    """The names and values that the expressions of one request stand for."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def name(self, attribute: str) -> str:
        return self._names.setdefault(attribute, f"#legacy{len(self._names)}")

    def value(self, value: Any) -> str:
        placeholder = f":legacy{len(self._values)}"
        self._values[placeholder] = value
        return placeholder

    @property
    def parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._names:
            found["ExpressionAttributeNames"] = {short: name for name, short in self._names.items()}
        if self._values:
            found["ExpressionAttributeValues"] = self._values
        return found


def _operator(request: Mapping[str, Any]) -> str:
    """What joins the conditions. DynamoDB takes a ConditionalOperator only where there are several."""
    operator = request.get("ConditionalOperator")
    if operator is None:
        return " AND "
    several = any(len(request.get(parameter) or ()) > 1 for parameter in _CONDITIONS)
    if operator not in {"AND", "OR"} or not several:
        raise _Malformed
    return f" {operator} "


def _conditions(conditions: Mapping[str, Any], placeholders: _Placeholders) -> Sequence[str]:
    return [
        _condition(placeholders.name(attribute), *_comparison(condition), placeholders)
        for attribute, condition in conditions.items()
    ]


def _comparison(condition: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
    """The operator of one condition, and its values; `Exists` and `Value` are the oldest way to say it."""
    if "ComparisonOperator" in condition:
        if "Exists" in condition:
            raise _Malformed
        values = condition.get("AttributeValueList")
        if values is None:
            values = [condition["Value"]] if "Value" in condition else []
        elif "Value" in condition:
            raise _Malformed
        return condition["ComparisonOperator"], values
    if "AttributeValueList" in condition:
        raise _Malformed
    if condition.get("Exists", True) is False:
        if "Value" in condition:
            raise _Malformed
        return "NULL", []
    return "EQ", [condition["Value"]]


def _condition(name: str, operator: str, values: Sequence[Any], placeholders: _Placeholders) -> str:
    if operator == "IN":
        if not values:
            raise _Malformed
        return f"{name} IN ({', '.join(map(placeholders.value, values))})"
    count, text = _COMPARISONS[operator]
    if len(values) != count:
        raise _Malformed
    return text.format(a=name, **dict(zip("vw", map(placeholders.value, values), strict=False)))


def _update(updates: Mapping[str, Any], placeholders: _Placeholders) -> str:
    clauses: dict[str, list[str]] = {}
    for attribute, change in updates.items():
        action = change.get("Action", "PUT")
        clause, text = _ACTIONS[action](placeholders.name(attribute), change.get("Value"), placeholders)
        clauses.setdefault(clause, []).append(text)
    return " ".join(f"{clause} {', '.join(actions)}" for clause, actions in clauses.items())


def _put(name: str, value: Any, placeholders: _Placeholders) -> tuple[str, str]:
    if value is None:
        raise _Malformed
    return "SET", f"{name} = {placeholders.value(value)}"


def _add(name: str, value: Any, placeholders: _Placeholders) -> tuple[str, str]:
    """Adds a number, members to a set, or (what the expression's ADD does not) elements to a list."""
    kind = _type_of(value)
    if kind == "L":
        none = placeholders.value({"L": []})
        return "SET", f"{name} = list_append(if_not_exists({name}, {none}), {placeholders.value(value)})"
    if kind not in _ADDED:
        raise _Malformed
    return "ADD", f"{name} {placeholders.value(value)}"


def _delete(name: str, value: Any, placeholders: _Placeholders) -> tuple[str, str]:
    if value is None:
        return "REMOVE", name
    if _type_of(value) not in _SETS:
        raise _Malformed
    return "DELETE", f"{name} {placeholders.value(value)}"


def _type_of(value: Any) -> str:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise _Malformed
    return str(next(iter(value)))


_ACTIONS: Mapping[str, Callable[[str, Any, _Placeholders], tuple[str, str]]] = {
    "PUT": _put,
    "ADD": _add,
    "DELETE": _delete,
}
