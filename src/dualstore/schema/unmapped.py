"""Creates the SQL tables that dualstore owns: those of DynamoDB tables without a SQL model."""

import sqlalchemy as sa

from dualstore.mapping import TableMapping


def create_unmapped(engine: sa.Engine, mapping: TableMapping) -> None:
    """Create the table of an unmapped DynamoDB table; harmless where it exists.

    A team's own tables belong to the team's own migrations; this is for `mapping.unmapped_table`, for the
    demo and for tests.

    Args:
        engine: the database, where the schema `dualstore` has been created.
        mapping: the table's mapping.
    """
    mapping.table.create(engine, checkfirst=True)
