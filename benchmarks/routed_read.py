"""What a routed read costs: against asking the PostgreSQL store itself, and against LaunchDarkly's Migrator.

    python benchmarks/routed_read.py [--rounds 40] [--calls 2000] [--servers] [--check]

*Own time* is measured on stores that answer at once: what a read takes through the router, less what the
same store takes when it is called directly. Both are measured in turn, in blocks of calls, by the time that
the thread itself was at work, since other programs may be, too; a figure is the median over the rounds of
each block's mean. With telemetry's SDK on, OpenTelemetry's meter and tracer providers are installed, and each
call is made within a span that is recorded, the one of the store itself, too: the default share of these
traces has spans of dualstore's.

The Migrator makes the same read, its flag in memory and its events switched off: at stage complete of one
side; at stage shadow of one, the other, and a comparison, one after the other, or in two threads, as its
users choose.

With `--servers` a real GetItem is compared, too: routed to PostgreSQL, and by the PostgreSQL store itself.
"""

import argparse
import contextlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from orders import ACCOUNT, REGION, Base, OrderRow, item_of, key_of, order_model
from orders.readers import migrated

from dualstore import DualStore, Stage, schema
from dualstore.control import ControlRecord
from dualstore.flags import Requested, StaticFlags
from dualstore.items import KeyAttribute, KeySchema, TableShape
from dualstore.operations import GetItem, Operation
from dualstore.replication.agent import Agent
from dualstore.replication.control import DynamoControl
from dualstore.replication.health import MirrorHealth
from dualstore.replication.journal import Journal
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.served import ServedTable
from dualstore.replication.views import GrantTimes
from dualstore.router import Router
from dualstore.routing import ReadRules
from dualstore.stages import Dials, Side
from dualstore.stores.dynamo import dynamo_clients
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory.authority import MemoryAuthority
from dualstore.stores.memory.control import MemoryControl
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.telemetry import Telemetry, export
from dualstore.telemetry.names import FALLBACKS
from dualstore.testing.servers import DynamoDBServer, PostgresServer

TABLE = "orders"
SHAPE = TableShape(TABLE, KeySchema(KeyAttribute("customer", "S"), KeyAttribute("number", "N")))
REQUEST = {"TableName": TABLE, "Key": key_of(1)}
MOST_OWN_MICROSECONDS, MOST_WITH_SDK_MICROSECONDS = 5.0, 10.0

Read = Callable[[], object]


class Instant:
    """A store that answers every read at once, with an item that has a stamp."""

    side = Side.POSTGRES

    def __init__(self) -> None:
        self._response = {"Item": {**item_of(1), "_dsv": {"B": b"0123456789abcdef"}}}

    def execute(self, operation: Operation) -> dict[str, Any]:  # noqa: ARG002 - any
        return self._response.copy()

    execute_as_mirror = execute

    def execute_as_authority(self, operation: Operation, *, epochs: Any) -> dict[str, Any]:  # noqa: ARG002
        return self._response.copy()


def router_of(telemetry: Telemetry, *, stage: Stage, percent: float, cohorts: bool = False) -> Router:
    """A router over instant stores whose grants outlast the benchmark."""
    bookkeeping = MemoryStore(
        {"dualstore": TableShape("dualstore", KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "S")))}
    )
    outbox = MemoryOutbox({TABLE: SHAPE}, monotonic=time.monotonic)
    memory = MemoryAuthority({TABLE: SHAPE}, outbox)
    here = DynamoControl(bookkeeping, "dualstore")
    homes: Any = {Side.DYNAMODB: here, Side.POSTGRES: MemoryControl(memory)}
    hours = timedelta(hours=1)
    times = GrantTimes(read=hours, write=hours, move=hours, patience=2 * hours)
    agent = Agent(homes, StaticFlags(), times=times)
    decided = ControlRecord(
        TABLE, stage=stage, loaded=True, dials=Dials(postgres_read_percent=percent), generation=1
    )
    home = homes[decided.authority]
    home.install(decided)
    agent.serve(TABLE, logical=TABLE)
    instant: Any = Instant()
    health = MirrorHealth(lambda: None)
    mirroring = Mirroring(
        instant, instant, agent, Journal(bookkeeping, "dualstore"), health, outbox, telemetry=telemetry
    )
    rules = {TABLE: ReadRules(always_on=frozenset({"internal"}))} if cohorts else {}
    return Router(
        mirroring,
        instant,
        {TABLE: ServedTable(TABLE, SHAPE)},
        telemetry=telemetry,
        observe=lambda *_: None,
        rules=rules,
        cohorts={TABLE: lambda _: "internal"} if cohorts else {},
    )


