"""Carries a plan out: step by step, each checked before and after, recorded, and resumed where it was."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy.exc import DBAPIError

from dualstore import schema
from dualstore.errors import DualStoreError, IllegalTransition, SchemaError, Unavailable
from dualstore.rollout.context import Context, Tools
from dualstore.rollout.durations import said
from dualstore.rollout.plan import Plan
from dualstore.rollout.registry import ACTIONS, Check, Step, StepRefused
from dualstore.rollout.rolling_back import take_back
from dualstore.rollout.standing import EventKind, PlanEvent, StepStanding, StepState
from dualstore.stores.postgres_plans import PlanHalted, PlanTaken

_LOOK = timedelta(seconds=1)
_LETS_GO_WITHIN = timedelta(seconds=3)
"""A holder that was killed: so soon its server notices."""


class Outcome(StrEnum):
    """How a run of a plan ended."""

    FINISHED = "finished"
    REACHED = "reached"
    """The step up to which it was to go is done; others follow it."""
    REFUSED = "refused"
    """A check or a gate said no; what it said is recorded."""
    ROLLED_BACK = "rolled back"
    """A check or a gate said no, and the step was taken back."""
    WAITING = "waiting"
    """A step waits for its approval or its window, and nobody was to wait for that."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a run.

    Attributes:
        outcome: how it ended.
        step: at which step, or after which; None where the plan is finished.
        reason: why there.
    """

    outcome: Outcome
    step: Step | None = None
    reason: str = ""


Ask = Callable[[Step], str | None]
"""Asks whoever is there for the approval of a step; gives back the name of who approves, or None."""


@contextmanager
def carrying_out(
    plan: Plan,
    tools: Tools,
    *,
    resumed_by: str | None = None,
    patience: timedelta = _LETS_GO_WITHIN,
) -> Iterator[Context]:
    """A plan, held by this process alone.

    The bookkeeping of both databases is made, or upgraded, first: what happens needs a place to be said.

    Args:
        plan: the plan.
        tools: with which.
        resumed_by: the person who has a halted plan, or a changed file, go on.
        patience: how long to wait for another operator to let go.

    Raises:
        PlanTaken: somebody else carries it out.
        PlanHalted: it is halted, and nobody has resumed it.
        IllegalTransition: its file has changed, and nobody has taken that over.
        Unavailable, SchemaError: PostgreSQL cannot keep the record.
    """
    tools.store.prepare()
    kept = tools.plans.keep(plan.name, plan.digest, plan.content)
    context = Context(plan, tools)
    if kept.digest != plan.digest:
        _require_sound_change(context, resumed_by)
    physical = [tools.store.table(name).physical for name in plan.tables]
    halted = context.standing().halted
    if halted is not None and resumed_by is None:
        raise PlanHalted(
            f"plan {plan.name} was halted by {halted.by} at {halted.at:%Y-%m-%d %H:%M:%S %Z}: "
            f"{halted.reason}. When that is mended, `dualstore plan resume --as NAME` goes on"
        )
    holding = tools.plans.holding(
        plan.name, physical, who=tools.who, patience=patience, obeys_halts=resumed_by is None
    )
    with holding as hold:
        if resumed_by is not None:
            _resume(context, resumed_by, changes=kept.digest != plan.digest, halted=halted)
            hold.obeys_halts = True
        yield Context(plan, tools, hold)


def _resume(context: Context, by: str, *, changes: bool, halted: PlanEvent | None) -> None:
    """Record what a person takes over; whoever held the plan until now has let go of it."""
    plan, plans = context.plan, context.tools.plans
    if changes:
        plans.keep(plan.name, plan.digest, plan.content, replaces=True)
        plans.append(plan.name, EventKind.CHANGED, by=by, reason=f"digest {plan.digest[:12]}")
    if halted is not None:
        plans.append(plan.name, EventKind.RESUMED, by=by, reason=halted.reason)


def _require_sound_change(context: Context, resumed_by: str | None) -> None:
    """A plan's file may change on the way; a person says so, and no step that is done may be gone."""
    plan = context.plan
    if resumed_by is None:
        raise IllegalTransition(
            f"{plan.source} is not what plan {plan.name} was run with before: see what has changed "
            "(`dualstore plan show`), and let `dualstore plan resume --as NAME` take it over"
        )
    begun = {name for name, step in context.standing().steps.items() if step.has_begun}
    if gone := sorted(begun - {step.id for step in plan.steps}):
        raise IllegalTransition(
            f"{plan.source} no longer has steps that have begun ({', '.join(gone)}): put them back, or roll "
            "them back with the file as it was"
        )


