"""The commands, their output for people and their exit codes for scripts."""

import json
import textwrap
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from dualstore.cli import main

MODELS = """
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.models import Model
from sqlalchemy import Integer, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dualstore.mapping import Mirrored


class City(Model):
    class Meta:
        table_name = {table!r}
        host = {endpoint!r}
        region = "us-east-1"
        billing_mode = "PAY_PER_REQUEST"

    name = UnicodeAttribute(hash_key=True)
    people = NumberAttribute()


class Base(DeclarativeBase):
    pass


class CityRow(Mirrored, Base):
    __tablename__ = "cities"

    name: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    people: Mapped[int | None] = mapped_column(Integer)
"""


@pytest.fixture
def service(tmp_path, monkeypatch, dynamodb_server, dynamodb, table_name, postgres_url):  # noqa: PLR0917 - fixtures
    """A folder with a service's models and a `dualstore.toml`, and both databases empty."""
    module = f"models_{table_name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(
        MODELS.format(table=table_name, endpoint=dynamodb_server.endpoint_url)
    )
    url = postgres_url.replace("postgresql+psycopg://", "postgresql://")
    configuration = f"""
        [postgres]
        url = {json.dumps(url)}
        [dynamodb]
        endpoint_url = {json.dumps(dynamodb_server.endpoint_url)}
        region = "us-east-1"
        bookkeeping_table = "{table_name}-bookkeeping"
        [flags]
        kind = "file"
        path = "flags.json"
        [tables.cities]
        model = "{module}:City"
        row = "{module}:CityRow"
    """
    (tmp_path / "dualstore.toml").write_text(textwrap.dedent(configuration))
    (tmp_path / "flags.json").write_text('{"flagValues": {}}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    dynamodb.create_table(
        TableName=table_name,
        KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    for name, people in (("Wien", 2_005_760), ("Graz", 306_068)):
        dynamodb.put_item(TableName=table_name, Item={"name": {"S": name}, "people": {"N": str(people)}})
    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool)
    yield engine, module, url
    engine.dispose()
    with suppress(dynamodb.exceptions.ResourceNotFoundException):
        dynamodb.delete_table(TableName=f"{table_name}-bookkeeping")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def created(engine, module):
    models = __import__(module)
    models.Base.metadata.create_all(engine)


def test_a_table_is_migrated_by_commands_alone(service):
    engine, module, url = service
    assert run("schema", "upgrade").exit_code == 0
    assert run("schema", "check").exit_code == 0
    created(engine, module)

    assert "stage dualwrite" in run("dial", "cities", "--stage", "dualwrite", "--yes").output
    backfill = run("backfill", "cities")
    assert (backfill.exit_code, "2 items read, 2 inserted" in backfill.output) == (0, True), backfill.output
    verify = run("verify", "cities")
    assert (verify.exit_code, "2 equal, 0 different" in verify.output) == (0, True), verify.output
    status = run("status")
    assert (status.exit_code, "dualwrite (DynamoDB authoritative)" in status.output) == (0, True), (
        status.output
    )

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE cities SET people = 0 WHERE name = 'Graz'")
    differing = run("verify", "cities")
    assert (differing.exit_code, "1 different" in differing.output) == (1, True), differing.output
    assert "Graz" not in differing.output, "a key is named by its hash only"
    would = run("verify", "cities", "--dry-run")
    assert (would.exit_code, "would write again from the authority: 1 key(s)" in would.output) == (1, True)
    sampled = run("verify", "cities", "--sample", "5")
    assert (sampled.exit_code, "1 different" in sampled.output) == (1, True), sampled.output
    assert run("verify", "cities", "--recent", "0").exit_code == 1
    assert run("verify", "cities", "--recent", "yesterday").exit_code == 2
    assert run("verify", "cities", "--sample", "5", "--counts-only").exit_code == 2
    Path("keys").write_text('{"name": {"S": "Wien"}}\n\n')
    some = run("verify", "cities", "--keys", "keys")
    assert (some.exit_code, "1 equal, 0 different" in some.output) == (0, True), some.output
    counted = run("verify", "cities", "--counts-only")
    assert (counted.exit_code, "2 rows; DynamoDB says 2 items" in counted.output) == (0, True), counted.output
    assert "switch `[shadow] plain_keys` on" in run("verify", "cities", "--discrepancies").output
    mended = run("verify", "cities", "--repair", "--threshold", "100", "--report", "report.json")
    assert mended.exit_code == 0, mended.output
    assert "as it was written" in run("verify", "--check-report", "report.json").output
    report = json.loads(Path("report.json").read_text())
    assert (report["counts"]["different"], report["counts"]["repaired"], report["passed"]) == (1, 1, True)
    Path("report.json").write_text(json.dumps(report | {"passed": False}))
    assert run("verify", "--check-report", "report.json").exit_code == 1
    assert run("repair", "cities").exit_code == 0


def test_the_status_tells_programs_what_it_tells_people(service):
    engine, module, _ = service
    run("schema", "upgrade")
    created(engine, module)
    assert run("dial", "cities", "--stage", "dualwrite", "--yes").exit_code == 0
    told = run("status", "--json")
    assert told.exit_code == 0, told.output
    (table,) = json.loads(told.output)
    assert (table["table"], table["stage"], table["authority"]) == ("cities", "dualwrite", "dynamodb")
    assert (table["evidence"]["comparisons"], table["evidence"]["mismatch_bound"]) == (0, 1.0)
    assert table["fleet"]["worked"] == []
    (process,) = table["processes"]
    assert process["confirmed"]
    assert "0 reads compared: nothing is known of how often the sides differ" in run("status").output


def test_a_stage_that_may_not_follow_is_refused_with_1_and_the_flags_stay(service, tmp_path):
    engine, module, _ = service
    run("schema", "upgrade")
    created(engine, module)
    refused = run("dial", "cities", "--stage", "live", "--yes")
    assert refused.exit_code == 1, refused.output
    assert "live" not in (tmp_path / "flags.json").read_text()


def test_a_check_of_a_missing_schema_is_wrong_usage(service):
    refused = run("schema", "check")
    assert refused.exit_code == 2
    assert "dualstore schema upgrade" in refused.output


def test_a_wrong_configuration_is_wrong_usage(tmp_path):
    missing = run("status", "--config", tmp_path / "nowhere.toml")
    assert missing.exit_code == 2
    assert "no such file" in missing.output


def test_a_database_that_does_not_answer_is_unavailable(service, monkeypatch):
    monkeypatch.setenv("DUALSTORE_POSTGRES__URL", "postgresql://nobody:secret@127.0.0.1:9/none")
    refused = run("schema", "check")
    assert refused.exit_code == 3
    assert "secret" not in refused.output
