"""What an update does as SQL, to rows on a real server, is what the evaluator does to their items."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pynamodb.attributes import ListAttribute, UnicodeAttribute
from pynamodb.models import Model
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dualstore import schema
from dualstore.control import PostgresRole
from dualstore.errors import OutcomeUnknown, RequestRejected
from dualstore.items import (
    MAX_ITEM_SIZE_BYTES,
    STAMP,
    Item,
    item_size_bytes,
    key_bytes,
    normalized_item,
    without_stamps,
)
from dualstore.mapping import Mirrored, TableMapping, map_table, quoted
from dualstore.operations import UpdateItem
from dualstore.stores import semantics
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres.authority_single import SingleWrite, single_write
from dualstore.stores.postgres.authority_statements import AuthorityStatements
from dualstore.stores.postgres.exchanges import Answer, Exchange
from dualstore.stores.postgres.row_updates import RowUpdates
from dualstore.stores.postgres.sent_sizes import most_bytes
from dualstore.stores.postgres_control import PostgresControl
from integration.postgres import authority
from integration.postgres.authority import ask
from integration.postgres.orders import TABLES, key, order
from mapping_cases import MAPPINGS, Base, items, numbers, scalars, values

EXAMPLES = int(os.environ.get("DUALSTORE_SQL_EXAMPLES", "8"))
"""Of each table; thousands say more."""
EPOCH, MADE = "1", b"\7" * 16
SERVER = {"suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@pytest.fixture(scope="module")
def connection(postgres_server) -> Iterator[psycopg.Connection]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    schema.upgrade(engine)
    Base.metadata.create_all(engine)
    for mapping in MAPPINGS.values():
        PostgresControl(engine).raise_fence(mapping.shape.name, epoch=int(EPOCH), role=PostgresRole.AUTHORITY)
    dsn = url.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        yield connection
    engine.dispose()
    postgres_server.drop_database(url)


class Request:
    """A request in the making: names and values get placeholders."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: Item = {}

    def name(self, attribute: str) -> str:
        placeholder = f"#n{len(self.names)}"
        self.names[placeholder] = attribute
        return placeholder

    def value(self, value: Any) -> str:
        placeholder = f":v{len(self.values)}"
        self.values[placeholder] = value
        return placeholder


SMALL = st.sampled_from(
    ["0", "1", "-1", "0.5", "2.50", "32767", "2147483647", "99999999.99", "1E17", "1E18", "1E-18", "1E-19"]
).map(lambda text: {"N": text})
NUMBER = SMALL | numbers.map(lambda text: {"N": text})


# How an update may touch an attribute: the clause, and what it says there.
ANY_COLUMN = {
    "constant": ("SET", "{name} = {near}"),
    "default": ("SET", "{name} = if_not_exists({name}, {near})"),
    "removal": ("REMOVE", "{name}"),
}
NUMBERS = {
    "sum": ("ADD", "{name} {number}"),
    "plus": ("SET", "{name} = {number} + {name}"),
    "minus": ("SET", "{name} = {name} - {number}"),
    "of another": ("SET", "{name} = {other} + {number}"),
    "default plus": ("SET", "{name} = if_not_exists({name}, {number}) + {number}"),
    "of constants": ("SET", "{name} = {number} + {number}"),
    "of constants, less": ("SET", "{name} = {number} - {number}"),
}
NEVER_COMPILED = {
    "nested": ("SET", "{name}.a = {near}"),
    "members": ("ADD", "{name} {set}"),
    "fewer members": ("DELETE", "{name} {set}"),
    "copy": ("SET", "{name} = {other}"),
}


class Parts(dict[str, str]):
    """The parts of an action, each drawn when it is asked for."""

    def __init__(self, makers: dict[str, Callable[[], str]]) -> None:
        super().__init__()
        self.makers = makers

    def __missing__(self, part: str) -> str:
        return self.makers[part]()


