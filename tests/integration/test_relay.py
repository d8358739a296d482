"""The relay between a real stream and a real PostgreSQL."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dualstore import schema
from dualstore.control import PostgresRole
from dualstore.items import Item
from dualstore.replication.relay import Relay
from dualstore.replication.stamps import new_stamp
from dualstore.stages import Stage
from dualstore.stores.postgres_control import PostgresControl
from dualstore.testing.servers import DynamoDB, Postgres
from integration.relaying import EPOCH, Relaying, relaying

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def url(postgres_server: Postgres) -> Iterator[str]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    schema.upgrade(engine)
    engine.dispose()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def both(url: str, dynamodb: Any, dynamodb_server: DynamoDB, table_name: str) -> Iterator[Relaying]:
    dynamodb.create_table(
        TableName=table_name,
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    dynamodb.get_waiter("table_exists").wait(TableName=table_name)
    with relaying(table_name, url, dynamodb_server.endpoint_url) as both:
        schema.create_unmapped(both.engine, both.mapping)
        PostgresControl(both.engine).raise_fence(table_name, epoch=EPOCH, role=PostgresRole.MIRROR)
        yield both


def key(number: int = 1) -> Item:
    return {"pk": {"S": "ann"}, "sk": {"N": str(number)}}


def put(both: Relaying, number: int = 1, *, stamp: bytes | None = None, **rest: Any) -> Item:
    """A PutItem past dualstore; with a stamp it looks like one of dualstore's that was not mirrored."""
    item = {**key(number), **rest, **({} if stamp is None else {"_dsv": {"B": stamp}})}
    both.clients.writes.put_item(TableName=both.table, Item=item)
    return item


def eventually(holds: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)


@contextmanager
def running(relay: Relay) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_plain_puts_updates_and_deletions_are_healed(both):
    stamp = new_stamp()
    mirrored = put(both, 2, stamp=stamp, v={"S": "1"})
    assert both.postgres.write_direct(
        both.table, key(2), mirrored, stamp=stamp, predecessor=None, epoch=EPOCH
    )
    put(both, 1, v={"M": {"n": {"N": "1.50"}, "b": {"B": b"\x00\xff"}}}, s={"SS": ["b", "a"]})
    relay = both.relay()
    assert relay.round()
    assert both.counted("dualstore.relay.records") == {"settled": 1, "shown": 1}
    both.clients.writes.update_item(
        TableName=both.table,
        Key=key(2),
        UpdateExpression="SET v = :v",
        ExpressionAttributeValues={":v": {"S": "2"}},
    )
    assert relay.round()
    assert both.in_postgres() == both.in_dynamodb()
    both.clients.writes.delete_item(TableName=both.table, Key=key(2))
    assert relay.round()
    assert both.in_postgres() == both.in_dynamodb()
    assert len(both.in_postgres()) == 1
    kinds = {kind: seen.count for kind, seen in relay.rogues(both.table).items()}
    assert kinds == {"unstamped": 1, "stamp_kept": 1, "deleted": 1}


def test_a_table_is_drained_once_its_writers_have_stopped(both):
    relay = both.relay()
    with running(relay):
        for number in range(200):
            put(both, number, v={"S": "1"})
        moment = relay.now()
        eventually(lambda: relay.drained_since(both.table, moment))
        assert both.in_postgres() == both.in_dynamodb()
    assert not relay.drained_since(both.table, relay.now())


@contextmanager
def program(both: Relaying, holder: str) -> Iterator[subprocess.Popen[bytes]]:
    """A relay in a process of its own."""
    url = both.engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "integration.relaying",
            holder,
            both.table,
            url,
            both.clients.reads.meta.endpoint_url,
        ],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


def test_a_relay_that_was_killed_is_followed_by_another_that_misses_nothing(both):
    for number in range(500):
        put(both, number, v={"S": "1"})
    with program(both, "first") as first:
        eventually(lambda: len(both.in_postgres()) > 60)
        first.send_signal(signal.SIGKILL)
        first.wait()
    for number in range(500, 1_000):
        put(both, number, v={"S": "1"})
    assert len(both.in_postgres()) <= 500
    for number in range(0, 1_000, 3):
        both.clients.writes.delete_item(TableName=both.table, Key=key(number))
    second = both.relay(holder="second")
    with running(second):
        moment = second.now()
        eventually(lambda: second.drained_since(both.table, moment))
    assert both.in_postgres() == both.in_dynamodb()
    assert both.counted("dualstore.relay.records")["settled"] > 0
    assert both.suspected == []


def test_two_relays_share_a_table_and_either_goes_on_alone(both):
    first, second = both.relay(holder="first"), both.relay(holder="second")
    with running(second):
        with first, running(first):
            for number in range(150):
                put(both, number, v={"S": "1"})
        for number in range(100, 300):
            put(both, number, v={"S": "2"})
        moment = second.now()
        eventually(lambda: second.drained_since(both.table, moment))
    assert both.in_postgres() == both.in_dynamodb()


def test_while_postgres_is_the_authority_a_rogue_change_is_put_in_its_outbox(both):
    both.record = type(both.record)(both.table, stage=Stage.LIVE, epoch=EPOCH + 1, loaded=True)
    assert PostgresControl(both.engine).install(both.record)
    put(both, v={"S": "1"})
    assert both.relay().round()
    with both.engine.connect() as connection:
        rows = connection.execute(
            sa.text("SELECT key, done_at FROM dualstore.outbox WHERE table_name = :t"), {"t": both.table}
        ).all()
    assert [tuple(row) for row in rows] == [(["ann", "1"], None)]
    assert both.in_postgres() == []


def test_a_stream_that_was_switched_off_and_on_again_is_a_gap(both):
    put(both, v={"S": "1"})
    relay = both.relay()
    assert relay.round()
    specification: dict[str, Any] = {"StreamEnabled": False}
    both.clients.writes.update_table(TableName=both.table, StreamSpecification=specification)
    specification = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    both.clients.writes.update_table(TableName=both.table, StreamSpecification=specification)
    put(both, 2, v={"S": "1"})
    assert both.relay(holder="second").round()
    assert both.counted("dualstore.relay.gaps") == {"replaced": 1}
    assert len(both.suspected) == 1
    assert both.in_postgres() == both.in_dynamodb()
