"""Before anything is written twice: both databases answer, DynamoDB is backed up, the schema is there."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from dualstore import schema
from dualstore.errors import SchemaError, Unavailable
from dualstore.rollout import backups
from dualstore.rollout.context import Context
from dualstore.rollout.registry import Action, Check, Evidence, Step, StepRefused
from dualstore.stores.postgres import triggers

_LAST_LINES = 20


# -- verify_database_connection ------------------------------------------------------------------


def _both_answer(step: Step, context: Context) -> Sequence[Check]:
    return [_postgres_answers(context), *(_dynamodb_answers(context, name) for name in step.tables)]


def _postgres_answers(context: Context) -> Check:
    what = "PostgreSQL answers, and is no standby"
    try:
        with context.store.engine.connect() as connection:
            standby = connection.scalar(sa.text("SELECT pg_is_in_recovery()"))
    except SQLAlchemyError as error:
        kind = type(error.orig or error).__name__ if isinstance(error, DBAPIError) else type(error).__name__
        return Check(what, f"{kind}: see postgres.url, the network and the role's rights", passing=True)
    return Check(what, "it is in recovery: give postgres.url the writer endpoint" if standby else None)


def _dynamodb_answers(context: Context, name: str) -> Check:
    what = f"DynamoDB's table of {name} is active"
    try:
        description = _described(context, name)
    except (ClientError, BotoCoreError) as error:
        return Check(what, f"{backups.code_of(error)}: see the table's name, region and rights", passing=True)
    active = description["TableStatus"] in {"ACTIVE", "UPDATING"}
    return Check(what, None if active else f"it is {description['TableStatus']}", passing=True)


def _described(context: Context, name: str) -> Mapping[str, Any]:
    """What DescribeTable says of a table."""
    client = context.store.client()
    described: Mapping[str, Any] = client.describe_table(TableName=context.store.table(name).physical)[
        "Table"
    ]
    return described


def _look_at_both(step: Step, context: Context) -> Evidence:
    with context.store.engine.connect() as connection:
        version = connection.scalar(sa.text("SHOW server_version"))
    items = {name: _described(context, name).get("ItemCount") for name in step.tables}
    return {"postgres_version": version, "items_about": items}


VERIFY_DATABASE_CONNECTION = Action(
    name="verify_database_connection",
    says=lambda step: f"See that PostgreSQL and DynamoDB's tables ({', '.join(step.tables)}) answer.",
    act=_look_at_both,
    checks=_both_answer,
    holds=_both_answer,
)


# -- backup_dynamodb -----------------------------------------------------------------------------


def _may_be_backed_up(step: Step, context: Context) -> Sequence[Check]:
    if _method(step) == "lines":
        folder = Path(context.tools.folder, str(step.options["folder"]))
        problem = None if folder.is_dir() else f"there is no folder {folder}: make it"
        return [Check("the folder of the backup is there", problem)]
    wanted = step.options.get("point_in_time_recovery", "required")
    needed = wanted == "required" or _method(step) == "s3_export"  # AWS exports from it
    client = context.store.client()
    return [
        backups.recovery_check(client, table.physical, required=needed)
        for _, table in context.tables(step)
        if needed or wanted == "advised"
    ]


def _method(step: Step) -> str:
    return str(step.options.get("method", "on_demand"))


def _name(step: Step, context: Context) -> str:
    return str(step.options.get("name", f"dualstore-{context.plan.name}"))


def _lines_of(step: Step, context: Context, name: str) -> Path:
    return Path(context.tools.folder, str(step.options["folder"]), f"{_name(step, context)}-{name}.jsonl.gz")


def _backup_of(step: Step, context: Context, name: str) -> backups.Backup | None:
    """The backup that this step has made of a table, looked up anew."""
    marks = context.marks(step)
    if (began := marks.get(f"backing up {name}")) is None:
        return None
    client, physical = context.store.client(), context.store.table(name).physical
    match _method(step):
        case "lines":
            return backups.find_lines(_lines_of(step, context, name), since=began.at)
        case "s3_export":
            export = marks.get(f"exporting {name}")
            return None if export is None else backups.find_export(client, export.evidence["arn"])
        case _:
            return backups.find_on_demand(client, physical, _name(step, context), since=began.at)


def _backed_up(step: Step, context: Context) -> Sequence[Check]:
    return [backups.backup_check(name, _backup_of(step, context, name)) for name in step.tables]


def _back_up(step: Step, context: Context) -> Evidence:
    """Begin what is not there yet, and wait until all of it is."""
    for name in step.tables:
        began = context.mark(step, f"backing up {name}")
        found = _backup_of(step, context, name)
        if found is None or found.state is backups.BackupState.FAILED:
            context.tools.announce(f"{step.id}: backing up {name}")
            _begin(step, context, name, began)
    checks = context.wait_for(lambda: _backed_up(step, context), step.patience)
    if wrong := [str(each) for each in checks if each.problem is not None]:
        raise StepRefused("; ".join(wrong))
    made = {name: _backup_of(step, context, name) for name in step.tables}
    return {name: each.to_json() for name, each in made.items() if each is not None}


def _begin(step: Step, context: Context, name: str, began: datetime) -> None:
    client, physical = context.store.client(), context.store.table(name).physical
    match _method(step):
        case "lines":
            backups.write_lines(client, physical, _lines_of(step, context, name))
        case "s3_export":
            export = backups.start_export(
                client,
                _described(context, name)["TableArn"],
                bucket=str(step.options["bucket"]),
                prefix=str(step.options.get("prefix", "")),
                token=f"{context.plan.name}-{name}-{began:%Y%m%d%H%M%S}",
            )
            context.mark(step, f"exporting {name}", evidence={"arn": export.place})
        case _:
            backups.start_on_demand(client, physical, _name(step, context))


def _with_what_it_needs(step: Step) -> Sequence[Step]:
    needed = {"lines": "folder", "s3_export": "bucket"}.get(_method(step))
    if needed is not None and needed not in step.options:
        raise ValueError(f"backup_dynamodb with method {_method(step)} needs {needed}")
    return (step,)


BACKUP_DYNAMODB = Action(
    name="backup_dynamodb",
    says=lambda step: (
        f"Back up DynamoDB's tables ({', '.join(step.tables)}): "
        + {
            "on_demand": "an on-demand backup each, and point-in-time recovery is looked at.",
            "s3_export": f"an export of each to s3://{step.options.get('bucket', '')}.",
            "lines": f"every item, as DynamoDB JSON in a file in {step.options.get('folder', '')}.",
        }[_method(step)]
    ),
    act=_back_up,
    checks=_may_be_backed_up,
    holds=_backed_up,
    undo_says=lambda _: "nothing to take back: the backups stay",
    options={
        "method": {"enum": ["on_demand", "s3_export", "lines"]},
        "name": {"$ref": "#/$defs/name"},
        "point_in_time_recovery": {"enum": ["required", "advised", "ignored"]},
        "bucket": {"type": "string", "minLength": 3},
        "prefix": {"type": "string"},
        "folder": {"type": "string", "minLength": 1},
    },
    expand=_with_what_it_needs,
)


# -- run_schema_migrations -----------------------------------------------------------------------


def _schema_is_there(step: Step, context: Context) -> Sequence[Check]:
    return list(_schema_checks(step, context))


def _schema_checks(step: Step, context: Context) -> Iterator[Check]:
    engine = context.store.engine
    yield _bookkeeping(context)
    present = sa.inspect(engine)
    for name, table in context.tables(step):
        tables = [part.table for part in table.mapping.parts]
        there = {sql.fullname: present.has_table(sql.name, schema=sql.schema) for sql in tables}
        for sql_name, is_there in there.items():
            problem = None if is_there else "create it, with the team's own migrations (`command`) or by hand"
            yield Check(f"the SQL table {sql_name} of {name} is there", problem)
        if all(there.values()):
            installed = triggers.is_installed(engine, table.mapping)
            yield Check(
                f"what holds {name} has dualstore's triggers",
                None if installed else "run `dualstore schema upgrade`",
            )


def _bookkeeping(context: Context) -> Check:
    try:
        drift = schema.check(context.store.engine)
    except SchemaError as error:
        return Check("the schema dualstore is of this version", str(error))
    return Check("the schema dualstore is of this version", "; ".join(drift) or None)


def _migrate(step: Step, context: Context) -> Evidence:
    """The bookkeeping first, then the team's own tables, then the triggers on them."""
    context.store.prepare()
    ran = _run(step, context) if "command" in step.options else None
    context.store.prepare()
    return {"revision": schema.current(context.store.engine), **({} if ran is None else {"command": ran})}


