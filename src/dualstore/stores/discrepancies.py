"""Confirmed discrepancies as rows of the `dualstore` schema, one row each, however often they are seen."""

from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.stores.postgres_transaction import transaction
from dualstore.telemetry import Discrepancy

OPEN = "open"
"""The state of a discrepancy that nobody has dealt with."""

# One that was dealt with and is seen again is open again; one that is to be ignored stays so.
_UPSERT = """
INSERT INTO dualstore.discrepancies AS known
       (table_name, key_hash, operation, class, paths, first_seen, last_seen, count, state)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (table_name, key_hash, operation, class) DO UPDATE
   SET paths = excluded.paths,
       first_seen = least(known.first_seen, excluded.first_seen),
       last_seen = greatest(known.last_seen, excluded.last_seen),
       count = known.count + excluded.count,
       state = CASE known.state WHEN 'ignored' THEN known.state ELSE excluded.state END
"""


class PostgresDiscrepancies:
    """A sink that records discrepancies in PostgreSQL.

    Args:
        engine: an engine with the psycopg driver.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, discrepancy: Discrepancy) -> None:
        """Record a discrepancy, or that it was seen again.

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
        """
        with transaction(self._engine, f"Recording a discrepancy in table {discrepancy.table}") as cursor:
            cursor.execute(
                _UPSERT,
                [
                    discrepancy.table,
                    discrepancy.key_hash,
                    discrepancy.operation,
                    discrepancy.kind,
                    Jsonb(list(discrepancy.paths)),
                    discrepancy.first_seen,
                    discrepancy.last_seen,
                    discrepancy.count,
                    OPEN,
                ],
            )
