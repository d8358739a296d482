"""The equivalence kit: does PostgreSQL, with your models and your tables, answer as DynamoDB does?

Three lines of a test file are enough::

    from dualstore.testing import equivalence
    from shop.models import OrderItem, OrderRow

    TestOrders = equivalence(OrderItem, OrderRow)

It needs `pip install 'dualstore[testing]'`. The servers of `dualstore.testing.servers` need no more than the
extra `demo`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualstore.testing.contract import store_contract
    from dualstore.testing.machine import Difference, equivalence, equivalence_machine
    from dualstore.testing.sides import Sides, sides_of
    from dualstore.testing.strategies import (
        actions_of,
        conditions_of,
        instances_of,
        items_of,
        keys_of,
        steps_of,
    )

__all__ = [
    "Difference",
    "Sides",
    "actions_of",
    "conditions_of",
    "equivalence",
    "equivalence_machine",
    "instances_of",
    "items_of",
    "keys_of",
    "sides_of",
    "steps_of",
    "store_contract",
]

_WHERE = {
    "store_contract": "contract",
    "Difference": "machine",
    "equivalence": "machine",
    "equivalence_machine": "machine",
    "Sides": "sides",
    "sides_of": "sides",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: the servers of this package need neither Hypothesis nor pytest."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_WHERE.get(name, 'strategies')}")
    except ModuleNotFoundError as missing:
        if missing.name not in {"hypothesis", "pytest"}:
            raise
        raise ModuleNotFoundError(
            f"dualstore.testing.{name} needs {missing.name}: pip install 'dualstore[testing]'",
            name=missing.name,
        ) from None
    return getattr(module, name)
