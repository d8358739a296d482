"""What an inline dual write costs: against its two single writes, and against LaunchDarkly's Migrator.

    python benchmarks/dual_write.py [--rounds 400] [--check]

Everything runs in one process against the same two servers, PostgreSQL with its durable defaults. In a round
every writer makes each call once, in an order drawn by lot, so that caches are as cold for one as for
another: single writes in blocks of their own take up to a fifth less than the same two writes made in turn.
A ratio is the median of the ratios within one round, so that a machine that speeds up or slows down does not
count.

DynamoDB alone is what a service had before: boto3's client as boto3 makes it, or PynamoDB. dualstore's own
client leaves out what a call can do without (see `stores.dynamo.dynamo_clients`), so that a part of what it
adds is won back; the columns called "own client" have that client, used alone, in DynamoDB's place: what a
dual write costs beyond the calls themselves. They have no goal. PostgreSQL alone is an upsert, update or
delete of the key in SQLAlchemy Core, in a transaction on the same pool, as a service writes it by hand;
and, as the least there can be, a prepared statement of psycopg on a connection of its own. Both write a
table without bookkeeping. The Migrator makes the service's two writes, its flag in memory and its events
switched off.

`create again` puts a key that was deleted before: its tombstone has dualstore ask DynamoDB first, so no
goal is set for it. Own time is what a call takes when both drivers give at once the answer that they gave
before, less those answers and the pool's connection, in processor time of the calling thread. With the
mirror down PostgreSQL is stopped, the writes that found it so have passed, and a relay has followed the
stream, so that nothing is written to the journal.
"""

import argparse
import contextlib
import itertools
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from unittest import mock

import boto3
import psycopg
import sqlalchemy as sa
from orders import ACCOUNT, REGION, Base, OrderRow, order_model
from orders.writers import Write, by_client, by_core, by_migrator, by_model, by_psycopg

from dualstore import DualStore, Stage, schema
from dualstore.flags import Requested, StaticFlags
from dualstore.stores.dynamo import DynamoClients, dynamo_clients
from dualstore.stores.postgres.sessions import Session
from dualstore.testing.servers import DynamoDBServer, PostgresServer

OPERATIONS = ("create", "replace", "update", "delete", "create again")
WITHOUT_GOAL = frozenset({"create again"})
MOST_OF_THE_SUM, MOST_OF_A_SINGLE_WRITE, MOST_OWN_MICROSECONDS = 1.15, 1.05, 80.0

_WARM_UP_ROUNDS = 20
"""After five executions psycopg prepares a statement, once on each connection."""
_STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
_CALLS_ANSWERED = 100
"""Calls of a figure, where nothing is waited for."""
_NUMBERS = itertools.count(1)
"""The numbers of the items, so that no key is written twice: a deleted key has a tombstone."""


