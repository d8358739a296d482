"""PostgreSQL as the authority: the fence, the register, the outbox, and what follows a stream.

`control` keeps its rows: each is a copy, as all were before.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"

_STAGES = "'off', 'dualwrite', 'shadow', 'live', 'rampdown', 'complete'"
_CONTROL_CHECKS = {
    "phase": "phase IN ('open', 'closed', 'moved')",
    "target": f"target IN ({_STAGES})",
    "role": "role IN ('none', 'mirror', 'authority', 'paused')",
}
_COPY = "The control record of each table; a copy, while DynamoDB is its authority"
_FENCE = (
    "The control record of each table: a copy while its phase is 'moved', and always the fence that "
    "every write to the mapped table looks for"
)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    default = None if nullable else sa.text("clock_timestamp()")
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def _count(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))


def _json(name: str, default: str) -> sa.Column[object]:
    return sa.Column(name, postgresql.JSONB, nullable=False, server_default=sa.text(f"'{default}'"))


def _no(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())


def upgrade() -> None:
    for column in (
        _no("verified"),
        sa.Column("phase", sa.Text, nullable=False, server_default="moved"),
        sa.Column("target", sa.Text),
        _no("deferred"),
        _no("streamed"),
        sa.Column("role", sa.Text, nullable=False, server_default="none"),
    ):
        op.add_column("control", column, schema=SCHEMA)
    for name, condition in _CONTROL_CHECKS.items():
        op.create_check_constraint(op.f(f"ck_control_{name}"), "control", condition, schema=SCHEMA)
    op.create_table_comment("control", _FENCE, existing_comment=_COPY, schema=SCHEMA)
    _create_processes()
    _create_outbox()
    _create_tokens()
    _create_stream_shards()


def _create_processes() -> None:
    op.create_table(
        "processes",
        sa.Column("id", sa.Text, nullable=False),
        _count("beat"),
        _json("confirmed", "{}"),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        _moment("seen_at"),
        _json("deferring", "[]"),
        sa.PrimaryKeyConstraint("id", name="pk_processes"),
        schema=SCHEMA,
        comment="The register of processes, for the tables whose authority is PostgreSQL",
    )


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("lane", sa.SmallInteger, nullable=False),
        sa.Column("key", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("stamp", sa.LargeBinary),
        sa.Column("predecessor", sa.LargeBinary),
        sa.Column("reason", sa.Text),
        _moment("created_at"),
        _moment("due_at"),
        _moment("done_at", nullable=True),
        sa.Column("sent_image", sa.Text),
        sa.Column("sent_token", sa.Text),
        _moment("sent_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        schema=SCHEMA,
        comment="Changes of keys whose authority is PostgreSQL; key: the SQL key columns, as text",
    )
    op.create_index(
        "ix_outbox_waiting",
        "outbox",
        ["table_name", "lane", "id"],
        schema=SCHEMA,
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_index(
        "ix_outbox_marked",
        "outbox",
        ["table_name", "lane"],
        schema=SCHEMA,
        postgresql_where=sa.text("sent_token IS NOT NULL AND done_at IS NULL"),
    )
    op.create_index("ix_outbox_stamp", "outbox", ["stamp"], schema=SCHEMA)
    op.create_index(
        "ix_outbox_done_at",
        "outbox",
        ["done_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("done_at IS NOT NULL"),
    )
    op.create_table(
        "lanes",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("lane", sa.SmallInteger, nullable=False),
        sa.Column("holder", sa.Text),
        _count("token"),
        _moment("until", nullable=True),
        sa.PrimaryKeyConstraint("table_name", "lane", name="pk_lanes"),
        schema=SCHEMA,
        comment="Who works off which lane of a table's outbox",
    )


def _create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("token", name="pk_tokens"),
        schema=SCHEMA,
        comment="ClientRequestTokens of the last minutes; digest: of the transaction's actions, where known",
    )
    op.create_index("ix_tokens_created_at", "tokens", ["created_at"], schema=SCHEMA)


def _create_stream_shards() -> None:
    op.create_table(
        "stream_shards",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("stream_arn", sa.Text, nullable=False),
        sa.Column("shard_id", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Text),
        sa.Column("sequence", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("holder", sa.Text),
        _count("token"),
        _moment("until", nullable=True),
        _moment("caught_up_at", nullable=True),
        _json("rogues", "{}"),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("table_name", "stream_arn", "shard_id", name="pk_stream_shards"),
        sa.CheckConstraint("state IN ('open', 'done')", name=op.f("ck_stream_shards_state")),
        schema=SCHEMA,
        comment="How far the stream of a table has been followed, shard by shard, and by whom",
    )


def downgrade() -> None:
    for table in ("stream_shards", "tokens", "lanes", "outbox", "processes"):
        op.drop_table(table, schema=SCHEMA)
    op.create_table_comment("control", _COPY, existing_comment=_FENCE, schema=SCHEMA)
    for name in _CONTROL_CHECKS:
        op.drop_constraint(op.f(f"ck_control_{name}"), "control", schema=SCHEMA)
    for column in ("role", "streamed", "deferred", "target", "phase", "verified"):
        op.drop_column("control", column, schema=SCHEMA)
