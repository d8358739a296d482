"""Processes that share two databases in memory and one stepped clock; each link to a database can break."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from botocore.exceptions import EndpointConnectionError

from dualstore.errors import MirrorUnavailable
from dualstore.flags import StaticFlags
from dualstore.items import Item, KeyAttribute, KeySchema, TableShape
from dualstore.replication.agent import Agent, GrantTimes
from dualstore.replication.authority import RetryPolicy
from dualstore.replication.control import ControlRecord, ControlTable
from dualstore.replication.health import MirrorHealth
from dualstore.replication.journal import Journal
from dualstore.replication.mirroring import Mirroring, ReplicationTimes
from dualstore.replication.registry import Registry
from dualstore.replication.repair import Repair
from dualstore.replication.served import ServedTable
from dualstore.router import Router
from dualstore.stages import Dials, Side, Stage
from dualstore.stores.memory import MemoryStore
from dualstore.telemetry import Telemetry

TABLE = "items-prod"
SHAPE = TableShape(TABLE, KeySchema(KeyAttribute("id", "S")))
SERVED = ServedTable("items", SHAPE)
BOOKKEEPING = TableShape("dualstore", KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "S")))
READ_GRANT, WRITE_GRANT = 1.0, 10.0
TIMES = GrantTimes(read=timedelta(seconds=READ_GRANT), write=timedelta(seconds=WRITE_GRANT))
AT_ONCE = ReplicationTimes(retries=RetryPolicy(attempts=3, first_wait=timedelta(), longest_wait=timedelta()))
READABLE = {"stage": Stage.DUALWRITE, "loaded": True, "dials": Dials(postgres_read_percent=100.0)}
"""A record whose mirror answers every read."""


@dataclass
class SteppedClock:
    """Stands still but for `sleep`; what is due on the way is done then."""

    time: float = 1000.0
    slept: list[float] = field(default_factory=list)
    _due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        end = self.time + seconds
        while due := [entry for entry in self._due if entry[0] <= end]:
            first = min(due, key=lambda entry: entry[0])
            self._due.remove(first)
            self.time = max(self.time, first[0])
            first[1]()
        self.time = max(self.time, end)

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self._due.append((self.time + seconds, act))


class Link:
    """One process's way to a store: may be down, and lets others act before a call goes out."""

    def __init__(self, store: MemoryStore, failure: Exception) -> None:
        self.store = store
        self.side = store.side
        self.failure = failure
        self.down = False
        self.calls: list[str] = []
        self.before: Callable[[str, tuple[Any, ...]], None] = lambda *_: None

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            self.before(name, args)
            if self.down:
                raise self.failure
            return getattr(self.store, name)(*args, **options)

        return call


@dataclass
class World:
    """The two databases."""

    clock: SteppedClock = field(default_factory=SteppedClock)
    authority: MemoryStore = field(default_factory=lambda: MemoryStore({TABLE: SHAPE}))
    mirror: MemoryStore = field(default_factory=lambda: MemoryStore({TABLE: SHAPE}, side=Side.POSTGRES))
    bookkeeping: MemoryStore = field(default_factory=lambda: MemoryStore({"dualstore": BOOKKEEPING}))

    @property
    def control(self) -> ControlTable:
        return ControlTable(self.bookkeeping, "dualstore")

    @property
    def record(self) -> ControlRecord:
        return self.control.read_all()[TABLE]

    def decide(self, **changes: Any) -> ControlRecord:
        decided = self.control.change(self.record, **changes)
        assert decided is not None
        return decided

    def process(self, **options: Any) -> "Process":
        process = Process(self, **options)
        process.agent.serve(TABLE, logical="items")
        return process


class Process:
    """What a `DualStore` puts together, without its threads: each test says who acts when."""

    def __init__(self, world: World) -> None:
        self.world = world
        unreachable = EndpointConnectionError(endpoint_url="simulated")
        self.authority = Link(world.authority, unreachable)
        self.bookkeeping = Link(world.bookkeeping, unreachable)
        self.mirror = Link(world.mirror, MirrorUnavailable("simulated"))
        self.flags = StaticFlags()
        self.telemetry = Telemetry()
        self.control = ControlTable(self.bookkeeping, "dualstore")
        self.registry = Registry(self.bookkeeping, "dualstore", clock=world.clock)
        self.agent = Agent(self.control, self.registry, self.flags, times=TIMES, clock=world.clock)
        self.journal = Journal(self.bookkeeping, "dualstore")
        self.health = MirrorHealth(lambda: self.mirror.dirty_keys(TABLE, limit=1), clock=world.clock)
        self.mirroring = Mirroring(
            self.authority,
            self.mirror,
            self.agent,
            self.journal,
            self.health,
            telemetry=self.telemetry,
            times=AT_ONCE,
        )
        self.observed: list[Side] = []
        self.router = Router(
            self.mirroring,
            {TABLE: SERVED},
            telemetry=self.telemetry,
            observe=lambda table, operation, side, answer: self.observed.append(side),
        )
        self._repair = Repair(self.mirroring, self.control)

    def put(self, value: str, *, key: str = "a", **options: Any) -> dict[str, Any]:
        item = {"id": {"S": key}, "v": {"S": value}}
        return self.router.execute("PutItem", {"TableName": TABLE, "Item": item, **options})

    def get(self, key: str = "a") -> str | None:
        response = self.router.execute("GetItem", {"TableName": TABLE, "Key": {"id": {"S": key}}})
        return response["Item"]["v"]["S"] if "Item" in response else None

    def repair(self) -> Any:
        self.health.probe()
        self.agent.refresh()
        return self._repair.run(SERVED)

    def journalled(self) -> int:
        return sum(len(entries) for entries in self.journal.entries(SHAPE))


def stored(store: MemoryStore, key: str = "a") -> Item | None:
    """An item as a store holds it."""
    return store.state(TABLE, {"id": {"S": key}}).item
