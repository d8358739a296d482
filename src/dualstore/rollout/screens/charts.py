"""Line charts as inline SVG: text, lines and classes, whose colours are the page's own."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

_WIDTH, _HEIGHT = 720, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 30, 26
_TICKS = 4
_HOURS_UP_TO_SECONDS = 2 * 86_400


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        name: for the legend.
        tone: the class that gives it its colour: `dynamodb`, `postgres`, `fault`, `warning`, `ink`.
        points: in order; None breaks the line.
        steps: whether a value holds until the next one.
    """

    name: str
    tone: str
    points: Sequence[tuple[datetime, float | None]]
    steps: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment that a chart names."""

    at: datetime
    label: str
    tone: str = "ink"


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    unit: str = "",
    ceiling: float | None = None,
    limit: float | None = None,
    marks: Iterable[Mark] = (),
) -> str:
    """A chart, or words where there is nothing to draw.

    Args:
        title: what it shows, also for those who cannot see it.
        lines: what is drawn.
        unit: of the values.
        ceiling: where the scale ends; None: where the values do.
        limit: a value that is drawn across: what a gate asks for.
        marks: moments that are named.
    """
    known = [(at, value) for line in lines for at, value in line.points if value is not None]
    if not known:
        return f'<p class="none">{escape(title)}: nothing was counted.</p>'
    scale = _Scale.of(known, ceiling=ceiling, limit=limit)
    parts = [
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">',
        f'<text class="title" x="0" y="14">{escape(title)}</text>',
        *_axes(scale, unit),
        *_marked(scale, marks),
    ]
    if limit is not None:
        y = scale.y(limit)
        parts.append(f'<path class="limit" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
    for line in lines:
        parts += (f'<path class="line {line.tone}" d="{path}"/>' for path in _paths(scale, line))
    parts += [*_legend(lines), "</svg></figure>"]
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Scale:
    begins: float
    ends: float
    top: float

    @classmethod
    def of(
        cls, known: Sequence[tuple[datetime, float]], *, ceiling: float | None, limit: float | None
    ) -> "_Scale":
        moments = [at.timestamp() for at, _ in known]
        highest = max([value for _, value in known] + ([limit] if limit is not None else []))
        begins = min(moments)
        return cls(begins, max(*moments, begins + 1), ceiling or _round_up(highest))

    def x(self, at: datetime) -> float:
        share = (at.timestamp() - self.begins) / (self.ends - self.begins)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - min(value / self.top, 1.0) * (_HEIGHT - _TOP - _BOTTOM)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 8 and their tenfolds: its quarters are short numbers."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(factor * power for factor in (1, 2, 4, 5, 8, 10) if value <= factor * power * 1.000001)


def _axes(scale: _Scale, unit: str) -> Iterator[str]:
    for number in range(_TICKS + 1):
        value = scale.top * number / _TICKS
        y = scale.y(value)
        yield f'<path class="rule" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text class="tick end" x="{_LEFT - 6}" y="{y + 3.5:.1f}">{value:.4g}{escape(unit)}</text>'
    for number in range(_TICKS + 1):
        moment = datetime.fromtimestamp(scale.begins + (scale.ends - scale.begins) * number / _TICKS, UTC)
        anchor = "start" if number == 0 else "end" if number == _TICKS else "middle"
        said = f"{moment:%H:%M:%S}" if scale.ends - scale.begins < _HOURS_UP_TO_SECONDS else f"{moment:%d %b}"
        yield f'<text class="tick {anchor}" x="{scale.x(moment):.1f}" y="{_HEIGHT - 8}">{said}</text>'


def _marked(scale: _Scale, marks: Iterable[Mark]) -> Iterator[str]:
    for mark in marks:
        if scale.begins <= mark.at.timestamp() <= scale.ends:
            x = scale.x(mark.at)
            yield (
                f'<g class="mark {mark.tone}"><title>{escape(mark.label)}</title>'
                f'<path d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/></g>'
            )


def _paths(scale: _Scale, line: Line) -> Iterator[str]:
    """One path for each stretch without a gap; a lone value is a short dash."""
    stretch: list[tuple[float, float]] = []
    for at, value in [*line.points, (None, None)]:
        if at is not None and value is not None:
            stretch.append((scale.x(at), scale.y(value)))
            continue
        if stretch:
            yield _path(stretch, steps=line.steps)
        stretch = []


def _path(stretch: Sequence[tuple[float, float]], *, steps: bool) -> str:
    (x, y), *_ = stretch
    parts = [f"M{x:.1f} {y:.1f}"]
    if len(stretch) == 1:
        parts.append("h2")
    for _, (right, level) in pairwise(stretch):
        parts.append(f"H{right:.1f}V{level:.1f}" if steps else f"L{right:.1f} {level:.1f}")
    return "".join(parts)


def _legend(lines: Sequence[Line]) -> Iterator[str]:
    x = float(_WIDTH - _RIGHT)
    for line in reversed(lines):
        x -= ceil(len(line.name) * 7.2) + 22
        yield f'<path class="line {line.tone}" d="M{x:.1f} 10h12"/>'
        yield f'<text class="tick start" x="{x + 16:.1f}" y="14">{escape(line.name)}</text>'
