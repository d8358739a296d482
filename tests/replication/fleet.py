"""A fleet: several simulated processes, each with its agent, router and repair, over the same two databases.

Everything that decides is the library's own code; only the databases, the network, the clocks and the flags
are simulated. One table, one key or a few of one partition: histories are dense.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dualstore.control import ControlRecord, Phase
from dualstore.flags import Requested
from dualstore.items import Item, Key, without_stamps
from dualstore.mapping.expiry import has_expired
from dualstore.operations import DeleteItem, GetItem, PutItem, UpdateItem
from dualstore.replication.expiry import SweepLimits
from dualstore.replication.sender import SenderOptions
from dualstore.stages import Dials, Side, Stage
from dualstore.stores.base import NOTHING
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory.authority import MemoryAuthority
from dualstore.stores.memory.control import MemoryControl
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.stores.memory.streams import MemoryCheckpoints, MemoryStreams
from replication.bulk import MemoryExpiringRows, MemoryRuns
from replication.failing_over import NotingAuthority
from replication.histories import BOOKKEEPING, KEYS, SHAPE, StreamedStore
from replication.ledger import Fate, Ledger, Write
from replication.member import UNREACHABLE, Member
from replication.simulation import Choose, Scheduler
from replication.wires import Faults, deliver_late

TTL = "ttl"
_BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
# An agent polls every 0.4 s; a busy machine lets it wait, sometimes for longer than a grant.
_POLLS_SECONDS = (0.4,) * 12 + (1.5, 4.0, 11.5)
_ASKED_AT_MOST = 2
_SWEEPING = SweepLimits(pause=timedelta(seconds=3), mirror_pause=timedelta(seconds=4))


@dataclass
class SimulatedFlags:
    """Flags that an actor moves."""

    asked: Requested = field(default_factory=Requested)

    def requested(self, table: str) -> Requested:
        return self.asked

    def close(self) -> None: ...


class DynamoControlInMemory(MemoryControl):
    """DynamoDB's control records and register. tests/contract holds both kinds of home equal.

    The real one took half of the time of a fleet, for beats of the register.
    """

    side = Side.DYNAMODB

    def take_over(self, seen: ControlRecord, wanted: ControlRecord) -> bool:
        """See `DynamoControl.take_over`."""
        known = self._records.get(seen.table)
        if known is None or known.decides or known.generation != seen.generation:
            return False
        self._put(wanted)
        return True


@dataclass
class Fleet:
    """Two databases, a network, and processes that serve the table.

    Attributes:
        choose: makes every choice.
        dynamo_faults, postgres_faults: what goes wrong on the way to each database.
        stage, dials: where the table is when the history begins.
        loaded: whether it is loaded and verified then.
        crashes, pauses: how many the chooser may order.
        streamed: whether a relay follows the stream.
        stream_is_journal: whether that is already noted: the stream is the journal.
        expiring: whether items may have a time to live.
        keys: those that are written.
        sending: how the outbox is sent.
        sweeping: how often expired rows are looked for.
        failing_over: whether PostgreSQL may be lost; a thread of each process looks out for that.
    """

    choose: Choose
    dynamo_faults: Faults = field(default_factory=Faults)
    postgres_faults: Faults = field(default_factory=Faults)
    stage: Stage = Stage.SHADOW
    dials: Dials = field(default_factory=lambda: Dials(postgres_read_percent=100.0))
    loaded: bool = True
    crashes: int = 0
    pauses: int = 0
    streamed: bool = False
    stream_is_journal: bool = False
    expiring: bool = False
    keys: Sequence[Key] = KEYS[:1]
    sending: SenderOptions = field(default_factory=SenderOptions)
    sweeping: SweepLimits = field(default_factory=lambda: _SWEEPING)
    failing_over: bool = False
    flags: SimulatedFlags = field(default_factory=SimulatedFlags)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.choose)
        self.streams = MemoryStreams(clock=self.wall_clock)
        self.checkpoints = MemoryCheckpoints(clock=self.wall_clock)
        self.dynamo = StreamedStore(self.choose, self.now, keys=self.keys, told=self._tell_the_stream)
        self.bookkeeping = MemoryStore({"dualstore": BOOKKEEPING}, monotonic=self.now)
        self.dynamo_control = DynamoControlInMemory(self.bookkeeping)
        self.outbox = MemoryOutbox({"items": SHAPE}, monotonic=self.now)
        authority = NotingAuthority if self.failing_over else MemoryAuthority
        self.postgres = authority({"items": SHAPE}, self.outbox, monotonic=self.now)
        self.postgres_control = MemoryControl(self.postgres)
        self.runs = MemoryRuns(self.now)
        self.expiring_rows = MemoryExpiringRows(self.postgres, self.now, self.expired_at_postgres)
        places = itertools.count(1)
        self.ledgers = [Ledger(places=places) for _ in self.keys]
        self.transactions: dict[str | None, Sequence[Write]] = {}
        self.listings: list[Sequence[str | None]] = []
        self.stuck = False
        self.locks: dict[tuple[str, bytes], Any] = {}
        self.members: list[Member] = []
        self.in_flight: dict[Any, list[Write]] = {}
        self._values = 0
        self._install()

    def now(self) -> float:
        return self.scheduler.now

    def wall_clock(self) -> datetime:
        return _BEGINNING + timedelta(seconds=self.scheduler.now)

    @property
    def ledger(self) -> Ledger:
        """That of the first key."""
        return self.ledgers[0]

    def _install(self) -> None:
        record = ControlRecord(
            "items",
            stage=self.stage,
            dials=self.dials,
            loaded=self.loaded,
            verified=self.loaded,
            streamed=self.stream_is_journal,
            epoch=1,
            generation=1,
        )
        copy = replace(record, phase=Phase.MOVED)
        decides_in_postgres = record.authority is Side.POSTGRES
        self.dynamo_control.install(copy if decides_in_postgres else record)
        self.postgres_control.install(record if decides_in_postgres else copy)
        if self.streamed:
            self._begin_stream()

    def _begin_stream(self) -> None:
        """It has been followed for long when the history begins."""
        self.scheduler.now = -3600.0
        self.streams.enable("items")
        self.scheduler.now = 0.0
        stream = self.streams.stream_of("items")
        assert stream is not None
        self.checkpoints.register("items", stream.arn, stream.shards)
        for lease in self.checkpoints.lease("items", stream.arn, "before", limit=9, duration=timedelta(0)):
            self.checkpoints.mark_caught_up(lease, self.wall_clock())
        self.checkpoints.release("before")

    def has_history(self) -> None:
        """There are items from before that PostgreSQL has never heard of, and one that it has, unstamped."""
        for key, ledger in zip(self.keys[:2], self.ledgers, strict=False):
            write = ledger.begin(self.new_value("history"))
            self.dynamo.execute(PutItem({"TableName": "items", "Item": {**key, "v": {"S": write.value}}}))
            ledger.end(write, Fate.ACKNOWLEDGED)

    def has_left_overs(self) -> None:
        """PostgreSQL holds a row whose item is gone since then, and one whose item has changed."""
        for key in (self.keys[0], self.keys[-1]):
            row = {**key, "v": {"S": "left over"}}
            self.postgres.write_settled("items", key, row, seen=NOTHING, epoch=1)

    def _tell_the_stream(self, key: Key, old: Item | None, new: Item | None, *, expired: bool) -> None:
        stream = self.streams.stream_of("items")
        if stream is not None and stream.enabled:
            self.streams.write(SHAPE, key, new=new, old=old, is_ttl_deletion=expired)

    def member(
        self,
        name: str,
        *,
        mortal: bool = False,
        reliable: bool = False,
        deferring: bool = False,
        polls: Sequence[float] = _POLLS_SECONDS,
    ) -> Member:
        """Another process, with its agent at work."""
        member = Member(self, name, mortal=mortal, reliable=reliable, deferring=deferring, polls=polls)
        self.members.append(member)
        return member

    # Those that go around dualstore

    def rogue(self) -> None:
        """Somebody puts an item to DynamoDB around dualstore; it stands where DynamoDB is the authority."""
        write = self.ledger.begin(self.new_value("rogue"))
        self.scheduler.sleep((0.0, 1.0, 3.0)[self.choose(3)])
        self._go_around(
            PutItem({"TableName": "items", "Item": {**self.keys[0], "v": {"S": write.value}}}), write
        )

    def turncoat(self) -> None:
        """Somebody changes an item around dualstore, and back; its stamp stays as it was."""
        for value in ("white", "black"):
            self.scheduler.sleep((0.0, 0.4, 1.0)[self.choose(3)])
            update = {
                "TableName": "items",
                "Key": self.keys[0],
                "UpdateExpression": "SET v = :v",
                "ExpressionAttributeValues": {":v": {"S": value}},
            }
            self._go_around(UpdateItem(update), self.ledger.begin(value))

    def thief(self) -> None:
        """Somebody deletes an item around dualstore whenever there is one."""
        for _ in range(6):
            self.scheduler.sleep((0.1, 0.4)[self.choose(2)])
            if self.dynamo.item(self.keys[0]) is not None:
                delete = DeleteItem({"TableName": "items", "Key": self.keys[0]})
                self._go_around(delete, self.ledger.begin(None))

    def _go_around(self, operation: PutItem | UpdateItem | DeleteItem, write: Write) -> None:
        record = self.record()
        write.late = record.authority is Side.POSTGRES or record.phase is not Phase.OPEN
        self.dynamo.execute(operation)
        # The docs promise that it arrives on the other side, not when.
        self.ledger.end(write, Fate.UNKNOWN)

    def expire(self) -> None:
        """DynamoDB's own deletion of what has expired, at its leisure."""
        while self.scheduler.busy:
            self.scheduler.sleep((0.5, 2.0, 6.0)[self.choose(3)])
            self.expire_at_dynamo()

    def expire_at_dynamo(self) -> None:
        for key, ledger in zip(self.keys, self.ledgers, strict=True):
            if self._has_expired(self.dynamo.item(key)):
                # While PostgreSQL decides, it is meant where the present item has expired as well.
                decides = self.record().authority is Side.DYNAMODB
                present = self.postgres.state("items", key).item
                write = ledger.begin(None)
                self.dynamo.expire(key)
                ledger.end(write, Fate.UNKNOWN if decides or self._has_expired(present) else Fate.REFUSED)

    def _has_expired(self, item: Item | None) -> bool:
        return item is not None and has_expired(item, TTL, now=self.now())

    def expired_at_postgres(self, key: Key, delete: Callable[[], object]) -> None:
        """The sweeper's deletion of a row of the authority; it is one step."""
        ledger = self.ledgers[self.keys.index(key)]
        due = self._has_expired(self.postgres.state("items", key).item)
        write = ledger.begin(None)
        delete()
        ledger.end(write, Fate.ACKNOWLEDGED if due else Fate.REFUSED)  # what is not due nobody asked for

    def cut_stream(self) -> None:
        """The stream is switched off, what it still held is lost, and it is switched on again."""
        self.scheduler.sleep((0.5, 2.0, 4.0)[self.choose(3)])
        self.streams.disable("items")
        self.streams.trim("items")
        self.scheduler.sleep((0.0, 1.0, 5.0)[self.choose(3)])
        self.streams.enable("items")

    def overtaken(self) -> None:
        """Let others commit between two statements of a transaction."""
        self.scheduler.sleep((0.0, 0.0, 0.4)[self.choose(3)])

    # The operator

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

    # The history, and what a quiet system comes to

    def run(self) -> None:
        """Run all actors, then what a quiet system does: repair, and relay the last records."""
        scheduler = self.scheduler
        scheduler.crashes, scheduler.pauses = self.crashes, self.pauses
        scheduler.spawn("network", lambda: deliver_late(scheduler), background=True)
        for member in self.members:
            member.spawn_agent()
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
        alive = [member for member in self.members if not member.process.crashed]
        for member in alive:  # what a process alone knows, it records once it can
            member.refresh()
            member.repair_once()
        self.scheduler.meanwhile = lambda: _refresh(alive)
        looks = 1 + (len(alive) < len(self.members))  # that a process is dead is seen at a second one
        for _ in range(30):
            self.scheduler.sleep(5)
            looks -= self._come_to_rest(last)
            if not looks:
                return
            self.scheduler.sleep(120)
        self.stuck = True

    def _come_to_rest(self, last: Member) -> bool:
        """One round of everything that goes on by itself; whether nothing is left to do."""
        quiet_since = self.wall_clock() - timedelta(seconds=2)
        last.refresh()
        if not self.record().loaded:
            last.backfill_once()
            return False
        if self.expiring:
            self.expire_at_dynamo()
            last.keep_house()
        if self.streamed:
            last.relay_once()
            if not self.checkpoints.drained_since("items", quiet_since):
                return False
        last.repair_once()
        last.send_once()
        if not self._verified(last):
            return False
        last.send_once()
        return not self.outbox.depth("items").entries and not self.postgres.dirty_keys("items")

    def _verified(self, last: Member) -> bool:
        """What is done about a suspect table; True where nothing need be done any more.

        By the rules a process that died in the middle of a write leaves its table suspect for a verification,
        or for the relay. While PostgreSQL is the authority it owes nothing.
        """
        record = self.record()
        if not record.suspects:
            return True
        last.verify_once()
        return False

    def record(self) -> ControlRecord:
        """The record that decides, read by nobody in particular."""
        mine = self.dynamo_control.read_all()["items"]
        return mine if mine.decides else self.postgres_control.read_all()["items"]

    # What must hold

    def sides(self, key: Key) -> tuple[Item | None, Item | None]:
        """A key's item on DynamoDB and on PostgreSQL, without stamps."""
        read = GetItem({"TableName": "items", "Key": key, "ConsistentRead": True})
        dynamo, postgres = (
            None if (item := store.execute(read).get("Item")) is None else without_stamps(item)
            for store in (self.dynamo, self.postgres)
        )
        return dynamo, postgres

    def violations(self) -> list[str]:
        """The invariants that do not hold."""
        record = self.record()
        broken = {"stuck"} if self.stuck or not record.decides else set()
        for key, ledger in zip(self.keys, self.ledgers, strict=True):
            dynamo, postgres = self.sides(key)
            item = dynamo if record.authority is Side.DYNAMODB else postgres
            if not ledger.explains(None if item is None else item["v"]["S"]):
                broken.add("I1")
            if dynamo != postgres:
                broken.add("I2")
            if ledger.unexplained_read() is not None:
                broken.add("I6")
        if not all(map(self._is_whole, self.listings)):
            broken.add("I6")
        return sorted(broken)

    def _is_whole(self, values: Sequence[str | None]) -> bool:
        """Whether a listing that shows a transaction somewhere shows nothing from before it elsewhere."""
        return all(
            ledger.may_follow(value, write)
            for shown in values
            for ledger, value, write in zip(
                self.ledgers, values, self.transactions.get(shown, ()), strict=False
            )
        )


def _refresh(members: Sequence[Member]) -> None:
    """One round of the agents of some processes that have nothing else to do."""
    for member in members:
        member.refresh()
