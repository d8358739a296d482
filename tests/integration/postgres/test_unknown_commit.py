"""A COMMIT without an answer: whatever became of it, the write is carried out once and answered rightly."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError

from dualstore.control import PostgresRole
from dualstore.errors import AuthorityMoved, OutcomeUnknown, Unavailable
from dualstore.stages import Stage
from dualstore.stores.postgres import PostgresStore, authority, sessions
from dualstore.stores.postgres_upkeep import OUTBOX_RETENTION
from dualstore.testing.servers import PostgresServer
from integration.postgres.authority import ask, empty, outbox, prepare, run, set_role
from integration.postgres.orders import TABLE, TABLES, key, order

TIMEOUT = timedelta(milliseconds=500)
PATIENCE = timedelta(seconds=8)
SYNC = b"S\0\0\0\4"
READY_FOR_QUERY = b"Z\0\0\0\5"
"""Of the last message of an answer, with a byte for the status behind it."""
VERDICT = b"AS verdict_"  # of the statement of a write in one round trip


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that these tests may stop."""
    with PostgresServer(settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture(scope="module")
def own_engine(own_server: PostgresServer) -> Iterator[sa.Engine]:
    engine = sa.create_engine(own_server.create_database(), pool_pre_ping=True)
    prepare(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(own_engine: sa.Engine) -> sa.Engine:
    """An engine of our own, to look at what has happened."""
    empty(own_engine)
    return own_engine


class Wire:
    """A proxy before the server that can lose what follows a COMMIT, or the Sync that implies one.

    Attributes:
        lose: what happens to the next COMMIT: `reply` lets it through and keeps its answer back, `request`
            loses it; then the connection is cut. `late` keeps it until `deliver_late`, and cuts off the
            client. `nothing` only delays it, None not even that.
        mark: by what a COMMIT, or whatever else is meant, is known.
        meanwhile: called when that has happened, before the connection is cut.
        lost: how many it has lost.
    """

    def __init__(self, port: int) -> None:
        self.lose: str | None = None
        self.mark = b"COMMIT\0"
        self.times = 1
        self.meanwhile: Callable[[], None] = lambda: None
        self.lost = 0
        self._late: list[tuple[socket.socket, bytes, threading.Thread]] = []
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._server_port))
        except OSError:
            client.close()
            return
        mute, answered, at_once = threading.Event(), threading.Event(), False
        answers = threading.Thread(target=_pump, args=(server, client, mute, answered), daemon=True)
        answers.start()
        try:
            while data := client.recv(1 << 16):
                at_once = at_once or VERDICT in data  # such a write needs no COMMIT
                if self.lose and self.times and (self.mark in data or (at_once and SYNC in data)):
                    if self.lose == "late":
                        self._keep(server, data, mute, answers)
                        server = None
                        return
                    if self.lose != "nothing":
                        self._lose(server, data, mute, answered)
                        return
                    self.times -= 1
                    self.meanwhile()
                at_once = at_once and SYNC not in data
                server.sendall(data)
        except OSError:
            pass
        finally:  # also where a COMMIT has been lost: the connection is cut
            _close(*filter(None, (server, client)))

    def _keep(
        self, server: socket.socket, data: bytes, mute: threading.Event, answers: threading.Thread
    ) -> None:
        self.times -= 1
        self.lost += 1
        mute.set()
        self._late.append((server, data, answers))
        self.meanwhile()

    def deliver_late(self) -> None:
        """Let the server have what was kept, and wait until it is done with that."""
        for server, data, answers in self._late:
            server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            answers.join(10)
            assert not answers.is_alive()
            server.close()

    def _lose(
        self, server: socket.socket, data: bytes, mute: threading.Event, answered: threading.Event
    ) -> None:
        self.times -= 1
        self.lost += 1
        mute.set()
        if self.lose == "reply":
            server.sendall(data)
        else:
            _close(server)
        answered.wait(10)  # the server has carried it out, or has been cut off
        self.meanwhile()


