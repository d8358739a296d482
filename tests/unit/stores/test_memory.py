"""What MemoryStore promises beyond the contract of all stores."""

import copy
import threading
from typing import Any

import pytest

from dualstore.errors import UnsupportedOperation
from dualstore.items import Index, KeyAttribute, KeySchema, TableShape
from dualstore.operations import parse
from dualstore.stages import Side
from dualstore.stores import NOTHING, MemoryStore, Revision
from dualstore.stores.base import SettledWrite

KEYS = KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N"))
EPOCH = 1
KEY = {"pk": {"S": "p"}, "sk": {"N": "1"}}
ADD_ONE = {
    "TableName": "things",
    "Key": KEY,
    "UpdateExpression": "ADD n :n",
    "ExpressionAttributeValues": {":n": {"N": "1"}},
}


@pytest.fixture
def shapes() -> dict[str, TableShape]:
    return {"things": TableShape("things", KEYS)}


@pytest.fixture
def store(shapes) -> MemoryStore:
    return MemoryStore(shapes)


def call(store: MemoryStore, operation: str, **request: Any) -> dict[str, Any]:
    return store.execute(parse(operation, {"TableName": "things", **request}))


def test_a_repetition_may_name_the_members_of_a_set_in_another_order(store):
    """As the same program does after a restart."""
    for members in (["a", "b"], ["b", "a"]):
        put = {"Put": {"TableName": "things", "Item": {**KEY, "ss": {"SS": members}}}}
        store.execute(parse("TransactWriteItems", {"TransactItems": [put], "ClientRequestToken": "once"}))
    assert call(store, "GetItem", Key=KEY)["Item"]["ss"] == {"SS": ["a", "b"]}


def add_one(store: MemoryStore, *, token: str) -> str:
    """What a counter is after a transaction that adds one to it."""
    request = {"TransactItems": [{"Update": ADD_ONE}], "ClientRequestToken": token}
    store.execute(parse("TransactWriteItems", request))
    return call(store, "GetItem", Key=KEY)["Item"]["n"]["N"]


def test_it_stands_for_either_side(shapes):
    assert MemoryStore(shapes).side is Side.DYNAMODB
    assert MemoryStore(shapes, side=Side.POSTGRES).side is Side.POSTGRES


def test_an_item_shares_nothing_with_what_was_put(store):
    item = copy.deepcopy({**KEY, "l": {"L": [{"M": {}}]}})
    call(store, "PutItem", Item=item)
    item["l"]["L"][0]["M"]["x"] = {"S": "changed"}
    item["pk"]["S"] = "changed"
    assert call(store, "GetItem", Key=KEY)["Item"] == {**KEY, "l": {"L": [{"M": {}}]}}


READS = [
    ("GetItem", {"Key": KEY}),
    ("Scan", {}),
    ("PutItem", {"Item": {**KEY, "l": {"L": []}}, "ReturnValues": "ALL_OLD"}),
    (
        "UpdateItem",
        {
            "Key": KEY,
            "UpdateExpression": "SET b = l",
            "ReturnValues": "ALL_NEW",
        },
    ),
]


@pytest.mark.parametrize(("operation", "request_"), READS, ids=[name for name, _ in READS])
def test_an_item_shares_nothing_with_what_was_got(store, operation, request_):
    call(store, "PutItem", Item={**KEY, "l": {"L": []}})
    response = call(store, operation, **copy.deepcopy(request_))
    found = response.get("Item") or response.get("Attributes") or response["Items"][0]
    found["l"]["L"].append({"S": "changed"})
    found["pk"]["S"] = "changed"
    assert call(store, "GetItem", Key=KEY)["Item"]["l"] == {"L": []}
    assert call(store, "GetItem", Key=KEY)["Item"]["pk"] == {"S": "p"}


def test_a_mirrored_image_shares_nothing_with_the_store(store):
    image = {**KEY, "l": {"L": []}}
    assert store.write_settled("things", KEY, image, seen=store.state("things", KEY).revision, epoch=EPOCH)
    image["l"]["L"].append({"S": "changed"})
    store.state("things", KEY).item["l"]["L"].append({"S": "changed"})
    next(iter(store.items_of("things", [KEY]).values())).item["l"]["L"].append({"S": "changed"})
    next(store.all_items("things"))[0]["l"]["L"].append({"S": "changed"})
    assert store.state("things", KEY).item == {**KEY, "l": {"L": []}}


