"""Time to live on both sides: what expires is deleted by the authority, and the other side follows.

DynamoDB deletes expired items itself and leaves no trace but a stream record, PostgreSQL deletes none. So:

| PostgreSQL is | Expired rows are |
|---|---|
| the authority | deleted where their revision is the one seen; the outbox hands that on to DynamoDB |
| the mirror, the stream is followed | left to the relay, which sees DynamoDB's deletions |
| the mirror, without a stream | settled where DynamoDB holds the item no more |

DESIGN, replication protocol, rule 7.
"""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord, Phase, PostgresRole
from dualstore.items import Key, key_bytes
from dualstore.replication.clocks import SYSTEM_CLOCK, Clock
from dualstore.replication.served import ServedTable
from dualstore.stores.base import Store
from dualstore.stores.postgres_expiry import Cursor, Deleted, ExpiredPage, ExpiredRow
from dualstore.stores.scan import read_items

logger = logging.getLogger(__name__)


def ttl_attribute(
    *, configured: str | None, described: Callable[[], str | None], declared: str | None
) -> str | None:
    """Which attribute is a table's time to live; None where nothing of it expires.

    What is configured holds. Else DynamoDB's own word does, so that nothing is deleted from PostgreSQL that
    DynamoDB would have kept; and where it does not say (the table is gone, a stand-in knows no time to live),
    what the model declares.

    Args:
        configured: `ttl_attribute` of the table's configuration.
        described: asks DynamoDB (`stores.dynamo_description.described_ttl_attribute`).
        declared: the model's (`mapping.expiry.ttl_attribute_of_model`).
    """
    if configured is not None:
        return configured
    try:
        return described()
    except (ClientError, BotoCoreError) as error:
        logger.debug("DynamoDB does not tell a table's time to live: %s", type(error).__name__)
        return declared


class ExpiringRows(Protocol):
    """Where expired rows are found and deleted; `PostgresExpiry`, whose methods say more."""

    def by_column(self, table: str, attribute: str, *, after: Cursor | None, rows: int) -> ExpiredPage:
        """Expired rows, the longest expired first, by the column of the attribute."""
        ...

    def in_overflow(self, table: str, attribute: str, *, after: Cursor | None, rows: int) -> ExpiredPage:
        """Expired rows among the next `rows` of the table, by values that its column does not hold."""
        ...

    def anywhere(self, table: str, attribute: str) -> Cursor | None:
        """A place for `in_overflow` to begin at."""
        ...

    def delete(self, table: str, rows: Sequence[ExpiredRow], *, epoch: int) -> Deleted:
        """Delete rows that are still as they were seen, as the authority at an epoch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepLimits:
    """How much one sweep does, and how often it comes.

    Attributes:
        batch_rows: the most rows that are deleted, or asked for at DynamoDB, together.
        batches: the most such batches of one sweep; where there were as many, the next sweep comes at once.
        walk_rows: the rows of one page of a table that is looked through for values in the overflow.
        walk_pages: the most such pages of one sweep.
        pause: the time between two sweeps of a table by one process, on average.
        mirror_pause: the same while PostgreSQL is the mirror, and DynamoDB is asked for all that is due.
    """

    batch_rows: int = 100
    batches: int = 20
    walk_rows: int = 1_000
    walk_pages: int = 20
    pause: timedelta = timedelta(seconds=60)
    mirror_pause: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did.

    Attributes:
        found: expired rows.
        deleted: those that were deleted, PostgreSQL being the authority.
        settled: those that were settled, DynamoDB having deleted their items.
        refused: those that the SQL table keeps, such as by a foreign key of the team's own.
    """

    found: int = 0
    deleted: int = 0
    settled: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Progress:
    """How far a process has come with a table."""

    due_at: float = 0.0
    column: Cursor | None = None
    walk: Cursor | None = None
    walk_begun: bool = False


