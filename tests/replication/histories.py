"""Histories of one key under `dualwrite`: what the actors do, and what must hold when they have done it."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from greenlet import getcurrent

from dualstore.control import ControlRecord
from dualstore.errors import MirrorUnavailable
from dualstore.items import Item, Key, KeyAttribute, KeySchema, TableShape, key_bytes, without_stamps
from dualstore.operations import (
    BatchWriteItem,
    DeleteItem,
    GetItem,
    Operation,
    PutItem,
    Response,
    Scan,
    UpdateItem,
)
from dualstore.replication.authority import RetryPolicy
from dualstore.replication.health import MirrorHealth
from dualstore.replication.journal import Journal
from dualstore.replication.mirroring import Mirroring, ReplicationTimes
from dualstore.replication.served import ServedTable
from dualstore.replication.settle import settle
from dualstore.replication.views import View
from dualstore.stages import Side, Stage
from dualstore.stores.base import NOTHING
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.stores.streams import Change, StreamRecord
from dualstore.telemetry import Telemetry
from replication.ledger import Fate, Ledger, Write
from replication.simulation import Choose, Process, Scheduler, SimulatedClock
from replication.wires import Faults, SteppedMirror, SteppedStore, Wire, deliver_late

SHAPE = TableShape(
    name="items",
    keys=KeySchema(partition=KeyAttribute("id", "S"), sort=KeyAttribute("k", "S")),
    indexes={},
)
BOOKKEEPING = TableShape(
    name="dualstore",
    keys=KeySchema(partition=KeyAttribute("pk", "S"), sort=KeyAttribute("sk", "S")),
    indexes={},
)
TABLE = ServedTable("items", SHAPE)
KEYS = tuple({"id": {"S": "a"}, "k": {"S": name}} for name in "123")
KEY = KEYS[0]
STRIPPED = "stripped"
_TOMBSTONE_SECONDS = 60.0
RETRIES = RetryPolicy(attempts=3, first_wait=timedelta(0), longest_wait=timedelta(0))
EPOCH = 1


class Untold(Telemetry):
    """Counts nothing: a third of a short history's time went into histograms."""

    def operation(self, *_: Any) -> None: ...

    def record(self, *_: Any) -> None: ...


UNTOLD = Untold()


class AlwaysGranted:
    """What a process may act on, in histories where no stage ever changes: a new grant for every write."""

    record = ControlRecord("items", stage=Stage.DUALWRITE, epoch=EPOCH)

    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock

    def view(self, table: str) -> View:
        return self.refreshed(table)

    def refreshed(self, table: str) -> View:
        now = self.clock.scheduler.now + self.clock.offset
        return View(self.record, read_until=now + 1.0, write_until=now + 10.0)

    def wait_until_reads_stopped(self, table: str) -> None: ...


