"""Processes that share two databases in memory and one stepped clock; each link to a database can break."""

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from dualstore.control import ControlRecord, Phase
from dualstore.errors import DualStoreError, MirrorUnavailable, Unavailable
from dualstore.flags import StaticFlags
from dualstore.items import PREDECESSOR, Item, KeyAttribute, KeySchema, TableShape
from dualstore.replication.agent import Agent, GrantTimes
from dualstore.replication.authority import RetryPolicy
from dualstore.replication.control import DynamoControl
from dualstore.replication.failover_notes import FailoverNotes
from dualstore.replication.health import MirrorHealth
from dualstore.replication.journal import Journal
from dualstore.replication.mirroring import Mirroring, ReplicationTimes
from dualstore.replication.repair import Repair
from dualstore.replication.sender import Sender, SenderOptions
from dualstore.replication.served import ServedTable
from dualstore.router import Router
from dualstore.stages import Dials, Side, Stage
from dualstore.store.relaying import MirroredOut
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory.authority import MemoryAuthority
from dualstore.stores.memory.control import MemoryControl
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.stores.memory.streams import MemoryCheckpoints
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
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


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

    def every(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something again and again, from a while after now on."""

        def again() -> None:
            act()
            self.after(seconds, again)

        self.after(seconds, again)


class Killed(BaseException):
    """The process ends at this moment."""


class Link:
    """One process's way to a store: may be down, and lets others act before a call goes out."""

    def __init__(self, store: Any, failure: Exception) -> None:
        self.store = store
        self.side: Side = getattr(store, "side", Side.POSTGRES)
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


class Drained:
    """A `Passage` as it is for tables in memory: what stands in the way is what a test says.

    Args:
        process: whose way to both databases is used.
    """

    def __init__(self, process: "Process") -> None:
        self._process = process
        self.found: Sequence[str] = ()
        self.asked_at: list[float] = []

    def obstacles(self, record: ControlRecord, target: Stage) -> Sequence[str]:
        self.asked_at.append(self._process.world.clock.now())
        return self.found

    def undrained(self, record: ControlRecord) -> str | None:
        process = self._process
        if process.mirror.dirty_keys(record.table):
            return "some keys are in doubt"
        if record.authority is Side.DYNAMODB:
            return "some keys wait in the journal" if process.journalled() else None
        return "the outbox is not empty" if process.outbox.depth(record.table).entries else None


@dataclass
class World:
    """The two databases, by what they are while DynamoDB decides: PostgreSQL is the mirror."""

    shapes: Mapping[str, TableShape] = field(default_factory=lambda: {TABLE: SHAPE})
    clock: SteppedClock = field(default_factory=SteppedClock)

    def __post_init__(self) -> None:
        self.authority = MemoryStore(self.shapes)
        self.outbox = MemoryOutbox(self.shapes, monotonic=self.clock.now)
        self.mirror = MemoryAuthority(self.shapes, self.outbox, monotonic=self.clock.now)
        self.bookkeeping = MemoryStore({"dualstore": BOOKKEEPING})
        self.postgres_control = MemoryControl(self.mirror)
        self.checkpoints = MemoryCheckpoints(clock=lambda: _EPOCH + timedelta(seconds=self.clock.now()))

    @property
    def control(self) -> DynamoControl:
        return DynamoControl(self.bookkeeping, "dualstore")

    @property
    def record(self) -> ControlRecord:
        """The record in DynamoDB."""
        return self.control.read_all()[TABLE]

    @property
    def decided(self) -> ControlRecord:
        """The one record that decides."""
        (record,) = self.deciding
        return record

    def is_at(self, stage: Stage) -> bool:
        """Whether a record decides, and for this stage."""
        return [record.stage for record in self.deciding] == [stage]

    @property
    def deciding(self) -> list[ControlRecord]:
        """The records of the table that decide: one, or none while the authority is on its way."""
        found = [home.read_all().get(TABLE) for home in (self.control, self.postgres_control)]
        deciding = [record for record in found if record is not None and record.phase is not Phase.MOVED]
        assert len(deciding) <= 1, "two records decide"
        return deciding

    def value(self, side: Side, key: str = "a") -> str | None:
        """What a side holds."""
        item = stored(self.authority if side is Side.DYNAMODB else self.mirror, key)
        return None if item is None else item["v"]["S"]

    @property
    def agree(self) -> bool:
        """Whether both sides hold the same items, bookkeeping included."""
        theirs, ours = (
            {
                item["id"]["S"]: {name: value for name, value in item.items() if name != PREDECESSOR}
                for item in page
            }
            for store in (self.authority, self.mirror)
            for page in [[item for items in store.all_items(TABLE) for item in items]]
        )
        return theirs == ours

    def decide(self, **changes: Any) -> ControlRecord:
        decided = self.control.change(self.record, **changes)
        assert decided is not None
        return decided

    def process(self, **options: Any) -> "Process":
        process = Process(self, **options)
        process.serve()
        return process


class Process:
    """What a `DualStore` puts together, without its threads: each test says who acts when."""

    def __init__(self, world: World, *, deferring: bool = False, registers: bool = True) -> None:
        self.world = world
        self.dead = False
        self._deferring = deferring
        unreachable = EndpointConnectionError(endpoint_url="simulated")
        self.authority = Link(world.authority, unreachable)
        self.bookkeeping = Link(world.bookkeeping, unreachable)
        self.mirror = Link(world.mirror, MirrorUnavailable("simulated"))
        self.outbox = Link(world.outbox, Unavailable("simulated"))
        self.flags = StaticFlags()
        self.telemetry = Telemetry()
        self.control = DynamoControl(self.bookkeeping, "dualstore")
        self.postgres_control = Link(world.postgres_control, Unavailable("simulated"))
        homes = {Side.DYNAMODB: self.control, Side.POSTGRES: self.postgres_control}
        self.notes = FailoverNotes(self.bookkeeping, "dualstore")
        self.agent = Agent(
            homes, self.flags, times=TIMES, clock=world.clock, registers=registers, notes=self.notes
        )
        self.passage = Drained(self)
        self.registry = self.agent.registries[Side.DYNAMODB]
        self.journal = Journal(self.bookkeeping, "dualstore")
        self.health = MirrorHealth(lambda: self.mirror.dirty_keys(TABLE, limit=1), clock=world.clock)
        self.mirroring = Mirroring(
            self.authority,
            self.mirror,
            self.agent,
            self.journal,
            self.health,
            self.outbox,
            telemetry=self.telemetry,
            times=AT_ONCE,
        )
        self._sender = Sender(
            self.outbox,
            self.mirror,
            self.authority,
            MirroredOut({TABLE: SERVED}, self.agent),
            epoch_of=lambda table: self.agent.view(table).record.epoch,
            granted=self.agent.is_granted,
            clock=world.clock,
            options=SenderOptions(lease=timedelta(seconds=2)),
        )
        self.observed: list[Side] = []
        self.router = Router(
            self.mirroring,
            self.mirror,
            {TABLE: SERVED},
            telemetry=self.telemetry,
            observe=lambda table, operation, side, answer: self.observed.append(side),
        )
        self._repair = Repair(self.mirroring, self.control, world.checkpoints)

    def serve(self) -> None:
        self.agent.serve(TABLE, logical="items", passage=self.passage, deferring=self._deferring)

    def links(self, side: Side) -> tuple[Link, ...]:
        """All ways of this process to a database."""
        if side is Side.DYNAMODB:
            return self.authority, self.bookkeeping
        return self.mirror, self.postgres_control, self.outbox

    def lose(self, *sides: Side, lost: bool = True) -> None:
        """Lose all ways to databases, or find them again."""
        for link in (link for side in sides for link in self.links(side)):
            link.down = lost

    def ask(self, stage: Stage, **wishes: Any) -> None:
        """What the flag owner does, as this process sees it."""
        self.flags.set("items", stage=stage, **wishes)

    def hand_over(self) -> None:
        """Bring DynamoDB after PostgreSQL, as a relay does; only where PostgreSQL is the authority."""
        if TABLE in self._sender._tables:
            self._sender.work(TABLE)

    def round(self) -> None:
        """What the threads of a process and of its relay do once each; failures pass."""
        for act in (self.agent.tick, self.repair, self.hand_over):
            self._try(act)

    def start(self) -> None:
        """Do all that from now on, as time passes."""
        for act, seconds in ((self.agent.tick, 0.25), (self.repair, 1.0), (self.hand_over, 0.5)):
            self.world.clock.every(seconds, partial(self._try, act))

    def _try(self, act: Callable[[], object]) -> None:
        if not self.dead:
            with contextlib.suppress(ClientError, BotoCoreError, DualStoreError, Killed):
                act()

    def at_call(self, call: int, act: Callable[[], None], *, within: Callable[[], bool]) -> None:
        """Do something right before the so-manieth call for bookkeeping that is made within some time."""
        calls = itertools.count()

        def check(*_: object) -> None:
            if self.dead:
                raise Killed
            if within() and next(calls) == call:
                act()

        self.bookkeeping.before = self.postgres_control.before = check

    def die(self) -> None:
        """End, without a word."""
        self.dead = True
        raise Killed

    def put(self, value: str, *, key: str = "a", **options: Any) -> dict[str, Any]:
        item = {"id": {"S": key}, "v": {"S": value}}
        return self.router.execute("PutItem", {"TableName": TABLE, "Item": item, **options})

    def get(self, key: str = "a", **options: Any) -> str | None:
        request = {"TableName": TABLE, "Key": {"id": {"S": key}}, **options}
        response = self.router.execute("GetItem", request)
        return response["Item"]["v"]["S"] if "Item" in response else None

    def repair(self) -> Any:
        self.health.probe()
        self.agent.refresh()
        return self._repair.run(SERVED)

    def journalled(self) -> int:
        return sum(len(entries) for entries in self.journal.entries(SHAPE))


def bring(stage: Stage, *processes: Process) -> None:
    """Take a table to a stage, one after the other, in processes that then ask for nothing any more."""
    world = processes[0].world
    order = list(Stage)
    while (present := order.index(world.decided.stage)) != order.index(stage):
        step = order[present + (1 if present < order.index(stage) else -1)]
        for process in processes:
            process.ask(step)
        for _ in range(40):
            pass_time(world, *processes, seconds=0.5)
        assert world.decided.stage is step
    for process in processes:
        process.flags.set("items", stage=None)
        process.agent.tick()


def pass_time(world: World, *processes: Process, seconds: float, step: float = 0.25) -> None:
    """Let time pass in which the threads of these processes go on."""
    for _ in range(round(seconds / step)):
        world.clock.advance(step)
        for process in processes:
            process.round()


def fallen_silent(record: ControlRecord) -> set[str]:
    """The ids of the processes that make a table suspect."""
    return {name.partition(" (beat ")[0] for name in record.suspects}


def stored(store: MemoryStore, key: str = "a") -> Item | None:
    """An item as a store holds it."""
    return store.state(TABLE, {"id": {"S": key}}).item
