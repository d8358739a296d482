"""A plan's file: what it may say, and the line of every mistake."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from dualstore.errors import ConfigurationError
from dualstore.rollout import (
    ACTIONS,
    STANDARD_ACTIONS,
    Action,
    DocumentError,
    draft_configuration,
    draft_plan,
    load_plan,
    parse_plan,
    register,
    schema_of_plans,
)
from dualstore.rollout.showing import plan_in_words

ROOT = Path(__file__).parents[3]
DRAFT = draft_plan(["orders", "users"], name="to-postgres", file="migration.yml")

START = "      - start_dual_writing\n"
TRAFFIC = "      - step: gradual_traffic_increase\n"


def plan_of(steps: str, head: str = "") -> str:
    return f"plan: p\ntables: [orders]\n{head}stages:\n  - stage: all\n    steps:\n{steps}"


def mistakes(text: str) -> list[tuple[int, str]]:
    with pytest.raises(DocumentError) as raised:
        parse_plan(text, name="migration.yml")
    return [(mistake.line, mistake.message) for mistake in raised.value.mistakes]


def test_the_plan_that_init_writes_is_one_and_names_every_step() -> None:
    plan = parse_plan(DRAFT)
    assert plan.tables == ("orders", "users")
    assert {step.action for step in plan.steps} == {action.name for action in STANDARD_ACTIONS}
    assert [step.id for step in plan.steps if step.action == "gradual_traffic_increase"] == [
        f"gradual_traffic_increase/{percent}" for percent in (1, 5, 10, 25, 50, 100)
    ]
    assert [step.approval for step in plan.steps if step.approval] == ["required", "four-eyes"]
    assert all(step.window is not None for step in plan.steps)


def test_the_plan_of_the_example_is_one_and_shows_every_action() -> None:
    plan = load_plan(ROOT / "examples" / "airports" / "migration.yml")
    assert {step.action for step in plan.steps} == {action.name for action in STANDARD_ACTIONS}
    assert [step.approval for step in plan.steps if step.approval] == ["required", "four-eyes"]
    assert (plan.is_staging, plan.tables) == (True, ("airports",))


def test_a_plan_is_carried_out_up_to_a_step_that_it_has() -> None:
    plan = parse_plan(DRAFT)
    assert plan.steps_until(None) == plan.steps
    assert [step.id for step in plan.steps_until("run_schema_migrations")] == [
        "verify_database_connection",
        "backup_dynamodb",
        "run_schema_migrations",
    ]
    assert plan.steps_until(plan.steps[-1].id) == plan.steps
    with pytest.raises(ConfigurationError, match=r"no step gradual_traffic_increase; it has .*/1, "):
        plan.steps_until("gradual_traffic_increase")


def test_the_configuration_that_init_writes_names_the_models() -> None:
    text = draft_configuration({"orders": ("app.models:Order", "app.rows:OrderRow")})
    assert '[tables.orders]\nmodel = "app.models:Order"\nrow = "app.rows:OrderRow"' in text
    assert "# [tables.orders]" in draft_configuration({})


@pytest.mark.parametrize("shipped", ["docs/reference", "src/dualstore/rollout"])
def test_the_schema_that_ships_is_the_one_that_validates(shipped: str) -> None:
    kept = json.loads((ROOT / shipped / "migration-plan.schema.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(schema_of_plans()))
    Draft202012Validator.check_schema(kept)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (plan_of("      - verify_database_conection\n"), 6, "did you mean verify_database_connection?"),
        (plan_of("      - step: rampdown\n        windows: any\n"), 7, "windows is not known here"),
        (plan_of("      - step: monitor_error_rates\n        soak: 3\n"), 7, "3 is not a duration"),
        (plan_of("      - step: monitor_error_rates\n        soak: 3 days\n"), 7, "is not a duration"),
        (
            plan_of(
                "      - step: gradual_traffic_increase\n        schedule:\n          - 10\n          - 101\n"
            ),
            9,
            "101 is greater than the maximum",
        ),
        (
            plan_of(TRAFFIC + "        gates: {p99: 5}\n"),
            7,
            "p99 is not known here; did you mean p99_ms?",
        ),
        (plan_of("      - id: x\n"), 6, "step is missing"),
        (
            plan_of("      - start_dual_writing\n", "window: {timezone: Nowhere}\n"),
            3,
            "Nowhere is no time zone",
        ),
        (plan_of(START, "window: {hours: 9-5, timezone: UTC}\n"), 3, "is not hours"),
        ("plan: p\ntables: []\nstages: []\n", 2, "should be non-empty"),
        ("plan: p\nplan: q\n", 2, "duplicate key"),
        ("plan: p\ntables: [a\n", 3, "not YAML"),
        ("- a\n", 1, "is not of type 'object'"),
        (
            plan_of("      - step: backup_dynamodb\n        method: lines\n"),
            6,
            "with method lines needs folder",
        ),
        (plan_of("      - backup_verification\n"), 6, "needs scratch_url_variable"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, line: int, message: str) -> None:
    found = mistakes(text)
    assert any(line == at and message in what for at, what in found), found


def test_every_mistake_is_told_at_once_and_where() -> None:
    text = plan_of("      - step: nonsense\n      - step: rampdown\n        patience: soon\n")
    assert [line for line, _ in mistakes(text)] == [6, 8]
    with pytest.raises(DocumentError, match=r"migration.yml:6:15: .*nonsense"):
        parse_plan(text, name="migration.yml")


def test_words_that_other_yaml_takes_for_booleans_and_numbers_stay_words() -> None:
    plan = parse_plan(plan_of("      - step: start_dual_writing\n        id: off\n"))
    assert plan.steps[0].id == "off"


def test_steps_that_the_stage_table_does_not_allow_there_are_refused_with_the_way() -> None:
    ((line, message),) = mistakes(plan_of("      - start_dual_writing\n      - stop_dual_writing\n"))
    assert line == 7
    assert "put enable_feature_flag, flip_authority, rampdown before it" in message
    ((line, message),) = mistakes(plan_of("      - start_dual_writing\n      - start_dual_writing\n"))
    assert "2 steps are called start_dual_writing" in message
    late = "      - start_dual_writing\n      - enable_feature_flag\n      - flip_authority\n"
    ((line, message),) = mistakes(plan_of(late + "      - migrate_historical_data\n"))
    assert (line, "comes too late" in message) == (9, True)


def test_traffic_only_rises() -> None:
    up = "      - start_dual_writing\n      - {step: gradual_traffic_increase, schedule: [%s]%s}\n"
    assert "does not come after 50 %" in mistakes(plan_of(up % ("50, 25", "")))[0][1]
    twice = up % ("50", "") + "      - {step: gradual_traffic_increase, schedule: [25], id: more}\n"
    assert "does not raise the traffic" in mistakes(plan_of(twice))[0][1]


def test_soaks_gates_windows_and_approvals_are_taken_from_the_nearest_place() -> None:
    text = plan_of(
        """\
      - start_dual_writing
      - step: gradual_traffic_increase
        window: any
        soak: 1h
        gates: {error_percent: 2}
        schedule: [1, {percent: 50, soak: 2h, gates: {p99_ms: 9}, approval: required}]
