"""`dualstore backfill` before and around a copy: looks, indexes and refusals, as a person sees them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from dualstore.cli import main
from dualstore.flags import Requested
from dualstore.stages import Stage
from dualstore.store import MigratedTable
from exports import full_export
from integration.commands import CREDENTIALS, CommandLine
from integration.deployment import Deployment, bring_to
from integration.writing import NAME, item_of

ITEMS = 40


class Commands:
    """The command line on a table with items that were written before dual writes, and an index."""

    def __init__(self, deployment: Deployment, migrated: MigratedTable, folder: Path) -> None:
        table = migrated.physical
        self.migrated = migrated
        self._line = CommandLine(deployment, table, folder)
        self._secrets: dict[str, str] = {}
        self.deployment = deployment
        self.physical = table
        self.sql_table = table.replace("-", "_")

    def __call__(self, *arguments: str) -> Result:
        return self._line("backfill", "--workers", "1", *arguments)

    def plain(self, command: str) -> Result:
        """A command of the group that has no `--workers`."""
        config = self._line.folder / "dualstore.toml"
        config.write_text(self._line._configuration(()))
        arguments = ["backfill", command, NAME, "--config", str(config)]
        return CliRunner(env=CREDENTIALS | self._secrets).invoke(main, arguments)

    def configured(self, more: str, **secrets: str) -> None:
        """Have all commands from now on find more in their configuration, and in their environment."""
        self._secrets = secrets
        self._line = replace(self._line, more=more, environment=CREDENTIALS | secrets)

    def rows(self) -> int:
        return int(self.asked(f"SELECT count(*) FROM {self.sql_table}")[0])

    def asked(self, question: str) -> list[Any]:
        with self.deployment.engine.connect() as connection:
            return list(connection.exec_driver_sql(question).scalars())

    def indexes(self) -> list[str]:
        return self.asked(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index"
            f" WHERE indrelid = '{self.sql_table}'::regclass ORDER BY 1"
        )


@pytest.fixture
def backfill(deployment: Deployment, tmp_path: Path) -> Iterator[Commands]:
    model, row = deployment.table()
    with deployment.store() as store:
        store.bind(model, row, name=NAME)
        table = bring_to(store, NAME, Requested(stage=Stage.DUALWRITE))
        for n in range(ITEMS):
            deployment.dynamodb.put_item(TableName=table.physical, Item=item_of(n, n))
        commands = Commands(deployment, table, tmp_path)
        with deployment.engine.begin() as connection:
            connection.exec_driver_sql(
                f"CREATE INDEX by_name_{commands.sql_table} ON {commands.sql_table} (name)"
            )
        yield commands
        store.unbind(model)


def test_a_look_tells_sizes_time_and_cost_and_writes_nothing(backfill: Commands) -> None:
    told = backfill("--dry-run", "--price-read-units", "1000000")
    machine = backfill("--sample", "50%", "--json")

    assert told.exit_code == 0, told.output
    assert f"{ITEMS} items read (all of about {ITEMS}), {ITEMS} fit; none written" in told.output
    assert "on PostgreSQL" in told.output
    assert "USD" in told.output
    seen = json.loads(machine.output)
    assert (seen["problems"], seen["obstacles"]) == ({}, [])
    assert 0 < seen["items"] == seen["fitting"] <= ITEMS
    assert backfill.rows() == 0


def test_what_would_not_fit_is_told_before_anything_is_written(backfill: Commands) -> None:
    with backfill.deployment.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {backfill.sql_table} ADD CONSTRAINT few CHECK (name <> '7')")

    told = backfill("--dry-run")

    assert told.exit_code == 1
    assert "1 do not" in told.output
    assert "constraint few" in told.output


def test_indexes_are_reported_dropped_and_put_back(backfill: Commands) -> None:
    before = backfill.indexes()
    report = backfill("--report-indexes")
    copied = backfill("--drop-indexes")

    assert report.exit_code == 0, report.output
    assert "by_name" in report.output
    assert f"of {ITEMS} items tried" in report.output
    assert copied.exit_code == 0, copied.output
    assert "dropped: by_name" in copied.output
    assert "put back: by_name" in copied.output
    assert backfill.indexes() == before
    assert backfill.rows() == ITEMS


def test_an_export_from_after_the_confirmed_dual_writes_is_copied_and_an_older_one_is_refused(
    backfill: Commands, tmp_path: Path
) -> None:
    items = [item_of(n, n) for n in range(ITEMS)]
    now = datetime.now(UTC).replace(microsecond=0)
    older, later = (
        full_export(backfill.physical, [items], at=now + ago, number=number).write(tmp_path)
        for number, ago in enumerate((timedelta(hours=-1), timedelta(minutes=2)))
    )

    refused = backfill("--source", older)
    told = backfill("--dry-run", "--source", older)

    assert refused.exit_code == 2, refused.output
    assert "every write is mirrored since" in refused.output
    assert (told.exit_code, "would be refused" in told.output) == (1, True)
    assert backfill.rows() == 0
    assert backfill("--source", later).exit_code == 0


def test_a_backfill_is_refused_where_the_schema_has_drifted_or_there_is_no_room(
    backfill: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALSTORE_BACKFILL__FREE_BYTES", "1")
    with backfill.deployment.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {backfill.sql_table} DROP COLUMN name")

    refused = backfill()

    assert refused.exit_code == 2, refused.output
    assert "has no column name" in refused.output
    assert "1 free" in refused.output or "are free (backfill.free_bytes)" in refused.output
    assert backfill.rows() == 0


def test_what_is_set_aside_is_put_back_by_a_command(backfill: Commands) -> None:
    before = backfill.indexes()
    backfill.migrated.indexes_aside.drop()
    assert backfill.indexes() != before

    answers = [backfill.plain("restore-indexes") for _ in range(2)]

    assert "put back: by_name" in answers[0].output
    assert "no index or foreign key is set aside" in answers[1].output
    assert [answer.exit_code for answer in answers] == [0, 0]
    assert backfill.indexes() == before


@pytest.mark.parametrize("form", ["encrypted", "redacted"])
def test_an_item_in_quarantine_is_kept_as_it_was_asked_for_and_comes_out_of_it_when_it_fits(
    backfill: Commands, form: str
) -> None:
    secret = "a name that nobody may read"
    table, key = backfill.sql_table, Fernet.generate_key()
    item = item_of(7, 7) | {"name": {"S": secret}}
    backfill.deployment.dynamodb.put_item(TableName=backfill.physical, Item=item)
    with backfill.deployment.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT short CHECK (length(name) < 9)")
    backfill.configured(
        f'[backfill]\nquarantine = "{form}"\n', DUALSTORE_BACKFILL__QUARANTINE_KEY=key.decode()
    )

    copied = backfill()
    listed = backfill.plain("quarantine")
    (kept,) = backfill.asked("SELECT item FROM dualstore.quarantine WHERE state = 'open'")
    with backfill.deployment.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT short")
    mended = backfill.plain("retry-quarantine")

    assert (copied.exit_code, listed.exit_code, mended.exit_code) == (1, 1, 0)
    assert "constraint short" in listed.output
    assert secret not in copied.output + listed.output
    if form == "redacted":
        assert kept is None
    else:
        assert secret.encode() not in bytes(kept)
        assert secret in Fernet(key).decrypt(bytes(kept)).decode()
    assert "1 came out of quarantine" in mended.output
    assert backfill.asked(f"SELECT name FROM {table} WHERE length(name) > 9") == [secret]
    assert backfill.asked("SELECT count(*) FROM dualstore.quarantine WHERE state = 'open'") == [0]
