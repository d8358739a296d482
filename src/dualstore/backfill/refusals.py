"""Why a backfill may not start now: what would make it unsafe, found before anything is written."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from dualstore import schema
from dualstore.backfill.sources import Source
from dualstore.errors import BackfillRefused, UnusableSource
from dualstore.mapping import Mapped
from dualstore.stores.free_storage import FreeStorage
from dualstore.stores.ledger import Run, RunState
from dualstore.stores.postgres.column_types import unlike_columns
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.stores.postgres_upkeep import TOMBSTONE_RETENTION

DUAL_WRITES = "dual writes"
"""The kind of the run that records when all processes had first confirmed that they mirror every write."""

BYTES_PER_TABLE_BYTE = 2.2
"""PostgreSQL's for one of DynamoDB's: 2.1 were measured of items of 230 bytes with two indexes."""
STAGING_BYTES = 128 * 1024 * 1024
"""What one worker needs for temporary tables and files: a batch of 8 MB, and the sort of its merge."""
_SPARE = 1.1


def refuse(table: str, reasons: Iterable[str]) -> None:
    """Refuse to start, with all reasons, so that a person sees everything at once.

    Args:
        table: the logical name, for the message.
        reasons: sentences; none where all is well.

    Raises:
        BackfillRefused: there are some.
    """
    reasons = list(reasons)
    if reasons:
        listed = "".join(f"\n- {reason}" for reason in reasons)
        raise BackfillRefused(f"no backfill of {table} is started:{listed}")


def mirrored_since(runs: PostgresRuns, table: str, generation: int) -> datetime:
    """From when on every process has mirrored every write, with no earlier one in flight.

    The time at which that was first known is recorded: it is never too early. Whoever waits for a stage or a
    dial records it, so that an export taken since will do.

    Args:
        runs: the ledger.
        table: the physical name.
        generation: of the control record, since which it has been decided; confirmed by every process.

    Raises:
        Unavailable: PostgreSQL does not answer.
    """
    known = recorded(runs, table, generation)
    if known is None:
        begun = runs.start(DUAL_WRITES, table, {"generation": generation})
        # Finished at once: what runs keeps tombstones, and is looked for by those who go on with it.
        runs.finish(begun, RunState.FINISHED, {})
        known = recorded(runs, table, generation) or begun
    return known.started_at or datetime.now(UTC)


def recorded(runs: PostgresRuns, table: str, generation: int) -> Run | None:
    """The run that `mirrored_since` has left for a generation, or None."""
    found = runs.latest(DUAL_WRITES, table)
    return found if found is not None and found.parameters.get("generation") == generation else None


def uncovered(source: Source, since: datetime, *, now: datetime | None = None) -> Iterator[str]:
    """Writes that fall between what is copied and dual writes, and deletions that nobody remembers.

    Args:
        source: what is copied.
        since: as `mirrored_since` has it.
        now: by PostgreSQL's clock, or near it; tombstones are kept for so long before.
    """
    remembered = (now or datetime.now(UTC)) - TOMBSTONE_RETENTION
    try:
        source.covers(since, tombstones_since=remembered)
    except UnusableSource as unusable:
        yield str(unusable)


def drifted(engine: sa.Engine) -> Iterator[str]:
    """How the `dualstore` schema differs from what this version expects.

    Args:
        engine: PostgreSQL.

    Raises:
        SchemaError: it is missing, older or newer.
    """
    for difference in schema.check(engine):
        yield f"{difference}: put it back as the migrations left it (`dualstore schema check`)"


def without_columns(engine: sa.Engine, mapping: Mapped) -> Iterator[str]:
    """What SQL tables lack of the mapping's columns, of their types too, and what they demand unfilled.

    Args:
        engine: PostgreSQL.
        mapping: the table.
    """
    inspector = sa.inspect(engine)
    for part in mapping.parts:
        table = part.table
        there = {
            column["name"]: column
            for column in inspector.get_columns(table.name, schema=table.schema or None)
        }
        name = ".".join(filter(None, (table.schema, table.name)))
        for missing in sorted(set(part.column_names) - there.keys()):
            yield f"the SQL table {name} has no column {missing}: run your own migrations"
        for column in sorted(there.keys() - set(part.column_names)):
            described = there[column]
            filled = described.get("default") or described.get("identity") or described.get("computed")
            if not described["nullable"] and not filled:
                yield (
                    f"column {column} of the SQL table {name} is NOT NULL without a default, and not mapped, "
                    "so no row fits: map it, or give it a default"
                )
    yield from map(str, unlike_columns(engine, mapping))


@dataclass(frozen=True, slots=True)
class Room:
    """How much a copy needs.

    Attributes:
        rows_bytes: for rows and indexes.
        temporary_bytes: for what its workers keep while they load.
    """

    rows_bytes: int
    temporary_bytes: int

    @classmethod
    def of(cls, table_bytes: int, *, workers: int, there: int = 0) -> "Room":
        """What a table of DynamoDB needs, by its size there; a preflight measures it better.

        Args:
            table_bytes: its size on DynamoDB.
            workers: how many copy.
            there: what its SQL tables take already.
        """
        rows_bytes = max(0, round(table_bytes * BYTES_PER_TABLE_BYTE) - there)
        return cls(rows_bytes, workers * STAGING_BYTES)

    def lacks(self, free: FreeStorage | None) -> Iterator[str]:
        """Why the copy does not fit.

        Args:
            free: what is there; None where nobody knows.
        """
        if free is None:
            return
        needed = self.temporary_bytes if free.temporary else self.rows_bytes + self.temporary_bytes
        if needed * _SPARE > free.size_bytes:
            what = "its workers' temporary tables need" if free.temporary else "it needs"
            yield (
                f"{what} about {gigabytes(needed * _SPARE)}, and {gigabytes(free.size_bytes)} are free "
                f"({free.told_by}): make room, or see what it really needs with "
                "`dualstore backfill TABLE --sample 1%`"
            )


def gigabytes(size_bytes: float) -> str:
    """A size for a person."""
    return f"{size_bytes / 1e9:,.2f} GB"
