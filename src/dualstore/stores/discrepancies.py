"""Confirmed discrepancies as rows of the `dualstore` schema, one row each, however often they are seen."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.stores.postgres_transaction import transaction
from dualstore.telemetry import Discrepancy, DiscrepancyKind, Finder, Versions


class DiscrepancyState(StrEnum):
    """What has been done about a discrepancy."""

    OPEN = "open"
    REPAIRED = "repaired"
    """The sides were found equal since; open again once it is seen again."""
    IGNORED = "ignored"
    """Somebody has said that it may stay; it is counted on, and stays ignored."""


@dataclass(frozen=True, slots=True)
class RecordedDiscrepancy:
    """A discrepancy as it is recorded.

    Attributes:
        id: its number.
        state: what has been done about it.
        discrepancy: the record itself.
    """

    id: int
    state: DiscrepancyState
    discrepancy: Discrepancy


# One that was dealt with and is seen again is open again; one that is to be ignored stays so. What is known
# already is always counted on; a new one finds room or is left out.
_UPSERT = """
INSERT INTO dualstore.discrepancies AS known
       (table_name, key_hash, class, operation, paths, first_seen, last_seen, count, state, run_id,
        finder, of_request, dynamodb_version, postgres_version, trace_id, key)
SELECT %(table)s, %(key_hash)s, %(class)s, %(operation)s, %(paths)s::jsonb, %(first_seen)s::timestamptz,
       %(last_seen)s::timestamptz, %(count)s::bigint, %(state)s, %(run_id)s::uuid, %(finder)s,
       %(of_request)s::boolean, %(dynamodb)s, %(postgres)s, %(trace_id)s, %(key)s::bytea
 WHERE (SELECT count(*) FROM (SELECT FROM dualstore.discrepancies WHERE table_name = %(table)s
                              LIMIT %(limit)s) AS kept) < %(limit)s
    OR EXISTS (SELECT FROM dualstore.discrepancies
               WHERE table_name = %(table)s AND key_hash = %(key_hash)s AND class = %(class)s)
ON CONFLICT (table_name, key_hash, class) DO UPDATE
   SET operation = excluded.operation,
       paths = excluded.paths,
       first_seen = least(known.first_seen, excluded.first_seen),
       last_seen = greatest(known.last_seen, excluded.last_seen),
       count = known.count + excluded.count,
       state = CASE known.state WHEN 'ignored' THEN known.state ELSE excluded.state END,
       run_id = coalesce(excluded.run_id, known.run_id),
       finder = excluded.finder,
       dynamodb_version = excluded.dynamodb_version,
       postgres_version = excluded.postgres_version,
       trace_id = coalesce(excluded.trace_id, known.trace_id),
       key = coalesce(excluded.key, known.key)
