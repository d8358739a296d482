"""`dualstore plan …`: a migration as one file that is shown, carried out, resumed and rolled back."""

import getpass
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dualstore.cli.running import command, config_option, opened
from dualstore.config import load
from dualstore.errors import ConfigurationError, SchemaError, Unavailable
from dualstore.flags import setter_of
from dualstore.rollout import (
    Ended,
    EventKind,
    Outcome,
    Plan,
    PlanEvent,
    Progress,
    Progressed,
    RolledBack,
    Standing,
    Step,
    StepRefused,
    Tools,
    bookkeeping_check,
    carrying_out,
    events_of,
    load_plan,
    look,
    rehearse,
    rollback_one_step,
    rollback_to_the_beginning,
    run,
    schema_of_plans,
    standing,
)
from dualstore.rollout.durations import said
from dualstore.rollout.showing import dry_run_in_words, events_in_words, plan_in_words
from dualstore.store import DualStore

_PROGRESS_SECONDS = 10.0

plan_argument = click.argument(
    "plan_file", metavar="PLAN", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
until_option = click.option(
    "--until", metavar="STEP", help="The last step to carry out; else the plan's last."
)
as_option = click.option(
    "--as", "who", help="Who you are, for the record; else the user and machine at hand."
)


@click.group()
def plan() -> None:
    """Show, carry out, resume and roll back a migration that is written down in a file."""


@plan.command()
@plan_argument
@click.option("--schema", "prints_schema", is_flag=True, help="Print the JSON schema of plans, for editors.")
@command
def validate(plan_file: Path, *, prints_schema: bool) -> None:
    """See that PLAN is one; every mistake is told with its line."""
    if prints_schema:
        click.echo(json.dumps(schema_of_plans(), indent=2))
        return
    found = load_plan(plan_file)
    click.echo(f"{plan_file}: plan {found.name}, {len(found.steps)} steps")


@plan.command()
@plan_argument
@click.option("--record", is_flag=True, help="Also print everything that has happened.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
@config_option
@command
def show(plan_file: Path, *, config: Path, record: bool, as_json: bool) -> None:
    """Say in words what PLAN will do, and how far it is."""
    found = load_plan(plan_file)
    events = _events(config, found)
    if as_json:
        click.echo(json.dumps(_document(found, events), default=str))
        return
    for line in plan_in_words(found, standing(events or ())):
        click.echo(line)
    if events is None:
        click.echo("\nPostgreSQL keeps no record of it, or cannot be reached")
    elif record:
        click.echo("")
        for line in events_in_words(events):
            click.echo(line)


@plan.command("run")
@plan_argument
@click.option("--dry-run", is_flag=True, help="Make every check that can be made now, and no change.")
@until_option
@click.option(
    "--no-wait", "no_wait", is_flag=True, help="End where an approval or a window is to be waited for."
)
@as_option
@config_option
@command
def run_command(
    plan_file: Path, *, config: Path, dry_run: bool, until: str | None, no_wait: bool, who: str | None
) -> bool:
    """Carry PLAN out from where it stands; harmless where it is finished."""
    found = load_plan(plan_file)
    with _tools(config, plan_file, who, found) as tools:
        if dry_run:
            return _looked(found, tools)
        with carrying_out(found, tools) as context:
            return _said(run(context, until=until, ask=_asked(tools.who), waits=not no_wait))


@plan.command()
@plan_argument
@click.option("--as", "who", required=True, help="Who has it go on, for the record.")
@until_option
@click.option(
    "--no-wait", "no_wait", is_flag=True, help="End where an approval or a window is to be waited for."
)
@config_option
@command
def resume(plan_file: Path, *, config: Path, who: str, until: str | None, no_wait: bool) -> bool:
    """Have a halted PLAN, or one whose file has changed, go on."""
    found = load_plan(plan_file)
    with (
        _tools(config, plan_file, who, found) as tools,
        carrying_out(found, tools, resumed_by=who) as context,
    ):
        return _said(run(context, until=until, ask=_asked(who), waits=not no_wait))


@plan.command()
@plan_argument
@click.argument("step")
@click.option("--as", "who", required=True, help="Who approves it, for the record.")
@config_option
@command
def approve(plan_file: Path, step: str, *, config: Path, who: str) -> None:
    """Approve one STEP of PLAN; whoever carries the plan out goes on."""
    found = load_plan(plan_file)
    if found.step(step) is None:
        known = ", ".join(each.id for each in found.steps if each.approval is not None) or "none"
        raise ConfigurationError(f"{plan_file} has no step {step}; to be approved: {known}")
    with opened(config) as store:
        tools = Tools(store=store, setter=_NoSetter(), who=who)
        tools.plans.append(found.name, EventKind.APPROVED, by=who, step=step)
    click.echo(f"{step}: approved by {who}")


@plan.command()
@plan_argument
@click.option("--all", "all_of_it", is_flag=True, help="Back to the beginning, not one step alone.")
@click.option("--reason", default="rolled back by hand", show_default=True, help="Why, for the record.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_option
@config_option
@command
def rollback(
    plan_file: Path, *, config: Path, all_of_it: bool, reason: str, yes: bool, who: str | None
) -> bool:
    """Take the last step of PLAN back that has changed anything, or all; `plan resume` goes forward again."""
    found = load_plan(plan_file)
    if not yes and not sys.stdin.isatty():
        raise ConfigurationError(
            "there is no terminal to ask at; give --yes to roll back without being asked"
        )
    if not yes:
        click.confirm(
            f"Roll plan {found.name} back {'to its beginning' if all_of_it else 'one step'}?", abort=True
        )
    take_back = rollback_to_the_beginning if all_of_it else rollback_one_step
    with _tools(config, plan_file, who, found) as tools:
        return _refusals_said(lambda: _print_rolled_back(take_back(found, reason, {}, tools=tools)))


@plan.command("rehearse")
@plan_argument
@click.option("--stay", is_flag=True, help="Leave the step taken back.")
@click.option("--as", "who", required=True, help="Who has it go forward again, for the record.")
@config_option
@command
def rehearse_command(plan_file: Path, *, config: Path, stay: bool, who: str) -> bool:
    """Take the last step of a PLAN of staging back on purpose, make it again, and say how long that took."""
    found = load_plan(plan_file)

    def rehearsed() -> None:
        done = rehearse(found, tools, goes_forward=not stay)
        click.echo(f"{done.step}: back in {done.back.total_seconds():.2f} s, confirmed by every process")
        if done.forward is not None:
            click.echo(
                f"{done.step}: forward again in {done.forward.total_seconds():.2f} s; the next `plan run` "
                "judges its gates anew"
            )

    with _tools(config, plan_file, who, found) as tools:
        return _refusals_said(rehearsed)


@contextmanager
def _tools(config: Path, plan_file: Path, who: str | None, found: Plan) -> Iterator[Tools]:
    """The tools of a command, with a store that knows the plan's tables."""
    configuration = load(config)
    said = "staging" if found.is_staging else "production"
    if configuration.environment not in {None, said}:
        raise ConfigurationError(
            f"{plan_file} is a plan of {said}, but `environment` in {config} is "
            f"{configuration.environment}: take the plan, or the configuration, of the same deployment"
        )
    setter, known = setter_of(configuration), configuration.tables
    if missing := sorted(set(found.tables) - set(known)):
        raise ConfigurationError(f"{config} has no table {', '.join(missing)}: add [tables.{missing[0]}]")
    with opened(config) as store:
        yield Tools(
            store=store,
            setter=setter,
            who=who or somebody(),
            announce=_announce,
            progressed=_progressed(),
            folder=str(plan_file.parent),
        )


class _NoSetter:
    """For commands that set no flag."""

    def set(self, table: str, **_: Any) -> Callable[[], None]:
        """Refuses: nothing is set."""
        raise ConfigurationError(f"no flag of {table} is to be set here")


def somebody() -> str:
    """The user and machine at hand."""
    user = "somebody"
    with suppress(KeyError, OSError):  # a user id without a name, as in a container
        user = getpass.getuser()
    return f"{user}@{platform.node()}"


def _announce(text: str) -> None:
    click.echo(f"{datetime.now().astimezone():%H:%M:%S} {text}")
    sys.stdout.flush()


def _progressed() -> Progressed:
    """Says now and then how far a copy or comparison has come."""
    said_at = time.monotonic()

    def say(step: Step, table: str, progress: Progress) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= _PROGRESS_SECONDS:
            said_at = time.monotonic()
            _announce(f"{step.id}: {progress.items:,} items of {table}, {said(progress.elapsed)}")

    return say


def _asked(who: str) -> Callable[[Step], str | None]:
    """Asks at the terminal, once for each step; nobody where there is none."""

    def ask(step: Step) -> str | None:
        if not sys.stdin.isatty():
            return None
        return who if click.confirm(f"{step.id}: go on?", default=False) else None

    return ask


def _said(ended: Ended) -> bool:
    if ended.outcome in {Outcome.FINISHED, Outcome.REACHED}:
        return True
    click.echo(f"{ended.outcome}: {ended.reason}")
    return False


def _refusals_said(act: Callable[[], None]) -> bool:
    try:
        act()
    except StepRefused as refusal:
        click.echo(f"refused: {refusal}")
        return False
    return True


def _print_rolled_back(done: RolledBack) -> None:
    if not done.steps:
        click.echo("nothing had begun: nothing to take back; the plan is halted all the same")
    for each in done.steps:
        text = (
            f"taken back in {each.duration.total_seconds():.2f} s" if each.changed else "had changed nothing"
        )
        click.echo(f"{each.step}: {text}")
    click.echo("the plan is halted; `dualstore plan resume --as NAME` goes forward again")


def _looked(found: Plan, tools: Tools) -> bool:
    bookkeeping = bookkeeping_check(tools)
    click.echo(bookkeeping)
    if bookkeeping.problem is not None:
        return False
    done = frozenset(step for step, known in _standing(tools, found).steps.items() if known.state.is_done)
    looked = list(look(found, tools, done=done))
    for line in dry_run_in_words(looked):
        click.echo(line)
    return not any(check.problem for each in looked for check in each.checks)


def _standing(tools: Tools, found: Plan) -> Standing:
    try:
        return standing(events_of(tools.plans.events(found.name) if tools.plans.find(found.name) else ()))
    except SchemaError:
        return standing(())


def _events(config: Path, found: Plan) -> list[PlanEvent] | None:
    """What the record holds; None where there is none, or nobody can say."""
    with suppress(Unavailable, SchemaError, ConfigurationError), opened(config) as store:
        return _recorded(store, found)
    return None


def _recorded(store: DualStore, found: Plan) -> list[PlanEvent] | None:
    plans = Tools(store=store, setter=_NoSetter(), who="").plans
    return None if plans.find(found.name) is None else list(events_of(plans.events(found.name)))


def _document(found: Plan, events: list[PlanEvent] | None) -> dict[str, Any]:
    known = standing(events or ())
    return {
        "plan": found.name,
        "tables": list(found.tables),
        "recorded": events is not None,
        "halted": None
        if known.halted is None
        else {"by": known.halted.by, "at": known.halted.at.isoformat(), "reason": known.halted.reason},
        "steps": [
            {
                "id": step.id,
                "action": step.action,
                "stage": step.stage,
                "state": known.of(step.id).state.value,
                "attempt": known.of(step.id).attempt,
                "approved_by": list(known.of(step.id).approved_by),
            }
            for step in found.steps
        ],
        "events": [
            {
                "kind": event.kind.value,
                "step": event.step,
                "by": event.by,
                "at": event.at.isoformat(),
                "attempt": event.attempt,
                "seconds": event.seconds,
                "reason": event.reason,
                "evidence": dict(event.evidence),
            }
            for event in events or ()
        ],
    }
