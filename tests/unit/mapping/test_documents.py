"""Attribute values as JSON texts, plain and typed."""

import json
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstore.items import content_of, normalized, normalized_item, value_size_bytes
from dualstore.mapping import typed_item, typed_json
from dualstore.mapping.documents import (
    decimal_text,
    jsonb_size_bytes,
    numeral_text,
    plain_list,
    plain_map,
    plain_value,
)
from mapping_cases import numbers, plain_values, texts, values


@given(st.dictionaries(texts.filter(bool), values.map(normalized)))
def test_typed_json_gives_every_item_back(item):
    assert typed_item(typed_json(item)) == item


@given(st.dictionaries(texts.filter(bool), values.map(normalized)))
def test_typed_json_is_read_back_after_jsonb_has_reformatted_it(item):
    reformatted = json.dumps(json.loads(typed_json(item)), sort_keys=True, ensure_ascii=False)
    assert typed_item(reformatted) == item


@given(values.map(normalized))
def test_plain_json_gives_every_value_back_or_is_not_made(value):
    write = {"L": plain_list, "M": plain_map}.get(*value, lambda content: None)
    text = write(content_of(value))
    assert text is None or plain_value(text) == value


@given(st.lists(plain_values))
def test_a_document_counts_for_what_its_value_does(elements):
    text = plain_list(elements)
    spaced = re.sub(r'("(?:[^"\\]|\\.)*")|([:,])', lambda part: part[1] or f"{part[2]} ", text)
    assert jsonb_size_bytes(spaced) == value_size_bytes({"L": elements})


def test_plain_json_is_what_a_reader_of_sql_expects():
    entries = {
        "name": {"S": 'a "b"'},
        "price": {"N": "12.50"},
        "big": {"N": "12345678901234567890123456789012345678"},
        "on": {"BOOL": True},
        "off": {"BOOL": False},
        "none": {"NULL": True},
        "list": {"L": [{"N": "1"}, {"M": {}}]},
    }
    assert plain_map(entries) == (
        '{"name":"a \\"b\\"","price":12.50,"big":12345678901234567890123456789012345678,'
        '"on":true,"off":false,"none":null,"list":[1,{}]}'
    )


@pytest.mark.parametrize("value", [{"B": b"x"}, {"SS": ["a"]}, {"NS": ["1"]}, {"BS": [b"x"]}])
def test_binary_and_sets_have_no_plain_form_at_any_depth(value):
    assert plain_list([value]) is None
    assert plain_map({"a": {"L": [{"M": {"b": value}}]}}) is None


def test_a_map_with_the_name_of_a_type_is_not_taken_for_a_value():
    value = {"M": {"N": {"S": "1"}, "M": {"M": {"S": {"N": "1"}}}}}
    assert plain_value(plain_map(value["M"])) == value


@pytest.mark.parametrize(
    ("written", "canonical"),
    [("0", "0"), ("-0", "0"), ("1.0", "1"), ("100", "100"), ("-1.50", "-1.5"), ("0.00", "0")],
)
def test_numbers_are_read_in_their_canonical_text(written, canonical):
    assert numeral_text(written) == canonical
    assert decimal_text(Decimal(written)) == canonical


@pytest.mark.parametrize("written", ["1e2", "1E+2"])
def test_an_exponent_in_json_is_read_too(written):
    assert numeral_text(written) == "100"


@given(numbers)
def test_the_canonical_text_is_that_of_items(text):
    assert decimal_text(Decimal(text)) == normalized({"N": text})["N"]


@given(st.dictionaries(texts.filter(bool), values))
def test_numbers_keep_their_text_in_typed_json(item):
    assert normalized_item(typed_item(typed_json(item))) == normalized_item(item)
