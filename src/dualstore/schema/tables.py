"""The bookkeeping tables: what they hold, as SQLAlchemy metadata that the migrations must equal.

`table_name` is everywhere the physical name of the DynamoDB table, and `key` the primary key in the form
of `items.key_bytes`.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from dualstore.control import Gate, Phase, PostgresRole
from dualstore.stages import Stage

SCHEMA = "dualstore"

metadata = sa.MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    },
)

_NOW = sa.text("clock_timestamp()")
_NONE_YET = sa.text("0")
_EMPTY_LIST = sa.text("'[]'")


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    default = None if nullable else _NOW
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def _count(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=_NONE_YET)


def _percentage(name: str, *, nullable: bool = False) -> tuple[sa.Column[object], sa.CheckConstraint]:
    return (
        sa.Column(name, sa.Numeric, nullable=nullable),
        sa.CheckConstraint(f"{name} BETWEEN 0 AND 100", name=name),
    )


def _one_of(name: str, *values: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{name} IN ({', '.join(repr(str(value)) for value in values)})", name=name)


def _key_index(table: str) -> sa.Index:
    """One row per key. On its hash: a key may have 3,072 bytes, an entry of a B-tree at most 2,704."""
    return sa.Index(f"uq_{table}_key", "table_name", sa.text("sha256(key)"), unique=True)


revision = sa.Sequence("revision", metadata=metadata)
"""Numbers every write to a key on the PostgreSQL side; never gives a number twice."""

tombstones = sa.Table(
    "tombstones",
    metadata,
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("stamp", sa.LargeBinary),
    sa.Column("revision", sa.BigInteger, nullable=False),
    _moment("deleted_at"),
    _key_index("tombstones"),
    sa.Index(None, "table_name", "deleted_at"),
    comment="Keys that were deleted, and the stamp that each deletion removed",
)

dirty = sa.Table(
    "dirty",
    metadata,
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("item_key", JSONB, nullable=False),
    sa.Column("nonce", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    _moment("since"),
    _key_index("dirty"),
    sa.Index(None, "table_name", "since"),
    comment="Keys whose mirrored state is in doubt until somebody settles them",
)

control = sa.Table(
    "control",
    metadata,
    sa.Column("table_name", sa.Text, nullable=False),
    _count("epoch"),
    sa.Column("stage", sa.Text, nullable=False),
    *_percentage("read_percent"),
    *_percentage("mirror_percent"),
    *_percentage("shadow_percent", nullable=True),
    sa.Column("gate", sa.Text, nullable=False),
    _count("gate_sequence"),
    _count("generation"),
    sa.Column("loaded", sa.Boolean, nullable=False, server_default=sa.false()),
    _count("mirrored_since"),
    sa.Column("verified", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("suspects", JSONB, nullable=False, server_default=_EMPTY_LIST),
    sa.Column("phase", sa.Text, nullable=False, server_default=Phase.MOVED),
    sa.Column("target", sa.Text),
    sa.Column("deferred", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("streamed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("role", sa.Text, nullable=False, server_default=PostgresRole.NONE),
    sa.Column("stopped", JSONB),
    _moment("updated_at"),
    sa.Column("failed_over", JSONB),
    sa.PrimaryKeyConstraint("table_name"),
    _one_of("stage", *Stage),
    _one_of("gate", *Gate),
    _one_of("phase", *Phase),
    _one_of("target", *Stage),
    _one_of("role", *PostgresRole),
    comment=(
        "The control record of each table: a copy while its phase is 'moved', and always the fence that "
        "every write to the mapped table looks for"
    ),
)

stops = sa.Table(
    "stops",
    metadata,
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("stopped_by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    _moment("stopped_at"),
    sa.PrimaryKeyConstraint("table_name"),
    comment="Tables whose mirror a person has forbidden to read; every such read looks here",
)

processes = sa.Table(
    "processes",
    metadata,
    sa.Column("id", sa.Text, nullable=False),
    _count("beat"),
    sa.Column("confirmed", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    _moment("seen_at"),
    sa.Column("deferring", JSONB, nullable=False, server_default=_EMPTY_LIST),
    sa.PrimaryKeyConstraint("id"),
    comment="The register of processes, for the tables whose authority is PostgreSQL",
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("lane", sa.SmallInteger, nullable=False),
    sa.Column("key", ARRAY(sa.Text), nullable=False),
    sa.Column("stamp", sa.LargeBinary),
    sa.Column("predecessor", sa.LargeBinary),
    sa.Column("reason", sa.Text),
    _moment("created_at"),
    _moment("due_at"),
    _moment("done_at", nullable=True),
    sa.Column("sent_image", sa.Text),
    sa.Column("sent_token", sa.Text),
    _moment("sent_at", nullable=True),
    sa.PrimaryKeyConstraint("id"),
    sa.Index("ix_outbox_waiting", "table_name", "lane", "id", postgresql_where=sa.text("done_at IS NULL")),
    sa.Index(None, "stamp"),
    sa.Index(
        "ix_outbox_marked",
        "table_name",
        "lane",
        postgresql_where=sa.text("sent_token IS NOT NULL AND done_at IS NULL"),
    ),
    sa.Index("ix_outbox_done_at", "done_at", postgresql_where=sa.text("done_at IS NOT NULL")),
    comment="Changes of keys whose authority is PostgreSQL; key: the SQL key columns, as text",
)

receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("stamp", sa.LargeBinary, nullable=False),
    _moment("written_at"),
    sa.Column("voided", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.PrimaryKeyConstraint("stamp"),
    sa.Index(None, "written_at"),
    comment=(
        "Writes of the last minutes at stage complete, for COMMITs whose reply was lost; voided: "
        "writes that were given up and made anew, and must not be carried out when they come after all"
    ),
)

lost_writes = sa.Table(
    "lost_writes",
    metadata,
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
    _moment("found_at"),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("table_name", "epoch", "outbox_id"),
    _one_of("kind", "written", "deleted", "written over", "arrived"),
    _one_of("form", "plain", "encrypted", "redacted"),
    comment=(
        "Changes in PostgreSQL that had not reached DynamoDB when a table was failed over to it; epoch: of "
        "the failover"
    ),
)

lanes = sa.Table(
    "lanes",
    metadata,
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("lane", sa.SmallInteger, nullable=False),
    sa.Column("holder", sa.Text),
    _count("token"),
    _moment("until", nullable=True),
    sa.PrimaryKeyConstraint("table_name", "lane"),
    comment="Who works off which lane of a table's outbox",
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary),
    _moment("created_at"),
    sa.PrimaryKeyConstraint("token"),
    sa.Index(None, "created_at"),
    comment="ClientRequestTokens of the last minutes; digest: of the transaction's actions, where known",
)

stream_shards = sa.Table(
    "stream_shards",
    metadata,
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
    sa.Column("rogues", JSONB, nullable=False, server_default=sa.text("'{}'")),
    _moment("updated_at"),
    sa.PrimaryKeyConstraint("table_name", "stream_arn", "shard_id"),
    _one_of("state", "open", "done"),
    comment="How far the stream of a table has been followed, shard by shard, and by whom",
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Uuid, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("parameters", JSONB),
    sa.Column("result", JSONB),
    _moment("started_at"),
    _moment("finished_at", nullable=True),
    sa.Column("phase", sa.Text),
    sa.Column("wish", sa.Text, nullable=False, server_default="go"),
    sa.Column("wish_by", sa.Text),
    sa.Column("wish_reason", sa.Text),
    sa.PrimaryKeyConstraint("id"),
    sa.Index(None, "table_name", "kind", "started_at"),
    _one_of("state", "running", "finished", "finished with failures", "abandoned"),
    _one_of("wish", "go", "pause", "halt"),
    comment="Runs of backfill, verify and repair",
)

run_pieces = sa.Table(
    "run_pieces",
    metadata,
    sa.Column("run_id", sa.Uuid, nullable=False),
    sa.Column("piece", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("cursor", JSONB),
    _count("items"),
    _count("inserted"),
    _count("settled"),
    _count("bytes"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default=_NONE_YET),
    sa.Column("error", sa.Text),
    sa.Column("transaction_id", sa.BigInteger),
    _moment("updated_at"),
    sa.Column("description", JSONB),
    sa.Column("shared", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("worker", sa.Text),
    _moment("lease_until", nullable=True),
    sa.Column("failures", sa.Integer, nullable=False, server_default=_NONE_YET),
    _moment("not_before", nullable=True),
    _count("rejected"),
    sa.Column("read_units", sa.Double, nullable=False, server_default=_NONE_YET),
    sa.Column("seconds", sa.Double, nullable=False, server_default=_NONE_YET),
    sa.Column("rate", sa.Double, nullable=False, server_default=_NONE_YET),
    sa.PrimaryKeyConstraint("run_id", "piece"),
    sa.ForeignKeyConstraint(["run_id"], [runs.c.id], ondelete="CASCADE"),
    sa.Index(
        "ix_run_pieces_claimable",
        "run_id",
        "failures",
        "piece",
        postgresql_where=sa.text("shared AND state IN ('pending', 'copying')"),
    ),
    _one_of("state", "pending", "copying", "copied", "done", "failed"),
    comment="Pieces of a run, each with the checkpoint from which it resumes",
)

quarantine = sa.Table(
    "quarantine",
    metadata,
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
    _moment("first_seen"),
    _moment("last_seen"),
    sa.Column("state", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("table_name", "key_hash"),
    _one_of("form", "plain", "encrypted", "redacted"),
    _one_of("state", "open", "closed"),
    comment="Items that could not be loaded, with the reason; key_hash: of the item where it has no key",
)

mapped_tables = sa.Table(
    "mapped_tables",
    metadata,
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("place", sa.SmallInteger, nullable=False),
    sa.Column("relation", sa.Text, nullable=False),
    _moment("updated_at"),
    sa.PrimaryKeyConstraint("table_name", "place"),
    comment=(
        "The SQL tables that hold the items of each DynamoDB table, for the functions that count their rows"
    ),
)

verify_seen = sa.Table(
    "verify_seen",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("run_id", sa.Uuid, nullable=False),
    sa.Column("place", sa.SmallInteger, nullable=False),
    sa.Column("piece", sa.Integer, nullable=False),
    sa.Column("position", JSONB),
    sa.Column("differs", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("first", ARRAY(sa.BigInteger), nullable=False),
    sa.Column("second", ARRAY(sa.BigInteger), nullable=False),
    sa.Column("of_rows", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("sum_first", sa.BigInteger),
    sa.Column("sum_second", sa.BigInteger),
    sa.Column("unmatched_first", ARRAY(sa.BigInteger)),
    sa.Column("unmatched_second", ARRAY(sa.BigInteger)),
    sa.PrimaryKeyConstraint("id"),
    sa.ForeignKeyConstraint(["run_id"], [runs.c.id], ondelete="CASCADE"),
    sa.Index(None, "run_id", "place"),
    comment="Hashes of the keys, items or rows that a verification has seen, until it ends",
)

verify_findings = sa.Table(
    "verify_findings",
    metadata,
    sa.Column("run_id", sa.Uuid, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("key", sa.LargeBinary),
    sa.Column("key_hash", sa.Text, nullable=False),
    sa.Column("piece", sa.Integer),
    sa.Column("finding", sa.Text),
    sa.Column("class", sa.Text),
    sa.Column("paths", JSONB, nullable=False, server_default=_EMPTY_LIST),
    sa.Column("repaired", sa.Boolean, nullable=False, server_default=sa.false()),
    _moment("found_at"),
    sa.PrimaryKeyConstraint("run_id", "digest"),
    sa.ForeignKeyConstraint(["run_id"], [runs.c.id], ondelete="CASCADE"),
    sa.Index("ix_verify_findings_open", "run_id", "piece", postgresql_where=sa.text("finding IS NULL")),
    comment="Keys that a verification looks at again, and its verdicts; a key is forgotten with its verdict",
)

discrepancies = sa.Table(
    "discrepancies",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("key_hash", sa.Text, nullable=False),
    sa.Column("operation", sa.Text, nullable=False),
    sa.Column("class", sa.Text, nullable=False),
    sa.Column("paths", JSONB, nullable=False),
    _moment("first_seen"),
    _moment("last_seen"),
    sa.Column("count", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("run_id", sa.Uuid),
    sa.Column("finder", sa.Text, nullable=False, server_default="shadow"),
    sa.Column("of_request", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("dynamodb_version", sa.Text),
    sa.Column("postgres_version", sa.Text),
    sa.Column("trace_id", sa.Text),
    sa.Column("key", sa.LargeBinary),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("table_name", "key_hash", "class"),
    sa.Index(None, "table_name", "last_seen"),
    sa.CheckConstraint("count > 0", name="count"),
    _one_of("state", "open", "repaired", "ignored"),
    comment="Differences between the two sides that a second look confirmed; no item values, keys by opt-in",
)

rollup = sa.Table(
    "rollup",
    metadata,
    sa.Column("id", sa.Uuid, nullable=False),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("process", sa.Text),
    _count("generation"),
    sa.Column("stage", sa.Text, nullable=False),
    *_percentage("read_percent"),
    *_percentage("mirror_percent"),
    *_percentage("shadow_percent"),
    _moment("began_at"),
    _moment("ended_at"),
    sa.Column("figures", JSONB, nullable=False),
    sa.PrimaryKeyConstraint("id"),
    sa.Index(None, "table_name", "ended_at"),
    sa.Index(None, "table_name", "generation"),
    _one_of("stage", *Stage),
    comment=(
        "What the processes counted, by table and dial step; process: None where several windows were "
        "added up"
    ),
)

served_tables = sa.Table(
    "served_tables",
    metadata,
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("definition", JSONB, nullable=False),
    _moment("created_at"),
    sa.PrimaryKeyConstraint("name"),
    comment="Tables that exist on PostgreSQL alone, as DescribeTable tells of them",
)

plans = sa.Table(
    "plans",
    metadata,
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("content", JSONB, nullable=False),
    _moment("created_at"),
    sa.Column("holder_id", sa.Uuid),
    sa.Column("holder", sa.Text),
    sa.Column("holder_pid", sa.Integer),
    _moment("holder_began_at", nullable=True),
    _moment("heartbeat_at", nullable=True),
    sa.PrimaryKeyConstraint("name"),
    comment="Migration plans: the file as it was last run, and who runs it now",
)

plan_events = sa.Table(
    "plan_events",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("step", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    _moment("at"),
    sa.Column("attempt", sa.Integer, nullable=False, server_default=_NONE_YET),
    sa.Column("seconds", sa.Double),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("evidence", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.PrimaryKeyConstraint("number"),
    sa.ForeignKeyConstraint(["plan"], [plans.c.name]),
    sa.Index(None, "plan", "number"),
    comment="What happened to each plan and its steps: who, when, with which evidence; only added to",
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("is_open", sa.Boolean, nullable=False),
    _moment("opened_at"),
    _moment("told_at"),
    _moment("closed_at", nullable=True),
    _count("times"),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("evidence", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.PrimaryKeyConstraint("key"),
    comment="Alerts of the monitor, one row for each key: told once by whoever opens or closes it",
)

rollbacks = sa.Table(
    "rollbacks",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("table_name", sa.Text, nullable=False),
    _moment("at"),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("began", JSONB, nullable=False),
    sa.Column("ended", JSONB),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("evidence", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.PrimaryKeyConstraint("number"),
    sa.Index(None, "table_name", "number"),
    comment="What was rolled back: by whom, why, from where to where, and on which evidence; only added to",
)

entities = sa.Table(
    "entities",
    metadata,
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("layout", JSONB, nullable=False),
    _moment("recorded_at"),
    sa.PrimaryKeyConstraint("table_name"),
    comment="By which entities the rows of a DynamoDB table in several SQL tables were placed",
)
