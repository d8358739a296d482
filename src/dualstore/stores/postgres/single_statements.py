"""The SQL of writes that PostgreSQL decides: it looks at the row, and writes over that row or not at all.

A statement answers one row: as `AuthorityStatements.get_as_authority`, then the verdict on what it found,
whether a write leaves a receipt (null: no), and whether it was made. Values: those of the row, or of its key;
table name, epoch, key bytes; where the statement takes the key's lock, that lock, and for how many ms to wait
for the row; of a deletion its stamp in hexadecimal; the verdict's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dualstore.mapping import OVERFLOW_COLUMN as OVERFLOW
from dualstore.mapping import REVISION_COLUMN as REVISION
from dualstore.stores.postgres.statements import NEXT, TableStatements
from dualstore.stores.postgres.trigger_functions import literal, receipted

MET, ABSENT, IDLE = "met", "absent", "idle"
REFUSED, UNDECIDED = "refused", "undecided"
"""The verdicts.

The condition holds of the row; there is no row, and that will do; there is none, and none is to be made;
the condition does not hold; SQL cannot decide, since the row's overflow has something that is read, or for
what an update makes of it.
"""

_ANY_ROW = f"CASE WHEN t.{REVISION} IS NULL THEN '{{}}' ELSE '{MET}' END"

_FOUND_TO_CHANGE = (
    f"{REVISION} = (SELECT {REVISION} FROM found WHERE verdict_ = '{MET}' AND role_ = 'authority')"
)
_WRITTEN = "(EXISTS (SELECT FROM changed) OR EXISTS (SELECT FROM created))"
_GONE = "EXISTS (SELECT FROM gone)"


def deletion_noted(stamp: str) -> str:
    """Names the row and the stamp of its deletion for the trigger; always true."""
    return f"set_config('dualstore.deletion', {REVISION} || ':' || {stamp}::text, true) IS NOT NULL"


def verdict(holds: str, attributes: str, *, nothing: str, decidable: str = "true") -> str:
    """The verdict of a condition.

    Args:
        holds: the condition, of the row `t`; never null.
        attributes: the placeholder of the attributes that are read.
        nothing: the verdict where there is no row.
        decidable: whether SQL surely does what is to be done to the row; null: no.
    """
    return (
        f"CASE WHEN t.{REVISION} IS NULL THEN '{nothing}' "
        f"WHEN coalesce(t.{OVERFLOW} ?| {attributes}::text[], false) THEN '{UNDECIDED}' "
        f"WHEN NOT {holds} THEN '{REFUSED}' WHEN {decidable} THEN '{MET}' ELSE '{UNDECIDED}' END"
    )


@dataclass(frozen=True)
class SingleStatements:
    """The statements for one table.

    The row that a statement finds is the one that it writes over, or it writes none. Who takes no lock may
    change the row meanwhile, and then its revision is another.

    Attributes:
        its: the other statements of the table.
        locking: whether they take the key's lock themselves, in place of a statement before (ADR 32). Then
            they do nothing where the lock is not free, or the table not at stage `complete`: there is no role
            in the answer.
    """

    its: TableStatements
    locking: bool

    def put_where(self, verdict: str, assignments: str | None = None) -> str:
        """Write a row where the verdict on what is there allows it.

        Args:
            verdict: on the row `t`; its placeholders begin with `first_of_put`.
            assignments: what is set of a row `t` that is there; all of the given one, if not given.
        """
        its = self.its
        table, epoch, key, *lock = its.after_row(3 + self._lock_values)
        stamp, key_names = its.mapping.placeholders[-1], ", ".join(its.key_names)
        return (
            f"WITH {self._found(verdict, table, epoch, stamp, lock)}, "
            f"changed AS (UPDATE {its.table} t SET {assignments or its.assignments}, {REVISION} = {NEXT} "
            f"WHERE {its.key} AND {_FOUND_TO_CHANGE} RETURNING 1), "
            f"created AS ({its.insert} WHERE EXISTS (SELECT FROM found WHERE verdict_ = '{ABSENT}' "
            f"AND role_ = 'authority') ON CONFLICT ({key_names}) DO NOTHING "
            f"RETURNING dualstore.unbury({table}, {key})), "
            f"{_receipt(stamp, _WRITTEN)} SELECT found.*, {_WRITTEN} FROM found"
        )

    def remove_where(self, verdict: str) -> str:
        """As `AuthorityStatements.remove`, where the verdict on what is there allows it.

        Args:
            verdict: on the row `t`; its placeholders begin with `first_of_remove`.
        """
        its = self.its
        table, epoch, key, *lock, stamp = its.after_key(4 + self._lock_values)
        decoded = f"decode({stamp}, 'hex')"
        buried = its.bury(table, key, "(SELECT dualstore_stamp FROM gone)", "EXISTS (SELECT FROM gone)")
        return (
            f"WITH {self._found(verdict, table, epoch, decoded, lock)}, "
            f"gone AS (DELETE FROM {its.table} WHERE {its.key} AND {_FOUND_TO_CHANGE} "
            f"AND {deletion_noted(stamp)} RETURNING dualstore_stamp), "
            f"buried AS ({buried}), {_receipt(decoded, _GONE)} "
            f"SELECT found.*, {_GONE} FROM found"
        )

    @cached_property
    def put_anyway(self) -> str:
        """`put_where` without a condition."""
        return self.put_where(_ANY_ROW.format(ABSENT))

    @cached_property
    def remove_anyway(self) -> str:
        """`remove_where` without a condition."""
        return self.remove_where(_ANY_ROW.format(IDLE))

    @cached_property
    def first_of_put(self) -> int:
        """The number of the first placeholder behind those of `put_where` itself."""
        return len(self.its.names) + 4 + self._lock_values

    @cached_property
    def first_of_remove(self) -> int:
        """The number of the first placeholder behind those of `remove_where` itself."""
        return len(self.its.key_names) + 5 + self._lock_values

    @property
    def _lock_values(self) -> int:
        return 2 if self.locking else 0

    def _found(self, verdict: str, table: str, epoch: str, stamp: str, lock: Sequence[str]) -> str:
        its = self.its
        one, allowed, receipt = self._under_own_lock(*lock) if self.locking else self._under_lock(stamp)
        return (
            f"found AS MATERIALIZED (SELECT {its.read}, fence.role AS role_, {verdict} AS verdict_, "
            f"{receipt} AS receipted_ FROM (SELECT {one}) one LEFT JOIN dualstore.control fence "
            f"ON fence.table_name = {table} AND fence.epoch = {epoch}::bigint AND {allowed} "
            f"LEFT JOIN {its.table} t ON {its.key_of('t.')})"
        )

    def _under_lock(self, stamp: str) -> tuple[str, str, str]:
        # A stamp that has a receipt is of a write that was made, or given up: this one comes too late.
        voided = f"EXISTS (SELECT FROM dualstore.receipts WHERE stamp = {stamp})"
        return "", f"NOT {voided}", f"CASE fence.stage WHEN 'complete' THEN {self._leaves_receipt} END"

    def _under_own_lock(self, key: str, patience_ms: str) -> tuple[str, str, str]:
        # A stamp that has a receipt gets no second one: the statement fails. To look for it would not do, as
        # its snapshot is older than the lock.
        taken = f"pg_try_advisory_xact_lock({key}::bigint) AS locked_"
        waits = f"set_config('lock_timeout', {patience_ms}, true)"
        level = "current_setting('transaction_isolation') = 'read committed'"
        one = f"{taken}, {waits}, {self._leaves_receipt} AS writer_"
        return one, f"fence.stage = 'complete' AND one.locked_ AND {level}", "one.writer_"

    @cached_property
    def _leaves_receipt(self) -> str:
        """Tells the triggers of the table that this statement leaves a receipt."""
        return f"set_config('dualstore.writer', {literal(receipted(self.its.mapping))}, true)"


def _receipt(stamp: str, is_done: str) -> str:
    """At stage `complete`: what tells of a write whose reply was lost, in place of the trigger's note."""
    return (
        f"receipt AS (INSERT INTO dualstore.receipts (stamp) SELECT {stamp} FROM found "
        f"WHERE receipted_ IS NOT NULL AND {is_done})"
    )
