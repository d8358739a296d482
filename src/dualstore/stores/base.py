"""What a store is: the protocols that everything above it is written against."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from dualstore.control import ControlRecord, PostgresRole, ProcessEntry, Stop
from dualstore.items import Item, Key
from dualstore.operations import Operation, Response
from dualstore.stages import Side


class Store(Protocol):
    """A database that answers DynamoDB operations.

    Tables are named by their physical DynamoDB name on both sides.
    """

    @property
    def side(self) -> Side:
        """Which database this is."""
        ...

    def execute(self, operation: Operation) -> Response:
        """Carry out one operation.

        Returns:
            The response, shaped as boto3's low-level client gives it. Bookkeeping attributes (`_dsv`,
            `_dsp`) are in the items as they are stored: hiding them is the router's work.

        Raises:
            botocore.exceptions.ClientError: the store refuses, with DynamoDB's error codes.
            botocore.exceptions.BotoCoreError: DynamoDB could not be reached, or its reply got lost.
            dualstore.errors.Unavailable: PostgreSQL could not be reached in time.
        """
        ...


@dataclass(frozen=True, slots=True)
class Revision:
    """What a mirror held for one key, as numbers that never return.

    Attributes:
        row: the revision of the row, or None where there is no row.
        tombstone: the revision of the tombstone, or None where there is none.
    """

    row: int | None
    tombstone: int | None


NOTHING = Revision(row=None, tombstone=None)


@dataclass(frozen=True, slots=True)
class MirrorState:
    """What a mirror holds for one key.

    Attributes:
        item: the item, its stamp in `_dsv` where it has one, or None where there is no row.
        tombstone_stamp: the stamp that the last recorded deletion removed, or None.
        revision: to be handed back to `write_settled`.
    """

    item: Item | None
    tombstone_stamp: bytes | None
    revision: Revision


@dataclass(frozen=True, slots=True)
class DirtyKey:
    """A key whose mirrored state is in doubt until somebody settles it.

    Attributes:
        table: the table's physical DynamoDB name.
        key: the primary key.
        nonce: names this doubt: only the settler that saw it may clear it.
        since: seconds since the epoch, by the clock of whoever recorded it.
    """

    table: str
    key: Key
    nonce: str
    since: float


class Mirror(Store, Protocol):
    """A store that can follow the other side (DESIGN, replication protocol, rules 2 to 4)."""

    def write_direct(
        self, table: str, key: Key, image: Item | None, *, stamp: bytes, predecessor: bytes | None, epoch: int
    ) -> bool:
        """Write an acknowledged image, but only onto its predecessor.

        Args:
            table: the physical DynamoDB name.
            key: the primary key.
            image: the item after the write (`_dsv` = stamp), or None where the write deleted it.
            stamp: the stamp of the write. For a deletion it is not in the image; it names the write.
            predecessor: the stamp that the write replaced, or None where it replaced nothing or an
                item without a stamp.
            epoch: of the control record that the writer acted on.

        Returns:
            True when the mirror now holds the image, or held this very stamp already. False when
            something else is there: the caller settles.

        Raises:
            MirrorFenced: this store is not the mirror at that epoch; nothing was written.
            MirrorUnavailable: not reachable, too slow, or the image breaks a constraint of the SQL table.
        """
        ...

    def state(self, table: str, key: Key) -> MirrorState:
        """Row, tombstone and revision of one key, at one moment."""
        ...

    def write_settled(self, table: str, key: Key, image: Item | None, *, seen: Revision, epoch: int) -> bool:
        """Write what the authority said, if the key is still as it was seen.

        Takes a new revision even where nothing changes: a slower settler that saw the old one and read
        an older item must not find its revision still standing.

        Args:
            table: the physical DynamoDB name.
            key: the primary key.
            image: the item the authority holds, or None where it holds none (leaves a tombstone).
            seen: the revision read *before* the authority was read.
            epoch: of a control record that was in force before `seen` was read.

        Returns:
            False when the key has changed since; start again.

        Raises:
            MirrorFenced, MirrorUnavailable: as for `write_direct`.
        """
        ...

    def write_settled_together(self, writes: Sequence["SettledWrite"], *, token: str | None = None) -> bool:
        """As `write_settled` for several keys, all or none, so that no read of the mirror sees half of them.

        Args:
            writes: of different keys, of any tables; where there are none, the token alone is remembered.
            token: the ClientRequestToken of the transaction that wrote them at the authority: remembered for
                ten minutes, so that a repetition is recognised after the authority has moved here.

        Returns:
            False when any of the keys has changed since; nothing was written.

        Raises:
            MirrorFenced, MirrorUnavailable: as for `write_settled`.
        """
        ...

    def locked(self, table: str, key: Key) -> AbstractContextManager[None]:
        """Hold the key's lock: no other direct write or settled write of the key runs meanwhile.

        `state` and `write_settled` called by the same thread inside the block run under this lock.
        """
        ...

    def execute_as_mirror(self, operation: Operation) -> Response:
        """Carry out a read, unless the keys it covers are in doubt.

        Doubt is looked up in the statement that reads, or before it in the same round trip. GetItem looks for
        its key. So does BatchGetItem, which leaves keys in doubt to `UnprocessedKeys`. A dirty item may be
        missing: a Query looks for any dirty key of the table's partition that it reads; Scan,
        TransactGetItems and indexes with another partition key look for any of the table.

        Raises:
            MirrorDirty: a key is dirty.
            MirrorUnavailable: the mirror cannot answer: ask the authority.
        """
        ...

    def mark_dirty(self, table: str, key: Key, *, nonce: str, reason: str) -> None:
        """Record, durably, that a key is in doubt. A later doubt takes the place of an earlier one."""
        ...

    def clear_dirty(self, table: str, key: Key, *, nonce: str) -> bool:
        """Clear a doubt if it is still this one; True when it was."""
        ...

    def dirty_keys(self, table: str, *, limit: int = 1000) -> Sequence[DirtyKey]:
        """The doubts recorded for a table, oldest first."""
        ...

    def items_of(self, table: str, keys: Iterable[Key]) -> Mapping[bytes, MirrorState]:
        """The states of many keys in one round trip, by `items.key_bytes`.

        Keys with neither row nor tombstone are left out.
        """
        ...

    def all_items(self, table: str, *, page_items: int = 1000) -> Iterator[Sequence[Item]]:
        """Every item, page after page in bounded memory, in the order of the SQL primary key."""
        ...


class Authority(Store, Protocol):
    """A store that is the authority of some tables, at an epoch: PostgreSQL, from stage `live` on.

    It stamps what it writes, as `DynamoStore` writes are stamped above it, and notes every change of a key in
    its outbox, in the transaction of the change (DESIGN, replication protocol, rules 7 and 8).
    """

    def execute_as_authority(self, operation: Operation, *, epochs: Mapping[str, int]) -> Response:
        """Carry out one operation, unless the authority has moved.

        The statements that read and write look for the epochs themselves. A write whose COMMIT was not
        confirmed is looked for again under the locks of its keys: it is answered as done, done again, or
        reported as unknown only where PostgreSQL cannot be asked any more.

        Args:
            operation: its items come without stamps.
            epochs: for each of its tables, the epoch under which this store was found to be its authority.

        Returns:
            As `execute`, bookkeeping attributes in the items of reads, none in `Attributes` of writes.

        Raises:
            AuthorityMoved: the epoch of a table has ended, or its writes pause; nothing was done.
            OutcomeUnknown: a write may or may not have been carried out.
            Unavailable: PostgreSQL could not be reached in time; nothing was written.
            botocore.exceptions.ClientError: refused, as DynamoDB would.
        """
        ...

    def states_as_authority(
        self, table: str, keys: Iterable[Key], *, epoch: int
    ) -> Mapping[bytes, MirrorState]:
        """As `Mirror.items_of`, of a store that was the authority when it was read, or paused.

        Raises:
            AuthorityMoved: it was not, at this epoch.
            Unavailable: PostgreSQL could not be reached in time.
        """
        ...


class MirrorAuthority(Mirror, Authority, Protocol):
    """What PostgreSQL is: the one or the other, by epochs."""


LANES = 16
"""The outbox of a table is worked off in so many lanes; all changes of a key are in the same one."""

SECOND_LOOK = "second look"
"""The reason of an entry whose key is settled once more, after a request that may still be carried out."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work off one lane; how long it lasts is measured by whoever asked for it.

    Attributes:
        table: the physical DynamoDB name.
        lane: its number, from 0 to `LANES`.
        holder: names the worker.
        token: counts the changes of holder: what the outbox is told under an older one has no effect.
    """

    table: str
    lane: int
    holder: str
    token: int


class Onto(StrEnum):
    """What a write without a stamp in its condition expects to find."""

    NOTHING = "nothing"
    UNSTAMPED = "unstamped"


@dataclass(frozen=True, slots=True)
class Sending:
    """A write that was sent to the mirror under an idempotency token, and has had no definite answer.

    Only writes whose condition names no stamp need one: carried out late, they could find it met again.

    Attributes:
        image: the item that was sent, sent again exactly so; None for a deletion.
        onto: what the write replaces.
        token: the ClientRequestToken.
        age: how long ago it was first sent, by the outbox's clock.
    """

    image: Item | None
    onto: Onto
    token: str
    age: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A change of a key that the mirror has not been brought after yet.

    Attributes:
        id: names the entry; says nothing about order.
        table: the physical DynamoDB name.
        key: the primary key.
        reason: why it is here, where that is not simply a write.
        sent: the write of its key that is in doubt, or None.
    """

    id: int
    table: str
    key: Key
    reason: str | None = None
    sent: Sending | None = None


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """How far the mirror is behind.

    Attributes:
        entries: all that wait, the two kinds below among them.
        second_looks: those that wait for the time to settle their key once more.
        refused: those that the mirror refused to take.
        oldest_age: the age of the oldest that is no second look, by the outbox's clock; zero without any.
    """

    entries: int = 0
    second_looks: int = 0
    refused: int = 0
    oldest_age: timedelta = timedelta(0)


