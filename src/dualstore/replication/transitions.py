"""Which change of a control record may follow a request, one safe step at a time."""

from dataclasses import dataclass, replace
from typing import Any

from dualstore.errors import IllegalTransition
from dualstore.flags import Requested
from dualstore.replication.control import ControlRecord
from dualstore.stages import Dials, Side, Stage

_ALL = 100.0


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next about a request.

    Attributes:
        changes: fields of the control record to set now; empty where there is nothing to do yet.
        satisfied: whether the record is what was asked for.
    """

    changes: dict[str, Any]
    satisfied: bool = False


def next_step(record: ControlRecord, requested: Requested, *, reads_stopped: bool) -> Step:
    """The next step from a record towards what was asked for.

    Mirroring of a key may end only after reads of the mirror have: a request for both sets
    `postgres_read_percent` to 0 first, and the rest follows when no process can hold a grant from before.

    Args:
        record: the control record.
        requested: what the flags ask for; None fields stay as they are.
        reads_stopped: whether no process can still hold a grant under a record with dialled reads.

    Raises:
        IllegalTransition: the request may not follow; the message says why and what to do.
    """
    stage = requested.stage or record.stage
    dials = _dials(record.dials, requested)
    if stage is record.stage and dials == record.dials:
        return Step({}, satisfied=True)
    _check(record, stage, dials)
    if not stage.rule.mirrored or dials.mirror_percent < record.dials.mirror_percent:
        if record.dials.postgres_read_percent:
            return Step({"dials": replace(record.dials, postgres_read_percent=0.0)})
        if not reads_stopped:
            return Step({})
        return Step({"stage": stage, "dials": dials, "loaded": False}, satisfied=True)
    changes: dict[str, Any] = {"stage": stage, "dials": dials}
    if not record.mirrors_every_key and replace(record, **changes).mirrors_every_key:
        changes["mirrored_since"] = record.generation + 1
    return Step(changes, satisfied=True)


def _dials(present: Dials, requested: Requested) -> Dials:
    asked = {
        name: getattr(requested, name)
        for name in ("postgres_read_percent", "mirror_percent", "shadow_percent")
        if getattr(requested, name) is not None
    }
    return replace(present, **asked)


def _check(record: ControlRecord, stage: Stage, dials: Dials) -> None:
    if stage not in record.stage.neighbours():
        order = list(Stage)
        towards = 1 if order.index(stage) > order.index(record.stage) else -1
        raise IllegalTransition(
            f"{record.table} is at stage {record.stage}; {stage} is not next to it. "
            f"Ask for {order[order.index(record.stage) + towards]} first"
        )
    if stage.rule.authority is not Side.DYNAMODB:
        raise IllegalTransition(
            f"{record.table} would make PostgreSQL authoritative at {stage}; this version migrates up to "
            "stage shadow with reads dialled to 100 %. Stay at shadow"
        )
    if not dials.postgres_read_percent:
        return
    if not stage.rule.read_dial or dials.mirror_percent < _ALL:
        raise IllegalTransition(
            f"{record.table} cannot read from PostgreSQL while not every write is mirrored; ask for stage "
            "dualwrite or shadow and mirror-percent 100, or for read-percent 0"
        )
    if not record.loaded:
        raise IllegalTransition(
            f"{record.table} cannot read from PostgreSQL before its history has been copied: run "
            "`dualstore backfill` and let it finish"
        )
