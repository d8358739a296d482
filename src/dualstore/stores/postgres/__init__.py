"""PostgreSQL as a store and as a mirror."""

from dualstore.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
