"""PutItem, GetItem, DeleteItem, and what all writes of one item have in common."""

import pytest
from botocore.exceptions import ClientError

from contract.tables import N, S, TableUnderTest, comparable, rejects

KEY = {"pk": S("p"), "sk": N(1)}
RICH = {
    **KEY,
    "text": S("grüße \U0001f600"),
    "nul": S("a\x00b\x01"),
    "empty": S(""),
    "number": N("-1234567890123456789012345678901234567.8"),
    "small": N("0." + "0" * 129 + "1"),
    "large": N("9" * 38 + "0" * 88),
    "binary": {"B": bytes(range(256))},
    "no_bytes": {"B": b""},
    "yes": {"BOOL": True},
    "no": {"BOOL": False},
    "null": {"NULL": True},
    "texts": {"SS": ["a", "", "\U00010000", "￿"]},
    "numbers": {"NS": ["1", "-2", "3.5"]},
    "binaries": {"BS": [b"\x00", b"\xff"]},
    "list": {"L": [S("a"), N(1), {"L": []}, {"M": {}}, {"NULL": True}]},
    "map": {"M": {"a.b": {"M": {"": {"SS": ["x"]}}}, "#": S("")}},
    "with space": S("x"),
    "a.b[0]": S("x"),
}


def nested(levels: int) -> dict:
    value = S("x")
    for _ in range(levels):
        value = {"L": [value]}
    return value


def test_what_is_put_is_got(things: TableUnderTest):
    assert things.put(RICH) == {}
    assert things.get(KEY) == comparable(RICH)


def test_an_absent_item_is_no_item(things: TableUnderTest):
    assert things.call("GetItem", Key=KEY) == {}


def test_put_replaces_the_whole_item(things: TableUnderTest):
    things.put({**KEY, "a": N(1), "b": N(2)})
    things.put({**KEY, "a": N(3)})
    assert things.get(KEY) == {**KEY, "a": N(3)}


@pytest.mark.parametrize(
    ("written", "read"),
    [("1.0", "1"), ("-0", "0"), ("1e2", "100"), ("+5", "5"), ("0.10", "0.1"), ("1E-3", "0.001")],
)
def test_numbers_have_one_text(things: TableUnderTest, written, read):
    things.put({**KEY, "n": N(written), "set": {"NS": [written]}, "in": {"L": [N(written)]}})
    assert things.get(KEY) == {**KEY, "n": N(read), "set": {"NS": [read]}, "in": {"L": [N(read)]}}


def test_a_numeric_key_is_its_number(things: TableUnderTest):
    things.put({"pk": S("p"), "sk": N("1.00"), "a": S("x")})
    assert things.get({"pk": S("p"), "sk": N(1)}) == {"pk": S("p"), "sk": N(1), "a": S("x")}
    things.update({"pk": S("p"), "sk": N("1E0")}, "SET a = :a", values={":a": S("y")})
    assert things.delete({"pk": S("p"), "sk": N("01")}, ReturnValues="ALL_OLD")["Attributes"]["a"] == S("y")


def test_a_numeric_partition_key_is_its_number(table):
    numbered = table("numbered")
    numbered.put({"pk": N("-0.50"), "a": S("x")})
    assert numbered.get({"pk": N("-.5")}) == {"pk": N("-0.5"), "a": S("x")}


def test_keys_that_look_alike_are_different_keys(table):
    texts = table("texts")
    keys = [{"pk": S(p), "sk": S(s)} for p in ("a", "a\x00", "A", "á", "á") for s in ("b", "b ", "\x00")]
    for key in keys:
        texts.put(key)
    assert [texts.get(key) for key in keys] == keys


def test_delete_removes_an_item_and_forgives_an_absent_one(things: TableUnderTest):
    things.put({**KEY, "a": N(1)})
    assert things.delete(KEY) == {}
    assert things.get(KEY) is None
    assert things.delete(KEY) == {}


# --- Return values -----------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["put", "delete"])
def test_all_old_gives_the_old_item(things: TableUnderTest, operation):
    def write(**request):
        return things.put(KEY, **request) if operation == "put" else things.delete(KEY, **request)

    assert write(ReturnValues="ALL_OLD") == {}
    things.put({**KEY, "a": N(1)})
    assert write(ReturnValues="ALL_OLD") == {"Attributes": {**KEY, "a": N(1)}}
    assert write(ReturnValues="NONE") == {}


@pytest.mark.parametrize("wanted", ["ALL_NEW", "UPDATED_OLD", "UPDATED_NEW", "all_old", "DOG"])
@pytest.mark.parametrize("operation", ["put", "delete"])
def test_put_and_delete_refuse_other_return_values(things: TableUnderTest, operation, wanted):
    with rejects():
        things.put(KEY, ReturnValues=wanted) if operation == "put" else things.delete(
            KEY, ReturnValues=wanted
        )


# --- Conditions --------------------------------------------------------------------------------

ABSENT = {"ConditionExpression": "attribute_not_exists(pk)"}
PRESENT = {"ConditionExpression": "attribute_exists(pk)"}


