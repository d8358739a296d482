"""Discrepancies remember both versions, the trace and, if asked for, the key; one row for all operations."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"
TABLE = "discrepancies"

_BY_OPERATION = "uq_discrepancies_table_name_key_hash_operation_class"
_BY_KEY = "uq_discrepancies_table_name_key_hash_class"
_STATE = "ck_discrepancies_state"
_COMMENT = "Differences between the two sides that a second look confirmed; no item values"
_COMMENT_WITH_KEYS = f"{_COMMENT}, keys by opt-in"

# One difference was one row for each operation that saw it: the row that was seen last takes the others in.
_MERGE = """
WITH known AS (
    SELECT id, row_number() OVER seen AS rank, min(first_seen) OVER difference AS first_seen,
           sum(count) OVER difference AS count, bool_or(state = 'ignored') OVER difference AS is_ignored
    FROM dualstore.discrepancies
    WINDOW difference AS (PARTITION BY table_name, key_hash, class),
           seen AS (PARTITION BY table_name, key_hash, class ORDER BY last_seen DESC, id)
), gone AS (
    DELETE FROM dualstore.discrepancies d USING known WHERE d.id = known.id AND known.rank > 1
)
UPDATE dualstore.discrepancies d
   SET first_seen = known.first_seen, count = known.count,
       state = CASE WHEN known.is_ignored THEN 'ignored' WHEN d.state = 'repaired' THEN d.state
                    ELSE 'open' END,
       of_request = d.class IN ('order', 'count', 'error')
  FROM known WHERE d.id = known.id AND known.rank = 1
"""


def upgrade() -> None:
    """Bring the schema to this revision."""
    for column in (
        sa.Column("finder", sa.Text, nullable=False, server_default="shadow"),
        sa.Column("of_request", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("dynamodb_version", sa.Text),
        sa.Column("postgres_version", sa.Text),
        sa.Column("trace_id", sa.Text),
        sa.Column("key", sa.LargeBinary),
    ):
        op.add_column(TABLE, column, schema=SCHEMA)
    op.execute(_MERGE)
    op.drop_constraint(op.f(_BY_OPERATION), TABLE, schema=SCHEMA)
    op.create_unique_constraint(op.f(_BY_KEY), TABLE, ["table_name", "key_hash", "class"], schema=SCHEMA)
    op.create_check_constraint(op.f(_STATE), TABLE, "state IN ('open', 'repaired', 'ignored')", schema=SCHEMA)
    op.create_table_comment(TABLE, _COMMENT_WITH_KEYS, existing_comment=_COMMENT, schema=SCHEMA)


def downgrade() -> None:
    """Take it back to the revision before."""
    op.create_table_comment(TABLE, _COMMENT, existing_comment=_COMMENT_WITH_KEYS, schema=SCHEMA)
    op.drop_constraint(op.f(_STATE), TABLE, schema=SCHEMA)
    op.drop_constraint(op.f(_BY_KEY), TABLE, schema=SCHEMA)
    op.create_unique_constraint(
        op.f(_BY_OPERATION), TABLE, ["table_name", "key_hash", "operation", "class"], schema=SCHEMA
    )
    for column in ("key", "trace_id", "postgres_version", "dynamodb_version", "of_request", "finder"):
        op.drop_column(TABLE, column, schema=SCHEMA)
