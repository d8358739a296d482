"""Expired rows of a mapped table: found page by page, and deleted as ordinary writes of the authority."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from struct import unpack
from typing import Any

import sqlalchemy

from dualstore.errors import AuthorityMoved, RequestRejected
from dualstore.items import Key, key_bytes
from dualstore.mapping import REVISION_COLUMN as REVISION
from dualstore.mapping import Mapped, TableMapping, escape, quoted
from dualstore.mapping.expiry import OLDEST_EXPIRY, ExpiryPlace
from dualstore.stores.postgres.catalog import lock_key
from dualstore.stores.postgres.exchanges import Statement
from dualstore.stores.postgres.faults import as_store
from dualstore.stores.postgres.sessions import BEGIN, COMMIT, Session, Sessions

# Of a table of 100 million rows, about a thousand; of a small table usually none.
_SAMPLED_PER_CENT = 0.001

Cursor = tuple[Any, ...]
"""Where a page ended, for the next call alone: the number of a SQL table, and behind what it goes on."""


@dataclass(frozen=True, slots=True)
class ExpiredRow:
    """A row that has expired.

    Attributes:
        key: its primary key.
        revision: as it was seen: any write to the key changes it.
        place: the number of the SQL table that it is in.
    """

    key: Key
    revision: int
    place: int = 0


@dataclass(frozen=True, slots=True)
class ExpiredPage:
    """Some expired rows.

    Attributes:
        rows: the rows.
        next: what to go on with, or None where this was the end.
    """

    rows: tuple[ExpiredRow, ...]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class Deleted:
    """What became of expired rows that were to be deleted; the rest has changed since it was seen.

    Attributes:
        rows: how many are gone.
        refused: how many the SQL table keeps, such as by a foreign key.
    """

    rows: int = 0
    refused: int = 0

    def __add__(self, other: "Deleted") -> "Deleted":
        return Deleted(self.rows + other.rows, self.refused + other.refused)


class PostgresExpiry:
    """Finds and deletes expired rows. The time is PostgreSQL's own.

    Args:
        engine: the team's own; its driver must be psycopg 3.
        tables: the mappings by the physical names of the DynamoDB tables; tables may be added later.
        grace: how long after its time a row stays at least.
        statement_timeout: the most time that one exchange may take.
    """

    def __init__(
        self,
        engine: sqlalchemy.Engine,
        tables: Mapping[str, Mapped],
        *,
        grace: timedelta = timedelta(0),
        statement_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        self._sessions = Sessions(engine, statement_timeout=statement_timeout)
        self._tables = tables
        self._ages = (str(grace.total_seconds()), str(OLDEST_EXPIRY.total_seconds()))
        self._composed: dict[tuple[str, str, int], _Statements] = {}

    def by_column(self, table: str, attribute: str, *, after: Cursor | None, rows: int) -> ExpiredPage:
        """Expired rows by the column of the TTL attribute, the longest expired first; none without a column.

        Args:
            table: the physical DynamoDB name.
            attribute: the TTL attribute.
            after: where the page before ended; None for the first.
            rows: the most rows to give.

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
        """
        place, *behind = after or (0,)
        statements = self._statements(table, attribute, place)
        if statements.place.column is None:
            return self._ended(table, place, ())
        found = self._run(statements.by_column(rows, after=bool(behind)), (*self._ages, *behind), table)
        expired = tuple(ExpiredRow(statements.key(key), revision, place) for *key, revision, _ in found)
        if len(found) < rows:
            return self._ended(table, place, expired)
        *last, _, told = found[-1]
        return ExpiredPage(expired, (place, statements.expiry(told), *last))

    def in_overflow(self, table: str, attribute: str, *, after: Cursor | None, rows: int) -> ExpiredPage:
        """Expired rows among the next rows of the table, by a value that is in the overflow.

        Args:
            table: the physical DynamoDB name.
            attribute: the TTL attribute.
            after: where the page before ended; None for the beginning of the table.
            rows: the most rows to look at.

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
        """
        place, *behind = after or (0,)
        statements = self._statements(table, attribute, place)
        if not statements.place.overflows:
            return self._ended(table, place, ())
        values = (*self._ages, escape(attribute), *behind)
        found = self._run(statements.in_overflow(rows, after=bool(behind)), values, table)
        end: Cursor | None = None
        expired = []
        for *key, revision, has_expired, number in found:
            if has_expired:
                expired.append(ExpiredRow(statements.key(key), revision, place))
            if number == rows:
                end = (place, *key)
        return self._ended(table, place, tuple(expired)) if end is None else ExpiredPage(tuple(expired), end)

    def _ended(self, table: str, place: int, rows: tuple[ExpiredRow, ...]) -> ExpiredPage:
        """The last page of one SQL table: the next begins with the SQL table after it, where there is one."""
        following = place + 1
        return ExpiredPage(rows, (following,) if following < len(self._tables[table].parts) else None)

    def anywhere(self, table: str, attribute: str) -> Cursor | None:
        """A place for `in_overflow` to begin at, by chance; of a small SQL table its beginning, or None.

        Processes are restarted before they have gone through a large table, and many go through it at once.
        """
        place = random.randrange(len(self._tables[table].parts))  # noqa: S311 - no secret
        statements = self._statements(table, attribute, place)
        found = self._run(statements.anywhere, (), table) if statements.place.overflows else ()
        if found:
            return (place, *found[0])
        return (place,) if place else None

    def delete(self, table: str, rows: Sequence[ExpiredRow], *, epoch: int) -> Deleted:
        """Delete rows that are still as they were seen; the outbox's trigger hands it on to DynamoDB.

        Args:
            table: the physical DynamoDB name.
            rows: some hundreds at most: their keys are locked meanwhile.
            epoch: the epoch under which PostgreSQL was found to be the table's authority.

        Raises:
            AuthorityMoved: it is not any more, or its writes pause; nothing was deleted.
            Unavailable: PostgreSQL could not be reached in time. Doing it again does no harm.
        """
        if not rows:
            return Deleted()
        try:
            return self._delete(table, rows, epoch)
        except RequestRejected:
            if len(rows) == 1:
                return Deleted(refused=1)
        return sum((self.delete(table, [row], epoch=epoch) for row in rows), Deleted())

    def _delete(self, table: str, rows: Sequence[ExpiredRow], epoch: int) -> Deleted:
        keys = self._tables[table].shape.keys
        lock = self._sessions.lock(
            *(lock_key(table, key_bytes(keys, row.key)) for row in rows), writer="authority"
        )
        deletions = [
            self._deletion(table, [row for row in rows if row.place == place], place, epoch)
            for place in sorted({row.place for row in rows})
        ]

        def delete(session: Session) -> tuple[int, bool]:
            _, _, *answers, _ = session.batch(BEGIN, lock, *deletions, COMMIT)
            told = [answer for (answer,) in answers]
            return sum(int(count) for count, _ in told), all(passed for _, passed in told)

        doing = f"the deletion of expired rows of {table!r}"
        count, passed = self._sessions.run(delete, doing=doing, explain=as_store)
        if not passed:
            raise AuthorityMoved(
                f"PostgreSQL did not carry out {doing}: it is not the authority at epoch {epoch}, or its "
                "writes pause; read the control record again"
            )
        return Deleted(rows=count)

    def _run(self, statement: str, values: Sequence[Any], table: str) -> list[tuple[Any, ...]]:
        return self._sessions.run(
            lambda session: session.rows(statement, values),
            doing=f"looking for expired rows of {table!r}",
            explain=as_store,
        )

    def _deletion(self, table: str, rows: Sequence[ExpiredRow], place: int, epoch: int) -> Statement:
        statements = self._statements(table, "", place)
        keys = statements.mapping.shape.keys
        columns = zip(*(statements.mapping.encode_key(row.key) for row in rows), strict=True)
        names = [key_bytes(keys, row.key) for row in rows]
        values = (table, str(epoch), names, [row.revision for row in rows], *map(list, columns))
        return statements.delete, values

    def _statements(self, table: str, attribute: str, place: int = 0) -> "_Statements":
        mapping = self._tables[table].parts[place]
        statements = self._composed.get((table, attribute, place))
        if statements is None or statements.mapping is not mapping:
            statements = _Statements(ExpiryPlace(mapping, attribute))
            self._composed[table, attribute, place] = statements
        return statements


@dataclass(frozen=True)
class _Statements:
    """The SQL of one table's expired rows, composed once."""

    place: ExpiryPlace

    @property
    def mapping(self) -> TableMapping:
        return self.place.mapping

    def key(self, stored: Sequence[Any]) -> Key:
        """The key of a row as PostgreSQL answered it."""
        columns = zip(self.mapping.key_columns, stored, strict=True)
        return {column.attribute: column.decode(value) for column, value in columns}

    def expiry(self, told: str | bytes) -> Any:
        """The column's value, as `by_column` answered it, for its cursor."""
        return unpack(">d", told)[0] if isinstance(told, bytes) else told

    @cached_property
    def table(self) -> str:
        """The SQL table's name, quoted, with its schema."""
        table = self.mapping.table
        return ".".join(quoted(part) for part in (table.schema, table.name) if part is not None)

    @cached_property
    def key_names(self) -> tuple[str, ...]:
        """The key's columns, of table `t`."""
        return tuple(f"t.{quoted(column.name)}" for column in self.mapping.key_columns)

    @cached_property
    def keys(self) -> str:
        """The key's columns, as a list."""
        return ", ".join(self.key_names)

    def by_column(self, rows: int, *, after: bool) -> str:
        """Values: grace, oldest age, and the cursor where asked from behind one."""
        column = self.place.column
        assert column is not None  # noqa: S101 - the caller looked
        name = f"t.{quoted(column.name)}"
        # How many digits the text of a float has is a setting, which anybody may have set.
        cast, told = (
            ("float8", "float8send({})") if column.cast in {"float4", "float8"} else (column.cast, "{}::text")
        )
        condition = self.place.column_has_expired("$1::numeric", "$2::numeric")
        if after:
            condition += f" AND ({name}, {self.keys}) > ($3::{cast}, {self._key_values(4)})"
        return (
            f"SELECT {self.keys}, t.{REVISION}, {told.format(name)} FROM {self.table} t WHERE {condition} "
            f"ORDER BY {name}, {self.keys} LIMIT {rows:d}"
        )

    def in_overflow(self, rows: int, *, after: bool) -> str:
        """Values: grace, oldest age, attribute, and the cursor where asked from behind one.

        The last row that was looked at is answered too, whatever it holds: it is where the next page begins.
        """
        expired = self.place.overflow_has_expired("$3::text", "$1::numeric", "$2::numeric")
        start = f"WHERE ({self.keys}) > ({self._key_values(4)}) " if after else ""
        return (
            f"SELECT * FROM (SELECT {self.keys}, t.{REVISION}, {expired} AS dualstore_expired, "
            f"row_number() OVER (ORDER BY {self.keys}) AS dualstore_row "
            f"FROM {self.table} t {start}ORDER BY {self.keys} LIMIT {rows:d}) looked_at "
            f"WHERE dualstore_expired OR dualstore_row = {rows:d}"
        )

    @cached_property
    def anywhere(self) -> str:
        """Some row's key."""
        return (
            f"SELECT {self.keys} FROM {self.table} t TABLESAMPLE SYSTEM ({_SAMPLED_PER_CENT}) "
            "ORDER BY random() LIMIT 1"
        )

    @cached_property
    def delete(self) -> str:
        """Values: table name, epoch, array of key bytes, array of revisions, an array for each key column.

        The key of each row must be locked by a statement before.
        """
        names = [f"k{number}" for number in range(len(self.key_names))]
        arrays = ", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(self.mapping.key_types, 5))
        same = " AND ".join(
            f"{mine} = asked.{name}" for mine, name in zip(self.key_names, names, strict=True)
        )
        return (
            "WITH fence AS (SELECT FROM dualstore.control "
            "WHERE table_name = $1 AND epoch = $2::bigint AND role = 'authority'), "
            f"gone AS (DELETE FROM {self.table} t "
            f"USING unnest($3::bytea[], $4::bigint[], {arrays}) AS asked (key, revision, {', '.join(names)}) "
            f"WHERE {same} AND t.{REVISION} = asked.revision AND EXISTS (SELECT FROM fence) "
            "RETURNING asked.key, t.dualstore_stamp), "
            "recorded AS (INSERT INTO dualstore.tombstones (table_name, key, stamp, revision, deleted_at) "
            "SELECT $1, key, dualstore_stamp, nextval('dualstore.revision'), clock_timestamp() FROM gone "
            "ON CONFLICT (table_name, sha256(key)) DO UPDATE SET stamp = EXCLUDED.stamp, "
            "revision = EXCLUDED.revision, deleted_at = EXCLUDED.deleted_at RETURNING 1) "
            "SELECT (SELECT count(*) FROM recorded), EXISTS (SELECT FROM fence)"
        )

    def _key_values(self, first: int) -> str:
        return ", ".join(f"${number}::{type_}" for number, type_ in enumerate(self.mapping.key_types, first))
