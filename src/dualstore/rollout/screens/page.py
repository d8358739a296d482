"""A picture and its history as one page of HTML that needs nothing from anywhere else."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from itertools import pairwise

from dualstore.rollout.judgement import Judgement
from dualstore.rollout.screens import words
from dualstore.rollout.screens.charts import Line, Mark, chart
from dualstore.rollout.screens.history import Point
from dualstore.rollout.screens.picture import Picture, PlanPicture, TablePicture
from dualstore.rollout.standing import EventKind
from dualstore.stages import Side
from dualstore.telemetry.figures import Work

_HERE = files("dualstore.rollout.screens")
STYLE = (_HERE / "page.css").read_text(encoding="utf-8")
SCRIPT = (_HERE / "page.js").read_text(encoding="utf-8")

_SIDES = {Side.DYNAMODB: "DynamoDB", Side.POSTGRES: "PostgreSQL"}
_TONES = {Side.DYNAMODB: "dynamodb", Side.POSTGRES: "postgres"}
_RATIOS = {"p50": "ink", "p95": "warning", "p99": "fault"}
_TURNS = frozenset({EventKind.HALTED, EventKind.FAILED, EventKind.ROLLED_BACK, EventKind.ROLLBACK_FAILED})

Histories = Mapping[str, Sequence[Point]]


def policy_of(text: str) -> str:
    """The source expression of CSP that lets just this inline text be used."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def report_page(picture: Picture, histories: Histories) -> str:
    """A page that stands alone: no script, nothing from the network.

    Args:
        picture: where everything stands.
        histories: what happened to each table, by its logical name.
    """
    policy = f"default-src 'none'; style-src {policy_of(STYLE)}"
    return _page(
        "dualstore: report of a migration",
        body(picture, histories),
        head=f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
    )


def live_page(picture: Picture, histories: Histories, *, seconds: float) -> str:
    """A page that looks again every so many seconds; its policy is for the server to send."""
    return _page(
        "dualstore: dashboard",
        body(picture, histories),
        state=f'<p id="state" class="faint">live, every {seconds:g} s</p>',
        script=f"<script>{SCRIPT}</script>",
        attributes=f' data-seconds="{seconds:g}"',
    )


def _page(
    title: str, content: str, *, head: str = "", state: str = "", script: str = "", attributes: str = ""
) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{head}<title>{title}</title><style>{STYLE}</style></head><body{attributes}>"
        f"<header><h1>{title}</h1>{state}</header><main>{content}</main>{script}</body></html>\n"
    )


def body(picture: Picture, histories: Histories) -> str:
    """All of a page that changes."""
    return "".join(_body(picture, histories))


def _body(picture: Picture, histories: Histories) -> Iterator[str]:
    yield _p(f"as of {words.moment(picture.taken_at)}, dualstore {picture.version}", "faint")
    problems = list(words.problems(picture))
    if problems:
        yield f'<div class="problems" role="status">{"".join(map(_p, problems))}</div>'
    for table in picture.tables:
        yield from _table(table, histories.get(table.name, ()), picture.plans)
    for plan in picture.plans:
        yield from _plan(plan)


# -- one table -------------------------------------------------------------------------------------


def _table(table: TablePicture, points: Sequence[Point], plans: Sequence[PlanPicture]) -> Iterator[str]:
    yield f'<section id="{escape(table.name, quote=True)}"><h2>{escape(table.name)}: '
    yield f"{escape(words.position(table))}</h2>"
    for alert in table.alerts:
        if alert.is_open:
            yield _p(f"alert since {words.moment(alert.opened_at)}: {alert.summary}", "alert")
    if table.shown is not None:
        status = table.shown.status
        yield _p(words.dials(status.record))
        yield _p(words.pending(status))
        yield _p(f"relay: {words.relay(status)}; {words.gates(table)}")
    yield from _charts(table, points, plans)
    yield from _gates(table)
    yield from _runs(table)
    yield from _differences(table)
    yield from _incidents(table)
    yield from _processes(table)
    yield "</section>"


def _charts(table: TablePicture, points: Sequence[Point], plans: Sequence[PlanPicture]) -> Iterator[str]:
    marks = list(_marks(table, points, plans))
    yield chart(
        "Dials",
        [
            Line("reads from PostgreSQL", "postgres", [(p.at, p.read_percent) for p in points], steps=True),
            Line("reads compared", "warning", [(p.at, p.shadow_percent) for p in points], steps=True),
        ],
        unit=" %",
        ceiling=100.0,
        marks=marks,
    )
    yield chart(
        "Share of reads that differ: 95 % upper bound since the dials last moved",
        [Line("at most", "fault", [(p.at, p.mismatch_bound_percent) for p in points])],
        unit=" %",
        limit=table.limits.mismatch_percent,
        marks=marks,
    )
    increase = table.limits.latency_increase_percent
    for work in (Work.READ, Work.LISTING):
        if any(p.speeds[work].ratio("p50") is not None for p in points):
            yield chart(
                f"PostgreSQL's time by DynamoDB's, {work}s",
                [
                    Line(name, tone, [(p.at, p.speeds[work].ratio(name)) for p in points])
                    for name, tone in _RATIOS.items()
                ],
                limit=None if increase is None else 1 + increase / 100,
                marks=marks,
            )
    for title, of in (("Calls a second", "calls"), ("Calls that were not answered", "errors")):
        yield chart(
            title,
            [
                Line(
                    _SIDES[side],
                    _TONES[side],
                    [(p.at, getattr(p, of)[side] / (p.seconds if of == "calls" else 1)) for p in points],
                )
                for side in Side
            ],
            marks=marks,
        )


