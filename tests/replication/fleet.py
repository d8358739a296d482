"""A fleet: several simulated processes, each with its agent, router and repair, over the same two databases.

Everything that decides is the library's own code; only the databases, the network, the clocks and the flags
are simulated. One table, one key: histories are dense.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from greenlet import getcurrent

from dualstore.control import ControlRecord, Phase
from dualstore.errors import DualStoreError
from dualstore.flags import Requested
from dualstore.items import Item, without_stamps
from dualstore.operations import GetItem, PutItem
from dualstore.replication.agent import Agent
from dualstore.replication.carrier import Carrier
from dualstore.replication.control import DynamoControl
from dualstore.replication.health import MirrorHealth
from dualstore.replication.journal import Journal
from dualstore.replication.mirroring import Mirroring, ReplicationTimes
from dualstore.replication.repair import Repair
from dualstore.replication.sender import Sender, SenderOptions
from dualstore.replication.settle import settle
from dualstore.router import Router
from dualstore.stages import Dials, Side, Stage
from dualstore.store.obstacles import Witnesses, obstacles
from dualstore.stores.dynamo_description import TableDescription
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory.authority import MemoryAuthority
from dualstore.stores.memory.control import MemoryControl
from dualstore.stores.memory.outbox import MemoryOutbox
from replication.histories import (
    BOOKKEEPING,
    KEY,
    RETRIES,
    SHAPE,
    TABLE,
    UNTOLD,
    StreamedStore,
    mirror_lost,
    name_of,
    read_timeout,
)
from replication.ledger import Fate, Ledger, Write
from replication.simulation import (
    Choose,
    CooperativeLock,
    Faults,
    Process,
    Scheduler,
    SimulatedClock,
    Stepped,
    SteppedMirror,
    SteppedStore,
    Wire,
    deliver_late,
)

UNREACHABLE = (BotoCoreError, ClientError, DualStoreError)
_CONTROL_READS = frozenset({"read_all", "processes"})
# An agent polls every 0.4 s; a busy machine lets it wait, sometimes for longer than a grant.
_POLLS_SECONDS = (0.4,) * 12 + (1.5, 4.0, 11.5)
_THOUGHTS_SECONDS = (0.0, 0.0, 0.1, 0.4, 1.2, 3.0)
_ASKED_AT_MOST = 2


@dataclass
class SimulatedFlags:
    """Flags that an actor moves."""

    asked: Requested = field(default_factory=Requested)

    def requested(self, table: str) -> Requested:
        return self.asked

    def close(self) -> None: ...


@dataclass
class Fleet:
    """Two databases, a network, and processes that serve the table.

    Attributes:
        choose: makes every choice.
        dynamo_faults, postgres_faults: what goes wrong on the way to each database.
        stage, dials: where the table is when the history begins; it is loaded and verified.
        crashes, pauses: how many the chooser may order.
        streamed: whether a relay follows the stream.
        sending: how the outbox is sent.
    """

    choose: Choose
    dynamo_faults: Faults = field(default_factory=Faults)
    postgres_faults: Faults = field(default_factory=Faults)
    stage: Stage = Stage.SHADOW
    dials: Dials = field(default_factory=lambda: Dials(postgres_read_percent=100.0))
    crashes: int = 0
    pauses: int = 0
    streamed: bool = False
    sending: SenderOptions = field(default_factory=SenderOptions)
    ledger: Ledger = field(default_factory=Ledger)
    flags: SimulatedFlags = field(default_factory=SimulatedFlags)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.choose)
        self.dynamo = StreamedStore(self.choose, self._now)
        self.bookkeeping = MemoryStore({"dualstore": BOOKKEEPING}, monotonic=self._now)
        self.outbox = MemoryOutbox({"items": SHAPE}, monotonic=self._now)
        self.postgres = MemoryAuthority({"items": SHAPE}, self.outbox, monotonic=self._now)
        self.postgres_control = MemoryControl(self.postgres)
        self.relayed = 0
        self.stuck = False
        self.locks: dict[tuple[str, bytes], Any] = {}
        self.members: list[Member] = []
        self.in_flight: dict[Any, Write] = {}
        self._values = 0
        self._install()

    def _now(self) -> float:
        return self.scheduler.now

    def _install(self) -> None:
        record = ControlRecord(
            "items", stage=self.stage, dials=self.dials, loaded=True, verified=True, epoch=1, generation=1
        )
        copy = replace(record, phase=Phase.MOVED)
        decides_in_postgres = record.authority is Side.POSTGRES
        DynamoControl(self.bookkeeping, "dualstore").install(copy if decides_in_postgres else record)
        self.postgres_control.install(record if decides_in_postgres else copy)

    def member(
        self, name: str, *, mortal: bool = False, reliable: bool = False, polls: Sequence[float] = ()
    ) -> "Member":
        """Another process, with its agent at work."""
        member = Member(self, name, mortal=mortal, reliable=reliable, polls=polls or _POLLS_SECONDS)
        self.members.append(member)
        return member

    def rogue(self) -> None:
        """Somebody puts an item to DynamoDB around dualstore; it stands where DynamoDB is the authority."""
        write = self.ledger.begin(self.new_value("rogue"))
        self.scheduler.sleep((0.0, 1.0, 3.0)[self.choose(3)])
        write.late = self.record().authority is Side.POSTGRES or self.record().phase is not Phase.OPEN
        self.dynamo.execute(PutItem({"TableName": "items", "Item": {**KEY, "v": {"S": write.value}}}))
        self.ledger.end(write, Fate.UNKNOWN if write.late else Fate.ACKNOWLEDGED)

    def operator(self, *stages: Stage) -> Callable[[], None]:
        """Asks for one stage after the other, and again where a move was given up."""

        def act() -> None:
            for stage in stages:
                self.scheduler.sleep((0.0, 0.5, 3.0)[self.choose(3)])
                for _ in range(_ASKED_AT_MOST):
                    self._ask(stage)
                    if self.record().stage is stage:
                        break
                    self._ask(self.record().stage)

        return act

    def _ask(self, stage: Stage) -> None:
        self.flags.asked = Requested(stage=stage)
        for _ in range(16):
            self.scheduler.sleep(0.5)
            if (now := self.record()).stage is stage and now.phase is Phase.OPEN and now.target is None:
                return

    def new_value(self, kind: str) -> str:
        self._values += 1
        return f"{kind} {self._values}"

    def run(self) -> None:
        """Run all actors, then what a quiet system does: repair, and relay the last records."""
        scheduler = self.scheduler
        scheduler.crashes, scheduler.pauses = self.crashes, self.pauses
        scheduler.spawn("network", lambda: deliver_late(scheduler), background=True)
        for member in self.members:
            member.spawn("agent", member.keep_fresh, background=True)
        scheduler.run()
        self.calm()

    def calm(self) -> None:
        """What a process that starts now does, and goes on to do until nothing is left."""
        self.scheduler.sleep(60)
        try:
            last = self.member("last")
        except UNREACHABLE:  # both records decide, or none does
            self.stuck = True
            return
        for _ in range(20):
            last.refresh()
            if last.is_open:
                break
            self.scheduler.sleep(2)
        for member in self.members:  # what a process alone knows, it records once it can
            if not member.process.crashed:
                member.refresh()
                member.repair_once()
        if any(member.process.crashed for member in self.members):
            self.verify()
        for _ in range(30):
            if self.streamed:
                last.relay_once(len(self.dynamo.stream))
            last.send_once()
            drained = not self.streamed or self.relayed == len(self.dynamo.stream)
            if drained and not self.outbox.depth("items").entries:
                return
            self.scheduler.sleep(120)
        self.stuck = True

    def verify(self) -> None:
        """What is done about a suspect table."""
        record = self.record()
        if record.authority is Side.DYNAMODB:
            settle(self.postgres, self.dynamo, SHAPE, KEY, epoch=record.epoch)
        else:
            self.outbox.enqueue("items", [KEY], epoch=record.epoch, reason="differs")

    def record(self) -> ControlRecord:
        """The record that decides, read by nobody in particular."""
        mine = DynamoControl(self.bookkeeping, "dualstore").read_all()["items"]
        return mine if mine.decides else self.postgres_control.read_all()["items"]

    # What must hold

    def sides(self) -> tuple[Item | None, Item | None]:
        """The key's item on DynamoDB and on PostgreSQL, without stamps."""
        read = GetItem({"TableName": "items", "Key": KEY, "ConsistentRead": True})
        dynamo, postgres = (
            None if (item := store.execute(read).get("Item")) is None else without_stamps(item)
            for store in (self.dynamo, self.postgres)
        )
        return dynamo, postgres

    def violations(self) -> list[str]:
        """The invariants that do not hold."""
        dynamo, postgres = self.sides()
        broken = ["stuck"] * (self.stuck or not self.record().decides)
        item = dynamo if self.record().authority is Side.DYNAMODB else postgres
        if not self.ledger.explains(None if item is None else item["v"]["S"]):
            broken.append("I1")
        if dynamo != postgres:
            broken.append("I2")
        if self.ledger.unexplained_read() is not None:
            broken.append("I6")
        return broken


