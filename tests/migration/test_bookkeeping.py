"""The migrations of the `dualstore` schema on a real PostgreSQL: up, down, equal to the metadata."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import pytest
import sqlalchemy as sa

from dualstore import schema
from dualstore.errors import SchemaError


@pytest.fixture
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool)
    yield engine
    engine.dispose()


@contextmanager
def _role(engine: sa.Engine, grant: str) -> Iterator[sa.Engine]:
    """An engine whose sessions act as a new role, without privileges but for this grant."""
    role = f"dualstore_{uuid4().hex}"
    with engine.begin() as connection:
        database = connection.scalar(sa.text("SELECT quote_ident(current_database())"))
        connection.execute(sa.text(f"CREATE ROLE {role}"))
        connection.execute(sa.text(grant.format(database=database, role=role)))
    limited = sa.create_engine(engine.url, poolclass=sa.NullPool, connect_args={"options": f"-c role={role}"})
    try:
        yield limited
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP OWNED BY {role}"))
            connection.execute(sa.text(f"DROP ROLE {role}"))


def _objects(engine: sa.Engine) -> list[tuple[str, str]]:
    """Every relation, function and type of the database that is not PostgreSQL's own."""
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' "
                "UNION ALL SELECT nspname, '' FROM pg_namespace WHERE nspname = 'dualstore'"
            )
        )
        return [(space, name) for space, name in rows]


def test_an_upgrade_from_nothing_makes_what_the_metadata_describes(engine):
    schema.upgrade(engine)
    assert schema.current(engine) == schema.HEAD
    assert schema.check(engine) == []
    schema.require_current(engine)


def test_every_table_of_the_metadata_says_what_it_is_for():
    assert all(table.comment for table in schema.metadata.sorted_tables)


def test_a_downgrade_to_base_leaves_nothing(engine):
    schema.upgrade(engine)
    schema.downgrade(engine)
    assert _objects(engine) == []
    assert schema.current(engine) is None


def test_a_downgrade_of_nothing_is_harmless(engine):
    schema.downgrade(engine)
    assert _objects(engine) == []


def test_up_down_and_up_again_ends_where_the_first_upgrade_did(engine):
    schema.upgrade(engine)
    first = sorted(_objects(engine))
    schema.downgrade(engine)
    schema.upgrade(engine)
    assert sorted(_objects(engine)) == first
    assert schema.check(engine) == []


def test_a_second_upgrade_changes_nothing_and_keeps_the_rows(engine):
    schema.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(schema.tombstones.insert().values(table_name="t", key=b"k", revision=1))
    schema.upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.tombstones)) == 1


def test_upgrades_at_the_same_moment_wait_for_each_other(engine):
    barrier = Barrier(4)

    def upgrade() -> None:
        barrier.wait()
        schema.upgrade(engine)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(upgrade) for _ in range(4)]:
            future.result()
    assert schema.check(engine) == []


def test_an_upgrade_that_fails_leaves_nothing_behind(engine):
    with pytest.raises(SchemaError, match="nowhere"):
        schema.upgrade(engine, "nowhere")
    assert _objects(engine) == []


def test_the_teams_own_alembic_version_is_left_alone(engine):
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('theirs')"))
    schema.upgrade(engine)
    schema.downgrade(engine)
    with engine.connect() as connection:
        assert connection.scalars(sa.text("SELECT version_num FROM alembic_version")).all() == ["theirs"]


def test_a_role_that_may_create_schemas_needs_nothing_else(engine):
    with _role(engine, "GRANT CREATE ON DATABASE {database} TO {role}") as role:
        schema.upgrade(role)
        assert schema.check(role) == []
        schema.downgrade(role)


def test_a_role_that_owns_an_empty_schema_needs_nothing_else(engine):
    with _role(engine, "CREATE SCHEMA dualstore AUTHORIZATION {role}") as role:
        schema.upgrade(role)
        assert schema.check(role) == []


