"""What a step of a plan is made of: checks before, the act, the check after, and the way back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from dualstore.errors import ConfigurationError
from dualstore.rollout.judgement import GateResult, Limits
from dualstore.rollout.windows import Window
from dualstore.stages import Stage

if TYPE_CHECKING:
    from dualstore.rollout.context import Context

Evidence: TypeAlias = Mapping[str, Any]
"""What a step saw, as plain JSON without any item's value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan, as it is carried out and recorded.

    Attributes:
        id: its name in the record, unique in the plan.
        action: which action it is.
        stage: the plan's stage that it stands in.
        line: where it stands in the file.
        tables: the logical names of the tables that it is for.
        options: the action's own keys.
        approval: `required`, `four-eyes` (by another person than the one who runs the plan), or None.
        window: when it may begin; None: at any time.
        limits: what its gates ask for.
        soak: how long it is watched before its gates are judged.
        patience: how long what is not yet so is waited for.
        rolls_back: whether a refusal rolls it back; else the plan halts where it is.
        skip: why it is left out; None: it is not.
    """

    id: str
    action: str
    stage: str = ""
    line: int = 0
    tables: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    approval: str | None = None
    window: Window | None = None
    limits: Limits = field(default_factory=Limits)
    soak: timedelta = timedelta(0)
    patience: timedelta = timedelta(minutes=10)
    rolls_back: bool = False
    skip: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at before or after a step.

    Attributes:
        what: what has to be so.
        problem: why it is not, and what to do; None: it is.
        passing: whether waiting may mend it.
    """

    what: str
    problem: str | None = None
    passing: bool = False

    def __str__(self) -> str:
        return f"{'ok' if self.problem is None else 'NO'}: {self.what}" + (
            "" if self.problem is None else f": {self.problem}"
        )


Checks: TypeAlias = "Callable[[Step, Context], Sequence[Check]]"
Act: TypeAlias = "Callable[[Step, Context], Evidence]"


def no_checks(_step: Step, _context: "Context") -> Sequence[Check]:
    """Nothing to look at."""
    return ()


def itself(step: Step) -> Sequence[Step]:
    """One step of the file is one step of the plan."""
    return (step,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One kind of step. All its functions may be called again at any time: each looks before it acts.

    Attributes:
        name: as plans write it.
        says: what it does, in words.
        act: does it, and gives back what it saw; begins where an attempt before was broken off.
        redo: what of `act` changes anything, for who has no time to watch; None: all of it.
        holds: the postcondition: whether it is done, looked up now.
        checks: the precondition that can be looked at long before, for `--dry-run`.
        ready: the precondition of the moment.
        undo: takes it back; None: nothing to take back.
        undone: the postcondition of `undo`.
        undo_says: what `undo` does, in words.
        at: the stages of a migration at which it may be done.
        leads_to: the stage that it leads to, or None.
        options: the JSON schemas of its own keys, and `required`.
        expand: the steps that one entry of the file stands for.
        approval: what it asks for where the plan says nothing.
    """

    name: str
    says: Callable[[Step], str]
    act: Act
    redo: "Act | None" = None
    holds: Checks
    checks: Checks = no_checks
    ready: Checks = no_checks
    undo: "Act | None" = None
    undone: Checks = no_checks
    undo_says: Callable[[Step], str] = lambda _: "nothing to take back"
    at: frozenset[Stage] = frozenset(Stage)
    leads_to: Stage | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    expand: Callable[[Step], Sequence[Step]] = itself
    approval: str | None = None


class StepRefused(Exception):  # noqa: N818 - a refusal is an answer, not a fault
    """A step may not go on: a check or a gate says no.

    Args:
        message: which, and what to do.
        gates: what the gates said, by table.
    """

    def __init__(self, message: str, *, gates: Mapping[str, Sequence[GateResult]] | None = None) -> None:
        super().__init__(message)
        self.gates = gates or {}

    @property
    def evidence(self) -> Evidence:
        """What was seen, for the record."""
        return {"gates": {table: [each.to_json() for each in said] for table, said in self.gates.items()}}


ACTIONS: dict[str, Action] = {}
"""Every action by its name, in the order in which the schema lists them."""


def register(action: Action) -> Action:
    """Make an action known to plans.

    Raises:
        ConfigurationError: another one has its name.
    """
    if ACTIONS.setdefault(action.name, action) is not action:
        raise ConfigurationError(f"an action named {action.name} is registered already; name it otherwise")
    return action
