"""What is known of a model, and the keys that all strategies of it draw from."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

from hypothesis import strategies as st
from pynamodb.attributes import Attribute, BinaryAttribute, MapAttribute, VersionAttribute
from pynamodb.models import Model

from dualstore.items import AttributeValue, Item, Key, key_bytes
from dualstore.mapping import shape_of_model
from dualstore.testing.values import LOOK_ALIKES, any_value, is_raw, values_of

Strategies: TypeAlias = Mapping[str, st.SearchStrategy[AttributeValue]]

UNDECLARED = "undeclared"
"""An attribute that no model declares."""


class Subject:
    """What is known of a model.

    Args:
        model: the model.
        overrides: what to draw the values of some attributes from.
    """

    def __init__(self, model: type[Model], overrides: Strategies | None) -> None:
        self.model = model
        self.shape = shape_of_model(model)
        self.attributes = {attribute.attr_name: attribute for attribute in model.get_attributes().values()}
        self.overrides = overrides or {}

    def __repr__(self) -> str:
        return self.model.__name__  # Hypothesis shows strategies with their arguments

    @cached_property
    def paths(self) -> Mapping[tuple[str, ...], st.SearchStrategy[AttributeValue]]:
        """Where conditions may look, with values to compare with."""
        return _paths(self)

    @cached_property
    def index_keys(self) -> Mapping[str, str]:
        """The attributes, with their types, that are in the key of an index and not in the table's."""
        attributes = (each for index in self.shape.indexes.values() for each in index.keys.attributes)
        return {each.name: each.type for each in attributes if each.name not in self.shape.keys.names}

    def index_value(self, name: str) -> st.SearchStrategy[AttributeValue]:
        """A value of such an attribute, one of a few within an example."""
        pool = st.shared(
            _key_values(self, name, self.index_keys[name]), key=f"dualstore {self.model.__qualname__}.{name}"
        )
        return pool.flatmap(st.sampled_from)

    def values(self, name: str, *, key: bool = False) -> st.SearchStrategy[AttributeValue]:
        """Values of an attribute, as the model writes them."""
        if name in self.overrides:
            return self.overrides[name]
        return values_of(self.attributes[name], key=key) if name in self.attributes else any_value()

    @property
    def version(self) -> str | None:
        """The name of its VersionAttribute."""
        named = (name for name, each in self.attributes.items() if isinstance(each, VersionAttribute))
        return next(named, None)

    @property
    def changeable(self) -> list[str]:
        """The attributes that an update may change."""
        return [name for name in self.attributes if name not in self.shape.keys.names]

    def key_of(self, item: Item) -> Key:
        """The key of an item, as it is said there."""
        return {name: item[name] for name in self.shape.keys.names}

    def identity(self, item: Item) -> bytes:
        """What an item or key shares with no other one of the table."""
        return key_bytes(self.shape.keys, item)


def _paths(subject: Subject) -> dict[tuple[str, ...], st.SearchStrategy[AttributeValue]]:
    found: dict[tuple[str, ...], st.SearchStrategy[AttributeValue]] = {
        (name,): subject.values(name) for name in subject.attributes
    }
    for name, attribute in subject.attributes.items():
        if isinstance(attribute, MapAttribute) and not is_raw(attribute):
            for inner in type(attribute).get_attributes().values():
                found[name, inner.attr_name] = values_of(inner)
        elif attribute.attr_type == "M":
            found[name, "street"] = any_value()
        elif attribute.attr_type == "L":
            found[(f"{name}[0]",)] = any_value()
    found[UNDECLARED,] = any_value()
    return found


def _key_values(subject: Subject, name: str, kind: str) -> st.SearchStrategy[Sequence[AttributeValue]]:
    """A few values of one key attribute that look alike."""
    if name in subject.overrides:
        return st.lists(subject.overrides[name], min_size=1, max_size=4)
    attribute = subject.attributes[name]
    if type(attribute).attr_type in LOOK_ALIKES and not _is_particular(attribute):
        return st.sampled_from(LOOK_ALIKES[kind]).map(lambda group: [{kind: each} for each in group])
    values = subject.values(name, key=True).filter(lambda value: bool(value.get(kind)))
    return st.lists(values, min_size=2, max_size=4)


def _is_particular(attribute: Attribute[Any]) -> bool:
    """Whether its class says what its texts look like, as that of a date does."""
    plain = {"UnicodeAttribute", "NumberAttribute"}
    named = type(attribute).__name__
    return named not in plain and not (
        isinstance(attribute, BinaryAttribute) and not attribute.legacy_encoding
    )


@st.composite
def pool_of(draw: st.DrawFn, model: type[Model], overrides: Strategies | None = None) -> Sequence[Key]:
    """A few keys of a model's table that look alike: up to two partitions, with up to four items each."""
    subject = Subject(model, overrides)
    keys = subject.shape.keys
    partitions = draw(_key_values(subject, keys.partition.name, keys.partition.type))
    if keys.sort is None:
        return [{keys.partition.name: each} for each in partitions]
    sorts = draw(_key_values(subject, keys.sort.name, keys.sort.type))
    return [
        {keys.partition.name: partition, keys.sort.name: sort}
        for partition in partitions[:2]
        for sort in sorts
    ]


def shared_pool_of(model: type[Model], overrides: Strategies | None) -> st.SearchStrategy[Sequence[Key]]:
    """The one pool of an example."""
    return st.shared(pool_of(model, overrides), key=f"dualstore {model.__module__}.{model.__qualname__}")


def keys_of(model: type[Model], *, overrides: Strategies | None = None) -> st.SearchStrategy[Key]:
    """Keys of a model's table, the same few within one example.

    Args:
        model: the PynamoDB model.
        overrides: what to draw the values of some attributes from, by their names in DynamoDB.
    """
    return shared_pool_of(model, overrides).flatmap(st.sampled_from)
