"""Alembic on the `dualstore` schema: up, down, and what somebody changed by hand.

Apart from `revisions`, since Alembic takes a quarter of a second to import and a service needs none of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.util.exc import CommandError
from sqlalchemy.exc import DBAPIError

from dualstore.errors import SchemaError
from dualstore.schema.drift import differences
from dualstore.schema.revisions import UPGRADE_COMMAND, VERSION_TABLE, require_head, revision_of
from dualstore.schema.tables import SCHEMA, metadata

_EXPLANATIONS = {
    # dependent_objects_still_exist
    "2BP01": f"mirrored tables still use {SCHEMA}.revision: drop their columns dualstore_revision first",
    # insufficient_privilege
    "42501": (
        f"the role lacks a privilege to change the schema {SCHEMA}: GRANT CREATE ON DATABASE … TO it, or let "
        f"an administrator run CREATE SCHEMA {SCHEMA} AUTHORIZATION it; then run `{UPGRADE_COMMAND}`"
    ),
}
# An advisory lock of the whole database: any constant that nobody else uses will do.
_LOCK = int.from_bytes(b"dualstor", "big", signed=True)


def upgrade(engine: sa.Engine, revision: str = "head") -> None:
    """Bring the schema to a revision, creating it where it is missing; harmless where it is there.

    All in one transaction, and one upgrade of a database at a time. Needs no superuser: the role must be
    allowed to create the schema (`GRANT CREATE ON DATABASE`), or own it where an administrator made it.

    Args:
        engine: the database, with the psycopg driver.
        revision: an Alembic revision, or `head`.

    Raises:
        SchemaError: the database is at a revision that this version does not know, or the role lacks
            a privilege.
    """
    with _migrating(engine) as (connection, config):
        present = connection.scalar(sa.text("SELECT to_regnamespace(:name)::text"), {"name": SCHEMA})
        if present is None:
            connection.execute(sa.schema.CreateSchema(SCHEMA))
        command.upgrade(config, revision)


def downgrade(engine: sa.Engine, revision: str = "base") -> None:
    """Bring the schema back to a revision; `base` removes it with all that it holds.

    Raises:
        SchemaError: mirrored tables still draw their revisions from the schema's sequence.
    """
    with _migrating(engine) as (connection, config):
        if revision_of(connection) is None:
            return
        command.downgrade(config, revision)
        if revision_of(connection) is None:
            connection.execute(sa.text(f"DROP TABLE {SCHEMA}.{VERSION_TABLE}"))
            connection.execute(sa.schema.DropSchema(SCHEMA))


def check(engine: sa.Engine) -> list[str]:
    """See that the schema is there, of this version, and as the migrations left it.

    Args:
        engine: the database, with the psycopg driver.

    Returns:
        What somebody changed by hand since, a sentence each; empty where nothing differs.

    Raises:
        SchemaError: the schema is missing, older or newer than this version.
    """
    with engine.connect() as connection:
        require_head(connection)
        return differences(connection)


def configure(context: EnvironmentContext) -> None:
    """Set an Alembic environment up for the `dualstore` schema; called by its `env.py`.

    Raises:
        SchemaError: Alembic was started by itself, without a connection from this module.
    """
    connection = context.config.attributes.get("connection")
    if connection is None:
        raise SchemaError(f"these migrations are run by `{UPGRADE_COMMAND}` (dualstore.schema.upgrade)")
    context.configure(connection=connection, target_metadata=metadata, **_options())


def _options() -> dict[str, Any]:
    """What sets our migrations apart from those of the team, in the same database."""
    return {
        "version_table": VERSION_TABLE,
        "version_table_schema": SCHEMA,
        "include_schemas": True,
    }


def _scripts() -> Path:
    """Where the migrations are: in the installed package, or at the top of a checkout."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "alembic"


def _config(connection: sa.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _migrating(engine: sa.Engine) -> Iterator[tuple[sa.Connection, Config]]:
    """One transaction, and no other upgrade of this database meanwhile."""
    try:
        with engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection, _config(connection)
    except CommandError as error:
        raise SchemaError(
            f"{error}: another version of dualstore upgraded the database; install that one or a later one"
        ) from error
    except DBAPIError as error:
        explanation = _EXPLANATIONS.get(getattr(error.orig, "sqlstate", None) or "")
        if explanation is None:
            raise
        raise SchemaError(explanation) from error
