"""Trying rows on a SQL table without touching it: on temporary tables like it, all of it rolled back."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from psycopg import sql
from sqlalchemy import Engine

from dualstore.mapping import Mapped
from dualstore.mapping.transcoding import Rejected, Transcoded
from dualstore.stores.postgres_batch import Batch
from dualstore.stores.postgres_load import PostgresLoad
from dualstore.stores.postgres_merge import Merge, copied
from dualstore.stores.postgres_staging import LoadStatements, rendered
from dualstore.stores.postgres_transaction import Cursor, transaction

_ALWAYS = "SELECT WHERE %(epoch)s IS NOT NULL"
_TRIAL_INDEXES = """
SELECT relname, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
 WHERE indrelid = to_regclass(%s) AND NOT indisunique AND NOT indisprimary
   AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""
_SIZES = "SELECT pg_table_size({trial}), pg_indexes_size({trial})"
# What CREATE TABLE … (LIKE … INCLUDING ALL) leaves out; dualstore's own triggers only take notes.
_LEFT_OUT = """
SELECT 'foreign key ' || conname FROM pg_constraint
 WHERE conrelid = to_regclass(%(table)s) AND contype = 'f'
UNION ALL
SELECT 'trigger ' || tgname FROM pg_trigger
 WHERE tgrelid = to_regclass(%(table)s) AND NOT tgisinternal AND tgname NOT LIKE 'dualstore%%'
ORDER BY 1
"""


