"""The unit of work that a read belongs to: its cohort, and the dials that are held for it.

Kept in a context variable, so that it follows a request through `async` code, and stays out of other threads.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from dualstore.replication.views import View

Views = Mapping[str, View]


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of work.

    Attributes:
        cohort: the cohort that its reads are of, or None.
        held: for each `Dialling` that holds its dials (by identity), the views as the unit began.
    """

    cohort: str | None = None
    held: Mapping[int, Views] | None = None


_unit: ContextVar[Unit] = ContextVar("dualstore_unit", default=Unit())  # noqa: B039 - a Unit is immutable
current = _unit.get
"""The unit of work that this code is in."""


@contextmanager
def cohort(name: str) -> Iterator[None]:
    """Make what is read within the block part of a cohort, unless the route is held: then nothing changes.

    Args:
        name: as the lists of `[tables.<name>.cohorts]` have it.
    """
    unit = _unit.get()
    token = _unit.set(unit if unit.held else replace(unit, cohort=name))
    try:
        yield
    finally:
        _unit.reset(token)


@contextmanager
def holding(holder: object, views: Views) -> Iterator[None]:
    """Hold the cohort, and the dials of these views, for this holder; an outer block's stay."""
    unit = _unit.get()
    token = _unit.set(replace(unit, held={id(holder): views, **(unit.held or {})}))
    try:
        yield
    finally:
        _unit.reset(token)
