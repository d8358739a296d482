"""Stamps: the 128-bit names that writes leave in the items they write."""

import hashlib
import os
import time

from dualstore.items import PREDECESSOR, STAMP, Item

STAMP_BYTES = 16
_VERSION_7 = 0x7000
_VARIANT = 0x80


def new_stamp() -> bytes:
    """A fresh UUIDv7 (RFC 9562, section 5.7), 16 bytes.

    The time in it helps a person who reads an item; nothing is ever ordered by it.
    """
    random = os.urandom(10)
    milliseconds = time.time_ns() // 1_000_000
    return (
        milliseconds.to_bytes(6)
        + (_VERSION_7 | (int.from_bytes(random[:2]) & 0x0FFF)).to_bytes(2)
        + bytes((_VARIANT | (random[2] & 0x3F),))
        + random[3:]
    )


def derived_stamp(token: str, table: str, key: bytes) -> bytes:
    """The stamp of one write of a transaction.

    Derived, so that a retry with the same ClientRequestToken carries the same payload: DynamoDB answers
    IdempotentParameterMismatchException otherwise.
    """
    named = b"\0".join((token.encode(), table.encode(), key))
    return hashlib.blake2b(named, digest_size=STAMP_BYTES, person=b"dualstore").digest()


def stamp_of(item: Item | None) -> bytes | None:
    """The stamp in an item, or None where there is no item or it was written without one."""
    return _bytes_at(item, STAMP)


def predecessor_of(item: Item | None) -> bytes | None:
    """The stamp that the last update replaced, as that update recorded it, or None."""
    return _bytes_at(item, PREDECESSOR)


def _bytes_at(item: Item | None, name: str) -> bytes | None:
    value = None if item is None else item.get(name)
    found = None if value is None else value.get("B")
    return None if found is None else bytes(found)