def run(
    context: Context, *, until: str | None = None, ask: Ask = lambda _: None, waits: bool = True
) -> Ended:
    """Carry out every step that is not done yet.

    Args:
        context: from `carrying_out`.
        until: the id of the last step to carry out; None: the plan's last.
        ask: asks for an approval at the prompt.
        waits: whether to wait for approvals and windows; else the run ends there.

    Raises:
        ConfigurationError: the plan has no step `until`.
        PlanTaken, PlanHalted: somebody has taken the plan over, or halted it.
        DualStoreError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError,
        sqlalchemy.exc.DBAPIError: something went wrong; the step is recorded as failed where that could be
            recorded, and is tried again by the next run.
    """
    plan = context.plan
    steps = plan.steps_until(until)
    for step in steps:
        before = context.standing().of(step.id)
        if before.state.is_done:
            continue
        ended = _carried_out(step, context, before, ask, waits=waits)
        if ended is not None:
            return ended
    if len(steps) < len(plan.steps):
        return Ended(Outcome.REACHED, steps[-1])
    context.tools.announce(f"plan {plan.name}: every step is done")
    return Ended(Outcome.FINISHED)


def _carried_out(
    step: Step, context: Context, before: StepStanding, ask: Ask, *, waits: bool
) -> Ended | None:
    """One step; None: it is done."""
    if step.skip is not None:
        context.note(EventKind.SKIPPED, step, reason=step.skip)
        context.tools.announce(f"{step.id}: left out: {step.skip}")
        return None
    attempt = before.attempt + 1
    try:
        if before.state is StepState.STARTED and _is_done_already(step, context, before):
            return None
        if not before.marks:  # what is half done is not left so until tomorrow
            waiting = _opened(step, context, waits=waits) or _approved(step, context, ask, waits=waits)
            if waiting is not None:
                return Ended(Outcome.WAITING, step, waiting)
        _attempt(step, context, attempt)
    except StepRefused as refusal:
        return _refused(step, context, attempt, refusal)
    except (PlanTaken, PlanHalted):
        raise
    except (DualStoreError, ClientError, BotoCoreError, DBAPIError) as error:
        # PostgreSQL may be what is away: the step stays started, and is looked at.
        with suppress(Unavailable, DBAPIError):
            context.note(EventKind.FAILED, step, attempt=attempt, reason=_named(error))
        raise
    return None


def _named(error: Exception) -> str:
    """What went wrong; of what a database said the code alone, as the rest may quote values."""
    if isinstance(error, ClientError):
        return f"{error.operation_name}: {error.response['Error']['Code']}"
    if isinstance(error, DBAPIError):
        sqlstate = getattr(error.orig, "sqlstate", None)
        return type(error.orig).__name__ + (f", SQLSTATE {sqlstate}" if sqlstate else "")
    return f"{type(error).__name__}: {error}" if isinstance(error, DualStoreError) else type(error).__name__


def _is_done_already(step: Step, context: Context, before: StepStanding) -> bool:
    """A step that was found started: whether all of it had happened before its run was broken off."""
    checks = ACTIONS[step.action].holds(step, context)
    if any(each.problem is not None for each in checks):
        context.tools.announce(f"{step.id}: found started, and not done: it is carried out again")
        return False
    context.note(
        EventKind.FINISHED,
        step,
        attempt=before.attempt,
        evidence={"found": "done by an attempt that was broken off", "after": [str(each) for each in checks]},
    )
    context.tools.announce(f"{step.id}: found done")
    return True


def _attempt(step: Step, context: Context, attempt: int) -> None:
    action = ACTIONS[step.action]
    _require(step, context, lambda: [*action.checks(step, context), *action.ready(step, context)], "before")
    assert context.hold is not None  # noqa: S101 - nothing is changed without one
    context.hold.check()
    context.note(EventKind.STARTED, step, attempt=attempt)
    context.tools.announce(f"{step.id}: {action.says(step)}")
    began = time.monotonic()
    evidence = action.act(step, context)
    checks = _require(step, context, lambda: action.holds(step, context), "after")
    seconds = round(time.monotonic() - began, 3)
    context.note(
        EventKind.FINISHED,
        step,
        attempt=attempt,
        seconds=seconds,
        evidence={**evidence, "after": [str(each) for each in checks]},
    )
    context.tools.announce(f"{step.id}: done in {said(timedelta(seconds=seconds))}")


