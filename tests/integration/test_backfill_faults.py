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
from dualstore.errors import StorageFull
from dualstore.replication.settle import settle_many
from dualstore.stores.dynamo import DynamoStore
from dualstore.stores.ledger import Wish
from dualstore.stores.source_clients import SourceClients
from dualstore.testing.servers import PostgresServer
from integration.faulty_dynamo import FAULTS, bad_line
from integration.test_backfill_live import fill
from integration.test_backfill_processes import LOOK, assert_exact, equipment, in_thread, opening, until

ITEMS = int(os.environ.get("DUALSTORE_KILL_ITEMS", "240"))


@pytest.fixture
def sides(bulk_url, dynamodb, table_name):
    create_table(dynamodb, table_name)
    with bulk_sides(bulk_url, DynamoStore(reads=dynamodb, writes=dynamodb), table_name) as both:
        fill(dynamodb, table_name, [order(n) for n in range(ITEMS)])
        yield both


def fill_disk(sides: BulkSides, table: str, when: str = "true") -> None:
    """Have writes of a table find the disk full."""
    with sides.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE OR REPLACE FUNCTION shop.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table}"
            f" FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION shop.refuse()"
        )


def make_room(sides: BulkSides, *tables: str) -> None:
    with sides.engine.begin() as connection:
        for table in tables:
            connection.exec_driver_sql(f"DROP TRIGGER full_disk ON {table}")


def test_a_full_disk_pauses_the_run_which_says_what_to_do_and_goes_on_when_there_is_room(sides: BulkSides):
    fill_disk(sides, "shop.orders")
    seen: list[str | None] = []

    thread, ended = in_thread(
        sides.backfill(equipment=equipment(sides), progress=lambda done: seen.append(done.paused_by))
    )
    said = until(lambda: next(filter(None, seen), None))
    run = sides.runs.latest_unfinished("backfill", sides.table)
    pieces = sides.runs.pieces(run)
    make_room(sides, "shop.orders")
    sides.runs.ask(run.id, Wish.GO, by="somebody")
    thread.join(30)

    assert "no room left on its disk" in said
    assert "SQLSTATE 53100" in said
    assert "dualstore backfill resume" in said
    assert [piece.failures for piece in pieces] == [0] * len(pieces)
    assert ended[0].succeeded
    assert ended[0].totals.failed == 0
    assert_exact(sides, run.id)


def test_where_there_is_no_room_even_to_pause_the_backfill_ends_and_the_run_is_gone_on_with(sides: BulkSides):
    fill_disk(sides, "shop.orders")
    fill_disk(sides, "dualstore.runs", "NEW.wish = 'pause'")

    with pytest.raises(StorageFull, match="53100"):
        sides.backfill(equipment=equipment(sides)).run()
    run = sides.runs.latest_unfinished("backfill", sides.table)
    make_room(sides, "shop.orders", "dualstore.runs")
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