@st.composite
def changes(draw: st.DrawFn, mapping: TableMapping, item: Item) -> tuple[str, Request]:
    """An UpdateExpression on some attributes: those that have a column, and those that have none."""
    asked = Request()
    free = sorted(
        {*mapping.column_of, *item, "absent", "odd\x01"} - {*mapping.shape.keys.names, "_dsv", "_dsp"}
    )
    countable = [each.attribute for each in mapping.columns if each.type == "N" and each.attribute in free]
    clauses: dict[str, list[str]] = {"SET": [], "REMOVE": [], "ADD": [], "DELETE": []}
    anything = NEVER_COMPILED if draw(st.integers(0, 3)) == 0 else {}
    for attribute in draw(
        st.lists(st.sampled_from(free + countable * 3), min_size=1, max_size=4, unique=True)
    ):
        mine = NUMBER if attribute in countable else scalars | values
        near = st.just(item[attribute]) | mine if attribute in item else mine
        kinds = {**ANY_COLUMN, **(NUMBERS if attribute in countable else {}), **anything}
        clause, said = kinds[draw(st.sampled_from(sorted(kinds)))]
        name = asked.name(attribute)
        parts = Parts(
            {
                "name": lambda name=name: name,
                "near": lambda near=near: asked.value(draw(near)),
                "number": lambda: asked.value(draw(NUMBER)),
                "other": lambda: asked.name(draw(st.sampled_from(countable or free))),
                "set": lambda: asked.value({"SS": ["a", "b"]}),
            }
        )
        clauses[clause].append(said.format_map(parts))
    return " ".join(f"{clause} {', '.join(said)}" for clause, said in clauses.items() if said), asked


@st.composite
def updates(draw: st.DrawFn, mapping: TableMapping, item: Item, key: Item) -> UpdateItem:
    text, asked = draw(changes(mapping, item))
    request: dict[str, Any] = {"TableName": mapping.shape.name, "Key": key, "UpdateExpression": text}
    names = sorted({*item, *mapping.column_of} - {"_dsv", "_dsp"})
    match draw(st.integers(0, 3)):
        case 0:
            tested = asked.name(draw(st.sampled_from(names)))
            request["ConditionExpression"] = f"attribute_exists({tested})"
        case 1:
            attribute = draw(st.sampled_from(names))
            other = asked.value(draw(st.just(item[attribute]) | scalars if attribute in item else scalars))
            request["ConditionExpression"] = f"{asked.name(attribute)} = {other}"
    if asked.names:
        request["ExpressionAttributeNames"] = asked.names
    if asked.values:
        request["ExpressionAttributeValues"] = asked.values
    request["ReturnValues"] = draw(st.sampled_from(["NONE", "ALL_NEW", "UPDATED_NEW"]))
    request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    request["ReturnConsumedCapacity"] = "TOTAL"
    return UpdateItem(request)


def planned(mapping: TableMapping, operation: UpdateItem, lock: Sequence[str] = ()) -> SingleWrite | None:
    plan = semantics.plan_write(operation, {mapping.shape.name: mapping.shape})
    key = key_bytes(mapping.shape.keys, plan.keys[0])
    return single_write(operation, plan, AuthorityStatements(mapping), key=key, epoch=EPOCH, lock=lock)


def row(connection: psycopg.Connection, mapping: TableMapping, key: Item) -> Item | None:
    statements = AuthorityStatements(mapping)
    found = connection.execute(statements.get, mapping.encode_key(key)).fetchone()
    return None if found is None else mapping.decode(found)


def is_bound(mapping: TableMapping, answer: Answer, held: Item) -> bool:
    """Whether an item is no larger than what the lengths of its row say that it is at most."""
    most = most_bytes(mapping, answer.sizes_bytes(len(mapping.column_names)))
    return most is None or item_size_bytes(held) <= most


@pytest.mark.parametrize("name", ["lines", "elsewhere"])
@pytest.mark.parametrize(
    "element", [{"N": "1"}, {"NULL": True}, {"M": {}}, {"M": {"": {"L": []}}}, {"L": [{"L": [{"L": []}]}]}]
)
def test_a_document_of_short_elements_is_no_larger_than_its_row_lets_expect(connection, name, element):
    held = {"c": {"S": "c"}, "number": {"N": "1"}, name: {"L": [element] * 500}}
    is_bound_as_a_row(connection, MAPPINGS["orders"], held)


