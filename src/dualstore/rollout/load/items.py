"""Generated items: synthetic keys, a value that fits for every column, and filling up to a size."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from random import Random
from typing import TypeAlias

from dualstore.errors import ConfigurationError
from dualstore.items import (
    MAX_ITEM_SIZE_BYTES,
    AttributeValue,
    Index,
    Item,
    Key,
    KeyAttribute,
    TableShape,
    item_size_bytes,
)
from dualstore.mapping import Mapped, MappedColumn, Unfit
from dualstore.rollout.load.keys import PREFIX, KeySpace, Place, partitions_in
from dualstore.rollout.load.profile import PartitionClass

FILLING = "load_filling"
"""The attribute that brings an item to its size; it has no column, so the overflow holds it."""

_STAMPS_BYTES = 64
"""Left free for dualstore's own attributes."""
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


@cache
def _filling() -> str:
    """Text that does not compress, since values seldom do much: the same in every run."""
    drawn = Random(8).choices(_LETTERS, k=MAX_ITEM_SIZE_BYTES)  # noqa: S311 - no secret
    return "".join(drawn)


class Items:
    """Makes the keys and items of a table.

    Args:
        mapping: the table's; every column that takes an attribute is given one.
        indexes: what is said of the partitions of its indexes, by name.
        template: attributes that every item has as they are.
        prefix: of the keys.

    Raises:
        ConfigurationError: no value that is known here fits a column that must have one.
    """

    def __init__(
        self,
        mapping: Mapped,
        indexes: Mapping[str, Sequence[PartitionClass]],
        template: Item,
        *,
        prefix: str = PREFIX,
    ) -> None:
        self.shape: TableShape = mapping.shape
        self.keys = KeySpace(self.shape.keys, prefix)
        self._template = {
            name: value for name, value in template.items() if name not in self.shape.keys.names
        }
        self._indexes = {
            name: _IndexKeys(index, self.shape, mapping, partitions_in(indexes.get(name, ())) or 1, prefix)
            for name, index in self.shape.indexes.items()
        }
        self._filling = _filling()
        self._columns: dict[str, Candidate] = {}
        self._columns = dict(self._fitting(mapping))

    def key(self, place: Place) -> Key:
        """The key of an item."""
        return self.keys.key(place)

    def index_partition(self, index: str, rank: int) -> AttributeValue:
        """The partition key of an index's partition."""
        keys = self._indexes[index]
        if keys.attribute.name == self.shape.keys.partition.name:
            return self.keys.partition(rank)
        sort = self.shape.keys.sort
        if sort is not None and keys.attribute.name == sort.name:
            return self.keys.key(Place(0, rank))[sort.name]
        return keys.value(rank)

    def item(self, place: Place, size_bytes: int) -> Item:
        """An item of about this size, or as small as its key and columns allow."""
        spread = int.from_bytes(
            blake2b(b"%d/%d" % (place.partition, place.sort), digest_size=6).digest()
        )  # the same item has the same attributes every time
        item: Item = {attribute: candidate(spread) for attribute, candidate in self._columns.items()}
        for keys in self._indexes.values():
            item |= keys.attributes(spread)
        item |= self._template
        item |= self.key(place)
        wanted = min(size_bytes, MAX_ITEM_SIZE_BYTES - _STAMPS_BYTES) - item_size_bytes(item) - len(FILLING)
        if wanted > 0:
            item[FILLING] = {"S": self.filling(wanted, spread)}
        return item

    def filling(self, size_bytes: int, spread: int = 0) -> str:
        """Text of a size."""
        size_bytes = min(size_bytes, MAX_ITEM_SIZE_BYTES)
        start = spread % (MAX_ITEM_SIZE_BYTES - size_bytes + 1)
        return self._filling[start : start + size_bytes]

    def _fitting(self, mapping: Mapped) -> Iterator[tuple[str, "Candidate"]]:
        """The attributes that have columns where such items go, each with what makes its values."""
        given = {*self.shape.keys.names, *self._template}
        for keys in self._indexes.values():
            given |= keys.attributes(0).keys()
        part = mapping.parts[mapping.place_of(self.item(Place(0, 0), 0))]
        for column in part.columns:
            if column.attribute in given:
                continue
            candidate = _first_fitting(column)
            if candidate is not None:
                yield column.attribute, candidate
            elif not column.column.nullable and column.column.server_default is None:
                raise ConfigurationError(
                    f"table {part.table.fullname}: no generated value fits column {column.name}, which must "
                    f"have one: give it in the profile, as `item: {{{column.attribute}: "
                    f"{{{column.type}: …}}}}`"
                )


