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
        partition: `items.partition_bytes` of a key.

    Returns:
        A number in [0, 100).
    """
    return (xxh3_64_intdigest(table_salt.encode() + b"\0" + partition) >> 11) * _UNIT


def index_share(table_salt: str, index: str, partition: bytes) -> float:
    """Where a partition of an index stands between 0 and 100, in the order of its table.

    The `share` of the index's name in UTF-8, one NUL byte, and the bytes of the index's partition key.

    Args:
        table_salt: the table's logical name.
        index: the index's name.
        partition: `items.partition_bytes` of the index's partition key.
    """
    return share(table_salt, index.encode() + b"\0" + partition)


def included(share: float, percent: float) -> bool:
    """Whether a percentage covers a share: 0 covers none, 100 all, and 20 everything that 10 covers."""
    return share < percent
