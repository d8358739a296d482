"""The SQL of loading one table in bulk: staging, the merge where nothing is, and what it left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from psycopg import sql

from dualstore.items import KeyType
from dualstore.mapping import Mapped, TableMapping
from dualstore.stores.postgres.statements import passing
from dualstore.stores.postgres_pressure import LOADER

# `json` has no equality. The texts are compared: a false difference costs one settle.
_COMPARED_AS_TEXT = frozenset({"json", "json[]"})

MIRROR = passing("%(table)s", "%(epoch)s")
"""One row where PostgreSQL is the mirror of the table at the epoch."""
NOBODY = (
    "SELECT WHERE %(epoch)s IS NOT NULL AND NOT EXISTS (SELECT FROM dualstore.control"
    " WHERE table_name = %(table)s AND role <> 'none')"
)
"""One row where nobody writes the table yet: PostgreSQL is neither its mirror nor its authority."""

# A piece is sorted in memory; and what makes a plan look dear here is the number of rows, which compiling it
# does not pay for.
SETTINGS = (
    "SELECT set_config('dualstore.writer', 'mirror', true), set_config('work_mem', '64MB', true),"
    f" set_config('jit', 'off', true), set_config('application_name', '{LOADER}', true)"
)


class CopyInto(NamedTuple):
    """The statements that copy rows into one SQL table.

    Attributes:
        text: COPY in its text format.
        binary: COPY in its binary format.
        types: the OIDs of the columns' types, and that they stay so until the end of the transaction.
        keys: how many of the first columns are the primary key.
    """

    text: sql.SQL
    binary: sql.SQL
    types: sql.SQL
    keys: int


@dataclass(frozen=True)
class LoadStatements:
    """The statements for one table, composed and rendered once: rendering takes a millisecond a batch.

    Attributes:
        mapping: the SQL table.
        guard: a query of one row where the table may be loaded: `MIRROR` or `NOBODY`.
        beside: the other SQL tables of the same DynamoDB table: a key has a row in one of them.
        place: the number of the SQL table among them.
    """

    mapping: TableMapping
    guard: str
    beside: tuple[TableMapping, ...] = ()
    place: int = 0

    @cached_property
    def table(self) -> sql.Identifier:
        """The SQL table's name."""
        table = self.mapping.table
        return sql.Identifier(*filter(None, (table.schema, table.name)))

    @cached_property
    def begin(self) -> sql.SQL:
        """Settings, and an empty staging table: a copy of the columns' types, and of nothing else.

        No NOT NULL, no CHECK, no default; without values, so that both statements go in one round trip.
        """
        statement = sql.SQL(
            f"{SETTINGS};"  # pyright: ignore[reportArgumentType] - a constant
            " CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA"
        )
        name = sql.Identifier(self._name)
        return rendered(statement.format(name=name, columns=self._columns, table=self.table))

    @cached_property
    def empty_staging(self) -> sql.SQL:
        """Forget what was merged before in the same transaction."""
        return rendered(sql.SQL("TRUNCATE {}").format(self._staging))

    @cached_property
    def staged(self) -> CopyInto:
        """COPY into the staging table."""
        return self._copy_into(self._staging)

    @cached_property
    def straight(self) -> CopyInto:
        """COPY into the table itself."""
        return self._copy_into(self.table)

    def _copy_into(self, table: sql.Identifier) -> CopyInto:
        copy = sql.SQL("COPY {} ({}) FROM STDIN").format(table, self._columns)
        # No type changes under the lock of the first statement; the second sees what was before it.
        types = sql.SQL(
            "SELECT FROM {table} LIMIT 0; SELECT array_agg(atttypid::bigint ORDER BY place)"
            " FROM unnest({names}::text[]) WITH ORDINALITY AS wanted (name, place)"
            " JOIN pg_attribute ON attrelid = {regclass}::regclass AND attname = name"
        ).format(
            table=table,
            names=sql.Literal(list(self.mapping.column_names)),
            regclass=sql.Literal(table.as_string(None)),
        )
        binary = copy + sql.SQL(" (FORMAT BINARY)")
        return CopyInto(rendered(copy), rendered(binary), rendered(types), len(self.mapping.key_columns))

    @cached_property
    def insert(self) -> sql.SQL:
        """Insert where there is neither row nor tombstone.

        In key order, so that two transactions that insert many rows wait for each other in one direction, and
        neighbours go to the same page of the index.
        """
        return self._insert(sql.SQL(" ORDER BY {}").format(self._key_columns))

    @cached_property
    def insert_in_order(self) -> sql.SQL:
        """The same where the staging table was filled in key order: it is read from front to back.

        With other SQL tables beside, the plan may be a join of any order, so that it is sorted even then.
        """
        return self.insert if self.beside else self._insert(sql.SQL(""))

    def _insert(self, order: sql.Composable) -> sql.SQL:
        statement = sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging} s"
            " WHERE EXISTS ({guard}) AND NOT {buried} AND NOT {elsewhere}{order}"
            " ON CONFLICT ({keys}) DO NOTHING"
        ).format(
            table=self.table,
            columns=self._columns,
            staging=self._staging,
            guard=composed(self.guard),
            buried=self._buried,
            elsewhere=self._elsewhere,
            order=order,
            keys=self._key_columns,
        )
        return rendered(statement)

    @cached_property
    def differing(self) -> sql.SQL:
        """The keys of what was not inserted and is not there as it is in the staging table.

        A statement of its own: it sees what was committed while the one before it waited.
        """
        keys = self._names[: len(self.mapping.key_columns)]
        statement = sql.SQL(
            "SELECT {read} FROM {staging} s LEFT JOIN {table} t ON {same_key}"
            " WHERE t.dualstore_revision IS NULL OR {differs} OR {buried} OR {elsewhere}"
        ).format(
            read=sql.SQL(", ").join(map(composed, self.mapping.read_expressions("s")[: len(keys)])),
            staging=self._staging,
            table=self.table,
            same_key=sql.SQL(" AND ").join(sql.SQL("t.{0} = s.{0}").format(name) for name in keys),
            differs=sql.SQL(" OR ").join(
                sql.SQL("t.{0}{1} IS DISTINCT FROM s.{0}{1}").format(
                    name, sql.SQL("::text" if pg_type in _COMPARED_AS_TEXT else "")
                )
                for name, pg_type in zip(self._names, self.mapping.pg_types, strict=True)
            ),
            buried=self._buried,
            elsewhere=self._elsewhere,
        )
        return rendered(statement)

    def rows(self, limit: int) -> sql.Composed:
        """The first keys of the table, and whether each was last written before a revision."""
        return self._rows(sql.SQL(""), limit)

    def rows_after(self, limit: int) -> sql.Composed:
        """The same behind a key."""
        behind = sql.SQL(" WHERE ({}) > ({})").format(
            self._key_columns,
            sql.SQL(", ").join(composed(f"%s::{type_}") for type_ in self.mapping.key_types),
        )
        return self._rows(behind, limit)

    def _rows(self, where: sql.Composable, limit: int) -> sql.Composed:
        # `dualstore_revision` has no index: a page is bounded by the rows it reads, not by those it finds.
        read = self.mapping.read_expressions("t")[: len(self.mapping.key_columns)]
        rows = sql.SQL("SELECT {}, t.dualstore_revision < %s FROM {} t").format(
            sql.SQL(", ").join(map(composed, read)), self.table
        )
        return rows + where + sql.SQL(" ORDER BY {} LIMIT {}").format(self._key_columns, limit)

    @property
    def _name(self) -> str:
        return f"dualstore_staging_{self.place}"

    @property
    def _staging(self) -> sql.Identifier:
        return sql.Identifier("pg_temp", self._name)

    @cached_property
    def _elsewhere(self) -> sql.Composable:
        """Whether another SQL table has a row of the key."""
        found = [
            sql.SQL("EXISTS (SELECT FROM {} o WHERE {})").format(
                sql.Identifier(*filter(None, (other.table.schema, other.table.name))),
                sql.SQL(" AND ").join(
                    sql.SQL("o.{} = s.{}").format(sql.Identifier(theirs.name), sql.Identifier(mine.name))
                    for mine, theirs in zip(self.mapping.key_columns, other.key_columns, strict=True)
                ),
            )
            for other in self.beside
        ]
        return sql.SQL("({})").format(sql.SQL(" OR ").join(found)) if found else sql.SQL("false")

    @cached_property
    def _names(self) -> list[sql.Identifier]:
        return [sql.Identifier(name) for name in self.mapping.column_names]

    @cached_property
    def _columns(self) -> sql.Composed:
        return sql.SQL(", ").join(self._names)

    @cached_property
    def _key_columns(self) -> sql.Composed:
        return sql.SQL(", ").join(self._names[: len(self.mapping.key_columns)])

    @cached_property
    def _buried(self) -> sql.Composed:
        # Most tables have no tombstone at all: asked once for the whole statement, and in its snapshot. Only
        # where there is one are the bytes of each key put together.
        return sql.SQL(
            "((SELECT EXISTS (SELECT FROM dualstore.tombstones WHERE table_name = %(table)s))"
            " AND EXISTS (SELECT FROM dualstore.tombstones gone WHERE gone.table_name = %(table)s"
            " AND sha256(gone.key) = sha256({})))"
        ).format(sql.SQL(" || ").join(self._key_parts()))

    def _key_parts(self) -> list[sql.Composed]:
        attributes = self.mapping.shape.keys.attributes
        return [
            sql.SQL(
                "(SELECT convert_to({type}, 'UTF8') || int4send(octet_length(payload)) || payload"
                " FROM (SELECT {payload}) AS part (payload))"
            ).format(
                type=sql.Literal(attribute.type),
                payload=sql.SQL(_KEY_PAYLOADS[attribute.type]).format(  # pyright: ignore[reportArgumentType] - a constant
                    sql.Identifier("s", column.name)
                ),
            )
            for attribute, column in zip(attributes, self.mapping.key_columns, strict=True)
        ]