class Lists(Model):
    class Meta:
        table_name = "lists"

    k = UnicodeAttribute(hash_key=True)
    counts: Any = ListAttribute(null=True)
    words: Any = ListAttribute(null=True)


class ListsBase(DeclarativeBase):
    pass


class ListsRow(Mirrored, ListsBase):
    __tablename__ = "lists"

    k: Mapped[str] = mapped_column(sa.Text(collation="C"), primary_key=True)
    counts: Mapped[list[int] | None] = mapped_column(sa.ARRAY(sa.Integer))
    words: Mapped[list[str] | None] = mapped_column(sa.ARRAY(sa.Text))


LISTS = map_table("lists", Lists, ListsRow)


@pytest.mark.parametrize(
    ("name", "element"), [("counts", {"N": "1"}), ("counts", {"N": "-12"}), ("words", {"S": "a"})]
)
@pytest.mark.parametrize("length", [0, 1, 500])
def test_a_list_in_an_array_is_no_larger_than_its_row_lets_expect(connection, name, element, length):
    is_bound_as_a_row(connection, LISTS, {"k": {"S": "k"}, name: {"L": [element] * length}})


def is_bound_as_a_row(connection: psycopg.Connection, mapping: TableMapping, held: Item) -> None:
    columns = ", ".join(mapping.read_expressions("t"))
    values = ", ".join(
        f"{placeholder} AS {quoted(column)}"
        for placeholder, column in zip(mapping.placeholders, mapping.column_names, strict=True)
    )
    row = (f"SELECT {columns} FROM (SELECT {values}) AS t", mapping.encode(held))
    (answer,) = Exchange(connection).answers([row])
    assert is_bound(mapping, answer, held)
    assert most_bytes(mapping, answer.sizes_bytes(len(mapping.column_names))) is not None


def refused(call: Any) -> tuple[Any, str, Any]:
    try:
        return call(), "", None
    except RequestRejected as error:
        return None, error.code, error.item


@pytest.mark.parametrize("table", MAPPINGS)
@settings(max_examples=EXAMPLES, **SERVER)
@given(data=st.data())
def test_sql_and_the_evaluator_do_the_same(connection, table, data):
    mapping = MAPPINGS[table]
    old = normalized_item(data.draw(items(mapping)))
    mine = {name: old[name] for name in mapping.shape.keys.names}
    names = ", ".join(map(quoted, mapping.column_names))
    insert = f"INSERT INTO {mapping.table.name} ({names}) SELECT {', '.join(mapping.placeholders)}"
    is_there = data.draw(st.integers(0, 4)) > 0
    lock = data.draw(st.sampled_from([(), ("7", "1000")]))
    with connection.transaction(force_rollback=True):
        if lock:
            connection.execute("UPDATE dualstore.control SET stage = 'complete'")
        if is_there:
            connection.execute(insert, mapping.encode(old))
        before = row(connection, mapping, mine)
        asked = data.draw(st.lists(updates(mapping, old, mine), min_size=1, max_size=4))
        for made, operation in enumerate(asked, int.from_bytes(MADE)):
            stamp = made.to_bytes(len(MADE))
            try:
                single = planned(mapping, operation, lock)
            except RequestRejected:
                continue
            held = None if before is None else without_stamps(before)
            expected, code, shown = refused(lambda: semantics.write(operation, mapping.shape, held))  # noqa: B023 - at once
            if single is None:
                continue
            (answer,) = Exchange(connection).answers([single.statement(stamp)])
            verdict, _, is_done = answer.texts(len(mapping.column_names) + 2)
            event("done" if is_done == "t" else str(verdict))
            assert held is None or is_bound(mapping, answer, held)
            response, answered, item = refused(lambda: single.outcome(answer).response)  # noqa: B023 - at once
            after = row(connection, mapping, mine)
            if response is None and not answered:
                assert after == before, "it says that it has done nothing"
                continue
            assert (answered, item) == (code, shown)
            if code:
                assert after == before
            else:
                assert response == expected.response
                assert (None if after is None else without_stamps(after)) == expected.new_item
                assert after is None or after[STAMP] == {"B": stamp}
            before = after


