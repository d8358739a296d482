"""Fresh stamps: the 128-bit names that writes leave in the items they write."""

import os
import time

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
