"""The triggers of a mapped table: every change is told of, whoever makes it, or held back."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from sqlalchemy.orm import Session

from dualstore.control import PostgresRole
from dualstore.errors import AuthorityMoved, Unavailable
from dualstore.items import key_bytes
from dualstore.mapping import typed_item, unmapped_table
from dualstore.stages import Stage
from dualstore.stores.base import NOTHING
from dualstore.stores.postgres import PostgresStore, triggers
from dualstore.stores.postgres.hazards import hazards
from integration.postgres.authority import EPOCH, ask, empty, outbox, prepare, receipts, run, set_role
from integration.postgres.orders import NOTE_TABLE, NOTES, ORDERS, TABLE, TABLES, OrderRow, key, order, stamp

A, B = stamp(1), stamp(2)
ANN = ["ann", "1"]


@pytest.fixture(scope="module")
def watched_engine(postgres_server: Any) -> Iterator[sa.Engine]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    prepare(engine)
    yield engine
    engine.dispose()
    postgres_server.drop_database(url)


@pytest.fixture
def engine(watched_engine: sa.Engine) -> sa.Engine:
    empty(watched_engine)
    return watched_engine


@pytest.fixture
def store(engine: sa.Engine) -> PostgresStore:
    return PostgresStore(engine, TABLES)


def stored(engine: sa.Engine) -> Any:
    """Stamp and revision of the one order."""
    ((found, revision),) = run(engine, "SELECT dualstore_stamp, dualstore_revision FROM orders")
    return found, revision


# --- As the authority ------------------------------------------------------------------------


def test_own_writes_leave_their_stamps_and_predecessors(store, engine):
    ask(store, "PutItem", Item=order())
    first, _ = stored(engine)
    ask(store, "PutItem", Item=order(status="paid"))
    second, _ = stored(engine)
    ask(store, "DeleteItem", Key=key())
    created, changed, deleted = outbox(engine)
    assert (created.key, created.stamp, created.predecessor) == (ANN, first, None)
    assert (changed.key, changed.stamp, changed.predecessor) == (ANN, second, first)
    assert (deleted.key, deleted.predecessor) == (ANN, second)
    assert len({first, second, deleted.stamp}) == 3
    assert {each.done_at for each in (created, changed, deleted)} == {None}


def test_the_deletions_of_a_transaction_have_a_stamp_each(store, engine):
    for number in (1, 2):
        ask(store, "PutItem", Item=order(number=number))
    outbox(engine)
    deletes = [{"Delete": {"TableName": TABLE, "Key": key(number=number)}} for number in (1, 2)]
    ask(store, "TransactWriteItems", TransactItems=deletes)
    one, other = outbox(engine)
    assert [one.key, other.key] == [["ann", "1"], ["ann", "2"]]
    assert one.stamp != other.stamp


def test_a_write_through_an_orm_is_stamped_and_noted(engine):
    with Session(engine) as session:
        row = OrderRow(customer="ann", number=Decimal(1), status="new")
        session.add(row)
        session.commit()
        created = row.dualstore_stamp
        row.status = "paid"
        session.commit()
        changed = row.dualstore_stamp
        session.delete(row)
        session.commit()
    notes = outbox(engine)
    assert [(each.stamp, each.predecessor) for each in notes[:2]] == [(created, None), (changed, created)]
    assert notes[2].predecessor == changed
    assert all(len(each.stamp) == 16 for each in notes)
    assert len({each.stamp for each in notes}) == 3


def test_an_update_that_keeps_the_stamp_gets_a_fresh_one(store, engine):
    ask(store, "PutItem", Item=order())
    first, revision = stored(engine)
    outbox(engine)
    run(engine, "UPDATE orders SET status = 'paid'")
    second, later = stored(engine)
    assert second != first
    assert later > revision
    (noted,) = outbox(engine)
    assert (noted.stamp, noted.predecessor) == (second, first)


def test_an_upsert_that_brings_a_stamp_along_gets_a_fresh_one(engine):
    upsert = (
        "INSERT INTO orders (customer, number, dualstore_stamp) VALUES ('ann', 1, :stamp) "
        "ON CONFLICT (customer, number) DO UPDATE SET dualstore_stamp = :stamp"
    )
    for _ in range(2):
        run(engine, upsert, stamp=A)
    assert stored(engine)[0] != A
    assert [each.stamp == A for each in outbox(engine)] == [False, False]


RENEWED = "dualstore_revision = nextval('dualstore.revision')"


def test_an_update_that_brings_a_stamp_and_a_revision_along_gets_fresh_ones(store, engine):
    """As one that takes a row back from a copy of the table does."""
    ask(store, "PutItem", Item=order())
    run(engine, f"UPDATE orders SET dualstore_stamp = :stamp, {RENEWED}", stamp=A)
    assert stored(engine)[0] != A


@pytest.mark.parametrize(
    ("writer", "change", "is_stamped"),
    [
        ("authority", f"dualstore_stamp = NULL, {RENEWED}", True),
        ("authority", "status = 'paid'", True),
        ("authority", f"dualstore_stamp = :stamp, {RENEWED}", False),
        ("mirror", "dualstore_stamp = NULL", False),
        ("mirror", "dualstore_stamp = :stamp", False),
    ],
)
def test_a_writer_of_ours_gets_a_stamp_where_it_has_left_none(store, engine, writer, change, is_stamped):
    ask(store, "PutItem", Item=order())
    first, _ = stored(engine)
    with engine.begin() as connection:
        connection.execute(sa.select(sa.func.set_config("dualstore.writer", writer, True)))
        connection.execute(sa.text(f"UPDATE orders SET {change}"), {"stamp": A})
    assert (stored(engine)[0] not in {first, A, None}) is is_stamped


def test_a_row_that_moves_to_another_key_leaves_two_notes(engine):
    run(engine, "INSERT INTO orders (customer, number) VALUES ('ann', 1)")
    first, _ = stored(engine)
    outbox(engine)
    run(engine, "UPDATE orders SET number = 2")
    notes = {tuple(each.key): each for each in outbox(engine)}
    assert set(notes) == {("ann", "1"), ("ann", "2")}
    assert notes["ann", "1"].predecessor == first
    assert (notes["ann", "2"].stamp, notes["ann", "2"].predecessor) == (stored(engine)[0], None)
    assert notes["ann", "1"].stamp != notes["ann", "2"].stamp


def test_equal_keys_are_noted_as_one_whatever_their_digits(engine):
    run(engine, "INSERT INTO orders (customer, number) VALUES ('ann', 1.00)")
    run(engine, "UPDATE orders SET number = 1")
    first, second = outbox(engine)
    assert (first.key, first.lane) == (second.key, second.lane) == (ANN, first.lane)


def test_binary_keys_are_noted_in_one_form(engine):
    with engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL bytea_output = 'escape'"))
        connection.execute(sa.text(r"INSERT INTO notes (partition_key) VALUES ('\x00ff')"))
    (noted,) = outbox(engine)
    assert noted.key == [r"\x00ff"]
    assert noted.table_name == NOTE_TABLE


def test_rows_that_a_cascade_deletes_are_noted(store, engine):
    ask(store, "PutItem", Item=order())
    with child_of_orders(engine):
        run(engine, "INSERT INTO lines VALUES ('ann', 1)")
        outbox(engine)
        run(engine, "DELETE FROM parents")
    (noted,) = outbox(engine)
    assert noted.key == ANN
    assert run(engine, "SELECT * FROM orders") == []


@contextmanager
def child_of_orders(engine: sa.Engine) -> Iterator[None]:
    """Orders that go with their customers."""
    run(engine, 'CREATE TABLE parents (customer text COLLATE "C" PRIMARY KEY)')
    run(engine, "CREATE TABLE lines (customer text, number numeric)")
    run(engine, "INSERT INTO parents VALUES ('ann')")
    constraint = "of_parent FOREIGN KEY (customer) REFERENCES parents ON DELETE CASCADE"
    run(engine, f"ALTER TABLE orders ADD CONSTRAINT {constraint}")
    try:
        yield
    finally:
        run(engine, "DROP TABLE parents CASCADE")
        run(engine, "DROP TABLE lines")


def test_what_a_teams_own_trigger_changes_within_a_write_of_ours_is_stamped(store, engine):
    ask(store, "PutItem", Item=order(number=2))
    before, _ = stored(engine)
    outbox(engine)
    run(engine, COUNTER)
    run(engine, "CREATE TRIGGER counter AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION count_orders()")
    try:
        ask(store, "PutItem", Item=order())
    finally:
        run(engine, "DROP TRIGGER counter ON orders")
    by_key = {tuple(each.key): each for each in outbox(engine)}
    assert set(by_key) == {("ann", "1"), ("ann", "2")}
    assert by_key["ann", "2"].predecessor == before
    assert by_key["ann", "2"].stamp not in {before, by_key["ann", "1"].stamp}


COUNTER = """
CREATE OR REPLACE FUNCTION count_orders() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN UPDATE orders SET quantity = 1 WHERE number = 2; RETURN NULL; END $$"""


def test_a_rolled_back_write_is_not_noted(engine):
    with engine.connect() as connection:
        connection.execute(sa.text("INSERT INTO orders (customer, number) VALUES ('ann', 1)"))
        connection.rollback()
    assert outbox(engine) == []


def test_a_row_changed_between_reading_and_writing_is_read_again(store, engine):
    """A writer who takes no lock of ours does not lose its change, nor do we evaluate a stale item."""
    ask(store, "PutItem", Item=order(quantity=1))
    added = {"UpdateExpression": "ADD quantity :n", "values": {":n": {"N": "10"}}}
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as foreign:
            foreign.execute(sa.text("UPDATE orders SET quantity = 5"))
            waiting = pool.submit(ask, store, "UpdateItem", Key=key(), ReturnValues="ALL_NEW", **added)
            once_waiting_for_a_row(engine)
        assert waiting.result()["Attributes"]["quantity"] == {"N": "15"}


def test_a_row_created_between_reading_and_writing_is_read_again(store, engine):
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as foreign:
            foreign.execute(sa.text("INSERT INTO orders (customer, number, quantity) VALUES ('ann', 1, 5)"))
            waiting = pool.submit(ask, store, "PutItem", Item=order(), ReturnValues="ALL_OLD")
            once_waiting_for_a_row(engine)
        assert waiting.result()["Attributes"] == order(quantity=5)


def test_a_condition_check_holds_until_the_transaction_is_committed(store, engine):
    ask(store, "PutItem", Item=order(number=2, status="open"))
    check = {
        "TableName": TABLE,
        "Key": key(number=2),
        "ConditionExpression": "#s = :s",
        "ExpressionAttributeNames": {"#s": "status"},
        "ExpressionAttributeValues": {":s": {"S": "open"}},
    }
    actions = [{"Put": {"TableName": TABLE, "Item": order()}}, {"ConditionCheck": check}]
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as foreign:
            foreign.execute(sa.text("UPDATE orders SET status = 'closed'"))
            waiting = pool.submit(ask, store, "TransactWriteItems", TransactItems=actions)
            once_waiting_for_a_row(engine)
        with pytest.raises(Exception, match="TransactionCanceledException"):
            waiting.result()
    assert ask(store, "GetItem", Key=key()) == {}


def once_waiting_for_a_row(engine: sa.Engine) -> None:
    """Return when a session of this database waits for another's transaction."""
    for _ in range(1000):
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'"
        if run(engine, waiting)[0][0]:
            return
        threading.Event().wait(0.005)
    raise AssertionError("nobody came to wait for the row")