@dataclass(frozen=True)
class _Trial(LoadStatements):
    """The statements of a load, for a temporary table with the constraints and indexes of the real one."""

    @cached_property
    def table(self) -> sql.Identifier:
        """The temporary table."""
        return sql.Identifier("pg_temp", self.trial_name)

    @cached_property
    def begin(self) -> sql.SQL:
        """See `LoadStatements.begin`."""
        staging = LoadStatements(self.mapping, self.guard, place=self.place)
        trial = sql.SQL("; CREATE TEMPORARY TABLE {} (LIKE {} INCLUDING ALL) ON COMMIT DROP").format(
            sql.Identifier(self.trial_name), staging.table
        )
        return rendered(sql.Composed([staging.begin, trial]))

    @cached_property
    def sizes(self) -> sql.Composed:
        """How large the temporary table and its indexes have become."""
        return sql.SQL(_SIZES).format(trial=sql.Literal(f"pg_temp.{self.trial_name}"))

    @property
    def trial_name(self) -> str:
        """The temporary table's name."""
        return f"dualstore_trial_{self.place}"


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of some items.

    Attributes:
        items: how many there were.
        fitting: how many rows the SQL tables take.
        json_bytes: their size as JSON.
        rejected: the items that no row was made of, and those that PostgreSQL refuses.
        table_bytes: what the rows take, with what is stored out of line.
        index_bytes: what their indexes take.
    """

    items: int
    fitting: int
    json_bytes: int
    rejected: Sequence[Rejected]
    table_bytes: int
    index_bytes: int


@dataclass(frozen=True, slots=True)
class IndexCosts:
    """What the indexes that a copy can do without cost, measured on some items.

    Attributes:
        items: how many.
        kept_us: microseconds to insert an item with all indexes.
        dropped_us: the same without those.
        rebuilt_us: microseconds for each item to build those afterwards.
    """

    items: int
    kept_us: float
    dropped_us: float
    rebuilt_us: float


class _UndoneError(Exception):
    """Rolls a transaction back."""


class TrialLoad(PostgresLoad):
    """Loads as a backfill does, refusals cornered to the single row, and takes everything back.

    Args:
        engine: an engine with the psycopg driver.
        mapping: the table.
    """

    def __init__(self, engine: Engine, mapping: Mapped) -> None:
        super().__init__(engine, mapping, epoch=0)
        self._trials = [_Trial(part, _ALWAYS, place=place) for place, part in enumerate(mapping.parts)]
        self._trial = Merge(mapping, self._trials, epoch=0)

    def left_out(self) -> Sequence[str]:
        """The rules of the SQL tables that are not tried, each by its kind and name."""
        found = []
        for name in self._tables_sql:
            with transaction(self._engine, f"Looking at the rules of {name}") as cursor:
                found += [rule for (rule,) in cursor.execute(_LEFT_OUT, {"table": name})]
        return found

    def try_blocks(self, blocks: Iterable[Transcoded], *, rejected: Sequence[Rejected] = ()) -> Tried:
        """Find out which items of some blocks fit.

        Args:
            blocks: as for `load_blocks`. A unique value that comes twice is found within them.
            rejected: what the source has found to be no item.

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
        """
        batch = Batch(self._mapping.parts[-1], blocks=iter(blocks), rejected=list(rejected))
        table_bytes = index_bytes = fitting = 0
        with (
            suppress(_UndoneError),
            transaction(self._engine, f"Trying blocks on {self._table}") as cursor,
        ):
            fitting = self._trial.staged(cursor, batch).inserted
            table_bytes, index_bytes = self._sizes(cursor)
            raise _UndoneError
        return Tried(
            items=sum(block.rows + len(block.declined) for block in batch.sent) + len(rejected),
            fitting=fitting,
            json_bytes=sum(block.json_bytes for block in batch.sent),
            rejected=[self._told(each) for each in batch.rejected],
            table_bytes=table_bytes,
            index_bytes=index_bytes,
        )

    def _told(self, rejected: Rejected) -> Rejected:
        """A refusal in the names of the real table; those of its indexes are made of it."""
        detail = rejected.detail
        for trial in self._trials:
            detail = detail.replace(trial.trial_name, trial.mapping.table.name)
        return replace(rejected, detail=detail)

    def index_costs(self, blocks: Sequence[Transcoded]) -> IndexCosts:
        """Measure on some blocks what dropping and rebuilding indexes changes.

        Args:
            blocks: as for `load_blocks`; items that the transcoder declines are left out.
        """
        items = 0
        kept = dropped = rebuilt = 0.0
        with (
            suppress(_UndoneError),
            transaction(self._engine, f"Trying the indexes of {self._table}") as cursor,
        ):
            for place, trial in enumerate(self._trials):
                some = [part for block in blocks for at, part in block.by_part() if at == place]
                cursor.execute(trial.begin, prepare=False)
                items += copied(cursor, trial.staged, Batch(trial.mapping, blocks=iter(some))).rows
                measured = self._index_seconds(cursor, trial)
                kept, dropped, rebuilt = kept + measured[0], dropped + measured[1], rebuilt + measured[2]
            raise _UndoneError
        each = 1e6 / max(1, items)
        return IndexCosts(items, kept * each, dropped * each, rebuilt * each)

    def _index_seconds(self, cursor: Cursor, trial: _Trial) -> tuple[float, float, float]:
        """How long inserting takes with all indexes and without those, and building them then."""

        def inserting() -> float:
            began = time.monotonic()
            cursor.execute(trial.insert, self._trial.parameters)
            return time.monotonic() - began

        kept = inserting()
        cursor.execute(_TRIAL_INDEXES, [trial.table.as_string(None)])
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier("pg_temp", name)))
        cursor.execute(sql.SQL("TRUNCATE {}").format(trial.table))
        dropped = inserting()
        began = time.monotonic()
        for _, definition in indexes:
            cursor.execute(definition.encode())
        return kept, dropped, time.monotonic() - began

    def _sizes(self, cursor: Cursor) -> tuple[int, int]:
        table_bytes = index_bytes = 0
        for trial in self._trials:
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [trial.table.as_string(None)])
            if cursor.fetchone() == (True,):  # of several, those that got a row
                cursor.execute(trial.sizes)
                table, indexes = cursor.fetchone() or (0, 0)
                table_bytes, index_bytes = table_bytes + table, index_bytes + indexes
        return table_bytes, index_bytes
