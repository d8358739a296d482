"""An outbox in memory: the model that PostgreSQL's is tested against."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import RLock

from xxhash import xxh3_64_intdigest

from dualstore.errors import AuthorityMoved
from dualstore.items import Key, TableShape, key_bytes
from dualstore.stores.memory.tables import detached
from dualstore.stores.outbox import LANES, SECOND_LOOK, Lease, OutboxDepth, OutboxEntry, Sending

_REFUSED = "refused: "


@dataclass(slots=True)
class _Waiting:
    table: str
    key: Key
    raw: bytes
    lane: int
    reason: str | None
    created_at: float
    due_at: float
    sent: Sending | None = None
    sent_at: float = 0.0


@dataclass(slots=True)
class _Lane:
    holder: str | None = None
    token: int = 0
    until: float = 0.0


class MemoryOutbox:
    """An `Outbox` in memory; safe across threads. Finished entries are forgotten at once.

    Args:
        shapes: of the tables, by physical name; a table may be added later.
        monotonic: the clock of leases, ages and due times, in seconds.
        takes_notes: whether the store beside it is the authority of a table at an epoch, and not paused.
    """

    def __init__(
        self,
        shapes: Mapping[str, TableShape],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        takes_notes: Callable[[str, int], bool] = lambda _table, _epoch: True,
    ) -> None:
        self._shapes = shapes
        self._monotonic = monotonic
        self.takes_notes = takes_notes
        self._lock = RLock()
        self._ids = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._lanes: dict[tuple[str, int], _Lane] = {}

    def add(
        self, table: str, key: Key, *, reason: str | None = None, due_in: timedelta = timedelta(0)
    ) -> None:
        """Note a change of a key: what PostgreSQL's trigger does in the transaction of the change."""
        raw = key_bytes(self._shapes[table].keys, key)
        with self._lock:
            now = self._monotonic()
            self._waiting[next(self._ids)] = _Waiting(
                table=table,
                key=detached(key),
                raw=raw,
                lane=xxh3_64_intdigest(raw) % LANES,
                reason=reason,
                created_at=now,
                due_at=now + due_in.total_seconds(),
            )

    def lease(self, table: str, holder: str, *, lanes: int, duration: timedelta) -> Sequence[Lease]:
        """Take lanes of a table (see `Outbox.lease`)."""
        with self._lock:
            now = self._monotonic()
            all_lanes = [(lane, self._lane(table, lane)) for lane in range(LANES)]
            own = [(lane, held) for lane, held in all_lanes if held.holder == holder]
            free = [(lane, held) for lane, held in all_lanes if held.holder != holder and held.until <= now]
            taken = (own + free)[:lanes]
            for _, held in taken:
                held.token += held.holder != holder
                held.holder, held.until = holder, now + duration.total_seconds()
            return [Lease(table, lane, holder, held.token) for lane, held in taken]

    def renew(self, lease: Lease, *, duration: timedelta) -> bool:
        """Hold a lane for longer (see `Outbox.renew`)."""
        with self._lock:
            if not self._holds(lease):
                return False
            self._lane(lease.table, lease.lane).until = self._monotonic() + duration.total_seconds()
            return True

    def release(self, lease: Lease) -> None:
        """Give a lane back before its lease ends."""
        with self._lock:
            if self._holds(lease):
                held = self._lane(lease.table, lease.lane)
                held.holder, held.until = None, 0.0

    def pending(self, lease: Lease, *, limit: int) -> Sequence[OutboxEntry]:
        """Some entries of a lane that are due (see `Outbox.pending`)."""
        with self._lock:
            if not self._holds(lease):
                return []
            now = self._monotonic()
            marks = {each.raw: each for _, each in self._of_lane(lease) if each.sent is not None}
            due = [(id_, each) for id_, each in self._of_lane(lease) if each.due_at <= now]
            return [
                OutboxEntry(id_, each.table, detached(each.key), each.reason, _seen(marks.get(each.raw), now))
                for id_, each in sorted(due)[:limit]
            ]

    def mark_sent(self, lease: Lease, entries: Sequence[OutboxEntry]) -> bool:
        """Note writes before they are sent (see `Outbox.mark_sent`)."""
        with self._lock:
            if not self._holds(lease) or any(entry.id not in self._waiting for entry in entries):
                return False
            for entry in entries:
                each = self._waiting[entry.id]
                each.sent, each.sent_at = _copied(entry.sent), self._monotonic()
            return True

    def resolve(
        self, lease: Lease, entries: Sequence[OutboxEntry], *, again_in: timedelta | None = None
    ) -> bool:
        """Forget writes in doubt (see `Outbox.resolve`)."""
        with self._lock:
            if not self._holds(lease):
                return False
            tokens = {entry.sent.token for entry in entries if entry.sent is not None}
            answered = [
                each
                for _, each in self._of_lane(lease)
                if each.sent is not None and each.sent.token in tokens
            ]
            for each in answered:
                each.sent = None
                if again_in is not None:
                    self.add(each.table, each.key, reason=SECOND_LOOK, due_in=again_in)
            return True

    def finish(self, lease: Lease, entries: Sequence[OutboxEntry]) -> bool:
        """The mirror has been brought after these entries."""
        with self._lock:
            if not self._holds(lease):
                return False
            for entry in entries:
                self._waiting.pop(entry.id, None)
            return True

    def postpone(
        self,
        lease: Lease,
        entries: Sequence[OutboxEntry],
        *,
        reason: str,
        at_least: timedelta,
        at_most: timedelta,
    ) -> bool:
        """Let entries wait that the mirror refuses (see `Outbox.postpone`)."""
        with self._lock:
            if not self._holds(lease):
                return False
            now = self._monotonic()
            for each in (self._waiting[entry.id] for entry in entries if entry.id in self._waiting):
                waited = max(now - each.created_at, at_least.total_seconds())
                each.due_at = now + min(waited, at_most.total_seconds())
                each.reason, each.sent = _REFUSED + reason, None
            return True

    def enqueue(
        self, table: str, keys: Sequence[Key], *, epoch: int, reason: str, due_in: timedelta = timedelta(0)
    ) -> None:
        """Have the mirror brought after keys (see `Outbox.enqueue`)."""
        if not self.takes_notes(table, epoch):
            raise AuthorityMoved(f"the store is not the authority of {table!r} at epoch {epoch}: look again")
        for key in keys:
            self.add(table, key, reason=reason, due_in=due_in)

    def depth(self, table: str) -> OutboxDepth:
        """How many entries of a table wait, and for how long."""
        with self._lock:
            now = self._monotonic()
            waiting = [each for each in self._waiting.values() if each.table == table]
        ages = [now - each.created_at for each in waiting if each.reason != SECOND_LOOK]
        return OutboxDepth(
            entries=len(waiting),
            second_looks=len(waiting) - len(ages),
            refused=sum((each.reason or "").startswith(_REFUSED) for each in waiting),
            oldest_age=timedelta(seconds=max(ages, default=0.0)),
        )

    def _lane(self, table: str, lane: int) -> _Lane:
        return self._lanes.setdefault((table, lane), _Lane())

    def _holds(self, lease: Lease) -> bool:
        held = self._lane(lease.table, lease.lane)
        return held.holder == lease.holder and held.token == lease.token

    def _of_lane(self, lease: Lease) -> Iterable[tuple[int, _Waiting]]:
        here = (lease.table, lease.lane)
        return [(id_, each) for id_, each in self._waiting.items() if (each.table, each.lane) == here]


def _copied(sent: Sending | None) -> Sending | None:
    return None if sent is None else replace(sent, image=detached(sent.image))


def _seen(marked: _Waiting | None, now: float) -> Sending | None:
    if marked is None or marked.sent is None:
        return None
    return replace(
        marked.sent, image=detached(marked.sent.image), age=timedelta(seconds=now - marked.sent_at)
    )
