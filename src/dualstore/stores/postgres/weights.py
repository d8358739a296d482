"""What PostgreSQL says of each row that a Query or Scan comes by, so that few of them are fetched whole.

DynamoDB filters what it has read: an item that a filter leaves out, or that is only counted, still counts for
its size towards a page and towards capacity. So of such a row its place is fetched, and what its columns
count for; of columns that do not tell that, what they hold (ADR 29).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

from dualstore.expressions import Condition, SqlColumn, compile_condition
from dualstore.expressions.conditions import And
from dualstore.items import STAMP, Item, item_size_bytes
from dualstore.mapping import OVERFLOW_COLUMN, MappedColumn, TableMapping, escape, quoted
from dualstore.mapping.documents import jsonb_size_bytes
from dualstore.stores.postgres.authority_single import sql_columns
from dualstore.stores.postgres.exchanges import Row, text_array
from dualstore.stores.postgres.size_sql import size_sql, telling
from dualstore.stores.postgres.trigger_functions import literal
from dualstore.stores.semantics import PagePlan, Scanned, scanned

_WEIGHT = "dualstore_weight"
_OVERFLOW = f"t.{quoted(OVERFLOW_COLUMN)}"
_OVERFLOW_AT = -2  # in `TableMapping.column_names`

_OPENED_BY = {"M": "{", "L": "["}

_Decode = Callable[[Sequence[Any]], Item]


@dataclass(frozen=True)
class _Reading:
    """What is read of the rows of a table, or of one of its indexes.

    Attributes:
        mapping: of the SQL table.
        place: the attributes that say where an item stands.
        held: the attributes that are read, or None for all.
    """

    mapping: TableMapping
    place: tuple[str, ...]
    held: frozenset[str] | None

    @cached_property
    def pays(self) -> bool:
        """Whether weighing a row spares anything."""
        told = {column.attribute for column in self._told}
        return set(self.mapping.shape.keys.names) <= told and not told <= set(self.place)

    @cached_property
    def size(self) -> str:
        """What the columns of the row `t` that tell it count for, in SQL; never 0."""
        return size_sql(self._told, stamped=self._is_read(STAMP))

    @cached_property
    def columns(self) -> str:
        """All columns of the row `t`."""
        return ", ".join(f"t.{quoted(name)}" for name in self.mapping.column_names)

    @cached_property
    def answered(self) -> str:
        """What is fetched of `columns` and the weight, for the mapping's `decode`."""
        return ", ".join([*self._answered(), f"t.{_WEIGHT}"])

    def _answered(self) -> Iterator[str]:
        *columns, overflow, stamp = self.mapping.read_expressions("t")
        told = {column.attribute for column in self._told} - set(self.place)
        for column, expression in zip(self.mapping.columns, columns, strict=True):
            if column.attribute in told:
                yield _if_shown(expression)
            else:
                yield expression if self._is_read(column.attribute) else "NULL"
        yield overflow if self.held is None else f"CASE WHEN {_has_some(self.held)} THEN {overflow} END"
        yield _if_shown(stamp) if self._is_read(STAMP) else "NULL"

    def untold_bytes(self, decode: _Decode, stored: Row) -> int:
        """What those columns of a row count for that do not tell it in SQL.

        Args:
            decode: makes an item of a row.
            stored: the row.
        """
        if stored[_OVERFLOW_AT] is None:
            held = [(sized, stored[n]) for n, sized in self._untold if stored[n] is not None]
            if not held:
                return 0
            with suppress(Exception):  # where no attribute can be made of it `decode` raises the right error
                return sum(sized(value) for sized, value in held)
        item = decode([None if n in self._told_places else value for n, value in enumerate(stored)])
        return item_size_bytes({name: value for name, value in item.items() if self._is_read(name)})

    @cached_property
    def _told(self) -> list[MappedColumn]:
        return [column for column in telling(self.mapping) if self._is_read(column.attribute)]

    @cached_property
    def _untold(self) -> list[tuple[int, Callable[[Any], int]]]:
        """The columns that do not tell, by number, and what makes a size of what each holds."""
        told = {column.attribute for column in self._told}
        return [
            (n, partial(_decoded_bytes, column))
            for n, column in enumerate(self.mapping.columns)
            if column.attribute not in told
        ]

    @cached_property
    def _told_places(self) -> frozenset[int]:
        told = {column.attribute for column in self._told} & set(self.place)
        return frozenset(n for n, column in enumerate(self.mapping.columns) if column.attribute in told)

    def _is_read(self, attribute: str) -> bool:
        return self.held is None or attribute in self.held


