"""Stamped requests: what is added to a caller's write, and what is taken out of the reply."""

import copy
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dualstore.errors import RequestRejected
from dualstore.items import PREDECESSOR, STAMP
from dualstore.operations import ConditionalWrite, DeleteItem, PutItem, UpdateItem
from dualstore.replication.requests import guarded, key_of, may_create, read_reply, stamped
from dualstore.replication.stamps import derived_stamp, new_stamp, stamp_of
from dualstore.stores.memory import MemoryStore
from unit.replication.processes import SHAPE, TABLE

KEY = {"id": {"S": "a"}}
ITEM = {
    **KEY,
    "n": {"N": "1"},
    "gone": {"S": "x"},
    "tags": {"SS": ["u", "v"]},
    "m": {"M": {"in": {"N": "1"}, "other": {"N": "2"}}},
    "l": {"L": [{"S": "zero"}]},
}
BOTH = pytest.mark.parametrize("mirrored", [False, True])
STARTS = pytest.mark.parametrize("start", ["absent", "plain", "stamped"])

UPDATES: dict[str, dict[str, Any]] = {
    "sets": {"UpdateExpression": "SET v = :v", "ExpressionAttributeValues": {":v": {"S": "new"}}},
    "sets inside a map": {"UpdateExpression": "SET m.#i = :v", "ExpressionAttributeNames": {"#i": "in"},
                          "ExpressionAttributeValues": {":v": {"S": "new"}}},
    "adds": {"UpdateExpression": "ADD n :v", "ExpressionAttributeValues": {":v": {"N": "5"}}},
    "removes": {"UpdateExpression": "REMOVE gone"},
    "removes and sets": {"UpdateExpression": "REMOVE gone SET v = :v",
                         "ExpressionAttributeValues": {":v": {"S": "new"}}},
    "deletes from a set": {"UpdateExpression": "DELETE tags :v",
                           "ExpressionAttributeValues": {":v": {"SS": ["u"]}}},
    "appends to a list": {"UpdateExpression": "SET l[9] = :v",
                          "ExpressionAttributeValues": {":v": {"S": "new"}}},
    "sets a list element": {"UpdateExpression": "SET l[0] = :v",
                            "ExpressionAttributeValues": {":v": {"S": "new"}}},
    "changes nothing": {"UpdateExpression": "SET n = :v", "ExpressionAttributeValues": {":v": {"N": "1"}}},
    "has no expression": {},
    "has names and conditions of its own": {
        "UpdateExpression": "SET #v = if_not_exists(#v, :v)",
        "ConditionExpression": "attribute_not_exists(#other) OR #other <> :o",
        "ExpressionAttributeNames": {"#v": "v", "#other": "other"},
        "ExpressionAttributeValues": {":v": {"S": "new"}, ":o": {"S": "o"}},
    },
}  # fmt: skip


def holding(start: str) -> MemoryStore:
    store = MemoryStore({TABLE: SHAPE})
    if start != "absent":
        store.execute(PutItem({"TableName": TABLE, "Item": ITEM}))
    return store


def sent(start: str, operation: ConditionalWrite, *, mirrored) -> tuple[Any, Any, bytes | None]:
    """The caller's own answer, dualstore's reply, and the stamp that the item had before."""
    plain, own = holding(start), holding(start)
    before: bytes | None = None
    if start == "stamped":
        before = new_stamp()
        own.execute(PutItem({"TableName": TABLE, "Item": {**ITEM, STAMP: {"B": before}}}))
    request = stamped(operation, new_stamp(), mirrored=mirrored)
    if request is None:
        assert isinstance(operation, UpdateItem)
        assert not may_create(operation.request)
        return None, None, before
    untouched = copy.deepcopy(operation.request)
    try:
        answer: Any = plain.execute(type(operation)(operation.request))
    except ClientError as error:
        code = error.response["Error"]["Code"]
        with pytest.raises(ClientError, match=code):
            own.execute(type(operation)(request))
        return None, None, before
    reply = read_reply(operation, request, own.execute(type(operation)(request)), mirrored=mirrored)
    assert operation.request == untouched
    return answer, reply, before


