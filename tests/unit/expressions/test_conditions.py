"""Conditions and filters: syntax, static checks and two-valued truth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstore.errors import RequestRejected
from dualstore.expressions import attributes_read, condition, evaluate

ITEM = {
    "n": {"N": "10"},
    "s": {"S": "hello"},
    "b": {"B": b"\x80abc"},
    "t": {"BOOL": True},
    "z": {"NULL": True},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1", "2.0"]},
    "bs": {"BS": [b"a"]},
    "l": {"L": [{"N": "1"}, {"M": {"x": {"S": "deep"}}}, {"SS": ["p", "q"]}]},
    "m": {"M": {"k": {"N": "1"}, "line": {"L": [{"N": "5"}]}, "a.b": {"N": "7"}}},
    "size2": {"N": "2"},
}


def holds(text, item=ITEM, names=None, **values):
    bound = condition(text, names, {f":{name}": value for name, value in values.items()})
    return evaluate(bound, item)


def refused(text, names=None, **values):
    with pytest.raises(RequestRejected) as rejected:
        condition(text, names, {f":{name}": value for name, value in values.items()})
    assert rejected.value.code == "ValidationException"
    return rejected.value.message


# --- two-valued logic ---


@pytest.mark.parametrize("item", [{}, None])
def test_a_missing_attribute_makes_only_unequal_true(item):
    for operator in ("=", "<", "<=", ">", ">="):
        assert not holds(f"a {operator} :v", item, v={"N": "1"})
        assert holds(f"NOT a {operator} :v", item, v={"N": "1"})
        assert not holds(f"a {operator} elsewhere", item)
    assert holds("a <> :v", item, v={"N": "1"})
    assert holds("a <> elsewhere", item)
    assert not holds("a IN (:v, elsewhere)", item, v={"N": "1"})
    assert not holds("a BETWEEN :v AND :v", item, v={"N": "1"})
    assert not holds("begins_with(a, :v)", item, v={"S": ""})
    assert not holds("contains(a, :v)", item, v={"S": ""})
    assert not holds("size(a) >= :v", item, v={"N": "0"})
    assert holds("size(a) <> :v", item, v={"N": "0"})
    assert not holds("attribute_type(a, :v)", item, v={"S": "NULL"})


def test_a_missing_attribute_is_not_equal_to_null():
    assert not holds("absent = :null", null={"NULL": True})
    assert holds("z = :null", null={"NULL": True})
    assert holds("attribute_exists(z)")
    assert not holds("attribute_exists(absent)")
    assert holds("attribute_not_exists(absent)")


def test_a_comparison_across_types_is_false_and_unequal_is_true():
    for operator in ("=", "<", "<=", ">", ">="):
        assert not holds(f"n {operator} :v", v={"S": "10"})
        assert holds(f"NOT n {operator} :v", v={"S": "10"})
    assert holds("n <> :v", v={"S": "10"})


def test_values_without_an_order_compare_false_when_they_come_from_the_item():
    item = {**ITEM, "t2": {"BOOL": True}, "ss2": {"SS": ["a", "b"]}}
    assert not holds("t <= t2", item)
    assert not holds("ss >= ss2", item)
    assert not holds("t BETWEEN t2 AND t2", item)
    assert not holds("t <= z")
    assert not holds("ss <= ns")
    assert not holds("l < :v", v={"N": "1"})
    assert holds("t = elsewhere", {"t": {"BOOL": True}, "elsewhere": {"BOOL": True}})


# --- operators ---


def test_numbers_compare_numerically_strings_and_binaries_by_bytes():
    assert holds("n = :v", v={"N": "10.00"})
    assert holds("n > :v", v={"N": "9"})
    assert holds("s < :v", v={"S": "hellp"})
    assert holds("b > :v", v={"B": b"\x7f"})
    assert holds("a < :v", {"a": {"S": "\uffff"}}, v={"S": "\U00010000"})


def test_sets_are_equal_in_any_order_and_lists_are_not():
    assert holds("ss = :v", v={"SS": ["b", "a"]})
    assert holds("ns = :v", v={"NS": ["2", "1.0"]})
    assert not holds("a = :v", {"a": {"L": [{"N": "1"}, {"N": "2"}]}}, v={"L": [{"N": "2"}, {"N": "1"}]})


def test_between_includes_both_ends():
    assert holds("n BETWEEN :lo AND :hi", lo={"N": "10"}, hi={"N": "11"})
    assert holds("n between :lo and :hi", lo={"N": "9"}, hi={"N": "10.0"})
    assert not holds("n BETWEEN :lo AND :hi", lo={"S": "0"}, hi={"S": "9"})
    assert holds(":five BETWEEN size2 AND n", five={"N": "5"})
    assert not holds(":five BETWEEN n AND size2", five={"N": "5"})


def test_in_compares_each_choice_by_equality():
    assert holds("n IN (:a, :b)", a={"S": "10"}, b={"N": "1e1"})
    assert holds("size(ss) in (size2)")
    assert not holds("n IN (s, ss)")


def test_precedence_is_not_then_and_then_or():
    yes, no = "n = n2", "n = s"
    item = {**ITEM, "n2": {"N": "10"}}
    assert holds(f"{yes} OR {no} AND {no}", item)
    assert not holds(f"({yes} OR {no}) AND {no}", item)
    assert not holds(f"NOT {yes} AND {no}", item)
    assert holds(f"NOT ({yes} AND {no})", item)
    assert holds(f"NOT {no} OR {yes} AND {no}", item)
    assert holds(f"not NOT {yes}", item)
    assert holds(f"NOT {no} aNd {yes}", item)


def test_the_truth_of_any_combination_is_that_of_boolean_algebra():
    item = {"yes": {"N": "1"}}

    @given(
        st.recursive(
            st.booleans(),
            lambda inner: (
                st.tuples(st.sampled_from(["AND", "OR"]), inner, inner) | st.tuples(st.just("NOT"), inner)
            ),
            max_leaves=12,
        )
    )
    def check(tree):
        assert holds(_text(tree), item, one={"N": "1"}) == _truth(tree)

    check()


def _text(tree):
    match tree:
        case bool():
            return "yes = :one" if tree else "nope = :one"
        case ("NOT", inner):
            return f"NOT {_text(inner)}" if isinstance(inner, bool) else f"NOT ({_text(inner)})"
        case (operator, left, right):
            sides = [_text(s) if isinstance(s, bool) else f"({_text(s)})" for s in (left, right)]
            return f" {operator} ".join(sides)


def _truth(tree):
    match tree:
        case bool():
            return tree
        case ("NOT", inner):
            return not _truth(inner)
        case ("AND", left, right):
            return _truth(left) and _truth(right)
        case (_, left, right):
            return _truth(left) or _truth(right)


# --- functions ---


def test_attribute_type_names_the_type():
    for name, kind in [("n", "N"), ("s", "S"), ("b", "B"), ("t", "BOOL"), ("z", "NULL")]:
        assert holds(f"attribute_type({name}, :t)", t={"S": kind})
    for name, kind in [("ss", "SS"), ("ns", "NS"), ("bs", "BS"), ("l", "L"), ("m", "M")]:
        assert holds(f"attribute_type({name}, :t)", t={"S": kind})
    assert not holds("attribute_type(n, :t)", t={"S": "S"})


def test_begins_with_takes_strings_and_binaries():
    assert holds("begins_with(s, :v)", v={"S": "hell"})
    assert holds("begins_with(s, :v)", v={"S": ""})
    assert holds("begins_with(b, :v)", v={"B": b"\x80"})
    assert holds("begins_with(:v, s)", v={"S": "hello you"})
    assert not holds("begins_with(n, :v)", v={"S": "1"})
    assert not holds("begins_with(s, :v)", v={"B": b"hell"})
    assert not holds("begins_with(n, size2)")


def test_contains_looks_into_strings_binaries_sets_and_lists():
    assert holds("contains(s, :v)", v={"S": "ell"})
    assert holds("contains(b, :v)", v={"B": b"ab"})
    assert holds("contains(ss, :v)", v={"S": "a"})
    assert holds("contains(ns, :v)", v={"N": "2"})
    assert holds("contains(bs, :v)", v={"B": b"a"})
    assert holds("contains(l, :v)", v={"N": "1.0"})
    assert holds("contains(l, :v)", v={"SS": ["q", "p"]})
    assert not holds("contains(ss, :v)", v={"SS": ["a"]})
    assert not holds("contains(ss, :v)", v={"N": "1"})
    assert not holds("contains(m, :v)", v={"S": "k"})
    assert not holds("contains(n, :v)", v={"N": "1"})


def test_size_counts_what_its_type_holds():
    for name, size in [("s", 5), ("b", 4), ("ss", 2), ("ns", 2), ("bs", 1), ("l", 3), ("m", 3)]:
        assert holds(f"size({name}) = :v", v={"N": str(size)})
    assert holds("size(a) = :v", {"a": {"S": "\U0001f600é"}}, v={"N": "3"})
    assert holds("size(:five) = size(s)", five={"S": "12345"})
    for name in ("n", "t", "z"):
        assert not holds(f"size({name}) >= :v", v={"N": "0"})
    assert not holds("size(s) = :v", v={"S": "5"})


# --- paths ---


def test_paths_lead_into_maps_and_lists():
    assert holds("l[1].x = :v", v={"S": "deep"})
    assert holds("m.line[0] = :v", v={"N": "5"})
    assert holds("m . line [0] > l[0]")
    assert holds("#m.#k = :v", names={"#m": "m", "#k": "k"}, v={"N": "1"})
    assert holds("m.#dotted = :v", names={"#dotted": "a.b"}, v={"N": "7"})
    for nowhere in ("l.x", "m[0]", "l[9]", "s.x", "s[0]", "m.k.k", "ss[0]", "l[1].y"):
        assert not holds(f"attribute_exists({nowhere})")


def test_attributes_read_are_the_heads_of_all_paths():
    bound = condition(
        "(a.x = :v OR NOT size(#b[0]) IN (c, :v)) AND d BETWEEN e AND f AND begins_with(g, h)",
        {"#b": "b"},
        {":v": {"N": "1"}},
    )
    assert attributes_read(bound) == set("abcdefgh")


def test_a_parsed_text_is_bound_anew_for_every_request():
    assert holds("#a = :v", names={"#a": "n"}, v={"N": "10"})
    assert not holds("#a = :v", names={"#a": "s"}, v={"N": "10"})
    assert holds("#a = :v", names={"#a": "s"}, v={"S": "hello"})


# --- refusals ---


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "n",
        "size(s)",
        "n = ",
        "= n",
        "n == s",
        "n != s",
        "n = s = b",
        "n = s AND",
        "n = s OR OR n = s",
        "AND n = s",
        "NOT",
        "(n = s",
        "n = s)",
        ")n = s(",
        "n IN ()",
        "n IN s",
        "n BETWEEN s",
        "n BETWEEN s AND",
        "n s",
        "l[:v] = s",
        "l[#v] = s",
        "l[x] = s",
        "l[-1] = s",
        "l[1 = s",
        "m. = s",
        ".m = s",
        "_n = s",
        "1n = s",
        "a-b = s",
        "n = 'x'",
        "n = 1",
        "attribute_exists(n) = s",
        "attribute_exists()",
        "attribute_exists(n, s)",
        "begins_with(n)",
        "Size(s) > n",
        "ATTRIBUTE_EXISTS(n)",
        "nonsense(n)",
        "if_not_exists(n, s) = b",
        "n IN (attribute_exists(s))",
        "size(contains(s, b)) > n",
        "n = s; n = s",
        "n = s é",
    ],
)
def test_a_malformed_condition_is_refused(text):
    assert refused(text).startswith("Invalid ConditionExpression: ")


@pytest.mark.parametrize("text", ["((n = s))", "n > ((s))", "n = s AND ((n = s OR n = b))"])
def test_redundant_parentheses_are_refused(text):
    assert "redundant parentheses" in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "(n) = (s)",
        "((n) = (s))",
        "(n = s) AND (n = s)",
        "size((s)) > n",
        "n IN ((s), b)",
        "(((n = s) AND n = s) OR n = b)",
    ],
)
def test_other_parentheses_are_not(text):
    assert evaluate(condition(text), ITEM) in {True, False}


@pytest.mark.parametrize("text", ["name = n", "n = Status", "m.items = n", "attribute_exists(size)"])
def test_reserved_words_are_refused_as_bare_names(text):
    assert "reserved keyword" in refused(text)


def test_reserved_words_may_stand_behind_placeholders():
    assert holds("#n = :v", {"name": {"N": "1"}}, names={"#n": "name"}, v={"N": "1"})


def test_undefined_placeholders_are_refused():
    assert "#a" in refused("#a = :v", v={"N": "1"})
    assert ":v" in refused("a = :v")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("n < :v", {"v": {"BOOL": True}}),
        ("n >= :v", {"v": {"L": []}}),
        (":v <= n", {"v": {"NULL": True}}),
        ("n BETWEEN :v AND :v", {"v": {"SS": ["a"]}}),
        ("n BETWEEN :a AND :b", {"a": {"N": "2"}, "b": {"N": "1"}}),
        ("n BETWEEN :a AND :b", {"a": {"N": "2"}, "b": {"S": "3"}}),
        ("begins_with(s, :v)", {"v": {"N": "1"}}),
        ("begins_with(:v, s)", {"v": {"SS": ["a"]}}),
        ("begins_with(s, size(n))", {}),
        ("attribute_type(n, :v)", {"v": {"N": "1"}}),
        ("attribute_type(n, :v)", {"v": {"S": "DOG"}}),
        ("attribute_type(n, s)", {}),
        ("attribute_exists(:v)", {"v": {"S": "n"}}),
        ("attribute_not_exists(size(n))", {}),
        ("size(:v) > n", {"v": {"N": "1"}}),
        ("size(size(s)) > n", {}),
        ("n = n", {}),
        ("contains(s, s)", {}),
        ("begins_with(m.k, m.k)", {}),
        ("n = :v", {"v": {"N": "1" * 39}}),
        ("n = :v", {"v": {"SS": []}}),
    ],
)
def test_operands_that_can_never_fit_are_refused_before_an_item_is_read(text, values):
    refused(text, **values)


def test_a_refusal_never_shows_a_value():
    message = refused("n BETWEEN :a AND :b", a={"S": "secret"}, b={"S": "s3cret"})
    assert "secret" not in message
    assert "s3cret" not in message


def test_limits_of_an_expression():
    assert "size" in refused("n = :v" + " OR n = :v" * 500, v={"N": "1"})
    refused("attribute_exists(a" + ".b" * 32 + ")")
    assert not holds("attribute_exists(a" + ".b" * 31 + ")")
    choices = {f"v{i}": {"N": str(i)} for i in range(101)}
    refused("n IN (" + ", ".join(f":{name}" for name in choices) + ")", **choices)
    assert holds("n IN (" + ", ".join(f":v{i}" for i in range(100)) + ")", **choices)


def test_the_nesting_that_pynamodb_generates_is_no_problem():
    text = "n = :v"
    for _ in range(280):
        text = f"({text}) AND n=:v"
    assert holds(text, v={"N": "10"})


def test_nesting_that_would_exhaust_the_stack_is_refused():
    text = "n=:v"
    for operator in ["AND", "OR"] * 150:
        text = f"n=:v {operator}({text})"
    assert "nested" in refused(text, v={"N": "1"})