class _IndexKeys:
    """The key attributes of one index that are not in the table's key."""

    def __init__(
        self, index: Index, shape: TableShape, mapping: Mapped, partitions: int, prefix: str
    ) -> None:
        self.attribute = index.keys.partition
        self._sort = index.keys.sort
        self._own = frozenset(shape.keys.names)
        self._space = KeySpace(index.keys, f"{prefix}/{index.name}")
        self._partitions = partitions
        self._fits = _holds(mapping, self.attribute, self._space.partition(0))

    def value(self, rank: int) -> AttributeValue:
        """The partition key of a rank: one that its column holds."""
        if self._fits or self.attribute.type != "N":
            return self._space.partition(rank)
        return {"N": str(-1 - rank % 30_000)}

    def attributes(self, spread: int) -> Item:
        """What an item has, so that it is in some partition of the index."""
        found: Item = {}
        if self.attribute.name not in self._own:
            found[self.attribute.name] = self.value(spread % self._partitions)
        if self._sort is not None and self._sort.name not in self._own:
            found[self._sort.name] = self._space.key(Place(0, spread // self._partitions % 10_000))[
                self._sort.name
            ]
        return found


def _holds(mapping: Mapped, attribute: KeyAttribute, value: AttributeValue) -> bool:
    for part in mapping.parts:
        for column in part.columns:
            if column.attribute == attribute.name:
                return _fits(column, value)
    return True


def _fits(column: MappedColumn, value: AttributeValue) -> bool:
    try:
        column.encode(value)
    except Unfit:
        return False
    return True


Candidate: TypeAlias = Callable[[int], AttributeValue]
"""Makes an attribute's value for an item, by the item's own number."""

_EXTREMES = (0, 99_999)
"""Of these items the values are the shortest or smallest, and the longest or largest."""


def _first_fitting(column: MappedColumn) -> Candidate | None:
    return next(
        (
            candidate
            for candidate in _candidates(column)
            if all(_fits(column, candidate(spread)) for spread in _EXTREMES)
        ),
        None,
    )


def _candidates(column: MappedColumn) -> Iterator[Candidate]:
    """From the most particular to what many columns take."""
    type_ = column.column.type
    if column.type == "S":
        if labels := getattr(type_, "enums", None):
            yield lambda spread: {"S": labels[spread % len(labels)]}
        length = getattr(type_, "length", None) or _TEXT_LETTERS
        yield lambda spread: {"S": f"load-{spread:0{_TEXT_LETTERS - 5}x}"[-length:]}
        yield lambda spread: {"S": f"00000000-0000-4000-8000-{spread:012x}"}
    if column.type == "N":
        for limit in _NUMBER_LIMITS:
            yield lambda spread, limit=limit: {"N": str(spread % limit)}  # type: ignore[misc]
    for value in _CONSTANTS.get(column.type, ()):
        yield lambda _, value=value: value  # type: ignore[misc]


_TEXT_LETTERS = 24
_NUMBER_LIMITS = (100_000, 10_000, 2)
_CONSTANTS: Mapping[str, Sequence[AttributeValue]] = {
    "S": [
        {"S": "2026-01-01T00:00:00.000000+0000"},  # as PynamoDB writes it
        {"S": "2026-01-01T00:00:00+00:00"},
        {"S": "2026-01-01"},
    ],
    "B": [{"B": b"load"}],
    "BOOL": [{"BOOL": True}],
    "SS": [{"SS": ["load"]}],
    "NS": [{"NS": ["1"]}],
    "BS": [{"BS": [b"load"]}],
    "L": [{"L": [{"S": "load"}]}],
    "M": [{"M": {"load": {"S": "load"}}}],
}
