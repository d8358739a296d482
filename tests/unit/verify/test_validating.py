"""Comparing small sets of items in memory."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from dualstore.errors import RequestRejected
from dualstore.items import Item, KeyAttribute, KeySchema, key_hash
from dualstore.verify import Finding, avalidate, validate

KEYS = KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N"))


def item(n: int, **attributes) -> Item:
    return {"pk": {"S": "p"}, "sk": {"N": str(n)}} | attributes


def found(validation):
    return {(each.key_hash, each.finding, each.paths) for each in validation.differences}


def test_exactly_what_differs_is_found_whatever_the_order():
    source = [item(1), item(2, a={"N": "1"}), item(3), item(4, t={"SS": ["a", "b"]})]
    migrated = [
        item(5),
        item(4, t={"SS": ["b", "a"]}),
        item(2, a={"S": "1"}),
        {**item(1), "sk": {"N": "1.0"}},
    ]

    validation = validate(source, migrated, KEYS)

    assert found(validation) == {
        (key_hash(KEYS, item(2)), Finding.VALUE, ("a",)),
        (key_hash(KEYS, item(3)), Finding.MISSING_ON_POSTGRES, ()),
        (key_hash(KEYS, item(5)), Finding.MISSING_ON_DYNAMODB, ()),
    }
    assert (validation.equal, validation.source_items, validation.migrated_items) == (2, 4, 4)
    assert (validation.success_rate, validation.valid) == (0.4, False)


def test_nothing_on_both_sides_is_equal():
    assert validate([], [], KEYS).valid
    assert validate([], [], KEYS).success_rate == 1.0
    assert validate([], [item(1)], KEYS).success_rate == 0.0


def test_a_key_that_comes_twice_is_told():
    validation = validate([item(1), item(1)], [item(1)], KEYS)

    assert [each.finding for each in validation.duplicates] == [Finding.DUPLICATE]
    assert not validation.valid


def test_an_item_without_a_key_is_refused():
    with pytest.raises(RequestRejected):
        validate([{"pk": {"S": "p"}}], [], KEYS)


def test_items_may_arrive_asynchronously():
    async def arriving() -> AsyncIterator[Item]:
        for n in range(3):
            yield item(n)

    assert asyncio.run(avalidate(arriving(), [item(n) for n in range(3)], KEYS)).valid
