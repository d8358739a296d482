"""Condensing: rates of all processes together, and the skew of keys without the keys."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from dualstore.errors import ConfigurationError
from dualstore.recording import Line, Lost, Note, Opened, TableNamed, Touch
from dualstore.recording.lines import VERSION
from dualstore.rollout.load import PartitionClass, TableLoad, condense


def opened(*, salt: str = "salt", began: float = 1000.0, percent: float = 100.0) -> list[Line]:
    return [Opened(VERSION, "r", salt, began), TableNamed("orders", percent, ("place",))]


def get(at: float, p: str, s: str = "", **more: Any) -> Note:
    return Note(at=at, table="orders", operation="GetItem", touched=(Touch(p, s),), **more)


def condensed(lines: Iterable[Line]) -> TableLoad:
    return condense(lines, name="p").tables["orders"]


def test_a_rate_is_that_of_the_time_recorded() -> None:
    lines = [*opened(), *(get(number / 10, "p") for number in range(101))]
    (rate,) = condensed(lines).operations
    assert rate.per_second == 10.1


def test_a_sampled_share_stands_for_the_whole() -> None:
    lines = [*opened(percent=10.0), *(get(number / 10, "p") for number in range(101))]
    assert condensed(lines).per_second == 101


def test_what_was_lost_counts_like_what_was_noted() -> None:
    lines = [*opened(), *(get(number / 10, "p") for number in range(101)), Lost("orders", 101)]
    profile = condense(lines, name="p")
    assert profile.tables["orders"].per_second == 20.2
    assert profile.recorded is not None
    assert (profile.recorded.operations, profile.recorded.lost) == (101, 101)


def test_the_rates_of_processes_add_up() -> None:
    one = [get(number / 10, "p") for number in range(101)]
    assert condensed([*opened(), *one, *opened(salt="other"), *one]).per_second == 20.2


def test_the_shares_of_what_operations_ask_are_told() -> None:
    notes = [
        Note(
            at=number / 10,
            table="orders",
            operation="Query",
            index="by-name",
            consistent=number % 4 == 0,
            conditional=number % 2 == 0,
            ranged=number % 5 == 0,
            limit=20 if number < 30 else 0,
            answered=3,
            touched=(Touch("n"),),
        )
        for number in range(100)
    ]
    (rate,) = condensed([*opened(), *notes]).operations
    assert (rate.index, rate.consistent_percent, rate.conditional_percent) == ("by-name", 25, 50)
    assert (rate.ranged_percent, rate.limits) == (20, ((0, 70), (20, 30)))


def test_batches_are_told_by_their_keys_acts_and_sizes() -> None:
    touched = (Touch("p", "1", "Put", 512), Touch("p", "2", "Put", 1024), Touch("q", "3", "Delete"))
    notes = [
        Note(at=float(number), table="orders", operation="BatchWriteItem", touched=touched[: 2 + number % 2])
        for number in range(10)
    ]
    (rate,) = condensed([*opened(), *notes]).operations
    assert rate.keys == ((2, 50), (3, 50))
    assert rate.acts == {"Put": 80, "Delete": 20}
    assert rate.item_bytes == ((512, 50), (1024, 50))


def skewed(salt: str, *, seed: int) -> Iterator[Line]:
    """A partition with half of all reads, all on one item; 200 that share the other half."""
    random = Random(seed)
    yield from opened(salt=salt)
    for number in range(2000):
        at = number / 100
        if random.random() < 0.5:
            yield get(at, f"{salt} hot", f"{salt} item")
        else:
            yield get(at, f"{salt} {random.randrange(200)}", f"{salt} {random.random()}")


@pytest.mark.parametrize(
    "salts", [("a",), ("a", "b", "c")], ids=["one process", "three with salts of their own"]
)
def test_the_skew_of_partitions_and_of_their_items_stays(salts: tuple[str, ...]) -> None:
    lines = [line for number, salt in enumerate(salts) for line in skewed(salt, seed=number)]
    hottest, *others = condensed(lines).keys
    assert hottest.partitions == 1
    assert hottest.percent("GetItem") == pytest.approx(50, abs=3)
    assert (hottest.items, hottest.sorts) == (1, ((1, 100),))
    assert sum(each.partitions for each in others) == pytest.approx(200, abs=3)
    assert all(each.percent("GetItem") / each.partitions < 1.5 for each in others)
    assert others[0].sorts[0][1] < 50, "their items are read once each"


def test_a_hot_partition_of_many_items_is_told_from_one_hot_item() -> None:
    notes = [get(number / 10, "p", f"item {number % 50}") for number in range(1000)]
    (hottest,) = condensed([*opened(), *notes]).keys
    assert hottest.items == 50
    assert hottest.sorts[0] == (1, pytest.approx(2))


def test_reads_and_writes_may_be_hot_in_different_places() -> None:
    def put(at: float, p: str) -> Note:
        return Note(at=at, table="orders", operation="PutItem", touched=(Touch(p),))

    notes = [
        *(get(number / 10, "read") for number in range(90)),
        *(put(number / 10, "written") for number in range(60)),
    ]
    first, second = condensed([*opened(), *notes]).keys
    assert (first.percent("GetItem"), first.percent("PutItem")) == (100, 0)
    assert (second.percent("GetItem"), second.percent("PutItem")) == (0, 100)


def test_a_partition_has_as_many_items_as_queries_find_there() -> None:
    notes = [
        Note(at=float(number), table="orders", operation="Query", answered=25, touched=(Touch("p"),))
        for number in range(10)
    ]
    assert condensed([*opened(), *notes]).keys[0].items == 25
    assert condensed([*opened(), *notes, get(1.0, "p", "s")]).keys[0].items == 25


def test_many_keys_make_a_small_profile() -> None:
    random = Random(1)
    notes = [
        get(n / 100, f"{int(random.paretovariate(0.5))}", f"{random.randrange(5)}") for n in range(8_000)
    ]
    classes = condensed([*opened(), *notes]).keys
    assert sum(each.partitions for each in classes) > 500
    assert len(classes) < 40
    heats = [each.percent("GetItem") / each.partitions for each in classes]
    assert all(later <= earlier * 1.001 for earlier, later in pairwise(heats)), "hottest first"


def test_where_it_was_recorded_is_kept() -> None:
    profile = condense([*opened(), get(0, "p"), get(9, "p")], name="p")
    assert profile.recorded_at == {"orders": ("place",)}


def test_nothing_but_scans_is_a_profile_too() -> None:
    notes = [Note(at=float(number), table="orders", operation="Scan", limit=10) for number in range(5)]
    assert condensed([*opened(), *notes]).keys == (PartitionClass(1, {"every": 100.0}),)


def test_less_than_a_second_is_no_rate() -> None:
    with pytest.raises(ConfigurationError, match="less than a second"):
        condense([*opened(), get(0.1, "p"), get(0.5, "p")], name="p")
