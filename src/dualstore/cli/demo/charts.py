"""Plots a timeline as inline SVG whose colours are the page's own, so that it follows light and dark."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from dualstore.cli.demo.figures import SIDES, figures, side_latencies
from dualstore.cli.demo.measures import Tally
from dualstore.cli.demo.timeline import Progress, Sample, Timeline, Tone
from dualstore.cli.demo.traffic import READS, WRITES

# Colours that nothing else uses, each replaced by the page's variable of that name.
_INK, _FAINT, _RULE = "#010101", "#020202", "#030303"
_DYNAMODB, _POSTGRES, _FAULT, _WARNING, _BAND = "#040404", "#050505", "#060606", "#070707", "#080808"
_VARIABLES = {
    _INK: "ink",
    _FAINT: "faint",
    _RULE: "rule",
    _DYNAMODB: "dynamodb",
    _POSTGRES: "postgres",
    _FAULT: "fault",
    _WARNING: "warning",
    _BAND: "band",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dualstore",  # the same timeline gives the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _FAINT,
    "axes.edgecolor": _RULE,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_DOWN: Mapping[Callable[[Sample], bool], str] = {
    lambda sample: not sample.postgres_up: _FAULT,
    lambda sample: not sample.dynamodb_up: _WARNING,
}
_WINDOW_SAMPLES = 3  # a second holds too few calls for a 99th percentile
_WIDTH_OF_LETTER = 0.0052  # of the whole width, at the size of the strip's text


def timeline_chart(timeline: Timeline) -> str:
    """The whole migration on one axis of time, as an SVG element."""
    panels: Sequence[tuple[float, Callable[[Axes, Timeline], None]]] = (
        (1.5, _throughput),
        (1.7, _latency),
        (1.7, _side_latency),
        (1.3, _read_share),
        (1.4, _comparisons),
        (1.4, _doubt),
        (1.2, _outbox),
    )
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.5, 13.4), layout=ConstrainedLayoutEngine(hspace=0.06))
        axes = figure.subplots(
            len(panels) + 1, 1, sharex=True, height_ratios=[0.42, *(height for height, _ in panels)]
        )
        _stages(axes[0], timeline)
        for panel, (_, draw) in zip(axes[1:], panels, strict=True):
            draw(panel, timeline)
            _bands(panel, timeline)
            panel.margins(x=0)
        axes[-1].set_xlabel("seconds since the start")
        axes[-1].set_xlim(timeline.steps[0].began, timeline.samples[-1].at)
        return _svg(figure, "Throughput, latency, reads, comparisons and doubtful keys over the migration")


def copy_chart(timeline: Timeline) -> str:
    """How backfill and verify went, as an SVG element."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.5, 2.4), layout="constrained")
        axes = figure.subplots(1, 1)
        for what, colour in zip(("backfill", "verify"), (_POSTGRES, _DYNAMODB), strict=True):
            points = _first_run(timeline, what)
            if points:
                rate = points[-1].items / max(points[-1].seconds, 1e-9)
                axes.plot(
                    [0.0, *(point.seconds for point in points)],
                    [0, *(point.items for point in points)],
                    color=colour,
                    label=f"{what}, {rate:,.0f} items/s",
                )
        axes.set_title("Items copied and compared, under live traffic")
        axes.set_xlabel("seconds since each began")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.legend(loc="lower right")
        return _svg(figure, "Items copied by backfill and compared by verify over time")


def _first_run(timeline: Timeline, what: str) -> list[Progress]:
    """The progress of the first backfill or verify; a later one begins at zero seconds again."""
    points = [progress for _, progress in timeline.progress if progress.what == what]
    restarts = (place for place, (a, b) in enumerate(pairwise(points), 1) if b.seconds < a.seconds)
    return points[: next(restarts, len(points))]


def _stages(axes: Axes, timeline: Timeline) -> None:
    """A strip of all steps with their names; what is too narrow for its name goes without."""
    length = timeline.samples[-1].at - timeline.steps[0].began
    for place, step in enumerate(timeline.steps):
        seconds = step.seconds(timeline.now)
        axes.axvspan(step.began, step.began + seconds, color=_BAND, alpha=0.9 if place % 2 else 0.45, lw=0)
        if seconds / length > _WIDTH_OF_LETTER * len(step.name):
            axes.text(step.began + seconds / 2, 0.5, step.name, ha="center", va="center", fontsize=7.5)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines["bottom"].set_visible(False)


def _bands(axes: Axes, timeline: Timeline) -> None:
    """The steps as faint bands, and what was broken on purpose."""
    for place, step in enumerate(timeline.steps):
        if place % 2:
            axes.axvspan(
                step.began, step.began + step.seconds(timeline.now), color=_BAND, alpha=0.35, lw=0, zorder=0.1
            )
    for is_down, colour in _DOWN.items():
        for began, ended in _stretches(timeline.samples, is_down):
            axes.axvspan(began, ended, color=colour, alpha=0.13, lw=0, zorder=0.2)
    for note in timeline.notes:
        if note.tone is Tone.FAULT and "killed" in note.text:
            axes.axvline(note.at, color=_FAULT, lw=1, ls=(0, (2, 2)))


def _throughput(axes: Axes, timeline: Timeline) -> None:
    at = [sample.at for sample in timeline.samples]
    reads, writes = (
        [sample.tally.waited(among).count / max(sample.seconds, 0.1) for sample in timeline.samples]
        for among in (READS, WRITES)
    )
    axes.stackplot(
        at, reads, writes, labels=["reads", "writes"], colors=[_DYNAMODB, _POSTGRES], alpha=0.55, lw=0
    )
    axes.set_title("Calls per second")
    axes.set_ylim(bottom=0)
    _legend(axes, 2)


