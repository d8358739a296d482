"""The data: every write goes to both sides, the history is copied, and both are proven equal."""

import time
from collections.abc import Sequence
from datetime import timedelta

from dualstore.control import ControlRecord
from dualstore.errors import ConfigurationError
from dualstore.rollout.context import Context
from dualstore.rollout.dialling import dial, dialled
from dualstore.rollout.registry import Action, Check, Checks, Evidence, Step, StepRefused
from dualstore.stages import Side, Stage
from dualstore.verify import Verification

_MIRRORED_BY_DYNAMODB = frozenset({Stage.DUALWRITE, Stage.SHADOW})
_ON_BOTH = frozenset({Stage.DUALWRITE, Stage.SHADOW, Stage.LIVE, Stage.RAMPDOWN})
_ALL = 100.0
_AGAIN_AFTER = timedelta(seconds=1)
_COPY_OPTIONS = ("segments", "workers", "max_rows_per_second")


def stage_may_follow(target: Stage, *, proves: bool = False) -> Checks:
    """The precondition of a step that leads to a stage: nothing stands in its way.

    Args:
        target: the stage.
        proves: whether the step itself compares both sides anew where they are in doubt (`ended_doubt`).
    """

    def ready(step: Step, context: Context) -> Sequence[Check]:
        found = []
        for name, table in context.tables(step):
            record = table.status().record
            if record.stage is target:
                continue
            what = f"{name} may go to stage {target}"
            if target not in record.stage.neighbours():
                found.append(Check(what, f"it is at {record.stage}: dial it to where the plan expects it"))
                continue
            if proves and _in_doubt(record):
                found.append(Check(f"{what}, once both sides are compared anew"))
                continue
            reasons = table.obstacles(target)
            found += [Check(what, reason, passing=True) for reason in reasons] or [Check(what)]
        return found

    return ready


def flags_can_be_set(step: Step, context: Context) -> Sequence[Check]:
    """Whether the flags know the tables; a look, nothing is set."""
    what = "the flags can be read"
    try:
        for name in step.tables:
            context.store.flags.requested(name)
    except ConfigurationError as error:
        return [Check(what, str(error))]
    return [Check(what)]


# -- start_dual_writing --------------------------------------------------------------------------


def _start(step: Step, context: Context) -> Evidence:
    return {
        name: dial(
            context,
            name,
            patience=step.patience,
            stage=Stage.DUALWRITE,
            postgres_read_percent=0.0,
            mirror_percent=_ALL,
        )
        for name in step.tables
    }


def _writes_twice(step: Step, context: Context) -> Sequence[Check]:
    return [dialled(context, name, stage=Stage.DUALWRITE, mirror_percent=_ALL) for name in step.tables]


def _stop(step: Step, context: Context) -> Evidence:
    return {
        name: dial(context, name, patience=step.patience, stage=Stage.OFF, postgres_read_percent=0.0)
        for name in step.tables
    }


START_DUAL_WRITING = Action(
    name="start_dual_writing",
    says=lambda _: "Go to stage dualwrite: every write goes to DynamoDB, then to PostgreSQL.",
    act=_start,
    checks=flags_can_be_set,
    ready=stage_may_follow(Stage.DUALWRITE),
    holds=_writes_twice,
    undo=_stop,
    undone=lambda step, context: [dialled(context, name, stage=Stage.OFF) for name in step.tables],
    undo_says=lambda _: "back to stage off; the history has to be copied again afterwards",
    at=frozenset({Stage.OFF}),
    leads_to=Stage.DUALWRITE,
)


# -- migrate_historical_data ---------------------------------------------------------------------


def _copied(step: Step, context: Context) -> Sequence[Check]:
    return [
        Check(
            f"PostgreSQL holds the history of {name}",
            None if table.status().record.loaded else "it was not copied whole: run the step again",
        )
        for name, table in context.tables(step)
    ]


def _copy(step: Step, context: Context) -> Evidence:
    options = {key: step.options[key] for key in _COPY_OPTIONS if key in step.options}
    found: dict[str, Evidence] = {}
    for name, table in context.tables(step):
        if table.status().record.loaded:
            found[name] = {"found": "copied already"}
            continue
        context.tools.announce(f"{step.id}: copying {name}")
        result = table.backfill(**options, progress=context.progress_of(step, name))
        done = result.totals
        found[name] = {
            "run": str(result.run_id),
            "items": done.items,
            "inserted": done.inserted,
            "settled": done.settled,
            "failed": done.failed,
        }
        if not result.succeeded:
            raise StepRefused(
                f"{name}: {done.failed:,} item(s) could not be copied; run {result.run_id} says which"
            )
    return found


