"""A backfill on Spark: export files by a job of `local[2]`, exactly once if tasks are killed or doubled."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest

from bulk_sides import EPOCH, BulkSides, bulk_sides, bulk_sides_at, create_table, order
from dualstore.backfill import Backfill, Equipment
from dualstore.backfill.sources import SourceContext, source_from, source_of
from dualstore.backfill.spark import Spark, copy_pieces, shipped, spark_context
from dualstore.errors import Unavailable
from dualstore.flags import Requested
from dualstore.stages import Stage
from dualstore.stores.dynamo import DynamoStore
from dualstore.stores.ledger import PieceState
from dualstore.stores.postgres_load import PostgresLoad
from dualstore.stores.source_clients import SourceClients
from exports import full_export
from integration.commands import CREDENTIALS, CommandLine
from integration.deployment import bring_to
from integration.test_backfill_live import fill
from integration.test_backfill_processes import LEASE, LOOK, _is_first, kill_at
from integration.writing import NAME, item_of

if "DUALSTORE_SPARK" not in os.environ:
    pytest.skip("needs PySpark and Java, and takes a minute: nox -s spark", allow_module_level=True)

pytestmark = [
    # Py4J leaves its sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Each attempt of a task starts a Python of its own, which imports all of dualstore.
    pytest.mark.timeout(900),
]

TESTS = str(Path(__file__).parents[1])
FILES, ITEMS_OF_FILE = 6, 100
ITEMS = FILES * ITEMS_OF_FILE
EXPORTED = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    assert shutil.which("java"), "there is no Java on the PATH"
    os.environ |= {
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")]),
        # A task that fails is run again, as on a cluster.
        "PYSPARK_SUBMIT_ARGS": "--master local[2,4] --conf spark.ui.enabled=false pyspark-shell",
    }
    with spark_context("orders") as context:
        yield context


@contextmanager
def opening(
    url: str,
    endpoint: str,
    table: str,
    *,
    greeting: str,
    folder: str,
    killed: tuple[str, int] | None,
    marker: str,
) -> Iterator[Equipment]:
    """What a task works with; the first process that opens it is killed at a step, and no other."""
    client = boto3.client("dynamodb", endpoint_url=endpoint)
    assert shipped(greeting).read_text() == "to every executor"
    with (
        bulk_sides_at(url, DynamoStore(reads=client, writes=client), table) as sides,
        SourceClients(endpoint_url=endpoint) as clients,
    ):
        if killed is not None and _is_first(marker):
            kill_at(*killed)
        yield equipment(sides, clients, folder)


def equipment(sides: BulkSides, clients: SourceClients, folder: str) -> Equipment:
    context = SourceContext(sides.mapping.shape, clients)
    source = source_of(source_from([folder], context).parameters(), context)
    load = PostgresLoad(sides.engine, sides.mapping, epoch=EPOCH, lease=LEASE)
    return sides.equipment(source=source, load=load, lease=LEASE)


@pytest.fixture
def sides(bulk_url: str, dynamodb: Any, table_name: str) -> Iterator[BulkSides]:
    create_table(dynamodb, table_name)
    with bulk_sides(bulk_url, DynamoStore(reads=dynamodb, writes=dynamodb), table_name) as both:
        fill(dynamodb, table_name, [order(n) for n in range(ITEMS)])
        yield both


@pytest.fixture
def folder(sides: BulkSides, tmp_path: Path) -> str:
    contents = [[order(n) for n in range(ITEMS) if n % FILES == file] for file in range(FILES)]
    return full_export(sides.table, contents, at=EXPORTED).write(tmp_path)


@pytest.fixture
def crew(
    sides: BulkSides, spark: Any, dynamodb_server: Any, folder: str, tmp_path: Path
) -> Callable[..., Spark]:
    greeting = tmp_path / sides.table  # Spark sends a file of one name once
    greeting.write_text("to every executor")

    def make(killed: tuple[str, int] | None = None) -> Spark:
        url = sides.engine.url.render_as_string(hide_password=False)
        opens = partial(
            opening,
            url,
            dynamodb_server.endpoint_url,
            sides.table,
            greeting=greeting.name,
            folder=folder,
            killed=killed,
            marker=str(tmp_path / "killed"),
        )
        return Spark(spark, opens, files=(greeting,), look=LOOK)

    return make


def backfill(sides: BulkSides, crew: Any, folder: str, endpoint: str, **options: Any) -> Backfill:
    return sides.backfill(
        equipment=equipment(sides, SourceClients(endpoint_url=endpoint), folder),
        crew=crew,
        dual_writes_since=EXPORTED - timedelta(hours=1),
        **options,
    )


def assert_exact(sides: BulkSides, run_id: Any) -> None:
    sides.assert_equal()
    shared = [piece for piece in sides.runs.pieces(sides.runs.find(run_id)) if piece.description is not None]
    assert [(piece.state, piece.items, piece.inserted) for piece in shared] == [
        (PieceState.DONE, ITEMS_OF_FILE, ITEMS_OF_FILE)
    ] * FILES


@pytest.mark.parametrize(
    "step",
    [
        None,
        "in the middle of COPY",
        "after the merge, before the checkpoint",
        "after the checkpoint, before COMMIT",
    ],
)
def test_each_file_is_a_task_and_one_that_is_killed_is_run_again(sides, crew, folder, dynamodb_server, step):
    made = crew(None if step is None else (step, 1))

    result = backfill(sides, made, folder, dynamodb_server.endpoint_url).run()

    assert (Path(folder).parents[1] / "killed").exists() is (step is not None)
    assert result.succeeded
    assert_exact(sides, result.run_id)


class Doubled(Spark):
    """Runs every task twice at once, as speculative execution does."""

    def _run_job(self, run_id, pieces, report):
        twice = [number for number in pieces for _ in range(2)]
        task = partial(copy_pieces, self.opening, run_id, self.look)
        self.context.parallelize(twice, len(twice)).foreachPartition(task)


@pytest.mark.parametrize("step", [None, "after the merge, before the checkpoint"])
def test_tasks_that_are_run_twice_at_once_load_nothing_twice(sides, crew, folder, dynamodb_server, step):
    made = crew(None if step is None else (step, 1))
    doubled = Doubled(made.context, made.opening, made.files, made.look)

    result = backfill(sides, doubled, folder, dynamodb_server.endpoint_url).run()

    assert result.succeeded
    assert_exact(sides, result.run_id)


def test_a_job_that_fails_leaves_a_run_that_is_gone_on_with(sides, crew, folder, dynamodb_server, tmp_path):
    spoilt = crew()
    (tmp_path / sides.table).write_text("spoilt")
    with pytest.raises(Unavailable, match="log of its executors"):
        backfill(sides, spoilt, folder, dynamodb_server.endpoint_url).run()
    begun = sides.runs.latest_unfinished("backfill", sides.table)

    result = sides.backfill(
        equipment=equipment(sides, SourceClients(endpoint_url=dynamodb_server.endpoint_url), folder),
        workers=1,
    ).run()

    assert result.run_id == begun.id
    assert_exact(sides, result.run_id)


MODELS = """
from integration.deployment import order_model, order_row
Order, OrderRow = order_model({table!r}, {endpoint!r}), order_row({sql_table!r})
"""


def test_the_command_is_the_driver_and_sends_its_configuration(deployment, dynamodb_server, tmp_path):
    model, row = deployment.table()
    items = [item_of(n, n) for n in range(50)]
    with deployment.store() as store:
        store.bind(model, row, name=NAME)
        table = bring_to(store, NAME, Requested(stage=Stage.DUALWRITE))
        sql_table = table.physical.replace("-", "_")
        for item in items:
            deployment.dynamodb.put_item(TableName=table.physical, Item=item)
        models = MODELS.format(
            table=table.physical, endpoint=dynamodb_server.endpoint_url, sql_table=sql_table
        )
        (tmp_path / "spark_models.py").write_text(models)
        line = CommandLine(deployment, table.physical, tmp_path)
        config = tmp_path / "dualstore.toml"
        config.write_text(line._configuration(()).replace(line._models(), "spark_models"))
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=2)
        export = full_export(table.physical, [items[::2], items[1::2]], at=at).write(tmp_path)
        command = ["backfill", "run", NAME, "--engine", "spark", "--source", export, "--config", str(config)]
        done = subprocess.run(
            [sys.executable, "-c", "from dualstore.cli import main; main()", *command],
            env=os.environ
            | CREDENTIALS
            | {"PYTHONPATH": os.pathsep.join([str(tmp_path), TESTS, os.environ.get("PYTHONPATH", "")])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        store.unbind(model)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 items read, 50 inserted" in done.stdout
    with deployment.engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT count(*) FROM {sql_table}").scalar() == 50
