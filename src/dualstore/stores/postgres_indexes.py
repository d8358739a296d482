"""Indexes and foreign keys of mapped tables: which may go for a while, and putting them back exactly."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from dualstore.errors import ConfigurationError
from dualstore.stores.postgres_transaction import explained

if TYPE_CHECKING:
    from alembic.operations import Operations

# Never the primary key, a unique index or one behind a constraint: the merge needs the first, and the others
# are rules. An index of a partitioned table, or of a partition, cannot be dropped concurrently; one that is
# not valid is somebody's unfinished work.
_INDEXES = """
SELECT tables.nspname, tables.relname, indexes.relname, pg_get_indexdef(indexes.oid),
       pg_relation_size(indexes.oid), spaces.spcname, obj_description(indexes.oid, 'pg_class'),
       i.indisclustered,
       (SELECT coalesce(jsonb_object_agg(attnum::text, attstattarget), '{}') FROM pg_attribute
         WHERE attrelid = indexes.oid AND coalesce(attstattarget, -1) >= 0)
  FROM pg_index AS i
  JOIN pg_class AS indexes ON indexes.oid = i.indexrelid
  JOIN (SELECT pg_class.oid, relname, nspname, relkind FROM pg_class
          JOIN pg_namespace ON pg_namespace.oid = relnamespace) AS tables ON tables.oid = i.indrelid
  LEFT JOIN pg_tablespace AS spaces ON spaces.oid = indexes.reltablespace
 WHERE tables.oid = CAST(:table AS regclass) AND tables.relkind = 'r' AND NOT indexes.relispartition
   AND i.indisvalid AND NOT i.indisprimary AND NOT i.indisunique AND NOT i.indisreplident
   AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexes.oid)
 ORDER BY indexes.relname
"""
_FOREIGN_KEYS = """
SELECT nspname, relname, conname, pg_get_constraintdef(c.oid), 0, NULL,
       obj_description(c.oid, 'pg_constraint'), false, CAST('{}' AS jsonb)
  FROM pg_constraint AS c
  JOIN pg_class ON pg_class.oid = conrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE conrelid = CAST(:table AS regclass) AND contype = 'f' AND relkind = 'r' AND conparentid = 0
 ORDER BY conname
"""
_INDEX_NOW = """
SELECT pg_get_indexdef(i.indexrelid), i.indisvalid FROM pg_index AS i
  JOIN pg_class ON pg_class.oid = i.indexrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE nspname = :schema AND pg_class.relname = :name
"""
_KEY_NOW = """
SELECT pg_get_constraintdef(oid) FROM pg_constraint
 WHERE conrelid = CAST(:table AS regclass) AND contype = 'f' AND conname = :name
