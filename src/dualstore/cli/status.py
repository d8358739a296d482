"""`dualstore status`: where every table stands, in words."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dualstore.cli.fleet import Shown, document, evidence_shown, fleet_shown, looked_at
from dualstore.cli.running import command, config_option, console, opened
from dualstore.control import ControlRecord
from dualstore.stages import Side
from dualstore.store import TableStatus
from dualstore.stores.base import OutboxDepth

_TABLE_HEADINGS = (
    *("table", "stage", "reads from PostgreSQL", "gate"),
    *("in doubt", "suspects", "outbox", "relay"),
)
_PROCESS_HEADINGS = ("table", "process", "version", "last seen", "has taken the last decision")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
@click.option("--watch", type=click.FloatRange(min=0.1), help="Look again every so many seconds.")
@config_option
@command
def status(*, config: Path, as_json: bool, watch: float | None) -> None:
    """Show where every table stands, what all processes did and saw, and who took the last decision."""
    with opened(config) as store:
        while True:
            tables = looked_at(store)
            if as_json:
                click.echo(json.dumps([document(each) for each in tables]))
            else:
                if watch is not None:
                    click.clear()
                _print(tables)
            if watch is None:
                return
            time.sleep(watch)


def _print(tables: Sequence[Shown]) -> None:
    statuses = [each.status for each in tables]
    console().print(_tables_shown(statuses))
    if any(each.fleet and each.fleet.worked for each in tables):
        console().print(fleet_shown(tables))
    for shown in tables:
        click.echo(evidence_shown(shown))
    console().print(_processes_shown(statuses))
    for shown in tables:
        for problem in shown.flag_problems:
            click.echo(f"{shown.status.logical}: {problem}")
    for each in statuses:
        if each.record.stopped is not None:
            click.echo(f"{each.logical}: reads from PostgreSQL and comparisons are {each.record.stopped}")
        for kind, seen in sorted(each.rogues.items()):
            click.echo(
                f"{each.logical}: {seen.count:,} change(s) in DynamoDB passed dualstore by ({kind}); last "
                f"{seen.last_at:%Y-%m-%d %H:%M:%S} UTC, of key {seen.key_hash}"
            )
        if each.refusal is not None:
            click.echo(f"{each.logical}: {each.refusal}")


def _tables_shown(statuses: Sequence[TableStatus]) -> Table:
    shown = Table(box=SIMPLE_HEAD)
    for heading in _TABLE_HEADINGS:
        shown.add_column(heading)
    for each in statuses:
        shown.add_row(*_table_row(each))
    return shown


def _table_row(status: TableStatus) -> tuple[str, ...]:
    record = status.record
    dirty = "PostgreSQL does not answer" if status.dirty_keys is None else f"{status.dirty_keys:,} dirty"
    decided_by_dynamodb = record.authority is Side.DYNAMODB
    return (
        status.logical,
        status.position,
        _reads(record),
        record.gate if decided_by_dynamodb else "-",
        f"{dirty}, {status.journal_keys:,} in the journal" if decided_by_dynamodb else dirty,
        str(len(record.suspects)),
        _outbox(status.outbox),
        "not caught up, or none" if status.stream_lag is None else f"{_age(status.stream_lag)} behind",
    )


def _reads(record: ControlRecord) -> str:
    if record.authority is Side.POSTGRES:
        return "all"
    if record.stopped is not None:
        return "stopped"
    return f"{record.dials.postgres_read_percent:g} %" + ("" if record.loaded else ", not loaded")


def _outbox(depth: OutboxDepth | None) -> str:
    if depth is None:
        return "?"
    waiting = depth.entries - depth.second_looks - depth.refused
    parts = [f"{waiting:,} waiting"] if waiting or not depth.entries else []
    parts += [f"{depth.refused:,} refused by DynamoDB"] if depth.refused else []
    parts += [f"{depth.second_looks:,} to be looked at once more"] if depth.second_looks else []
    parts += [f"oldest {_age(depth.oldest_age)}"] if depth.oldest_age else []
    return ", ".join(parts)


def _processes_shown(statuses: Sequence[TableStatus]) -> Table:
    shown = Table(box=SIMPLE_HEAD)
    for heading in _PROCESS_HEADINGS:
        shown.add_column(heading)
    for each in statuses:
        for process in sorted(each.processes, key=lambda process: process.label):
            shown.add_row(
                each.logical,
                process.label,
                process.version,
                f"{datetime.fromtimestamp(process.seen_at, UTC):%H:%M:%S} UTC",
                "yes" if process.confirmed else "not yet",
            )
    return shown


def _age(duration: timedelta) -> str:
    return f"{duration.total_seconds():.1f} s"
