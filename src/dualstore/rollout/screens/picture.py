"""One look at a whole migration: what `status`, `report` and `dashboard` all render."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dualstore.control import ControlRecord
from dualstore.rollout.judgement import GateResult, Limits
from dualstore.rollout.standing import PlanEvent, StepState
from dualstore.stages import Side
from dualstore.store import TableStatus
from dualstore.store.evidence import Evidence, Fleet
from dualstore.stores.postgres_monitor import RollbackRow
from dualstore.stores.postgres_screens import AlertSeen, DiscrepanciesSeen, RunSeen


@dataclass(frozen=True, slots=True)
class Shown:
    """A table, looked at.

    Attributes:
        status: where it stands.
        fleet: what all processes did with it lately; None where that cannot be had.
        evidence: what they saw since its dials moved; None where that cannot be had.
        missing: why not.
        flag_problems: why its flags may not be followed, as far as this process sees.
    """

    status: TableStatus
    fleet: Fleet | None = None
    evidence: Evidence | None = None
    missing: str | None = None
    flag_problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePicture:
    """Everything a screen says of one table.

    Attributes:
        name: the logical name.
        shown: where it stands; None where the database that decides does not answer.
        last_known: the record as the other database last knew it, where `shown` is None.
        missing: what could not be looked at, and why.
        gates: what each gate says of it now; empty where that cannot be had.
        gates_of: whose limits the gates have: a step of a plan, or the default ones.
        limits: these limits.
        runs: the last runs, the latest first.
        discrepancies: the open ones, counted.
        quarantined: items that a backfill has put aside; None where that cannot be had.
        alerts: the open ones, and those of the last day, the latest first.
        rollbacks: the last ones, the latest first.
    """

    name: str
    shown: Shown | None = None
    last_known: ControlRecord | None = None
    missing: tuple[str, ...] = ()
    gates: tuple[GateResult, ...] = ()
    gates_of: str = "the default limits"
    limits: Limits = field(default_factory=Limits)
    runs: tuple[RunSeen, ...] = ()
    discrepancies: tuple[DiscrepanciesSeen, ...] = ()
    quarantined: int | None = None
    alerts: tuple[AlertSeen, ...] = ()
    rollbacks: tuple[RollbackRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPicture:
    """Where a plan stands.

    Attributes:
        name: in the record.
        tables: what it moves.
        steps: every step by id, with its state, in order.
        halted: what halted it; None: nothing has.
        holder: who carries it out now; None: nobody.
        events: what happened to it, in order; the last ones.
        problem: why its steps cannot be told: another version wrote it.
    """

    name: str
    tables: tuple[str, ...] = ()
    steps: tuple[tuple[str, StepState], ...] = ()
    halted: PlanEvent | None = None
    holder: str | None = None
    events: tuple[PlanEvent, ...] = ()
    problem: str | None = None

    @property
    def steps_done(self) -> int:
        """How many steps are done or left out."""
        return sum(state.is_done for _, state in self.steps)

    @property
    def current(self) -> str | None:
        """The first step that is not done; None where all are."""
        return next((step for step, state in self.steps if not state.is_done), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Everything a screen says.

    Attributes:
        taken_at: when it was looked, by the clock of this machine.
        version: of dualstore.
        databases: why a database does not answer; None: it does.
        tables: in the order of their names.
        plans: the latest first.
    """

    taken_at: datetime
    version: str
    databases: Mapping[Side, str | None]
    tables: tuple[TablePicture, ...]
    plans: tuple[PlanPicture, ...] = ()
