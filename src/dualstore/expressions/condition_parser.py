"""From the text of a condition to its tree.

Syntax and precedence: AWS, "Condition and filter expressions, operators, and functions in DynamoDB".
"""

from functools import lru_cache
from itertools import pairwise
from typing import cast, get_args

from dualstore.expressions.conditions import (
    And,
    Attribute,
    Between,
    Call,
    Comparator,
    Comparison,
    FunctionName,
    Membership,
    Not,
    Operand,
    Or,
    Placeholder,
    Predicate,
    Size,
)
from dualstore.expressions.paths import parse_path
from dualstore.expressions.tokens import CACHED_TEXTS, Cursor, MalformedExpression

_COMPARATORS: tuple[str, ...] = get_args(Comparator)

_OPERAND_COUNTS: dict[str, int] = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
}

_PRECEDENCE = {"(": 0, "OR": 1, "AND": 2, "NOT": 3}

MAX_CHOICES = 100

MAX_LEVELS = 128
"""How deep AND, OR and NOT may alternate: no real condition comes near it, and Python's stack holds it."""


@lru_cache(CACHED_TEXTS)
def parse_condition(text: str) -> Predicate:
    """Parse a condition; its placeholders stay in it until they are bound.

    Raises:
        MalformedExpression: a syntax error, an unknown or misused function, redundant parentheses.
    """
    cursor = Cursor(text)
    predicate = _parse_predicates(cursor, _closing_parentheses(cursor))
    if _levels(predicate) > MAX_LEVELS:
        raise MalformedExpression("The expression is nested too deeply")
    return predicate


def _levels(predicate: Predicate) -> int:
    levels = 0
    layer = [predicate]
    while layer:
        levels += 1
        layer = [
            term
            for node in layer
            if isinstance(node, And | Or | Not)
            for term in ((node.term,) if isinstance(node, Not) else node.terms)
        ]
    return levels


def _closing_parentheses(cursor: Cursor) -> dict[int, int]:
    """For each `(`, by position, the position of its `)`.

    Raises:
        MalformedExpression: they do not match, or a pair stands directly inside another.
    """
    closing: dict[int, int] = {}
    open_positions: list[int] = []
    for position, token in enumerate(cursor.tokens):
        if token.text == "(":
            open_positions.append(position)
        elif token.text == ")" and open_positions:
            closing[open_positions.pop()] = position
        elif token.text == ")":
            cursor.fail_at(position)
    if open_positions:
        cursor.fail_at(len(cursor.tokens) - 1)
    for outer, inner in pairwise(sorted(closing)):
        redundant = inner == outer + 1 and closing[inner] == closing[outer] - 1
        if redundant and not _opens_arguments(cursor, outer):
            raise MalformedExpression("The expression has redundant parentheses;")
    return closing


def _opens_arguments(cursor: Cursor, position: int) -> bool:
    """Whether the `(` at this position follows a function's name or IN."""
    before = cursor.tokens[position - 1] if position else None
    return (
        before is not None
        and before.kind == "word"
        and not any(before.is_keyword(keyword) for keyword in ("AND", "OR", "NOT", "BETWEEN"))
    )


def _parse_predicates(cursor: Cursor, closing: dict[int, int]) -> Predicate:
    """Parse predicates joined by AND, OR, NOT and parentheses.

    With its own stacks rather than by recursion: PynamoDB nests one pair of parentheses for each
    `&`, several hundred in a long condition.
    """
    operators: list[str] = []
    terms: list[Predicate] = []
    term_expected = True
    while True:
        if term_expected:
            if cursor.skip_keyword("NOT"):
                operators.append("NOT")
            elif _at_group(cursor, closing):
                cursor.take()
                operators.append("(")
            else:
                terms.append(_parse_predicate(cursor))
                term_expected = False
        elif cursor.token.is_keyword("AND") or cursor.token.is_keyword("OR"):
            operator = cursor.take().text.upper()
            _reduce(operators, terms, _PRECEDENCE[operator])
            operators.append(operator)
            term_expected = True
        else:
            _reduce(operators, terms, _PRECEDENCE["OR"])
            if cursor.token.kind == "end":
                return terms.pop()
            if not operators:
                cursor.fail()
            cursor.expect_symbol(")")
            operators.pop()


