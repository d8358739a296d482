"""Query and Scan in SQL: which rows, in which order, from where on; not how many make a page."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dualstore.expressions import SortCondition
from dualstore.items import AttributeValue, Key, KeyAttribute, content_of, item_size_bytes
from dualstore.mapping import Mapped, TableMapping
from dualstore.operations import Scan
from dualstore.stores.postgres.attributes import SqlAttribute, Values, sql_attribute
from dualstore.stores.postgres.exchanges import Row, Statement
from dualstore.stores.postgres.python_sort import sorted_page, warn_once
from dualstore.stores.postgres.sessions import Session
from dualstore.stores.postgres.split_statements import SplitStatements, Statements
from dualstore.stores.postgres.statements import TableStatements
from dualstore.stores.postgres.weights import Weights, weights
from dualstore.stores.semantics import MAX_PAGE_SIZE_BYTES, PagePlan, Scanned, scanned

# The number of rows is part of the statement's text, since the planner must know it; so they are few.
# 64 items of the greatest size take 26 MB of memory.
_CHUNK_ROWS = (1, 4, 16, 64, 256, 1024)
_FIRST_CHUNK_ROWS = 64

_NO_COLUMN = (
    "its partition key has no column, so the whole table is read; map the attribute and index its column"
)

# The same in every release of PostgreSQL since 11, and for equal numbers of different scale.
_HASHED = {
    "S": "hashtextextended({}, 0)",
    "N": "hash_numeric_extended({}, 0)",
    "B": "hashtextextended(encode({}, 'hex'), 0)",
}


@dataclass(frozen=True)
class Walk:
    """The rows that a Query or Scan goes through.

    Args:
        statements: of the table.
        planned: the operation.
        in_utf8: whether PostgreSQL takes every text of DynamoDB's, and counts its bytes as DynamoDB does.
    """

    statements: Statements
    planned: PagePlan
    in_utf8: bool

    def first(self) -> Statement:
        """The statement that reads the first rows."""
        if self.planned.key_condition is not None and all(
            branch.partition.column is None for branch in self._branches
        ):
            warn_once(self.planned.shape.name, self.planned.operation.index, _NO_COLUMN)
        start = self.planned.start_key if self._sorted_in_sql else None
        return self._statement(start, self._first_chunk_rows, self._first_weights)

    def scanned(self, session: Session, first: list[Row]) -> Iterator[Scanned]:
        """What is come by in the order of the walk, read as it is asked for.

        Args:
            session: where to read on.
            first: what the statement `first` answered.
        """
        walked = self._walked(session, first)
        if self._sorted_in_sql:
            return walked
        return (
            scanned(self.planned, item)
            for item in sorted_page(self.planned, (each.item() for each in walked))
        )

    def _walked(self, session: Session, first: list[Row]) -> Iterator[Scanned]:
        rows, asked, weights = first, self._first_chunk_rows, self._first_weights
        while rows:
            fetched_bytes = 0
            for row in rows:
                each = self._scanned(row, weights)
                fetched_bytes += self._fetched_bytes(each, weights)
                yield each
            if len(rows) < asked:
                return
            average_bytes = max(1, fetched_bytes // len(rows))
            asked = _chunk_rows(min(_CHUNK_ROWS[-1], MAX_PAGE_SIZE_BYTES // average_bytes))
            item, weights = self._scanned(rows[-1], weights).item(), self._weights
            place = {key.name: item[key.name] for key in self._order}
            rows = session.rows(*self._statement(place, asked, weights))

    def _scanned(self, row: Row, weights: Weights | None) -> Scanned:
        if weights is None:
            return scanned(self.planned, self._read.decode(row))
        return weights.scanned(self._read.decode, row)

    def _fetched_bytes(self, each: Scanned, weights: Weights | None) -> int:
        is_whole = weights is None and self.planned.projected is not None
        return item_size_bytes(each.item()) if is_whole else each.size_bytes

    def _statement(self, after: Key | None, rows: int, weights: Weights | None) -> Statement:
        values = Values()
        if len(self._branches) == 1:
            (branch,) = self._branches
            return self._single(branch, after, rows, values, weights), values
        return self._merged(after, rows, values), values

    def _single(
        self, branch: "_Branch", after: Key | None, rows: int, values: Values, weights: Weights | None
    ) -> str:
        """The rows of the one SQL table that has them."""
        if weights is None:
            return branch.rows(branch.statements.columns, self._order, after, rows, values)
        values += weights.values
        places = [f"dualstore_place_{number}" for number in range(len(self._order))]
        weighed = branch.rows(weights.columns, self._order, after, rows, values, named=places)
        direction = "" if self.planned.forward else " DESC"
        order = ", ".join(f"t.{place}{direction}" for place in places)
        return f"SELECT {weights.answered} FROM ({weighed}) t ORDER BY {order}"

    @property
    def _first_weights(self) -> Weights | None:
        """How the first rows are weighed: where they are few, that takes longer than to fetch them whole."""
        return self._weights if self._first_chunk_rows > _FIRST_CHUNK_ROWS else None

    @cached_property
    def _weights(self) -> Weights | None:
        """How rows are weighed, or None: each is fetched whole."""
        if self.in_utf8 and len(self._branches) == 1 and self._sorted_in_sql:
            return weights(self.planned, self._branches[0].mapping)
        return None

    def _merged(self, after: Key | None, rows: int, values: Values) -> str:
        """The rows of several SQL tables in one order: as many of each as are asked for of all."""
        places = [f"o{number}" for number in range(len(self._order))]
        order = ", ".join(
            place + (' COLLATE "C"' if key.type == "S" else "") + ("" if self.planned.forward else " DESC")
            for place, key in zip(places, self._order, strict=True)
        )
        parts = " UNION ALL ".join(
            f"({branch.rows(branch.slots, self._order, after, rows, values, named=places)})"
            for branch in self._branches
        )
        slots = self.statements.slots if isinstance(self.statements, SplitStatements) else ""
        return (
            f"SELECT {slots} FROM ({parts}) AS t ({slots}, {', '.join(places)}) ORDER BY {order} LIMIT {rows}"
        )

    @cached_property
    def _read(self) -> Mapped:
        """What knows the rows."""
        return self._branches[0].mapping if len(self._branches) == 1 else self.statements.mapping

    @cached_property
    def _branches(self) -> tuple["_Branch", ...]:
        """The SQL tables that may hold what is asked for."""
        statements, planned = self.statements, self.planned
        if not isinstance(statements, SplitStatements):
            return (_Branch(statements, planned, ""),)
        places: Iterable[int] = range(len(statements.parts))
        if planned.key_condition is not None and planned.index is None:
            places = statements.mapping.places_of_range(planned.key_condition)
        return tuple(
            _Branch(
                statements.parts[place], planned, ", ".join(statements.mapping.slot_expressions(place, "t"))
            )
            for place in places
        )

    @property
    def _first_chunk_rows(self) -> int:
        limit = self.planned.operation.limit
        return _chunk_rows(_FIRST_CHUNK_ROWS if limit is None or not self._sorted_in_sql else limit)

    @cached_property
    def _sorted_in_sql(self) -> bool:
        """Whether PostgreSQL puts the rows in order; the table's own key always is."""
        query = self.planned.key_condition is not None
        return not query or all(branch.sort is None or branch.sort.sortable for branch in self._branches)

    @cached_property
    def _order(self) -> tuple[KeyAttribute, ...]:
        """By what the rows are ordered: ties in an index by the table's key, as good an order as any."""
        table_key = self.planned.shape.keys
        attributes: tuple[KeyAttribute, ...]
        if self.planned.key_condition is None or not self._sorted_in_sql:
            attributes = table_key.attributes
        elif self.planned.index is None:
            attributes = table_key.attributes[-1:]
        else:
            attributes = (*self.planned.keys.attributes[1:], *table_key.attributes)
        return tuple({attribute.name: attribute for attribute in attributes}.values())


