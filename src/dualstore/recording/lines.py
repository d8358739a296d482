"""The lines of a recording: JSON, one value each, told apart by `kind`."""

from math import ceil, log2
from typing import TypeAlias

import msgspec

from dualstore.items import MAX_ITEM_SIZE_BYTES

VERSION = 1

_CLASSES_PER_OCTAVE = 4


class Opened(msgspec.Struct, frozen=True, tag="recording", tag_field="kind"):
    """The first line of every file.

    Attributes:
        version: of this format.
        recording: names the process's recording, which may have several files.
        salt: names the salt of its identities.
        began: when `Note.at` was 0, in seconds since the epoch.
    """

    version: int
    recording: str
    salt: str
    began: float


class TableNamed(msgspec.Struct, frozen=True, tag="table", tag_field="kind"):
    """Comes before the first note of a table in a file.

    Attributes:
        table: its logical name.
        percent: the share of its operations that is noted.
        places: hashes of where it is recorded; see `identities.place_hash`.
    """

    table: str
    percent: float
    places: tuple[str, ...] = ()


class Touch(msgspec.Struct, frozen=True, array_like=True):
    """One key of an operation.

    Attributes:
        partition: its partition's identity.
        item: its own identity; "" for a Query, and where the table has no sort key.
        act: what is done to it in a batch or transaction: Put, Update, Delete, Get or ConditionCheck.
        size_bytes: the class of what is written, or of the item that was read; 0: not told.
    """

    partition: str
    item: str = ""
    act: str = ""
    size_bytes: int = 0


class Note(msgspec.Struct, frozen=True, tag="note", tag_field="kind", omit_defaults=True):
    """One operation.

    Attributes:
        at: when it came, in seconds since `Opened.began`.
        table: the table's logical name; an operation on several tables is noted for each.
        operation: such as `GetItem`.
        index: which index is read, or "".
        consistent: whether the read is a consistent one.
        conditional: whether it carries a condition, or a filter.
        ranged: whether a Query asks something of the sort key.
        limit: the Limit of a Query or Scan; 0: none.
        answered: how many items were read; -1: it reads none, or was not answered.
        touched: its keys; none for a Scan.
    """

    at: float = msgspec.field(name="t")
    table: str = msgspec.field(name="n")
    operation: str = msgspec.field(name="o")
    index: str = msgspec.field(name="i", default="")
    consistent: bool = msgspec.field(name="c", default=False)
    conditional: bool = msgspec.field(name="if", default=False)
    ranged: bool = msgspec.field(name="r", default=False)
    limit: int = msgspec.field(name="l", default=0)
    answered: int = msgspec.field(name="a", default=-1)
    touched: tuple[Touch, ...] = msgspec.field(name="k", default=())


class Lost(msgspec.Struct, frozen=True, tag="lost", tag_field="kind"):
    """Operations that should have been noted before this line and were not."""

    table: str
    operations: int


Line: TypeAlias = Opened | TableNamed | Note | Lost


def size_class_bytes(size_bytes: int) -> int:
    """The smallest size class that holds a size: four to the doubling, so that no size is told exactly."""
    if size_bytes <= 1:
        return size_bytes
    step = ceil(log2(size_bytes) * _CLASSES_PER_OCTAVE)
    below = round(2 ** ((step - 1) / _CLASSES_PER_OCTAVE))
    held = below if size_bytes <= below else round(2 ** (step / _CLASSES_PER_OCTAVE))
    return min(held, MAX_ITEM_SIZE_BYTES)
