"""Tables that `dualstore serve --auto-create` keeps on PostgreSQL alone."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "served_tables",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("definition", JSONB, nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint("name", name="pk_served_tables"),
        schema="dualstore",
        comment="Tables that exist on PostgreSQL alone, as DescribeTable tells of them",
    )


def downgrade() -> None:
    """Take it back to the revision before."""
    op.drop_table("served_tables", schema="dualstore")