COMPILED = {
    "constants": ("SET code = :s, weight = :n", {":s": {"S": "x"}, ":n": {"N": "1"}}),
    "default": ("SET code = if_not_exists(code, :s)", {":s": {"S": "x"}}),
    "removal": ("REMOVE code, weight", None),
    "sum": ("ADD price :n, quantity :n", {":n": {"N": "2"}}),
    "difference": ("SET price = price - :n", {":n": {"N": "0.5"}}),
    "of another": ("SET price = quantity + :n", {":n": {"N": "0.5"}}),
    "sum of constants": ("SET price = :n + :n", {":n": {"N": "0.5"}}),
    "default sum": ("SET price = if_not_exists(price, :n) + :n", {":n": {"N": "0.5"}}),
}


@pytest.mark.parametrize("update", COMPILED)
def test_an_update_is_compiled(update):
    mapping = TABLES["orders-prod"]
    text, given_values = COMPILED[update]
    request: dict[str, Any] = {"TableName": mapping.shape.name, "Key": key(), "UpdateExpression": text}
    if given_values:
        request["ExpressionAttributeValues"] = given_values
    assert planned(mapping, UpdateItem(request)) is not None


@pytest.fixture(scope="module")
def authority_engine(postgres_server) -> Iterator[sa.Engine]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url, pool_size=8)
    authority.prepare(engine)
    yield engine
    engine.dispose()
    postgres_server.drop_database(url)


@pytest.fixture
def engine(authority_engine: sa.Engine) -> sa.Engine:
    authority.empty(authority_engine)
    return authority_engine


@pytest.fixture
def store(engine: sa.Engine) -> PostgresStore:
    return PostgresStore(engine, TABLES)


def held(store: PostgresStore, number: int = 1) -> Item | None:
    found: Item | None = ask(store, "GetItem", Key=key(number=number)).get("Item")
    return None if found is None else without_stamps(found)


def update(store: PostgresStore, text: str, *, number: int = 1, **request: Any) -> dict[str, Any]:
    return ask(store, "UpdateItem", Key=key(number=number), UpdateExpression=text, **request)


ONE = {":n": {"N": "1"}}
WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'WITH found%'"


def test_updates_of_one_key_on_many_connections_wait_for_one_another(store):
    """Each is one round trip, and reads what the one before it wrote, though its snapshot may be older."""
    rounds, threads = 40, 4
    seen: list[str] = []

    def count() -> None:
        for _ in range(rounds):
            response = update(store, "ADD quantity :n SET label = :l", values={**ONE, ":l": {"S": "x"}},
                              ReturnValues="ALL_NEW")  # fmt: skip
            seen.append(response["Attributes"]["quantity"]["N"])

    working = [threading.Thread(target=count) for _ in range(threads)]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
    assert held(store) == {**key(), "quantity": {"N": str(rounds * threads)}, "label": {"S": "x"}}
    assert sorted(map(int, seen)) == list(range(1, rounds * threads + 1)), "each saw a sum of its own"


def test_somebody_without_our_lock_who_comes_between_is_not_overtaken(store, engine):
    """EvalPlanQual: the row that the update waited for is another one, and the update is made anew on it."""
    ask(store, "PutItem", Item=order(quantity=1))
    done: list[dict[str, Any]] = []
    working = threading.Thread(
        target=lambda: done.append(update(store, "ADD quantity :n", values=ONE, ReturnValues="UPDATED_NEW"))
    )
    with engine.begin() as other:
        other.execute(sa.text("UPDATE orders SET quantity = 50, label = 'theirs'"))
        working.start()
        with engine.connect() as looking:
            while not looking.execute(sa.text(WAITING)).all():
                working.join(0.01)
                assert working.is_alive(), "it did not wait"
                looking.rollback()
    working.join()
    assert done == [{"Attributes": {"quantity": {"N": "51"}}}]
    assert held(store) == {**key(), "quantity": {"N": "51"}, "label": {"S": "theirs"}}