def check(answer: Any, reply: Any) -> None:
    assert reply.response.get("Attributes") == answer.get("Attributes")
    assert STAMP not in (reply.response.get("Attributes") or {})
    assert PREDECESSOR not in (reply.response.get("Attributes") or {})


@BOTH
@STARTS
@pytest.mark.parametrize("returned", [None, "NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"])
@pytest.mark.parametrize("what", UPDATES)
def test_an_update_answers_as_it_would_without_stamps(
    what: str, returned: str | None, start: str, mirrored
) -> None:
    request = {"TableName": TABLE, "Key": KEY, **UPDATES[what]}
    if returned is not None:
        request["ReturnValues"] = returned
    answer, reply, before = sent(start, UpdateItem(request), mirrored=mirrored)
    if answer is None:
        return
    check(answer, reply)
    if reply.known:
        assert reply.predecessor == before
        assert reply.image is not None
        assert stamp_of(reply.image) is not None
        assert PREDECESSOR not in reply.image


@pytest.mark.parametrize(
    ("what", "returned", "known"),
    [
        ("sets", "NONE", True),
        ("sets", "ALL_NEW", True),
        ("sets", "UPDATED_NEW", True),
        ("sets", "ALL_OLD", False),
        ("sets", "UPDATED_OLD", False),
        ("appends to a list", "NONE", True),
        ("appends to a list", "UPDATED_NEW", False),
        ("sets a list element", "UPDATED_NEW", False),
        ("has no expression", "UPDATED_NEW", True),
    ],
)
def test_an_update_that_needs_the_old_values_or_a_list_element_is_settled_instead_of_written_directly(
    what: str, returned: str, known: object
) -> None:
    request = {"TableName": TABLE, "Key": KEY, "ReturnValues": returned, **UPDATES[what]}
    _, reply, _ = sent("stamped", UpdateItem(request), mirrored=True)
    assert reply.known is known


@BOTH
@STARTS
@pytest.mark.parametrize("returned", [None, "NONE", "ALL_OLD"])
@pytest.mark.parametrize("kind", [PutItem, DeleteItem])
def test_a_put_or_delete_answers_as_it_would_without_stamps(
    kind: type[ConditionalWrite], returned: str | None, start: str, mirrored
) -> None:
    body = {"Item": {**KEY, "v": {"S": "new"}}} if kind is PutItem else {"Key": KEY}
    request: dict[str, Any] = {"TableName": TABLE, **body}
    if returned is not None:
        request["ReturnValues"] = returned
    answer, reply, before = sent(start, kind(request), mirrored=mirrored)
    check(answer, reply)
    assert reply.known is mirrored
    if mirrored:
        assert reply.predecessor == before
        assert (reply.image is None) is (kind is DeleteItem)


@BOTH
def test_what_is_not_about_values_stays_in_the_answer(mirrored) -> None:
    request = {"TableName": TABLE, "Key": KEY, "ReturnConsumedCapacity": "TOTAL", **UPDATES["sets"]}
    answer, reply, _ = sent("plain", UpdateItem(request), mirrored=mirrored)
    assert reply.response["ConsumedCapacity"]["TableName"] == answer["ConsumedCapacity"]["TableName"]


@pytest.mark.parametrize(("what", "may"), [("removes", False), ("deletes from a set", False),
                                           ("removes and sets", True), ("adds", True),
                                           ("has no expression", True)])  # fmt: skip
def test_an_update_that_only_takes_away_goes_without_a_stamp_because_it_creates_nothing(
    what: str, may
) -> None:
    operation = UpdateItem({"TableName": TABLE, "Key": KEY, **UPDATES[what]})
    assert may_create(operation.request) is may
    assert (stamped(operation, new_stamp(), mirrored=True) is not None) is may


@BOTH
@pytest.mark.parametrize("legacy", [{"AttributeUpdates": {"v": {"Value": {"S": "new"}, "Action": "PUT"}}},
                                    {"Expected": {"v": {"Exists": False}}}])  # fmt: skip
