"""Stamps: the 128-bit names that writes leave in the items they write."""

import hashlib

from dualstore.items import PREDECESSOR, STAMP, Item
from dualstore.stores.stamps import STAMP_BYTES, new_stamp

__all__ = ["STAMP_BYTES", "derived_stamp", "new_stamp", "predecessor_of", "stamp_of"]


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