def test_an_item_may_become_as_large_as_it_may_be_and_no_larger(store):
    """SQL does not know the size: near the limit the evaluator decides."""
    room = MAX_ITEM_SIZE_BYTES - item_size_bytes({**key(), "status": {"S": ""}, "note": {"S": ""}})
    ask(store, "PutItem", Item=order(note="n" * (room - 1)))
    update(store, "SET #s = :s", values={":s": {"S": "x"}}, ExpressionAttributeNames={"#s": "status"})
    for text in ("xy", "é"):
        with pytest.raises(ClientError, match="Item size"):
            update(
                store, "SET #s = :s", values={":s": {"S": text}}, ExpressionAttributeNames={"#s": "status"}
            )
    assert held(store) == order(note="n" * (room - 1), status="x")
    for number in (1, 2):  # one that is there, and one that is not
        with pytest.raises(ClientError, match="Item size"):
            update(store, "SET note = :s", values={":s": {"S": "x" * MAX_ITEM_SIZE_BYTES}}, number=number)
    assert held(store, 2) is None


@pytest.mark.parametrize("column", ["status", "label", "note"])
@pytest.mark.parametrize("repeats", [100, 30_000, 110_000])
@pytest.mark.parametrize("text", ["é", "\x00", "€"])
def test_the_estimate_of_a_row_is_not_below_its_size(column, repeats, text, connection):
    """Of texts in columns, of others that do not fit, and of those that have no column."""
    mapping = TABLES["orders-prod"]
    item = order(**{column: text * repeats})
    if item_size_bytes(item) > MAX_ITEM_SIZE_BYTES:
        pytest.skip("no item")
    room = RowUpdates(mapping).room(0)
    assert room is not None
    told, most = room
    row = dict(zip(mapping.column_names, mapping.encode(item), strict=True))
    columns = ", ".join(
        f"${n}::{type_} AS {quoted(name)}"
        for n, (name, type_) in enumerate(zip(mapping.column_names, mapping.cast_types, strict=True), 1)
    )
    ((estimated,),) = connection.execute(
        f"SELECT {told} FROM (SELECT {columns}) t", list(row.values())
    ).fetchall()
    assert estimated + MAX_ITEM_SIZE_BYTES - most >= item_size_bytes(item)


def test_a_sum_that_dynamodb_would_refuse_is_refused(store):
    """SQL's numbers have as many digits as it takes, so it computes only where 38 are surely enough."""
    large = order(price=int("9" * 38))
    ask(store, "PutItem", Item=large)
    for text in ("0.5", "1E-18"):
        with pytest.raises(ClientError, match="38 significant digits"):
            update(store, "ADD price :n", values={":n": {"N": text}})
    assert held(store) == large


OLDER_THAN_THEIR_INDEX = {
    "a column": "status = ''",
    "another type than a column's": """dualstore_overflow = '{"price": {"S": "dear"}}'""",
    "no column": """dualstore_overflow = '{"weight": {"S": "heavy"}}'""",
    "too long": "status = repeat('s', 1025 * 2)",
}


@pytest.mark.parametrize("place", OLDER_THAN_THEIR_INDEX)
def test_an_item_that_an_index_cannot_hold_is_not_written(store, engine, place):
    """DynamoDB refuses every write to it, also one that leaves the index's key as it is."""
    ask(store, "PutItem", Item=order())
    authority.run(engine, f"UPDATE orders SET {OLDER_THAN_THEIR_INDEX[place]}".replace(":", r"\:"))
    before = held(store)
    with pytest.raises(ClientError, match="ValidationException"):
        update(store, "SET code = :c", values={":c": {"S": "c"}})
    assert held(store) == before
    update(store, "REMOVE #s, price, weight SET code = :c", values={":c": {"S": "c"}},
           ExpressionAttributeNames={"#s": "status"})  # fmt: skip
    assert held(store) == order(code="c")