class Outbox(Protocol):
    """The changes of a store that is the authority, for the mirror to be brought after.

    Entries have no order: whoever works one off reads the key's present state.

    Methods that take a lease have no effect, and answer False or nothing, once its lane has passed to another
    worker. All raise `dualstore.errors.Unavailable` where the outbox cannot be reached in time.
    """

    def lease(self, table: str, holder: str, *, lanes: int, duration: timedelta) -> Sequence[Lease]:
        """Take lanes of a table: the holder's own are renewed, and free ones taken over.

        Args:
            table: the physical DynamoDB name.
            holder: names the worker; no two workers have the same name.
            lanes: the most to hold.
            duration: from the moment at which the outbox is asked.
        """
        ...

    def renew(self, lease: Lease, *, duration: timedelta) -> bool:
        """Hold a lane for longer."""
        ...

    def release(self, lease: Lease) -> None:
        """Give a lane back before its lease ends."""
        ...

    def pending(self, lease: Lease, *, limit: int) -> Sequence[OutboxEntry]:
        """Some entries of a lane that are due, oldest first, with what is in doubt of their keys."""
        ...

    def mark_sent(self, lease: Lease, entries: Sequence[OutboxEntry]) -> bool:
        """Note, durably and before they are sent, the writes named in `entry.sent`.

        From then on every entry of their keys is reported with them, until `resolve` or `finish`.
        """
        ...

    def resolve(
        self, lease: Lease, entries: Sequence[OutboxEntry], *, again_in: timedelta | None = None
    ) -> bool:
        """Forget the writes in doubt that are named in `entry.sent`: they have had a definite answer.

        Args:
            lease: the lane's.
            entries: any of their keys.
            again_in: also settle their keys once more when this time has passed. Noted in the same moment: a
                worker that dies after this leaves nothing to be remembered.
        """
        ...

    def finish(self, lease: Lease, entries: Sequence[OutboxEntry]) -> bool:
        """The mirror has been brought after these entries; what they were marked with is answered."""
        ...

    def postpone(
        self,
        lease: Lease,
        entries: Sequence[OutboxEntry],
        *,
        reason: str,
        at_least: timedelta,
        at_most: timedelta,
    ) -> bool:
        """Let entries wait that the mirror refuses, each for as long again as it has waited already.

        Args:
            lease: the lane's.
            entries: as `pending` reported them.
            reason: what the mirror answered; no item's value.
            at_least: the shortest wait.
            at_most: the longest.
        """
        ...

    def enqueue(
        self, table: str, keys: Sequence[Key], *, epoch: int, reason: str, due_in: timedelta = timedelta(0)
    ) -> None:
        """Have the mirror brought after keys although nothing is known to have changed.

        Raises:
            AuthorityMoved: this store is not the authority at this epoch, or its writes pause, so that the
                outbox is being emptied; nothing was noted.
        """
        ...

    def depth(self, table: str) -> OutboxDepth:
        """How many entries of a table wait, and for how long."""
        ...


