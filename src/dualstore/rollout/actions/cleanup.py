"""The end: nobody needs DynamoDB any more, and a backup of PostgreSQL can be restored."""

import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from dualstore.rollout import backups
from dualstore.rollout.context import Context
from dualstore.rollout.durations import said
from dualstore.rollout.registry import Action, Check, Evidence, Step, StepRefused
from dualstore.rollout.schema import SOAKING
from dualstore.rollout.soaking import SOAKING_MARK
from dualstore.stages import Side, Stage
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres_rollup import PostgresRollup
from dualstore.telemetry import Role
from dualstore.telemetry.figures import Work

_WATCHED = timedelta(minutes=10)
_LAST_LINES = 20


# -- verify_all_traffic_postgres -----------------------------------------------------------------


def _traffic(step: Step, context: Context) -> Mapping[str, Mapping[str, int]]:
    """Since the watch began: the callers' operations by side, and changes past dualstore."""
    began = context.mark(step, SOAKING_MARK)
    found = {}
    for name, table in context.tables(step):
        figures = PostgresRollup(context.store.engine).since(table.physical, began).figures
        callers = (Role.AUTHORITATIVE, Role.READER)
        rogues = table.status().rogues.values()
        found[name] = {
            "postgres": figures.by(side=Side.POSTGRES, works=tuple(Work), roles=callers).count,
            "dynamodb": figures.by(side=Side.DYNAMODB, works=tuple(Work), roles=callers).count,
            "rogues": sum(each.count for each in rogues if each.last_at >= began),
        }
    return found


def _traffic_checks(name: str, seen: Mapping[str, int]) -> Sequence[Check]:
    return [
        Check(
            f"PostgreSQL answers the callers of {name} ({seen['postgres']:,} operations seen)",
            None if seen["postgres"] else "no operation was seen yet: wait for traffic",
            passing=True,
        ),
        Check(
            f"DynamoDB answers no caller of {name}",
            f"it answered {seen['dynamodb']:,} operations: a process is behind" if seen["dynamodb"] else None,
        ),
        Check(
            f"nobody changes DynamoDB's table of {name} past dualstore",
            f"{seen['rogues']:,} change(s): `dualstore status` tells of which kind"
            if seen["rogues"]
            else None,
        ),
    ]


def _watch_traffic(step: Step, context: Context) -> Evidence:
    ends = context.mark(step, SOAKING_MARK) + step.soak
    if (left := ends - context.now()) > timedelta(0):
        context.tools.announce(f"{step.id}: watched until {ends:%Y-%m-%d %H:%M:%S %Z}")
        context.pause(left)
    checks = context.wait_for(lambda: _all_on_postgres(step, context), step.patience)
    if wrong := [str(each) for each in checks if each.problem is not None]:
        raise StepRefused("; ".join(wrong))
    return _traffic(step, context)


def _all_on_postgres(step: Step, context: Context) -> Sequence[Check]:
    ends = context.mark(step, SOAKING_MARK) + step.soak
    over = None if ends <= context.now() else "not to the end yet"
    checks = [Check(f"the traffic was watched for {said(step.soak)}", over)]
    for name, seen in _traffic(step, context).items():
        checks += _traffic_checks(name, seen)
    return checks


VERIFY_ALL_TRAFFIC_POSTGRES = Action(
    name="verify_all_traffic_postgres",
    says=lambda step: (
        f"Watch for {said(step.soak)} that PostgreSQL answers every caller, DynamoDB none, and that nobody "
        "writes to DynamoDB past dualstore."
    ),
    act=_watch_traffic,
    holds=_all_on_postgres,
    at=frozenset({Stage.LIVE, Stage.RAMPDOWN, Stage.COMPLETE}),
    options={"soak": SOAKING["soak"]},
    expand=lambda step: [step if step.soak else replace(step, soak=_WATCHED)],
)


# -- backup_verification -------------------------------------------------------------------------


def _can_restore(step: Step, _: Context) -> Sequence[Check]:
    variable = step.options.get("scratch_url_variable")
    if variable is None:
        return ()
    there = bool(os.environ.get(variable))
    problem = None if there else "set it to the URL of a scratch database; never of the production one"
    return [Check(f"{variable} is set", problem)]


