"""A replay from end to end: items are put there, operations sent, and everything taken away again."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from random import Random
from typing import Any, TypeVar

from botocore import xform_name

from dualstore.errors import Unavailable
from dualstore.operations import OPERATIONS, Response
from dualstore.rollout.load.driving import Clock, Execute, drive
from dualstore.rollout.load.items import Items
from dualstore.rollout.load.keys import PREFIX, Place, partitions_in
from dualstore.rollout.load.profile import PartitionClass, Shares, TableLoad
from dualstore.rollout.load.requests import MAX_BATCH_WRITES, Asked, Draw, Requests, require_indexes
from dualstore.rollout.load.schedule import Arrivals, Schedule
from dualstore.rollout.load.tally import Tally
from dualstore.store import DualStore

T = TypeVar("T")

_TRIES = 8
_FIRST_PAUSE_SECONDS = 0.05
_USUAL_SIZES: Shares = ((1024, 100.0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What is to be replayed, and how.

    Attributes:
        load: operations and keys, as in production.
        multiple: how many times as many operations come.
        duration: for how long at the full rate.
        ramp: how long it takes to get there.
        writers: how many operations may be under way at a time, in one process.
        arrivals: `poisson` or `even`.
        seed: of everything that is drawn.
        prefix: of all keys; what has it is the load's own.
        seed_items: the most items that are written before it begins, the hottest first.
    """

    load: TableLoad
    multiple: float
    duration: timedelta
    ramp: timedelta = timedelta(0)
    writers: int = 16
    arrivals: Arrivals = "poisson"
    seed: int = 1
    prefix: str = PREFIX
    seed_items: int = 20_000

    @property
    def per_second(self) -> float:
        """The full rate."""
        return self.load.per_second * self.multiple

    def schedule(self, *, processes: int = 1) -> Schedule:
        """When operations are due in one of so many processes: Poisson arrivals add up to such again."""
        return Schedule(
            self.per_second / processes,
            self.duration.total_seconds(),
            self.ramp.total_seconds(),
            self.arrivals,
        )


def replay(
    store: DualStore,
    table: str,
    planned: Replay,
    *,
    number: int = 0,
    processes: int = 1,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
) -> Tally:
    """Send the operations of a replay, or one process's share of them.

    Args:
        store: of staging.
        table: the table's logical name.
        planned: what to send.
        number: which process this is, from 0.
        processes: of how many.
        clock: time; None takes it as it passes.
        stop: ends it early when set.

    Raises:
        ConfigurationError: there is no such table, or no items can be made for it.
    """
    items = items_of(store, table, planned)
    schedule = planned.schedule(processes=processes)
    return drive(
        execute_of(store),
        arrivals_of(planned, items, schedule, number=number),
        kinds=len(planned.load.operations),
        writers=planned.writers,
        measured_from=schedule.ramp_seconds,
        ends=schedule.ends_seconds,
        clock=clock,
        stop=stop,
    )


def arrivals_of(
    planned: Replay, items: Items, schedule: Schedule, *, number: int = 0
) -> Iterator[tuple[float, Asked]]:
    """When each operation is due, and what it is: the same for the same seed."""
    random = Random(f"{planned.seed}/{number}")  # noqa: S311 - no secret
    requests = Requests(planned.load, items, random)
    for due in schedule.due(random):
        yield due, requests.draw()


def items_of(store: DualStore, table: str, planned: Replay) -> Items:
    """Makes the keys and items of a replay.

    Raises:
        ConfigurationError: there is no such table, it lacks an index, or no items can be made for it.
    """
    mapping = store.table(table).mapping
    require_indexes(planned.load, mapping.shape)
    return Items(mapping, planned.load.indexes, planned.load.item, prefix=planned.prefix)


def execute_of(store: DualStore) -> Execute:
    """Sends operations through a store's router."""
    client = store.client()
    methods: Mapping[str, Callable[..., Response]] = {
        name: getattr(client, xform_name(name)) for name in OPERATIONS
    }
    return lambda name, request: methods[name](**request)