def _latency(axes: Axes, timeline: Timeline) -> None:
    windows = list(_windows(timeline.samples))
    at = [sample.at for sample in timeline.samples]
    callers = [tally.waited() for tally in windows]
    axes.plot(at, [_or_nan(each.p50_ms) for each in callers], color=_INK, label="p50")
    axes.plot(at, [_or_nan(each.p99_ms) for each in callers], color=_INK, lw=1, ls=(0, (3, 2)), label="p99")
    axes.set_title("What callers waited, ms")
    _logarithmic(axes)
    _legend(axes, 2)


def _side_latency(axes: Axes, timeline: Timeline) -> None:
    at = [sample.at for sample in timeline.samples]
    windows = list(_windows(timeline.samples))
    for (side, works), colour in zip(SIDES.items(), (_DYNAMODB, _POSTGRES), strict=True):
        latencies = [side_latencies(tally, works) for tally in windows]
        axes.plot(at, [_or_nan(each.p50_ms) for each in latencies], color=colour, label=f"{side} p50")
        axes.plot(
            at,
            [_or_nan(each.p99_ms) for each in latencies],
            color=colour,
            lw=1,
            ls=(0, (3, 2)),
            label=f"{side} p99",
        )
    axes.set_title("What each side took, ms")
    _logarithmic(axes)
    _legend(axes, 4)


def _read_share(axes: Axes, timeline: Timeline) -> None:
    at = [sample.at for sample in timeline.samples]
    dial = [sample.standing.postgres_read_percent for sample in timeline.samples]
    shares = [figures(tally, 1.0).postgres_read_share for tally in _windows(timeline.samples)]
    axes.plot(at, dial, color=_FAINT, lw=1, ls=(0, (3, 2)), drawstyle="steps-post", label="dialled")
    axes.fill_between(
        at,
        [100 * (share or 0.0) for share in shares],
        color=_POSTGRES,
        alpha=0.5,
        lw=0,
        label="answered by PostgreSQL",
    )
    axes.set_title("Reads answered by PostgreSQL, %")
    axes.set_ylim(0, 105)
    _legend(axes, 2)


def _comparisons(axes: Axes, timeline: Timeline) -> None:
    at = [sample.at for sample in timeline.samples]
    compared = [sample.tally.counts["compared"] / max(sample.seconds, 0.1) for sample in timeline.samples]
    mismatches = [sample.tally.counts["mismatches"] for sample in timeline.samples]
    axes.fill_between(
        at, compared, color=_POSTGRES, alpha=0.45, lw=0, label="shadow reads compared per second"
    )
    axes.plot(at, mismatches, color=_FAULT, label=f"mismatches ({sum(mismatches)} in all)")
    axes.set_title("Shadow reads")
    axes.set_ylim(bottom=0)
    _legend(axes, 2)


def _doubt(axes: Axes, timeline: Timeline) -> None:
    at = [sample.at for sample in timeline.samples]
    dirty = [sample.standing.dirty_keys for sample in timeline.samples]
    journal = [sample.standing.journal_entries for sample in timeline.samples]
    for began, ended in _stretches(timeline.samples, lambda sample: sample.standing.gate != "open"):
        axes.axvspan(began, ended, ymax=0.06, color=_WARNING, lw=0)
    axes.plot(at, journal, color=_DYNAMODB, drawstyle="steps-post", label="in the journal (DynamoDB)")
    axes.plot(
        at,
        [_or_nan(keys) for keys in dirty],
        color=_POSTGRES,
        drawstyle="steps-post",
        label="dirty (PostgreSQL)",
    )
    axes.plot([], [], color=_WARNING, lw=4, label="gate shut")
    axes.set_title("Keys in doubt")
    axes.set_ylim(0, max(5, *journal, *(keys or 0 for keys in dirty)) * 1.1)
    _legend(axes, 3)


def _outbox(axes: Axes, timeline: Timeline) -> None:
    at = [sample.at for sample in timeline.samples]
    entries = [_or_nan(sample.standing.outbox_entries) for sample in timeline.samples]
    axes.plot(at, entries, color=_POSTGRES, drawstyle="steps-post", label="changes waiting for DynamoDB")
    axes.set_title("Outbox")
    highest = max((sample.standing.outbox_entries or 0 for sample in timeline.samples), default=0)
    axes.set_ylim(0, max(5, highest) * 1.1)
    _legend(axes, 1)


def _windows(samples: Sequence[Sample]) -> Iterator[Tally]:
    """For each sample the tally of itself and the few before it."""
    for place in range(len(samples)):
        window = Tally()
        for sample in samples[max(0, place + 1 - _WINDOW_SAMPLES) : place + 1]:
            window += sample.tally
        yield window


def _stretches(samples: Sequence[Sample], holds: Callable[[Sample], bool]) -> Iterator[tuple[float, float]]:
    """The stretches of time between two samples of which the second holds."""
    for before, sample in pairwise(samples):
        if holds(sample):
            yield before.at, sample.at


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=columns, borderaxespad=0, handlelength=1.4
    )


def _svg(figure: Figure, description: str) -> str:
    """The figure as an element to put into a page, with the page's colours and fonts."""
    buffer = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    figure.savefig(buffer, format="svg", metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
