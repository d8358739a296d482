"""The commands on one migrated table: `backfill`, `verify`, `repair` and `dial`."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dualstore.cli.running import command, config_option, console, opened
from dualstore.control import ControlRecord, Gate
from dualstore.errors import ConfigurationError, IllegalTransition
from dualstore.flags import FLAGS, FileFlags
from dualstore.stages import Stage
from dualstore.store import DualStore
from dualstore.verify import Verification

_DIFFERENCES_SHOWN = 20
_PERCENT = click.FloatRange(0, 100)
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
    return found.proven


@click.command()
@table_argument
@config_option
@command
def repair(table: str, *, config: Path) -> bool:
    """Settle every key of TABLE that is recorded as doubtful, and open the gate where nothing is left."""
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


@click.command()
@table_argument
@click.option("--stage", type=click.Choice(list(Stage), case_sensitive=False), help="The stage to ask for.")
@click.option("--read-percent", "postgres_read_percent", type=_PERCENT, help="Reads that PostgreSQL serves.")
@click.option("--mirror-percent", type=_PERCENT, help="Keys whose writes are mirrored.")
@click.option("--shadow-percent", type=_PERCENT, help="Reads that are compared on the other side.")
@click.option(
    "--wait", type=float, default=30.0, show_default=True, help="Seconds to wait for all processes."
)
@config_option
@command
def dial(table: str, *, config: Path, wait: float, **wishes: Any) -> None:
    """Ask for another stage or percentage of TABLE in its flag file, and wait until all processes follow."""
    asked = {name: wish for name, wish in wishes.items() if wish is not None}
    if not asked:
        raise ConfigurationError("nothing is asked for: give --stage or one of the percentages")
    with opened(config) as store:
        flags = _flag_file(store)
        migrated = store.table(table)
        before = flags.requested(table)
        flags.set(table, **asked)
        try:
            record = migrated.wait_until(
                lambda record: all(_present(record, name) == wish for name, wish in asked.items()),
                timeout=timedelta(seconds=wait),
            )
        except IllegalTransition:
            flags.set(table, **{name: getattr(before, name) for name in asked})
            raise
    click.echo(f"{table}: {_position(record)}, confirmed by every process")


def _position(record: ControlRecord) -> str:
    dials = record.dials
    return (
        f"stage {record.stage}, read-percent {dials.postgres_read_percent:g}, "
        f"mirror-percent {dials.mirror_percent:g}, "
        f"shadow-percent {dials.effective_shadow_percent(record.stage):g}"
    )


def _present(record: ControlRecord, name: str) -> object:
    """A wish's field as the record has it."""
    return record.stage if name == "stage" else getattr(record.dials, name)


def _flag_file(store: DualStore) -> FileFlags:
    if not isinstance(store.flags, FileFlags):
        keys = ", ".join(flag.suffix for flag in FLAGS)
        raise ConfigurationError(
            f"the flags are not a file ([flags] kind); set them ({keys}) where they are kept"
        )
    return store.flags


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
