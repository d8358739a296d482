"""Query: which items, in which order, in which pages."""

import pytest

from contract.tables import N, S, TableUnderTest, rejects

P = {":p": S("p")}
ONE = "pk = :p"


@pytest.fixture
def ten(things: TableUnderTest) -> TableUnderTest:
    """Items 1 to 10 of partition p, and one each of its neighbours."""
    for number in (10, 3, 7, 1, 9, 2, 8, 4, 6, 5):
        things.put({"pk": S("p"), "sk": N(number), "n": N(number % 3), "label": S(f"{number:02}")})
    for other in ("o", "p ", "q", "pp", "P"):
        things.put({"pk": S(other), "sk": N(1)})
    return things


def numbers(items) -> list[int]:
    return [int(item["sk"]["N"]) for item in items]


# --- Order -------------------------------------------------------------------------------------

ORDERS = {
    "texts": [
        S(text)
        for text in (
            "\x00",
            "\x00a",
            "\x01",
            " ",
            "10",
            "9",
            "A",
            "Z",
            "a",
            "a\x00",
            "ab",
            "z",
            "é",
            "\uff41",
            "\uffff",
            "\U00010000",
        )
    ],
    "things": [
        N(number)
        for number in (
            "-1E125",
            "-10",
            "-9",
            "-0.5",
            "-1E-100",
            "0",
            "1E-100",
            "0.5",
            "9",
            "9.00000001",
            "10",
            "1E125",
        )
    ],
    "binaries": [
        {"B": raw}
        for raw in (b"\x00", b"\x00\x00", b"\x00\xff", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xff\x00")
    ],
}


@pytest.mark.parametrize("kind", ORDERS)
def test_items_are_in_the_order_of_their_sort_key(table, kind):
    sorted_table, expected = table(kind), ORDERS[kind]
    partition = {"B": b"p"} if kind == "binaries" else S("p")
    for value in reversed(expected[::2] + expected[1::2]):
        sorted_table.put({"pk": partition, "sk": value})
    values = {":p": partition}
    forward = sorted_table.query(ONE, values=values)["Items"]
    assert [float(i["sk"]["N"]) if kind == "things" else i["sk"] for i in forward] == [
        float(v["N"]) if kind == "things" else v for v in expected
    ]
    assert sorted_table.query(ONE, values=values, ScanIndexForward=False)["Items"] == forward[::-1]
    assert sorted_table.all("Query", KeyConditionExpression=ONE, values=values, Limit=1) == forward


@pytest.mark.parametrize("kind", ORDERS)
def test_a_range_follows_the_order_of_the_sort_key(table, kind):
    sorted_table, expected = table(kind), ORDERS[kind]
    partition = {"B": b"p"} if kind == "binaries" else S("p")
    for value in expected:
        sorted_table.put({"pk": partition, "sk": value})
    for place, bound in enumerate(expected):
        values = {":p": partition, ":v": bound}
        for operator, count in (("<", place), ("<=", place + 1), (">", len(expected) - place - 1), ("=", 1)):
            found = sorted_table.query(f"{ONE} AND sk {operator} :v", values=values)
            assert found["Count"] == count, (operator, bound)


# --- Key conditions ----------------------------------------------------------------------------


RANGES = [
    ("sk = :5", [5]),
    ("sk < :5", [1, 2, 3, 4]),
    ("sk <= :5", [1, 2, 3, 4, 5]),
    ("sk > :8", [9, 10]),
    ("sk >= :8", [8, 9, 10]),
    ("sk BETWEEN :5 AND :8", [5, 6, 7, 8]),
    (":8 < sk", [9, 10]),
    ("sk = :99", []),
]


@pytest.mark.parametrize(("condition", "expected"), RANGES, ids=[each[0] for each in RANGES])
def test_a_condition_on_the_sort_key_narrows_the_partition(ten: TableUnderTest, condition, expected):
    values = {**P, **{f":{n}": N(n) for n in (5, 8, 99) if f":{n}" in condition}}
    assert numbers(ten.query(f"{ONE} AND {condition}", values=values)["Items"]) == expected
    assert (
        numbers(ten.query(f"{condition} AND {ONE}", values=values, ScanIndexForward=False)["Items"])
        == expected[::-1]
    )


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (S("a"), [S("a"), S("a\x00"), S("ab"), S("a\U0010ffff")]),
        (S("a%"), []),
        (S("a_"), [S("a_b")]),
        (S("é"), [S("é")]),
    ],
    ids=["a", "percent", "underscore", "accent"],
)
def test_begins_with_finds_a_prefix_and_no_pattern(table, start, expected):
    texts = table("texts")
    for text in ("A", "a", "a\x00", "ab", "a\U0010ffff", "b", "é", "é"):
        texts.put({"pk": S("p"), "sk": S(text)})
    if start == S("a_"):
        texts.put({"pk": S("p"), "sk": S("a_b")})
    found = texts.query(f"{ONE} AND begins_with(sk, :s)", values={**P, ":s": start})["Items"]
    assert [item["sk"] for item in found] == expected


