"""The example's migration plan, carried out as `dualstore plan` does, a few steps at a time."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from ruamel.yaml import YAML

from dualstore import DualStore
from dualstore.config import load
from dualstore.errors import IllegalTransition
from dualstore.flags import setter_of
from dualstore.rollout import (
    Context,
    EventKind,
    Outcome,
    Progressed,
    RolledBack,
    Tools,
    carrying_out,
    events_of,
    load_plan,
    rollback_one_step,
    run,
)

PLAN = "migration.yml"
OPERATOR, APPROVER = "Ada", "Grace"
"""Who carries the plan out and goes on after a rollback; and the other person, who approves."""


def copy_plan(example: Path, to: Path, *, soak: str | None) -> None:
    """Puts the example's plan beside the configuration.

    Args:
        example: its file.
        to: where it goes.
        soak: how long every step that is watched is watched; None: as the file says.
    """
    yaml = YAML()
    content = yaml.load(example.read_text(encoding="utf-8"))
    for step in (step for stage in content["stages"] for step in stage["steps"]):
        if soak is not None and "soak" in step:
            step["soak"] = soak
    yaml.dump(content, to)


class PlannedMigration:
    """A plan that is carried out step by step; a context manager that lets go of it.

    Args:
        store: of the process that carries it out.
        configuration: the `dualstore.toml`, with the flags.
        announce: told in words what happens.
        progressed: told how far a copy or comparison has come.
    """

    def __init__(
        self,
        store: DualStore,
        configuration: Path,
        *,
        announce: Callable[[str], None],
        progressed: Progressed,
    ) -> None:
        self._plan = load_plan(configuration.parent / PLAN)
        self._tools = Tools(
            store=store,
            setter=setter_of(load(configuration)),
            who=OPERATOR,
            announce=announce,
            progressed=progressed,
            folder=str(configuration.parent),
        )
        self._holding = ExitStack()
        self._context: Context | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def carry_out(self, last: str) -> None:
        """Carries the plan out up to a step: `dualstore plan run --until`, or `resume` after a rollback.

        Raises:
            IllegalTransition: a check or a gate of a step said no; the message says which.
            DualStoreError: something went wrong.
        """
        if self._context is None:
            self._context = self._holding.enter_context(
                carrying_out(self._plan, self._tools, resumed_by=OPERATOR)
            )
        ended = run(self._context, until=last, ask=lambda _: APPROVER)
        if ended.outcome not in {Outcome.REACHED, Outcome.FINISHED}:
            raise IllegalTransition(f"the plan got no further: {ended.outcome}: {ended.reason}")

    def let_go(self) -> None:
        """Carries it out no longer, until it goes on: PostgreSQL, which knows who does, is about to crash."""
        self._context = None
        self._holding.close()

    def take_back(self, reason: str) -> RolledBack:
        """Takes the last step back that has changed anything: `dualstore plan rollback`."""
        self.let_go()
        return rollback_one_step(self._plan, reason, {}, tools=self._tools)

    def seen(self, step: str, table: str) -> dict[str, Any]:
        """What a step that is done has recorded of a table."""
        events = events_of(self._tools.plans.events(self._plan.name))
        done = [each for each in events if each.step == step and each.kind is EventKind.FINISHED]
        return dict(done[-1].evidence[table]) if done else {}
