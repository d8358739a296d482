"""Items: numbers, equality, order, sizes, limits, keys and table shapes."""

import copy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstore.errors import ConfigurationError, RequestRejected
from dualstore.items import (
    MAX_ITEM_SIZE_BYTES,
    PREDECESSOR,
    STAMP,
    Index,
    KeyAttribute,
    KeySchema,
    TableShape,
    add_numbers,
    canonical,
    canonical_numeral,
    compare,
    differing_paths,
    item_size_bytes,
    items_equal,
    key_bytes,
    key_hash,
    normalized_item,
    number,
    number_text,
    partition_bytes,
    stored_item,
    subtract_numbers,
    table_shape_from_description,
    validate_item,
    validate_value,
    value_size_bytes,
    values_equal,
    without_stamps,
)
from dualstore.items.numbers import is_canonical

NUMBER_TEXTS = st.builds(
    "{}{}E{}".format,
    st.sampled_from(["", "-", "+"]),
    st.integers(0, 10**38 - 1),
    st.integers(-92, 87),
)
SCALARS = st.one_of(
    st.builds(lambda s: {"S": s}, st.text(max_size=8)),
    st.builds(lambda n: {"N": n}, NUMBER_TEXTS),
    st.builds(lambda b: {"B": b}, st.binary(max_size=8)),
    st.builds(lambda b: {"BOOL": b}, st.booleans()),
    st.just({"NULL": True}),
    st.builds(lambda m: {"SS": m}, st.lists(st.text(max_size=4), min_size=1, unique=True)),
    st.builds(lambda m: {"NS": m}, st.lists(NUMBER_TEXTS, min_size=1, max_size=4, unique_by=number)),
    st.builds(lambda m: {"BS": m}, st.lists(st.binary(max_size=4), min_size=1, unique=True)),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(lambda e: {"L": e}, st.lists(inner, max_size=4)),
        st.builds(lambda e: {"M": e}, st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    ),
    max_leaves=8,
)
ITEMS = st.dictionaries(st.text(min_size=1, max_size=4), VALUES, max_size=4)


# --- numbers ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.0", "1"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("1E2", "100"),
        ("+1", "1"),
        (".5", "0.5"),
        ("1.", "1"),
        ("0e500", "0"),
        ("-1.50", "-1.5"),
        ("1" + "0" * 100, "1" + "0" * 100),
        ("9.9999999999999999999999999999999999999E+125", "9" * 38 + "0" * 88),
        ("1E-130", "0." + "0" * 129 + "1"),
    ],
)
def test_a_number_has_one_text(text, expected):
    assert number_text(number(text)) == expected
    assert canonical_numeral(text) == expected
    assert canonical_numeral(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "1" * 39,
        "0." + "1" * 39,
        "1E126",
        "-1E126",
        "1E-131",
        "1e99999999999999999999",
        "NaN",
        "Infinity",
        "",
        " 1",
        "1_0",
        "0x1",
        "\N{ARABIC-INDIC DIGIT ONE}",
    ],
)
def test_a_number_outside_the_limits_is_rejected(text):
    with pytest.raises(RequestRejected) as rejected:
        number(text)
    with pytest.raises(RequestRejected):
        canonical_numeral(text)
    assert rejected.value.code == "ValidationException"
    assert not text.strip() or text not in str(rejected.value)


@given(NUMBER_TEXTS)
def test_a_number_survives_its_text(text):
    once = number(text)
    assert once == Decimal(text)
    assert number(number_text(once)) == once
    assert "E" not in number_text(once)


@given(st.one_of(NUMBER_TEXTS, st.from_regex(r"[-+]?[0-9]{0,36}\.?[0-9]{0,36}", fullmatch=True)))
def test_the_one_text_is_found_without_reading_the_number_or_by_it(text):
    """Most texts are canonical already, and are told so by their form."""
    try:
        expected = number_text(number(text))
    except RequestRejected:
        with pytest.raises(RequestRejected):
            canonical_numeral(text)
    else:
        assert canonical_numeral(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "100", "12.5", "-0.05", "9" * 38, "0." + "0" * 35 + "1"])
