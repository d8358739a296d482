"""What is made up for a model: keys that meet again, items that its table takes, PynamoDB's conditions."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualstore.items import items_equal
from dualstore.mapping import shape_of_model
from dualstore.operations import OPERATIONS
from dualstore.stores import MemoryStore
from dualstore.testing import (
    actions_of,
    conditions_of,
    instances_of,
    items_of,
    keys_of,
    steps_of,
    store_contract,
)
from dualstore.testing.answers import comparable, pages_of
from dualstore.testing.stand_ins import unlike_aws
from dualstore.testing.steps import ChangeOf, Delete, Put, QueryOf, ScanOf
from equivalence.models import Import, Job, Order

few = settings(
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
SHAPES = {model: shape_of_model(model) for model in (Order, Job)}


@few
@given(keys=st.lists(keys_of(Order), min_size=9, max_size=9))
def test_the_keys_of_one_example_are_few(keys: list[Any]) -> None:
    assert len({repr(key) for key in keys}) <= 8
    for key in keys:
        SHAPES[Order].keys.exact_key(key)


@few
@given(item=items_of(Job))
def test_every_item_has_a_key_of_its_table(item: Any) -> None:
    SHAPES[Job].keys.key_of(item)


@few
@given(order=instances_of(Order))
def test_an_instance_says_the_whole_of_its_item(order: Any) -> None:
    assert items_equal(Order.from_raw_data(order.serialize()).serialize(), order.serialize())


@few
@given(job=instances_of(Job))
def test_an_instance_has_the_class_that_its_discriminator_names(job: Any) -> None:
    assert type(job) in {Job, Import}


@few
@given(total=items_of(Order, overrides={"total": st.just({"N": "7"})}))
def test_what_is_overridden_is_always_there(total: Any) -> None:
    assert total["total"] == {"N": "7"}


@few
@given(condition=conditions_of(Order), actions=actions_of(Order))
def test_conditions_and_actions_are_pynamodbs_own(condition: Any, actions: Any) -> None:
    names: dict[str, str] = {}
    values: dict[str, Any] = {}
    assert condition.serialize(names, values)
    assert all(action.serialize(names, values) for action in actions)


@few
@given(data=st.data(), kind=st.sampled_from(sorted(steps_of(Job))))
def test_every_step_gets_an_answer(data: Any, kind: str) -> None:
    """DynamoDB's own: an item, a page, or a refusal; twice the same."""
    step = data.draw(steps_of(Job)[kind])
    answers = []
    for _ in range(2):
        store = MemoryStore({"jobs": SHAPES[Job]})
        answers.append(comparable(step, pages_of(store, step, "jobs")))
    assert answers[0] == answers[1]
    assert OPERATIONS[step.name]


KEY = {"customer": {"S": "a"}, "line": {"S": "b"}}


def memory(*numbers: int) -> MemoryStore:
    store = MemoryStore({"orders": SHAPES[Order]})
    for number in numbers:
        pages_of(store, Put({**KEY, "line": {"S": str(number)}}), "orders")
    return store


@pytest.mark.parametrize(
    ("step", "alike"),
    [
        (QueryOf(None, ("customer", {"S": "a"}), None, "line", ordered=True), False),
        (ScanOf(), True),
        (ScanOf(limit=1), True),
    ],
)
def test_the_order_of_a_query_counts_and_that_of_a_scan_does_not(step: Any, alike: bool) -> None:  # noqa: FBT001
    pages = pages_of(memory(1, 2), step, "orders")
    turned = pages_of(memory(1, 2), step, "orders")
    items = [item for page in turned for item in page.response["Items"]][::-1]
    for page in turned:
        page.response["Items"] = [items.pop(0) for _ in page.response["Items"]]
    assert (comparable(step, pages) == comparable(step, turned)) is alike


def test_an_item_more_or_less_counts_in_a_scan() -> None:
    step = ScanOf()
    assert comparable(step, pages_of(memory(1, 2), step, "orders")) != comparable(
        step, pages_of(memory(1), step, "orders")
    )


def test_refusals_differ_by_code() -> None:
    refused = Put(KEY, Order.customer == "x")
    empty = Delete({"customer": {"S": ""}, "line": {"S": "b"}})
    store = memory()
    codes = {comparable(step, pages_of(store, step, "orders")).code for step in (refused, empty)}
    assert codes == {"ConditionalCheckFailedException", "ValidationException"}


def test_a_stand_in_is_not_asked_what_it_is_known_to_do_otherwise() -> None:
    taken = ChangeOf(KEY, [Order.status.remove()])
    assert unlike_aws("dynoxide", taken)
    assert unlike_aws("endpoint", taken) is None
    assert unlike_aws("dynoxide", ChangeOf(KEY, [Order.status.set("a")])) is None


TestTheContractFindsItself = store_contract(lambda shape: MemoryStore({shape.name: shape}))


def test_the_contract_fails_a_store_that_forgets() -> None:
    contract: Any = store_contract(lambda shape: MemoryStore({shape.name: shape}))()

    def forgets(name: str, **request: Any) -> Any:
        del request
        return {} if name != "GetItem" else {"Item": {}}

    with pytest.raises((AssertionError, KeyError)):
        contract.test_an_item_comes_back_as_it_was_written(forgets)


@pytest.mark.parametrize("missing", ["hypothesis", "pytest"])
def test_without_the_extra_an_error_says_what_to_install(missing: str) -> None:
    name = "equivalence" if missing == "hypothesis" else "store_contract"
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import dualstore.testing.servers\n"
        "try:\n"
        f"    from dualstore.testing import {name}\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'dualstore[testing]'" in told.stdout
