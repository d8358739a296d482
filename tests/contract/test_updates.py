"""UpdateItem: what its expression does, and what it gives back."""

import pytest

from contract.tables import N, S, TableUnderTest, rejects

KEY = {"pk": S("p"), "sk": N(1)}
ITEM = {
    **KEY,
    "n": N(3),
    "s": S("dog"),
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1", "2"]},
    "l": {"L": [N(0), N(1), N(2), N(3)]},
    "m": {"M": {"x": N(1), "y": {"M": {"z": S("deep")}}, "l": {"L": [S("a"), S("b")]}}},
}
VALUES = {
    ":1": N(1),
    ":2": N(2),
    ":s": S("cat"),
    ":ss": {"SS": ["b", "c"]},
    ":ns": {"NS": ["2.0", "3"]},
    ":l": {"L": [N(9)]},
    ":0": N("-0"),
    ":m": {"M": {}},
    ":all": {"SS": ["a", "b"]},
    ":big": N("9" * 38),
}


def given(expression: str) -> dict:
    """The values that an expression uses."""
    words = expression.replace(",", " ").replace(")", " ").replace("(", " ").split()
    values = {name: value for name, value in VALUES.items() if name in words}
    return {"values": values} if values else {}


CHANGES = [
    ("SET a = :s", {"a": S("cat")}),
    ("SET n = n + :1", {"n": N(4)}),
    ("SET n = n - :2, a = n", {"n": N(1), "a": N(3)}),
    ("SET a = if_not_exists(b, :1)", {"a": N(1)}),
    ("SET n = if_not_exists(n, :1) + :1", {"n": N(4)}),
    ("SET m.x = :2, m.w = :1", {"m": {"M": {**ITEM["m"]["M"], "x": N(2), "w": N(1)}}}),
    ("SET l = list_append(l, :l)", {"l": {"L": [*ITEM["l"]["L"], N(9)]}}),
    ("SET l = list_append(:l, l)", {"l": {"L": [N(9), *ITEM["l"]["L"]]}}),
    ("SET l[1] = :s", {"l": {"L": [N(0), S("cat"), N(2), N(3)]}}),
    ("SET l[99] = :s", {"l": {"L": [*ITEM["l"]["L"], S("cat")]}}),
    ("SET l[20] = :2, l[10] = :1", {"l": {"L": [*ITEM["l"]["L"], N(1), N(2)]}}),
    ("SET n = s, s = n", {"n": S("dog"), "s": N(3)}),
    ("SET n = :0", {"n": N(0)}),
    ("REMOVE s, nothing", {"s": None}),
    ("REMOVE l[1], l[2]", {"l": {"L": [N(0), N(3)]}}),
    ("REMOVE l[9]", {}),
    ("REMOVE m.x, m.l[0]", {"m": {"M": {"y": ITEM["m"]["M"]["y"], "l": {"L": [S("b")]}}}}),
    ("ADD n :2", {"n": N(5)}),
    ("ADD fresh :2", {"fresh": N(2)}),
    ("ADD ss :ss", {"ss": {"SS": ["a", "b", "c"]}}),
    ("ADD ns :ns", {"ns": {"NS": ["1", "2", "3"]}}),
    ("ADD fresh :ss", {"fresh": {"SS": ["b", "c"]}}),
    ("ADD m.x :1", {"m": {"M": {**ITEM["m"]["M"], "x": N(2)}}}),
    ("DELETE ss :ss", {"ss": {"SS": ["a"]}}),
    ("DELETE ss :all", {"ss": None}),
    ("DELETE nothing :ss", {}),
    ("DELETE ns :ns", {"ns": {"NS": ["1"]}}),
    (
        "SET a = :s REMOVE s ADD n :1 DELETE ss :ss",
        {"a": S("cat"), "s": None, "n": N(4), "ss": {"SS": ["a"]}},
    ),
    ("SET m.y.z = :m", {"m": {"M": {**ITEM["m"]["M"], "y": {"M": {"z": {"M": {}}}}}}}),
]


@pytest.mark.parametrize(("expression", "changes"), CHANGES, ids=[each[0] for each in CHANGES])
def test_an_update_changes_what_it_says(things: TableUnderTest, expression, changes):
    things.put(ITEM)
    expected = {name: value for name, value in {**ITEM, **changes}.items() if value is not None}
    assert things.updated(KEY, expression, **given(expression)) == expected
    assert things.get(KEY) == expected


REFUSED = [
    "SET a = nothing",
    "SET a = n + nothing",
    "SET n = s + :1",
    "SET n = n + :s",
    "SET l = list_append(l, :1)",
    "SET a.b = :1",
    "SET n.x = :1",
    "SET s[0] = :1",
    "SET m.nothing.x = :1",
    "ADD s :1",
    "ADD n :ss",
    "ADD ss :ns",
    "DELETE n :ss",
    "DELETE ss :ns",
    "ADD n :big",
    "REMOVE a.b",
    "SET pk = :s",
    "REMOVE sk",
    "ADD sk :1",
    "SET m.x = :1, m = :m",
    "SET n = :1, n = :2",
    "SET l[0] = :1 REMOVE l[0]",
    "SET m.x = :1, m[0] = :2",
    "ADD a :s",
    "DELETE a :1",
    "ADD a :l",
    "SET a = :1 SET s = :2",
    "SET a :1",
    "SET a = if_not_exists(:1, :2)",
    "SET a = size(s)",
    "SET a = :1 +",
    "FROB a",
]


