"""The journal: keys whose mirror write failed while the mirror was out of reach, kept where the authority is.

DESIGN, replication protocol, rules 4 and 6. An entry is cleared only by its nonce: a repair that settled a
key must not clear the entry of a failure that came after its read.
"""

import hashlib
import random
import time
import uuid
from collections.abc import Iterator, Sequence

import xxhash

from dualstore.items import Key, TableShape, key_bytes
from dualstore.operations import DeleteItem, PutItem
from dualstore.replication.control import carried_out, query_pages
from dualstore.stores.base import DirtyKey, Store

# One partition takes 1,000 writes a second (AWS, "Burst and adaptive capacity"): an outage of the mirror
# under load writes an entry for every write of the application.
SHARDS = 16


class Journal:
    """The journal of all tables, in the bookkeeping table.

    Args:
        store: the authority.
        table: the bookkeeping table's physical name.
    """

    def __init__(self, store: Store, table: str) -> None:
        self._store = store
        self._table = table

    def record(self, shape: TableShape, key: Key) -> None:
        """Record, durably, that a key must be settled. A later entry takes the place of an earlier one."""
        item = {
            **_place(shape, key),
            "key": {"M": key},
            "nonce": {"S": uuid.uuid4().hex},
            "since": {"N": f"{time.time():.3f}"},
        }
        self._store.execute(PutItem({"TableName": self._table, "Item": item}))

    def entries(self, shape: TableShape) -> Iterator[Sequence[DirtyKey]]:
        """The entries of a table in pages, each read consistently when it is reached.

        In an order of its own each time: many processes repair at once, and each is to find work of its own.
        """
        for shard in random.sample(range(SHARDS), SHARDS):
            for items in filter(None, query_pages(self._store, self._table, _partition(shape.name, shard))):
                yield [
                    DirtyKey(
                        table=shape.name,
                        key=item["key"]["M"],
                        nonce=item["nonce"]["S"],
                        since=float(item["since"]["N"]),
                    )
                    for item in items
                ]

    def clear(self, shape: TableShape, entry: DirtyKey) -> bool:
        """Clear an entry, if it is still this one; True when it was."""
        request = {
            "TableName": self._table,
            "Key": _place(shape, entry.key),
            "ConditionExpression": "nonce = :nonce",
            "ExpressionAttributeValues": {":nonce": {"S": entry.nonce}},
        }
        return carried_out(self._store, DeleteItem(request))


def _place(shape: TableShape, key: Key) -> Key:
    """Where the entry of a key stands. The digest keeps long keys within a sort key's 1,024 bytes."""
    name = key_bytes(shape.keys, key)
    shard = xxhash.xxh3_64_intdigest(name) % SHARDS
    digest = hashlib.blake2b(name, digest_size=16).hexdigest()
    return {"pk": {"S": _partition(shape.name, shard)}, "sk": {"S": digest}}


def _partition(table: str, shard: int) -> str:
    return f"journal#{table}#{shard:02}"
