"""A store as the authority: epochs, stamps that callers do not see, changes noted, tokens recognised."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from contract import models, shapes
from contract.tables import N, S, rejects
from dualstore.control import PostgresRole
from dualstore.errors import AuthorityMoved
from dualstore.items import STAMP, TableShape
from dualstore.mapping import Mapped, unmapped_table
from dualstore.operations import parse
from dualstore.schema import create_unmapped
from dualstore.stores.base import NOTHING, SettledWrite
from dualstore.stores.memory.authority import MemoryAuthority
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.stores.postgres import PostgresStore, triggers
from dualstore.stores.semantics import plan_write

EPOCH = 7
LIMIT_BYTES = 409_600


@dataclass
class Ledger:
    """An authority with tables of its own, and a look at what it noted.

    Attributes:
        store: the authority.
        create: makes an empty table of this kind and name.
        set_role: what the store is for a table at `EPOCH`.
        noted: the keys that were noted for the other side since the last look, one for each change.
        forget_tokens: lets ten minutes pass.
    """

    store: Any
    create: Callable[[str, str], None]
    set_role: Callable[[str, PostgresRole], None]
    noted: Callable[[str], list[Any]]
    forget_tokens: Callable[[], None]


def memory() -> Iterator[Ledger]:
    known: dict[str, TableShape] = {}
    now = [0.0]
    outbox = MemoryOutbox(known, monotonic=lambda: now[0])
    store = MemoryAuthority(known, outbox, monotonic=lambda: now[0])

    def noted(table: str) -> list[Any]:
        found = [each for each in outbox._waiting.values() if each.table == table]
        outbox._waiting.clear()
        return [each.key for each in found]

    yield Ledger(
        store,
        lambda kind, name: known.update({name: shapes.shape(kind, name)}),
        lambda table, role: store.set_fence(table, epoch=EPOCH, role=role),
        noted,
        lambda: now.__setitem__(0, now[0] + 600),
    )


SET_ROLE = """
INSERT INTO dualstore.control (table_name, epoch, stage, read_percent, mirror_percent, gate, role, phase)
VALUES (:table, :epoch, 'live', 100, 100, 'open', :role, 'open')
ON CONFLICT (table_name) DO UPDATE SET role = excluded.role"""
NOTED = "DELETE FROM dualstore.outbox WHERE table_name = :table RETURNING id, key, stamp, predecessor"
AGE_TOKENS = "UPDATE dualstore.tokens SET created_at = created_at - interval '10 minutes'"


def postgres(engine: sa.Engine, mapping: Callable[[str, str], Mapped]) -> Iterator[Ledger]:
    tables: dict[str, Mapped] = {}

    def run(statement: str, **values: Any) -> Any:
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement), values)
            return result.all() if result.returns_rows else []

    def create(kind: str, name: str) -> None:
        tables[name] = mapping(kind, name)
        create_unmapped(engine, tables[name])
        triggers.install(engine, tables[name])

    def noted(table: str) -> list[Any]:
        columns = tables[table].key_columns
        return [
            {column.attribute: {column.type: text} for column, text in zip(columns, row.key, strict=True)}
            for row in sorted(run(NOTED, table=table))
        ]

    yield Ledger(
        PostgresStore(engine, tables),
        create,
        lambda table, role: run(SET_ROLE, table=table, epoch=EPOCH, role=role),
        noted,
        lambda: run(AGE_TOKENS),
    )
    for mapped in tables.values():
        for part in mapped.parts:
            part.table.drop(engine)
        triggers.remove(engine, mapped)


MAPPINGS: Mapping[str, Callable[[str, str], Mapped]] = {
    "postgres": lambda kind, name: unmapped_table(name, shapes.shape(kind, name)),
    "postgres_mapped": models.mapping,
    "postgres_entities": models.split,
}


@pytest.fixture(params=["memory", *MAPPINGS])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    if request.param == "memory":
        yield from memory()
    else:
        yield from postgres(request.getfixturevalue("postgres_engine"), MAPPINGS[request.param])


@dataclass
class Authority:
    """One table of which the store is the authority."""

    ledger: Ledger
    table: str
    epoch: int = EPOCH

    def ask(self, operation: str, **request: Any) -> Any:
        parsed = parse(operation, request)
        epochs = dict.fromkeys(parsed.tables, self.epoch)
        return self.ledger.store.execute_as_authority(parsed, epochs=epochs)

    def call(self, operation: str, **request: Any) -> Any:
        return self.ask(operation, TableName=self.table, **request)

    def put(self, item: Any, **request: Any) -> Any:
        return self.call("PutItem", Item=item, **request)

    def get(self, key: Any) -> Any:
        return self.call("GetItem", Key=key).get("Item")

    def transact(self, *actions: tuple[str, Any], **request: Any) -> Any:
        items = [{kind: {"TableName": self.table, **body}} for kind, body in actions]
        return self.ask("TransactWriteItems", TransactItems=items, **request)

    def noted(self) -> list[Any]:
        return self.ledger.noted(self.table)

    def pause(self) -> None:
        self.ledger.set_role(self.table, PostgresRole.PAUSED)

    def move(self) -> None:
        self.ledger.set_role(self.table, PostgresRole.MIRROR)


def table_of(ledger: Ledger, kind: str = "things") -> Authority:
    name = f"{kind}-{uuid.uuid4().hex[:12]}"
    ledger.create(kind, name)
    ledger.set_role(name, PostgresRole.AUTHORITY)
    return Authority(ledger, name)


@pytest.fixture
def things(ledger: Ledger) -> Authority:
    return table_of(ledger)


def key(number: int = 1) -> Any:
    return {"pk": S("p"), "sk": N(number)}


def thing(number: int = 1, **attributes: Any) -> Any:
    return {**key(number), **attributes}


def stamp_in(item: Any) -> bytes:
    stamp = item[STAMP]["B"]
    assert len(stamp) == 16
    return stamp


@contextmanager
def moved() -> Iterator[None]:
    with pytest.raises(AuthorityMoved):
        yield


# --- Stamps ---------------------------------------------------------------------------------------


def test_every_write_leaves_a_stamp_of_its_own(things: Authority):
    seen = set()
    for write in (
        lambda: things.put(thing()),
        lambda: things.put(thing()),
        lambda: things.call(
            "UpdateItem", Key=key(), UpdateExpression="SET a = :a", ExpressionAttributeValues={":a": N(1)}
        ),
        lambda: things.transact(("Put", {"Item": thing(a=N(2))})),
        lambda: things.ask(
            "BatchWriteItem", RequestItems={things.table: [{"PutRequest": {"Item": thing()}}]}
        ),
    ):
        write()
        seen.add(stamp_in(things.get(key())))
    assert len(seen) == 5


@pytest.mark.parametrize("wanted", ["ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"])
def test_no_write_answers_with_a_stamp(things: Authority, wanted):
    things.put(thing(a=N(1)))
    request = {"UpdateExpression": "SET a = :a", "ExpressionAttributeValues": {":a": N(2)}}
    told = things.call("UpdateItem", Key=key(), ReturnValues=wanted, **request)["Attributes"]
    assert told["a"] == N(1 if wanted.endswith("OLD") else 2)
    assert STAMP not in told
    assert things.put(thing(), ReturnValues="ALL_OLD")["Attributes"] == thing(a=N(2))
    assert things.call("DeleteItem", Key=key(), ReturnValues="ALL_OLD")["Attributes"] == thing()


def test_a_refusal_shows_the_old_item_without_its_stamp(things: Authority):
    things.put(thing(a=N(1)))
    shown = {
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        "ConditionExpression": "attribute_not_exists(pk)",
    }
    with rejects("ConditionalCheckFailedException") as caught:
        things.put(thing(), **shown)
    assert caught.value.response["Item"] == thing(a=N(1))
    with rejects("TransactionCanceledException") as caught:
        things.transact(("Put", {"Item": thing(), **shown}))
    assert caught.value.response["CancellationReasons"][0]["Item"] == thing(a=N(1))


def test_conditions_know_of_no_stamp(things: Authority):
    things.put(thing())
    names = {"ExpressionAttributeNames": {"#stamp": STAMP}}
    things.put(thing(), ConditionExpression="attribute_not_exists(#stamp)", **names)
    with rejects("ConditionalCheckFailedException"):
        things.put(thing(), ConditionExpression="attribute_exists(#stamp)", **names)


def test_an_item_of_the_greatest_size_fits_though_it_is_stamped(ledger: Ledger):
    singles = table_of(ledger, "singles")
    largest = {"pk": S("p"), "filler": S("x" * (LIMIT_BYTES - len("pk" + "p" + "filler")))}
    assert singles.put(largest, ReturnConsumedCapacity="TOTAL")["ConsumedCapacity"]["CapacityUnits"] == 400.0
    singles.call(
        "UpdateItem",
        Key={"pk": S("p")},
        UpdateExpression="SET filler = :f",
        ExpressionAttributeValues={":f": largest["filler"]},
    )
    stamp_in(singles.get({"pk": S("p")}))
    with rejects():
        singles.put({**largest, "a": N(1)})


@pytest.mark.parametrize("size_bytes", [10, 1_000, 1_024, 1_025, 3_000])
def test_a_write_consumes_what_the_larger_of_the_two_items_does(things: Authority, size_bytes):
    """Whatever spares a store from reading the item that it replaces."""
    rest = size_bytes - len("pk" + "p" + "sk") - 2
    filled = {name: S("x" * (rest - len(name))) for name in ("a" * min(5, rest),)}
    units = float(max(1, -(-size_bytes // 1_024)))
    for _ in range(2):
        asked = {"ReturnConsumedCapacity": "TOTAL"}
        assert things.put(thing(**filled), **asked)["ConsumedCapacity"]["CapacityUnits"] == units
        assert things.put(thing(), **asked)["ConsumedCapacity"]["CapacityUnits"] == units
        things.put(thing(**filled))
        told = things.call("DeleteItem", Key=key(), **asked)
        assert told["ConsumedCapacity"]["CapacityUnits"] == units


# --- Epochs ---------------------------------------------------------------------------------------


READS: dict[str, Callable[[Authority], Any]] = {
    "get": lambda on: on.get(key()),
    "query": lambda on: on.call(
        "Query", KeyConditionExpression="pk = :p", ExpressionAttributeValues={":p": S("p")}
    )["Items"][0],
    "scan": lambda on: on.call("Scan")["Items"][0],
    "batch get": lambda on: on.ask("BatchGetItem", RequestItems={on.table: {"Keys": [key()]}})["Responses"][
        on.table
    ][0],
    "transact get": lambda on: on.ask(
        "TransactGetItems", TransactItems=[{"Get": {"TableName": on.table, "Key": key()}}]
    )["Responses"][0]["Item"],
}
WRITES: dict[str, Callable[[Authority], Any]] = {
    "put": lambda on: on.put(thing(new=N(1))),
    "create": lambda on: on.put(thing(2)),
    "update": lambda on: on.call(
        "UpdateItem", Key=key(), UpdateExpression="SET n = :n", ExpressionAttributeValues={":n": N(1)}
    ),
    "delete": lambda on: on.call("DeleteItem", Key=key()),
    "delete nothing": lambda on: on.call("DeleteItem", Key=key(3)),
    "batch write": lambda on: on.ask(
        "BatchWriteItem",
        RequestItems={on.table: [{"PutRequest": {"Item": thing(2)}}, {"DeleteRequest": {"Key": key()}}]},
    ),
    "transact write": lambda on: on.transact(("Put", {"Item": thing(2)}), ("Delete", {"Key": key()})),
}


@pytest.mark.parametrize("read", READS)
def test_a_read_passes_until_the_authority_has_moved(things: Authority, read):
    things.put(thing(a=N(1)))
    for role in (PostgresRole.AUTHORITY, PostgresRole.PAUSED):
        things.ledger.set_role(things.table, role)
        assert READS[read](things)["a"] == N(1)
    for role in (PostgresRole.MIRROR, PostgresRole.NONE):
        things.ledger.set_role(things.table, role)
        with moved():
            READS[read](things)


@pytest.mark.parametrize("ahead", [-1, 1])
def test_nothing_passes_under_another_epoch(things: Authority, ahead):
    things.put(thing(a=N(1)))
    late = Authority(things.ledger, things.table, EPOCH + ahead)
    for operation in (*READS.values(), *WRITES.values()):
        with moved():
            operation(late)
    assert set(things.get(key())) == {*thing(a=N(1)), STAMP}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("role", [PostgresRole.PAUSED, PostgresRole.MIRROR, PostgresRole.NONE])
def test_a_write_passes_only_while_writes_go_on(things: Authority, write, role):
    things.put(thing(a=N(1)))
    before = things.get(key())
    things.noted()
    things.ledger.set_role(things.table, role)
    with moved():
        WRITES[write](things)
    things.ledger.set_role(things.table, PostgresRole.AUTHORITY)
    assert things.call("Scan")["Items"] == [before]
    assert things.noted() == []
    WRITES[write](things)


def test_a_transaction_over_two_tables_is_refused_whole_where_one_has_moved(ledger: Ledger):
    one, other = table_of(ledger), table_of(ledger)
    other.move()
    actions = [{"Put": {"TableName": table.table, "Item": thing()}} for table in (one, other)]
    with moved():
        one.ask("TransactWriteItems", TransactItems=actions)
    assert one.get(key()) is None
    assert one.noted() == []


def test_a_table_without_a_control_record_has_no_authority(ledger: Ledger):
    name = f"things-{uuid.uuid4().hex[:12]}"
    ledger.create("things", name)
    unknown = Authority(ledger, name)
    with moved():
        unknown.put(thing())
    with moved():
        unknown.get(key())


# --- The outbox -----------------------------------------------------------------------------------


def test_each_change_is_noted_once(things: Authority):
    for write, keys in (
        ("put", [key()]),
        ("create", [key(2)]),
        ("update", [key()]),
        ("batch write", [key(2), key()]),
        ("delete", []),
        ("delete nothing", []),
        ("put", [key()]),
        ("delete", [key()]),
        ("put", [key()]),
        ("transact write", [key(2), key()]),
    ):
        WRITES[write](things)
        assert things.noted() == keys, write


def test_what_changes_nothing_is_not_noted(things: Authority):
    things.put(thing(a=N(1)))
    things.noted()
    with rejects("ConditionalCheckFailedException"):
        things.put(thing(), ConditionExpression="a = :z", ExpressionAttributeValues={":z": N(9)})
    things.transact(("ConditionCheck", {"Key": key(), "ConditionExpression": "attribute_exists(a)"}))
    things.call("UpdateItem", Key=key(4), UpdateExpression="REMOVE a")
    assert things.noted() == []


def test_a_cancelled_transaction_is_not_noted(things: Authority):
    with rejects("TransactionCanceledException"):
        things.transact(
            ("Put", {"Item": thing()}),
            ("ConditionCheck", {"Key": key(2), "ConditionExpression": "attribute_exists(pk)"}),
        )
    assert things.noted() == []
    assert things.get(key()) is None


def test_a_write_around_dualstore_is_stamped_and_noted(things: Authority):
    things.put(thing(a=N(1)))
    before = things.get(key())
    things.noted()
    things.ledger.store.execute(parse("PutItem", {"TableName": things.table, "Item": {**before, "a": N(2)}}))
    after = things.get(key())
    assert after["a"] == N(2)
    assert stamp_in(after) != stamp_in(before)
    assert things.noted() == [key()]


def test_a_write_around_dualstore_makes_a_mirror_doubt_the_key(things: Authority):
    things.move()
    things.ledger.store.execute(parse("PutItem", {"TableName": things.table, "Item": thing()}))
    assert [doubt.key for doubt in things.ledger.store.dirty_keys(things.table)] == [key()]
    assert things.noted() == []


# --- Tokens ---------------------------------------------------------------------------------------


def add_one(**request: Any) -> tuple[str, Any]:
    return (
        "Update",
        {"Key": key(), "UpdateExpression": "ADD n :n", "ExpressionAttributeValues": {":n": N(1)}, **request},
    )


def token() -> str:
    return uuid.uuid4().hex


def test_a_repeated_transaction_is_carried_out_once(things: Authority):
    same = token()
    for _ in range(3):
        assert things.transact(add_one(), ClientRequestToken=same) == {}
    assert things.get(key())["n"] == N(1)
    assert things.noted() == [key()]
    things.transact(add_one(), ClientRequestToken=token())
    assert things.get(key())["n"] == N(2)


def test_a_repetition_costs_what_reading_costs(things: Authority):
    request = {"ClientRequestToken": token(), "ReturnConsumedCapacity": "TOTAL"}
    item = thing(filler=S("x" * 5000))
    first = things.transact(("Put", {"Item": item}), **request)
    again = things.transact(("Put", {"Item": item}), **request)
    units = {"TableName": things.table, "CapacityUnits": 10.0, "WriteCapacityUnits": 10.0}
    assert first == {"ConsumedCapacity": [units]}
    units = {"TableName": things.table, "CapacityUnits": 4.0, "ReadCapacityUnits": 4.0}
    assert again == {"ConsumedCapacity": [units]}


def test_other_actions_under_the_same_token_are_refused(things: Authority):
    same = token()
    things.transact(add_one(), ClientRequestToken=same)
    with rejects("IdempotentParameterMismatchException"):
        things.transact(add_one(ConditionExpression="attribute_exists(pk)"), ClientRequestToken=same)
    with rejects("IdempotentParameterMismatchException"):
        things.transact(("Put", {"Item": thing(5)}), ClientRequestToken=same)
    assert things.get(key(5)) is None


def test_a_token_is_forgotten_after_ten_minutes(things: Authority):
    same = token()
    things.transact(add_one(), ClientRequestToken=same)
    things.ledger.forget_tokens()
    things.transact(("Put", {"Item": thing(5)}), ClientRequestToken=same)
    things.transact(("Put", {"Item": thing(5)}), ClientRequestToken=same)
    assert things.noted() == [key(), key(5)]


def test_a_cancelled_transaction_leaves_its_token_free(things: Authority):
    same = token()
    refused = add_one(ConditionExpression="attribute_exists(pk)")
    with rejects("TransactionCanceledException"):
        things.transact(refused, ClientRequestToken=same)
    things.put(thing())
    things.transact(refused, ClientRequestToken=same)
    assert things.get(key())["n"] == N(1)


@pytest.mark.parametrize("by_itself", [False, True])
def test_a_transaction_that_was_mirrored_here_is_recognised_after_the_flip(
    things: Authority,
    by_itself: bool,  # noqa: FBT001 - a parameter of the test
):
    same = token()
    things.move()
    store = things.ledger.store
    write = SettledWrite(things.table, key(), thing(n=N(1)), NOTHING, EPOCH)
    assert store.write_settled_together([write], token=None if by_itself else same)
    if by_itself:  # as where its keys were settled one by one
        assert store.write_settled_together([], token=same)
    things.ledger.set_role(things.table, PostgresRole.AUTHORITY)
    assert things.transact(add_one(), ClientRequestToken=same) == {}
    assert things.get(key())["n"] == N(1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": {"SS": ["x", "y"]}, "b": N(1)}, {"b": N(1), "a": {"SS": ["y", "x"]}}, True),
        ({"a": {"L": [N(1), N(2)]}}, {"a": {"L": [N(2), N(1)]}}, False),
        ({"a": {"B": b"x"}}, {"a": {"B": b"y"}}, False),
        ({"a": {"B": b"eA=="}}, {"a": {"S": "eA=="}}, False),
        ({"a": {"NULL": True}}, {"a": {"BOOL": True}}, False),
    ],
)
def test_actions_are_the_same_whatever_the_order_of_names_and_of_members(one, other, same):
    def digest(attributes: Any) -> bytes:
        actions = [{"Put": {"TableName": "things", "Item": thing(**attributes)}}]
        request = {"TransactItems": actions, "ClientRequestToken": "t"}
        return plan_write(
            parse("TransactWriteItems", request), {"things": shapes.shape("things", "things")}
        ).digest

    assert (digest(one) == digest(other)) is same
