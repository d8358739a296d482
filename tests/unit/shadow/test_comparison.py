"""What two answers must agree on, and what proves nothing."""

import pytest

from dualstore.items import Index, KeyAttribute, KeySchema, TableShape, key_hash
from dualstore.operations import parse
from dualstore.shadow import Refusal, Rules, compare, request_hash
from dualstore.shadow.comparison import MAX_FINDINGS
from dualstore.stages import Side

BY_CITY = Index("by-city", KeySchema(KeyAttribute("city", "S"), KeyAttribute("rank", "N")))
BY_COLOUR = Index("by-colour", KeySchema(KeyAttribute("colour", "S")))
SHAPE = TableShape(
    "orders-prod",
    KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N")),
    {index.name: index for index in (BY_CITY, BY_COLOUR)},
)
SHAPES = {SHAPE.name: SHAPE}


def item(sk, **attributes):
    return {"pk": {"S": "a"}, "sk": {"N": str(sk)}, **attributes}


def page(*items, end=None):
    answer = {"Items": list(items), "Count": len(items)}
    return answer if end is None else {**answer, "LastEvaluatedKey": end}


def key(sk):
    return {"pk": {"S": "a"}, "sk": {"N": str(sk)}}


def hash_of(sk):
    return key_hash(SHAPE.keys, key(sk))


GET = parse("GetItem", {"TableName": SHAPE.name, "Key": key(1)})
PARTITION = {
    "TableName": SHAPE.name,
    "KeyConditionExpression": "pk = :p",
    "ExpressionAttributeValues": {":p": {"S": "a"}},
}
QUERY = parse("Query", PARTITION)
BACKWARD = parse("Query", {**PARTITION, "ScanIndexForward": False})
CITY = parse("Query", {**PARTITION, "IndexName": "by-city", "KeyConditionExpression": "city = :p"})
COLOUR = parse("Query", {**PARTITION, "IndexName": "by-colour", "KeyConditionExpression": "colour = :p"})
SCAN = parse("Scan", {"TableName": SHAPE.name})


def compared(operation, dynamodb, postgres, **options):
    return compare(operation, SHAPES, {Side.DYNAMODB: dynamodb, Side.POSTGRES: postgres}, **options)


def findings(operation, dynamodb, postgres):
    return [(f.kind.value, f.key_hash, f.paths) for f in compared(operation, dynamodb, postgres).findings]


def is_equal(operation, dynamodb, postgres):
    comparison = compared(operation, dynamodb, postgres)
    return comparison.comparable and not comparison.findings


# One item


def test_stamps_capacities_the_order_of_sets_and_the_spelling_of_numbers_are_no_difference():
    dynamodb = {
        "Item": item(1, n={"N": "1.0"}, s={"SS": ["a", "b"]}, _dsv={"B": b"1"}, _dsp={"B": b"0"}),
        "ConsumedCapacity": {"CapacityUnits": 1},
    }
    postgres = {"Item": item("1.00", n={"N": "1"}, s={"SS": ["b", "a"]}, _dsv={"B": b"2"})}
    assert is_equal(GET, dynamodb, postgres)
    assert compared(GET, dynamodb, postgres, with_stamps=True).findings


@pytest.mark.parametrize(
    ("dynamodb", "postgres", "expected"),
    [
        ({"Item": item(1)}, {}, ("missing_on_postgres", hash_of(1), ())),
        ({}, {"Item": item(1)}, ("missing_on_dynamodb", hash_of(1), ())),
        ({"Item": item(1, v={"S": "x"})}, {"Item": item(1, v={"S": "y"})}, ("value", hash_of(1), ("v",))),
        ({"Item": item(1, v={"N": "1"})}, {"Item": item(1, v={"S": "1"})}, ("type", hash_of(1), ("v",))),
        (
            {"Item": item(1, v={"M": {"n": {"L": [{"N": "1"}]}}}, w={"S": "x"})},
            {"Item": item(1, v={"M": {"n": {"L": [{"S": "1"}]}}}, w={"S": "y"})},
            ("type", hash_of(1), ("v", "w")),
        ),
        (
            {"Item": item(1, v={"SS": ["1"]})},
            {"Item": item(1, v={"NS": ["1"]})},
            ("type", hash_of(1), ("v",)),
        ),
        ({"Item": item(1, v={"NULL": True})}, {"Item": item(1)}, ("value", hash_of(1), ("v",))),
    ],
)
def test_a_difference_of_one_item_is_classed(dynamodb, postgres, expected):
    assert findings(GET, dynamodb, postgres) == [expected]


def test_two_absent_items_are_equal():
    assert is_equal(GET, {}, {})