def test_a_canonical_text_is_known_by_its_form(text):
    assert is_canonical(text)


@pytest.mark.parametrize(
    "text", ["-0", "01", "1.0", "1.", ".5", "+1", "1E2", "-", "1\n", "9" * 39, "\N{ARABIC-INDIC DIGIT THREE}"]
)
def test_a_text_of_any_other_form_is_read(text):
    assert not is_canonical(text)


def test_arithmetic_is_exact_to_38_digits_and_refuses_to_round():
    assert add_numbers("0.1", "0.2") == "0.3"
    assert add_numbers("9" * 38, "1") == "1" + "0" * 38
    assert subtract_numbers("1E30", "1") == "9" * 30
    assert subtract_numbers("1", "1.0") == "0"
    with pytest.raises(RequestRejected):
        add_numbers("1E30", "1E-30")
    with pytest.raises(RequestRejected):
        add_numbers("9.9999999999999999999999999999999999999E+125", "9E+125")


def test_zero_has_no_sign():
    assert not number("-0.0").is_signed()


# --- equality and order ---


@given(VALUES)
def test_a_value_equals_a_copy_of_itself(value):
    assert values_equal(value, copy.deepcopy(value))
    assert canonical(value) == canonical(copy.deepcopy(value))
    assert hash(canonical(value)) == hash(canonical(copy.deepcopy(value)))


def outcome(work, item):
    """What comes of it, or how it is refused."""
    try:
        return work(item)
    except RequestRejected as rejected:
        return rejected.code, rejected.message


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.integers(0, 34))
def test_a_stored_item_is_the_valid_normalised_item_and_its_size(item, depth):
    value = {"BOOL": True}
    for _ in range(depth):
        value = {"M": {"deep": value}}
    item = {**item, "nested": value}
    before = copy.deepcopy(item)
    assert outcome(stored_item, item) == outcome(
        lambda each: (validate_item(each), (normalized_item(each), item_size_bytes(each)))[1], item
    )
    assert item == before


@pytest.mark.parametrize("content", [1, None, ["a"], b"a"])
@pytest.mark.parametrize("kind", ["S", "N", "BOOL", "M", "X"])
def test_a_stored_item_is_refused_where_the_item_is_not_valid(kind, content):
    for item in (
        {"a": {kind: content}},
        {"a": content},
        {"a": {kind: content, "NS": ["1"]}},
        {1: {"S": "a"}},
    ):
        with pytest.raises(RequestRejected) as rejected:
            validate_item(item)
        with pytest.raises(RequestRejected, match=rejected.value.message):
            stored_item(item)


@pytest.mark.parametrize("size_bytes", [409_600, 409_601])
def test_a_stored_item_is_as_large_as_a_valid_one(size_bytes):
    item = {"a": {"S": "x" * (size_bytes - 1)}}
    if size_bytes > MAX_ITEM_SIZE_BYTES:
        with pytest.raises(RequestRejected, match="size"):
            stored_item(item)
    else:
        assert stored_item(item).size_bytes == size_bytes


@given(ITEMS)
def test_normalising_an_item_changes_nothing_that_counts(item):
    before = copy.deepcopy(item)
    assert items_equal(normalized_item(item), item)
    assert normalized_item(normalized_item(item)) == normalized_item(item)
    assert item == before


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ({"N": "1"}, {"N": "1.00"}, True),
        ({"N": "1"}, {"S": "1"}, False),
        ({"BOOL": True}, {"N": "1"}, False),
        ({"NS": ["1", "2"]}, {"NS": ["2.0", "1"]}, True),
        ({"SS": ["a", "b"]}, {"SS": ["b", "a"]}, True),
        ({"SS": ["1"]}, {"NS": ["1"]}, False),
        ({"L": [{"N": "1"}, {"N": "2"}]}, {"L": [{"N": "2"}, {"N": "1"}]}, False),
        ({"M": {"a": {"N": "1.0"}}}, {"M": {"a": {"N": "1"}}}, True),
        ({"M": {"a": {"NULL": True}}}, {"M": {}}, False),
        ({"S": ""}, {"B": b""}, False),
        ({"L": [{"NS": ["1.0"]}]}, {"L": [{"NS": ["1"]}]}, True),
    ],
)
def test_values_are_equal_as_dynamodb_holds_them_equal(a, b, equal):
    assert values_equal(a, b) is equal
    assert (canonical(a) == canonical(b)) is equal


