"""The SQL of hashes: 128 bits for a key or a row, of the bytes that PostgreSQL sends for it.

PostgreSQL's own hashes of values do not tell all apart: that of a record adds up those of its columns, so
values may change places among rows unseen; those of numbers leave out the sign or half the bits, those of
jsonb what holds what. So a record is sent first, and its bytes have the hash. Contents that differ never
have the same bytes; contents that PostgreSQL holds equal may have others, which costs a look at them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from psycopg import sql

from dualstore.mapping import OVERFLOW_COLUMN, MappedColumn, TableMapping
from dualstore.stores.postgres_staging import composed

_SETS = frozenset({"SS", "NS", "BS"})
# By type: what tells apart what the type's own equality does not, or is the same for types that may stand
# for each other (`postgres.column_types`).
_EXACT: Mapping[str, sql.SQL] = {
    **dict.fromkeys(("text", "varchar"), sql.SQL('{}::text COLLATE "C"')),
    **dict.fromkeys(("text[]", "varchar[]"), sql.SQL('{}::text[] COLLATE "C"')),
    **dict.fromkeys(("int2", "int4"), sql.SQL("{}::int8")),
    **dict.fromkeys(("int2[]", "int4[]"), sql.SQL("{}::int8[]")),
    "bpchar": sql.SQL("bpcharsend({})"),
    "json": sql.SQL("{}::text"),
}
# A sum of 64 bits that wraps around, as the accelerator's does. mod() has the sign of the sum.
_WRAPPED = sql.SQL(
    "(SELECT CASE WHEN m >= 9223372036854775808 THEN m - 18446744073709551616"
    " WHEN m < -9223372036854775808 THEN m + 18446744073709551616 ELSE m END"
    " FROM (SELECT mod({}, 18446744073709551616)) AS of_sum (m))::bigint"
)
_SEEDS = {"first": sql.SQL("%(first_seed)s::bigint"), "second": sql.SQL("%(second_seed)s::bigint")}
_KEY = "k{}"
# A record of one column has that column's hash.
_HASH = sql.SQL("hash_record_extended({}, {})")
_BYTES = sql.SQL("ROW(record_send(ROW({})))")
# Nearly all sets have one member or two; sorting them in a query of its own takes as long as all else.
# No set holds NULL or a member twice, or has dimensions, so an array that does is never taken for one.
_MEMBERS = (
    "CASE WHEN array_ndims({0}) > 1 THEN -cardinality({0}) ELSE cardinality({0}) END",
    "CASE WHEN cardinality({0}) <= 2 THEN {1}(least(({0})[1], ({0})[2])) END",
    "CASE WHEN cardinality({0}) <= 2 THEN {1}(greatest(({0})[1], ({0})[2])) END",
    "CASE WHEN cardinality({0}) > 2 THEN ARRAY(SELECT {1}(m) FROM unnest({0}) AS m ORDER BY m) END",
)


@dataclass(frozen=True)
class Hashing:
    """Hashes of the rows of one SQL table, or of what is staged for it.

    The statements take `first_seed` and `second_seed`, which make hashes those of one run.

    Attributes:
        part: how the table is mapped.
    """

    part: TableMapping

    def see(self, relation: sql.Composable, where: sql.Composable | None = None) -> sql.Composed:
        """Note the hashes of some rows, without their stamps, and answer how many there were.

        Args:
            relation: the SQL table, or a copy of its columns.
            where: which rows `t` of it; None: all.
        """
        return sql.SQL(
            "INSERT INTO dualstore.verify_seen"
            " (run_id, place, piece, position, of_rows, first, second, sum_first, sum_second)"
            " SELECT %(run)s, %(place)s, %(piece)s, %(position)s, %(of_rows)s, array_agg(first),"
            " array_agg(second), {}, {} FROM ({}) AS hashed HAVING count(*) > 0 RETURNING cardinality(first)"
        ).format(
            _WRAPPED.format(sql.SQL("sum(first)")),
            _WRAPPED.format(sql.SQL("sum(second)")),
            self._hashed([], relation, where),
        )

    def among(self, relation: sql.Composable, where: sql.Composable | None = None) -> sql.Composed:
        """The keys and hashes of those rows whose hashes are among `firsts` and `seconds`."""
        return sql.SQL(
            "SELECT * FROM ({}) AS hashed WHERE (first, second) IN"
            " (SELECT * FROM unnest(%(firsts)s::bigint[], %(seconds)s::bigint[]))"
        ).format(self._hashed(self._keys, relation, where))

    def _hashed(
        self, beside: Iterable[sql.Composable], relation: sql.Composable, where: sql.Composable | None
    ) -> sql.Composed:
        """Some rows' hashes. OFFSET keeps the planner from working anything out once for each use of it."""
        keys = list(beside)
        record = sql.SQL("{} AS record").format(_bytes(self._values))
        names = [sql.Identifier(_KEY.format(number)) for number in range(len(keys))]
        hashes = (
            sql.SQL("{} AS {}").format(_HASH.format(sql.SQL("record"), seed), sql.Identifier(name))
            for name, seed in _SEEDS.items()
        )
        return sql.SQL("SELECT {} FROM (SELECT {} FROM {} t{} OFFSET 0) AS content OFFSET 0").format(
            sql.SQL(", ").join([*names, *hashes]),
            sql.SQL(", ").join([*keys, record]),
            relation,
            sql.SQL("") if where is None else sql.SQL(" WHERE {}").format(where),
        )

    @cached_property
    def _keys(self) -> list[sql.Composed]:
        read = self.part.read_expressions("t")[: len(self.part.key_columns)]
        return [
            sql.SQL("{} AS {}").format(composed(each), sql.Identifier(_KEY.format(number)))
            for number, each in enumerate(read)
        ]

    @cached_property
    def _values(self) -> list[sql.Composable]:
        """What counts in a row: equal items in equal columns have the same."""
        overflow = sql.Identifier("t", OVERFLOW_COLUMN)
        return [*(value for column in self.part.columns for value in _values(column)), overflow]