def test_a_role_that_may_create_nothing_is_told_which_grant_it_lacks(engine):
    with _role(engine, "SELECT 1") as role, pytest.raises(SchemaError, match="GRANT CREATE ON DATABASE"):
        schema.upgrade(role)


def test_whoever_could_write_before_receipts_can_write_after(engine):
    schema.upgrade(engine, "0011")
    grant = "GRANT SELECT, INSERT ON dualstore.tombstones TO {role} WITH GRANT OPTION"
    with _role(engine, grant) as role, engine.begin() as connection:
        connection.execute(sa.text("GRANT SELECT ON dualstore.tombstones TO PUBLIC"))
        connection.commit()
        schema.upgrade(engine)
        allowed = sa.text(
            "SELECT has_table_privilege(CAST(:who AS name), 'dualstore.receipts', 'INSERT WITH GRANT OPTION')"
        )
        with role.connect() as limited, engine.connect() as own:
            name = limited.scalar(sa.text("SELECT current_user"))
            assert own.scalar(allowed, {"who": name})
            privileges = (
                "SELECT privilege_type FROM pg_class, aclexplode(relacl) WHERE grantee = 0 AND oid = "
            )
            assert own.scalars(sa.text(f"{privileges}'dualstore.receipts'::regclass")).all() == ["SELECT"]


def test_whoever_could_write_may_call_what_writes_call(engine):
    """Where nobody may call a function that has been made without a grant."""
    schema.upgrade(engine, "0012")
    grant = (
        "GRANT SELECT, DELETE ON dualstore.tombstones TO {role}; GRANT USAGE ON SCHEMA dualstore TO {role}"
    )
    nobody = "ALTER DEFAULT PRIVILEGES {} EXECUTE ON FUNCTIONS {} PUBLIC"
    with _role(engine, grant) as role:
        with engine.begin() as connection:
            connection.execute(sa.text(nobody.format("REVOKE", "FROM")))
        try:
            schema.upgrade(engine)
        finally:
            with engine.begin() as connection:
                connection.execute(sa.text(nobody.format("GRANT", "TO")))
        with role.connect() as limited:
            limited.execute(sa.text("SELECT dualstore.unbury('t', '')"))
        with engine.connect() as connection:
            told = "SELECT has_function_privilege('public', 'dualstore.unbury(text, bytea)', 'EXECUTE')"
            assert not connection.scalar(sa.text(told)), "the grant is what allows it"


def test_a_database_without_the_schema_is_told_the_command(engine):
    for look in (schema.check, schema.require_current):
        with pytest.raises(SchemaError, match="dualstore schema upgrade"):
            look(engine)


def test_a_database_of_a_later_version_is_not_touched(engine):
    schema.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE dualstore.alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match="later version"):
        schema.require_current(engine)
    with pytest.raises(SchemaError, match="another version"):
        schema.upgrade(engine)


def test_a_database_of_an_earlier_version_is_told_the_command(engine):
    schema.upgrade(engine, "0001")
    for look in (schema.check, schema.require_current):
        with pytest.raises(
            SchemaError, match=f"at 0001, older than {schema.HEAD}: run `dualstore schema upgrade`"
        ):
            look(engine)


def test_the_last_of_the_numbered_migrations_is_what_this_version_needs():
    paths = (Path(__file__).parents[2] / "alembic" / "versions").glob("*.py")
    numbers = sorted(path.name.split("_")[0] for path in paths)
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
    assert numbers[-1] == schema.HEAD


