"""A verification on Spark: exactly the planted faults, if tasks are killed and run again."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
import sqlalchemy as sa

from bulk_sides import LEASE, BulkSides, bulk_sides, bulk_sides_at, create_table, order
from dualstore.backfill.sources import SourceContext, source_from
from dualstore.backfill.spark import Spark, spark_context
from dualstore.flags import Requested
from dualstore.items import key_hash
from dualstore.stages import Stage
from dualstore.stores.dynamo import DynamoStore
from dualstore.stores.ledger import PieceState
from dualstore.stores.postgres_fingerprints import ROWS
from dualstore.stores.source_clients import SourceClients
from dualstore.verify import BulkVerify, Finding, compare_pieces
from exports import full_export
from integration.commands import CREDENTIALS, CommandLine
from integration.deployment import Deployment, bring_to
from integration.test_backfill_live import fill
from integration.test_backfill_processes import _is_first
from integration.test_bulk_verify import found, load, plan
from integration.test_verify_commands import asked, execute, importable, sql_table
from integration.writing import NAME, item_of

if "DUALSTORE_SPARK" not in os.environ:
    pytest.skip("needs PySpark and Java, and takes a minute: nox -s spark", allow_module_level=True)

# Py4J leaves its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TESTS = str(Path(__file__).parents[1])
LOOK = timedelta(milliseconds=50)
FILES, ITEMS = 4, 400
COMMITS = (None, 3, 6)
"""At which of its commits the first worker that opens anything is killed, before it."""


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    assert shutil.which("java"), "there is no Java on the PATH"
    os.environ |= {
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")]),
        "PYSPARK_SUBMIT_ARGS": "--master local[2,4] --conf spark.ui.enabled=false pyspark-shell",
    }
    with spark_context("verify orders") as context:
        yield context


@contextmanager
def verification(url: str, endpoint: str, table: str, folder: str) -> Iterator[BulkVerify]:
    client = boto3.client("dynamodb", endpoint_url=endpoint)
    with (
        bulk_sides_at(url, DynamoStore(reads=client, writes=client), table) as sides,
        SourceClients(endpoint_url=endpoint) as clients,
    ):
        source = source_from([folder], SourceContext(sides.mapping.shape, clients))
        yield plan(sides, source, at_once=False, lease=LEASE)  # type: ignore[arg-type]


@contextmanager
def opening(*, killed_at: int | None, marker: str, **described: str) -> Iterator[BulkVerify]:
    """What a task works with; the first process that opens it is killed, and no other."""
    with verification(**described) as opened:
        if killed_at is not None and _is_first(marker):
            left = [killed_at]

            def count(_connection: object) -> None:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

            sa.event.listen(opened.runs._engine, "commit", count)
        yield opened


@pytest.fixture
def sides(bulk_url: str, dynamodb: Any, table_name: str) -> Iterator[BulkSides]:
    create_table(dynamodb, table_name)
    with bulk_sides(bulk_url, DynamoStore(reads=dynamodb, writes=dynamodb), table_name) as both:
        fill(dynamodb, table_name, [order(n) for n in range(ITEMS)])
        yield both


@pytest.mark.parametrize("killed_at", COMMITS)
def test_each_piece_is_a_task_and_one_that_is_killed_is_run_again(
    sides: BulkSides, spark: Any, dynamodb_server: Any, tmp_path: Path, killed_at: int | None
) -> None:
    load(sides, [order(n) for n in range(ITEMS)])
    sides.mirror(order(1), None)
    sides.mirror(order(2), order(2, name={"S": "damaged"}))
    sides.mirror(order(1000), order(1000))
    contents = [[order(n) for n in range(ITEMS) if n % FILES == file] for file in range(FILES)]
    at = datetime.now(UTC).replace(microsecond=0)
    described = {
        "url": sides.engine.url.render_as_string(hide_password=False),
        "endpoint": dynamodb_server.endpoint_url,
        "table": sides.table,
        "folder": full_export(sides.table, contents, at=at).write(tmp_path),
    }
    opens = partial(opening, killed_at=killed_at, marker=str(tmp_path / "killed"), **described)
    crew = Spark(spark, opens, look=LOOK, working=compare_pieces)

    with verification(**described) as driver:
        result = BulkVerify(**{**vars(driver), "crew": crew}).run()

    assert (tmp_path / "killed").exists() is (killed_at is not None)
    keys = sides.mapping.shape.keys
    assert found(result) == {
        (key_hash(keys, order(1)), Finding.MISSING_ON_POSTGRES, ()),
        (key_hash(keys, order(2)), Finding.VALUE, ("name",)),
        (key_hash(keys, order(1000)), Finding.MISSING_ON_DYNAMODB, ()),
    }
    assert (result.items_dynamodb, result.equal) == (ITEMS, ITEMS - 2)
    pieces = sides.runs.pieces(sides.runs.find(result.run_id))  # type: ignore[arg-type]
    of_items = [piece.items for piece in pieces if ROWS not in (piece.description or {})]
    assert of_items == [ITEMS // FILES] * FILES
    assert {piece.state for piece in pieces} == {PieceState.COPIED}
    assert len(pieces) > FILES


def test_the_command_is_the_driver_of_the_job(deployment: Deployment, tmp_path: Path) -> None:
    model, row = deployment.table()
    items = [item_of(n, n) for n in range(50)]
    with deployment.store() as store:
        store.bind(model, row, name=NAME)
        table = bring_to(store, NAME, Requested(stage=Stage.DUALWRITE))
        for item in items:
            deployment.dynamodb.put_item(TableName=table.physical, Item=item)
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=2)
        export = full_export(table.physical, [items[::2], items[1::2]], at=at).write(tmp_path)
        assert table.backfill(segments=1, workers=1).succeeded
        execute(deployment, f"UPDATE {sql_table(table)} SET name = 'damaged' WHERE sk = 3")
        importable(table, deployment, tmp_path)
        config = tmp_path / "dualstore.toml"
        config.write_text(CommandLine(deployment, table.physical, tmp_path)._configuration(()))
        command = ["verify", NAME, "--engine", "spark", "--source", export, "--config", str(config)]
        done, repaired = (
            subprocess.run(
                [sys.executable, "-c", "from dualstore.cli import main; main()", *command, *more],
                env=os.environ
                | CREDENTIALS
                | {"PYTHONPATH": os.pathsep.join([str(tmp_path), TESTS, os.environ.get("PYTHONPATH", "")])},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            for more in ([], ["--repair"])
        )
        workers = asked(
            deployment,
            "SELECT DISTINCT worker FROM dualstore.run_pieces JOIN dualstore.runs ON id = run_id"
            f" WHERE kind = 'verify' AND table_name = '{table.physical}'",
        )
        store.unbind(model)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "49 equal, 1 different, 0 repaired" in done.stdout
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert "49 equal, 1 different, 1 repaired" in repaired.stdout
    assert workers
    assert all("-" in worker.rpartition(":")[2] for worker in workers)  # a task's, not a thread's