def _pump(
    source: socket.socket, target: socket.socket, mute: threading.Event, answered: threading.Event
) -> None:
    lost = b""
    try:
        while data := source.recv(1 << 16):
            if mute.is_set():
                lost += data
                if lost[-6:-1] == READY_FOR_QUERY:
                    answered.set()
            else:
                target.sendall(data)
    except OSError:
        pass
    finally:
        answered.set()
        if not mute.is_set():
            _close(source, target)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@pytest.fixture
def wire(own_server: PostgresServer) -> Iterator[Wire]:
    assert own_server.port is not None
    wire = Wire(own_server.port)
    yield wire
    wire.close()


def engine_behind(wire: Wire, engine: sa.Engine) -> sa.Engine:
    """An engine that reaches the server by the wire, where COMMIT shows: it is never prepared."""
    return sa.create_engine(engine.url.set(port=wire.port), connect_args={"prepare_threshold": None})


@pytest.fixture
def store(engine: sa.Engine, wire: Wire) -> Iterator[PostgresStore]:
    """A store that reaches the server by the wire."""
    behind = engine_behind(wire, engine)
    yield PostgresStore(behind, TABLES, statement_timeout=TIMEOUT, doubt_patience=PATIENCE)
    behind.dispose()


def add(amount: int = 1, **request: Any) -> dict[str, Any]:
    return {
        "Key": key(),
        "UpdateExpression": "ADD quantity :n",
        "values": {":n": {"N": str(amount)}},
        "ReturnValues": "UPDATED_NEW",
        **request,
    }


def quantity(store: PostgresStore) -> Any:
    return ask(store, "GetItem", Key=key())["Item"]["quantity"]["N"]


def actions(*kinds: str) -> list[dict[str, Any]]:
    made = {
        "add": {
            "Update": {
                "TableName": TABLE,
                "Key": key(),
                "UpdateExpression": "ADD quantity :n",
                "ExpressionAttributeValues": {":n": {"N": "1"}},
            }
        },
        "delete": {"Delete": {"TableName": TABLE, "Key": key(number=2)}},
        "put": {
            "Put": {
                "TableName": TABLE,
                "Item": order(number=3),
                "ConditionExpression": "attribute_not_exists(customer)",
            }
        },
    }
    return [made[kind] for kind in kinds]


# Each is asked for once, and must not be carried out twice nor be refused for its own sake.
WRITES: dict[str, tuple[Callable[[PostgresStore], Any], Any, int]] = {
    "increment": (
        lambda store: ask(store, "UpdateItem", **add()),
        {"Attributes": {"quantity": {"N": "2"}}},
        1,
    ),
    "conditional create": (
        lambda store: ask(
            store, "PutItem", Item=order(number=9), ConditionExpression="attribute_not_exists(customer)"
        ),
        {},
        1,
    ),
    "conditional delete": (
        lambda store: ask(
            store,
            "DeleteItem",
            Key=key(),
            ConditionExpression="attribute_exists(customer)",
            ReturnValues="ALL_OLD",
        ),
        {"Attributes": order(quantity=1)},
        1,
    ),
    "batch": (
        lambda store: ask(
            store,
            "BatchWriteItem",
            RequestItems={
                TABLE: [
                    {"PutRequest": {"Item": order(number=3)}},
                    {"DeleteRequest": {"Key": key(number=2)}},
                ]
            },
        ),
        {"UnprocessedItems": {}},
        2,
    ),
    "transaction": (
        lambda store: ask(store, "TransactWriteItems", TransactItems=actions("add", "delete", "put")),
        {},
        3,
    ),
    "transaction of deletions": (
        lambda store: ask(store, "TransactWriteItems", TransactItems=actions("delete")),
        {},
        1,
    ),
    "transaction with a token": (
        lambda store: ask(
            store,
            "TransactWriteItems",
            TransactItems=actions("add", "put"),
            ClientRequestToken="once",
            ReturnConsumedCapacity="TOTAL",
        ),
        {"ConsumedCapacity": [{"TableName": TABLE, "CapacityUnits": 4.0, "WriteCapacityUnits": 4.0}]},
        2,
    ),
}


@pytest.fixture
def filled(store: PostgresStore, engine: sa.Engine) -> PostgresStore:
    ask(store, "PutItem", Item=order(quantity=1))
    ask(store, "PutItem", Item=order(number=2))
    outbox(engine)
    return store


