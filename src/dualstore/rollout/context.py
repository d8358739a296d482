"""What the steps of a plan work with: the store, the flags, the record, and time that can be interrupted."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from dualstore.flags import FlagSetter
from dualstore.rollout.plan import Plan
from dualstore.rollout.recorded import events_of
from dualstore.rollout.registry import Check, Evidence, Step
from dualstore.rollout.standing import STEP_EVENTS, EventKind, PlanEvent, Standing, standing
from dualstore.store import DualStore
from dualstore.store.table import MigratedTable
from dualstore.stores.postgres_plans import Hold, PostgresPlans
from dualstore.telemetry import PlanStepSeen

LOOK = timedelta(seconds=0.25)
"""The pause before what has to come to be so is looked at again."""
REPORT = timedelta(seconds=30)
"""So often it is told what is waited for."""

Announce = Callable[[str], None]


class Progress(Protocol):
    """How far a copy or a comparison has come."""

    @property
    def items(self) -> int:
        """Items read so far."""
        ...

    @property
    def elapsed(self) -> timedelta:
        """Time since it began."""
        ...


Progressed = Callable[[Step, str, Progress], None]
"""Told how far a step has come that copies or compares a table, by the table's logical name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What carries plans out.

    Attributes:
        store: both databases; it has the plan's tables.
        setter: where stage and dials are asked for.
        who: who carries it out.
        announce: told in words what happens.
        progressed: told how far what takes long has come.
        folder: where files go that a step writes.
    """

    store: DualStore
    setter: FlagSetter
    who: str
    announce: Announce = field(default=lambda _: None)
    progressed: Progressed = field(default=lambda *_: None)
    folder: str = "."

    @property
    def plans(self) -> PostgresPlans:
        """The record."""
        return PostgresPlans(self.store.engine)


@dataclass(frozen=True, slots=True)
class Context:
    """A plan that is being carried out.

    Attributes:
        plan: the plan.
        tools: with which.
        hold: that nobody else does; None where nothing may be changed, as in `--dry-run`.
    """

    plan: Plan
    tools: Tools
    hold: Hold | None = None

    @property
    def store(self) -> DualStore:
        """Both databases."""
        return self.tools.store

    def tables(self, step: Step) -> Iterator[tuple[str, MigratedTable]]:
        """The tables of a step, by their logical names."""
        return ((name, self.store.table(name)) for name in step.tables)

    def standing(self) -> Standing:
        """Where the plan stands, read now."""
        return standing(events_of(self.tools.plans.events(self.plan.name)))

    def now(self) -> datetime:
        """The moment, by PostgreSQL's clock."""
        return self.tools.plans.now()

    # -- the record ----------------------------------------------------------------------------

    def note(
        self,
        kind: EventKind,
        step: Step | None = None,
        *,
        attempt: int = 0,
        seconds: float | None = None,
        reason: str = "",
        evidence: Evidence | None = None,
    ) -> datetime:
        """Record an event as the one who carries the plan out; errors as for `PostgresPlans.append`."""
        at = self.tools.plans.append(
            self.plan.name,
            kind,
            by=self.tools.who,
            step=None if step is None else step.id,
            attempt=attempt,
            seconds=seconds,
            reason=reason,
            evidence=evidence,
            holder=None if self.hold is None else self.hold.id,
        )
        if step is not None and kind in STEP_EVENTS:
            for name in step.tables:
                self.store.telemetry.record(PlanStepSeen(name, step.id, kind.value))
        return at

    def mark(self, step: Step, name: str, *, evidence: Evidence | None = None) -> datetime:
        """Record that part of a step is done, if it is not yet; gives back when it was."""
        known = self.marks(step).get(name)
        if known is not None:
            return known.at
        return self.note(EventKind.MARKED, step, reason=name, evidence=evidence)

    def marks(self, step: Step) -> Mapping[str, PlanEvent]:
        """What is done of a step, by name, since it was last rolled back."""
        return self.standing().of(step.id).marks

    # -- time ----------------------------------------------------------------------------------

    def pause(self, duration: timedelta) -> None:
        """Sleep, unless the plan is halted or taken over meanwhile.

        Raises:
            PlanTaken, PlanHalted: it was.
            Unavailable: the session that holds the plan's lock is lost.
        """
        if self.hold is None:
            time.sleep(duration.total_seconds())
        else:
            self.hold.pause(duration)

    def wait_for(self, look: Callable[[], Sequence[Check]], patience: timedelta) -> Sequence[Check]:
        """Look until nothing is wrong, or what is does not pass by itself, or patience ends.

        Returns:
            What was seen last.
        """
        ends = time.monotonic() + patience.total_seconds()
        report_at = time.monotonic() + LOOK.total_seconds()
        while True:
            checks = look()
            wrong = [each for each in checks if each.problem is not None]
            now = time.monotonic()
            if not wrong or not all(each.passing for each in wrong) or now >= ends:
                return checks
            if now >= report_at:
                self.tools.announce(f"waiting: {wrong[0].what}: {wrong[0].problem}")
                report_at = now + REPORT.total_seconds()
            self.pause(min(LOOK, timedelta(seconds=max(ends - now, 0.01))))

    def progress_of(self, step: Step, name: str) -> Callable[[Progress], None]:
        """What takes how far a step has come with a table."""
        return lambda progress: self.tools.progressed(step, name, progress)