def test_an_update_at_complete_leaves_a_row_that_answers_for_it(store, engine):
    """As a put does: one entry of the outbox with the row's own stamp, and a revision of its own."""
    ask(store, "PutItem", Item=order(quantity=1))
    (before,) = authority.run(engine, "SELECT dualstore_stamp, dualstore_revision FROM orders")
    authority.outbox(engine)
    update(store, "ADD quantity :n", values=ONE)
    (after,) = authority.run(engine, "SELECT dualstore_stamp, dualstore_revision FROM orders")
    (entry,) = authority.run(engine, "SELECT stamp, predecessor FROM dualstore.outbox")
    assert (entry.stamp, entry.predecessor) == (after.dualstore_stamp, before.dualstore_stamp)
    assert after.dualstore_revision > before.dualstore_revision


def test_an_update_brings_a_deleted_item_back_and_clears_its_tombstone(store, engine):
    ask(store, "PutItem", Item=order())
    ask(store, "DeleteItem", Key=key())
    assert authority.run(engine, "SELECT 1 FROM dualstore.tombstones")
    update(store, "ADD quantity :n", values=ONE)
    assert not authority.run(engine, "SELECT 1 FROM dualstore.tombstones")
    assert held(store) == order(quantity=1)


def test_a_removal_from_nothing_makes_nothing(store, engine):
    assert update(store, "REMOVE label", ReturnValues="ALL_NEW") == {}
    assert held(store) is None
    assert not authority.outbox(engine)


def test_what_does_not_fit_its_column_goes_to_the_overflow_and_comes_back(store):
    ask(store, "PutItem", Item=order(quantity=2147483647, label="short"))
    update(store, "ADD quantity :n SET label = :l", values={**ONE, ":l": {"S": "much too long"}})
    assert held(store) == order(quantity=2147483648, label="much too long")
    update(store, "SET quantity = :n, label = :l", values={**ONE, ":l": {"S": "short"}})
    assert held(store) == order(quantity=1, label="short")
    update(store, "SET label = if_not_exists(label, :l)", values={":l": {"S": "much too long"}})
    assert held(store) == order(quantity=1, label="short")
    ((overflow,),) = authority.run(store._sessions._engine, "SELECT dualstore_overflow FROM orders")
    assert overflow is None


def test_a_sum_of_constants_that_its_column_does_not_hold_goes_to_the_overflow(store):
    """PostgreSQL would compute it while it plans, and refuse what the evaluator makes."""
    ask(store, "PutItem", Item=order(quantity=1, price=1))
    constants = {":a": {"N": "2147483647"}, **ONE}
    update(store, "SET quantity = :a + :n, price = price + :n", values=constants)
    assert held(store) == order(quantity=2147483648, price=2)


ILLEGIBLE = {
    "a moment without end": "placed = 'infinity'",
    "a year that Python has not": "placed = '12000-01-01 00:00+00'",
    "no number": "price = 'NaN'",
}


def illegible(store: PostgresStore, engine: sa.Engine, what: str) -> None:
    """A row as psql may leave one: no item can be made of it, or psycopg cannot even load it."""
    ask(store, "PutItem", Item=order(quantity=1))
    authority.run(engine, f"UPDATE orders SET {what}".replace(":", r"\:"))


def quantities(engine: sa.Engine) -> list[int]:
    return [each.quantity for each in authority.run(engine, "SELECT quantity FROM orders")]


@pytest.mark.parametrize("what", ILLEGIBLE)
@pytest.mark.parametrize("returned", ["NONE", "UPDATED_NEW", "ALL_OLD"])
def test_an_update_of_a_row_that_cannot_be_read_is_refused_and_not_made(store, engine, what, returned):
    illegible(store, engine, ILLEGIBLE[what])
    for _ in range(2):
        with pytest.raises(ClientError, match="ValidationException"):
            update(
                store, "ADD quantity :n", values=ONE, ReturnValues=returned, ReturnConsumedCapacity="TOTAL"
            )
    assert quantities(engine) == [1]


@pytest.mark.parametrize("what", ILLEGIBLE)
@pytest.mark.parametrize("capacity", ["NONE", "TOTAL"])
def test_a_row_that_cannot_be_read_is_written_over_and_deleted(store, engine, what, capacity):
    """What was there nobody asks for. The answer comes after the COMMIT: it must not be a refusal."""
    asked = {"ReturnConsumedCapacity": capacity}
    illegible(store, engine, ILLEGIBLE[what])
    answer = ask(store, "PutItem", Item=order(quantity=2), **asked)
    assert answer.keys() == ({"ConsumedCapacity"} if capacity == "TOTAL" else set())
    assert held(store) == order(quantity=2)
    illegible(store, engine, ILLEGIBLE[what])
    ask(store, "DeleteItem", Key=key(), **asked)
    assert quantities(engine) == []