# --- Paused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orders (customer, number) VALUES ('bob', 1)",
        "UPDATE orders SET price = 1",
        "DELETE FROM orders",
    ],
)
def test_every_write_is_held_back_while_writes_pause(store, engine, statement):
    ask(store, "PutItem", Item=order())
    outbox(engine)
    set_role(engine, PostgresRole.PAUSED)
    with pytest.raises(sa.exc.DBAPIError) as caught:
        run(engine, statement)
    assert isinstance(caught.value.orig, psycopg.Error)
    assert caught.value.orig.sqlstate == "DS001"
    assert "try again" in str(caught.value.orig).lower()
    assert outbox(engine) == []


def test_a_write_of_ours_that_the_pause_overtakes_is_not_carried_out(store, engine):
    """The statement still sees the authority, the trigger, a moment later, sees the pause."""
    run(engine, PAUSE)
    run(engine, "CREATE TRIGGER a_pause BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION pause()")
    try:
        with pytest.raises(AuthorityMoved):
            ask(store, "PutItem", Item=order())
    finally:
        run(engine, "DROP TRIGGER a_pause ON orders")
    assert ask(store, "GetItem", Key=key()) == {}


PAUSE = """
CREATE OR REPLACE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN UPDATE dualstore.control SET role = 'paused'; RETURN NEW; END $$"""


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("role", [PostgresRole.AUTHORITY, PostgresRole.PAUSED])
def test_a_write_by_an_older_snapshot_is_refused(store, engine, level, role):
    ask(store, "PutItem", Item=order())
    with engine.connect().execution_options(isolation_level=level) as connection:
        connection.execute(sa.text("SELECT count(*) FROM notes"))  # takes its snapshot
        set_role(engine, role)
        with pytest.raises(sa.exc.NotSupportedError, match="READ COMMITTED"):
            connection.execute(sa.text("UPDATE orders SET status = 'late'"))
    assert len(outbox(engine)) == 1


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_at_complete_any_isolation_level_will_do(store, engine, level):
    set_role(engine, PostgresRole.AUTHORITY, stage=Stage.COMPLETE)
    ask(store, "PutItem", Item=order())
    with engine.connect().execution_options(isolation_level=level) as connection, connection.begin():
        connection.execute(sa.text("UPDATE orders SET status = 'late'"))