def _mirrors_whole(step: Step, context: Context) -> Sequence[Check]:
    return [
        Check(
            f"every write of {name} is mirrored",
            None
            if table.status().record.mirrors_every_key
            else "dial it to stage dualwrite, mirror-percent 100",
        )
        for name, table in context.tables(step)
    ]


MIGRATE_HISTORICAL_DATA = Action(
    name="migrate_historical_data",
    says=lambda _: "Copy what DynamoDB holds, under traffic; an interrupted copy goes on where it was.",
    act=_copy,
    ready=_mirrors_whole,
    holds=_copied,
    undo_says=lambda _: "nothing to take back: rows that nobody reads hurt nobody",
    at=_MIRRORED_BY_DYNAMODB,
    options={
        "segments": {"type": "integer", "minimum": 1},
        "workers": {"type": "integer", "minimum": 1},
        "max_rows_per_second": {"type": "number", "exclusiveMinimum": 0},
    },
)


# -- verify_data_integrity -----------------------------------------------------------------------


def _verify(step: Step, context: Context) -> Evidence:
    began = context.mark(step, "comparing")
    found: dict[str, Evidence] = {}
    for name, table in context.tables(step):
        proven_at = context.tools.plans.proven_at(table.physical)
        record = table.status().record
        if proven_at is not None and proven_at > began and record.verified and not record.suspects:
            found[name] = {"found": f"proven equal at {proven_at.isoformat()}"}
            continue
        found[name] = _proven_equal(step, context, name)
    return found


def ended_doubt(step: Step, context: Context, name: str) -> Evidence | None:
    """Compare both sides of a table where nobody can say that they are equal still; None where one can.

    A process that died, of this plan's runner too, may have left a write on one side. Only a comparison of
    both ends that doubt.

    Raises:
        StepRefused: they are not equal.
    """
    if not _in_doubt(context.store.table(name).status().record):
        return None
    return _proven_equal(step, context, name)


def _proven_equal(step: Step, context: Context, name: str) -> Evidence:
    """Compare both sides of a table whole.

    Raises:
        StepRefused: they differ, or some keys could not be judged.
    """
    context.tools.announce(f"{step.id}: comparing both sides of {name} whole")
    result = _compared(step, context, name)
    if not result.proven:
        if result.all_equal:
            raise StepRefused(
                f"{name}: both sides were found equal, and came into doubt meanwhile each time: "
                "`dualstore status` counts what is suspect; run the step again once nothing more "
                "becomes so, no copy is at work, and every write is mirrored"
            )
        raise StepRefused(
            f"{name}: {result.difference_count - result.repaired:,} difference(s) are left and "
            f"{result.moving + result.undecided:,} key(s) could not be judged: look at `dualstore "
            f"discrepancies {name}`, or run `dualstore verify {name} --repair`"
        )
    return {
        "run": str(result.run_id),
        "equal": result.equal,
        "different": result.difference_count,
        "repaired": result.repaired,
    }


def _compared(step: Step, context: Context, name: str) -> Verification:
    """Compare until every key is judged, and nothing has come into doubt meanwhile.

    What is written all the time may hold still the next time.
    """
    ends = time.monotonic() + step.patience.total_seconds()
    table = context.store.table(name)
    while True:
        result = table.verify(
            repair=bool(step.options.get("repair", False)), progress=context.progress_of(step, name)
        )
        if result.difference_count != result.repaired or time.monotonic() >= ends:
            return result
        if result.moving:
            why = f"{result.moving:,} key(s) of {name} did not hold still"
        elif result.in_doubt or table.status().record.suspects:
            why = f"{name} came into doubt meanwhile"
        else:
            return result
        context.tools.announce(f"{step.id}: {why}: comparing again")
        context.pause(_AGAIN_AFTER)


def _in_doubt(record: ControlRecord) -> bool:
    """Whether only a comparison of both sides lets the authority move."""
    return record.loaded and (bool(record.suspects) or not record.verified)


def _proven(step: Step, context: Context) -> Sequence[Check]:
    """Since the step began: what was proven before says nothing of what was copied since."""
    began = context.marks(step).get("comparing")
    found = []
    for name, table in context.tables(step):
        proven_at = context.tools.plans.proven_at(table.physical)
        fresh = began is not None and proven_at is not None and proven_at > began.at
        record = table.status().record
        equal = fresh and not record.suspects and (record.verified or record.authority is Side.POSTGRES)
        what = f"both sides of {name} are proven equal since the step began"
        found.append(Check(what, None if equal else "no verification has proved it"))
    return found


VERIFY_DATA_INTEGRITY = Action(
    name="verify_data_integrity",
    says=lambda step: (
        "Compare both sides whole, in both directions"
        + (", and settle what differs." if step.options.get("repair") else ".")
    ),
    act=_verify,
    holds=_proven,
    at=_ON_BOTH,
    options={"repair": {"type": "boolean"}},
)
