"""How large an item collection is, as PostgreSQL estimates it: without reading it whole.

The planner knows about how many rows a partition key has, and a few of them show how large they are. A
collection of a thousand million rows takes as long as one of ten.
"""

from collections.abc import Sequence

from dualstore.mapping import TableMapping
from dualstore.stores.postgres.attributes import Values, sql_attribute
from dualstore.stores.postgres.catalog import Catalog
from dualstore.stores.postgres.exchanges import Row, Statement
from dualstore.stores.postgres.statements import TableStatements
from dualstore.stores.semantics import Collection

_SAMPLE_ROWS = 100


def size_statements(catalog: Catalog, collections: Sequence[Collection]) -> list[Statement]:
    """What `sizes_bytes` needs to be asked of PostgreSQL: two statements for each SQL table of each."""
    return [
        statement
        for collection in collections
        for part in _parts(catalog, collection)
        for statement in _statements(part, collection)
    ]


def _parts(catalog: Catalog, collection: Collection) -> Sequence[TableMapping]:
    return catalog.statements(collection.shape.name).mapping.parts


def _statements(part: TableMapping, collection: Collection) -> tuple[Statement, Statement]:
    statements = TableStatements(part)
    values = Values()
    partition = collection.shape.keys.partition
    condition = sql_attribute(part, partition).equals(collection.key[partition.name], values)
    rows = f"FROM {statements.table} t WHERE {condition}"
    # Column by column: the size of a whole row would fetch and unpack what is stored out of line.
    octets = " + ".join(f"coalesce(pg_column_size(t.{name}), 0)" for name in statements.names)
    sample = f"SELECT {octets} AS octets {rows} LIMIT {_SAMPLE_ROWS:d}"
    return (
        (f"EXPLAIN (FORMAT JSON) SELECT {rows}", values),
        (f"SELECT count(*), coalesce(sum(octets), 0)::bigint FROM ({sample}) sampled", values),
    )


def sizes_bytes(
    catalog: Catalog, collections: Sequence[Collection], answers: Sequence[Sequence[Row]]
) -> list[int]:
    """How large each collection is, and what the local indexes hold of it.

    Args:
        catalog: the tables.
        collections: which.
        answers: what the statements of `size_statements` answered.
    """
    pairs = iter(zip(answers[::2], answers[1::2], strict=True))
    return [
        sum(_size_bytes(collection, *next(pairs)) for _ in _parts(catalog, collection))
        for collection in collections
    ]


def _size_bytes(collection: Collection, plan: Sequence[Row], sample: Sequence[Row]) -> int:
    ((found, octets),) = sample
    if found < _SAMPLE_ROWS:
        table_bytes = octets
    else:
        estimated_rows = max(found, plan[0][0][0]["Plan"]["Plan Rows"])
        table_bytes = octets * estimated_rows // found
    whole = sum(
        not index.is_global and index.projection == "ALL" for index in collection.shape.indexes.values()
    )
    return int(table_bytes) * (1 + whole)