@pytest.mark.parametrize("role", [PostgresRole.AUTHORITY, PostgresRole.PAUSED, PostgresRole.MIRROR])
def test_a_truncate_is_refused_while_the_table_is_replicated(store, engine, role):
    ask(store, "PutItem", Item=order())
    set_role(engine, role)
    with pytest.raises(sa.exc.DBAPIError, match="TRUNCATE"):
        run(engine, "TRUNCATE orders")
    set_role(engine, PostgresRole.AUTHORITY)
    assert ask(store, "Scan")["Count"] == 1


# --- Complete --------------------------------------------------------------------------------


@pytest.fixture
def complete(engine: sa.Engine) -> sa.Engine:
    """The orders at stage `complete`; the notes are at `live`."""
    set_role(engine, PostgresRole.AUTHORITY, stage=Stage.COMPLETE)
    run(engine, "UPDATE dualstore.control SET stage = 'live' WHERE table_name = :notes", notes=NOTE_TABLE)
    return engine


def test_at_complete_a_write_of_ours_leaves_a_receipt_under_its_stamp(store, complete):
    ask(store, "PutItem", Item=order())
    first, _ = stored(complete)
    ask(store, "UpdateItem", Key=key(), UpdateExpression="SET price = :n", values={":n": {"N": "2"}})
    second, _ = stored(complete)
    assert receipts(complete) == sorted([first, second])
    ask(store, "DeleteItem", Key=key())
    assert len(receipts(complete)) == 1
    assert outbox(complete) == []


