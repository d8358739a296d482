"""Mutants of the failover (ADR 24): DynamoDB takes over without PostgreSQL."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from dualstore.replication.refreshing import Refreshing
from dualstore.routing import authorities
from dualstore.store import reconciling
from dualstore.stores.memory.control import MemoryControl
from dualstore.stores.postgres_lost_writes import LostWrite
from replication import failing_over
from replication.failing_over import ListedLosses
from replication.mutant import Mutant

_fail_over = failing_over.fail_over


def _opened_at_once(home: Any, foreseen: Any, **options: Any) -> Any:
    return _fail_over(home, foreseen, **{**options, "write_grant": timedelta(0)})


def _finished_unlisted(
    self: ListedLosses, _lost: Sequence[LostWrite], *, finished: Sequence[int], **_: Any
) -> None:
    for id_ in finished:
        self._fleet.outbox._waiting.pop(id_, None)


FAILING_OVER = (
    Mutant(
        "8",
        "a failover opens once every grant from before has ended",
        "failing_over",
        ((failing_over, "fail_over", _opened_at_once),),
    ),
    Mutant(
        "8",
        "who slept looks at DynamoDB before it takes a grant on PostgreSQL's record",
        "failing_over",
        ((Refreshing, "_lapsed", lambda *_: False),),
    ),
    Mutant(
        "8",
        "while a failover is announced, consistent reads wait",
        "failing_over",
        ((authorities, "is_eventual", lambda _: True),),
    ),
    Mutant(
        "8",
        "a PostgreSQL that is back is told of the failover",
        "failing_over",
        ((MemoryControl, "overrule", lambda *_: False),),
    ),
    Mutant(
        "8",
        "what the outbox still holds is listed as lost",
        "failing_over",
        ((ListedLosses, "keep", _finished_unlisted),),
    ),
    Mutant(
        "8",
        "only what DynamoDB shows, or was written onto, has arrived",
        "failing_over",
        ((reconciling, "_arrived", lambda entries, _ours, _theirs: len(entries)),),
    ),
)
