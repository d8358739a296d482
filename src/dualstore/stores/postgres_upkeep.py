"""What the `dualstore` schema may forget: tombstones, outbox rows, receipts, tokens, discrepancies."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

from sqlalchemy import Engine

from dualstore.stores.postgres_rollup import PostgresRollup
from dualstore.stores.postgres_transaction import transaction

TOMBSTONE_RETENTION = timedelta(hours=25)
"""DynamoDB Streams keeps its records for 24 hours: none tells of an older write."""
OUTBOX_RETENTION = timedelta(minutes=15)
"""So long the outbox or a receipt answers for a COMMIT without a reply (DESIGN, replication, rule 7)."""
_RECEIPTS_AT_ONCE = 10  # times as many as of others: each write leaves one, and they are small
VOIDED_RETENTION = timedelta(hours=25)
"""TCP sends again for a quarter of an hour, a stopped server may go on much later."""
TOKEN_RETENTION = timedelta(minutes=10)
"""AWS, TransactWriteItems: a ClientRequestToken is valid for 10 minutes."""
DISCREPANCY_RETENTION = timedelta(days=30)
"""So long after it was last seen a discrepancy stays recorded; what is ignored stays for good."""

_STREAM_RETENTION = timedelta(hours=24)
# The journal's times are by its writers' own clocks.
_CLOCK_SKEW = timedelta(hours=1)

# What a run copies may be as old, when it starts, as tombstones are kept (`Source.covers`).
# What is not known to have been read of a stream is no older than its records are kept. A stream that nobody
# follows any more keeps nothing for ever: its records are gone, too.
_HORIZON = """
SELECT least(
    clock_timestamp() - %(retention)s,
    (SELECT min(started_at) - %(retention)s FROM dualstore.runs
      WHERE table_name = %(table)s AND state = 'running'),
    (SELECT min(since) FROM dualstore.dirty WHERE table_name = %(table)s),
    (SELECT min(greatest(coalesce(caught_up_at, updated_at - %(stream)s), clock_timestamp() - 2 * %(stream)s))
       FROM dualstore.stream_shards WHERE table_name = %(table)s AND state = 'open'),
    to_timestamp(%(journal_oldest)s::float8) - %(skew)s
)
"""

# What somebody else removes or renews at this moment is passed over. A tombstone that was renewed since this
# statement began has another place, where this statement does not see it.
_TOMBSTONES = """
DELETE FROM dualstore.tombstones WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM dualstore.tombstones WHERE table_name = %(table)s AND deleted_at < %(horizon)s
    ORDER BY deleted_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
))
"""
# Not `clock_timestamp()`, which changes within a statement: no index would be searched by it.
_OUTBOX = """
DELETE FROM dualstore.outbox WHERE id = ANY (ARRAY(
    SELECT id FROM dualstore.outbox WHERE done_at < statement_timestamp() - %(retention)s
    ORDER BY done_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
))
"""
_RECEIPTS = """
DELETE FROM dualstore.receipts WHERE stamp = ANY (ARRAY(
    SELECT stamp FROM dualstore.receipts WHERE written_at < statement_timestamp() - %(retention)s
    AND (NOT voided OR written_at < statement_timestamp() - %(voided)s)
    ORDER BY written_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
))
"""
_TOKENS = """
DELETE FROM dualstore.tokens WHERE token = ANY (ARRAY(
    SELECT token FROM dualstore.tokens WHERE created_at < statement_timestamp() - %(retention)s
    ORDER BY created_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
))
"""
_DISCREPANCIES = """
DELETE FROM dualstore.discrepancies WHERE id = ANY (ARRAY(
    SELECT id FROM dualstore.discrepancies
    WHERE last_seen < statement_timestamp() - %(retention)s AND state <> 'ignored'
    ORDER BY last_seen LIMIT %(rows)s FOR UPDATE SKIP LOCKED
))
"""


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows of each kind one round of upkeep removed."""

    tombstones: int = 0
    outbox: int = 0
    receipts: int = 0
    tokens: int = 0
    discrepancies: int = 0
    figures: int = 0