# `items.key_bytes` in SQL. A stored text escapes U+0000 and U+0001 (see `mapping.text`); as `escape` writes a
# bytea, U+0000 is three digits behind a backslash and U+0001 itself.
_KEY_PAYLOADS: dict[KeyType, str] = {
    "S": (
        "CASE WHEN strpos({0}, E'\\x01') = 0 THEN convert_to({0}, 'UTF8') ELSE decode(replace(replace("
        "encode(convert_to({0}, 'UTF8'), 'escape'), E'\\x01\\x01', '\\000'),"
        " E'\\x01\\x02', E'\\x01'), 'escape') END"
    ),
    "N": "convert_to(trim_scale({0})::text, 'UTF8')",
    "B": "{0}",
}


def composed(text: str) -> sql.SQL:
    """SQL that the mapping has composed of quoted names and type names, which a type checker cannot see."""
    return sql.SQL(text)  # pyright: ignore[reportArgumentType]


def rendered(statement: sql.Composable) -> sql.SQL:
    """A statement as text, without what it was composed of."""
    return composed(statement.as_string(None))


def load_statements(mapping: Mapped, guard: str) -> tuple[LoadStatements, ...]:
    """The statements for each SQL table of a mapped table.

    Args:
        mapping: the table.
        guard: `MIRROR` or `NOBODY`.
    """
    parts = mapping.parts
    return tuple(
        LoadStatements(part, guard, beside=(*parts[:place], *parts[place + 1 :]), place=place)
        for place, part in enumerate(parts)
    )


def in_key_order(mapping: Mapped, pages: Sequence[sql.Composed], limit: int) -> sql.Composed:
    """The first rows in key order of pages of several SQL tables, each as `LoadStatements.rows` gives one."""
    if len(pages) == 1:
        return pages[0]
    keys = mapping.shape.keys.attributes
    places = [sql.Identifier(f"k{number}") for number in range(len(keys))]
    order = (
        sql.SQL('{} COLLATE "C"' if key.type == "S" else "{}").format(place)
        for place, key in zip(places, keys, strict=True)
    )
    together = sql.SQL(" UNION ALL ").join(sql.SQL("({})").format(page) for page in pages)
    return sql.SQL("SELECT * FROM ({}) AS rows ({}) ORDER BY {} LIMIT {}").format(
        together, sql.SQL(", ").join((*places, sql.Identifier("older"))), sql.SQL(", ").join(order), limit
    )
