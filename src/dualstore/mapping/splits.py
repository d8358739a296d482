"""A DynamoDB table whose items are held in several SQL tables: one for each entity, and one for the rest."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any, TypeAlias

from dualstore.errors import MappingError
from dualstore.expressions import KeyCondition
from dualstore.items import Item, Key, TableShape
from dualstore.mapping import advice
from dualstore.mapping.entities import Entity
from dualstore.mapping.models import unmapped_table
from dualstore.mapping.tables import MappedColumn, TableMapping

UNMAPPED_PREFIX = "dualstore_unmapped_"


@dataclass(frozen=True, eq=False)
class EntityTable:
    """An entity and the SQL table that holds it.

    Attributes:
        name: the entity's, in messages and metrics: the PynamoDB model's.
        entity: what is asked of its items.
        mapping: how they become rows.
        indexes: the names of the DynamoDB indexes that its model declares.
    """

    name: str
    entity: Entity
    mapping: TableMapping
    indexes: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False, repr=False)
class SplitMapping:
    """A DynamoDB table in several SQL tables: an item is in the first whose entity it is, or in the last.

    Where it says the same as a `TableMapping`, whoever speaks of keys and items alone need not tell them
    apart; whoever speaks of SQL tables goes through `parts`.

    Attributes:
        logical_name: the table's name in flags, configuration and metrics.
        shape: its shape in DynamoDB, with the indexes of all models.
        entities: the entities, in the order in which they are asked.
        rest: where items go that are of no entity.
    """

    logical_name: str
    shape: TableShape
    entities: tuple[EntityTable, ...]
    rest: TableMapping

    def __repr__(self) -> str:
        tables = ", ".join(part.table.fullname for part in self.parts)
        return f"<SplitMapping {self.logical_name}: {self.shape.name} in {tables}>"

    @cached_property
    def parts(self) -> tuple[TableMapping, ...]:
        """The SQL tables, the one for items of no entity last."""
        return (*(each.mapping for each in self.entities), self.rest)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What its owner may not expect, a sentence each."""
        own = (
            f"{first.name} and {second.name} of table {self.logical_name!r} may both claim an item "
            f"({first.entity}; {second.entity}): it is in {first.mapping.table.fullname!r}, named first"
            for first, second in combinations(self.entities, 2)
            if not first.entity.excludes(second.entity)
        )
        return (*(note for part in self.parts for note in part.notes), *own)

    @property
    def key_columns(self) -> tuple[MappedColumn, ...]:
        """The key's columns in the first part; in the others they are of the same types."""
        return self.parts[0].key_columns

    @property
    def key_types(self) -> tuple[str, ...]:
        """The SQL types to cast the parameters from `encode_key` to."""
        return self.parts[0].key_types

    def encode_key(self, key: Key) -> tuple[Any, ...]:
        """The values of the key columns of any part."""
        return self.parts[0].encode_key(key)

    def place_of(self, item: Item) -> int:
        """The number of the part that holds an item."""
        for place, each in enumerate(self.entities):
            if each.entity.matches(item):
                return place
        return len(self.entities)

    def places_of_key(self, key: Key) -> tuple[int, ...]:
        """The parts that the item at a key may be in."""
        return self._places(lambda entity: entity.of_key(key))

    def places_of_range(self, asked: KeyCondition) -> tuple[int, ...]:
        """The parts that the items of a Query of the table itself may be in."""
        return self._places(lambda entity: entity.of_range(self.shape.keys, asked))

    def _places(self, told: Callable[[Entity], bool | None]) -> tuple[int, ...]:
        places = []
        for place, each in enumerate(self.entities):
            answer = told(each.entity)
            if answer is not False:
                places.append(place)
            if answer is True:
                return tuple(places)
        return (*places, len(self.entities))

    def with_shape(self, shape: TableShape) -> "SplitMapping":
        """The same of another table of this shape."""
        entities = tuple(replace(each, mapping=replace(each.mapping, shape=shape)) for each in self.entities)
        return replace(self, shape=shape, entities=entities, rest=replace(self.rest, shape=shape))

    # -- rows of any part in one form: the number of the part, and the values of its columns in slots ------

    @cached_property
    def slot_types(self) -> tuple[str, ...]:
        """The SQL types of what is read of a row, whichever part it is from: as few as hold every part."""
        return tuple(type_ for type_, _ in self._slots)

    def slot_expressions(self, place: int, alias: str) -> tuple[str, ...]:
        """What to select of one part, for `decode`.

        Args:
            place: the number of the part.
            alias: what the statement calls its table.

        Returns:
            An expression for each slot, and before them the number of the part.
        """
        expressions = self.parts[place].read_expressions(alias)
        columns = dict(zip(self._slots_of[place], expressions, strict=True))
        slots = (columns.get(slot, f"NULL::{type_}") for slot, type_ in enumerate(self.slot_types))
        return (str(place), *slots)

    def decode(self, row: Sequence[Any]) -> Item:
        """The item that a row holds, read by `slot_expressions`."""
        place, *slots = row
        item: Item = self.parts[place].decode([slots[slot] for slot in self._slots_of[place]])
        return item

    @cached_property
    def _slots_of(self) -> tuple[tuple[int, ...], ...]:
        """For each part, the slots of its columns, in the order of its `column_names`."""
        numbers = {key: slot for slot, key in enumerate(self._slots)}
        return tuple(tuple(numbers[key] for key in _numbered(_types_read(part))) for part in self.parts)

    @cached_property
    def _slots(self) -> tuple[tuple[str, int], ...]:
        """Each slot: its type, and which it is of the slots of that type."""
        return tuple(dict.fromkeys(key for part in self.parts for key in _numbered(_types_read(part))))


