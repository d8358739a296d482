"""How the reads of each table are compared: from which sides, and by which rules."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from dualstore.config import ShadowSettings
from dualstore.errors import MirrorDirty
from dualstore.items import Item, Key
from dualstore.operations import Operation, Response
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.served import ServedTable
from dualstore.shadow import NO_RULES, Judge, Normaliser, Rules, Shadow
from dualstore.stages import Side
from dualstore.store.table import MigratedTable
from dualstore.stores.postgres import PostgresStore
from dualstore.telemetry import DiscrepancySink, Telemetry

# Less than the looks at a difference take together.
_COMPARABLE_LAG = timedelta(milliseconds=300)
_LAG_LASTS_SECONDS = 0.25


class TableRules:
    """The rules of each table.

    Args:
        configured: by logical name.
        tables: the tables by physical name; may grow.
    """

    def __init__(self, configured: Mapping[str, Rules], tables: Mapping[str, MigratedTable]) -> None:
        self._configured = dict(configured)
        self._tables = tables
        self._rules: dict[str, Rules] = {}

    def normalise(self, logical: str, normaliser: Normaliser) -> None:
        """Have the items of a table, by its logical name, go through a function before they are compared."""
        self._configured[logical] = replace(self._configured.get(logical, NO_RULES), normalise=normaliser)
        self._rules.clear()

    def __call__(self, physical: str) -> Rules:
        """The rules of a table. The first time DynamoDB is asked for its time to live: not for callers."""
        rules = self._rules.get(physical)
        if rules is None:
            table = self._tables[physical]
            rules = self._configured.get(table.served.logical, NO_RULES)
            rules = replace(rules, ttl_attribute=table.ttl_attribute)
            self._rules[physical] = rules
        return rules


class ComparedReads:
    """Reads on either side, to be compared; refused where a side is known to be behind.

    Args:
        mirroring: both sides.
        postgres: PostgreSQL.
    """

    def __init__(self, mirroring: Mirroring, postgres: PostgresStore) -> None:
        self._mirroring = mirroring
        self._postgres = postgres
        self._agent = mirroring.agent
        self._lags: dict[str, tuple[float, timedelta]] = {}

    def read(self, side: Side, operation: Operation) -> Response:
        """Run a read on a side.

        Raises:
            MirrorDirty: there is nothing to compare.
        """
        if side is Side.DYNAMODB:
            for table in operation.tables:
                self._require_close(table)
            return self._mirroring.authority.execute(operation)
        self._require_comparable(operation.tables)
        if all(self._agent.view(table).authority is Side.POSTGRES for table in operation.tables):
            return self._postgres.execute(operation)
        return self._postgres.execute_as_mirror(operation)

    def items_of(self, side: Side, table: str, keys: Sequence[Key]) -> Iterator[Item | None] | None:
        """Items of PostgreSQL by one statement, a fraction of the processor's time of a BatchGetItem there.

        Returns:
            The items in the order of their keys, see `PostgresStore.items_in_order`; None where the side has
            no such way.

        Raises:
            MirrorDirty: there is nothing to compare.
        """
        if side is Side.DYNAMODB:
            return None
        self._require_comparable([table])
        return self._postgres.items_in_order(table, keys)

    def _require_comparable(self, tables: Iterable[str]) -> None:
        for table in tables:
            if not self._agent.view(table).record.comparable:
                raise MirrorDirty(f"{table} is known to be behind on one side: there is nothing to compare")

    def _require_close(self, table: str) -> None:
        """A comparison with a DynamoDB that is known to be behind tells of nothing but that."""
        if self._agent.view(table).authority is Side.DYNAMODB:
            return
        measured_at, lag = self._lags.get(table, (-math.inf, timedelta(0)))
        now = time.monotonic()
        if now - measured_at > _LAG_LASTS_SECONDS:
            lag = self._mirroring.outbox.depth(table).oldest_age
            self._lags[table] = (now, lag)
        if lag > _COMPARABLE_LAG:
            raise MirrorDirty(f"{table} is behind in DynamoDB: there is nothing to compare with")


def shadow_of(
    settings: ShadowSettings,
    *,
    reads: ComparedReads,
    served: Mapping[str, ServedTable],
    rules: TableRules,
    telemetry: Telemetry,
    sink: DiscrepancySink,
) -> Shadow:
    """The comparison of reads as the settings ask for it.

    Args:
        settings: `[shadow]` of the configuration.
        reads: both sides.
        served: the tables by physical name; may grow.
        rules: what comparisons leave out.
        telemetry: told of everything.
        sink: takes the confirmed discrepancies.
    """
    judge = Judge(
        reads.read,
        served,
        rules_of=rules,
        items_of=reads.items_of,
        rechecks=settings.rechecks,
        same_side=settings.against == "same",
    )
    return Shadow(
        judge,
        telemetry=telemetry,
        sink=sink,
        queue_size=settings.queue_size,
        workers=settings.workers,
        timeout=timedelta(seconds=settings.timeout_seconds),
        recheck_pause=timedelta(seconds=settings.recheck_pause_seconds),
        latency_limit=timedelta(seconds=settings.latency_limit_seconds),
        batch_keys=settings.batch_keys,
        linger=timedelta(seconds=settings.linger_seconds),
        raise_on_mismatch=settings.raise_on_mismatch,
    )