def _reduce(operators: list[str], terms: list[Predicate], precedence: int) -> None:
    """Apply the operators on top of the stack that bind at least this tightly."""
    while operators and _PRECEDENCE[operators[-1]] >= precedence:
        operator, last = operators.pop(), terms.pop()
        match operator:
            case "NOT":
                terms.append(last.term if isinstance(last, Not) else Not(last))
            case "AND":
                terms.append(And(_terms(And, terms.pop()) + _terms(And, last)))
            case _:
                terms.append(Or(_terms(Or, terms.pop()) + _terms(Or, last)))


def _terms(joined_by: type[And | Or], term: Predicate) -> tuple[Predicate, ...]:
    return term.terms if isinstance(term, joined_by) else (term,)


def _at_group(cursor: Cursor, closing: dict[int, int]) -> bool:
    """Whether the next `(` opens a group of predicates, rather than an operand in parentheses."""
    if not cursor.at_symbol("("):
        return False
    after = cursor.tokens[closing[cursor.position] + 1]
    return not (after.text in _COMPARATORS or after.is_keyword("BETWEEN") or after.is_keyword("IN"))


def _parse_predicate(cursor: Cursor) -> Predicate:
    if _at_call(cursor) and cursor.token.text != "size":
        return _parse_boolean_call(cursor)
    operand = _parse_operand(cursor)
    if cursor.skip_keyword("BETWEEN"):
        lower = _parse_operand(cursor)
        cursor.expect_keyword("AND")
        return Between(operand, lower, _parse_operand(cursor))
    if cursor.skip_keyword("IN"):
        choices = _parse_operands(cursor)
        if len(choices) > MAX_CHOICES:
            raise MalformedExpression(
                f"The IN operator is provided with too many operands; number of operands: {len(choices)}"
            )
        return Membership(operand, choices)
    if not cursor.at_symbol(*_COMPARATORS):
        cursor.fail()
    return Comparison(cast("Comparator", cursor.take().text), operand, _parse_operand(cursor))


def _at_call(cursor: Cursor) -> bool:
    return cursor.token.kind == "word" and cursor.peek().text == "("


def _parse_boolean_call(cursor: Cursor) -> Call:
    name, operands = _parse_call(cursor)
    if cursor.at_symbol(*_COMPARATORS):
        raise _misused(name)
    return Call(cast("FunctionName", name), operands)


def _parse_call(cursor: Cursor) -> tuple[str, tuple[Operand, ...]]:
    name = cursor.take().text
    if name not in _OPERAND_COUNTS:
        raise MalformedExpression(f"Invalid function name; function: {name}")
    operands = _parse_operands(cursor)
    if len(operands) != _OPERAND_COUNTS[name]:
        raise MalformedExpression(
            "Incorrect number of operands for operator or function; "
            f"operator or function: {name}, number of operands: {len(operands)}"
        )
    return name, operands


def _parse_operands(cursor: Cursor) -> tuple[Operand, ...]:
    """Read `(operand, …)`."""
    cursor.expect_symbol("(")
    operands = [_parse_operand(cursor)]
    while cursor.skip_symbol(","):
        operands.append(_parse_operand(cursor))
    cursor.expect_symbol(")")
    return tuple(operands)


def _parse_operand(cursor: Cursor) -> Operand:
    if cursor.skip_symbol("("):
        operand = _parse_operand(cursor)
        cursor.expect_symbol(")")
        return operand
    if cursor.token.kind == "value":
        return Placeholder(cursor.take().text)
    if _at_call(cursor):
        name, operands = _parse_call(cursor)
        if name != "size":
            raise _misused(name)
        return Size(operands[0])
    return Attribute(parse_path(cursor))


def _misused(function: str) -> MalformedExpression:
    return MalformedExpression(
        f"The function is not allowed to be used this way in an expression; function: {function}"
    )
