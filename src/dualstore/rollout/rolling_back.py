"""The way back: one step, or all of them, each through its own undo; going forward again takes a person.

A rollback halts the plan first, which whoever carries it out notices within a second and lets go of it. It
does not wait for that for ever: then it takes the plan over, and what the other one records is refused.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dualstore.rollout.context import Context, Tools
from dualstore.rollout.plan import Plan
from dualstore.rollout.registry import ACTIONS, Evidence, Step, StepRefused
from dualstore.rollout.standing import EventKind

LET_GO_WITHIN = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class TakenBack:
    """One step that was taken back.

    Attributes:
        step: its id.
        duration: how long that took, until every live process had taken it.
        changed: whether there was anything to take back.
    """

    step: str
    duration: timedelta
    changed: bool


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        reason: why.
        steps: in the order in which they were taken back; empty where nothing had begun.
        duration: of all of it, from the decision on.
    """

    reason: str
    steps: Sequence[TakenBack]
    duration: timedelta


def rollback_one_step(plan: Plan, reason: str, evidence: Mapping[str, Any], *, tools: Tools) -> RolledBack:
    """Take back the last step that has changed anything, and what was looked at after it.

    For a person and for a monitor alike: whoever carries the plan out is stopped, and the plan stays halted
    until a person resumes it.

    Args:
        plan: the plan.
        reason: why, in words; no item's value.
        evidence: what was seen, as JSON without any item's value.
        tools: with which, and by whom.

    Raises:
        StepRefused: a step could not be taken back; the message says why and what to do. The next rollback
            tries again.
        PlanTaken: another rollback has taken it over.
        Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: a database does not
            answer: `dualstore stop` and `dualstore dial` need less.
    """
    return _rolled_back(plan, reason, evidence, tools, all_of_it=False)


def rollback_to_the_beginning(
    plan: Plan, reason: str, evidence: Mapping[str, Any], *, tools: Tools
) -> RolledBack:
    """Take back every step that has begun, the last one first; arguments and errors as for one step."""
    return _rolled_back(plan, reason, evidence, tools, all_of_it=True)


def _rolled_back(
    plan: Plan, reason: str, evidence: Mapping[str, Any], tools: Tools, *, all_of_it: bool
) -> RolledBack:
    began = time.monotonic()
    with halting(plan, reason, evidence, tools) as context:
        steps = begun(context) if all_of_it else last_effective(context)
        taken = take_back(context, steps, reason=reason, evidence=evidence)
    return RolledBack(reason, taken, timedelta(seconds=time.monotonic() - began))


@contextmanager
def halting(plan: Plan, reason: str, evidence: Mapping[str, Any], tools: Tools) -> Iterator[Context]:
    """Halt a plan, and hold it as soon as its holder lets go, or has had the time to."""
    tools.plans.append(plan.name, EventKind.HALTED, by=tools.who, reason=reason, evidence=evidence)
    physical = [tools.store.table(name).physical for name in plan.tables]
    holding = tools.plans.holding(
        plan.name, physical, who=tools.who, patience=LET_GO_WITHIN, force=True, obeys_halts=False
    )
    with holding as hold:
        yield Context(plan, tools, hold)


def begun(context: Context) -> list[Step]:
    """The steps that have begun and are not taken back, the last one first."""
    standing = context.standing()
    return [step for step in reversed(context.plan.steps) if standing.of(step.id).has_begun]


def last_effective(context: Context) -> list[Step]:
    """The last step with something to take back, after all that follow it."""
    found: list[Step] = []
    for step in begun(context):
        found.append(step)
        if ACTIONS[step.action].undo is not None:
            break
    return found


def take_back(context: Context, steps: Sequence[Step], *, reason: str, evidence: Evidence) -> list[TakenBack]:
    """Take steps back, in this order, each recorded.

    Raises:
        StepRefused: one could not be; those before it are.
    """
    taken = []
    for step in steps:
        action = ACTIONS[step.action]
        began = time.monotonic()
        context.note(EventKind.ROLLBACK_STARTED, step, reason=reason, evidence=evidence)
        context.tools.announce(f"{step.id}: {action.undo_says(step)}")
        try:
            seen = _undone(step, context)
        except StepRefused as refusal:
            context.note(EventKind.ROLLBACK_FAILED, step, reason=str(refusal))
            raise
        seconds = time.monotonic() - began
        context.note(EventKind.ROLLED_BACK, step, seconds=round(seconds, 3), reason=reason, evidence=seen)
        taken.append(TakenBack(step.id, timedelta(seconds=seconds), changed=action.undo is not None))
    return taken


def _undone(step: Step, context: Context) -> Evidence:
    """Take one step back, and see that it is.

    Raises:
        StepRefused: it is not.
    """
    action = ACTIONS[step.action]
    seen = {} if action.undo is None else action.undo(step, context)
    checks = context.wait_for(lambda: action.undone(step, context), step.patience)
    if wrong := [str(each) for each in checks if each.problem is not None]:
        raise StepRefused(f"{step.id}, taken back: {'; '.join(wrong)}")
    return seen