@dataclass(frozen=True)
class _Branch:
    """One SQL table of those that a Query or Scan reads.

    Attributes:
        statements: of the SQL table.
        planned: the operation.
        slots: what to select of it where several tables are read.
    """

    statements: TableStatements
    planned: PagePlan
    slots: str

    @property
    def mapping(self) -> TableMapping:
        """How its rows become items."""
        return self.statements.mapping

    def rows(
        self,
        columns: str,
        order: Sequence[KeyAttribute],
        after: Key | None,
        limit: int,
        values: Values,
        *,
        named: Sequence[str] = (),
    ) -> str:
        """The query for its rows.

        Args:
            columns: what to select.
            order: by what they are ordered.
            after: behind which position they begin.
            limit: the most of them.
            values: takes what the query is to be given.
            named: names under which what they are ordered by is selected, too.
        """
        by = [self._attribute(key) for key in order]
        expressions = [attribute.expression(values) for attribute in by]
        conditions = list(self._conditions(values))
        if after is not None:
            bound = [attribute.bind(after[attribute.key.name], values) for attribute in by]
            operator = ">" if self.planned.forward else "<"
            conditions.append(f"({', '.join(expressions)}) {operator} ({', '.join(bound)})")
        direction = "" if self.planned.forward else " DESC"
        read = (columns, *(f"{each} AS {name}" for each, name in zip(expressions, named, strict=False)))
        return (
            f"SELECT {', '.join(read)} FROM {self.statements.table} t "
            + (f"WHERE {' AND '.join(conditions)} " if conditions else "")
            + f"ORDER BY {', '.join(expression + direction for expression in expressions)} LIMIT {limit}"
        )

    def _conditions(self, values: Values) -> Iterator[str]:
        asked = self.planned.key_condition
        partition, sort = self.partition, self.sort
        if asked is not None:
            yield partition.equals(asked.partition, values)
        elif self.planned.index is not None:
            yield partition.present(values)
        if self.planned.index is not None and sort is not None:
            yield sort.present(values)
        if asked is not None and asked.sort is not None and sort is not None and sort.sortable:
            yield _in_range(sort, asked.sort, values)
        if isinstance(self.planned.operation, Scan) and self.planned.operation.segment is not None:
            segment, total = self.planned.operation.segment
            key = self._attribute(self.planned.shape.keys.partition)
            hashed = _HASHED[key.key.type].format(key.expression(values))
            yield f"({hashed} & {2**63 - 1}) % {total:d} = {segment:d}"

    @cached_property
    def partition(self) -> SqlAttribute:
        """The partition key of what is read."""
        return self._attribute(self.planned.keys.partition)

    @cached_property
    def sort(self) -> SqlAttribute | None:
        """The sort key of what is read, where there is one."""
        sort = self.planned.keys.sort
        return None if sort is None else self._attribute(sort)

    def _attribute(self, key: KeyAttribute) -> SqlAttribute:
        return sql_attribute(self.mapping, key)


