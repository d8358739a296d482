"""Secondary indexes: sparse, projected, in their own order; what they cost."""

from typing import Any

import pytest

from contract.shapes import INCLUDED
from contract.tables import N, S, TableUnderTest, rejects

OWNER = {"names": {"#o": "owner"}, "values": {":o": S("ann")}}
BY_OWNER = "#o = :o"


def thing(number: int, **attributes) -> dict:
    return {"pk": S(f"p{number % 3}"), "sk": N(number), **attributes}


@pytest.fixture
def owned(things: TableUnderTest) -> TableUnderTest:
    """Items 0 to 8; the even ones are ann's; colours and labels for some."""
    for number in range(9):
        attributes = {"rank": N(100 - number), "note": S("x" * number), "other": S("y"), "size": N(number)}
        if number % 2 == 0:
            attributes["owner"] = S("ann")
        elif number == 1:
            attributes["owner"] = S("bob")
        if number > 4:
            attributes["colour"] = S("red")
        if number != 4:
            attributes["label"] = S(f"l{9 - number}")
        things.put(thing(number, **attributes))
    return things


def numbers(items) -> list[int]:
    return [int(item["sk"]["N"]) for item in items]


def test_an_index_has_only_items_with_its_key(owned: TableUnderTest):
    found = owned.query(BY_OWNER, IndexName="by-owner", **OWNER)
    assert sorted(numbers(found["Items"])) == [0, 2, 4, 6, 8]
    assert (found["Count"], found["ScannedCount"]) == (5, 5)
    assert sorted(numbers(owned.scan(IndexName="by-colour")["Items"])) == [5, 6, 7, 8]


def test_an_index_follows_the_items(owned: TableUnderTest):
    owned.update({"pk": S("p0"), "sk": N(0)}, "SET #o = :o", names={"#o": "owner"}, values={":o": S("bob")})
    owned.update({"pk": S("p2"), "sk": N(2)}, "REMOVE #o", names={"#o": "owner"})
    owned.delete({"pk": S("p1"), "sk": N(4)})
    owned.put({"pk": S("p1"), "sk": N(1), "owner": S("ann")})
    assert sorted(numbers(owned.query(BY_OWNER, IndexName="by-owner", **OWNER)["Items"])) == [1, 6, 8]


def test_keys_only_gives_the_keys_of_index_and_table(owned: TableUnderTest):
    for item in owned.query(BY_OWNER, IndexName="by-owner", **OWNER)["Items"]:
        assert set(item) == {"pk", "sk", "owner"}
    values = {":p": S("p0")}
    for item in owned.query("pk = :p", IndexName="by-label", values=values)["Items"]:
        assert set(item) == {"pk", "sk", "label"}


def test_include_gives_the_included_attributes_too(owned: TableUnderTest):
    for item in owned.query(BY_OWNER, IndexName="by-rank", **OWNER)["Items"]:
        assert set(item) == {"pk", "sk", "owner", "rank", *INCLUDED}


def test_all_gives_whole_items(owned: TableUnderTest):
    for item in owned.scan(IndexName="by-colour")["Items"]:
        assert item == owned.get({"pk": item["pk"], "sk": item["sk"]})


def test_an_index_is_in_the_order_of_its_sort_key(owned: TableUnderTest):
    found = owned.query(BY_OWNER, IndexName="by-rank", **OWNER)
    assert numbers(found["Items"]) == [8, 6, 4, 2, 0]
    found = owned.query(BY_OWNER, IndexName="by-rank", ScanIndexForward=False, **OWNER)
    assert numbers(found["Items"]) == [0, 2, 4, 6, 8]
    found = owned.query("pk = :p", IndexName="by-label", ConsistentRead=True, values={":p": S("p1")})
    assert numbers(found["Items"]) == [7, 1]


def test_a_condition_narrows_by_the_index_sort_key(owned: TableUnderTest):
    values = {**OWNER["values"], ":a": N(94), ":b": N(98)}
    condition = "#o = :o AND #r BETWEEN :a AND :b"
    names = {"#o": "owner", "#r": "rank"}
    assert numbers(owned.query(condition, IndexName="by-rank", names=names, values=values)["Items"]) == [
        6,
        4,
        2,
    ]


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("index", ["by-owner", "by-rank"])
def test_pages_of_an_index_give_every_item_once(owned: TableUnderTest, index, limit):
    request = {"KeyConditionExpression": BY_OWNER, "IndexName": index, "Limit": limit, **OWNER}
    pages = owned.pages("Query", **request)
    assert sorted(numbers([item for page in pages for item in page["Items"]])) == [0, 2, 4, 6, 8]
    keys = {"pk", "sk", "owner"} | ({"rank"} if index == "by-rank" else set())
    assert all(set(page.get("LastEvaluatedKey", keys)) == keys for page in pages)


