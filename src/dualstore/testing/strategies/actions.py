"""Hypothesis strategies of PynamoDB's update actions."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from hypothesis import strategies as st
from pynamodb.expressions.operand import Path
from pynamodb.expressions.update import Action
from pynamodb.models import Model

from dualstore.items import AttributeValue
from dualstore.testing.strategies.subjects import UNDECLARED, Strategies, Subject
from dualstore.testing.values import sets, simple_values


class _Act(NamedTuple):
    """What one action is made of; `kind` is the DynamoDB type of its attribute."""

    draw: st.DrawFn
    path: Path
    values: st.SearchStrategy[AttributeValue]
    kind: str


Act: TypeAlias = Callable[[_Act], Action]
_ADDED = ("1", "-1", "0", "0.1", "1E20", "9" * 38)
_COUNTED = ("1", "0.1", "-0.1", "1E-20")


def _appended(act: _Act) -> Action:
    return act.path.set((act.path | {"L": []}).append({"L": act.draw(st.lists(simple_values, max_size=2))}))


_ANY_ACTS: Sequence[Act] = (
    lambda act: act.path.set(act.draw(act.values)),
    lambda act: act.path.set(act.draw(act.values)),
    lambda act: act.path.remove(),
    lambda act: act.path.set(act.path | act.draw(act.values)),
)
_SET_ACTS: Sequence[Act] = (
    lambda act: act.path.add(act.draw(sets(act.kind))),
    lambda act: act.path.delete(act.draw(sets(act.kind))),
)
_ACTS: Mapping[str, Sequence[Act]] = {
    "N": (
        lambda act: act.path.add({"N": act.draw(st.sampled_from(_ADDED))}),
        lambda act: act.path.set(act.path + {"N": act.draw(st.sampled_from(_COUNTED))}),
    ),
    "SS": _SET_ACTS,
    "NS": _SET_ACTS,
    "BS": _SET_ACTS,
    "L": (_appended,),
    "M": (lambda act: Path([*act.path.path, "street"]).set(act.draw(simple_values)),),
}


@st.composite
def _action(draw: st.DrawFn, subject: Subject, name: str) -> Action:
    kind = subject.attributes[name].attr_type if name in subject.attributes else ""
    act: Act = draw(st.sampled_from((*_ACTS.get(kind, ()), *_ANY_ACTS)))
    return act(_Act(draw, Path([name]), subject.values(name), kind))


@st.composite
def actions_of(
    draw: st.DrawFn, model: type[Model], *, overrides: Strategies | None = None
) -> Sequence[Action]:
    """The actions of one PynamoDB update, each on another attribute.

    Args:
        draw: Hypothesis's.
        model: the PynamoDB model.
        overrides: what to draw the values of some attributes from, by their names in DynamoDB.
    """
    subject = Subject(model, overrides)
    free = [name for name in subject.changeable if name not in (subject.version, *subject.overrides)]
    names: list[str] = draw(
        st.lists(st.sampled_from([*free, UNDECLARED]), min_size=1, max_size=3, unique=True)
    )
    actions: list[Action] = [draw(_action(subject, name)) for name in names]
    given = sorted(set(subject.overrides) & set(subject.changeable))
    wanted: bool = draw(st.booleans())
    if given and wanted:
        name = draw(st.sampled_from(given))
        actions.append(Path([name]).set(draw(subject.overrides[name])))
    return actions