def test_the_names_inside_a_map_are_data_and_stay_out_of_the_paths():
    left, right = ({"Item": item(1, members={"M": {name: {"N": "1"}}})} for name in ("ann@x", "bob@x"))
    assert findings(GET, left, right) == [("value", hash_of(1), ("members",))]


# Refusals


def test_refusals_are_compared_by_their_codes():
    assert is_equal(GET, Refusal("ValidationException"), Refusal("ValidationException"))
    expected = [("error", request_hash(GET), ())]
    assert findings(GET, Refusal("ValidationException"), Refusal("ResourceNotFoundException")) == expected
    assert findings(GET, Refusal("ValidationException"), {}) == expected
    assert findings(GET, {}, Refusal("ValidationException")) == expected


# Queries of the table


def test_a_missing_item_of_a_query_is_found_by_its_key():
    assert findings(QUERY, page(item(1), item(2), item(3)), page(item(1), item(3))) == [
        ("missing_on_postgres", hash_of(2), ())
    ]


def test_the_same_items_in_another_order_are_one_finding_about_the_request():
    assert findings(QUERY, page(item(2), item(10)), page(item(10), item(2))) == [
        ("order", request_hash(QUERY), ())
    ]


def test_a_page_that_ends_earlier_is_compared_as_far_as_it_goes():
    """1 MB is measured on stored items, and the sides store different stamps."""
    assert is_equal(QUERY, page(item(1), item(2), end=key(2)), page(item(1), item(2), item(3)))
    assert is_equal(QUERY, page(item(1), item(2), item(3), end=key(3)), page(item(1), end=key(1)))


def test_an_item_missing_inside_a_cut_page_is_found_and_what_took_its_place_is_not():
    """With a limit of 3, the side that lacks item 2 goes on to item 4."""
    dynamodb = page(item(1), item(2), item(3), end=key(3))
    postgres = page(item(1), item(3), item(4), end=key(4))
    assert findings(QUERY, dynamodb, postgres) == [("missing_on_postgres", hash_of(2), ())]


def test_a_backward_query_ends_at_its_smallest_key():
    dynamodb = page(item(3), item(2), end=key(2))
    assert is_equal(BACKWARD, dynamodb, page(item(3), item(2), item(1)))
    assert findings(BACKWARD, dynamodb, page(item(3), item(1))) == [("missing_on_postgres", hash_of(2), ())]


def test_an_empty_page_that_is_not_the_end_says_what_lies_before_it():
    """A filter may leave nothing of a page."""
    assert is_equal(QUERY, page(end=key(5)), page())
    assert findings(QUERY, page(end=key(5)), page(item(4))) == [("missing_on_dynamodb", hash_of(4), ())]
    assert is_equal(QUERY, page(end=key(5)), page(item(6)))


def test_items_without_their_key_are_compared_as_a_bag():
    a, b = {"v": {"S": "a"}}, {"v": {"S": "b"}}
    assert is_equal(QUERY, page(a, b, a), page(a, a, b))
    assert findings(QUERY, page(a, b), page(a, a)) == [("value", request_hash(QUERY), ())]
    assert findings(QUERY, page(a, b), page(a)) == [("count", request_hash(QUERY), ())]


def test_items_without_their_key_in_a_cut_page_are_not_compared():
    comparison = compared(QUERY, page({"v": {"S": "a"}}, end=key(1)), page({"v": {"S": "b"}}))
    assert (comparison.findings, comparison.comparable) == ((), False)


def test_counts_are_compared_where_no_page_is_cut():
    count = parse("Query", {**PARTITION, "Select": "COUNT"})
    assert is_equal(count, {"Count": 2}, {"Count": 2})
    assert findings(count, {"Count": 2}, {"Count": 3}) == [("count", request_hash(count), ())]
    assert not compared(count, {"Count": 2, "LastEvaluatedKey": key(2)}, {"Count": 3}).comparable


# Queries of an index


def indexed(sk, rank):
    return item(sk, city={"S": "a"}, rank={"N": str(rank)})


def index_end(sk, rank):
    return {**key(sk), "city": {"S": "a"}, "rank": {"N": str(rank)}}


def test_the_ties_of_an_index_have_no_order_but_its_sort_keys_have():
    one, two, three = indexed(1, 5), indexed(2, 5), indexed(3, 6)
    assert is_equal(CITY, page(one, two, three), page(two, one, three))
    assert findings(CITY, page(one, two, three), page(three, one, two)) == [("order", request_hash(CITY), ())]


