"""What the steps of a plan work with: the store, the flags, the record, and time that can be interrupted."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from dualstore.control import ControlRecord
from dualstore.errors import IllegalTransition, Unavailable
from dualstore.flags import FlagSetter
from dualstore.rollout.evidence import snapshot_of
from dualstore.rollout.gates import EvidenceSnapshot, GateResult, Judgement, judged, worst
from dualstore.rollout.plan import Plan
from dualstore.rollout.recorded import events_of
from dualstore.rollout.registry import Check, Evidence, Step, StepRefused
from dualstore.rollout.standing import STEP_EVENTS, EventKind, PlanEvent, Standing, standing
from dualstore.stages import Stage
from dualstore.store import DualStore
from dualstore.store.table import MigratedTable
from dualstore.stores.postgres_plans import Hold, PostgresPlans
from dualstore.telemetry import PlanStepSeen

_LOOK = timedelta(seconds=0.25)
_REPORT = timedelta(seconds=30)
_CONFIRMED_WITHIN = timedelta(seconds=30)

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
        report_at = time.monotonic() + _LOOK.total_seconds()
        while True:
            checks = look()
            wrong = [each for each in checks if each.problem is not None]
            now = time.monotonic()
            if not wrong or not all(each.passing for each in wrong) or now >= ends:
                return checks
            if now >= report_at:
                self.tools.announce(f"waiting: {wrong[0].what}: {wrong[0].problem}")
                report_at = now + _REPORT.total_seconds()
            self.pause(min(_LOOK, timedelta(seconds=max(ends - now, 0.01))))

    # -- stage and dials -----------------------------------------------------------------------

    def dial(
        self,
        name: str,
        *,
        patience: timedelta,
        refused: Callable[[], object] = lambda: None,
        **wishes: object,
    ) -> Evidence:
        """Ask for another stage or dial where the flags are kept, until every live process has taken it.

        A request that may not be followed yet is taken back before it is made again: no flag is left asking
        for what may happen hours later.

        Args:
            name: the table's logical name.
            patience: how long to try.
            refused: is called each time that it may not follow, with no request made.
            **wishes: as `FlagSetter.set` takes them.

        Raises:
            StepRefused: it may not follow, or not every process has taken it.
        """
        asked = _Asked(self, name, wishes)
        try:
            return self._dialled_patiently(asked, patience, refused)
        except BaseException:
            asked.take_back_unless_done()
            raise

    def _dialled_patiently(
        self, asked: "_Asked", patience: timedelta, refused: Callable[[], object]
    ) -> Evidence:
        table = self.store.table(asked.name)
        ends = time.monotonic() + patience.total_seconds()
        while True:
            asked.ask()
            timeout = min(max(ends - time.monotonic(), 1.0), _CONFIRMED_WITHIN.total_seconds())
            began = time.monotonic()
            try:
                record = table.wait_until(
                    lambda record: stands(record, asked.wishes), timeout=timedelta(seconds=timeout)
                )
            except (IllegalTransition, Unavailable) as refusal:
                if isinstance(refusal, IllegalTransition):
                    asked.take_back()
                if time.monotonic() >= ends:
                    raise StepRefused(f"{asked.name}: {refusal}") from None
                self.tools.announce(f"{asked.name}: waiting: {refusal}")
                if isinstance(refusal, IllegalTransition):
                    refused()
                self.pause(_LOOK)
                continue
            return {
                "stage": record.stage.value,
                "read_percent": record.dials.postgres_read_percent,
                "generation": record.generation,
                "epoch": record.epoch,
                "seconds_until_confirmed": round(time.monotonic() - began, 3),
            }

    def dialled(self, name: str, **wishes: object) -> Check:
        """Whether a table stands where some wishes ask, and every live process has taken it."""
        status = self.store.table(name).status()
        asked = ", ".join(f"{_words(wish)} {_value(value)}" for wish, value in wishes.items())
        what = f"{name} is at {asked}, confirmed by every process"
        if not stands(status.record, wishes):
            percent = status.record.dials.postgres_read_percent
            return Check(
                what, f"it is at stage {status.record.stage}, read-percent {percent:g}", passing=True
            )
        late = [label for label, confirmed in status.confirmed.items() if not confirmed]
        return Check(what, f"not yet confirmed by {', '.join(late)}" if late else None, passing=True)

    def progress_of(self, step: Step, name: str) -> Callable[[Progress], None]:
        """What takes how far a step has come with a table."""
        return lambda progress: self.tools.progressed(step, name, progress)

    # -- gates ---------------------------------------------------------------------------------

    def gates(
        self, step: Step, *, since: datetime | None = None
    ) -> Mapping[str, tuple[EvidenceSnapshot, Sequence[GateResult]]]:
        """What every gate says of every table of a step, and from which evidence."""
        found = {}
        for name in step.tables:
            seen = snapshot_of(self.store, name, since=since)
            found[name] = (seen, judged(seen, step.limits))
        return found

    def soak(self, step: Step, *, since: datetime | None = None) -> Evidence:
        """Watch for a while, then until the gates are met; goes on with a soak that was broken off.

        Args:
            step: with soak, limits and patience.
            since: from when on evidence counts; None: since stage or dials last changed.

        Raises:
            StepRefused: a gate has evidence against it, or is not met within the step's patience.
        """
        ends = self.mark(step, SOAKING) + step.soak
        while (left := ends - self.now()) > timedelta(0):
            self.tools.announce(f"{step.id}: watched until {ends:%Y-%m-%d %H:%M:%S %Z}")
            self.pause(left)
        return {"soak_seconds": step.soak.total_seconds(), **self.meet_gates(step, since=since)}

    def meet_gates(self, step: Step, *, since: datetime | None = None) -> Evidence:
        """Wait until every gate of a step is met; what is proven equal too long ago is compared anew.

        Raises:
            StepRefused: a gate has evidence against it, or is not met within the step's patience.
        """
        give_up = time.monotonic() + step.patience.total_seconds()
        report_at = 0.0
        verified: set[str] = set()
        while True:
            seen = self.gates(step, since=since)
            results = {name: said for name, (_, said) in seen.items()}
            judgement = worst(result for said in results.values() for result in said)
            if judgement is Judgement.MET:
                self.tools.announce(f"{step.id}: every gate is met: {_met(results)}")
                return {
                    "tables": {
                        name: {"seen": each.to_json(), "gates": [r.to_json() for r in said]}
                        for name, (each, said) in seen.items()
                    }
                }
            if judgement is Judgement.NOT_MET or time.monotonic() >= give_up:
                raise StepRefused(_refusal(step, results, judgement), gates=results)
            if self._verified_anew(step, results, verified):
                continue
            if time.monotonic() >= report_at:
                self.tools.announce(_refusal(step, results, judgement))
                report_at = time.monotonic() + _REPORT.total_seconds()
            self.pause(_LOOK)

    def _verified_anew(
        self, step: Step, results: Mapping[str, Sequence[GateResult]], verified: set[str]
    ) -> bool:
        """Compare both sides of the tables whose last proof is too old; whether any was compared.

        Once each: what a verification finds is not found away by another.
        """
        stale = {
            name
            for name, said in results.items()
            if any(each.gate == "verification" and each.judgement is Judgement.NOT_YET for each in said)
        }
        for name in sorted(stale - verified):
            self.tools.announce(f"{step.id}: comparing both sides of {name} whole")
            self.store.table(name).verify(progress=self.progress_of(step, name))
        anew = bool(stale - verified)
        verified |= stale
        return anew


SOAKING = "soaking"
"""The mark at which a step's dials stand, and it is watched."""


