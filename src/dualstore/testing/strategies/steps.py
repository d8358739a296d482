"""Hypothesis strategies of the steps on one model: what they ask is drawn from what is there by then."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from botocore.exceptions import ClientError
from hypothesis import strategies as st
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path
from pynamodb.expressions.update import Action
from pynamodb.models import Model

from dualstore.items import AttributeValue, Index, Item, Key, type_of
from dualstore.operations import OPERATIONS, GetItem, PutItem
from dualstore.stores.memory import MemoryStore
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
from dualstore.testing.strategies.actions import actions_of
from dualstore.testing.strategies.conditions import any_conditions, telling_conditions
from dualstore.testing.strategies.items import items_of
from dualstore.testing.strategies.present import present_items
from dualstore.testing.strategies.ranges import sort_conditions
from dualstore.testing.strategies.subjects import UNDECLARED, Strategies, Subject, keys_of, shared_pool_of

W = TypeVar("W", Put, ChangeOf, Delete)

_RARE = 3
_NOTHING: frozenset[str] = frozenset()


class Steps:
    """The strategies of the steps on one model.

    Args:
        subject: the model.
        near_limits: whether some items are as large as DynamoDB takes, and a little larger.
    """

    def __init__(self, subject: Subject, *, near_limits: bool) -> None:
        model, overrides = subject.model, subject.overrides
        self._subject = subject
        self._pool = shared_pool_of(model, overrides)
        self._free_keys = keys_of(model, overrides=overrides)
        self._items = items_of(model, overrides=overrides, near_limits=near_limits)
        self._conditions = any_conditions(subject)
        self._actions = actions_of(model, overrides=overrides)
        self._keys = present_items().flatmap(self._keys_among)

    def _keys_among(self, present: Sequence[Item]) -> st.SearchStrategy[Key]:
        """Keys of items that are there, as often as any."""
        if not present:
            return self._free_keys
        return self._free_keys | st.sampled_from([self._subject.key_of(item) for item in present])

    # -- writes of one item ----------------------------------------------------------------------

    def puts(self) -> st.SearchStrategy[Put]:
        """PutItem, half of them as `Model.save` does it where there is a version."""
        returns = st.sampled_from(["NONE", "NONE", "ALL_OLD"])
        placed = st.builds(lambda item, key: {**item, **key}, self._items, self._keys)
        plain = st.builds(Put, placed, st.none(), returns).flatmap(self._asking)
        version = self._subject.version
        if version is None:
            return plain
        return plain | placed.flatmap(
            lambda item: self._seen(item, version).map(lambda seen: _saved(item, version, seen))
        )

    def changes(self) -> st.SearchStrategy[ChangeOf]:
        """UpdateItem, half of them as `Model.update` does it where there is a version."""
        returns = st.sampled_from(["ALL_NEW", "ALL_NEW", "ALL_NEW", "UPDATED_NEW", "NONE", "ALL_OLD"])
        plain = st.builds(ChangeOf, self._keys, self._actions, st.none(), returns).flatmap(self._asking)
        version = self._subject.version
        if version is None:
            return plain
        return plain | st.tuples(self._keys, self._actions).flatmap(
            lambda two: self._seen(two[0], version).map(lambda seen: _updated(*two, version, seen))
        )

    def deletes(self) -> st.SearchStrategy[Delete]:
        """DeleteItem."""
        returns = st.sampled_from(["NONE", "ALL_OLD"])
        return st.builds(Delete, self._keys, st.none(), returns).flatmap(self._asking)

    @st.composite
    @staticmethod
    def _asked(draw: st.DrawFn, steps: "Steps", write: W) -> W:
        kind = draw(st.sampled_from(["none", "any", "telling", "telling"]))
        condition = None
        if kind == "telling":
            before = draw(steps._before(write.touched()[0]))  # noqa: SLF001 - same class
            condition = draw(telling_conditions(before, outcome(steps._subject, write, before)))  # noqa: SLF001
        elif kind == "any":
            condition = draw(steps._conditions)  # noqa: SLF001 - same class
        return replace(write, condition=condition)

    def _asking(self, write: W) -> st.SearchStrategy[W]:
        """The same write with a condition, or without: any one, or one about what the write changes."""
        return self._asked(self, write)

    def _before(self, key: Item) -> st.SearchStrategy[Item | None]:
        """The item under a key when a step is drawn."""
        same, asked = self._subject.identity, self._subject.identity(key)
        return present_items().map(lambda items: next((item for item in items if same(item) == asked), None))

    def _seen(self, key: Item, version: str) -> st.SearchStrategy[int | None]:
        """The version that an instance may have seen: none, the present one, or another."""
        return self._before(key).flatmap(
            lambda item: st.sampled_from([None, 1, 2, *_version_in(item or {}, version)])
        )

    # -- reads -----------------------------------------------------------------------------------

    def gets(self) -> st.SearchStrategy[Get]:
        """GetItem, some of them of a few attributes."""
        paths = st.lists(st.sampled_from(sorted(self._subject.attributes)), max_size=2, unique=True)
        return st.builds(Get, self._keys, st.just(()) | paths.map(tuple))

    def queries(self) -> st.SearchStrategy[QueryOf]:
        """Query of the table and of each index."""
        return st.sampled_from(self._places).flatmap(lambda index: self._query(self, index))

    @property
    def _places(self) -> list[Index | None]:
        return [None, None, *self._subject.shape.indexes.values()]

    @st.composite
    @staticmethod
    def _query(draw: st.DrawFn, steps: "Steps", index: Index | None) -> QueryOf:
        keys = steps._subject.shape.keys if index is None else index.keys  # noqa: SLF001 - same class
        held = [item for item in draw(present_items()) if _is_in(item, keys.attributes)]
        name = keys.partition.name
        known = bool(held) and draw(st.integers(0, _RARE)) < _RARE
        # Of the items, not of the partitions: most look at one that has several.
        partition = draw(
            st.sampled_from([item[name] for item in held]) if known else steps._key_value(name)  # noqa: SLF001
        )
        sort = None
        if keys.sort is not None and draw(st.booleans()):
            there = [item[keys.sort.name] for item in held if item[name] == partition]
            sort = draw(sort_conditions(keys.sort, there, steps._key_value(keys.sort.name)))  # noqa: SLF001
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

    def _key_value(self, name: str) -> st.SearchStrategy[AttributeValue]:
        """A value to ask for, of the few that items of the example have."""
        if name in self._subject.shape.keys.names:
            return self._free_keys.map(lambda key: key[name])
        return self._subject.index_value(name)

    def scans(self) -> st.SearchStrategy[ScanOf]:
        """Scan of the table and of each index, in pages and in segments."""
        return st.sampled_from(self._places).flatmap(
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
        self, index: Index | None, queried: frozenset[str] = _NOTHING
    ) -> st.SearchStrategy[Condition | None]:
        """Filters of a listing: they may name what the index holds, but for the key that is queried."""
        attributes = frozenset({*self._subject.attributes, UNDECLARED})
        held = None if index is None else index.held_attributes(self._subject.shape.keys)
        hidden = queried if held is None else queried | (attributes - held)
        if hidden >= set(self._subject.attributes):
            return st.none()
        return st.one_of(
            st.none(),
            any_conditions(self._subject, hidden),
            present_items()
            .flatmap(lambda items: st.sampled_from(items or [{}]))
            .flatmap(lambda item: telling_conditions(item, None, hidden)),
        )

    # -- several items at once -------------------------------------------------------------------

    def several(self) -> st.SearchStrategy[Step]:
        """Batches and transactions."""
        keys = st.lists(self._keys, min_size=1, max_size=4, unique_by=self._subject.identity)
        writes = st.lists(
            self._items.map(Put) | self._keys.map(Delete), min_size=1, max_size=4, unique_by=self._written
        )
        parts = st.lists(
            self.puts().map(_unasked)
            | self.changes().map(_unasked)
            | self.deletes().map(_unasked)
            | st.builds(Check, self._keys, self._conditions),
            min_size=1,
            max_size=3,
            unique_by=self._written,
        )
        return st.one_of(
            keys.map(BatchGet),
            keys.map(TransactGet),
            writes.map(BatchWrite),
            parts.map(lambda each: TransactWrite(sorted(each, key=lambda part: _ORDER[type(part)]))),
        )

    def beginnings(self) -> st.SearchStrategy[BatchWrite | None]:
        """A few items of one partition where the table has a sort key; None: the table stays empty."""
        return self._pool.map(self._first_partition).flatmap(
            lambda keys: st.sampled_from([[], keys[:1], keys[:2], keys, keys]).flatmap(self._filling)
        )

    def _first_partition(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Different keys of one partition; without sort keys, all different keys."""
        name, sort = self._subject.shape.keys.partition.name, self._subject.shape.keys.sort
        near = [key for key in keys if sort is None or key[name] == keys[0][name]]
        return list({self._subject.identity(key): key for key in near}.values())

    def _filling(self, keys: Sequence[Key]) -> st.SearchStrategy[BatchWrite | None]:
        if not keys:
            return st.none()
        items = st.tuples(*[self._items] * len(keys))
        return items.map(
            lambda each: BatchWrite([Put({**i, **key}) for i, key in zip(each, keys, strict=True)])
        )

    def _written(self, part: Put | ChangeOf | Delete | Check) -> bytes:
        return self._subject.identity(part.item if isinstance(part, Put) else part.key)