def test_an_explicit_null_is_not_a_missing_attribute():
    assert not items_equal({"a": {"NULL": True}}, {})
    assert differing_paths({"a": {"NULL": True}}, {}) == ["a"]


def test_stamps_are_ignored_unless_asked_for():
    stamped = {"id": {"S": "a"}, STAMP: {"S": "1"}, PREDECESSOR: {"S": "0"}}
    plain = {"id": {"S": "a"}}
    assert items_equal(stamped, plain)
    assert differing_paths(stamped, plain) == []
    assert not items_equal(stamped, plain, ignore_stamps=False)
    assert differing_paths(stamped, plain, ignore_stamps=False) == [PREDECESSOR, STAMP]
    assert without_stamps(stamped) == plain
    assert without_stamps(plain) is plain


def test_differing_paths_name_places_and_never_values():
    a = {
        "meta": {"M": {"size": {"N": "1"}, "name": {"S": "x"}}},
        "lines": {"L": [{"M": {"price": {"N": "1"}}}, {"N": "2.0"}]},
        "tags": {"SS": ["secret"]},
        "short": {"L": []},
    }
    b = {
        "meta": {"M": {"size": {"N": "2"}, "name": {"S": "x"}}},
        "lines": {"L": [{"M": {"price": {"N": "7"}}}, {"N": "2"}]},
        "short": {"L": [{"NULL": True}]},
    }
    assert differing_paths(a, b) == ["lines[0].price", "meta.size", "short", "tags"]


@given(ITEMS, ITEMS)
def test_items_differ_exactly_where_there_is_a_differing_path(a, b):
    assert items_equal(a, b) == (differing_paths(a, b) == [])


@pytest.mark.parametrize(
    ("less", "greater"),
    [
        ({"N": "9"}, {"N": "10"}),
        ({"N": "-1"}, {"N": "-0.5"}),
        ({"S": "\uffff"}, {"S": "\U00010000"}),
        ({"S": "Z"}, {"S": "a"}),
        ({"S": ""}, {"S": "\x00"}),
        ({"B": b"\x7f"}, {"B": b"\x80"}),
        ({"B": b"a"}, {"B": b"a\x00"}),
    ],
)
def test_values_are_ordered_as_dynamodb_orders_them(less, greater):
    assert compare(less, greater) < 0 < compare(greater, less)
    assert compare(less, less) == 0


def test_values_without_an_order_are_not_compared():
    for a, b in [({"N": "1"}, {"S": "1"}), ({"BOOL": True}, {"BOOL": False})]:
        with pytest.raises(TypeError):
            compare(a, b)


# --- sizes and limits ---


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"S": "é"}, 2),
        ({"N": "0"}, 1),
        ({"N": "1"}, 2),
        ({"N": "12"}, 2),
        ({"N": "123"}, 3),
        ({"N": "100"}, 2),
        ({"N": "-1"}, 3),
        ({"N": "1.50"}, 2),
        ({"B": b"abc"}, 3),
        ({"NULL": True}, 1),
        ({"BOOL": False}, 1),
        ({"SS": ["a", "bc"]}, 3),
        ({"NS": ["1"]}, 2),
        ({"L": []}, 3),
        ({"L": [{"S": "a"}]}, 5),
        ({"M": {"k": {"S": "a"}}}, 6),
    ],
)
def test_sizes_follow_the_documented_rules(value, size):
    assert value_size_bytes(value) == size
    assert item_size_bytes({"né": value}) == 3 + size


