"""Which GetItems may be asked together, and what each of them is answered then."""

import pytest

from dualstore.items import KeyAttribute, KeySchema, TableShape
from dualstore.operations import GetItem, parse
from dualstore.shadow.batches import apart, group_of, together

SHAPE = TableShape("orders-prod", KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N")))


def key(sk):
    return {"pk": {"S": "a"}, "sk": {"N": str(sk)}}


def get(sk, **options):
    return GetItem({"TableName": SHAPE.name, "Key": key(sk), **options})


def group(operation):
    return group_of(operation, SHAPE)


def test_reads_of_one_table_with_the_same_consistency_and_projection_are_asked_together():
    projected = {"ProjectionExpression": "pk, sk, #n", "ExpressionAttributeNames": {"#n": "name"}}
    assert group(get(1)) == group(get(2)) is not None
    assert group(get(1, **projected)) == group(get(2, **projected)) is not None
    assert len({group(get(1)), group(get(1, ConsistentRead=True)), group(get(1, **projected))}) == 3
    assert group(get(1)) == group(get(1, ConsistentRead=False))


@pytest.mark.parametrize(
    "alone",
    [
        pytest.param(parse("Scan", {"TableName": SHAPE.name}), id="no GetItem"),
        pytest.param(get(1, ProjectionExpression="v"), id="a projection without the key"),
        pytest.param(get(1, ProjectionExpression="pk, sk, "), id="a malformed projection"),
        pytest.param(get(1, AttributesToGet=["v"]), id="another parameter"),
    ],
)
def test_what_a_batch_would_answer_otherwise_is_asked_alone(alone):
    assert group(alone) is None


def test_a_key_that_is_asked_for_twice_is_in_a_batch_once():
    """DynamoDB refuses a batch with duplicates; 1 and 1.0 are one number."""
    asked = together(SHAPE, [get(1), get("1.0"), get(2, ConsistentRead=True)]).request["RequestItems"]
    assert [each["sk"]["N"] for each in asked[SHAPE.name]["Keys"]] == ["1.0", "2"]
    shared = together(SHAPE, [get(1, ConsistentRead=True)]).request["RequestItems"][SHAPE.name]
    assert shared["ConsistentRead"] is True


def test_each_read_is_answered_as_if_it_had_been_asked_alone():
    response = {
        "Responses": {SHAPE.name: [key(2), key("1.00")]},
        "UnprocessedKeys": {SHAPE.name: {"Keys": [key(4)]}},
    }
    gets = [get(1), get(2), get("1.0"), get(3), get(4)]
    expected = [{"Item": key("1.00")}, {"Item": key(2)}, {"Item": key("1.00")}, {}, None]
    assert apart(SHAPE, gets, response) == expected
