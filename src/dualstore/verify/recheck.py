"""Looking again at keys that seemed to differ, until each is equal, truly different, or still moving."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from dualstore.errors import MirrorUnreadable
from dualstore.items import Item, Key, TableShape, key_bytes
from dualstore.stores.base import NOTHING, UNREADABLE, Mirror, MirrorState, Store
from dualstore.stores.scan import read_items
from dualstore.verify.findings import Finding, Observation, observe_pair


@dataclass(frozen=True, slots=True)
class Candidate:
    """A key that seemed to differ.

    Attributes:
        key: the key.
        observation: what was seen of it, or None where only one side was looked at.
    """

    key: Key
    observation: Observation | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a candidate; `observation` is None where it kept moving."""

    key: Key
    observation: Observation | None


@dataclass(frozen=True)
class Sides:
    """Both sides of one table, as a verification reads them."""

    shape: TableShape
    dynamodb: Store
    postgres: Mirror
    has_expired: Callable[[Item], bool] = lambda _: False

    def observe(self, keys: Sequence[Key]) -> Iterator[tuple[Key, Observation]]:
        """Look at keys on both sides, on PostgreSQL first.

        What one round saw on PostgreSQL and the next sees there again did not change in between, and the
        first round's look at DynamoDB lies in between: both sides were looked at *at one moment*.
        """
        states = states_of(self.postgres, self.shape, keys)
        items = self._items_on_dynamodb(keys)
        for key in keys:
            name = key_bytes(self.shape.keys, key)
            state = states.get(name)
            yield (
                key,
                observe_pair(
                    items.get(name),
                    None if state is None else state.item,
                    revision=NOTHING if state is None else state.revision,
                    has_expired=self.has_expired,
                ),
            )

    def _items_on_dynamodb(self, keys: Sequence[Key]) -> Mapping[bytes, Item]:
        """The items of these keys, read consistently, by `items.key_bytes`."""
        keys_of = self.shape.keys
        return {key_bytes(keys_of, item): item for item in read_items(self.dynamodb, self.shape, keys)}


def states_of(mirror: Mirror, shape: TableShape, keys: Sequence[Key]) -> Mapping[bytes, MirrorState]:
    """What a mirror holds for keys, by `items.key_bytes`; of a row that cannot be read, that it is so.

    One such row refuses to be read with all that are asked for beside it, so it is looked for by halves.
    """
    try:
        return mirror.items_of(shape.name, keys)
    except MirrorUnreadable:
        if len(keys) == 1:
            item = {**shape.keys.key_of(keys[0]), **UNREADABLE}
            return {key_bytes(shape.keys, keys[0]): MirrorState(item, None, NOTHING)}
    middle = len(keys) // 2
    return {**states_of(mirror, shape, keys[:middle]), **states_of(mirror, shape, keys[middle:])}


_SETTLED = frozenset({Finding.EQUAL, Finding.EXPIRED})
"""What one look is enough for."""


def recheck(
    sides: Sides,
    candidates: Sequence[Candidate],
    *,
    rounds: int,
    pause: timedelta,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Verdict]:
    """Judge keys that seemed to differ.

    A key is different when two looks, a pause apart, find the same difference between the same item and
    the same revision of the row; a write on its way to the mirror has arrived by then. Those that were not
    seen on both sides yet are looked at for the first time at once.

    Args:
        sides: where to look.
        candidates: the keys, each once.
        rounds: how often to look again at most.
        pause: how long to wait before each of these looks.
        sleep: waits; takes seconds.

    Yields:
        One verdict for each candidate.
    """
    moving = {key_bytes(sides.shape.keys, candidate.key): candidate for candidate in candidates}
    yield from _looked(sides, moving, [each.key for each in candidates if each.observation is None])
    for _ in range(rounds):
        if not moving:
            return
        sleep(pause.total_seconds())
        yield from _looked(sides, moving, [each.key for each in moving.values()])
    for candidate in moving.values():
        yield Verdict(candidate.key, None)


def _looked(sides: Sides, moving: dict[bytes, Candidate], keys: Sequence[Key]) -> Iterator[Verdict]:
    """Look at some of the keys, and take those out that have their verdict now."""
    for key, seen in sides.observe(keys) if keys else ():
        name = key_bytes(sides.shape.keys, key)
        if seen.finding in _SETTLED or seen == moving[name].observation:
            del moving[name]
            yield Verdict(key, seen)
        else:
            moving[name] = Candidate(key, seen)
