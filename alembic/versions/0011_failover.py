"""PostgreSQL is gone for good, or comes back after DynamoDB has taken over without it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("control", sa.Column("failed_over", postgresql.JSONB), schema=SCHEMA)
    op.create_table(
        "lost_writes",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("outbox_id", sa.BigInteger, nullable=False),
        sa.Column("key_hash", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stamp", sa.LargeBinary),
        sa.Column("reason", sa.Text),
        sa.Column("form", sa.Text, nullable=False),
        sa.Column("item", sa.LargeBinary),
        sa.Column(
            "found_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_lost_writes"),
        sa.UniqueConstraint(
            "table_name", "epoch", "outbox_id", name="uq_lost_writes_table_name_epoch_outbox_id"
        ),
        sa.CheckConstraint("kind IN ('written', 'deleted', 'written over', 'arrived')", name="kind"),
        sa.CheckConstraint("form IN ('plain', 'encrypted', 'redacted')", name="form"),
        schema=SCHEMA,
        comment=(
            "Changes in PostgreSQL that had not reached DynamoDB when a table was failed over to it; epoch: "
            "of the failover"
        ),
    )


def downgrade() -> None:
    """Take it back to the revision before."""
    op.drop_table("lost_writes", schema=SCHEMA)
    op.drop_column("control", "failed_over", schema=SCHEMA)
