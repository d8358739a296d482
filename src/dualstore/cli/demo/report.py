"""Writes a demonstration as one HTML file that needs nothing else: no network, no script."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import jinja2

from dualstore.cli.demo.charts import copy_chart, timeline_chart
from dualstore.cli.demo.figures import figures, ms, p50_p99, percent
from dualstore.cli.demo.proof import Check
from dualstore.cli.demo.steps import NOT_COMPARABLE
from dualstore.cli.demo.timeline import Timeline

_FAULTS_SHOWN = 20


def write_report(
    path: Path,
    timeline: Timeline,
    checks: Sequence[Check],
    *,
    facts: Mapping[str, str],
    pauses: Mapping[str, float],
) -> None:
    """Writes the report.

    Args:
        path: where to; its folder is made.
        timeline: what happened.
        checks: the proof.
        facts: what it ran on, such as versions and sizes, in the order to show them.
        pauses: the longest that a write waited in each move of the authority, in seconds.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        files("dualstore.cli.demo").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    whole = figures(timeline.total, timeline.now)
    page = template.render(
        proven=all(check.holds for check in checks),
        facts=facts,
        cards=_cards(timeline, checks, pauses),
        timeline_svg=timeline_chart(timeline),
        copy_svg=copy_chart(timeline) if timeline.progress else None,
        steps=[
            {
                "name": step.name,
                "what": step.what,
                "seconds": step.seconds(timeline.now),
                "figures": figures(step.tally, step.seconds(timeline.now)),
            }
            for step in timeline.steps
        ],
        whole=whole,
        checks=checks,
        faults_shown=_FAULTS_SHOWN,
        notes=timeline.notes,
        ms=ms,
        p50_p99=p50_p99,
        percent=percent,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _cards(
    timeline: Timeline, checks: Sequence[Check], pauses: Mapping[str, float]
) -> list[tuple[str, str, bool]]:
    """The few figures to see first: figure, what it is, whether it is as it should be."""
    total = timeline.total
    copied = [progress for _, progress in timeline.progress if progress.what == "backfill"]
    rate = copied[-1].items / max(copied[-1].seconds, 1e-9) if copied else 0.0
    whole = figures(total, timeline.now)
    calm = figures(timeline.sum_of_steps(without=NOT_COMPARABLE), timeline.now)
    return [
        (f"{whole.callers.count:,}", "calls served during the migration", True),
        (
            f"{whole.errors:,}",
            "calls that failed, all while the authority was away" if whole.errors else "calls that failed",
            all(check.holds for check in checks if check.where == "live traffic"),
        ),
        (
            f"{whole.stale_reads}",
            f"stale answers in {total.counts['own reads']:,} reads of own writes",
            whole.stale_reads == 0,
        ),
        (
            f"{calm.mismatches}",
            f"mismatches in {calm.compared:,} shadow reads while DynamoDB decided, but for the faults",
            calm.mismatches == 0,
        ),
        (f"{rate:,.0f}/s", "items copied by the backfill, under traffic", True),
        (f"{ms(whole.worst_ms)} ms", "the longest that any caller waited", True),
        *(
            [(f"{ms(1_000 * max(pauses.values()))} ms", "the longest that a write waited for a move", True)]
            if pauses
            else []
        ),
    ]
