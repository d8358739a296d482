"""By which entities the rows of a DynamoDB table in several SQL tables were placed: kept beside them.

Another process, or another release, that tells the entities otherwise would look for them elsewhere.
"""

import json
from itertools import combinations
from typing import Any

import sqlalchemy as sa

from dualstore.mapping import Mapped, SplitMapping, TableMapping, quoted
from dualstore.stores.postgres.trigger_functions import sql_table

_KNOWN = "SELECT layout FROM dualstore.entities WHERE table_name = :table FOR UPDATE"
_RECORD = """
INSERT INTO dualstore.entities (table_name, layout) VALUES (:table, CAST(:layout AS jsonb))
ON CONFLICT (table_name) DO UPDATE SET layout = EXCLUDED.layout, recorded_at = clock_timestamp()"""
_DIFFERS = "SELECT layout <> CAST(:layout AS jsonb) FROM dualstore.entities WHERE table_name = :table"


def layout_of(mapping: SplitMapping) -> list[Any]:
    """The SQL tables and their entities, as JSON; in the order of asking only where that matters."""
    entities = [{"table": _named(each.mapping), "where": each.entity.document()} for each in mapping.entities]
    if all(one.entity.excludes(other.entity) for one, other in combinations(mapping.entities, 2)):
        entities.sort(key=lambda each: str(each["table"]))
    return [*entities, {"table": _named(mapping.rest), "where": {"otherwise": True}}]


def record_layout(engine: sa.Engine, mapping: SplitMapping) -> None:
    """Keep by which entities rows are placed from now on; what rows were placed by already stays.

    Args:
        engine: of the database, where the SQL tables and the schema `dualstore` are.
        mapping: the table.
    """
    with engine.begin() as connection:
        known = connection.execute(sa.text(_KNOWN), {"table": mapping.shape.name}).scalar()
        mine = {sql_table(part) for part in mapping.parts}
        if known is None or not any(_has_rows(connection, table) for table in mine | _tables(known)):
            connection.execute(sa.text(_RECORD), _values(mapping))


def other_layout(engine: sa.Engine, mapping: Mapped) -> str | None:
    """A sentence where the rows of a table were placed by other entities than these, else None."""
    if not isinstance(mapping, SplitMapping):
        return None
    with engine.connect() as connection:
        differs = connection.execute(sa.text(_DIFFERS), _values(mapping)).scalar()
    if not differs:
        return None
    return (
        f"the rows of {mapping.shape.name} were placed by other entities than this process has bound, and "
        "would be looked for where they are not: bind the same everywhere; or go back to stage off, empty "
        "the SQL tables, run `dualstore schema upgrade`, and copy again"
    )


def _tables(layout: Any) -> set[str]:
    """The SQL tables of a layout, quoted."""
    return {".".join(map(quoted, each["table"])) for each in layout}


def _has_rows(connection: sa.Connection, table: str) -> bool:
    if connection.execute(sa.text("SELECT to_regclass(:table)"), {"table": table}).scalar() is None:
        return False  # dropped since
    return bool(
        connection.exec_driver_sql(f"SELECT EXISTS (SELECT FROM {table})".replace("%", "%%")).scalar()
    )


def _named(mapping: TableMapping) -> list[str]:
    table = mapping.table
    return [part for part in (table.schema, table.name) if part is not None]


def _values(mapping: SplitMapping) -> dict[str, str]:
    return {"table": mapping.shape.name, "layout": json.dumps(layout_of(mapping))}