class Expiry:
    """Sweeps expired rows, a bounded number at a time; any number of processes may do it at once.

    Args:
        rows: PostgreSQL's expired rows.
        dynamodb: the DynamoDB side.
        settle: settles keys of a table, PostgreSQL being its mirror, as an unfinished write of this process.
        limits: how much, how often.
        clock: measures the pauses.
    """

    def __init__(
        self,
        rows: ExpiringRows,
        dynamodb: Store,
        settle: Callable[[ServedTable, Sequence[Key]], object],
        *,
        limits: SweepLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._rows = rows
        self._dynamodb = dynamodb
        self._settle = settle
        self._limits = limits or SweepLimits()
        self._clock = clock
        self._progress: dict[str, _Progress] = {}

    def sweep(
        self, table: ServedTable, attribute: str, record: ControlRecord, *, streamed: bool = False
    ) -> Swept:
        """Sweep a table, if it is due; call it as often as you like, from one thread.

        Args:
            table: the table.
            attribute: its TTL attribute.
            record: the control record that decides.
            streamed: whether a relay follows the table's stream.

        Raises:
            AuthorityMoved: PostgreSQL is not the authority any more; nothing was deleted since it moved.
            Unavailable: a side could not be reached in time.
            botocore.exceptions.ClientError: DynamoDB refuses to be read.
        """
        role = record.postgres_role if record.phase is Phase.OPEN else PostgresRole.NONE
        progress = self._progress.setdefault(table.physical, _Progress())
        left_to_the_relay = role is PostgresRole.MIRROR and streamed
        if role not in _SWEPT or left_to_the_relay or self._clock.now() < progress.due_at:
            return Swept()
        act = self._delete if role is PostgresRole.AUTHORITY else self._settle_gone
        # Before the work: a table that fails comes up again after a pause, too.
        pause = self._limits.pause if role is PostgresRole.AUTHORITY else self._limits.mirror_pause
        begun_at = self._clock.now()
        progress.due_at = begun_at + pause.total_seconds() * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        swept = Swept()
        for page in self._pages(table.physical, attribute, progress):
            swept = _sum(swept, act(table, page.rows, record))
        if progress.column is not None:
            progress.due_at = begun_at
        return swept

    def _pages(self, table: str, attribute: str, progress: _Progress) -> Iterator[ExpiredPage]:
        """What one sweep looks at; the next goes on behind it, and begins anew after the end."""
        limits = self._limits
        for _ in range(limits.batches):
            page = self._rows.by_column(table, attribute, after=progress.column, rows=limits.batch_rows)
            yield page
            progress.column = page.next
            if page.next is None:
                break
        if not progress.walk_begun:
            progress.walk, progress.walk_begun = self._rows.anywhere(table, attribute), True
        for _ in range(limits.walk_pages):
            page = self._rows.in_overflow(table, attribute, after=progress.walk, rows=limits.walk_rows)
            for begin in range(0, len(page.rows), limits.batch_rows):
                yield ExpiredPage(page.rows[begin : begin + limits.batch_rows], None)
            progress.walk = page.next
            if page.next is None:
                break

    def _delete(self, table: ServedTable, rows: Sequence[ExpiredRow], record: ControlRecord) -> Swept:
        deleted = self._rows.delete(table.physical, rows, epoch=record.epoch)
        return Swept(found=len(rows), deleted=deleted.rows, refused=deleted.refused)

    def _settle_gone(self, table: ServedTable, rows: Sequence[ExpiredRow], _record: ControlRecord) -> Swept:
        """Settle the keys whose items DynamoDB has deleted; for all others, its own deletion is to come."""
        shape = table.shape
        found = read_items(self._dynamodb, shape, [row.key for row in rows])
        present = {key_bytes(shape.keys, item) for item in found}
        gone = [row.key for row in rows if key_bytes(shape.keys, row.key) not in present]
        if gone:
            self._settle(table, gone)
        return Swept(found=len(rows), settled=len(gone))


_SWEPT = frozenset({PostgresRole.AUTHORITY, PostgresRole.MIRROR})


def _sum(one: Swept, other: Swept) -> Swept:
    return Swept(
        found=one.found + other.found,
        deleted=one.deleted + other.deleted,
        settled=one.settled + other.settled,
        refused=one.refused + other.refused,
    )
