"""The SQL of one table where PostgreSQL is the authority: every statement looks at the fence itself.

A statement that writes raises where the fence has moved or its row is not as it was read: its transaction is
then rolled back whole, though the COMMIT is under way in the same round trip. Somebody who takes no lock of
ours (an ORM, psql) may have changed a row since it was read; such a change always takes a new revision.
"""

from functools import cached_property

from dualstore.mapping import OVERFLOW_COLUMN as OVERFLOW
from dualstore.mapping import REVISION_COLUMN as REVISION
from dualstore.stores.postgres.statements import _NEXT, TableStatements, is_key
from dualstore.stores.postgres.trigger_functions import literal, receipted


# Of the roles, the first lets reads and writes pass, the second reads only.
def role_at(table: str, epoch: str) -> str:
    """PostgreSQL's role for a table at an epoch; null: the epoch has ended. Of placeholders."""
    return f"(SELECT role FROM dualstore.control WHERE table_name = {table} AND epoch = {epoch}::bigint)"


ALL_MAY_BE_READ = (
    "SELECT count(*) = cardinality($1::text[]) FROM dualstore.control "
    "JOIN unnest($1::text[], $2::bigint[]) AS asked (named, at) ON table_name = named AND epoch = at "
    "WHERE role IN ('authority', 'paused')"
)
"""Whether PostgreSQL is the authority of all these tables at these epochs. Values: tables, epochs."""

FIND_STAMPS = (
    "SELECT 1 FROM dualstore.receipts WHERE stamp = ANY ($1::bytea[]) AND NOT voided "
    "UNION ALL SELECT 1 FROM dualstore.outbox WHERE stamp = ANY ($1::bytea[]) LIMIT 1"
)
"""A row where one of these stamps was written in the last minutes. Values: stamps."""

VOID_STAMPS = (
    "INSERT INTO dualstore.receipts (stamp, voided) SELECT unnest($1::bytea[]), true "
    "ON CONFLICT (stamp) DO NOTHING"
)
"""Whatever comes under one of these stamps from now on does nothing. Values: stamps."""

KNOWN_TOKEN = (
    "SELECT digest FROM dualstore.tokens "  # noqa: S105 - the name of a request, no secret
    "WHERE token = $1 AND created_at > clock_timestamp() - interval '10 minutes'"
)
"""The transaction of a ClientRequestToken, for as long as DynamoDB remembers one. Values: token."""

REMEMBER_TOKEN = (
    "INSERT INTO dualstore.tokens (token, digest) VALUES ($1, $2) "  # noqa: S105 - as above
    "ON CONFLICT (token) DO UPDATE SET digest = EXCLUDED.digest, created_at = clock_timestamp()"
)
"""Values: token, digest. The token's own lock is held, and `KNOWN_TOKEN` found nothing."""


def _exactly_one(rows: str) -> str:
    """Answers where a common table expression has one row, and raises where it has none.

    The logarithm of zero is an error (SQLSTATE 2201E) that nothing else is likely to raise.
    """
    return f"SELECT ln(count(*)) FROM {rows}"


def _deletion_noted(stamp: str) -> str:
    """Names the row and the stamp of its deletion for the trigger; always true."""
    return f"set_config('dualstore.deletion', {REVISION} || ':' || {stamp}::text, true) IS NOT NULL"


MET, ABSENT, IDLE = "met", "absent", "idle"
REFUSED, UNDECIDED = "refused", "undecided"
"""What `AuthorityStatements.put_where` and `remove_where` say of what they found.

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


def _receipt(stamp: str, is_done: str) -> str:
    """At stage `complete`: what tells of a write whose reply was lost, in place of the trigger's note."""
    return (
        f"receipt AS (INSERT INTO dualstore.receipts (stamp) SELECT {stamp} FROM found "
        f"WHERE receipted_ IS NOT NULL AND {is_done})"
    )


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


