"""DynamoDB's parameters from before expressions: DynamoDB carries them out, the others say them anew."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from contract.tables import N, S, TableUnderTest, comparable, rejects
from dualstore.operations import OPERATIONS, parse
from dualstore.stores import DynamoStore

KEY = {"pk": S("p"), "sk": N(1)}
ITEM = {
    **KEY,
    "n": N(9),
    "s": S("straße"),
    "b": {"B": b"\x00\xff"},
    "ss": {"SS": ["a", "b"]},
    "l": {"L": [N(1), S("a")]},
    "size": S("a reserved word"),
    "dotted.name": S("one attribute"),
}


def ask(table: TableUnderTest, operation: str, **request: Any) -> Any:
    """Carry out an operation of the table; what is DynamoDB gets the request as it is written."""
    request = {"TableName": table.name, **request}
    if isinstance(table.store, DynamoStore):
        response = table.store.execute(OPERATIONS[operation](request))
    else:
        response = table.store.execute(parse(operation, request))
    return comparable({name: value for name, value in response.items() if name != "ResponseMetadata"})


def compared(operator: str, *values: Any) -> dict[str, Any]:
    return {"ComparisonOperator": operator, "AttributeValueList": list(values)}


TRUE: dict[str, dict[str, Any]] = {
    "equal numbers": {"n": compared("EQ", N("9.0"))},
    "equal sets": {"ss": compared("EQ", {"SS": ["b", "a"]})},
    "equal lists": {"l": compared("EQ", {"L": [N(1), S("a")]})},
    "not equal": {"n": compared("NE", N(8))},
    "not equal to another type": {"n": compared("NE", S("9"))},
    "an absent attribute is not equal": {"absent": compared("NE", N(8))},
    "less": {"n": compared("LT", N(10))},
    "at most": {"n": compared("LE", N(9))},
    "more": {"n": compared("GT", N(8))},
    "at least": {"n": compared("GE", N(9))},
    "there": {"n": {"ComparisonOperator": "NOT_NULL"}},
    "not there": {"absent": {"ComparisonOperator": "NULL"}},
    "a text contains": {"s": compared("CONTAINS", S("raß"))},
    "a set contains": {"ss": compared("CONTAINS", S("a"))},
    "a list contains": {"l": compared("CONTAINS", N(1))},
    "a text does not contain": {"s": compared("NOT_CONTAINS", S("x"))},
    "an absent attribute does not contain": {"absent": compared("NOT_CONTAINS", S("x"))},
    "begins with": {"s": compared("BEGINS_WITH", S("str"))},
    "one of several": {"n": compared("IN", N(1), N(9))},
    "between": {"n": compared("BETWEEN", N(8), N(9))},
    "a reserved word": {"size": compared("EQ", S("a reserved word"))},
    "all of several": {"n": compared("GT", N(1)), "s": compared("BEGINS_WITH", S("s"))},
    "the oldest form, equal": {"n": {"Value": N(9)}},
    "the oldest form, equal, said aloud": {"n": {"Value": N(9), "Exists": True}},
    "the oldest form, absent": {"absent": {"Exists": False}},
    "a single value beside its operator": {"n": {"Value": N(10), "ComparisonOperator": "LT"}},
}

FALSE: dict[str, dict[str, Any]] = {
    "another type": {"n": compared("EQ", S("9"))},
    "an absent attribute": {"absent": compared("EQ", N(9))},
    "an absent attribute is not less": {"absent": compared("LT", N(9))},
    "an absent attribute does not begin": {"absent": compared("BEGINS_WITH", S("s"))},
    "there after all": {"n": {"ComparisonOperator": "NULL"}},
    "one of two": {"n": compared("GT", N(1)), "s": compared("BEGINS_WITH", S("x"))},
    "the oldest form, there": {"n": {"Exists": False}},
    "contained": {"ss": compared("NOT_CONTAINS", S("a"))},
    "none of several": {"n": compared("IN", N(1), N(2))},
}


def holds(things: TableUnderTest, expected: dict[str, Any]) -> bool:
    """Whether a write that expects something is done; the item is there again afterwards."""
    try:
        ask(things, "PutItem", Item={**KEY, "done": N(1)}, Expected=expected)
    except ClientError as refused:
        if refused.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise
        assert things.get(KEY) == comparable(ITEM)
        return False
    assert things.get(KEY) == {**KEY, "done": N(1)}
    things.put(ITEM)
    return True


def test_a_write_is_done_where_its_expectation_holds_and_refused_elsewhere(things: TableUnderTest):
    things.put(ITEM)
    answered = {name: holds(things, expected) for name, expected in {**TRUE, **FALSE}.items()}
    assert answered == {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}


def test_a_name_with_a_dot_is_one_attribute(things: TableUnderTest):
    things.put(ITEM)
    assert holds(things, {"dotted.name": compared("EQ", S("one attribute"))})


def test_expectations_may_be_joined_by_or(things: TableUnderTest):
    things.put(ITEM)
    either = {"n": compared("EQ", N(1)), "s": compared("BEGINS_WITH", S("str"))}
    ask(things, "DeleteItem", Key=KEY, Expected=either, ConditionalOperator="OR")
    assert things.get(KEY) is None


UPDATES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "put": ({"n": {"Action": "PUT", "Value": N(1)}}, {"n": N(1)}),
    "put, where no action is named": ({"n": {"Value": N(1)}}, {"n": N(1)}),
    "add a number": ({"n": {"Action": "ADD", "Value": N("0.5")}}, {"n": N("9.5")}),
    "add to an absent number": ({"new": {"Action": "ADD", "Value": N(2)}}, {"new": N(2)}),
    "add members": ({"ss": {"Action": "ADD", "Value": {"SS": ["c"]}}}, {"ss": {"SS": ["a", "b", "c"]}}),
    "add to a list": ({"l": {"Action": "ADD", "Value": {"L": [N(2)]}}}, {"l": {"L": [N(1), S("a"), N(2)]}}),
    "add to an absent list": ({"new": {"Action": "ADD", "Value": {"L": [N(2)]}}}, {"new": {"L": [N(2)]}}),
    "delete": ({"n": {"Action": "DELETE"}}, {"n": None}),
    "delete members": ({"ss": {"Action": "DELETE", "Value": {"SS": ["a"]}}}, {"ss": {"SS": ["b"]}}),
    "several": (
        {"n": {"Action": "DELETE"}, "size": {"Value": S("x")}, "new": {"Action": "ADD", "Value": N(1)}},
        {"n": None, "size": S("x"), "new": N(1)},
    ),
    "nothing": ({}, {}),
}


def test_an_update_changes_what_its_actions_say(things: TableUnderTest):
    for updates, changed in UPDATES.values():
        things.put(ITEM)
        answer = ask(things, "UpdateItem", Key=KEY, AttributeUpdates=updates, ReturnValues="ALL_NEW")
        expected = {name: value for name, value in {**ITEM, **changed}.items() if value is not None}
        assert answer["Attributes"] == things.get(KEY) == comparable(expected), updates


def test_an_update_answers_the_values_that_it_changed(things: TableUnderTest):
    things.put(ITEM)
    answer = ask(
        things, "UpdateItem", Key=KEY, AttributeUpdates={"n": {"Value": N(1)}}, ReturnValues="UPDATED_OLD"
    )
    assert answer["Attributes"] == {"n": N(9)}


def test_an_update_creates_an_absent_item_unless_it_only_takes_away(things: TableUnderTest):
    ask(things, "UpdateItem", Key=KEY, AttributeUpdates={"n": {"Action": "DELETE"}})
    assert things.get(KEY) is None
    ask(things, "UpdateItem", Key=KEY, AttributeUpdates={"n": {"Action": "ADD", "Value": N(2)}})
    assert things.get(KEY) == {**KEY, "n": N(2)}


def test_an_update_may_expect_something(things: TableUnderTest):
    things.put(ITEM)
    with rejects("ConditionalCheckFailedException"):
        ask(
            things,
            "UpdateItem",
            Key=KEY,
            AttributeUpdates={"n": {"Value": N(1)}},
            Expected={"n": {"Value": N(8)}},
        )
    assert things.get(KEY) == comparable(ITEM)


@pytest.fixture
def ten(things: TableUnderTest) -> TableUnderTest:
    for number in range(10):
        things.put({"pk": S("p"), "sk": N(number), "even": {"BOOL": number % 2 == 0}, "s": S(f"s{number}")})
    return things


SORT_KEYS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "EQ": (compared("EQ", N(3)), [3]),
    "LT": (compared("LT", N(2)), [0, 1]),
    "LE": (compared("LE", N(1)), [0, 1]),
    "GT": (compared("GT", N(7)), [8, 9]),
    "GE": (compared("GE", N(8)), [8, 9]),
    "BETWEEN": (compared("BETWEEN", N(3), N(5)), [3, 4, 5]),
}


def test_a_query_finds_what_its_key_conditions_say(ten: TableUnderTest):
    for operator, (condition, found) in SORT_KEYS.items():
        answer = ask(ten, "Query", KeyConditions={"pk": compared("EQ", S("p")), "sk": condition})
        assert [int(item["sk"]["N"]) for item in answer["Items"]] == found, operator


def test_a_query_filters_and_projects(ten: TableUnderTest):
    answer = ask(
        ten,
        "Query",
        KeyConditions={"pk": compared("EQ", S("p"))},
        QueryFilter={"even": compared("EQ", {"BOOL": True}), "s": compared("IN", S("s1"), S("s2"))},
        ConditionalOperator="AND",
        AttributesToGet=["sk"],
    )
    assert answer["Items"] == [{"sk": N(2)}]
    assert (answer["Count"], answer["ScannedCount"]) == (1, 10)


def test_a_scan_filters(ten: TableUnderTest):
    answer = ask(ten, "Scan", ScanFilter={"s": compared("GE", S("s8"))})
    assert {item["s"]["S"] for item in answer["Items"]} == {"s8", "s9"}


def test_a_get_and_a_batch_of_gets_project(ten: TableUnderTest):
    key = {"pk": S("p"), "sk": N(4)}
    assert ask(ten, "GetItem", Key=key, AttributesToGet=["s", "absent"])["Item"] == {"s": S("s4")}
    asked = {ten.name: {"Keys": [key], "AttributesToGet": ["s"]}}
    store = ten.store
    carry_out = OPERATIONS["BatchGetItem"] if isinstance(store, DynamoStore) else None
    request = {"RequestItems": asked}
    operation = carry_out(request) if carry_out else parse("BatchGetItem", request)
    assert store.execute(operation)["Responses"][ten.name] == [{"s": S("s4")}]


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "mixed with an expression": (
        "DeleteItem",
        {"Expected": {"n": {"Value": N(9)}}, "ConditionExpression": "attribute_exists(pk)"},
    ),
    "two values for one": ("DeleteItem", {"Expected": {"n": compared("EQ", N(1), N(2))}}),
    "no value for one": ("DeleteItem", {"Expected": {"n": {"ComparisonOperator": "EQ"}}}),
    "no such operator": ("DeleteItem", {"Expected": {"n": compared("LIKE", N(1))}}),
    "a value that must not exist": ("DeleteItem", {"Expected": {"n": {"Exists": False, "Value": N(9)}}}),
    "nothing to put": ("UpdateItem", {"AttributeUpdates": {"n": {"Action": "PUT"}}}),
    "adding a text": ("UpdateItem", {"AttributeUpdates": {"s": {"Action": "ADD", "Value": S("x")}}}),
    "deleting a number": ("UpdateItem", {"AttributeUpdates": {"n": {"Action": "DELETE", "Value": N(1)}}}),
}


def test_what_says_nothing_is_refused_and_does_nothing(things: TableUnderTest):
    things.put(ITEM)
    for operation, request in REFUSED.values():
        with rejects():
            ask(things, operation, Key=KEY, **request)
        assert things.get(KEY) == comparable(ITEM), request


def test_an_operator_that_joins_nothing_is_refused(things: TableUnderTest):
    things.put(ITEM)
    with rejects():
        ask(things, "DeleteItem", Key=KEY, Expected={"n": {"Value": N(9)}}, ConditionalOperator="OR")
