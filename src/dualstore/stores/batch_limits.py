"""How much of a table's history is handled together, by whoever copies or compares it."""

from dataclasses import dataclass

BLOCK_BYTES = 256 * 1024
"""The usual size of a block: what is parsed at a time stays in the cache."""
BATCH_BYTES = 8 * 1024 * 1024
"""The usual size of a batch: twenty-five thousand items of 350 bytes, a few tenths of a second to load."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a batch may be: what one transaction loads, or compares.

    Attributes:
        batch_bytes: of JSON, from which on a batch ends with its block.
        page_items: the most items of one Scan request; None: as many as DynamoDB gives, 1 MB.
        batch_keys: the most keys that a batch hands over to be settled.
        block_bytes: of JSON, that are transcoded at a time.
    """

    batch_bytes: int = BATCH_BYTES
    page_items: int | None = None
    batch_keys: int = 1000
    block_bytes: int = BLOCK_BYTES

    @property
    def bytes_at_a_time(self) -> int:
        """The size of a block that fits into the batch."""
        return min(self.block_bytes, self.batch_bytes)
