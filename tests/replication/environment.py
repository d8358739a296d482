"""What a simulation replaces in the modules it runs: chance, waiting, threads, and the costs of scale."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import stamina
from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

from dualstore.backfill import crew
from dualstore.backfill import run as backfill_run
from dualstore.replication import deferred, expiry, journal, registry, repair, shards
from dualstore.store import control_copy, copying, guarding, settling, table
from dualstore.stores import semantics
from dualstore.stores.memory import outbox, store
from dualstore.verify import judging as verify_judging
from dualstore.verify import run as verify_run
from replication.bulk import StreamedProving
from replication.simulation import SIMULATED_TIME, CooperativeCondition, CooperativeThread


def _in_order(population: Sequence[Any], size: int) -> list[Any]:
    return list(population)[:size]


def _in_this_thread(
    work: Callable[[int, threading.Event], None],
    segments: Iterable[int],
    *,
    workers: int,
) -> None:
    for segment in segments:
        work(segment, _Stop())


class _Stop(threading.Event):
    """Nobody stops a worker; what it waits for takes no real time."""

    def wait(self, timeout: float | None = None) -> bool:
        SIMULATED_TIME.sleep(timeout or 0.0)
        return False


def _small(_item: Any) -> int:
    """The size of every item: none comes near a limit."""
    return 100


# Which of several processes takes which entry first is the scheduler's choice, not chance.
_ORDERLY = SimpleNamespace(sample=_in_order, uniform=lambda low, high: (low + high) / 2)
_REPLACED: tuple[tuple[Any, str, Any], ...] = (
    (journal, "SHARDS", 1),  # sixteen queries of an empty partition took half of a history's time
    (journal, "random", _ORDERLY),
    (journal, "time", SIMULATED_TIME),
    (repair, "random", _ORDERLY),
    (expiry, "random", _ORDERLY),
    (outbox, "LANES", 1),
    (shards, "_QUIET_PAGES", 1),
    (deferred, "Thread", CooperativeThread),
    (deferred, "Condition", CooperativeCondition),
    (registry, "time", SIMULATED_TIME),
    (store, "time", SIMULATED_TIME),
    *((each, "time", SIMULATED_TIME) for each in (table, settling, control_copy)),
    *((each, "_PAUSE_SECONDS", 0.5) for each in (table, settling)),  # twenty looks a second are no use
    # Drift, room and load are a real database's matters, and no part of the protocol.
    (copying, "load_aware", lambda *_: lambda: None),
    (guarding.BackfillGuard, "reasons", lambda *_, **__: iter(())),
    (verify_judging, "time", SIMULATED_TIME),
    (verify_judging, "recheck", partial(verify_judging.recheck, sleep=SIMULATED_TIME.sleep)),
    (verify_run, "each_segment", _in_this_thread),
    (backfill_run, "time", SIMULATED_TIME),
    (crew, "each_segment", _in_this_thread),
    # What `replication.bulk` brings in their place is made where PostgreSQL's would be.
    (table, "PostgresRuns", lambda door: door.runs),
    (copying, "PostgresRuns", lambda door: door.runs),
    (copying, "PostgresLoad", lambda door, _mapping, *, epoch: door.load(epoch)),
    (copying, "PostgresQuarantine", lambda door, _shape, *, seal: door.quarantine()),
    (table, "Proving", StreamedProving),
    *((each, "item_size_bytes", _small) for each in (semantics.capacity, semantics.reads)),
)


@contextmanager
def simulated(*replaced: tuple[Any, str, Any]) -> Iterator[None]:
    """Run histories inside: nothing happens by chance, nothing takes real time, nothing is logged.

    Args:
        replaced: besides, an object, one of its attributes, and what stands there meanwhile: a mechanism
            that a mutant lacks.
    """
    hooks, disabled, testing = get_on_retry_hooks(), logging.root.manager.disable, stamina.is_testing()
    with ExitStack() as stack:
        for target, name, value in (*_REPLACED, *replaced):
            stack.enter_context(patch.object(target, name, value))
        undo: tuple[Callable[[], Any], ...] = (
            lambda: set_on_retry_hooks(hooks),
            lambda: logging.disable(disabled),
            lambda: stamina.set_testing(testing),
        )
        for each in undo:
            stack.callback(each)
        set_on_retry_hooks([])
        logging.disable(logging.CRITICAL)
        stamina.set_testing(True, attempts=3, cap=True)
        yield
