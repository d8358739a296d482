"""`dualstore discrepancies`: what comparisons and verifications have found, and what is done about it."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dualstore.cli.running import command, config_option, console, opened
from dualstore.store.discrepancies import SEARCHED_KEYS, RepairOutcome
from dualstore.stores.discrepancies import DiscrepancyState, RecordedDiscrepancy
from dualstore.telemetry import DiscrepancyKind

_HEADINGS = ("id", "table", "class", "key hash", "attributes", "seen by", "count", "last seen", "state")

table_argument = click.argument("table")
number_argument = click.argument("number", metavar="ID", type=click.IntRange(min=1))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def discrepancies() -> None:
    """Look at, repair or ignore the differences that comparisons and verifications have confirmed."""


@discrepancies.command("list")
@click.argument("table", required=False)
@click.option(
    "--state",
    "states",
    type=click.Choice([*(state.value for state in DiscrepancyState), "all"]),
    default=DiscrepancyState.OPEN.value,
    show_default=True,
    help="Only those in this state.",
)
@click.option(
    "--class",
    "kind",
    type=click.Choice([kind.value for kind in DiscrepancyKind]),
    help="Only those of this class.",
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The most to list.")
@json_option
@config_option
@command
def list_(
    table: str | None, *, config: Path, states: str, kind: str | None, limit: int, as_json: bool
) -> None:
    """List the discrepancies of TABLE, or of all tables; the last seen first."""
    wanted = None if states == "all" else [DiscrepancyState(states)]
    kinds = None if kind is None else [DiscrepancyKind(kind)]
    with opened(config) as store:
        tables = store.tables() if table is None else [store.table(table)]
        found = {
            each.served.logical: each.discrepancies.recorded(states=wanted, kinds=kinds, limit=limit)
            for each in tables
        }
    if as_json:
        _print_json([_as_json(name, each) for name, listed in found.items() for each in listed])
        return
    console().print(_listed(found))


@discrepancies.command()
@table_argument
@number_argument
@json_option
@config_option
@command
def show(table: str, number: int, *, config: Path, as_json: bool) -> None:
    """Show everything that is recorded of discrepancy ID of TABLE."""
    with opened(config) as store:
        kept = store.table(table).discrepancies
        found = kept.one(number)
        shown = _as_json(table, found) | {"key": _plain(kept.key_of(found))}
    if as_json:
        _print_json(shown)
        return
    for name, value in shown.items():
        said = ", ".join(value) if isinstance(value, list) else value
        click.echo(f"{name.replace('_', ' '):17} {'-' if said in (None, '') else said}")


@discrepancies.command()
@table_argument
@click.argument("number", metavar="[ID]", type=click.IntRange(min=1), required=False)
@click.option(
    "--search-keys",
    type=click.IntRange(min=0),
    default=SEARCHED_KEYS,
    show_default=True,
    help="The most keys of each side to look through for one of which only the hash is known.",
)
@json_option
@config_option
@command
def repair(table: str, number: int | None, *, config: Path, search_keys: int, as_json: bool) -> bool:
    """Settle what discrepancy ID of TABLE is about, or all open ones, and look if the sides are equal."""
    with opened(config) as store:
        done = store.table(table).discrepancies.repair(number, searched_keys=search_keys)
    repaired = sum(each.outcome is RepairOutcome.REPAIRED for each in done)
    if as_json:
        _print_json(
            [_as_json(table, each.recorded) | {"outcome": each.outcome.name.lower()} for each in done]
        )
    else:
        for each in done:
            found = each.recorded.discrepancy
            click.echo(f"{each.recorded.id}: {found.kind}, key {found.key_hash}: {each.outcome}")
        click.echo(f"{table}: {repaired:,} of {len(done):,} repaired")
    return repaired == len(done)


@discrepancies.command()
@table_argument
@number_argument
@json_option
@config_option
@command
def ignore(table: str, number: int, *, config: Path, as_json: bool) -> None:
    """Have discrepancy ID of TABLE ignored from now on, however often it is seen."""
    with opened(config) as store:
        kept = store.table(table).discrepancies
        kept.ignore(number)
        found = kept.one(number)
    if as_json:
        _print_json(_as_json(table, found))
    else:
        click.echo(f"{table}: discrepancy {number} is ignored")


def _listed(found: Mapping[str, Sequence[RecordedDiscrepancy]]) -> Table:
    shown = Table(box=SIMPLE_HEAD)
    for heading in _HEADINGS:
        shown.add_column(heading)
    for name, listed in found.items():
        for each in listed:
            what = each.discrepancy
            shown.add_row(
                *(str(each.id), name, what.kind, what.key_hash, ", ".join(what.paths)),
                *(
                    what.operation,
                    f"{what.count:,}",
                    f"{what.last_seen.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
                    each.state,
                ),
            )
    return shown


def _as_json(table: str, recorded: RecordedDiscrepancy) -> dict[str, Any]:
    found = recorded.discrepancy
    return {
        "id": recorded.id,
        "table": table,
        "state": recorded.state.value,
        "class": found.kind.value,
        "key_hash": found.key_hash,
        "attributes": list(found.paths),
        "found_by": found.finder.value,
        "operation": found.operation,
        "dynamodb_version": found.versions.dynamodb,
        "postgres_version": found.versions.postgres,
        "first_seen": found.first_seen.isoformat(),
        "last_seen": found.last_seen.isoformat(),
        "count": found.count,
        "trace_id": found.trace_id,
        "run_id": None if found.run_id is None else str(found.run_id),
    }


def _plain(key: Mapping[str, Any] | None) -> str | None:
    """A key as text, where keys are recorded; binaries in hexadecimal digits."""
    return None if key is None else json.dumps(key, default=lambda content: bytes(content).hex())


def _print_json(what: object) -> None:
    click.echo(json.dumps(what, indent=2))