def test_begins_with_finds_a_binary_prefix(table):
    binaries = table("binaries")
    for raw in (b"\x00", b"\xff", b"\xff\x00", b"\xff\xff"):
        binaries.put({"pk": {"B": b"p"}, "sk": {"B": raw}})
    values = {":p": {"B": b"p"}, ":s": {"B": b"\xff"}}
    assert binaries.query(f"{ONE} AND begins_with(sk, :s)", values=values)["Count"] == 3


BAD_CONDITIONS = {
    "no partition": ("sk = :n", {":n": N(1)}),
    "partition not equal": ("pk > :p", P),
    "partition begins_with": ("begins_with(pk, :p)", P),
    "sort not equal": ("pk = :p AND sk <> :n", {**P, ":n": N(1)}),
    "two on the sort key": ("pk = :p AND sk > :n AND sk < :m", {**P, ":n": N(1), ":m": N(2)}),
    "or": ("pk = :p OR sk = :n", {**P, ":n": N(1)}),
    "not": ("NOT pk = :p", P),
    "another attribute": ("pk = :p AND a = :n", {**P, ":n": N(1)}),
    "in": ("pk = :p AND sk IN (:n)", {**P, ":n": N(1)}),
    "type of partition": ("pk = :n", {":n": N(1)}),
    "type of sort": ("pk = :p AND sk = :p", P),
    "begins_with a number": ("pk = :p AND begins_with(sk, :n)", {**P, ":n": N(1)}),
    "reversed": ("pk = :p AND sk BETWEEN :n AND :m", {**P, ":n": N(2), ":m": N(1)}),
    "exists": ("pk = :p AND attribute_exists(sk)", P),
    "empty partition": ("pk = :e", {":e": S("")}),
    "unused value": ("pk = :p", {**P, ":n": N(1)}),
}


@pytest.mark.parametrize(("condition", "values"), BAD_CONDITIONS.values(), ids=BAD_CONDITIONS)
def test_malformed_key_conditions_are_refused(ten: TableUnderTest, condition, values):
    with rejects():
        ten.query(condition, values=values)


def test_a_query_needs_a_key_condition(ten: TableUnderTest):
    with rejects():
        ten.call("Query")


# --- Filters, projections, counts --------------------------------------------------------------


def test_a_filter_drops_items_that_were_evaluated(ten: TableUnderTest):
    found = ten.query(ONE, FilterExpression="n = :n", values={**P, ":n": N(0)})
    assert (numbers(found["Items"]), found["Count"], found["ScannedCount"]) == ([3, 6, 9], 3, 10)


def test_limit_counts_what_is_evaluated_not_what_is_found(ten: TableUnderTest):
    found = ten.query(ONE, FilterExpression="n = :n", Limit=2, values={**P, ":n": N(0)})
    assert (found["Items"], found["Count"], found["ScannedCount"]) == ([], 0, 2)
    assert found["LastEvaluatedKey"] == {"pk": S("p"), "sk": N(2)}


@pytest.mark.parametrize(
    "filter_", ["sk > :n", "n = :n AND sk = :n", "pk <> :n OR n = :n", "attribute_exists(pk) AND n = :n"]
)
def test_a_filter_may_not_name_the_key(ten: TableUnderTest, filter_):
    with rejects():
        ten.query(ONE, FilterExpression=filter_, values={**P, ":n": N(1)})


def test_a_projection_applies_after_the_filter(ten: TableUnderTest):
    found = ten.query(ONE, FilterExpression="n = :n", ProjectionExpression="label", values={**P, ":n": N(0)})
    assert found["Items"] == [{"label": S("03")}, {"label": S("06")}, {"label": S("09")}]


def test_select_count_gives_no_items(ten: TableUnderTest):
    assert ten.query(ONE, Select="COUNT", values=P) == {"Count": 10, "ScannedCount": 10}