def test_pages_of_ties_give_every_item_once(things: TableUnderTest):
    for number in range(20):
        things.put(thing(number, owner=S("ann"), rank=N(number % 2)))
    for forward in (True, False):
        request = {
            "KeyConditionExpression": BY_OWNER,
            "IndexName": "by-rank",
            "ScanIndexForward": forward,
            **OWNER,
        }
        found = things.all("Query", Limit=3, **request)
        assert sorted(numbers(found)) == list(range(20))
        ranks = [int(item["rank"]["N"]) for item in found]
        assert ranks == sorted(ranks, reverse=not forward)


# What each change of an item in all the indexes consumes of the table and of them.
# AWS, Developer Guide, "Write capacity units" of global and of local secondary indexes.
CONSUMED: list[tuple[str, dict[str, Any], dict[str, float]]] = [
    ("PutItem", {}, {"table": 4, "by-owner": 1, "by-rank": 3, "by-colour": 4, "by-label": 1}),
    ("PutItem", {}, {"table": 4}),  # nothing changes
    ("SET a = :v", {":v": N(1)}, {"table": 4, "by-colour": 4}),
    ("SET note = :v", {":v": S("")}, {"table": 4, "by-rank": 3, "by-colour": 4}),
    ("SET filler = :v", {":v": S("")}, {"table": 2, "by-colour": 2}),
    ("SET #o = :v", {":v": S("bob")}, {"table": 1, "by-owner": 2, "by-rank": 2, "by-colour": 1}),
    ("SET #r = :v", {":v": N(2)}, {"table": 1, "by-rank": 2, "by-colour": 1}),
    ("REMOVE #o", {}, {"table": 1, "by-owner": 1, "by-rank": 1, "by-colour": 1}),
    ("SET #l = :v", {":v": S("other")}, {"table": 1, "by-colour": 1, "by-label": 2}),
    ("DeleteItem", {}, {"table": 1, "by-colour": 1, "by-label": 1}),
    ("DeleteItem", {}, {"table": 1}),  # nothing is there
]
INDEXED = thing(
    1,
    owner=S("ann"),
    rank=N(1),
    colour=S("red"),
    label=S("a"),
    note=S("x" * 2_500),
    filler=S("x" * 1_000),
)
KEY_OF_INDEXED = {name: INDEXED[name] for name in ("pk", "sk")}


def units_told(told: dict[str, Any]) -> dict[str, float]:
    indexes = {**told.get("GlobalSecondaryIndexes", {}), **told.get("LocalSecondaryIndexes", {})}
    parts = {"table": told["Table"], **indexes}
    units = {name: each["CapacityUnits"] for name, each in parts.items()}
    assert told["CapacityUnits"] == sum(units.values())
    assert "by-label" not in told.get("GlobalSecondaryIndexes", {})
    return units


def test_a_write_consumes_what_it_changes_of_each_index(things: TableUnderTest):
    names = {"#o": "owner", "#r": "rank", "#l": "label"}
    for change, values, units in CONSUMED:
        request: dict[str, Any] = {"ReturnConsumedCapacity": "INDEXES"}
        if change == "PutItem":
            told = things.put(INDEXED, **request)
        elif change == "DeleteItem":
            told = things.delete(KEY_OF_INDEXED, **request)
        else:
            used = {name: attribute for name, attribute in names.items() if name in change}
            request |= {"names": used} if used else {}
            request |= {"values": values} if values else {}
            told = things.update(KEY_OF_INDEXED, change, **request)
        assert units_told(told["ConsumedCapacity"]) == units, change


def test_a_batch_consumes_of_the_indexes_what_its_writes_do(things: TableUnderTest):
    others = {**INDEXED, "sk": N(2)}
    asked = [{"PutRequest": {"Item": item}} for item in (INDEXED, others)]
    (told,) = things.ask(
        "BatchWriteItem", RequestItems={things.name: asked}, ReturnConsumedCapacity="INDEXES"
    )["ConsumedCapacity"]
    assert units_told(told) == {name: 2 * units for name, units in CONSUMED[0][2].items()}


def test_a_transaction_consumes_twice_as_much_of_the_table_and_no_more_of_the_indexes(
    things: TableUnderTest,
):
    """As measured at AWS by the authors of dynoxide, in August 2026."""
    (told,) = things.ask(
        "TransactWriteItems",
        TransactItems=[{"Put": {"TableName": things.name, "Item": INDEXED}}],
        ReturnConsumedCapacity="INDEXES",
    )["ConsumedCapacity"]
    units = {**CONSUMED[0][2], "table": 8}
    assert units_told(told) == units
    assert told["WriteCapacityUnits"] == sum(units.values())