@pytest.mark.parametrize(
    "condition", ["attribute_not_exists(customer)", "price = :n", "attribute_not_exists(quantity)"]
)
@pytest.mark.parametrize("operation", ["PutItem", "DeleteItem"])
def test_a_write_that_is_refused_leaves_no_receipt(store, complete, operation, condition):
    ask(store, "PutItem", Item=order(quantity=1))
    receipts(complete)
    request = {"Item": order()} if operation == "PutItem" else {"Key": key()}
    values = {"values": {":n": {"N": "7"}}} if ":n" in condition else {}
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        ask(store, operation, **request, ConditionExpression=condition, **values)
    assert receipts(complete) == outbox(complete) == []


def test_a_deletion_of_nothing_leaves_no_receipt(store, complete):
    ask(store, "DeleteItem", Key=key())
    assert receipts(complete) == outbox(complete) == []


def test_at_complete_several_writes_at_once_leave_finished_notes_and_those_of_others_none(store, complete):
    put = {"Put": {"TableName": TABLE, "Item": order()}}
    ask(store, "TransactWriteItems", TransactItems=[put])
    (noted,) = outbox(complete)
    assert noted.done_at is not None
    run(complete, "UPDATE orders SET price = 1")
    run(complete, "DELETE FROM orders")
    run(complete, "TRUNCATE orders")
    assert receipts(complete) == outbox(complete) == []


