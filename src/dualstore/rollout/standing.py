"""Where a plan stands: folded from the events that its record keeps, which are only ever added to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any


class EventKind(StrEnum):
    """What happened to a plan or a step."""

    APPROVED = "approved"
    STARTED = "started"
    MARKED = "marked"
    """Part of a step is done, from which an interrupted one goes on."""
    FINISHED = "finished"
    SKIPPED = "skipped"
    FAILED = "failed"
    ROLLBACK_STARTED = "rollback started"
    ROLLED_BACK = "rolled back"
    ROLLBACK_FAILED = "rollback failed"
    HALTED = "halted"
    """Going forward needs a person from here on."""
    RESUMED = "resumed"
    CHANGED = "changed"
    """A person has taken another version of the plan's file."""
    REHEARSED = "rehearsed"


@dataclass(frozen=True, slots=True)
class PlanEvent:
    """One event.

    Attributes:
        kind: what happened.
        step: to which step; None: to the plan.
        by: who did it.
        at: when, by PostgreSQL's clock.
        attempt: the step's attempt, from 1.
        seconds: how long it took, for what ends something.
        reason: why, in words.
        evidence: what was seen.
        number: orders the events of a plan; 0 before it is recorded.
    """

    kind: EventKind
    step: str | None
    by: str
    at: datetime
    attempt: int = 0
    seconds: float | None = None
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0


class StepState(StrEnum):
    """Where a step stands."""

    PENDING = "pending"
    STARTED = "started"
    FAILED = "failed"
    DONE = "done"
    SKIPPED = "skipped"
    ROLLING_BACK = "rolling back"
    ROLLED_BACK = "rolled back"

    @property
    def is_done(self) -> bool:
        """Whether the next step may follow."""
        return self in {StepState.DONE, StepState.SKIPPED}


@dataclass(frozen=True, slots=True)
class StepStanding:
    """Where one step stands.

    Attributes:
        state: in one word.
        has_begun: whether it was acted since it was last taken back; a refusal before that changes nothing.
        attempt: the last attempt; 0 before the first.
        approved_by: who has approved it since it was last rolled back.
        marks: what is done of it, by name.
        last: what happened last.
    """

    state: StepState = StepState.PENDING
    has_begun: bool = False
    attempt: int = 0
    approved_by: tuple[str, ...] = ()
    marks: Mapping[str, PlanEvent] = field(default_factory=dict)
    last: PlanEvent | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a plan stands.

    Attributes:
        steps: by id.
        halted: what halted it, where a person has not resumed it since.
    """

    steps: Mapping[str, StepStanding]
    halted: PlanEvent | None = None

    def of(self, step: str) -> StepStanding:
        """Where a step stands."""
        return self.steps.get(step, StepStanding())


def standing(events: Iterable[PlanEvent]) -> Standing:
    """Where a plan stands after these events, in their order."""
    steps: dict[str, StepStanding] = {}
    halted: PlanEvent | None = None
    for event in events:
        if event.kind is EventKind.HALTED:
            halted = event
        elif event.kind is EventKind.RESUMED:
            halted = None
        if event.step is not None:
            steps[event.step] = _after(steps.get(event.step, StepStanding()), event)
    return Standing(steps, halted)


_STATES: Mapping[EventKind, StepState] = {
    EventKind.STARTED: StepState.STARTED,
    EventKind.FINISHED: StepState.DONE,
    EventKind.SKIPPED: StepState.SKIPPED,
    EventKind.FAILED: StepState.FAILED,
    EventKind.ROLLBACK_STARTED: StepState.ROLLING_BACK,
    EventKind.ROLLED_BACK: StepState.ROLLED_BACK,
    EventKind.ROLLBACK_FAILED: StepState.ROLLING_BACK,
}
STEP_EVENTS = frozenset(_STATES)
"""What brings a step into another state."""


def _after(before: StepStanding, event: PlanEvent) -> StepStanding:
    match event.kind:
        case EventKind.APPROVED:
            return replace(before, approved_by=(*before.approved_by, event.by))
        case EventKind.MARKED:
            # The first time counts: an attempt that goes on with a mark does not begin it anew.
            return replace(before, marks={event.reason: event, **before.marks}, last=event)
        case EventKind.ROLLED_BACK:
            return StepStanding(StepState.ROLLED_BACK, attempt=before.attempt, last=event)
        case _ if event.kind in _STATES:
            attempt = max(before.attempt, event.attempt)
            has_begun = before.has_begun or event.kind is EventKind.STARTED
            return replace(
                before, state=_STATES[event.kind], has_begun=has_begun, attempt=attempt, last=event
            )
        case _:
            return before
