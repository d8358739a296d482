"""Updates: syntax, static checks, and what they do to an item."""

import contextlib
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstore.errors import RequestRejected
from dualstore.expressions import (
    apply_update,
    project,
    touched_paths,
    update,
    updated_key_attribute,
    with_set_actions,
)
from dualstore.items import KeyAttribute, KeySchema, values_equal

INVALID_PATH = "The document path provided in the update expression is invalid for update"


def numbers(*texts):
    return {"L": [{"N": str(text)} for text in texts]}


def applied(text, item, *, is_new=False, names=None, **values):
    bound = update(text, names, {f":{name}": value for name, value in values.items()})
    before = copy.deepcopy(item)
    after = apply_update(bound, item, is_new=is_new)
    assert item == before
    return after


def refused(text, item=None, **values):
    with pytest.raises(RequestRejected) as rejected:
        applied(text, item or {}, **values)
    assert rejected.value.code == "ValidationException"
    return rejected.value.message


# --- SET ---


def test_every_read_sees_the_item_before_the_update():
    item = {"a": {"N": "1"}, "b": {"N": "2"}}
    assert applied("SET a = b, b = a", item) == {"a": {"N": "2"}, "b": {"N": "1"}}
    assert applied("SET c = a REMOVE a ADD b :one", item, one={"N": "1"}) == {
        "b": {"N": "3"},
        "c": {"N": "1"},
    }


def test_numbers_are_stored_in_their_one_text():
    after = applied("SET a = :v, b = :m", {}, v={"N": "1.50"}, m={"M": {"x": {"NS": ["1e1"]}}})
    assert after == {"a": {"N": "1.5"}, "b": {"M": {"x": {"NS": ["10"]}}}}


def test_arithmetic_is_exact():
    item = {"n": {"N": "0.1"}}
    assert applied("SET n = n + :v", item, v={"N": "0.2"}) == {"n": {"N": "0.3"}}
    assert applied("SET n = :v - n", item, v={"N": "0.1"}) == {"n": {"N": "0"}}
    assert applied("SET n = n+n", item) == {"n": {"N": "0.2"}}
    refused("SET n = n + :v", {"n": {"N": "1E30"}}, v={"N": "1E-30"})


def test_if_not_exists_takes_the_present_value():
    assert applied("SET a = if_not_exists(a, :v)", {}, v={"N": "1"}) == {"a": {"N": "1"}}
    assert applied("SET a = if_not_exists(a, :v)", {"a": {"NULL": True}}, v={"N": "1"}) == {
        "a": {"NULL": True}
    }
    assert applied("SET a = if_not_exists(a, :v) + :v", {}, v={"N": "2"}) == {"a": {"N": "4"}}
    assert applied("SET a = if_not_exists(b, if_not_exists(c, :v))", {}, v={"N": "1"}) == {"a": {"N": "1"}}


def test_list_append_joins_in_the_order_written():
    item = {"l": numbers(1)}
    assert applied("SET l = list_append(l, :v)", item, v=numbers(2)) == {"l": numbers(1, 2)}
    assert applied("SET l = list_append(:v, l)", item, v=numbers(2)) == {"l": numbers(2, 1)}
    created = applied("SET l = list_append(if_not_exists(l, :none), :v)", {}, none=numbers(), v=numbers(2))
    assert created == {"l": numbers(2)}


def test_parentheses_around_operands_are_allowed():
    item = {"c": numbers(1, 3), "b": {"M": {"a": {"N": "1"}}}}
    after = applied("SET b.c=((c[1])+(b.a)), d = (:v), e = (c[0]) - :v", item, v={"N": "1"})
    assert after["b"] == {"M": {"a": {"N": "1"}, "c": {"N": "4"}}}
    assert (after["d"], after["e"]) == ({"N": "1"}, {"N": "0"})


def test_a_missing_or_mistyped_operand_is_refused():
    item = {"s": {"S": "x"}, "n": {"N": "1"}}
    for text in (
        "SET a = absent",
        "SET a = s.x",
        "SET a = n + absent",
        "SET a = n + s",
        "SET a = list_append(n, :l)",
        "SET a = list_append(absent, :l)",
        "SET a = if_not_exists(absent, gone)",
    ):
        assert not refused(text, item, l=numbers()).startswith("Invalid UpdateExpression")


# --- lists ---