@pytest.mark.parametrize("lost", ["reply", "request"])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_whose_commit_was_not_answered_is_carried_out_once(filled, engine, wire, write, lost):
    call, answer, changes = WRITES[write]
    wire.lose = lost
    assert call(filled) == answer
    assert wire.lost == 1
    assert len(outbox(engine)) == changes


IN_ONE_TRIP: dict[str, tuple[str, dict[str, Any], Any]] = {
    "put": ("PutItem", {"Item": order(quantity=7)}, 7),
    "create": (
        "PutItem",
        {"Item": order(number=9), "ConditionExpression": "attribute_not_exists(customer)"},
        1,
    ),
    "increment": ("UpdateItem", add(), 2),
    "delete": ("DeleteItem", {"Key": key()}, None),
}


# At which stage, and whether the store knows it: then one statement takes the lock at `complete`.
STAGES = pytest.mark.parametrize(
    "stage", [(Stage.LIVE, True), (Stage.COMPLETE, False), (Stage.COMPLETE, True)], ids=str
)


def put_at(stage: tuple[Stage, bool], engine: sa.Engine, store: PostgresStore) -> None:
    at, is_known = stage
    set_role(engine, PostgresRole.AUTHORITY, stage=at)
    if is_known:
        ask(store, "PutItem", Item=order(number=5))


@STAGES
@pytest.mark.parametrize("write", IN_ONE_TRIP)
def test_a_request_that_comes_after_all_once_it_was_made_anew_does_nothing(
    filled, engine, wire, write, stage
):
    """A closed connection's kernel, or a proxy, may deliver it much later: lock, write and all."""
    operation, request, quantity_then = IN_ONE_TRIP[write]
    put_at(stage, engine, filled)
    wire.lose = "late"
    ask(filled, operation, **request)
    assert wire.lost == 1
    made = run(engine, "SELECT * FROM orders ORDER BY number")
    assert [row.quantity for row in made if row.number == 1] == (
        [] if quantity_then is None else [quantity_then]
    )
    ask(filled, "PutItem", Item=order(quantity=50))
    ask(filled, "DeleteItem", Key=key(number=9))
    later = run(engine, "SELECT * FROM orders ORDER BY number")
    wire.deliver_late()
    assert run(engine, "SELECT * FROM orders ORDER BY number") == later


def test_what_was_given_up_stays_so_where_its_repetition_is_refused(filled, engine, wire):
    request = {
        "Item": order(quantity=9),
        "ConditionExpression": "quantity < :few",
        "values": {":few": {"N": "2"}},
    }
    wire.lose, wire.meanwhile = "late", lambda: run(engine, "UPDATE orders SET quantity = 4 WHERE number = 1")
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        ask(filled, "PutItem", **request)
    run(engine, "UPDATE orders SET quantity = 1 WHERE number = 1")
    wire.deliver_late()
    assert run(engine, "SELECT quantity FROM orders WHERE number = 1") == [(1,)]


@pytest.mark.parametrize("write", WRITES)
def test_no_number_of_lost_answers_makes_a_write_happen_twice(filled, engine, wire, write):
    call, answer, changes = WRITES[write]
    wire.lose, wire.times = "request", 3
    assert call(filled) == answer
    assert wire.lost == 3
    assert len(outbox(engine)) == changes


@pytest.mark.parametrize("later", ["DELETE FROM orders WHERE number = 1", "UPDATE orders SET quantity = 50"])
def test_a_write_is_found_though_another_has_come_after_it(filled, engine, wire, later):
    """The row no longer tells: the outbox does."""
    wire.lose, wire.meanwhile = "reply", lambda: run(engine, later)
    old = {"Attributes": order(quantity=1)}
    assert ask(filled, "UpdateItem", **add(ReturnValues="ALL_OLD")) == old
    assert {each.quantity for each in run(engine, "SELECT quantity FROM orders WHERE number = 1")} <= {50}


@pytest.mark.parametrize("later", ["DELETE FROM orders WHERE number = 1", "UPDATE orders SET quantity = 50"])
def test_of_an_update_that_asks_for_nothing_no_answer_is_lost(filled, engine, wire, later):
    wire.lose, wire.meanwhile = "reply", lambda: run(engine, later)
    assert ask(filled, "UpdateItem", **add(ReturnValues="NONE")) == {}
    assert {each.quantity for each in run(engine, "SELECT quantity FROM orders WHERE number = 1")} <= {50}


