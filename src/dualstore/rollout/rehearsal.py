"""A rollback on purpose, where it hurts nobody: how long the way back takes, and the way forward again."""

import time
from dataclasses import dataclass
from datetime import timedelta

from dualstore.errors import IllegalTransition
from dualstore.rollout.context import Tools
from dualstore.rollout.plan import Plan
from dualstore.rollout.registry import ACTIONS, Step, StepRefused
from dualstore.rollout.rolling_back import TakenBack, halting, last_effective, take_back
from dualstore.rollout.runner import carrying_out
from dualstore.rollout.standing import EventKind

_REASON = "rehearsal"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How long a rehearsed rollback took.

    Attributes:
        step: the step that was taken back, and made again.
        taken_back: everything that was taken back for it.
        back: from the decision until every live process had taken it.
        forward: from there until the step was made again; None: it was left taken back.
    """

    step: str
    taken_back: tuple[TakenBack, ...]
    back: timedelta
    forward: timedelta | None


def rehearse(plan: Plan, tools: Tools, *, goes_forward: bool = True) -> Rehearsal:
    """Take the last step that has changed anything back, and make it again without its soak.

    The steps that only looked, and were taken back with it, are done again by the next run.

    Args:
        plan: a plan of staging.
        tools: with which; `who` is the person who has it go forward again.
        goes_forward: whether the step is made again.

    Raises:
        IllegalTransition: the plan is not one of staging, or nothing has begun that could be taken back.
        StepRefused: the way back, or forward, was refused.
    """
    if not plan.is_staging:
        raise IllegalTransition(
            f"plan {plan.name} is not one of staging: rehearse with a plan that says `environment: staging`, "
            "on a deployment where a rollback hurts nobody"
        )
    with halting(plan, _REASON, {}, tools) as context:
        steps = last_effective(context)
        if not steps or ACTIONS[steps[-1].action].undo is None:
            raise IllegalTransition(f"plan {plan.name}: nothing has begun yet that could be taken back")
        began = time.monotonic()
        taken = take_back(context, steps, reason=_REASON, evidence={})
        back = timedelta(seconds=time.monotonic() - began)
    again = steps[-1]
    forward = _made_again(plan, tools, again) if goes_forward else None
    tools.plans.append(
        plan.name,
        EventKind.REHEARSED,
        by=tools.who,
        evidence={
            "step": again.id,
            "back_seconds": round(back.total_seconds(), 3),
            "forward_seconds": None if forward is None else round(forward.total_seconds(), 3),
        },
    )
    return Rehearsal(again.id, tuple(taken), back, forward)


def _made_again(plan: Plan, tools: Tools, step: Step) -> timedelta:
    """The step once more, as it stood before: without its soak, it had that."""
    with carrying_out(plan, tools, resumed_by=tools.who) as context:
        action = ACTIONS[step.action]
        attempt = context.standing().of(step.id).attempt + 1
        began = time.monotonic()
        context.note(EventKind.STARTED, step, attempt=attempt, reason=_REASON)
        try:
            evidence = (action.redo or action.act)(step, context)
        except StepRefused as refusal:
            context.note(EventKind.FAILED, step, attempt=attempt, reason=str(refusal))
            raise
        forward = timedelta(seconds=time.monotonic() - began)
        # It stays `started`: the next run looks at its gates before anything else follows.
        context.tools.announce(f"{step.id}: made again, {evidence}")
        return forward
