"""The routing hash: which share of the keys a percentage covers, the same in every process and language."""

from xxhash import xxh3_64_intdigest

_UNIT = 100 * 2.0**-53


def share(table_salt: str, partition: bytes) -> float:
    r"""Where a partition key stands between 0 and 100.

    XXH3-64 with seed 0 of the UTF-8 bytes of the salt, one NUL byte and the partition key's bytes; of
    its 64 bits the upper 53, as an integer, times 100 / 2**53 (exact in a double but for one rounding):

        share("orders", b"S\0\0\0\6cust-1")   49.11123178032527
        share("orders", b"")                  61.75904640569413
        share("café", b"N\0\0\0\x011")     60.79988538165062

    Args:
        table_salt: the table's logical name, so that tables do not share their first ten percent.
        partition: `items.partition_bytes` of a key, or the bytes of a whole request.

    Returns:
        A number in [0, 100).
    """
    return (xxh3_64_intdigest(table_salt.encode() + b"\0" + partition) >> 11) * _UNIT


def included(share: float, percent: float) -> bool:
    """Whether a percentage covers a share: 0 covers none, 100 all, and 20 everything that 10 covers."""
    return share < percent
