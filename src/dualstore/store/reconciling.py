"""PostgreSQL is back after a failover: what was lost is listed and kept, then it follows DynamoDB again."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby

import sqlalchemy

from dualstore.control import ControlRecord, Phase, PostgresRole
from dualstore.errors import IllegalTransition, MirrorUnavailable
from dualstore.items import PREDECESSOR, Item, Key, TableShape, items_equal, key_bytes, key_hash
from dualstore.mapping import Mapped
from dualstore.replication.agent import Agent
from dualstore.replication.failover import LEAP
from dualstore.replication.settle import settle_many
from dualstore.replication.stamps import predecessor_of, stamp_of
from dualstore.stages import Side
from dualstore.stores.base import Mirror, Store, is_unreadable
from dualstore.stores.control_homes import Fence
from dualstore.stores.outbox import LANES, SECOND_LOOK
from dualstore.stores.postgres.trigger_functions import sql_table
from dualstore.stores.postgres_lost_writes import Loss, LostWrite, PostgresLostWrites
from dualstore.stores.postgres_outbox import LeftOver, PostgresOutbox
from dualstore.stores.postgres_waiting import outlast_writers
from dualstore.stores.scan import read_items

logger = logging.getLogger(__name__)

_ENTRIES_AT_ONCE = 500
_WRITERS_PATIENCE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconciliation found.

    Attributes:
        record: the control record that decides, as it is now.
        changes: the changes that DynamoDB was not known to have, by what became of them; those of the whole
            failover, also where this reconciliation only went on with an earlier one.
        before: whether it had been done before.
    """

    record: ControlRecord
    changes: Mapping[Loss, int]
    before: bool = False

    @property
    def lost(self) -> int:
        """How many changes are lost."""
        return sum(count for kind, count in self.changes.items() if kind is not Loss.ARRIVED)


class Reconciling:
    """Reconciles one table.

    Args:
        shape: the table.
        mapping: how its items become rows.
        engine: PostgreSQL.
        agent: knows the control records.
        dynamodb: the authority.
        postgres: what it is to be brought to.
        outbox: what had not been sent.
        lost: keeps what was lost.
    """

    def __init__(
        self,
        shape: TableShape,
        mapping: Mapped,
        *,
        engine: sqlalchemy.Engine,
        agent: Agent,
        dynamodb: Store,
        postgres: Mirror,
        outbox: PostgresOutbox,
        lost: PostgresLostWrites,
    ) -> None:
        self._shape = shape
        self._mapping = mapping
        self._engine = engine
        self._agent = agent
        self._dynamodb = dynamodb
        self._postgres = postgres
        self._outbox = outbox
        self._lost = lost

    def run(self, progress: Callable[[int], None] = lambda _: None) -> Reconciled:
        """List what was lost, and have PostgreSQL follow DynamoDB; goes on where it was interrupted.

        Args:
            progress: told how many outbox rows have been looked at, now and then.

        Raises:
            IllegalTransition: the table was not failed over, or not to the end.
            Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: a database does
                not answer; run it again.
        """
        table = self._shape.name
        record = self._agent.homes[Side.DYNAMODB].read_all().get(table)
        if record is None or record.failed_over is None or not record.decides:
            raise IllegalTransition(f"{table} was not failed over: there is nothing to reconcile")
        if record.phase is Phase.CLOSED:
            raise IllegalTransition(
                f"the failover of {table} has not ended: run `dualstore failover --to dynamodb` again"
            )
        if not record.unreconciled:
            return self._reconciled(record, before=True)
        fence: Fence = self._agent.homes[Side.POSTGRES]  # type: ignore[assignment]
        fence.overrule(record)
        self._outlast_writers()
        self._list(record.epoch, progress)
        followed = self._follow(fence, record)
        self._settle(followed)
        return self._reconciled(followed)

    @property
    def lost_writes(self) -> PostgresLostWrites:
        """What is kept of the lost changes."""
        return self._lost

    def _reconciled(self, record: ControlRecord, *, before: bool = False) -> Reconciled:
        counts = self._lost.counts(after_epoch=epoch_before_failover(record))
        return Reconciled(record, counts, before=before)

    def _outlast_writers(self) -> None:
        """After this, what was being written under the epoch before is in the outbox, or was rolled back."""
        doing = f"Waiting for transactions that write to the SQL table of {self._shape.name}"
        for part in self._mapping.parts:
            outlast_writers(self._engine, sql_table(part), doing, _WRITERS_PATIENCE, lambda _: None)

    def _list(self, epoch: int, progress: Callable[[int], None]) -> None:
        done = 0
        for lane in range(LANES):
            while entries := self._outbox.left_over(self._shape.name, lane, limit=_ENTRIES_AT_ONCE):
                self._keep(entries, epoch)
                done += len(entries)
                progress(done)

    def _keep(self, entries: Sequence[LeftOver], epoch: int) -> None:
        by_key = {name: list(some) for name, some in groupby(entries, key=lambda each: self._name(each.key))}
        keys = [some[0].key for some in by_key.values()]
        rows = self._postgres.items_of(self._shape.name, keys)
        items = {self._name(item): item for item in read_items(self._dynamodb, self._shape, keys)}
        lost: list[LostWrite] = []
        for name, some in by_key.items():
            ours = None if name not in rows else rows[name].item
            self._require_readable(some[0].key, ours)
            judged = judge(some, ours=ours, theirs=items.get(name))
            lost += [self._lost_write(each, kind, ours) for each, kind in judged]
        self._lost.keep(lost, epoch=epoch, doubtful=keys, finished=[each.id for each in entries])

    def _require_readable(self, key: Key, ours: Item | None) -> None:
        """A row that makes no item could not be kept: DynamoDB's would take its place unseen."""
        if is_unreadable(ours):
            name = key_hash(self._shape.keys, key)
            raise IllegalTransition(
                f"a row of {self._shape.name} makes no item (key hash {name}), so it could not be listed. "
                "Correct it in PostgreSQL (its dualstore_overflow, or a column that a converter does not "
                "take), and run this again"
            )

    def _lost_write(self, entry: LeftOver, kind: Loss, ours: Item | None) -> LostWrite:
        return LostWrite(
            outbox_id=entry.id,
            key=entry.key,
            kind=kind,
            written_at=entry.written_at,
            stamp=entry.stamp,
            reason=entry.reason,
            item=self._lost.sealed(ours) if kind is Loss.WRITTEN and ours is not None else None,
            form=self._lost.form,
        )

    def _follow(self, fence: Fence, record: ControlRecord) -> ControlRecord:
        """Have PostgreSQL be the mirror from now on: its fence first, then the record."""
        table = self._shape.name
        copy = self._agent.homes[Side.POSTGRES].read_all()[table]
        epoch = max(record.epoch, copy.epoch) + 1
        fence.raise_fence(table, epoch=epoch, role=PostgresRole.MIRROR)

        def reconciled(now: ControlRecord) -> Mapping[str, object]:
            if now.failed_over is None or not now.unreconciled:
                return {}
            return {"epoch": epoch, "failed_over": replace(now.failed_over, reconciled_at=time.time())}

        return self._agent.decide(table, reconciled)

    def _settle(self, record: ControlRecord) -> None:
        """Bring PostgreSQL to what DynamoDB holds for the keys of what was lost; the rest stays in doubt."""
        for page in self._lost.entries(after_epoch=epoch_before_failover(record)):
            keys = list({self._name(each.key): each.key for each in page}.values())
            try:
                settle_many(self._postgres, self._dynamodb, self._shape, keys, epoch=record.epoch)
            except MirrorUnavailable as error:
                logger.warning("Keys of lost writes are left to the repair: %s", type(error).__name__)
                return

    def _name(self, key: Key) -> bytes:
        return key_bytes(self._shape.keys, key)