def test_the_order_of_a_scan_is_not_that_of_the_keys(store):
    for number in range(50):
        call(store, "PutItem", Item={"pk": {"S": f"{number:02}"}, "sk": {"N": "1"}})
    found = [item["pk"]["S"] for item in call(store, "Scan")["Items"]]
    assert found != sorted(found)


def test_a_table_may_be_added_later(store, shapes):
    shapes["more"] = TableShape("more", KEYS)
    store.execute(parse("PutItem", {"TableName": "more", "Item": KEY}))
    assert store.execute(parse("GetItem", {"TableName": "more", "Key": KEY}))["Item"] == KEY
    assert "Item" not in call(store, "GetItem", Key=KEY)


def test_an_index_may_be_added_later(store, shapes):
    call(store, "PutItem", Item={**KEY, "n": {"N": "1"}})
    index = Index("by-n", KeySchema(KeyAttribute("n", "N")))
    shapes["things"] = TableShape("things", KEYS, {"by-n": index})
    assert call(store, "Scan", IndexName="by-n")["Count"] == 1
    call(store, "DeleteItem", Key=KEY)
    assert call(store, "Scan", IndexName="by-n")["Count"] == 0


def test_a_mirror_answers_no_writes(store):
    with pytest.raises(UnsupportedOperation):
        store.execute_as_mirror(parse("PutItem", {"TableName": "things", "Item": KEY}))


def test_a_token_is_forgotten_after_ten_minutes(shapes):
    now = [0.0]
    store = MemoryStore(shapes, monotonic=lambda: now[0])
    for moment, expected in ((0.0, "1"), (599.0, "1"), (600.0, "2")):
        now[0] = moment
        assert add_one(store, token="once") == expected


def test_concurrent_updates_are_all_counted(store):
    def add() -> None:
        for _ in range(200):
            call(
                store,
                "UpdateItem",
                Key=KEY,
                UpdateExpression="ADD n :n",
                ExpressionAttributeValues={":n": {"N": "1"}},
            )

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert call(store, "GetItem", Key=KEY)["Item"]["n"] == {"N": "800"}


def test_the_holder_of_a_lock_may_take_it_again_and_leaves_no_trace(store):
    with store.locked("things", KEY), store.locked("things", KEY):
        assert store.write_settled("things", KEY, KEY, seen=store.state("things", KEY).revision, epoch=EPOCH)
    assert store._key_locks == {}


def test_a_table_without_a_fence_takes_mirror_writes_of_any_epoch(store: MemoryStore):
    for epoch in (3, 1, 2):
        seen = store.state("things", KEY).revision
        assert store.write_settled("things", KEY, KEY, seen=seen, epoch=epoch)


def test_a_transaction_that_was_mirrored_is_not_carried_out_again(shapes):
    now = [0.0]
    store = MemoryStore(shapes, monotonic=lambda: now[0])
    write = SettledWrite("things", KEY, {**KEY, "n": {"N": "1"}}, NOTHING, EPOCH)
    assert store.write_settled_together([write], token="t")
    for moment, expected in ((599.0, "1"), (600.0, "2")):
        now[0] = moment
        assert add_one(store, token="t") == expected


def test_the_token_of_a_mirrored_transaction_is_forgotten_with_its_writes(store: MemoryStore):
    writes = [SettledWrite("things", KEY, KEY, Revision(row=9, tombstone=None), EPOCH)]
    assert not store.write_settled_together(writes, token="t")
    assert add_one(store, token="t") == "1"


def test_an_item_whose_index_key_is_of_another_type_is_in_the_table_alone():
    """DynamoDB takes no such item, but a row that others wrote by SQL may be mirrored as one."""
    index = Index("by_group", KeySchema(KeyAttribute("group", "S")))
    shape = TableShape("mixed", KeySchema(KeyAttribute("id", "S")), {"by_group": index})
    store = MemoryStore({"mixed": shape})
    for name, group in (("a", {"N": "5"}), ("b", {"S": "5"})):
        item = {"id": {"S": name}, "group": group}
        store.write_direct("mixed", item, item, stamp=name.encode() * 16, predecessor=None, epoch=EPOCH)

    def ids(**at: str) -> list[str]:
        found = store.execute(parse("Scan", {"TableName": "mixed", **at}))["Items"]
        return sorted(item["id"]["S"] for item in found)

    assert (ids(), ids(IndexName="by_group")) == (["a", "b"], ["b"])
