"""Conditions as SQL over mapped columns: an optimisation that agrees with `evaluation`, or is not made.

What is compiled says whether the condition holds of a row all of whose attributes that it reads are in their
columns, or missing. Of a row that keeps one of them in its overflow it says nothing: the evaluator decides.
So NULL is a missing attribute here, and what a column holds is of the column's one DynamoDB type. All SQL is
two-valued, as DynamoDB is: texts are compared by their bytes, numbers as `numeric`, which holds 38 digits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualstore.expressions.condition_binding import attributes_read
from dualstore.expressions.conditions import (
    And,
    Attribute,
    Between,
    Call,
    Comparator,
    Comparison,
    Condition,
    Constant,
    Leaf,
    Membership,
    Not,
    Operand,
    Or,
    Predicate,
    Size,
)
from dualstore.expressions.evaluation import evaluate
from dualstore.items import PREDECESSOR, STAMP, type_of

_ORDERED = frozenset({"S", "N", "B"})
_COMPARABLE = _ORDERED | {"BOOL"}
_CASTS: Mapping[str, str] = {"S": "text", "N": "numeric", "B": "bytea", "BOOL": "boolean"}
# U+0000 and U+0001 are stored as two characters each, in which U+0001 and U+0002 could be found.
_STORED_OTHERWISE = frozenset("\0\1\2")
_HIDDEN = frozenset({STAMP, PREDECESSOR})
_MISSING = "NULL"
_TRUE, _FALSE = "true", "false"


@dataclass(frozen=True, slots=True)
class SqlColumn:
    """Where an attribute is.

    Attributes:
        expression: the column, quoted.
        type: the DynamoDB type of what it holds.
        comparable: whether what it holds may be compared by SQL: a text, number, binary or Boolean as it is.
    """

    expression: str
    type: str
    comparable: bool


@dataclass(frozen=True, slots=True)
class SqlCondition:
    """A condition as SQL.

    Attributes:
        holds: whether it does, true or false, never null.
        values: for its placeholders, in their order.
        attributes: what it reads; a row that has one of them in its overflow is for the evaluator.
        holds_of_nothing: whether it holds where there is no item.
    """

    holds: str
    values: Sequence[Any]
    attributes: Sequence[str]
    holds_of_nothing: bool


class _NotCompiled(Exception):  # noqa: N818 - control flow within this module
    """There is no SQL here that would surely say the same."""


def compile_condition(
    condition: Condition, columns: Mapping[str, SqlColumn], *, first: int
) -> SqlCondition | None:
    """A condition as SQL.

    Args:
        condition: the condition, bound.
        columns: of the attributes that have one.
        first: the number of the first placeholder.

    Returns:
        None where it does not compile: paths into documents, sizes, stamps, and values of types that have no
        counterpart.
    """
    read = attributes_read(condition)
    if not all(map(_is_stored_as_it_is, read)):
        return None
    compiler = _Compiler(columns, first)
    try:
        holds = compiler.predicate(condition.predicate)
    except _NotCompiled:
        return None
    return SqlCondition(holds, compiler.values, sorted(read), evaluate(condition, None))


def _is_stored_as_it_is(name: str) -> bool:
    if name in _HIDDEN or not _STORED_OTHERWISE.isdisjoint(name):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:  # no item has such an attribute, and no statement can ask for it
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Term:
    """An operand: SQL that is null where the attribute is missing, and its DynamoDB type ("": missing).

    A constant has its content instead: PostgreSQL refuses a placeholder that no SQL mentions.
    """

    sql: str
    type: str
    comparable: bool = True
    content: Any = None


@dataclass(slots=True)
class _Compiler:
    columns: Mapping[str, SqlColumn]
    first: int
    values: list[Any] = field(default_factory=list)

    def predicate(self, predicate: Predicate) -> str:
        match predicate:
            case And(terms):
                return f"({' AND '.join(map(self.predicate, terms))})"
            case Or(terms):
                return f"({' OR '.join(map(self.predicate, terms))})"
            case Not(term):
                return f"(NOT {self.predicate(term)})"
            case _:
                return self._leaf(predicate)

    def _leaf(self, leaf: Leaf) -> str:
        match leaf:
            case Comparison(operator, left, right):
                return self._compared(operator, self._term(left), self._term(right))
            case Between(operand, lower, upper):
                term = self._term(operand)
                not_below = self._compared(">=", term, self._term(lower))
                return f"({not_below} AND {self._compared('<=', term, self._term(upper))})"
            case Membership(operand, choices):
                term = self._term(operand)
                equal = (self._compared("=", term, self._term(choice)) for choice in _padded(choices))
                return f"({' OR '.join(equal)})"
            case Call("attribute_exists" | "attribute_not_exists", (operand,)):
                said = "IS NOT NULL" if leaf.function == "attribute_exists" else "IS NULL"
                return f"({self._attribute(operand).sql} {said})"
            case Call("attribute_type", (operand, Constant(wanted))):
                term = self._attribute(operand)
                return f"({term.sql} IS NOT NULL)" if term.type == wanted["S"] else _FALSE
            case Call("begins_with" | "contains", (operand, start)):
                return self._found(leaf.function, self._attribute(operand), start)
        raise _NotCompiled

    def _compared(self, operator: Comparator, left: _Term, right: _Term) -> str:
        if left.type != right.type or not left.type:
            return _TRUE if operator == "<>" else _FALSE
        if not (left.comparable and right.comparable):
            raise _NotCompiled
        if operator not in {"=", "<>"} and left.type not in _ORDERED:
            return _FALSE
        one, other = self._sql(left), self._sql(right)
        if operator == "<>":
            return f"(NOT coalesce({one} = {other}, false))"
        return f"coalesce({one} {operator} {other}, false)"

    def _found(self, function: str, container: _Term, start: Operand) -> str:
        part = self._term(start)
        if not container.type or not part.type:
            return _FALSE
        if not (container.comparable and part.comparable):
            raise _NotCompiled  # a set or a list, which may contain it
        if container.type != part.type or container.type not in {"S", "B"}:
            return _FALSE
        whole, piece = self._sql(container), self._sql(part)
        if function == "contains":
            if container.type == "S" and not isinstance(start, Constant):
                raise _NotCompiled  # it may be found in half of a character that is stored as two
            return f"coalesce(position({piece} IN {whole}) > 0, false)"
        if container.type == "S":
            return f"coalesce(starts_with({whole}, {piece}), false)"
        return f"coalesce(substring({whole} FROM 1 FOR length({piece})) = {piece}, false)"

    def _attribute(self, operand: Operand) -> _Term:
        if not isinstance(operand, Attribute):
            raise _NotCompiled
        return self._term(operand)

    def _term(self, operand: Operand) -> _Term:
        match operand:
            case Attribute((str(name),)):
                column = self.columns.get(name)
                if column is None:
                    return _Term(_MISSING, "")
                sql = _as_compared(column.expression, column.type) if column.comparable else column.expression
                return _Term(sql, column.type, column.comparable)
            case Constant(value):
                kind = type_of(value)
                return _Term("", kind, kind in _COMPARABLE, value[kind])
            case Size() | _:
                raise _NotCompiled

    def _sql(self, term: _Term) -> str:
        if term.sql:
            return term.sql
        if term.type == "S" and not _STORED_OTHERWISE.isdisjoint(term.content):
            raise _NotCompiled
        self.values.append(term.content)
        placeholder = f"${self.first + len(self.values) - 1}::{_CASTS[term.type]}"
        return _as_compared(placeholder, term.type, is_cast=True)


def _as_compared(sql: str, kind: str, *, is_cast: bool = False) -> str:
    cast = sql if is_cast or kind in {"B", "BOOL"} else f"{sql}::{_CASTS[kind]}"
    return f'({cast} COLLATE "C")' if kind == "S" else cast


def _padded(choices: tuple[Operand, ...]) -> tuple[Operand, ...]:
    """Choices, the last of them again up to a power of two, so that few statements serve all lists."""
    wanted: int = 1 << (len(choices) - 1).bit_length()
    return choices + choices[-1:] * (wanted - len(choices))
