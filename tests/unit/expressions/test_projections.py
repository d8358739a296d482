"""Projections: which parts of an item a read returns."""

import copy

import pytest

from dualstore.errors import RequestRejected
from dualstore.expressions import path_text, project, projection

ITEM = {
    "a": {
        "M": {
            "b": {"L": [{"N": "2"}, {"N": "4"}, {"M": {"x": {"S": "hi"}, "y": {"S": "yo"}}}]},
            "c": {"N": "5"},
        }
    },
    "b": {"S": "hello"},
    "a.b": {"S": "dotted"},
    "z": {"NULL": True},
}
B = {"L": [{"N": "2"}, {"N": "4"}, {"M": {"x": {"S": "hi"}, "y": {"S": "yo"}}}]}


def picked(text, names=None):
    before = copy.deepcopy(ITEM)
    result = project(projection(text, names), ITEM)
    assert before == ITEM
    return result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", {"a": ITEM["a"]}),
        ("a.b", {"a": {"M": {"b": B}}}),
        ("a.b[0]", {"a": {"M": {"b": {"L": [{"N": "2"}]}}}}),
        ("a.b[2].y", {"a": {"M": {"b": {"L": [{"M": {"y": {"S": "yo"}}}]}}}}),
        ("a.b[0], a.b[1]", {"a": {"M": {"b": {"L": [{"N": "2"}, {"N": "4"}]}}}}),
        ("a.b[2].x, a.c", {"a": {"M": {"b": {"L": [{"M": {"x": {"S": "hi"}}}]}, "c": {"N": "5"}}}}),
        ("a.c,b", {"a": {"M": {"c": {"N": "5"}}}, "b": {"S": "hello"}}),
        ("a.b[1], a.b[0]", {"a": {"M": {"b": {"L": [{"N": "2"}, {"N": "4"}]}}}}),
        ("a.x, a.b[0], x, a.b[3].x", {"a": {"M": {"b": {"L": [{"N": "2"}]}}}}),
        ("z", {"z": {"NULL": True}}),
    ],
)
def test_a_projection_keeps_the_shape_around_what_it_picks(text, expected):
    assert picked(text) == expected


@pytest.mark.parametrize(
    "text",
    ["x", "a.b[3]", "a.x", "a.x.y", "a.b[3].x", "a.b.x", "a[0]", "a.b[0].x", "a.b[0][0]", "b.c"],
)
def test_a_path_that_leads_nowhere_adds_nothing(text):
    assert picked(text) == {}


def test_a_placeholder_is_one_name_whatever_it_holds():
    assert picked("#n", {"#n": "a.b"}) == {"a.b": {"S": "dotted"}}
    assert picked("#a.#c", {"#a": "a", "#c": "c"}) == {"a": {"M": {"c": {"N": "5"}}}}


@pytest.mark.parametrize(
    "text",
    [
        "a, a",
        "a, a.b[0]",
        "a.b, a",
        "a.b.c, a.b",
        "a[1], a[1]",
        "a[0].b, a[0]",
        "a.b, a[1]",
        "a, #a",
        "",
        "a,",
        ",a",
        "a,,b",
        "a b",
        "a = b",
        ":v",
        "size(a)",
        "a.status",
        "#undefined",
    ],
)
def test_overlaps_conflicts_and_syntax_errors_are_refused(text):
    with pytest.raises(RequestRejected) as rejected:
        projection(text, {"#a": "a"})
    assert rejected.value.code == "ValidationException"
    assert rejected.value.message.startswith("Invalid ProjectionExpression: ")


def test_paths_that_only_begin_alike_are_fine():
    paths = projection("a.b.d, a.b.e, a.c[2], f[1], f[2]")
    assert paths == (("a", "b", "d"), ("a", "b", "e"), ("a", "c", 2), ("f", 1), ("f", 2))
    assert [path_text(path) for path in paths] == ["a.b.d", "a.b.e", "a.c[2]", "f[1]", "f[2]"]
