"""The state machine that holds a DynamoDB, PostgreSQL and memory equal, made for a team's own models."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import hypothesis
import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from pynamodb.models import Model

from dualstore.items import Item
from dualstore.operations import Scan
from dualstore.testing.answers import Page, Refusal, comparable, pages_of, shown
from dualstore.testing.script import Done, script_of
from dualstore.testing.servers import DynamoDB
from dualstore.testing.sides import DYNAMODB, MEMORY, Sides, sides_of
from dualstore.testing.stand_ins import refuses_alike, unlike_aws
from dualstore.testing.steps import BatchGet, Get, Step
from dualstore.testing.strategies import Strategies, beginnings_of, steps_of

EXAMPLES = 100
STEPS = 12


class Difference(AssertionError):  # noqa: N818 - what pytest reports, like an assertion
    """The stores do not answer alike; the message holds a script that shows it.

    Attributes:
        script: the PynamoDB calls that lead there.
        answers: what each store answered to the last of them.
    """

    def __init__(self, message: str, *, script: str, answers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.script = script
        self.answers = answers


class _Equivalence(RuleBasedStateMachine):
    """One history on all stores; a subclass with rules is made by `equivalence_machine`."""

    model: type[Model]
    sides: Sides

    def __init__(self) -> None:
        super().__init__()
        self._history: list[Done] = []
        self._present: Sequence[Item] | None = None
        self.sides.begin()

    @property
    def present(self) -> Sequence[Item]:
        """The items that are there by now: steps are drawn from them."""
        present = self._present
        if present is None:
            found = self.sides.memory.execute(Scan({"TableName": self.sides.table}))
            present = self._present = found["Items"]
        return present

    def take(self, step: Step) -> None:
        """Carry a step out on every store, and compare the answers, and the items that it wrote."""
        done = self._compared(step)
        if done.pages[-1].error is None and (keys := self.sides.keys_in(step.touched())):
            self._compared(Get(keys[0]) if len(keys) == 1 else BatchGet(keys))

    def _compared(self, step: Step) -> Done:
        self._present = None
        done, told = _carried_out(self.sides, step)
        self._history.append(done)
        if told is not None:
            raise _difference(self.model, self.sides, self._history, told)
        return done


_Told = Mapping[str, tuple[Any, str]]


def _carried_out(sides: Sides, step: Step) -> tuple[Done, _Told | None]:
    """Carry a step out on every store; what each told, if they did not all tell the same."""
    skipped = unlike_aws(sides.engine, step)
    told: dict[str, tuple[Any, str]] = {}
    done = Done(step, ())
    for name, store in {**sides.stores, MEMORY: sides.memory}.items():
        if name == DYNAMODB and skipped is not None:
            continue
        try:
            pages: list[Page] = pages_of(store, step, sides.table)
        except Exception as error:  # noqa: BLE001 - whatever it is, no answer of DynamoDB's
            told[name] = f"{type(error).__name__}", f"{type(error).__name__}: {error}"
            continue
        told[name] = comparable(step, pages), shown(pages)
        if name == MEMORY:
            done = Done(step, pages)
    first = told[MEMORY][0]
    if any(answer != first for answer, _ in told.values()) and not _refused_alike(sides, step, told):
        return done, told
    if skipped is not None:
        sides.carry_over(step.touched())
    return done, None


def _refused_alike(sides: Sides, step: Step, told: _Told) -> bool:
    """Whether only the stand-in stands alone, with a refusal that is known of it."""
    others = [answer for name, (answer, _) in told.items() if name != DYNAMODB]
    refusals = [answer for answer, _ in told.values() if isinstance(answer, Refusal)]
    return (
        len(refusals) == len(told)
        and all(each == others[0] for each in others)
        and refuses_alike(sides.engine, step, refusals)
    )


def _difference(model: type[Model], sides: Sides, history: Sequence[Done], told: _Told) -> Difference:
    """The failure, with the shortest script that is known to show it."""
    effective = [done for done in history[:-1] if done.step.touched() and done.pages[-1].error is None]
    effective.append(history[-1])
    shown_by = effective if _differs(sides, effective) else list(history)
    script = script_of(model, shown_by)
    answers = {name: text for name, (_, text) in told.items()}
    lines = "\n".join(f"  {name + ':':12} {text}" for name, text in answers.items())
    return Difference(
        f"{_who(told)} on {sides.table}:\n\n{script}\n{lines}\n", script=script, answers=answers
    )


def _differs(sides: Sides, history: Sequence[Done]) -> bool:
    sides.begin()
    return any(_carried_out(sides, done.step)[1] is not None for done in history)


def _who(told: _Told) -> str:
    """Who stands alone."""
    answers = {name: answer for name, (answer, _) in told.items()}
    for name, answer in answers.items():
        others = [each for other, each in answers.items() if other != name]
        if len(others) > 1 and answer != others[0] and all(each == others[0] for each in others):
            return f"{name} does not answer as {' and '.join(n for n in answers if n != name)} do"
    return f"{', '.join(answers)} do not answer alike"


def equivalence_machine(
    model: type[Model],
    *,
    sides: Sides,
    overrides: Strategies | None = None,
    near_limits: bool = False,
    steps: Mapping[str, st.SearchStrategy[Step]] | None = None,
) -> type[RuleBasedStateMachine]:
    """A Hypothesis state machine whose every step is done on all stores, and answered alike by them.

    `equivalence` is the shorter way, for pytest. This is for a test of your own making: run it with
    `hypothesis.stateful.run_state_machine_as_test`, or take its `TestCase`.

    Args:
        model: the PynamoDB model.
        sides: the stores, from `sides_of`.
        overrides: what to draw the values of some attributes from, by their names in DynamoDB: for columns
            whose constraints refuse what DynamoDB takes.
        near_limits: whether some items are as large as DynamoDB takes, and a little larger; slow.
        steps: what may be done, by kind, to an empty table; otherwise everything of `steps_of`, in most
            histories to a table with a few items.

    Returns:
        A subclass of `RuleBasedStateMachine` with one rule to a kind of step. It raises `Difference`.
    """
    kinds = steps or steps_of(model, overrides=overrides, near_limits=near_limits)
    rules: dict[str, Any] = {kind: rule(step=strategy)(_taking()) for kind, strategy in kinds.items()}
    if steps is None:
        beginnings = beginnings_of(model, overrides=overrides, near_limits=near_limits)
        rules["beginning"] = initialize(step=beginnings)(_taking())
    return type(f"{model.__name__}Equivalence", (_Equivalence,), {"model": model, "sides": sides, **rules})


def _taking() -> Callable[[Any, Step | None], None]:
    """A function of its own for each rule: Hypothesis marks it."""

    def taking(self: Any, step: Step | None) -> None:
        if step is not None:
            self.take(step)

    return taking


def equivalence(
    model: type[Model],
    row: type[Any] | None = None,
    *,
    examples: int = EXAMPLES,
    steps: int = STEPS,
    overrides: Strategies | None = None,
    near_limits: bool = False,
    settings: hypothesis.settings | None = None,
) -> type:
    """A pytest class that proves a model and its SQL table equal to DynamoDB, as far as examples prove.

    Example::

        TestOrders = equivalence(OrderItem, OrderRow)

    It runs on the servers of the fixtures `dualstore_engine` and `dualstore_dynamodb`, which the pytest
    plugin of dualstore starts. Where they do not answer alike, the failure holds a script of PynamoDB calls.

    Args:
        model: the PynamoDB model.
        row: the SQLAlchemy model; None keeps the items in a table of key columns and overflow.
        examples: how many histories to try.
        steps: how many steps a history has at most.
        overrides: see `equivalence_machine`.
        near_limits: see `equivalence_machine`.
        settings: Hypothesis's, in place of `examples` and `steps`.
    """
    chosen = settings or hypothesis.settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),  # pyright: ignore[reportArgumentType] - an enumeration
    )  # fmt: skip

    def opened(engine: sa.Engine, dynamodb: DynamoDB) -> AbstractContextManager[Sides]:
        return sides_of(model, row, engine=engine, dynamodb=dynamodb)

    class Equivalence:
        """Made by `dualstore.testing.equivalence`."""

        def test_every_store_gives_the_same_answers(
            self, dualstore_engine: sa.Engine, dualstore_dynamodb: DynamoDB
        ) -> None:
            with opened(dualstore_engine, dualstore_dynamodb) as sides:
                machine = equivalence_machine(
                    model, sides=sides, overrides=overrides, near_limits=near_limits
                )
                run_state_machine_as_test(machine, settings=chosen)

    Equivalence.__name__ = Equivalence.__qualname__ = f"Test{model.__name__}Equivalence"
    return Equivalence
