"""The backfill between two real servers: many pages, real kills, and writers at work."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bulk_sides import BulkSides, bulk_sides, create_table, order
from dualstore import Stage
from dualstore.backfill import Phase
from dualstore.backfill.worker import PACE
from dualstore.errors import ConfigurationError
from dualstore.flags import StaticFlags
from dualstore.stores import postgres_load
from dualstore.stores.dynamo import DynamoStore
from dualstore.testing.servers import PostgresServer
from integration.deployment import Deployment, mirrored

_PROGRAM = """
import sys
import boto3
from bulk_sides import bulk_sides_at
from dualstore.backfill.worker import PACE
from dualstore.stores.dynamo import DynamoStore

url, endpoint, table = sys.argv[1:]
client = boto3.client("dynamodb", endpoint_url=endpoint)
with bulk_sides_at(url, DynamoStore(reads=client, writes=client), table) as sides:
    print("started", flush=True)
    sides.backfill(settings={PACE: 400}, page_items=20).run()
"""


@pytest.fixture
def store(dynamodb, table_name):
    create_table(dynamodb, table_name)
    return DynamoStore(reads=dynamodb, writes=dynamodb)


@pytest.fixture
def sides(bulk_url, store, table_name):
    """Both databases for real."""
    with bulk_sides(bulk_url, store, table_name) as both:
        yield both


def fill(client, table, items):
    for begin in range(0, len(items), 25):
        requests = [{"PutRequest": {"Item": item}} for item in items[begin : begin + 25]]
        answer = client.batch_write_item(RequestItems={table: requests})
        assert not answer.get("UnprocessedItems")


def test_a_table_of_many_pages_of_a_megabyte_is_copied_whole(sides: BulkSides, dynamodb):
    text = "x" * 3000
    fill(dynamodb, sides.table, [order(n, text={"S": text}) for n in range(1200)])
    pages = []

    result = sides.backfill(page_items=None, segments=2, progress=pages.append).run()

    assert result.totals.bytes > 3 * 1024 * 1024
    assert len([page for page in pages if page.phase is Phase.COPYING]) >= 4
    assert (result.totals.items, result.totals.inserted) == (1200, 1200)
    sides.assert_equal()
    assert sides.verify().run().proven


def test_a_backfill_whose_process_is_killed_goes_on_in_another(
    sides: BulkSides, dynamodb, dynamodb_server, table_name
):
    fill(dynamodb, table_name, [order(n) for n in range(600)])
    url = sides.engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, url, dynamodb_server.endpoint_url, table_name],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout.readline() == b"started\n"
            deadline = time.monotonic() + 20
            while len(sides.rows_on_postgres()) < 100:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
    run = sides.runs.latest_unfinished("backfill", table_name)
    before = sum(piece.items for piece in sides.runs.pieces(run))
    assert 100 <= before < 600

    result = sides.backfill().run()

    assert result.run_id == run.id
    assert (result.totals.items, result.totals.inserted) == (600, 600)
    sides.assert_equal()


def test_a_postgres_that_crashes_in_the_middle_is_waited_for(store, dynamodb, table_name):
    fill(dynamodb, table_name, [order(n) for n in range(300)])
    try:
        server = PostgresServer(settings={"fsync": "off"})
        server.__enter__()
    except ConfigurationError as error:
        pytest.skip(str(error))
    try:
        crashed = threading.Event()

        def crash(progress):
            if progress.items > 100 and not crashed.is_set():
                crashed.set()
                server.restart("immediate")

        with bulk_sides(server.create_database(), store, table_name) as sides:
            result = sides.backfill(progress=crash).run()

            assert crashed.is_set()
            assert (result.totals.items, result.totals.inserted) == (300, 300)
            sides.assert_equal()
    finally:
        server.__exit__(None, None, None)


def test_hot_keys_deleted_and_created_again_during_the_copy_end_equal(sides: BulkSides, dynamodb):
    fill(dynamodb, sides.table, [order(n) for n in range(700)])
    stop = threading.Event()
    failures, writes = [], [0, 0]

    def write(writer):
        """Two writers never share a key: what each wrote last is what must be there."""
        hot = range(writer, 700, 70)
        try:
            while not stop.is_set():
                for n in hot:
                    sides.dual_write(order(n), None)
                    sides.dual_write(order(n), order(n, name={"S": f"again {writes[writer]}"}))
                    if n % 3 == 0:
                        sides.dual_write(order(n), None)
                    writes[writer] += 1
        except BaseException as error:
            failures.append(error)
            raise

    writers = [threading.Thread(target=write, args=(each,)) for each in range(2)]
    for each in writers:
        each.start()
    try:
        # Whole segments: dynoxide does not go on behind an item that is gone (docs/reference/stand-ins.md).
        result = sides.backfill(segments=28, page_items=None, settings={PACE: 300}).run()
    finally:
        stop.set()
        for each in writers:
            each.join()

    assert not failures
    assert min(writes) > 10
    assert result.succeeded
    sides.assert_equal()
    verification = sides.verify().run()
    assert verification.proven
    assert verification.items_dynamodb == verification.rows_postgres


@pytest.mark.parametrize(
    ("unmirrored", "mirrored_again"),
    [
        ({"stage": Stage.OFF}, {"stage": Stage.DUALWRITE}),
        ({"mirror_percent": 0.0}, {"mirror_percent": 100.0}),
    ],
    ids=["off", "mirror-percent 0"],
)
def test_an_item_deleted_while_its_key_was_not_mirrored_is_gone_after_the_next_backfill(
    deployment: Deployment, monkeypatch, unmirrored, mirrored_again
):
    monkeypatch.setattr(postgres_load, "_ROW_PAGE_ROWS", 10)
    model, row = deployment.table()
    flags = StaticFlags()
    with deployment.store(flags) as store:
        store.bind(model, row, name="orders")
        flags.set("orders", stage=Stage.DUALWRITE)
        table = store.table("orders")
        table.wait_until(lambda record: record.mirrors_every_key)
        for sk in range(25):
            model("before", sk).save()
        assert table.backfill(segments=2).succeeded
        flags.set("orders", **unmirrored)
        table.wait_until(lambda record: not record.mirrors_every_key)
        for sk in (0, 9, 10, 24):
            model("before", sk).delete(add_version_condition=False)
        model("after", 1).save()
        assert len(mirrored(store, table.physical, "before")) == 25
        flags.set("orders", **mirrored_again)
        table.wait_until(lambda record: record.mirrors_every_key)

        result = table.backfill(segments=2)

        assert result.succeeded
        assert (result.totals.rows_looked_up, result.totals.settled) == (25, 4)
        assert len(mirrored(store, table.physical, "before")) == 21
        assert table.verify(segments=1, workers=1).proven