Mapped: TypeAlias = TableMapping | SplitMapping
"""A DynamoDB table in one SQL table, or in several."""


def _types_read(part: TableMapping) -> Iterator[str]:
    """The SQL types of `read_expressions`."""
    for column in part.columns:
        yield column.read_type
    yield from ("text", "bytea")


def _numbered(types: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each with its number among those that are equal to it."""
    seen: dict[str, int] = {}
    for type_ in types:
        number = seen.get(type_, 0)
        seen[type_] = number + 1
        yield type_, number


def missing_indexes(mapping: Mapped) -> list[str]:
    """The secondary indexes of DynamoDB that no SQL index serves.

    Args:
        mapping: a table's mapping. Each of several SQL tables has to serve the indexes of its own model.

    Returns:
        For each, a sentence that says what to add. Queries by such an index are answered all the same, by
        reading the whole SQL table.
    """
    if isinstance(mapping, TableMapping):
        return list(advice.missing_indexes(mapping, mapping.shape.indexes))
    return [
        sentence
        for each in mapping.entities
        for sentence in advice.missing_indexes(each.mapping, sorted(each.indexes))
    ]


def split_table(
    logical_name: str, entities: Sequence[EntityTable], *, rest: TableMapping | None = None
) -> SplitMapping:
    """Put the entities of one DynamoDB table together.

    Args:
        logical_name: the table's name in flags, configuration and metrics.
        entities: each mapped by `map_table`, in the order in which they are asked.
        rest: where items of no entity go; None: a table `dualstore_unmapped_…` of dualstore's own, which
            `dualstore schema upgrade` creates.

    Raises:
        MappingError: they do not go together; the message says what to change.
    """
    shape = _shape(entities)
    place = f"DynamoDB table {shape.name!r} in several SQL tables"
    if rest is None:
        rest = _unmapped(logical_name, entities[0].mapping, shape)
    for each in entities:
        each.entity.check(f"{each.name} of {place}", shape.keys)
    _check_exclusion(place, entities)
    mapping = SplitMapping(logical_name, shape, tuple(entities), rest).with_shape(shape)
    _check_tables(place, mapping)
    return mapping


def _unmapped(logical_name: str, sibling: TableMapping, shape: TableShape) -> TableMapping:
    """A table for the rest, beside those of the entities."""
    return unmapped_table(logical_name, shape, table_name=UNMAPPED_PREFIX + logical_name, beside=sibling)


def _shape(entities: Sequence[EntityTable]) -> TableShape:
    first = entities[0]
    shape = first.mapping.shape
    indexes = dict(shape.indexes)
    for each in entities[1:]:
        other = each.mapping.shape
        if (other.name, other.keys) != (shape.name, shape.keys):
            raise MappingError(
                f"{first.name} and {each.name} are not of the same DynamoDB table: "
                f"{shape.name!r} has the key {_key_named(shape)}, {other.name!r} has {_key_named(other)}; "
                "give their key attributes the same names and types"
            )
        for name, index in other.indexes.items():
            if indexes.setdefault(name, index) != index:
                raise MappingError(
                    f"{each.name} and a model before it declare DynamoDB index {name!r} differently: "
                    "declare it once, on a class that they share"
                )
    return replace(shape, indexes=indexes)


def _key_named(shape: TableShape) -> str:
    return "(" + ", ".join(f"{each.name} {each.type}" for each in shape.keys.attributes) + ")"


def _check_exclusion(place: str, entities: Sequence[EntityTable]) -> None:
    for first, second in combinations(entities, 2):
        if first.entity.asks_the_same(second.entity) and not first.entity.excludes(second.entity):
            raise MappingError(
                f"{place}: {first.name} ({first.entity}) and {second.name} ({second.entity}) claim the same "
                "items: tell them apart by different values, or by prefixes of which none begins the other"
            )


def _check_tables(place: str, mapping: SplitMapping) -> None:
    first = mapping.parts[0]
    seen: dict[str, TableMapping] = {}
    for part in mapping.parts:
        if part.table.fullname in seen:
            raise MappingError(
                f"{place}: SQL table {part.table.fullname!r} is named twice: an entity needs one of its own"
            )
        seen[part.table.fullname] = part
        for mine, theirs in zip(first.key_columns, part.key_columns, strict=True):
            if (mine.cast, mine.read_type) != (theirs.cast, theirs.read_type):
                raise MappingError(
                    f"{place}: key attribute {mine.attribute!r} is {mine.column.type!r} in table "
                    f"{first.table.fullname!r} and {theirs.column.type!r} in {part.table.fullname!r}, which "
                    "are compared with each other: declare it alike in all of them"
                )
