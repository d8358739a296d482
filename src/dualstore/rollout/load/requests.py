"""Operations as they are to be asked for: the kinds of a profile, on drawn keys, with generated items."""

from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import Any, Generic, NamedTuple, TypeVar

from dualstore.errors import ConfigurationError
from dualstore.items import TableShape
from dualstore.rollout.load.items import FILLING, Items
from dualstore.rollout.load.keys import Place, Popularity
from dualstore.rollout.load.profile import OperationRate, TableLoad

T = TypeVar("T")

_TRIES = 20
"""So often another key is drawn for a batch that must not have one twice; then it has fewer."""
MAX_BATCH_WRITES = 25


class Asked(NamedTuple):
    """One operation.

    Attributes:
        kind: the number of its kind, in `TableLoad.operations`.
        operation: DynamoDB's name of it.
        request: its parameters.
        partitions: the ranks of the partitions that it writes to.
    """

    kind: int
    operation: str
    request: Mapping[str, Any]
    partitions: Sequence[int] = ()


class Draw(Generic[T]):
    """Draws values by their shares."""

    def __init__(self, shares: Iterable[tuple[T, float]]) -> None:
        pairs = list(shares)
        self._values = [value for value, _ in pairs]
        self._reached = list(accumulate(share for _, share in pairs))

    def __call__(self, random: Random) -> T:
        """One value."""
        number = bisect(self._reached, random.random() * self._reached[-1])
        return self._values[min(number, len(self._values) - 1)]


def require_indexes(load: TableLoad, shape: TableShape) -> None:
    """See that a table has every index that a load reads.

    Raises:
        ConfigurationError: it lacks one.
    """
    for rate in load.operations:
        if rate.index is not None and rate.index not in shape.indexes:
            known = ", ".join(shape.indexes) or "none"
            raise ConfigurationError(
                f"table {shape.name} has no index {rate.index}, which the load reads; it has {known}. Create "
                f"it, or take {rate.label} out of the profile"
            )


class Requests:
    """Draws operations on one table.

    Args:
        load: what to draw from.
        items: makes keys and items.
        random: the only source of chance.
    """

    def __init__(self, load: TableLoad, items: Items, random: Random) -> None:
        self._random = random
        kinds = [_Kind(number, load, rate, items) for number, rate in enumerate(load.operations)]
        self._kind = Draw((kind, kind.rate.per_second) for kind in kinds)

    def draw(self) -> Asked:
        """The next operation."""
        return self._kind(self._random).ask(self._random)


