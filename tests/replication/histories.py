"""Histories on one or two keys: what the actors do, and what must hold when they have done it."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import MirrorUnavailable
from dualstore.items import Item, KeyAttribute, KeySchema, TableShape, without_stamps
from dualstore.operations import DeleteItem, GetItem, PutItem, UpdateItem
from dualstore.replication.agent import View
from dualstore.replication.authority import RetryPolicy
from dualstore.replication.control import ControlRecord
from dualstore.replication.health import MirrorHealth
from dualstore.replication.journal import Journal
from dualstore.replication.mirroring import Mirroring, ReplicationTimes
from dualstore.replication.served import ServedTable
from dualstore.replication.settle import settle
from dualstore.stages import Side, Stage
from dualstore.stores.base import NOTHING
from dualstore.stores.memory import MemoryStore
from dualstore.telemetry import Telemetry
from replication.simulation import Choose, Faults, Scheduler, SteppedAuthority, SteppedMirror

SHAPE = TableShape(name="items", keys=KeySchema(partition=KeyAttribute("id", "S"), sort=None), indexes={})
BOOKKEEPING = TableShape(
    name="dualstore",
    keys=KeySchema(partition=KeyAttribute("pk", "S"), sort=KeyAttribute("sk", "S")),
    indexes={},
)
TABLE = ServedTable("items", SHAPE)
KEY = {"id": {"S": "a"}}
NO_WAITING = ReplicationTimes(
    retries=RetryPolicy(attempts=3, first_wait=timedelta(0), longest_wait=timedelta(0))
)


class StoppedClock:
    """A simulation takes no time."""

    def now(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None: ...


class AlwaysGranted:
    """What a process may act on, in histories where no stage ever changes; grants have their own tests."""

    clock = StoppedClock()
    view = View(ControlRecord("items", stage=Stage.DUALWRITE), read_until=1.0, write_until=1.0)

    @contextmanager
    def writing(self, table: str) -> Any:
        yield self.view

    def wait_until_reads_stopped(self, table: str) -> None: ...


@dataclass
class Counted:
    """What the callers of `ADD n 1` know."""

    acknowledged: int = 0
    unknown: int = 0


@dataclass
class History:
    """One simulated history over a fresh pair of stores."""

    choose: Choose
    faults: Faults = field(default_factory=Faults)
    mirror_type: type[MemoryStore] = MemoryStore
    counted: Counted = field(default_factory=Counted)
    outcomes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.choose)
        self.authority_store = MemoryStore({"items": SHAPE})
        self.bookkeeping = MemoryStore({"dualstore": BOOKKEEPING})
        self.mirror_store = self.mirror_type({"items": SHAPE}, side=Side.POSTGRES)
        self.authority = SteppedAuthority(self.authority_store, self.scheduler, self.faults)
        self.mirror = SteppedMirror(self.mirror_store, self.scheduler, self.faults)
        self.journal = Journal(self.bookkeeping, "dualstore")
        self.mirroring = self.mirroring_through(self.authority)

    def mirroring_through(self, authority: SteppedAuthority) -> Mirroring:
        return Mirroring(
            authority,
            self.mirror,
            AlwaysGranted(),
            self.journal,
            MirrorHealth(lambda: None),
            telemetry=Telemetry(),
            times=NO_WAITING,
        )

    # What actors do

    def put(self, value: str, *, condition: str | None = None) -> None:
        request: dict[str, Any] = {"TableName": "items", "Item": {**KEY, "v": {"S": value}}}
        self._write(PutItem, request, condition)

    def delete(self, *, condition: str | None = None) -> None:
        self._write(DeleteItem, {"TableName": "items", "Key": KEY}, condition)

    def set(self, value: str) -> None:
        request = {
            "TableName": "items",
            "Key": KEY,
            "UpdateExpression": "SET v = :v",
            "ExpressionAttributeValues": {":v": {"S": value}},
        }
        self._write(UpdateItem, request, None)

    def count(self, mirroring: Mirroring | None = None) -> None:
        request = {
            "TableName": "items",
            "Key": KEY,
            "UpdateExpression": "ADD n :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }
        try:
            (mirroring or self.mirroring).write(TABLE, UpdateItem(request))
        except BotoCoreError:
            self.counted.unknown += 1
        else:
            self.counted.acknowledged += 1

    def rogue(self, operation: PutItem | UpdateItem | DeleteItem) -> None:
        """A writer that goes around dualstore; the relay settles the key some time after."""
        self.scheduler.step()
        self.authority_store.execute(operation)
        self.settle()

    def settle(self) -> None:
        while True:
            try:
                settle(self.mirror, self.authority, SHAPE, KEY)
            except MirrorUnavailable:
                continue
            return

    def backfill(self) -> None:
        """Copy the item as a Scan saw it some time before; settle where something else is there."""
        image = self.authority.execute(GetItem({"TableName": "items", "Key": KEY})).get("Item")
        if image is None:
            return
        try:
            loaded = self.mirror.write_settled("items", KEY, image, seen=NOTHING)
        except MirrorUnavailable:
            loaded = False
        if not loaded:
            self.settle()

    def repair(self) -> None:
        """Drain what is recorded, as `Repair` does."""
        self.mirroring.health.probe()
        for entry in self.mirror.dirty_keys("items"):
            try:
                settle(self.mirror, self.authority, SHAPE, entry.key)
                self.mirror.clear_dirty("items", entry.key, nonce=entry.nonce)
            except MirrorUnavailable:
                continue
        for entries in list(self.journal.entries(SHAPE)):
            for entry in entries:
                try:
                    settle(self.mirror, self.authority, SHAPE, entry.key)
                except MirrorUnavailable:
                    continue
                self.scheduler.step()
                self.journal.clear(SHAPE, entry)

    # What must hold

    def run(self, *, crashes: int = 0) -> None:
        """Run all actors, then a repair without faults: what a quiet system comes to."""
        self.scheduler.run(crashes=crashes)
        self.faults.lost_reply = self.faults.lost_request = self.faults.mirror_down = 0
        self.repair()

    def sides(self) -> tuple[Item | None, Item | None]:
        """The key's item on the authority and on the mirror, without stamps."""
        read = GetItem({"TableName": "items", "Key": KEY})
        return tuple(
            None if (item := store.execute(read).get("Item")) is None else without_stamps(item)
            for store in (self.authority_store, self.mirror_store)
        )

    @property
    def converged(self) -> bool:
        authority, mirror = self.sides()
        return authority == mirror

    def _write(self, kind: type, request: dict[str, Any], condition: str | None) -> None:
        if condition is not None:
            request = {**request, "ConditionExpression": condition}
        try:
            self.mirroring.write(TABLE, kind(request))
        except ClientError:
            self.outcomes.append("refused")
        except BotoCoreError:
            self.outcomes.append("unknown")
        else:
            self.outcomes.append("acknowledged")


def random_writer(history: History, choose: Choose, writes: int) -> Callable[[], None]:
    """An actor that does some writes of any kind, one after the other."""

    writes_of_a_kind: tuple[Callable[[str], None], ...] = (
        history.put,
        lambda value: history.put(value, condition="attribute_not_exists(id)"),
        history.set,
        lambda _: history.delete(),
        lambda _: history.delete(condition="attribute_exists(id)"),
    )

    def act() -> None:
        for number in range(writes):
            writes_of_a_kind[choose(len(writes_of_a_kind))](f"{id(act)}-{number}")

    return act


def random_rogue(history: History, choose: Choose) -> Callable[[], None]:
    """An actor that goes around dualstore once: a plain put or delete, or an update that keeps the stamp."""

    def act() -> None:
        history.rogue(
            (
                PutItem({"TableName": "items", "Item": {**KEY, "v": {"S": "rogue"}}}),
                DeleteItem({"TableName": "items", "Key": KEY}),
                UpdateItem(
                    {
                        "TableName": "items",
                        "Key": KEY,
                        "UpdateExpression": "SET v = :v",
                        "ExpressionAttributeValues": {":v": {"S": "rogue update"}},
                    }
                ),
            )[choose(3)]
        )

    return act
