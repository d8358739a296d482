"""Writes at stage `complete` leave a receipt instead of a finished row in the outbox."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"

# Every write names this table: whoever may write tombstones would else be refused from the upgrade on.
_GRANTS = f"""
DO $$
DECLARE
    allowed record;
BEGIN
    FOR allowed IN
        SELECT grantee, privilege_type, is_grantable
          FROM pg_class, aclexplode(relacl) WHERE oid = '{SCHEMA}.tombstones'::regclass
    LOOP
        EXECUTE format(
            'GRANT %s ON {SCHEMA}.receipts TO %s%s', allowed.privilege_type,
            CASE allowed.grantee WHEN 0 THEN 'PUBLIC' ELSE allowed.grantee::regrole::text END,
            CASE WHEN allowed.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
        );
    END LOOP;
END
$$"""


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "receipts",
        sa.Column("stamp", sa.LargeBinary, nullable=False),
        sa.Column(
            "written_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.Column("voided", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("stamp", name="pk_receipts"),
        schema=SCHEMA,
        comment=(
            "Writes of the last minutes at stage complete, for COMMITs whose reply was lost; voided: "
            "writes that were given up and made anew, and must not be carried out when they come after all"
        ),
    )
    op.create_index("ix_receipts_written_at", "receipts", ["written_at"], schema=SCHEMA)
    op.execute(_GRANTS)


def downgrade() -> None:
    """Take it back to the revision before."""
    op.drop_table("receipts", schema=SCHEMA)
