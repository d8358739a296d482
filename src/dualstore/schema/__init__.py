"""The bookkeeping schema `dualstore` in PostgreSQL: its tables, its migrations, its drift."""

from dualstore.schema.revisions import (
    UPGRADE_COMMAND,
    check,
    configure,
    current,
    downgrade,
    head,
    require_current,
    upgrade,
)
from dualstore.schema.tables import (
    SCHEMA,
    control,
    dirty,
    discrepancies,
    metadata,
    revision,
    run_pieces,
    runs,
    tombstones,
)
from dualstore.schema.unmapped import create_unmapped

__all__ = [
    "SCHEMA",
    "UPGRADE_COMMAND",
    "check",
    "configure",
    "control",
    "create_unmapped",
    "current",
    "dirty",
    "discrepancies",
    "downgrade",
    "head",
    "metadata",
    "require_current",
    "revision",
    "run_pieces",
    "runs",
    "tombstones",
    "upgrade",
]