def test_an_item_of_exactly_400_kb_is_legal_and_one_byte_more_is_not():
    padding = "x" * (MAX_ITEM_SIZE_BYTES - 1)
    validate_item({"a": {"S": padding}})
    with pytest.raises(RequestRejected):
        validate_item({"a": {"S": padding + "x"}})


@given(VALUES)
def test_what_dynamodb_stores_is_valid(value):
    validate_value(value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"S": "a", "N": "1"},
        {"X": "a"},
        {"S": 1},
        {"S": "\ud800"},
        {"N": 1},
        {"N": "x"},
        {"B": "text"},
        {"BOOL": "true"},
        {"NULL": False},
        {"SS": []},
        {"SS": ["a", "a"]},
        {"NS": ["1", "1.0"]},
        {"BS": [b"a", b"a"]},
        {"SS": "ab"},
        {"L": [{"NS": ["1", "1"]}]},
        {"M": {"a": {"N": "1" * 39}}},
        {"M": []},
        "text",
    ],
)
def test_what_dynamodb_would_not_store_is_rejected(value):
    with pytest.raises(RequestRejected) as rejected:
        validate_value(value)
    assert rejected.value.code == "ValidationException"


def test_values_nest_32_levels():
    value: dict[str, Any] = {"S": "x"}
    for _ in range(31):
        value = {"L": [value]}
    validate_value(value)
    with pytest.raises(RequestRejected):
        validate_value({"M": {"a": value}})


# --- keys and tables ---

HASH_ONLY = KeySchema(KeyAttribute("p", "S"))
WITH_SORT = KeySchema(KeyAttribute("p", "S"), KeyAttribute("s", "N"))


def test_the_key_of_an_item_is_its_key_attributes():
    item = {"p": {"S": "a"}, "s": {"N": "1"}, "other": {"S": "x"}}
    assert WITH_SORT.key_of(item) == {"p": {"S": "a"}, "s": {"N": "1"}}
    assert WITH_SORT.names == ("p", "s")
    assert HASH_ONLY.names == ("p",)


@pytest.mark.parametrize(
    "item",
    [
        {"p": {"S": "a"}},
        {"p": {"N": "1"}, "s": {"N": "1"}},
        {"p": {"S": "a"}, "s": {"S": "1"}},
        {"p": {"S": "a"}, "s": {"N": "x"}},
        {"p": {"S": ""}, "s": {"N": "1"}},
        {"p": {"S": "é" * 1025}, "s": {"N": "1"}},
    ],
)
def test_an_item_without_a_proper_key_is_rejected(item):
    with pytest.raises(RequestRejected) as rejected:
        WITH_SORT.key_of(item)
    assert rejected.value.code == "ValidationException"


def test_keys_are_limited_to_2048_and_1024_bytes():
    keys = KeySchema(KeyAttribute("p", "B"), KeyAttribute("s", "S"))
    longest = {"p": {"B": b"x" * 2048}, "s": {"S": "é" * 512}}
    assert keys.key_of(longest) == longest
    for name, value in [("p", {"B": b"x" * 2049}), ("s", {"S": "é" * 512 + "x"})]:
        with pytest.raises(RequestRejected):
            keys.key_of({**longest, name: value})


def test_a_requested_key_holds_nothing_but_the_key():
    assert HASH_ONLY.exact_key({"p": {"S": "a"}}) == {"p": {"S": "a"}}
    with pytest.raises(RequestRejected):
        HASH_ONLY.exact_key({"p": {"S": "a"}, "x": {"S": "a"}})


def test_an_index_key_of_another_type_or_empty_is_rejected():
    shape = TableShape("t", HASH_ONLY, {"i": Index("i", KeySchema(KeyAttribute("g", "S")))})
    shape.check_item({"p": {"S": "a"}})
    shape.check_item({"p": {"S": "a"}, "g": {"S": "x"}})
    for value in ({"N": "1"}, {"S": ""}, {"NULL": True}):
        with pytest.raises(RequestRejected):
            shape.check_item({"p": {"S": "a"}, "g": value})


