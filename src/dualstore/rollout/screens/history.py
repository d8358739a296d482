"""What happened to tables over time: points that charts are drawn of."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from dualstore.errors import SchemaError, Unavailable
from dualstore.rollout.screens.picture import Picture
from dualstore.stages import Side
from dualstore.store import DualStore
from dualstore.store.evidence import Speeds, upper_bound
from dualstore.stores.postgres_screens import PostgresScreens, WindowSeen
from dualstore.telemetry import Verdict
from dualstore.telemetry.figures import Figures, Work

POINTS = 160
"""At most so many, give or take those at which the dials moved."""

_READS = (Work.READ, Work.LISTING)
_JUDGED = (Verdict.EQUAL, Verdict.LAG, Verdict.MISMATCH)
_SHORTEST = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Point:
    """What was counted in a stretch of time under the same dials.

    Attributes:
        at: its end.
        seconds: its length.
        stage: the stage.
        read_percent: the dial.
        shadow_percent: the dial.
        calls: how often each side was asked.
        errors: how often it did not answer.
        comparisons: reads that were compared, since the dials stood so.
        mismatches: those that differed, and went on to.
        speeds: of both sides, by class of reads.
    """

    at: datetime
    seconds: float
    stage: str
    read_percent: float
    shadow_percent: float
    calls: dict[Side, int]
    errors: dict[Side, int]
    comparisons: int
    mismatches: int
    speeds: dict[Work, Speeds]

    @property
    def mismatch_bound_percent(self) -> float | None:
        """The 95 % upper bound of the share of reads that differ, in percent; None without comparisons."""
        if not self.comparisons:
            return None
        return upper_bound(self.mismatches, self.comparisons) * 100


def histories_of(store: DualStore, picture: Picture, *, within: timedelta) -> Mapping[str, Sequence[Point]]:
    """What happened to each table of a picture lately, by logical name; nothing where PostgreSQL is away."""
    if picture.databases[Side.POSTGRES] is not None:
        return {}
    screens, since = PostgresScreens(store.engine), picture.taken_at - within
    found: dict[str, Sequence[Point]] = {}
    for name, physical in store.names().items():
        with suppress(Unavailable, SchemaError):  # the picture says so
            found[name] = tuple(points(screens.windows(physical, since=since)))
    return found


def points(windows: Sequence[WindowSeen], *, limit: int = POINTS) -> Iterator[Point]:
    """Windows, in order, added up to about so many points; none crosses a move of the dials."""
    if not windows:
        return
    first, last = windows[0].ended_at, windows[-1].ended_at
    length = max((last - first) / limit, _SHORTEST)
    compared = mismatched = 0
    step_before = None
    for (step, _), group in groupby(
        windows, key=lambda each: (_step(each), (each.ended_at - first) // length)
    ):
        together = list(group)
        figures = Figures.sum(each.figures for each in together)
        if step != step_before:
            compared = mismatched = 0
            step_before = step
        compared += sum(figures.counts.get(verdict, 0) for verdict in _JUDGED)
        mismatched += figures.counts.get(Verdict.MISMATCH, 0)
        yield _point(together, figures, compared, mismatched)


def _step(window: WindowSeen) -> tuple[str, float, float, float]:
    return window.stage, window.read_percent, window.mirror_percent, window.shadow_percent


def _point(together: Sequence[WindowSeen], figures: Figures, compared: int, mismatched: int) -> Point:
    last = together[-1]
    began = min(each.began_at for each in together)
    done = {side: figures.by(side=side, works=tuple(Work)) for side in Side}
    return Point(
        at=last.ended_at,
        seconds=max((last.ended_at - began).total_seconds(), _SHORTEST.total_seconds()),
        stage=last.stage,
        read_percent=last.read_percent,
        shadow_percent=last.shadow_percent,
        calls={side: each.count for side, each in done.items()},
        errors={side: each.errors for side, each in done.items()},
        comparisons=compared,
        mismatches=mismatched,
        speeds={
            work: Speeds(
                work,
                dynamodb=figures.by(side=Side.DYNAMODB, works=[work]).latencies,
                postgres=figures.by(side=Side.POSTGRES, works=[work]).latencies,
            )
            for work in _READS
        },
    )
