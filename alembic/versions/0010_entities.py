"""Several SQL tables behind one DynamoDB table."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "entities",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("layout", JSONB, nullable=False),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint("table_name", name="pk_entities"),
        schema=SCHEMA,
        comment="By which entities the rows of a DynamoDB table in several SQL tables were placed",
    )


def downgrade() -> None:
    """Take it back to the revision before."""
    op.drop_table("entities", schema=SCHEMA)