@pytest.mark.parametrize("later", ["DELETE FROM orders WHERE number = 1", "UPDATE orders SET quantity = 50"])
@pytest.mark.parametrize("returned", ["ALL_NEW", "UPDATED_NEW"])
def test_a_new_value_that_is_lost_with_its_reply_is_said_to_be_lost(filled, engine, wire, later, returned):
    """It was sent in one round trip, and another write has come after it: nobody knows what it was."""
    wire.lose, wire.meanwhile = "reply", lambda: run(engine, later)
    with pytest.raises(OutcomeUnknown, match="has carried out"):
        ask(filled, "UpdateItem", **add(ReturnValues=returned))
    assert {each.quantity for each in run(engine, "SELECT quantity FROM orders WHERE number = 1")} <= {50}


ILLEGIBLE = "UPDATE orders SET placed = 'infinity' WHERE number = 1"


def test_a_write_is_found_in_a_row_that_cannot_be_read_any_more(filled, engine, wire):
    """psycopg loads no such moment, so nothing is read before it is known what has become of the write."""
    wire.lose, wire.meanwhile = "reply", lambda: run(engine, ILLEGIBLE)
    assert ask(filled, "UpdateItem", **add(ReturnValues="NONE")) == {}
    assert run(engine, "SELECT quantity FROM orders WHERE number = 1") == [(2,)]


@pytest.mark.parametrize("later", [ILLEGIBLE, ILLEGIBLE.replace("placed = 'infinity'", "price = 'NaN'")])
def test_a_new_value_that_cannot_be_read_any_more_is_said_to_be_lost(filled, engine, wire, later):
    wire.lose, wire.meanwhile = "reply", lambda: run(engine, later)
    with pytest.raises(OutcomeUnknown, match="has carried out"):
        ask(filled, "UpdateItem", **add(ReturnValues="ALL_NEW", ReturnConsumedCapacity="TOTAL"))
    assert run(engine, "SELECT quantity FROM orders WHERE number = 1") == [(2,)]


def test_a_lost_write_of_a_row_that_cannot_be_read_is_refused_where_it_was_not_made(filled, engine, wire):
    wire.lose, wire.meanwhile = "request", lambda: run(engine, ILLEGIBLE)
    with pytest.raises(ClientError, match="did not carry out"):
        ask(filled, "UpdateItem", **add(ReturnValues="NONE"))
    assert run(engine, "SELECT quantity FROM orders WHERE number = 1") == [(1,)]


def test_a_write_is_found_by_its_row_where_the_outbox_has_forgotten_it(filled, engine, wire):
    wire.lose, wire.meanwhile = "reply", lambda: run(engine, "DELETE FROM dualstore.outbox")
    assert ask(filled, "UpdateItem", **add()) == {"Attributes": {"quantity": {"N": "2"}}}


@pytest.mark.parametrize("stage", [Stage.LIVE, Stage.COMPLETE])
def test_whoever_stood_still_until_a_write_was_forgotten_does_not_make_it_anew(
    filled, engine, wire, monkeypatch, stage
):
    """A stopped process, a suspended machine: the reply is lost, others write, and upkeep forgets."""
    set_role(engine, PostgresRole.AUTHORITY, stage=stage)
    now = authority.uptime

    def stand_still() -> None:
        monkeypatch.setattr(authority, "uptime", lambda: now() + OUTBOX_RETENTION.total_seconds())
        ask(PostgresStore(engine, TABLES), "UpdateItem", **add(10))
        for forgotten in ("outbox", "receipts"):
            run(engine, f"DELETE FROM dualstore.{forgotten}")

    wire.lose, wire.meanwhile = "reply", stand_still
    with pytest.raises(OutcomeUnknown, match="PostgreSQL may have forgotten it"):
        ask(filled, "UpdateItem", **add())
    assert wire.lost == 1
    assert quantity(filled) == "12"


