"""What is configured of recordings, and what a deployment is."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from dualstore.cli import main
from dualstore.config import load
from dualstore.errors import ConfigurationError
from dualstore.rollout import draft_plan
from dualstore.store.options import options_of

POSTGRES = '[postgres]\nurl = "postgresql://nobody@127.0.0.1:9/none"\n'
ORDERS = '[tables.orders]\nphysical_name = "orders"\n[tables.orders.recording]\npercent = 12.5\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "dualstore.toml"
    path.write_text(text)
    return path


def test_nothing_is_recorded_unless_it_is_asked_for(tmp_path: Path) -> None:
    options = options_of(load(written(tmp_path, POSTGRES)))
    assert (options.recording.directory, options.recorded_percents) == (None, {})


def test_recording_is_asked_for_by_table_and_beside_the_configuration(tmp_path: Path) -> None:
    options = options_of(
        load(written(tmp_path, f'{POSTGRES}[recording]\ndirectory = "recordings"\n{ORDERS}'))
    )
    assert options.recorded_percents == {"orders": 12.5}
    assert options.recording.directory == tmp_path / "recordings"


def test_a_table_is_not_recorded_to_nowhere(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"tables\.orders\.recording\.percent needs recording\.directory"
    ):
        load(written(tmp_path, POSTGRES + ORDERS))


@pytest.mark.parametrize(("said", "other"), [("production", "staging"), ("staging", "production")])
def test_a_plan_of_another_environment_than_the_configuration_is_refused(
    tmp_path: Path, said: str, other: str
) -> None:
    config = written(
        tmp_path, f'environment = "{other}"\n{POSTGRES}{ORDERS.partition("[tables.orders.rec")[0]}'
    )
    plan = tmp_path / "migration.yml"
    draft = draft_plan(["orders"], name="p", file="migration.yml")
    assert "environment: production" in draft
    plan.write_text(draft.replace("environment: production", f"environment: {said}"))
    refused = CliRunner().invoke(main, ["plan", "run", str(plan), "--dry-run", "--config", str(config)])
    assert refused.exit_code == 2
    assert f"is a plan of {said}, but `environment` in" in refused.stderr
