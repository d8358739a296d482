"""Expired rows on PostgreSQL: found by column and in the overflow, deleted as writes of the authority."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.models import Model
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dualstore import schema
from dualstore.control import PostgresRole
from dualstore.errors import AuthorityMoved
from dualstore.items import Item, KeyAttribute, KeySchema, TableShape, key_bytes
from dualstore.mapping import Mirrored, TableMapping, map_table, unmapped_table
from dualstore.mapping.expiry import has_expired
from dualstore.stores.postgres import triggers
from dualstore.stores.postgres_expiry import Cursor, Deleted, ExpiredPage, ExpiredRow, PostgresExpiry

DAY = 86_400


class Base(DeclarativeBase):
    pass


def mapped(name: str, column: Any) -> TableMapping:
    """A table whose attribute `ttl` is in a column of this type."""
    model = type(
        name,
        (Model,),
        {
            "Meta": type("Meta", (), {"table_name": f"{name}-prod"}),
            "id": UnicodeAttribute(hash_key=True),
            "number": NumberAttribute(range_key=True),
            "ttl": NumberAttribute(null=True),
        },
    )
    row = type(
        f"{name}Row",
        (Mirrored, Base),
        {
            "__tablename__": name,
            "__annotations__": {"id": Mapped[str], "number": Mapped[Decimal], "ttl": Mapped[Any]},
            "id": mapped_column(sa.Text(collation="C"), primary_key=True),
            "number": mapped_column(sa.Numeric, primary_key=True),
            "ttl": mapped_column(column, nullable=True, index=True),
        },
    )
    return map_table(name, model, row)


COLUMNS = {
    "wide": mapped("wide", sa.Numeric()),
    "scaled": mapped("scaled", sa.Numeric(14, 2)),
    "long": mapped("long", sa.BigInteger()),
    "short": mapped("short", sa.Integer()),
    "floating": mapped("floating", sa.Double()),
    "single": mapped("single", sa.REAL()),
    "zoned": mapped("zoned", sa.DateTime(timezone=True)),
    "unzoned": mapped("unzoned", sa.DateTime()),
    "texts": mapped("texts", sa.Text()),  # no column for numbers: all in the overflow
}
LOOSE = unmapped_table(
    "loose", TableShape("loose-prod", KeySchema(KeyAttribute("id", "S"), KeyAttribute("number", "N")))
)
MAPPINGS = {mapping.shape.name: mapping for mapping in (*COLUMNS.values(), LOOSE)}


@pytest.fixture(scope="module")
def module_engine(postgres_server: Any) -> Iterator[sa.Engine]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    schema.upgrade(engine)
    Base.metadata.create_all(engine)
    schema.create_unmapped(engine, LOOSE)
    yield engine
    engine.dispose()
    postgres_server.drop_database(url)


@pytest.fixture
def engine(module_engine: sa.Engine) -> sa.Engine:
    tables = ", ".join(f'"{mapping.table.name}"' for mapping in MAPPINGS.values())
    with module_engine.begin() as connection:
        connection.execute(sa.text(f"TRUNCATE {tables}, dualstore.tombstones, dualstore.control"))
    return module_engine


@pytest.fixture
def expiry(engine: sa.Engine) -> PostgresExpiry:
    return PostgresExpiry(engine, MAPPINGS)


@pytest.fixture(params=MAPPINGS)
def table(request: Any) -> str:
    return request.param


def item(name: str, ttl: Any = None, *, number: int = 1) -> Item:
    """An item; a `ttl` that is a number is so many seconds from now."""
    made: Item = {"id": {"S": name}, "number": {"N": str(number)}}
    if isinstance(ttl, int | Decimal):
        made["ttl"] = {"N": str(int(time.time()) + ttl)}
    elif ttl is not None:
        made["ttl"] = ttl
    return made


def load(engine: sa.Engine, table: str, *items: Item, stamp: bytes | None = None) -> None:
    mapping = MAPPINGS[table]
    names = ", ".join(f'"{name}"' for name in mapping.column_names)
    values = ", ".join(f"%s::{type_}" for type_ in mapping.cast_types)
    with engine.begin() as connection, connection.connection.driver_connection.cursor() as cursor:
        for each in items:
            stamped = each if stamp is None else {**each, "_dsv": {"B": stamp}}
            cursor.execute(
                f'INSERT INTO "{mapping.table.name}" ({names}) VALUES ({values})', mapping.encode(stamped)
            )


def decide(engine: sa.Engine, table: str, role: PostgresRole, *, epoch: int = 3) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO dualstore.control"
                " (table_name, stage, read_percent, mirror_percent, gate, epoch, role)"
                " VALUES (:table, 'live', 0, 100, 'open', :epoch, :role)"
                " ON CONFLICT (table_name) DO UPDATE SET epoch = excluded.epoch, role = excluded.role"
            ),
            {"table": table, "role": role, "epoch": epoch},
        )


def expired(expiry: PostgresExpiry, table: str, *, rows: int = 100) -> list[ExpiredRow]:
    """All expired rows, by column and in the overflow."""
    found: list[ExpiredRow] = []
    for look in (expiry.by_column, expiry.in_overflow):
        after: Cursor | None = None
        while True:
            page: ExpiredPage = look(table, "ttl", after=after, rows=rows)
            found += page.rows
            assert len(found) < 1_000, "it does not end"
            after = page.next
            if after is None:
                break
    return found


def names(rows: list[ExpiredRow]) -> list[str]:
    return sorted(row.key["id"]["S"] for row in rows)


def ids(engine: sa.Engine, table: str) -> list[str]:
    mapping = MAPPINGS[table]
    with engine.begin() as connection:
        column = mapping.key_columns[0].column
        return list(connection.scalars(sa.select(column).order_by(column)))


def test_what_has_expired_is_found_whatever_column_holds_it(engine, expiry, table):
    load(
        engine,
        table,
        item("just", -2),
        item("long ago", -4 * 365 * DAY),
        item("fraction", Decimal("-2.5")),
        item("ancient", -6 * 365 * DAY),
        item("soon", 60),
        item("far", {"N": "1E+30"}),
        item("milliseconds", {"N": str(int(time.time()) * 1000)}),
        item("negative", {"N": "-5"}),
        item("text", {"S": "1700000000"}),
        item("null", {"NULL": True}),
        item("list", {"L": [{"N": "1700000000"}]}),
        item("none"),
    )
    assert names(expired(expiry, table)) == ["fraction", "just", "long ago"]


def test_sql_and_python_agree_on_what_has_expired(engine, expiry, table):
    items = [item(f"{seconds:+}", seconds) for seconds in (-1900 * DAY, -1820 * DAY, -3600, -60, 60, 3600)]
    load(engine, table, *items)
    now = time.time()
    assert names(expired(expiry, table)) == sorted(
        each["id"]["S"] for each in items if has_expired(each, "ttl", now=now)
    )


def test_rows_stay_for_the_grace_after_their_time(engine, table):
    load(engine, table, item("ten", -10), item("hour", -3600))
    patient = PostgresExpiry(engine, MAPPINGS, grace=timedelta(minutes=5))
    assert names(expired(patient, table)) == ["hour"]


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8])
def test_pages_give_every_expired_row_once(engine, expiry, table, rows):
    same_time = int(time.time()) - 50
    load(
        engine,
        table,
        *(item("same", {"N": str(same_time)}, number=number) for number in range(4)),
        *(item(f"n{number}", -100 - number) for number in range(4)),
        *(item(f"fresh{number}", 900) for number in range(3)),
    )
    found = expired(expiry, table, rows=rows)
    assert len(found) == len({key_bytes(MAPPINGS[table].shape.keys, row.key) for row in found}) == 8


def test_an_expired_row_is_deleted_and_leaves_a_tombstone_with_its_stamp(engine, expiry, table):
    decide(engine, table, PostgresRole.AUTHORITY)
    load(engine, table, item("a", -60), item("b", -60), stamp=b"s" * 16)
    load(engine, table, item("c", 60))
    assert expiry.delete(table, expired(expiry, table), epoch=3) == Deleted(rows=2)
    assert ids(engine, table) == ["c"]
    with engine.begin() as connection:
        stones = connection.execute(sa.text("SELECT table_name, key, stamp FROM dualstore.tombstones")).all()
    keys = MAPPINGS[table].shape.keys
    assert {(name, bytes(key), bytes(stamp)) for name, key, stamp in stones} == {
        (table, key_bytes(keys, item("a")), b"s" * 16),
        (table, key_bytes(keys, item("b")), b"s" * 16),
    }


def test_a_deletion_goes_to_the_outbox_with_the_stamp_that_it_removed(engine, expiry, table):
    triggers.install(engine, MAPPINGS[table])
    try:
        decide(engine, table, PostgresRole.MIRROR)
        load(engine, table, item("a", -60), item("b", 60), stamp=b"s" * 16)
        decide(engine, table, PostgresRole.AUTHORITY)
        with engine.begin() as connection:
            connection.execute(sa.text("TRUNCATE dualstore.outbox"))
        expiry.delete(table, expired(expiry, table), epoch=3)
        with engine.begin() as connection:
            entries = connection.execute(
                sa.text("SELECT table_name, key, predecessor, done_at FROM dualstore.outbox")
            ).all()
    finally:
        triggers.remove(engine, MAPPINGS[table])
    ((name, key, predecessor, done_at),) = entries
    assert (name, key, bytes(predecessor), done_at) == (table, ["a", "1"], b"s" * 16, None)


def test_a_row_that_was_written_since_it_was_seen_stays(engine, expiry, table):
    decide(engine, table, PostgresRole.AUTHORITY)
    load(engine, table, item("a", -60), item("b", -60))
    seen = expired(expiry, table)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                f'UPDATE "{MAPPINGS[table].table.name}" '
                "SET dualstore_revision = nextval('dualstore.revision') "
                f"WHERE {MAPPINGS[table].key_columns[0].name} = 'a'"
            )
        )
    assert expiry.delete(table, seen, epoch=3) == Deleted(rows=1)
    assert ids(engine, table) == ["a"]


@pytest.mark.parametrize(
    ("role", "epoch"),
    [
        (PostgresRole.MIRROR, 3),
        (PostgresRole.NONE, 3),
        (PostgresRole.PAUSED, 3),
        (PostgresRole.AUTHORITY, 4),
        (PostgresRole.AUTHORITY, 2),
    ],
)
def test_nothing_is_deleted_unless_postgresql_is_the_authority_at_that_epoch(engine, expiry, role, epoch):
    load(engine, "long-prod", item("a", -60))
    decide(engine, "long-prod", role, epoch=epoch)
    with pytest.raises(AuthorityMoved):
        expiry.delete("long-prod", expired(expiry, "long-prod"), epoch=3)
    assert ids(engine, "long-prod") == ["a"]


def test_a_table_that_nothing_is_decided_for_keeps_its_rows(engine, expiry):
    load(engine, "long-prod", item("a", -60))
    with pytest.raises(AuthorityMoved):
        expiry.delete("long-prod", expired(expiry, "long-prod"), epoch=0)
    assert ids(engine, "long-prod") == ["a"]


def test_a_row_that_the_sql_table_keeps_does_not_keep_the_others(engine, expiry):
    decide(engine, "long-prod", PostgresRole.AUTHORITY)
    load(engine, "long-prod", *(item(name, -60) for name in "abc"))
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                'CREATE TABLE child (id text COLLATE "C", number numeric, '
                "FOREIGN KEY (id, number) REFERENCES long (id, number))"
            )
        )
        connection.execute(sa.text("INSERT INTO child VALUES ('b', 1)"))
    try:
        assert expiry.delete("long-prod", expired(expiry, "long-prod"), epoch=3) == Deleted(rows=2, refused=1)
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE child"))
    assert ids(engine, "long-prod") == ["b"]


def test_deletions_of_the_same_rows_at_once_count_each_row_once(engine, expiry):
    decide(engine, "long-prod", PostgresRole.AUTHORITY)
    load(engine, "long-prod", *(item(f"n{number}", -60) for number in range(50)))
    seen = expired(expiry, "long-prod")
    assert expiry.delete("long-prod", seen, epoch=3) + expiry.delete("long-prod", seen, epoch=3) == Deleted(
        50
    )


@pytest.mark.parametrize("name", ["wide", "long", "short", "floating", "zoned", "unzoned"])
def test_the_column_s_index_finds_what_has_expired(engine, expiry, name):
    mapping, table = COLUMNS[name], f"{name}-prod"
    value = {
        "zoned": "now() + n * interval '1 s'",
        "unzoned": "(now() + n * interval '1 s') AT TIME ZONE 'UTC'",
    }.get(name, "extract(epoch FROM now())::bigint + n")
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                f'INSERT INTO "{mapping.table.name}" (id, number, ttl) '
                f"SELECT 'k' || n, n, {value} FROM generate_series(-50, 30000) n"
            )
        )
        connection.execute(sa.text(f'ANALYZE "{mapping.table.name}"'))
    first = expiry.by_column(table, "ttl", after=None, rows=20)
    assert len(first.rows) == 20
    assert first.next is not None
    for after in (None, first.next):
        plan = explain(engine, expiry, table, after)
        assert f"ix_{name}_ttl" in plan
        # Searched by it, at both ends: an index that is merely walked in its order is read whole.
        searched = "".join(line for line in plan.splitlines() if "Index Cond" in line)
        assert "ttl < " in searched, plan
        assert "ttl >= " in searched, plan


def explain(engine: sa.Engine, expiry: PostgresExpiry, table: str, after: Cursor | None) -> str:
    statement = expiry._statements(table, "ttl").by_column(20, after=after is not None)
    with expiry._sessions.lease() as session:
        values = (*expiry._ages, *(after or ())[1:])
        return "\n".join(row[0] for row in session.rows(f"EXPLAIN {statement}", values))


def test_the_walk_through_the_overflow_reads_no_more_than_a_page(engine, expiry):
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO loose (partition_key, sort_key, dualstore_overflow) "
                "SELECT 'k' || n, n, jsonb_build_object('ttl', jsonb_build_object('N', '9999999999')) "
                "FROM generate_series(1, 30000) n"
            )
        )
        connection.execute(sa.text("ANALYZE loose"))
    statement = expiry._statements("loose-prod", "ttl").in_overflow(100, after=True)
    values = (*expiry._ages, "ttl", "k15", Decimal(15))
    with expiry._sessions.lease() as session:
        plan = "\n".join(row[0] for row in session.rows(f"EXPLAIN (ANALYZE, TIMING OFF) {statement}", values))
    assert "pk" in plan
    assert "Seq Scan" not in plan
    assert max(int(part.split()[0]) for part in plan.split("rows=")[2::2] if part) <= 101


def test_the_walk_begins_anywhere_in_a_large_table_and_at_the_beginning_of_a_small_one(engine, expiry):
    load(engine, "loose-prod", item("only", -60))
    assert expiry.anywhere("loose-prod", "ttl") is None
    assert expiry.anywhere("wide-prod", "ttl") is None  # its column holds every number


def test_the_times_of_columns_do_not_depend_on_the_session_s_time_zone(engine):
    load(engine, "unzoned-prod", item("just", -60), item("soon", 60))
    load(engine, "zoned-prod", item("just", -60), item("soon", 60))
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        there = sa.create_engine(engine.url, connect_args={"options": f"-c TimeZone={zone}"})
        expiry = PostgresExpiry(there, MAPPINGS)
        assert names(expired(expiry, "unzoned-prod", rows=1)) == ["just"]
        assert names(expired(expiry, "zoned-prod", rows=1)) == ["just"]
        there.dispose()


@pytest.mark.parametrize("digits", [-10, 0, 3])
def test_pages_go_on_where_they_ended_however_many_digits_floats_are_told_with(engine, digits):
    load(engine, "floating-prod", *(item(f"{n}", Decimal(f"-{n}.25")) for n in range(10, 20)))
    times = {n: (int(time.time()) // 128 - n) * 128 for n in range(10, 20)}  # floats of 32 bits
    load(engine, "single-prod", *(item(f"{n}", {"N": str(seconds)}) for n, seconds in times.items()))
    there = sa.create_engine(engine.url, connect_args={"options": f"-c extra_float_digits={digits}"})
    expiry = PostgresExpiry(there, MAPPINGS)
    for table in ("floating-prod", "single-prod"):
        assert names(expired(expiry, table, rows=1)) == [f"{n}" for n in range(10, 20)]
    there.dispose()


def test_a_name_with_u0000_is_found_in_the_overflow(engine, expiry):
    attribute = "t\x00l"
    load(engine, "loose-prod", {**item("a"), attribute: {"N": str(int(time.time()) - 60)}})
    page = expiry.in_overflow("loose-prod", attribute, after=None, rows=10)
    assert names(list(page.rows)) == ["a"]


def test_a_moment_is_read_from_the_database_s_clock(engine, expiry):
    with engine.begin() as connection:
        now: datetime = connection.scalar(sa.text("SELECT clock_timestamp()"))
    load(engine, "long-prod", item("a", {"N": str(int(now.timestamp()) - 1)}))
    assert names(expired(expiry, "long-prod")) == ["a"]