def test_whoever_stood_still_knows_a_write_by_what_it_has_left(filled, engine, wire, monkeypatch):
    now = authority.uptime
    hours = timedelta(hours=3).total_seconds()
    wire.lose = "reply"
    wire.meanwhile = lambda: monkeypatch.setattr(authority, "uptime", lambda: now() + hours)
    assert ask(filled, "UpdateItem", **add()) == {"Attributes": {"quantity": {"N": "2"}}}
    assert quantity(filled) == "2"


def test_a_deletion_is_found_though_the_item_has_been_created_again(filled, engine, wire):
    again = "INSERT INTO orders (customer, number, quantity) VALUES ('ann', 1, 7)"
    wire.lose, wire.meanwhile = "reply", lambda: run(engine, again)
    assert ask(filled, "DeleteItem", Key=key()) == {}
    assert quantity(filled) == "7"


AT_COMPLETE: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("PutItem", {"Item": order(number=9), "ConditionExpression": "attribute_not_exists(customer)"}),
    "put": ("PutItem", {"Item": order(quantity=1)}),
    "increment": ("UpdateItem", add(ReturnValues="NONE")),
    "deletion": ("DeleteItem", {"Key": key(), "ConditionExpression": "attribute_exists(customer)"}),
    "transaction": ("TransactWriteItems", {"TransactItems": actions("add", "delete", "put")}),
}


@pytest.mark.parametrize("lost", ["reply", "request", "known reply", "known request"])
@pytest.mark.parametrize("write", AT_COMPLETE)
def test_at_complete_a_write_is_found_though_others_have_come_after_it(filled, engine, wire, write, lost):
    """Where it has been carried out it is not again, nor refused by what it has left itself."""
    known, _, lost = lost.rpartition(" ")
    put_at((Stage.COMPLETE, bool(known)), engine, filled)
    empty_again = [f"DELETE FROM dualstore.{name}" for name in ("outbox", "receipts")]
    for statement in empty_again:
        run(engine, statement)

    def change() -> None:
        if lost == "reply":
            run(engine, "DELETE FROM orders")
            run(engine, "INSERT INTO orders (customer, number, quantity) VALUES ('ann', 1, 7), ('ann', 9, 7)")

    wire.lose, wire.meanwhile = lost, change
    operation, request = AT_COMPLETE[write]
    assert ask(filled, operation, **request) == {}
    assert wire.lost == 1
    if lost == "reply":
        kept = "SELECT number, quantity FROM orders ORDER BY number"
        assert run(engine, kept) == [(1, 7), (9, 7)], "the later writes stand"


def test_a_condition_that_fails_by_now_is_a_refusal_of_what_was_not_carried_out(filled, engine, wire):
    taken = "INSERT INTO orders (customer, number) VALUES ('ann', 9)"
    wire.lose, wire.meanwhile = "request", lambda: run(engine, taken)
    with pytest.raises(Exception, match="ConditionalCheckFailed"):
        WRITES["conditional create"][0](filled)


def test_a_write_that_was_not_carried_out_before_the_authority_moved_is_told_so(filled, engine, wire):
    wire.lose, wire.meanwhile = "request", lambda: set_role(engine, PostgresRole.MIRROR)
    with pytest.raises(AuthorityMoved):
        ask(filled, "UpdateItem", **add())
    set_role(engine, PostgresRole.AUTHORITY)
    assert quantity(filled) == "1"


def test_a_write_that_was_carried_out_before_the_authority_moved_is_answered(filled, engine, wire):
    wire.lose, wire.meanwhile = "reply", lambda: set_role(engine, PostgresRole.MIRROR)
    assert ask(filled, "UpdateItem", **add()) == {"Attributes": {"quantity": {"N": "2"}}}


@pytest.mark.parametrize("write", sorted(WRITES.keys() - {"conditional create"}))  # which is made in one
def test_a_write_that_the_fence_overtakes_between_its_two_round_trips_does_nothing(
    filled, engine, wire, write
):
    wire.lose, wire.meanwhile = "nothing", lambda: set_role(engine, PostgresRole.MIRROR)
    wire.mark = b"ln(count"  # in the first statement that writes
    with pytest.raises(AuthorityMoved):
        WRITES[write][0](filled)
    assert wire.times == 0
    set_role(engine, PostgresRole.AUTHORITY)
    assert quantity(filled) == "1"
    assert ask(filled, "Scan")["Count"] == 2
    assert outbox(engine) == []


