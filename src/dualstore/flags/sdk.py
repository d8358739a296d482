"""Flags that an SDK client follows: evaluated when they change, looked up in between."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import RLock
from typing import TYPE_CHECKING, Any, Self

from dualstore.flags.conventions import FLAGS, Flag
from dualstore.flags.evaluation import Evaluator, Identity
from dualstore.flags.source import NOTHING_REQUESTED, FlagProblem, ProblemKind, Problems, Requested

if TYPE_CHECKING:
    from ldclient import LDClient


_REACHED = frozenset({"VALID", "INTERRUPTED"})
"""The states of a client's data source after it has brought data."""


def has_reached_its_source(client: "LDClient") -> bool:
    """Whether a client has had flags from its source itself.

    What a feature store of the team's remembers from an earlier process makes a client initialized too. It
    may be old, and move a table to a stage that it has left since. Source: `LDClient.is_initialized` and
    `DataSourceState`, LaunchDarkly's Python SDK.
    """
    return client.is_initialized() and client.data_source_status_provider.status.state.name in _REACHED


@dataclass(frozen=True, slots=True)
class Link:
    """A running SDK client.

    Attributes:
        client: answers, and tells LaunchDarkly what it was asked, where it tells anybody.
        silent: answers the same and tells nobody, where there is such a one.
        close: lets go of them.
    """

    client: "LDClient"
    silent: "LDClient"
    close: Callable[[], None]


class SdkFlags(ABC):
    """Follows the flags of tables through an SDK client, which the first call of `requested` brings up.

    Every change is evaluated once, in the thread of the SDK that brings it; `requested` is a look-up.

    Args:
        name: what is out of reach where the client has no data, in messages.
        identity: as whom flags are evaluated.
        key_contexts: see `Evaluator`.
        on_problem: told of every flag without a usable value, each time it is evaluated.
    """

    def __init__(
        self,
        name: str,
        *,
        identity: Identity,
        key_contexts: bool = False,
        on_problem: Callable[[FlagProblem], None] | None = None,
    ) -> None:
        self._name = name
        self._identity = identity
        self._key_contexts = key_contexts
        self._problems = Problems(on_problem)
        self._lock = RLock()
        self._link: Link | None = None
        self._evaluator: Evaluator | None = None
        self._closed = False
        self._flags: dict[str, tuple[str, Flag]] = {}
        self._requested: dict[str, Requested] = {}

    @property
    def problems(self) -> Problems:
        """The flags that had no usable value so far."""
        return self._problems

    @property
    def is_reached(self) -> bool:
        """Whether the source itself has brought flags since `requested` was first called."""
        with self._lock:
            evaluator = self._evaluator
        return evaluator is not None and has_reached_its_source(evaluator.client)

    def requested(self, table: str) -> Requested:
        """What the flags ask for a table, as of their last change."""
        known = self._requested.get(table)
        return known if known is not None else self._first_requested(table)

    def close(self) -> None:
        """Follow no further."""
        with self._lock:
            link, self._link, self._evaluator, self._closed = self._link, None, None, True
        if link is not None:
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _connect(self) -> Link:
        """Bring an SDK client up, and have it tell of changes."""

    def _first_requested(self, table: str) -> Requested:
        with self._lock:
            if self._link is None and not self._closed:
                self._link = link = self._connect()
                self._evaluator = Evaluator(
                    link.client,
                    silent=link.silent,
                    identity=self._identity,
                    key_contexts=self._key_contexts,
                )
            if table not in self._requested:
                self._flags |= {flag.key(table): (table, flag) for flag in FLAGS}
                self._requested[table] = NOTHING_REQUESTED
                self._evaluate(table)
            return self._requested[table]

    def _all_changed(self) -> None:
        """Evaluate everything again: the SDK has taken over new data."""
        with self._lock:
            if self._link is None:
                return
            self._problems.resolved(None, self._name)
            for table in list(self._requested):
                self._evaluate(table)

    def _flag_changed(self, change: Any) -> None:
        """Evaluate one flag again, where it is one of ours; an `ldclient` listener."""
        named = self._flags.get(change.key)
        if named is None:
            return
        table, flag = named
        with self._lock:
            if self._evaluator is not None and has_reached_its_source(self._evaluator.client):
                answered = self._answered(self._evaluator, flag, table)
                self._requested[table] = replace(self._requested[table], **answered)

    def _status_changed(self, status: Any) -> None:
        """Note that the SDK lost its source of flags, or has it again; an `ldclient` listener."""
        if status.state.name == "VALID":
            self._all_changed()
        else:
            self._unreachable()

    def _unreachable(self) -> None:
        self._problems.occurred(FlagProblem(None, self._name, ProblemKind.UNREACHABLE))

    def _evaluate(self, table: str) -> None:
        evaluator = self._evaluator
        # Without data the SDK would answer with defaults, and warn of each.
        if evaluator is None or not has_reached_its_source(evaluator.client):
            return
        answers: dict[str, Any] = {}
        for flag in FLAGS:
            answers |= self._answered(evaluator, flag, table)
        self._requested[table] = Requested(**answers)

    def _answered(self, evaluator: Evaluator, flag: Flag, table: str) -> dict[str, Any]:
        """A field of `Requested`, and note taken of what keeps it from having a value."""
        key, answer = flag.key(table), evaluator.answer(flag, table)
        if isinstance(answer, ProblemKind):
            self._problems.occurred(FlagProblem(table, key, answer))
            return {flag.field: None}
        self._problems.resolved(table, key)
        return {flag.field: answer}
