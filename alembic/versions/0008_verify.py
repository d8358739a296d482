"""What a verification keeps, and the functions and views for those who live in psql."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = "dualstore"

# Rows of a table that refer to a row which is not there. A foreign key that is NOT VALID, or that was
# switched off while rows were loaded, does not see them.
_ORPHANS = """
CREATE FUNCTION dualstore.orphans(child regclass) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    reference record;
    found bigint;
    total bigint := 0;
BEGIN
    FOR reference IN
        SELECT c.confrelid::regclass AS parent,
               string_agg(format('p.%I = c.%I', pa.attname, ca.attname), ' AND ') AS matches,
               string_agg(format('c.%I IS NOT NULL', ca.attname), ' AND ') AS refers
          FROM pg_constraint c
               CROSS JOIN LATERAL unnest(c.conkey, c.confkey) AS k (child_column, parent_column)
               JOIN pg_attribute ca ON ca.attrelid = c.conrelid AND ca.attnum = k.child_column
               JOIN pg_attribute pa ON pa.attrelid = c.confrelid AND pa.attnum = k.parent_column
         WHERE c.contype = 'f' AND c.conrelid = child
         GROUP BY c.oid, c.confrelid
    LOOP
        EXECUTE format(
            'SELECT count(*) FROM %s c WHERE %s AND NOT EXISTS (SELECT FROM %s p WHERE %s)',
            child, reference.refers, reference.parent, reference.matches
        ) INTO found;
        total := total + found;
    END LOOP;
    RETURN total;