def _marks(table: TablePicture, points: Sequence[Point], plans: Sequence[PlanPicture]) -> Iterator[Mark]:
    """Where the stage changed, what was rolled back, and where a plan took a turn."""
    for before, after in pairwise(points):
        if before.stage != after.stage:
            yield Mark(after.at, f"stage {after.stage}")
    for back in table.rollbacks:
        yield Mark(back.at, f"rolled back by {back.by}", "fault")
    for plan in plans:
        if table.name in plan.tables:
            for event in plan.events:
                if event.kind in _TURNS:
                    yield Mark(event.at, f"plan {plan.name}: {event.step or ''} {event.kind}", "fault")


def _gates(table: TablePicture) -> Iterator[str]:
    asked = [each for each in table.gates if each.judgement is not Judgement.NOT_ASKED]
    if asked:
        yield f"<h3>Gates, by {escape(table.gates_of)}</h3>"
        yield _grid(
            ("gate", "says", "saw", "asked", "what to do"),
            ((each.gate, each.judgement, each.saw, each.limit, each.remedy) for each in asked),
            classed=1,
        )


def _runs(table: TablePicture) -> Iterator[str]:
    if table.runs:
        yield "<h3>Runs</h3>"
        yield from (_p(words.run(each)) for each in table.runs)


def _differences(table: TablePicture) -> Iterator[str]:
    yield "<h3>Discrepancies</h3>"
    if not table.discrepancies:
        yield _p("none is open", "none")
    else:
        yield _grid(
            ("class", "found by", "keys", "times", "last"),
            (
                (each.kind, each.finder, f"{each.keys:,}", f"{each.times:,}", words.moment(each.last_seen))
                for each in table.discrepancies
            ),
        )
    if table.quarantined:
        yield _p(f"{table.quarantined:,} item(s) in quarantine")


def _incidents(table: TablePicture) -> Iterator[str]:
    if table.alerts:
        yield "<h3>Alerts</h3>"
        yield _grid(
            ("opened", "closed", "times", "what"),
            (
                (
                    words.moment(each.opened_at),
                    "open" if each.closed_at is None else words.moment(each.closed_at),
                    str(each.times),
                    each.summary,
                )
                for each in table.alerts
            ),
        )
    if table.rollbacks:
        yield "<h3>Rollbacks</h3>"
        yield _grid(
            ("when", "by", "why", "outcome", "took"),
            (
                (words.moment(each.at), each.by, each.reason, each.outcome, f"{each.seconds:.1f} s")
                for each in table.rollbacks
            ),
        )


def _processes(table: TablePicture) -> Iterator[str]:
    if table.shown is not None and table.shown.status.processes:
        yield "<h3>Processes</h3>"
        yield _grid(
            ("process", "version", "last decision"),
            (
                (each.label, each.version, "taken" if each.confirmed else "not yet taken")
                for each in table.shown.status.processes
            ),
        )


# -- plans and pieces ------------------------------------------------------------------------------


def _plan(plan: PlanPicture) -> Iterator[str]:
    yield f"<section><h2>Plan {escape(plan.name)}</h2>{_p(words.plan(plan))}"
    if plan.steps:
        yield _grid(("step", "stands"), ((step, state) for step, state in plan.steps))
    if plan.events:
        yield "<h3>What happened</h3>"
        yield _grid(
            ("when", "step", "what", "by", "took", "why"),
            (
                (
                    words.moment(each.at),
                    each.step or "",
                    each.kind,
                    each.by,
                    "" if each.seconds is None else f"{each.seconds:.1f} s",
                    each.reason,
                )
                for each in plan.events
            ),
        )
    yield "</section>"


def _p(text: str, kind: str | None = None) -> str:
    return f"<p>{escape(text)}</p>" if kind is None else f'<p class="{kind}">{escape(text)}</p>'


def _grid(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    classed: int | None = None,
) -> str:
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in headings)
    lines = []
    for row in rows:
        cells = (
            f'<td class="{_class(cell)}">{escape(cell)}</td>'
            if number == classed
            else f"<td>{escape(cell)}</td>"
            for number, cell in enumerate(row)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _class(judgement: str) -> str:
    return judgement.replace(" ", "-")
