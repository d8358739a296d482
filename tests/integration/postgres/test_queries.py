"""Query and Scan: ranges, order, pages and indexes, whatever SQL types hold the keys."""

import itertools
import random
from typing import Any

import pytest

from dualstore.operations import parse
from dualstore.stores import MemoryStore
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres.python_sort import warn_once
from integration.postgres.orders import NOTE_TABLE, TABLE, call, key, numbers, order

NAMES = [
    "",
    "\x00",
    "\x00a",
    "\x01",
    "a",
    "a\x00",
    "aa",
    "b",
    "é",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
]


def fill(store: PostgresStore, *items: dict[str, Any]) -> None:
    for item in items:
        call(store, "PutItem", Item=item)


def query(store: PostgresStore, condition: str, **request: Any) -> dict[str, Any]:
    values = request.pop("values")
    return call(store, "Query", KeyConditionExpression=condition, values=values, **request)


def pages(store: PostgresStore, operation: str, **request: Any) -> list[dict[str, Any]]:
    found = [call(store, operation, **request)]
    while "LastEvaluatedKey" in found[-1]:
        found.append(call(store, operation, **request, ExclusiveStartKey=found[-1]["LastEvaluatedKey"]))
    return found


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("customer = :c", ["-3", "0.5", "2", "10"]),
        ("customer = :c AND #n = :two", ["2"]),
        ("customer = :c AND #n < :two", ["-3", "0.5"]),
        ("customer = :c AND #n <= :two", ["-3", "0.5", "2"]),
        ("customer = :c AND #n > :two", ["10"]),
        ("customer = :c AND #n >= :two", ["2", "10"]),
        ("customer = :c AND #n BETWEEN :low AND :two", ["0.5", "2"]),
    ],
)
def test_a_range_of_a_numeric_sort_key_comes_in_numeric_order(store, condition, expected):
    fill(store, *(order("ann", number) for number in ("10", "2", "0.5", "-3")), order("bob", 2))
    given = {":c": {"S": "ann"}, ":two": {"N": "2.0"}, ":low": {"N": "0"}}
    values = {name: value for name, value in given.items() if name in condition}
    names = {"ExpressionAttributeNames": {"#n": "number"}} if "#n" in condition else {}
    assert numbers(query(store, condition, values=values, **names)) == expected
    backward = query(store, condition, values=values, ScanIndexForward=False, **names)
    assert numbers(backward) == expected[::-1]


@pytest.mark.parametrize("prefix", ["a", "\x00", "\ud7ff", "\U0010ffff", "aa", "é"])
def test_begins_with_finds_what_begins_so_and_nothing_else(store, prefix):
    fill(store, *(order("c", n, status="s", label=name) for n, name in enumerate(NAMES) if name))
    found = query(
        store,
        "#s = :s AND begins_with(label, :p)",
        values={":s": {"S": "s"}, ":p": {"S": prefix}},
        IndexName="by_label",
        ExpressionAttributeNames={"#s": "status"},
    )
    assert [item["label"]["S"] for item in found["Items"]] == [
        name for name in sorted(NAMES, key=str.encode) if name.startswith(prefix)
    ]


def test_begins_with_on_binary_orders_by_unsigned_bytes(store):
    seals = [b"\x00", b"\x7f", b"\xff", b"\xff\xff", b"\xff\x00", b"\xfe\xff"]
    for n, seal in enumerate(seals):
        item = {"id": {"B": bytes([n])}, "author": {"S": "a"}, "seal": {"B": seal}}
        call(store, "PutItem", TableName=NOTE_TABLE, Item=item)
    for prefix in (b"\xff", b"\xfe", b"\x00", b"\xff\xff"):
        found = query(
            store,
            "author = :a AND begins_with(seal, :p)",
            values={":a": {"S": "a"}, ":p": {"B": prefix}},
            TableName=NOTE_TABLE,
            IndexName="by_author",
        )
        expected = sorted(seal for seal in seals if seal.startswith(prefix))
        assert [item["seal"]["B"] for item in found["Items"]] == expected


SORTS = {
    "by_price": ("price", ["-1.5", "2", "10", "1E+100"]),
    "by_quantity": ("quantity", ["-1.5", "2", "2.5", "10", "99999999999"]),
    "by_weight": ("weight", ["-1.5", "2", "10", "0.000001"]),
    "by_placed": ("placed", ["1700000000", "-1.5", "1700000000.000000001", "2E+40"]),
    "by_label": ("label", ["a", "B", "longer than six", "é", "a\x00"]),
}


def by_number(item: dict[str, Any]) -> str:
    return item["number"]["N"]


