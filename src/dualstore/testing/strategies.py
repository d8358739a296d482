"""Hypothesis strategies of a PynamoDB model: its keys, items, conditions and actions, and steps made of them.

All strategies of one model draw their keys from the same few of an example (`pool_of`), so that histories
meet the same items again and again.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, TypeVar

from hypothesis import strategies as st
from pynamodb.attributes import Attribute, BinaryAttribute, MapAttribute, VersionAttribute
from pynamodb.expressions.condition import BeginsWith, Condition
from pynamodb.expressions.condition import size as size_of
from pynamodb.expressions.operand import Path, Value
from pynamodb.expressions.update import Action
from pynamodb.models import Model

from dualstore.items import AttributeValue, Index, Item, Key, type_of
from dualstore.mapping import shape_of_model
from dualstore.testing.steps import (
    BatchGet,
    BatchWrite,
    ChangeOf,
    Check,
    Delete,
    Get,
    Put,
    QueryOf,
    ScanOf,
    Step,
    TransactGet,
    TransactWrite,
)
from dualstore.testing.values import (
    LOOK_ALIKES,
    any_value,
    attributes_of,
    contents,
    is_raw,
    scalars,
    sets,
    simple_values,
    values_of,
)

M = TypeVar("M", bound=Model)
Strategies = Mapping[str, st.SearchStrategy[AttributeValue]]

UNDECLARED = "undeclared"
"""An attribute that no model declares."""

_RARE = 9
_NEAR_THE_LIMIT_BYTES = (409_590, 409_599, 409_600, 409_601, 409_700)


class _Subject:
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


# -- keys ----------------------------------------------------------------------------------------


def _key_values(subject: _Subject, name: str, kind: str) -> st.SearchStrategy[Sequence[AttributeValue]]:
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
    subject = _Subject(model, overrides)
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


def keys_of(model: type[Model], *, overrides: Strategies | None = None) -> st.SearchStrategy[Key]:
    """Keys of a model's table, the same few within one example.

    Args:
        model: the PynamoDB model.
        overrides: what to draw the values of some attributes from, by their names in DynamoDB.
    """
    pool = st.shared(pool_of(model, overrides), key=f"dualstore {model.__module__}.{model.__qualname__}")
    return pool.flatmap(st.sampled_from)


# -- items ---------------------------------------------------------------------------------------


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
    subject = _Subject(model, overrides)
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


# -- conditions and actions ----------------------------------------------------------------------


def _paths(subject: _Subject) -> dict[tuple[str, ...], st.SearchStrategy[AttributeValue]]:
    """Where conditions may look, with values to compare with."""
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


_COMPARISONS: Sequence[Any] = (operator.lt, operator.le, operator.gt, operator.ge)


class _Leaf(NamedTuple):
    """What one condition is made of."""

    draw: st.DrawFn
    path: Path
    values: st.SearchStrategy[AttributeValue]
    other: Path


def _ordered(leaf: _Leaf) -> Condition:
    own = leaf.values.filter(lambda value: type_of(value) in LOOK_ALIKES)
    kind = leaf.draw(st.sampled_from("SNB"))
    value = leaf.draw(scalars(kind) if leaf.draw(st.integers(0, 2)) == 0 else own | scalars(kind))
    return _compared(leaf.draw, leaf.path, value)


def _starting(leaf: _Leaf) -> Condition:
    return starts_with(leaf.path, leaf.draw(st.sampled_from(["S", "B"]).flatmap(scalars)))


def _sized(leaf: _Leaf) -> Condition:
    size: Any = size_of
    return _compared(leaf.draw, size(leaf.path), {"N": str(leaf.draw(st.integers(0, 4)))})


def _compared(draw: st.DrawFn, operand: Any, value: AttributeValue) -> Condition:
    compared: Condition = draw(st.sampled_from(_COMPARISONS))(operand, value)
    return compared


def starts_with(path: Path, prefix: AttributeValue) -> Condition:
    """`begins_with`, of bytes too: PynamoDB's own method takes strings only."""
    make: Any = BeginsWith
    condition: Condition = make(path, Value(prefix))
    return condition


_TYPES = ("S", "N", "B", "SS", "NS", "L", "M", "NULL", "BOOL")
_LEAVES: Sequence[Callable[[_Leaf], Condition]] = (
    lambda leaf: leaf.path == leaf.draw(leaf.values),
    lambda leaf: leaf.path == leaf.draw(leaf.values),
    lambda leaf: leaf.path != leaf.draw(leaf.values),
    lambda leaf: leaf.path.exists(),
    lambda leaf: leaf.path.does_not_exist(),
    _ordered,
    lambda leaf: leaf.path.between(*leaf.draw(st.sampled_from("SNB").flatmap(_ranges))),
    lambda leaf: leaf.path.is_in(*leaf.draw(st.lists(leaf.values, min_size=1, max_size=3))),
    lambda leaf: leaf.path.is_type(leaf.draw(st.sampled_from(_TYPES))),
    lambda leaf: leaf.path.contains(leaf.draw(simple_values.filter(lambda value: type_of(value) in "SNB"))),
    _starting,
    _sized,
    lambda leaf: leaf.path == leaf.other if leaf.path.path != leaf.other.path else leaf.path.exists(),
)


