"""The mapped tables by physical name, with their statements, and the lock of each key."""

from collections.abc import Callable, Iterator, Mapping

import xxhash

from dualstore.items import TableShape
from dualstore.mapping import Mapped
from dualstore.stores.postgres.split_statements import Statements, statements_of


class Catalog(Mapping[str, TableShape]):
    """The shapes of the tables, and the statements made for them when they were first used.

    Args:
        tables: the mappings by the tables' physical DynamoDB names; tables may be added later.
        unmapped: told of the table's name for each item that is written and is of no entity.
    """

    def __init__(self, tables: Mapping[str, Mapped], unmapped: Callable[[str], None] | None = None) -> None:
        self._tables = tables
        self._unmapped = unmapped
        self._statements: dict[str, Statements] = {}

    def __getitem__(self, table: str) -> TableShape:
        return self._tables[table].shape

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def statements(self, table: str) -> Statements:
        """The statements of a table.

        Raises:
            KeyError: no such table.
        """
        mapping = self._tables[table]
        statements = self._statements.get(table)
        if statements is None or statements.mapping is not mapping:
            statements = self._statements[table] = statements_of(mapping, self._unmapped)
        return statements


def lock_key(table: str, key: bytes) -> int:
    """The advisory lock of a DynamoDB key, 64 signed bits. Two keys that share one only wait for each other.

    Args:
        table: the physical DynamoDB name.
        key: the key, by `items.key_bytes`.
    """
    digest = xxhash.xxh3_64_intdigest(b"\0".join((table.encode(), key)))
    return digest - (1 << 64) if digest >> 63 else digest
