"""Reading many keys consistently, whatever one answer leaves out."""

import pytest

from dualstore.errors import Unavailable
from dualstore.items import KeyAttribute, KeySchema, TableShape
from dualstore.operations import PutItem
from dualstore.stores.memory import MemoryStore
from dualstore.stores.scan import read_items

SHAPE = TableShape("orders-prod", KeySchema(KeyAttribute("id", "S")))


def key(n):
    return {"id": {"S": f"{n:04}"}}


class Stingy:
    """A store that answers for some keys of each batch, and leaves the others unprocessed."""

    def __init__(self, store, *, answers_for):
        self._store = store
        self._answers_for = answers_for
        self.asked = []

    def execute(self, operation):
        request = operation.request["RequestItems"][SHAPE.name]
        self.asked.append((len(request["Keys"]), request["ConsistentRead"]))
        now, later = request["Keys"][: self._answers_for], request["Keys"][self._answers_for :]
        if not now:
            return {"Responses": {}, "UnprocessedKeys": {SHAPE.name: {"Keys": later}}}
        answer = self._store.execute(type(operation)({"RequestItems": {SHAPE.name: request | {"Keys": now}}}))
        return answer | ({"UnprocessedKeys": {SHAPE.name: {"Keys": later}}} if later else {})


@pytest.fixture
def store():
    filled = MemoryStore({SHAPE.name: SHAPE})
    for n in range(0, 250, 2):
        filled.execute(PutItem({"TableName": SHAPE.name, "Item": key(n)}))
    return filled


def test_more_keys_than_a_batch_holds_are_read_in_several(store):
    stingy = Stingy(store, answers_for=100)

    items = list(read_items(stingy, SHAPE, [key(n) for n in range(250)]))

    assert sorted(item["id"]["S"] for item in items) == [key(n)["id"]["S"] for n in range(0, 250, 2)]
    assert stingy.asked == [(100, True), (100, True), (50, True)]


def test_unprocessed_keys_are_asked_for_again(store):
    items = list(read_items(Stingy(store, answers_for=30), SHAPE, [key(n) for n in range(250)]))

    assert sorted(item["id"]["S"] for item in items) == [key(n)["id"]["S"] for n in range(0, 250, 2)]


def test_an_answer_for_none_of_the_keys_is_reported_as_passing(store):
    with pytest.raises(Unavailable, match="none of the keys"):
        list(read_items(Stingy(store, answers_for=0), SHAPE, [key(0)]))


def test_no_keys_are_no_request(store):
    stingy = Stingy(store, answers_for=100)

    assert list(read_items(stingy, SHAPE, [])) == []
    assert stingy.asked == []
