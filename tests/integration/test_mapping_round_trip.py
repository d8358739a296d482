"""I4 through a real PostgreSQL: an item written by parameters or by COPY reads back as itself."""

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualstore import schema
from dualstore.items import compare, normalized_item
from dualstore.mapping.text import quoted
from dualstore.testing.servers import Postgres
from mapping_cases import MAPPINGS, Base, items, numbers, texts
from volume import examples

# An east-going half-hour zone: timestamps must not depend on the session's.
_TIME_ZONE = "Asia/Kolkata"

through_postgres = settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def database(postgres_server: Postgres) -> Iterator[str]:
    """The libpq URL of a database with all mapped tables; a test leaves them empty."""
    url = postgres_server.create_database()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    schema.upgrade(engine)
    Base.metadata.create_all(engine)
    engine.dispose()
    yield url.replace("postgresql+psycopg://", "postgresql://", 1)
    postgres_server.drop_database(url)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute(f"SET TimeZone = '{_TIME_ZONE}'")
        yield connection


def _columns(mapping) -> str:
    return ", ".join(map(quoted, mapping.column_names))


def _read(connection, mapping):
    select = f"SELECT {', '.join(mapping.read_expressions('t'))} FROM {mapping.table.name} AS t"
    (row,) = connection.execute(select).fetchall()
    connection.execute(f"TRUNCATE {mapping.table.name}")
    return mapping.decode(row)


@pytest.mark.parametrize("table", MAPPINGS)
@through_postgres
@given(data=st.data())
def test_an_item_written_by_parameters_reads_back_as_itself(connection, table, data):
    mapping = MAPPINGS[table]
    item = normalized_item(data.draw(items(mapping)))
    connection.execute(
        f"INSERT INTO {mapping.table.name} ({_columns(mapping)}) SELECT {', '.join(mapping.placeholders)}",
        mapping.encode(item),
    )
    assert _read(connection, mapping) == item


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("table", MAPPINGS)
@through_postgres
@given(data=st.data())
def test_an_item_written_by_copy_reads_back_as_itself(connection, table, binary, data):
    mapping = MAPPINGS[table]
    item = normalized_item(data.draw(items(mapping)))
    into = f"COPY {mapping.table.name} ({_columns(mapping)}) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(into + (" (FORMAT binary)" if binary else "")) as copy:
        copy.set_types(mapping.pg_types)
        copy.write_row(mapping.encode(item))
    assert _read(connection, mapping) == item


@pytest.mark.parametrize("table", MAPPINGS)
@through_postgres
@given(data=st.data())
def test_an_item_is_found_by_its_encoded_key(connection, table, data):
    mapping = MAPPINGS[table]
    item = normalized_item(data.draw(items(mapping)))
    connection.execute(
        f"INSERT INTO {mapping.table.name} ({_columns(mapping)}) SELECT {', '.join(mapping.placeholders)}",
        mapping.encode(item),
    )
    where = " AND ".join(
        f"{quoted(column.name)} = ${number}::{type_}"
        for number, (column, type_) in enumerate(zip(mapping.key_columns, mapping.key_types, strict=True), 1)
    )
    found = connection.execute(
        f"SELECT count(*) FROM {mapping.table.name} WHERE {where}", mapping.encode_key(item)
    ).fetchone()
    connection.execute(f"TRUNCATE {mapping.table.name}")
    assert found == (1,)


@pytest.mark.parametrize(
    ("attribute", "type_", "contents"), [("status", "S", texts), ("total", "N", numbers)], ids=["S", "N"]
)
@through_postgres
@given(data=st.data())
def test_postgresql_orders_a_sortable_column_as_dynamodb_does(connection, attribute, type_, contents, data):
    column = MAPPINGS["orders"].column_of[attribute]
    assert column.sortable
    a, b = ({type_: data.draw(contents)} for _ in range(2))
    collation = ' COLLATE "C"' if type_ == "S" else ""
    (order,) = connection.execute(
        f"SELECT CASE WHEN a < b THEN -1 WHEN a > b THEN 1 ELSE 0 END "
        f"FROM (SELECT $1::{column.cast}{collation} AS a, $2::{column.cast}{collation} AS b) AS pair",
        (column.encode(a), column.encode(b)),
    ).fetchone()
    assert order == compare(a, b)


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Pacific/Kiritimati"])
@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:30:00", "0002-01-01T00:30:00", "9998-12-30T23:30:00", "9999-12-31T23:30:00"]
)
def test_the_first_and_last_days_are_read_in_every_time_zone(connection, zone, moment):
    mapping = MAPPINGS["orders"]
    item = {"c": {"S": "a"}, "number": {"N": "1"}, "placed": {"S": f"{moment}.000000+0000"}}
    connection.execute(f"SET TimeZone = '{zone}'")
    connection.execute(
        f"INSERT INTO {mapping.table.name} ({_columns(mapping)}) SELECT {', '.join(mapping.placeholders)}",
        mapping.encode(item),
    )
    assert _read(connection, mapping) == item