def test_an_element_set_past_the_end_is_appended():
    assert applied("SET l[7] = :v", {"l": numbers(1)}, v={"N": "2"}) == {"l": numbers(1, 2)}


def test_elements_set_past_the_end_are_appended_in_the_order_of_their_indexes():
    item = {"l": numbers(0)}
    text = "SET l[84] = :a, l[37] = :b, l[17] = :c, l[50] = :d"
    values = dict(zip("abcd", ({"N": str(n)} for n in (84, 37, 17, 50)), strict=True))
    assert applied(text, item, **values) == {"l": numbers(0, 17, 37, 50, 84)}


def test_set_and_add_past_the_end_share_that_order():
    item = {
        "b": {"M": {"a": {"N": "1"}, "b": {"N": "2"}, "c": {"N": "3"}}},
        "c": numbers(1, 3),
        "k": {"S": "key"},
    }
    text = "set b.c=((c[1])+(b.a)),b.a = k,c[1] = k, c[4] = b.a - b.b, c[2] = b.c add c[8] :b, c[6] :a"
    after = applied(text, item, a={"N": "2"}, b={"SS": ["a"]})
    assert after["b"] == {"M": {"a": {"S": "key"}, "b": {"N": "2"}, "c": {"N": "4"}}}
    assert after["c"]["L"] == [
        {"N": "1"},
        {"S": "key"},
        {"N": "3"},
        {"N": "-1"},
        {"N": "2"},
        {"SS": ["a"]},
    ]


def test_indexes_mean_the_list_before_the_update():
    item = {"r": numbers(0, 1, 2, 3)}
    assert applied("REMOVE r[1], r[2]", item) == {"r": numbers(0, 3)}
    assert applied("REMOVE r[2], r[1]", item) == {"r": numbers(0, 3)}
    assert applied("REMOVE r[1] SET r[3] = :v", item, v={"N": "17"}) == {"r": numbers(0, 2, 17)}
    assert applied("SET r[9] = :v REMOVE r[0]", item, v={"N": "9"}) == {"r": numbers(1, 2, 3, 9)}


@given(st.integers(0, 6), st.sets(st.integers(0, 9)), st.data())
def test_removing_elements_keeps_the_others_in_order(length, removed, data):
    if not removed:
        return
    order = data.draw(st.permutations(sorted(removed)))
    after = applied("REMOVE " + ", ".join(f"r[{i}]" for i in order), {"r": numbers(*range(length))})
    assert after == {"r": numbers(*[i for i in range(length) if i not in removed])}


# --- REMOVE ---


def test_removing_what_is_not_there_changes_nothing():
    item = {"m": {"M": {"x": {"N": "1"}}}, "l": numbers(1)}
    for text in ("REMOVE a", "REMOVE m.y", "REMOVE l[7]"):
        assert applied(text, item) == item


def test_removing_the_last_part_leaves_an_empty_map_or_list():
    item = {"m": {"M": {"x": {"N": "1"}}}, "l": numbers(1)}
    assert applied("REMOVE m.x, l[0]", item) == {"m": {"M": {}}, "l": numbers()}


@pytest.mark.parametrize(
    "text",
    ["REMOVE {}", "SET {} = :v", "ADD {} :v", "DELETE {} :v"],
)
@pytest.mark.parametrize("path", ["gone.x", "gone[0]", "s.x", "s[0]", "m[0]", "l.x", "m.y.z", "l[7].x"])
def test_a_path_through_something_that_is_not_there_is_refused(text, path):
    item = {"s": {"S": "x"}, "m": {"M": {}}, "l": numbers(1)}
    assert refused(text.format(path), item, v={"SS": ["a"]}) == INVALID_PATH


def test_a_new_item_ignores_what_it_is_told_to_remove():
    key = {"p": {"S": "k"}}
    assert applied("REMOVE gone.x, lost[0], elsewhere", key, is_new=True) == key
    with pytest.raises(RequestRejected):
        applied("SET gone.x = :v", key, is_new=True, v={"N": "1"})


# --- ADD and DELETE ---


def test_add_counts_from_zero():
    assert applied("ADD n :v", {}, v={"N": "1.0"}) == {"n": {"N": "1"}}
    assert applied("ADD n :v", {"n": {"N": "5"}}, v={"N": "-7"}) == {"n": {"N": "-2"}}
    assert applied("ADD m.n :v", {"m": {"M": {}}}, v={"N": "1"}) == {"m": {"M": {"n": {"N": "1"}}}}