def test_the_schema_cannot_be_dropped_under_mirrored_tables(engine):
    schema.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE orders (revision bigint DEFAULT nextval('dualstore.revision'))")
        )
    with pytest.raises(SchemaError, match="dualstore_revision"):
        schema.downgrade(engine)
    assert schema.check(engine) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("ALTER TABLE dualstore.dirty DROP COLUMN reason", "dualstore.dirty, column reason is missing"),
        (
            "ALTER TABLE dualstore.dirty ADD COLUMN extra text",
            "dualstore.dirty, column extra is not expected",
        ),
        (
            "ALTER TABLE dualstore.dirty ALTER COLUMN nonce DROP NOT NULL",
            "dualstore.dirty, column nonce: nullable is True, expected False",
        ),
        (
            "ALTER TABLE dualstore.runs ALTER COLUMN kind TYPE varchar(5)",
            "dualstore.runs, column kind: type is VARCHAR(5), expected TEXT",
        ),
        (
            "ALTER TABLE dualstore.dirty ALTER COLUMN since DROP DEFAULT",
            "dualstore.dirty, column since: default is None, expected clock_timestamp()",
        ),
        (
            "DROP INDEX dualstore.ix_dirty_table_name_since",
            "dualstore.dirty, index ix_dirty_table_name_since is missing",
        ),
        (
            "COMMENT ON TABLE dualstore.dirty IS 'clean'",
            "dualstore.dirty: its comment is not the expected one",
        ),
        ("DROP TABLE dualstore.dirty", "dualstore, table dirty is missing"),
        ("CREATE TABLE dualstore.extra (i int)", "dualstore, table extra is not expected"),
        ("DROP SEQUENCE dualstore.revision", "dualstore, sequence revision is missing"),
        (
            "ALTER TABLE dualstore.control DROP CONSTRAINT ck_control_gate",
            "dualstore.control, check ck_control_gate is missing",
        ),
        (
            "ALTER TABLE dualstore.run_pieces DROP CONSTRAINT pk_run_pieces",
            "dualstore.run_pieces: primary key is (), expected (run_id, piece)",
        ),
        (
            "ALTER TABLE dualstore.run_pieces DROP CONSTRAINT fk_run_pieces_run_id",
            "dualstore.run_pieces, fk fk_run_pieces_run_id is missing",
        ),
    ],
)
def test_a_change_made_by_hand_is_named(engine, change, sentence):
    schema.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(sa.text(change))
    assert sentence in schema.check(engine)


def test_the_bookkeeping_refuses_a_stage_that_does_not_exist(engine):
    schema.upgrade(engine)
    row = {"table_name": "t", "stage": "on", "read_percent": 0, "mirror_percent": 100, "gate": "open"}
    with pytest.raises(sa.exc.IntegrityError, match="ck_control_stage"), engine.begin() as connection:
        connection.execute(schema.control.insert().values(row))


def test_discrepancies_of_one_key_by_several_operations_become_one(engine):
    """Revision 0003: before it each operation that saw a difference had a row of its own."""
    schema.upgrade(engine, "0002")
    insert = sa.text(
        "INSERT INTO dualstore.discrepancies "
        "(table_name, key_hash, operation, class, paths, first_seen, last_seen, count, state) "
        "VALUES ('orders', :key, :operation, :class, '[]', :first, :last, :count, :state)"
    )
    kept = [
        ("a", "GetItem", "value", "2026-01-02", "2026-01-03", 2, "looked at by hand"),
        ("a", "Query", "value", "2026-01-01", "2026-01-04", 3, "open"),
        ("b", "GetItem", "value", "2026-01-01", "2026-01-02", 1, "ignored"),
        ("b", "Query", "value", "2026-01-01", "2026-01-03", 1, "open"),
        ("c", "Query", "order", "2026-01-01", "2026-01-01", 1, "repaired"),
    ]
    names = ("key", "operation", "class", "first", "last", "count", "state")
    with engine.begin() as connection:
        connection.execute(insert, [dict(zip(names, row, strict=True)) for row in kept])
    schema.upgrade(engine)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(schema.discrepancies)).mappings().all()
    found = {
        row["key_hash"]: (
            row["operation"],
            row["count"],
            row["state"],
            row["of_request"],
            row["first_seen"].day,
        )
        for row in rows
    }
    assert found == {
        "a": ("Query", 5, "open", False, 1),
        "b": ("Query", 2, "ignored", False, 1),
        "c": ("Query", 1, "repaired", True, 1),
    }
