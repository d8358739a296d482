"""Senders between two databases in memory, on a wire that loses, delays and refuses; one stepped clock."""

import contextlib
from collections.abc import Callable  # noqa: TC003 - one import, not worth a type-checking block
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from dualstore.items import STAMP, Item, KeyAttribute, KeySchema, TableShape
from dualstore.operations import DeleteItem, GetItem, Operation, PutItem
from dualstore.replication.authority import RetryPolicy
from dualstore.replication.lane_round import SendingLimits
from dualstore.replication.sender import Sender, SenderOptions
from dualstore.replication.served import ServedTable
from dualstore.replication.stamps import new_stamp
from dualstore.stages import Side
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.telemetry import Telemetry
from unit.replication.processes import SteppedClock

TABLE = "items-prod"
SHAPE = TableShape(TABLE, KeySchema(KeyAttribute("id", "S")))
SERVED = ServedTable("items", SHAPE)
LEASE_SECONDS = 30.0
SECOND_LOOK_SECONDS = 900.0
OPTIONS = SenderOptions(
    lease=timedelta(seconds=LEASE_SECONDS),
    limits=SendingLimits(
        retry=RetryPolicy(
            attempts=2, timeout=timedelta(seconds=60), first_wait=timedelta(), longest_wait=timedelta()
        )
    ),
)


def key(name: str = "a") -> Item:
    return {"id": {"S": name}}


def refusal(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "simulated"}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "PutItem",
    )


class Killed(BaseException):
    """The worker's process ends at this moment."""


class Wire:
    """One worker's way to DynamoDB: what is planned for its next writes comes to pass, then all goes well."""

    side = Side.DYNAMODB

    def __init__(self, world: "World") -> None:
        self.world = world
        self.planned: list[Callable[[Operation], Any]] = []
        self.sent: list[Operation] = []
        self.before: Callable[[Operation], None] = lambda _: None

    def execute(self, operation: Operation) -> Any:
        self.before(operation)
        if operation.reads:
            return self.world.dynamo.execute(operation)
        self.sent.append(operation)
        act = self.planned.pop(0) if self.planned else self.world.dynamo.execute
        return act(operation)

    def kinds(self) -> list[str]:
        return [operation.name for operation in self.sent]

    # What may happen to a write

    def loses_the_request(self, _: Operation) -> Any:
        raise ReadTimeoutError(endpoint_url="simulated")

    def loses_the_reply(self, operation: Operation) -> Any:
        self.world.dynamo.execute(operation)
        raise ReadTimeoutError(endpoint_url="simulated")

    def delays(self, operation: Operation) -> Any:
        """The sender gives up; the request is carried out when the test says so."""
        self.world.late.append(operation)
        raise ReadTimeoutError(endpoint_url="simulated")

    def delays_and_kills(self, operation: Operation) -> Any:
        self.world.late.append(operation)
        raise Killed

    def throttles(self, _: Operation) -> Any:
        raise refusal("ProvisionedThroughputExceededException")

    def refuses_the_item(self, _: Operation) -> Any:
        raise refusal("ValidationException")


class Source:
    """PostgreSQL as one worker reads it."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.before: Callable[[], None] = lambda: None

    def states_as_authority(self, *args: Any, epoch: int) -> Any:
        self.before()
        return self.store.items_of(*args)


@dataclass
class World:
    """Both databases, the outbox, and requests that are still under way."""

    clock: SteppedClock = field(default_factory=SteppedClock)
    late: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        tables = {TABLE: SHAPE}
        self.postgres = MemoryStore(tables, side=Side.POSTGRES)
        self.dynamo = MemoryStore(tables, monotonic=self.clock.now)
        self.outbox = MemoryOutbox(tables, monotonic=self.clock.now)

    def write(self, value: str | None, name: str = "a", *, stamped: bool = True) -> None:
        """A write of PostgreSQL's application, with its entry in the outbox."""
        stamp = {STAMP: {"B": new_stamp()}} if stamped else {}
        image = None if value is None else {**key(name), "v": {"S": value}, **stamp}
        seen = self.postgres.state(TABLE, key(name)).revision
        self.postgres.write_settled(
            TABLE, key(name), image, seen=seen, epoch=0
        )  # stamps are not counted here
        self.outbox.add(TABLE, key(name))

    def stranger_writes(self, item: Item | None, name: str = "a") -> None:
        """Somebody writes DynamoDB himself; the relay notices."""
        request = (
            {"TableName": TABLE, "Key": key(name)} if item is None else {"TableName": TABLE, "Item": item}
        )
        self.dynamo.execute(DeleteItem(request) if item is None else PutItem(request))
        self.outbox.enqueue(TABLE, [key(name)], epoch=0, reason="relay")

    def deliver(self) -> None:
        """The requests that are under way arrive; nobody hears of it."""
        late, self.late[:] = list(self.late), []
        for operation in late:
            with contextlib.suppress(ClientError):
                self.dynamo.execute(operation)

    def pair(self, name: str = "a") -> tuple[Item | None, Item | None]:
        """What PostgreSQL and DynamoDB hold, stamps included."""
        ask = GetItem({"TableName": TABLE, "Key": key(name), "ConsistentRead": True})
        return self.postgres.execute(ask).get("Item"), self.dynamo.execute(ask).get("Item")

    def assert_equal(self, *names: str) -> None:
        for name in names or ("a",):
            ours, theirs = self.pair(name)
            assert theirs == ours

    def worker(self, **options: Any) -> "Worker":
        return Worker(self, **options)


class Worker:
    """One process's sender, without its threads: each test says who acts when."""

    def __init__(self, world: World, *, clock: SteppedClock | None = None, options: Any = OPTIONS) -> None:
        self.world = world
        self.wire = Wire(world)
        self.source = Source(world.postgres)
        self.telemetry = Telemetry()
        self.sender = Sender(
            world.outbox,
            self.source,
            self.wire,
            {TABLE: SERVED},
            epoch_of=lambda _: 0,
            clock=clock or world.clock,
            telemetry=self.telemetry,
            options=options,
        )

    def plan(self, *acts: str) -> None:
        self.wire.planned += [getattr(self.wire, act) for act in acts]

    def work(self) -> int:
        return self.sender.work(TABLE)

    def killed(self) -> None:
        """Works until it is killed; its leases then last for as long as they last."""
        try:
            self.work()
        except Killed:
            return
        raise AssertionError("it was not killed")

    def verdicts(self) -> dict[str, int]:
        counters = self.telemetry.snapshot().counters
        return {
            series.labels[1]: count
            for series, count in counters.items()
            if series.metric.name == "dualstore.outbox.sent"
        }