@pytest.mark.parametrize("expression", REFUSED)
def test_an_update_that_cannot_be_changes_nothing(things: TableUnderTest, expression):
    things.put(ITEM)
    with rejects():
        things.update(KEY, expression, **given(expression))
    assert things.get(KEY) == ITEM


def test_a_null_is_no_map_to_set_something_in(things: TableUnderTest):
    things.put({**KEY, "a": {"NULL": True}})
    with rejects():
        things.update(KEY, "SET a.b = :1", values={":1": N(1)})
    assert things.get(KEY) == {**KEY, "a": {"NULL": True}}


def test_arithmetic_is_exact_to_38_digits(things: TableUnderTest):
    things.put({**KEY, "n": N("0.1"), "huge": N("1" + "0" * 37)})
    assert things.updated(KEY, "SET n = n + :d, huge = huge + :1", values={":d": N("0.2"), ":1": N(1)}) == {
        **KEY,
        "n": N("0.3"),
        "huge": N("1" + "0" * 36 + "1"),
    }
    with rejects():
        things.update(KEY, "ADD huge :d", values={":d": N("0.1")})


def test_an_update_creates_an_absent_item(things: TableUnderTest):
    assert things.updated(KEY, "SET a = :1 ADD n :1", values={":1": N(1)}) == {**KEY, "a": N(1), "n": N(1)}
    assert things.get(KEY) == {**KEY, "a": N(1), "n": N(1)}


def test_an_update_without_an_expression_creates_the_key(things: TableUnderTest):
    assert things.update(KEY, ReturnValues="ALL_NEW") == {"Attributes": KEY}
    assert things.get(KEY) == KEY
    things.put(ITEM)
    assert things.update(KEY) == {}
    assert things.get(KEY) == ITEM


@pytest.mark.parametrize("expression", ["REMOVE a", "DELETE a :ss", "REMOVE a DELETE b :ss"])
def test_an_update_that_only_takes_away_creates_nothing(things: TableUnderTest, expression):
    assert things.update(KEY, expression, ReturnValues="ALL_NEW", **given(expression)) == {}
    assert things.get(KEY) is None


def test_an_update_keeps_attributes_that_it_does_not_name(things: TableUnderTest):
    things.put(ITEM)
    assert things.updated(KEY, "SET a = :1", values={":1": N(1)}) == {**ITEM, "a": N(1)}


# --- Return values: what Scylla's suite found AWS to do ------------------------------------------


def returned(things: TableUnderTest, wanted: str, expression: str):
    return things.update(KEY, expression, ReturnValues=wanted, **given(expression)).get("Attributes")


def test_updated_old_and_new_give_touched_attributes_even_if_unchanged(things: TableUnderTest):
    things.put(ITEM)
    assert returned(things, "UPDATED_NEW", "SET s = s, a = :1") == {"s": S("dog"), "a": N(1)}
    assert returned(things, "UPDATED_OLD", "SET s = s, b = :1") == {"s": S("dog")}


RETURNED = [
    ("ALL_OLD", "SET s = :s", ITEM),
    ("NONE", "SET s = :s", None),
    ("UPDATED_OLD", "REMOVE s", {"s": S("dog")}),
    ("UPDATED_NEW", "REMOVE s", None),
    ("UPDATED_OLD", "SET a = :1", None),
    ("UPDATED_NEW", "SET s = :s REMOVE n", {"s": S("cat")}),
    ("UPDATED_NEW", "ADD n :1 DELETE ss :all", {"n": N(4)}),
    ("UPDATED_OLD", "SET m.x = :2", {"m": {"M": {"x": N(1)}}}),
    ("UPDATED_NEW", "SET m.x = :2", {"m": {"M": {"x": N(2)}}}),
    ("UPDATED_OLD", "SET l[1] = :s", {"l": {"L": [N(1)]}}),
    ("UPDATED_NEW", "SET l[1] = :s", {"l": {"L": [S("cat")]}}),
    ("UPDATED_NEW", "SET m.l[1] = :1, m.x = :2", {"m": {"M": {"l": {"L": [N(1)]}, "x": N(2)}}}),
    ("UPDATED_NEW", "SET m.fresh = :1", {"m": {"M": {"fresh": N(1)}}}),
    ("UPDATED_OLD", "SET m.fresh = :1", None),
    ("UPDATED_NEW", "SET l[99] = :1", None),
    ("UPDATED_NEW", "REMOVE l[1]", {"l": {"L": [N(2)]}}),
    ("UPDATED_OLD", "REMOVE l[1], l[9]", {"l": {"L": [N(1)]}}),
]


@pytest.mark.parametrize(
    ("wanted", "expression", "expected"), RETURNED, ids=[f"{each[0]} {each[1]}" for each in RETURNED]
)
def test_return_values_of_an_update(things: TableUnderTest, wanted, expression, expected):
    things.put(ITEM)
    assert returned(things, wanted, expression) == expected


def test_return_values_of_an_update_that_creates(things: TableUnderTest):
    for number, wanted, expected in [
        (1, "ALL_OLD", None),
        (2, "UPDATED_OLD", None),
        (3, "UPDATED_NEW", {"a": N(1)}),
        (4, "ALL_NEW", {"pk": S("p"), "sk": N(4), "a": N(1)}),
    ]:
        key = {"pk": S("p"), "sk": N(number)}
        response = things.update(key, "SET a = :1", ReturnValues=wanted, values={":1": N(1)})
        assert response.get("Attributes") == expected


def test_an_unknown_return_value_is_refused(things: TableUnderTest):
    with rejects():
        things.update(KEY, ReturnValues="DOG")
