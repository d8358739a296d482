"""How large a collection is, and how that is told."""

from dualstore.items import Index, KeyAttribute, KeySchema, TableShape, item_size_bytes
from dualstore.operations import PutItem
from dualstore.stores import semantics

P, S, L, G = (KeyAttribute(name, "S") for name in ("pk", "sk", "l", "g"))
SHAPE = TableShape(
    "things",
    KeySchema(P, S),
    {
        "whole": Index("whole", KeySchema(P, L), is_global=False),
        "keys": Index("keys", KeySchema(P, L), "KEYS_ONLY", is_global=False),
        "global": Index("global", KeySchema(G)),
    },
)
KEY = {"pk": {"S": "p"}, "sk": {"S": "1"}}


def test_the_local_indexes_count_for_what_they_hold_of_an_item():
    sparse = {**KEY, "g": {"S": "in the global index"}}
    held = {**KEY, "l": {"S": "x"}}
    whole = {**held, "more": {"S": "y" * 100}}
    assert semantics.collection_size_bytes(SHAPE, [sparse]) == item_size_bytes(sparse)
    assert semantics.collection_size_bytes(SHAPE, [whole, sparse]) == 2 * item_size_bytes(
        whole
    ) + item_size_bytes(held) + item_size_bytes(sparse)


def test_the_size_is_told_in_whole_gigabytes_below_and_above():
    operation = PutItem({"TableName": "things", "Item": KEY, "ReturnItemCollectionMetrics": "SIZE"})
    asked = semantics.collections_asked(operation, [operation], {"things": SHAPE})
    told = []
    for size_bytes in (0, 2**30 - 1, 2**30, 7 * 2**30 + 1):
        response: dict = {}
        semantics.tell_collections(response, operation, asked, [size_bytes])
        assert response["ItemCollectionMetrics"]["ItemCollectionKey"] == {"pk": {"S": "p"}}
        told.append(response["ItemCollectionMetrics"]["SizeEstimateRangeGB"])
    assert told == [[0.0, 1.0], [0.0, 1.0], [1.0, 2.0], [7.0, 8.0]]
