"""Hypothesis strategies of ranges: two bounds in order, and what a Query asks of a sort key."""

import operator
from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any, TypeAlias

from hypothesis import strategies as st
from pynamodb.expressions.condition import BeginsWith, Condition
from pynamodb.expressions.operand import Path, Value

from dualstore.items import AttributeValue, KeyAttribute, number_text, type_of
from dualstore.testing.values import scalars

COMPARISONS: Sequence[Any] = (operator.lt, operator.le, operator.gt, operator.ge)

Bound: TypeAlias = Callable[[], AttributeValue]

_EXACT = Context(prec=38)
_RARE = 3
_PLACES: Mapping[str, Callable[[Any], Any]] = {"S": str.encode, "N": Decimal, "B": bytes}


def place(value: AttributeValue) -> Any:
    """Where a value of type `S`, `N` or `B` stands among those of its type: to be compared."""
    kind = type_of(value)
    return _PLACES[kind](value[kind])


def in_order(one: AttributeValue, other: AttributeValue) -> tuple[AttributeValue, AttributeValue]:
    """Two values of one type as the bounds of a range: those that stand the other way round are refused."""
    lower, upper = sorted((one, other), key=place)
    return lower, upper


def ranges(kind: str) -> st.SearchStrategy[tuple[AttributeValue, AttributeValue]]:
    """Two values of type `S`, `N` or `B`, in order."""
    return st.tuples(scalars(kind), scalars(kind)).map(lambda pair: in_order(*pair))


def starts_with(path: Path, prefix: AttributeValue) -> Condition:
    """`begins_with`, of bytes too: PynamoDB's own method takes strings only."""
    make: Any = BeginsWith
    condition: Condition = make(path, Value(prefix))
    return condition


def neighbours(value: AttributeValue) -> Sequence[AttributeValue]:
    """Values a little below and above that of a key, none of them empty."""
    kind = type_of(value)
    content: Any = value[kind]
    if kind == "N":
        number = Decimal(content)
        near = [number_text(move(number, Decimal(1))) for move in (_EXACT.subtract, _EXACT.add)]
    else:
        near = [content[:-1], content + ("\0" if kind == "S" else b"\0")]
    return [{kind: each} for each in near if each]


def _prefixed(path: Path, bound: Bound, draw: st.DrawFn) -> Condition:
    value = bound()
    kind = type_of(value)
    content: Any = value[kind]
    return starts_with(path, {kind: draw(st.sampled_from([content, content[:1], content[:-1] or content]))})


def _compared(path: Path, bound: Bound, draw: st.DrawFn) -> Condition:
    condition: Condition = draw(st.sampled_from(COMPARISONS))(path, bound())
    return condition


_NUMERIC: Sequence[Callable[[Path, Bound, st.DrawFn], Condition]] = (
    _compared,
    _compared,
    _compared,
    lambda path, bound, _: path == bound(),
    lambda path, bound, _: path.between(*in_order(bound(), bound())),
)


@st.composite
def sort_conditions(
    draw: st.DrawFn,
    key: KeyAttribute,
    there: Sequence[AttributeValue],
    others: st.SearchStrategy[AttributeValue],
) -> Condition:
    """What a Query asks of a sort key.

    Args:
        draw: Hypothesis's.
        key: the sort key.
        there: its values in the partition: most bounds are one of them, or lie just beside it.
        others: values that may be there or not.
    """

    def bound() -> AttributeValue:
        known = bool(there) and draw(st.integers(0, _RARE)) < _RARE
        value = draw(st.sampled_from(there) if known else others)
        return draw(st.sampled_from([value, value, *neighbours(value)]))

    asked = draw(st.sampled_from(_NUMERIC if key.type == "N" else (*_NUMERIC, _prefixed)))
    return asked(Path([key.name]), bound, draw)
