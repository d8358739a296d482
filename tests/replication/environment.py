"""What a simulation replaces in the modules that it runs: chance, waiting, and the costs of scale."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import stamina
from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

from dualstore.replication import journal, repair
from dualstore.stores.memory import outbox


def _in_order(population: Sequence[Any], size: int) -> list[Any]:
    return list(population)[:size]


# Which of several processes takes which entry first is the scheduler's choice, not chance.
_ORDERLY = SimpleNamespace(sample=_in_order)
_REPLACED: tuple[tuple[ModuleType, str, Any], ...] = (
    (journal, "SHARDS", 1),  # sixteen queries of an empty partition took half of a history's time
    (journal, "random", _ORDERLY),
    (repair, "random", _ORDERLY),
    (outbox, "LANES", 1),
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
