"""Which SQL tables hold the items of a DynamoDB table, noted for the functions of the `dualstore` schema."""

from sqlalchemy import Engine

from dualstore.mapping import Mapped
from dualstore.mapping.text import quoted
from dualstore.stores.postgres_transaction import transaction

_NOTE = (
    "INSERT INTO dualstore.mapped_tables AS m (table_name, place, relation) VALUES (%s, %s, %s)"
    " ON CONFLICT (table_name, place) DO UPDATE"
    " SET relation = excluded.relation, updated_at = clock_timestamp() WHERE m.relation <> excluded.relation"
)


def register(engine: Engine, mapping: Mapped) -> None:
    """Note where a table's items are.

    Args:
        engine: an engine with the psycopg driver.
        mapping: the table.

    Raises:
        Unavailable: PostgreSQL could not be reached in time.
    """
    name, parts = mapping.shape.name, mapping.parts
    with transaction(engine, f"Noting the SQL tables of {name}") as cursor:
        cursor.execute("SELECT current_schema()")
        (current,) = cursor.fetchone() or ("public",)
        for place, part in enumerate(parts):
            relation = f"{quoted(part.table.schema or current)}.{quoted(part.table.name)}"
            cursor.execute(_NOTE, [name, place, relation])
        cursor.execute(
            "DELETE FROM dualstore.mapped_tables WHERE table_name = %s AND place >= %s", [name, len(parts)]
        )
