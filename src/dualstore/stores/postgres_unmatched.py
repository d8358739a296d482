"""Fingerprints without an equal on the other side, and the keys of what has them.

PostgreSQL joins what was noted of both sides. Only the items and rows that stand alone are then read again,
by where they stand in their batch; what was met there is held to the fingerprints, and where one is missing,
because somebody has written since or a line has no row, the whole batch is looked at again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

from dualstore.errors import UnusableSource
from dualstore.items import Key
from dualstore.mapping import Mapped
from dualstore.mapping.transcoding import Transcoded
from dualstore.stores.comparison_sql import LAST_REVISION, between, scanning, standing
from dualstore.stores.fingerprint_ways import Matches, Pair, Way
from dualstore.stores.postgres_comparison import note
from dualstore.stores.postgres_keys import PostgresKeys
from dualstore.stores.postgres_transaction import Cursor, transaction

Transcode = Callable[[Sequence[bytes]], Iterable[tuple[int, Transcoded]]]
"""Makes blocks of lines rows, each with the number of its part."""

_SETTINGS = "SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true)"
_BATCH_PATIENCE = timedelta(minutes=9)
_PATIENCE = timedelta(hours=12)

# Sums are of 64 bits: they wrap around. A difference of zero by chance takes both halves at once.
_SUMS_AGREE = (
    "SELECT coalesce(bool_and(count = 0 AND mod(first, 18446744073709551616) = 0"
    " AND mod(second, 18446744073709551616) = 0), true) FROM (SELECT"
    " sum(CASE WHEN of_rows THEN -cardinality(first) ELSE cardinality(first) END) AS count,"
    " sum(CASE WHEN of_rows THEN -sum_first::numeric ELSE sum_first END) AS first,"
    " sum(CASE WHEN of_rows THEN -sum_second::numeric ELSE sum_second END) AS second"
    " FROM dualstore.verify_seen WHERE run_id = %s GROUP BY place) AS of_place"
)
_ONE_SIDE = (
    "(SELECT id, unnest(first) AS first, unnest(second) AS second FROM dualstore.verify_seen"
    " WHERE run_id = %(run)s AND place = %(place)s AND "
)
# An item that stands twice on its side has the one row as its equal, too.
_MARK = (
    "UPDATE dualstore.verify_seen AS seen SET differs = true,"
    " unmatched_first = alone.firsts, unmatched_second = alone.seconds FROM ("
    " SELECT coalesce(items.id, rows.id) AS id, array_agg(coalesce(items.first, rows.first)) AS firsts,"
    " array_agg(coalesce(items.second, rows.second)) AS seconds"
    f" FROM {_ONE_SIDE} NOT of_rows) AS items FULL JOIN {_ONE_SIDE} of_rows) AS rows"
    " ON items.first = rows.first AND items.second = rows.second"
    " WHERE items.id IS NULL OR rows.id IS NULL GROUP BY 1) AS alone WHERE seen.id = alone.id"
)
_MARKED = (
    "SELECT id, piece, place, position, of_rows FROM dualstore.verify_seen"
    " WHERE run_id = %s AND differs ORDER BY piece, id"
)
# The planner takes every array for a short one, and would go through one for each member of the other.
_BY_HASHES = "SELECT set_config('enable_nestloop', 'off', true), set_config('enable_mergejoin', 'off', true)"
_ALONE = (
    "SELECT first, second, number FROM (SELECT unnest(unmatched_first) AS first,"
    " unnest(unmatched_second) AS second FROM dualstore.verify_seen WHERE id = %(id)s) AS wanted"
    " JOIN (SELECT unnest(first) AS first, unnest(second) AS second, generate_subscripts(first, 1) AS number"
    " FROM dualstore.verify_seen WHERE id = %(id)s) AS placed USING (first, second)"
)
_COUNT = "SELECT cardinality(first) FROM dualstore.verify_seen WHERE id = %(id)s"
# What was not met stays noted, so that it can be explained, or not, at the end.
_LOOKED_AT = (
    "UPDATE dualstore.verify_seen SET differs = false, unmatched_first = %s, unmatched_second = %s"
    " WHERE id = %s"
)
_ROWS_NOT_MET = (
    "SELECT coalesce(sum(cardinality(unmatched_first)), 0) FROM dualstore.verify_seen"
    " WHERE run_id = %s AND of_rows AND NOT differs"
)
_NOT_MET = (
    "SELECT place, unnest(unmatched_first), unnest(unmatched_second) FROM dualstore.verify_seen"
    " WHERE run_id = %s AND of_rows AND NOT differs"
)
_REPEATED = (
    "SELECT coalesce(sum(count - 1), 0) FROM (SELECT count(*) FROM (SELECT place, unnest(first) AS first,"
    " unnest(second) AS second FROM dualstore.verify_seen WHERE run_id = %s AND NOT of_rows) AS items"
    " GROUP BY place, first, second) AS each"
)


class Contradicted(UnusableSource):
    """What a comparison saw at different moments does not fit together, so it proves nothing."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A batch with fingerprints that stand alone.

    Attributes:
        id: its row in `dualstore.verify_seen`.
        piece: the piece it is of.
        place: the part of the mapping.
        position: where it begins in the piece.
        of_rows: whether it is of rows; else it is of items.
    """

    id: int
    piece: int
    place: int
    position: Mapping[str, Any] | None
    of_rows: bool


@dataclass(frozen=True, slots=True)
class _Alone:
    """What stands alone in a batch.

    Attributes:
        pairs: the fingerprints.
        numbers: which of the batch have them, from 1.
        count: how many the batch has.
    """

    pairs: set[Pair]
    numbers: Sequence[int]
    count: int


class PostgresUnmatched:
    """Finds the keys behind the fingerprints of one DynamoDB table that have no equal.

    Args:
        engine: an engine with the psycopg driver.
        mapping: the table.
        way: how the fingerprints were taken.
    """

    def __init__(self, engine: Engine, mapping: Mapped, way: Way) -> None:
        self._engine = engine
        self._mapping = mapping
        self._way = way
        self._table = mapping.shape.name

    def agree(self, run_id: UUID) -> bool:
        """Whether both sides have the same fingerprints, each as often, in each SQL table."""
        with transaction(self._engine, f"Adding up the fingerprints of {self._table}") as cursor:
            row = cursor.execute(_SUMS_AGREE, [run_id]).fetchone()
        return row is not None and bool(row[0])

    def mark(self, run_id: UUID) -> None:
        """Mark the batches with fingerprints that stand alone. It can be done again after an interruption."""
        doing = f"Joining the fingerprints of {self._table}"
        with transaction(self._engine, doing, patience=_PATIENCE) as cursor:
            cursor.execute(_SETTINGS)
            for place in range(len(self._mapping.parts)):
                cursor.execute(_MARK, {"run": run_id, "place": place})

    def marked(self, run_id: UUID) -> Sequence[Marked]:
        """The marked batches that have not been looked at again."""
        with transaction(self._engine, f"Reading the batches of run {run_id}") as cursor:
            return [Marked(*row) for row in cursor.execute(_MARKED, [run_id])]

    def look_at_items(
        self,
        run_id: UUID,
        marked: Marked,
        batches: Iterable[Sequence[bytes]],
        transcode: Transcode,
        *,
        key: bytes,
    ) -> None:
        """Note the keys of the items of a batch whose fingerprints stand alone, and unmark it.

        Args:
            run_id: the run.
            marked: the batch.
            batches: its lines, and those behind it, which are only looked at where some were not met in it.
            transcode: makes them rows.
            key: of the run's fingerprints.
        """
        doing = f"Looking for items of {self._table} without an equal row"
        with transaction(self._engine, doing, patience=_BATCH_PATIENCE) as cursor:
            alone = _alone(cursor, marked)

            def among(some: Sequence[bytes]) -> Matches:
                made = [block for place, block in transcode(some) if place == marked.place]
                found = self._way.items_among(cursor, marked.place, made, alone.pairs, key=key)
                lines = [line for line in b"\n".join(some).split(b"\n") if line] if found.refused else []
                if len(lines) < 2:  # noqa: PLR2004 - what is refused alone hides nothing
                    return found
                middle = len(lines) // 2
                one, other = (among([b"\n".join(half)]) for half in (lines[:middle], lines[middle:]))
                return Matches(one.pairs | other.pairs, [*one.keys, *other.keys])

            met, keys = set[Pair](), list[Key]()
            for blocks in batches:
                lines = lines_at(blocks, alone.numbers, alone.count)
                for some in ([] if lines is None else [b"\n".join(lines)], blocks):
                    if some and met != alone.pairs:
                        found = among(some)
                        met |= found.pairs
                        keys += found.keys
                if met == alone.pairs:
                    break
        if met != alone.pairs:
            raise Contradicted(
                f"{len(alone.pairs - met)} item(s) of {self._table} without an equal row were not found "
                f"again where verification {run_id} had read them: its source was changed meanwhile, or how "
                "its items become rows; start a new verification"
            )
        self._note(run_id, marked, marked.piece, keys, set())

    def look_at_rows(
        self, run_id: UUID, marked: Marked, blocks: tuple[int, int | None], *, key: bytes
    ) -> None:
        """Note the keys of the rows of a batch whose fingerprints stand alone, and unmark it.

        Rows that have changed since are not met again: see `note_changed_since`.

        Args:
            run_id: the run.
            marked: the batch.
            blocks: the first block of the batch, and the one behind it; None: the table's end.
            key: of the run's fingerprints.
        """
        statements, where = scanning(self._mapping.parts[marked.place]), between(*blocks)
        doing = f"Looking for rows of {self._table} without an equal item"
        with transaction(self._engine, doing, patience=_BATCH_PATIENCE) as cursor:
            # A row is to stand where it stood when its key is read.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            alone = _alone(cursor, marked)
            places = cursor.execute(statements.places(where), [list(alone.numbers)]).fetchall()
            met = Matches(set(), [])
            for each in (standing([place for (place,) in places]), where):
                if met.pairs != alone.pairs:
                    met = self._way.rows_among(cursor, marked.place, each, alone.pairs, key=key)
        self._note(run_id, marked, None, met.keys, alone.pairs - met.pairs)

    def _note(
        self, run_id: UUID, marked: Marked, piece: int | None, keys: Sequence[Key], left: set[Pair]
    ) -> None:
        """Note what was found in a batch: in a transaction of its own, which sees what others note."""
        with transaction(self._engine, f"Noting keys of {self._table} without an equal") as cursor:
            note(cursor, self._mapping.shape.keys, run_id, piece, keys)
            firsts, seconds = ([pair[half] for pair in left] for half in (0, 1))
            cursor.execute(_LOOKED_AT, [firsts, seconds, marked.id])

    def rows_not_met(self, run_id: UUID) -> int:
        """How many rows that stood alone were not met when they were looked at again."""
        with transaction(self._engine, f"Counting rows of {self._table} that have changed") as cursor:
            row = cursor.execute(_ROWS_NOT_MET, [run_id]).fetchone()
        return 0 if row is None else int(row[0])

    def look_everywhere(
        self, run_id: UUID, batches: Iterable[tuple[int, tuple[int, int | None]]], *, key: bytes
    ) -> None:
        """Note the keys of rows that stood alone, and stand elsewhere in their table than they did then.

        The others have been deleted or written since.

        Args:
            run_id: the run.
            batches: all rows: places of parts, each with blocks as for `look_at_rows`.
            key: of the run's fingerprints.
        """
        doing = f"Looking for rows of {self._table} that were moved"
        keys = list[Key]()
        with transaction(self._engine, doing, patience=_PATIENCE) as cursor:
            # Whoever rewrites a table waits, and no row changes its batch under this snapshot.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute(_SETTINGS)
            cursor.execute(_BY_HASHES)
            pairs: dict[int, set[Pair]] = {}
            for place, first, second in cursor.execute(_NOT_MET, [run_id]).fetchall():
                pairs.setdefault(place, set()).add((first, second))
            for place, blocks in batches:
                if place in pairs:
                    where = between(*blocks)
                    keys += self._way.rows_among(cursor, place, where, pairs[place], key=key).keys
        with transaction(self._engine, f"Noting keys of {self._table} without an equal") as cursor:
            note(cursor, self._mapping.shape.keys, run_id, None, keys)

    def repeated(self, run_id: UUID) -> int:
        """How many items were read that had been read before, with the same content."""
        doing = f"Counting items of {self._table} that stand twice"
        with transaction(self._engine, doing, patience=_PATIENCE) as cursor:
            row = cursor.execute(_REPEATED, [run_id]).fetchone()
        return 0 if row is None else int(row[0])

    def count_changed_since(self, revision: int) -> int:
        """How many keys were written since a revision, deletions among them."""
        return sum(map(len, self._changed_since(revision)))

    def note_changed_since(self, run_id: UUID, revision: int) -> int:
        """Note the keys that were written since a revision, deletions among them; how many there are."""
        count = 0
        for keys in self._changed_since(revision):
            count += len(keys)
            with transaction(self._engine, f"Noting keys of {self._table} that have changed") as cursor:
                note(cursor, self._mapping.shape.keys, run_id, None, keys)
        return count

    def _changed_since(self, revision: int) -> Iterable[Sequence[Key]]:
        with transaction(self._engine, f"Reading the last revision for {self._table}") as cursor:
            row = cursor.execute(LAST_REVISION).fetchone()
        # Where nothing at all has been written since, the table need not be read.
        if row is not None and int(row[0]) <= revision:
            return ()
        return PostgresKeys(self._engine, self._mapping).changed_since(revision)


def lines_at(blocks: Sequence[bytes], numbers: Iterable[int], count: int) -> list[bytes] | None:
    """Some of the lines of a batch.

    Args:
        blocks: the batch.
        numbers: of the wanted lines, from 1.
        count: how many lines there should be.

    Returns:
        None where there are not as many: some may have no row, or none of this table.
    """
    sizes = [block.count(b"\n") + (not block.endswith(b"\n")) for block in blocks]
    if sum(sizes) != count:
        return None
    wanted, lines, before = sorted(numbers), list[bytes](), 0
    for block, size in zip(blocks, sizes, strict=True):
        here = [number - before - 1 for number in wanted if before < number <= before + size]
        if here:
            split = block.split(b"\n")
            lines += [split[number] for number in here]
        before += size
    return lines


def _alone(cursor: Cursor, marked: Marked) -> _Alone:
    cursor.execute(_SETTINGS)
    cursor.execute(_BY_HASHES)
    rows = cursor.execute(_ALONE, {"id": marked.id}).fetchall()
    (count,) = cursor.execute(_COUNT, {"id": marked.id}).fetchone() or (0,)
    return _Alone({(first, second) for first, second, _ in rows}, [number for _, _, number in rows], count)
