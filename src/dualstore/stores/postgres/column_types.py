"""The types that columns really have, beside those that the mapping checks values against.

A codec knows what a column of the model's type holds, and sends everything else to the overflow. Where the
database's column is narrower than that, PostgreSQL rounds, cuts or pads what it is given and says nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import CITEXT

from dualstore.mapping import Mapped, MappedColumn, TableMapping, quoted
from dualstore.mapping.codecs import POSTGRESQL, actual_type
from dualstore.mapping.tables import BYTEWISE
from dualstore.stores.postgres.trigger_functions import sql_table

# Behind a domain, however many there are, is the type that the client sees.
_COLUMNS = """
    WITH RECURSIVE typed (number, type, modifier) AS (
        SELECT attnum, atttypid, atttypmod FROM pg_attribute
        WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT number, typbasetype, typtypmod FROM typed JOIN pg_type t ON t.oid = type AND typtype = 'd')
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) || CASE a.atttypid WHEN type THEN ''
            ELSE format(' (a domain of %s)', format_type(type, modifier)) END,
        format_type(type, modifier), type::bigint,
        CASE c.collname WHEN 'default' THEN
            CASE coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') -- before PostgreSQL 15 there was one
                WHEN 'c' THEN d.datcollate WHEN 'b' THEN 'C' ELSE 'of the database' END
            ELSE coalesce(c.collcollate, c.collname) END, c.collisdeterministic
    FROM typed JOIN pg_attribute a ON a.attrelid = to_regclass(:table) AND a.attnum = number
        JOIN pg_type t ON t.oid = type AND t.typtype <> 'd'
        JOIN pg_database d ON d.datname = current_database()
        LEFT JOIN pg_collation c ON c.oid = a.attcollation"""
# An extension may be in a schema that nobody searches.
_OIDS = """
    SELECT name, coalesce(to_regtype(name)::oid, (SELECT min(oid) FROM pg_type WHERE typname = CASE name
        WHEN 'citext' THEN 'citext' WHEN 'citext[]' THEN '_citext' END))::bigint AS oid
    FROM unnest(CAST(:names AS text[])) AS wanted (name)"""

# Kinds: what casts from one to another tell apart all that the types do.
_KINDS = (
    ("text", "varchar", "citext"),
    ("text[]", "varchar[]", "citext[]"),
    ("int2", "int4", "int8"),
    ("int2[]", "int4[]", "int8[]"),
)
# By the type that the mapping speaks: those that hold the same contents, and psycopg reads alike. A numeric
# stands for no integer: comparisons round its fractions away, and its hashes are others.
_AS_GOOD = {
    "text": ("text", "varchar"),
    "varchar": ("text", "varchar"),
    "text[]": ("text[]", "varchar[]"),
    "varchar[]": ("text[]", "varchar[]"),
    "int2": ("int2", "int4", "int8"),
    "int4": ("int4", "int8"),
    "int2[]": ("int2[]", "int4[]", "int8[]"),
    "int4[]": ("int4[]", "int8[]"),
}
_BYTEWISE = BYTEWISE | {"pg_c_utf8"}
_MICROSECONDS = 6
_LIMITS = re.compile(r"\((\d+)(?:,(-?\d+))?\)")


@dataclass(frozen=True, slots=True)
class UnlikeColumn:
    """A column of the database that does not hold what the mapping takes it to hold.

    Attributes:
        table: the SQL table, quoted, with its schema.
        column: the column's name.
        found: its type in the database.
        expected: the type that the mapping has checked values against, as SQL.
        is_other_type: whether it is of another type altogether, so that nothing can be compared with it
            exactly; else it is narrower, or sorts in another order.
    """

    table: str
    column: str
    found: str
    expected: str
    is_other_type: bool

    def __str__(self) -> str:
        """What is wrong, and behind the last colon what to do."""
        return (
            f"{self.table}: column {quoted(self.column)} is {self.found}, and the model says "
            f"{self.expected}, so PostgreSQL may round, cut or confuse values, or refuse them: "
            f"ALTER TABLE {self.table} ALTER COLUMN {quoted(self.column)} TYPE {self.expected} (or have the "
            "model say what it is), then `dualstore verify --repair`"
        )


def unlike_columns(engine: sa.Engine, mapping: Mapped) -> list[UnlikeColumn]:
    """The mapped columns that hold less in the database than the mapping takes them to, or sort otherwise.

    A column that the model declares narrow is in order: values that do not fit it are in the overflow. It may
    be wider in the database. Columns and tables that are not there are left out.

    Args:
        engine: of the database.
        mapping: of the table.
    """
    with engine.connect() as connection:
        return [unlike for part in mapping.parts for unlike in _unlike(connection, part)]


@dataclass(frozen=True, slots=True)
class _Found:
    """A column of the database.

    Attributes:
        told: its type, as PostgreSQL tells it.
        base: the type behind its domain, or the same.
        oid: that type's.
        collation: by which its texts sort; "" for one that is not known to sort by bytes.
        tells_apart: whether it calls only equal texts equal.
    """

    told: str
    base: str
    oid: int
    collation: str | None
    tells_apart: bool | None


def _unlike(connection: sa.Connection, part: TableMapping) -> Iterator[UnlikeColumn]:
    table = sql_table(part)
    rows = connection.execute(sa.text(_COLUMNS), {"table": table})
    there = {name: _Found(*rest) for name, *rest in rows}
    names = sorted({name for column in part.columns for name in (*_as_good(column), *_kind(column))})
    oids = {row.name: row.oid for row in connection.execute(sa.text(_OIDS), {"names": names})}
    for column, found in ((each, there[each.name]) for each in part.columns if each.name in there):
        is_as_good = found.oid in {oids[name] for name in _as_good(column)}
        is_other_type = found.oid not in {oids[name] for name in _kind(column)}
        sorts_alike = _sorts_alike(column, found)
        if not (is_as_good and sorts_alike and _is_wide_enough(column, found.base)):
            told = found.told if sorts_alike else f'{found.told} COLLATE "{found.collation}"'
            declared = _declared(column).compile(dialect=POSTGRESQL)
            yield UnlikeColumn(table, column.name, told, declared, is_other_type)


def _as_good(column: MappedColumn) -> Sequence[str]:
    """The types that a column of the database may have."""
    declared = _declared(column)
    if isinstance(declared, CITEXT):
        return ("citext", "text", "varchar")
    if isinstance(declared, sa.ARRAY) and isinstance(actual_type(declared.item_type), CITEXT):
        return ("citext[]", "text[]", "varchar[]")
    return _AS_GOOD.get(column.cast, (column.cast,))


def _kind(column: MappedColumn) -> Sequence[str]:
    """The types that a column of the database may have and items still be compared with it exactly."""
    return next((kind for kind in _KINDS if column.cast in kind), (column.cast,))


def _declared(column: MappedColumn) -> sa.types.TypeEngine[Any]:
    """The type that the model declares."""
    type_ = actual_type(column.column.type)
    return actual_type(type_.impl_instance) if isinstance(type_, sa.types.TypeDecorator) else type_


def _is_wide_enough(column: MappedColumn, found: str) -> bool:
    """Whether a type of the database, of the right kind, holds what the codec lets through."""
    declared = _declared(column)
    each = actual_type(declared.item_type) if isinstance(declared, sa.ARRAY) else declared
    limits = _LIMITS.search(found)
    if isinstance(each, sa.CHAR | sa.NCHAR):
        return limits is not None and int(limits[1]) == (each.length or 1)
    if column.codec.converted and isinstance(each, sa.Numeric):
        # What a function makes of a number may depend on the zeros behind it.
        return limits is not None and _digits(limits) == (each.precision, each.scale or 0)
    return limits is None or _holds(limits, each)


def _holds(limits: re.Match[str], declared: sa.types.TypeEngine[Any]) -> bool:
    """Whether what a declared type holds is within the limits of a column."""
    if isinstance(declared, sa.String):
        return declared.length is not None and int(limits[1]) >= declared.length
    if isinstance(declared, sa.DateTime):
        precision = getattr(declared, "precision", None)
        return int(limits[1]) >= (_MICROSECONDS if precision is None else precision)
    if isinstance(declared, sa.Numeric) and declared.precision is not None:
        (precision, scale), behind = _digits(limits), declared.scale or 0
        return scale >= behind and precision - scale >= declared.precision - behind
    return False


def _digits(limits: re.Match[str]) -> tuple[int, int]:
    """How many digits there are, and how many of them behind the point."""
    return int(limits[1]), int(limits[2] or 0)


def _sorts_alike(column: MappedColumn, found: _Found) -> bool:
    """Whether a text column sorts by bytes where the mapping counts on it, and tells all texts apart."""
    if found.collation is None:
        return True
    if column.type == "S" and column.sortable and found.collation not in _BYTEWISE:
        return False
    # What else calls equal what is not is the model's own wish: dualstore compares by bytes.
    return bool(found.tells_apart) or getattr(_declared(column), "collation", None) is not None
