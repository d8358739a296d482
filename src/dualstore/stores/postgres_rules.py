"""The rows of a table beside the rules that they are to keep, whatever their items hold."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from dualstore.items import Key, key_bytes
from dualstore.mapping import SplitMapping, TableMapping
from dualstore.stores.comparison_sql import LAST_REVISION, Rule, scanning
from dualstore.stores.postgres_comparison import PATIENCE, SETTINGS, PostgresComparison, decoded, named
from dualstore.stores.postgres_transaction import transaction

# What a second look found equal may still break a rule. A difference stays the one it was, unless two rows of
# the key are the reason: which of them was looked at is chance.
_NAMED = "f.finding IN ('equal', 'stamp') OR (f.finding = 'value' AND excluded.finding = 'duplicate')"
_NOTE = (
    "INSERT INTO dualstore.verify_findings AS f (run_id, digest, key_hash, piece, finding, paths, repaired)"
    " VALUES (%s, %s, %s, -1, %s, %s, %s) ON CONFLICT (run_id, digest) DO UPDATE SET"
    f" finding = CASE WHEN {_NAMED} THEN excluded.finding ELSE f.finding END,"
    f" paths = CASE WHEN {_NAMED} THEN excluded.paths ELSE f.paths END,"
    f" repaired = excluded.repaired AND (f.repaired OR {_NAMED})"
)


class PostgresRules:
    """Finds the rows of one DynamoDB table that no write of dualstore leaves.

    Args:
        comparison: of the table.
    """

    def __init__(self, comparison: PostgresComparison) -> None:
        self._comparison = comparison
        self._engine = comparison.engine
        self._mapping = comparison.mapping
        self._keys = comparison.keys
        self._table = comparison.mapping.shape.name

    def note_broken(self, run_id: UUID, mend: Callable[[Sequence[Key]], object]) -> Sequence[int]:
        """Note the rows that break a rule of the bookkeeping, after all that waits has its verdict.

        So a row without an item is called just that, whatever else is wrong with it. It can be done again
        after an interruption.

        Args:
            run_id: the run.
            mend: mends the rows of keys, or leaves them as they are; what is whole afterwards is noted so.

        Returns:
            How many rows each part holds, counted in the same pass.
        """
        counts, mended = [], 0
        for part in self._mapping.parts:
            rows_held, any_broken = self._census(part)
            counts.append(rows_held)
            for rows in self._comparison.pages(scanning(part).broken, {}) if any_broken else ():
                broken = [(decoded(part, row), Rule(row[-1])) for row in rows]
                mended += self._note(run_id, broken, mend)
        for first, second in _pairs(self._mapping.parts):
            for rows in self._comparison.pages(scanning(first).also_in(second), {}):
                doubled = [(decoded(first, row), Rule.DUPLICATE) for row in rows]
                mended += self._note(run_id, doubled, mend)
        return self._comparison.row_counts() if mended else counts

    def broken(self, keys: Sequence[Key]) -> set[bytes]:
        """Those of some keys, as `key_bytes`, with a row that breaks a rule, or rows in two tables."""
        found: set[bytes] = set()
        seen: set[bytes] = set()
        for part, row in self._rows_of(keys, lambda part: scanning(part).breaking):
            name = key_bytes(self._keys, decoded(part, row))
            if row[-1] or name in seen:
                found.add(name)
            seen.add(name)
        return found

    def misplaced(self, keys: Sequence[Key]) -> list[Key]:
        """Those of some keys whose one row stands in the SQL table of another entity."""
        mapping = self._mapping
        if not isinstance(mapping, SplitMapping):
            return []
        found: dict[bytes, Key] = {}
        times: Counter[bytes] = Counter()
        for part, row in self._rows_of(keys, lambda part: scanning(part).of_keys):
            key = decoded(part, row)
            times[name := key_bytes(self._keys, key)] += 1
            if _stands_in_another(mapping, part, row):
                found[name] = key
        return [key for name, key in found.items() if times[name] == 1]

    def _rows_of(
        self, keys: Sequence[Key], statement: Callable[[TableMapping], Any]
    ) -> Iterator[tuple[TableMapping, Sequence[Any]]]:
        if not keys:
            return
        with transaction(self._engine, f"Looking at rows of {self._table} again") as cursor:
            for part in self._mapping.parts:
                columns = [list(values) for values in zip(*map(part.encode_key, keys), strict=True)]
                for row in cursor.execute(statement(part), columns).fetchall():
                    yield part, row

    def _census(self, part: TableMapping) -> tuple[int, bool]:
        """How many rows there are, and whether any breaks a rule. Unlike a cursor's, its scan is parallel."""
        doing = f"Looking for rows of {self._table} that break a rule"
        with transaction(self._engine, doing, patience=PATIENCE) as cursor:
            # No row is to be seen that was given a revision after the last one was asked for.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute(SETTINGS)
            (last,) = cursor.execute(LAST_REVISION).fetchone() or (0,)
            row = cursor.execute(scanning(part).census(last)).fetchone()
        return (0, False) if row is None else (int(row[0]), bool(row[1]))

    def _note(
        self, run_id: UUID, found: Sequence[tuple[Key, Rule]], mend: Callable[[Sequence[Key]], object]
    ) -> int:
        """Have rows mended, and note which they were; how many are whole now."""
        keys = [key for key, _ in found]
        mend(keys)
        left = self.broken(keys)
        with transaction(self._engine, f"Noting rows of {self._table} that break a rule") as cursor:
            for key, rule in found:
                digest, name, hashed = named(self._keys, key)
                told = (rule, Jsonb(list(rule.columns)), name not in left)
                cursor.execute(_NOTE, [run_id, digest, hashed, *told])
        return len(found) - len(left)


def _stands_in_another(mapping: SplitMapping, part: TableMapping, row: Sequence[Any]) -> bool:
    """Whether a row's item belongs into the SQL table of another entity."""
    try:
        item = part.decode(row)
    except Exception:  # noqa: BLE001 - whatever a converter raises
        return False  # of a row that makes no item nobody can tell; that rule is looked at by itself
    return mapping.parts[mapping.place_of(item)] is not part


def _pairs(parts: Sequence[TableMapping]) -> Iterator[tuple[TableMapping, TableMapping]]:
    for number, first in enumerate(parts):
        for second in parts[number + 1 :]:
            yield first, second
