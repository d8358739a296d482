"""Watches a fleet: judges its figures, tells people, and takes traffic off PostgreSQL where that has to be.

Figures come from the windows that all processes hand in to PostgreSQL. So any number of monitors may run, one
of them leads, and the next one judges by the same windows. What is open is a row there, too.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.config import CloudWatchSettings
from dualstore.control import ControlRecord, Gate
from dualstore.errors import DualStoreError, Unavailable
from dualstore.rollout.alerts import Alert, Dispatch, Kind
from dualstore.rollout.alerts.words import NEXT_LOOK, readings_json, said_of
from dualstore.rollout.cloudwatch import CloudWatch
from dualstore.rollout.reaction import How, Reacting, Reaction, position, way_back
from dualstore.rollout.thresholds import (
    Reading,
    Signal,
    Thresholds,
    Window,
    judge,
    readings_of,
    to_roll_back,
)
from dualstore.stages import Side, Stage
from dualstore.stores.postgres_rollup import step_of
from dualstore.telemetry.figures import Figures

logger = logging.getLogger(__name__)

_UNREACHABLE = (ClientError, BotoCoreError, Unavailable)


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched of one table.

    Attributes:
        thresholds: when its signals are alarms.
        how: how it is rolled back.
        cloudwatch: metrics that are read beside the fleet's figures.
    """

    thresholds: Thresholds
    how: How = "step"
    cloudwatch: Sequence[CloudWatchSettings] = ()