# --- The server's end of it ------------------------------------------------------------------


KILL_AT_COMMIT = """
CREATE OR REPLACE FUNCTION kill() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM pg_class WHERE relname = 'deaths') = 0 THEN RETURN NULL; END IF;
    IF nextval('deaths') <= 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
    RETURN NULL;
END $$;
CREATE SEQUENCE deaths;
CREATE CONSTRAINT TRIGGER killer AFTER INSERT OR UPDATE OR DELETE ON orders DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION kill()"""


@pytest.mark.parametrize("write", WRITES)
def test_a_backend_killed_within_its_commit_has_not_carried_it_out(filled, engine, write):
    call, answer, changes = WRITES[write]
    run(engine, KILL_AT_COMMIT)
    try:
        assert call(filled) == answer
        assert run(engine, "SELECT last_value FROM deaths")[0][0] >= 2
    finally:
        run(engine, "DROP TRIGGER killer ON orders; DROP SEQUENCE deaths")
    assert len(outbox(engine)) == changes


@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("lost", ["reply", "request"])
def test_a_write_is_carried_out_once_through_a_restart_of_the_server(filled, wire, own_server, mode, lost):
    wire.lose, wire.meanwhile = lost, lambda: own_server.restart(mode)
    assert ask(filled, "UpdateItem", **add()) == {"Attributes": {"quantity": {"N": "2"}}}
    assert wire.lost == 1
    assert quantity(filled) == "2"


def test_where_the_server_stays_away_the_outcome_is_unknown(engine, wire, own_server):
    behind = engine_behind(wire, engine)
    patience = timedelta(seconds=1)
    store = PostgresStore(behind, TABLES, statement_timeout=TIMEOUT, doubt_patience=patience)
    wire.lose, wire.meanwhile = "reply", own_server.stop
    started = time.monotonic()
    try:
        with pytest.raises(OutcomeUnknown) as caught:
            ask(store, "PutItem", Item=order())
        ended = time.monotonic()
    finally:
        own_server.start()
        behind.dispose()
    assert ended - started < 10
    assert "ann" not in str(caught.value)


def test_a_server_that_is_away_before_the_commit_has_not_carried_anything_out(filled, own_server):
    own_server.stop()
    try:
        with pytest.raises(Unavailable) as caught:
            ask(filled, "UpdateItem", **add(ReturnValues="ALL_OLD"))  # which is made in two round trips
        assert not isinstance(caught.value, OutcomeUnknown)
    finally:
        own_server.start()
    assert quantity(filled) == "1"