def test_add_unites_sets_by_numeric_equality():
    after = applied("ADD s :v", {"s": {"NS": ["1"]}}, v={"NS": ["1.0", "5"]})
    assert values_equal(after["s"], {"NS": ["1", "5"]})
    assert len(after["s"]["NS"]) == 2


def test_delete_removes_members_and_the_emptied_set_with_them():
    item = {"s": {"SS": ["a", "b"]}, "m": {"M": {"n": {"NS": ["1"]}}}}
    assert applied("DELETE s :v", item, v={"SS": ["a", "z"]})["s"] == {"SS": ["b"]}
    assert applied("DELETE s :v, m.n :n", item, v={"SS": ["b", "a"]}, n={"NS": ["1.0"]}) == {"m": {"M": {}}}
    assert applied("DELETE elsewhere :v", item, v={"SS": ["a"]}) == item


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ADD n :v", {"SS": ["a"]}),
        ("ADD s :v", {"N": "1"}),
        ("ADD s :v", {"NS": ["1"]}),
        ("ADD l :v", {"SS": ["a"]}),
        ("DELETE n :v", {"NS": ["1"]}),
        ("DELETE s :v", {"NS": ["1"]}),
        ("ADD n :v", {"S": "x"}),
        ("ADD l :v", {"L": []}),
        ("ADD t :v", {"S": "x"}),
        ("DELETE n :v", {"N": "1"}),
        ("DELETE s :v", {"S": "a"}),
    ],
)
def test_add_and_delete_need_matching_types(text, value):
    item = {"n": {"N": "1"}, "s": {"SS": ["a"]}, "l": numbers(1), "t": {"S": "x"}}
    assert "type" in refused(text, item, v=value)


# --- what an update touches ---


def test_updated_values_are_the_touched_parts_only():
    bound = update("SET b.c = :v, c[1] = :v, c[8] = :v REMOVE d", None, {":v": {"N": "1"}})
    before = {"b": {"M": {"a": {"N": "0"}, "c": {"N": "1"}}}, "c": numbers(5, 6), "d": {"N": "2"}}
    after = apply_update(bound, before)
    assert touched_paths(bound) == (("b", "c"), ("c", 1), ("c", 8), ("d",))
    assert project(touched_paths(bound), after) == {"b": {"M": {"c": {"N": "1"}}}, "c": numbers(1)}
    assert project(touched_paths(bound), before) == {
        "b": {"M": {"c": {"N": "1"}}},
        "c": numbers(6),
        "d": {"N": "2"},
    }


def test_an_update_of_a_key_is_recognised():
    keys = KeySchema(KeyAttribute("p", "S"), KeyAttribute("s", "S"))
    values = {":v": {"N": "1"}}
    for text in ("SET p = :v", "REMOVE a, s", "ADD s.x :v"):
        assert updated_key_attribute(update(text, None, values), keys) in keys.names
    assert updated_key_attribute(update("SET #n = :v", {"#n": "p"}, values), keys) == "p"
    assert updated_key_attribute(update("SET a = p, b.p = :v", None, values), keys) is None


# --- refusals ---


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "a = :v",
        "HELLO a = :v",
        "SET",
        "SET a",
        "SET a = ",
        "SET a = :v,",
        "SET a = :v, , b = :v",
        "SET a = :v + :v + :v",
        "SET a = (((:v)))",
        "SET a = (:v",
        "SET :v = a",
        "SET a = b = c",
        "SET a = if_not_exists(c, :v + :v)",
        "SET a = LIST_APPEND(:l, :l)",
        "SET a = _f(b, c)",
        "SET a = f(b, c)",
        "SET a = size(b)",
        "SET a = list_append(:l)",
        "SET a = list_append(:l, :l, :l)",
        "SET a = list_append(list_append(:l, :l), :l)",
        "SET a = list_append(:l, :v)",
        "SET a = :l + :v",
        "SET a = list_append(:l, :l) + :v",
        "SET a = if_not_exists(:v, :v)",
        "SET a = if_not_exists(if_not_exists(b, :v), :v)",
        "SET a = :v SET b = :v",
        "REMOVE a REMOVE b",
        "REMOVE",
        "REMOVE a b",
        "REMOVE :v",
        "ADD a",
        "ADD a b",
        "ADD a = :v",
        "DELETE a #b",
        "SET a.status = :v",
        "REMOVE name",
        "SET l[:v] = :v",
        "SET #undefined = :v",
        "SET a = :undefined",
        "SET _dsv = :v",
    ],
)
def test_a_malformed_update_is_refused(text):
    message = refused(text, v={"N": "1"}, l=numbers())
    assert message.startswith("Invalid UpdateExpression: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SET a = :v, a = :v", "overlap"),
        ("SET a = :v REMOVE a", "overlap"),
        ("SET a = :v, a.b = :v", "overlap"),
        ("REMOVE a.b.c, a.b", "overlap"),
        ("REMOVE a[0], a[0].b", "overlap"),
        ("ADD a :v DELETE a :s", "overlap"),
        ("SET a = :v, #a = :v", "overlap"),
        ("SET a.b = :v REMOVE a[1]", "conflict"),
    ],
)
def test_paths_that_overlap_or_conflict_are_refused(text, problem):
    with pytest.raises(RequestRejected) as rejected:
        update(text, {"#a": "a"}, {":v": {"N": "1"}, ":s": {"SS": ["a"]}})
    assert problem in rejected.value.message


