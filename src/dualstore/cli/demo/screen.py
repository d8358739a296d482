"""Shows a demonstration while it runs: a live screen on a terminal, plain lines elsewhere."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dualstore.cli.demo.figures import Figures, figures, ms, p50_p99, percent
from dualstore.cli.demo.measures import Tally
from dualstore.cli.demo.proof import Check
from dualstore.cli.demo.timeline import Note, Sample, Standing, Step, Timeline, Tone

_STYLES = {Tone.PLAIN: "", Tone.GOOD: "green", Tone.FAULT: "yellow", Tone.BAD: "bold red"}
_MARKS = {Tone.PLAIN: " ", Tone.GOOD: "✓", Tone.FAULT: "✗", Tone.BAD: "!"}
_NOTES_SHOWN = 10
_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_SAMPLES = 10
_FAULTS_SHOWN = 5
_RECENT_SAMPLES = 3
_WIDE = 110


@contextmanager
def shown(timeline: Timeline, console: Console, *, title: str, steps: Sequence[str]) -> Iterator[None]:
    """Shows a timeline for as long as the context lasts.

    Args:
        timeline: what happens.
        console: where to show it.
        title: what is being demonstrated.
        steps: the names of all steps, to show how far the migration has come.
    """
    if console.is_terminal:
        dashboard = Dashboard(timeline, console, title=title, steps=steps)
        with Live(get_renderable=dashboard.render, console=console, refresh_per_second=4, screen=False):
            yield
        return
    plain = PlainLines(console)
    console.print(title, highlight=False)
    timeline.listeners.append(plain.hear)
    try:
        yield
    finally:
        timeline.listeners.remove(plain.hear)


class PlainLines:
    """One line for each note and for each step that begins or ends."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def hear(self, event: Note | Step) -> None:
        """Prints what has happened."""
        match event:
            case Note():
                self._line(event.at, f"  {_MARKS[event.tone]} {event.text}")
            case Step(ended=None):
                self._line(event.began, f"{event.name}: {event.what}")
            case Step(ended=float() as ended):
                self._line(ended, f"    {summary(event)}")

    def _line(self, at: float, text: str) -> None:
        self._console.print(f"[{at:6.1f}s] {text}", highlight=False, markup=False, soft_wrap=True)


def summary(step: Step) -> str:
    """One line about a step that has ended."""
    now = figures(step.tally, step.seconds(step.began))
    parts = (
        f"{now.calls_per_second:.0f} calls/s",
        f"callers {p50_p99(now.callers)} ms, worst {ms(now.worst_ms)}",
        *(f"{side} {p50_p99(latencies)} ms" for side, latencies in now.sides.items() if latencies.count),
        f"{percent(now.postgres_read_share)} of reads from PostgreSQL",
        f"{now.mismatches} mismatches in {now.compared} comparisons",
        f"{now.errors} errors",
    )
    return "; ".join(parts)


class Dashboard:
    """The live screen.

    Args:
        timeline: what happens.
        console: where it is shown.
        title: what is being demonstrated.
        steps: the names of all steps.
    """

    def __init__(self, timeline: Timeline, console: Console, *, title: str, steps: Sequence[str]) -> None:
        self._timeline = timeline
        self._console = console
        self._title = title
        self._steps = steps

    def render(self) -> RenderableType:
        """The screen as it is now."""
        timeline = self._timeline
        samples = timeline.samples[-_RECENT_SAMPLES:]
        recent = Tally()
        for sample in samples:
            recent += sample.tally
        now = figures(recent, sum(sample.seconds for sample in samples))
        parts = [
            self._path(),
            self._beside_each_other(
                _callers(now, timeline.total, timeline.samples),
                _sides(recent, samples),
                _standing(timeline),
            ),
            self._progress(),
            _notes(timeline.notes[-_NOTES_SHOWN:]),
        ]
        clock = f"{timeline.now:.0f} s"
        return Panel(Group(*parts), title=f"[bold]{self._title}", subtitle=clock, border_style="blue")

    def _beside_each_other(self, *tables: Table) -> RenderableType:
        """The tables in columns where the terminal is wide enough, else one below the other."""
        if self._console.width < _WIDE:
            return Group(*tables)
        row = Table.grid(expand=True, padding=(1, 2, 0, 0))
        for ratio in (3, 5, 4):
            row.add_column(ratio=ratio)
        row.add_row(*tables)
        return row

    def _path(self) -> Text:
        """All steps in a row: done, present, to come."""
        reached = {step.name for step in self._timeline.steps}
        present = self._timeline.step_now
        path = Text()
        for place, name in enumerate(self._steps):
            if place:
                path.append(" → ", "dim")
            if name not in reached:
                path.append(name, "dim")
            elif present is not None and name == present.name:
                path.append(f" {name} ", "bold reverse cyan")
            else:
                path.append(f"✓ {name}", "green")
        if present is not None:
            path.append(f"\n{present.what}", "italic")
        return path

    def _progress(self) -> RenderableType:
        if not self._timeline.progress or self._timeline.step_now is None:
            return Text("")
        at, last = self._timeline.progress[-1]
        if at < self._timeline.step_now.began:
            return Text("")
        line = Table.grid(padding=(0, 1))
        rate = last.items / last.seconds if last.seconds > 0 else 0.0
        line.add_row(
            last.what,
            ProgressBar(total=max(last.total, 1), completed=min(last.items, last.total), width=50),
            f"{last.items:,} of {last.total:,} items, {rate:,.0f}/s",
        )
        return line