def epoch_before_failover(record: ControlRecord) -> int:
    """An epoch after that of any earlier failover, and before that of the last one."""
    return record.epoch - LEAP


def judge(
    entries: Sequence[LeftOver], *, ours: Item | None, theirs: Item | None
) -> Sequence[tuple[LeftOver, Loss]]:
    """What became of the changes of one key.

    Args:
        entries: its outbox rows, in their order.
        ours: what PostgreSQL holds: what the last change left.
        theirs: what DynamoDB holds by now, which may have been written since.

    Returns:
        The changes; rows that only had the key looked at are none, unless there is no other.
    """
    writes = [each for each in entries if each.stamp is not None]
    if not writes:
        writes = [each for each in entries if each.reason != SECOND_LOOK][-1:]
    arrived = _arrived(writes, ours, theirs)
    return [
        (each, Loss.ARRIVED if place < arrived else _lost_as(each, ours, is_last=each is writes[-1]))
        for place, each in enumerate(writes)
    ]


def _arrived(writes: Sequence[LeftOver], ours: Item | None, theirs: Item | None) -> int:
    """How many of the changes of a key, from the first on, DynamoDB has, or had.

    It never skips a state of PostgreSQL's and comes back to it. So where it shows the stamp of one, or names
    it as what the last write replaced, that one and all before it had arrived.
    """
    if (ours is None and theirs is None) or _equal(ours, theirs):
        return len(writes)
    if theirs is None:
        return 0
    seen = {stamp_of(theirs), predecessor_of(theirs)} - {None}
    known = [place for place, each in enumerate(writes, 1) if each.stamp in seen]
    return max(known, default=0)


def _equal(ours: Item | None, theirs: Item | None) -> bool:
    if ours is None or theirs is None:
        return False
    shown = {name: value for name, value in theirs.items() if name != PREDECESSOR}
    return items_equal(ours, shown, ignore_stamps=False)


def _lost_as(entry: LeftOver, ours: Item | None, *, is_last: bool) -> Loss:
    if not is_last:
        return Loss.WRITTEN_OVER
    if ours is None:
        return Loss.DELETED
    return Loss.WRITTEN if entry.stamp in {None, stamp_of(ours)} else Loss.WRITTEN_OVER
