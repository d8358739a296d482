"""What conditions mean: two-valued logic over missing attributes and mixed types."""

import re

import pytest

from contract.tables import N, S, TableUnderTest, rejects

KEY = {"pk": S("p"), "sk": N(1)}
ITEM = {
    **KEY,
    "n": N(9),
    "s": S("straße"),
    "b": {"B": b"\x00\xff"},
    "yes": {"BOOL": True},
    "nil": {"NULL": True},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1", "2"]},
    "l": {"L": [N(1), S("a"), {"NULL": True}]},
    "m": {"M": {"x": N(1), "y": {"M": {"z": S("deep")}}}},
    "zero": N(0),
    "emoji": S("\U0001f600"),
}
VALUES = {
    ":nine": N("9.0"),
    ":ten": N(10),
    ":text9": S("9"),
    ":sub": S("raß"),
    ":str": S("str"),
    ":null": {"NULL": True},
    ":true": {"BOOL": True},
    ":bytes": {"B": b"\x00"},
    ":a": S("a"),
    ":one": N("1.00"),
    ":sba": {"SS": ["b", "a"]},
    ":list": {"L": [N("1.0"), S("a"), {"NULL": True}]},
    ":map": {"M": {"y": {"M": {"z": S("deep")}}, "x": N(1)}},
    ":minus0": N("-0"),
    ":two": N(2),
    ":four": N(4),
    ":six": N(6),
    ":NS": S("NS"),
    ":M": S("M"),
    ":high": S("￿"),
}

TRUE = """
n = :nine
n <> :text9
absent <> :nine
NOT absent = :nine
NOT absent < :nine
NOT absent >= :nine
absent <> another
NOT absent = another
n < :ten
n BETWEEN :nine AND :ten
n IN (:ten, :nine)
NOT absent IN (:nine)
NOT absent BETWEEN :nine AND :ten
NOT n = :text9
NOT n < :text9
NOT n > :text9
nil = :null
NOT absent = :null
absent <> :null
attribute_exists(nil)
attribute_not_exists(absent)
attribute_not_exists(m.nothing)
attribute_not_exists(n.x)
attribute_not_exists(l[3])
attribute_exists(m.y.z)
attribute_type(ns, :NS)
attribute_type(m, :M)
NOT attribute_type(absent, :NS)
NOT attribute_type(ss, :NS)
begins_with(s, :str)
begins_with(b, :bytes)
NOT begins_with(n, :str)
NOT begins_with(absent, :str)
contains(s, :sub)
contains(ss, :a)
contains(ns, :one)
contains(l, :one)
contains(l, :null)
NOT contains(m, :a)
NOT contains(absent, :a)
NOT contains(ss, :one)
yes = :true
ss = :sba
l = :list
m = :map
m.x = :one
l[0] = :one
zero = :minus0
size(s) = :six
size(ss) = :two
size(m) = :two
size(b) = :two
NOT size(absent) = :two
size(absent) <> :two
NOT size(n) < :ten
emoji > :high
n = :nine OR absent = :nine AND absent = :ten
NOT (n = :ten) AND (n = :nine OR absent = :nine)
NOT NOT n = :nine
m.x <> n
sk < n
"""

FALSE = """
n = :text9
n > :ten
absent = :nine
absent < :nine
absent > absent2
s = :str
size(s) = :four
attribute_exists(absent)
attribute_not_exists(nil)
begins_with(s, :sub)
NOT absent <> :nine
n = :nine AND absent = :nine
"""


def lines(text):
    return text.strip().splitlines()


def values_in(condition):
    return {name: value for name, value in VALUES.items() if name in re.findall(r":\w+", condition)}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [(condition, True) for condition in lines(TRUE)] + [(condition, False) for condition in lines(FALSE)],
    ids=lines(TRUE) + lines(FALSE),
)
def test_a_condition_is_true_or_false(things: TableUnderTest, condition, holds):
    things.put(ITEM)
    values = {"values": values} if (values := values_in(condition)) else {}
    if holds:
        things.put(KEY, ConditionExpression=condition, **values)
    else:
        with rejects("ConditionalCheckFailedException"):
            things.put(KEY, ConditionExpression=condition, **values)


@pytest.mark.parametrize("condition", lines(TRUE) + lines(FALSE))
def test_a_filter_means_what_a_condition_means(things: TableUnderTest, condition):
    things.put(ITEM)
    values = {"values": values} if (values := values_in(condition)) else {}
    found = things.scan(FilterExpression=condition, **values)
    assert found["Count"] == (condition in lines(TRUE))
    assert found["ScannedCount"] == 1


def test_a_condition_on_an_absent_item_sees_no_attributes(things: TableUnderTest):
    with rejects("ConditionalCheckFailedException"):
        things.put(KEY, ConditionExpression="a = :a", values={":a": S("a")})
    things.put(KEY, ConditionExpression="a <> :a AND attribute_not_exists(pk)", values={":a": S("a")})
    assert things.get(KEY) == KEY


MALFORMED = [
    ("n < :v", {":v": {"BOOL": True}}),
    ("n BETWEEN :b AND :a", {":a": N(1), ":b": N(2)}),
    ("n BETWEEN :a AND :b", {":a": N(1), ":b": S("2")}),
    ("begins_with(n, :v)", {":v": N(1)}),
    ("attribute_type(n, :v)", {":v": S("Q")}),
    ("size(:v) = :v", {":v": N(1)}),
    ("n = n", {}),
    ("attribute_exists(:v)", {":v": S("n")}),
    ("nonsense(n)", {}),
    ("n", {}),
    ("n = :v AND", {":v": N(1)}),
    ("n == :v", {":v": N(1)}),
    ("contains(n, n)", {}),
    ("n = :v", {":v": N("x")}),
    ("n = :v", {":v": {"SS": []}}),
]


@pytest.mark.parametrize(
    ("condition", "values"), MALFORMED, ids=[f"{c} {list(v.values())}" for c, v in MALFORMED]
)
def test_conditions_that_cannot_be_are_refused(things: TableUnderTest, condition, values):
    with rejects():
        things.put(KEY, ConditionExpression=condition, **({"values": values} if values else {}))
