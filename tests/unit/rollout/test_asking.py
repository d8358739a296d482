"""A plan that gives up asking for a stage leaves the flags as they were."""

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dualstore.control import ControlRecord
from dualstore.errors import IllegalTransition, Unavailable
from dualstore.flags.flagfile import create, set_values
from dualstore.rollout.context import Context
from dualstore.rollout.dialling import dial
from dualstore.rollout.registry import StepRefused
from dualstore.stages import Stage
from dualstore.stores.postgres_plans import PlanTaken

AWAY = Unavailable("PostgreSQL is away")
OBSTRUCTED = IllegalTransition("keys are dirty")


class Refusing:
    """A table that does not come to where it is asked for."""

    def __init__(self, refusals: list[Exception]) -> None:
        self._refusals = refusals
        self.stage = Stage.SHADOW

    def wait_until(self, *_: Any, **__: Any) -> ControlRecord:
        raise self._refusals.pop(0) if len(self._refusals) > 1 else self._refusals[0]

    def status(self) -> Any:
        return SimpleNamespace(record=ControlRecord("orders", stage=self.stage))


def asking(flags: Path, table: Refusing, *, hold: Any = None) -> Context:
    create(flags)
    set_values(flags, {"orders.stage": Stage.SHADOW})
    tools = SimpleNamespace(
        store=SimpleNamespace(table=lambda _: table),
        setter=SimpleNamespace(set=lambda _, stage: set_values(flags, {"orders.stage": stage})),
        announce=lambda _: None,
    )
    return Context(None, tools, hold)  # type: ignore[arg-type]


def stage_in(flags: Path) -> str:
    asked: str = json.loads(flags.read_text())["flagValues"]["orders.stage"]
    return asked


@pytest.mark.parametrize("refusals", [[AWAY], [AWAY, OBSTRUCTED], [OBSTRUCTED]], ids=len)
def test_flags_ask_for_what_they_did_before_once_nobody_waits_any_more(
    tmp_path: Path, refusals: list[Exception]
) -> None:
    flags = tmp_path / "flags.json"
    context = asking(flags, Refusing(list(refusals)))
    with pytest.raises(StepRefused):
        dial(context, "orders", patience=timedelta(seconds=0.3), stage=Stage.LIVE)
    assert stage_in(flags) == "shadow"


def test_flags_stay_where_the_table_has_come_to_after_all(tmp_path: Path) -> None:
    flags, table = tmp_path / "flags.json", Refusing([AWAY])
    context = asking(flags, table)
    table.stage = Stage.LIVE
    with pytest.raises(StepRefused):
        dial(context, "orders", patience=timedelta(seconds=0.1), stage=Stage.LIVE)
    assert stage_in(flags) == "live"


def test_a_plan_that_was_taken_over_before_it_asked_asks_for_nothing(tmp_path: Path) -> None:
    class TakenWhileAsleep:
        def __init__(self) -> None:
            self.looks = 0

        def check(self) -> None:
            self.looks += 1
            if self.looks > 1:
                raise PlanTaken("somebody else carries it out")

    flags = tmp_path / "flags.json"
    context = asking(flags, Refusing([AWAY]), hold=TakenWhileAsleep())
    with pytest.raises(PlanTaken):
        dial(context, "orders", patience=timedelta(seconds=1), stage=Stage.LIVE)
    assert stage_in(flags) == "shadow"
