"""A store in memory."""

from dualstore.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
