"""The fleet's aggregates, which every process flushes every few seconds."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "rollup",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("process", sa.Text),
        sa.Column("generation", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("read_percent", sa.Numeric, nullable=False),
        sa.Column("mirror_percent", sa.Numeric, nullable=False),
        sa.Column("shadow_percent", sa.Numeric, nullable=False),
        *(
            sa.Column(
                name,
                sa.DateTime(timezone=True),
                nullable=False,
                server_default=sa.text("clock_timestamp()"),
            )
            for name in ("began_at", "ended_at")
        ),
        sa.Column("figures", postgresql.JSONB, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rollup"),
        sa.CheckConstraint(
            "stage IN ('off', 'dualwrite', 'shadow', 'live', 'rampdown', 'complete')",
            name=op.f("ck_rollup_stage"),
        ),
        sa.CheckConstraint("read_percent BETWEEN 0 AND 100", name=op.f("ck_rollup_read_percent")),
        sa.CheckConstraint("mirror_percent BETWEEN 0 AND 100", name=op.f("ck_rollup_mirror_percent")),
        sa.CheckConstraint("shadow_percent BETWEEN 0 AND 100", name=op.f("ck_rollup_shadow_percent")),
        schema=SCHEMA,
        comment=(
            "What the processes counted, by table and dial step; process: None where several windows were "
            "added up"
        ),
    )
    op.create_index("ix_rollup_table_name_ended_at", "rollup", ["table_name", "ended_at"], schema=SCHEMA)
    op.create_index("ix_rollup_table_name_generation", "rollup", ["table_name", "generation"], schema=SCHEMA)


def downgrade() -> None:
    """Take it back to the revision before."""
    op.drop_table("rollup", schema=SCHEMA)
