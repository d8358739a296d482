"""BatchGetItem and BatchWriteItem."""

import pytest

from contract.tables import N, S, TableUnderTest, rejects


def key(number) -> dict:
    return {"pk": S("p"), "sk": N(number)}


def get(table: TableUnderTest, keys, **asked) -> dict:
    return table.ask("BatchGetItem", RequestItems={table.name: {"Keys": keys, **asked}})


def write(table: TableUnderTest, *requests) -> dict:
    return table.ask("BatchWriteItem", RequestItems={table.name: list(requests)})


def put(item) -> dict:
    return {"PutRequest": {"Item": item}}


def delete(number) -> dict:
    return {"DeleteRequest": {"Key": key(number)}}


def test_a_batch_gets_the_items_that_exist(things: TableUnderTest):
    for number in range(5):
        things.put({**key(number), "a": N(number)})
    found = get(things, [key(3), key(99), key(1)], ConsistentRead=True)
    assert found["UnprocessedKeys"] == {}
    assert sorted(found["Responses"][things.name], key=lambda item: item["sk"]["N"]) == [
        {**key(1), "a": N(1)},
        {**key(3), "a": N(3)},
    ]


def test_a_batch_of_absent_items_gets_none(things: TableUnderTest):
    assert get(things, [key(1)]) == {"Responses": {things.name: []}, "UnprocessedKeys": {}}


def test_a_batch_projects(things: TableUnderTest):
    things.put({**key(1), "a": N(1), "b": N(2)})
    found = get(things, [key(1)], ProjectionExpression="#a", ExpressionAttributeNames={"#a": "a"})
    assert found["Responses"] == {things.name: [{"a": N(1)}]}


def test_a_batch_spans_tables(table):
    one, other = table("things"), table("singles")
    one.ask("BatchWriteItem", RequestItems={one.name: [put(key(1))], other.name: [put({"pk": S("x")})]})
    asked = {one.name: {"Keys": [key(1)]}, other.name: {"Keys": [{"pk": S("x")}]}}
    found = one.ask("BatchGetItem", RequestItems=asked)
    assert found["Responses"] == {one.name: [key(1)], other.name: [{"pk": S("x")}]}


def test_100_keys_are_the_most(things: TableUnderTest):
    write(things, *(put(key(n)) for n in range(20)))
    assert len(get(things, [key(n) for n in range(100)])["Responses"][things.name]) == 20
    with rejects():
        get(things, [key(n) for n in range(101)])


def test_a_key_may_be_read_once(things: TableUnderTest):
    with rejects():
        get(things, [key(1), key("1.0")])


@pytest.mark.parametrize("keys", [[], [{"pk": S("p")}], [key(1), {"pk": S("p"), "sk": S("1")}]])
def test_malformed_keys_are_refused(things: TableUnderTest, keys):
    with rejects():
        get(things, keys)


@pytest.mark.parametrize("operation", ["BatchGetItem", "BatchWriteItem"])
def test_an_empty_batch_is_refused(things: TableUnderTest, operation):
    with rejects():
        things.ask(operation, RequestItems={})


def test_a_batch_puts_and_deletes(things: TableUnderTest):
    things.put({**key(1), "old": N(1)})
    things.put(key(2))
    assert write(things, put({**key(1), "fresh": N(1)}), delete(2), delete(3), put(key(4))) == {
        "UnprocessedItems": {}
    }
    assert [things.get(key(n)) for n in range(1, 5)] == [{**key(1), "fresh": N(1)}, None, None, key(4)]


def test_25_writes_are_the_most(things: TableUnderTest):
    write(things, *(put(key(n)) for n in range(25)))
    assert things.scan(Select="COUNT")["Count"] == 25
    with rejects():
        write(things, *(put(key(n)) for n in range(26)))


BAD_WRITES = {
    "the same key twice": [put(key(1)), put(key(1))],
    "put and delete of one key": [put(key(1)), delete("1.0")],
    "one malformed key": [put(key(1)), put({"pk": S("p")})],
    "one malformed value": [put(key(1)), put({**key(2), "a": {"SS": []}})],
    "one too large": [put(key(1)), put({**key(2), "a": S("x" * 409_600)})],
    "none": [],
}


@pytest.mark.parametrize("writes", BAD_WRITES.values(), ids=BAD_WRITES)
def test_a_batch_with_a_fault_writes_nothing(things: TableUnderTest, writes):
    with rejects():
        write(things, *writes)
    assert things.get(key(1)) is None


def test_a_missing_table_is_not_found(things: TableUnderTest):
    with rejects("ResourceNotFoundException"):
        things.ask("BatchGetItem", RequestItems={"no-such-table": {"Keys": [key(1)]}})
    with rejects("ResourceNotFoundException"):
        things.ask("BatchWriteItem", RequestItems={"no-such-table": [put(key(1))]})