def test_a_table_shape_is_read_from_its_description():
    description = {
        "TableName": "orders-prod",
        "AttributeDefinitions": [
            {"AttributeName": "p", "AttributeType": "S"},
            {"AttributeName": "s", "AttributeType": "N"},
            {"AttributeName": "g", "AttributeType": "B"},
        ],
        # DynamoDB does not promise which of the two comes first.
        "KeySchema": [
            {"AttributeName": "s", "KeyType": "RANGE"},
            {"AttributeName": "p", "KeyType": "HASH"},
        ],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "by-g",
                "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["a", "b"]},
            }
        ],
        "LocalSecondaryIndexes": [
            {
                "IndexName": "local",
                "KeySchema": [
                    {"AttributeName": "p", "KeyType": "HASH"},
                    {"AttributeName": "g", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    }
    shape = TableShape(
        "orders-prod",
        WITH_SORT,
        {
            "by-g": Index("by-g", KeySchema(KeyAttribute("g", "B")), ("a", "b"), is_global=True),
            "local": Index(
                "local",
                KeySchema(KeyAttribute("p", "S"), KeyAttribute("g", "B")),
                "KEYS_ONLY",
                is_global=False,
            ),
        },
    )
    assert table_shape_from_description(description) == shape
    assert table_shape_from_description({"Table": description}) == shape


def test_an_index_with_several_partition_attributes_is_a_configuration_error():
    description = {
        "TableName": "t",
        "AttributeDefinitions": [
            {"AttributeName": "p", "AttributeType": "S"},
            {"AttributeName": "g", "AttributeType": "S"},
        ],
        "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "i",
                "KeySchema": [
                    {"AttributeName": "p", "KeyType": "HASH"},
                    {"AttributeName": "g", "KeyType": "HASH"},
                ],
            }
        ],
    }
    with pytest.raises(ConfigurationError, match="'i'"):
        table_shape_from_description(description)


KEYS = st.tuples(st.text(min_size=1, max_size=3), st.text(min_size=1, max_size=3))


@given(KEYS, KEYS)
def test_different_keys_have_different_bytes(one, other):
    keys = KeySchema(KeyAttribute("p", "S"), KeyAttribute("s", "S"))
    first, second = ({"p": {"S": p}, "s": {"S": s}} for p, s in (one, other))
    assert (key_bytes(keys, first) == key_bytes(keys, second)) == (one == other)
    assert key_bytes(keys, first).startswith(partition_bytes(keys, first))


def test_a_boundary_between_key_attributes_cannot_be_moved():
    keys = KeySchema(KeyAttribute("p", "B"), KeyAttribute("s", "B"))
    one = {"p": {"B": b"a"}, "s": {"B": b"bc"}}
    other = {"p": {"B": b"ab"}, "s": {"B": b"c"}}
    assert key_bytes(keys, one) != key_bytes(keys, other)


@given(NUMBER_TEXTS, NUMBER_TEXTS)
def test_numeric_keys_have_the_same_bytes_exactly_when_they_are_equal(one, other):
    keys = KeySchema(KeyAttribute("n", "N"))
    same = key_bytes(keys, {"n": {"N": one}}) == key_bytes(keys, {"n": {"N": other}})
    assert same == (number(one) == number(other))
    padded = {"n": {"N": number_text(number(one))}}
    assert key_bytes(keys, padded) == key_bytes(keys, {"n": {"N": one}})


def test_key_bytes_and_hash_stay_as_they_are_because_they_are_stored():
    key = {"p": {"S": "é"}, "s": {"N": "1.00"}}
    assert key_bytes(WITH_SORT, key) == b"S\x00\x00\x00\x02\xc3\xa9N\x00\x00\x00\x011"
    assert partition_bytes(WITH_SORT, key) == b"S\x00\x00\x00\x02\xc3\xa9"
    assert key_hash(WITH_SORT, key) == "e35ae0baea4e412a"