def _run(step: Step, context: Context) -> Evidence:
    command: list[str] = list(step.options["command"])
    try:
        done = subprocess.run(  # noqa: S603 - the plan's own command, without a shell
            command,
            cwd=context.tools.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=max(step.patience, timedelta(seconds=1)).total_seconds(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StepRefused(
            f"{command[0]} did not end: {type(error).__name__}; see `command` and `patience`"
        ) from None
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-_LAST_LINES:])
        context.tools.announce(last)
        raise StepRefused(f"{command[0]} ended with {done.returncode}; what it said is above")
    return {"program": command[0], "exit_code": done.returncode}


def _may_migrate(_: Step, context: Context) -> Sequence[Check]:
    what = "the role may create the schema dualstore, or it is there"
    try:
        with context.store.engine.connect() as connection:
            may: Any = connection.scalar(
                sa.text(
                    "SELECT to_regnamespace('dualstore') IS NOT NULL"
                    " OR has_database_privilege(current_database(), 'CREATE')"
                )
            )
    except (SQLAlchemyError, Unavailable) as error:
        return [Check(what, f"PostgreSQL does not answer ({type(error).__name__})", passing=True)]
    return [Check(what, None if may else "GRANT CREATE ON DATABASE … TO it")]


RUN_SCHEMA_MIGRATIONS = Action(
    name="run_schema_migrations",
    says=lambda step: (
        "Create or upgrade the bookkeeping of both databases"
        + (
            f", run the team's own migrations ({Path(step.options['command'][0]).name})"
            if "command" in step.options
            else ""
        )
        + ", and see that the SQL tables are there, with their triggers."
    ),
    act=_migrate,
    checks=_may_migrate,
    holds=_schema_is_there,
    undo_says=lambda _: "nothing to take back: empty tables hurt nobody",
    options={
        "command": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string"},
            "description": "the team's own migrations, as a list of words: [alembic, upgrade, head]",
        }
    },
)
