"""What callers notice of shadow reads at 100 percent: nothing, also where the other side is 200 ms slow.

    python benchmarks/shadow_reads.py [--rounds 40] [--pause-ms 0] [--check]

One caller reads items by their keys, one after the other, as fast as it can, through the same routed client
from two tables of one `DualStore` at stage `shadow`: of the one every read is compared with PostgreSQL, of
the other none. In a round each way of reading has a block of its own, in an order drawn by lot; between
blocks what waits to be compared is worked off. A ratio is the median of the ratios within one round, so that
a machine that speeds up or slows down does not count; its quartiles stand beside it.

A caller without a pause never lets the interpreter idle: whatever a worker does is then taken from it. That
is the hardest case, and the default. `--pause-ms` has it sleep between reads, in every way of reading alike,
as a service that waits for its next request does; the sleep is not timed.

LaunchDarkly's Migrator makes the same two reads, boto3's client and a select in SQLAlchemy Core, at its stage
`shadow`, its flag in memory and its events switched off, one after the other and in parallel. It is compared
with boto3's client alone.

The slow side is PostgreSQL, whose every shadow read takes 200 ms more. Then the share that is compared
adapts: what is left of it is printed.
"""

import argparse
import contextlib
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

import sqlalchemy as sa
from orders import ACCOUNT, REGION, Base, OrderRow, PlainRow, item_of, order_model, row_of
from orders.side_reads import Read, by_client, by_core, by_migrator
from sqlalchemy.dialects.postgresql import JSONB

from dualstore import DualStore, Stage, schema
from dualstore.flags import StaticFlags
from dualstore.mapping import Mirrored
from dualstore.stores.dynamo import DynamoClients, dynamo_clients
from dualstore.stores.postgres import PostgresStore
from dualstore.telemetry import names
from dualstore.testing.servers import DynamoDBServer, PostgresServer

MOST_P50, MOST_P99 = 1.05, 1.10
SLOW_SECONDS = 0.2

_ITEMS = 500
_WARM_UP_READS = 200
_SLOW_READS = 20
"""Reads in a block, where each waits 200 ms."""


class UnwatchedRow(Mirrored, Base):
    __tablename__ = "orders_unwatched"
    customer = sa.Column(sa.Text(collation="C"), primary_key=True)
    number = sa.Column(sa.Numeric, primary_key=True)
    note = sa.Column(sa.Text(collation="C"))
    total = sa.Column(sa.Numeric)
    paid = sa.Column(sa.Boolean)
    address = sa.Column(JSONB)


def percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(int(len(seconds) * share), len(seconds) - 1)]


@dataclass
class Rounds:
    """Seconds of each reader, a block of calls a round."""

    readers: Mapping[str, Read]
    settle: Any
    pause_seconds: float = 0.0
    blocks: dict[str, list[list[float]]] = field(default_factory=dict)

    def run(self, rounds: int, reads: Mapping[str, int]) -> "Rounds":
        for name, read in self.readers.items():
            self._block(read, min(_WARM_UP_READS, reads[name]))
        for _ in range(rounds):
            for name in random.sample(list(self.readers), len(self.readers)):
                self.blocks.setdefault(name, []).append(self._block(self.readers[name], reads[name]))
        return self

    def _block(self, read: Read, reads: int) -> list[float]:
        taken = []
        for _ in range(reads):
            number = random.randrange(_ITEMS)
            started = time.perf_counter()
            read(number)
            taken.append(time.perf_counter() - started)
            if self.pause_seconds:
                time.sleep(self.pause_seconds)
        self.settle()
        return taken

    def microseconds(self, name: str, share: float) -> float:
        return statistics.median(percentile(block, share) for block in self.blocks[name]) * 1e6

    def ratios(self, name: str, other: str, share: float) -> list[float]:
        pairs = zip(self.blocks[name], self.blocks[other], strict=True)
        return [percentile(mine, share) / percentile(theirs, share) for mine, theirs in pairs]


class Goal(NamedTuple):
    """Something measured that must not be more than a limit."""

    what: str
    measured: float
    limit: float

    @property
    def missed(self) -> bool:
        return self.measured > self.limit


@contextlib.contextmanager
def served(clients: DynamoClients, engine: sa.Engine, endpoint: str) -> Iterator[DualStore]:
    """A store with two tables of the same items, at stage shadow: one is compared, the other is not."""
    schema.upgrade(engine)
    Base.metadata.create_all(engine)
    flags = StaticFlags()
    with DualStore(engine=engine, dynamodb=clients, flags=flags) as store:
        store.prepare()
        for name, row, percent in (("orders", OrderRow, 100.0), ("unwatched", UnwatchedRow, 0.0)):
            model = order_model(name, endpoint)
            model.create_table(billing_mode="PAY_PER_REQUEST", wait=True)
            store.bind(model, row, name=name)
            table = store.table(name)
            for stage in (Stage.DUALWRITE, Stage.SHADOW):
                flags.set(name, stage=stage, shadow_percent=percent)
                table.wait_until(lambda record, stage=stage: record.stage is stage)
                if stage is Stage.DUALWRITE:
                    for number in range(_ITEMS):
                        store.client().put_item(TableName=name, Item=item_of(number))
                    table.backfill(segments=1, workers=1)
        with engine.begin() as connection:
            connection.execute(sa.insert(PlainRow.__table__), [row_of(number) for number in range(_ITEMS)])
        yield store


