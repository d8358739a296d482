"""The step that flips: it compares anew what is in doubt, and what was undone is not done again unasked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from dualstore import DualStore, Stage
from dualstore.flags import StaticFlags
from dualstore.rollout import EventKind, Outcome, Plan, Tools, carrying_out, parse_plan, rehearse, run
from dualstore.rollout.actions.data import ended_doubt
from dualstore.rollout.registry import StepRefused
from dualstore.rollout.rolling_back import rollback_one_step
from dualstore.rollout.runner import Ended
from dualstore.store import MigratedTable
from dualstore.stores.postgres_plans import PostgresPlans
from integration.deployment import Deployment, eventually
from integration.test_flip import ask, prepare
from integration.test_monitor import Setter
from integration.writing import item_of

PLAN = """
plan: {name}
environment: staging
tables: [orders]
patience: 60s
gates: {{mismatch_percent: null, error_percent: null, latency_increase_percent: null}}
stages:
  - stage: data-migration
    steps:
      - {{step: start_dual_writing, skip: the test has done it}}
      - {{step: enable_feature_flag, skip: the test has done it}}
  - stage: traffic-shift
    steps:
      - {{step: flip_authority, approval: required, soak: 300ms}}
"""
GAP = "stream gap planted"
"""A doubt that nothing but a comparison ends."""
COMPARING, AGAIN = "comparing both sides", "came into doubt meanwhile: comparing again"
MET, WATCHING = "every gate is met: ", "watched until"


class Killed(BaseException):
    """The process that carries the plan out ends at this moment."""


@dataclass
class Flipping:
    """A table at `shadow`, proven equal, and a plan of which only the flip is left.

    Attributes:
        store: the service's.
        table: the table.
        plan: the plan.
        said: what its runner has announced.
        heard: is told each of that, and may act.
        compares: is called while both sides are compared, and may act.
    """

    store: DualStore
    table: MigratedTable
    plan: Plan
    said: list[str] = field(default_factory=list)
    heard: Callable[[str], None] = lambda _: None
    compares: Callable[[], None] = lambda: None

    @property
    def tools(self) -> Tools:
        assert isinstance(self.store.flags, StaticFlags)
        return Tools(
            store=self.store,
            setter=Setter(self.store.flags),
            who="Ada",
            announce=self._announce,
            progressed=lambda *_: self.compares(),
        )

    def _announce(self, words: str) -> None:
        self.said.append(words)
        self.heard(words)

    def approve(self) -> None:
        with self.carried_out():
            PostgresPlans(self.store.engine).append(
                self.plan.name, EventKind.APPROVED, by="Grace", step="flip_authority"
            )

    @contextmanager
    def carried_out(self, **options: Any) -> Iterator[Any]:
        with carrying_out(self.plan, self.tools, **options) as context:
            yield context

    def run(self, **options: Any) -> Ended:
        with self.carried_out(**options) as context:
            return run(context, waits=False)

    def put(self, sk: int) -> None:
        self.store.client().put_item(TableName=self.table.physical, Item=item_of(sk, 1))


@pytest.fixture
def flipping(deployment: Deployment) -> Iterator[Flipping]:
    with prepare(deployment) as (store, table, _):
        flipping = Flipping(store, table, parse_plan(PLAN.format(name=table.physical)))
        flipping.approve()
        flipping.put(1)
        yield flipping


def test_a_flip_compares_what_comes_into_doubt_and_is_refused_while_both_sides_differ(
    flipping: Flipping, deployment: Deployment
) -> None:
    relay = flipping.store.relay()
    written_at = relay.now()  # what the relay has yet to carry it would mend
    eventually(lambda: relay.drained_since(flipping.table.physical, written_at))
    with deployment.engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))  # past the triggers
        connection.execute(sa.text(f"DELETE FROM {flipping.table.mapping.table.name}"))
    flipping.table.suspect(GAP)
    refused = flipping.run()
    assert refused.outcome is Outcome.REFUSED
    assert "1 difference(s) are left" in refused.reason
    assert flipping.table.stage is Stage.SHADOW

    moments = [MET, WATCHING]  # before the flip is asked for, and after it

    def doubt(words: str) -> None:
        if moments and moments[0] in words:
            flipping.table.suspect(GAP)
            if moments.pop(0) is WATCHING:
                flipping.compares = doubt_once

    def doubt_once() -> None:
        flipping.compares = lambda: None
        flipping.table.suspect(f"{GAP} meanwhile")

    assert flipping.table.verify(repair=True).proven
    flipping.table.suspect(GAP)
    flipping.said.clear()
    flipping.heard, flipping.compares = doubt, doubt_once
    assert flipping.run().outcome is Outcome.FINISHED
    assert flipping.table.stage is Stage.LIVE
    told = [each for words in flipping.said for each in (COMPARING, AGAIN, MET, WATCHING) if each in words]
    assert told == [COMPARING, AGAIN, MET, COMPARING, MET, WATCHING, COMPARING, COMPARING, MET]

    rehearsed = rehearse(flipping.plan, flipping.tools)
    assert (rehearsed.step, flipping.table.stage) == ("flip_authority", Stage.LIVE)
    assert rehearsed.forward is not None


def test_a_flip_is_refused_while_something_comes_into_doubt_during_each_comparison(
    flipping: Flipping,
) -> None:
    def doubt() -> None:
        flipping.table.suspect(GAP)

    doubt()
    flipping.compares = doubt
    with flipping.carried_out() as context:
        step = replace(flipping.plan.steps[-1], patience=timedelta(seconds=5))
        with pytest.raises(StepRefused, match="came into doubt meanwhile each time"):
            ended_doubt(step, context, step.tables[0])
    assert any(AGAIN in words for words in flipping.said)


def test_a_flip_that_was_undone_behind_the_plan_is_not_done_again_before_it_is_approved_anew(
    flipping: Flipping,
) -> None:
    def die(words: str) -> None:
        if WATCHING in words:
            flipping.heard = lambda _: None
            raise Killed

    flipping.heard = die
    with pytest.raises(Killed):
        flipping.run()
    assert flipping.table.stage is Stage.LIVE
    ask(flipping.table, flipping.store, Stage.SHADOW)  # as a failover does, or a person

    refused = flipping.run()
    assert refused.outcome is Outcome.REFUSED
    assert "have it approved anew" in refused.reason
    assert flipping.table.stage is Stage.SHADOW
    rolled_back = rollback_one_step(flipping.plan, "it was undone", {}, tools=flipping.tools)
    assert [each.step for each in rolled_back.steps] == ["flip_authority"]
    assert flipping.run(resumed_by="Ada").outcome is Outcome.WAITING
    assert flipping.table.stage is Stage.SHADOW
