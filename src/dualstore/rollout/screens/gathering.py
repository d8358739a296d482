"""Looks at both databases once, and goes on where one of them does not answer."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord
from dualstore.errors import ConfigurationError, DualStoreError, SchemaError, Unavailable
from dualstore.flags import ProblemKind
from dualstore.flags.sdk import SdkFlags
from dualstore.rollout.evidence import snapshot_of
from dualstore.rollout.gates import judged
from dualstore.rollout.judgement import Limits
from dualstore.rollout.plan import Plan, parse_plan
from dualstore.rollout.recorded import events_of
from dualstore.rollout.screens.picture import Picture, PlanPicture, Shown, TablePicture
from dualstore.rollout.standing import StepState, standing
from dualstore.stages import Side
from dualstore.store import DualStore
from dualstore.stores.postgres_monitor import PostgresMonitor
from dualstore.stores.postgres_plans import PostgresPlans
from dualstore.stores.postgres_screens import PostgresScreens

SIDES: Mapping[Side, str] = {Side.DYNAMODB: "DynamoDB", Side.POSTGRES: "PostgreSQL"}

ALERTS_SHOWN = timedelta(days=1)
_PLANS_SHOWN = 5
_EVENTS_SHOWN = 500
_UNREACHABLE = (ClientError, BotoCoreError, DualStoreError)

T = TypeVar("T")


def gather(store: DualStore) -> Picture:
    """Everything that screens say of a store's tables, looked up now.

    Where a database does not answer, the picture says so and holds what the other one tells.
    """
    records = store.control_records()
    databases = {
        side: said_of(side, found) if isinstance(found, DualStoreError) else None
        for side, found in records.items()
    }
    has_postgres = databases[Side.POSTGRES] is None
    plans = _plans(store) if has_postgres else []
    limits = {name: found for each in reversed(plans) for name, found in each.limits().items()}
    known = {side: found for side, found in records.items() if not isinstance(found, DualStoreError)}
    return Picture(
        taken_at=datetime.now(UTC),
        version=version("dualstore"),
        databases=databases,
        tables=tuple(
            _table(store, name, physical, known, limits.get(name)) for name, physical in store.names().items()
        ),
        plans=tuple(each.picture for each in plans),
    )


def said_of(side: Side, error: DualStoreError) -> str:
    """That a database does not answer, or cannot be used, in words."""
    if isinstance(error, Unavailable):
        return f"{SIDES[side]} does not answer"
    return f"{SIDES[side]}: {error}"


# -- tables ----------------------------------------------------------------------------------------


def _table(
    store: DualStore,
    name: str,
    physical: str,
    records: Mapping[Side, Mapping[str, ControlRecord]],
    limits: tuple[str, Limits] | None,
) -> TablePicture:
    missing: list[str] = []
    shown = _or_missing(missing, "where it stands", lambda: looked_at(store, name))
    seen: dict[str, Any] = {}
    if Side.POSTGRES in records:
        whose, wanted = limits or ("the default limits", Limits())
        screens, monitor = PostgresScreens(store.engine), PostgresMonitor(store.engine)
        lately = datetime.now(UTC) - ALERTS_SHOWN
        looks: dict[str, tuple[str, Callable[[], Any]]] = {
            "runs": ("runs", lambda: tuple(screens.runs(physical))),
            "discrepancies": ("discrepancies", lambda: tuple(screens.discrepancies(physical))),
            "quarantined": ("the quarantine", lambda: screens.quarantined(physical)),
            "alerts": ("alerts", lambda: tuple(screens.alerts(name, since=lately))),
            "rollbacks": ("rollbacks", lambda: tuple(monitor.rollbacks(name, limit=5))),
        }
        if shown is not None:
            looks["gates"] = ("gates", lambda: tuple(judged(snapshot_of(store, name), wanted)))
            seen |= {"gates_of": whose, "limits": wanted}
        for field, (what, look) in looks.items():
            found = _or_missing(missing, what, look)
            if found is not None:
                seen[field] = found
    else:
        missing.append("runs, discrepancies, alerts and gates: PostgreSQL does not answer")
    last_known = None if shown is not None else _last_known(physical, records)
    return TablePicture(name=name, shown=shown, last_known=last_known, missing=tuple(missing), **seen)


def _or_missing(missing: list[str], what: str, look: Callable[[], T]) -> T | None:
    try:
        return look()
    except _UNREACHABLE as error:
        missing.append(f"{what}: {_in_words(error)}")
        return None


def _in_words(error: Exception) -> str:
    """What is wrong; of a driver's own error only its kind, for its text may quote a request."""
    if isinstance(error, DualStoreError):
        return str(error)
    return f"DynamoDB does not answer ({type(error).__name__})"


def _last_known(physical: str, records: Mapping[Side, Mapping[str, ControlRecord]]) -> ControlRecord | None:
    copies = [kept[physical] for kept in records.values() if physical in kept]
    return max(copies, key=lambda record: record.generation, default=None)


def looked_at(store: DualStore, name: str) -> Shown:
    """One table, looked at now.

    Raises:
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: DynamoDB, the authority, does not
            answer.
        Unavailable: PostgreSQL, the authority, does not answer.
    """
    status = store.table(name).status()
    wrong = flag_problems(store, name)
    try:
        return Shown(status, store.fleet(name), store.evidence(name), flag_problems=wrong)
    except (Unavailable, SchemaError) as error:
        reason = "PostgreSQL does not answer" if isinstance(error, Unavailable) else str(error)
        return Shown(status, missing=reason, flag_problems=wrong)


def flag_problems(store: DualStore, table: str) -> tuple[str, ...]:
    """Why a table's flags may not be followed, as far as this process sees; a missing one need not move."""
    if not isinstance(store.flags, SdkFlags):
        return ()
    present = store.flags.problems.present(table)
    return tuple(str(problem) for problem in present if problem.kind is not ProblemKind.MISSING)


# -- plans -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Followed:
    """A plan that the record knows; `plan` is None where another version wrote it."""

    picture: PlanPicture
    plan: Plan | None = None

    def limits(self) -> Mapping[str, tuple[str, Limits]]:
        """What its present step asks of each table, and whose limits these are."""
        step = None if self.plan is None else self.plan.step(self.picture.current or "")
        if step is None:
            return {}
        return dict.fromkeys(step.tables, (f"step {step.id} of plan {self.picture.name}", step.limits))


def _plans(store: DualStore) -> list[_Followed]:
    """The last plans; none where the schema knows none, or PostgreSQL has gone: the tables tell that."""
    kept = PostgresPlans(store.engine)
    try:
        kept.find("")  # it alone tells that the schema is older
        return [_followed(kept, name) for name in list(kept.names())[:_PLANS_SHOWN]]
    except (SchemaError, Unavailable):
        return []


def _followed(kept: PostgresPlans, name: str) -> _Followed:
    row = kept.find(name)
    if row is None:
        return _Followed(PlanPicture(name=name, problem="it is gone"))
    events = list(events_of(kept.events(name)))
    where = standing(events)
    picture = PlanPicture(
        name=name, halted=where.halted, holder=row.holder, events=tuple(events[-_EVENTS_SHOWN:])
    )
    try:
        plan = parse_plan(json.dumps(row.content))
    except ConfigurationError as error:
        return _Followed(replace(picture, problem=str(error)))
    steps = tuple((step.id, _state(where.of(step.id).state, step.skip)) for step in plan.steps)
    return _Followed(replace(picture, tables=plan.tables, steps=steps), plan)


def _state(state: StepState, skip: str | None) -> StepState:
    return StepState.SKIPPED if skip is not None and state is StepState.PENDING else state
