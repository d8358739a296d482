"""What each write of the demo's traffic does to an airport: pure values, independent of dualstore.

The proof replays these on the source data, so nothing of dualstore may be imported here: a fault that
both sides of a comparison share would not be seen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal

Value = str | Decimal | frozenset[str]
Record = frozenset[tuple[str, Value]]
"""An airport as the attributes it has: hashable, and equal however a number is written."""
State = Record | None
"""An airport, or None where there is none."""
Refused = Literal["refused"]
REFUSED: Refused = "refused"


def record(attributes: Mapping[str, Any]) -> Record:
    """The record of these attributes; None means absent, numbers become decimals, sets frozen."""
    return frozenset((name, _value(value)) for name, value in attributes.items() if value is not None)


def _value(value: Any) -> Value:
    match value:
        case bool():
            raise TypeError("an airport has no boolean attributes")
        case int() | float():
            return Decimal(repr(value))
        case str() | Decimal() | frozenset():
            return value
        case set() | list() | tuple():
            return frozenset(value)
    raise TypeError(f"an airport has no attributes of type {type(value).__name__}")


@dataclass(frozen=True, slots=True)
class Save:
    """Write the whole airport, whatever was there."""

    do: ClassVar[str] = "save"
    airport: Record

    def after(self, state: State) -> State | Refused:  # noqa: ARG002 - the old state does not matter
        """The state that follows."""
        return self.airport


@dataclass(frozen=True, slots=True)
class Reopen:
    """Create the airport; refused where it exists."""

    do: ClassVar[str] = "reopen"
    airport: Record

    def after(self, state: State) -> State | Refused:
        """The state that follows, or a refusal."""
        return self.airport if state is None else REFUSED


@dataclass(frozen=True, slots=True)
class Close:
    """Delete the airport, if it is there."""

    do: ClassVar[str] = "close"

    def after(self, state: State) -> State | Refused:  # noqa: ARG002 - the old state does not matter
        """The state that follows."""
        return None


@dataclass(frozen=True, slots=True)
class Rename:
    """Change the name; refused unless the airport has the old one."""

    do: ClassVar[str] = "rename"
    old: str
    new: str

    def after(self, state: State) -> State | Refused:
        """The state that follows, or a refusal."""
        if state is None or ("name", self.old) not in state:
            return REFUSED
        return state - {("name", self.old)} | {("name", self.new)}


@dataclass(frozen=True, slots=True)
class Visit:
    """Count one and add the visitor, in one write; refused where there is no airport."""

    do: ClassVar[str] = "visit"
    visitor: str

    def after(self, state: State) -> State | Refused:
        """The state that follows, or a refusal."""
        if state is None:
            return REFUSED
        attributes = dict(state)
        visits, visitors = attributes.get("visits", Decimal(0)), attributes.get("visitors", frozenset())
        if not (isinstance(visits, Decimal) and isinstance(visitors, frozenset)):
            raise TypeError("visits are counted in a number, visitors in a set")
        return record(attributes | {"visits": visits + 1, "visitors": visitors | {self.visitor}})


Write = Save | Reopen | Close | Rename | Visit
Outcome = Literal["acknowledged", "refused", "undone", "unknown"]
"""What the caller was told: done; refused by a condition; not done, since no database took it; unknown."""


def states_after(states: Iterable[State], write: Write, outcome: Outcome) -> frozenset[State]:
    """Every state a key may be in after a write, given every state it may have been in before.

    Args:
        states: the possible states before.
        write: what was asked for.
        outcome: what the caller was told.

    Returns:
        The possible states after; empty when the caller was told what cannot have happened, such as a
        refusal where every possible state allowed the write.
    """
    if outcome == "undone":
        return frozenset(states)
    possible: set[State] = set()
    for before in states:
        after = write.after(before)
        if outcome == "refused":
            if after == REFUSED:
                possible.add(before)
            continue
        if after != REFUSED:
            possible.add(after)
        if outcome == "unknown":
            possible.add(before)
    return frozenset(possible)
