"""What a bound model costs at stage `complete`, against PynamoDB itself on a DynamoDB that answers at once.

    python benchmarks/complete.py [--rounds 30] [--calls 100] [--durable] [--check]

PynamoDB talks to a server in a process of its own which answers every request at once with a prepared body:
what remains is what every call to DynamoDB costs its client, without network, TLS or DynamoDB. The bound
model talks to a real PostgreSQL. That one does not wait for its disk either (`fsync` and `synchronous_commit`
are off), since a server that answers at once has none; `--durable` leaves both on. Beside it, what somebody
wrote by hand with SQLAlchemy Core: the same columns, a connection of the pool, a transaction, the writes to a
table without triggers, stamps or outbox. That is what PostgreSQL and SQLAlchemy cost. The engine is as
`DualStore.from_config` makes it: its pool hands out the connection that was last given back.

Blocks of calls are taken in turn; a figure is the median over the rounds of each block's mean, a ratio the
median over the rounds of each round's ratio. The last column is PynamoDB/bound by the processor time of the
calling thread.
"""

import argparse
import contextlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from orders import ACCOUNT, REGION, Base, OrderRow, item_of, order_model
from orders.instant import instant_dynamodb
from orders.writers import by_core

from dualstore import DualStore, Stage, schema
from dualstore.control import ControlRecord, Phase
from dualstore.flags import StaticFlags
from dualstore.replication.control import DynamoControl
from dualstore.stores.dynamo import DynamoStore, dynamo_clients
from dualstore.stores.postgres_control import PostgresControl
from dualstore.testing.servers import DynamoDBServer, PostgresServer

TABLE = "orders"
PARTITION, QUERIED_ITEMS = "customer-50", 50

Call = Callable[[], object]

GOALS = {"get": 3.0, "save": 2.0}
MOST_OF_CORE = 1.5
"""How many times as fast as PynamoDB a call is to be, and how many times a read by hand it may take."""


def complete(store: DualStore, engine: sa.Engine, clients: Any) -> None:
    """Say in both databases that the migration of the table is over."""
    record = ControlRecord(TABLE, stage=Stage.COMPLETE, epoch=1, generation=5, loaded=True, verified=True)
    bookkeeping = DynamoStore(reads=clients.reads, writes=clients.reads)
    moved = ControlRecord(TABLE, stage=Stage.COMPLETE, epoch=1, generation=4, phase=Phase.MOVED)
    DynamoControl(bookkeeping, store.options.bookkeeping_table).install(moved)
    PostgresControl(engine).install(record)


@contextlib.contextmanager
def bound(*, durable: bool = False) -> Iterator[tuple[Any, sa.Engine]]:
    """A model that is bound at stage `complete`, and the database behind it."""
    settings = {} if durable else {"fsync": "off", "synchronous_commit": "off"}
    with (
        DynamoDBServer() as dynamodb,
        PostgresServer(settings=settings) as postgres,
        contextlib.ExitStack() as stack,
    ):
        clients = stack.enter_context(
            dynamo_clients(endpoint_url=dynamodb.endpoint_url, region=REGION, **ACCOUNT)
        )
        engine = sa.create_engine(postgres.create_database(), pool_use_lifo=True)
        stack.callback(engine.dispose)
        model = order_model(TABLE, dynamodb.endpoint_url)
        model.create_table(billing_mode="PAY_PER_REQUEST", wait=True)
        schema.upgrade(engine)
        Base.metadata.create_all(engine)
        store = stack.enter_context(DualStore(engine=engine, dynamodb=clients, flags=StaticFlags({})))
        store.prepare()
        complete(store, engine, clients)
        store.bind(model, OrderRow)
        store.prepare()  # the table is bound now, and gets its triggers
        yield model, engine


def item(number: int) -> dict[str, Any]:
    return {**item_of(number), "customer": {"S": PARTITION}}