Clock = Callable[[], float]


class Discarded(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - any
        return SpanExportResult.SUCCESS


def block(read: Read, calls: int, clock: Clock) -> float:
    """The mean of one block of calls, in microseconds."""
    started = clock()
    for _ in range(calls):
        read()
    return (clock() - started) / calls * 1e6


def medians(
    reads: dict[str, Read], *, rounds: int, calls: int, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """The median over rounds of each read's mean; in a round the order is drawn by lot."""
    taken: dict[str, list[float]] = {name: [] for name in reads}
    for read in reads.values():
        block(read, calls, clock)
    for _ in range(rounds):
        for name in random.sample(list(reads), len(reads)):
            taken[name].append(block(reads[name], calls, clock))
    return {name: statistics.median(each) for name, each in taken.items()}


def ways(telemetry: Telemetry) -> dict[str, Read]:
    """The reads through the router, and the same store called directly."""
    instant = Instant()
    routers = {
        "mirror, dial at 100 %": router_of(telemetry, stage=Stage.SHADOW, percent=100),
        "mirror, dial at 99.9 %": router_of(telemetry, stage=Stage.SHADOW, percent=99.9),
        "mirror, in a listed cohort": router_of(telemetry, stage=Stage.SHADOW, percent=99.9, cohorts=True),
        "DynamoDB, dial at 0 %": router_of(telemetry, stage=Stage.SHADOW, percent=0),
        "DynamoDB, stage off": router_of(telemetry, stage=Stage.OFF, percent=0),
        "PostgreSQL, stage live": router_of(telemetry, stage=Stage.LIVE, percent=0),
    }
    found: dict[str, Read] = {
        name: (lambda router=router: router.execute("GetItem", REQUEST)) for name, router in routers.items()
    }
    return {"the store itself": lambda: instant.execute(GetItem(REQUEST)), **found}


def own_time(*, rounds: int, calls: int, sdk: bool) -> dict[str, float]:
    """The own time of each way, in microseconds."""
    telemetry = Telemetry()
    reads = ways(telemetry)
    if sdk:
        metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(Discarded()))
        trace.set_tracer_provider(provider)
        export(telemetry)
        tracer = trace.get_tracer("benchmark")

        def traced(read: Read) -> Read:
            def within_span() -> None:
                with tracer.start_as_current_span("request"):
                    read()

            return within_span

        reads = {name: traced(read) for name, read in reads.items()}
    taken = medians(reads, rounds=rounds, calls=calls, clock=time.thread_time)
    store = taken.pop("the store itself")
    return {name: each - store for name, each in taken.items()}


def print_own_time(title: str, own: dict[str, float], limit: float) -> list[str]:
    print(f"\n{title}, µs a GetItem (at most {limit:g})")
    for name, each in own.items():
        print(f"  {name:28} {each:6.2f}")
    return [f"{title}: {name} {each:.2f} µs" for name, each in own.items() if each > limit]


def compare_migrator(*, rounds: int) -> None:
    """The Migrator beside, on the same instant stores."""
    instant = Instant()
    router = router_of(Telemetry(), stage=Stage.SHADOW, percent=100)
    operation = GetItem(REQUEST)
    with contextlib.ExitStack() as stack:
        reads: dict[str, Read] = {
            "the store itself": lambda: instant.execute(GetItem(REQUEST)),
            "dualstore": lambda: router.execute("GetItem", REQUEST),
        }
        for name, options in {
            "Migrator, one side": {"stage": "complete"},
            "Migrator, both, serial": {"stage": "shadow"},
            "Migrator, both, parallel": {"stage": "shadow", "parallel": True},
        }.items():
            read = stack.enter_context(migrated(instant.execute, **options))
            reads[name] = lambda read=read: read(operation)
        taken = medians(reads, rounds=rounds, calls=200)
    print("\nBeside LaunchDarkly's Migrator, µs a read of stores that answer at once")
    for name, each in taken.items():
        print(f"  {name:28} {each:6.1f}")


@contextlib.contextmanager
def deployed() -> Iterator[tuple[DualStore, Any]]:
    """A store on real servers, whose mirror is read at 100 %, with one item."""
    with DynamoDBServer() as dynamodb, PostgresServer() as postgres, contextlib.ExitStack() as stack:
        clients = stack.enter_context(
            dynamo_clients(endpoint_url=dynamodb.endpoint_url, region=REGION, **ACCOUNT)
        )
        engine = sa.create_engine(postgres.create_database())
        stack.callback(engine.dispose)
        model = order_model(TABLE, dynamodb.endpoint_url)
        model.create_table(billing_mode="PAY_PER_REQUEST", wait=True)
        schema.upgrade(engine)
        Base.metadata.create_all(engine)
        flags = StaticFlags({TABLE: Requested(stage=Stage.DUALWRITE)})
        store = stack.enter_context(DualStore(engine=engine, dynamodb=clients, flags=flags))
        store.prepare()
        store.bind(model, OrderRow)
        table = store.table(TABLE)
        table.wait_until(lambda record: record.stage is Stage.DUALWRITE)
        table.backfill()
        store.client().put_item(TableName=TABLE, Item=item_of(1))
        flags.set(TABLE, postgres_read_percent=100.0)
        table.wait_until(lambda record: record.dials.postgres_read_percent == 100)
        yield store, store._postgres  # noqa: SLF001 - what the router asks


def on_servers(*, rounds: int) -> None:
    """A real GetItem, routed, and by the PostgreSQL store itself."""
    with deployed() as (store, postgres):
        client = store.client()
        reads: dict[str, Read] = {
            "the store itself": lambda: postgres.execute_as_mirror(GetItem(REQUEST)),
            "routed": lambda: client.get_item(**REQUEST),
        }
        taken = medians(reads, rounds=rounds, calls=50)
        elsewhere = sum(store.telemetry.values(FALLBACKS).values())
    direct, routed = taken.values()
    print(
        f"\nOn real servers, µs a GetItem: {direct:.0f} by the store itself, {routed:.0f} routed; "
        f"{elsewhere:.0f} of {(rounds + 1) * 50} reads fell back"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40, help="blocks of each kind (default: 40)")
    parser.add_argument("--calls", type=int, default=2_000, help="calls of a block (default: 2000)")
    parser.add_argument("--servers", action="store_true", help="compare on real servers, too")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    options = parser.parse_args()
    rounds, calls = options.rounds, options.calls
    print(f"medians of {rounds} blocks of {calls} calls")
    without = own_time(rounds=rounds, calls=calls, sdk=False)
    missed = print_own_time("Own time without telemetry's SDK", without, MOST_OWN_MICROSECONDS)
    compare_migrator(rounds=rounds)
    sdk = own_time(rounds=rounds, calls=calls, sdk=True)
    missed += print_own_time("Own time with the SDK on", sdk, MOST_WITH_SDK_MICROSECONDS)
    if options.servers:
        on_servers(rounds=rounds)
    for goal in missed:
        print(f"missed: {goal}")
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
