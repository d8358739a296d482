"""The SQL of comparing items with rows: staging and join, the rows without an item, broken rules."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache

from psycopg import sql

from dualstore.mapping import (
    OVERFLOW_COLUMN,
    REVISION_COLUMN,
    STAMP_COLUMN,
    MappedColumn,
    TableMapping,
    escape,
)
from dualstore.stores.hashing_sql import exactly, hashing, is_array, key_hashes
from dualstore.stores.postgres_staging import composed

# Of whoever may draw revisions. To read the sequence itself, as a table, takes a privilege of its own.
LAST_REVISION = "SELECT coalesce(pg_sequence_last_value('dualstore.revision'::regclass), 0)"
"""The last revision that was drawn; 0: none yet."""
_LAST_REVISION = sql.SQL(f"({LAST_REVISION})")


class Rule(StrEnum):
    """What the bookkeeping columns promise, and a row does not keep."""

    OVERFLOW = "overflow"
    """The overflow is no map of attributes, holds none, or one that has its column."""
    VERSION = "version"
    """The row has no revision, one that was never given, or a stamp that is none."""
    DUPLICATE = "duplicate"
    """Two SQL tables hold a row of the key."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a person should look at."""
        return {
            Rule.OVERFLOW: (OVERFLOW_COLUMN,),
            Rule.VERSION: (REVISION_COLUMN, STAMP_COLUMN),
            Rule.DUPLICATE: (),
        }[self]


@dataclass(frozen=True)
class Comparing:
    """Comparing a batch with one SQL table.

    Attributes:
        part: how the table is mapped.
        place: its number among the parts of its mapping.
    """

    part: TableMapping
    place: int

    @cached_property
    def stage(self) -> sql.Composed:
        """An empty staging table: columns of the types that the mapping speaks, and nothing else.

        A column of the SQL table may round, cut or pad what a row was given, and would do the same to the
        item that the row is compared with. A cast also takes off what limits a type. Collations stay those
        of the SQL table: its index is looked into.
        """
        columns = (
            sql.SQL("{0}::{1} AS {0}").format(name, composed(type_))
            for name, type_ in zip(self._names, self.part.cast_types, strict=True)
        )
        return sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            self._staging, sql.SQL(", ").join(columns), _table(self.part)
        )

    @cached_property
    def copy(self) -> sql.Composed:
        """COPY into the staging table."""
        return sql.SQL("COPY {} ({}) FROM STDIN").format(self._staging, _listed(self._names))

    @cached_property
    def copy_keys(self) -> sql.Composed:
        """COPY of keys alone into the staging table."""
        return sql.SQL("COPY {} ({}) FROM STDIN").format(self._staging, _listed(self._keys))

    @cached_property
    def compare(self) -> sql.Composed:
        """How many differ in their stamps alone; the keys of those that differ otherwise, by column."""
        keys = sql.SQL(", ").join(
            sql.SQL("array_agg({}) FILTER (WHERE differs)").format(composed(each))
            for each in self.part.read_expressions("c")[: len(self._keys)]
        )
        return sql.SQL(
            "SELECT count(*) FILTER (WHERE NOT differs), {keys} FROM ("
            " SELECT {key_columns}, t.{revision} IS NULL OR {differs} AS differs"
            " FROM {staging} s LEFT JOIN {table} t ON {same_key}"
            " WHERE t.{revision} IS NULL OR {differs} OR t.{stamp} IS DISTINCT FROM s.{stamp}) AS c"
        ).format(
            keys=keys,
            key_columns=sql.SQL(", ").join(sql.SQL("s.{}").format(name) for name in self._keys),
            revision=sql.Identifier(REVISION_COLUMN),
            stamp=sql.Identifier(STAMP_COLUMN),
            differs=sql.SQL("({})").format(sql.SQL(" OR ").join(self._differences())),
            staging=self._staging,
            table=_table(self.part),
            same_key=_same_key("s", self.part, "t", self.part),
        )

    @cached_property
    def see_keys(self) -> sql.Composed:
        """Note the hashes of the staged keys."""
        first, second = key_hashes("s", self.part)
        return sql.SQL(
            "INSERT INTO dualstore.verify_seen (run_id, place, piece, position, first, second)"
            " SELECT %(run)s, %(place)s, %(piece)s, %(position)s, array_agg({}), array_agg({})"
            " FROM {} s HAVING count(*) > 0"
        ).format(first, second, self._staging)

    @cached_property
    def see_rows(self) -> sql.Composed:
        """Note the hashes of the staged rows; answers how many there were."""
        return hashing(self.part).see(self._staging)

    @cached_property
    def among(self) -> sql.Composed:
        """The keys and hashes of the staged rows whose hashes are among some."""
        return hashing(self.part).among(self._staging)

    @cached_property
    def drop(self) -> sql.Composed:
        """Forget what was staged."""
        return sql.SQL("DROP TABLE {}").format(self._staging)

    @property
    def _staging(self) -> sql.Identifier:
        return sql.Identifier("pg_temp", f"dualstore_compared_{self.place}")

    @cached_property
    def _names(self) -> list[sql.Identifier]:
        return [sql.Identifier(name) for name in self.part.column_names]

    @cached_property
    def _keys(self) -> list[sql.Identifier]:
        return self._names[: len(self.part.key_columns)]

    def _differences(self) -> list[sql.Composed]:
        """Conditions of which one holds where the contents may differ."""
        overflow = sql.SQL("t.{0} IS DISTINCT FROM s.{0}").format(sql.Identifier(OVERFLOW_COLUMN))
        number = len(self.part.key_columns)
        # A row was found by its key's own equality, which of texts alone may not tell all apart.
        keys = [column for column in self.part.columns[:number] if column.type == "S"]
        return [*map(_difference, (*keys, *self.part.columns[number:])), overflow]


