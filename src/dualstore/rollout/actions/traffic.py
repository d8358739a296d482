"""The traffic: reads are compared, then dialled to PostgreSQL by a schedule, each step watched and judged."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from dualstore.rollout.actions.data import stage_may_follow
from dualstore.rollout.context import Context
from dualstore.rollout.dialling import dial, dialled
from dualstore.rollout.durations import duration_of, said
from dualstore.rollout.judgement import Judgement
from dualstore.rollout.registry import Act, Action, Check, Checks, Evidence, Step
from dualstore.rollout.schema import SOAKING
from dualstore.rollout.soaking import SOAKING_MARK, gates, soak
from dualstore.stages import Stage

SCHEDULE = (1, 5, 10, 25, 50, 100)
_READABLE = frozenset({Stage.DUALWRITE, Stage.SHADOW})
_WATCHED = timedelta(minutes=10)
_GOOD = frozenset({Judgement.MET, Judgement.NOT_ASKED})


def watched(step: Step) -> str:
    """How long a step is watched, in words."""
    return (
        f" Watch for {said(step.soak)}, then until every gate is met."
        if step.soak
        else " Every gate is to be met."
    )


# -- enable_feature_flag -------------------------------------------------------------------------


def _enable(step: Step, context: Context) -> Evidence:
    return _dialled_to_stage(step, context, Stage.SHADOW, **_shadow_percent(step))


def _shadow_percent(step: Step) -> dict[str, float]:
    """Only where the plan says one: a flag can say no more that the stage decides."""
    if "shadow_percent" not in step.options:
        return {}
    return {"shadow_percent": float(step.options["shadow_percent"])}


def _dialled_to_stage(step: Step, context: Context, stage: Stage, **wishes: Any) -> Evidence:
    return {
        name: dial(context, name, patience=step.patience, stage=stage, postgres_read_percent=0.0, **wishes)
        for name in step.tables
    }


def _compares(step: Step, context: Context) -> Sequence[Check]:
    return [dialled(context, name, stage=Stage.SHADOW) for name in step.tables]


def _disable(step: Step, context: Context) -> Evidence:
    return _dialled_to_stage(step, context, Stage.DUALWRITE, **dict.fromkeys(_shadow_percent(step), 0.0))


ENABLE_FEATURE_FLAG = Action(
    name="enable_feature_flag",
    says=lambda _: (
        "Go to stage shadow: reads are also run on PostgreSQL and compared, off the caller's path; all "
        "answers still come from DynamoDB."
    ),
    act=_enable,
    ready=stage_may_follow(Stage.SHADOW),
    holds=_compares,
    undo=_disable,
    undone=lambda step, context: [dialled(context, name, stage=Stage.DUALWRITE) for name in step.tables],
    undo_says=lambda _: "back to stage dualwrite: nothing is compared any more",
    at=frozenset({Stage.DUALWRITE}),
    leads_to=Stage.SHADOW,
    options={"shadow_percent": {"type": "number", "exclusiveMinimum": 0, "maximum": 100}},
)


# -- gradual_traffic_increase --------------------------------------------------------------------


def _expanded(step: Step) -> Sequence[Step]:
    """A step of its own for each percentage, with soak and gates of its own where the schedule has them."""
    entries: list[Mapping[str, Any]] = [
        {"percent": entry} if isinstance(entry, int | float) else entry
        for entry in step.options.get("schedule", SCHEDULE)
    ]
    before = 0.0
    steps = []
    for entry in entries:
        percent = float(entry["percent"])
        if percent <= before:
            raise ValueError(
                f"schedule: {percent:g} % does not come after {before:g} %; write ascending percentages"
            )
        steps.append(
            replace(
                step,
                id=f"{step.id}/{percent:g}",
                options={"percent": percent, "before": before},
                soak=duration_of(entry["soak"]) if "soak" in entry else step.soak or _WATCHED,
                limits=step.limits.overlaid(entry.get("gates", {})),
                approval=entry.get("approval", step.approval),
            )
        )
        before = percent
    return steps


def _dialled_to(percent: str) -> Act:
    """Dials to what the step has under a name."""

    def act(step: Step, context: Context) -> Evidence:
        wanted = float(step.options[percent])
        return {
            name: dial(context, name, patience=step.patience, postgres_read_percent=wanted)
            for name in step.tables
        }

    return act


def _increase(step: Step, context: Context) -> Evidence:
    return {"dialled": _dialled_to("percent")(step, context), **soak(context, step)}


def _at_percent(percent: str) -> Checks:
    def holds(step: Step, context: Context) -> Sequence[Check]:
        wanted = float(step.options[percent])
        return [dialled(context, name, postgres_read_percent=wanted) for name in step.tables]

    return holds


def _soaked_and_met(step: Step, context: Context) -> Sequence[Check]:
    """The dial alone does not make it done: what was not watched to the end is watched on."""
    return [*_at_percent("percent")(step, context), *gates_met(step, context)]


def gates_met(step: Step, context: Context, **since: Any) -> Sequence[Check]:
    """Whether the soak is over and every gate met, as of now."""
    began = context.marks(step).get(SOAKING_MARK)
    soaked = began is not None and began.at + step.soak <= context.now()
    found = [Check(f"{step.id} was watched for {said(step.soak)}", None if soaked else "not to the end yet")]
    if soaked:
        for name, (_, results) in gates(context, step, **since).items():
            wrong = "; ".join(str(each) for each in results if each.judgement not in _GOOD)
            found.append(Check(f"every gate of {name} is met", wrong or None, passing=True))
    return found


def _may_be_read(step: Step, context: Context) -> Sequence[Check]:
    found = []
    for name, table in context.tables(step):
        record = table.status().record
        for what, holds, problem in (
            (f"PostgreSQL holds the history of {name}", record.loaded, "run `dualstore backfill`"),
            (
                f"{name} is mirrored before its callers are answered",
                not record.deferred,
                'set mirroring = "inline"',
            ),
            (
                f"nobody has stopped reads of {name}",
                record.stopped is None,
                "`dualstore stop --release` takes it back",
            ),
        ):
            found.append(Check(what, None if holds else problem))
    return found


GRADUAL_TRAFFIC_INCREASE = Action(
    name="gradual_traffic_increase",
    says=lambda step: (
        f"Have PostgreSQL answer the reads of {step.options['percent']:g} % of the partition keys "
        f"(before: {step.options['before']:g} %)." + watched(step)
    ),
    act=_increase,
    redo=_dialled_to("percent"),
    ready=_may_be_read,
    holds=_soaked_and_met,
    undo=_dialled_to("before"),
    undone=_at_percent("before"),
    undo_says=lambda step: f"back to {step.options['before']:g} %",
    at=_READABLE,
    options={
        **SOAKING,
        "schedule": {
            "type": "array",
            "minItems": 1,
            "items": {
                "if": {"type": "number"},
                "then": {"exclusiveMinimum": 0, "maximum": 100},
                "else": {
                    "type": "object",
                    "description": "a percentage, or a mapping with the key `percent`",
                    "required": ["percent"],
                    "properties": {
                        "percent": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
                        "approval": {"enum": ["required", "four-eyes"]},
                        **SOAKING,
                    },
                    "additionalProperties": False,
                },
            },
        },
    },
    expand=_expanded,
)


# -- monitor_error_rates -------------------------------------------------------------------------


def _watch(step: Step, context: Context) -> Evidence:
    return soak(context, step, since=context.mark(step, SOAKING_MARK))


def _watched_to_the_end(step: Step, context: Context) -> Sequence[Check]:
    began = context.marks(step).get(SOAKING_MARK)
    return gates_met(step, context, since=None if began is None else began.at)


MONITOR_ERROR_RATES = Action(
    name="monitor_error_rates",
    says=lambda step: "Change nothing." + watched(step),
    act=_watch,
    holds=_watched_to_the_end,
    at=frozenset(Stage) - {Stage.OFF},
    options=dict(SOAKING),
    expand=lambda step: [step if step.soak else replace(step, soak=_WATCHED)],
)