@st.composite
def _leaf(draw: st.DrawFn, subject: _Subject, except_for: frozenset[str]) -> Condition:
    paths = {at: values for at, values in subject.paths.items() if at[0] not in except_for}
    names = st.sampled_from(sorted(paths))
    at, other = draw(names), draw(names)
    return draw(st.sampled_from(_LEAVES))(_Leaf(draw, Path(list(at)), paths[at], Path(list(other))))


def _ranges(kind: str) -> st.SearchStrategy[tuple[AttributeValue, AttributeValue]]:
    """Two values in order: bounds that stand the other way round are refused."""
    by_value: Any = {"N": float, "S": lambda text: text.encode(), "B": bytes}[kind]
    pairs = st.tuples(contents(kind), contents(kind))
    return pairs.filter(lambda pair: by_value(pair[0]) < by_value(pair[1])).map(
        lambda pair: ({kind: pair[0]}, {kind: pair[1]})
    )


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
    return _conditions(_Subject(model, overrides), except_for)


def _conditions(subject: _Subject, except_for: frozenset[str] = frozenset()) -> st.SearchStrategy[Condition]:
    return st.recursive(
        _leaf(subject, except_for),
        lambda inner: st.one_of(
            inner.map(lambda one: ~one),
            st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
            st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        ),
        max_leaves=3,
    )


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
def _action(draw: st.DrawFn, subject: _Subject, name: str) -> Action:
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
    subject = _Subject(model, overrides)
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


# -- steps ---------------------------------------------------------------------------------------


class _Steps:
    """The strategies of the steps on one model."""

    def __init__(self, model: type[Model], overrides: Strategies | None, *, near_limits: bool) -> None:
        self._subject = _Subject(model, overrides)
        self._keys = keys_of(model, overrides=overrides)
        self._items = items_of(model, overrides=overrides, near_limits=near_limits)
        self._maybe = st.none() | _conditions(self._subject)
        self._actions = actions_of(model, overrides=overrides)

    def puts(self) -> st.SearchStrategy[Put]:
        """PutItem, half of them as `Model.save` does it where there is a version."""
        returns = st.sampled_from(["NONE", "NONE", "ALL_OLD"])
        plain = st.builds(Put, self._items, self._maybe, returns)
        version = self._subject.version
        if version is None:
            return plain
        saved = st.builds(
            lambda item, seen: _saved(item, version, seen), self._items, st.none() | st.integers(1, 2)
        )
        return plain | saved

    def changes(self) -> st.SearchStrategy[ChangeOf]:
        """UpdateItem, half of them as `Model.update` does it where there is a version."""
        returns = st.sampled_from(["ALL_NEW", "ALL_NEW", "ALL_NEW", "UPDATED_NEW", "NONE", "ALL_OLD"])
        plain = st.builds(ChangeOf, self._keys, self._actions, self._maybe, returns)
        version = self._subject.version
        if version is None:
            return plain
        saved = st.builds(
            lambda key, actions, seen: _updated(key, actions, version, seen),
            self._keys,
            self._actions,
            st.none() | st.integers(1, 2),
        )
        return plain | saved

    def deletes(self) -> st.SearchStrategy[Delete]:
        """DeleteItem."""
        return st.builds(Delete, self._keys, self._maybe, st.sampled_from(["NONE", "ALL_OLD"]))

    def gets(self) -> st.SearchStrategy[Get]:
        """GetItem, some of them of a few attributes."""
        paths = st.lists(st.sampled_from(sorted(self._subject.attributes)), max_size=2, unique=True)
        return st.builds(Get, self._keys, st.just(()) | paths.map(tuple))

    def queries(self) -> st.SearchStrategy[QueryOf]:
        """Query of the table and of each index."""
        shape = self._subject.shape
        places: list[Index | None] = [None, None, *shape.indexes.values()]
        return st.sampled_from(places).flatmap(self._queries_of)

    @st.composite
    @staticmethod
    def _query(draw: st.DrawFn, steps: "_Steps", index: Index | None) -> QueryOf:
        subject = steps._subject  # noqa: SLF001 - same class
        keys = subject.shape.keys if index is None else index.keys
        name = keys.partition.name
        partition = draw(steps._key_value(name))  # noqa: SLF001 - same class
        sort = None
        if keys.sort is not None and draw(st.booleans()):
            sort = draw(_sort_conditions(keys.sort.name, keys.sort.type, steps._key_value(keys.sort.name)))  # noqa: SLF001
        return QueryOf(
            None if index is None else index.name,
            (name, partition),
            sort,
            None if keys.sort is None else keys.sort.name,
            draw(st.booleans()),
            ordered=index is None,
            filtered=draw(steps._filters(index, frozenset(keys.names))),  # noqa: SLF001 - same class
            limit=draw(st.none() | st.integers(1, 3)),
        )

    def _queries_of(self, index: Index | None) -> st.SearchStrategy[QueryOf]:
        return self._query(self, index)

    def _key_value(self, name: str) -> st.SearchStrategy[AttributeValue]:
        """A value to ask for, of the few that items of the example have."""
        if name in self._subject.shape.keys.names:
            return self._keys.map(lambda key: key[name])
        return self._subject.index_value(name)

    def scans(self) -> st.SearchStrategy[ScanOf]:
        """Scan of the table and of each index, in pages and in segments."""
        places: list[Index | None] = [None, None, *self._subject.shape.indexes.values()]
        return st.sampled_from(places).flatmap(
            lambda index: st.builds(
                lambda filtered, limit, segments: ScanOf(
                    None if index is None else index.name, filtered=filtered, limit=limit, segments=segments
                ),
                self._filters(index),
                st.none() | st.integers(1, 4),
                st.none() | st.integers(1, 3),
            )
        )

    def _filters(
        self, index: Index | None, queried: frozenset[str] = frozenset()
    ) -> st.SearchStrategy[Condition | None]:
        """Filters of a listing: they may name what the index holds, but for the key that is queried."""
        held = None if index is None else index.held_attributes(self._subject.shape.keys)
        if held is None:
            return st.none() | _conditions(self._subject, queried) if queried else self._maybe
        hidden = queried | (frozenset({*self._subject.attributes, UNDECLARED}) - held)
        if hidden >= set(self._subject.attributes):
            return st.none()
        return st.none() | _conditions(self._subject, hidden)

    def several(self) -> st.SearchStrategy[Step]:
        """Batches and transactions."""
        keys = st.lists(self._keys, min_size=1, max_size=4, unique_by=_identity)
        deletes = self._keys.map(Delete)
        writes = st.lists(
            self._items.map(Put) | deletes,
            min_size=1,
            max_size=4,
            unique_by=lambda each: _identity_of(self, each),
        )
        parts = st.lists(
            self.puts().map(_unasked)
            | self.changes().map(_unasked)
            | self.deletes().map(_unasked)
            | st.builds(Check, self._keys, _conditions(self._subject)),
            min_size=1,
            max_size=3,
            unique_by=lambda each: _identity_of(self, each),
        )
        return st.one_of(
            keys.map(BatchGet),
            keys.map(TransactGet),
            writes.map(BatchWrite),
            parts.map(lambda each: TransactWrite(sorted(each, key=lambda part: _ORDER[type(part)]))),
        )

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the table's key attributes."""
        return self._subject.shape.keys.names