def _decoded_bytes(column: MappedColumn, stored: Any) -> int:
    """What the attribute of a column counts for, name included."""
    if column.codec.pg_type == "jsonb" and stored.startswith(_OPENED_BY[column.type]):
        return len(column.attribute.encode()) + jsonb_size_bytes(stored)
    return item_size_bytes({column.attribute: column.decode(stored)})


def _if_shown(expression: str) -> str:
    return f"CASE WHEN t.{_WEIGHT} <> 0 THEN NULL ELSE {expression} END"


def _has_some(attributes: frozenset[str]) -> str:
    return f"{_OVERFLOW} ?| ARRAY[{', '.join(literal(escape(name)) for name in sorted(attributes))}]"


_reading = lru_cache(maxsize=1_000)(_Reading)
"""Its SQL is composed once for a table and for each of its indexes."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How the rows of a Query or Scan are weighed.

    A row's weight is what its columns count for where the filter leaves it out; that as a negative number
    where it is only counted; 0 where it is found and shown; and null where the item itself has to tell.

    Attributes:
        columns: what to select of the table as `t`.
        answered: what to select of those as `t`, for `scanned`.
        values: for the placeholders, which are the first of the statement.
    """

    columns: str
    answered: str
    values: Sequence[Any]
    _planned: PagePlan
    _reading: _Reading

    def scanned(self, decode: _Decode, row: Row) -> Scanned:
        """What a row says.

        Args:
            decode: makes an item of its columns.
            row: as `answered` is.
        """
        weight, stored = row[-1], row[:-1]
        if not weight:
            return scanned(self._planned, decode(stored), is_found=None if weight is None else True)
        size_bytes = abs(weight) + self._reading.untold_bytes(decode, stored)
        return Scanned(size_bytes, weight < 0, None, partial(decode, stored))


def weights(planned: PagePlan, mapping: TableMapping) -> Weights | None:
    """How the rows of a Query or Scan are weighed, or None where they are not: each is fetched whole.

    Sizes are those of a database in UTF-8.

    Args:
        planned: the Query or Scan.
        mapping: of the SQL table.
    """
    filter_, is_counted = planned.operation.filter, planned.operation.select == "COUNT"
    if filter_ is None and not is_counted:
        return None
    reading = _reading(mapping, planned.position, planned.projected)
    sure = _sure(filter_, sql_columns(mapping)) if reading.pays else None
    if sure is None:
        return None
    if is_counted and sure.is_all:
        weight = f"CASE WHEN {sure.holds} THEN -1 ELSE 1 END * ({reading.size})"
    else:
        weight = f"CASE WHEN {sure.holds} THEN {'0' if sure.is_all else 'NULL'} ELSE {reading.size} END"
    unsure = f"{_OVERFLOW} ?| ${len(sure.values) + 1}::text[]"
    columns = f"{reading.columns}, CASE WHEN {unsure} THEN NULL ELSE {weight} END AS {_WEIGHT}"
    values = (*sure.values, text_array(sure.attributes))
    return Weights(columns, reading.answered, values, planned, reading)


@dataclass(frozen=True, slots=True)
class _Sure:
    """What SQL surely says of a filter.

    Attributes:
        holds: a condition without which the filter does not hold.
        values: for its placeholders.
        attributes: what it reads.
        is_all: whether the filter always holds with it.
    """

    holds: str
    values: Sequence[Any]
    attributes: Sequence[str]
    is_all: bool


def _sure(filter_: Condition | None, columns: Mapping[str, SqlColumn]) -> _Sure | None:
    if filter_ is None:
        return _Sure("true", (), (), is_all=True)
    compiled, is_all = compile_condition(filter_, columns, first=1), True
    if compiled is None and isinstance(filter_.predicate, And):
        terms = map(Condition, filter_.predicate.terms)
        some = [term.predicate for term in terms if compile_condition(term, columns, first=1) is not None]
        compiled, is_all = compile_condition(Condition(And(tuple(some))), columns, first=1), False
        if not some:
            return None
    return None if compiled is None else _Sure(compiled.holds, compiled.values, compiled.attributes, is_all)
