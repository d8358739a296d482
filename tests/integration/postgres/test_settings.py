"""What a database or an application sets on connections changes no item on its way."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg.types.json import Jsonb

from dualstore import schema
from dualstore.control import PostgresRole
from dualstore.items import without_stamps
from dualstore.operations import parse
from dualstore.stages import Stage
from dualstore.stores.postgres import PostgresStore, triggers
from dualstore.stores.postgres_transaction import transaction
from integration.postgres.authority import _SET_ROLE, EPOCH, run
from mapping_cases import ORDERS, READINGS, Base

TABLES = {mapping.shape.name: mapping for mapping in (ORDERS, READINGS)}
EPOCHS = dict.fromkeys(TABLES, EPOCH)
SETTINGS = (
    "bytea_output = 'escape'",
    "extra_float_digits = -10",
    "DateStyle = 'German, DMY'",
    "client_encoding = 'LATIN1'",
    "standard_conforming_strings = off",
)
TEXT, BINARY = "aéÜ\\", b"O\\\xff\x00{,}"
ITEMS = {
    ORDERS.shape.name: {
        "c": {"S": TEXT},
        "number": {"N": "1"},
        "status": {"S": TEXT},
        "placed": {"S": "2024-05-06T07:08:09.123456+0000"},
        "expires": {"N": "1700000000"},
        "photo": {"B": BINARY},
        "address": {"M": {TEXT: {"S": TEXT}}},
        "thumbs": {"BS": [b"O", BINARY, b"ab"]},
        "tags": {"SS": [TEXT, "b"]},
        "elsewhere": {"S": TEXT},
    },
    READINGS.shape.name: {
        "sensor": {"B": BINARY},
        "day": {"S": "2020-02-29"},
        "coarse": {"S": "2024-05-06T07:08:09.123000+0000"},
        "double": {"N": "0.30000000000000004"},
        "single": {"N": "-0.12345679"},
        "words": {"L": [{"S": TEXT}]},
    },
}
CHANGE = {
    # In place PostgreSQL sets a column; this one reads the row, changes the item, and writes the row.
    "UpdateExpression": "SET later = list_append(if_not_exists(later, :empty), :one)",
    "ExpressionAttributeValues": {":empty": {"L": []}, ":one": {"L": [{"N": "1"}]}},
}


@pytest.fixture(scope="module")
def url(postgres_server: Any) -> Iterator[str]:
    """Of a database that is the authority of the tables."""
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    schema.upgrade(engine)
    Base.metadata.create_all(engine)
    for mapping in TABLES.values():
        triggers.install(engine, mapping)
        values = {"epoch": EPOCH, "role": PostgresRole.AUTHORITY, "stage": Stage.LIVE}
        run(engine, _SET_ROLE, table=mapping.shape.name, **values)
    engine.dispose()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(params=["database", "application"])
def engine(request: pytest.FixtureRequest, url: str, setting: str) -> Iterator[sa.Engine]:
    """A pool of one connection, where something is set that its maker did not expect."""
    is_of_database = request.param == "database"
    administrator = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    name = sa.make_url(url).database
    if is_of_database:
        run(administrator, f'ALTER DATABASE "{name}" SET {setting}')
    engine = sa.create_engine(url, pool_size=1, max_overflow=0)
    PostgresStore(engine, TABLES)
    if not is_of_database:
        run(engine, "SELECT 1")
        run(engine, f"SET {setting}")
    yield engine
    engine.dispose()
    run(administrator, f'ALTER DATABASE "{name}" RESET ALL')
    administrator.dispose()


@pytest.mark.parametrize("setting", SETTINGS)
def test_items_are_written_and_read_as_they_are(engine, url):
    store = PostgresStore(engine, TABLES)
    for table, item in ITEMS.items():

        def ask(operation: str, _table: str = table, **request: Any) -> Any:
            asked = parse(operation, {"TableName": _table, **request})
            return store.execute_as_authority(asked, epochs=EPOCHS)

        key = TABLES[table].shape.keys.key_of(item)
        ask("PutItem", Item=item)
        assert without_stamps(ask("GetItem", Key=key)["Item"]) == item
        replaced = ask("UpdateItem", Key=key, ReturnValues="ALL_OLD", **CHANGE)["Attributes"]
        assert replaced == item
        later = {**item, "later": {"L": [{"N": "1"}]}}
        assert [without_stamps(each) for each in ask("Scan")["Items"]] == [later]
        assert ask("DeleteItem", Key=key, ReturnValues="ALL_OLD")["Attributes"] == later


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_database_holds_what_was_said(engine, url):
    store = PostgresStore(engine, TABLES)
    (table, item), _ = ITEMS.items()
    store.execute_as_authority(parse("PutItem", {"TableName": table, "Item": item}), epochs=EPOCHS)
    plain = sa.create_engine(url, connect_args={"client_encoding": "UTF8", "options": "-c bytea_output=hex"})
    columns = "status, address::text, array_to_string(tags, ','), encode(thumbs[2], 'hex')"
    held = run(plain, f"SELECT {columns}, dualstore_overflow::text FROM orders")
    plain.dispose()
    escaped = TEXT.replace("\\", "\\\\")
    assert held == [
        (
            TEXT,
            f'{{"{escaped}": "{escaped}"}}',
            f"{TEXT},b",
            BINARY.hex(),
            f'{{"elsewhere": {{"S": "{escaped}"}}}}',
        )
    ]
    store.execute_as_authority(
        parse("DeleteItem", {"TableName": table, "Key": TABLES[table].shape.keys.key_of(item)}), epochs=EPOCHS
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_keys_reach_the_outbox_as_they_are(engine):
    """Whoever writes: triggers run in the writer's session."""
    store = PostgresStore(engine, TABLES)
    _, (table, item) = ITEMS.items()
    run(engine, "DELETE FROM dualstore.outbox")
    store.execute_as_authority(parse("PutItem", {"TableName": table, "Item": item}), epochs=EPOCHS)
    run(engine, "INSERT INTO readings (sensor) VALUES (convert_to('zz', 'UTF8'))")
    run(engine, "INSERT INTO orders (customer_id, number) VALUES ('b' || chr(1) || chr(1), 1)")
    texts = [key for (key,) in run(engine, "SELECT key FROM dualstore.outbox ORDER BY id")]
    assert texts == [["\\x" + BINARY.hex()], ["\\x" + b"zz".hex()], ["b\x01\x01", "1"]]
    run(engine, "DELETE FROM readings")
    run(engine, "DELETE FROM orders")


@pytest.mark.parametrize("setting", SETTINGS)
def test_jobs_send_and_read_what_they_say(engine):
    with transaction(engine, "a job") as cursor:
        asked = "SELECT %s::bytea[] = ARRAY[decode(%s, 'hex')], %s::jsonb ->> 'a', %s::text"
        document = Jsonb({"a": TEXT}, dumps=partial(json.dumps, ensure_ascii=False))
        cursor.execute(asked, [[BINARY], BINARY.hex(), document, TEXT])
        assert cursor.fetchall() == [(True, TEXT, TEXT)]


@pytest.mark.parametrize("setting", ["client_encoding = 'LATIN1'", "DateStyle = 'German, DMY'"])
def test_connections_come_with_what_values_need_and_read_days_as_before(url, engine):
    other = sa.create_engine(url)
    PostgresStore(other, TABLES)
    with other.connect() as connection:
        assert connection.scalar(sa.text("SHOW client_encoding")) == "UTF8"
        style, order = connection.scalar(sa.text("SHOW DateStyle")).split(", ")
        assert style == "ISO"
        default = sa.text("SELECT reset_val FROM pg_settings WHERE name = 'DateStyle'")
        assert connection.scalar(default).endswith(order)
    other.dispose()