_ORDER = {Check: 0, Delete: 1, Put: 2, ChangeOf: 3}


def _unasked(part: Any) -> Any:
    """The same write as a part of a transaction, which returns nothing."""
    return replace(part, returns="NONE")


def _is_in(item: Item, attributes: Sequence[Any]) -> bool:
    """Whether an item has a key of these attributes."""
    return all(each.name in item and type_of(item[each.name]) == each.type for each in attributes)


def _version_in(item: Item, name: str) -> list[int]:
    value = item.get(name, {})
    return [int(value["N"])] * 3 if "N" in value and value["N"].isdigit() else []


def outcome(subject: Subject, write: Put | ChangeOf | Delete, before: Item | None) -> Item | None:
    """What a write makes of an item; a write that is refused leaves it as it is.

    Args:
        subject: the model.
        write: the write; its condition counts, if it has one.
        before: the item under its key, or None where there is none.
    """
    table = subject.shape.name
    store = MemoryStore({table: subject.shape})
    if before is not None:
        store.execute(PutItem({"TableName": table, "Item": before}))
    with suppress(ClientError):
        store.execute(OPERATIONS[write.name](write.request(table)))
    key = subject.key_of(write.touched()[0])
    found: Item | None = store.execute(GetItem({"TableName": table, "Key": key})).get("Item")
    return found


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

    Where a test has an attribute `present`, the items that are there, as the kit's state machine has, keys,
    conditions and ranges are drawn from them.

    Args:
        model: the PynamoDB model.
        overrides: what to draw the values of some attributes from, by their names in DynamoDB.
        near_limits: whether some items are as large as DynamoDB takes, and a little larger.
    """
    steps = Steps(Subject(model, overrides), near_limits=near_limits)
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


def beginnings_of(
    model: type[Model], *, overrides: Strategies | None = None, near_limits: bool = False
) -> st.SearchStrategy[BatchWrite | None]:
    """What a history begins with: a few items of one partition, or nothing; arguments as of `steps_of`."""
    return Steps(Subject(model, overrides), near_limits=near_limits).beginnings()