@dataclass(frozen=True, slots=True)
class SettledWrite:
    """One of several settled writes that a mirror takes together; the arguments of `Mirror.write_settled`."""

    table: str
    key: Key
    image: Item | None
    seen: Revision
    epoch: int


class ControlHome(Protocol):
    """The control records and the register of processes in one of the two databases."""

    @property
    def side(self) -> Side:
        """Which database this is."""
        ...

    def read_all(self) -> Mapping[str, ControlRecord]:
        """All records, by physical table name, read consistently."""
        ...

    def create(self, table: str) -> None:
        """Make the first record of a table, at stage `off`; harmless where there is one."""
        ...

    def change(self, seen: ControlRecord, **changes: object) -> ControlRecord | None:
        """Change a record, if it is still as it was seen.

        `generation` and, where the gate moves, `gate_sequence` are counted here.

        Returns:
            The record as it is now, or None where somebody else changed it first, or it decides nothing.
        """
        ...

    def shut_gate(self, table: str) -> None:
        """Shut the gate whatever else is being decided; harmless where it is shut."""
        ...

    def install(self, record: ControlRecord) -> bool:
        """Write a record that comes from the other database: a copy (phase `moved`), or the one to decide.

        Returns:
            False where nothing was done: the record here decides itself, or is not older than this one.
        """
        ...

    def processes(self) -> list[ProcessEntry]:
        """The register, read consistently."""
        ...

    def write_process(self, entry: ProcessEntry, *, is_new: bool) -> bool:
        """Write a process's entry; False where it is not new and its entry is gone."""
        ...

    def remove_process(self, entry: ProcessEntry, *, if_beat: bool) -> None:
        """Take an entry out; with `if_beat`, only where it has not beaten since."""
        ...