def _callers(now: Figures, total: Tally, samples: Sequence[Sample]) -> Table:
    table = _grid("Callers")
    table.add_row("calls/s", f"{now.calls_per_second:,.0f}")
    table.add_row("p50 / p99", f"{p50_p99(now.callers)} ms")
    table.add_row("worst", f"{ms(now.worst_ms)} ms")
    table.add_row("calls so far", f"{total.waited().count:,}")
    table.add_row("errors", _zero(total.errors.total()))
    table.add_row("stale reads", _zero(total.counts["stale reads"]))
    table.add_row("", Text(_sparkline([s.tally.waited().count / s.seconds for s in samples]), "cyan"))
    return table


def _sides(recent: Tally, samples: Sequence[Sample]) -> Table:
    seconds = sum(sample.seconds for sample in samples) or 1.0
    table = Table(title="Sides", title_justify="left", title_style="bold", box=None, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for heading in ("per s", "p50 / p99 ms"):
        table.add_column(heading, justify="right", header_style="dim")
    for work in sorted(recent.sides):
        latencies = recent.sides[work]
        table.add_row(work, f"{latencies.count / seconds:,.0f}", p50_p99(latencies))
    return table


def _standing(timeline: Timeline) -> Table:
    standing, total = timeline.standing, timeline.total
    table = _grid("Standing")
    table.add_row("stage", Text(standing.stage, "bold"))
    table.add_row("writes decided by", Text(standing.authority, "bold"))
    table.add_row("read-percent", f"{standing.postgres_read_percent:g} %")
    for side, is_up in (("DynamoDB", timeline.dynamodb_up), ("PostgreSQL", timeline.postgres_up)):
        table.add_row(side, Text("up", "green") if is_up else Text("STOPPED", "bold red"))
    table.add_row("gate", Text(standing.gate, "green" if standing.gate == "open" else "bold yellow"))
    dirty = "?" if standing.dirty_keys is None else str(standing.dirty_keys)
    table.add_row("dirty keys / journal", f"{dirty} / {standing.journal_entries}")
    table.add_row("outbox", _outbox(standing))
    table.add_row("oldest doubt", f"{standing.lag_seconds:.1f} s" if standing.lag_seconds else "none")
    table.add_row("mismatches", _zero(total.counts["mismatches"], f" of {total.counts['compared']:,}"))
    return table


def _outbox(standing: Standing) -> str:
    if standing.outbox_entries is None:
        return "?"
    age = f", oldest {standing.outbox_seconds:.1f} s" if standing.outbox_seconds else ""
    return f"{standing.outbox_entries} waiting{age}"


def _notes(notes: Sequence[Note]) -> Text:
    text = Text("\n")
    for note in notes:
        text.append(f"{note.at:6.1f} s  {_MARKS[note.tone]} {note.text}\n", _STYLES[note.tone])
    return text


def _grid(title: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 1)
    )
    table.add_column(style="dim")
    table.add_column(justify="right")
    return table


def _zero(count: int, suffix: str = "") -> Text:
    """A count that should be zero."""
    return Text(f"{count:,}{suffix}", "green" if count == 0 else "bold red")


def _sparkline(values: Sequence[float]) -> str:
    shown_values = values[-_SPARK_SAMPLES:]
    highest = max(shown_values, default=0.0) or 1.0
    return "".join(
        _SPARKS[min(int(value / highest * len(_SPARKS)), len(_SPARKS) - 1)] for value in shown_values
    )


def step_table(timeline: Timeline) -> Table:
    """What every step was like, for the end."""
    table = Table(box=SIMPLE_HEAD, title="The migration, step by step", title_style="bold")
    table.add_column("step")
    for heading in (
        *("seconds", "calls/s", "callers p50 / p99 ms", "worst ms", "DynamoDB ms", "PostgreSQL ms"),
        *("from PostgreSQL", "mismatches", "errors"),
    ):
        table.add_column(heading, justify="right")
    for step in timeline.steps:
        seconds = step.seconds(timeline.now)
        of_step = figures(step.tally, seconds)
        table.add_row(
            step.name,
            f"{seconds:.1f}",
            f"{of_step.calls_per_second:.0f}",
            p50_p99(of_step.callers),
            ms(of_step.worst_ms),
            p50_p99(of_step.sides["DynamoDB"]),
            p50_p99(of_step.sides["PostgreSQL"]),
            percent(of_step.postgres_read_share),
            f"{of_step.mismatches} of {of_step.compared}",
            _zero(of_step.errors),
        )
    return table


def proof_table(checks: Sequence[Check]) -> Table:
    """The proof: each claim, where, what was looked at, and what speaks against it."""
    table = Table(box=SIMPLE_HEAD, title="The proof", title_style="bold")
    table.add_column("")
    table.add_column("claim")
    table.add_column("where")
    table.add_column("examined", justify="right")
    table.add_column("against it")
    for check in checks:
        mark = Text("✓", "bold green") if check.holds else Text("✗", "bold red")
        table.add_row(mark, check.claim, check.where, f"{check.examined:,} {check.unit}", _faults(check))
    return table


def _faults(check: Check) -> Text:
    if check.holds:
        return Text("nothing", "green")
    if not check.faults:
        return Text("nothing was examined", "bold red")
    more = len(check.faults) - _FAULTS_SHOWN
    lines = [*check.faults[:_FAULTS_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return Text("\n".join(lines), "bold red")
