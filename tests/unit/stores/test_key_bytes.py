"""A key from its bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstore.items import KeyAttribute, KeySchema, key_bytes, number_text
from dualstore.stores.key_bytes import key_from_bytes

VALUES = {
    "S": st.text(st.characters(codec="utf-8"), min_size=1),
    "N": st.decimals(
        allow_nan=False, allow_infinity=False, places=5, min_value=-(10**20), max_value=10**20
    ).map(number_text),
    "B": st.binary(min_size=1),
}


@given(st.data())
def test_a_key_comes_back_from_its_bytes(data):
    types = data.draw(st.lists(st.sampled_from(["S", "N", "B"]), min_size=1, max_size=2))
    attributes = [KeyAttribute(f"k{n}", type_) for n, type_ in enumerate(types)]
    keys = KeySchema(*attributes)
    key = {each.name: {each.type: data.draw(VALUES[each.type])} for each in attributes}

    assert key_from_bytes(keys, key_bytes(keys, key)) == key


KEYS = KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N"))
ENCODED = key_bytes(KEYS, {"pk": {"S": "abc"}, "sk": {"N": "12"}})


@pytest.mark.parametrize(
    "encoded",
    [b"", ENCODED[:-1], ENCODED[:5], ENCODED + b"x", b"N" + ENCODED[1:]],
    ids=["nothing", "cut", "half", "too long", "another type"],
)
def test_other_bytes_are_refused(encoded):
    with pytest.raises(ValueError, match="key of pk, sk"):
        key_from_bytes(KEYS, encoded)
