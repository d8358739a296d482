"""What a store is: the protocols that everything above it is written against."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

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


UNREADABLE: Item = {"dualstore_overflow": {"NULL": False}}
"""Beside the key in place of an item whose row makes none. DynamoDB has no such value: nothing equals it."""


def is_unreadable(item: Item | None) -> bool:
    """Whether this stands for a row that makes no item: not for one to be written anywhere."""
    return item is not None and item.items() >= UNREADABLE.items()


@dataclass(frozen=True, slots=True)
class MirrorState:
    """What a mirror holds for one key.

    Attributes:
        item: the item, its stamp in `_dsv` where it has one, or None where there is no row. Of a row that
            makes none (an overflow that is no map, a column that its converter does not take) the key and
            `UNREADABLE`.
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


@dataclass(frozen=True, slots=True)
class SettledWrite:
    """One of several settled writes that a mirror takes together; the arguments of `Mirror.write_settled`."""

    table: str
    key: Key
    image: Item | None
    seen: Revision
    epoch: int


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

    def write_settled_together(self, writes: Sequence[SettledWrite], *, token: str | None = None) -> bool:
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
