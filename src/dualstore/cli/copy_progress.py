"""How far a copy has come: as a table that changes, as lines of a log, or as JSON."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dualstore.backfill import BackfillProgress
from dualstore.cli.running import console
from dualstore.stores.ledger import Run

Shown = Callable[[BackfillProgress], None]

_LOG_SECONDS = 10.0


@contextmanager
def shown_as(table: str, *, as_json: bool) -> Iterator[Shown]:
    """What shows progress: on a terminal a table that changes, else a line now and then."""
    if as_json:
        yield _now_and_then(lambda done: click.echo(_as_json(table, done)), seconds=1.0)
    elif not console().is_terminal:
        yield _now_and_then(lambda done: click.echo(_line(table, done)), seconds=_LOG_SECONDS)
    else:
        with Live(console=console(), transient=True, refresh_per_second=4) as live:
            yield lambda done: live.update(_view(table, done))


def lines_of(table: str, done: BackfillProgress, *, run: Run, as_json: bool) -> Iterator[str]:
    """A run as it stands now, line by line."""
    if as_json:
        yield _as_json(table, done, run=str(run.id), state=run.state)
        return
    yield f"{_line(table, done)}; run {run.id}, {run.state}"
    for worker in done.workers:
        waits = f", waits: {worker.waits_for}" if worker.waits_for else ""
        yield f"  {worker.name}: piece {worker.piece}, {worker.items:,} items, {worker.rate:,.0f}/s{waits}"


def _now_and_then(show: Shown, *, seconds: float) -> Shown:
    """Show a change of phase at once, and else no more often than this."""
    last: list[Any] = [None, 0.0]

    def shown(done: BackfillProgress) -> None:
        now, state = time.monotonic(), (done.phase, done.paused_by, done.waits_for is None)
        if state != last[0] or now - last[1] >= seconds:
            last[:] = state, now
            show(done)

    return shown


def _line(table: str, done: BackfillProgress) -> str:
    parts = [
        f"{table}: {done.phase}",
        f"{done.items:,}{'' if done.expected_items is None else f' of about {done.expected_items:,}'} items",
        f"{done.rate:,.0f}/s",
        f"{done.pieces_done}/{done.pieces_total} pieces",
        f"{done.settled:,} settled",
        f"{done.failed:,} in quarantine",
        f"{done.read_units:,.0f} read units",
    ]
    if done.eta is not None:
        parts.append(f"about {_short(done.eta)} left")
    if done.waiting_for:
        parts.append(f"waiting for {done.waiting_for} older transaction(s)")
    if done.waits_for:
        parts.append(f"held back: {done.waits_for}")
    if done.paused_by:
        parts.append(f"paused by {done.paused_by}")
    if done.pieces_failed:
        parts.append(f"{done.pieces_failed} piece(s) given up")
    return ", ".join(parts)


def _as_json(table: str, done: BackfillProgress, **more: Any) -> str:
    seen = dataclasses.asdict(done)
    seen["elapsed"] = done.elapsed.total_seconds()
    seen["waits_for"] = done.waits_for
    seen["eta"] = None if done.eta is None else done.eta.total_seconds()
    return json.dumps({"table": table, **more, **seen})


def _view(table: str, done: BackfillProgress) -> Group:
    workers = Table(box=SIMPLE_HEAD)
    for heading in ("worker", "piece", "items", "rate"):
        workers.add_column(heading, justify="left" if heading == "worker" else "right")
    for worker in done.workers:
        workers.add_row(worker.name, str(worker.piece), f"{worker.items:,}", f"{worker.rate:,.0f}/s")
    bar = ProgressBar(total=done.expected_items or max(done.pieces_total, 1), width=60)
    bar.update(done.items if done.expected_items else done.pieces_done)
    return Group(Text(_line(table, done), style="yellow" if done.paused_by else ""), bar, workers)


def _short(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
