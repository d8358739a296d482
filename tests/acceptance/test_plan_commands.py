"""`dualstore init` and `dualstore plan …` on a deployment where nothing has been made yet."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from sqlalchemy.exc import OperationalError

from acceptance.test_command_line import created, run, service  # noqa: F401 - a fixture
from dualstore.rollout.registry import ACTIONS
from dualstore.rollout.windows import DAYS

PLAN = """
plan: cities
tables: [cities]
patience: 20s
gates: {mismatch_percent: null, error_percent: null, latency_increase_percent: null}
stages:
  - stage: everything
    steps:
      - verify_database_connection
      - {step: backup_dynamodb, method: lines, folder: ., name: first}
      - run_schema_migrations
      - start_dual_writing
      - migrate_historical_data
      - {step: backup_verification, folder: ., name: first}
      - {step: gradual_traffic_increase, schedule: [100], soak: 1ms}
"""


def test_init_writes_a_plan_for_the_configured_tables_and_nothing_over_another(service, tmp_path):  # noqa: F811
    written = run("init")
    assert (written.exit_code, "migration.yml: written" in written.output) == (0, True), written.output
    assert "tables: [cities]" in Path("migration.yml").read_text()
    assert run("plan", "validate", "migration.yml").exit_code == 0
    assert run("init").exit_code == 2
    fresh = run("init", "--config", "other.toml", "--plan", "other.yml", "--table", "a=app:A,app:B")
    assert fresh.exit_code == 0, fresh.output
    assert 'row = "app:B"' in Path("other.toml").read_text()


def test_a_plan_begins_where_nothing_has_been_made_yet(service):  # noqa: F811
    engine, module, _ = service
    Path("plan.yml").write_text(PLAN)
    shown = run("plan", "show", "plan.yml")
    assert (shown.exit_code, "PostgreSQL keeps no record of it" in shown.output) == (0, True), shown.output
    dry = run("plan", "run", "plan.yml", "--dry-run")
    assert dry.exit_code == 1, dry.output
    assert "the bookkeeping is not there yet" in dry.output
    assert "no record" in run("plan", "show", "plan.yml").output, "a dry run makes nothing"

    refused = run("plan", "run", "plan.yml", "--as", "Ada")
    assert refused.exit_code == 1, refused.output
    assert "the SQL table cities of cities is there: create it" in refused.output
    created(engine, module)
    finished = run("plan", "run", "plan.yml", "--as", "Ada")
    assert (finished.exit_code, "every step is done" in finished.output) == (0, True), finished.output

    document = json.loads(run("plan", "show", "plan.yml", "--json").output)
    assert {step["state"] for step in document["steps"]} == {"done"}
    assert document["steps"][2]["attempt"] == 2, "the refused step was tried again"
    evidence = {
        event["step"]: event["evidence"] for event in document["events"] if event["kind"] == "finished"
    }
    assert evidence["migrate_historical_data"]["cities"]["items"] == 2
    assert evidence["backup_verification"]["cities"]["unchanged"] == 2
    (gates,) = evidence["gradual_traffic_increase/100"]["tables"].values()
    assert {"gate": "processes", "judgement": "met"}.items() <= gates["gates"][0].items()


def test_a_changed_plan_needs_a_person_and_keeps_what_has_begun(service):  # noqa: F811
    engine, module, _ = service
    created_after = PLAN.partition("      - migrate_historical_data")[0]
    Path("plan.yml").write_text(created_after)
    assert run("schema", "upgrade").exit_code == 0
    created(engine, module)
    assert run("plan", "run", "plan.yml").exit_code == 0
    Path("plan.yml").write_text(created_after.replace("      - start_dual_writing\n", ""))
    assert "start_dual_writing" in run("plan", "resume", "plan.yml", "--as", "Ada").output
    Path("plan.yml").write_text(created_after + "      - migrate_historical_data\n")
    refused = run("plan", "run", "plan.yml")
    assert (refused.exit_code, "is not what plan cities was run with" in refused.output) == (1, True)
    resumed = run("plan", "resume", "plan.yml", "--as", "Ada")
    assert (resumed.exit_code, "every step is done" in resumed.output) == (0, True), resumed.output
    back = run("plan", "rollback", "plan.yml", "--all", "--yes")
    assert "start_dual_writing: taken back in" in back.output, back.output


def test_a_gate_that_says_no_takes_the_step_back_and_halts_the_plan(service):  # noqa: F811
    engine, module, _ = service
    asked = "soak: 1ms, patience: 6s, on_refusal: roll_back, gates: {comparisons: 9}"
    Path("plan.yml").write_text(PLAN.replace("soak: 1ms", asked))
    assert run("schema", "upgrade").exit_code == 0
    created(engine, module)
    refused = run("plan", "run", "plan.yml")
    assert (refused.exit_code, "rolled back:" in refused.output) == (1, True), refused.output
    assert (
        "comparisons: not yet: 0 reads compared (asked: at least 9); wait for more traffic" in refused.output
    )
    (status,) = json.loads(run("status", "--json").output)
    assert (status["stage"], status["read_percent"]) == ("dualwrite", 0)
    halted = run("plan", "run", "plan.yml")
    assert (halted.exit_code, "resume --as NAME" in halted.output) == (1, True), halted.output
    events = json.loads(run("plan", "show", "plan.yml", "--json").output)["events"]
    assert [event["kind"] for event in events[-4:]] == ["failed", "halted", "rollback started", "rolled back"]
    assert events[-4]["evidence"]["gates"]["cities"], "what the gates said is kept"


STEP = "verify_database_connection"
FAILURES = {
    "ThrottlingException": ClientError(
        {"Error": {"Code": "ThrottlingException", "Message": "a secret"}}, "UpdateTable"
    ),
    "EndpointConnectionError": EndpointConnectionError(endpoint_url="http://somewhere"),
    "ConnectionTimeout": OperationalError("SELECT", {}, psycopg.errors.ConnectionTimeout("a secret")),
    "QueryCanceled, SQLSTATE 57014": OperationalError("SELECT", {}, psycopg.errors.QueryCanceled("a secret")),
}


@pytest.mark.parametrize("named", FAILURES)
def test_a_step_that_a_database_breaks_off_is_recorded_as_failed_and_tried_again(service, monkeypatch, named):  # noqa: F811
    def break_off(*_):
        raise FAILURES[named]

    Path("plan.yml").write_text(PLAN.partition("      - backup_dynamodb")[0])
    assert run("schema", "upgrade").exit_code == 0
    with monkeypatch.context() as broken:
        broken.setitem(ACTIONS, STEP, replace(ACTIONS[STEP], act=break_off))
        assert run("plan", "run", "plan.yml").exit_code == 3
    (step, *_) = json.loads(run("plan", "show", "plan.yml", "--json").output)["steps"]
    assert step["state"] == "failed"
    events = json.loads(run("plan", "show", "plan.yml", "--json").output)["events"]
    assert events[-1]["reason"].endswith(named)
    assert "secret" not in str(events)
    assert f"{STEP}: done" in run("plan", "run", "plan.yml").output


def test_a_step_waits_for_its_window_and_says_until_when(service):  # noqa: F811
    another_day = DAYS[(datetime.now(UTC) + timedelta(days=2)).weekday()]
    closed = f"window: {{days: {another_day}, timezone: UTC}}\nstages:"
    Path("plan.yml").write_text(PLAN.replace("stages:", closed, 1))
    waiting = run("plan", "run", "plan.yml", "--no-wait")
    assert waiting.exit_code == 1, waiting.output
    assert (
        f"verify_database_connection: waits for its window ({another_day} 00:00-24:00 UTC)" in waiting.output
    )
    assert json.loads(run("plan", "show", "plan.yml", "--json").output)["events"] == []


@pytest.mark.parametrize(
    "arguments", [("rollback", "plan.yml"), ("approve", "plan.yml", "nothing", "--as", "A")]
)
def test_wrong_usage_ends_with_two(service, arguments):  # noqa: F811
    Path("plan.yml").write_text(PLAN)
    assert run("plan", *arguments).exit_code == 2
