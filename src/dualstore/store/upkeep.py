"""Removing bookkeeping that nothing can need any more, as every process that mirrors does now and then."""

import logging
from collections.abc import Iterable
from datetime import timedelta

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import DualStoreError
from dualstore.store.replicating import Replication
from dualstore.store.table import MigratedTable
from dualstore.stores.postgres_upkeep import PostgresUpkeep

logger = logging.getLogger(__name__)


def prune(upkeep: PostgresUpkeep, tables: Iterable[MigratedTable]) -> None:
    """One round of upkeep; a table whose journal cannot be read keeps its tombstones.

    Args:
        upkeep: removes rows.
        tables: those whose journals are known here.
    """
    journals: dict[str, float | None] = {}
    for table in tables:
        try:
            journals[table.physical] = table.oldest_in_journal()
        except (ClientError, BotoCoreError, DualStoreError) as error:
            logger.info("The journal of %s cannot be read: %s", table.served.logical, type(error).__name__)
    try:
        upkeep.prune(journals)
    except DualStoreError as error:
        logger.warning("Upkeep ended early: %s", error)


def upkeep_of(replication: Replication) -> PostgresUpkeep:
    """What removes rows from PostgreSQL, discrepancies for as long as they are to be kept."""
    retention = timedelta(days=replication.options.shadow.retention_days)
    return PostgresUpkeep(replication.engine, discrepancy_retention=retention)
