"""Key conditions: one partition, and perhaps a part of it."""

import pytest

from dualstore.errors import RequestRejected
from dualstore.expressions import KeyCondition, SortCondition, key_condition, matches
from dualstore.items import KeyAttribute, KeySchema

KEYS = KeySchema(KeyAttribute("p", "S"), KeyAttribute("s", "N"))
TEXT_KEYS = KeySchema(KeyAttribute("p", "S"), KeyAttribute("s", "S"))
HASH_ONLY = KeySchema(KeyAttribute("p", "S"))

P = {"S": "k"}


def read(text, keys=KEYS, names=None, **values):
    return key_condition(text, names, {f":{name}": value for name, value in values.items()}, keys)


def test_a_partition_alone():
    assert read("p = :p", p=P) == KeyCondition(P, None)
    assert read("(#p = :p)", names={"#p": "p"}, p=P, keys=HASH_ONLY) == KeyCondition(P, None)


@pytest.mark.parametrize("operator", ["=", "<", "<=", ">", ">="])
def test_a_comparison_of_the_sort_key(operator):
    wanted = KeyCondition(P, SortCondition(operator, ({"N": "1"},)))
    assert read(f"p = :p AND s {operator} :s", p=P, s={"N": "1"}) == wanted
    assert read(f"(s {operator} :s) and (p = :p)", p=P, s={"N": "1.0"}) == wanted


@pytest.mark.parametrize(
    ("written", "meant"), [("=", "="), ("<", ">"), ("<=", ">="), (">", "<"), (">=", "<=")]
)
def test_a_value_may_stand_on_the_left(written, meant):
    wanted = KeyCondition(P, SortCondition(meant, ({"N": "1"},)))
    assert read(f":p = p AND :s {written} s", p=P, s={"N": "1"}) == wanted


def test_a_range_and_a_prefix_of_the_sort_key():
    between = read("p = :p AND s BETWEEN :a AND :b", p=P, a={"N": "1"}, b={"N": "2"})
    assert between.sort == SortCondition("BETWEEN", ({"N": "1"}, {"N": "2"}))
    prefix = read("p = :p AND begins_with(s, :a)", TEXT_KEYS, p=P, a={"S": "x"})
    assert prefix.sort == SortCondition("begins_with", ({"S": "x"},))


@pytest.mark.parametrize(
    "text",
    [
        "s = :s",
        "p > :p",
        "begins_with(p, :p)",
        "p BETWEEN :p AND :p",
        "p = :p AND s <> :s",
        "p <> :p",
        "p = :p AND s IN (:s)",
        "p = :p OR s = :s",
        "NOT p = :p",
        "p = :p AND NOT s = :s",
        "p = :p AND attribute_exists(s)",
        "p = :p AND contains(s, :p)",
        "p = :p AND size(s) > :s",
        "p = :p AND s > size(:p)",
        "p = :p AND elsewhere = :s",
        "p = :p AND p = :p",
        "p = :p AND s > :s AND s < :s",
        "p = :p AND s = :s AND elsewhere = :s",
        "p = :p AND s.x = :s",
        "p = :p AND s = p",
        "p = :p AND :s BETWEEN s AND :s",
        "p = :p AND :p = :p",
        "p = :p AND s = :p",
        "p = :p AND s BETWEEN :s AND :p",
        "p = :s",
        "p = :empty",
        "p = :long",
        "p = :undefined",
        "",
    ],
)
def test_anything_else_is_refused(text):
    values = {"p": P, "s": {"N": "1"}, "empty": {"S": ""}, "long": {"S": "x" * 2049}}
    with pytest.raises(RequestRejected) as rejected:
        read(text, **values)
    assert rejected.value.code == "ValidationException"


def test_a_sort_condition_without_a_sort_key_is_refused():
    with pytest.raises(RequestRejected):
        read("p = :p AND s = :p", HASH_ONLY, p=P)


def test_a_reversed_range_is_refused():
    with pytest.raises(RequestRejected):
        read("p = :p AND s BETWEEN :a AND :b", p=P, a={"N": "10"}, b={"N": "9"})


@pytest.mark.parametrize(
    ("operator", "operands", "inside", "outside"),
    [
        ("=", ["5"], ["5.0"], ["4", "6"]),
        ("<", ["10"], ["9", "-1"], ["10", "11"]),
        ("<=", ["10"], ["9", "10.0"], ["10.1"]),
        (">", ["9"], ["10"], ["9", "-10"]),
        (">=", ["9"], ["9", "10"], ["8.9"]),
        ("BETWEEN", ["9", "11"], ["9", "10", "11"], ["8", "12"]),
    ],
)
def test_matches_a_number(operator, operands, inside, outside):
    wanted = SortCondition(operator, tuple({"N": operand} for operand in operands))
    assert all(matches(wanted, {"N": text}) for text in inside)
    assert not any(matches(wanted, {"N": text}) for text in outside)


def test_matches_a_prefix():
    wanted = SortCondition("begins_with", ({"S": "ab"},))
    assert matches(wanted, {"S": "abc"})
    assert not matches(wanted, {"S": "aab"})
