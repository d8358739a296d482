"""The commands on one migrated table: `backfill`, `verify` and `repair`."""

import time
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dualstore.cli.keys import key_of
from dualstore.cli.running import command, config_option, console, opened
from dualstore.control import Gate
from dualstore.items import key_hash
from dualstore.verify import Verification

_DIFFERENCES_SHOWN = 20
_REPAIR_PATIENCE_SECONDS = 30.0

table_argument = click.argument("table")


@click.command()
@table_argument
@click.option("--segments", type=click.IntRange(min=1), default=8, show_default=True, help="Of the Scan.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Threads.")
@click.option("--items-per-second", type=click.FloatRange(min=0, min_open=True), help="The most to read.")
@config_option
@command
def backfill(table: str, *, config: Path, **options: Any) -> bool:
    """Copy the history of TABLE; run it again to go on where it was interrupted."""
    with opened(config) as store, _progress("items") as bar:
        task = bar.add_task("backfill", total=None)
        migrated = store.table(table)
        result = migrated.backfill(
            progress=lambda done: bar.update(
                task,
                completed=done.items,
                description=f"{done.phase}, {done.segments_done}/{done.segments_total} segments",
            ),
            **options,
        )
    done = result.totals
    click.echo(
        f"{table}: {done.items:,} items read, {done.inserted:,} inserted, {done.settled:,} settled, "
        f"{done.failed:,} failed; run {result.run_id}"
    )
    return result.succeeded


@click.command()
@table_argument
@click.option("--repair", is_flag=True, help="Settle what differs, and look at it again.")
@config_option
@command
def verify(table: str, *, config: Path, repair: bool) -> bool:
    """Compare both sides of TABLE whole, in both directions."""
    with opened(config) as store, _progress("items") as bar:
        task = bar.add_task("verify", total=None)
        found = store.table(table).verify(
            repair=repair,
            progress=lambda done: bar.update(
                task,
                completed=done.items,
                description=f"verify, {done.segments_done}/{done.segments_total} segments",
            ),
        )
    _print_differences(found)
    click.echo(
        f"{table}: {found.equal:,} equal, {found.difference_count:,} different, {found.repaired:,} repaired, "
        f"{found.moving:,} in motion; run {found.run_id}"
    )
    if found.expired:
        click.echo(
            f"{table}: {found.expired:,} expired on PostgreSQL and gone from DynamoDB, which is no "
            "difference: the relay deletes them"
        )
    return found.proven


@click.command()
@table_argument
@click.option(
    "--key", help="Settle this key alone, recorded or not: DynamoDB JSON, plain JSON, or its value."
)
@config_option
@command
def repair(table: str, *, config: Path, key: str | None) -> bool:
    """Settle every key of TABLE that is recorded as doubtful, and open the gate where nothing is left."""
    if key is None:
        return _repair_all(table, config)
    with opened(config) as store:
        migrated = store.table(table)
        keys = migrated.served.shape.keys
        settled = key_of(key, keys)
        migrated.settle([settled])
    click.echo(f"{table}: key {key_hash(keys, settled)} settled")
    return True


def _repair_all(table: str, config: Path) -> bool:
    deadline = time.monotonic() + _REPAIR_PATIENCE_SECONDS
    settled = 0
    with opened(config) as store:
        migrated = store.table(table)
        while True:
            done = migrated.repair()
            settled += done.settled
            if (done.gate is Gate.OPEN and not done.failed) or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        status = migrated.status()
    click.echo(f"{table}: {settled:,} keys settled, {done.failed:,} failed, gate {done.gate}")
    if status.record.suspects:
        click.echo(f"{table}: a process ended unclean; only `dualstore verify {table} --repair` clears that")
    return not status.pending


def _progress(unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=console(),
        disable=not console().is_terminal,
        transient=True,
    )


def _print_differences(found: Verification) -> None:
    if not found.differences:
        return
    shown = Table(box=SIMPLE_HEAD)
    for heading in ("key hash", "finding", "paths", "repaired"):
        shown.add_column(heading)
    for difference in found.differences[:_DIFFERENCES_SHOWN]:
        repaired = "yes" if difference.repaired else "no"
        shown.add_row(difference.key_hash, difference.finding, ", ".join(difference.paths), repaired)
    console().print(shown)
    if (more := found.difference_count - _DIFFERENCES_SHOWN) > 0:
        click.echo(f"and {more:,} more")
