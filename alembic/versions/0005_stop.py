"""Reads can be stopped from either database."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("control", sa.Column("stopped", postgresql.JSONB), schema=SCHEMA)
    op.create_table(
        "stops",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("stopped_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column(
            "stopped_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint("table_name", name="pk_stops"),
        schema=SCHEMA,
        comment="Tables whose mirror a person has forbidden to read; every such read looks here",
    )


def downgrade() -> None:
    """Take it back to the revision before."""
    op.drop_table("stops", schema=SCHEMA)
    op.drop_column("control", "stopped", schema=SCHEMA)
