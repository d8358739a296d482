"""A backfill whose databases fail: DynamoDB over a bad line, a full disk, a PostgreSQL that crashes."""

import os
import threading
from datetime import timedelta
from functools import partial

import boto3
import pytest
from botocore.config import Config

from bulk_sides import EPOCH, BulkSides, bulk_sides, create_table, order
from dualstore.backfill import Processes
from dualstore.backfill.sources import ScanTuning, SourceContext, source_from
from dualstore.errors import Unavailable
from dualstore.replication.settle import settle_many
from dualstore.stores.dynamo import DynamoStore
from dualstore.stores.source_clients import SourceClients
from dualstore.testing.servers import PostgresServer
from integration.faulty_dynamo import FAULTS, bad_line
from integration.test_backfill_live import fill
from integration.test_backfill_processes import LOOK, assert_exact, equipment, opening

ITEMS = int(os.environ.get("DUALSTORE_KILL_ITEMS", "240"))


@pytest.fixture
def sides(postgres_url, dynamodb, table_name):
    create_table(dynamodb, table_name)
    with bulk_sides(postgres_url, DynamoStore(reads=dynamodb, writes=dynamodb), table_name) as both:
        fill(dynamodb, table_name, [order(n) for n in range(ITEMS)])
        yield both


def fill_disk(sides: BulkSides, *, writes: int) -> None:
    """Have so many writes of the SQL table find the disk full."""
    with sides.engine.begin() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE shop.refused")
        connection.exec_driver_sql(
            "CREATE FUNCTION shop.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF nextval('shop.refused') <= {writes} THEN"
            " RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END IF;"
            " RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER full_disk AFTER INSERT ON shop.orders EXECUTE FUNCTION shop.refuse()"
        )


def test_a_disk_that_is_full_for_a_while_is_waited_for_and_nothing_is_put_aside(sides: BulkSides):
    fill_disk(sides, writes=4)

    result = sides.backfill(equipment=equipment(sides)).run()

    assert result.succeeded
    assert result.totals.failed == 0
    assert_exact(sides, result.run_id)


def test_a_disk_that_stays_full_ends_the_backfill_and_the_run_goes_on_when_there_is_room(sides: BulkSides):
    fill_disk(sides, writes=1_000_000)

    with pytest.raises(Unavailable, match="53100"):
        sides.backfill(equipment=equipment(sides, patience=timedelta(milliseconds=200))).run()
    run = sides.runs.latest_unfinished("backfill", sides.table)
    with sides.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER full_disk ON shop.orders")
    result = sides.backfill(equipment=equipment(sides)).run()

    assert result.run_id == run.id
    assert result.succeeded
    assert_exact(sides, result.run_id)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
def test_throttling_server_errors_and_cut_connections_lose_nothing(
    sides: BulkSides, dynamodb_server, together
):
    differing = range(0, ITEMS, 20)
    for n in differing:
        sides.mirror(order(n), order(n, name={"S": "an older image"}))
    with bad_line(dynamodb_server.endpoint_url, "Scan", "GetItem", "BatchGetItem") as (url, done):
        once = Config(retries={"total_max_attempts": 1})
        client = boto3.client("dynamodb", endpoint_url=url, config=once)
        authority = DynamoStore(reads=client, writes=client)
        through = BulkSides(sides.mapping, sides.engine, authority, sides.postgres)
        with SourceClients(endpoint_url=url, region="us-east-1") as clients:
            context = SourceContext(sides.mapping.shape, clients)
            source = source_from(["scan"], context, scan=ScanTuning(segments=8))
            many = partial(settle_many, sides.postgres, authority, sides.mapping.shape, epoch=EPOCH)
            works_with = equipment(
                through,
                source=source,
                settle_many=many if together else None,
                backoff=timedelta(milliseconds=20),
            )
            result = through.backfill(equipment=works_with).run()

    assert result.succeeded
    assert result.totals.settled == len(differing)
    assert {fault for operation, fault in done if operation == "Scan"} == set(FAULTS)
    if not together:
        assert {fault for operation, fault in done if operation == "GetItem"} == set(FAULTS)
    assert result.totals.items == ITEMS
    sides.assert_equal()


@pytest.mark.skipif(
    "DUALSTORE_KILL_ITEMS" not in os.environ, reason="the larger volume: nox -s backfill-kill"
)
def test_processes_outlast_a_postgres_that_crashes(dynamodb, dynamodb_server, table_name):
    create_table(dynamodb, table_name)
    fill(dynamodb, table_name, [order(n) for n in range(ITEMS)])
    crashed = threading.Event()
    with PostgresServer() as server:
        url = server.create_database()

        def crash(progress):
            if progress.items > ITEMS // 10 and not crashed.is_set():
                crashed.set()
                server.restart("immediate")

        with bulk_sides(url, DynamoStore(reads=dynamodb, writes=dynamodb), table_name) as sides:
            opens = partial(opening, url, dynamodb_server.endpoint_url, table_name, None, "")
            crew = Processes(2, opens, look=LOOK)
            result = sides.backfill(equipment=equipment(sides), crew=crew, progress=crash).run()

            assert crashed.is_set()
            assert result.succeeded
            assert_exact(sides, result.run_id)
