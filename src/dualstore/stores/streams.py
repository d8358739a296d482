"""The stream of a table's changes: what is read from it, and how far it has been followed.

DynamoDB Streams keep each change for a day, in shards: the records of one key come in order, a shard's before
those of its children. AWS, "Change data capture for DynamoDB Streams".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from dualstore.errors import DualStoreError
from dualstore.items import STAMP, Item, Key

RETENTION = timedelta(hours=24)
"""How long a record is kept; later it may be gone at any time."""

NO_SHARD = "none listed"
"""What stands for a stream in the place of a shard: it was seen when it listed none (`note_unlisted`)."""


class PositionTrimmed(DualStoreError):  # noqa: N818 - named for what happened
    """The records that follow a position of a shard are gone, or some of them."""


class IteratorExpired(DualStoreError):  # noqa: N818 - named for what happened
    """An iterator was not used within its 15 minutes; another one leads to the same place."""


class ShardGone(DualStoreError):  # noqa: N818 - named for what happened
    """The stream has no such shard, or there is no such stream any more."""


class Change(StrEnum):
    """What a record tells of its item."""

    INSERT = "INSERT"
    MODIFY = "MODIFY"
    REMOVE = "REMOVE"


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One change of one item.

    Attributes:
        sequence: its place in its shard, for checkpoints.
        change: what happened.
        key: the primary key.
        new_image: the item afterwards; None where it was removed, or the stream does not say.
        old_image: the item before; None where there was none, or the stream does not say.
        created_at: when, approximately, by DynamoDB's clock.
        is_ttl_deletion: whether DynamoDB itself removed the item because it had expired.
    """

    sequence: str
    change: Change
    key: Key
    new_image: Item | None
    old_image: Item | None
    created_at: datetime
    is_ttl_deletion: bool = False

    @property
    def new_stamp(self) -> bytes | None:
        """The stamp of the write that made the item, or None."""
        return _stamp(self.new_image)

    @property
    def old_stamp(self) -> bytes | None:
        """The stamp of the write that this change replaced, or None."""
        return _stamp(self.old_image)


def _stamp(image: Item | None) -> bytes | None:
    stamp: bytes | None = None if image is None else image.get(STAMP, {}).get("B")
    return stamp


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a stream; its records come after all those of its parent."""

    id: str
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """The latest stream of a table.

    Attributes:
        arn: names it; a stream that is switched off and on again is another one.
        enabled: whether changes still go into it.
        created_at: when it began.
        view_type: what its records hold, such as `NEW_AND_OLD_IMAGES`.
        shards: those that hold records, and those that may.
        enabling: whether it is still being switched on: what is written meanwhile may not go into it.
    """

    arn: str
    enabled: bool
    created_at: datetime
    view_type: str
    shards: tuple[Shard, ...]
    enabling: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Some records of a shard, in order; possibly none although more follow.

    Attributes:
        records: what was read.
        iterator: for what follows; None where the shard is closed and this was its end.
        answered_at: when DynamoDB answered, by the clock of the records, cut to a second; None: not known.
    """

    records: Sequence[StreamRecord]
    iterator: str | None
    answered_at: datetime | None = None


class Streams(Protocol):
    """Where changes are read."""

    def stream_of(self, table: str) -> Stream | None:
        """The latest stream of a table, with all its shards, or None where there is none."""
        ...

    def iterator(self, stream_arn: str, shard_id: str, *, after: str | None) -> str:
        """Where to read on in a shard.

        Args:
            stream_arn: the stream.
            shard_id: the shard.
            after: the sequence number of the last record that was dealt with; None for the oldest kept.

        Raises:
            PositionTrimmed: records that follow it may be gone.
            ShardGone: there is no such shard.
        """
        ...

    def page(self, iterator: str, *, limit: int) -> Page:
        """Read up to so many records, and no more than 1 MB.

        Raises:
            IteratorExpired, PositionTrimmed, ShardGone: see there.
        """
        ...


@dataclass(frozen=True, slots=True)
class RogueSeen:
    """Changes of one kind that did not go through dualstore.

    Attributes:
        count: how many.
        key_hash: `items.key_hash` of the latest one's key.
        last_at: when that was, by DynamoDB's clock.
    """

    count: int
    key_hash: str
    last_at: datetime

    def and_then(self, later: "RogueSeen") -> "RogueSeen":
        """Both together; `later` is the newer one."""
        return RogueSeen(self.count + later.count, later.key_hash, later.last_at)


@dataclass(frozen=True, slots=True)
class ShardRow:
    """How far a shard has been followed, as it is recorded.

    Attributes:
        stream_arn: its stream.
        shard_id: the shard.
        parent_id: its parent, or None.
        sequence: of the last record that was dealt with; None before the first.
        open: whether there may be more.
        caught_up_at: every change that was made before then has been dealt with; None: not known.
    """

    stream_arn: str
    shard_id: str
    parent_id: str | None
    sequence: str | None
    open: bool
    caught_up_at: datetime | None