def _require(step: Step, context: Context, look: Callable[[], Sequence[Check]], when: str) -> Sequence[Check]:
    """See that all checks say yes, for as long as waiting may help.

    Raises:
        StepRefused: one does not.
    """
    checks = context.wait_for(look, step.patience)
    if wrong := [str(each) for each in checks if each.problem is not None]:
        raise StepRefused(f"{step.id}, {when}: {'; '.join(wrong)}")
    return checks


def _refused(step: Step, context: Context, attempt: int, refusal: StepRefused) -> Ended:
    reason = str(refusal)
    context.note(EventKind.FAILED, step, attempt=attempt, reason=reason, evidence=refusal.evidence)
    context.tools.announce(f"{step.id}: refused: {reason}")
    if not step.rolls_back:
        return Ended(Outcome.REFUSED, step, reason)
    if context.hold is not None:
        context.hold.obeys_halts = False
    context.note(EventKind.HALTED, reason=reason, evidence=refusal.evidence)
    take_back(context, [step], reason=reason, evidence=refusal.evidence)
    return Ended(Outcome.ROLLED_BACK, step, reason)


def _opened(step: Step, context: Context, *, waits: bool) -> str | None:
    """Wait until the step's window is open; why it does not begin, where nobody is to wait."""
    told: datetime | None = None
    while step.window is not None:
        now = context.now()
        opening = step.window.next_opening(now)
        if opening is None:
            return f"{step.id}: its window ({step.window}) does not open again"
        if opening <= now:
            break
        reason = f"{step.id}: waits for its window ({step.window}), which opens {opening:%Y-%m-%d %H:%M %Z}"
        if not waits:
            return reason
        if opening != told:
            context.tools.announce(f"{reason}, in {said(opening - now)}")
            told = opening
        context.pause(min(opening - now, timedelta(seconds=30)))
    return None


def _approved(step: Step, context: Context, ask: Ask, *, waits: bool) -> str | None:
    """Wait for the step's approval; why it does not begin, where nobody is to wait."""
    told = False
    while step.approval is not None:
        approved_by = context.standing().of(step.id).approved_by
        if any(step.approval != "four-eyes" or name != context.tools.who for name in approved_by):
            break
        if not told and (name := ask(step)) is not None:
            context.note(EventKind.APPROVED, step, reason="at the prompt") if name == context.tools.who else (
                context.tools.plans.append(context.plan.name, EventKind.APPROVED, by=name, step=step.id)
            )
            told = step.approval == "four-eyes" and name == context.tools.who
            continue
        whose = f"by somebody else than {context.tools.who} " if step.approval == "four-eyes" else ""
        reason = (
            f"{step.id}: waits to be approved {whose}- `dualstore plan approve {context.plan.source} "
            f"{step.id} --as NAME`"
        )
        if not waits:
            return reason
        if not told:
            context.tools.announce(reason)
            told = True
        context.pause(_LOOK)
    return None


def bookkeeping_check(tools: Tools) -> Check:
    """Whether the bookkeeping is there, without which no table can be looked at; nothing is made."""
    what = "the bookkeeping of both databases is there"
    name = tools.store.options.bookkeeping_table
    try:
        schema.require_current(tools.store.engine)
        tools.store.client().describe_table(TableName=name)
    except SchemaError as error:
        return Check(what, f"the bookkeeping is not there yet ({error}); `plan run` makes it, too")
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        return Check(what, f"the bookkeeping is not there yet (table {name}: {code}); `plan run` makes it")
    return Check(what)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a dry run found for one step.

    Attributes:
        step: the step.
        checks: what was looked at.
        later: whether more is looked at only when the steps before it are done.
    """

    step: Step
    checks: Sequence[Check]
    later: bool


def look(plan: Plan, tools: Tools, *, done: frozenset[str] = frozenset()) -> Iterator[Looked]:
    """Every check that can be made now of the steps that are not done, and no change.

    Of the first step all of its precondition; of the others what does not depend on the steps before them.

    Args:
        plan: the plan.
        tools: with which.
        done: the ids of the steps that are done.
    """
    context = Context(plan, tools)
    first = True
    for step in plan.steps:
        if step.id in done or step.skip is not None:
            continue
        action = ACTIONS[step.action]
        checks = list(action.checks(step, context))
        if first:
            checks += action.ready(step, context)
        yield Looked(step, checks, later=not first)
        first = False
