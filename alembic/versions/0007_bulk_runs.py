"""Runs that several machines share: leases of pieces, quarantine, pause."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"
_RUN_COLUMNS = ("phase", "wish", "wish_by", "wish_reason")
_PIECE_COLUMNS = (
    *("description", "shared", "worker", "lease_until", "failures", "not_before"),
    *("rejected", "read_units", "seconds", "rate"),
)


def upgrade() -> None:
    """Bring the schema to this revision."""
    # Pieces of former versions have no description, and nobody could claim them.
    op.execute(
        "UPDATE dualstore.runs SET state = 'abandoned', finished_at = clock_timestamp()"
        " WHERE state = 'running'"
    )
    _widen_runs()
    _widen_pieces()
    _create_quarantine()


def _widen_runs() -> None:
    for column in (
        sa.Column("phase", sa.Text),
        sa.Column("wish", sa.Text, nullable=False, server_default="go"),
        sa.Column("wish_by", sa.Text),
        sa.Column("wish_reason", sa.Text),
    ):
        op.add_column("runs", column, schema=SCHEMA)
    op.create_check_constraint(op.f("ck_runs_wish"), "runs", "wish IN ('go', 'pause', 'halt')", schema=SCHEMA)


def _widen_pieces() -> None:
    zero = sa.text("0")
    for column in (
        sa.Column("description", JSONB),
        sa.Column("shared", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("worker", sa.Text),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("failures", sa.Integer, nullable=False, server_default=zero),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.Column("rejected", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("read_units", sa.Double, nullable=False, server_default=zero),
        sa.Column("seconds", sa.Double, nullable=False, server_default=zero),
        sa.Column("rate", sa.Double, nullable=False, server_default=zero),
    ):
        op.add_column("run_pieces", column, schema=SCHEMA)
    _replace_piece_states("pending", "copying", "copied", "done", "failed")
    op.create_index(
        "ix_run_pieces_claimable",
        "run_pieces",
        ["run_id", "failures", "piece"],
        schema=SCHEMA,
        postgresql_where=sa.text("shared AND state IN ('pending', 'copying')"),
    )


def _replace_piece_states(*states: str) -> None:
    name = op.f("ck_run_pieces_state")
    op.drop_constraint(name, "run_pieces", schema=SCHEMA)
    listed = ", ".join(map(repr, states))
    op.create_check_constraint(name, "run_pieces", f"state IN ({listed})", schema=SCHEMA)


def _create_quarantine() -> None:
    def moment(name: str) -> sa.Column[object]:
        return sa.Column(
            name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
        )

    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key_hash", sa.Text, nullable=False),
        sa.Column("run_id", sa.Uuid, nullable=False),
        sa.Column("piece", sa.Integer, nullable=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("form", sa.Text, nullable=False),
        sa.Column("item", sa.LargeBinary),
        moment("first_seen"),
        moment("last_seen"),
        sa.Column("state", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quarantine"),
        sa.UniqueConstraint("table_name", "key_hash", name="uq_quarantine_table_name_key_hash"),
        sa.CheckConstraint("form IN ('plain', 'encrypted', 'redacted')", name=op.f("ck_quarantine_form")),
        sa.CheckConstraint("state IN ('open', 'closed')", name=op.f("ck_quarantine_state")),
        schema=SCHEMA,
        comment="Items that could not be loaded, with the reason; key_hash: of the item where it has no key",
    )


def downgrade() -> None:
    """Take it back to the revision before."""
    op.drop_table("quarantine", schema=SCHEMA)
    op.drop_index("ix_run_pieces_claimable", "run_pieces", schema=SCHEMA)
    op.execute("UPDATE dualstore.run_pieces SET state = 'copying' WHERE state = 'failed'")
    _replace_piece_states("pending", "copying", "copied", "done")
    for column in _PIECE_COLUMNS:
        op.drop_column("run_pieces", column, schema=SCHEMA)
    for column in _RUN_COLUMNS:
        op.drop_column("runs", column, schema=SCHEMA)
