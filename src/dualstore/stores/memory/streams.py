"""Streams and checkpoints in memory: the models that DynamoDB's and PostgreSQL's are tested against."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import RLock
from zlib import crc32

from dualstore.items import Item, Key, TableShape, key_bytes
from dualstore.stores.memory.tables import detached
from dualstore.stores.streams import (
    NO_SHARD,
    RETENTION,
    Change,
    IteratorExpired,
    Page,
    PositionTrimmed,
    RogueSeen,
    Shard,
    ShardGone,
    ShardLease,
    ShardRow,
    Stream,
    StreamRecord,
)

_HASHES = 1 << 32  # of crc32


def _wall_clock() -> datetime:
    return datetime.now(UTC)


@dataclass
class _Shard:
    id: str
    parent_id: str | None
    hashes: range
    records: list[StreamRecord] = field(default_factory=list)
    trimmed_to: int = 0
    closed_at: datetime | None = None


@dataclass
class _Stream:
    arn: str
    created_at: datetime
    enabled: bool = True
    enabling: bool = False
    listed: bool = True
    shards: dict[str, _Shard] = field(default_factory=dict)


class MemoryStreams:
    """Streams of tables in memory, with shards that split, records that are trimmed, iterators that expire.

    Args:
        clock: stamps the records.
        empty_pages: how many pages without records lead to those that a new iterator is for. AWS,
            "GetRecords": it might take multiple calls to get to a portion of the shard that contains records.
    """

    def __init__(self, *, clock: Callable[[], datetime] = _wall_clock, empty_pages: int = 0) -> None:
        self._clock = clock
        self._empty_pages = empty_pages
        self._streams: dict[str, _Stream] = {}
        self._numbers = count(1)
        self._iterators: dict[str, tuple[str, str, int, int]] = {}
        self._lock = RLock()

    def enable(self, table: str, *, shards: int = 1) -> None:
        """Switch the stream of a table on, afresh."""
        with self._lock:
            stream = _Stream(
                f"arn:aws:dynamodb:memory:0:table/{table}/stream/{next(self._numbers)}", self._clock()
            )
            self._add_shards(stream, None, range(_HASHES), shards)
            self._streams[table] = stream

    def replace(self, table: str, *, enabling: bool = False) -> None:
        """Switch it on afresh, its shards not listed before `list_shards`."""
        with self._lock:
            self.enable(table)
            stream = self._streams[table]
            stream.enabling, stream.listed = enabling, False

    def complete(self, table: str) -> None:
        """Be done with switching it on."""
        with self._lock:
            self._streams[table].enabling = False

    def list_shards(self, table: str) -> None:
        """Have its shards listed from now on."""
        with self._lock:
            self._streams[table].listed = True

    def disable(self, table: str) -> None:
        """Switch it off: its shards are closed, and may still be read."""
        with self._lock:
            stream = self._streams[table]
            stream.enabled = False
            for shard in stream.shards.values():
                shard.closed_at = shard.closed_at or self._clock()

    def write(
        self,
        shape: TableShape,
        key: Key,
        *,
        new: Item | None,
        old: Item | None,
        is_ttl_deletion: bool = False,
    ) -> None:
        """Take down a change; nothing where there is none, as in AWS."""
        if new == old:
            return
        change = Change.INSERT if old is None else Change.REMOVE if new is None else Change.MODIFY
        with self._lock:
            stream = self._streams[shape.name]
            place = crc32(key_bytes(shape.keys, key))
            (shard,) = (s for s in stream.shards.values() if s.closed_at is None and place in s.hashes)
            shard.records.append(
                StreamRecord(
                    sequence=f"{next(self._numbers):021}",
                    change=change,
                    key=detached(key),
                    new_image=detached(new),
                    old_image=detached(old),
                    created_at=self._clock(),
                    is_ttl_deletion=is_ttl_deletion,
                )
            )

    def split(self, table: str, *, into: int = 2) -> None:
        """Close every open shard, and share its keys out among so many children."""
        with self._lock:
            stream = self._streams[table]
            for shard in [shard for shard in stream.shards.values() if shard.closed_at is None]:
                shard.closed_at = self._clock()
                self._add_shards(stream, shard.id, shard.hashes, into)

    def trim(self, table: str, *, before: datetime | None = None) -> None:
        """Drop the records made before a moment (all, where none is named), and closed shards left empty."""
        with self._lock:
            stream = self._streams[table]
            for shard in list(stream.shards.values()):
                kept = [r for r in shard.records if before is not None and r.created_at >= before]
                shard.trimmed_to += len(shard.records) - len(kept)
                shard.records = kept
                long_closed = shard.closed_at is not None and (before is None or shard.closed_at < before)
                if long_closed and not kept:
                    del stream.shards[shard.id]

    def expire_iterators(self) -> None:
        """Let a quarter of an hour pass for every iterator."""
        with self._lock:
            self._iterators.clear()

    def stream_of(self, table: str) -> Stream | None:
        """The latest stream of a table (see `Streams.stream_of`)."""
        with self._lock:
            stream = self._streams.get(table)
            if stream is None:
                return None
            shards = tuple(Shard(s.id, s.parent_id) for s in stream.shards.values() if stream.listed)
            return Stream(
                stream.arn,
                stream.enabled,
                stream.created_at,
                "NEW_AND_OLD_IMAGES",
                shards,
                enabling=stream.enabling,
            )

    def iterator(self, stream_arn: str, shard_id: str, *, after: str | None) -> str:
        """Where to read on in a shard (see `Streams.iterator`)."""
        with self._lock:
            shard = self._shard(stream_arn, shard_id)
            if after is None:
                return self._iterator(stream_arn, shard_id, shard.trimmed_to, self._empty_pages)
            sequences = [record.sequence for record in shard.records]
            if after not in sequences:
                raise PositionTrimmed("GetShardIterator: TrimmedDataAccessException")
            position = shard.trimmed_to + sequences.index(after) + 1
            return self._iterator(stream_arn, shard_id, position, self._empty_pages)

    def page(self, iterator: str, *, limit: int) -> Page:
        """Read some records (see `Streams.page`)."""
        with self._lock:
            if iterator not in self._iterators:
                raise IteratorExpired("GetRecords: ExpiredIteratorException")
            stream_arn, shard_id, position, empty_pages = self._iterators[iterator]
            shard = self._shard(stream_arn, shard_id)
            if empty_pages:
                return Page([], self._iterator(stream_arn, shard_id, position, empty_pages - 1))
            if position < shard.trimmed_to:
                raise PositionTrimmed("GetRecords: TrimmedDataAccessException")
            start = position - shard.trimmed_to
            records = [_copied(record) for record in shard.records[start : start + limit]]
            at_end = start + len(records) == len(shard.records)
            if at_end and shard.closed_at is not None:
                return Page(records, None)
            return Page(records, self._iterator(stream_arn, shard_id, position + len(records), 0))

    def _add_shards(self, stream: _Stream, parent_id: str | None, hashes: range, number: int) -> None:
        for part in range(number):
            share = hashes[len(hashes) * part // number : len(hashes) * (part + 1) // number]
            name = f"shardId-{next(self._numbers):020}-00000000"
            stream.shards[name] = _Shard(name, parent_id, share)

    def _shard(self, stream_arn: str, shard_id: str) -> _Shard:
        for stream in self._streams.values():
            if stream.arn == stream_arn and shard_id in stream.shards:
                return stream.shards[shard_id]
        raise ShardGone("GetShardIterator: ResourceNotFoundException")

    def _iterator(self, *place: *tuple[str, str, int, int]) -> str:
        name = f"iterator-{next(self._numbers)}"
        self._iterators[name] = place
        return name


def _copied(record: StreamRecord) -> StreamRecord:
    return replace(
        record,
        key=detached(record.key),
        new_image=detached(record.new_image),
        old_image=detached(record.old_image),
    )


@dataclass
class _Row:
    row: ShardRow
    updated_at: datetime
    holder: str | None = None
    token: int = 0
    until: datetime | None = None
    rogues: Mapping[str, RogueSeen] = field(default_factory=dict)


class MemoryCheckpoints:
    """Checkpoints in memory (see `Checkpoints`).

    Args:
        clock: measures everything.
    """

    def __init__(self, *, clock: Callable[[], datetime] = _wall_clock) -> None:
        self.now = clock
        self._rows: dict[str, dict[tuple[str, str], _Row]] = {}
        self._lock = RLock()

    def rows(self, table: str) -> Sequence[ShardRow]:
        """Every shard of a table that is recorded."""
        with self._lock:
            return [kept.row for _, kept in sorted(self._rows.get(table, {}).items())]

    def register(self, table: str, stream_arn: str, shards: Sequence[Shard]) -> None:
        """Record shards that are to be followed (see `Checkpoints.register`)."""
        with self._lock:
            kept = self._rows.setdefault(table, {})
            ours = [place for place in kept if place[0] == stream_arn]
            unread_since = kept[ours[0]].updated_at if ours == [(stream_arn, NO_SHARD)] else self.now()
            for shard in shards:
                parent = kept.get((stream_arn, shard.parent_id or ""))
                known = None if parent is None else parent.row.caught_up_at
                row = ShardRow(stream_arn, shard.id, shard.parent_id, None, open=True, caught_up_at=known)
                kept.setdefault((stream_arn, shard.id), _Row(row, unread_since))
            if any(each.row.open for each in kept.values()):
                oldest = self.now() - 2 * RETENTION
                for place in [
                    p for p, each in kept.items() if not each.row.open and each.updated_at < oldest
                ]:
                    del kept[place]

    def note_unlisted(self, table: str, stream_arn: str) -> None:
        """Record that a stream was seen that lists no shard yet (see `Checkpoints.note_unlisted`)."""
        with self._lock:
            row = ShardRow(stream_arn, NO_SHARD, None, None, open=False, caught_up_at=None)
            self._rows.setdefault(table, {}).setdefault((stream_arn, NO_SHARD), _Row(row, self.now()))

    def write_off(self, table: str, stream_arn: str, shard_ids: Sequence[str]) -> None:
        """Give shards up that nobody can read any more."""
        with self._lock:
            for shard_id in shard_ids:
                kept = self._rows[table][stream_arn, shard_id]
                kept.row, kept.holder = replace(kept.row, open=False), None
                kept.updated_at = self.now()

    def lease(
        self, table: str, stream_arn: str, holder: str, *, limit: int, duration: timedelta
    ) -> Sequence[ShardLease]:
        """Renew a worker's shards, and let it take over others (see `Checkpoints.lease`)."""
        with self._lock:
            now = self.now()
            kept = self._rows.get(table, {})
            ready = {
                shard: each
                for (arn, shard), each in kept.items()
                if arn == stream_arn and each.row.open and not _is_open(kept, arn, each.row.parent_id)
            }
            mine = [each for each in ready.values() if each.holder == holder]
            free = [each for each in ready.values() if each.holder is None or (each.until or now) < now]
            taken = [each for each in free if each.holder != holder][: max(0, limit - len(mine))]
            if not taken and len(mine) < limit:
                taken = _one_of_the_busiest(ready, holder, len(mine))
            for each in taken:
                each.holder, each.token = holder, each.token + 1
            for each in (*mine, *taken):
                each.until = now + duration
            return [
                self._lease(table, holder, each, duration)
                for _, each in sorted(ready.items())
                if each.holder == holder
            ]

    def advance(
        self, lease: ShardLease, sequence: str, rogues: Mapping[str, RogueSeen], *, caught_up_at: datetime
    ) -> ShardLease | None:
        """Record that all up to a record was dealt with (see `Checkpoints.advance`)."""
        with self._lock:
            if (kept := self._mine(lease)) is None:
                return None
            at = max(caught_up_at, kept.row.caught_up_at or caught_up_at)
            kept.row, kept.rogues = replace(kept.row, sequence=sequence, caught_up_at=at), dict(rogues)
            return self._renewed(lease, kept)

    def mark_caught_up(self, lease: ShardLease, at: datetime) -> ShardLease | None:
        """Record that every change made before a moment was dealt with; never moves back."""
        with self._lock:
            if (kept := self._mine(lease)) is None:
                return None
            kept.row = replace(kept.row, caught_up_at=max(at, kept.row.caught_up_at or at))
            return self._renewed(lease, kept)

    def restart(self, lease: ShardLease) -> ShardLease | None:
        """Forget the position in a shard, and what was known of the time before it."""
        with self._lock:
            if (kept := self._mine(lease)) is None:
                return None
            kept.row = replace(kept.row, sequence=None, caught_up_at=None)
            return self._renewed(lease, kept)

    def finish(self, lease: ShardLease) -> bool:
        """Record that a closed shard was followed to its end."""
        with self._lock:
            if (kept := self._mine(lease)) is None:
                return False
            kept.row, kept.updated_at = replace(kept.row, open=False), self.now()
            return True

    def release(self, holder: str) -> None:
        """Give back whatever a worker holds."""
        with self._lock:
            for kept in self._rows.values():
                for each in kept.values():
                    if each.holder == holder:
                        each.holder = None

    def drained_since(self, table: str, moment: datetime) -> bool:
        """Whether every change that was made before a moment was dealt with."""
        waiting = [row.caught_up_at for row in self.rows(table) if row.open]
        return bool(waiting) and all(at is not None and at >= moment for at in waiting)

    def rogues(self, table: str) -> Mapping[str, RogueSeen]:
        """What was seen in the shards that are still recorded, by kind."""
        seen: dict[str, RogueSeen] = {}
        with self._lock:
            for each in self._rows.get(table, {}).values():
                for kind, one in each.rogues.items():
                    first, second = sorted((one, seen.get(kind, one)), key=lambda rogue: rogue.last_at)
                    seen[kind] = first.and_then(second) if kind in seen else one
        return seen

    def _mine(self, lease: ShardLease) -> _Row | None:
        kept = self._rows[lease.table][lease.stream_arn, lease.shard_id]
        held = kept.row.open and (kept.holder, kept.token) == (lease.holder, lease.token)
        return kept if held else None

    def _renewed(self, lease: ShardLease, kept: _Row) -> ShardLease:
        kept.updated_at = self.now()
        kept.until = kept.updated_at + lease.duration
        return self._lease(lease.table, lease.holder, kept, lease.duration)

    def _lease(self, table: str, holder: str, kept: _Row, duration: timedelta) -> ShardLease:
        row, now = kept.row, self.now()
        return ShardLease(
            table,
            row.stream_arn,
            row.shard_id,
            holder,
            kept.token,
            duration,
            row.sequence,
            now - (row.caught_up_at or kept.updated_at),
            leased_at=now,
            rogues=kept.rogues,
        )


def _is_open(kept: Mapping[tuple[str, str], _Row], arn: str, shard_id: str | None) -> bool:
    parent = kept.get((arn, shard_id or ""))
    return parent is not None and parent.row.open


def _one_of_the_busiest(ready: Mapping[str, _Row], holder: str, mine: int) -> list[_Row]:
    held: dict[str, list[_Row]] = {}
    for each in ready.values():
        if each.holder not in {None, holder}:
            held.setdefault(each.holder or "", []).append(each)
    most = max(held.values(), key=len, default=[])
    return most[:1] if len(most) >= mine + 2 else []
