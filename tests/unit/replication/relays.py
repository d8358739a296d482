"""A table in two databases in memory, its stream, and relays that follow it; each test says who acts when."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dualstore.control import ControlRecord
from dualstore.errors import MirrorUnavailable
from dualstore.items import PREDECESSOR, STAMP, Item, KeyAttribute, KeySchema, TableShape
from dualstore.operations import DeleteItem, PutItem
from dualstore.replication.carrier import Carrier, RetryTimes
from dualstore.replication.relay import Relay, RelayTimes
from dualstore.replication.served import ServedTable
from dualstore.replication.stamps import new_stamp, stamp_of
from dualstore.replication.suspects import is_noted, renewed
from dualstore.replication.views import View
from dualstore.stages import Stage
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory.authority import MemoryAuthority
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.stores.memory.streams import MemoryCheckpoints, MemoryStreams
from dualstore.stores.streams import StreamRecord
from dualstore.telemetry import Telemetry
from unit.replication.processes import Link, SteppedClock

TABLE = "items-prod"
SHAPE = TableShape(TABLE, KeySchema(KeyAttribute("id", "S")))
SERVED = ServedTable("items", SHAPE)
AT_ONCE = RetryTimes(attempts=2, first_wait=timedelta(), longest_wait=timedelta())
TIMES = RelayTimes(page_records=3, describe=timedelta())
_START = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class StreamedWorld:
    """Both databases; the stream tells of everything that is written to DynamoDB."""

    empty_pages: int = 0
    shards: int = 1
    clock: SteppedClock = field(default_factory=SteppedClock)
    record: ControlRecord = field(
        default_factory=lambda: ControlRecord(TABLE, stage=Stage.SHADOW, loaded=True)
    )
    telemetry: Telemetry = field(default_factory=Telemetry)

    def __post_init__(self) -> None:
        self.dynamodb = MemoryStore({TABLE: SHAPE})
        self.outbox = MemoryOutbox({TABLE: SHAPE})
        self.postgres = MemoryAuthority({TABLE: SHAPE}, self.outbox)
        self.streams = MemoryStreams(clock=self.wall_clock, empty_pages=self.empty_pages)
        self.checkpoints = MemoryCheckpoints(clock=self.wall_clock)
        self.streams.enable(TABLE, shards=self.shards)

    def wall_clock(self) -> datetime:
        return _START + timedelta(seconds=self.clock.time)

    def relay(self, **options: Any) -> "StreamedRelay":
        return StreamedRelay(self, **options)

    def view(self, table: str) -> View:
        assert table == TABLE
        return View(record=self.record, read_until=0, write_until=self.clock.time + 10)

    def suspect(self, table: str, kind: str, *, once: bool = False) -> bool:
        assert table == TABLE
        if once and is_noted(self.record.suspects, kind):
            return False
        self.record = self.record.changed(
            suspects=renewed(self.record.suspects, kind, self.record.generation + 1), verified=False
        )
        return True

    def die(self, process: str) -> None:
        self.record = self.record.changed(suspects=self.record.suspects | {process}, verified=False)

    def clear_suspects(self, table: str, names: frozenset[str]) -> None:
        assert table == TABLE
        self.record = replace(self.record, suspects=self.record.suspects - names)

    # What others do

    def change(self, key: str, item: Item | None, *, is_ttl_deletion: bool = False) -> bytes | None:
        """Write DynamoDB alone: the stamp that was replaced."""
        name = {"id": {"S": key}}
        before = self.dynamodb.state(TABLE, name).item
        if item is None:
            self.dynamodb.execute(DeleteItem({"TableName": TABLE, "Key": name}))
        else:
            self.dynamodb.execute(PutItem({"TableName": TABLE, "Item": {**name, **item}}))
        after = self.dynamodb.state(TABLE, name).item
        self.streams.write(SHAPE, name, new=after, old=before, is_ttl_deletion=is_ttl_deletion)
        return stamp_of(before)

    def rogue_put(self, value: str, *, key: str = "a") -> None:
        self.change(key, {"v": {"S": value}})

    def rogue_update(self, value: str, *, key: str = "a") -> None:
        held = stored(self.dynamodb, key)
        assert held is not None
        self.change(key, {**held, "v": {"S": value}})

    def rogue_delete(self, *, key: str = "a", is_ttl_deletion: bool = False) -> None:
        self.change(key, None, is_ttl_deletion=is_ttl_deletion)

    def write(self, value: str | None, *, key: str = "a", mirrored: bool = True) -> None:
        """What a process of dualstore does; not `mirrored`, it dies in between."""
        stamp = new_stamp()
        item: Item | None = None if value is None else {"v": {"S": value}, STAMP: {"B": stamp}}
        predecessor = self.change(key, item)
        if mirrored:
            name = {"id": {"S": key}}
            image = None if item is None else {**name, **item}
            self.postgres.write_direct(
                TABLE, name, image, stamp=stamp, predecessor=predecessor, epoch=self.record.epoch
            )

    # What there is

    @property
    def differing(self) -> list[str]:
        names = {item["id"]["S"] for side in (self.dynamodb, self.postgres) for item in everything(side)}
        return sorted(name for name in names if stored(self.dynamodb, name) != stored(self.postgres, name))

    def counted(self, metric: str) -> dict[str, int]:
        """The values of a counter or gauge by its last label."""
        snapshot = self.telemetry.snapshot()
        both = {**snapshot.counters, **snapshot.gauges}
        return {s.labels[-1]: int(v) for s, v in both.items() if s.metric.name == metric}

    @property
    def verdicts(self) -> dict[str, int]:
        return self.counted("dualstore.relay.records")

    @property
    def enqueued(self) -> list[str]:
        leases = self.outbox.lease(TABLE, "test", lanes=100, duration=timedelta(minutes=1))
        entries = [entry for lease in leases for entry in self.outbox.pending(lease, limit=100)]
        return sorted(entry.key["id"]["S"] for entry in entries)


class StreamedRelay:
    """A relay, and its ways to the two databases."""

    def __init__(self, world: StreamedWorld, *, holder: str = "first", times: RelayTimes = TIMES) -> None:
        self.world = world
        self.dynamodb = Link(world.dynamodb, MirrorUnavailable("simulated"))
        self.postgres = Link(world.postgres, MirrorUnavailable("simulated"))
        self.carrier = Carrier(
            dynamodb=self.dynamodb,
            postgres=self.postgres,
            outbox=world.outbox,
            view=world.view,
            suspect=world.suspect,
            telemetry=world.telemetry,
            retries=AT_ONCE,
            clock=world.clock,
        )
        self.relay = Relay(
            streams=world.streams,
            checkpoints=world.checkpoints,
            tables=lambda: [SERVED],
            carrier=self.carrier,
            clear_suspects=world.clear_suspects,
            telemetry=world.telemetry,
            times=times,
            clock=world.clock,
            holder=holder,
        )

    def round(self, *, seconds: float = 1.0) -> bool:
        """One round, a while after the last."""
        self.world.clock.advance(seconds)
        return self.relay.round()

    def rounds(self, number: int, *, seconds: float = 1.0) -> None:
        for _ in range(number):
            assert self.round(seconds=seconds)


def everything(store: MemoryStore) -> list[Item]:
    return [item for page in store.all_items(TABLE) for item in page]


def stored(store: MemoryStore, key: str = "a") -> Item | None:
    item = store.state(TABLE, {"id": {"S": key}}).item
    if item is not None:
        item.pop(PREDECESSOR, None)
    return item


def records_of(world: StreamedWorld) -> list[StreamRecord]:
    """Everything that the first open shard of the stream holds."""
    stream = world.streams.stream_of(TABLE)
    assert stream is not None
    iterator = world.streams.iterator(stream.arn, stream.shards[0].id, after=None)
    return list(world.streams.page(iterator, limit=1000).records)
