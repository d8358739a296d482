"""Drawn operations: the mix and skew of a profile, on keys of the load's own, with items that fit."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, LocalSecondaryIndex
from pynamodb.models import Model
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase

from dualstore.errors import ConfigurationError
from dualstore.items import Item, KeyAttribute, KeySchema, TableShape, item_size_bytes
from dualstore.mapping import (
    Entity,
    EntityTable,
    Mirrored,
    TableMapping,
    map_table,
    split_table,
    unmapped_table,
)
from dualstore.operations import OPERATIONS, parse
from dualstore.rollout.load import OperationRate, PartitionClass, Replay, TableLoad
from dualstore.rollout.load.driving import drive
from dualstore.rollout.load.items import Items
from dualstore.rollout.load.keys import KeySpace, Place, Popularity
from dualstore.rollout.load.replay import arrivals_of
from dualstore.rollout.load.requests import Requests, require_indexes
from dualstore.stores import MemoryStore


class ByCustomer(GlobalSecondaryIndex):
    class Meta:
        index_name = "by-customer"
        projection = AllProjection()

    customer = NumberAttribute(hash_key=True)
    placed = UnicodeAttribute(range_key=True)


class ByTotal(LocalSecondaryIndex):
    class Meta:
        index_name = "by-total"
        projection = AllProjection()

    pk = UnicodeAttribute(hash_key=True)
    total = NumberAttribute(range_key=True)


class Order(Model):
    class Meta:
        table_name = "orders-staging"

    pk = UnicodeAttribute(hash_key=True)
    sk = NumberAttribute(range_key=True)
    customer = NumberAttribute(null=True)
    placed = UnicodeAttribute(null=True)
    total = NumberAttribute(null=True)
    status = UnicodeAttribute()
    reference = UnicodeAttribute()
    note = UnicodeAttribute(null=True)
    quantity = NumberAttribute()

    by_customer = ByCustomer()
    by_total = ByTotal()


def mapped(**columns: Any) -> TableMapping:
    base = type("Base", (DeclarativeBase,), {})
    body = {
        "__tablename__": "orders",
        "pk": sa.Column(sa.Text(collation="C"), primary_key=True),
        "sk": sa.Column(sa.Numeric, primary_key=True),
        "customer": sa.Column(sa.Integer),
        "placed": sa.Column(sa.DateTime(timezone=True)),
        "status": sa.Column(sa.Enum("open", "closed", name="status"), nullable=False),
        "reference": sa.Column(postgresql.UUID(as_uuid=False), nullable=False),
        "note": sa.Column(sa.String(8)),
        "quantity": sa.Column(sa.SmallInteger, nullable=False),
        **columns,
    }
    return map_table("orders", Order, type("Row", (Mirrored, base), body))


CLASSES = (
    PartitionClass(1, {"every": 50.0}, items=4, sorts=((1, 75.0), (3, 25.0))),
    PartitionClass(100, {"every": 50.0}),
)
INDEXES = {"by-customer": (PartitionClass(1, {"every": 80.0}), PartitionClass(9, {"every": 20.0}))}


def items_of(mapping: TableMapping | None = None, **template: Any) -> Items:
    return Items(mapping or mapped(), INDEXES, template)


def rate(operation: str, **more: Any) -> OperationRate:
    return OperationRate(operation, more.pop("per_second", 1.0), **more)


def drawn(rates: list[OperationRate], count: int, **load: Any) -> list[Any]:
    requests = Requests(TableLoad(tuple(rates), CLASSES, INDEXES, **load), items_of(), Random(1))
    return [requests.draw() for _ in range(count)]


def test_places_are_drawn_as_often_as_they_are_asked_for() -> None:
    hot, cold = CLASSES
    classes = (
        replace(hot, percents={"every": 70.0, "PutItem": 1.0}),
        replace(cold, percents={"every": 30.0}),
    )
    popularity, random = Popularity(classes, "GetItem"), Random(1)
    places = Counter(popularity.draw(random) for _ in range(10_000))
    of_hottest = sum(count for place, count in places.items() if place.partition == 0)
    assert of_hottest / 10_000 == pytest.approx(0.7, abs=0.02)
    assert places[Place(0, 0)] / of_hottest == pytest.approx(0.75, abs=0.02)
    assert {place.sort for place in places if place.partition == 0} == {0, 1, 2, 3}
    others = Counter(place.partition for place in places if place.partition).values()
    assert (len(others), max(others) < 90) == (100, True), "the others are even"


@pytest.mark.parametrize("kind", ["S", "N", "B"])
def test_keys_are_of_the_load_and_nobody_elses(kind) -> None:
    keys = KeySchema(KeyAttribute("pk", kind), KeyAttribute("sk", kind))
    ours, others = KeySpace(keys, "one"), KeySpace(keys, "two")
    shape = TableShape("t", keys)
    seen = set()
    for rank in (0, 1, 10**6):
        for space in (ours, others):
            key = space.key(Place(rank, 3))
            shape.check_item(key)
            seen.add(str(key["pk"]))
            if kind == "N":
                assert int(key["pk"]["N"]) < -(10**30)
            else:
                content = key["pk"][kind]
                assert content.startswith("one/" if kind == "S" else b"one/") or space is others
    assert len(seen) == 6


def test_the_mix_is_that_of_the_profile() -> None:
    asked = drawn([rate("GetItem", per_second=70), rate("PutItem", per_second=30, index=None)], 5_000)
    assert Counter(each.operation for each in asked)["GetItem"] == pytest.approx(3_500, rel=0.04)


EVERY_KIND = [
    rate("GetItem", consistent_percent=50),
    rate("PutItem", conditional_percent=50, item_bytes=((300, 50), (3000, 50))),
    rate("UpdateItem", conditional_percent=50),
    rate("DeleteItem", conditional_percent=50),
    rate("Query", ranged_percent=50, conditional_percent=50, limits=((0, 50), (3, 50))),
    rate("Query", index="by-customer"),
    rate("Scan", limits=((5, 100),), conditional_percent=50),
    rate("BatchGetItem", keys=((1, 50), (100, 50))),
    rate("BatchWriteItem", keys=((25, 100),), acts={"Put": 50.0, "Delete": 50.0}),
    rate("TransactGetItems", keys=((5, 100),)),
    rate(
        "TransactWriteItems",
        keys=((10, 100),),
        acts={"Put": 25.0, "Update": 25.0, "Delete": 25.0, "ConditionCheck": 25.0},
    ),
]


def test_every_operation_that_is_drawn_is_one_that_dynamodb_takes(clock) -> None:
    """Hot keys in batches too: none is named twice."""
    shape = mapped().shape
    store = MemoryStore({shape.name: shape})
    planned = Replay(
        load=TableLoad(tuple(EVERY_KIND), CLASSES, INDEXES), multiple=5, duration=timedelta(seconds=8)
    )
    tally = drive(
        lambda name, request: store.execute(parse(name, request)),
        arrivals_of(planned, items_of(), planned.schedule()),
        kinds=len(EVERY_KIND),
        writers=2,
        ends=8,
        clock=clock,
    )
    assert {each.operation for each in EVERY_KIND} == set(OPERATIONS)
    assert all(kind.planned > 20 for kind in tally.kinds.values())
    assert {code for kind in tally.kinds.values() for code in kind.errors} == set()
    assert tally.planned == pytest.approx(440, rel=0.15)


def test_the_same_seed_draws_the_same_operations() -> None:
    load = TableLoad(tuple(EVERY_KIND), CLASSES, INDEXES)
    planned = Replay(load=load, multiple=1, duration=timedelta(seconds=3))
    first, again, other = (
        list(arrivals_of(each, items_of(), each.schedule(), number=number))
        for each, number in ((planned, 0), (planned, 0), (planned, 1))
    )
    assert first == again
    assert first != other, "each process draws its own"


def test_shares_are_asked_for_as_they_were_recorded() -> None:
    gets = drawn([rate("GetItem", consistent_percent=25)], 2_000)
    assert sum("ConsistentRead" in each.request for each in gets) == pytest.approx(500, rel=0.1)
    queries = drawn([rate("Query", ranged_percent=50, limits=((0, 25), (20, 75)))], 2_000)
    assert sum(each.request.get("Limit") == 20 for each in queries) == pytest.approx(1_500, rel=0.05)
    assert sum(":sort" in each.request["ExpressionAttributeValues"] for each in queries) == pytest.approx(
        1_000, rel=0.1
    )


@pytest.mark.parametrize("size", [200, 1_000, 5_000, 409_600])
def test_items_are_of_the_size_that_is_asked_for(size: int) -> None:
    items = items_of()
    made = item_size_bytes(items.item(Place(0, 0), size))
    assert max(size, 300) >= made >= size - 80
    items.shape.check_item(items.item(Place(0, 0), size))


def test_every_column_gets_a_value_that_fits() -> None:
    mapping = mapped()
    items = items_of(mapping)
    for place in (Place(0, 0), Place(99, 3), Place(12_345, 67)):
        item = items.item(place, 500)
        row = dict(zip(mapping.column_names, mapping.encode(item), strict=True))
        empty = {name for name in row if row[name] is None}
        assert empty <= {"dualstore_stamp", "placed"}, "an index's own sort key need not fit"
        assert item["status"]["S"] in {"open", "closed"}


def test_items_differ_and_the_same_item_is_always_the_same() -> None:
    items = items_of()
    one, same, other = (
        items.item(Place(1, 1), 500),
        items.item(Place(1, 1), 500),
        items.item(Place(1, 2), 500),
    )
    assert one == same
    assert one["reference"] != other["reference"]


def test_items_are_found_by_their_indexes(clock) -> None:
    items = items_of()
    shape = items.shape
    store = MemoryStore({shape.name: shape})
    for sort in range(100):
        request = {"TableName": shape.name, "Item": items.item(Place(0, sort), 100)}
        store.execute(parse("PutItem", request))
    requests = Requests(
        TableLoad(
            (rate("Query", index="by-customer"), rate("Query", index="by-total")),
            CLASSES,
            {**INDEXES, "by-total": CLASSES},
        ),
        items,
        Random(1),
    )
    found: dict[str, list[int]] = {"by-customer": [], "by-total": []}
    for _ in range(100):
        asked = requests.draw()
        found[asked.request["IndexName"]].append(store.execute(parse("Query", asked.request))["Count"])
    assert min(found["by-customer"]) > 0
    assert set(found["by-total"]) == {0, 100}, "the table's own partitions, one of which has items"


def test_a_template_has_the_last_word_but_for_the_key() -> None:
    template: Item = {"status": {"S": "closed"}, "customer": {"N": "7"}, "pk": {"S": "mine"}}
    item = items_of(None, **template).item(Place(3, 3), 100)
    assert (item["status"], item["customer"]) == ({"S": "closed"}, {"N": "7"})
    assert item["pk"]["S"].startswith("dualstore-load/")


def test_a_column_that_nothing_fits_has_to_be_told() -> None:
    mapping = mapped(
        reference=sa.Column(sa.CHAR(2), nullable=False), quantity=sa.Column(sa.Numeric(1, 1), nullable=False)
    )
    with pytest.raises(ConfigurationError, match=r"column quantity.*item: \{quantity: \{N: …\}\}"):
        items_of(mapping)
    items_of(mapping, quantity={"N": "0.1"})


def test_a_table_without_a_model_has_items_too() -> None:
    mapping = unmapped_table("things", TableShape("things", KeySchema(KeyAttribute("id", "B"))))
    item = Items(mapping, {}, {}).item(Place(7, 0), 200)
    assert set(item) == {"id", "load_filling"}
    mapping.shape.check_item(item)


def test_where_a_table_has_several_entities_the_template_says_which() -> None:
    orders = mapped()
    entity = EntityTable(
        "orders", Entity.by_attribute("status", "open"), orders, frozenset(orders.shape.indexes)
    )
    split = split_table("orders", [entity])
    item = Items(split, INDEXES, {"status": {"S": "open"}}).item(Place(1, 1), 300)
    assert split.place_of(item) == 0
    assert "reference" in item, "the entity's own columns are filled"
    rest = Items(split, INDEXES, {}).item(Place(1, 1), 300)
    assert split.place_of(rest) == 1
    assert "reference" not in rest


def test_an_index_that_the_table_lacks_is_told() -> None:
    shape = mapped().shape
    require_indexes(TableLoad((rate("Query", index="by-customer"), rate("GetItem")), CLASSES, INDEXES), shape)
    load = TableLoad((rate("Scan", index="by-age"),), CLASSES)
    with pytest.raises(ConfigurationError, match=r"no index by-age, .* it has by-customer, by-total"):
        require_indexes(load, shape)


def test_without_a_sort_key_a_partition_is_one_item() -> None:
    shape = TableShape("things", KeySchema(KeyAttribute("id", "S")))
    items = Items(unmapped_table("things", shape), {}, {})
    requests = Requests(TableLoad((rate("BatchGetItem", keys=((10, 100),)),), CLASSES), items, Random(1))
    for _ in range(50):
        keys = requests.draw().request["RequestItems"]["things"]["Keys"]
        assert len({key["id"]["S"] for key in keys}) == len(keys) == 10
