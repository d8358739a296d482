"""Rows whose time to live has passed are no differences, where DynamoDB may have deleted their items."""

import time

import pytest

from dualstore.items import Item
from dualstore.operations import PutItem
from dualstore.verify import Finding
from dualstore.verify.findings import observe_pair

HOUR = 3600


def item(number: int, *, ttl: float | None = None) -> Item:
    made: Item = {"pk": {"S": "a"}, "sk": {"N": str(number)}}
    return made if ttl is None else made | {"ttl": {"N": str(int(time.time() + ttl))}}


def put(store, made: Item) -> None:
    store.execute(PutItem({"TableName": "orders-prod", "Item": made}))


def test_a_row_that_has_expired_without_its_item_is_counted_apart(sides):
    put(sides.postgres, item(1, ttl=-HOUR))
    verification = sides.verify(ttl_attribute="ttl").run()
    assert (verification.expired, verification.difference_count) == (1, 0)
    assert verification.proven
    assert verification.success_rate == 1.0
    ((_, result),) = sides.ledger.ended.values()
    assert result["expired"] == 1


@pytest.mark.parametrize("options", [{}, {"ttl_attribute": "other"}])
def test_it_is_a_difference_where_nothing_expires_by_that_attribute(sides, options):
    put(sides.postgres, item(1, ttl=-HOUR))
    verification = sides.verify(**options).run()
    assert (verification.expired, verification.difference_count) == (0, 1)


def test_a_row_without_its_item_is_a_difference_until_it_expires(sides):
    put(sides.postgres, item(1, ttl=HOUR))
    put(sides.postgres, item(2))
    assert sides.verify(ttl_attribute="ttl").run().difference_count == 2


def test_an_expired_item_that_the_mirror_lacks_is_a_difference(sides):
    """DynamoDB still answers with it: the mirror has lost a write."""
    put(sides.dynamodb, item(1, ttl=-HOUR))
    verification = sides.verify(ttl_attribute="ttl").run()
    assert (verification.expired, verification.difference_count) == (0, 1)


def test_an_expired_item_that_differs_is_a_difference(sides):
    put(sides.dynamodb, item(1, ttl=-HOUR))
    put(sides.postgres, item(1, ttl=-HOUR) | {"more": {"S": "x"}})
    assert sides.verify(ttl_attribute="ttl").run().difference_count == 1


def test_one_look_is_enough_for_an_expired_row(sides):
    put(sides.postgres, item(1, ttl=-HOUR))
    assert sides.verify(ttl_attribute="ttl", rounds=1).run().expired == 1


def test_expired_is_no_difference():
    assert not Finding.EXPIRED.is_difference
    assert observe_pair(None, item(1), revision=1, has_expired=lambda _: True).finding is Finding.EXPIRED
    assert observe_pair(None, None, revision=1, has_expired=lambda _: True).finding is Finding.EQUAL