@dataclass(frozen=True, slots=True)
class Times:
    """When a monitor looks.

    Attributes:
        window: the length of the stretches that figures are judged in.
        settle: how long after its end the figures of a window have been handed in.
        look: the pause between two looks.
        again: after so long an alert that is still open is told again.
    """

    window: timedelta = timedelta(seconds=20)
    settle: timedelta = timedelta(seconds=10)
    look: timedelta = timedelta(seconds=5)
    again: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one look at one table found, and did.

    Attributes:
        table: the logical name.
        position: stage and dials before it.
        readings: what the last window says, by signal.
        alarms: the signals that are alarms.
        reaction: the rollback, where there was one.
        problem: what kept it from looking, in words.
    """

    table: str
    position: Mapping[str, Any]
    readings: Window = field(default_factory=dict)
    alarms: frozenset[str] = frozenset()
    reaction: Reaction | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        reaction = self.reaction
        return {
            "table": self.table,
            "position": dict(self.position),
            "readings": readings_json(self.readings),
            "alarms": sorted(self.alarms),
            "rollback": None
            if reaction is None
            else {"outcome": reaction.outcome, "seconds": round(reaction.seconds, 3)},
            "problem": self.problem,
        }


class MigrationMonitor:
    """Watches tables, by themselves each.

    Args:
        reacting: what rolls back; its store has the tables.
        watches: what is watched, by logical name.
        dispatch: who is told.
        times: when it looks.
        cloudwatch: reads metrics; None where no table has any.
        clock: the wall clock, in seconds since the epoch, for when PostgreSQL's cannot be asked.
    """

    def __init__(
        self,
        reacting: Reacting,
        watches: Mapping[str, Watch],
        dispatch: Dispatch,
        *,
        times: Times | None = None,
        cloudwatch: CloudWatch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reacting = reacting
        self._store = reacting.tools.store
        self._kept = reacting.kept
        self._watches = watches
        self._dispatch = dispatch
        self._times = times or Times()
        self._cloudwatch = cloudwatch
        self._clock = clock
        self._length = self._times.window.total_seconds()
        self._offset_seconds = 0.0
        self._gauges: dict[str, dict[int, dict[str, Reading]]] = {name: {} for name in watches}
        self._began: int | None = None
        self._told: dict[str, frozenset[str]] = {}
        self._unrecorded: list[dict[str, Any]] = []

    def run(self, stop: threading.Event, *, seen: Callable[[Seen], object] = lambda _: None) -> None:
        """Look again and again until told to stop, as long as no other monitor leads.

        Args:
            stop: ends it after the look at hand.
            seen: told of every look at every table.
        """
        while not stop.is_set():
            try:
                with self._kept.leading() as lead:
                    while lead is not None and lead.holds() and not stop.is_set():
                        for each in self.look():
                            seen(each)
                        stop.wait(self._times.look.total_seconds())
            except Unavailable:
                # Nobody can lead. What every monitor does alone then is harmless where another does it, too.
                for each in self.look():
                    seen(each)
            stop.wait(self._times.look.total_seconds())

    def look(self) -> list[Seen]:
        """Look once at every table, and do what has to be done; one that fails does not stop the others."""
        return [self._looked(name, watch) for name, watch in self._watches.items()]

    def _looked(self, name: str, watch: Watch) -> Seen:
        try:
            record = self._store.table(name).view.record
        except (*_UNREACHABLE, DualStoreError) as failure:
            return Seen(table=name, position={}, problem=f"{type(failure).__name__}: it is not served")
        if record.stage is Stage.OFF:
            return Seen(table=name, position=position(record))
        try:
            return self._judged(name, watch, record)
        except (*_UNREACHABLE, DualStoreError) as failure:
            logger.warning("The look at %s ended early: %s", name, type(failure).__name__)
            return Seen(table=name, position=position(record), problem=type(failure).__name__)

    def _judged(self, name: str, watch: Watch, record: ControlRecord) -> Seen:
        now = self._now()
        present = int(now // self._length)
        self._began = present if self._began is None else self._began
        is_there = self._note(name, watch, present)
        history = self._history(name, watch, record, now if is_there else None, present=present)
        told = self._told.get(name, frozenset())
        before = told | self._open(record.table) if is_there else told
        alarms = judge(history, watch.thresholds, alarms=before)
        if present - self._began < watch.thresholds.of:
            alarms |= before  # what this one has not watched for long enough does not end
        reaction = self._react(name, watch, record, history)
        for signal in sorted(alarms):
            self._open_alert(name, record.table, signal, history, is_there=is_there, is_told=signal in told)
        for signal in sorted(before - alarms):
            self._close_alert(name, record.table, signal, is_there=is_there, is_told=signal in told)
        # Once rows can be written they tell what is open; until then, this process does.
        self._told[name] = frozenset() if is_there else alarms
        return Seen(
            table=name,
            position=position(record),
            readings=history[-1],
            alarms=alarms,
            reaction=reaction,
        )

    # -- what is seen --------------------------------------------------------------------------

    def _now(self) -> float:
        """The moment by PostgreSQL's clock, as far as it is known, in seconds since the epoch."""
        try:
            self._offset_seconds = self._kept.now() - self._clock()
        except Unavailable:
            logger.debug("PostgreSQL's clock cannot be read; the last difference counts")
        return self._clock() + self._offset_seconds

    def _note(self, name: str, watch: Watch, present: int) -> bool:
        """Note what is so at this moment; whether PostgreSQL answers."""
        found = dict(self._at_this_moment(name, watch))
        numbered = self._gauges[name]
        kept = numbered.setdefault(present, {})
        for signal, reading in found.items():
            if signal not in kept or reading.value > kept[signal].value:
                kept[signal] = reading
        for number in [number for number in numbered if number < present - 4 * watch.thresholds.of]:
            del numbered[number]
        return not found[Signal.UNREACHABLE].value

    def _at_this_moment(self, name: str, watch: Watch) -> Iterator[tuple[str, Reading]]:
        try:
            yield Signal.POOL, _gauge(self._kept.connections_percent())
        except Unavailable:
            yield Signal.UNREACHABLE, _gauge(1.0)
            return
        yield Signal.UNREACHABLE, _gauge(0.0)
        try:
            yield from self._of_status(name)
            if self._cloudwatch is not None:
                yield from self._cloudwatch.read(watch.cloudwatch).items()
        except _UNREACHABLE as failure:
            logger.warning("Not all of %s can be looked at: %s", name, type(failure).__name__)

    def _of_status(self, name: str) -> Iterator[tuple[str, Reading]]:
        table = self._store.table(name)
        status = table.status()
        record = status.record
        if status.dirty_keys is not None:
            yield Signal.DIRTY_KEYS, _gauge(status.dirty_keys)
        if status.stream_lag is not None:
            yield Signal.STREAM_LAG, _gauge(status.stream_lag.total_seconds())
        if record.authority is Side.POSTGRES and record.stage.rule.mirrored and status.outbox is not None:
            yield Signal.OUTBOX_AGE, _gauge(status.outbox.oldest_age.total_seconds())
        if record.gate is not Gate.OPEN and (oldest := table.oldest_in_journal()) is not None:
            yield Signal.JOURNAL_AGE, _gauge(max(self._clock() - oldest, 0.0))

    def _history(
        self, name: str, watch: Watch, record: ControlRecord, now: float | None, *, present: int
    ) -> list[Window]:
        """The last windows, of figures under the present dials, and of what was so at their moments.

        Args:
            name: the table.
            watch: of it.
            record: of it.
            now: the moment; None where PostgreSQL has no figures to give.
            present: the number of the present window, the last one where there are no figures.
        """
        settled, figures = present, dict[int, Figures]()
        if now is not None:
            settled = int((now - self._times.settle.total_seconds()) // self._length) - 1
        first = settled - watch.thresholds.of + 1
        if now is not None:
            figures |= self._kept.windows(
                record.table, step_of(record), first=first, length=self._times.window
            )
        gauges = self._gauges[name]
        return [
            {**(readings_of(figures[number]) if number in figures else {}), **gauges.get(number, {})}
            for number in range(first, settled + 1)
        ]

    # -- what is done --------------------------------------------------------------------------

    def _react(
        self, name: str, watch: Watch, record: ControlRecord, history: Sequence[Window]
    ) -> Reaction | None:
        causes = to_roll_back(history, watch.thresholds, record)
        if not causes or watch.how == "none" or not way_back(record, how=watch.how):
            return None
        reason = "; ".join(said_of(cause, history) for cause in sorted(causes))
        evidence = {
            "signals": sorted(causes),
            "windows": [readings_json(window) for window in history],
            "window_seconds": self._times.window.total_seconds(),
        }
        reaction = self._reacting.roll_back(name, reason, evidence, how=watch.how)
        if reaction is None:
            return None
        self._record(record.table, reason, reaction, evidence)
        if reaction.ended is not None:
            key = f"{record.table}/rolled back/{reaction.began['generation']}"
            self._dispatch.tell(
                Alert(
                    key,
                    Kind.ROLLED_BACK,
                    name,
                    f"{reason}; {reaction.outcome}",
                    "why; going forward again needs a person",
                    {"began": dict(reaction.began), "ended": dict(reaction.ended)},
                )
            )
        return reaction

    def _record(self, physical: str, reason: str, reaction: Reaction, evidence: Mapping[str, Any]) -> None:
        """Keep what was rolled back; where PostgreSQL is away, as soon as it is back."""
        self._unrecorded.append(
            {
                "table": physical,
                "by": self._reacting.tools.who,
                "reason": reason,
                "began": reaction.began,
                "ended": reaction.ended,
                "outcome": reaction.outcome,
                "seconds": reaction.seconds,
                "evidence": evidence,
            }
        )
        self._unrecorded = self._unrecorded[-100:]
        try:
            while self._unrecorded:
                self._kept.record_rollback(**self._unrecorded[0])
                del self._unrecorded[0]
        except Unavailable:
            logger.warning("A rollback of %s is recorded once PostgreSQL answers", physical)

    # -- who is told ---------------------------------------------------------------------------

    def _open(self, physical: str) -> frozenset[str]:
        """The signals whose alerts are open, whoever opened them."""
        return frozenset(key.removeprefix(f"{physical}/") for key in self._kept.open_alerts(physical))

    def _open_alert(
        self,
        name: str,
        physical: str,
        signal: str,
        history: Sequence[Window],
        *,
        is_there: bool,
        is_told: bool,
    ) -> None:
        """Tell that something is wrong, unless somebody has; without PostgreSQL each monitor tells it."""
        key, summary = f"{physical}/{signal}", said_of(signal, history)
        evidence = {"windows": [readings_json(window) for window in history]}
        is_news = not is_told
        if is_there:
            opened = self._kept.open_alert(key, physical, summary, evidence, again=self._times.again)
            is_news = opened and not is_told
        if is_news:
            next_look = NEXT_LOOK.get(signal, "the metric in CloudWatch").format(table=name)
            self._dispatch.tell(Alert(key, Kind.OPENED, name, summary, next_look, evidence))

    def _close_alert(self, name: str, physical: str, signal: str, *, is_there: bool, is_told: bool) -> None:
        """Tell that it is over, to whoever was told that it began."""
        key = f"{physical}/{signal}"
        closed = self._kept.close_alert(key) if is_there else False
        if closed or is_told:
            self._dispatch.tell(Alert(key, Kind.RECOVERED, name, f"{signal} is back to normal"))


def _gauge(value: float) -> Reading:
    return Reading(float(value), float(value))