@dataclass(frozen=True, slots=True)
class ShardLease:
    """The right to follow one shard; under an older `token` nothing can be recorded.

    Attributes:
        table: the table's physical name.
        stream_arn: the stream.
        shard_id: the shard.
        holder: names the worker.
        token: counts the changes of holder.
        duration: of the lease, from its last sign of life.
        sequence: of the last record that was dealt with; None before the first.
        unread_for: how long ago everything is known to have been read, or the shard was first recorded.
        leased_at: when it was taken or renewed, by the clock of the checkpoints.
        rogues: what has been seen in it, by kind.
    """

    table: str
    stream_arn: str
    shard_id: str
    holder: str
    token: int
    duration: timedelta
    sequence: str | None
    unread_for: timedelta
    leased_at: datetime
    rogues: Mapping[str, RogueSeen] = field(default_factory=dict)


class Checkpoints(Protocol):
    """How far streams have been followed, for any number of workers; durable, with one clock for all."""

    def now(self) -> datetime:
        """The clock by which everything here is measured."""
        ...

    def rows(self, table: str) -> Sequence[ShardRow]:
        """Every shard of a table that was ever recorded and not pruned."""
        ...

    def register(self, table: str, stream_arn: str, shards: Sequence[Shard]) -> None:
        """Record shards that are to be followed; harmless for those that are recorded.

        What is known to have been read of a parent is known of its child.
        """
        ...

    def note_unlisted(self, table: str, stream_arn: str) -> None:
        """Record that a stream was seen that lists no shard yet: a row that nobody follows, `NO_SHARD`."""
        ...

    def write_off(self, table: str, stream_arn: str, shard_ids: Sequence[str]) -> None:
        """Give shards up that nobody can read any more."""
        ...

    def lease(
        self, table: str, stream_arn: str, holder: str, *, limit: int, duration: timedelta
    ) -> Sequence[ShardLease]:
        """Renew a worker's shards, and let it take over others, up to so many in all.

        Only shards whose parents are done are given out: those that nobody holds, else one of the worker
        that holds at least two more than this one.
        """
        ...

    def advance(
        self, lease: ShardLease, sequence: str, rogues: Mapping[str, RogueSeen], *, caught_up_at: datetime
    ) -> ShardLease | None:
        """Record that all up to a record was dealt with, and renew; None where somebody else took over.

        Args:
            lease: as it was last returned.
            sequence: the record's.
            rogues: all that has been seen in the shard.
            caught_up_at: every change that was made before then has been dealt with.
        """
        ...

    def mark_caught_up(self, lease: ShardLease, at: datetime) -> ShardLease | None:
        """Record that every change made before a moment was dealt with; None as in `advance`."""
        ...

    def restart(self, lease: ShardLease) -> ShardLease | None:
        """Forget the position in a shard: it goes on with the oldest record kept; None as in `advance`."""
        ...

    def finish(self, lease: ShardLease) -> bool:
        """Record that a closed shard was followed to its end; False as `advance` returns None."""
        ...

    def release(self, holder: str) -> None:
        """Give back whatever a worker holds."""
        ...

    def drained_since(self, table: str, moment: datetime) -> bool:
        """Whether every change that was made before a moment, by the clock of `now`, was dealt with."""
        ...

    def rogues(self, table: str) -> Mapping[str, RogueSeen]:
        """What was seen in the shards that are still recorded (those of the last days), by kind."""
        ...


class Gap(StrEnum):
    """Why changes may be missing from what was read of a stream."""

    TRIMMED = "trimmed"
    """The records after a checkpoint are past their day."""
    VANISHED = "vanished"
    """A shard is gone that was not read to its end."""
    UNLINKED = "unlinked"
    """A shard follows others that nobody has heard of."""
    REPLACED = "replaced"
    """The stream was switched off and on again; what was written meanwhile is in neither."""
    BEGAN_LATE = "began_late"
    """A process had ended without finishing before the stream told, or was followed."""
    UNRECORDED = "unrecorded"
    """A key could neither be settled nor recorded as doubtful."""


@dataclass(frozen=True, slots=True)
class Reshaping:
    """What a description of a stream adds to what is recorded of its table.

    Attributes:
        added: shards to follow.
        lost: shards that have vanished before they were followed to their end.
        gaps: where records may be missing (a shard, or the stream), and why.
        begins: whether the table has not been followed before.
    """

    added: tuple[Shard, ...]
    lost: tuple[tuple[str, str], ...]
    gaps: Mapping[str, Gap]
    begins: bool


def reshaping(rows: Sequence[ShardRow], stream: Stream) -> Reshaping:
    """Compare what is recorded of a table with its stream as it is described now."""
    ours = {row.shard_id for row in rows if row.stream_arn == stream.arn}
    listed = {shard.id for shard in stream.shards}
    added = tuple(shard for shard in stream.shards if shard.id not in ours)
    lost = [
        (row.stream_arn, row.shard_id)
        for row in rows
        if row.open and (row.stream_arn != stream.arn or row.shard_id not in listed)
    ]
    gaps = {shard: Gap.VANISHED for arn, shard in lost if arn == stream.arn}
    if rows and not ours:
        gaps[stream.arn] = Gap.REPLACED
    elif rows:
        known = ours | listed
        gaps |= {shard.id: Gap.UNLINKED for shard in added if (shard.parent_id or shard.id) not in known}
    return Reshaping(added, tuple(lost), gaps, begins=not rows)