def test_pages_of_a_local_index_give_every_item_once(things: TableUnderTest):
    for number in range(10):
        things.put({"pk": S("p"), "sk": N(number), "label": S(f"l{number // 4}")})
    request = {"KeyConditionExpression": "pk = :p", "IndexName": "by-label", "values": {":p": S("p")}}
    found = things.all("Query", Limit=3, **request)
    assert sorted(numbers(found)) == list(range(10))
    assert [item["label"]["S"] for item in found] == sorted(item["label"]["S"] for item in found)


@pytest.mark.parametrize("total", [1, 3])
def test_segments_of_an_index_share_its_items_out(owned: TableUnderTest, total):
    found = [
        item
        for segment in range(total)
        for item in owned.all("Scan", IndexName="by-colour", Segment=segment, TotalSegments=total, Limit=1)
    ]
    assert sorted(numbers(found)) == [5, 6, 7, 8]


def test_a_filter_may_name_the_tables_key_but_not_the_indexes(owned: TableUnderTest):
    values = {**OWNER["values"], ":n": N(4)}
    request = {"IndexName": "by-owner", "names": OWNER["names"], "values": values}
    assert numbers(owned.query(BY_OWNER, FilterExpression="sk > :n", **request)["Items"]) in ([6, 8], [8, 6])
    with rejects():
        owned.query(BY_OWNER, FilterExpression="#o = :n", **request)


def test_a_filter_sees_included_attributes(owned: TableUnderTest):
    request = {"IndexName": "by-rank", "names": OWNER["names"], "values": {**OWNER["values"], ":n": S("xx")}}
    assert numbers(owned.query(BY_OWNER, FilterExpression="note > :n", **request)["Items"]) == [8, 6, 4]


def test_a_filter_on_what_an_index_lacks_is_refused(owned: TableUnderTest):
    with rejects():
        owned.query(BY_OWNER, IndexName="by-owner", FilterExpression="attribute_exists(note)", **OWNER)


def test_a_global_index_cannot_give_what_it_lacks(owned: TableUnderTest):
    with rejects():
        owned.query(BY_OWNER, IndexName="by-owner", Select="ALL_ATTRIBUTES", **OWNER)


def test_a_projection_on_what_a_global_index_lacks_is_refused(owned: TableUnderTest):
    with rejects():
        owned.query(BY_OWNER, IndexName="by-owner", ProjectionExpression="note", **OWNER)


def test_a_local_index_fetches_whole_items(owned: TableUnderTest):
    request = {"IndexName": "by-label", "values": {":p": S("p0")}}
    found = owned.query("pk = :p", Select="ALL_ATTRIBUTES", **request)["Items"]
    assert [item == owned.get({"pk": item["pk"], "sk": item["sk"]}) for item in found] == [True] * 3


def test_a_local_index_fetches_what_a_projection_names(owned: TableUnderTest):
    found = owned.query("pk = :p", ProjectionExpression="note", IndexName="by-label", values={":p": S("p0")})
    assert found["Items"] == [{"note": S("xxxxxx")}, {"note": S("xxx")}, {"note": S("")}]


def test_a_global_index_is_not_read_consistently(owned: TableUnderTest):
    with rejects():
        owned.query(BY_OWNER, IndexName="by-owner", ConsistentRead=True, **OWNER)
    with rejects():
        owned.scan(IndexName="by-owner", ConsistentRead=True)


@pytest.mark.parametrize("select", ["ALL_PROJECTED_ATTRIBUTES", "COUNT"])
def test_select_on_an_index(owned: TableUnderTest, select):
    found = owned.query(BY_OWNER, IndexName="by-owner", Select=select, **OWNER)
    assert found["Count"] == 5
    assert ("Items" in found) == (select != "COUNT")


@pytest.mark.parametrize(
    "start",
    [
        {"pk": S("p0"), "sk": N(0)},
        {"owner": S("ann")},
        {"pk": S("p0"), "sk": N(0), "owner": N(1)},
        {"pk": S("p0"), "sk": N(0), "owner": S("bob")},
    ],
    ids=["table key alone", "index key alone", "wrong type", "other partition"],
)
def test_a_start_key_that_an_index_cannot_have_is_refused(owned: TableUnderTest, start):
    with rejects():
        owned.query(BY_OWNER, IndexName="by-owner", ExclusiveStartKey=start, **OWNER)