class PostgresUpkeep:
    """Removes bookkeeping that nothing can need any more, in short transactions.

    Any number of processes may do it at once: they take different rows.

    Args:
        engine: an engine with the psycopg driver.
        tombstone_retention: how long tombstones stay at least.
        discrepancy_retention: how long after they were last seen discrepancies stay.
        batch_rows: the most rows of one transaction.
        batches: the most transactions for each kind in one round; the next round goes on.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        tombstone_retention: timedelta = TOMBSTONE_RETENTION,
        discrepancy_retention: timedelta = DISCREPANCY_RETENTION,
        batch_rows: int = 1_000,
        batches: int = 50,
    ) -> None:
        self._engine = engine
        self._retention = tombstone_retention
        self._discrepancy_retention = discrepancy_retention
        self._rows = batch_rows
        self._batches = batches

    def prune(self, journals: Mapping[str, float | None]) -> Pruned:
        """One round over everything.

        Args:
            journals: for each table (physical name), the time of the oldest entry in its journal, in seconds
                since the epoch, or None where the journal is *known* to be empty. A table whose journal
                could not be read is left out: its tombstones stay.

        Raises:
            Unavailable: PostgreSQL could not be reached in time; the next round goes on.
        """
        return Pruned(
            tombstones=sum(
                self.prune_tombstones(table, journal_oldest=oldest) for table, oldest in journals.items()
            ),
            outbox=self.prune_outbox(),
            receipts=self.prune_receipts(),
            tokens=self.prune_tokens(),
            discrepancies=self.prune_discrepancies(),
            figures=self.prune_figures(),
        )

    def tombstone_horizon(self, table: str, *, journal_oldest: float | None) -> datetime:
        """The time before which the tombstones of a table may go.

        They outlive every open run, dirty key, journal entry and checkpoint of the relay (DESIGN, replication
        protocol, rule 4). Whatever of these is begun later is later than this time, so it does not age.

        Args:
            table: the physical DynamoDB name.
            journal_oldest: as for `prune`.
        """
        values = {
            "table": table,
            "retention": self._retention,
            "stream": _STREAM_RETENTION,
            "journal_oldest": journal_oldest,
            "skew": _CLOCK_SKEW,
        }
        with transaction(self._engine, f"Looking how long tombstones of {table} are needed") as cursor:
            ((horizon,),) = cursor.execute(_HORIZON, values).fetchall()
        assert isinstance(horizon, datetime)  # noqa: S101 - `least` of at least one time
        return horizon

    def prune_tombstones(self, table: str, *, journal_oldest: float | None) -> int:
        """Remove the tombstones of a table that are older than its horizon; how many.

        Args:
            table: the physical DynamoDB name.
            journal_oldest: as for `prune`.
        """
        horizon = self.tombstone_horizon(table, journal_oldest=journal_oldest)
        return self._delete(_TOMBSTONES, {"table": table, "horizon": horizon}, f"tombstones of {table}")

    def prune_outbox(self, *, older_than: timedelta = OUTBOX_RETENTION) -> int:
        """Remove the outbox rows that were finished so long ago; how many."""
        return self._delete(_OUTBOX, {"retention": older_than}, "finished outbox rows")

    def prune_receipts(self, *, older_than: timedelta = OUTBOX_RETENTION) -> int:
        """Remove the receipts of writes at stage `complete` that are so old; how many.

        Those of writes that were given up stay for 25 hours: their requests may still come.
        """
        values = {"retention": older_than, "voided": max(older_than, VOIDED_RETENTION)}
        return self._delete(_RECEIPTS, values, "old receipts", rows=_RECEIPTS_AT_ONCE * self._rows)

    def prune_tokens(self, *, older_than: timedelta = TOKEN_RETENTION) -> int:
        """Remove the idempotency tokens that are so old; how many."""
        return self._delete(_TOKENS, {"retention": older_than}, "old idempotency tokens")

    def prune_figures(self) -> int:
        """Add up the fleet's figures of the last hours, and remove those past their retention; how many."""
        rollup = PostgresRollup(self._engine)
        total = rollup.fold()
        for _ in range(self._batches):
            removed = rollup.prune(rows=self._rows)
            total += removed
            if removed < self._rows:
                break
        return total

    def prune_discrepancies(self) -> int:
        """Remove the discrepancies that nobody has seen for so long; how many."""
        return self._delete(_DISCREPANCIES, {"retention": self._discrepancy_retention}, "old discrepancies")

    def _delete(
        self, statement: LiteralString, values: Mapping[str, Any], what: str, *, rows: int | None = None
    ) -> int:
        """Run a statement, each time in a transaction of its own, until it finds less than it may take."""
        total, rows = 0, rows or self._rows
        for _ in range(self._batches):
            with transaction(self._engine, f"Removing {what}") as cursor:
                removed = cursor.execute(statement, {**values, "rows": rows}).rowcount
            total += removed
            if removed < rows:
                break
        return total
