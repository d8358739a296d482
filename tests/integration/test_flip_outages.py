"""PostgreSQL is the authority, and a server goes away: what callers see, and that nothing is lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dualstore import DualStore, Stage
from dualstore.flags import FileFlags
from dualstore.store import MigratedTable
from dualstore.testing.servers import DynamoDBServer, PostgresServer
from integration.deployment import Deployment, deployed, eventually, order_row
from integration.test_flip import agreed, ask, names, prepare
from integration.writing import NAME, item_of, key_of

REFUSALS = {"ServiceUnavailable", "InternalServerError"}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PostgresServer, DynamoDBServer]]:
    """Servers of this module's own, which it may stop."""
    with (
        PostgresServer(settings={"fsync": "off"}) as postgres,
        DynamoDBServer(data_directory=tmp_path_factory.mktemp("dynamodb")) as dynamodb,
    ):
        yield postgres, dynamodb


@pytest.fixture(scope="module")
def deployment(servers: tuple[PostgresServer, DynamoDBServer]) -> Iterator[Deployment]:
    postgres, dynamodb = servers
    with deployed(postgres.create_database(), dynamodb.client(), dynamodb.endpoint_url) as both:
        yield both


@pytest.fixture
def live(deployment: Deployment) -> Iterator[tuple[DualStore, MigratedTable, Any]]:
    with prepare(deployment) as (store, table, model):
        ask(table, store, Stage.LIVE)
        yield store, table, model


@contextmanager
def stopped(server: PostgresServer | DynamoDBServer) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


def test_while_postgresql_is_away_at_live_callers_see_client_errors_and_afterwards_all_goes_on(
    live: tuple[DualStore, MigratedTable, Any],
    deployment: Deployment,
    servers: tuple[PostgresServer, DynamoDBServer],
) -> None:
    store, table, _ = live
    client = store.client()
    for sk in range(5):
        client.put_item(TableName=table.physical, Item=item_of(sk, 1))
    operations = (
        lambda: client.put_item(TableName=table.physical, Item=item_of(0, 2)),
        lambda: client.get_item(TableName=table.physical, Key=key_of(0)),
        lambda: client.scan(TableName=table.physical),
        lambda: client.batch_get_item(RequestItems={table.physical: {"Keys": [key_of(0)]}}),
        lambda: client.transact_write_items(
            TransactItems=[{"Put": {"TableName": table.physical, "Item": item_of(1, 2)}}]
        ),
    )
    with stopped(servers[0]):
        for operation in operations:
            with pytest.raises(ClientError) as refused:
                operation()
            assert refused.value.response["Error"]["Code"] in REFUSALS

    def reads() -> bool:
        try:
            return bool(client.get_item(TableName=table.physical, Key=key_of(4))["Item"])
        except ClientError:
            return False

    eventually(reads)
    assert table.stage is Stage.LIVE
    client.put_item(TableName=table.physical, Item=item_of(4, 3))
    found = names(agreed(deployment, store, table))
    # A write that was refused as unavailable was not done; one of unknown outcome may have been.
    assert found == {0: found[0], 1: found[1], 2: "1", 3: "1", 4: "3"}
    assert {found[0], found[1]} <= {"1", "2"}


def test_while_dynamodb_is_away_at_live_writes_go_on_processes_start_and_it_catches_up_afterwards(
    live: tuple[DualStore, MigratedTable, Any],
    deployment: Deployment,
    servers: tuple[PostgresServer, DynamoDBServer],
) -> None:
    store, table, model = live
    client = store.client()
    for sk in range(10):
        client.put_item(TableName=table.physical, Item=item_of(sk, 0))
    agreed(deployment, store, table)
    with stopped(servers[1]):
        for sk in range(8):
            client.put_item(TableName=table.physical, Item=item_of(sk, 1))
            assert client.get_item(TableName=table.physical, Key=key_of(sk))["Item"] == item_of(sk, 1)
        client.delete_item(TableName=table.physical, Key=key_of(9))
        with deployment.store() as newcomer:
            newcomer.repository(model, order_row(table.mapping.table.name), name=NAME)
            newcomer.client().put_item(TableName=table.physical, Item=item_of(20, 1))
            assert client.get_item(TableName=table.physical, Key=key_of(20))["Item"] == item_of(20, 1)
        assert store._mirroring.outbox.depth(table.physical).entries >= 10
    found = agreed(deployment, store, table)
    assert names(found) == {**dict.fromkeys((*range(8), 20), "1"), 8: "0"}
    ask(table, store, Stage.SHADOW)
    assert names(agreed(deployment, store, table)) == names(found)


# Without flags


@pytest.fixture
def no_flags(tmp_path: Path) -> Iterator[FileFlags]:
    """Where no flag has a value: the file is not there."""
    with FileFlags(tmp_path / "gone.json") as flags:
        yield flags


def test_a_process_that_starts_at_live_without_flags_and_without_dynamodb_stays_at_live(
    live: tuple[DualStore, MigratedTable, Any],
    deployment: Deployment,
    servers: tuple[PostgresServer, DynamoDBServer],
    no_flags: FileFlags,
) -> None:
    _, table, model = live
    with stopped(servers[1]), deployment.store(no_flags) as newcomer:
        newcomer.repository(model, order_row(table.mapping.table.name), name=NAME)
        client, started = newcomer.client(), newcomer.table(NAME)
        assert started.stage is Stage.LIVE
        client.put_item(TableName=table.physical, Item=item_of(1, 1))
        assert client.get_item(TableName=table.physical, Key=key_of(1))["Item"] == item_of(1, 1)
        eventually(no_flags.problems.counts)  # the flags are looked at
        assert started.stage is Stage.LIVE


def test_a_process_that_starts_at_shadow_without_flags_and_without_postgresql_stays_at_shadow(
    deployment: Deployment, servers: tuple[PostgresServer, DynamoDBServer], no_flags: FileFlags
) -> None:
    with (
        prepare(deployment) as (_, table, model),
        stopped(servers[0]),
        deployment.store(no_flags) as newcomer,
    ):
        newcomer.repository(model, order_row(table.mapping.table.name), name=NAME)
        client, started = newcomer.client(), newcomer.table(NAME)
        assert (started.stage, started.dials.postgres_read_percent) == (Stage.SHADOW, 100.0)
        client.put_item(TableName=table.physical, Item=item_of(1, 1))
        assert client.get_item(TableName=table.physical, Key=key_of(1))["Item"] == item_of(1, 1)
        eventually(no_flags.problems.counts)  # the flags are looked at
        assert (started.stage, started.dials.postgres_read_percent) == (Stage.SHADOW, 100.0)
