"""The bookkeeping tables and the revision sequence.

Revision identifiers count up, so that a name shows which of two databases is older.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    default = None if nullable else sa.text("clock_timestamp()")
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def _count(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("revision", schema=SCHEMA)))
    _create_mirror_tables()
    _create_control()
    _create_runs()
    _create_discrepancies()


def _create_mirror_tables() -> None:
    op.create_table(
        "tombstones",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("stamp", sa.LargeBinary),
        sa.Column("revision", sa.BigInteger, nullable=False),
        _moment("deleted_at"),
        schema=SCHEMA,
        comment="Keys that were deleted, and the stamp that each deletion removed",
    )
    _create_key_index("tombstones")
    op.create_index(
        "ix_tombstones_table_name_deleted_at", "tombstones", ["table_name", "deleted_at"], schema=SCHEMA
    )
    op.create_table(
        "dirty",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("item_key", postgresql.JSONB, nullable=False),
        sa.Column("nonce", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        _moment("since"),
        schema=SCHEMA,
        comment="Keys whose mirrored state is in doubt until somebody settles them",
    )
    _create_key_index("dirty")
    op.create_index("ix_dirty_table_name_since", "dirty", ["table_name", "since"], schema=SCHEMA)


def _create_key_index(table: str) -> None:
    op.create_index(
        f"uq_{table}_key", table, ["table_name", sa.text("sha256(key)")], unique=True, schema=SCHEMA
    )


def _create_control() -> None:
    op.create_table(
        "control",
        sa.Column("table_name", sa.Text, nullable=False),
        _count("epoch"),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("read_percent", sa.Numeric, nullable=False),
        sa.Column("mirror_percent", sa.Numeric, nullable=False),
        sa.Column("shadow_percent", sa.Numeric),
        sa.Column("gate", sa.Text, nullable=False),
        _count("gate_sequence"),
        _count("generation"),
        sa.Column("loaded", sa.Boolean, nullable=False, server_default=sa.false()),
        _count("mirrored_since"),
        sa.Column("suspects", postgresql.JSONB, nullable=False, server_default=sa.text("'[]'")),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("table_name", name="pk_control"),
        sa.CheckConstraint("read_percent BETWEEN 0 AND 100", name=op.f("ck_control_read_percent")),
        sa.CheckConstraint("mirror_percent BETWEEN 0 AND 100", name=op.f("ck_control_mirror_percent")),
        sa.CheckConstraint("shadow_percent BETWEEN 0 AND 100", name=op.f("ck_control_shadow_percent")),
        sa.CheckConstraint(
            "stage IN ('off', 'dualwrite', 'shadow', 'live', 'rampdown', 'complete')",
            name=op.f("ck_control_stage"),
        ),
        sa.CheckConstraint("gate IN ('open', 'shut', 'reopening')", name=op.f("ck_control_gate")),
        schema=SCHEMA,
        comment="The control record of each table; a copy, while DynamoDB is its authority",
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("parameters", postgresql.JSONB),
        sa.Column("result", postgresql.JSONB),
        _moment("started_at"),
        _moment("finished_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.CheckConstraint(
            "state IN ('running', 'finished', 'finished with failures', 'abandoned')",
            name=op.f("ck_runs_state"),
        ),
        schema=SCHEMA,
        comment="Runs of backfill, verify and repair",
    )
    op.create_index(
        "ix_runs_table_name_kind_started_at", "runs", ["table_name", "kind", "started_at"], schema=SCHEMA
    )
    op.create_table(
        "run_pieces",
        sa.Column("run_id", sa.Uuid, nullable=False),
        sa.Column("piece", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("cursor", postgresql.JSONB),
        _count("items"),
        _count("inserted"),
        _count("settled"),
        _count("bytes"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("error", sa.Text),
        sa.Column("transaction_id", sa.BigInteger),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("run_id", "piece", name="pk_run_pieces"),
        sa.ForeignKeyConstraint(
            ["run_id"], [f"{SCHEMA}.runs.id"], name="fk_run_pieces_run_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'copying', 'copied', 'done')", name=op.f("ck_run_pieces_state")
        ),
        schema=SCHEMA,
        comment="Pieces of a run, each with the checkpoint from which it resumes",
    )


def _create_discrepancies() -> None:
    op.create_table(
        "discrepancies",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key_hash", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("class", sa.Text, nullable=False),
        sa.Column("paths", postgresql.JSONB, nullable=False),
        _moment("first_seen"),
        _moment("last_seen"),
        sa.Column("count", sa.BigInteger, nullable=False, server_default=sa.text("1")),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("run_id", sa.Uuid),
        sa.PrimaryKeyConstraint("id", name="pk_discrepancies"),
        sa.UniqueConstraint(
            "table_name",
            "key_hash",
            "operation",
            "class",
            name="uq_discrepancies_table_name_key_hash_operation_class",
        ),
        sa.CheckConstraint("count > 0", name=op.f("ck_discrepancies_count")),
        schema=SCHEMA,
        comment="Differences between the two sides that a second look confirmed; no item values",
    )
    op.create_index(
        "ix_discrepancies_table_name_last_seen", "discrepancies", ["table_name", "last_seen"], schema=SCHEMA
    )


def downgrade() -> None:
    for table in ("discrepancies", "run_pieces", "runs", "control", "dirty", "tombstones"):
        op.drop_table(table, schema=SCHEMA)
    op.execute(sa.schema.DropSequence(sa.Sequence("revision", schema=SCHEMA)))