def _restored(step: Step, context: Context) -> Mapping[str, backups.Restored]:
    variable = step.options.get("scratch_url_variable")
    if variable is None:
        return _lines_compared(step, context)
    url = os.environ.get(variable, "")
    driver_url = "postgresql+psycopg://" + url.partition("://")[2]
    engine = sa.create_engine(driver_url, poolclass=sa.NullPool)
    try:
        if (problem := _why_not_scratch(engine, context.store.engine)) is not None:
            raise StepRefused(f"{variable} {problem}")
        found = {}
        for name, table in context.tables(step):
            scratch = PostgresStore(engine, {table.physical: table.mapping})
            present = PostgresStore(context.store.engine, {table.physical: table.mapping})
            found[name] = backups.compare_database(scratch, present, table.served.shape)
        return found
    finally:
        engine.dispose()


def _lines_compared(step: Step, context: Context) -> Mapping[str, backups.Restored]:
    found = {}
    for name, table in context.tables(step):
        path = Path(
            context.tools.folder, str(step.options["folder"]), f"{step.options['name']}-{name}.jsonl.gz"
        )
        present = PostgresStore(context.store.engine, {table.physical: table.mapping})
        found[name] = backups.compare_lines(backups.read_lines(path), present, table.served.shape)
    return found


def _why_not_scratch(scratch: sa.Engine, present: sa.Engine) -> str | None:
    """Why a database cannot be taken for a restored copy; None where it can.

    A lock that one connection holds, and the other cannot get, tells that both are in one database, whatever
    name and way led there. A replica has locks of its own, but is no restored backup either.
    """
    key = secrets.randbits(63)
    with present.connect() as here, scratch.connect() as there:
        if there.scalar(sa.text("SELECT pg_is_in_recovery()")):
            return "names a replica: give a scratch database that a backup was restored into"
        # Of the transactions: a pooler may give each another session.
        here.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        if not there.scalar(sa.text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": key}):
            return "names the production database itself: give a scratch one"
    return None


def _restore_and_compare(step: Step, context: Context) -> Evidence:
    if (command := step.options.get("command")) is not None:
        began = context.mark(step, "restoring")
        context.tools.announce(f"{step.id}: restoring, since {began:%H:%M:%S}: {command[0]}")
        done = subprocess.run(command, cwd=context.tools.folder, capture_output=True, text=True, check=False)  # noqa: S603 - the plan's own command, without a shell
        if done.returncode:
            context.tools.announce("\n".join((done.stdout + done.stderr).splitlines()[-_LAST_LINES:]))
            raise StepRefused(f"{command[0]} ended with {done.returncode}; what it said is above")
    found = _restored(step, context)
    if wrong := backups.problems(found):
        raise StepRefused("; ".join(wrong))
    context.mark(step, "compared")
    return {name: each.to_json() for name, each in found.items()}


def _was_compared(step: Step, context: Context) -> Sequence[Check]:
    compared = "compared" in context.marks(step)
    what = "a restored backup was held against the present, and was whole"
    return [Check(what, None if compared else "not yet")]


def _one_way(step: Step) -> Sequence[Step]:
    if "scratch_url_variable" in step.options:
        return (step,)
    if not {"folder", "name"} <= step.options.keys():
        raise ValueError(
            "backup_verification needs scratch_url_variable (a restored PostgreSQL backup), or folder and "
            "name of what backup_dynamodb wrote with method lines"
        )
    return (step,)


BACKUP_VERIFICATION = Action(
    name="backup_verification",
    says=lambda step: (
        "Hold a restored backup of PostgreSQL against what there is now, row by row."
        if "scratch_url_variable" in step.options
        else "Hold the file that backup_dynamodb wrote against PostgreSQL, item by item."
    ),
    act=_restore_and_compare,
    checks=_can_restore,
    holds=_was_compared,
    at=frozenset(Stage) - {Stage.OFF},
    options={
        "scratch_url_variable": {
            "type": "string",
            "pattern": "^[A-Z_][A-Z0-9_]*$",
            "description": "the name of an environment variable, such as DUALSTORE_SCRATCH_URL",
        },
        "command": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "folder": {"type": "string", "minLength": 1},
        "name": {"$ref": "#/$defs/name"},
    },
    expand=_one_way,
)
