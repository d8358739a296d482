"""What a record of a stream says about the other side, and about who made the change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dualstore.control import ControlRecord, Gate
from dualstore.items import Key, KeySchema, items_equal, key_bytes
from dualstore.replication.sending import fitting
from dualstore.replication.stamps import stamp_of
from dualstore.stages import Side
from dualstore.stores.base import MirrorState
from dualstore.stores.streams import Change, StreamRecord


class Rogue(StrEnum):
    """How a change shows that it did not go through dualstore."""

    UNSTAMPED = "unstamped"
    """The item carries no stamp: a plain PutItem, or an item too large to be stamped."""
    STAMP_KEPT = "stamp_kept"
    """The content changed and the stamp did not: a plain UpdateItem."""
    DELETED = "deleted"
    """An item is gone, and no process has recorded that it deleted it: a plain DeleteItem. Where DynamoDB is
    the authority that is a supposition: a process that stopped in the middle looks the same."""


def rogue_of(record: StreamRecord) -> Rogue | None:
    """What a record by itself shows of a change past dualstore. Of a deletion it shows nothing.

    DynamoDB's own deletions of expired items are none, nor is a write that changed nothing, of which some
    stand-ins make a record.
    """
    if record.new_image is None:
        return None
    if record.new_stamp is None:
        return Rogue.UNSTAMPED
    kept = record.old_image is not None and record.new_stamp == record.old_stamp
    if kept and not items_equal(record.new_image, record.old_image or {}):
        return Rogue.STAMP_KEPT
    return None


def deletion_is_unaccounted_for(record: StreamRecord, state: MirrorState | None) -> bool:
    """Whether PostgreSQL still holds exactly the version that a deletion removed."""
    if record.change is not Change.REMOVE or record.is_ttl_deletion or record.old_stamp is None:
        return False
    return state is not None and stamp_of(state.item) == record.old_stamp


def deletions_can_be_judged(record: ControlRecord) -> bool:
    """Whether a deletion that PostgreSQL does not know of is likely to be a plain one.

    Not while processes mirror late, record their failures in the journal, or have died.
    """
    if record.authority is Side.POSTGRES:
        return True
    return record.gate is Gate.OPEN and not record.deferred and not record.suspects


def shows(record: StreamRecord, state: MirrorState | None, authority: Side) -> bool:
    """Whether PostgreSQL shows exactly what a record tells, so that nothing need be done about its key.

    Args:
        record: the latest of its key.
        state: what PostgreSQL holds of the key; None where neither row nor tombstone.
        authority: DynamoDB, and PostgreSQL is the mirror; or PostgreSQL, and the record may be the echo of
            what was sent to DynamoDB.
    """
    if record.change is Change.REMOVE:
        return _shows_removal(record, state, authority)
    if state is None or state.item is None or record.new_image is None:
        return False
    if authority is Side.POSTGRES:  # what is sent of a row: without a stamp where it has none, or has no room
        sent = fitting(state.item)
        return stamp_of(sent) == record.new_stamp and items_equal(record.new_image, sent)
    # A mirror is told by stamps alone which of two states came first: where the stamp stayed, a settle that
    # read the earlier state may yet write it.
    return (
        record.new_stamp not in {None, record.old_stamp}
        and stamp_of(state.item) == record.new_stamp
        and items_equal(record.new_image, state.item)
    )


def _shows_removal(record: StreamRecord, state: MirrorState | None, authority: Side) -> bool:
    item = None if state is None else state.item
    if authority is Side.DYNAMODB:
        known = state is not None and record.old_stamp is not None
        return known and item is None and state is not None and state.tombstone_stamp == record.old_stamp
    # An item that DynamoDB held expired is left to the sweeper: sent again, it would only be deleted again.
    expired = record.is_ttl_deletion and record.old_stamp is not None
    return item is None or (expired and stamp_of(item) == record.old_stamp)


@dataclass(slots=True)
class KeyRecords:
    """The records of one key among some records of a shard.

    Attributes:
        key: the key.
        first: the place of its first record.
        last: its last record: whoever brings the other side after the key now, does it for all.
        count: how many there are.
    """

    key: Key
    first: int
    last: StreamRecord
    count: int = 1


@dataclass(slots=True)
class Undone:
    """Records of a shard whose keys are still to be dealt with.

    Args:
        keys: the table's key.
        records: in their order.
    """

    keys: KeySchema
    records: Sequence[StreamRecord]
    waiting: dict[bytes, KeyRecords] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.begin_again()

    def begin_again(self) -> None:
        """Every key is still to be dealt with."""
        self.waiting.clear()
        for place, record in enumerate(self.records):
            name = key_bytes(self.keys, record.key)
            if (known := self.waiting.get(name)) is None:
                self.waiting[name] = KeyRecords(record.key, place, record)
            else:
                known.last, known.count = record, known.count + 1

    @property
    def done(self) -> int:
        """How many records, from the first, are dealt with."""
        return min((each.first for each in self.waiting.values()), default=len(self.records))

    def shown(self, states: Mapping[bytes, MirrorState], authority: Side) -> set[str]:
        """The sequence numbers of the records, superseded or not, that PostgreSQL shows."""
        return {
            record.sequence
            for record in self.records
            if shows(record, states.get(key_bytes(self.keys, record.key)), authority)
        }

    def unshown(self, states: Mapping[bytes, MirrorState], authority: Side) -> dict[bytes, KeyRecords]:
        """The keys of which PostgreSQL does not show what their records tell."""
        return {
            name: each
            for name, each in self.waiting.items()
            if not shows(each.last, states.get(name), authority)
        }