def test_the_ties_at_the_end_of_an_index_page_prove_nothing():
    one, two, three = indexed(1, 5), indexed(2, 6), indexed(3, 6)
    assert is_equal(CITY, page(one, two, end=index_end(2, 6)), page(one, three, end=index_end(3, 6)))
    assert findings(CITY, page(one, two, end=index_end(2, 6)), page(two, three, end=index_end(3, 6))) == [
        ("missing_on_postgres", hash_of(1), ())
    ]


def test_the_ties_at_the_start_of_an_index_page_prove_nothing():
    start = {"ExclusiveStartKey": index_end(1, 5)}
    query = parse("Query", {**CITY.request, **start})
    assert is_equal(query, page(indexed(2, 5), indexed(4, 7)), page(indexed(3, 5), indexed(4, 7)))
    assert findings(query, page(indexed(4, 7)), page()) == [("missing_on_postgres", hash_of(4), ())]


def test_of_a_cut_page_of_an_index_without_sort_key_only_common_items_are_compared():
    one, two = item(1, colour={"S": "a"}), item(2, colour={"S": "a"})
    end = {**key(1), "colour": {"S": "a"}}
    assert is_equal(COLOUR, page(one, two, end=end), page(two, end=end))
    assert findings(COLOUR, page(one), page(one, two)) == [("missing_on_dynamodb", hash_of(2), ())]
    assert not compared(COLOUR, page(one, end=end), page(two, end=end)).comparable
    changed = {**two, "v": {"S": "x"}}
    assert findings(COLOUR, page(two, end=end), page(changed, one)) == [("value", hash_of(2), ("v",))]


# Scans


def test_a_whole_scan_is_compared_in_any_order():
    assert is_equal(SCAN, page(item(1), item(2)), page(item(2), item(1)))
    assert findings(SCAN, page(item(1)), page(item(2), item(1))) == [("missing_on_dynamodb", hash_of(2), ())]


@pytest.mark.parametrize(
    "part", [{"ExclusiveStartKey": key(0)}, {"Segment": 0, "TotalSegments": 2}], ids=["page", "segment"]
)
def test_of_a_part_of_a_scan_only_common_items_are_compared(part):
    scan = parse("Scan", {"TableName": SHAPE.name, **part})
    assert is_equal(scan, page(item(1), item(2)), page(item(2), item(3)))
    assert not compared(scan, page(item(1)), page(item(3))).comparable
    assert findings(scan, page(item(1), item(2, v={"S": "x"})), page(item(2))) == [
        ("value", hash_of(2), ("v",))
    ]
    count = parse("Scan", {"TableName": SHAPE.name, "Select": "COUNT", **part})
    assert not compared(count, {"Count": 1}, {"Count": 2}).comparable


# Several items


def test_a_batch_is_compared_by_key_in_any_order():
    batch = parse("BatchGetItem", {"RequestItems": {SHAPE.name: {"Keys": [key(1), key(2), key(3)]}}})
    dynamodb = {"Responses": {SHAPE.name: [item(1), item(2)]}}
    assert is_equal(batch, dynamodb, {"Responses": {SHAPE.name: [item(2), item(1)]}})
    assert findings(batch, dynamodb, {"Responses": {SHAPE.name: [item(1), item(3)]}}) == [
        ("missing_on_postgres", hash_of(2), ()),
        ("missing_on_dynamodb", hash_of(3), ()),
    ]


def test_what_a_batch_left_unprocessed_proves_nothing():
    batch = parse("BatchGetItem", {"RequestItems": {SHAPE.name: {"Keys": [key(1), key(2)]}}})
    dynamodb = {
        "Responses": {SHAPE.name: [item(1)]},
        "UnprocessedKeys": {SHAPE.name: {"Keys": [key(2)]}},
    }
    assert is_equal(batch, dynamodb, {"Responses": {SHAPE.name: [item(1), item(2)]}})


def test_a_transaction_is_compared_action_by_action():
    actions = [{"Get": {"TableName": SHAPE.name, "Key": key(sk)}} for sk in (1, 2)]
    read = parse("TransactGetItems", {"TransactItems": actions})
    dynamodb = {"Responses": [{"Item": item(1)}, {}]}
    assert is_equal(read, dynamodb, dynamodb)
    assert findings(read, dynamodb, {"Responses": [{}, {"Item": item(2)}]}) == [
        ("missing_on_postgres", hash_of(1), ()),
        ("missing_on_dynamodb", hash_of(2), ()),
    ]


def test_a_page_in_which_everything_differs_is_not_told_item_by_item():
    many = [item(n) for n in range(100)]
    assert len(compared(QUERY, page(*many), page()).findings) == MAX_FINDINGS
    assert len(compared(QUERY, page(*many), page(), limit=None).findings) == 100