_ORDER = {Check: 0, Delete: 1, Put: 2, ChangeOf: 3}


def _unasked(part: Any) -> Any:
    """The same write as a part of a transaction, which returns nothing."""
    return type(part)(**{**vars(part), "returns": "NONE"})


def _identity(key: Key) -> str:
    """What no two keys of one request share; numbers by value."""
    return repr([(n, float(v["N"]) if "N" in v else v) for n, v in sorted(key.items())])


def _identity_of(steps: _Steps, part: Any) -> str:
    item = part.item if isinstance(part, Put) else part.key
    return _identity({name: item[name] for name in steps.key_names})


def _sort_conditions(
    name: str, kind: str, values: st.SearchStrategy[AttributeValue]
) -> st.SearchStrategy[Condition]:
    path = Path([name])
    compared = st.tuples(st.sampled_from(_COMPARISONS), values).map(lambda two: two[0](path, two[1]))
    equal = values.map(lambda value: path == value)
    ranges = _ranges(kind).filter(lambda pair: pair[0][kind] not in ("", b""))
    between = ranges.map(lambda pair: path.between(*pair))
    if kind == "N":
        return compared | equal | between
    starts = values.map(lambda value: starts_with(path, {kind: value[kind][:1]}))
    return compared | equal | between | starts


def _saved(item: Item, version: str, seen: int | None) -> Put:
    """What `save` makes of an instance whose version is the one that was seen."""
    path = Path([version])
    condition = path.does_not_exist() if seen is None else path == {"N": str(seen)}
    return Put({**item, version: {"N": str((seen or 0) + 1)}}, condition)


def _updated(key: Key, actions: Sequence[Action], version: str, seen: int | None) -> ChangeOf:
    """What `update` makes of an instance whose version is the one that was seen."""
    path = Path([version])
    if seen is None:
        return ChangeOf(key, [*actions, path.set({"N": "1"})], path.does_not_exist())
    return ChangeOf(key, [*actions, path.add({"N": "1"})], path == {"N": str(seen)})


def steps_of(
    model: type[Model], *, overrides: Strategies | None = None, near_limits: bool = False
) -> Mapping[str, st.SearchStrategy[Step]]:
    """What may be done to a model's table, by kind: puts, changes, deletes, gets, queries, scans, several.

    Args:
        model: the PynamoDB model.
        overrides: what to draw the values of some attributes from, by their names in DynamoDB.
        near_limits: whether some items are as large as DynamoDB takes, and a little larger.
    """
    steps = _Steps(model, overrides, near_limits=near_limits)
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "puts": steps.puts(),
        "changes": steps.changes(),
        "deletes": steps.deletes(),
        "gets": steps.gets(),
        "queries": steps.queries(),
        "scans": steps.scans(),
        "several": steps.several(),
    }
    return kinds
