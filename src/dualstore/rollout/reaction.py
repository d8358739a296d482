"""Takes traffic off PostgreSQL without a person: through the plan, the flags, or the control record itself.

What can be reached decides. A plan that is under way is taken back one step, and stays halted. Without one
the dial goes back where it is kept. Where the flags cannot be set, as when LaunchDarkly is out of reach,
reads are stopped in the control record, and the authority is moved by what this process alone is asked: the
others have followed their flags already, and a stop keeps those that start from going forward again.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord
from dualstore.errors import ConfigurationError, DualStoreError, IllegalTransition, Unavailable
from dualstore.flags import FlagSource, Requested
from dualstore.rollout.context import Tools
from dualstore.rollout.plan import Plan, parse_plan
from dualstore.rollout.recorded import events_of
from dualstore.rollout.registry import StepRefused
from dualstore.rollout.rolling_back import rollback_one_step
from dualstore.rollout.standing import standing
from dualstore.stages import Stage
from dualstore.store.table import MigratedTable
from dualstore.stores.postgres_monitor import PostgresMonitor
from dualstore.stores.postgres_plans import PlanTaken

logger = logging.getLogger(__name__)

LADDER = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0)
"""The percentages that a dial goes back by, where no plan has a schedule."""

_SET_WITHIN = timedelta(seconds=5)
_CONFIRMED_WITHIN = timedelta(seconds=15)
_TRAFFIC = frozenset({"gradual_traffic_increase", "flip_authority", "rampdown"})
"""The actions of a plan that put traffic on PostgreSQL; to take back others would do something else."""
_UNREACHABLE = (ClientError, BotoCoreError, Unavailable)

How = Literal["step", "zero", "none"]
Wishes = Mapping[str, Any]


class Overridden:
    """A `FlagSource` that asks for something else where this process alone is to.

    Args:
        flags: what is asked for otherwise.
    """

    def __init__(self, flags: FlagSource) -> None:
        self._flags = flags
        self._instead: Mapping[str, Requested] = {}

    def ask(self, table: str, requested: Requested) -> None:
        """Ask for this instead, for as long as this process lives, or until `release`."""
        self._instead = {**self._instead, table: requested}

    def release(self, table: str) -> None:
        """Ask for what the flags ask for again."""
        self._instead = {name: asked for name, asked in self._instead.items() if name != table}

    def requested(self, table: str) -> Requested:
        """See `FlagSource.requested`."""
        return self._instead.get(table) or self._flags.requested(table)

    def close(self) -> None:
        """See `FlagSource.close`."""
        self._flags.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._flags, name)  # what a source has besides, such as its problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """What came of a rollback.

    Attributes:
        began: stage and dials before it.
        ended: after it; None where it failed.
        outcome: in words.
        seconds: how long it took, until every live process had taken it.
    """

    began: Mapping[str, Any]
    ended: Mapping[str, Any] | None
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reacting:
    """What rolls back.

    Attributes:
        tools: the store, the flags, and in whose name.
        overridden: the flags of the store, as this process follows them.
        kept: where plans are found; PostgreSQL may be away.
    """

    tools: Tools
    overridden: Overridden
    kept: PostgresMonitor
    set_within: timedelta = field(default=_SET_WITHIN)

    def roll_back(self, name: str, reason: str, evidence: Mapping[str, Any], *, how: How) -> Reaction | None:
        """Take traffic of a table off PostgreSQL; None where there is none, or no way back by itself.

        Args:
            name: the table's logical name.
            reason: why, in words.
            evidence: on what grounds, as JSON.
            how: by one step of the dial, or all at once.
        """
        began = time.monotonic()
        table = self.tools.store.table(name)
        record = table.view.record
        if how == "none" or not way_back(record, how=how):
            return None
        try:
            said = self._by_plan(name, record, reason, evidence) or self._by_hand(name, reason, how)
        except (*_UNREACHABLE, DualStoreError) as failure:
            logger.warning("The rollback of %s failed: %s", name, type(failure).__name__)
            return Reaction(
                began=position(record),
                ended=None,
                outcome=f"failed, and is tried again: {_in_words(failure)}",
                seconds=time.monotonic() - began,
            )
        return Reaction(
            began=position(record),
            ended=position(table.view.record),
            outcome=said,
            seconds=time.monotonic() - began,
        )

    # -- through a plan ------------------------------------------------------------------------

    def _by_plan(
        self, name: str, record: ControlRecord, reason: str, evidence: Mapping[str, Any]
    ) -> str | None:
        """Take the plan back one step, if one has put the traffic where it is; what was done."""
        try:
            plan = self._plan(name)
            if plan is None:
                return None
            done = rollback_one_step(plan, reason, evidence, tools=self.tools)
        except (*_UNREACHABLE, StepRefused, PlanTaken, ConfigurationError) as failure:
            logger.warning("Plan of %s cannot be taken back: %s", name, type(failure).__name__)
            return None
        now = self.tools.store.table(name).view.record
        if (now.stage, now.effective_dials) == (record.stage, record.effective_dials):
            return None
        steps = ", ".join(each.step for each in done.steps if each.changed)
        return f"plan {plan.name} is taken back ({steps}) and halted: `dualstore plan resume --as NAME`"

    def _plan(self, name: str) -> Plan | None:
        for content in self.kept.plans_of(name):
            plan = parse_plan(json.dumps(content))
            known = standing(events_of(self.tools.plans.events(plan.name)))
            begun = [step for step in plan.steps if known.of(step.id).has_begun]
            if known.halted is None and begun and any(step.action in _TRAFFIC for step in begun):
                return plan
        return None

    # -- without one ---------------------------------------------------------------------------

    def _by_hand(self, name: str, reason: str, how: How) -> str:
        table = self.tools.store.table(name)
        steps = 0
        while wishes := way_back(table.view.record, how=how):
            said = self._dialled(table, name, wishes, reason)
            steps += 1
            if "stage" not in wishes or table.stage is not Stage.LIVE:
                return said
        raise AssertionError("who asks for a rollback has looked whether there is a way back")

    def _dialled(self, table: MigratedTable, name: str, wishes: Wishes, reason: str) -> str:
        """Dial back, until every live process has taken it."""
        asked = ", ".join(f"{_WORDS[wish]} {_value(value)}" for wish, value in wishes.items())
        undo: list[Callable[[], None]] = []
        problem = within(self.set_within, lambda: undo.append(self.tools.setter.set(name, **wishes)))
        if problem is None:
            try:
                self._confirmed(table, lambda record: _is_at(record, wishes))
            except IllegalTransition:
                # A move that was given up is not tried again before something else has been asked for.
                within(self.set_within, undo[0])
                raise
            return f"dialled back to {asked}"
        table.stop(by=self.tools.who, reason=reason[:200])
        where = "reads are stopped in the control record"
        if "stage" in wishes:
            where += f", which goes to stage {_value(wishes['stage'])}"
            self.overridden.ask(name, Requested(**wishes))
        self._confirmed(table, lambda record: record.stopped is not None and _has_stage(record, wishes))
        self.overridden.release(name)
        return (
            f"the flags could not be set ({problem}): {where}; set the flags to {asked}, then "
            f"`dualstore stop {name} --release`"
        )

    @staticmethod
    def _confirmed(table: MigratedTable, reached: Callable[[ControlRecord], bool]) -> None:
        """Wait until the record is so, and every live process has taken it."""
        ends = time.monotonic() + _CONFIRMED_WITHIN.total_seconds()
        while True:
            try:
                table.wait_until(reached, timeout=timedelta(seconds=max(ends - time.monotonic(), 0.1)))
            except IllegalTransition:
                # As a refusal of what was asked before: the next look may find nothing in the way.
                if time.monotonic() >= ends:
                    raise
                time.sleep(0.1)
            else:
                return


def way_back(record: ControlRecord, *, how: How) -> Wishes:
    """What to ask for so that less traffic is on PostgreSQL; nothing where there is no way back by itself.

    From `live` it is DynamoDB that decides again, and answers all reads. At `complete` DynamoDB has not been
    written for a while: only a person can tell what that is worth.
    """
    if record.stage is Stage.RAMPDOWN:
        return {"stage": Stage.LIVE}
    if record.stage is Stage.LIVE:
        return {"stage": Stage.SHADOW, "postgres_read_percent": 0.0}
    percent = record.effective_dials.postgres_read_percent
    if not record.stage.rule.read_dial or not percent:
        return {}
    less = 0.0 if how == "zero" else max((each for each in LADDER if each < percent), default=0.0)
    return {"postgres_read_percent": less}


def position(record: ControlRecord) -> dict[str, Any]:
    """Where a record stands, as JSON."""
    return {
        "stage": record.stage.value,
        "read_percent": record.effective_dials.postgres_read_percent,
        "generation": record.generation,
        "stopped": record.stopped is not None,
    }


def within(patience: timedelta, act: Callable[[], object]) -> str | None:
    """Do something, for no longer than this; what is wrong, or None where it is done.

    What takes longer goes on in its thread: a late answer does no harm, a rollback that waits for it would.
    """
    ended: list[str | None] = []

    def run() -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever it is, the flags are not set
            ended.append(_in_words(error))
        else:
            ended.append(None)

    thread = threading.Thread(target=run, name="dualstore-dial", daemon=True)
    thread.start()
    thread.join(patience.total_seconds())
    return ended[0] if ended else f"no answer within {patience.total_seconds():g} s"


def _has_stage(record: ControlRecord, wishes: Wishes) -> bool:
    return "stage" not in wishes or record.stage is Stage(wishes["stage"])


def _is_at(record: ControlRecord, wishes: Wishes) -> bool:
    if "stage" in wishes:
        return _has_stage(record, wishes)
    return record.dials.postgres_read_percent <= float(wishes["postgres_read_percent"])


_WORDS = {"stage": "stage", "postgres_read_percent": "read-percent"}


def _value(value: object) -> str:
    return value.value if isinstance(value, Stage) else f"{value:g}"


def _in_words(failure: Exception) -> str:
    """A failure without what a driver may quote of a request."""
    if isinstance(failure, DualStoreError):
        return str(failure)
    with suppress(AttributeError, KeyError, TypeError):
        return str(failure.response["Error"]["Code"])  # type: ignore[attr-defined]
    return type(failure).__name__