def seeded(store: DualStore, table: str, planned: Replay) -> tuple[int, int]:
    """Put the items there that the operations ask for, the hottest partitions' first.

    Returns:
        (how many were written, how many there would be without `seed_items`).

    Raises:
        Unavailable: DynamoDB, or PostgreSQL, takes no more.
    """
    items, execute = items_of(store, table, planned), execute_of(store)
    random = Random(f"{planned.seed}/seeding")  # noqa: S311 - no secret
    size = Draw(_sizes(planned.load))
    # Without a sort key a partition is one item, whatever the profile says.
    classes = [
        each if items.shape.keys.sort is not None else replace(each, items=1) for each in planned.load.keys
    ]
    wanted = sum(each.partitions * each.items for each in classes)
    places = islice(_places(classes), planned.seed_items)
    batches = (
        [{"PutRequest": {"Item": items.item(place, size(random))}} for place in some]
        for some in _batched(places, MAX_BATCH_WRITES)
    )
    name = items.shape.name
    return sum(_in_threads(lambda batch: _written(execute, name, batch), batches, planned.writers)), wanted


def cleaned(store: DualStore, table: str, planned: Replay, *, partitions: Iterable[int] | None = None) -> int:
    """Delete what a load has put there: every item in the partitions of its own keys.

    Args:
        store: of staging.
        table: the table's logical name.
        planned: what was replayed, with the same prefix.
        partitions: the ranks of the partitions to look at; None: all.

    Returns:
        How many items were deleted.

    Raises:
        Unavailable: DynamoDB, or PostgreSQL, takes no more.
    """
    items, execute = items_of(store, table, planned), execute_of(store)
    ranks = range(partitions_in(planned.load.keys)) if partitions is None else sorted(partitions)
    name = items.shape.name

    def emptied(some: Sequence[int]) -> int:
        keys = (key for rank in some for key in _keys_in(execute, items, rank))
        return sum(
            _written(execute, name, [{"DeleteRequest": {"Key": key}} for key in batch])
            for batch in _batched(keys, MAX_BATCH_WRITES)
        )

    return sum(_in_threads(emptied, _batched(ranks, MAX_BATCH_WRITES), planned.writers))


def _sizes(load: TableLoad) -> Shares:
    """How large items are: as those that are put, or that are written in batches."""
    of = {rate.operation: rate.item_bytes for rate in load.operations}
    return of.get("PutItem") or of.get("BatchWriteItem") or of.get("TransactWriteItems") or _USUAL_SIZES


def _places(classes: Sequence[PartitionClass]) -> Iterator[Place]:
    first = 0
    for each in classes:
        for rank in range(first, first + each.partitions):
            for sort in range(each.items):
                yield Place(rank, sort)
        first += each.partitions


def _keys_in(execute: Execute, items: Items, rank: int) -> Iterator[dict[str, Any]]:
    """The keys of the items in one partition."""
    names = {f"#k{number}": name for number, name in enumerate(items.shape.keys.names)}
    request: dict[str, Any] = {
        "TableName": items.shape.name,
        "KeyConditionExpression": "#k0 = :partition",
        "ProjectionExpression": ", ".join(names),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {":partition": items.keys.partition(rank)},
        "ConsistentRead": True,
    }
    while True:
        page = execute("Query", request)
        yield from page["Items"]
        if "LastEvaluatedKey" not in page:
            return
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _written(execute: Execute, table: str, entries: list[dict[str, Any]]) -> int:
    """Write a batch, and again what was left of it."""
    left, pause = entries, _FIRST_PAUSE_SECONDS
    for _ in range(_TRIES):
        left = (
            execute("BatchWriteItem", {"RequestItems": {table: left}})
            .get("UnprocessedItems", {})
            .get(table, [])
        )
        if not left:
            return len(entries)
        time.sleep(pause)
        pause *= 2
    raise Unavailable(
        f"table {table}: {len(left)} of {len(entries)} writes were not taken in {_TRIES} tries; give the "
        "table more capacity, or the load fewer items"
    )


def _batched(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while some := list(islice(iterator, size)):
        yield some


def _in_threads(act: Callable[[T], int], parts: Iterator[T], threads: int) -> Iterator[int]:
    """What comes of acting on each part; parts are made when somebody is free."""
    taking = threading.Lock()

    def work() -> int:
        done = 0
        while True:
            with taking:
                part = next(parts, None)
            if part is None:
                return done
            done += act(part)

    with ThreadPoolExecutor(threads, thread_name_prefix="dualstore-load") as pool:
        for each in [pool.submit(work) for _ in range(threads)]:
            yield each.result()