"""
_NOT_VALID = " NOT VALID"
_NO_SUCH_PARENT = "23503"  # foreign_key_violation
_CREATE, _CONCURRENTLY = "CREATE INDEX ", "CREATE INDEX CONCURRENTLY "


@dataclass(frozen=True, slots=True)
class Removable:
    """An index or foreign key, as PostgreSQL itself writes it.

    Attributes:
        schema: of the table.
        table: the table's name.
        name: its own.
        definition: of `pg_get_indexdef` or `pg_get_constraintdef`.
        size_bytes: of an index; 0 of a foreign key.
        tablespace: of an index, where it is not the database's.
        comment: on it, or None.
        clustered: whether CLUSTER goes by the index.
        statistics: targets by the number of an index's column, where they are not the default.
        is_key: whether it is a foreign key.
    """

    schema: str
    table: str
    name: str
    definition: str
    size_bytes: int = 0
    tablespace: str | None = None
    comment: str | None = None
    clustered: bool = False
    statistics: Mapping[str, int] = field(default_factory=dict)
    is_key: bool = False

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Self:
        """What `to_json` has made."""
        return cls(**stored)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"statistics": dict(self.statistics)}


class PostgresIndexes:
    """Drops and creates indexes and foreign keys of live tables, by Alembic's operations.

    Nothing that reads or writes waits for long: indexes go and come CONCURRENTLY, and a foreign key is
    checked after it is there.

    Args:
        engine: an engine with the psycopg driver.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._quote = engine.dialect.identifier_preparer.quote

    def removable(self, tables: Sequence[tuple[str | None, str]]) -> Sequence[Removable]:
        """The indexes and foreign keys of some tables that a copy can do without.

        Args:
            tables: by schema, or None for the search path's, and name.
        """
        found: list[Removable] = []
        with explained("Looking for indexes"), self._engine.connect() as connection:
            for schema, name in tables:
                table = {"table": self._name(schema, name)}
                keys = connection.execute(sa.text(_FOREIGN_KEYS), table)
                found += [replace(Removable(*row), is_key=True) for row in keys]
                found += [Removable(*row) for row in connection.execute(sa.text(_INDEXES), table)]
        return found

    def drop(self, each: Removable) -> bool:
        """Drop one, if it is there; whether it was.

        Raises:
            ConfigurationError: another one has its name by now.
        """
        with self._operations(f"Dropping {each.name}") as (op, connection):
            if not self._is_there(connection, op, each):
                return False
            if each.is_key:
                op.drop_constraint(each.name, each.table, schema=each.schema, type_="foreignkey")
            else:
                op.drop_index(
                    each.name, table_name=each.table, schema=each.schema, postgresql_concurrently=True
                )
        return True

    def restore(self, each: Removable) -> bool:
        """Put one back exactly, unless it is there; whether it was not.

        What was interrupted before is taken up again: an index that is not valid is made anew.

        Raises:
            ConfigurationError: another one has its name by now, or rows do not keep to it, or its definition
                names what is not there any more. Where only the rows of a foreign key are at fault, it is
                there already, and holds for what is written from now on.
        """
        try:
            with self._operations(f"Putting {each.name} back") as (op, connection):
                missing = not self._is_there(connection, op, each)
                if each.is_key:
                    self._restore_key(op, each, missing=missing)
                else:
                    self._restore_index(op, each, missing=missing)
        except (IntegrityError, DataError, ProgrammingError) as error:
            # What PostgreSQL says of it quotes values.
            raise ConfigurationError(
                self._not_put_back(each, getattr(error.orig, "sqlstate", None))
            ) from None
        return missing

    def _not_put_back(self, each: Removable, sqlstate: str | None) -> str:
        table = self._name(each.schema, each.table)
        if sqlstate == _NO_SUCH_PARENT:
            return (
                f"foreign key {each.name} of {table} holds for new rows only: copied rows refer to rows that "
                f"are not there. `ALTER TABLE {table} VALIDATE CONSTRAINT "
                f"{self._quote(each.name)}` names the first; mend what is missing, and put it back again"
            )
        return (
            f"{each.name} of {table} could not be put back (SQLSTATE {sqlstate}): see in psql why "
            f"`{each.definition}` fails, mend that, and put it back again"
        )

    def _is_there(self, connection: sa.Connection, op: "Operations", each: Removable) -> bool:
        """Whether it is there as it was; the remains of an interrupted command are removed."""
        if each.is_key:
            values = {"table": self._name(each.schema, each.table), "name": each.name}
            present, valid = connection.execute(sa.text(_KEY_NOW), values).scalar(), True
        else:
            row = connection.execute(sa.text(_INDEX_NOW), {"schema": each.schema, "name": each.name}).first()
            present, valid = (None, True) if row is None else row
        if present is None:
            return False
        if not valid:  # PostgreSQL, "CREATE INDEX": what CONCURRENTLY leaves behind when it fails
            op.drop_index(each.name, table_name=each.table, schema=each.schema, postgresql_concurrently=True)
            return False
        if present.removesuffix(_NOT_VALID) != each.definition.removesuffix(_NOT_VALID):
            raise ConfigurationError(
                f"{each.name} on {each.schema}.{each.table} is there, but is not what was set aside: drop or "
                f"rename it, then put back what was there: {each.definition}"
            )
        return True

    def _restore_key(self, op: "Operations", each: Removable, *, missing: bool) -> None:
        table, name = self._name(each.schema, each.table), self._quote(each.name)
        definition = each.definition.removesuffix(_NOT_VALID)
        if missing:  # the rows are looked at in a second step, under a lock that lets writes pass
            op.execute(_exactly(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}{_NOT_VALID}"))
        if definition == each.definition:
            op.execute(_exactly(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}"))
        if each.comment is not None:
            op.execute(_exactly(f"COMMENT ON CONSTRAINT {name} ON {table} IS {_literal(each.comment)}"))

    def _restore_index(self, op: "Operations", each: Removable, *, missing: bool) -> None:
        name = self._name(each.schema, each.name)
        if missing:
            op.execute(_exactly(f"SET default_tablespace = {_literal(each.tablespace or '')}"))
            op.execute(_exactly(each.definition.replace(_CREATE, _CONCURRENTLY, 1)))
        for column, target in each.statistics.items():
            op.execute(_exactly(f"ALTER INDEX {name} ALTER COLUMN {column} SET STATISTICS {target}"))
        if each.comment is not None:
            op.execute(_exactly(f"COMMENT ON INDEX {name} IS {_literal(each.comment)}"))
        if each.clustered:
            op.execute(
                f"ALTER TABLE {self._name(each.schema, each.table)} CLUSTER ON {self._quote(each.name)}"
            )

    @contextmanager
    def _operations(self, doing: str) -> Iterator[tuple["Operations", sa.Connection]]:
        """Alembic's operations, each carried out at once: CONCURRENTLY allows no transaction."""
        # Imported here: it takes a quarter of a second, and few processes come this way.
        from alembic.migration import MigrationContext  # noqa: PLC0415
        from alembic.operations import Operations  # noqa: PLC0415

        with explained(doing), self._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            try:
                connection.execute(sa.text("SET statement_timeout = 0"))
                yield Operations(MigrationContext.configure(connection)), connection
            finally:
                connection.invalidate()  # nobody gets a connection with these settings

    def _name(self, schema: str | None, name: str) -> str:
        return ".".join(self._quote(part) for part in (schema, name) if part)


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


def _exactly(statement: str) -> sa.TextClause:
    """SQL without parameters, whatever colons it has."""
    return sa.text(statement.replace(":", "\\:"))
