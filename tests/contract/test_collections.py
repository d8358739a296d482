"""ItemCollectionMetrics: of the collections that a write touches, where the table has a local index."""

import pytest

from contract.tables import N, S, TableUnderTest

SIZE = {"ReturnItemCollectionMetrics": "SIZE"}


def key(partition, number=1) -> dict:
    return {"pk": S(partition), "sk": N(number)}


def partition_of(metrics) -> str:
    """Whose collection it is, once its bounds have been seen to be bounds of little."""
    low, high = metrics["SizeEstimateRangeGB"]
    assert 0 <= low <= high <= 1
    ((name, value),) = metrics["ItemCollectionKey"].items()
    assert name == "pk"
    return value["S"]


def test_a_write_of_one_item_tells_of_its_collection(things: TableUnderTest):
    assert partition_of(things.put(key("p"), **SIZE)["ItemCollectionMetrics"]) == "p"
    updated = things.update(key("p"), "SET a = :a", values={":a": S("x")}, **SIZE)
    assert partition_of(updated["ItemCollectionMetrics"]) == "p"
    assert partition_of(things.delete(key("p"), **SIZE)["ItemCollectionMetrics"]) == "p"


def test_nothing_is_told_unless_it_is_asked_for(things: TableUnderTest):
    assert things.put(key("p")) == {}
    assert things.put(key("p"), ReturnItemCollectionMetrics="NONE") == {}


def test_nothing_is_told_of_a_table_without_a_local_index(table):
    assert table("singles").put({"pk": S("p")}, **SIZE) == {}


@pytest.mark.parametrize("operation", ["BatchWriteItem", "TransactWriteItems"])
def test_writes_of_several_items_tell_of_each_collection_once(things: TableUnderTest, operation):
    items = [key("a", 1), key("a", 2), key("b", 1)]
    request = {
        "BatchWriteItem": {"RequestItems": {things.name: [{"PutRequest": {"Item": item}} for item in items]}},
        "TransactWriteItems": {
            "TransactItems": [{"Put": {"TableName": things.name, "Item": item}} for item in items]
        },
    }[operation]
    ((table, metrics),) = things.ask(operation, **request, **SIZE)["ItemCollectionMetrics"].items()
    assert (table, sorted(map(partition_of, metrics))) == (things.name, ["a", "b"])