def _chunk_rows(wanted: int) -> int:
    """The number of rows to ask for, of those that are used."""
    return next((rows for rows in _CHUNK_ROWS if rows >= wanted), _CHUNK_ROWS[-1])


def _in_range(attribute: SqlAttribute, asked: SortCondition, values: Values) -> str:
    """The condition on a sort key, in SQL."""
    expression = attribute.expression(values)
    if asked.operator == "begins_with":
        start = asked.operands[0]
        after = _AFTER_PREFIX[attribute.key.type](content_of(start))
        end = "" if after is None else f" AND {expression} < {attribute.bind(after, values)}"
        return f"{expression} >= {attribute.bind(start, values)}{end}"
    bound = [attribute.bind(operand, values) for operand in asked.operands]
    return f"{expression} {asked.operator} {' AND '.join(bound)}"


# Between them are the surrogates, which are no characters.
_BEFORE_GAP, _AFTER_GAP = "\ud7ff", "\ue000"


def _after_text_prefix(prefix: str) -> AttributeValue | None:
    """The least string above all that begin so: the last character that can be is moved on by one."""
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return None
    following = _AFTER_GAP if stem[-1] == _BEFORE_GAP else chr(ord(stem[-1]) + 1)
    return {"S": stem[:-1] + following}


def _after_binary_prefix(prefix: bytes) -> AttributeValue | None:
    stem = prefix.rstrip(b"\xff")
    return {"B": stem[:-1] + bytes([stem[-1] + 1])} if stem else None


_AFTER_PREFIX: Mapping[str, Callable[..., AttributeValue | None]] = {
    "S": _after_text_prefix,
    "B": _after_binary_prefix,
}