@pytest.mark.parametrize("condition", ["attribute_exists(customer)", "quantity = :n"])
def test_a_condition_on_a_row_that_cannot_be_read_is_answered_as_it_was_decided(store, engine, condition):
    illegible(store, engine, "placed = 'infinity'")
    values = {"values": ONE} if ":n" in condition else {}
    assert ask(store, "PutItem", Item=order(quantity=2), ConditionExpression=condition, **values) == {}
    assert held(store) == order(quantity=2)
    illegible(store, engine, "placed = 'infinity'")
    with pytest.raises(ClientError, match="ValidationException"):
        ask(store, "DeleteItem", Key=key(), ConditionExpression="attribute_not_exists(customer)")
    assert quantities(engine) == [1]


def test_what_was_carried_out_is_never_said_to_be_refused(store, engine):
    """No SQL sees that this overflow makes no item."""
    illegible(store, engine, """dualstore_overflow = '{"zz": {"B": "a"}}'""")
    assert update(store, "ADD quantity :n", values=ONE) == {}
    for returned in ("ALL_NEW", "UPDATED_NEW"):
        with pytest.raises(OutcomeUnknown, match=r"has carried out .* do not repeat"):
            update(store, "ADD quantity :n", values=ONE, ReturnValues=returned)
    assert quantities(engine) == [4]


READABLE_BUT_FOR = {
    "orders": {"placed": "-infinity", "total": "NaN", "sizes": "{1,NaN}"},
    "readings": {
        "size": "HUGE",
        "day": "infinity",
        "at": "infinity",
        "coarse": "12000-01-01",
        "since": "-infinity",
        "price": "NaN",
        "double": "-Infinity",
        "single": "NaN",
    },
}


@pytest.mark.parametrize(
    ("table", "column"), [(t, c) for t, named in READABLE_BUT_FOR.items() for c in named]
)
@settings(max_examples=3, **SERVER)
@given(data=st.data())
def test_sql_sees_what_no_item_can_be_made_of(connection, table, column, data):
    """A label that an enumeration has got since, a moment or number that is none here; nothing else."""
    mapping = MAPPINGS[table]
    names = ", ".join(map(quoted, mapping.column_names))
    insert = f"INSERT INTO {mapping.table.name} ({names}) SELECT {', '.join(mapping.placeholders)}"
    readable = f"SELECT {RowUpdates(mapping).readable} FROM {mapping.table.name} t"
    with connection.transaction(force_rollback=True):
        connection.execute(insert, mapping.encode(normalized_item(data.draw(items(mapping)))))
        assert connection.execute(readable).fetchone() == (True,)
        connection.execute(
            f"UPDATE {mapping.table.name} SET {quoted(column)} = '{READABLE_BUT_FOR[table][column]}'"
        )
        assert connection.execute(readable).fetchone() == (False,)


def test_a_key_of_an_index_is_measured_as_dynamodb_does(connection):
    """Whatever the encoding of the database: 600 characters are 600 bytes there, and 1200 here."""
    mapping = TABLES["orders-prod"]
    types = zip(mapping.column_names, mapping.cast_types, strict=True)
    columns = ", ".join(f"NULL::{type_} AS {quoted(name)}" for name, type_ in types if name != "status")
    sound = f"SELECT {RowUpdates(mapping).sound} FROM (SELECT repeat('é', $1::int) AS status, {columns}) t"
    connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        there = {"dbname": "latin", "password": connection.info.password}
        with psycopg.connect(connection.info.dsn, cursor_factory=psycopg.RawCursor, **there) as latin:
            assert latin.execute(sound, [512]).fetchone() == (True,)
            assert latin.execute(sound, [600]).fetchone() == (False,)
    finally:
        connection.execute("DROP DATABASE latin")
