"""What `status`, `report` and `dashboard` show of a real migration, with a database away too."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dualstore import DualStore, Stage
from dualstore.cli import main
from dualstore.flags import Requested
from dualstore.rollout.screens import gather
from dualstore.stages import Side
from dualstore.store import MigratedTable
from integration.commands import CREDENTIALS, CommandLine
from integration.deployment import Deployment, bring_to
from integration.writing import NAME, item_of


@pytest.fixture
def migrated(deployment: Deployment) -> Iterator[tuple[DualStore, MigratedTable]]:
    """A table at stage `shadow` that was copied, verified and read."""
    model, row = deployment.table()
    with deployment.store() as store:
        store.bind(model, row, name=NAME)
        store.client().put_item(TableName=row.__tablename__.replace("_", "-"), Item=item_of(1, 1))
        table = bring_to(store, NAME, Requested(stage=Stage.SHADOW))
        table.verify()
        key = {name: item_of(1, 1)[name] for name in ("pk", "sk")}
        for _ in range(30):
            store.client().get_item(TableName=table.physical, Key=key, ConsistentRead=True)
        store.report()
        yield store, table
        store.unbind(model)


class Screens(CommandLine):
    """Commands of all tables: they take no table's name."""

    def show(self, command: str, *arguments: str, lost: tuple[Side, ...] = ()) -> Result:
        """Run a command, with these databases out of reach."""
        config = self.folder / "dualstore.toml"
        config.write_text(self._configuration(lost))
        return CliRunner(env=CREDENTIALS).invoke(main, [command, *arguments, "--config", str(config)])


@pytest.fixture
def screens(deployment: Deployment, migrated: tuple[DualStore, MigratedTable], tmp_path: Path) -> Screens:
    return Screens(deployment, migrated[1].physical, tmp_path)


def test_status_says_on_one_screen_where_a_table_stands_and_what_its_gates_ask(screens: Screens) -> None:
    seen = screens.show("status")
    assert seen.exit_code == 0, seen.output
    for said in (
        "shadow (DynamoDB authoritative)",
        "pending mirror writes: none",
        "writes mirrored: 100 %",
        "backfill finished",
        "verify finished",
        "gates, by the default limits",
        "verification",
        "has taken the last decision",
    ):
        assert said in seen.output, seen.output


def test_status_with_postgresql_away_says_so_and_shows_what_dynamodb_tells(screens: Screens) -> None:
    seen = screens.show("status", "--json", lost=(Side.POSTGRES,))
    assert seen.exit_code == 0, seen.output
    (table,) = json.loads(seen.output)
    assert table["unreachable"] == {"postgres": "PostgreSQL does not answer"}
    assert (table["stage"], table["is_current"], table["dirty_keys"]) == ("shadow", True, None)
    assert table["gates"] == []
    assert "PostgreSQL does not answer" in screens.show("status", lost=(Side.POSTGRES,)).output


def test_status_with_the_authority_away_shows_what_the_other_side_last_knew_and_ends_with_3(
    screens: Screens, migrated: tuple[DualStore, MigratedTable]
) -> None:
    migrated[1].copy_control()
    seen = screens.show("status", "--json", lost=(Side.DYNAMODB,))
    assert seen.exit_code == 3, seen.output
    (table,) = json.loads(seen.output)
    assert table["unreachable"] == {"dynamodb": "DynamoDB does not answer"}
    assert (table["stage"], table["is_current"]) == ("shadow", False)
    assert {run["kind"] for run in table["runs"]} == {"backfill", "verify"}
    said = screens.show("status", lost=(Side.DYNAMODB,)).output
    assert "DynamoDB does not answer" in said
    assert "last known: shadow (DynamoDB authoritative)" in said


def test_a_picture_holds_gates_with_their_evidence_and_runs(
    migrated: tuple[DualStore, MigratedTable],
) -> None:
    (table,) = (each for each in gather(migrated[0]).tables if each.name == NAME)
    assert table.missing == ()
    by_name = {each.gate: each for each in table.gates}
    assert by_name["verification"].judgement == "met"
    assert [run.kind for run in table.runs] == ["verify", "backfill"]


def test_a_report_stands_alone_and_shows_what_happened(screens: Screens, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    done = screens.show("report", "--output", str(output))
    assert done.exit_code == 0, done.output
    page = output.read_text()
    for said in (
        "shadow (DynamoDB authoritative)",
        'aria-label="Dials"',
        'aria-label="Calls a second"',
        "95 % upper bound",
        "backfill finished",
        "verify finished",
        "Gates, by the default limits",
    ):
        assert said in page, said
    assert "http" not in page.replace("Content-Security-Policy", "").replace("http-equiv", "")
    assert "<script" not in page
    texts = [str(text) for value in item_of(1, 1).values() for text in value.values()]
    assert not [text for text in texts if len(text) > 3 and text in page]