class Member:
    """One process of the fleet.

    Args:
        fleet: whose databases it uses.
        name: for people.
        mortal: whether it may crash.
        reliable: whether its network is without faults.
        polls: the pauses between two looks of its agent, in seconds.
    """

    def __init__(
        self, fleet: Fleet, name: str, *, mortal: bool, reliable: bool, polls: Sequence[float]
    ) -> None:
        scheduler = fleet.scheduler
        self._polls = polls
        self.fleet = fleet
        # Clocks of two processes have nothing in common.
        offset = 300.0 * len(fleet.members)
        self.process = Process(name, clock_offset=offset, crashable=mortal, pausable=True)
        self.clock = SimulatedClock(scheduler, offset)
        self._dynamo_wire = Wire(scheduler, Faults() if reliable else fleet.dynamo_faults, read_timeout)
        self._postgres_wire = Wire(scheduler, Faults() if reliable else fleet.postgres_faults, mirror_lost)
        bookkeeping = SteppedStore(fleet.bookkeeping, self._dynamo_wire, attempts=3)
        self.mirror = SteppedMirror(
            fleet.postgres, self._postgres_wire, name_of, locks=fleet.locks, on_late=self._note_late
        )
        self.homes: dict[Side, Any] = {
            Side.DYNAMODB: DynamoControl(bookkeeping, "dualstore"),
            Side.POSTGRES: Stepped(fleet.postgres_control, self._postgres_wire, reads=_CONTROL_READS),
        }
        self.agent = Agent(self.homes, fleet.flags, clock=self.clock)
        self.agent._refreshing = {side: CooperativeLock(scheduler) for side in Side}
        self.mirroring = Mirroring(
            SteppedStore(fleet.dynamo, self._dynamo_wire, on_late=self._note_late),
            self.mirror,
            self.agent,
            Journal(bookkeeping, "dualstore"),
            MirrorHealth(lambda: self.mirror.dirty_keys("items", limit=1), clock=self.clock),
            Stepped(fleet.outbox, self._postgres_wire, reads=frozenset({"pending", "depth"})),
            telemetry=UNTOLD,
            times=ReplicationTimes(retries=RETRIES),
        )
        self.router = Router(
            self.mirroring, self.mirror, {"items": TABLE}, telemetry=UNTOLD, observe=lambda *_: None
        )
        self.repair = Repair(self.mirroring, self.homes[Side.DYNAMODB])
        self.carrier = Carrier(
            dynamodb=self.mirroring.authority,
            postgres=self.mirror,
            outbox=self.mirroring.outbox,
            view=self.agent.view,
            suspect=lambda *_: None,
            telemetry=UNTOLD,
            clock=self.clock,
        )
        self._sent: dict[str, Any] = {}
        self.sender = Sender(
            self.mirroring.outbox,
            self.mirror,
            SteppedStore(fleet.dynamo, self._dynamo_wire),
            self._sent,
            epoch_of=lambda table: self.agent.view(table).record.epoch,
            clock=self.clock,
            telemetry=UNTOLD,
            options=fleet.sending,
        )
        self.agent.serve("items", logical="items", passage=FleetPassage(self))

    def reaches(self, *, dynamo: Faults, postgres: Faults) -> None:
        """What goes wrong on this member's own way to each database."""
        self._dynamo_wire.faults, self._postgres_wire.faults = dynamo, postgres

    def spawn(self, name: str, act: Callable[[], Any], *, background: bool = False) -> None:
        """Let one of the process's threads do something."""
        self.fleet.scheduler.spawn(
            f"{self.process.name}/{name}", act, process=self.process, background=background
        )

    # What its threads do

    def keep_fresh(self) -> None:
        """The agent's thread, at the pace that the machine allows it."""
        scheduler = self.fleet.scheduler
        while scheduler.busy:
            scheduler.sleep(self._polls[scheduler.choose(len(self._polls))])
            self.refresh()

    def refresh(self) -> None:
        """One round of the agent."""
        try:
            self.agent.tick()
        except UNREACHABLE:
            return

    @property
    def is_open(self) -> bool:
        return self.agent.view("items").record.phase is Phase.OPEN

    def relaying(self) -> None:
        """`dualstore relay`: brings the other side after what the stream tells."""
        fleet = self.fleet
        while fleet.scheduler.busy:
            fleet.scheduler.sleep((0.1, 0.4, 2.0)[fleet.choose(3)])
            self.relay_once(fleet.relayed + 1 if fleet.choose(2) else len(fleet.dynamo.stream))

    def relay_once(self, reached: int) -> None:
        """Deal with records up to one, and write the checkpoint: some may come twice."""
        first = self.fleet.relayed
        records = self.fleet.dynamo.stream[first:reached]
        if not records:
            return
        try:
            carried = self.carrier.carry(TABLE, records)
        except UNREACHABLE:
            return
        self.fleet.scheduler.step()
        self.fleet.relayed = max(self.fleet.relayed, first + carried.done)

    def sending(self) -> None:
        """`dualstore relay`, too: works off the outbox."""
        scheduler = self.fleet.scheduler
        while scheduler.busy:
            scheduler.sleep((0.1, 0.4, 2.0)[scheduler.choose(3)])
            self.send_once()

    def send_once(self) -> None:
        """One look at each lane that can be had."""
        if self.agent.view("items").record.authority is Side.POSTGRES:
            self._sent["items"] = TABLE
        else:
            self._sent.clear()
            return
        try:
            self.sender.work("items")
        except UNREACHABLE:
            return

    def repair_once(self) -> None:
        """What the maintenance thread does every second."""
        try:
            self.mirroring.health.probe()
            self.repair.run(TABLE)
        except UNREACHABLE:
            return

    def repairing(self) -> None:
        """The maintenance thread."""
        scheduler = self.fleet.scheduler
        while scheduler.busy:
            scheduler.sleep((0.3, 1.0, 3.0)[scheduler.choose(3)])
            self.repair_once()

    def verifying(self) -> None:
        """`dualstore verify --repair` on a schedule: settles what differs, clears what was suspect."""
        scheduler = self.fleet.scheduler
        while scheduler.busy:
            scheduler.sleep((1.0, 3.0)[scheduler.choose(2)])
            record = self.agent.view("items").record
            if record.authority is Side.POSTGRES or record.verified or record.phase is not Phase.OPEN:
                continue
            try:
                settle(self.mirror, self.mirroring.authority, SHAPE, KEY, epoch=record.epoch)
                self.homes[Side.DYNAMODB].change(record, suspects=frozenset(), verified=True)
            except UNREACHABLE:
                continue

    def put(self, *, condition: str | None = None) -> None:
        value = self.fleet.new_value("put")
        self._write("PutItem", {"Item": {**KEY, "v": {"S": value}}}, value, condition)

    def toggle(self) -> None:
        """Writes one of two items again and again: equal content, another stamp."""
        value = ("even", "odd")[self.fleet.choose(2)]
        self._write("PutItem", {"Item": {**KEY, "v": {"S": value}}}, value, None)

    def create(self) -> None:
        self.put(condition="attribute_not_exists(id)")

    def set(self) -> None:
        value = self.fleet.new_value("set")
        request = {
            "Key": KEY,
            "UpdateExpression": "SET v = :v",
            "ExpressionAttributeValues": {":v": {"S": value}},
        }
        self._write("UpdateItem", request, value, None)

    def delete(self) -> None:
        self._write("DeleteItem", {"Key": KEY}, None, None)

    def transact(self) -> None:
        value = self.fleet.new_value("transaction")
        put = {"Put": {"TableName": "items", "Item": {**KEY, "v": {"S": value}}}}
        self._carry_out("TransactWriteItems", {"TransactItems": [put]}, value)

    def writer(self, writes: int, kinds: Sequence[Callable[[], None]] = ()) -> Callable[[], None]:
        """A thread that writes, thinking between its writes."""
        chosen = kinds or (self.put, self.set, self.delete, self.create, self.transact)

        def act() -> None:
            for _ in range(writes):
                chosen[self.fleet.choose(len(chosen))]()
                self.think()

        return act

    def think(self) -> None:
        """What an application does between two calls takes time."""
        self.clock.sleep(_THOUGHTS_SECONDS[self.fleet.choose(len(_THOUGHTS_SECONDS))])

    def reader(self, reads: int) -> Callable[[], None]:
        """A thread that reads."""

        def act() -> None:
            for _ in range(reads):
                self.read()
                self.think()

        return act

    def read(self) -> None:
        """Read the key, consistently wherever DynamoDB answers."""
        began = self.fleet.ledger.place()
        try:
            answer = self.router.execute(
                "GetItem", {"TableName": "items", "Key": KEY, "ConsistentRead": True}
            )
        except UNREACHABLE:
            return
        item = answer.get("Item")
        self.fleet.ledger.read(None if item is None else item["v"]["S"], began, self.process.name)

    def _write(self, name: str, request: dict[str, Any], value: str | None, condition: str | None) -> None:
        if condition is not None:
            request = {**request, "ConditionExpression": condition}
        self._carry_out(name, {"TableName": "items", **request}, value)

    def _carry_out(self, name: str, request: dict[str, Any], value: str | None) -> None:
        ledger = self.fleet.ledger
        write = self.fleet.in_flight[getcurrent()] = ledger.begin(value)
        fate = Fate.ACKNOWLEDGED
        try:
            self.router.execute(name, request)
        except ClientError as error:
            unknown = error.response["Error"]["Code"] == "InternalServerError"
            fate = Fate.UNKNOWN if unknown else Fate.REFUSED
        except BotoCoreError:
            fate = Fate.UNKNOWN
        finally:
            del self.fleet.in_flight[getcurrent()]
        ledger.end(write, fate)

    def _note_late(self) -> None:
        if getcurrent() in self.fleet.in_flight:
            self.fleet.in_flight[getcurrent()].late = True


