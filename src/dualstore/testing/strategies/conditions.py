"""Hypothesis strategies of PynamoDB's conditions: any at all, and those that ask about a known item."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.condition import size as size_of
from pynamodb.expressions.operand import Path
from pynamodb.models import Model

from dualstore.items import AttributeValue, Item, type_of
from dualstore.testing.strategies.ranges import COMPARISONS, ranges, starts_with
from dualstore.testing.strategies.subjects import Strategies, Subject
from dualstore.testing.values import LOOK_ALIKES, scalars

# -- any -----------------------------------------------------------------------------------------


class _Leaf(NamedTuple):
    """What one condition is made of."""

    draw: st.DrawFn
    path: Path
    values: st.SearchStrategy[AttributeValue]
    other: Path


_SCALARS = st.sampled_from("SNB").flatmap(scalars)


def _ordered(leaf: _Leaf) -> Condition:
    value = leaf.draw(leaf.values)
    if type_of(value) not in LOOK_ALIKES or leaf.draw(st.integers(0, 2)) == 0:
        value = leaf.draw(_SCALARS)
    return _compared(leaf.draw, leaf.path, value)


def _sized(leaf: _Leaf) -> Condition:
    size: Any = size_of
    return _compared(leaf.draw, size(leaf.path), {"N": str(leaf.draw(st.integers(0, 4)))})


def _compared(draw: st.DrawFn, operand: Any, value: AttributeValue) -> Condition:
    compared: Condition = draw(st.sampled_from(COMPARISONS))(operand, value)
    return compared


_TYPES = ("S", "N", "B", "SS", "NS", "L", "M", "NULL", "BOOL")
_LEAVES: Sequence[Callable[[_Leaf], Condition]] = (
    lambda leaf: leaf.path == leaf.draw(leaf.values),
    lambda leaf: leaf.path == leaf.draw(leaf.values),
    lambda leaf: leaf.path != leaf.draw(leaf.values),
    lambda leaf: leaf.path.exists(),
    lambda leaf: leaf.path.does_not_exist(),
    _ordered,
    lambda leaf: leaf.path.between(*leaf.draw(st.sampled_from("SNB").flatmap(ranges))),
    lambda leaf: leaf.path.is_in(*leaf.draw(st.lists(leaf.values, min_size=1, max_size=3))),
    lambda leaf: leaf.path.is_type(leaf.draw(st.sampled_from(_TYPES))),
    lambda leaf: leaf.path.contains(leaf.draw(_SCALARS)),
    lambda leaf: starts_with(leaf.path, leaf.draw(st.sampled_from("SB").flatmap(scalars))),
    _sized,
    lambda leaf: leaf.path == leaf.other if leaf.path.path != leaf.other.path else leaf.path.exists(),
)


@st.composite
def _leaf(draw: st.DrawFn, subject: Subject, except_for: frozenset[str]) -> Condition:
    paths = {at: values for at, values in subject.paths.items() if at[0] not in except_for}
    names = st.sampled_from(sorted(paths))
    at, other = draw(names), draw(names)
    return draw(st.sampled_from(_LEAVES))(_Leaf(draw, Path(list(at)), paths[at], Path(list(other))))


def conditions_of(
    model: type[Model],
    *,
    overrides: Strategies | None = None,
    except_for: frozenset[str] = frozenset(),
) -> st.SearchStrategy[Condition]:
    """PynamoDB conditions on the items of a model, of every operator and function, joined and negated.

    Args:
        model: the PynamoDB model.
        overrides: what to draw the values of some attributes from, by their names in DynamoDB.
        except_for: attributes that they may not name, as a filter may not name the key that it queries.
    """
    return any_conditions(Subject(model, overrides), except_for)


def any_conditions(
    subject: Subject, except_for: frozenset[str] = frozenset()
) -> st.SearchStrategy[Condition]:
    """As `conditions_of`."""
    return st.recursive(
        _leaf(subject, except_for),
        lambda inner: st.one_of(
            inner.map(lambda one: ~one),
            st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
            st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        ),
        max_leaves=3,
    )


# -- about a known item --------------------------------------------------------------------------

_Telling = Callable[[st.DrawFn, Path, AttributeValue], Condition]


def _beside(draw: st.DrawFn, path: Path, value: AttributeValue) -> Condition:
    return _compared(draw, path, value) if type_of(value) in LOOK_ALIKES else path == value


_TELLING: Sequence[_Telling] = (
    lambda _, path, value: path == value,
    lambda _, path, value: path != value,
    lambda _, path, _value: path.exists(),
    lambda _, path, _value: path.does_not_exist(),
    lambda _, path, value: path.is_type(type_of(value)),
    lambda draw, path, value: path.is_in(draw(_SCALARS), value),
    _beside,
)


@st.composite
def telling_conditions(
    draw: st.DrawFn, before: Item | None, after: Item | None, except_for: frozenset[str] = frozenset()
) -> Condition | None:
    """Conditions on what a write changes: they mostly hold of the item before it, or of that after it.

    Args:
        draw: Hypothesis's.
        before: the item before the write, or None where there is none.
        after: the item after the write, likewise.
        except_for: attributes that they may not name.

    Returns:
        A condition on one attribute; None where neither item has one that may be named.
    """
    before, after = before or {}, after or {}
    names = sorted((before.keys() | after.keys()) - except_for)
    if not names:
        return None
    changed = [name for name in names if before.get(name) != after.get(name)]
    name = draw(st.sampled_from(changed or names))
    value = draw(st.sampled_from([item[name] for item in (before, after) if name in item]))
    return draw(st.sampled_from(_TELLING))(draw, Path([name]), value)
