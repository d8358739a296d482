"""The databases behind one protocol; the only code that does database I/O."""

from dualstore.stores.base import NOTHING, DirtyKey, Mirror, MirrorState, Revision, Store
from dualstore.stores.dynamo import DynamoClients, DynamoStore, Outcome, dynamo_clients, outcome
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres import PostgresStore

__all__ = [
    "NOTHING",
    "DirtyKey",
    "DynamoClients",
    "DynamoStore",
    "MemoryStore",
    "Mirror",
    "MirrorState",
    "Outcome",
    "PostgresStore",
    "Revision",
    "Store",
    "dynamo_clients",
    "outcome",
]