"""

_SELECT = """
SELECT id, state, table_name, key_hash, operation, class, paths, first_seen, last_seen, count,
       dynamodb_version, postgres_version, of_request, finder, trace_id, run_id, key
  FROM dualstore.discrepancies
 WHERE (%(table)s::text IS NULL OR table_name = %(table)s)
   AND (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
   AND (%(classes)s::text[] IS NULL OR class = ANY(%(classes)s))
   AND (%(id)s::bigint IS NULL OR id = %(id)s)
 ORDER BY last_seen DESC, id DESC LIMIT %(limit)s
"""
_MARK = "UPDATE dualstore.discrepancies SET state = %s WHERE table_name = %s AND id = ANY(%s)"
_MARK_REPAIRED = """
UPDATE dualstore.discrepancies SET state = 'repaired'
 WHERE table_name = %s AND state = 'open' AND NOT of_request AND last_seen < %s
"""


class PostgresDiscrepancies:
    """Records discrepancies in PostgreSQL, and tells of them.

    Args:
        engine: an engine with the psycopg driver.
        plain_keys: whether the keys themselves are recorded, beside their hashes.
        rows_per_table: the most discrepancies that are recorded of one table.
    """

    def __init__(self, engine: Engine, *, plain_keys: bool = False, rows_per_table: int = 10_000) -> None:
        self._engine = engine
        self._plain_keys = plain_keys
        self._rows_per_table = rows_per_table

    def __call__(self, discrepancy: Discrepancy) -> None:
        """Record a discrepancy, or that it was seen again; one more than there is room for is left out.

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
        """
        with transaction(self._engine, f"Recording a discrepancy in table {discrepancy.table}") as cursor:
            cursor.execute(_UPSERT, self._values(discrepancy))

    def _values(self, discrepancy: Discrepancy) -> dict[str, Any]:
        state = DiscrepancyState.REPAIRED if discrepancy.repaired else DiscrepancyState.OPEN
        return {
            "table": discrepancy.table,
            "key_hash": discrepancy.key_hash,
            "class": discrepancy.kind,
            "operation": discrepancy.operation,
            "paths": Jsonb(list(discrepancy.paths)),
            "first_seen": discrepancy.first_seen,
            "last_seen": discrepancy.last_seen,
            "count": discrepancy.count,
            "state": state,
            "run_id": discrepancy.run_id,
            "finder": discrepancy.finder,
            "of_request": discrepancy.of_request,
            "dynamodb": discrepancy.versions.dynamodb,
            "postgres": discrepancy.versions.postgres,
            "trace_id": discrepancy.trace_id,
            "key": discrepancy.key if self._plain_keys else None,
            "limit": self._rows_per_table,
        }

    def recorded(
        self,
        table: str | None = None,
        *,
        states: Collection[DiscrepancyState] | None = None,
        kinds: Collection[DiscrepancyKind] | None = None,
        limit: int = 100,
    ) -> list[RecordedDiscrepancy]:
        """The recorded discrepancies, the last seen first.

        Args:
            table: the physical name of a table; None for all.
            states: None for all.
            kinds: None for all.
            limit: the most to give back.

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
        """
        return self._select(table=table, states=states, kinds=kinds, limit=limit)

    def one(self, table: str, number: int) -> RecordedDiscrepancy | None:
        """A discrepancy of a table by its number; None where there is none (any more).

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
        """
        return next(iter(self._select(table=table, number=number, limit=1)), None)

    def mark(self, table: str, numbers: Collection[int], state: DiscrepancyState) -> int:
        """Say what has been done about discrepancies of a table; how many there were.

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
        """
        with transaction(self._engine, f"Marking discrepancies of table {table}") as cursor:
            return cursor.execute(_MARK, [state, table, list(numbers)]).rowcount

    def mark_all_repaired(self, table: str, *, before: datetime) -> int:
        """All items of a table were found equal by what began at a moment; how many were open until then.

        Args:
            table: the physical name of the table.
            before: the moment; what was seen later stays open.

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
        """
        with transaction(self._engine, f"Marking discrepancies of table {table}") as cursor:
            return cursor.execute(_MARK_REPAIRED, [table, before]).rowcount

    def _select(
        self,
        *,
        table: str | None = None,
        states: Collection[DiscrepancyState] | None = None,
        kinds: Collection[DiscrepancyKind] | None = None,
        number: int | None = None,
        limit: int,
    ) -> list[RecordedDiscrepancy]:
        wanted = {
            "table": table,
            "states": None if states is None else list(states),
            "classes": None if kinds is None else list(kinds),
            "id": number,
            "limit": limit,
        }
        with transaction(self._engine, "Reading the recorded discrepancies") as cursor:
            return [_recorded(*row) for row in cursor.execute(_SELECT, wanted).fetchall()]


def _recorded(number: int, state: str, *columns: Any) -> RecordedDiscrepancy:
    table, key_hash, operation, kind, paths, first_seen, last_seen, count, *rest = columns
    dynamodb, postgres, of_request, finder, trace_id, run_id, key = rest
    discrepancy = Discrepancy(
        table=table,
        key_hash=key_hash,
        operation=operation,
        kind=DiscrepancyKind(kind),
        paths=tuple(paths),
        first_seen=first_seen,
        last_seen=last_seen,
        count=count,
        versions=Versions(dynamodb, postgres),
        of_request=of_request,
        finder=Finder(finder),
        trace_id=trace_id,
        run_id=run_id,
        repaired=state == DiscrepancyState.REPAIRED,
        key=None if key is None else bytes(key),
    )
    return RecordedDiscrepancy(number, DiscrepancyState(state), discrepancy)