class StreamedStore(MemoryStore):
    """DynamoDB: a store with a stream of its changes, whose reads may be stale unless they are consistent.

    Args:
        choose: chooses what an inconsistent read answers, and what of a batch is not processed.
        monotonic: the clock by which tokens are forgotten, in seconds.
        keys: those that are ever written.
        told: told of every change as well: key, item before, item after; `expired` where DynamoDB made it.
    """

    def __init__(
        self,
        choose: Choose,
        monotonic: Callable[[], float] = lambda: 0.0,
        *,
        keys: Sequence[Key] = (KEY,),
        told: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        super().__init__({"items": SHAPE}, monotonic=monotonic)
        self.stream: list[StreamRecord] = []
        self._choose = choose
        self._places = [(key, key_bytes(SHAPE.keys, key)) for key in keys]
        self._told = told

    def execute(self, operation: Operation) -> Response:
        if operation.reads:
            response = super().execute(operation)
            stale = self._stale_answers.get(type(operation))
            return response if stale is None or operation.consistent else stale(self, operation, response)
        if isinstance(operation, BatchWriteItem):
            return self._half_processed(operation)
        return self._carried_out(operation)

    def expire(self, key: Key) -> None:
        """Delete an item as DynamoDB does whose time to live has passed."""
        self._carried_out(DeleteItem({"TableName": "items", "Key": key}), expired=True)

    def item(self, key: Key) -> Item | None:
        """What is there now. Not to be changed."""
        return self._table("items").item(key_bytes(SHAPE.keys, key))

    def _carried_out(self, operation: Operation, *, expired: bool = False) -> Response:
        table = self._table("items")
        before = [table.item(raw) for _, raw in self._places]
        try:
            return super().execute(operation)
        finally:
            for (key, raw), old in zip(self._places, before, strict=True):
                new = table.item(raw)
                if new is not old:
                    self.stream.append(_stream_record(len(self.stream), key, old, new))
                    self._told(key, old, new, expired=expired)

    def _half_processed(self, operation: BatchWriteItem) -> Response:
        """Leave the last entry of a batch unprocessed, now and then."""
        entries = operation.request["RequestItems"]["items"]
        if len(entries) < 2 or self._choose(4) != 3:
            return self._carried_out(operation)
        request = {**operation.request, "RequestItems": {"items": entries[:-1]}}
        response = self._carried_out(BatchWriteItem(request))
        return response | {"UnprocessedItems": {"items": [entries[-1]]}}

    def _stale(self, operation: GetItem, response: Response) -> Response:
        latest = next((each for each in reversed(self.stream) if each.key == operation.key), None)
        if latest is not None and self._choose(3) == 2:
            response.pop("Item", None)
            old = latest.old_image
            return response if old is None else response | {"Item": dict(old)}
        return response

    def _stale_page(self, operation: Scan, response: Response) -> Response:
        """A page as if the latest change had not been made."""
        if self.stream and self._choose(3) == 2:
            latest = self.stream[-1]
            items = [item for item in response["Items"] if SHAPE.keys.key_of(item) != latest.key]
            if latest.old_image is not None:
                items.append(dict(latest.old_image))
            response["Items"] = items
        return response

    _stale_answers: ClassVar[Mapping[type[Operation], Callable[[Any, Any, Response], Response]]] = {
        GetItem: _stale,
        Scan: _stale_page,
    }


def _stream_record(number: int, key: Key, old: Item | None, new: Item | None) -> StreamRecord:
    change = Change.INSERT if old is None else Change.REMOVE if new is None else Change.MODIFY
    return StreamRecord(str(number), change, key, new, old, _LONG_AGO)


_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def read_timeout() -> Exception:
    return ReadTimeoutError(endpoint_url="simulated")


def mirror_lost() -> Exception:
    return MirrorUnavailable("simulated: no answer came")


@dataclass
class History:
    """One simulated history over a fresh pair of stores."""

    choose: Choose
    authority_faults: Faults = field(default_factory=Faults)
    mirror_faults: Faults = field(default_factory=Faults)
    streamed: bool = False
    crashes: int = 0
    pauses: int = 0
    clock_type: type[SimulatedClock] = SimulatedClock
    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.choose)
        self.clock = self.clock_type(self.scheduler)
        self.authority_store = StreamedStore(self.choose)
        self.bookkeeping = MemoryStore({"dualstore": BOOKKEEPING})
        self.mirror_store = MemoryStore({"items": SHAPE}, side=Side.POSTGRES)
        self.outbox = MemoryOutbox({"items": SHAPE})
        self.mirror_wire = Wire(self.scheduler, self.mirror_faults, mirror_lost)
        self.mirror = SteppedMirror(self.mirror_store, self.mirror_wire, name_of)
        self.authority = self.authority_through(self.authority_faults)
        self.journal = Journal(
            SteppedStore(self.bookkeeping, Wire(self.scheduler, Faults(), read_timeout)), "dualstore"
        )
        self.mirroring = self.mirroring_through(self.authority)
        self._values = 0
        self._in_flight: dict[Any, Write] = {}
        self._relayed = 0

    def authority_through(self, faults: Faults) -> SteppedStore:
        wire = Wire(self.scheduler, faults, read_timeout)
        return SteppedStore(self.authority_store, wire, on_late=self._note_late)

    def _note_late(self) -> None:
        if getcurrent() in self._in_flight:
            self._in_flight[getcurrent()].late = True

    def mirroring_through(self, authority: SteppedStore) -> Mirroring:
        return Mirroring(
            authority,
            self.mirror,
            AlwaysGranted(self.clock),
            self.journal,
            MirrorHealth(lambda: None, clock=self.clock),
            self.outbox,
            telemetry=UNTOLD,
            times=ReplicationTimes(retries=RETRIES),
        )

    # What actors do

    def new_value(self, kind: str) -> str:
        self._values += 1
        return f"{kind} {self._values}"

    def put(self, *, condition: str | None = None) -> None:
        value = self.new_value("put")
        self._write(PutItem, {"TableName": "items", "Item": {**KEY, "v": {"S": value}}}, value, condition)

    def create(self) -> None:
        self.put(condition="attribute_not_exists(id)")

    def delete(self, *, condition: str | None = None) -> None:
        self._write(DeleteItem, {"TableName": "items", "Key": KEY}, None, condition)

    def delete_existing(self) -> None:
        self.delete(condition="attribute_exists(id)")

    def set(self) -> None:
        value = self.new_value("set")
        request = {
            "TableName": "items",
            "Key": KEY,
            "UpdateExpression": "SET v = :v",
            "ExpressionAttributeValues": {":v": {"S": value}},
        }
        self._write(UpdateItem, request, value, None)

    def strip(self) -> None:
        """An update that only takes away, and so goes without a stamp."""
        request = {"TableName": "items", "Key": KEY, "UpdateExpression": "REMOVE v"}
        self._write(UpdateItem, request, STRIPPED, "attribute_exists(id)")

    def prune(self) -> None:
        """Forget tombstones that have outlived everything that may depend on them."""
        buried = self.mirror_store._table("items")._tombstones
        while self.scheduler.busy:
            before = dict(buried)
            self.scheduler.sleep(_TOMBSTONE_SECONDS)
            for key, tombstone in before.items():
                if buried.get(key) is tombstone:
                    del buried[key]

    def count(self, mirroring: Mirroring | None = None) -> None:
        request = {
            "TableName": "items",
            "Key": KEY,
            "UpdateExpression": "ADD n :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }
        fate = Fate.ACKNOWLEDGED
        try:
            writing = mirroring or self.mirroring
            writing.write(TABLE, UpdateItem(request), writing.agent.view("items"))
        except BotoCoreError:
            fate = Fate.UNKNOWN
        self.ledger.increments[fate] += 1

    def rogue(self, kinds: Sequence[int] = (0, 1, 2)) -> None:
        """Somebody goes around dualstore: a put, a delete (as TTL does), an update that keeps the stamp."""
        self.scheduler.step()
        kind = kinds[self.choose(len(kinds))]
        value = None if kind == 1 else self.new_value("rogue")
        write = self.ledger.begin(value)
        self.authority_store.execute(
            (
                PutItem({"TableName": "items", "Item": {**KEY, "v": {"S": value}}}),
                DeleteItem({"TableName": "items", "Key": KEY}),
                UpdateItem(
                    {
                        "TableName": "items",
                        "Key": KEY,
                        "UpdateExpression": "SET v = :v",
                        "ExpressionAttributeValues": {":v": {"S": value}},
                    }
                ),
            )[kind]
        )
        self.ledger.end(write, Fate.ACKNOWLEDGED)

    def settle(self) -> None:
        while True:
            try:
                settle(self.mirror, self.authority, SHAPE, KEY, epoch=EPOCH)
            except (MirrorUnavailable, BotoCoreError):
                continue
            return

    def relay(self) -> None:
        """Settle the key of every change of the authority some time after it."""
        stream = self.authority_store.stream
        while True:
            self.scheduler.wait_until(lambda: len(stream) > self._relayed or not self.scheduler.busy)
            if len(stream) == self._relayed:
                return
            reached = self._relayed + 1 if self.choose(2) else len(stream)
            self.settle()
            self._relayed = reached

    def backfill(self) -> None:
        """Copy the item as a Scan saw it some time before; settle where something else is there."""
        read = GetItem({"TableName": "items", "Key": KEY, "ConsistentRead": True})
        image = self.authority_store.execute(read).get("Item")
        self.scheduler.step()
        if image is None:
            return
        try:
            loaded = self.mirror.write_settled("items", KEY, image, seen=NOTHING, epoch=EPOCH)
        except MirrorUnavailable:
            loaded = False
        if not loaded:
            self.settle()

    def repair(self) -> None:
        """Drain what is recorded, as `Repair` does."""
        self.mirroring.health.probe()
        try:
            dirty = self.mirror.dirty_keys("items")
        except MirrorUnavailable:
            dirty = ()
        for entry in dirty:
            try:
                settle(self.mirror, self.authority, SHAPE, entry.key, epoch=EPOCH)
                self.mirror.clear_dirty("items", entry.key, nonce=entry.nonce)
            except (MirrorUnavailable, BotoCoreError):
                continue
        for entries in list(self.journal.entries(SHAPE)):
            for entry in entries:
                try:
                    settle(self.mirror, self.authority, SHAPE, entry.key, epoch=EPOCH)
                except (MirrorUnavailable, BotoCoreError):
                    continue
                self.scheduler.step()
                self.journal.clear(SHAPE, entry)

    def writer(self, writes: int) -> Callable[[], None]:
        """An actor that does some writes of any kind, one after the other."""
        kinds = (self.put, self.delete, self.set, self.create, self.delete_existing, self.strip)

        def act() -> None:
            for _ in range(writes):
                kinds[self.choose(len(kinds))]()

        return act

    def spawn(
        self, name: str, act: Callable[[], None], *, mortal: bool = False, background: bool = False
    ) -> None:
        process = Process(name, crashable=mortal, pausable=True)
        self.scheduler.spawn(name, act, process=process, background=background)

    # What must hold

    def run(self) -> None:
        """Run all actors, then a repair without faults: what a quiet system comes to."""
        self.scheduler.crashes, self.scheduler.pauses = self.crashes, self.pauses
        if self.streamed:
            self.spawn("relay", self.relay, background=True)
        if not _LATE.isdisjoint(self.authority_faults.kinds + self.mirror_faults.kinds):
            self.scheduler.spawn("network", lambda: deliver_late(self.scheduler), background=True)
        self.scheduler.run()
        self.scheduler.sleep(60)
        if self.streamed:
            self.relay_the_rest()
        if self.crashed:
            self.verify()
        self.repair()

    def relay_the_rest(self) -> None:
        """What the stream still tells when nothing happens any more."""
        if self._relayed < len(self.authority_store.stream):
            self.settle()

    def verify(self) -> None:
        """What is done about a table that became suspect by the death of a process."""
        self.settle()

    @property
    def crashed(self) -> bool:
        return any(actor.process.crashed for actor in self.scheduler.actors)

    def sides(self) -> tuple[Item | None, Item | None]:
        """The key's item on the authority and on the mirror, without stamps."""
        read = GetItem({"TableName": "items", "Key": KEY, "ConsistentRead": True})
        authority, mirror = (
            None if (item := store.execute(read).get("Item")) is None else without_stamps(item)
            for store in (self.authority_store, self.mirror_store)
        )
        return authority, mirror

    @property
    def converged(self) -> bool:
        authority, mirror = self.sides()
        return authority == mirror

    @property
    def explained(self) -> bool:
        item, _ = self.sides()
        return self.ledger.explains(None if item is None else item.get("v", {"S": STRIPPED})["S"])

    def violations(self) -> list[str]:
        """The invariants that do not hold."""
        broken = [] if self.converged else ["I2"]
        return broken if self.explained else ["I1", *broken]

    @property
    def refused(self) -> bool:
        """Whether any writer was refused."""
        return any(write.fate is Fate.REFUSED for write in self.ledger.writes)

    @property
    def miscounted(self) -> bool:
        """Whether the counter tells of a lost acknowledged write, or of one that was carried out twice."""
        item, _ = self.sides()
        low, high = self.ledger.counter_bounds
        return not low <= (int(item["n"]["N"]) if item else 0) <= high

    def _write(self, kind: type, request: dict[str, Any], value: str | None, condition: str | None) -> None:
        if condition is not None:
            request = {**request, "ConditionExpression": condition}
        write = self._in_flight[getcurrent()] = self.ledger.begin(value)
        fate = Fate.ACKNOWLEDGED
        try:
            self.mirroring.write(TABLE, kind(request), self.mirroring.agent.view("items"))
        except ClientError:
            fate = Fate.REFUSED
        except BotoCoreError:
            fate = Fate.UNKNOWN
        self.ledger.end(write, fate)


_LATE = {"zombie", "duplicate"}


def name_of(table: str, key: Any) -> bytes:
    return key_bytes(SHAPE.keys, key)


def seeded(seed: int) -> Choose:
    """A chooser for volume."""
    between_0_and_1 = random.Random(seed).random
    return lambda bound: int(between_0_and_1() * bound)  # `randrange` takes four times as long