def test_the_hash_of_a_request_ignores_its_consistency_and_keeps_its_values_to_itself():
    consistent = parse("Query", {**PARTITION, "ConsistentRead": True})
    assert request_hash(consistent) == request_hash(QUERY) != request_hash(SCAN)
    binary = parse("GetItem", {"TableName": SHAPE.name, "Key": {"pk": {"B": b"\xff"}}})
    assert len(request_hash(binary)) == 16


# What a table's rules leave out

EXPIRING = {SHAPE.name: Rules(ttl_attribute="expires", now=lambda: 1_000.0)}
PAST, FUTURE = {"N": "900"}, {"N": "1100"}


def under(rules, operation, dynamodb, postgres):
    comparison = compared(operation, dynamodb, postgres, rules=rules)
    return [finding.kind.value for finding in comparison.findings] if comparison.comparable else None


@pytest.mark.parametrize("turned", [False, True], ids=["missing on PostgreSQL", "missing on DynamoDB"])
def test_an_expired_item_that_one_side_lacks_is_no_difference(turned):
    """DynamoDB deletes late; the sweep of PostgreSQL may come before or after it."""
    expired, valid = item(1, expires=PAST), item(1, expires=FUTURE)
    for there, kinds in ((expired, []), (valid, [f"missing_on_{'dynamodb' if turned else 'postgres'}"])):
        answers = [{"Item": there}, {}][:: -1 if turned else 1]
        assert under(EXPIRING, GET, *answers) == kinds
        pages = [page(there, item(2)), page(item(2))][:: -1 if turned else 1]
        assert under(EXPIRING, QUERY, *pages) == kinds
        assert under(EXPIRING, SCAN, *pages) == kinds


def test_an_expired_item_that_both_sides_hold_is_compared_as_any_other():
    left, right = ({"Item": item(1, expires=PAST, v={"S": value})} for value in "xy")
    assert under(EXPIRING, GET, left, right) == ["value"]


def test_an_expired_item_between_others_is_no_difference_of_their_order():
    dynamodb = page(item(1), item(2, expires=PAST), item(3))
    assert under(EXPIRING, QUERY, dynamodb, page(item(1), item(3))) == []
    assert under(EXPIRING, QUERY, dynamodb, page(item(3), item(1))) == ["order"]


def test_without_keys_expired_items_are_left_out_of_the_bag_where_their_time_is_told():
    listing = parse("Query", {**PARTITION, "ProjectionExpression": "v, expires"})
    expired, valid = {"v": {"S": "a"}, "expires": PAST}, {"v": {"S": "b"}, "expires": FUTURE}
    assert under(EXPIRING, listing, page(expired, valid), page(valid)) == []
    assert under(EXPIRING, listing, page(expired, valid), page(expired)) == ["count"]
    hidden = parse("Query", {**PARTITION, "ProjectionExpression": "v"})
    assert under(EXPIRING, hidden, page({"v": {"S": "a"}}), page()) is None


def test_items_that_were_asked_for_in_place_of_their_number_are_counted_without_the_expired():
    count = parse("Query", {**PARTITION, "Select": "COUNT"})
    assert under(EXPIRING, count, page(item(1, expires=PAST), item(2)), page(item(2))) == []
    assert under(EXPIRING, count, page(item(1, expires=FUTURE), item(2)), page(item(2))) == ["count"]


def test_ignored_attributes_are_not_compared_anywhere():
    rules = {SHAPE.name: Rules(ignore=("updated_at", "meta.etag"))}
    left = item(1, updated_at={"N": "1"}, meta={"M": {"etag": {"S": "a"}, "size": {"N": "1"}}})
    right = item(1, updated_at={"N": "2"}, meta={"M": {"etag": {"S": "b"}, "size": {"N": "1.0"}}})
    assert under(rules, GET, {"Item": left}, {"Item": right}) == []
    assert under(rules, QUERY, page(left), page(right)) == []
    assert under({}, GET, {"Item": left}, {"Item": right}) == ["value"]
    other = {**right, "meta": {"M": {"etag": {"S": "a"}, "size": {"N": "2"}}}}
    assert under(rules, GET, {"Item": left}, {"Item": other}) == ["value"]


def test_the_stamps_of_writes_are_seen_through_every_rule():
    """Whether a write came in between must not depend on what the team does not care about."""
    rules = {SHAPE.name: Rules(ignore=("v",))}
    left, right = ({"Item": item(1, v={"S": value})} for value in "xy")
    assert compared(GET, left, right, rules=rules, with_stamps=True).findings