def test_an_update_in_dynamodbs_older_language_takes_no_stamp(legacy: dict[str, Any], mirrored) -> None:
    operation = UpdateItem({"TableName": TABLE, "Key": KEY, **legacy})
    assert stamped(operation, new_stamp(), mirrored=mirrored) is None


@BOTH
@pytest.mark.parametrize("kind", [PutItem, DeleteItem])
def test_a_put_or_delete_in_the_older_language_is_sent_without_expressions(
    kind: type[ConditionalWrite], mirrored
) -> None:
    body = {"Item": dict(KEY)} if kind is PutItem else {"Key": KEY}
    request = stamped(
        kind({"TableName": TABLE, "Expected": {"v": {"Exists": False}}, **body}),
        new_stamp(),
        mirrored=mirrored,
    )
    assert request is not None
    assert not [name for name in request if "Expression" in name]


@pytest.mark.parametrize("condition", [None, "attribute_exists(id)", "n < :v OR n = :v", "NOT l = :v"])
@pytest.mark.parametrize("shows", ["nothing", "my stamp", "my stamp as predecessor", "another's"])
def test_a_guarded_request_is_refused_exactly_where_the_caller_or_my_own_stamp_says_so(
    condition: str | None, shows: str
) -> None:
    store, mine, others = holding("plain"), [new_stamp(), new_stamp()], new_stamp()
    marks = {
        "nothing": {},
        "my stamp": {STAMP: {"B": mine[1]}},
        "my stamp as predecessor": {STAMP: {"B": others}, PREDECESSOR: {"B": mine[0]}},
        "another's": {STAMP: {"B": others}, PREDECESSOR: {"NULL": True}},
    }[shows]
    store.execute(PutItem({"TableName": TABLE, "Item": {**ITEM, **marks}}))
    request: dict[str, Any] = {"TableName": TABLE, "Key": KEY, **copy.deepcopy(UPDATES["adds"])}
    if condition is not None:
        request["ConditionExpression"] = condition
    sending = stamped(UpdateItem(request), new_stamp(), mirrored=True)
    assert sending is not None
    if shows.startswith("my"):
        with pytest.raises(ClientError) as refused:
            store.execute(UpdateItem(guarded(sending, mine)))
        assert stamp_of(refused.value.response["Item"]) in {mine[1], others}
    else:
        assert store.execute(UpdateItem(guarded(sending, mine)))["Attributes"]["n"] == {"N": "6"}


def test_a_guarded_request_still_holds_the_callers_condition() -> None:
    store = holding("plain")
    request = {"TableName": TABLE, "Item": ITEM, "ConditionExpression": "attribute_not_exists(id)"}
    sending = stamped(PutItem(request), new_stamp(), mirrored=False)
    assert sending is not None
    with pytest.raises(ClientError) as refused:
        store.execute(PutItem(guarded(sending, [new_stamp()])))
    assert refused.value.response["Error"]["Code"] == "ConditionalCheckFailedException"


@pytest.mark.parametrize("item", [{}, {"id": {"N": "1"}}, {"id": {"S": ""}}])
def test_a_request_without_a_key_of_the_table_is_told_apart(item: dict[str, Any]) -> None:
    with pytest.raises(RequestRejected):
        key_of(PutItem({"TableName": TABLE, "Item": item}), SHAPE.keys)


def test_a_fresh_stamp_is_a_uuid_of_version_7() -> None:
    stamps = {new_stamp() for _ in range(1000)}
    assert len(stamps) == 1000
    assert {(len(each), each[6] >> 4, each[8] >> 6) for each in stamps} == {(16, 7, 2)}


def test_the_stamps_of_a_transaction_are_told_apart_by_token_table_and_key() -> None:
    parts = [("t", "a", b"k"), ("u", "a", b"k"), ("t", "b", b"k"), ("t", "a", b"l")]
    assert len({derived_stamp(*each) for each in parts}) == 4
    assert derived_stamp(*parts[0]) == derived_stamp(*parts[0])
