"""`dualstore status`: one screen that says, in words, where a whole migration stands."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dualstore.cli.fleet import evidence_shown, fleet_shown
from dualstore.cli.running import UNAVAILABLE, command, config_option, console, opened
from dualstore.rollout.judgement import Judgement
from dualstore.rollout.screens import Picture, Shown, TablePicture, gather, tables_document, words
from dualstore.stages import Side
from dualstore.store import DualStore

_TABLE_HEADINGS = (
    *("table", "stage", "reads from PostgreSQL", "compared", "gate"),
    *("in doubt", "suspects", "outbox", "relay"),
)
_PROCESS_HEADINGS = ("table", "process", "version", "last seen", "has taken the last decision")
_GATE_HEADINGS = ("table", "gate", "says", "saw", "asked", "what to do")
_STYLES = {
    Judgement.MET: "green",
    Judgement.NOT_YET: "yellow",
    Judgement.NOT_MET: "bold red",
    Judgement.NOT_ASKED: "dim",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
@click.option("--watch", type=click.FloatRange(min=0.1), help="Look again every so many seconds.")
@config_option
@command
def status(*, config: Path, as_json: bool, watch: float | None) -> None:
    """Show where every table stands, what all processes did and saw, and what the next gate asks.

    Works with one of the databases out of reach: it says which, and shows what the other one knows.
    """
    with opened(config) as store:
        if watch is None:
            picture = gather(store)
            _once(picture, as_json=as_json)
            if any(each.shown is None for each in picture.tables):
                sys.exit(UNAVAILABLE)
        elif as_json or not console().is_terminal:
            while True:
                _once(gather(store), as_json=as_json)
                time.sleep(watch)
        else:
            _watch(store, watch)


def _once(picture: Picture, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(tables_document(picture)))
    else:
        console().print(Group(*screen(picture)))


def _watch(store: DualStore, seconds: float) -> None:
    """Show a screen that changes, until interrupted."""
    try:
        with Live(console=console(), screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                live.update(Group(*screen(gather(store))), refresh=True)
                time.sleep(seconds)
    except KeyboardInterrupt:
        return


def screen(picture: Picture) -> Iterator[RenderableType]:
    """The screen, part by part; what is wrong comes first."""
    at = f"{picture.taken_at:%Y-%m-%d %H:%M:%S} UTC, dualstore {picture.version}"
    yield Text(at, style="dim")
    for problem in words.problems(picture):
        yield Text(problem, style="yellow")
    yield _tables_shown(picture.tables)
    shown = [each.shown for each in picture.tables if each.shown is not None]
    for each in picture.tables:
        yield from _said_of(each)
    if any(each.fleet and each.fleet.worked for each in shown):
        yield fleet_shown(shown)
    for one in shown:
        yield Text(evidence_shown(one))
    if any(each.gates for each in picture.tables):
        yield _gates_shown(picture.tables)
    for plan in picture.plans:
        yield Text(words.plan(plan), style="yellow" if plan.halted else "")
    yield _processes_shown(shown)


def _said_of(table: TablePicture) -> Iterator[Text]:
    """What a table has besides: dials, what is pending, runs, differences, alerts, rollbacks."""
    if table.shown is not None:
        status = table.shown.status
        yield Text(f"{table.name}: {words.dials(status.record)}; {words.pending(status)}")
    for run in table.runs:
        yield Text(f"{table.name}: {words.run(run)}")
    for each in table.discrepancies:
        last = words.moment(each.last_seen)
        yield Text(
            f"{table.name}: {each.keys:,} key(s) with open discrepancies, {each.kind}, by {each.finder}, "
            f"last {last}",
            style="yellow",
        )
    if table.quarantined:
        yield Text(f"{table.name}: {table.quarantined:,} item(s) in quarantine", style="yellow")
    for alert in table.alerts:
        if alert.is_open:
            since = words.moment(alert.opened_at)
            yield Text(f"{table.name}: alert since {since}: {alert.summary}", style="bold red")
    for back in table.rollbacks[:1]:
        when = words.moment(back.at)
        yield Text(f"{table.name}: last rolled back {when} by {back.by}: {back.reason}: {back.outcome}")


def _tables_shown(tables: Sequence[TablePicture]) -> Table:
    shown = _headed(_TABLE_HEADINGS)
    for each in tables:
        shown.add_row(*_table_row(each))
    return shown


def _table_row(table: TablePicture) -> tuple[str, ...]:
    if table.shown is None:
        return (table.name, words.position(table), *("?" for _ in _TABLE_HEADINGS[2:]))
    status = table.shown.status
    record = status.record
    dirty = "PostgreSQL does not answer" if status.dirty_keys is None else f"{status.dirty_keys:,} dirty"
    decided_by_dynamodb = record.authority is Side.DYNAMODB
    return (
        table.name,
        words.position(table),
        words.reads(record),
        f"{record.effective_dials.effective_shadow_percent(record.stage):g} %",
        record.gate if decided_by_dynamodb else "-",
        f"{dirty}, {status.journal_keys:,} in the journal" if decided_by_dynamodb else dirty,
        str(len(record.suspects)),
        words.outbox(status.outbox),
        words.relay(status),
    )


def _gates_shown(tables: Sequence[TablePicture]) -> Table:
    whose = sorted({each.gates_of for each in tables if each.gates})
    shown = _headed(_GATE_HEADINGS, title=f"gates, by {', '.join(whose)}")
    for table in tables:
        for gate in table.gates:
            if gate.judgement is not Judgement.NOT_ASKED:
                says = Text(gate.judgement, style=_STYLES[gate.judgement])
                shown.add_row(table.name, gate.gate, says, gate.saw, gate.limit, gate.remedy)
    return shown


def _processes_shown(tables: Sequence[Shown]) -> Table:
    shown = _headed(_PROCESS_HEADINGS)
    for each in tables:
        for process in sorted(each.status.processes, key=lambda process: process.label):
            shown.add_row(
                each.status.logical,
                process.label,
                process.version,
                f"{datetime.fromtimestamp(process.seen_at, UTC):%H:%M:%S} UTC",
                "yes" if process.confirmed else "not yet",
            )
    return shown


def _headed(headings: Sequence[str], *, title: str | None = None) -> Table:
    shown = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for heading in headings:
        shown.add_column(heading)
    return shown
