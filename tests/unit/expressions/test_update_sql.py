"""Which updates compile to SQL; whether they do the same a real server says (integration/postgres)."""

from typing import Any

import pytest

from dualstore.expressions import SqlNumber, compile_update, update

COLUMNS = {"label", "n", "m"}
NUMBERS = {name: SqlNumber(f"t.{name}", lambda number: f"fits({number})") for name in ("n", "m")}


def compiled(text: str, names: dict[str, str] | None = None, **values: Any) -> Any:
    bound = {f":{name}": value if isinstance(value, dict) else {"N": value} for name, value in values.items()}
    return compile_update(update(text, names, bound), COLUMNS, NUMBERS, first=5)


def test_constants_and_removals_need_no_sql_of_their_own():
    found = compiled("SET label = :s, absent = :n REMOVE n", s={"S": "x"}, n="1")
    assert (found.constants, found.removed) == ({"label": {"S": "x"}, "absent": {"N": "1"}}, ["n"])
    assert (found.computed, found.values, found.decidable, found.reads) == ({}, [], "true", set())


def test_a_default_reads_its_column():
    found = compiled("SET label = if_not_exists(label, :s)", s={"S": "x"})
    assert (found.defaults, found.reads) == ({"label": {"S": "x"}}, {"label"})


def test_placeholders_go_on_where_the_condition_ended():
    found = compiled("ADD n :a SET m = m - :b", a="1", b="2.5")
    assert found.values == ["0", "1", "2.5"]
    assert found.computed == {
        "n": "(coalesce(t.n::numeric, $5::numeric) + $6::numeric)",
        "m": "(t.m::numeric - $7::numeric)",
    }
    assert found.reads == {"n", "m"}


def test_a_sum_of_constants_is_a_constant():
    found = compiled("SET label = :a + :b, absent = :b - :a", a="2147483647", b="1")
    assert found.constants == {"label": {"N": "2147483648"}, "absent": {"N": "-2147483646"}}
    assert (found.computed, found.values, found.decidable) == ({}, [], "true")


def test_a_sum_of_constants_that_dynamodb_refuses_is_for_the_evaluator():
    assert compiled("SET n = :a + :b", a="9" * 38, b="0.5") is None


def test_a_sum_is_decided_where_its_operands_are_there_and_its_column_holds_it():
    found = compiled("SET n = m + :a", a="1")
    assert "t.m IS NOT NULL" in found.decidable
    assert f"fits({found.computed['n']})" in found.decidable
    assert "t.n" not in found.decidable


@pytest.mark.parametrize("number", ["999999999999999999", "-999999999999999999", "0.000000000000000001", "0"])
def test_numbers_of_which_a_sum_is_surely_exact_are_computed_with(number):
    assert compiled("ADD n :a", a=number) is not None


@pytest.mark.parametrize("number", ["1000000000000000000", "-1E18", "0.0000000000000000001", "9" * 38])
def test_larger_and_finer_numbers_are_for_the_evaluator(number):
    assert compiled("ADD n :a", a=number) is None


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("SET label.a = :a", {"a": "1"}),
        ("SET label[0] = :a", {"a": "1"}),
        ("REMOVE label.a", {}),
        ("SET label = m", {}),
        ("SET label = list_append(label, :l)", {"l": {"L": []}}),
        ("ADD label :s", {"s": {"SS": ["a"]}}),
        ("DELETE label :s", {"s": {"SS": ["a"]}}),
        ("ADD label :a", {"a": "1"}),
        ("ADD absent :a", {"a": "1"}),
        ("SET n = absent + :a", {"a": "1"}),
        ("SET absent = if_not_exists(absent, :a)", {"a": "1"}),
        ("SET label = if_not_exists(n, :a)", {"a": "1"}),
        ("SET n = if_not_exists(n, m) + :a", {"a": "1"}),
    ],
)
def test_what_sql_would_not_surely_do_is_for_the_evaluator(text, values):
    assert compiled(text, **values) is None


@pytest.mark.parametrize("name", ["_dsv", "_dsp", "a\0", "\x01", "\x02"])
def test_names_that_are_hidden_or_stored_otherwise_are_for_the_evaluator(name):
    assert compiled("REMOVE #n", {"#n": name}) is None