def _difference(column: MappedColumn) -> sql.Composed:
    """Where a column of `t` may hold another content than that of `s`.

    PostgreSQL's equality of the column's type decides, but for texts, which a collation or citext may call
    equal though they differ, as `char` does whatever blanks are behind them, and `json`, which has none. Sets
    are equal in any order.
    """
    mine, theirs = (exactly(column, sql.Identifier(alias, column.name)) for alias in "ts")
    differs = sql.SQL("{} IS DISTINCT FROM {}").format(mine, theirs)
    if not is_array(column):
        return differs
    # What is staged has one dimension, or no member and none.
    same_members = sql.SQL(
        "{0} @> {1} AND {1} @> {0} AND cardinality({0}) = cardinality({1})"
        " AND array_ndims({0}) IS NOT DISTINCT FROM array_ndims({1})"
    ).format(mine, theirs)
    return sql.SQL("({} AND ({}) IS NOT TRUE)").format(differs, same_members)


@dataclass(frozen=True)
class Scanning:
    """Reading one SQL table from end to end.

    Attributes:
        part: how the table is mapped.
    """

    part: TableMapping

    @cached_property
    def count(self) -> sql.Composed:
        """How many rows there are."""
        return sql.SQL("SELECT count(*) FROM {}").format(_table(self.part))

    @cached_property
    def size(self) -> sql.Composed:
        """How many blocks the table's file has, and the size of all of it; of the largest partition."""
        return sql.SQL(
            "SELECT max(pg_relation_size(relid)) / current_setting('block_size')::bigint,"
            " max(pg_table_size(relid)) FROM (SELECT relid FROM pg_partition_tree({0}::regclass)"
            " UNION SELECT {0}::regclass) AS of_table (relid)"
        ).format(sql.Literal(_table(self.part).as_string(None)))

    def lines(self, where: sql.Composable, *, placed: bool = False) -> sql.Composed:
        """COPY some rows.

        Args:
            where: which.
            placed: whether each line begins with the row's place.
        """
        names: list[sql.Composable] = [sql.Identifier(name) for name in self.part.column_names]
        return sql.SQL("COPY (SELECT {} FROM {} t WHERE {}) TO STDOUT").format(
            sql.SQL(", ").join([sql.SQL("ctid"), *names] if placed else names), _table(self.part), where
        )

    def see_rows(self, where: sql.Composable) -> sql.Composed:
        """Note the hashes of some rows; answers how many there were."""
        return hashing(self.part).see(_table(self.part), where)

    def among(self, where: sql.Composable) -> sql.Composed:
        """The keys and hashes of those of some rows whose hashes are among some."""
        return hashing(self.part).among(_table(self.part), where)

    def places(self, where: sql.Composable) -> sql.Composed:
        """Where rows stand, of which the numbers, from 1, among some rows are known."""
        return sql.SQL(
            "SELECT ctid::text FROM (SELECT ctid, row_number() OVER () AS number FROM {} t WHERE {})"
            " AS placed WHERE number = ANY(%s)"
        ).format(_table(self.part), where)

    @cached_property
    def keys_at(self) -> sql.Composed:
        """The keys of the rows at some places."""
        return sql.SQL("SELECT {} FROM {} t WHERE t.ctid = ANY(%s::tid[])").format(
            self._keys, _table(self.part)
        )

    @cached_property
    def of_keys(self) -> sql.Composed:
        """The rows of some keys, whose columns are its values, one array each."""
        return self._of_keys(map(composed, self.part.read_expressions("t")))

    @cached_property
    def breaking(self) -> sql.Composed:
        """Of the rows of some keys: the key, and whether the row breaks a rule. Values: as for `of_keys`."""
        return self._of_keys([self._keys, _any_of(self._rules().values())])

    def _of_keys(self, selected: Iterable[sql.Composable]) -> sql.Composed:
        columns = self.part.key_columns
        arrays = (sql.SQL("%s::{}[]").format(composed(column.cast)) for column in columns)
        names = [sql.Identifier(f"k{number}") for number in range(len(columns))]
        same = (
            sql.SQL("t.{} = k.{}").format(sql.Identifier(column.name), name)
            for column, name in zip(columns, names, strict=True)
        )
        return sql.SQL("SELECT {} FROM unnest({}) AS k ({}) JOIN {} t ON {}").format(
            sql.SQL(", ").join(selected),
            sql.SQL(", ").join(arrays),
            _listed(names),
            _table(self.part),
            sql.SQL(" AND ").join(same),
        )

    @cached_property
    def unseen(self) -> sql.Composed:
        """The keys of the rows of which no hash was noted."""
        first, second = key_hashes("t", self.part)
        return sql.SQL(
            "SELECT {keys} FROM {table} t WHERE NOT EXISTS (SELECT FROM ("
            " SELECT unnest(first) AS first, unnest(second) AS second FROM dualstore.verify_seen"
            " WHERE run_id = %(run)s AND place = %(place)s) AS seen"
            " WHERE seen.first = {first} AND seen.second = {second})"
        ).format(keys=self._keys, table=_table(self.part), first=first, second=second)

    def census(self, last_revision: int) -> sql.Composed:
        """How many rows there are, and whether any of them breaks a rule.

        Args:
            last_revision: asked for under the same snapshot. A statement that asks itself is not worked on in
                parallel.
        """
        return sql.SQL("SELECT count(*), coalesce(bool_or({}), false) FROM {} t").format(
            _any_of(self._rules(sql.Literal(last_revision)).values()), _table(self.part)
        )

    @cached_property
    def broken(self) -> sql.Composed:
        """The keys of the rows that break a rule, and which."""
        told = sql.SQL(" ").join(
            sql.SQL("WHEN {} THEN {}").format(broken, sql.Literal(rule))
            for rule, broken in self._rules().items()
        )
        return sql.SQL("SELECT {keys}, CASE {told} END FROM {table} t WHERE {any}").format(
            keys=self._keys, told=told, table=_table(self.part), any=_any_of(self._rules().values())
        )

    def _rules(self, last_revision: sql.Composable = _LAST_REVISION) -> Mapping[Rule, sql.Composed]:
        """By rule: where a row breaks it.

        Args:
            last_revision: as of the beginning of the statement or later; its snapshot shows no later one.
        """
        overflow, revision, stamp = (
            sql.Identifier("t", name) for name in (OVERFLOW_COLUMN, REVISION_COLUMN, STAMP_COLUMN)
        )
        twice = [
            sql.SQL("{} ? {} AND {} IS NOT NULL").format(
                overflow, sql.Literal(escape(column.attribute)), sql.Identifier("t", column.name)
            )
            for column in self.part.columns
        ]
        # Each attribute one type with one value; a jsonpath would look into arrays.
        empty = sql.SQL(
            "CASE WHEN jsonb_typeof({0}) <> 'object' THEN true ELSE {0} = '{{}}' OR EXISTS ("
            "SELECT FROM jsonb_each({0}) AS each (name, value) WHERE CASE jsonb_typeof(each.value)"
            " WHEN 'object' THEN (SELECT count(*) FROM jsonb_object_keys(each.value)) <> 1 ELSE true END) END"
        ).format(overflow)
        return {
            Rule.OVERFLOW: sql.SQL("{} IS NOT NULL AND ({})").format(
                overflow, sql.SQL(" OR ").join([empty, *twice])
            ),
            Rule.VERSION: sql.SQL("{0} IS NULL OR {0} > {1} OR octet_length({2}) <> 16").format(
                revision, last_revision, stamp
            ),
        }

    def also_in(self, other: TableMapping) -> sql.Composed:
        """The keys that another SQL table holds a row of, too."""
        return sql.SQL("SELECT {} FROM {} t JOIN {} o ON {}").format(
            self._keys, _table(self.part), _table(other), _same_key("t", self.part, "o", other)
        )

    @property
    def _keys(self) -> sql.Composed:
        read = self.part.read_expressions("t")[: len(self.part.key_columns)]
        return sql.SQL(", ").join(map(composed, read))


