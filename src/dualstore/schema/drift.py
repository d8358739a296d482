"""How the `dualstore` schema of a database differs from what this version expects."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from dualstore.schema.tables import SCHEMA, metadata, revision

_VERSION_TABLE = "alembic_version"


def differences(connection: sa.Connection) -> list[str]:
    """How the database differs from the metadata, a sentence each.

    Alembic compares tables, columns, types, defaults, indexes, unique and foreign keys; primary keys,
    CHECK constraints and sequences, which it leaves out, are compared here.
    """
    context = MigrationContext.configure(
        connection,
        opts={
            "include_schemas": True,
            "include_name": _is_ours,
            "compare_type": True,
            "compare_server_default": True,
            "version_table_schema": SCHEMA,
        },
    )
    found = [_sentence(difference) for difference in _flattened(compare_metadata(context, metadata))]
    return [*found, *_unseen_by_alembic(sa.inspect(connection))]


def _is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    return name == SCHEMA if kind == "schema" else name != _VERSION_TABLE


def _flattened(differences_: Any) -> Iterator[tuple[Any, ...]]:
    """Alembic groups the changes of one column in a list of their own."""
    for difference in differences_:
        if isinstance(difference, list):
            yield from _flattened(difference)
        else:
            yield difference


def _sentence(difference: tuple[Any, ...]) -> str:
    change, *subject = difference
    if change.startswith("modify_"):
        _schema, table, column, _details, present, wanted = subject
        aspect = change.removeprefix("modify_")
        return f"{SCHEMA}.{table}, column {column}: {aspect} is {_plain(present)}, expected {_plain(wanted)}"
    if change.endswith("_table_comment"):
        return f"{SCHEMA}.{subject[0].name}: its comment is not the expected one"
    verb = "is missing" if change.startswith("add_") else "is not expected"
    kind = change.removeprefix("add_").removeprefix("remove_").replace("_", " ")
    # Columns come with their schema and table, constraints and indexes know their table.
    table = subject[1] if kind == "column" else getattr(getattr(subject[0], "table", None), "name", None)
    place = SCHEMA if table is None else f"{SCHEMA}.{table}"
    return f"{place}, {kind} {subject[-1].name} {verb}"


def _plain(value: Any) -> str:
    argument = getattr(value, "arg", value)
    return str(getattr(argument, "text", argument))


def _unseen_by_alembic(inspector: sa.Inspector) -> Iterator[str]:
    if not inspector.has_sequence(str(revision.name), schema=SCHEMA):
        yield f"{SCHEMA}, sequence {revision.name} is missing"
    present = set(inspector.get_table_names(schema=SCHEMA))
    for table in metadata.sorted_tables:
        if table.name not in present:
            continue
        place = f"{SCHEMA}.{table.name}"
        key = inspector.get_pk_constraint(table.name, schema=SCHEMA)["constrained_columns"]
        wanted_key = [column.name for column in table.primary_key.columns]
        if key != wanted_key:
            yield f"{place}: primary key is ({', '.join(key)}), expected ({', '.join(wanted_key)})"
        checks = {str(check["name"]) for check in inspector.get_check_constraints(table.name, schema=SCHEMA)}
        wanted_checks = {
            str(constraint.name)
            for constraint in table.constraints
            if isinstance(constraint, sa.CheckConstraint)
        }
        for name in sorted(wanted_checks ^ checks):
            yield f"{place}, check {name} {'is missing' if name in wanted_checks else 'is not expected'}"
