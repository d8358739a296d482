"""I4 without a server: what `encode` makes of an item, `decode` makes the item again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstore.items import normalized_item
from dualstore.mapping import Unreadable
from mapping_cases import MAPPINGS, ORDERS, READINGS, items


@pytest.mark.parametrize("table", MAPPINGS)
@given(data=st.data())
def test_every_item_comes_back_as_dynamodb_would_give_it_back(table, data):
    mapping = MAPPINGS[table]
    item = normalized_item(data.draw(items(mapping)))
    assert mapping.decode(mapping.encode(item)) == item


@pytest.mark.parametrize("table", MAPPINGS)
@given(data=st.data())
def test_encoding_leaves_the_item_as_it_was(table, data):
    mapping = MAPPINGS[table]
    item = data.draw(items(mapping))
    before = normalized_item(item)
    mapping.encode(item)
    assert normalized_item(item) == before


@given(data=st.data())
def test_a_number_that_is_not_in_its_canonical_text_comes_back_in_it(data):
    item = data.draw(items(ORDERS))
    decoded = normalized_item(ORDERS.decode(ORDERS.encode(item)))
    assert decoded == normalized_item(item)


KEY = {"c": {"S": "a"}, "number": {"N": "1"}}


def _row(**attributes):
    return dict(zip(ORDERS.column_names, ORDERS.encode(KEY | attributes), strict=True))


def test_an_explicit_null_is_told_from_a_missing_attribute():
    with_null, without = KEY | {"total": {"NULL": True}}, KEY
    assert ORDERS.decode(ORDERS.encode(with_null)) == with_null
    assert ORDERS.decode(ORDERS.encode(without)) == without
    assert _row()["dualstore_overflow"] is None


def test_a_value_of_another_type_leaves_its_column_null():
    row = _row(total={"S": "12"})
    assert row["total"] is None
    assert row["dualstore_overflow"].obj == '{"total":{"S":"12"}}'


def test_the_stamp_has_its_own_column_and_the_predecessor_none():
    stamp = bytes(range(16))
    row = _row(_dsv={"B": stamp}, _dsp={"B": b"p" * 16})
    assert row["dualstore_stamp"] == stamp
    assert row["dualstore_overflow"] is None
    assert ORDERS.decode(tuple(row.values())) == KEY | {"_dsv": {"B": stamp}}


@pytest.mark.parametrize("foreign", [{"S": "x" * 16}, {"B": b"short"}, {"NULL": True}, {"BS": [b"0" * 16]}])
def test_a_stamp_attribute_that_is_no_stamp_survives_as_any_attribute(foreign):
    item = KEY | {"_dsv": foreign}
    assert _row(_dsv=foreign)["dualstore_stamp"] is None
    assert ORDERS.decode(ORDERS.encode(item)) == item


def test_a_key_is_encoded_as_the_row_of_its_item_begins():
    assert ORDERS.encode_key(KEY) == ORDERS.encode(KEY)[:2]


def test_a_label_that_an_enumeration_has_got_since_is_said_without_the_value():
    """Its type has been extended, and this process does not know it yet."""
    item = {"sensor": {"B": b"s"}, "status": {"S": "open"}}
    row = dict(zip(READINGS.column_names, READINGS.encode(item), strict=True)) | {"status": "SECRET"}
    with pytest.raises(Unreadable, match="column 'status' of 'readings'") as caught:
        READINGS.decode(tuple(row.values()))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("stored", [[["SECRET"], ["b"]], ["SECRET", None]], ids=["dimensions", "null"])
@pytest.mark.parametrize("mapping", [ORDERS, READINGS], ids=["a set", "a list"])
def test_an_array_that_no_item_holds_makes_none(mapping, stored):
    """Of two dimensions, or with NULL: psql writes such."""
    column = "tags" if mapping is ORDERS else "words"
    key = KEY if mapping is ORDERS else {"sensor": {"B": b"s"}}
    row = dict(zip(mapping.column_names, mapping.encode(key), strict=True)) | {column: stored}
    with pytest.raises(Unreadable, match=f"column '{column}'") as caught:
        mapping.decode(tuple(row.values()))
    assert "SECRET" not in str(caught.value)


def test_a_json_column_that_was_parsed_on_the_way_is_refused():
    row = dict(zip(ORDERS.column_names, ORDERS.encode(KEY), strict=True)) | {"address": {"a": 0.1}}
    with pytest.raises(TypeError, match="read_expressions"):
        ORDERS.decode(tuple(row.values()))
