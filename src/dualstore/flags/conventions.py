"""The flags of a table: their keys by convention, and what a usable value of each is."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from dualstore.errors import ConfigurationError
from dualstore.stages import Stage

MAX_PERCENT = 100
_STAGES = {stage.value: stage for stage in Stage}


def as_stage(value: object) -> Stage | None:
    """A flag's value as a stage, or None where it is none."""
    return _STAGES.get(value) if isinstance(value, str) else None


def as_percent(value: object) -> float | None:
    """A flag's value as a percentage, or None where it is not a number from 0 to 100."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if 0 <= value <= MAX_PERCENT else None


@dataclass(frozen=True, slots=True)
class Flag:
    """One of the four flags that each table has.

    Attributes:
        field: the field of `Requested` that it fills.
        suffix: what its key ends with.
        read: its value as `Requested` holds it, or None where it is malformed.
        accepts: the values it takes, for messages.
    """

    field: str
    suffix: str
    read: Callable[[object], Stage | float | None]
    accepts: str

    @property
    def is_percent(self) -> bool:
        """Whether its values are percentages."""
        return self.read is as_percent

    def key(self, table: str) -> str:
        """The flag's key for a table's logical name, such as `dualstore-orders-read-percent`."""
        return f"dualstore-{table}-{self.suffix}"


FLAGS = (
    Flag("stage", "stage", as_stage, f"one of {', '.join(Stage)}"),
    Flag("postgres_read_percent", "read-percent", as_percent, "a number from 0 to 100"),
    Flag("mirror_percent", "mirror-percent", as_percent, "a number from 0 to 100"),
    Flag("shadow_percent", "shadow-percent", as_percent, "a number from 0 to 100"),
)


class Wishes(TypedDict, total=False):
    """What may be asked for of a table; None takes a request back, what is left out stays."""

    stage: Stage | str | None
    postgres_read_percent: float | None
    mirror_percent: float | None
    shadow_percent: float | None


def checked(table: str, wishes: Wishes) -> Mapping[str, Any]:
    """Wishes as fields of `Requested`.

    Raises:
        ConfigurationError: there is no such dial, or a value is not a stage or percentage.
    """
    by_field = {flag.field: flag for flag in FLAGS}
    values: dict[str, Stage | float | None] = {}
    for field, wish in wishes.items():
        flag = by_field.get(field)
        if flag is None:
            raise ConfigurationError(f"Table {table} has no dial {field}; use one of {', '.join(by_field)}")
        values[field] = None if wish is None else flag.read(wish)
        if wish is not None and values[field] is None:
            raise ConfigurationError(f"{field} of table {table} cannot be that value; give {flag.accepts}")
    return values