@pytest.mark.parametrize(
    "request_",
    [
        {"Select": "COUNT", "ProjectionExpression": "n"},
        {"Select": "ALL_ATTRIBUTES", "ProjectionExpression": "n"},
        {"Select": "SPECIFIC_ATTRIBUTES"},
        {"Select": "ALL_PROJECTED_ATTRIBUTES"},
        {"Select": "DOG"},
        {"Limit": 0},
        {"Limit": -1},
        {"IndexName": "no-such-index"},
    ],
    ids=str,
)
def test_malformed_queries_are_refused(ten: TableUnderTest, request_):
    with rejects():
        ten.query(ONE, values=P, **request_)


# --- Pages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("limit", [1, 3, 5, 10, 11])
def test_pages_give_every_item_once(ten: TableUnderTest, limit, forward):
    request = {"KeyConditionExpression": ONE, "values": P, "ScanIndexForward": forward, "Limit": limit}
    expected = list(range(1, 11))
    assert numbers(ten.all("Query", **request)) == (expected if forward else expected[::-1])


def test_a_limit_that_equals_the_count_still_gives_a_last_key(ten: TableUnderTest):
    page = ten.query(ONE, Limit=10, values=P)
    assert page["LastEvaluatedKey"] == {"pk": S("p"), "sk": N(10)}
    rest = ten.query(ONE, ExclusiveStartKey=page["LastEvaluatedKey"], values=P)
    assert rest == {"Items": [], "Count": 0, "ScannedCount": 0}
    assert "LastEvaluatedKey" not in ten.query(ONE, Limit=11, values=P)


def test_a_page_continues_after_a_key_that_is_gone(ten: TableUnderTest):
    start = ten.query(ONE, Limit=4, values=P)["LastEvaluatedKey"]
    ten.delete(start)
    assert numbers(ten.query(ONE, ExclusiveStartKey=start, values=P)["Items"]) == [5, 6, 7, 8, 9, 10]


def test_pages_of_a_range_stay_in_the_range(ten: TableUnderTest):
    request = {
        "KeyConditionExpression": f"{ONE} AND sk BETWEEN :a AND :b",
        "values": {**P, ":a": N(3), ":b": N(8)},
    }
    assert numbers(ten.all("Query", Limit=2, **request)) == [3, 4, 5, 6, 7, 8]
    assert numbers(ten.all("Query", Limit=4, ScanIndexForward=False, **request)) == [8, 7, 6, 5, 4, 3]


@pytest.mark.parametrize(
    "start",
    [
        {"pk": S("p")},
        {"pk": S("p"), "sk": S("1")},
        {"pk": S("p"), "sk": N(1), "n": N(1)},
        {"pk": S("q"), "sk": N(1)},
        {"pk": S("p"), "sk": N(9)},
        {"pk": S(""), "sk": N(1)},
        {},
    ],
    ids=["too little", "wrong type", "too much", "other partition", "outside the range", "empty", "nothing"],
)
def test_a_start_key_that_cannot_be_is_refused(ten: TableUnderTest, start):
    with rejects():
        ten.query(f"{ONE} AND sk < :n", ExclusiveStartKey=start, values={**P, ":n": N(5)})


def test_a_page_ends_after_a_megabyte(table):
    texts = table("texts")
    for number in range(12):
        texts.put({"pk": S("p"), "sk": S(f"{number:02}"), "filler": S("x" * 200_000), "n": N(number % 2)})
    pages = texts.pages("Query", KeyConditionExpression=ONE, values=P)
    assert [item["sk"]["S"] for page in pages for item in page["Items"]] == [f"{n:02}" for n in range(12)]
    assert len(pages) == 3
    assert all(page["Count"] in {5, 6} for page in pages[:-1])
    counted = texts.pages("Query", KeyConditionExpression=ONE, values=P, Select="COUNT")
    assert [page["ScannedCount"] for page in counted] == [page["ScannedCount"] for page in pages]
    request = {"KeyConditionExpression": ONE, "FilterExpression": "n = :n", "ProjectionExpression": "n"}
    filtered = texts.pages("Query", values={**P, ":n": N(1)}, **request)
    assert [len(page["Items"]) for page in filtered if page["Items"]] != [6]
    assert sum(page["Count"] for page in filtered) == 6
    assert sum(page["ScannedCount"] for page in filtered) == 12


def test_a_query_of_an_empty_partition_finds_nothing(things: TableUnderTest):
    assert things.query(ONE, values=P) == {"Items": [], "Count": 0, "ScannedCount": 0}