def timed(
    write: Write, operation: str, number: int, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The seconds that a write takes."""
    started = clock()
    write(operation, number)
    return clock() - started


@dataclass
class Rounds:
    """Seconds of each writer and operation, a call a round."""

    writers: Mapping[str, Write]
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def run(self, rounds: int) -> "Rounds":
        for _ in range(_WARM_UP_ROUNDS):
            self._round()
        self.seconds.clear()
        for _ in range(rounds):
            self._round()
        return self

    def _round(self) -> None:
        numbers = dict(zip(self.writers, _NUMBERS, strict=False))
        for operation in OPERATIONS:
            for name in random.sample(list(numbers), len(numbers)):
                taken = timed(self.writers[name], operation, numbers[name])
                self.seconds.setdefault((name, operation), []).append(taken)
        for name, number in numbers.items():
            self.writers[name]("delete", number)

    def microseconds(self, name: str, operation: str) -> float:
        return statistics.median(self.seconds[name, operation]) * 1e6

    def ratios(self, name: str, operation: str, *others: str) -> list[float]:
        """A writer against the sum of others, round by round."""
        sums = map(sum, zip(*(self.seconds[other, operation] for other in others), strict=True))
        return [mine / theirs for mine, theirs in zip(self.seconds[name, operation], sums, strict=True)]


class Goal(NamedTuple):
    """Something measured that must not be more than a limit."""

    what: str
    measured: float
    limit: float

    @property
    def missed(self) -> bool:
        return self.measured > self.limit


def against_sum(
    rounds: Rounds, title: str, dual: str, dynamodb: str, *, others: Mapping[str, tuple[str, tuple[str, ...]]]
) -> Iterator[Goal]:
    """Print a dual write beside its single writes, and what else there is to compare."""
    columns = "".join(f" {name:>15}" for name in others)
    titles = f"{'DynamoDB':>9} {'Core':>6} {'psycopg':>8} {'dual':>6} {'ratio':>7}"
    print(f"\n{title}\n{'':13} {titles} {'':13}{columns}")
    for operation in OPERATIONS:
        ratios = rounds.ratios(dual, operation, dynamodb, "core")
        quarter, median, last = statistics.quantiles(ratios, n=4)
        compared = "".join(
            f" {statistics.median(rounds.ratios(name, operation, *sums)):15.3f}"
            for name, sums in others.values()
        )
        figures = [rounds.microseconds(name, operation) for name in (dynamodb, "core", "psycopg", dual)]
        print(
            f"{operation:13} {figures[0]:9.0f} {figures[1]:6.0f} {figures[2]:8.0f} {figures[3]:6.0f} "
            f"{median:7.3f} [{quarter:.3f}-{last:.3f}]{compared}"
        )
        if operation not in WITHOUT_GOAL:
            yield Goal(f"{title}: {operation}, of the sum", median, MOST_OF_THE_SUM)


@dataclass
class Deployment:
    """Two servers, and one table of each kind on them."""

    engine: sa.Engine
    clients: DynamoClients
    endpoint: str

    def prepare(self) -> None:
        for table in ("orders", "orders-plain"):
            order_model(table, self.endpoint).create_table(billing_mode="PAY_PER_REQUEST", wait=True)
        schema.upgrade(self.engine)
        Base.metadata.create_all(self.engine)

    def alone(self) -> Write:
        """DynamoDB alone through a client as boto3 makes it."""
        client = boto3.client(
            "dynamodb",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCOUNT["access_key_id"],
            aws_secret_access_key=ACCOUNT["secret_access_key"],
        )
        return by_client(client, "orders-plain")

    def alone_by_own_client(self) -> Write:
        """DynamoDB alone through the client that dualstore writes with."""
        return by_client(self.clients.writes, "orders-plain")

    @contextlib.contextmanager
    def store(self, *, writes: Any = None) -> Iterator[DualStore]:
        """A store whose table `orders` is at dualwrite."""
        flags = StaticFlags({"orders": Requested(stage=Stage.DUALWRITE)})
        clients = replace(self.clients, writes=writes or self.clients.writes)
        with DualStore(engine=self.engine, dynamodb=clients, flags=flags) as store:
            store.prepare()
            store.bind(order_model("orders", self.endpoint), OrderRow)
            store.table("orders").wait_until(lambda record: record.stage is Stage.DUALWRITE)
            yield store


def dual_writes(deployment: Deployment, *, rounds: int) -> Iterator[Goal]:
    """A dual write against the two writes it consists of."""
    url = deployment.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    dynamodb, core = deployment.alone(), by_core(deployment.engine)
    plain, bound = (order_model(table, deployment.endpoint) for table in ("orders-plain", "orders"))
    with (
        deployment.store() as store,
        psycopg.connect(url, autocommit=True) as connection,
        by_migrator(dynamodb, core) as migrator,
    ):
        prepared = by_psycopg(connection)
        client = {
            "dynamodb": dynamodb,
            "own client": deployment.alone_by_own_client(),
            "core": core,
            "psycopg": prepared,
            "dual": by_client(store.client(), "orders"),
            "migrator": migrator,
        }
        others = {
            "dual/own client": ("dual", ("own client", "core")),
            "Migrator/sum": ("migrator", ("dynamodb", "core")),
            "dual/Migrator": ("dual", ("migrator",)),
            "dual/psycopg": ("dual", ("dynamodb", "psycopg")),
        }
        measured = Rounds(client).run(rounds)
        yield from against_sum(measured, "boto3's client", "dual", "dynamodb", others=others)
        model = {"pynamodb": by_model(plain), "core": core, "psycopg": prepared, "dual": by_model(bound)}
        others = {"dual/psycopg": ("dual", ("pynamodb", "psycopg"))}
        measured = Rounds(model).run(rounds)
        yield from against_sum(measured, "PynamoDB models", "dual", "pynamodb", others=others)


class Replay:
    """A client or a session that gives each answer at once, as it was given before.

    Args:
        original: gives the answer the first time.
    """

    def __init__(self, original: Callable[..., Any]) -> None:
        self._original = original
        self._answers: dict[str, Any] = {}
        self.kind: str | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.kind is None:
            return self._original(*args, **kwargs)
        answer = self._answers.get(self.kind)
        if answer is None:
            answer = self._answers[self.kind] = self._original(*args, **kwargs)
        return answer.copy()  # callers take it over


class ReplayedClient:
    """A client of DynamoDB whose writes are answered at once."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.replays = {
            name: Replay(getattr(client, name)) for name in ("put_item", "update_item", "delete_item")
        }

    def __getattr__(self, name: str) -> Any:
        return self.replays[name] if name in self.replays else getattr(self._client, name)


