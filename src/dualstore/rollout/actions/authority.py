"""Who decides writes: PostgreSQL takes over, is no longer compared, and is alone at last."""

from collections.abc import Sequence

from dualstore.rollout.actions.data import ended_doubt, stage_may_follow
from dualstore.rollout.actions.traffic import gates_met, watched
from dualstore.rollout.context import Context
from dualstore.rollout.dialling import dial, dialled
from dualstore.rollout.registry import Action, Check, Evidence, Step, StepRefused
from dualstore.rollout.schema import SOAKING
from dualstore.rollout.soaking import meet_gates, soak
from dualstore.stages import Stage


def _go(step: Step, context: Context, stage: Stage) -> Evidence:
    return {name: dial(context, name, patience=step.patience, stage=stage) for name in step.tables}


def _at(step: Step, context: Context, stage: Stage) -> Sequence[Check]:
    return [dialled(context, name, stage=stage) for name in step.tables]


# -- flip_authority ------------------------------------------------------------------------------


def _flip(step: Step, context: Context) -> Evidence:
    """The end of all doubt and the gates before it, the flip, and a watch after it."""
    flips = [name for name, table in context.tables(step) if table.status().record.stage is Stage.SHADOW]
    if flips and context.marks(step):
        raise StepRefused(
            f"{step.id}: {', '.join(flips)} went back to stage shadow after the flip: roll the step back "
            "(`dualstore plan rollback`), and have it approved anew"
        )
    compared = {name: ended_doubt(step, context, name) for name in flips}
    before = meet_gates(context, step) if flips else None
    flipped = {name: _to_live(step, context, name) for name in step.tables}
    return {"compared": compared, "before": before, "flipped": flipped, **soak(context, step)}


def _to_live(step: Step, context: Context, name: str) -> Evidence:
    """A process that died earlier may be found dead only now: what is refused for that is proven anew."""

    def proven_anew() -> None:
        if ended_doubt(step, context, name) is not None:
            meet_gates(context, step)  # they were met before a comparison that may have taken hours

    return dial(context, name, patience=step.patience, refused=proven_anew, stage=Stage.LIVE)


FLIP_AUTHORITY = Action(
    name="flip_authority",
    says=lambda step: (
        "Once every gate is met, have PostgreSQL decide all writes (stage live); they pause while the "
        "authority moves, and DynamoDB follows." + watched(step)
    ),
    act=_flip,
    redo=lambda step, context: {name: _to_live(step, context, name) for name in step.tables},
    ready=stage_may_follow(Stage.LIVE, proves=True),
    holds=lambda step, context: [*_at(step, context, Stage.LIVE), *gates_met(step, context)],
    undo=lambda step, context: _go(step, context, Stage.SHADOW),
    undone=lambda step, context: _at(step, context, Stage.SHADOW),
    undo_says=lambda _: "DynamoDB decides again (stage shadow), once it has every change; nothing is lost",
    at=frozenset({Stage.SHADOW}),
    leads_to=Stage.LIVE,
    options=dict(SOAKING),
    approval="required",
)


# -- rampdown ------------------------------------------------------------------------------------


RAMPDOWN = Action(
    name="rampdown",
    says=lambda _: (
        "Go to stage rampdown: nothing is compared any more; DynamoDB still follows, for the way back."
    ),
    act=lambda step, context: _go(step, context, Stage.RAMPDOWN),
    ready=stage_may_follow(Stage.RAMPDOWN),
    holds=lambda step, context: _at(step, context, Stage.RAMPDOWN),
    undo=lambda step, context: _go(step, context, Stage.LIVE),
    undone=lambda step, context: _at(step, context, Stage.LIVE),
    undo_says=lambda _: "back to stage live: reads are compared again",
    at=frozenset({Stage.LIVE}),
    leads_to=Stage.RAMPDOWN,
)


# -- stop_dual_writing ---------------------------------------------------------------------------


def _complete(step: Step, context: Context) -> Evidence:
    """Equal once more, and then never again."""
    left = [name for name, table in context.tables(step) if table.status().record.stage is not Stage.COMPLETE]
    equal = meet_gates(context, step) if left else None
    return {"before": equal, "stopped": _go(step, context, Stage.COMPLETE)}


def _mirror_again(step: Step, context: Context) -> Evidence:
    """DynamoDB has not been written meanwhile: it is brought after PostgreSQL before anything else."""
    gone = _go(step, context, Stage.RAMPDOWN)
    repaired = {}
    for name, table in context.tables(step):
        context.tools.announce(f"{step.id}: bringing DynamoDB's table of {name} after PostgreSQL")
        found = table.verify(repair=True)
        repaired[name] = {"different": found.difference_count, "repaired": found.repaired}
    return {"dialled": gone, "brought_after": repaired}


STOP_DUAL_WRITING = Action(
    name="stop_dual_writing",
    says=lambda _: (
        "Once both sides are proven equal again, leave DynamoDB alone (stage complete): from here on a way "
        "back has to bring it after PostgreSQL first."
    ),
    act=_complete,
    ready=stage_may_follow(Stage.COMPLETE),
    holds=lambda step, context: _at(step, context, Stage.COMPLETE),
    undo=_mirror_again,
    undone=lambda step, context: _at(step, context, Stage.RAMPDOWN),
    undo_says=lambda _: "DynamoDB follows again (stage rampdown), and is brought after PostgreSQL",
    at=frozenset({Stage.RAMPDOWN}),
    leads_to=Stage.COMPLETE,
    options={"gates": SOAKING["gates"]},
    approval="required",
)
