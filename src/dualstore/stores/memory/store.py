"""A complete store in memory: the model that the other stores are tested against."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any

from dualstore.control import PostgresRole, Stop
from dualstore.errors import MirrorDirty, MirrorFenced, RequestRejected, UnsupportedOperation, client_error
from dualstore.items import PREDECESSOR, Item, Key, TableShape, key_bytes, normalized_item
from dualstore.operations import BatchGetItem, GetItem, Operation, Query, Response
from dualstore.stages import Side
from dualstore.stores import semantics
from dualstore.stores.base import DirtyKey, MirrorState, Revision, SettledWrite
from dualstore.stores.memory.operations import ItemStore
from dualstore.stores.memory.tables import Table, detached, stamp_of


@dataclass(frozen=True, slots=True)
class _Fence:
    """What passes: writes that were decided under this epoch, where the store had this role."""

    epoch: int
    role: PostgresRole


@dataclass(slots=True)
class _KeyLock:
    lock: Any = field(default_factory=RLock)
    users: int = 0


class MemoryStore(ItemStore):
    """All operations of DynamoDB on items in memory, and the mirror protocol; safe across threads.

    Whoever holds a key's lock may wait for the store's, never the other way round.

    Args:
        shapes: of the tables, by physical name; a table may be added later.
        side: which side it stands for.
        monotonic: the clock by which a ClientRequestToken is forgotten after ten minutes, in seconds.
    """

    def __init__(
        self,
        shapes: Mapping[str, TableShape],
        *,
        side: Side = Side.DYNAMODB,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(shapes, side=side, monotonic=monotonic)
        self._key_locks: dict[tuple[str, bytes], _KeyLock] = {}
        self._dirty: dict[tuple[str, bytes], DirtyKey] = {}
        self._fences: dict[str, _Fence] = {}
        self.stops: dict[str, Stop] = {}

    def raise_fence(self, table: str, *, epoch: int, role: PostgresRole) -> None:
        """From now on only writes of this epoch and role pass (see `Fence.raise_fence`).

        Before the first fence of a table every mirror write passes.
        """
        with self._lock:
            fence = self._fences.get(table)
            if fence is None or fence.epoch < epoch:
                self._fences[table] = _Fence(epoch, role)

    def set_fence(self, table: str, *, epoch: int, role: PostgresRole) -> None:
        """From now on only writes of this epoch and role pass, whatever stood before."""
        with self._lock:
            self._fences[table] = _Fence(epoch, role)

    def fence_of(self, table: str) -> tuple[int, PostgresRole] | None:
        """The epoch and role that pass, or None where everything does."""
        with self._lock:
            fence = self._fences.get(table)
            return None if fence is None else (fence.epoch, fence.role)

    def write_direct(
        self, table: str, key: Key, image: Item | None, *, stamp: bytes, predecessor: bytes | None, epoch: int
    ) -> bool:
        """Write an acknowledged image, but only onto its predecessor (see `Mirror.write_direct`)."""
        with self.locked(table, key), self._lock:
            self._pass_fence(table, epoch)
            held = self._table(table)
            raw = key_bytes(held.shape.keys, key)
            state = held.state(raw)
            if _shows(state, image, stamp=stamp, predecessor=predecessor):
                return True
            if not _is_predecessor(state, image, predecessor):
                return False
            _mirror(held, raw, image)
            return True

    def state(self, table: str, key: Key) -> MirrorState:
        """Row, tombstone and revision of one key, at one moment."""
        with self._lock:
            held = self._table(table)
            return _detached_state(held.state(key_bytes(held.shape.keys, key)))

    def write_settled(self, table: str, key: Key, image: Item | None, *, seen: Revision, epoch: int) -> bool:
        """Write what the authority said, if the key is still as it was seen (see `Mirror.write_settled`)."""
        return self.write_settled_together([SettledWrite(table, key, image, seen, epoch)])

    def write_settled_together(self, writes: Sequence[SettledWrite], *, token: str | None = None) -> bool:
        """As `write_settled` for several keys, all or none (see `Mirror.write_settled_together`)."""
        with ExitStack() as locks:
            for write in sorted(writes, key=lambda write: (write.table, self._raw(write))):
                locks.enter_context(self.locked(write.table, write.key))
            locks.enter_context(self._lock)
            for write in writes:
                self._pass_fence(write.table, write.epoch)
            places = [(self._table(write.table), self._raw(write), write) for write in writes]
            if any(held.state(raw).revision != write.seen for held, raw, write in places):
                return False
            for held, raw, write in places:
                _mirror(held, raw, write.image)
            if token is not None:
                self._remember(token)
            return True

    @contextmanager
    def locked(self, table: str, key: Key) -> Iterator[None]:
        """Hold the key's lock; the same thread may hold it several times."""
        with self._lock:
            name = table, key_bytes(self._table(table).shape.keys, key)
            entry = self._key_locks.setdefault(name, _KeyLock())
            entry.users += 1
        try:
            with entry.lock:
                yield
        finally:
            with self._lock:
                entry.users -= 1
                if not entry.users:
                    del self._key_locks[name]

    def execute_as_mirror(self, operation: Operation) -> Response:
        """Carry out a read, unless the keys it covers are in doubt (see `Mirror.execute_as_mirror`)."""
        if not operation.reads:
            raise UnsupportedOperation(f"a mirror answers reads only; send {operation.name} to the authority")
        with self._lock:
            try:
                in_doubt = not operation.tables.isdisjoint(self.stops) or self._covers_doubt(operation)
                if not in_doubt and isinstance(operation, BatchGetItem):
                    return self._batch_get_undoubted(operation)
            except RequestRejected as rejected:
                raise client_error(operation.name, rejected) from None
            if in_doubt:
                raise MirrorDirty(f"{operation.name} covers a key that is in doubt; ask the authority")
            return self.execute(operation)

    def _covers_doubt(self, operation: Operation) -> bool:
        """Whether a read must not be answered; a BatchGetItem leaves out its keys in doubt instead."""
        if isinstance(operation, BatchGetItem):
            return False
        if isinstance(operation, GetItem):
            raw = key_bytes(self._table(operation.table).shape.keys, operation.key)
            return (operation.table, raw) in self._dirty
        if isinstance(operation, Query):
            partition = semantics.plan(operation, self._table_of(operation).shape).partition or b""
            return any(name == operation.table and raw.startswith(partition) for name, raw in self._dirty)
        return any(name in operation.tables for name, _ in self._dirty)

    def _batch_get_undoubted(self, operation: BatchGetItem) -> Response:
        gets = semantics.batch_gets(operation, self._shapes)
        raw = [(get.table, key_bytes(self._table(get.table).shape.keys, get.key)) for get in gets]
        in_doubt = [key in self._dirty for key in raw]
        return detached(semantics.batch_get_response(operation, gets, self._items(gets), in_doubt=in_doubt))

    def mark_dirty(self, table: str, key: Key, *, nonce: str, reason: str) -> None:  # noqa: ARG002
        """Record that a key is in doubt (see `Mirror.mark_dirty`)."""
        with self._lock:
            held = self._table(table)
            doubt = DirtyKey(table=table, key=detached(key), nonce=nonce, since=time.time())
            self._dirty[table, key_bytes(held.shape.keys, key)] = doubt

    def clear_dirty(self, table: str, key: Key, *, nonce: str) -> bool:
        """Clear a doubt if it is still this one; True when it was."""
        with self._lock:
            name = table, key_bytes(self._table(table).shape.keys, key)
            doubt = self._dirty.get(name)
            if doubt is None or doubt.nonce != nonce:
                return False
            del self._dirty[name]
            return True

    def dirty_keys(self, table: str, *, limit: int = 1000) -> Sequence[DirtyKey]:
        """The doubts recorded for a table, oldest first."""
        with self._lock:
            doubts = [doubt for (name, _), doubt in self._dirty.items() if name == table]
        oldest = sorted(doubts, key=lambda doubt: doubt.since)[:limit]
        return [replace(doubt, key=detached(doubt.key)) for doubt in oldest]

    def items_of(self, table: str, keys: Iterable[Key]) -> Mapping[bytes, MirrorState]:
        """The states of many keys, by `items.key_bytes`; those with neither row nor tombstone left out."""
        with self._lock:
            held = self._table(table)
            states = {raw: held.state(raw) for raw in (key_bytes(held.shape.keys, key) for key in keys)}
        return {
            raw: _detached_state(state)
            for raw, state in states.items()
            if state.revision.row is not None or state.revision.tombstone is not None
        }

    def all_items(self, table: str, *, page_items: int = 1000) -> Iterator[Sequence[Item]]:
        """Every item, page after page, by partition key, then sort key."""
        with self._lock:
            held = self._table(table)
            keys = held.keys_in_order()
        for start in range(0, len(keys), page_items):
            with self._lock:
                items = [held.item(key) for key in keys[start : start + page_items]]
            yield [detached(item) for item in items if item is not None]

    def _pass_fence(self, table: str, epoch: int) -> None:
        fence = self._fences.get(table)
        if fence is not None and fence != _Fence(epoch, PostgresRole.MIRROR):
            raise MirrorFenced(
                f"this store is not the mirror of {table!r} at epoch {epoch}; read the control record of the "
                "authority, and decide again"
            )

    def _raw(self, write: SettledWrite) -> bytes:
        return key_bytes(self._table(write.table).shape.keys, write.key)


def _detached_state(state: MirrorState) -> MirrorState:
    return replace(state, item=detached(state.item))


def _shows(state: MirrorState, image: Item | None, *, stamp: bytes, predecessor: bytes | None) -> bool:
    """Whether a write has been mirrored already.

    Each stamp is replaced by one write at most. So where a tombstone names the stamp that a deletion
    replaced, it was this deletion that the mirror has seen.
    """
    if image is not None:
        return state.item is not None and stamp_of(state.item) == stamp
    return predecessor is not None and state.item is None and state.tombstone_stamp == predecessor


def _is_predecessor(state: MirrorState, image: Item | None, predecessor: bytes | None) -> bool:
    """Whether a mirror holds what a write replaced at the authority.

    A deletion that found nothing may meet a tombstone: absent it stays. A creation may not: the
    tombstone may be of a deletion that came after it.
    """
    if predecessor is not None:
        return state.item is not None and stamp_of(state.item) == predecessor
    return state.item is None and (state.revision.tombstone is None or image is None)


def _mirror(table: Table, key: bytes, image: Item | None) -> None:
    if image is None:
        table.bury(key)
    else:
        item = detached(normalized_item(image))
        item.pop(PREDECESSOR, None)
        table.put(key, item)