def own_time(deployment: Deployment, *, rounds: int) -> Iterator[Goal]:
    """What dualstore itself takes of a call: both drivers answer at once, and are taken off again."""
    replayed = ReplayedClient(deployment.clients.writes)
    here, batch = threading.get_ident(), Session.batch
    session = Replay(batch)

    def answered(self: Session, *statements: Any) -> Any:
        return session(self, *statements) if threading.get_ident() == here else batch(self, *statements)

    with mock.patch.object(Session, "batch", answered), deployment.store(writes=replayed) as store:
        direct, routed = by_client(replayed, "orders"), by_client(store.client(), "orders")

        def without_dualstore(operation: str, number: int) -> None:
            direct(operation, number)
            deployment.engine.raw_connection().close()
            session(None)

        number = 0
        print(f"\nOwn time of a dual write\n{'':13} {'routed µs':>9} {'answers µs':>11} {'own µs':>7}")
        for operation in OPERATIONS[:4]:
            for replay in (session, *replayed.replays.values()):
                replay.kind = operation
            number = next(_NUMBERS) if operation == "create" else number
            routed(operation, number)
            pairs = [
                [
                    statistics.median(
                        timed(write, operation, number, clock=time.thread_time)
                        for _ in range(_CALLS_ANSWERED)
                    )
                    for write in (routed, without_dualstore)
                ]
                for _ in range(max(rounds // 10, 5))
            ]
            whole, answers = (statistics.median(column) * 1e6 for column in zip(*pairs, strict=True))
            print(f"{operation:13} {whole:9.0f} {answers:11.0f} {whole - answers:7.1f}")
            yield Goal(f"own time: {operation}, µs", whole - answers, MOST_OWN_MICROSECONDS)
        for replay in (session, *replayed.replays.values()):
            replay.kind = None


def follow_stream(store: DualStore) -> None:
    """Have a relay follow the stream until that is recorded: then the stream is the journal."""
    stop = threading.Event()
    relay = threading.Thread(target=store.relaying().run, args=(stop,))
    relay.start()
    give_up = time.monotonic() + 60
    while not store.table("orders").view.record.streamed:
        if time.monotonic() > give_up:
            raise SystemExit("the relay does not follow the stream")
        time.sleep(0.1)
    stop.set()
    relay.join()


def mirror_down(deployment: Deployment, server: PostgresServer, *, rounds: int) -> Iterator[Goal]:
    """A write while PostgreSQL is away, against DynamoDB alone."""
    for table in ("orders", "orders-plain"):  # a stream has its price in a stand-in, for both alike
        deployment.clients.writes.update_table(TableName=table, StreamSpecification=_STREAM)
    with deployment.store() as store:
        follow_stream(store)
        dual = by_client(store.client(), "orders")
        server.stop("immediate")
        for number in itertools.islice(_NUMBERS, 5):  # these find it so and shut the gate
            dual("create", number)
        own_client = deployment.alone_by_own_client()
        writers = {"dynamodb": deployment.alone(), "own client": own_client, "dual": dual}
        measured = Rounds(writers).run(rounds)
        titles = f"{'DynamoDB':>9} {'dual':>6} {'ratio':>7}"
        print(f"\nMirror down, gate shut\n{'':13} {titles} {'':13} {'dual/own client':>15}")
        for operation in OPERATIONS[:4]:
            quarter, median, last = statistics.quantiles(measured.ratios("dual", operation, "dynamodb"), n=4)
            alone, both = (measured.microseconds(name, operation) for name in ("dynamodb", "dual"))
            beyond_the_call = statistics.median(measured.ratios("dual", operation, "own client"))
            print(
                f"{operation:13} {alone:9.0f} {both:6.0f} {median:7.3f} [{quarter:.3f}-{last:.3f}] "
                f"{beyond_the_call:15.3f}"
            )
            yield Goal(f"mirror down: {operation}, of the single write", median, MOST_OF_A_SINGLE_WRITE)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=400, help="calls of each kind (default: 400)")
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
        deployment = Deployment(engine, clients, dynamodb.endpoint_url)
        deployment.prepare()
        print(
            f"{dynamodb.engine} {dynamodb.version}, PostgreSQL {postgres.version}, {options.rounds} rounds; "
            "µs a call, medians, and the ratios' quartiles"
        )
        goals = [
            *dual_writes(deployment, rounds=options.rounds),
            *own_time(deployment, rounds=options.rounds),
            *mirror_down(deployment, postgres, rounds=options.rounds),
        ]
    missed = [goal for goal in goals if goal.missed]
    print(f"\n{len(goals) - len(missed)} of {len(goals)} goals are met")
    for goal in missed:
        print(f"missed: {goal.what}: {goal.measured:.3f}, at most {goal.limit:g}")
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
