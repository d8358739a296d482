"""The rules that stores share, where they say more than the contract suite can see from outside."""

import copy
from collections.abc import Iterator

import pytest

from dualstore.errors import RequestRejected
from dualstore.items import Index, Item, KeyAttribute, KeySchema, TableShape
from dualstore.operations import BatchGetItem, GetItem, PutItem, Query, Scan, TransactGetItems, UpdateItem
from dualstore.stores import semantics
from dualstore.stores.semantics.capacity import Units, write_units

KEYS = KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N"))
SHAPE = TableShape("things", KEYS, {"by-n": Index("by-n", KeySchema(KeyAttribute("n", "N")), "KEYS_ONLY")})
KEY: Item = {"pk": {"S": "p"}, "sk": {"N": "1"}}


def item(number: int, *, size: int = 0) -> Item:
    return {"pk": {"S": "p"}, "sk": {"N": str(number)}, "filler": {"S": "x" * size}}


@pytest.mark.parametrize(
    ("operation", "parameter"),
    [
        (PutItem, "Expected"),
        (UpdateItem, "AttributeUpdates"),
        (UpdateItem, "ConditionalOperator"),
        (GetItem, "AttributesToGet"),
    ],
)
def test_a_legacy_parameter_that_was_not_said_anew_is_refused_and_never_passed_over(operation, parameter):
    request = operation({"TableName": "things", "Key": KEY, "Item": KEY, parameter: {}})
    with pytest.raises(RequestRejected, match=parameter):
        semantics.checked_key(request, SHAPE)


@pytest.mark.parametrize("parameter", ["QueryFilter", "KeyConditions", "ScanFilter"])
def test_a_legacy_parameter_of_a_query_that_was_not_said_anew_is_refused(parameter):
    with pytest.raises(RequestRejected, match=parameter):
        semantics.plan(Scan({"TableName": "things", parameter: {}}), SHAPE)


def test_a_checked_key_is_normalised():
    operation = GetItem({"TableName": "things", "Key": {"pk": {"S": "p"}, "sk": {"N": "1.00"}}})
    assert semantics.checked_key(operation, SHAPE) == KEY


def test_an_update_leaves_the_old_item_as_it_was():
    old = {**KEY, "l": {"L": [{"M": {"a": {"N": "1"}}}]}, "s": {"SS": ["a"]}}
    before = copy.deepcopy(old)
    operation = UpdateItem(
        {
            "TableName": "things",
            "Key": KEY,
            "UpdateExpression": "SET l[0].a = :n, l[1] = :n ADD s :s",
            "ExpressionAttributeValues": {":n": {"N": "2"}, ":s": {"SS": ["b"]}},
        }
    )
    outcome = semantics.write(operation, SHAPE, old)
    assert outcome.old_item == before
    assert old == before
    assert outcome.new_item == {
        **KEY,
        "l": {"L": [{"M": {"a": {"N": "2"}}}, {"N": "2"}]},
        "s": {"SS": ["a", "b"]},
    }


def test_stamps_are_attributes_like_any_other():
    operation = UpdateItem(
        {
            "TableName": "things",
            "Key": KEY,
            "UpdateExpression": "SET #p = if_not_exists(#v, :none), #v = :new",
            "ExpressionAttributeNames": {"#v": "_dsv", "#p": "_dsp"},
            "ExpressionAttributeValues": {":none": {"NULL": True}, ":new": {"B": b"2"}},
            "ReturnValues": "ALL_NEW",
        }
    )
    old = {**KEY, "_dsv": {"B": b"1"}}
    expected = {**KEY, "_dsv": {"B": b"2"}, "_dsp": {"B": b"1"}}
    assert semantics.write(operation, SHAPE, old).response == {"Attributes": expected}


# --- Pages -------------------------------------------------------------------------------------


def counted(items: list[Item], seen: list[Item]) -> Iterator[Item]:
    for each in items:
        seen.append(each)
        yield each


def query(**request) -> semantics.PagePlan:
    values = {":p": {"S": "p"}}
    return semantics.plan(
        Query(
            {
                "TableName": "things",
                "KeyConditionExpression": "pk = :p",
                "ExpressionAttributeValues": values,
                **request,
            }
        ),
        SHAPE,
    )


def test_a_page_reads_no_further_than_its_limit():
    seen: list[Item] = []
    page = semantics.page(query(Limit=3), counted([item(n) for n in range(9)], seen))
    assert len(seen) == 3
    assert page["LastEvaluatedKey"] == {"pk": {"S": "p"}, "sk": {"N": "2"}}