def stands(record: ControlRecord, wishes: Mapping[str, object]) -> bool:
    """Whether a record is where some wishes ask it to be."""
    return all(
        (record.stage if name == "stage" else getattr(record.dials, name)) == wish
        for name, wish in wishes.items()
    )


def _refusal(step: Step, results: Mapping[str, Sequence[GateResult]], judgement: Judgement) -> str:
    wanting = [
        f"{name}: {result}"
        for name, said in results.items()
        for result in said
        if result.judgement is judgement
    ]
    return f"{step.id}: " + "; ".join(wanting)


def _met(results: Mapping[str, Sequence[GateResult]]) -> str:
    """What the gates saw that were asked."""
    return "; ".join(
        f"{name}: " + ", ".join(each.saw for each in said if each.judgement is Judgement.MET)
        for name, said in results.items()
    )


def _words(wish: str) -> str:
    return {"stage": "stage", "postgres_read_percent": "read-percent"}.get(wish, wish)


def _value(value: object) -> str:
    return (
        value.value if isinstance(value, Stage) else f"{value:g}" if isinstance(value, float) else str(value)
    )


class _Asked:
    """What the flags are asked for, and how to have them ask again for what they did before.

    Args:
        context: the plan that asks.
        name: the table's logical name.
        wishes: as `FlagSetter.set` takes them.
    """

    def __init__(self, context: Context, name: str, wishes: Mapping[str, object]) -> None:
        self.name, self.wishes = name, wishes
        self._context = context
        self._put_back: Callable[[], object] | None = None

    def ask(self) -> None:
        """Ask, where it is not asked already: the flags of before are those of before the first time."""
        self._see_that_it_is_held()
        if self._put_back is None:
            self._put_back = self._context.tools.setter.set(self.name, **self.wishes)  # type: ignore[arg-type]
            # A process that slept before it asked may have been rolled back meanwhile.
            self._see_that_it_is_held()

    def take_back(self) -> None:
        """Have the flags ask for what they did before."""
        if self._put_back is not None:
            self._put_back()
            self._put_back = None

    def take_back_unless_done(self) -> None:
        """Nobody waits any more: no flag is left asking for what may happen hours later."""
        try:
            done = stands(self._context.store.table(self.name).status().record, self.wishes)
        except Exception:  # noqa: BLE001 - it is on its way out with the error that ended the wait
            done = False
        if not done:
            self.take_back()

    def _see_that_it_is_held(self) -> None:
        if self._context.hold is not None:
            self._context.hold.check()