class AuthorityStatements(TableStatements):
    """The statements for one table, those of an authority included."""

    @cached_property
    def get_as_authority(self) -> str:
        """One row by its key, its revision (null: no row), and the role at this epoch (null: another epoch).

        Values: key, table name, epoch.
        """
        table, epoch = self.after_key(2)
        return (
            f"SELECT {self._read}, {role_at(table, epoch)} "
            f"FROM (SELECT) one LEFT JOIN {self.table} t ON {self.key_of('t.')}"
        )

    @cached_property
    def create(self) -> str:
        """Write a row where there was none. Values: row, table name, epoch, key bytes."""
        table, epoch, key = self.after_row(3)
        return (
            f"WITH cleared AS (DELETE FROM dualstore.tombstones "
            f"WHERE table_name = {table} AND {is_key(key)}), "
            f"written AS ({self.insert} WHERE {self.is_authority(table, epoch)} "
            f"ON CONFLICT ({', '.join(self.key_names)}) DO NOTHING RETURNING 1) {_exactly_one('written')}"
        )

    @cached_property
    def change(self) -> str:
        """Write a row over the one of this revision. Values: row, table name, epoch, revision."""
        table, epoch, revision = self.after_row(3)
        return (
            f"WITH written AS (UPDATE {self.table} SET {self.assignments}, {REVISION} = {_NEXT} "
            f"WHERE {self.key} AND {REVISION} = {revision}::bigint "
            f"AND {self.is_authority(table, epoch)} RETURNING 1) {_exactly_one('written')}"
        )

    @cached_property
    def remove(self) -> str:
        """Delete the row of this revision, and leave a tombstone.

        The trigger of the table notes the deletion under the stamp that it finds in a setting. That names the
        row, too: a deletion that this one cascades to is another's.
        Values: key, table name, epoch, key bytes, revision, the deletion's stamp in hexadecimal.
        """
        table, epoch, key, revision, stamp = self.after_key(5)
        buried = self.bury(table, key, "(SELECT dualstore_stamp FROM gone)", "EXISTS (SELECT FROM gone)")
        return (
            f"WITH gone AS (DELETE FROM {self.table} WHERE {self.key} AND {REVISION} = {revision}::bigint "
            f"AND {self.is_authority(table, epoch)} AND {_deletion_noted(stamp)} RETURNING dualstore_stamp), "
            f"buried AS ({buried}) {_exactly_one('gone')}"
        )

    def put_where(self, verdict: str, assignments: str | None = None) -> str:
        """Write a row where the verdict on what is there allows it.

        One statement: the row that it finds is the one that it writes over, or it writes none. Who takes no
        lock may change the row meanwhile, and then its revision is another. Answers one row: as
        `get_as_authority`, then the verdict, whether a write leaves a receipt (null: no), and whether it was
        made.
        Values: row, table name, epoch, key bytes, the verdict's.

        Args:
            verdict: on the row `t`; its placeholders begin with `first_of_put`.
            assignments: what is set of a row `t` that is there; all of the given one, if not given.
        """
        table, epoch, key = self.after_row(3)
        stamp = self.mapping.placeholders[-1]
        return (
            f"WITH {self._found(verdict, table, epoch, stamp)}, "
            f"changed AS (UPDATE {self.table} t SET {assignments or self.assignments}, {REVISION} = {_NEXT} "
            f"WHERE {self.key} AND {_FOUND_TO_CHANGE} RETURNING 1), "
            f"created AS ({self.insert} WHERE EXISTS (SELECT FROM found WHERE verdict_ = '{ABSENT}' "
            f"AND role_ = 'authority') ON CONFLICT ({', '.join(self.key_names)}) DO NOTHING RETURNING 1), "
            f"cleared AS (DELETE FROM dualstore.tombstones WHERE EXISTS (SELECT FROM created) "
            f"AND table_name = {table} AND {is_key(key)}), "
            f"{_receipt(stamp, _WRITTEN)} SELECT found.*, {_WRITTEN} FROM found"
        )

    def remove_where(self, verdict: str) -> str:
        """As `remove`, where the verdict on what is there allows it; answers as `put_where`.

        Values: key, table name, epoch, key bytes, the deletion's stamp in hexadecimal, the verdict's.

        Args:
            verdict: on the row `t`; its placeholders begin with `first_of_remove`.
        """
        table, epoch, key, stamp = self.after_key(4)
        decoded = f"decode({stamp}, 'hex')"
        buried = self.bury(table, key, "(SELECT dualstore_stamp FROM gone)", "EXISTS (SELECT FROM gone)")
        return (
            f"WITH {self._found(verdict, table, epoch, decoded)}, "
            f"gone AS (DELETE FROM {self.table} WHERE {self.key} AND {_FOUND_TO_CHANGE} "
            f"AND {_deletion_noted(stamp)} RETURNING dualstore_stamp), "
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

    @property
    def first_of_put(self) -> int:
        """The number of the first placeholder behind those of `put_where` itself."""
        return len(self.names) + 4

    @property
    def first_of_remove(self) -> int:
        """The number of the first placeholder behind those of `remove_where` itself."""
        return len(self.key_names) + 5

    def _found(self, verdict: str, table: str, epoch: str, stamp: str) -> str:
        # A stamp that has a receipt is of a write that was made, or given up: this one comes too late.
        voided = f"EXISTS (SELECT FROM dualstore.receipts WHERE stamp = {stamp})"
        return (
            f"found AS MATERIALIZED (SELECT {self._read}, fence.role AS role_, {verdict} AS verdict_, "
            f"CASE fence.stage WHEN 'complete' THEN {self._leaves_receipt} END AS receipted_ "
            "FROM (SELECT) one LEFT JOIN dualstore.control fence "
            f"ON fence.table_name = {table} AND fence.epoch = {epoch}::bigint AND NOT {voided} "
            f"LEFT JOIN {self.table} t ON {self.key_of('t.')})"
        )

    @cached_property
    def _leaves_receipt(self) -> str:
        """Tells the triggers of the table that this statement leaves a receipt."""
        return f"set_config('dualstore.writer', {literal(receipted(self.mapping))}, true)"

    @cached_property
    def still_there(self) -> str:
        """Make sure of a row that a condition was about. Values: key, revision."""
        (revision,) = self.after_key(1)
        row = f"{self.row} AND {REVISION} = {revision}::bigint FOR SHARE"
        return f"WITH found AS ({row}) {_exactly_one('found')}"

    @cached_property
    def still_absent(self) -> str:
        """Make sure that there is no row where a condition found none. Values: key."""
        return f"WITH free AS (SELECT WHERE NOT EXISTS ({self.row})) {_exactly_one('free')}"

    @staticmethod
    def is_authority(table: str, epoch: str) -> str:
        """The condition that PostgreSQL is the authority of a table at an epoch, open to writes."""
        return f"{role_at(table, epoch)} = 'authority'"
