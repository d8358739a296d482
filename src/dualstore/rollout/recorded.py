"""Events of a plan, from the rows that keep them."""

from collections.abc import Iterable, Iterator

from dualstore.rollout.standing import EventKind, PlanEvent
from dualstore.stores.postgres_plans import EventRow

_KINDS = frozenset(EventKind)


def events_of(rows: Iterable[EventRow]) -> Iterator[PlanEvent]:
    """The events of some rows; those of a kind that this version does not know are left out."""
    for row in rows:
        if row.kind in _KINDS:
            yield PlanEvent(
                kind=EventKind(row.kind),
                step=row.step,
                by=row.by,
                at=row.at,
                attempt=row.attempt,
                seconds=row.seconds,
                reason=row.reason,
                evidence=row.evidence,
                number=row.number,
            )