def test_a_page_reads_no_further_than_the_item_that_completes_a_megabyte():
    # 16 bytes: "pk" + "p" + "sk" + 1 or 2 for the number + "filler" + what is left.
    items = [item(n, size=262_144 - len("pkpskfiller") - (1 if n == 0 else 2)) for n in range(9)]
    seen: list[Item] = []
    page = semantics.page(query(), counted(items, seen))
    assert (page["Count"], len(seen)) == (4, 4)
    items[0]["filler"]["S"] = items[0]["filler"]["S"][1:]
    assert semantics.page(query(), items)["Count"] == 5


def test_a_page_counts_what_the_index_holds_and_not_the_whole_item():
    items = [{**item(n, size=300_000), "n": {"N": "1"}} for n in range(9)]
    planned = semantics.plan(Scan({"TableName": "things", "IndexName": "by-n"}), SHAPE)
    page = semantics.page(planned, items)
    assert (page["Count"], "LastEvaluatedKey" in page) == (9, False)
    assert page["Items"][0].keys() == {"pk", "sk", "n"}


def test_a_start_key_is_normalised():
    planned = query(ExclusiveStartKey={"pk": {"S": "p"}, "sk": {"N": "1.0"}})
    assert planned.start_key == KEY


def test_the_capacity_of_an_index_is_told_apart_on_request():
    planned = semantics.plan(
        Scan({"TableName": "things", "IndexName": "by-n", "ReturnConsumedCapacity": "INDEXES"}), SHAPE
    )
    assert semantics.page(planned, [])["ConsumedCapacity"] == {
        "TableName": "things",
        "CapacityUnits": 0.5,
        "Table": {"CapacityUnits": 0.0},
        "GlobalSecondaryIndexes": {"by-n": {"CapacityUnits": 0.5}},
    }


@pytest.mark.parametrize("other", [{"S": "1"}, {"NS": ["1"]}, {"NULL": True}, None])
def test_an_index_has_no_entry_of_an_item_whose_key_of_it_is_of_another_type(other):
    """DynamoDB takes none; who writes by SQL may leave one."""
    mine: Item = {**KEY, "n": {"N": "1"}}
    theirs: Item = KEY if other is None else {**KEY, "n": other}
    changed = {**theirs, "filler": {"S": "x"}}
    by_n = SHAPE.indexes["by-n"]
    for old, new in ((theirs, mine), (mine, theirs), (None, mine), (mine, None)):
        assert write_units(SHAPE, old, new) == Units(1.0, [(by_n, 1.0)])
    for old, new in ((theirs, changed), (None, theirs), (theirs, None)):
        assert write_units(SHAPE, old, new) == Units(1.0, [])


# --- Batches -----------------------------------------------------------------------------------


def test_a_batch_leaves_what_is_past_16_megabytes_unprocessed():
    keys = [{"pk": {"S": "p"}, "sk": {"N": str(n)}} for n in range(50)]
    asked = {"Keys": keys, "ConsistentRead": True}
    operation = BatchGetItem({"RequestItems": {"things": asked}, "ReturnConsumedCapacity": "TOTAL"})
    gets = semantics.batch_gets(operation, {"things": SHAPE})
    response = semantics.batch_get_response(operation, gets, [item(n, size=400_000) for n in range(50)])
    assert len(response["Responses"]["things"]) == 41
    assert response["UnprocessedKeys"] == {"things": {"Keys": keys[41:], "ConsistentRead": True}}
    assert response["ConsumedCapacity"] == [{"TableName": "things", "CapacityUnits": 41 * 98.0}]


def test_a_transaction_reads_no_more_than_4_megabytes():
    """AWS, API Reference, TransactGetItems: "The aggregate size of the items … cannot exceed 4 MB"."""
    actions = [
        {"Get": {"TableName": "things", "Key": {"pk": {"S": "p"}, "sk": {"N": str(n)}}}} for n in range(11)
    ]
    operation = TransactGetItems({"TransactItems": actions})
    gets = semantics.transact_gets(operation, {"things": SHAPE})
    items = [item(n, size=400_000) for n in range(11)]
    assert len(semantics.transact_get_response(operation, gets, [*items[:10], None])["Responses"]) == 11
    with pytest.raises(RequestRejected) as caught:
        semantics.transact_get_response(operation, gets, items)
    assert caught.value.code == "ValidationException"


def test_an_unknown_table_is_a_refusal_with_dynamodbs_code():
    with pytest.raises(RequestRejected) as caught:
        semantics.shape_named({}, "things")
    assert caught.value.code == "ResourceNotFoundException"
