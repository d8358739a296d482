"""The SQL of one table where PostgreSQL is the authority: every statement looks at the fence itself.

A statement that writes raises where the fence has moved or its row is not as it was read: its transaction is
then rolled back whole, though the COMMIT is under way in the same round trip. Somebody who takes no lock of
ours (an ORM, psql) may have changed a row since it was read; such a change always takes a new revision.
"""

from functools import cached_property

from dualstore.mapping import REVISION_COLUMN as REVISION
from dualstore.stores.postgres.single_statements import SingleStatements, deletion_noted
from dualstore.stores.postgres.statements import NEXT, TableStatements, is_key


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

LEAVE_RECEIPT = "INSERT INTO dualstore.receipts (stamp) VALUES ($1)"
"""Something that a commit is waited for. Values: a fresh stamp."""

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


class AuthorityStatements(TableStatements):
    """The statements for one table, those of an authority included."""

    @cached_property
    def single(self) -> SingleStatements:
        """Those that decide themselves, under the lock of a statement before."""
        return SingleStatements(self, locking=False)

    @cached_property
    def locking(self) -> SingleStatements:
        """Those that decide themselves, and take the lock."""
        return SingleStatements(self, locking=True)

    @cached_property
    def get_as_authority(self) -> str:
        """One row by its key, its revision (null: no row), and the role at this epoch (null: another epoch).

        Values: key, table name, epoch.
        """
        table, epoch = self.after_key(2)
        return (
            f"SELECT {self.read}, {role_at(table, epoch)} "
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
            f"WITH written AS (UPDATE {self.table} SET {self.assignments}, {REVISION} = {NEXT} "
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
            f"AND {self.is_authority(table, epoch)} AND {deletion_noted(stamp)} RETURNING dualstore_stamp), "
            f"buried AS ({buried}) {_exactly_one('gone')}"
        )

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
