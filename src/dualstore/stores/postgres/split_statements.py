"""The SQL of a DynamoDB table that is held in several SQL tables, one for each entity.

The key's lock, its tombstone and its revision are one, whichever table has the row. A statement looks at the
row of a key in all of them, and one that writes leaves it in one: an item that changes its entity moves.
What PostgreSQL holds apart by a primary key where there is one table is held apart by the key's lock here. A
backfill takes none: what it may leave, rows of one key in two tables, is in doubt as a row beside a tombstone
is. No direct write is made over it, and any settled write ends it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from dualstore.items import Item, Key
from dualstore.mapping import REVISION_COLUMN as REVISION
from dualstore.mapping import Mapped, SplitMapping, TableMapping, quoted
from dualstore.stores.postgres.authority_statements import AuthorityStatements, role_at
from dualstore.stores.postgres.statements import FENCE_HELD, fence, is_key

_FOUND = "SELECT FROM found"
_GONE = "SELECT FROM gone"
_ALONE = "(SELECT count(*) FROM found) = 1"
_LAST_STAMP = f"(SELECT dualstore_stamp FROM gone ORDER BY {REVISION} DESC LIMIT 1)"

MOVE_SETTING = "dualstore.move"
"""What names a row on its way to another table, for the triggers: revision, stamp, and the stamp to come."""


@dataclass(frozen=True)
class SplitStatements:
    """The statements for one table that reads and deletes go by; see `AuthorityStatements` for each.

    Rows are read in the slots of `SplitMapping`, for its `decode`.

    Attributes:
        mapping: the table.
        unmapped: told of the table's name for each item that is written and is of no entity.
    """

    mapping: SplitMapping
    unmapped: Callable[[str], None] | None = None

    @cached_property
    def parts(self) -> tuple[AuthorityStatements, ...]:
        """The statements of each SQL table, for it alone."""
        return tuple(map(AuthorityStatements, self.mapping.parts))

    def writing(self, item: Item) -> "EntityStatements":
        """The statements that write this item."""
        place = self.mapping.place_of(item)
        if self.unmapped is not None and place == len(self.mapping.entities):
            self.unmapped(self.mapping.shape.name)
        return self._entities[place]

    def reading(self, key: Key) -> "Statements":
        """The statements that read the item at a key: of the one SQL table, where the key alone tells it."""
        places = self.mapping.places_of_key(key)
        return self.parts[places[0]] if len(places) == 1 else self

    @cached_property
    def _entities(self) -> tuple["EntityStatements", ...]:
        return tuple(EntityStatements(self, place) for place in range(len(self.parts)))

    # -- reads ---------------------------------------------------------------------------------------------

    @cached_property
    def get(self) -> str:
        """One row by its key. Values: key."""
        return f"SELECT {self.slots} FROM ({self._rows_of_key}) t"

    @cached_property
    def get_undoubted(self) -> str:
        """Values: key, table name, key bytes."""
        table, key = self.parts[0].after_key(2)
        return (
            f"SELECT t.*, EXISTS (SELECT FROM dualstore.dirty WHERE table_name = {table} AND {is_key(key)}) "
            f"OR EXISTS (SELECT FROM dualstore.stops WHERE table_name = {table}) "
            f"FROM (SELECT) one LEFT JOIN ({self._rows_of_key}) t ON true"
        )

    @cached_property
    def get_as_authority(self) -> str:
        """Values: key, table name, epoch."""
        table, epoch = self.parts[0].after_key(2)
        return (
            f"SELECT t.*, {role_at(table, epoch)} FROM (SELECT) one LEFT JOIN ({self._rows_of_key}) t ON true"
        )

    @cached_property
    def state(self) -> str:
        """Values: key, table name, key bytes."""
        table, key = self.parts[0].after_key(2)
        return (
            "SELECT t.*, gone.stamp, gone.revision "
            f"FROM (SELECT) one LEFT JOIN ({self._rows_of_key}) t ON true "
            f"LEFT JOIN dualstore.tombstones gone ON gone.table_name = {table} AND {is_key(key, 'gone.')}"
        )

    @cached_property
    def states(self) -> str:
        """Values: table name, array of key bytes, an array for each key column."""
        arrays = ", ".join(f"${n}::{type_}[]" for n, type_ in enumerate(self.mapping.key_types, 3))
        asked = ", ".join(f"k{n}" for n in range(len(self.mapping.key_columns)))
        return (
            "SELECT t.*, gone.stamp, gone.revision, asked.key "
            f"FROM unnest($2::bytea[], {arrays}) AS asked (key, {asked}) "
            f"LEFT JOIN LATERAL ({self._latest(_is_asked_for)}) t ON true "
            "LEFT JOIN dualstore.tombstones gone "
            "ON gone.table_name = $1 AND sha256(gone.key) = sha256(asked.key) "
            f"WHERE t.{REVISION} IS NOT NULL OR gone.revision IS NOT NULL"
        )

    @cached_property
    def in_order(self) -> str:
        """Values: an array for each key column."""
        arrays = ", ".join(f"${n}::{type_}[]" for n, type_ in enumerate(self.mapping.key_types, 1))
        asked = ", ".join(f"k{n}" for n in range(len(self.mapping.key_columns)))
        return (
            f"SELECT t.* FROM unnest({arrays}) WITH ORDINALITY AS asked ({asked}, n) "
            f"LEFT JOIN LATERAL ({self._latest(_is_asked_for)}) t ON true ORDER BY asked.n"
        )

    def page(self, rows: int, *, after: bool) -> str:
        """Rows in the order of the key, where asked from behind one. Values: none, or that key."""
        keys = self.mapping.shape.keys.attributes
        order = ", ".join(
            f"k{number}" + (' COLLATE "C"' if key.type == "S" else "") for number, key in enumerate(keys)
        )

        def some(place: int, part: AuthorityStatements) -> str:
            names = ", ".join(f"t.{name}" for name in part.key_names)
            start = f"WHERE ({names}) > ({', '.join(part.key_values)}) " if after else ""
            read = ", ".join((*self.mapping.slot_expressions(place, "t"), names))
            return f"(SELECT {read} FROM {part.table} t {start}ORDER BY {names} LIMIT {rows:d})"

        names = ", ".join((self.slots, *(f"k{number}" for number in range(len(keys)))))
        return (
            f"SELECT {self.slots} FROM ({self._union(some)}) AS t ({names}) ORDER BY {order} LIMIT {rows:d}"
        )

    @cached_property
    def slots(self) -> str:
        """The names of what `SplitMapping.decode` takes."""
        return ", ".join(("place", *(f"s{number}" for number in range(len(self.mapping.slot_types)))))

    # -- writes that need no item --------------------------------------------------------------------------

    @cached_property
    def delete_over(self) -> str:
        """Values: key, table name, epoch, key bytes, predecessor."""
        table, epoch, key, predecessor = self.parts[0].after_key(4)
        recorded = self.parts[0].bury(table, key, f"{predecessor}::bytea", f"EXISTS ({_GONE})")
        gone = self._delete(f"dualstore_stamp = {predecessor} AND {FENCE_HELD} AND {_ALONE}")
        return (
            f"WITH {fence(table, epoch)}, {self.found}, {gone}, recorded AS ({recorded} RETURNING 1) "
            f"SELECT EXISTS (SELECT FROM recorded) OR (NOT EXISTS ({_FOUND}) "
            f"AND EXISTS ({self.parts[0].tombstone(table, key)} AND stamp = {predecessor})), {FENCE_HELD}"
        )

    @cached_property
    def delete_nothing(self) -> str:
        """Values: key, table name, epoch, key bytes."""
        table, epoch, key = self.parts[0].after_key(3)
        stamp = f"({self.parts[0].tombstone(table, key, 'stamp')})"
        recorded = self.parts[0].bury(table, key, stamp, f"{FENCE_HELD} AND NOT EXISTS ({_FOUND})")
        return (
            f"WITH {fence(table, epoch)}, {self.found}, recorded AS ({recorded} RETURNING 1) "
            f"SELECT EXISTS (SELECT FROM recorded), {FENCE_HELD}"
        )

    @cached_property
    def settle_absent(self) -> str:
        """Values: key, table name, epoch, key bytes, the row's revision, the tombstone's revision."""
        table, epoch, key, row, tombstone = self.parts[0].after_key(5)
        allowed = f"{FENCE_HELD} AND {self.as_seen(table, key, row, tombstone)}"
        as_found = f"{REVISION} = (SELECT revision FROM found WHERE place = {{place}})"
        removed = "(SELECT count(*) FROM gone) = (SELECT count(*) FROM found)"
        stamp = (
            f"CASE WHEN EXISTS ({_GONE}) THEN {_LAST_STAMP} "
            f"ELSE ({self.parts[0].tombstone(table, key, 'stamp')}) END"
        )
        recorded = self.parts[0].bury(table, key, stamp, f"{allowed} AND {removed}")
        return (
            f"WITH {fence(table, epoch)}, {self.found}, {self._delete(f'{allowed} AND {as_found}')}, "
            f"recorded AS ({recorded} RETURNING 1) SELECT EXISTS (SELECT FROM recorded), {FENCE_HELD}"
        )

    @cached_property
    def delete(self) -> str:
        """Values: key, table name, key bytes."""
        table, key = self.parts[0].after_key(2)
        recorded = self.parts[0].bury(table, key, _LAST_STAMP, f"EXISTS ({_GONE})")
        return f"WITH {self._delete('true')} {recorded} RETURNING true"

    @cached_property
    def remove(self) -> str:
        """Values: key, table name, epoch, key bytes, revision, the deletion's stamp in hexadecimal."""
        table, epoch, key, revision, stamp = self.parts[0].after_key(5)
        buried = self.parts[0].bury(table, key, _LAST_STAMP, f"EXISTS ({_GONE})")
        noted = f"set_config('dualstore.deletion', {REVISION} || ':' || {stamp}::text, true) IS NOT NULL"
        gone = self._delete(
            f"{REVISION} = {revision}::bigint AND {self.parts[0].is_authority(table, epoch)} AND {noted}"
        )
        return f"WITH {gone}, buried AS ({buried}) SELECT ln(count(*)) FROM gone"

    @cached_property
    def stamped(self) -> str:
        """Values: key, stamps."""
        return self._union(lambda _, part: part.stamped)

    @cached_property
    def still_there(self) -> str:
        """Values: key, revision."""
        (revision,) = self.parts[0].after_key(1)
        # PostgreSQL locks no rows of a UNION.
        locked = ", ".join(
            f"locked_{place} AS ({part.row} AND {REVISION} = {revision}::bigint FOR SHARE)"
            for place, part in enumerate(self.parts)
        )
        together = " UNION ALL ".join(f"SELECT FROM locked_{place}" for place in range(len(self.parts)))
        return f"WITH {locked}, found AS ({together}) SELECT ln(count(*)) FROM found"

    @cached_property
    def still_absent(self) -> str:
        """Values: key."""
        return (
            f"WITH {self.found}, free AS (SELECT WHERE NOT EXISTS ({_FOUND})) SELECT ln(count(*)) FROM free"
        )

    # -- parts ---------------------------------------------------------------------------------------------

    @cached_property
    def found(self) -> str:
        """A common table expression: the rows of the key, of which there is one but for a double."""
        rows = self._union(
            lambda place, part: (
                f"SELECT {place} AS place, dualstore_stamp AS stamp, {REVISION} AS revision "
                f"FROM {part.table} WHERE {part.key}"
            )
        )
        return f"found AS MATERIALIZED ({rows})"

    def as_seen(self, table: str, key: str, row: str, tombstone: str) -> str:
        """The condition that the key is as it was seen.

        Whoever changes one of several rows gives it a revision above all that were there to be seen, or
        brings an item that was read before the latest of them was.
        """
        return (
            f"(SELECT max(revision) FROM found) IS NOT DISTINCT FROM {row}::bigint AND "
            f"({self.parts[0].tombstone(table, key, 'revision')}) IS NOT DISTINCT FROM {tombstone}::bigint"
        )

    @cached_property
    def _rows_of_key(self) -> str:
        return self._latest(lambda part: part.key_of("t."))

    def _latest(self, condition: Callable[[AuthorityStatements], str]) -> str:
        """The row that meets a condition, in slots and with its revision: of several the one written last."""

        def row(place: int, part: AuthorityStatements) -> str:
            read = ", ".join((*self.mapping.slot_expressions(place, "t"), f"t.{REVISION}"))
            return f"SELECT {read} FROM {part.table} t WHERE {condition(part)}"

        return (
            f"SELECT * FROM ({self._union(row)}) AS rows ({self.slots}, {REVISION}) "
            f"ORDER BY {REVISION} DESC LIMIT 1"
        )

    def _delete(self, condition: str) -> str:
        """Common table expressions that delete the key's rows; the last of them is `gone`.

        Args:
            condition: which of them, with `{place}` for the number of the part.
        """
        deleted = ", ".join(
            f"gone_{place} AS (DELETE FROM {part.table} WHERE {part.key} "
            f"AND {condition.replace('{place}', str(place))} RETURNING dualstore_stamp, {REVISION})"
            for place, part in enumerate(self.parts)
        )
        together = " UNION ALL ".join(f"SELECT * FROM gone_{place}" for place in range(len(self.parts)))
        return f"{deleted}, gone AS ({together})"

    def _union(self, select: Callable[[int, AuthorityStatements], str]) -> str:
        return " UNION ALL ".join(select(place, part) for place, part in enumerate(self.parts))


