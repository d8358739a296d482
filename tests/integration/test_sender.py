"""Mirror-out between a real PostgreSQL and a DynamoDB stand-in: all changes arrive, whatever is lost."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ReadTimeoutError

from contract import models, shapes
from dualstore.items import Item
from dualstore.mapping import TableMapping
from dualstore.replication.authority import RetryPolicy
from dualstore.replication.lane_round import SendingLimits
from dualstore.replication.sender import Sender, SenderOptions
from dualstore.replication.served import ServedTable
from dualstore.schema import create_unmapped, upgrade
from dualstore.stores import DynamoStore, dynamo_clients
from dualstore.stores.dynamo_sending import LeaseOver, checked_last, watch
from dualstore.stores.postgres import PostgresStore, triggers
from dualstore.stores.postgres_outbox import PostgresOutbox
from dualstore.testing.servers import DynamoDB, Postgres

SECOND_LOOK = timedelta(seconds=1)
OPTIONS = SenderOptions(
    lease=timedelta(seconds=2),
    idle=timedelta(milliseconds=20),
    limits=SendingLimits(
        retry=RetryPolicy(
            attempts=2, first_wait=timedelta(milliseconds=5), longest_wait=timedelta(seconds=0.02)
        ),
        second_look_after=SECOND_LOOK,
    ),
)
DELETE = "DELETE FROM TABLE WHERE pk = :pk AND sk = :sk"
UPSERT = (
    "INSERT INTO TABLE (pk, sk, note) VALUES (:pk, :sk, :note) "
    "ON CONFLICT (pk, sk) DO UPDATE SET note = excluded.note"
)
AUTHORITY = """
INSERT INTO dualstore.control (table_name, epoch, stage, read_percent, mirror_percent, gate, role, phase)
VALUES (:table, 1, 'live', 100, 100, 'open', 'authority', 'open')"""


@dataclass
class Sides:
    """A table on both sides, PostgreSQL the authority."""

    engine: sa.Engine
    dynamodb: Any
    endpoint_url: str
    mapping: TableMapping

    @property
    def name(self) -> str:
        return self.mapping.shape.name

    @contextlib.contextmanager
    def sender(self, fault: Callable[[Any], Any] | None = None) -> Iterator[Sender]:
        with dynamo_clients(
            endpoint_url=self.endpoint_url,
            region="us-east-1",
            access_key_id="dualstore",
            secret_access_key="dualstore",
            read_timeout=timedelta(seconds=2),
        ) as clients:
            watch(clients.writes)
            if fault is not None:
                clients.writes.meta.events.register(
                    "before-send.dynamodb", lambda request, **_: fault(request)
                )
            mappings = {self.name: self.mapping}
            sender = Sender(
                PostgresOutbox(self.engine, mappings),
                PostgresStore(self.engine, mappings),
                DynamoStore(reads=clients.reads, writes=clients.writes),
                {self.name: ServedTable("things", self.mapping.shape)},
                epoch_of=lambda _: 1,
                options=OPTIONS,
            )
            yield sender
            sender.close()

    def sql(self, statement: str, **values: Any) -> None:
        """What somebody who knows nothing of dualstore does."""
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement.replace("TABLE", f'"{self.name}"')), values)

    def churn(self, seed: int, *, writes: int = 100, keys: int = 25) -> None:
        """Inserts, updates and deletes, some of them rolled back."""
        chance = random.Random(seed)
        for number in range(writes):
            values = {
                "pk": f"p{chance.randrange(keys)}",
                "sk": chance.choice([1, 2]),
                "note": f"n{seed}.{number}",
            }
            with contextlib.suppress(ZeroDivisionError), self.engine.begin() as connection:
                statement = chance.choice([DELETE, UPSERT])
                connection.execute(sa.text(statement.replace("TABLE", f'"{self.name}"')), values)
                if chance.random() < 0.1:
                    raise ZeroDivisionError

    def assert_equal(self) -> None:
        store = PostgresStore(self.engine, {self.name: self.mapping})
        ours = sorted((item for page in store.all_items(self.name) for item in page), key=_order)
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.name, ConsistentRead=True)
        theirs = sorted((item for page in pages for item in page["Items"]), key=_order)
        assert theirs == ours


def _order(item: Item) -> Any:
    return item["pk"]["S"], float(item["sk"]["N"])


@pytest.fixture(scope="module")
def engine(postgres_server: Postgres) -> Iterator[sa.Engine]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url, pool_size=20)
    upgrade(engine)
    yield engine
    engine.dispose()
    postgres_server.drop_database(url)


@pytest.fixture
def sides(engine: sa.Engine, dynamodb: Any, dynamodb_server: DynamoDB) -> Iterator[Sides]:
    name = f"things-{uuid.uuid4().hex[:8]}"
    mapping = models.mapping("things", name)
    create_unmapped(engine, mapping)
    triggers.install(engine, mapping)
    with engine.begin() as connection:
        connection.execute(sa.text(AUTHORITY), {"table": name})
    dynamodb.create_table(**shapes.create_request("things", name))
    yield Sides(engine, dynamodb, dynamodb_server.endpoint_url, mapping)
    dynamodb.delete_table(TableName=name)
    mapping.table.drop(engine)
    triggers.remove(engine, mapping)


# What goes wrong on the wire


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._content


def lost(_: Any) -> Any:
    raise ReadTimeoutError(endpoint_url="simulated")


def throttled(request: Any) -> Any:
    code = b'{"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"}'
    return AWSResponse(request.url, 400, {}, _Body(code))


def unanswered(request: Any) -> Any:
    """DynamoDB carries the request out; its answer is lost."""
    import urllib.request  # noqa: PLC0415

    sent = urllib.request.Request(
        request.url, data=request.body, headers=dict(request.headers), method="POST"
    )
    with contextlib.suppress(OSError), urllib.request.urlopen(sent, timeout=2):
        pass
    raise ReadTimeoutError(endpoint_url="simulated")


def sometimes(fault: Callable[[Any], Any], share: float) -> Callable[[Any], Any]:
    chance = random.Random(1)
    return lambda request: fault(request) if chance.random() < share else None


# Tests


def test_what_a_stranger_writes_in_sql_arrives(sides: Sides) -> None:
    sides.sql("INSERT INTO TABLE (pk, sk, note) SELECT 'p' || n, n, 'one' FROM generate_series(1, 250) n")
    with sides.sender() as sender:
        assert sender.drain(sides.name, timedelta(seconds=20))
        sides.assert_equal()
        sides.sql("UPDATE TABLE SET note = 'two' WHERE sk <= 100")
        sides.sql("DELETE FROM TABLE WHERE sk BETWEEN 50 AND 150")
        sides.sql("UPDATE TABLE SET sk = sk + 1000 WHERE sk = 200")
        assert sender.drain(sides.name, timedelta(seconds=20))
    sides.assert_equal()


@pytest.mark.parametrize("fault", [lost, unanswered, throttled])
def test_changes_arrive_whatever_is_lost_on_the_way(sides: Sides, fault: Callable[[Any], Any]) -> None:
    stop = threading.Event()
    with sides.sender(sometimes(fault, 0.2)) as first, sides.sender(sometimes(fault, 0.2)) as second:
        threads = [threading.Thread(target=sender.run, args=(stop,)) for sender in (first, second)]
        for thread in threads:
            thread.start()
        try:
            sides.churn(1)
            sides.churn(2)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    with sides.sender() as last:
        assert last.drain(sides.name, timedelta(seconds=20))
    sides.assert_equal()


WORKER = """
import sys, threading
from datetime import timedelta
import sqlalchemy as sa
from contract import models
from integration.test_sender import Sides

