"""Cuts what a process counts into windows, one dial step each, for the whole fleet to add up."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import Lock
from typing import TypeAlias
from uuid import UUID, uuid4

from dualstore.stages import Dials, Stage
from dualstore.telemetry.figures import Figures
from dualstore.telemetry.recorder import Telemetry
from dualstore.telemetry.snapshot import Snapshot
from dualstore.telemetry.ticking import Ticker

logger = logging.getLogger(__name__)

KEPT_WINDOWS = 20
"""Of each table, while they cannot be handed in; beyond it neighbours are joined."""
_LOOK = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Step:
    """Where stage and dials of a table stand.

    Attributes:
        stage: the stage.
        dials: the dials in force, `shadow_percent` resolved.
        generation: the control record's, under which they were seen so.
    """

    stage: Stage
    dials: Dials
    generation: int

    def is_same(self, other: "Step") -> bool:
        """Whether stage and dials stand as in another step."""
        return (self.stage, self.dials) == (other.stage, other.dials)


@dataclass(frozen=True, slots=True)
class Tracked:
    """A table that this process serves.

    Attributes:
        logical: its name in telemetry.
        step: where its dials stand.
        is_shared: whether its figures are to be handed in: there may be nothing to hand them to at `off`.
    """

    logical: str
    step: Step
    is_shared: bool = True


@dataclass(frozen=True, slots=True)
class Window:
    """What one process counted of one table while its dials stood at one step.

    Attributes:
        id: the same at every attempt to hand it in: counted once, however often it arrives.
        table: the physical name.
        step: where the dials stood when it began.
        began: by `time.monotonic()`.
        ended: by `time.monotonic()`.
        figures: what was counted.
    """

    id: UUID
    table: str
    step: Step
    began: float
    ended: float
    figures: Figures


Sink: TypeAlias = Callable[[Sequence[Window]], None]
"""Keeps windows, all or none; keeps one that it has already no second time."""


@dataclass(slots=True)
class _Open:
    logical: str
    step: Step
    began: float
    counted: Snapshot
    is_news: bool = True  # nobody was told of the step yet


class Rollup:
    """Hands windows in every few seconds, in a thread of its own; callers never wait for it.

    A window ends when it is due, or when the dials move: what was counted in the second before somebody
    looked belongs to the step before, so that a new step begins with nothing of the last. While the sink
    fails, windows of the same step are joined: nothing is lost but when exactly it was.

    Args:
        telemetry: what is counted.
        tracked: the tables of this process by physical name, and where their dials stand.
        sink: where windows go.
        pause: how long a window is.
        look: how long a change of the dials may go unnoticed.
        now: the monotonic clock.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        tracked: Callable[[], Mapping[str, Tracked]],
        sink: Sink,
        *,
        pause: timedelta = timedelta(seconds=5),
        look: timedelta = _LOOK,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._telemetry = telemetry
        self._tracked = tracked
        self._sink = sink
        self._pause_seconds = pause.total_seconds()
        self._now = now
        self._lock = Lock()
        self._began = now()
        self._due = self._began + self._pause_seconds
        self._open: dict[str, _Open] = {}
        self._waiting: dict[str, list[Window]] = {}
        self._sent: list[Window] = []
        self._fails = False
        self._ticker = Ticker("dualstore-rollup", self.round, pause=min(look, pause))

    def start(self) -> None:
        """Go on in a thread of its own; harmless where it does already."""
        self.round()
        self._ticker.start()

    def close(self) -> None:
        """Stop; what is left is handed in, unless that failed the last time."""
        self._ticker.close()
        if not self._fails:
            self.round(finish=True)

    def round(self, *, finish: bool = False) -> None:
        """Look at the dials, and end and hand in the windows that are due.

        Args:
            finish: end all windows, due or not.
        """
        with self._lock:
            tracked = self._tracked()
            due = finish or self._now() >= self._due
            self._cut(tracked, due=due)
            if due:
                self._due = self._now() + self._pause_seconds
                self._hand_in({table for table, each in tracked.items() if each.is_shared})

    def _cut(self, tracked: Mapping[str, Tracked], *, due: bool) -> None:
        nothing = Snapshot(self._began, {}, {}, {})
        for table, each in tracked.items():
            if table not in self._open:
                self._open[table] = _Open(each.logical, each.step, self._began, nothing)
        ending = [
            table
            for table, each in tracked.items()
            if not each.step.is_same(self._open[table].step) or (due and each.is_shared)
        ]
        if not ending:
            return
        counted, now = self._telemetry.snapshot(), self._now()
        for table in ending:
            before, step = self._open[table], tracked[table].step
            figures = Figures.of(counted.since(before.counted), before.logical)
            if figures or before.is_news:
                window = Window(uuid4(), table, before.step, before.began, now, figures)
                self._waiting.setdefault(table, []).append(window)
                _join(self._waiting[table])
            is_news = not step.is_same(before.step)
            self._open[table] = _Open(before.logical, step, now, counted, is_news=is_news)

    def _hand_in(self, shared: set[str]) -> None:
        """Hand in what waits; first, and just as it was, what was tried before and may have arrived."""
        while True:
            if not self._sent:
                for table in shared & self._waiting.keys():
                    self._sent += self._waiting.pop(table)
            if not self._sent:
                return
            try:
                self._sink(self._sent)
            except Exception as error:  # noqa: BLE001 - whatever it is: callers are not concerned
                if not self._fails:
                    logger.warning(
                        "The figures of this process cannot be recorded, and are kept: %s",
                        type(error).__name__,
                    )
                self._fails = True
                return
            if self._fails:
                logger.warning("The figures of this process are recorded again")
            self._fails, self._sent = False, []


def _join(windows: list[Window]) -> None:
    """Join neighbours until there are few enough; those of one step first."""
    while len(windows) > KEPT_WINDOWS:
        pairs = range(len(windows) - 1)
        first = next((n for n in pairs if windows[n].step.is_same(windows[n + 1].step)), 0)
        one, other = windows[first : first + 2]
        figures = Figures.sum([one.figures, other.figures])
        windows[first : first + 2] = [replace(one, ended=other.ended, figures=figures)]
