"""`dualstore export`: exports of a table to S3, for a backfill to copy from."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dualstore.cli.running import command, config_option, console, find_models
from dualstore.config import Configuration, import_object, load
from dualstore.errors import ConfigurationError
from dualstore.stores.dynamo_exports import (
    ExportRequest,
    ExportState,
    bucket_and_prefix,
    exports_of,
    latest_restorable,
    start_export,
    table_identity,
    wait_for_export,
    windows_between,
)
from dualstore.stores.source_clients import SourceClients

_LATEST = "latest"
_PATIENCE = timedelta(hours=24)
_NEVER = datetime.max.replace(tzinfo=UTC)


def _when(_: click.Context, __: click.Parameter, value: str | None) -> datetime | str | None:
    """A time with a zone, or the word `latest`."""
    if value is None or value == _LATEST:
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time such as 2026-01-14T10:20:00Z") from None
    if moment.tzinfo is None:
        raise click.BadParameter(f"{value!r} has no time zone: write 2026-01-14T10:20:00Z")
    return moment.astimezone(UTC)


_time_option = partial(click.option, callback=_when, metavar="TIME")


@click.command()
@click.argument("table")
@click.option("--to", "to", metavar="URL", help="Where it goes: s3://bucket or s3://bucket/prefix.")
@_time_option("--at", help="Whose state a full export holds; `latest`: of the last second there is.")
@click.option("--incremental", is_flag=True, help="The keys written since --since, deleted ones too.")
@_time_option("--since", help="Begin of an incremental export: the time of the export before it.")
@_time_option("--until", help="End of an incremental export; else the last second there is.")
@click.option("--kms-key", metavar="ARN", help="The key that encrypts the files.")
@click.option("--bucket-owner", metavar="ACCOUNT", help="The account of the bucket, where it is another one.")
@click.option("--token", help="Two commands with the same token are one; the default is made of the rest.")
@click.option("--wait", is_flag=True, help="Wait until it is there.")
@click.option("--list", "lists", is_flag=True, help="Show the table's exports, and start none.")
@config_option
@command
def export(
    table: str,
    *,
    config: Path,
    to: str | None,
    incremental: bool,
    wait: bool,
    lists: bool,
    **options: Any,
) -> None:
    """Export TABLE to S3, without reading it: DynamoDB takes it from the table's backups."""
    settings = load(config)
    name = _physical(settings, table)
    dynamodb = settings.dynamodb
    with SourceClients(endpoint_url=dynamodb.endpoint_url, region=dynamodb.region) as clients:
        client = clients.exports()
        arn = table_identity(client, name).arn
        if lists:
            _print_exports(list(exports_of(client, arn)))
            return
        begun = [
            start_export(client, each)
            for each in _requests(client, name, arn, to, incremental=incremental, **options)
        ]
        for each in begun:
            click.echo(f"{table}: {_what(each)}: {each.arn}")
        if not wait:
            click.echo(f"{table}: `dualstore export {table} --list` shows when it can be copied from")
            return
        for each in begun:
            done = _waited(client, each)
            click.echo(f"{table}: {done.items or 0:,} items at {done.url}")


def _physical(settings: Configuration, table: str) -> str:
    """The DynamoDB table's name; neither database is asked."""
    found = settings.tables.get(table)
    if found is None:
        raise ConfigurationError(f"there is no table {table!r} in the configuration")
    if found.physical_name is not None:
        return found.physical_name
    find_models()
    model = import_object(found.model or "", setting=f"tables.{table}.model")
    return str(model.Meta.table_name)


def _requests(
    client: Any,
    name: str,
    arn: str,
    to: str | None,
    *,
    incremental: bool,
    at: datetime | str | None,
    since: datetime | str | None,
    until: datetime | str | None,
    **options: Any,
) -> Sequence[ExportRequest]:
    """The requests that carry a command out: incremental exports of more than a day are several."""
    if to is None:
        raise ConfigurationError("say where it goes: --to s3://bucket/prefix; or give --list")
    bucket, prefix = bucket_and_prefix(to)
    request = ExportRequest(arn, bucket, prefix, **options)
    if not incremental:
        if since is not None or until is not None:
            raise ConfigurationError("--since and --until need --incremental")
        moment = latest_restorable(client, name) if at == _LATEST else at
        return [replace(request, at=_moment(moment))]
    if at is not None or since is None:
        raise ConfigurationError("an incremental export needs --since, and no --at")
    end = latest_restorable(client, name) if until in {None, _LATEST} else until
    windows = windows_between(_moment(since) or _NEVER, _moment(end) or _NEVER)
    tokens = [options.get("token") and f"{options['token']}-{number}" for number in range(len(windows))]
    return [
        replace(request, window=window, token=token) for window, token in zip(windows, tokens, strict=True)
    ]


def _moment(moment: datetime | str | None) -> datetime | None:
    if isinstance(moment, str):
        raise ConfigurationError(f"`{_LATEST}` stands with --at and --until alone")
    return moment


def _waited(client: Any, begun: ExportState) -> ExportState:
    with Progress(
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console(),
        disable=not console().is_terminal,
        transient=True,
    ) as bar:
        task = bar.add_task(_what(begun), total=None)
        return wait_for_export(
            client,
            begun.arn,
            patience=_PATIENCE,
            clock=time.monotonic,
            sleep=time.sleep,
            seen=lambda state: bar.update(task, description=_what(state)),
        )


def _what(state: ExportState) -> str:
    """An export in a few words: DynamoDB does not tell how far it has come."""
    if state.window is not None:
        begin, end = state.window
        return f"incremental export from {_text(begin)} to {_text(end)}, {state.status.lower()}"
    of = "" if state.time is None else f" of {_text(state.time)}"
    return f"full export{of}, {state.status.lower()}"


def _text(moment: datetime) -> str:
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def _print_exports(exports: Sequence[ExportState]) -> None:
    shown = Table(box=SIMPLE_HEAD)
    for heading in ("export", "items", "where, or why not"):
        shown.add_column(heading)
    for each in exports:
        items = "" if each.items is None else f"{each.items:,}"
        shown.add_row(_what(each), items, each.failure or each.url or "")
    console().print(shown)
