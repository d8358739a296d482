"""`dualstore status`: where every table stands, in words."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

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
@config_option
@command
def status(*, config: Path) -> None:
    """Show where every table stands, and which processes have taken the last decision."""
    with opened(config) as store:
        statuses = [migrated.status() for migrated in store.tables()]
    console().print(_tables_shown(statuses))
    console().print(_processes_shown(statuses))
    for each in statuses:
        for kind, seen in sorted(each.rogues.items()):
            click.echo(
                f"{each.logical}: {seen.count:,} change(s) in DynamoDB passed dualstore by ({kind}); last "
                f"{seen.last_at:%Y-%m-%d %H:%M:%S} UTC, of key {seen.key_hash}"
            )
        if each.refusal is not None:
            click.echo(f"{each.logical}: {each.refusal}")


def _tables_shown(statuses: Sequence[TableStatus]) -> Table:
    shown = Table(box=SIMPLE_HEAD)
    for heading in (
        "table",
        "stage",
        "reads from PostgreSQL",
        "gate",
        "in doubt",
        "suspects",
        "outbox",
        "relay",
    ):
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