COPIES = """
CREATE FUNCTION copy_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {body}
    RETURN NULL;
END $$;
CREATE TRIGGER copier AFTER INSERT OR UPDATE ON orders FOR EACH ROW WHEN (NEW.number = 1)
EXECUTE FUNCTION copy_order()"""


@contextmanager
def copying(engine: sa.Engine, body: str) -> Iterator[None]:
    """A trigger of the team's own on the orders."""
    run(engine, COPIES.format(body=body))
    try:
        yield
    finally:
        run(engine, "DROP FUNCTION copy_order CASCADE")


def test_what_a_write_at_complete_changes_of_another_table_is_noted_there(store, complete):
    """Even under the same stamp: the receipt is for the orders alone."""
    columns = "partition_key, dualstore_stamp, dualstore_revision"
    with copying(complete, f"INSERT INTO notes ({columns}) VALUES ('x', NEW.dualstore_stamp, 1);"):
        ask(store, "PutItem", Item=order())
    (noted,) = outbox(complete)
    assert (noted.table_name, noted.done_at) == (NOTE_TABLE, None)
    ((made,),) = run(complete, "SELECT dualstore_stamp FROM notes")
    assert [noted.stamp] == [made] != receipts(complete)


def test_a_row_that_a_write_at_complete_brings_about_is_stamped(store, complete):
    with copying(complete, "INSERT INTO orders (customer, number) VALUES ('ann', 2);"):
        ask(store, "PutItem", Item=order())
    rows = run(complete, "SELECT dualstore_stamp, dualstore_revision FROM orders")
    assert len(set(rows)) == 2
    assert all(stamp is not None and revision is not None for stamp, revision in rows)


# --- As the mirror ---------------------------------------------------------------------------


@pytest.fixture
def mirror(engine: sa.Engine) -> sa.Engine:
    set_role(engine, PostgresRole.MIRROR)
    return engine


def test_what_a_mirror_is_told_leaves_no_trace(store, mirror):
    assert store.write_direct(TABLE, key(), order(stamp=A), stamp=A, predecessor=None, epoch=EPOCH)
    assert store.write_direct(TABLE, key(), order(stamp=B), stamp=B, predecessor=A, epoch=EPOCH)
    assert stored(mirror)[0] == B
    assert store.write_settled(TABLE, key(number=2), order(number=2, stamp=A), seen=NOTHING, epoch=EPOCH)
    assert store.write_direct(TABLE, key(), None, stamp=A, predecessor=B, epoch=EPOCH)
    assert outbox(mirror) == []
    assert store.dirty_keys(TABLE) == []


@pytest.mark.parametrize(
    ("statement", "numbers"),
    [
        ("INSERT INTO orders (customer, number) VALUES ('ann', 2)", {2}),
        ("UPDATE orders SET price = 2", {1}),
        ("UPDATE orders SET number = 3", {1, 3}),
        ("DELETE FROM orders", {1}),
    ],
)
def test_a_write_around_dualstore_puts_its_keys_in_doubt(store, mirror, statement, numbers):
    store.write_direct(TABLE, key(), order(stamp=A), stamp=A, predecessor=None, epoch=EPOCH)
    run(mirror, statement)
    doubts = {key_bytes(ORDERS.shape.keys, doubt.key) for doubt in store.dirty_keys(TABLE)}
    assert doubts == {key_bytes(ORDERS.shape.keys, key(number=number)) for number in numbers}
    assert outbox(mirror) == []


