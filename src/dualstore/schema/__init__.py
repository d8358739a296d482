"""The bookkeeping schema `dualstore` in PostgreSQL: its tables, its migrations, its drift."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dualstore.schema.revisions import HEAD, UPGRADE_COMMAND, current, require_current
from dualstore.schema.tables import (
    SCHEMA,
    control,
    dirty,
    discrepancies,
    entities,
    lanes,
    metadata,
    outbox,
    processes,
    revision,
    rollup,
    run_pieces,
    runs,
    stream_shards,
    tokens,
    tombstones,
)
from dualstore.schema.unmapped import create_rest, create_unmapped

if TYPE_CHECKING:
    from dualstore.schema.migrating import check, configure, downgrade, upgrade

__all__ = [
    "HEAD",
    "SCHEMA",
    "UPGRADE_COMMAND",
    "check",
    "configure",
    "control",
    "create_rest",
    "create_unmapped",
    "current",
    "dirty",
    "discrepancies",
    "downgrade",
    "entities",
    "lanes",
    "metadata",
    "outbox",
    "processes",
    "require_current",
    "revision",
    "rollup",
    "run_pieces",
    "runs",
    "stream_shards",
    "tokens",
    "tombstones",
    "upgrade",
]

# Imported when asked for: a service that only reads the schema's revision needs no Alembic.
_OF_ALEMBIC = frozenset({"check", "configure", "downgrade", "upgrade"})


def __getattr__(name: str) -> Any:
    if name not in _OF_ALEMBIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("dualstore.schema.migrating"), name)
