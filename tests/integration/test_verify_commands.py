"""`dualstore verify` by several processes, and against an export once PostgreSQL decides."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dualstore.backfill.sources import ExportSource
from dualstore.flags import Requested
from dualstore.replication.suspects import UNMIRRORED
from dualstore.stages import Stage
from dualstore.store import DualStore, MigratedTable
from dualstore.store.proving import ProofOrder
from dualstore.stores.postgres_runs import Run
from dualstore.verify import BulkVerify
from exports import full_export
from integration.commands import CommandLine
from integration.deployment import Deployment, bring_to
from integration.test_flip import ask, prepare
from integration.writing import NAME, item_of

ITEMS = 30
GAP = "stream gap planted"


def copied(store: DualStore, deployment: Deployment) -> MigratedTable:
    """The table at `dualwrite`, with items that have been copied."""
    table = bring_to(store, NAME, Requested(stage=Stage.DUALWRITE))
    for n in range(ITEMS):
        deployment.dynamodb.put_item(TableName=table.physical, Item=item_of(n, n))
    assert table.backfill(segments=1, workers=1).succeeded
    return table


@pytest.mark.skipif(
    "DUALSTORE_VERIFY_ITEMS" not in os.environ, reason="nox -s verify-million: starts processes"
)
def test_processes_of_their_own_compare_a_large_table(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, row = deployment.table()
    with deployment.store() as store:
        store.bind(model, row, name=NAME)
        table = copied(store, deployment)
        importable(table, deployment, tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr("dualstore.cli.verify._WORTH_PROCESSES_BYTES", 0)
        execute(deployment, f"UPDATE {sql_table(table)} SET name = 'damaged' WHERE sk = 3")

        done = CommandLine(deployment, table.physical, tmp_path)("verify", "--segments", "2")

        store.unbind(model)
    assert done.exit_code == 1, done.output
    assert f"{ITEMS - 1} equal, 1 different" in done.output
    workers = asked(
        deployment,
        "SELECT DISTINCT worker FROM dualstore.run_pieces JOIN dualstore.runs"
        f" ON id = run_id WHERE kind = 'verify' AND table_name = '{table.physical}'",
    )
    assert workers
    assert all("-" in worker.rpartition(":")[2] for worker in workers)  # a process's, not a thread's


def test_after_the_move_an_export_tells_what_dynamodb_held(deployment: Deployment, tmp_path: Path) -> None:
    with prepare(deployment) as (store, table, model):
        line = CommandLine(deployment, table.physical, tmp_path)
        for n in range(ITEMS):
            model("q", n, name=str(n)).save()
        items = deployment.dynamodb.scan(TableName=table.physical, ConsistentRead=True)["Items"]
        at = (datetime.now(UTC) + timedelta(minutes=10)).replace(microsecond=0)  # all was written before it
        export = full_export(table.physical, [items[::2], items[1::2]], at=at).write(tmp_path)
        early = line("verify", "--against-export", export)
        ask(table, store, Stage.LIVE)

        equal = line("verify", "--against-export", export, "--report", str(tmp_path / "equal.json"))
        astray = f"UPDATE {sql_table(table)} SET dualstore_revision = dualstore_revision"
        past_the_triggers(deployment, f"{astray} + 1000000000 WHERE sk = 7")
        left = [line("verify", "--segments", "1", how) for how in ("--dry-run", "--repair")]
        past_the_triggers(deployment, f"{astray} - 1000000000 WHERE sk = 7")
        past_the_triggers(deployment, f"UPDATE {sql_table(table)} SET name = 'damaged' WHERE sk = 3")
        past_the_triggers(deployment, f"DELETE FROM {sql_table(table)} WHERE sk = 5")
        damaged = line("verify", "--against-export", export)
        repairing = line("verify", "--against-export", export, "--repair")
        twofold = line("verify", "--against-export", export, "--source", "scan")

    assert (early.exit_code, "DynamoDB is the authority" in early.output) == (2, True), early.output
    assert equal.exit_code == 0, equal.output
    assert f"{len(items)} equal, 0 different" in equal.output
    for each in left:  # nothing but PostgreSQL says what a row of its own should be
        assert each.exit_code == 1, each.output
        assert "1 row(s) are version, which --repair leaves as they are" in each.output
        assert "1 different, 0 repaired" in each.output
        assert "--repair would" not in each.output
    report = json.loads((tmp_path / "equal.json").read_text())
    assert (report["mode"], report["source"]["exports"]) == ("against-export", [f"{export.rstrip('/')}/"])
    assert damaged.exit_code == 1, damaged.output
    assert f"{len(items) - 2} equal, 2 different" in damaged.output
    assert (repairing.exit_code, twofold.exit_code) == (2, 2)


def test_a_table_that_came_into_doubt_meanwhile_is_not_said_to_be_proven(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, row = deployment.table()
    with deployment.store() as store:
        store.bind(model, row, name=NAME)
        table = copied(store, deployment)
        line = CommandLine(deployment, table.physical, tmp_path)
        meanwhile = [lambda: table.suspect(GAP), lambda: table.backfill(segments=1, workers=1)]
        compare = BulkVerify._compare_rows

        def compare_and_come_into_doubt(self: BulkVerify, run: Run) -> Any:
            if meanwhile:
                meanwhile.pop(0)()
            return compare(self, run)

        monkeypatch.setattr(BulkVerify, "_compare_rows", compare_and_come_into_doubt)
        report = tmp_path / "doubtful.json"
        suspect = line("verify", "--report", str(report))
        disturbed = line("verify")
        proven = line("verify")
        store.unbind(model)

    for each in (suspect, disturbed):
        assert f"{ITEMS} equal, 0 different" in each.output
        assert each.exit_code == 1, each.output
        assert f"run `dualstore verify {table.served.logical}` again" in each.output
    assert f"still suspect: {GAP} (generation" in suspect.output
    assert "the history was copied anew meanwhile" in disturbed.output
    told = json.loads(report.read_text())
    assert (told["passed"], len(told["suspects"]), told["disturbed"]) == (False, 1, False)
    assert proven.exit_code == 0, proven.output
    assert "suspect" not in proven.output


@pytest.mark.parametrize("kind", [GAP, UNMIRRORED])
def test_a_comparison_with_the_past_is_gone_on_with_whatever_became_suspect(
    deployment: Deployment, tmp_path: Path, kind: str
) -> None:
    """It clears nothing, and what it says is of the past."""
    with prepare(deployment) as (store, table, model):
        for n in range(ITEMS):
            model("q", n, name=str(n)).save()
        items = deployment.dynamodb.scan(TableName=table.physical, ConsistentRead=True)["Items"]
        at = (datetime.now(UTC) + timedelta(minutes=10)).replace(microsecond=0)
        place = full_export(table.physical, [items[::2], items[1::2]], at=at).write(tmp_path)
        ask(table, store, Stage.LIVE)
        export = ExportSource([place], shape=table.served.shape, s3=deployment.dynamodb)
        order = ProofOrder(source=export, against=export.taken_at, workers=1)

        def die(_: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            table.prove(replace(order, progress=die))
        run = table.copying.runs.latest("verify", table.physical)
        table.suspect(kind)
        suspects = table.status().record.suspects
        found = table.prove(order)
        assert table.status().record.suspects == suspects

    assert run is not None
    assert found.run_id == run.id
    assert (found.difference_count, found.equal, found.proven) == (0, len(items), True)
    assert not found.suspects


def importable(table: MigratedTable, deployment: Deployment, folder: Path) -> None:
    """The module of the models as a file, for processes that know none of this one's."""
    name = f"models_of_{sql_table(table)}"
    (folder / f"{name}.py").write_text(
        "from integration.deployment import order_model, order_row\n"
        f"Order = order_model({table.physical!r}, {deployment.endpoint_url!r})\n"
        f"OrderRow = order_row({sql_table(table)!r})\n"
    )


def sql_table(table: MigratedTable) -> str:
    return table.physical.replace("-", "_")


def execute(deployment: Deployment, statement: str) -> None:
    with deployment.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def past_the_triggers(deployment: Deployment, statement: str) -> None:
    """What no trigger sees, as of a broken disk."""
    with deployment.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(statement)


def asked(deployment: Deployment, question: str) -> list[Any]:
    with deployment.engine.connect() as connection:
        return list(connection.exec_driver_sql(question).scalars())
