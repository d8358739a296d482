"""A plan in words: what will happen, what has happened, and what a dry run found."""

from collections.abc import Iterable, Iterator

from dualstore.rollout.durations import said
from dualstore.rollout.plan import Plan
from dualstore.rollout.registry import ACTIONS, Step
from dualstore.rollout.runner import Looked
from dualstore.rollout.standing import EventKind, PlanEvent, Standing, StepStanding, StepState

_SIGNS = {
    StepState.PENDING: " ",
    StepState.STARTED: ">",
    StepState.FAILED: "!",
    StepState.DONE: "x",
    StepState.SKIPPED: "-",
    StepState.ROLLING_BACK: "<",
    StepState.ROLLED_BACK: "<",
}


def plan_in_words(plan: Plan, standing: Standing | None = None) -> Iterator[str]:
    """A plan, line by line.

    Args:
        plan: the plan.
        standing: where it stands; None where nobody can say.
    """
    environment = "staging" if plan.is_staging else "production"
    yield f"plan {plan.name} ({environment}) moves {', '.join(plan.tables)}"
    if standing is not None and standing.halted is not None:
        halted = standing.halted
        yield f"HALTED by {halted.by} at {halted.at:%Y-%m-%d %H:%M:%S %Z}: {halted.reason}"
    stage = None
    for number, step in enumerate(plan.steps, start=1):
        if step.stage != stage:
            stage = step.stage
            yield f"\n{stage}"
        known = StepStanding() if standing is None else standing.of(step.id)
        yield f"  [{_SIGNS[known.state]}] {number}. {step.id}: {ACTIONS[step.action].says(step)}"
        for line in _conditions(step):
            yield f"         {line}"
        if (last := _last(known)) is not None:
            yield f"         {last}"


def _conditions(step: Step) -> Iterator[str]:
    action = ACTIONS[step.action]
    if step.skip is not None:
        yield f"left out: {step.skip}"
        return
    if step.approval is not None:
        whose = " by another person than the one who runs the plan" if step.approval == "four-eyes" else ""
        yield f"waits to be approved{whose}"
    if step.window is not None:
        yield f"begins only {step.window}"
    if "gates" in action.options:
        yield f"gates: {_limits(step)}"
    refusal = "is taken back" if step.rolls_back else "the plan halts"
    yield f"where a check or gate says no for {said(step.patience)}: {refusal}"
    yield f"back: {action.undo_says(step)}"


def _limits(step: Step) -> str:
    limits = step.limits
    asked = {
        "proven equal within": None if limits.verified_within is None else said(limits.verified_within),
        "mismatches at most": _percent(limits.mismatch_percent),
        "errors at most": _percent(limits.error_percent),
        "latency over DynamoDB's at most": _percent(limits.latency_increase_percent),
        "p95 at most": None if limits.p95_ms is None else f"{limits.p95_ms:g} ms",
        "p99 at most": None if limits.p99_ms is None else f"{limits.p99_ms:g} ms",
        "comparisons at least": None if limits.comparisons is None else f"{limits.comparisons:,}",
        "keys in doubt at most": None if limits.dirty_keys is None else str(limits.dirty_keys),
    }
    return ", ".join(f"{what} {limit}" for what, limit in asked.items() if limit is not None)


def _percent(limit: float | None) -> str | None:
    return None if limit is None else f"{limit:g} %"


def _last(known: StepStanding) -> str | None:
    event = known.last
    if event is None:
        return f"approved by {', '.join(known.approved_by)}" if known.approved_by else None
    took = "" if event.seconds is None else f", in {event.seconds:g} s"
    reason = f": {event.reason}" if event.reason and event.kind is not EventKind.MARKED else ""
    moment = f"{event.at:%Y-%m-%d %H:%M:%S %Z}"
    return f"{known.state}, attempt {known.attempt}, by {event.by} at {moment}{took}{reason}"


def dry_run_in_words(looked: Iterable[Looked]) -> Iterator[str]:
    """What a dry run found, line by line."""
    for each in looked:
        if not each.checks and not each.later:
            yield f"{each.step.id}: nothing to look at before"
        elif each.checks:
            yield f"{each.step.id}:" + (" (the rest when it is its turn)" if each.later else "")
        for check in each.checks:
            yield f"  {check}"


def events_in_words(events: Iterable[PlanEvent]) -> Iterator[str]:
    """The record of a plan, line by line."""
    for event in events:
        took = "" if event.seconds is None else f" in {event.seconds:g} s"
        reason = f": {event.reason}" if event.reason else ""
        what = f"{event.step or 'the plan'}  {event.kind}{took} by {event.by}{reason}"
        yield f"{event.at:%Y-%m-%d %H:%M:%S %Z}  {what}"
