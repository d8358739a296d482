"""`dualstore dial`: another stage or percentage of a table, with what speaks for it, and confirmed by all."""

import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from dualstore.cli.fleet import flag_problems
from dualstore.cli.running import command, config_option, opened
from dualstore.config import load
from dualstore.control import ControlRecord
from dualstore.errors import ConfigurationError, IllegalTransition, Unavailable
from dualstore.flags import FLAGS, setter_of
from dualstore.stages import Stage
from dualstore.store import DualStore
from dualstore.store.evidence import render

_PERCENT = click.FloatRange(0, 100)


@click.command()
@click.argument("table")
@click.option("--stage", type=click.Choice([stage.value for stage in Stage]), help="The stage to ask for.")
@click.option("--read-percent", "postgres_read_percent", type=_PERCENT, help="Reads that PostgreSQL serves.")
@click.option("--mirror-percent", type=_PERCENT, help="Keys whose writes are mirrored.")
@click.option("--shadow-percent", type=_PERCENT, help="Reads that are compared on the other side.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--wait",
    "--timeout",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds to wait for all processes.",
)
@config_option
@command
def dial(table: str, *, config: Path, yes: bool, wait: float, **wishes: Any) -> None:
    """Ask for another stage or percentage of TABLE where its flags are kept, and wait until all follow."""
    asked = {name: wish for name, wish in wishes.items() if wish is not None}
    if not asked:
        raise ConfigurationError("nothing is asked for: give --stage or one of the percentages")
    if not yes and not sys.stdin.isatty():
        raise ConfigurationError("there is no terminal to ask at; give --yes to dial without being asked")
    setter = setter_of(load(config))
    with opened(config) as store:
        migrated = store.table(table)
        present = migrated.status().record
        click.echo(_evidence_of(store, table))
        click.echo(f"{table}: {_change(present, asked)}")
        if not yes:
            click.confirm("Dial?", abort=True)
        put_back = setter.set(table, **asked)
        try:
            record = migrated.wait_until(
                lambda record: all(_present(record, name) == wish for name, wish in asked.items()),
                timeout=timedelta(seconds=wait),
            )
        except IllegalTransition:
            put_back()
            raise
        except Unavailable as late:
            raise Unavailable("\n".join([str(late), *flag_problems(store, table)])) from None
    click.echo(f"{table}: {_position(record)}, confirmed by every process")


def _evidence_of(store: DualStore, table: str) -> str:
    """What the fleet has seen of a table so far; that it cannot be told is no reason not to dial back."""
    try:
        return render(store.evidence(table))
    except Unavailable as away:
        return f"{table}: there is no evidence to show ({away})"


def _change(record: ControlRecord, asked: Mapping[str, object]) -> str:
    """From what to what, dial by dial: `read-percent 0 → 10`."""
    names = {flag.field: flag.suffix for flag in FLAGS}
    return ", ".join(
        f"{names[field]} {_written(_present(record, field))} → {_written(wish)}"
        for field, wish in asked.items()
    )


def _written(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "by stage" if value is None else str(value)


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
