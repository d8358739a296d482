"""Names and values that no expression uses."""

import pytest

from dualstore.errors import RequestRejected
from dualstore.expressions import reject_unused

VALUE = {"N": "1"}


def test_names_and_values_used_by_any_expression_are_accepted():
    reject_unused({"#a": "a", "#b": "b"}, {":v": VALUE}, "SET #a = :v", None, "#b")
    reject_unused(None, None)
    reject_unused(None, None, "a", None)


@pytest.mark.parametrize(
    ("names", "values", "texts"),
    [
        ({"#a": "a", "#b": "b"}, None, ["#a"]),
        (None, {":v": VALUE, ":w": VALUE}, ["a = :v"]),
        ({"#a": "a"}, None, [None]),
        ({"#a": "a"}, None, ["a.b"]),
        ({"#a": "a"}, None, ["#ab"]),
        ({}, None, ["a"]),
        (None, {}, ["a"]),
        ({"a": "a"}, None, ["a"]),
        ({"#a-b": "a"}, None, ["a"]),
        ({"#": "a"}, None, ["a"]),
        ({":a": "a"}, None, ["a = :a"]),
        (None, {"#v": VALUE}, ["#v"]),
        (None, {"v": VALUE}, ["v"]),
    ],
)
def test_unused_misspelled_and_absent_names_and_values_are_refused(names, values, texts):
    with pytest.raises(RequestRejected) as rejected:
        reject_unused(names, values, *texts)
    assert rejected.value.code == "ValidationException"
