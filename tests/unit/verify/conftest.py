"""Both sides in memory, and a verification of them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

import pytest

from dualstore.items import Item, Key, KeyAttribute, KeySchema, TableShape, key_bytes
from dualstore.operations import GetItem, PutItem
from dualstore.stages import Side
from dualstore.stores.base import Mirror
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres_runs import Run, RunState
from dualstore.verify import Verify

SHAPE = TableShape("orders-prod", KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N")))


class MemorySeenKeys:
    """Seen keys as a set, beside a mirror of any kind; for tables that fit in memory."""

    def __init__(self, mirror: Mirror, shape: TableShape) -> None:
        self._mirror = mirror
        self._shape = shape
        self._seen: set[bytes] = set()

    def add(self, keys: Sequence[Key]) -> None:
        self._seen |= {key_bytes(self._shape.keys, key) for key in keys}

    def row_count(self) -> int:
        return sum(map(len, self._mirror.all_items(self._shape.name)))

    def unseen(self) -> Iterator[Sequence[Key]]:
        for items in self._mirror.all_items(self._shape.name):
            keys = [self._shape.keys.key_of(item) for item in items]
            yield [key for key in keys if key_bytes(self._shape.keys, key) not in self._seen]


class MemoryLedger:
    """Runs in a dictionary."""

    def __init__(self):
        self.ended = {}

    def check(self):
        pass

    def start(self, kind, table, parameters):
        return Run(uuid4(), kind, table, RunState.RUNNING, parameters)

    def finish(self, run, state, result):
        self.ended[run.id] = (state, result)


@dataclass
class Sides:
    """Both sides, in memory."""

    dynamodb: MemoryStore = field(default_factory=lambda: MemoryStore({SHAPE.name: SHAPE}))
    postgres: MemoryStore = field(
        default_factory=lambda: MemoryStore({SHAPE.name: SHAPE}, side=Side.POSTGRES)
    )
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    shape: TableShape = SHAPE

    def put(self, item: Item, *, postgres: Item | None) -> None:
        """Put an item on DynamoDB, and another one (or none) in its place on PostgreSQL."""
        self.dynamodb.execute(PutItem({"TableName": SHAPE.name, "Item": item}))
        self.mirror(item, postgres)

    def mirror(self, key_of: Item, image: Item | None) -> None:
        key = SHAPE.keys.key_of(key_of)
        seen = self.postgres.state(SHAPE.name, key).revision
        assert self.postgres.write_settled(SHAPE.name, key, image, seen=seen, epoch=0)

    def settle(self, key: Key) -> None:
        image = self.dynamodb.execute(_get(key)).get("Item")
        self.mirror(key, image)

    def settle_all(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.settle(key)

    def verify(self, **options) -> Verify:
        @contextmanager
        def seen():
            yield MemorySeenKeys(self.postgres, SHAPE)

        options = {"pause": timedelta(0), "dynamodb": self.dynamodb} | options
        return Verify(shape=SHAPE, postgres=self.postgres, seen=seen, runs=self.ledger, **options)


def _get(key):
    return GetItem({"TableName": SHAPE.name, "Key": key, "ConsistentRead": True})


@pytest.fixture
def sides() -> Sides:
    """Two empty sides of one table."""
    return Sides()