@pytest.fixture
def without_standby(own_engine: sa.Engine) -> Iterator[Callable[[str], None]]:
    """Names a synchronous standby that is not there."""
    other = own_engine.execution_options(isolation_level="AUTOCOMMIT")
    going_on = threading.Event()

    def commit() -> None:
        with other.connect() as connection:
            while not going_on.wait(0.01):
                connection.execute(sa.text("SELECT pg_logical_emit_message(true, 'dualstore', '')"))

    def name(standby: str) -> None:
        with other.connect() as connection:
            connection.execute(sa.text(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
            # The checkpointer tells the others, each time that it has read the configuration.
            waiting = sa.text("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            ends = time.monotonic() + 10
            while connection.scalar(waiting) is not bool(standby):
                assert time.monotonic() < ends, "the configuration is not read again"
                time.sleep(0.01)

    committing = threading.Thread(target=commit)
    committing.start()
    yield name
    going_on.set()
    name("")
    committing.join()


ONE, MANY = {"Item": order(number=9)}, {"Put": {"TableName": TABLE, "Item": order(number=9)}}


@pytest.fixture
def hasty(engine: sa.Engine) -> Iterator[PostgresStore]:
    """A store that soon gives up."""
    own = sa.create_engine(engine.url)
    limits = {"statement_timeout": timedelta(seconds=1), "doubt_patience": timedelta(seconds=2)}
    yield PostgresStore(own, TABLES, **limits)
    own.dispose()


@pytest.mark.parametrize("asked", [("PutItem", ONE), ("TransactWriteItems", {"TransactItems": [MANY]})])
@STAGES
def test_a_commit_that_no_synchronous_standby_has_is_never_acknowledged(
    hasty, engine, without_standby, asked, stage
):
    """PostgreSQL says that it has been made, with a warning, to whoever cancels the wait for the standby."""
    put_at(stage, engine, hasty)
    without_standby("nobody")
    with pytest.raises(OutcomeUnknown):
        ask(hasty, asked[0], **asked[1])
    without_standby("")
    ask(hasty, "PutItem", Item=order(number=9, quantity=3))


def terminate(connection: Any, engine: sa.Engine) -> None:
    run(engine, "SELECT pg_terminate_backend(:pid)", pid=connection.info.backend_pid)


def cancel_later(connection: Any, _: sa.Engine) -> None:
    threading.Timer(0.8, connection.pgconn.get_cancel().cancel).start()


@pytest.mark.parametrize("end", [terminate, cancel_later])
def test_nor_is_one_whose_wait_for_the_standby_is_ended_otherwise(
    hasty, engine, without_standby, monkeypatch, end
):
    """The next attempt finds the write, and a commit of its own that waits for the standby in vain."""
    put_at((Stage.COMPLETE, True), engine, hasty)
    looker = sa.create_engine(engine.url)
    ended: list[object] = []
    cancel = sessions._cancel

    def once(connection: Any) -> None:
        if ended:
            cancel(connection)
            return
        ended.append(connection)
        end(connection, looker)

    monkeypatch.setattr(sessions, "_cancel", once)
    without_standby("nobody")
    with pytest.raises(OutcomeUnknown):
        ask(hasty, "PutItem", **ONE)
    looker.dispose()
    assert ended


SLOW_COMMIT = """
CREATE OR REPLACE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('dawdles') <= 1 THEN
        PERFORM set_config('statement_timeout', '0', true);
        PERFORM pg_sleep(3);
    END IF;
    RETURN NULL;
END $$;
CREATE SEQUENCE dawdles;
CREATE CONSTRAINT TRIGGER dawdler AFTER INSERT OR UPDATE ON orders DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION dawdle()"""


def test_a_commit_that_hangs_is_waited_for_under_its_locks(filled, engine, own_server):
    """The process that commits is frozen beyond our deadline, and carries on when we ask again."""
    run(engine, SLOW_COMMIT)
    frozen: list[int] = []

    def freeze() -> None:
        query = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        ends = time.monotonic() + 5
        while not (found := run(engine, query)):
            assert time.monotonic() < ends, "nobody dawdles"
            time.sleep(0.01)
        frozen.append(found[0].pid)
        os.kill(frozen[0], signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(frozen[0], signal.SIGCONT)

    freezing = threading.Thread(target=freeze)
    freezing.start()
    try:
        assert ask(filled, "UpdateItem", **add()) == {"Attributes": {"quantity": {"N": "2"}}}
    finally:
        freezing.join()
        run(engine, "DROP TRIGGER dawdler ON orders; DROP SEQUENCE dawdles")
    assert frozen
    assert quantity(filled) == "2"


def test_threads_that_lose_answers_all_the_time_count_right(engine, wire):
    """Every tenth COMMIT is lost, half of them with and half without effect."""
    behind = engine_behind(wire, engine)
    store = PostgresStore(behind, TABLES, statement_timeout=timedelta(seconds=5), doubt_patience=PATIENCE)
    stop = threading.Event()

    def disturb() -> None:
        for lost in ("reply", "request") * 15:
            wire.lose, wire.times = lost, 1
            if stop.wait(0.03):
                return

    done: list[int] = []

    def work() -> None:
        for _ in range(25):
            try:
                ask(store, "UpdateItem", **add())
            except OutcomeUnknown as unknown:  # another thread has counted on since
                assert "has carried out" in str(unknown)  # noqa: PT017 - the other kind would be a mistake
            done.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    disturbing = threading.Thread(target=disturb)
    for thread in (disturbing, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    disturbing.join()
    wire.lose = None
    assert len(done) == 75
    assert wire.lost >= 5
    assert quantity(store) == "75"
    assert len(outbox(engine)) == 75
    behind.dispose()