def write(things: TableUnderTest, operation: str, **request) -> dict:
    match operation:
        case "put":
            return things.put({**KEY, "new": N(1)}, **request)
        case "update":
            return things.update(KEY, "SET #n = if_not_exists(sk, sk)", names={"#n": "new"}, **request)
        case _:
            return things.delete(KEY, **request)


@pytest.mark.parametrize("operation", ["put", "update", "delete"])
def test_a_condition_that_fails_changes_nothing(things: TableUnderTest, operation):
    with rejects("ConditionalCheckFailedException"):
        write(things, operation, **PRESENT)
    assert things.get(KEY) is None
    things.put({**KEY, "old": N(1)})
    with rejects("ConditionalCheckFailedException"):
        write(things, operation, **ABSENT)
    assert things.get(KEY) == {**KEY, "old": N(1)}


@pytest.mark.parametrize("operation", ["put", "update", "delete"])
def test_a_condition_that_holds_lets_the_write_through(things: TableUnderTest, operation):
    write(things, operation, **ABSENT)
    things.put({**KEY, "old": N(1)})
    write(things, operation, **PRESENT)
    assert (things.get(KEY) or {}).get("new") == (None if operation == "delete" else N(1))


@pytest.mark.parametrize("operation", ["put", "update", "delete"])
def test_a_failed_condition_hands_out_the_old_item_on_request(things: TableUnderTest, operation):
    things.put({**KEY, "old": {"SS": ["a"]}})
    with rejects("ConditionalCheckFailedException") as caught:
        write(things, operation, **ABSENT, ReturnValuesOnConditionCheckFailure="ALL_OLD")
    assert caught.value.response["Item"] == {**KEY, "old": {"SS": ["a"]}}
    with rejects("ConditionalCheckFailedException") as caught:
        write(things, operation, **ABSENT)
    assert "Item" not in caught.value.response


def test_a_failed_condition_on_an_absent_item_hands_out_nothing(things: TableUnderTest):
    with rejects("ConditionalCheckFailedException") as caught:
        things.put(KEY, **PRESENT, ReturnValuesOnConditionCheckFailure="ALL_OLD")
    assert "Item" not in caught.value.response


@pytest.mark.parametrize("wanted", ["ALL_NEW", "UPDATED_OLD", "DOG"])
def test_other_values_on_condition_check_failure_are_refused(things: TableUnderTest, wanted):
    with rejects():
        things.put(KEY, ReturnValuesOnConditionCheckFailure=wanted)


# --- Keys --------------------------------------------------------------------------------------

BAD_KEYS = {
    "missing sort key": {"pk": S("p")},
    "missing partition key": {"sk": N(1)},
    "no key": {},
    "wrong type": {"pk": S("p"), "sk": S("1")},
    "wrong type of partition key": {"pk": N(1), "sk": N(1)},
    "null": {"pk": {"NULL": True}, "sk": N(1)},
    "empty": {"pk": S(""), "sk": N(1)},
    "too long": {"pk": S("x" * 2049), "sk": N(1)},
    "too long in bytes": {"pk": S("ü" * 1025), "sk": N(1)},
    "not a number": {"pk": S("p"), "sk": N("one")},
}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
@pytest.mark.parametrize("operation", ["GetItem", "DeleteItem", "UpdateItem", "PutItem"])
def test_malformed_keys_are_refused(things: TableUnderTest, operation, key):
    with rejects():
        things.call(operation, **{"Item" if operation == "PutItem" else "Key": key})


@pytest.mark.parametrize("operation", ["GetItem", "DeleteItem", "UpdateItem"])
def test_a_key_holds_nothing_else(things: TableUnderTest, operation):
    with rejects():
        things.call(operation, Key={**KEY, "a": N(1)})


def test_the_longest_keys_are_accepted(table):
    texts = table("texts")
    key = {"pk": S("x" * 2048), "sk": S("y" * 1024)}
    texts.put(key)
    assert texts.get(key) == key
    with rejects():
        texts.put({**key, "sk": S("y" * 1025)})


def test_empty_binary_keys_are_refused(table):
    with rejects():
        table("binaries").put({"pk": {"B": b"x"}, "sk": {"B": b""}})


@pytest.mark.parametrize("value", [N(1), {"NULL": True}, S("")], ids=["type", "null", "empty"])
@pytest.mark.parametrize("operation", ["put", "update"])
def test_a_value_that_an_index_cannot_hold_is_refused(things: TableUnderTest, operation, value):
    with rejects():
        if operation == "put":
            things.put({**KEY, "owner": value})
        else:
            things.update(KEY, "SET #o = :v", names={"#o": "owner"}, values={":v": value})


# --- Items -------------------------------------------------------------------------------------

BAD_VALUES = {
    "39 digits": N("1" * 39),
    "number too large": N("1e126"),
    "number too small": N("1e-131"),
    "not a number": N("abc"),
    "NaN": N("NaN"),
    "empty set": {"SS": []},
    "set with duplicates": {"SS": ["a", "a"]},
    "set with equal numbers": {"NS": ["1", "1.0"]},
    "null that is false": {"NULL": False},
    "nested too deep": nested(32),
    "nested empty set": {"M": {"a": {"L": [{"NS": []}]}}},
}


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
def test_invalid_values_are_refused(things: TableUnderTest, value):
    with rejects():
        things.put({**KEY, "v": value})
    assert things.get(KEY) is None


