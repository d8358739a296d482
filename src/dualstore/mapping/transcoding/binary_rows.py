"""COPY text as rows of COPY's binary format, in key order: less work for PostgreSQL (docs/adr/0028)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dualstore.errors import ConfigurationError
from dualstore.mapping.transcoding.accelerated import accelerator

HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
"""Before the first row: the signature, no flags, no extension (PostgreSQL, "COPY", Binary Format)."""
END = b"\xff\xff"
"""Behind the last row."""


class Packed(NamedTuple):
    """Binary rows of some texts.

    Attributes:
        rows: parts that together are the rows, in key order; of equal keys the first comes first.
        left: the places of the texts that were left out, since a field is not as a transcoder writes it: such
            a text can still be sent as it is.
    """

    rows: Sequence[bytes]
    left: Sequence[int]


Pack = Callable[[Sequence[bytes]], Packed]
"""From texts of whole lines to rows."""


def packing(types: Sequence[int], *, keys: int) -> Pack | None:
    """What makes binary rows of a transcoder's text.

    PostgreSQL takes binary rows for what the types of their columns say, so these have to be the types that
    the columns have at that moment.

    Args:
        types: the OIDs of the columns' types, in the order of the text's fields.
        keys: how many of the first columns are the key; 0: rows keep the order of the text.

    Returns:
        None without the accelerator, and where one of the types has no binary form there.
    """
    try:
        in_order = accelerator().BinaryRows(tuple(types), keys).in_order
    except (ConfigurationError, ValueError):
        return None
    return lambda texts: Packed(*in_order(tuple(texts)))