def _is_asked_for(part: AuthorityStatements) -> str:
    """The condition that a row of table `t` is of the key that `asked` names."""
    return " AND ".join(f"t.{name} = asked.k{number}" for number, name in enumerate(part.key_names))


@dataclass(frozen=True)
class EntityStatements:
    """The statements that write an item of one entity; see `AuthorityStatements` for each.

    A row that comes into the entity's table leaves the one it was in, in the same statement, and only once it
    has arrived. Values begin with the row, and the row with the key.

    Attributes:
        whole: of the table.
        place: the number of the entity's part.
    """

    whole: SplitStatements
    place: int

    @property
    def mapping(self) -> TableMapping:
        """How the item becomes a row."""
        return self.mine.mapping

    @property
    def mine(self) -> AuthorityStatements:
        """The statements of the entity's SQL table alone."""
        return self.whole.parts[self.place]

    @cached_property
    def put_over(self) -> str:
        """Values: row, table name, epoch, key bytes, stamp, predecessor."""
        table, epoch, key, stamp, predecessor = self.mine.after_row(5)
        allowed = f"{FENCE_HELD} AND {_ALONE} AND NOT EXISTS ({self.mine.tombstone(table, key)})"
        written = self._moved(f"dualstore_stamp = {predecessor}", f"stamp = {predecessor}", allowed)
        return (
            f"WITH {fence(table, epoch)}, {self.whole.found}, {written} "
            f"SELECT EXISTS (SELECT FROM written) OR {self._has(stamp)}, {FENCE_HELD}"
        )

    @cached_property
    def put_new(self) -> str:
        """Values: row, table name, epoch, key bytes, stamp."""
        table, epoch, key, stamp = self.mine.after_row(4)
        allowed = f"{FENCE_HELD} AND NOT EXISTS ({_FOUND}) AND NOT EXISTS ({self.mine.tombstone(table, key)})"
        return (
            f"WITH {fence(table, epoch)}, {self.whole.found}, "
            f"written AS ({self.mine.insert} WHERE {allowed} {self._or_nothing} RETURNING 1) "
            f"SELECT EXISTS (SELECT FROM written) OR {self._has(stamp)}, {FENCE_HELD}"
        )

    @cached_property
    def settle_present(self) -> str:
        """Values: row, table name, epoch, key bytes, the row's revision, the tombstone's revision."""
        table, epoch, key, row, tombstone = self.mine.after_row(5)
        allowed = f"{FENCE_HELD} AND {self.whole.as_seen(table, key, row, tombstone)}"
        as_found = f"WHERE t.{REVISION} = (SELECT revision FROM found WHERE place = {self.place})"
        return (
            f"WITH {fence(table, epoch)}, {self.whole.found}, "
            f"written AS ({self.mine.insert} WHERE {allowed} {self._or_over} {as_found} RETURNING 1), "
            f"{self._left('true')}"
            f"cleared AS (DELETE FROM dualstore.tombstones WHERE table_name = {table} AND {is_key(key)} "
            "AND EXISTS (SELECT FROM written)) "
            f"SELECT EXISTS (SELECT FROM written), {FENCE_HELD}"
        )

    @cached_property
    def put(self) -> str:
        """Values: row, table name, key bytes."""
        table, key = self.mine.after_row(2)
        return (
            "WITH cleared AS (DELETE FROM dualstore.tombstones "
            f"WHERE table_name = {table} AND {is_key(key)}), "
            f"written AS ({self.mine.insert} {self._or_over} RETURNING 1), {self._left('true')}"
            "answer AS (SELECT true) SELECT * FROM answer"
        )

    @cached_property
    def create(self) -> str:
        """Values: row, table name, epoch, key bytes."""
        table, epoch, key = self.mine.after_row(3)
        allowed = f"{self.mine.is_authority(table, epoch)} AND NOT EXISTS ({_FOUND})"
        return (
            f"WITH {self.whole.found}, cleared AS (DELETE FROM dualstore.tombstones "
            f"WHERE table_name = {table} AND {is_key(key)}), "
            f"written AS ({self.mine.insert} WHERE {allowed} {self._or_nothing} RETURNING 1) "
            "SELECT ln(count(*)) FROM written"
        )

    @cached_property
    def change(self) -> str:
        """Values: row, table name, epoch, revision."""
        table, epoch, revision = self.mine.after_row(3)
        stamp = self.mine.mapping.placeholders[-1]
        noted = (
            f"set_config('{MOVE_SETTING}', {revision} || ':' || coalesce(encode((SELECT stamp FROM found "
            f"LIMIT 1), 'hex'), '') || ':' || encode({stamp}, 'hex'), true) IS NOT NULL"
        )
        allowed = f"{self.mine.is_authority(table, epoch)} AND {_ALONE}"
        written = self._moved(
            f"{REVISION} = {revision}::bigint", f"revision = {revision}::bigint", allowed, noted
        )
        return f"WITH {self.whole.found}, {written} SELECT ln(count(*)) FROM written"

    # -- parts ---------------------------------------------------------------------------------------------

    def _moved(self, is_it: str, was_found: str, allowed: str, noted: str = "true") -> str:
        """Common table expressions that write over the key's row, in whichever table; the last is `written`.

        Args:
            is_it: the condition that a row is the one to be written over.
            was_found: the same of a row of `found`.
            allowed: what must hold besides.
            noted: what is to be done before a row moves; answers true.
        """
        elsewhere = f"EXISTS (SELECT FROM found WHERE place <> {self.place} AND {was_found})"
        moves = (
            f"arrived AS ({self.mine.insert} WHERE {allowed} AND {elsewhere} AND {noted} "
            f"{self._or_nothing} RETURNING 1), {self._left(is_it, 'arrived')}"
        )
        left = " UNION ALL ".join(f"SELECT * FROM left_{place}" for place in self._others)
        return (
            f"changed AS (UPDATE {self.mine.table} SET {self.mine.assignments}, {REVISION} = "
            f"nextval('dualstore.revision') WHERE {self.mine.key} AND {is_it} AND {allowed} RETURNING 1), "
            f"{moves}written AS (SELECT * FROM changed UNION ALL {left})"
        )

    def _left(self, condition: str, arrived: str = "written") -> str:
        """The common table expressions by which rows leave the other tables, with a comma behind each."""
        return "".join(
            f"left_{place} AS (DELETE FROM {part.table} WHERE {part.key} AND {condition} "
            f"AND EXISTS (SELECT FROM {arrived}) RETURNING 1), "
            for place, part in enumerate(self.whole.parts)
            if place != self.place
        )

    @property
    def _others(self) -> list[int]:
        return [place for place in range(len(self.whole.parts)) if place != self.place]

    @property
    def _or_nothing(self) -> str:
        return f"ON CONFLICT ({', '.join(self.mine.key_names)}) DO NOTHING"

    @property
    def _or_over(self) -> str:
        return f"ON CONFLICT ({', '.join(self.mine.key_names)}) DO UPDATE SET {self.mine.excluded}"

    @staticmethod
    def _has(stamp: str) -> str:
        return f"({_ALONE} AND EXISTS ({_FOUND} WHERE stamp = {stamp}))"


