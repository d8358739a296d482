"""What an outbox is: the changes of a store that decides, kept until the mirror is brought after."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from dualstore.items import Item, Key

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
