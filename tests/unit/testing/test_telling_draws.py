"""What is drawn from the state: conditions on what a write changes, ranges that end at items."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynamodb.expressions.operand import Path

from dualstore.items import AttributeValue, Item, KeyAttribute, type_of
from dualstore.testing import steps_of
from dualstore.testing.steps import ChangeOf, Delete, Expressions, Put
from dualstore.testing.strategies import beginnings_of
from dualstore.testing.strategies.conditions import telling_conditions
from dualstore.testing.strategies.ranges import in_order, neighbours, place, ranges, sort_conditions
from dualstore.testing.strategies.steps import outcome
from dualstore.testing.strategies.subjects import Subject
from dualstore.testing.values import scalars
from equivalence.models import Job, Order

few = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
DRAWS = 60
KEY: Item = {"customer": {"S": "a"}, "line": {"S": "b"}}


def drawn(strategy: st.SearchStrategy[Any]) -> list[Any]:
    """What a strategy gives in some examples, the same ones every time."""
    found: list[Any] = []

    @few
    @given(each=strategy)
    def collect(each: Any) -> None:
        found.append(each)

    collect()
    return found


def said(condition: Any) -> dict[str, Any]:
    expressions = Expressions()
    expressions.add("ConditionExpression", condition)
    return expressions.request()


def test_a_telling_condition_asks_about_what_the_write_changes() -> None:
    before = {**KEY, "status": {"S": "open"}, "total": {"N": "1"}}
    after = {**KEY, "status": {"S": "paid"}, "total": {"N": "1"}, "remark": {"S": ""}}
    requests = [said(each) for each in drawn(telling_conditions(before, after))]
    names = {name for each in requests for name in each["ExpressionAttributeNames"].values()}
    assert names == {"status", "remark"}
    values = [v for each in requests for v in each.get("ExpressionAttributeValues", {}).values()]
    assert all(value in values for value in ({"S": "open"}, {"S": "paid"}))


def test_a_telling_condition_names_only_what_it_may() -> None:
    conditions = drawn(telling_conditions({**KEY, "total": {"N": "1"}}, None, frozenset(KEY)))
    assert {tuple(said(each)["ExpressionAttributeNames"].values()) for each in conditions} == {("total",)}


def test_where_there_is_nothing_there_is_nothing_to_tell() -> None:
    assert set(drawn(telling_conditions(None, None))) == {None}


@pytest.mark.parametrize(
    ("write", "made"),
    [
        (Put({**KEY, "total": {"N": "2"}}), {**KEY, "total": {"N": "2"}}),
        (ChangeOf(KEY, [Order.total.add(1)]), {**KEY, "total": {"N": "2"}}),
        (Delete(KEY), None),
        (Put({**KEY, "total": {"S": "no number"}}), {**KEY, "total": {"N": "1"}}),
    ],
)
def test_the_outcome_of_a_write_is_dynamodbs(write: Any, made: Item | None) -> None:
    assert outcome(Subject(Order, None), write, {**KEY, "total": {"N": "1"}}) == made


@few
@given(kind=st.sampled_from("SNB"), data=st.data())
def test_the_bounds_of_a_range_are_in_order(kind: str, data: Any) -> None:
    lower, upper = data.draw(ranges(kind))
    assert place(lower) <= place(upper)
    turned = in_order(upper, lower)
    assert list(map(place, turned)) == [place(lower), place(upper)]


@few
@given(value=st.sampled_from("SNB").flatmap(lambda kind: scalars(kind, empty=False)))
def test_neighbours_lie_on_both_sides_and_are_keys_themselves(value: AttributeValue) -> None:
    near = neighbours(value)
    assert all(type_of(each) == type_of(value) and each[type_of(value)] for each in near)
    places = [place(each) for each in near]
    assert places[-1] >= place(value)
    assert len(near) == 1 or places[0] <= place(value)


@pytest.mark.parametrize("kind", ["S", "N", "B"])
def test_many_ranges_end_exactly_at_an_item(kind: str) -> None:
    contents: dict[str, Any] = {"S": ("key", "kez"), "N": ("17", "18.5"), "B": (b"\1\2", b"\1\3")}
    there = [{kind: content} for content in contents[kind]]
    conditions = drawn(sort_conditions(KeyAttribute("line", kind), there, scalars(kind, empty=False)))
    exact = [
        each
        for each in conditions
        if any(v in there for v in said(each)["ExpressionAttributeValues"].values())
    ]
    assert len(exact) > DRAWS / 3
    operators = {each.operator for each in conditions}
    assert operators >= {"<", "<=", ">", ">=", "=", "BETWEEN", *(["begins_with"] if kind != "N" else [])}


@pytest.mark.parametrize("model", [Order, Job])
def test_a_history_begins_with_different_items_of_one_partition(model: Any) -> None:
    subject = Subject(model, None)
    sizes = set()
    for beginning in drawn(beginnings_of(model)):
        items = [] if beginning is None else beginning.touched()
        assert len({subject.identity(item) for item in items}) == len(items)
        assert len({repr(item[subject.shape.keys.partition.name]) for item in items}) <= 1
        sizes.add(len(items))
    assert {0, 1, 2} < sizes


class Remembering:
    """A test that says what is there, as the state machine does."""

    present: Sequence[Item] = [
        {"customer": {"S": "there"}, "line": {"S": line}, "status": {"S": "strange"}} for line in "xyz"
    ]

    def drawn(self, kind: str) -> list[Any]:
        found: list[Any] = []

        @few
        @given(step=steps_of(Order)[kind])
        def collect(_: "Remembering", step: Any) -> None:
            found.append(step)

        collect(self)
        return found


def test_queries_ask_for_partitions_that_are_there_in_both_directions() -> None:
    known = [each for each in Remembering().drawn("queries") if each.partition[1] == {"S": "there"}]
    assert len(known) > DRAWS / 4
    assert {each.forward for each in known} == {True, False}


@pytest.mark.parametrize("kind", ["deletes", "puts"])
def test_writes_come_to_items_that_are_there_with_conditions_on_what_they_hold(kind: str) -> None:
    known = [each for each in Remembering().drawn(kind) if each.touched()[0]["customer"] == {"S": "there"}]
    assert len(known) > DRAWS / 4
    asked = [said(each.condition) for each in known if each.condition is not None]
    values = [value for each in asked for value in each.get("ExpressionAttributeValues", {}).values()]
    assert any(value in values for value in ({"S": "strange"}, {"S": "there"}, *({"S": e} for e in "xyz")))


def test_changes_come_with_conditions_on_the_very_attribute_that_they_change() -> None:
    both = 0
    for each in Remembering().drawn("changes"):
        changed = said(each.condition).get("ExpressionAttributeNames", {}).values()
        both += any(action.values[0].path[0] in changed for action in each.actions)
    assert both > DRAWS / 6


def test_without_a_state_every_key_is_of_the_pool() -> None:
    keys = [each.touched()[0] for each in drawn(steps_of(Order)["deletes"])]
    assert all(set(key) == {"customer", "line"} for key in keys)
    assert {"S": "there"} not in [key["customer"] for key in keys]


@pytest.mark.parametrize("awkward", ["\0", "x" * 255])
def test_long_texts_and_nuls_come_often(awkward: str) -> None:
    texts = [each["S"] for each in drawn(scalars("S"))]
    assert sum(awkward in text for text in texts) > DRAWS / 30


def test_a_condition_may_be_on_the_very_attribute_that_is_set() -> None:
    before = {**KEY, "status": {"S": "open"}}
    write = ChangeOf(KEY, [Path(["status"]).set({"S": "paid"})])
    condition = drawn(telling_conditions(before, outcome(Subject(Order, None), write, before)))[0]
    assert list(said(condition)["ExpressionAttributeNames"].values()) == ["status"]