def compared(store: DualStore) -> tuple[int, int, float | None]:
    """How many reads were compared, how many dropped, and the share that the other side bears."""
    snapshot = store.telemetry.snapshot()
    return (
        snapshot.count(names.SHADOW_COMPARED),
        snapshot.count(names.SHADOW_DROPPED),
        snapshot.gauge(names.SHADOW_EFFECTIVE, table="orders"),
    )


def worked_off(store: DualStore) -> None:
    """Wait until nothing is compared any more."""
    before = None
    while before != (now := compared(store)[:2]):
        before = now
        time.sleep(0.1 + SLOW_SECONDS)


def measured(
    title: str,
    store: DualStore,
    engine: sa.Engine,
    clients: DynamoClients,
    *,
    rounds: int,
    reads: int,
    pause_seconds: float,
    slow: bool,
) -> Iterator[Goal]:
    """Print what callers notice, and what they would of the Migrator."""
    dynamodb, core = by_client(clients.reads, "unwatched"), by_core(engine)

    def late(number: int) -> object:
        time.sleep(SLOW_SECONDS)
        return core(number)

    with contextlib.ExitStack() as stack:
        readers = {
            "dynamodb": dynamodb,
            "unwatched": by_client(store.client(), "unwatched"),
            "shadowed": by_client(store.client(), "orders"),
            **{
                f"migrator, {order}": stack.enter_context(
                    by_migrator(dynamodb, late if slow else core, parallel=order == "parallel")
                )
                for order in ("serial", "parallel")
            },
        }
        counts = {name: _SLOW_READS if slow and "migrator" in name else reads for name in readers}
        before = compared(store)
        taken = Rounds(readers, lambda: worked_off(store), pause_seconds).run(rounds, counts)
        after = compared(store)
    share = "not told yet" if after[2] is None else f"{after[2]:.0f} %"
    print(
        f"\n{title}: {after[0] - before[0]:,} compared, {after[1] - before[1]:,} dropped, share now {share}\n"
        f"{'':20} {'p50 µs':>8} {'p99 µs':>9}   ratio of p50                ratio of p99"
    )
    for name, other in (
        ("dynamodb", None),
        ("unwatched", "dynamodb"),
        ("shadowed", "unwatched"),
        ("migrator, serial", "dynamodb"),
        ("migrator, parallel", "dynamodb"),
    ):
        line = f"{name:20} {taken.microseconds(name, 0.5):8.0f} {taken.microseconds(name, 0.99):9.0f}"
        if other is not None:
            for share_, limit in ((0.5, MOST_P50), (0.99, MOST_P99)):
                quarter, median, last = statistics.quantiles(taken.ratios(name, other, share_), n=4)
                line += f"   {median:6.3f} [{quarter:.3f}-{last:.3f}] "
                if name == "shadowed":
                    yield Goal(f"{title}: p{share_ * 100:.0f} of the caller", median, limit)
            line += f" of {other}"
        print(line)


@contextlib.contextmanager
def slowed() -> Iterator[None]:
    """Every shadow read of PostgreSQL takes 200 ms more."""

    def late(method: Any) -> Any:
        def read(*arguments: Any, **options: Any) -> Any:
            time.sleep(SLOW_SECONDS)
            return method(*arguments, **options)

        return read

    with contextlib.ExitStack() as stack:
        for name in ("items_in_order", "execute_as_mirror"):
            method = getattr(PostgresStore, name)
            stack.enter_context(mock.patch.object(PostgresStore, name, late(method)))
        yield


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40, help="blocks of each kind (default: 40)")
    parser.add_argument("--reads", type=int, default=400, help="reads of a block (default: 400)")
    parser.add_argument(
        "--pause-ms", type=float, default=0.0, help="what a caller sleeps between reads (default: 0)"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    options = parser.parse_args()

    with contextlib.ExitStack() as stack:
        dynamodb = stack.enter_context(DynamoDBServer())
        postgres = stack.enter_context(PostgresServer())
        clients = stack.enter_context(
            dynamo_clients(endpoint_url=dynamodb.endpoint_url, region=REGION, **ACCOUNT)
        )
        engine = sa.create_engine(postgres.create_database())
        stack.callback(engine.dispose)
        store = stack.enter_context(served(clients, engine, dynamodb.endpoint_url))
        print(
            f"{dynamodb.engine} {dynamodb.version}, PostgreSQL {postgres.version}; {options.rounds} rounds "
            f"of {options.reads} reads, {options.pause_ms:g} ms apart; medians of the blocks, and the "
            "ratios' quartiles"
        )
        pause = {"pause_seconds": options.pause_ms / 1000}
        how = {"rounds": options.rounds, "reads": options.reads, **pause}
        goals = [*measured("PostgreSQL well", store, engine, clients, slow=False, **how)]
        with slowed():
            slow = {"rounds": max(options.rounds // 2, 4), "reads": options.reads, **pause}
            goals += measured("PostgreSQL 200 ms slow", store, engine, clients, slow=True, **slow)
    missed = [goal for goal in goals if goal.missed]
    print(f"\n{len(goals) - len(missed)} of {len(goals)} goals are met")
    for goal in missed:
        print(f"missed: {goal.what}: {goal.measured:.3f}, at most {goal.limit:g}")
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
