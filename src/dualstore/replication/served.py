"""A table that is being migrated, as replication and routing speak of it."""

from dataclasses import dataclass

from dualstore.flags import included, share
from dualstore.items import Key, TableShape, partition_bytes


@dataclass(frozen=True, slots=True)
class ServedTable:
    """A table by its two names.

    Attributes:
        logical: the name in flags, configuration and metrics; salts the routing hash.
        shape: the DynamoDB table: physical name, keys and indexes.
    """

    logical: str
    shape: TableShape

    @property
    def physical(self) -> str:
        """The name of the DynamoDB table."""
        return self.shape.name

    def share_of(self, key: Key) -> float:
        """Where a key's partition stands between 0 and 100: dials cover whole partitions."""
        return share(self.logical, partition_bytes(self.shape.keys, key))

    def mirrors(self, key: Key, percent: float) -> bool:
        """Whether a mirror dial at this percentage covers a key."""
        return percent >= 100 or included(self.share_of(key), percent)  # noqa: PLR2004 - hashing is saved
