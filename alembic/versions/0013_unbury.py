"""A function by which a statement forgets a tombstone that is younger than its snapshot."""

from collections.abc import Sequence

from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# PL/pgSQL, for what a volatile function runs has a snapshot of its own.
_UNBURY = """
CREATE FUNCTION dualstore.unbury(of_table text, of_key bytea) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM dualstore.tombstones WHERE table_name = of_table AND sha256(key) = sha256(of_key);
END $$
"""

# Writes name this function: where PUBLIC may call none, whoever removes tombstones would else be refused.
_GRANTS = """
DO $$
DECLARE
    allowed record;
BEGIN
    FOR allowed IN
        SELECT grantee, is_grantable FROM pg_class, aclexplode(relacl)
         WHERE oid = 'dualstore.tombstones'::regclass AND privilege_type = 'DELETE'
    LOOP
        EXECUTE format(
            'GRANT EXECUTE ON FUNCTION dualstore.unbury TO %s%s',
            CASE allowed.grantee WHEN 0 THEN 'PUBLIC' ELSE allowed.grantee::regrole::text END,
            CASE WHEN allowed.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
        );
    END LOOP;
END
$$"""


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.execute(_UNBURY)
    op.execute(_GRANTS)


def downgrade() -> None:
    """Take it back to the revision before."""
    op.execute("DROP FUNCTION dualstore.unbury")