class Fence(Protocol):
    """What keeps late writes out of PostgreSQL: each names the epoch that it was decided under."""

    def raise_fence(self, table: str, *, epoch: int, role: PostgresRole) -> None:
        """From now on only writes of this epoch and role pass; harmless where a later epoch stands."""
        ...

    def overrule(self, record: ControlRecord) -> bool:
        """Make whatever record stands here a copy of DynamoDB's, though it claims to decide (a failover).

        Returns:
            False where nothing was done: the record here is of the same epoch, or a later one.
        """
        ...


class Prepared(Protocol):
    """PostgreSQL's control home, which may not be there yet."""

    def is_prepared(self) -> bool:
        """Whether it has what control records are kept in: where not, it has never kept one.

        Raises:
            Unavailable: PostgreSQL does not answer.
        """
        ...


class KnowsPostgres(Protocol):
    """DynamoDB's control home: whether it has a copy of every record that decides in PostgreSQL.

    True for as long as the bookkeeping table stays what it is, once it was so: PostgreSQL comes to decide
    through a record there, and that is never deleted.
    """

    def postgres_is_known(self) -> bool:
        """Whether that has been noted."""
        ...

    def note_postgres_known(self) -> None:
        """Note that it is so."""
        ...


class StopMarks(Protocol):
    """Tables whose mirror is not to be read, noted in PostgreSQL itself: every read of a mirror looks there.

    They hold where DynamoDB, which decides, is out of reach of the person who stops the reads.
    """

    def mark_stopped(self, table: str, stop: Stop) -> None:
        """From now on no read of this table as a mirror is answered; harmless where that is so already."""
        ...

    def unmark_stopped(self, table: str) -> None:
        """Take the mark back; harmless where there is none."""
        ...

    def stop_marks(self) -> Mapping[str, Stop]:
        """All marks, by physical table name."""
        ...


__all__ = [
    "LANES",
    "NOTHING",
    "SECOND_LOOK",
    "Authority",
    "ControlHome",
    "DirtyKey",
    "Fence",
    "KnowsPostgres",
    "Lease",
    "Mirror",
    "MirrorState",
    "Onto",
    "Outbox",
    "OutboxDepth",
    "OutboxEntry",
    "PostgresRole",
    "Prepared",
    "Revision",
    "Sending",
    "SettledWrite",
    "StopMarks",
    "Store",
]