END
$$
"""

# The first line of the CASE that holds says the status.
_VERIFY_MIGRATION = """
CREATE FUNCTION dualstore.verify_migration() RETURNS TABLE (
    table_name text, relation text, row_count bigint, expected_count bigint, quarantined bigint,
    open_discrepancies bigint, orphans bigint, last_verified timestamptz, status text
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    mapped record;
    copied record;
    proved record;
    rows_now bigint;
BEGIN
    FOR mapped IN
        SELECT m.table_name AS name, array_agg(m.relation ORDER BY m.place) AS relations
          FROM dualstore.mapped_tables m GROUP BY m.table_name ORDER BY m.table_name
    LOOP
        table_name := mapped.name;
        relation := array_to_string(mapped.relations, ', ');
        row_count := 0;
        orphans := 0;
        FOR place IN 1 .. array_length(mapped.relations, 1) LOOP
            IF to_regclass(mapped.relations[place]) IS NULL THEN
                row_count := NULL;
                orphans := NULL;
            ELSIF row_count IS NOT NULL THEN
                EXECUTE 'SELECT count(*) FROM ' || mapped.relations[place] INTO rows_now;
                row_count := row_count + rows_now;
                orphans := orphans + dualstore.orphans(to_regclass(mapped.relations[place]));
            END IF;
        END LOOP;
        SELECT r.id, r.state, r.finished_at INTO copied FROM dualstore.runs r
         WHERE r.table_name = mapped.name AND r.kind = 'backfill' AND r.state <> 'abandoned'
         ORDER BY r.started_at DESC LIMIT 1;
        SELECT sum(p.items - p.rejected)::bigint INTO expected_count FROM dualstore.run_pieces p
         WHERE p.run_id = copied.id AND p.shared AND copied.state <> 'running';
        SELECT count(*) INTO quarantined FROM dualstore.quarantine q
         WHERE q.table_name = mapped.name AND q.state = 'open';
        SELECT count(*) INTO open_discrepancies FROM dualstore.discrepancies d
         WHERE d.table_name = mapped.name AND d.state = 'open';
        SELECT r.state, r.started_at, r.finished_at INTO proved FROM dualstore.runs r
         WHERE r.table_name = mapped.name AND r.kind = 'verify' AND r.state LIKE 'finished%'
           AND r.parameters ->> 'mode' IS NULL
         ORDER BY r.started_at DESC LIMIT 1;
        last_verified := proved.finished_at;
        status := CASE
            WHEN row_count IS NULL THEN 'SQL table missing'
            WHEN copied.id IS NULL THEN 'not copied'
            WHEN copied.state = 'running' THEN 'copying'
            WHEN quarantined > 0 THEN 'items in quarantine'
            WHEN orphans > 0 THEN 'orphans'
            WHEN open_discrepancies > 0 THEN 'differences'
            WHEN proved.started_at IS NULL OR proved.started_at < copied.finished_at THEN 'not verified'
            WHEN proved.state <> 'finished' THEN 'differences'
            ELSE 'verified'
        END;
        RETURN NEXT;
    END LOOP;
END
$$
"""

# A function's text depends on no column, so that the tables can still be changed.
_RUNS_PROGRESS = """
CREATE FUNCTION dualstore.runs_progress() RETURNS TABLE (
    table_name text, kind text, state text, phase text, wish text, pieces bigint, pieces_done bigint,
    pieces_failed bigint, items bigint, rejected bigint, workers bigint, items_per_second numeric,
    started_at timestamptz, finished_at timestamptz, run_id uuid
) LANGUAGE sql STABLE AS $$
SELECT r.table_name, r.kind, r.state, r.phase, r.wish, count(p.piece) AS pieces,
       count(p.piece) FILTER (WHERE p.state IN ('copied', 'done')) AS pieces_done,
       count(p.piece) FILTER (WHERE p.state = 'failed') AS pieces_failed,
       coalesce(sum(p.items), 0)::bigint AS items,
       coalesce(sum(p.rejected), 0)::bigint AS rejected,
       count(DISTINCT p.worker) FILTER (WHERE p.lease_until > clock_timestamp()) AS workers,
       round(sum(p.items) / greatest(extract(epoch FROM coalesce(r.finished_at, clock_timestamp())
             - r.started_at), 0.001), 1) AS items_per_second,
       r.started_at, r.finished_at, r.id AS run_id
  FROM dualstore.runs r LEFT JOIN dualstore.run_pieces p ON p.run_id = r.id AND p.shared
 GROUP BY r.id
$$
"""

_PROGRESS = "CREATE VIEW dualstore.progress AS SELECT * FROM dualstore.runs_progress()"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "mapped_tables",
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("place", sa.SmallInteger, nullable=False),
        sa.Column("relation", sa.Text, nullable=False),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("table_name", "place", name="pk_mapped_tables"),
        schema=SCHEMA,
        comment=(
            "The SQL tables that hold the items of each DynamoDB table, "
            "for the functions that count their rows"
        ),
    )
    _create_seen()
    _create_findings()
    for statement in (_ORPHANS, _VERIFY_MIGRATION, _RUNS_PROGRESS, _PROGRESS):
        op.execute(statement)


def _create_seen() -> None:
    op.create_table(
        "verify_seen",
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
        sa.PrimaryKeyConstraint("id", name="pk_verify_seen"),
        _of_run("verify_seen"),
        schema=SCHEMA,
        comment="Hashes of the keys, items or rows that a verification has seen, until it ends",
    )
    op.create_index("ix_verify_seen_run_id_place", "verify_seen", ["run_id", "place"], schema=SCHEMA)
    # Hashes do not get smaller by compression.
    op.execute(
        "ALTER TABLE dualstore.verify_seen"
        " ALTER first SET STORAGE EXTERNAL, ALTER second SET STORAGE EXTERNAL"
    )


def _create_findings() -> None:
    op.create_table(
        "verify_findings",
        sa.Column("run_id", sa.Uuid, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("key_hash", sa.Text, nullable=False),
        sa.Column("piece", sa.Integer),
        sa.Column("finding", sa.Text),
        sa.Column("class", sa.Text),
        sa.Column("paths", JSONB, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("repaired", sa.Boolean, nullable=False, server_default=sa.false()),
        _moment("found_at"),
        sa.PrimaryKeyConstraint("run_id", "digest", name="pk_verify_findings"),
        _of_run("verify_findings"),
        schema=SCHEMA,
        comment=(
            "Keys that a verification looks at again, and its verdicts; a key is forgotten with its verdict"
        ),
    )
    op.create_index(
        "ix_verify_findings_open",
        "verify_findings",
        ["run_id", "piece"],
        schema=SCHEMA,
        postgresql_where=sa.text("finding IS NULL"),
    )


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
    )


def _of_run(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["run_id"], [f"{SCHEMA}.runs.id"], name=f"fk_{table}_run_id", ondelete="CASCADE"
    )


def downgrade() -> None:
    """Take it back to the revision before."""
    op.execute("DROP VIEW dualstore.progress")
    op.execute("DROP FUNCTION dualstore.runs_progress()")
    op.execute("DROP FUNCTION dualstore.verify_migration()")
    op.execute("DROP FUNCTION dualstore.orphans(regclass)")
    for table in ("verify_findings", "verify_seen", "mapped_tables"):
        op.drop_table(table, schema=SCHEMA)