def between(first: int, last: int | None) -> sql.Composed:
    """Where a row `t` stands between two blocks, the last one left out; None: before the table's end."""
    bounds = [sql.SQL("t.ctid >= {}::tid").format(sql.Literal(f"({first},0)"))]
    if last is not None:
        bounds.append(sql.SQL("t.ctid < {}::tid").format(sql.Literal(f"({last},0)")))
    return sql.SQL(" AND ").join(bounds)


def standing(places: Sequence[str]) -> sql.Composed:
    """Where a row `t` stands in one of some places."""
    return sql.SQL("t.ctid = ANY({}::tid[])").format(sql.Literal(list(places)))


@lru_cache(maxsize=256)
def comparing(part: TableMapping, place: int) -> Comparing:
    """The statements for a part, composed once."""
    return Comparing(part, place)


@lru_cache(maxsize=256)
def scanning(part: TableMapping) -> Scanning:
    """The statements for a part, composed once."""
    return Scanning(part)


def _table(part: TableMapping) -> sql.Identifier:
    return sql.Identifier(*filter(None, (part.table.schema, part.table.name)))


def _any_of(conditions: Iterable[sql.Composed]) -> sql.Composed:
    return sql.SQL(" OR ").join(sql.SQL("({})").format(each) for each in conditions)


def _listed(names: list[sql.Identifier]) -> sql.Composed:
    return sql.SQL(", ").join(names)


def _same_key(alias: str, part: TableMapping, other_alias: str, other: TableMapping) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(alias, mine.name), sql.Identifier(other_alias, theirs.name))
        for mine, theirs in zip(part.key_columns, other.key_columns, strict=True)
    )
