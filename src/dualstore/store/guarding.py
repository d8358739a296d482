"""What keeps a backfill of one table from doing harm: refusals before it starts, and limits while it runs."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy
from botocore.exceptions import BotoCoreError, ClientError

from dualstore.backfill.load_limits import LoadLimits
from dualstore.backfill.refusals import Room, drifted, uncovered, without_columns
from dualstore.backfill.sources import Source
from dualstore.mapping import Mapped
from dualstore.stores.free_storage import (
    FreeStorage,
    free_by_cloudwatch,
    free_on_this_machine,
    size_of,
)
from dualstore.stores.source_clients import SourceClients


def nothing_known() -> None:
    """Where nobody tells."""


@dataclass(frozen=True, kw_only=True)
class BackfillGuard:
    """The guard of one table's backfills.

    Attributes:
        limits: what PostgreSQL has to bear at most.
        table_bytes: the size of the table on DynamoDB; None where nobody tells.
        free: how much room PostgreSQL has; None where nobody tells.
    """

    limits: LoadLimits = field(default_factory=LoadLimits)
    table_bytes: Callable[[], int | None] = nothing_known
    free: Callable[[], FreeStorage | None] = nothing_known

    def reasons(
        self,
        engine: sqlalchemy.Engine,
        mapping: Mapped,
        *,
        source: Source | None = None,
        since: datetime | None = None,
        workers: int = 1,
    ) -> Iterator[str]:
        """Why a new backfill would be unsafe, a sentence each.

        Args:
            engine: PostgreSQL.
            mapping: how items become rows.
            source: what is copied; None: the table itself, from now on.
            since: from when on every write has been mirrored; None: that is not so yet, or not known.
            workers: how many there will be, roughly.

        Raises:
            SchemaError: the bookkeeping schema is missing, or not of this version.
            ConfigurationError, Unavailable: PostgreSQL or CloudWatch does not answer.
        """
        if source is not None and since is not None:
            yield from uncovered(source, since)
        yield from drifted(engine)
        yield from without_columns(engine, mapping)
        yield from self._without_room(engine, mapping, workers)

    def _without_room(self, engine: sqlalchemy.Engine, mapping: Mapped, workers: int) -> Iterator[str]:
        size = self.table_bytes()
        if size is not None:
            there = size_of(engine, [part.table for part in mapping.parts])
            yield from Room.of(size, workers=workers, there=there).lacks(self.free())


def table_bytes(client: Any, table: str) -> int | None:
    """The size that DynamoDB tells of a table, every six hours; None where it does not."""
    with suppress(ClientError, BotoCoreError):
        size: int | None = client.describe_table(TableName=table)["Table"].get("TableSizeBytes")
        return size
    return None


def free_storage(
    engine: sqlalchemy.Engine,
    *,
    free_bytes: int | None,
    db_instance: str | None,
    clients: Callable[[], SourceClients],
) -> FreeStorage | None:
    """How much room PostgreSQL has: as configured, by CloudWatch, or on this machine's disk.

    Args:
        engine: PostgreSQL.
        free_bytes: as configured.
        db_instance: as configured.
        clients: where a client of CloudWatch is made.
    """
    if free_bytes is not None:
        return FreeStorage(free_bytes, "backfill.free_bytes")
    if db_instance is None:
        return free_on_this_machine(engine)
    with clients() as made:
        return free_by_cloudwatch(made.cloudwatch(), db_instance)