def test_keywords_may_be_written_in_any_case_and_on_any_line():
    after = applied("set a = :v\n\tReMoVe b\r\nadd c :v", {"b": {"N": "1"}}, v={"N": "1"})
    assert after == {"a": {"N": "1"}, "c": {"N": "1"}}


# --- adding actions to a text ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "SET #v = :n"),
        ("", "SET #v = :n"),
        ("SET a = :a", "SET #v = :n, a = :a"),
        ("REMOVE b set a = :a", "REMOVE b set #v = :n, a = :a"),
        ("REMOVE b", "REMOVE b SET #v = :n"),
        ("ADD #SET :set", "ADD #SET :set SET #v = :n"),
        ("REMOVE offset, asset", "REMOVE offset, asset SET #v = :n"),
        ("SeT(a) = :a", "SeT #v = :n,(a) = :a"),
    ],
)
def test_set_actions_are_added_to_the_set_clause(text, expected):
    assert with_set_actions(text, "#v = :n") == expected


@pytest.mark.parametrize(
    "text", [None, "SET a = :a", "REMOVE b Set a = :a, #set = :a", "ADD c :a", "REMOVE #set, b"]
)
def test_added_actions_do_what_they_say_and_change_nothing_else(text):
    names, values = {"#v": "_dsv", "#set": "set"}, {":a": {"N": "1"}, ":n": {"S": "new"}}
    item = {"b": {"N": "0"}, "set": {"N": "0"}}
    longer = update(with_set_actions(text, "#v = :n"), names, values)
    plain = apply_update(update(text, names, values), item) if text else item
    assert apply_update(longer, item) == {**plain, "_dsv": {"S": "new"}}


def test_actions_are_not_added_to_what_is_no_expression():
    with pytest.raises(RequestRejected):
        with_set_actions("SET a = 'x'", "#v = :n")


# --- no update changes its input ---

VALUES = st.sampled_from(
    [{"N": "1"}, {"S": "x"}, {"SS": ["a"]}, {"NS": ["1"]}, numbers(1, 2), {"M": {"x": {"N": "1"}}}]
)
ITEMS = st.dictionaries(st.sampled_from("abcd"), VALUES)
PATHS = st.sampled_from(["a", "b", "c", "d", "a.x", "b[0]", "b[9]", "c.x", "c.y", "d[1]"])
ACTIONS = st.one_of(
    st.builds(
        "SET {} = {}".format, PATHS, st.sampled_from([":n", "a", "c.x", "a + :n", "list_append(b, :l)"])
    ),
    st.builds("REMOVE {}".format, PATHS),
    st.builds("ADD {} {}".format, PATHS, st.sampled_from([":n", ":s"])),
    st.builds("DELETE {} :s".format, PATHS),
)


@given(ITEMS, st.lists(ACTIONS, min_size=1, max_size=4, unique_by=lambda action: action[0]))
def test_an_update_never_changes_the_item_it_is_given(item, actions):
    before = copy.deepcopy(item)
    values = {":n": {"N": "1"}, ":s": {"SS": ["a", "b"]}, ":l": numbers(3)}
    with contextlib.suppress(RequestRejected):
        apply_update(update(" ".join(actions), None, values), item)
    assert item == before