class _Kind:
    """Asks for the operations of one kind."""

    def __init__(self, number: int, load: TableLoad, rate: OperationRate, items: Items) -> None:
        self.rate = rate
        self._number = number
        self._items = items
        self._table = items.shape.name
        self._places = (
            None if rate.operation == "Scan" else Popularity(load.partitions_of(rate), rate.operation)
        )
        self._keys = Draw(rate.keys)
        self._limit = Draw(rate.limits)
        self._size = Draw(rate.item_bytes)
        self._act = Draw(rate.acts.items())
        self._make: Callable[[Random], tuple[dict[str, Any], Sequence[int]]] = {
            "GetItem": self._get,
            "PutItem": self._put,
            "UpdateItem": self._update,
            "DeleteItem": self._delete,
            "Query": self._query,
            "Scan": self._scan,
            "BatchGetItem": self._batch_get,
            "BatchWriteItem": self._batch_write,
            "TransactGetItems": self._transact_get,
            "TransactWriteItems": self._transact_write,
        }[rate.operation]

    def ask(self, random: Random) -> Asked:
        """One of them."""
        request, partitions = self._make(random)
        return Asked(self._number, self.rate.operation, request, partitions)

    def _place(self, random: Random) -> Place:
        assert self._places is not None  # noqa: S101 - Scan alone has none, and asks for no key
        place = self._places.draw(random)
        # Without a sort key a partition is one item, whatever the profile says.
        return place if self._items.shape.keys.sort is not None else Place(place.partition, 0)

    def _several(self, random: Random, most: int) -> list[Place]:
        """Different places: DynamoDB refuses a batch or transaction that names a key twice."""
        wanted = min(self._keys(random), most)
        found = dict.fromkeys([self._place(random)])
        for _ in range(wanted * _TRIES):
            if len(found) >= wanted:
                break
            found[self._place(random)] = None
        return list(found)

    def _chance(self, random: Random, percent: float) -> bool:
        return random.random() * 100 < percent

    def _consistent(self, random: Random) -> dict[str, Any]:
        return {"ConsistentRead": True} if self._chance(random, self.rate.consistent_percent) else {}

    def _condition(self, random: Random, name: str = "ConditionExpression") -> dict[str, Any]:
        """A condition that holds of every item and of none, and has to be looked at all the same."""
        if not self._chance(random, self.rate.conditional_percent):
            return {}
        held = FILLING if name == "FilterExpression" else self._items.shape.keys.partition.name
        return {
            name: "attribute_exists(#held) OR attribute_not_exists(#held)",
            "ExpressionAttributeNames": {"#held": held},
        }

    def _on_key(self, place: Place) -> dict[str, Any]:
        return {"TableName": self._table, "Key": self._items.key(place)}

    def _get(self, random: Random) -> tuple[dict[str, Any], Sequence[int]]:
        return {**self._on_key(self._place(random)), **self._consistent(random)}, ()

    def _put(self, random: Random) -> tuple[dict[str, Any], Sequence[int]]:
        place = self._place(random)
        item = self._items.item(place, self._size(random))
        return {"TableName": self._table, "Item": item, **self._condition(random)}, (place.partition,)

    def _delete(self, random: Random) -> tuple[dict[str, Any], Sequence[int]]:
        place = self._place(random)
        return {**self._on_key(place), **self._condition(random)}, (place.partition,)

    def _update(self, random: Random) -> tuple[dict[str, Any], Sequence[int]]:
        place = self._place(random)
        condition = self._condition(random)
        names = {**condition.pop("ExpressionAttributeNames", {}), "#filling": FILLING}
        return {
            **self._on_key(place),
            **condition,
            **self._change(random),
            "ExpressionAttributeNames": names,
        }, (place.partition,)

    def _change(self, random: Random) -> dict[str, Any]:
        size = max(1, self._size(random) - len(":filling"))
        return {
            "UpdateExpression": "SET #filling = :filling",
            "ExpressionAttributeValues": {
                ":filling": {"S": self._items.filling(size, random.getrandbits(20))}
            },
        }

    def _query(self, random: Random) -> tuple[dict[str, Any], Sequence[int]]:
        place = self._place(random)
        shape, index = self._items.shape, self.rate.index
        keys = shape.keys if index is None else shape.indexes[index].keys
        condition = self._condition(random, "FilterExpression")
        names = {**condition.pop("ExpressionAttributeNames", {}), "#partition": keys.partition.name}
        partition = (
            self._items.keys.partition(place.partition)
            if index is None
            else self._items.index_partition(index, place.partition)
        )
        values = {":partition": partition}
        text = "#partition = :partition"
        if index is None and keys.sort is not None and self._chance(random, self.rate.ranged_percent):
            text += " AND #sort >= :sort"
            names["#sort"] = keys.sort.name
            values[":sort"] = self._items.key(place)[keys.sort.name]
        return {
            "TableName": self._table,
            **({} if index is None else {"IndexName": index}),
            **condition,
            "KeyConditionExpression": text,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            **self._consistent(random),
            **self._limited(random),
        }, ()

    def _scan(self, random: Random) -> tuple[dict[str, Any], Sequence[int]]:
        index = self.rate.index
        return {
            "TableName": self._table,
            **({} if index is None else {"IndexName": index}),
            **self._condition(random, "FilterExpression"),
            **self._consistent(random),
            **self._limited(random),
        }, ()

    def _limited(self, random: Random) -> dict[str, Any]:
        limit = self._limit(random)
        return {"Limit": limit} if limit else {}

    def _batch_get(self, random: Random) -> tuple[dict[str, Any], Sequence[int]]:
        keys = [self._items.key(place) for place in self._several(random, 100)]
        return {"RequestItems": {self._table: {"Keys": keys, **self._consistent(random)}}}, ()

    def _batch_write(self, random: Random) -> tuple[dict[str, Any], Sequence[int]]:
        places = self._several(random, MAX_BATCH_WRITES)
        entries: list[dict[str, Any]] = [
            {"DeleteRequest": {"Key": self._items.key(place)}}
            if self._act(random) == "Delete"
            else {"PutRequest": {"Item": self._items.item(place, self._size(random))}}
            for place in places
        ]
        return {"RequestItems": {self._table: entries}}, [place.partition for place in places]

    def _transact_get(self, random: Random) -> tuple[dict[str, Any], Sequence[int]]:
        return {"TransactItems": [{"Get": self._on_key(place)} for place in self._several(random, 100)]}, ()

    def _transact_write(self, random: Random) -> tuple[dict[str, Any], Sequence[int]]:
        places = self._several(random, 100)
        return {"TransactItems": [self._action(random, place) for place in places]}, [
            place.partition for place in places
        ]

    def _action(self, random: Random, place: Place) -> dict[str, Any]:
        match self._act(random):
            case "Put":
                item = self._items.item(place, self._size(random))
                return {"Put": {"TableName": self._table, "Item": item}}
            case "Update":
                change = {**self._change(random), "ExpressionAttributeNames": {"#filling": FILLING}}
                return {"Update": {**self._on_key(place), **change}}
            case "Delete":
                return {"Delete": self._on_key(place)}
            case _:
                held = self._items.shape.keys.partition.name
                check = {
                    "ConditionExpression": "attribute_exists(#held) OR attribute_not_exists(#held)",
                    "ExpressionAttributeNames": {"#held": held},
                }
                return {"ConditionCheck": {**self._on_key(place), **check}}