@pytest.mark.parametrize(
    "text", ["a", "\x00", "\x01", "\x01\x00\x02", "\x01\x01\x00\x00x", "é\x00\U0001f600", "'\"\\"]
)
def test_a_doubt_names_its_key_as_dualstore_does(store, mirror, text):
    named = {"customer": {"S": text}, "number": {"N": "-1.5"}}
    values = dict(zip(("customer", "number"), ORDERS.encode_key(named), strict=True))
    run(mirror, "INSERT INTO orders (customer, number) VALUES (:customer, :number)", **values)
    ((raw, typed),) = run(mirror, "SELECT key, item_key::text FROM dualstore.dirty")
    assert raw == key_bytes(ORDERS.shape.keys, named)
    assert typed_item(typed) == named


def test_a_doubt_names_a_binary_key_as_dualstore_does(mirror):
    named = {"id": {"B": bytes(range(256))}}
    run(mirror, "INSERT INTO notes (partition_key) VALUES (:id)", id=named["id"]["B"])
    ((raw, typed),) = run(mirror, "SELECT key, item_key::text FROM dualstore.dirty")
    assert raw == key_bytes(NOTES.shape.keys, named)
    assert typed_item(typed) == named


def test_where_postgresql_is_nothing_nothing_is_noted(engine):
    for role in (PostgresRole.NONE, None):
        if role is None:
            run(engine, "DELETE FROM dualstore.control")
        else:
            set_role(engine, role)
        run(engine, "INSERT INTO orders (customer, number) VALUES ('ann', 1)")
        assert stored(engine)[0] is None
        run(engine, "TRUNCATE orders")
    assert outbox(engine) == []
    assert run(engine, "SELECT * FROM dualstore.dirty") == []


# --- Installation ----------------------------------------------------------------------------


def test_whoever_may_write_the_table_needs_no_right_to_the_outbox(engine):
    run(engine, "DROP ROLE IF EXISTS clerk")
    run(engine, "CREATE ROLE clerk")
    run(engine, "GRANT INSERT ON orders TO clerk")
    run(engine, "GRANT USAGE ON SCHEMA dualstore TO clerk")
    run(engine, "GRANT USAGE ON SEQUENCE dualstore.revision TO clerk")
    with engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL ROLE clerk"))
        connection.execute(sa.text("INSERT INTO orders (customer, number) VALUES ('ann', 1)"))
    assert len(outbox(engine)) == 1
    run(engine, "DROP OWNED BY clerk")
    run(engine, "DROP ROLE clerk")


def test_triggers_are_put_on_once_and_taken_off(engine):
    before = run(engine, "SELECT oid, xmin FROM pg_trigger WHERE NOT tgisinternal ORDER BY oid")
    triggers.install(engine, ORDERS)
    assert run(engine, "SELECT oid, xmin FROM pg_trigger WHERE NOT tgisinternal ORDER BY oid") == before
    triggers.remove(engine, ORDERS)
    triggers.remove(engine, ORDERS)
    try:
        assert not triggers.is_installed(engine, ORDERS)
        assert triggers.is_installed(engine, NOTES)
        run(engine, "INSERT INTO orders (customer, number) VALUES ('ann', 1)")
        assert outbox(engine) == []
    finally:
        triggers.install(engine, ORDERS)
    assert triggers.is_installed(engine, ORDERS)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE orders DISABLE TRIGGER dualstore_note",
        "DROP TRIGGER dualstore_truncate ON orders",
        "COMMENT ON TRIGGER dualstore_note ON orders IS 'dualstore of old'",
    ],
)
def test_triggers_that_are_not_as_they_should_be_are_put_right(engine, change):
    run(engine, change)
    assert not triggers.is_installed(engine, ORDERS)
    triggers.install(engine, ORDERS)
    assert triggers.is_installed(engine, ORDERS)


