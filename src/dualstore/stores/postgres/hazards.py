"""What would hurt a mapped table as a mirror or as an authority, found in a live database's catalog."""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from dualstore.mapping import Mapped
from dualstore.stores.postgres.column_types import unlike_columns
from dualstore.stores.postgres.trigger_functions import sql_table


@dataclass(frozen=True, slots=True)
class _Hazard:
    """One kind of hazard.

    Attributes:
        found: a query for the names of what is found on the table `:table`.
        told: the sentence, with `{table}` and `{name}`.
    """

    found: str
    told: str


_KINDS = (
    _Hazard(
        """
        SELECT format('%I (%s)', conname, CASE confdeltype WHEN 'c' THEN 'ON DELETE CASCADE'
            WHEN 'n' THEN 'ON DELETE SET NULL' WHEN 'd' THEN 'ON DELETE SET DEFAULT' ELSE 'referential' END)
        FROM pg_constraint WHERE contype = 'f' AND conrelid = CAST(:table AS regclass)""",
        "{table}: foreign key {name} refuses children that come before their parents, and a cascade changes "
        "rows that no write asked for: drop it while the table is a mirror, add it once it is the authority",
    ),
    _Hazard(
        """
        SELECT format('%I of %s', conname, conrelid::regclass) FROM pg_constraint
        WHERE contype = 'f' AND confrelid = CAST(:table AS regclass) AND conrelid <> confrelid""",
        "{table}: foreign key {name} refuses to let go of parents, or deletes other tables' rows with them, "
        "when the mirror takes a deletion: drop it while the table is a mirror",
    ),
    _Hazard(
        """
        SELECT conname::text FROM pg_constraint
        WHERE contype IN ('u', 'x') AND NOT condeferrable AND conrelid = CAST(:table AS regclass)""",
        "{table}: constraint {name} is checked at once, and the mirror takes the writes of different keys in "
        "any order: make it DEFERRABLE INITIALLY DEFERRED",
    ),
    _Hazard(
        """
        SELECT indexrelid::regclass::text FROM pg_index i
        WHERE indisunique AND NOT indisprimary AND indrelid = CAST(:table AS regclass)
          AND NOT EXISTS (
              SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype IN ('u', 'x'))""",
        "{table}: unique index {name} cannot be deferred: make it a UNIQUE constraint, DEFERRABLE INITIALLY "
        "DEFERRED",
    ),
    _Hazard(
        """
        SELECT conname::text FROM pg_constraint
        WHERE contype = 'p' AND condeferrable AND conrelid = CAST(:table AS regclass)""",
        "{table}: primary key {name} is deferrable, and cannot decide an ON CONFLICT: make it NOT DEFERRABLE",
    ),
    _Hazard(
        """
        SELECT CASE WHEN relforcerowsecurity THEN 'forced' ELSE 'enabled' END FROM pg_class
        WHERE relrowsecurity AND oid = CAST(:table AS regclass)""",
        "{table}: row level security is {name}, and rows that its policies hide look deleted: disable it, or "
        "give dualstore's role BYPASSRLS",
    ),
    _Hazard(
        """
        SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'
          AND tgname NOT LIKE 'dualstore\\_%' AND tgrelid = CAST(:table AS regclass)""",
        "{table}: trigger {name} also fires for rows that are mirrored, and may change them or others: give "
        "it WHEN (current_setting('dualstore.writer', true) IS DISTINCT FROM 'mirror')",
    ),
    _Hazard(
        """
        SELECT tgname::text FROM pg_trigger WHERE tgenabled IN ('D', 'R')
          AND tgname LIKE 'dualstore\\_%' AND tgrelid = CAST(:table AS regclass)""",
        "{table}: trigger {name} is switched off, so that changes would never reach DynamoDB: "
        "ALTER TABLE {table} ENABLE TRIGGER {name}",
    ),
    _Hazard(
        """
        SELECT rulename::text FROM pg_rewrite
        WHERE rulename <> '_RETURN' AND ev_class = CAST(:table AS regclass)""",
        "{table}: rule {name} rewrites what is written: make it a trigger, or drop it",
    ),
    _Hazard(
        """
        SELECT pubname::text FROM pg_publication_tables p JOIN pg_publication USING (pubname)
        JOIN pg_class c ON c.oid = CAST(:table AS regclass) AND c.relname = p.tablename
            AND c.relnamespace = to_regnamespace(quote_ident(p.schemaname))
        WHERE c.relreplident = 'n' AND (pubupdate OR pubdelete)""",
        "{table}: publication {name} sends its changes, but its replica identity is NOTHING, so PostgreSQL "
        "refuses every UPDATE and DELETE: ALTER TABLE {table} REPLICA IDENTITY DEFAULT",
    ),
    _Hazard(
        """
        SELECT srsubid::text FROM pg_subscription_rel WHERE srrelid = CAST(:table AS regclass)""",
        "{table}: subscription {name} writes to it, and no trigger fires for that: drop the table from it",
    ),
    _Hazard(
        """
        SELECT CASE relpersistence WHEN 'u' THEN 'unlogged' ELSE 'temporary' END FROM pg_class
        WHERE relpersistence <> 'p' AND oid = CAST(:table AS regclass)""",
        "{table}: the table is {name}, and is empty after a crash: ALTER TABLE {table} SET LOGGED",
    ),
)


def hazards(engine: sa.Engine, mapping: Mapped) -> list[str]:
    """What is wrong with a mapped table in the database, each with its remedy (DESIGN, 3, rule 9).

    Args:
        engine: of the database.
        mapping: of the table, which exists.

    Returns:
        A sentence for each; none holds an item's value.
    """
    with engine.connect() as connection:
        found = [told for part in mapping.parts for told in _found(connection, sql_table(part))]
    return [*map(str, unlike_columns(engine, mapping)), *found]


def _found(connection: sa.Connection, table: str) -> Iterator[str]:
    for kind in _KINDS:
        for name in connection.scalars(sa.text(kind.found), {"table": table}):
            yield kind.told.format(table=table, name=name)