@pytest.mark.parametrize("index", SORTS)
@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_an_index_answers_as_memory_does_whatever_holds_its_sort_key(store, index, forward, limit):
    attribute, contents = SORTS[index]
    kind = "S" if attribute == "label" else "N"
    if attribute == "price":
        contents = [content for content in contents if not content.startswith("-")]
    items = []
    for n, content in enumerate([*contents, *contents]):
        item = order("c", n, status="open" if n % 7 else "shut")
        items.append({**item, attribute: {kind: content}})
    if attribute == "price":  # unique in this table
        items = items[: len(contents)]
    items += [order("c", 100, status="open"), order("c", 101, **{attribute: "x" if kind == "S" else 1})]
    memory = MemoryStore({TABLE: store._catalog[TABLE]})
    random.Random(1).shuffle(items)
    for each in (store, memory):
        fill(each, *items)
    asked = {
        "KeyConditionExpression": "#s = :s",
        "ExpressionAttributeNames": {"#s": "status"},
        "values": {":s": {"S": "open"}},
        "IndexName": index,
        "ScanIndexForward": forward,
        "Limit": limit,
    }
    answers = [pages(each, "Query", **asked) for each in (store, memory)]
    found, expected = ([item for page in each for item in page["Items"]] for each in answers)
    assert [item[attribute] for item in found] == [item[attribute] for item in expected]
    assert sorted(found, key=by_number) == sorted(expected, key=by_number)
    in_range = {
        **asked,
        "KeyConditionExpression": f"#s = :s AND {attribute} > :v",
        "values": {":s": {"S": "open"}, ":v": {kind: contents[1]}},
    }
    above, expected_above = (pages(each, "Query", **in_range) for each in (store, memory))
    assert sum(page["Count"] for page in above) == sum(page["Count"] for page in expected_above)


def test_a_keys_only_index_shows_the_keys_and_leaves_out_items_without_its_key(store):
    fill(store, order("a", 1, status="open", code="x"), order("a", 2, code="y"))
    found = call(store, "Scan", IndexName="by_status")
    assert found["Items"] == [{**key("a", 1), "status": {"S": "open"}}]


def test_a_page_ends_at_one_megabyte_and_the_next_one_goes_on_behind_it(store):
    fill(store, *(order("big", n, memo="x" * 300_000) for n in range(9)))
    fill(store, *(order("small", n) for n in range(150)))
    values = {":c": {"S": "big"}}
    found = pages(store, "Query", KeyConditionExpression="customer = :c", values=values)
    assert [page["Count"] for page in found] == [4, 4, 1]
    assert [number for page in found for number in numbers(page)] == [str(n) for n in range(9)]
    small = query(store, "customer = :c", values={":c": {"S": "small"}})
    assert numbers(small) == [str(n) for n in range(150)]
    assert "LastEvaluatedKey" not in small


def test_a_filter_does_not_change_where_a_page_ends(store):
    fill(store, *(order("c", n, price=n) for n in range(10)))
    first = query(store, "customer = :c", values={":c": {"S": "c"}, ":t": {"N": "7"}}, Limit=8,
                  FilterExpression="price >= :t")  # fmt: skip
    assert (first["Count"], first["ScannedCount"], numbers(first)) == (1, 8, ["7"])
    assert first["LastEvaluatedKey"] == key("c", 7)


@pytest.mark.parametrize("table", [TABLE, NOTE_TABLE])
def test_the_segments_of_a_scan_share_out_the_items(store, table):
    for n in range(40):
        item = order(f"c{n}", n) if table == TABLE else {"id": {"B": bytes([n])}}
        call(store, "PutItem", TableName=table, Item=item)
    segments = [
        [str(item) for page in pages(store, "Scan", TableName=table, Segment=n, TotalSegments=3, Limit=7)
         for item in page["Items"]]
        for n in range(3)
    ]  # fmt: skip
    assert all(segments)
    whole = [str(item) for page in pages(store, "Scan", TableName=table) for item in page["Items"]]
    assert sorted(itertools.chain(*segments)) == sorted(whole)
    assert len(set(whole)) == 40


def test_an_unknown_table_and_index_are_refused_as_dynamodb_refuses_them(store):
    for operation, request, code in (
        ("Scan", {"TableName": "nowhere"}, "ResourceNotFoundException"),
        ("Scan", {"TableName": TABLE, "IndexName": "none"}, "ValidationException"),
    ):
        with pytest.raises(Exception, match=code):
            store.execute(parse(operation, request))


def test_an_index_whose_partition_key_has_no_column_says_once_that_it_is_slow(store, caplog):
    warn_once.cache_clear()
    for _ in range(2):
        values = {":a": {"S": "a"}}
        query(store, "author = :a", values=values, TableName=NOTE_TABLE, IndexName="by_author")
    assert [record.levelname for record in caplog.records if "by_author" in record.message] == ["WARNING"]
