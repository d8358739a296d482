"""From the text of an update to its actions, with DynamoDB's static checks.

Syntax: AWS, "Using update expressions in DynamoDB".
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple, cast

from dualstore.expressions.conditions import Attribute, Constant, Placeholder
from dualstore.expressions.paths import (
    Binding,
    Path,
    parse_path,
    reject_overlaps,
    reported_as,
)
from dualstore.expressions.tokens import CACHED_TEXTS, Cursor, MalformedExpression
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
from dualstore.items import AttributeValue, type_of

_CLAUSES = ("SET", "REMOVE", "ADD", "DELETE")
_FUNCTION_OPERANDS = 2

_OPERAND_TYPES = {"ADD": {"N", "SS", "NS", "BS"}, "DELETE": {"SS", "NS", "BS"}}


class Parsed(NamedTuple):
    """One action before its names and values are bound; REMOVE has no source."""

    clause: str
    path: Path
    source: Source | None


def update(
    text: str,
    names: Mapping[str, str] | None = None,
    values: Mapping[str, AttributeValue] | None = None,
) -> Update:
    """Read an UpdateExpression.

    Args:
        text: the expression.
        names: ExpressionAttributeNames.
        values: ExpressionAttributeValues.

    Returns:
        The update, to be carried out with `apply_update`.

    Raises:
        RequestRejected: DynamoDB would refuse the expression whatever the item.
    """
    with reported_as("UpdateExpression"):
        binding = Binding(names or {}, values or {})
        actions = tuple(_bind(parsed, binding) for parsed in _parse(text))
        reject_overlaps(action.path for action in actions)
        return Update(actions)


@lru_cache(CACHED_TEXTS)
def _parse(text: str) -> tuple[Parsed, ...]:
    cursor = Cursor(text)
    actions: list[Parsed] = []
    seen: set[str] = set()
    while cursor.token.kind != "end" or not seen:
        clause = cursor.token.text.upper()
        if cursor.token.kind != "word" or clause not in _CLAUSES:
            cursor.fail()
        if clause in seen:
            raise MalformedExpression(
                f'The "{clause}" section can only be used once in an update expression;'
            )
        seen.add(clause)
        cursor.take()
        actions.append(_parse_action(clause, cursor))
        while cursor.skip_symbol(","):
            actions.append(_parse_action(clause, cursor))
    return tuple(actions)


def _parse_action(clause: str, cursor: Cursor) -> Parsed:
    path = parse_path(cursor)
    if clause == "REMOVE":
        return Parsed(clause, path, None)
    if clause == "SET":
        cursor.expect_symbol("=")
        return Parsed(clause, path, _parse_source(cursor))
    return Parsed(clause, path, Placeholder(cursor.take_kind("value").text))


def _parse_source(cursor: Cursor) -> Source:
    start = cursor.position
    if cursor.skip_symbol("("):
        source = _parse_sum(cursor)
        cursor.expect_symbol(")")
        if not cursor.at_symbol("+", "-"):
            return source
        cursor.position = start  # the parentheses were the first operand's own
    return _parse_sum(cursor)


def _parse_sum(cursor: Cursor) -> Source:
    left = _parse_operand(cursor)
    if not cursor.at_symbol("+", "-"):
        return left
    operator = cast("Literal['+', '-']", cursor.take().text)
    return Arithmetic(operator, left, _parse_operand(cursor))


def _parse_operand(cursor: Cursor) -> Source:
    if cursor.skip_symbol("("):
        operand = _parse_bare_operand(cursor)
        cursor.expect_symbol(")")
        return operand
    return _parse_bare_operand(cursor)


def _parse_bare_operand(cursor: Cursor) -> Source:
    if cursor.token.kind == "value":
        return Placeholder(cursor.take().text)
    if cursor.token.kind == "word" and cursor.peek().text == "(":
        return _parse_call(cursor)
    return Attribute(parse_path(cursor))


def _parse_call(cursor: Cursor) -> Source:
    name = cursor.take().text
    if name not in _CALLS:
        raise MalformedExpression(f"Invalid function name; function: {name}")
    cursor.expect_symbol("(")
    operands = [_parse_operand(cursor)]
    while cursor.skip_symbol(","):
        operands.append(_parse_operand(cursor))
    cursor.expect_symbol(")")
    if len(operands) != _FUNCTION_OPERANDS:
        raise MalformedExpression(
            "Incorrect number of operands for operator or function; "
            f"operator or function: {name}, number of operands: {len(operands)}"
        )
    return _CALLS[name](*operands)


def _if_not_exists(attribute: Source, otherwise: Source) -> Source:
    if not isinstance(attribute, Attribute):
        raise MalformedExpression(
            "Operator or function requires a document path; operator or function: if_not_exists"
        )
    return IfNotExists(attribute, otherwise)


def _list_append(first: Source, second: Source) -> Source:
    if isinstance(first, ListAppend) or isinstance(second, ListAppend):
        raise MalformedExpression(
            "The function is not allowed to be used this way in an expression; function: list_append"
        )
    return ListAppend(first, second)


_CALLS: dict[str, Callable[[Source, Source], Source]] = {
    "if_not_exists": _if_not_exists,
    "list_append": _list_append,
}


def _bind(parsed: Parsed, binding: Binding) -> Action:
    clause, path, source = parsed.clause, binding.path(parsed.path), parsed.source
    if source is None:
        return Remove(path)
    bound = _bind_source(source, binding)
    if clause == "SET":
        return Set(path, bound)
    value = cast("Constant", bound).value
    if type_of(value) not in _OPERAND_TYPES[clause]:
        raise MalformedExpression(
            "Incorrect operand type for operator or function; "
            f"operator: {clause}, operand type: {type_of(value)}"
        )
    return Add(path, value) if clause == "ADD" else Delete(path, value)


def _bind_source(source: Source, binding: Binding) -> Source:
    match source:
        case Attribute(path):
            return Attribute(binding.path(path))
        case Placeholder(name):
            return Constant(binding.value(name))
        case IfNotExists(attribute, otherwise):
            return IfNotExists(Attribute(binding.path(attribute.path)), _bind_source(otherwise, binding))
        case ListAppend(first, second):
            appended = ListAppend(_bind_source(first, binding), _bind_source(second, binding))
            _check_types("list_append", "L", appended.first, appended.second)
            return appended
        case Arithmetic(operator, left, right):
            total = Arithmetic(operator, _bind_source(left, binding), _bind_source(right, binding))
            _check_types(operator, "N", total.left, total.right)
            return total
        case Constant():
            return source


def _check_types(function: str, wanted: str, *operands: Source) -> None:
    """Reject operands that cannot be of the wanted type, whatever the item holds."""
    for operand in operands:
        match operand:
            case Constant(value):
                found = type_of(value)
            case ListAppend():
                found = "L"
            case _:
                continue
        if found != wanted:
            raise MalformedExpression(
                "Incorrect operand type for operator or function; "
                f"operator or function: {function}, operand type: {found}"
            )