""",
        "window: {timezone: UTC}\ngates: {mismatch_percent: 1}\n",
    )
    start, one, fifty = parse_plan(text).steps
    assert start.window is not None
    assert one.window is None
    assert (one.soak.total_seconds(), fifty.soak.total_seconds()) == (3600, 7200)
    assert (one.limits.mismatch_percent, one.limits.error_percent, one.limits.p99_ms) == (1, 2, None)
    assert (fifty.limits.error_percent, fifty.limits.p99_ms) == (2, 9)
    assert (one.approval, fifty.approval) == (None, "required")
    assert (fifty.options["before"], fifty.options["percent"]) == (1, 50)


def test_comments_and_spaces_do_not_change_a_plan() -> None:
    plan, same = (
        parse_plan(DRAFT),
        parse_plan("# another comment\n" + DRAFT.replace("[orders, users]", "[ orders,  users ]")),
    )
    assert plan.digest == same.digest != parse_plan(DRAFT.replace("soak: 7d", "soak: 8d")).digest


def test_a_plan_is_shown_in_words() -> None:
    text = "\n".join(plan_in_words(parse_plan(DRAFT)))
    assert "8. gradual_traffic_increase/1: Have PostgreSQL answer the reads of 1 %" in text
    assert "waits to be approved by another person" in text
    assert "back: DynamoDB decides again (stage shadow)" in text


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_plan(tmp_path / "none.yml")


def test_a_name_stands_for_one_action() -> None:
    taken = next(iter(ACTIONS))
    with pytest.raises(ConfigurationError, match="registered already"):
        register(Action(name=taken, says=lambda _: "", act=lambda *_: {}, holds=lambda *_: ()))
