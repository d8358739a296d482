"""Which change of a control record may follow a request, one safe step at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dualstore.control import ControlRecord, Phase
from dualstore.errors import IllegalTransition
from dualstore.flags import Requested
from dualstore.replication.suspects import UNMIRRORED, renewed
from dualstore.stages import Dials, Side, Stage

_ALL = 100.0


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next about a request.

    Attributes:
        changes: fields of the control record to set now; empty where there is nothing to do yet.
        satisfied: whether the record is then what was asked for.
        towards: the stage whose obstacles must be looked up first, or None.
        fence: the epoch to which PostgreSQL's fence is to be raised first, for the mirror; or None.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    satisfied: bool = False
    towards: Stage | None = None
    fence: int | None = None


def next_step(record: ControlRecord, requested: Requested, *, reads_stopped: bool) -> Step:
    """The next step from a record towards what was asked for.

    Mirroring of a key may end only after reads of the mirror have, those of cohorts and held routes too, of
    which no percentage tells. So the mirror is withdrawn from all readers first (`loaded`), and the rest
    follows when no process can hold a grant from before.

    Args:
        record: the control record, open.
        requested: what the flags ask for; None fields stay as they are.
        reads_stopped: whether no process can still hold a grant under a record that lets the mirror be read.

    Raises:
        IllegalTransition: the request may not follow; the message says why and what to do.
    """
    stage = requested.stage or record.stage
    dials = _dials(record.dials, requested)
    if stage is record.stage and dials == record.dials:
        return Step(satisfied=True)
    _check(record, stage, dials)
    if stage.rule.authority is not record.authority:
        # Dials wait until the authority has moved.
        return Step({"phase": Phase.CLOSED, "target": stage}, towards=stage)
    if record.authority is Side.POSTGRES:
        return _within_postgres(record, stage, dials)
    fewer_keys = record.stage.rule.mirrored and dials.mirror_percent < record.dials.mirror_percent
    if fewer_keys or not stage.rule.mirrored:
        return _less_mirrored(record, stage, dials, reads_stopped=reads_stopped)
    return _mirrored(record, stage, dials)


def _within_postgres(record: ControlRecord, stage: Stage, dials: Dials) -> Step:
    changes: dict[str, Any] = {"stage": stage, "dials": dials}
    if record.stage is Stage.COMPLETE and stage is not Stage.COMPLETE:
        suspects = renewed(record.suspects, UNMIRRORED, record.generation + 1)
        changes |= {"verified": False, "suspects": suspects}
    return Step(changes, satisfied=True, towards=stage if stage is not record.stage else None)


def _less_mirrored(record: ControlRecord, stage: Stage, dials: Dials, *, reads_stopped: bool) -> Step:
    if record.dials.postgres_read_percent or record.loaded:
        unread = replace(record.dials, postgres_read_percent=0.0)
        return Step({"dials": unread, "loaded": False, "verified": False})
    if not reads_stopped:
        return Step()
    changes = {"stage": stage, "dials": dials, "loaded": False, "verified": False}
    if record.stage.rule.mirrored and not stage.rule.mirrored:
        changes["epoch"] = (
            record.epoch + 1
        )  # a mirror write that sleeps until mirroring begins again is too late
    return Step(changes, satisfied=True)


def _mirrored(record: ControlRecord, stage: Stage, dials: Dials) -> Step:
    changes: dict[str, Any] = {"stage": stage, "dials": dials}
    to_every_key = not record.mirrors_every_key and replace(record, **changes).mirrors_every_key
    if to_every_key:
        changes |= {"mirrored_since": record.generation + 1, "verified": False}
    begins = not record.stage.rule.mirrored
    if not begins and not to_every_key:
        return Step(changes, satisfied=True)
    # A mirror write that has slept since before its key went unmirrored is too late from here on.
    epoch = record.epoch + 1
    return Step({**changes, "epoch": epoch}, satisfied=True, towards=stage if begins else None, fence=epoch)


def _dials(present: Dials, requested: Requested) -> Dials:
    asked = {
        name: getattr(requested, name)
        for name in ("postgres_read_percent", "mirror_percent", "shadow_percent")
        if getattr(requested, name) is not None
    }
    return replace(present, **asked)


def _check(record: ControlRecord, stage: Stage, dials: Dials) -> None:
    if record.unreconciled:
        raise IllegalTransition(
            f"{record.table} was {record.failed_over}. It stays as it is until PostgreSQL is back, and "
            "`dualstore failover --reconcile` has listed what was lost",
            reason="failed_over",
        )
    if stage not in record.stage.neighbours():
        order = list(Stage)
        towards = 1 if order.index(stage) > order.index(record.stage) else -1
        raise IllegalTransition(
            f"{record.table} is at stage {record.stage}; {stage} is not next to it. "
            f"Ask for {order[order.index(record.stage) + towards]} first",
            reason="jump",
        )
    if record.target is stage:
        raise IllegalTransition(
            _given_up(record, stage),
            reason="given_up",
        )
    _check_not_stopped(record, stage, dials)
    if Side.POSTGRES in {stage.rule.authority, record.authority}:
        if dials.mirror_percent < _ALL:
            raise IllegalTransition(
                f"{record.table} is mirrored whole where PostgreSQL is, or becomes, the authority; ask for "
                "mirror-percent 100",
                reason="not_mirrored",
            )
        return  # the read dial says nothing there
    if not dials.postgres_read_percent:
        return
    if not stage.rule.read_dial or dials.mirror_percent < _ALL:
        raise IllegalTransition(
            f"{record.table} cannot read from PostgreSQL while not every write is mirrored; ask for stage "
            "dualwrite or shadow and mirror-percent 100, or for read-percent 0",
            reason="not_mirrored",
        )
    if not record.loaded:
        raise IllegalTransition(
            f"{record.table} cannot read from PostgreSQL before its history has been copied: run "
            "`dualstore backfill` and let it finish",
            reason="not_loaded",
        )
    if record.deferred:
        raise IllegalTransition(
            f"{record.table} cannot read from PostgreSQL while a process mirrors it after it has answered; "
            'set mirroring = "inline" for it everywhere',
            reason="deferred",
        )


def _given_up(record: ControlRecord, stage: Stage) -> str:
    again = f"Ask for {record.stage}, then for {stage} again"
    if record.failed_over is not None:
        return f"{record.table} was {record.failed_over}; nobody has asked for {stage} since. {again}"
    return (
        f"the move of {record.table} to {stage} was given up, and the log of the process that paused the "
        f"writes says why. {again}"
    )


def _check_not_stopped(record: ControlRecord, stage: Stage, dials: Dials) -> None:
    """Where a person has stopped the reads of the mirror, no flag has more of them go to PostgreSQL."""
    if record.stopped is None:
        return
    more = dials.postgres_read_percent > record.dials.postgres_read_percent
    if more or (stage.rule.authority is Side.POSTGRES and record.authority is Side.DYNAMODB):
        raise IllegalTransition(
            f"reads of {record.table} from PostgreSQL were {record.stopped}. `dualstore stop --release` "
            "takes that back",
            reason="stopped",
        )