class FleetPassage:
    """What stands in the way of a stage, asked over the member's own network."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def obstacles(self, record: ControlRecord, target: Stage) -> Sequence[str]:
        return obstacles(
            record,
            target,
            Witnesses(
                description=lambda: _DESCRIPTION,
                journal_keys=lambda: int(self.journal()),
                relay_within=lambda _: True,
                dirty_keys=lambda: int(self.dirty()),
                outbox=lambda: self._member.mirroring.outbox.depth("items"),
                triggers_installed=lambda: True,
                hazards=lambda: (),
            ),
        )

    def undrained(self, record: ControlRecord) -> str | None:
        if record.authority is Side.POSTGRES:
            return "the outbox" if self.outbox() else None
        waiting = {"the stream": self.stream, "the journal": self.journal, "dirty keys": self.dirty}
        return next((name for name, waits in waiting.items() if waits()), None)

    def outbox(self) -> bool:
        return bool(self._member.mirroring.outbox.depth("items").entries)

    def stream(self) -> bool:
        fleet = self._member.fleet
        return fleet.relayed < len(fleet.dynamo.stream)

    def journal(self) -> bool:
        return any(self._member.mirroring.journal.entries(SHAPE))

    def dirty(self) -> bool:
        return bool(self._member.mirror.dirty_keys("items", limit=1))


_DESCRIPTION = TableDescription("items", active=True, stream_view="NEW_AND_OLD_IMAGES")
