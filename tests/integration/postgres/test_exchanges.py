"""Statements without cursors: one round trip each, the driver's own errors, and a register that is shared."""

import contextlib
import select
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from dualstore.config import Configuration
from dualstore.mapping import Unreadable
from dualstore.operations import parse
from dualstore.store.connecting import connect as store_connections
from dualstore.stores.postgres import PostgresStore, deadlines
from dualstore.stores.postgres.exchanges import Exchange
from dualstore.stores.postgres.sessions import Sessions
from dualstore.stores.postgres_transaction import transaction
from integration.postgres.authority import EPOCHS, prepare
from integration.postgres.orders import TABLE, TABLES, key, order

ADDED = {
    "UpdateExpression": "ADD quantity :n SET label = :l",
    "ExpressionAttributeValues": {":n": {"N": "1"}, ":l": {"S": "x"}},
}
OFTEN = 7
"""More often than psycopg waits before it prepares a statement."""


@pytest.fixture(scope="module")
def url(postgres_server: Any) -> Iterator[str]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    prepare(engine)
    yield url
    engine.dispose()
    postgres_server.drop_database(url)


def connect(url: str, **settings: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(url.replace("+psycopg", "", 1), **settings)


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(url) as connection:
        yield connection


@pytest.fixture
def exchange(connection: psycopg.Connection[Any]) -> Exchange:
    exchange = Exchange(connection)
    exchange.rows(("CREATE TEMPORARY TABLE kept (n int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)", ()))
    return exchange


def kept(exchange: Exchange) -> list[Any]:
    return exchange.rows(("SELECT n FROM kept ORDER BY n", ()))


def keep(number: int) -> tuple[str, tuple[int]]:
    return "INSERT INTO kept VALUES ($1)", (number,)


def prepared(exchange: Exchange, text: str) -> int:
    ((found,),) = exchange.rows(
        ("SELECT count(*) FROM pg_prepared_statements WHERE statement = $1::text", (text,))
    )
    return int(found)


VALUES = (
    "SELECT $1::text, $2::numeric, $3::bytea, $4::bool, $5::jsonb::text, $6::text[], $7::int8, $8::timestamp",
    ("é", Decimal("1.50"), b"\0\xff", True, Jsonb({"a": [1]}), ["x", "y,"], 2**40, None),
)


def test_values_come_and_go_as_through_a_cursor(connection, exchange):
    with psycopg.RawCursor(connection) as cursor:
        expected = cursor.execute(*VALUES).fetchall()
    connection.rollback()
    for _ in range(OFTEN):
        assert exchange.rows(VALUES) == expected
        assert exchange.together([keep(1), VALUES, ("DELETE FROM kept", ())]) == [[], expected, []]
    assert prepared(exchange, VALUES[0]) == 1


def test_an_answer_is_loaded_when_it_is_asked_for(exchange):
    values = "SELECT $1::text, NULL, true, 'infinity'::timestamptz"
    _, answer = exchange.answers([("SELECT 1", ()), (values, ("é",))])
    assert answer.texts(1) == [None, "t", "infinity"]
    assert answer.sizes_bytes(3) == [2, 0, 1]
    with pytest.raises(Unreadable):
        _ = answer.rows


def test_in_another_encoding_lengths_say_nothing(url):
    with connect(url, client_encoding="latin1") as connection:
        (answer,) = Exchange(connection).answers([("SELECT $1::text", ("é",))])
        assert answer.sizes_bytes(1) is None
        assert answer.rows == [("é",)]


def test_an_engine_of_the_configuration_hands_out_the_connection_that_was_last_given_back(url):
    configuration = Configuration(postgres={"url": url})
    with contextlib.ExitStack() as stack:
        engine = store_connections(configuration).postgres
        stack.callback(engine.dispose)
        first, second = engine.connect(), engine.connect()
        warm = second.connection.driver_connection
        first.close()
        second.close()
        with engine.connect() as third:
            assert third.connection.driver_connection is warm


def test_a_statement_that_fails_undoes_those_before_it(connection, exchange):
    for _ in range(OFTEN):
        with pytest.raises(psycopg.errors.DivisionByZero):
            exchange.together([keep(1), ("SELECT 1 / $1::int", (0,)), keep(2)])
        with pytest.raises(psycopg.errors.DivisionByZero):
            exchange.rows(("SELECT 1 / $1::int", (0,)))
        assert connection.pgconn.transaction_status == TransactionStatus.IDLE
        assert kept(exchange) == []


def test_a_constraint_that_fails_at_the_implied_commit_is_a_failure(exchange):
    exchange.rows(keep(1))
    for _ in range(OFTEN):
        with pytest.raises(psycopg.errors.UniqueViolation):
            exchange.rows(keep(1))
        with pytest.raises(psycopg.errors.UniqueViolation):
            exchange.together([keep(1), keep(2)])
        assert kept(exchange) == [(1,)]


def test_a_failure_in_a_transaction_leaves_it_to_be_rolled_back(connection, exchange):
    with pytest.raises(psycopg.errors.DivisionByZero):
        exchange.together([("BEGIN", ()), keep(1), ("SELECT 1 / $1::int", (0,))])
    assert connection.pgconn.transaction_status == TransactionStatus.INERROR
    connection.rollback()
    assert kept(exchange) == []


def test_what_was_prepared_is_prepared_again_after_a_rollback_of_the_application(connection, exchange):
    text = "SELECT $1::text"
    for _ in range(OFTEN):
        exchange.rows((text, ("a",)))
    assert prepared(exchange, text) == 1
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute("SELECT 1", prepare=True)
    connection.rollback()  # takes all statements off the server
    assert prepared(exchange, text) == 0
    assert exchange.rows((text, ("a",))) == [("a",)]
    assert prepared(exchange, text) == 1


def test_a_full_register_lets_the_oldest_statement_go(connection, exchange):
    connection.prepared_max = 3
    for number in range(6):
        for _ in range(OFTEN):
            assert exchange.rows((f"SELECT $1::text, {number}", ("a",))) == [("a", number)]
    ((held,),) = exchange.rows(("SELECT count(*) FROM pg_prepared_statements", ()))
    assert 1 <= held <= 4


def test_nothing_is_prepared_where_the_application_forbids_it(url):
    with connect(url, prepare_threshold=None) as connection:
        exchange = Exchange(connection)
        for _ in range(OFTEN):
            assert exchange.together([("SELECT $1::int", (1,)), ("SELECT $1::int", (2,))]) == [[(1,)], [(2,)]]
        assert exchange.rows(("SELECT count(*) FROM pg_prepared_statements", ())) == [(0,)]


@pytest.mark.parametrize("prepared", [True, False])
def test_the_configuration_says_whether_statements_are_prepared(url, prepared):
    configuration = Configuration(postgres={"url": url, "prepared_statements": prepared})
    engine = store_connections(configuration).postgres
    store = PostgresStore(engine, TABLES)
    for _ in range(OFTEN):
        store.execute(parse("GetItem", {"TableName": TABLE, "Key": key()}))
    with engine.connect() as same:
        count = same.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one()
    assert (count > 0) is prepared
    engine.dispose()


def round_trips(store: PostgresStore, operation: str, request: dict[str, Any]) -> int:
    """How often the client waits for the server in an operation, which it ends with a Sync each time."""
    asked = parse(operation, {"TableName": TABLE, **request})
    for _ in range(OFTEN):
        store.execute_as_authority(asked, epochs=EPOCHS)
    engine = store._sessions._engine
    borrowed = engine.raw_connection()
    connection: Any = borrowed.driver_connection
    borrowed.close()
    with tempfile.NamedTemporaryFile() as protocol:
        connection.pgconn.trace(protocol.fileno())
        store.execute_as_authority(asked, epochs=EPOCHS)
        connection.pgconn.untrace()
        protocol.seek(0)
        said = protocol.read()
    return said.count(b"\tSync") + said.count(b"\tQuery\t")


@pytest.mark.parametrize(
    ("operation", "asked"),
    [
        ("GetItem", {"Key": key()}),
        ("PutItem", {"Item": order()}),
        ("PutItem", {"Item": order(), "ConditionExpression": "attribute_not_exists(absent)"}),
        ("DeleteItem", {"Key": key(number=3)}),
        ("UpdateItem", {"Key": key(), "ReturnValues": "ALL_NEW", **ADDED}),
        ("UpdateItem", {"Key": key(), "ConditionExpression": "attribute_not_exists(absent)", **ADDED}),
        ("UpdateItem", {"Key": key(number=4), "UpdateExpression": "REMOVE absent"}),
    ],
)
def test_an_item_is_read_or_written_in_one_round_trip(url, operation, asked):
    engine = sa.create_engine(url, pool_size=1)
    assert round_trips(PostgresStore(engine, TABLES), operation, asked) == 1
    engine.dispose()


def test_a_pool_that_does_not_reset_its_connections_gets_no_transaction_committed(url):
    engine = sa.create_engine(url, pool_size=1, pool_reset_on_return=None)
    store = PostgresStore(engine, TABLES)
    borrowed = engine.raw_connection()
    borrowed.cursor().execute("CREATE TABLE left_open (n int)")
    borrowed.close()
    asked = parse("PutItem", {"TableName": TABLE, "Item": order(number=77)})
    store.execute_as_authority(asked, epochs=EPOCHS)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT to_regclass('left_open')")) is None
        assert connection.scalar(sa.text("SELECT count(*) FROM orders WHERE number = 77")) == 1
    engine.dispose()


def test_a_table_that_is_altered_under_prepared_statements_fails_no_read(url):
    engine = sa.create_engine(url, pool_size=3)
    store = PostgresStore(engine, TABLES)

    def read_on_every_connection() -> None:
        with store._sessions.lease(), store._sessions.lease():
            for _ in range(OFTEN):
                store.execute(parse("GetItem", {"TableName": TABLE, "Key": key()}))
        for _ in range(3 * OFTEN):
            store.execute(parse("GetItem", {"TableName": TABLE, "Key": key()}))

    for type_ in ("varchar(60)", "text"):
        read_on_every_connection()
        with engine.begin() as connection:
            connection.exec_driver_sql(f'ALTER TABLE orders ALTER status TYPE {type_} COLLATE "C"')
    read_on_every_connection()
    engine.dispose()


@pytest.mark.parametrize("together", [False, True])
def test_a_statement_that_is_refused_for_an_altered_table_is_prepared_anew(url, exchange, together):
    every = "SELECT * FROM altered", ()

    def read() -> None:
        if together:
            exchange.together([every, ("SELECT 1", ())])
        else:
            exchange.rows(every)

    with connect(url, autocommit=True) as another:
        another.execute("CREATE TABLE altered (n int)")
        for _ in range(OFTEN):
            read()
        another.execute("ALTER TABLE altered ALTER n TYPE bigint")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            read()
        for _ in range(OFTEN):
            read()
        another.execute("DROP TABLE altered")


def test_what_is_prepared_anew_has_another_text(url, connection, exchange):
    """Or a pooler would take it for the statement that it has prepared already."""
    ask = "SELECT * FROM renewed"
    prepared = f"SELECT statement FROM pg_prepared_statements WHERE statement LIKE '{ask}%' ORDER BY 1"

    with connect(url, autocommit=True) as another:
        another.execute("CREATE TABLE renewed (n int)")
        for type_ in ("bigint", "int", None):
            for _ in range(OFTEN):
                exchange.rows((ask, ()))
            if type_ is not None:
                another.execute(f"ALTER TABLE renewed ALTER n TYPE {type_}")
                with pytest.raises(psycopg.errors.FeatureNotSupported):
                    exchange.rows((ask, ()))
        another.execute("DROP TABLE renewed")
    editions = {statement for (statement,) in connection.execute(prepared, prepare=False).fetchall()}
    assert f"{ask} -- edition 3" in editions
    assert editions <= {ask, f"{ask} -- edition 2", f"{ask} -- edition 3"}


def test_more_than_the_sockets_hold_comes_and_goes_in_one_exchange(exchange):
    """The server stops reading while nobody reads what it says."""
    much = "x" * 30_000_000
    statements = [("SELECT repeat('y', 30000000)", ()), ("SELECT length($1::text)", (much,))]
    ((said,),), ((heard,),) = exchange.together(statements)
    assert (len(said), heard) == (len(much), len(much))


def test_notifications_that_come_with_an_answer_reach_their_handler(connection, exchange):
    heard = []
    connection.add_notify_handler(lambda notification: heard.append(notification.payload))
    exchange.rows(("LISTEN something", ()))
    exchange.rows(("NOTIFY something, 'said'", ()))
    assert heard == ["said"]


def test_a_handler_that_fails_hides_no_answer(connection, exchange, caplog):
    heard = []

    def fail(notification):
        heard.append(notification.payload)
        raise psycopg.OperationalError(notification.payload)

    connection.add_notify_handler(fail)
    exchange.rows(("LISTEN something", ()))
    assert exchange.rows(("SELECT pg_notify('something', 'one')", ())) == [("",)]
    both = [("INSERT INTO kept VALUES (1)", ()), ("SELECT 'done' FROM pg_notify('something', 'two')", ())]
    assert exchange.together(both) == [[], [("done",)]]
    assert exchange.rows(("SELECT n FROM kept", ())) == [(1,)]
    assert heard == ["one", "two"]
    assert [record.getMessage() for record in caplog.records] == [
        "A handler of notifications failed: OperationalError"
    ] * 2


def test_nor_does_one_that_fails_while_a_prepared_statement_is_taken_off(
    url, connection, exchange, monkeypatch
):
    heard = []

    def fail(notification):
        heard.append(notification.payload)
        raise KeyError

    register = exchange._register
    maintain = register.maintain_gen

    def notified_meanwhile(taken_off):
        with connect(url, autocommit=True) as another:
            another.execute("NOTIFY something, 'said'")
        assert select.select([connection], [], [], 10)[0]
        return maintain(taken_off)

    exchange.rows(("LISTEN something", ()))
    connection.add_notify_handler(fail)
    monkeypatch.setattr(register, "maintain_gen", notified_meanwhile)
    register._to_flush.append(b"of_a_full_register")
    assert exchange.together([("SELECT 'a'", ()), ("SELECT 'b'", ())]) == [[("a",)], [("b",)]]
    assert (heard, list(register._to_flush)) == (["said"], [])


def test_nor_a_commit_of_the_bookkeeping(url, connection, caplog):
    def fail(_notification):
        raise KeyError

    engine = sa.create_engine(url, pool_size=1)
    with engine.connect() as listening:
        listening.connection.driver_connection.add_notify_handler(fail)
    with transaction(engine, "listening") as cursor:
        cursor.execute("LISTEN something")
    with transaction(engine, "a job") as cursor:
        cursor.execute("CREATE TABLE of_a_job AS SELECT 7 AS n")
        cursor.execute("NOTIFY something")
    engine.dispose()
    assert connection.execute("SELECT n FROM of_a_job").fetchall() == [(7,)]
    assert [each.getMessage() for each in caplog.records] == ["A handler of notifications failed: KeyError"]


def test_nothing_is_asked_behind_an_exchange_that_was_given_up(connection, exchange):
    """The next answer would be that of the statement before."""
    deadlines.bind(connection)
    with deadlines.Deadline(timedelta(milliseconds=50)), pytest.raises(deadlines.DeadlinePassed):
        exchange.together([("SELECT 'first' FROM pg_sleep(2)", ()), ("SELECT 'second'", ())])
    for ask in (exchange.rows, lambda statement: exchange.together([statement, statement])):
        with pytest.raises(psycopg.OperationalError, match="given up"):
            ask(("SELECT 'third'", ()))
    connection.close()


def test_a_connection_in_a_pipeline_does_not_go_back_to_the_pool(url):
    engine = sa.create_engine(url, pool_size=1)
    sessions = Sessions(engine, statement_timeout=timedelta(seconds=5))

    def interrupted(session):
        session._connection.pgconn.enter_pipeline_mode()
        raise KeyError  # as a signal's handler may

    with pytest.raises(KeyError):
        sessions.run(interrupted, doing="a look", explain=lambda error, _: error)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
    engine.dispose()