def calls_of(model: Any) -> dict[str, Call]:
    """What an application does with a model."""
    order = model.from_raw_data(item(1))
    changes = [model.note.set("n" * 200)]
    return {
        "get": lambda: model.get(PARTITION, 1),
        "save": order.save,
        "update": lambda: order.update(actions=changes, condition=model.total == 12.5),
        "query": lambda: list(model.query(PARTITION)),
    }


def by_hand(engine: sa.Engine) -> dict[str, Call]:
    """The calls as somebody writes them with SQLAlchemy Core."""
    put = by_core(engine)
    table = OrderRow.__table__
    columns = [table.c[name] for name in ("customer", "number", "note", "total", "paid", "address")]
    one = sa.select(*columns).where(
        table.c.customer == sa.bindparam("customer"), table.c.number == sa.bindparam("number")
    )
    many = sa.select(*columns).where(table.c.customer == sa.bindparam("customer")).order_by(table.c.number)

    def get() -> Any:
        with engine.connect() as connection:
            return connection.execute(one, {"customer": PARTITION, "number": 1}).mappings().one()

    def query() -> Any:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(many, {"customer": PARTITION}).mappings()]

    return {
        "get": get,
        "save": lambda: put("create", 1),
        "update": lambda: put("update", 1),
        "query": query,
    }


def microseconds(call: Call, calls: int) -> tuple[float, float]:
    """The mean of some calls by the clock, and by the processor time of the thread that makes them."""
    started, worked = time.perf_counter(), time.thread_time()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls * 1e6, (time.thread_time() - worked) / calls * 1e6


def measured(
    ways: dict[str, Call], *, rounds: int, calls: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The means of each way in each round, by both clocks; in a round the order is drawn by lot."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    worked: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        microseconds(call, calls)
    for _ in range(rounds):
        for name in random.sample(list(ways), len(ways)):
            wall, own = microseconds(ways[name], calls)
            taken[name].append(wall)
            worked[name].append(own)
    return taken, worked


def ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30, help="blocks of each kind (default: 30)")
    parser.add_argument("--calls", type=int, default=100, help="calls of a block (default: 100)")
    parser.add_argument("--durable", action="store_true", help="PostgreSQL waits for its disk at each COMMIT")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    options = parser.parse_args()
    items = [item(number) for number in range(1, QUERIED_ITEMS + 1)]
    missed: list[str] = []
    with bound(durable=options.durable) as (model, engine), instant_dynamodb(items) as endpoint:
        with model.batch_write() as batch:
            for each in items:
                batch.save(model.from_raw_data(each))
        mine, theirs = calls_of(model), calls_of(order_model("instant", endpoint))
        hands = by_hand(engine)
        print(f"medians of {options.rounds} blocks of {options.calls} calls, in µs a call")
        print(
            f"{'':8}{'bound':>8}{'PynamoDB':>10}{'by hand':>9}{'PynamoDB/bound':>16}{'bound/by hand':>15}"
            f"{'by processor time':>19}"
        )
        for name in mine:
            ways = {"bound": mine[name], "PynamoDB": theirs[name]}
            if name in hands:
                ways["by hand"] = hands[name]
            taken, worked = measured(ways, rounds=options.rounds, calls=options.calls)
            faster = ratio(taken["PynamoDB"], taken["bound"])
            of_core = ratio(taken["bound"], taken["by hand"]) if name in hands else None
            medians = [f"{statistics.median(taken[way]):.0f}" if way in taken else "" for way in
                       ("bound", "PynamoDB", "by hand")]  # fmt: skip
            print(
                f"{name:8}{medians[0]:>8}{medians[1]:>10}{medians[2]:>9}{faster:>16.2f}"
                f"{'' if of_core is None else f'{of_core:.2f}':>15}"
                f"{ratio(worked['PynamoDB'], worked['bound']):>19.2f}"
            )
            if faster < GOALS.get(name, 0):
                missed.append(f"{name}: {faster:.2f} times as fast, goal {GOALS[name]:g}")
            if name == "get" and of_core is not None and of_core > MOST_OF_CORE:
                missed.append(f"{name}: {of_core:.2f} of a read by hand, goal {MOST_OF_CORE:g}")
    for goal in missed:
        print(f"missed: {goal}")
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
