"""Creates the SQL tables that dualstore owns: those of DynamoDB tables without a SQL model."""

import sqlalchemy as sa

from dualstore.mapping import UNMAPPED_PREFIX, Mapped, SplitMapping


def create_unmapped(engine: sa.Engine, mapping: Mapped) -> None:
    """Create the table of an unmapped DynamoDB table, or all tables of a split one; harmless where they are.

    A team's own tables belong to the team's own migrations; this is for `mapping.unmapped_table`, for the
    demo and for tests.

    Args:
        engine: the database, where the schema `dualstore` has been created.
        mapping: the table's mapping.
    """
    for part in mapping.parts:
        part.table.create(engine, checkfirst=True)


def create_rest(engine: sa.Engine, mapping: SplitMapping) -> None:
    """Create dualstore's own table for items of no entity; harmless where it is, or where it is the team's.

    Args:
        engine: the database, where the schema `dualstore` has been created.
        mapping: the split table's mapping.
    """
    if mapping.rest.table.name.startswith(UNMAPPED_PREFIX):
        mapping.rest.table.create(engine, checkfirst=True)
