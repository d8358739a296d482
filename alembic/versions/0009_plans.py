"""The rollout: plans, their steps, and what was rolled back."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "plans",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("content", JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("holder_id", sa.Uuid),
        sa.Column("holder", sa.Text),
        sa.Column("holder_pid", sa.Integer),
        sa.Column("holder_began_at", sa.DateTime(timezone=True)),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("name", name="pk_plans"),
        schema=SCHEMA,
        comment="Migration plans: the file as it was last run, and who runs it now",
    )
    op.create_table(
        "plan_events",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("step", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("seconds", sa.Double),
        sa.Column("reason", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("evidence", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.PrimaryKeyConstraint("number", name="pk_plan_events"),
        sa.ForeignKeyConstraint(["plan"], [f"{SCHEMA}.plans.name"], name="fk_plan_events_plan"),
        schema=SCHEMA,
        comment="What happened to each plan and its steps: who, when, with which evidence; only added to",
    )
    op.create_index("ix_plan_events_plan_number", "plan_events", ["plan", "number"], schema=SCHEMA)
    _watching()


def _watching() -> None:
    """What the monitor keeps."""
    op.create_table(
        "alerts",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.Column("times", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("evidence", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.PrimaryKeyConstraint("key", name="pk_alerts"),
        schema=SCHEMA,
        comment="Alerts of the monitor, one row for each key: told once by whoever opens or closes it",
    )
    op.create_table(
        "rollbacks",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("began", JSONB, nullable=False),
        sa.Column("ended", JSONB),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("evidence", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.PrimaryKeyConstraint("number", name="pk_rollbacks"),
        schema=SCHEMA,
        comment="What was rolled back: by whom, why, from where to where, and on which evidence; "
        "only added to",
    )
    op.create_index("ix_rollbacks_table_name_number", "rollbacks", ["table_name", "number"], schema=SCHEMA)


def downgrade() -> None:
    """Take it back to the revision before."""
    for watching in ("rollbacks", "alerts"):
        op.drop_table(watching, schema=SCHEMA)
    op.drop_table("plan_events", schema=SCHEMA)
    op.drop_table("plans", schema=SCHEMA)
