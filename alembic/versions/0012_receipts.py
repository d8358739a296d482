"""Writes at stage `complete` leave a receipt instead of a finished row in the outbox."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"


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
        sa.PrimaryKeyConstraint("stamp", name="pk_receipts"),
        schema=SCHEMA,
        comment="Writes of the last minutes at stage complete: they tell of a COMMIT whose reply was lost",
    )
    op.create_index("ix_receipts_written_at", "receipts", ["written_at"], schema=SCHEMA)


def downgrade() -> None:
    """Take it back to the revision before."""
    op.drop_table("receipts", schema=SCHEMA)