_, url, endpoint_url, name = sys.argv
sides = Sides(sa.create_engine(url), None, endpoint_url, models.mapping("things", name))
with sides.sender() as sender:
    print("ready", flush=True)
    sender.run(threading.Event())
"""


def test_a_worker_that_is_killed_is_replaced(sides: Sides) -> None:
    url = sides.engine.url.render_as_string(hide_password=False)
    tests = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    for seed in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER), url, sides.endpoint_url, sides.name],
            env={**os.environ, "PYTHONPATH": tests},
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            sides.churn(seed)
            process.send_signal(signal.SIGKILL)
    with sides.sender() as last:
        assert last.drain(sides.name, timedelta(seconds=20))
    sides.assert_equal()


def test_a_worker_that_is_stopped_and_goes_on_does_no_harm(sides: Sides) -> None:
    url = sides.engine.url.render_as_string(hide_password=False)
    tests = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), url, sides.endpoint_url, sides.name],
        env={**os.environ, "PYTHONPATH": tests},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        sides.churn(1)
        process.send_signal(signal.SIGSTOP)
        sides.churn(2, writes=50)
        with sides.sender() as last:
            assert last.drain(sides.name, timedelta(seconds=20))
            process.send_signal(signal.SIGCONT)
            sides.churn(3, writes=50)
            time.sleep(0.2)
            assert last.drain(sides.name, timedelta(seconds=20))
        process.kill()
    sides.assert_equal()


def test_a_request_whose_lease_ends_while_it_is_signed_does_not_leave(sides: Sides) -> None:
    sides.sql("INSERT INTO TABLE (pk, sk, note) VALUES ('p', 1, 'one')")
    with (
        sides.sender() as sender,
        dynamo_clients(
            endpoint_url=sides.endpoint_url,
            region="us-east-1",
            access_key_id="dualstore",
            secret_access_key="dualstore",
        ) as clients,
    ):
        watch(clients.writes)
        assert sender.drain(sides.name, timedelta(seconds=20))
        order: list[str] = []
        clients.writes.meta.events.register("request-created.dynamodb", lambda **_: order.append("signed"))

        def check() -> None:
            order.append("looked")
            raise LeaseOver

        with pytest.raises(LeaseOver), checked_last(check):
            clients.writes.delete_item(TableName=sides.name, Key={"pk": {"S": "p"}, "sk": {"N": "1"}})
        assert order == ["signed", "looked"]
    sides.assert_equal()


def test_a_row_that_dynamodb_refuses_does_not_hold_up_the_others(sides: Sides) -> None:
    with sides.engine.begin() as connection:
        connection.execute(
            sa.text(f"INSERT INTO \"{sides.name}\" (pk, sk, note, owner) VALUES ('p', 1, :note, :owner)"),
            {"note": "no key of an index may be empty", "owner": ""},
        )
    sides.sql("INSERT INTO TABLE (pk, sk, note) SELECT 'p' || n, n, 'one' FROM generate_series(1, 50) n")
    sides.sql("UPDATE TABLE SET dualstore_overflow = '{\"a\": 5}' WHERE pk = 'p7'")  # which makes no item
    with sides.sender() as sender:
        for _ in range(10):
            assert not sender.drain(sides.name, timedelta(seconds=2))
            depth = sender.watch(sides.name)
            if depth.entries == depth.refused:
                break
        assert (depth.entries, depth.refused) == (3, 3)  # two of them of the same row
        sides.sql("UPDATE TABLE SET owner = 'somebody' WHERE pk = 'p'")
        sides.sql("UPDATE TABLE SET dualstore_overflow = NULL WHERE pk = 'p7'")
        assert sender.drain(sides.name, timedelta(seconds=20))
    sides.assert_equal()
