"""One process of a fleet: the library's own parts, put together as `store.assembly` does, and its threads."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from greenlet import getcurrent

from dualstore.control import Phase
from dualstore.errors import DualStoreError
from dualstore.replication.agent import Agent
from dualstore.replication.carrier import Carrier
from dualstore.replication.deferred import Deferred
from dualstore.replication.expiry import Expiry
from dualstore.replication.health import MirrorHealth
from dualstore.replication.journal import Journal
from dualstore.replication.mirroring import Mirroring, ReplicationTimes
from dualstore.replication.relay import Relay, RelayTimes
from dualstore.replication.sender import Sender
from dualstore.router import Router
from dualstore.stages import Side
from dualstore.store.maintenance import Maintenance
from dualstore.store.relaying import MirroredOut, Relaying
from dualstore.store.table import MigratedTable
from replication.bulk import NoDiscrepancies
from replication.doors import Door, FleetPassage
from replication.histories import RETRIES, TABLE, UNTOLD, mirror_lost, name_of, read_timeout
from replication.ledger import Fate, Ledger
from replication.simulation import CooperativeLock, Process, SimulatedClock
from replication.wires import Faults, LookedAtLast, Stepped, SteppedMirror, SteppedStore, Wire

if TYPE_CHECKING:
    from replication.fleet import Fleet

UNREACHABLE = (BotoCoreError, ClientError, DualStoreError)
_CONTROL_READS = frozenset({"read_all", "processes"})
_STREAM_READS = frozenset({"stream_of", "iterator", "page"})
_CHECKPOINT_READS = frozenset({"now", "rows", "drained_since", "rogues"})
_ROW_READS = frozenset({"by_column", "in_overflow", "anywhere"})
_THOUGHTS_SECONDS = (0.0, 0.0, 0.1, 0.4, 1.2, 3.0)
_SECONDS_TO_LIVE = 2
# Between two looks for a failover; more often late than they are.
_LOOKS_SECONDS = (0.4, 0.4, 4.0, 25.0)


class Member:
    """One process of the fleet.

    Args:
        fleet: whose databases it uses.
        name: for people.
        mortal: whether it may crash.
        reliable: whether its network is without faults.
        deferring: whether it mirrors after it has answered.
        polls: the pauses between two looks of its agent, in seconds.
    """

    def __init__(
        self,
        fleet: "Fleet",
        name: str,
        *,
        mortal: bool,
        reliable: bool,
        deferring: bool,
        polls: Sequence[float],
    ) -> None:
        self.fleet = fleet
        self._polls = polls
        # Clocks of two processes have nothing in common.
        offset = 300.0 * len(fleet.members)
        self.process = Process(name, clock_offset=offset, crashable=mortal, pausable=True)
        self.clock = SimulatedClock(fleet.scheduler, offset)
        self._dynamo_wire = Wire(fleet.scheduler, Faults() if reliable else fleet.dynamo_faults, read_timeout)
        self._postgres_wire = Wire(
            fleet.scheduler, Faults() if reliable else fleet.postgres_faults, mirror_lost
        )
        self._assemble()
        self._assemble_relay()
        self.agent.serve("items", logical="items", passage=FleetPassage(self), deferring=deferring)
        if deferring:
            self.mirroring.deferred = Deferred(
                self.mirroring.settle, self.agent.unfinished, workers=1, clock=self.clock
            )

    def _assemble(self) -> None:
        """What every process is made of."""
        fleet = self.fleet
        self.mirror = SteppedMirror(
            fleet.postgres, self._postgres_wire, name_of, locks=fleet.locks, on_late=self._note_late
        )
        self.homes: dict[Side, Any] = {
            Side.DYNAMODB: Stepped(fleet.dynamo_control, self._dynamo_wire, reads=_CONTROL_READS, attempts=3),
            Side.POSTGRES: Stepped(fleet.postgres_control, self._postgres_wire, reads=_CONTROL_READS),
        }
        self.agent = Agent(self.homes, fleet.flags, clock=self.clock, watched=self._watched())
        self.agent._refreshing._locks = {side: CooperativeLock(fleet.scheduler) for side in Side}
        self.mirroring = Mirroring(
            SteppedStore(fleet.dynamo, self._dynamo_wire, on_late=self._note_late, on_lost=self._note_lost),
            self.mirror,
            self.agent,
            Journal(SteppedStore(fleet.bookkeeping, self._dynamo_wire, attempts=3), "dualstore"),
            MirrorHealth(lambda: self.mirror.dirty_keys("items", limit=1), clock=self.clock),
            Stepped(fleet.outbox, self._postgres_wire, reads=frozenset({"pending", "depth"})),
            telemetry=UNTOLD,
            times=ReplicationTimes(retries=RETRIES),
        )
        self.router = Router(
            self.mirroring, self.mirror, {"items": TABLE}, telemetry=UNTOLD, observe=lambda *_: None
        )
        self.checkpoints = Stepped(fleet.checkpoints, self._postgres_wire, reads=_CHECKPOINT_READS)
        self.table = MigratedTable(
            TABLE,
            None,  # type: ignore[arg-type] - for PostgreSQL alone, and so is the engine
            engine=Door(self),  # type: ignore[arg-type]
            mirroring=self.mirroring,
            agent=self.agent,
            checkpoints=self.checkpoints,
            ttl_attribute=lambda: "ttl" if fleet.expiring else None,
            discrepancies=NoDiscrepancies(),  # type: ignore[arg-type] - as the engine
        )
        self.maintenance = Maintenance(
            lambda: [self.table],
            self.mirroring.health,
            UNTOLD,
            upkeep=None,  # type: ignore[arg-type] - its hour does not come
        )

    def _watched(self) -> Any:
        """DynamoDB's records as looks for failovers reach them: always, or nothing is promised."""
        if not self.fleet.failing_over:
            return None
        wire = Wire(self.fleet.scheduler, Faults(), read_timeout)
        return Stepped(self.fleet.dynamo_control, wire, reads=_CONTROL_READS)

    def _assemble_relay(self) -> None:
        """What `dualstore relay` is made of."""
        fleet = self.fleet
        # A request that lies about for as long as a failover takes is not covered (ADR 24).
        database = LookedAtLast(fleet.dynamo) if fleet.failing_over else fleet.dynamo
        dynamo = SteppedStore(database, self._dynamo_wire)
        self.carrier = Carrier(
            dynamodb=self.mirroring.authority,
            postgres=self.mirror,
            outbox=self.mirroring.outbox,
            view=self.agent.view,
            suspect=lambda _, kind, *, once: self.table.suspect(kind, once=once),
            telemetry=UNTOLD,
            clock=self.clock,
        )
        self.relay = Relay(
            streams=Stepped(fleet.streams, self._dynamo_wire, reads=_STREAM_READS),
            checkpoints=self.checkpoints,
            tables=lambda: [TABLE],
            carrier=self.carrier,
            clear_suspects=lambda _, names: self.table.clear(names),
            telemetry=UNTOLD,
            times=RelayTimes(page_records=3, describe=timedelta(seconds=3)),
            clock=self.clock,
            holder=self.process.name,
        )
        self._sent = MirroredOut({"items": TABLE}, self.agent)
        self.sender = Sender(
            self.mirroring.outbox,
            self.mirror,
            dynamo,
            self._sent,
            epoch_of=lambda table: self.agent.view(table).record.epoch,
            granted=self.agent.is_granted,
            clock=self.clock,
            telemetry=UNTOLD,
            options=fleet.sending,
        )
        self.expiry = Expiry(
            Stepped(fleet.expiring_rows, self._postgres_wire, reads=_ROW_READS),
            self.mirroring.authority,
            self.mirroring.settle,
            clock=self.clock,
            limits=fleet.sweeping,
        )
        self.housekeeping = Relaying(
            relay=self.relay,
            sender=self.sender,
            expiry=self.expiry,
            upkeep=None,  # type: ignore[arg-type] - as above
            tables=lambda: [self.table],
        )

    def reaches(self, *, dynamo: Faults, postgres: Faults) -> None:
        """What goes wrong on this member's own way to each database."""
        self._dynamo_wire.faults, self._postgres_wire.faults = dynamo, postgres

    def spawn(self, name: str, act: Callable[[], Any], *, background: bool = False) -> None:
        """Let one of the process's threads do something."""
        self.fleet.scheduler.spawn(
            f"{self.process.name}/{name}", act, process=self.process, background=background
        )

    def spawn_in_background(self, *acts: Callable[[], Any]) -> None:
        """Let threads do something for as long as anybody is busy."""
        for act in acts:
            self.spawn(act.__name__, act, background=True)

    def end_deferring(self) -> None:
        """From now on mirror before callers are answered; what waits is settled all the same."""
        self.agent._known.tables["items"].deferring = False

    # What its threads do

    def _every(self, pauses: Sequence[float], act: Callable[[], Any]) -> None:
        scheduler = self.fleet.scheduler
        while scheduler.busy:
            scheduler.sleep(pauses[scheduler.choose(len(pauses))])
            act()

    def keep_fresh(self) -> None:
        """The agent's thread, at the pace that the machine allows it."""
        self._every(self._polls, self.refresh)

    def spawn_agent(self) -> None:
        """The agent's thread; where a failover is played, all that it has, each at its own pace."""
        if not self.fleet.failing_over:
            self.spawn("agent", self.keep_fresh, background=True)
            return
        agent = self.agent
        acts = [(partial(agent._refreshing.look, side), self._polls) for side in Side]
        acts += [(agent._following.round, self._polls), (agent._refreshing.heed_failovers, _LOOKS_SECONDS)]
        for act, pauses in acts:
            self.spawn("agent", partial(self._every, pauses, partial(_bearing, act)), background=True)

    def relaying(self) -> None:
        """`dualstore relay`: brings the other side after what the stream tells."""
        self._every((0.3, 0.6, 2.0), self.relay_once)

    def sending(self) -> None:
        """`dualstore relay`, too: works off the outbox."""
        self._every((0.1, 0.4, 2.0), self.send_once)

    def keeping_house(self) -> None:
        """`dualstore relay`, too: notes that the stream is followed, sweeps what has expired."""
        self._every((0.5, 2.0, 5.0), self.keep_house)

    def repairing(self) -> None:
        """The maintenance thread."""
        self._every((0.3, 1.0, 3.0), self.repair_once)

    def verifying(self) -> None:
        """`dualstore verify --repair` on a schedule: settles what differs, clears what was suspect."""
        self._every((1.0, 3.0), self._verify_if_needed)

    def _verify_if_needed(self) -> None:
        record = self.agent.view("items").record
        if record.loaded and not record.verified and record.phase is Phase.OPEN:
            self.verify_once()

    def backfilling(self) -> None:
        """`dualstore backfill`, again until it has come to its end."""
        while not self.backfill_once():
            self.clock.sleep(1.0)

    def refresh(self) -> None:
        """One round of the agent."""
        try:
            self.agent.tick()
        except UNREACHABLE:
            return

    @property
    def is_open(self) -> bool:
        return self.agent.view("items").record.phase is Phase.OPEN

    def relay_once(self) -> None:
        """Follow the stream as far as it goes."""
        self.relay.round()

    def keep_house(self) -> None:
        """One round of the upkeep of a relay process."""
        self.housekeeping._try(self.table, self.housekeeping._attend)

    def send_once(self) -> None:
        """One look at each lane that can be had."""
        if "items" in self._sent:
            try:
                self.sender.work("items")
            except UNREACHABLE:
                return

    def repair_once(self) -> None:
        """What the maintenance thread does every second."""
        self.maintenance.round()

    def verify_once(self) -> bool:
        """Compare both sides, settle what differs; whether that proves them equal."""
        try:
            return self.table.verify(repair=True, segments=1, workers=1).proven
        except UNREACHABLE:
            return False

    def settle_once(self) -> None:
        """`dualstore repair` of a key."""
        self.mirroring.settle(TABLE, self.fleet.keys[:1])

    def backfill_once(self) -> bool:
        """Copy the history, or go on with that; whether it is copied."""
        try:
            return self.table.backfill(segments=1, workers=1).succeeded
        except UNREACHABLE:
            return False

    # What its callers ask for

    def put(self, *, condition: str | None = None) -> None:
        value = self.fleet.new_value("put")
        self._write("PutItem", {"v": {"S": value}}, value, condition)

    def put_expiring(self) -> None:
        """Put an item with a time to live."""
        value, until = self.fleet.new_value("expiring"), int(self.fleet.now()) + _SECONDS_TO_LIVE
        self._write("PutItem", {"v": {"S": value}, "ttl": {"N": str(until)}}, value, None)

    def put_black(self) -> None:
        """Put what a turncoat comes back to."""
        self._write("PutItem", {"v": {"S": "black"}}, "black", None)

    def toggle(self) -> None:
        """Writes one of two items again and again: equal content, another stamp."""
        value = ("even", "odd")[self.fleet.choose(2)]
        self._write("PutItem", {"v": {"S": value}}, value, None)

    def create(self) -> None:
        self.put(condition="attribute_not_exists(id)")

    def set(self) -> None:
        value = self.fleet.new_value("set")
        key, ledger = self._any_key()
        request = {
            "TableName": "items",
            "Key": key,
            "UpdateExpression": "SET v = :v",
            "ExpressionAttributeValues": {":v": {"S": value}},
        }
        self._carry_out("UpdateItem", request, [(ledger, value)])

    def delete(self) -> None:
        key, ledger = self._any_key()
        self._carry_out("DeleteItem", {"TableName": "items", "Key": key}, [(ledger, None)])

    def transact(self) -> None:
        """Put the same to every key by one transaction."""
        value = self.fleet.new_value("transaction")
        puts = [
            {"Put": {"TableName": "items", "Item": {**key, "v": {"S": value}}}} for key in self.fleet.keys
        ]
        self._carry_out(
            "TransactWriteItems", {"TransactItems": puts}, [(each, value) for each in self.fleet.ledgers]
        )

    def batch(self) -> None:
        """Put to some keys, delete others, by one batch."""
        value = self.fleet.new_value("batch")
        entries, writes = [], []
        for key, ledger in zip(self.fleet.keys, self.fleet.ledgers, strict=True):
            if deletes := self.fleet.choose(3) == 2:
                entries.append({"DeleteRequest": {"Key": key}})
            else:
                entries.append({"PutRequest": {"Item": {**key, "v": {"S": value}}}})
            writes.append((ledger, None if deletes else value))
        self._carry_out("BatchWriteItem", {"RequestItems": {"items": entries}}, writes)

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

    def reader(self, reads: int, act: Callable[[], None] | None = None) -> Callable[[], None]:
        """A thread that reads."""
        read = act or self.read

        def acting() -> None:
            for _ in range(reads):
                read()
                self.think()

        return acting

    def read(self) -> None:
        """Read a key, consistently wherever DynamoDB answers."""
        key, ledger = self._any_key()
        began = ledger.place()
        request = {"TableName": "items", "Key": key, "ConsistentRead": True}
        try:
            answer = self.router.execute("GetItem", request)
        except UNREACHABLE:
            return
        item = answer.get("Item")
        ledger.read(None if item is None else item["v"]["S"], began, self.process.name)

    def read_batch(self) -> None:
        """Read all keys by one batch, consistently wherever DynamoDB answers."""
        fleet = self.fleet
        began = fleet.ledger.place()
        request = {"items": {"Keys": [*fleet.keys], "ConsistentRead": True}}
        try:
            answer = self.router.execute("BatchGetItem", {"RequestItems": request})
        except UNREACHABLE:
            return
        found = {item["k"]["S"]: item["v"]["S"] for item in answer["Responses"].get("items", ())}
        left_out = answer.get("UnprocessedKeys", {}).get("items", {}).get("Keys", ())
        for key, ledger in zip(fleet.keys, fleet.ledgers, strict=True):
            if key not in left_out:
                ledger.read(found.get(key["k"]["S"]), began, self.process.name)

    def list(self) -> None:
        """Read all keys at once, consistently wherever DynamoDB answers."""
        fleet = self.fleet
        began = fleet.ledger.place()
        request = {
            "TableName": "items",
            "KeyConditionExpression": "id = :id",
            "ExpressionAttributeValues": {":id": fleet.keys[0]["id"]},
            "ConsistentRead": True,
        }
        try:
            answer = self.router.execute("Query", request)
        except UNREACHABLE:
            return
        found = {item["k"]["S"]: item["v"]["S"] for item in answer["Items"]}
        values = [found.get(key["k"]["S"]) for key in fleet.keys]
        fleet.listings.append(values)
        for ledger, value in zip(fleet.ledgers, values, strict=True):
            ledger.read(value, began, self.process.name)

    def _any_key(self) -> tuple[Any, Ledger]:
        fleet = self.fleet
        place = fleet.choose(len(fleet.keys)) if len(fleet.keys) > 1 else 0
        return fleet.keys[place], fleet.ledgers[place]

    def _write(self, name: str, content: dict[str, Any], value: str | None, condition: str | None) -> None:
        key, ledger = self._any_key()
        request: dict[str, Any] = {"TableName": "items", "Item": {**key, **content}}
        if condition is not None:
            request["ConditionExpression"] = condition
        self._carry_out(name, request, [(ledger, value)])

    def _carry_out(
        self, name: str, request: dict[str, Any], writes: Iterable[tuple[Ledger, str | None]]
    ) -> None:
        begun = [(ledger, ledger.begin(value)) for ledger, value in writes]
        flying = self.fleet.in_flight[getcurrent()] = [write for _, write in begun]
        if name == "TransactWriteItems":
            self.fleet.transactions[flying[0].value] = flying
        fate, undone = Fate.ACKNOWLEDGED, 0
        try:
            answer = self.router.execute(name, request)
            undone = len(answer.get("UnprocessedItems", {}).get("items", ()))
        except ClientError as error:
            unknown = error.response["Error"]["Code"] == "InternalServerError"
            fate = Fate.UNKNOWN if unknown else Fate.REFUSED
        except BotoCoreError:
            fate = Fate.UNKNOWN
        finally:
            del self.fleet.in_flight[getcurrent()]
        done = len(begun) - undone
        for place, (ledger, write) in enumerate(begun):
            # What is said to be unprocessed may have been processed by an attempt whose answer was lost.
            ledger.end(write, fate if place < done else Fate.UNKNOWN)

    def _note_late(self) -> None:
        for write in self.fleet.in_flight.get(getcurrent(), ()):
            write.late = True

    def _note_lost(self) -> None:
        for write in self.fleet.in_flight.get(getcurrent(), ()):
            write.doubtful = True


def _bearing(act: Callable[[], Any]) -> None:
    """One round of a thread, which goes on where a database does not answer."""
    with suppress(*UNREACHABLE):
        act()