def test_a_table_in_use_gets_its_triggers_when_its_writers_pause(engine):
    triggers.remove(engine, ORDERS)
    writer = engine.connect()
    writer.execute(sa.text("INSERT INTO orders (customer, number) VALUES ('ann', 1)"))
    with pytest.raises(Unavailable):
        triggers.install(engine, ORDERS, patience=timedelta(seconds=0.5))
    with ThreadPoolExecutor(1) as pool:
        installing = pool.submit(triggers.install, engine, ORDERS)
        threading.Event().wait(0.4)
        # Somebody else's write is not held up for longer than the attempt's patience with the lock.
        run(engine, "INSERT INTO orders (customer, number) VALUES ('bob', 1)")
        writer.rollback()
        writer.close()
        installing.result()
    assert triggers.is_installed(engine, ORDERS)


def test_a_table_with_a_quoted_name_in_a_schema_gets_its_triggers(engine):
    metadata = sa.MetaData(schema="odd one")
    odd = unmapped_table("odd", NOTES.shape, table_name='o"d%d:x{}', metadata=metadata)
    run(engine, 'CREATE SCHEMA "odd one"')
    metadata.create_all(engine)
    triggers.install(engine, odd)
    with engine.begin() as connection:
        connection.execute(odd.table.insert().values(partition_key=b"x"))
    assert len(outbox(engine)) == 1
    assert hazards(engine, odd) == []
    run(engine, 'DROP SCHEMA "odd one" CASCADE')
    triggers.remove(engine, NOTES)
    triggers.install(engine, NOTES)


HAZARDS = {
    "ALTER TABLE orders ADD CONSTRAINT fk FOREIGN KEY (batch) REFERENCES others ON DELETE CASCADE": "CASCADE",
    "ALTER TABLE others ADD CONSTRAINT of_order FOREIGN KEY (customer, number) REFERENCES orders": "of_order",
    "CREATE UNIQUE INDEX one_label ON orders (label)": "one_label",
    "ALTER TABLE orders ADD CONSTRAINT apart EXCLUDE (label WITH =)": "apart",
    "ALTER TABLE orders ENABLE ROW LEVEL SECURITY": "row level security",
    "CREATE TRIGGER own BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION count_orders()": "trigger own",
    "CREATE RULE quiet AS ON DELETE TO orders DO INSTEAD NOTHING": "rule quiet",
    "ALTER TABLE orders DISABLE TRIGGER dualstore_note": "dualstore_note",
    "ALTER TABLE orders SET UNLOGGED": "unlogged",
    "ALTER TABLE orders ALTER price TYPE numeric(8, 2)": "numeric(8,2)",
    "CREATE PUBLICATION told FOR TABLE orders; ALTER TABLE orders REPLICA IDENTITY NOTHING": "DEFAULT",
}


@pytest.mark.parametrize("change", HAZARDS)
def test_what_would_hurt_is_found_and_has_a_remedy(engine, change):
    with engine.connect() as connection:
        connection.execute(sa.text(COUNTER))
        connection.execute(sa.text("CREATE TABLE others (id int PRIMARY KEY, customer text, number numeric)"))
        connection.commit()
        before = hazards(engine, ORDERS)
        try:
            connection.execute(sa.text(change))
            connection.commit()
            (found,) = set(hazards(engine, ORDERS)) - set(before)
        finally:
            connection.rollback()
            for remedy in REMEDIES:
                connection.execute(sa.text(remedy))
            connection.commit()
    assert HAZARDS[change] in found
    assert len(before) == 1
    assert "orders_code_key" in before[0]


REMEDIES = (
    "DROP PUBLICATION IF EXISTS told",
    "DROP TABLE others CASCADE",
    "ALTER TABLE orders DROP CONSTRAINT IF EXISTS fk",
    "DROP INDEX IF EXISTS one_label",
    "ALTER TABLE orders DROP CONSTRAINT IF EXISTS apart",
    "ALTER TABLE orders DISABLE ROW LEVEL SECURITY",
    "DROP TRIGGER IF EXISTS own ON orders",
    "DROP RULE IF EXISTS quiet ON orders",
    "ALTER TABLE orders ENABLE TRIGGER dualstore_note",
    "ALTER TABLE orders SET LOGGED",
    "ALTER TABLE orders ALTER price TYPE numeric",
    "ALTER TABLE orders REPLICA IDENTITY DEFAULT",
)
