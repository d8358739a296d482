"""Where the `dualstore` schema of a database stands, and whether that is what this version needs."""

import sqlalchemy as sa

from dualstore.errors import SchemaError
from dualstore.schema.tables import SCHEMA

UPGRADE_COMMAND = "dualstore schema upgrade"
HEAD = "0013"
"""The revision that this version of dualstore needs: the last of the migrations, which are numbered."""

VERSION_TABLE = "alembic_version"
"""Where Alembic notes the revision, in our schema."""


def current(engine: sa.Engine) -> str | None:
    """The revision that a database is at, or None where it has no `dualstore` schema."""
    with engine.connect() as connection:
        return revision_of(connection)


def require_current(engine: sa.Engine) -> None:
    """See that the schema is of this version: one short query, for start-up.

    Raises:
        SchemaError: it is missing, older or newer; the message says which command mends it.
    """
    with engine.connect() as connection:
        require_head(connection)


def revision_of(connection: sa.Connection) -> str | None:
    """As `current`, on a connection."""
    table = f"{SCHEMA}.{VERSION_TABLE}"
    if connection.scalar(sa.select(sa.func.to_regclass(table))) is None:
        return None
    revision: str | None = connection.scalar(sa.text(f"SELECT version_num FROM {table}"))
    return revision


def require_head(connection: sa.Connection) -> None:
    """As `require_current`, on a connection."""
    revision = revision_of(connection)
    if revision == HEAD:
        return
    if revision is None:
        raise SchemaError(f"the database has no schema {SCHEMA}: run `{UPGRADE_COMMAND}`")
    if revision < HEAD:
        raise SchemaError(f"the schema {SCHEMA} is at {revision}, older than {HEAD}: run `{UPGRADE_COMMAND}`")
    raise SchemaError(
        f"the schema {SCHEMA} is at {revision}, newer than this version of dualstore: install a later version"
    )
