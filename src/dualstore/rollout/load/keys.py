"""Synthetic keys: which partition and which of its items an operation asks for, and how that is spelled."""

from bisect import bisect
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from random import Random
from typing import NamedTuple

from dualstore.items import AttributeValue, Key, KeyAttribute, KeySchema
from dualstore.rollout.load.profile import PartitionClass

PREFIX = "dualstore-load"


class Place(NamedTuple):
    """An item by its ranks: its partition's among all, its own within the partition; both from 0."""

    partition: int
    sort: int


class Popularity:
    """Draws places as often as an operation asks for them.

    Args:
        classes: from the hottest partitions to the coldest.
        operation: whose shares count.
    """

    def __init__(self, classes: Sequence[PartitionClass], operation: str) -> None:
        self._classes = classes
        self._firsts = [0, *accumulate(each.partitions for each in classes)][:-1]
        self._reached = list(accumulate(each.percent(operation) for each in classes))
        self._sorts = [
            (
                list(accumulate(share for _, share in each.sorts)),
                [0, *accumulate(count for count, _ in each.sorts)],
            )
            for each in classes
        ]

    def draw(self, random: Random) -> Place:
        """One place."""
        number = min(bisect(self._reached, random.random() * self._reached[-1]), len(self._classes) - 1)
        partition = self._firsts[number] + random.randrange(self._classes[number].partitions)
        reached, firsts = self._sorts[number]
        step = min(bisect(reached, random.random() * reached[-1]), len(reached) - 1)
        return Place(partition, random.randrange(firsts[step], firsts[step + 1]))


def partitions_in(classes: Sequence[PartitionClass]) -> int:
    """How many partitions there are."""
    return sum(each.partitions for each in classes)


class KeySpace:
    """Spells keys that nobody else has: under a prefix, or far below zero where keys are numbers.

    Args:
        keys: of the table or index.
        prefix: tells the keys of different loads apart.
    """

    def __init__(self, keys: KeySchema, prefix: str = PREFIX) -> None:
        self._keys = keys
        self._prefix = prefix
        # 10**32 and more below zero, in 36 digits: DynamoDB keeps 38.
        self._below = 10**34 + int.from_bytes(blake2b(prefix.encode(), digest_size=6).digest()) * 10**18

    def key(self, place: Place) -> Key:
        """The key of an item; of an index, the values of its key attributes in the item."""
        key = {self._keys.partition.name: self.partition(place.partition)}
        if self._keys.sort is not None:
            key[self._keys.sort.name] = self._spelled(self._keys.sort, place.sort, own=False)
        return key

    def partition(self, rank: int) -> AttributeValue:
        """The partition key of a rank."""
        return self._spelled(self._keys.partition, rank, own=True)

    def _spelled(self, attribute: KeyAttribute, rank: int, *, own: bool) -> AttributeValue:
        if attribute.type == "N":
            return {"N": str(rank - self._below if own else rank)}
        # Scattered as keys are, so that neighbours in rank are none in the index.
        scattered = blake2b(rank.to_bytes(8), digest_size=4).hexdigest() if own else f"{rank:08}"
        text = f"{self._prefix}/{scattered}-{rank}"
        return {"S": text} if attribute.type == "S" else {"B": text.encode()}
