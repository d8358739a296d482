"""Comparing two small sets of items in memory, in tests and scripts."""

from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass

from dualstore.items import Item, Key, KeySchema, key_bytes, key_hash
from dualstore.verify.findings import Difference, Finding, compare_sides, observe_pair


@dataclass(frozen=True, slots=True)
class Validation:
    """How two sets of items compare.

    Attributes:
        source_items: how many items the source has.
        migrated_items: how many there are on the other side.
        equal: keys with the same content in both.
        differences: the others.
        duplicates: keys that one of the sets holds more than once.
    """

    source_items: int
    migrated_items: int
    equal: int
    differences: tuple[Difference, ...]
    duplicates: tuple[Difference, ...] = ()

    @property
    def success_rate(self) -> float:
        """The share of the keys that are equal; 1.0 where there are none."""
        compared = self.equal + len(self.differences)
        return self.equal / compared if compared else 1.0

    @property
    def valid(self) -> bool:
        """Whether both hold the same items, each once."""
        return not self.differences and not self.duplicates


def validate(source_items: Iterable[Item], migrated_items: Iterable[Item], keys: KeySchema) -> Validation:
    """Compare two sets of items by their keys, in time proportional to their number.

    ```python
    assert validate(source, migrated, KeySchema(KeyAttribute("id", "S"))).valid
    ```

    Args:
        source_items: items as boto3's low-level client has them; may be none.
        migrated_items: those that should be the same.
        keys: the table's key.

    Raises:
        RequestRejected: an item has no valid key.
    """
    source, migrated = _Held(keys, source_items), _Held(keys, migrated_items)
    differences = []
    equal = 0
    for name, key in {**source.keys_of, **migrated.keys_of}.items():
        here, there = source.items.get(name), migrated.items.get(name)
        if compare_sides(here, there) in {Finding.EQUAL, Finding.STAMP}:
            equal += 1
            continue
        seen = observe_pair(here, there, revision=None)
        differences.append(Difference(key_hash(keys, key), seen.finding, seen.paths, key=key))
    duplicates = [
        Difference(key_hash(keys, key), Finding.DUPLICATE, key=key)
        for key in {**source.twice, **migrated.twice}.values()
    ]
    return Validation(source.count, migrated.count, equal, tuple(differences), tuple(duplicates))


async def avalidate(
    source_items: Iterable[Item] | AsyncIterable[Item],
    migrated_items: Iterable[Item] | AsyncIterable[Item],
    keys: KeySchema,
) -> Validation:
    """As `validate`, of items that may arrive asynchronously."""
    return validate(await _gathered(source_items), await _gathered(migrated_items), keys)


async def _gathered(items: Iterable[Item] | AsyncIterable[Item]) -> Iterable[Item]:
    if isinstance(items, AsyncIterable):
        return [item async for item in items]
    return items


class _Held:
    """Items by their keys."""

    def __init__(self, keys: KeySchema, items: Iterable[Item]) -> None:
        self.items: dict[bytes, Item] = {}
        self.keys_of: dict[bytes, Key] = {}
        self.twice: dict[bytes, Key] = {}
        self.count = 0
        for item in items:
            key = keys.key_of(item)
            name = key_bytes(keys, key)
            self.count += 1
            if name in self.items:
                self.twice[name] = key
            self.items[name], self.keys_of[name] = item, key
