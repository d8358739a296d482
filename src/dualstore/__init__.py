"""dualstore: move a running service from DynamoDB to PostgreSQL, each step reversible."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualstore.repository import Repository
    from dualstore.stages import Stage
    from dualstore.store import DualStore

__all__ = ["DualStore", "Repository", "Stage"]

# Imported when asked for: pytest loads the plugin in this package wherever dualstore is installed.
_WHERE = {"DualStore": "store", "Repository": "repository", "Stage": "stages"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
