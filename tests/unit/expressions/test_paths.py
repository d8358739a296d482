"""Names and values that no expression uses, or could use."""

import pytest

from dualstore.errors import RequestRejected
from dualstore.expressions import check_placeholders, reject_unused

VALUE = {"N": "1"}


def test_names_and_values_used_by_any_expression_are_accepted():
    reject_unused({"#a": "a", "#b": "b"}, {":v": VALUE}, "SET #a = :v", "#b")
    reject_unused(None, None, "a")
    check_placeholders({"#a": "a"}, {":v": VALUE})
    check_placeholders(None, None)


@pytest.mark.parametrize(
    ("names", "values", "text", "unused"),
    [
        ({"#a": "a", "#b": "b"}, None, "#a", "ExpressionAttributeNames unused in expressions: keys: {#b}"),
        (None, {":v": VALUE, ":w": VALUE}, "a = :v", "Values unused in expressions: keys: {:w}"),
        ({"#a": "a"}, None, "a.b", "keys: {#a}"),
        ({"#a": "a", "#b": "b"}, None, "#ab", "keys: {#a, #b}"),
    ],
)
def test_unused_names_and_values_are_refused(names, values, text, unused):
    with pytest.raises(RequestRejected, match=unused) as rejected:
        reject_unused(names, values, text)
    assert rejected.value.code == "ValidationException"


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        ({}, None, "ExpressionAttributeNames must not be empty"),
        (None, {}, "ExpressionAttributeValues must not be empty"),
        ({"a": "a"}, None, 'ExpressionAttributeNames contains invalid key: Syntax error; key: "a"'),
        ({"#a-b": "a"}, None, 'key: "#a-b"'),
        ({"#": "a"}, None, 'key: "#"'),
        ({":a": "a"}, None, 'key: ":a"'),
        (None, {"#v": VALUE}, 'ExpressionAttributeValues contains invalid key: Syntax error; key: "#v"'),
        (None, {"v": VALUE}, 'key: "v"'),
    ],
)
def test_misspelled_and_absent_names_and_values_are_refused(names, values, message):
    with pytest.raises(RequestRejected) as rejected:
        check_placeholders(names, values)
    assert message in rejected.value.message
