"""What the whole fleet did and saw, for `dualstore status`: in a table, and in words."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table

from dualstore.rollout.screens import Shown, document, flag_problems
from dualstore.stages import Side
from dualstore.store.evidence import Fleet, Worked, render

__all__ = ["Shown", "document", "evidence_shown", "flag_problems", "fleet_shown"]

_HEADINGS = ("table", "work", "side", "as", "calls/s", "errors", "p50 ms", "p95 ms", "p99 ms")
_SIDES = {Side.DYNAMODB: "DynamoDB", Side.POSTGRES: "PostgreSQL"}
_SAME_PERCENT = 1.0


def fleet_shown(tables: Iterable[Shown]) -> Table:
    """What was done in the last minute, one line for each side, role and class of operations."""
    shown = Table(box=SIMPLE_HEAD, title="the last minute, all processes", title_justify="left")
    for heading in _HEADINGS:
        shown.add_column(heading, justify="left" if heading in _HEADINGS[:4] else "right")
    for each in tables:
        for worked in each.fleet.worked if each.fleet else ():
            shown.add_row(*_row(each.fleet, worked))
    return shown


def _row(fleet: Fleet | None, worked: Worked) -> tuple[str, ...]:
    assert fleet is not None  # noqa: S101 - its own lines
    latencies = worked.done.latencies
    return (
        fleet.table,
        worked.work,
        _SIDES[worked.side],
        worked.role,
        f"{fleet.per_second(worked):,.1f}",
        f"{worked.done.errors:,}",
        *(
            "-" if ms is None else f"{ms:.1f}"
            for ms in (latencies.p50_ms, latencies.p95_ms, latencies.p99_ms)
        ),
    )


def evidence_shown(shown: Shown) -> str:
    """What was seen since the dials moved, in words."""
    if shown.evidence is None:
        return f"{shown.status.logical}: the fleet's figures cannot be shown: {shown.missing}"
    return render(shown.evidence) + _share_shown(shown.fleet, shown.evidence.dials.shadow_percent)


def _share_shown(fleet: Fleet | None, dialled: float | None) -> str:
    """What is compared of what is dialled, where the other side does not bear all of it."""
    share = None if fleet is None else fleet.shadow_share
    if share is None or not dialled or share >= dialled - _SAME_PERCENT:
        return ""
    return (
        f"\n  {share:.0f} % of the reads are compared, not {dialled:g} %: the other side does not bear more"
    )