Statements: TypeAlias = AuthorityStatements | SplitStatements
"""The statements of a DynamoDB table, in one SQL table or in several."""


def statements_of(mapping: Mapped, unmapped: Callable[[str], None] | None = None) -> Statements:
    """The statements for a table; see `SplitStatements` for `unmapped`."""
    if isinstance(mapping, SplitMapping):
        return SplitStatements(mapping, unmapped)
    return AuthorityStatements(mapping)


def doubled(mapping: Mapped) -> str:
    """The keys that have rows in more than one SQL table, or "" where there is one table.

    Answers the key columns as `SplitMapping.key_columns` decodes them. Reads the primary keys of all parts.
    """
    parts = [AuthorityStatements(part) for part in mapping.parts]
    if len(parts) == 1:
        return ""
    names = [f"k{number}" for number in range(len(mapping.key_columns))]

    def keys(part: AuthorityStatements) -> str:
        columns = zip(part.mapping.key_columns, names, strict=True)
        read = (f"{quoted(column.name)} AS {name}" for column, name in columns)
        return f"SELECT {', '.join(read)} FROM {part.table}"

    pairs = (
        f"SELECT {', '.join(names)} FROM ({keys(one)}) a JOIN ({keys(other)}) b USING ({', '.join(names)})"
        for number, one in enumerate(parts)
        for other in parts[number + 1 :]
    )
    casts = (column.read(name) for name, column in zip(names, mapping.key_columns, strict=True))
    return f"SELECT DISTINCT {', '.join(casts)} FROM ({' UNION ALL '.join(pairs)}) doubled"
