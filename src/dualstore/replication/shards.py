"""Follows one shard of a stream: pages, checkpoints, its end, and what has been lost of it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dualstore.replication.carrier import Carrier, together
from dualstore.replication.clocks import Clock
from dualstore.replication.served import ServedTable
from dualstore.stores.streams import (
    RETENTION,
    Checkpoints,
    Gap,
    IteratorExpired,
    Page,
    PositionTrimmed,
    RogueSeen,
    ShardGone,
    ShardLease,
    Stream,
    Streams,
)

logger = logging.getLogger(__name__)

# The clocks of DynamoDB and PostgreSQL, and what "approximate" means of a record's time: far below this.
_SKEW = timedelta(minutes=1)
# Both times of DynamoDB's are whole seconds, one cut and one rounded.
_ROUNDED = timedelta(seconds=2)
# What had been read this recently cannot have been trimmed since.
_SURELY_KEPT = RETENTION - timedelta(minutes=10)
# AWS, "GetRecords": it might take multiple calls to get to a portion of the shard that contains records.
_QUIET_PAGES = 4


@dataclass(frozen=True, slots=True)
class RelayTimes:
    """How a relay paces itself.

    Attributes:
        poll: the pause between two rounds; AWS allows five reads a second of a shard, for two readers.
        lease: how long after a worker's last sign of life another one takes its shards over.
        describe: how often the shards of a stream are listed.
        propagation: a change is in the stream this long after its writer's answer, at the latest.
        mark: how often it is recorded that a shard is caught up.
        report: how often rogue changes are logged, at most.
        page_records: as many as are read at a time.
        pages: of a shard, before the next one has its turn.
        shards: as many of a table as one relay follows.
    """

    poll: timedelta = timedelta(seconds=0.3)
    lease: timedelta = timedelta(seconds=15)
    describe: timedelta = timedelta(seconds=30)
    propagation: timedelta = timedelta(seconds=1)
    mark: timedelta = timedelta(seconds=1)
    report: timedelta = timedelta(minutes=1)
    page_records: int = 1000
    pages: int = 10
    shards: int = 1000


@dataclass(slots=True)
class Position:
    """Where a relay stands in a shard.

    Attributes:
        lease: its right to be there, with the checkpoint.
        iterator: for the next page; None where one is to be asked for.
        empty_pages: how many pages in a row had no records.
        latest: when the last record that was dealt with was made.
        marked_at: when it was last recorded that the shard is caught up, by the relay's own clock.
        complained: whether it has been said that the shard ends without children.
    """

    lease: ShardLease
    iterator: str | None = None
    empty_pages: int = 0
    latest: datetime | None = None
    marked_at: float = float("-inf")
    complained: bool = False

    @property
    def lag_seconds(self) -> float:
        """The age of the last record dealt with, by the clock of the checkpoints; 0 where none follows."""
        if self.empty_pages or self.latest is None:
            return 0.0
        return max(0.0, (self.lease.leased_at - self.latest).total_seconds())

    def start_afresh(self) -> None:
        """Forget what was read ahead of the checkpoint."""
        self.iterator = None
        self.empty_pages = 0


class _TakenOver(Exception):  # noqa: N818 - named for what happened
    """Another relay has taken the shard over."""


class ShardFollower:
    """Follows the shards that a relay has leased.

    Args:
        streams: where records are read.
        checkpoints: where it is recorded how far they have been dealt with.
        carrier: deals with them.
        describe: lists the shards of a table's stream and records those that are new.
        noticed: told of rogue changes, once their records are dealt with.
        times: how much to read at a time.
        clock: the relay's own.
    """

    def __init__(
        self,
        *,
        streams: Streams,
        checkpoints: Checkpoints,
        carrier: Carrier,
        describe: Callable[[ServedTable], Stream | None],
        noticed: Callable[[ServedTable, Mapping[str, RogueSeen]], None],
        times: RelayTimes,
        clock: Clock,
    ) -> None:
        self._streams = streams
        self._checkpoints = checkpoints
        self._carrier = carrier
        self._describe = describe
        self._noticed = noticed
        self._times = times
        self._clock = clock

    def take_turn(self, table: ServedTable, position: Position) -> None:
        """Deal with some pages of a shard, while there are any.

        Raises:
            DualStoreError, botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: it went no
                further; the next turn goes on from the checkpoint.
        """
        try:
            for _ in range(self._times.pages):
                if not self._page(table, position):
                    return
        except _TakenOver:
            position.start_afresh()
        except BaseException:
            position.start_afresh()
            raise

    def _page(self, table: ServedTable, position: Position) -> bool:
        """Read a page and deal with it; True where another one is to be read at once."""
        asked_at = position.lease.leased_at
        page = self._read(table, position)
        if page is None:
            return False
        if page.records:
            self._carry(table, position, page)
        position.iterator = page.iterator
        if page.iterator is None:
            self._end(table, position)
            return False
        position.empty_pages = 0 if page.records else position.empty_pages + 1
        if position.empty_pages >= _QUIET_PAGES:
            self._mark_caught_up(position, asked_at - self._times.propagation)
        return position.empty_pages < _QUIET_PAGES

    def _read(self, table: ServedTable, position: Position) -> Page | None:
        try:
            if position.iterator is None:
                position.iterator = self._iterator(position.lease)
            return self._streams.page(position.iterator, limit=self._times.page_records)
        except IteratorExpired:
            position.start_afresh()
        except PositionTrimmed:
            self._start_at_oldest(table, position)
        except ShardGone:
            position.start_afresh()
            self._describe(table)
        return None

    def _iterator(self, lease: ShardLease) -> str:
        if lease.sequence is None and lease.unread_for >= RETENTION:
            raise PositionTrimmed("nobody has read the shard for a day")
        return self._streams.iterator(lease.stream_arn, lease.shard_id, after=lease.sequence)

    def _start_at_oldest(self, table: ServedTable, position: Position) -> None:
        """The checkpoint's place is gone: go on with what is left."""
        lease = position.lease
        if lease.unread_for >= _SURELY_KEPT:
            place = f"{lease.stream_arn} {lease.shard_id} {lease.sequence}"
            self._carrier.gap(table, place, Gap.TRIMMED)
        position.lease = _still_ours(self._checkpoints.restart(lease))
        position.start_afresh()

    def _carry(self, table: ServedTable, position: Position, page: Page) -> None:
        lease = position.lease
        carried = self._carrier.carry(table, page.records)
        if carried.done:
            latest = page.records[carried.done - 1]
            # A busy shard never answers empty; the times of its records tell how far it has been followed.
            known = _by_the_clock_of(lease, latest.created_at, page.answered_at)
            caught_up_at = min(known, lease.leased_at - self._times.propagation)
            rogues = together(lease.rogues, carried.rogues)
            advanced = self._checkpoints.advance(lease, latest.sequence, rogues, caught_up_at=caught_up_at)
            position.lease = _still_ours(advanced)
            position.latest = latest.created_at
            self._noticed(table, carried.rogues)
        if carried.failure is not None:
            raise carried.failure

    def _mark_caught_up(self, position: Position, at: datetime) -> None:
        now = self._clock.now()
        if now - position.marked_at >= self._times.mark.total_seconds():
            position.lease = _still_ours(self._checkpoints.mark_caught_up(position.lease, at))
            position.marked_at = now

    def _end(self, table: ServedTable, position: Position) -> None:
        """A closed shard is done once its children are recorded: else nobody knew that there is more."""
        lease = position.lease
        stream = self._describe(table)
        position.start_afresh()
        if stream is None:
            return
        has_children = any(shard.parent_id == lease.shard_id for shard in stream.shards)
        if has_children or not stream.enabled:
            self._checkpoints.finish(lease)
        elif not position.complained:
            position.complained = True
            logger.warning(
                "Shard %s of %s has ended, and its stream names none that follows; the relay looks again",
                lease.shard_id,
                table.logical,
            )


def _by_the_clock_of(lease: ShardLease, created_at: datetime, answered_at: datetime | None) -> datetime:
    """A record's time by the clock of the checkpoints, or a moment before it.

    DynamoDB's own time of the answer gives the difference of the clocks: the lease was renewed before that.
    """
    if answered_at is None:
        return created_at - _SKEW
    return created_at + (lease.leased_at - answered_at) - _ROUNDED


def _still_ours(lease: ShardLease | None) -> ShardLease:
    if lease is None:
        raise _TakenOver
    return lease
