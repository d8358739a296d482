"""COPY text as rows of COPY's binary format: two thirds of the work for PostgreSQL (docs/adr/0028)."""

from collections.abc import Callable, Sequence

from dualstore.errors import ConfigurationError
from dualstore.mapping.transcoding.accelerated import accelerator

HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
"""Before the first row: the signature, no flags, no extension (PostgreSQL, "COPY", Binary Format)."""
END = b"\xff\xff"
"""Behind the last row."""

Pack = Callable[[bytes], bytes]
"""From whole lines of COPY text to rows. Raises ValueError where a field is not as a transcoder writes it:
such text can still be sent as it is."""


def packing(types: Sequence[int]) -> Pack | None:
    """What makes binary rows of a transcoder's text.

    PostgreSQL takes binary rows for what the types of their columns say, so these have to be the types that
    the columns have at that moment.

    Args:
        types: the OIDs of the columns' types, in the order of the text's fields.

    Returns:
        None without the accelerator, and where one of the types has no binary form there.
    """
    try:
        rows = accelerator().BinaryRows(tuple(types))
    except (ConfigurationError, ValueError):
        return None
    pack: Pack = rows.of
    return pack
