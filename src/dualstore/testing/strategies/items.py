"""Hypothesis strategies of the items of a model's table, and of the model's instances."""

from typing import TypeVar

from hypothesis import strategies as st
from pynamodb.models import Model

from dualstore.items import Item, type_of
from dualstore.testing.strategies.subjects import UNDECLARED, Strategies, Subject, keys_of
from dualstore.testing.values import any_value, attributes_of

M = TypeVar("M", bound=Model)

_RARE = 9
_NEAR_THE_LIMIT_BYTES = (409_590, 409_599, 409_600, 409_601, 409_700)


@st.composite
def items_of(
    draw: st.DrawFn,
    model: type[Model],
    *,
    overrides: Strategies | None = None,
    undeclared: bool = True,
    near_limits: bool = False,
) -> Item:
    """Items of a model's table: what the model writes, and what anybody else may have written.

    Args:
        draw: Hypothesis's.
        model: the PynamoDB model.
        overrides: what to draw the values of some attributes from, by their names in DynamoDB; such an
            attribute is always there, and never of another type.
        undeclared: whether attributes that the model does not declare may come.
        near_limits: whether some items are as large as DynamoDB takes, and a little larger.
    """
    subject = Subject(model, overrides)
    given = frozenset(subject.overrides) - frozenset(subject.shape.keys.names)
    item = dict(draw(keys_of(model, overrides=overrides)))
    item |= draw(attributes_of(model, except_for=frozenset((*subject.shape.keys.names, *given))))
    item |= {name: draw(subject.overrides[name]) for name in sorted(given)}
    for name in subject.index_keys:
        if name in item and draw(st.integers(0, 3)):
            item[name] = draw(subject.index_value(name))
    for index in subject.shape.indexes.values():
        for attribute in index.keys.attributes:
            # A value of another type, or an empty one, is refused: now and then is enough.
            if attribute.name in item and attribute.name not in subject.shape.keys.names:
                value = item[attribute.name]
                wrong = type_of(value) != attribute.type or not value[attribute.type]
                if wrong and draw(st.integers(0, _RARE)) < _RARE:
                    del item[attribute.name]
    if undeclared and draw(st.integers(0, _RARE)) > _RARE - 2:
        item[UNDECLARED] = draw(any_value())
    if near_limits and draw(st.integers(0, 3)) == 0:
        item[UNDECLARED] = {"S": "x" * draw(st.sampled_from(_NEAR_THE_LIMIT_BYTES))}
    return item


def instances_of(model: type[M], *, overrides: Strategies | None = None) -> st.SearchStrategy[M]:
    """Instances of a model that say the whole of an item: reading and writing them changes nothing."""
    return (
        items_of(model, overrides=overrides, undeclared=False)
        .map(lambda item: instance_of(model, item))
        .flatmap(lambda instance: st.nothing() if instance is None else st.just(instance))
    )


def instance_of(model: type[M], item: Item) -> M | None:
    """The instance that writes exactly this item, or None where the model cannot say it."""
    try:
        instance = model.from_raw_data(item)
        written = instance.serialize()
    except Exception:  # noqa: BLE001 - whatever the attributes of a team raise: the model cannot say it
        return None
    return instance if written == item else None