@lru_cache(maxsize=256)
def hashing(part: TableMapping) -> Hashing:
    """The statements for a part, composed once."""
    return Hashing(part)


def key_hashes(alias: str, part: TableMapping) -> tuple[sql.Composed, sql.Composed]:
    """128 bits for a key. Two keys have the same ones by chance alone."""
    names = (sql.Identifier(alias, column.name) for column in part.key_columns)
    record = _bytes(
        _trimmed(column, exactly(column, name)) for column, name in zip(part.key_columns, names, strict=True)
    )
    return _HASH.format(record, sql.SQL("0")), _HASH.format(record, sql.SQL("1"))


def _bytes(values: Iterable[sql.Composable]) -> sql.Composed:
    """A record of the bytes of some values, each with its type and its length."""
    return _BYTES.format(sql.SQL(", ").join(values))


def _values(column: MappedColumn) -> list[sql.Composable]:
    """What counts in a column; of a set its members in their order."""
    value = exactly(column, sql.Identifier("t", column.name))
    if not is_array(column):
        return [_trimmed(column, value)]
    trimmed = sql.SQL("trim_scale" if column.cast == "numeric[]" else "")
    return [sql.SQL(each).format(value, trimmed) for each in _MEMBERS]


def _trimmed(column: MappedColumn, value: sql.Composable) -> sql.Composable:
    """A value without the zeros behind a number, which PostgreSQL sends, though they say nothing."""
    return sql.SQL("trim_scale({})").format(value) if column.cast == "numeric" else value


def is_array(column: MappedColumn) -> bool:
    """Whether its members count in any order; a converter may keep a set in a column of another type."""
    return column.codec.type in _SETS and column.codec.pg_type.endswith("[]")


def exactly(column: MappedColumn, value: sql.Composable) -> sql.Composable:
    """A column's value in a type whose equality tells all contents apart."""
    exact = _EXACT.get(column.cast)
    return value if exact is None else exact.format(value)