def test_32_levels_of_nesting_are_accepted_the_innermost_value_included(things: TableUnderTest):
    things.put({**KEY, "v": nested(31)})
    assert things.get(KEY) == {**KEY, "v": nested(31)}


def test_409600_bytes_are_the_largest_item(table):
    singles = table("singles")
    item = {"pk": S("p"), "text": S("x" * (409_600 - len("pkptext")))}
    singles.put(item)
    assert singles.get({"pk": S("p")}) == item
    with rejects():
        singles.put({**item, "text": S(item["text"]["S"] + "x")})
    with rejects():
        singles.update({"pk": S("p")}, "SET b = :b", values={":b": S("")})


# --- Requests ----------------------------------------------------------------------------------

BAD_REQUESTS = {
    "unused name": {"ConditionExpression": "attribute_not_exists(a)", "names": {"#a": "a"}},
    "unused value": {"ConditionExpression": "attribute_not_exists(a)", "values": {":a": S("a")}},
    "names without expression": {"names": {"#a": "a"}},
    "no names": {"ConditionExpression": "attribute_not_exists(a)", "names": {}},
    "undefined name": {"ConditionExpression": "attribute_exists(#a)"},
    "undefined value": {"ConditionExpression": "a = :a"},
    "reserved word": {"ConditionExpression": "attribute_exists(name)"},
    "syntax error": {"ConditionExpression": "a ="},
    "empty expression": {"ConditionExpression": ""},
    "capacity": {"ReturnConsumedCapacity": "DOG"},
}


@pytest.mark.parametrize("request_", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_malformed_requests_are_refused(things: TableUnderTest, request_):
    with rejects():
        things.put(KEY, **request_)
    assert things.get(KEY) is None


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("GetItem", {"Key": KEY}),
        ("PutItem", {"Item": KEY}),
        ("UpdateItem", {"Key": KEY}),
        ("DeleteItem", {"Key": KEY}),
        ("Scan", {}),
    ],
)
def test_a_missing_table_is_not_found(store, operation, request_):
    with rejects("ResourceNotFoundException"):
        TableUnderTest(store, "no-such-table").call(operation, **request_)


def test_errors_are_botocores(things: TableUnderTest):
    with pytest.raises(ClientError) as caught:
        things.put(KEY, **PRESENT)
    assert caught.value.operation_name == "PutItem"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


# --- Projections -------------------------------------------------------------------------------

WHOLE = {**KEY, "a": {"M": {"b": {"L": [N(0), {"M": {"c": N(1)}}, N(2)]}, "d": S("x")}}, "e.f": S("y")}


@pytest.mark.parametrize(
    ("projection", "expected"),
    [
        ("pk", {"pk": S("p")}),
        ("a.d", {"a": {"M": {"d": S("x")}}}),
        ("a.b[1].c", {"a": {"M": {"b": {"L": [{"M": {"c": N(1)}}]}}}}),
        ("a.b[2], a.b[0]", {"a": {"M": {"b": {"L": [N(0), N(2)]}}}}),
        ("a.d.x, a.b[7], nothing", {}),
        ("#e", {"e.f": S("y")}),
    ],
)
def test_a_projection_picks_parts_of_the_item(things: TableUnderTest, projection, expected):
    things.put(WHOLE)
    names = {"names": {"#e": "e.f"}} if "#" in projection else {}
    assert things.call("GetItem", Key=KEY, ProjectionExpression=projection, **names) == {"Item": expected}


@pytest.mark.parametrize("projection", ["a, a.b", "a, a", "a.b, a[0]", "", "a,", "a b", "size", ":v"])
def test_malformed_projections_are_refused(things: TableUnderTest, projection):
    with rejects():
        things.get(KEY, ProjectionExpression=projection)


# --- Capacity ----------------------------------------------------------------------------------


def test_consumed_capacity_is_told_when_asked_for(table):
    singles = table("singles")
    key, item = {"pk": S("p")}, {"pk": S("p"), "text": S("x" * 5000)}

    def units(operation, **request):
        response = singles.call(operation, ReturnConsumedCapacity="TOTAL", **request)
        assert response["ConsumedCapacity"]["TableName"] == singles.name
        return response["ConsumedCapacity"]["CapacityUnits"]

    assert units("PutItem", Item=item) == 5
    assert units("GetItem", Key=key) == 1
    assert units("GetItem", Key=key, ConsistentRead=True) == 2
    assert units("GetItem", Key={"pk": S("none")}) == 0.5
    assert (
        units("UpdateItem", Key=key, UpdateExpression="REMOVE #t", ExpressionAttributeNames={"#t": "text"})
        == 5
    )
    assert units("DeleteItem", Key=key) == 1
    assert "ConsumedCapacity" not in singles.call("GetItem", Key=key)
