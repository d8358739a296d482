"""The routing hash: fixed, the same in every language, uniform, sticky, monotone, and salted per table."""

import base64
import json
import re
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_digest

from dualstore.flags import included, index_share, share
from dualstore.items import KeyAttribute, KeySchema, key_bytes, partition_bytes

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "routing.md").read_text(encoding="utf-8")


def vectors(heading: str) -> list[list[str]]:
    """The rows of the table below a heading of the page."""
    section = PAGE.split(f"### {heading}\n")[1].split("\n#")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [re.findall(r"`([^`]+)`", row) for row in rows]


def value_of(text: str) -> dict[str, Any]:
    """A key's value, as DynamoDB's JSON has it."""
    ((kind, content),) = json.loads(text).items()
    return {kind: base64.b64decode(content) if kind == "B" else content}


def bytes_of(value: dict[str, Any]) -> bytes:
    (kind,) = value
    return partition_bytes(KeySchema(KeyAttribute("k", kind)), {"k": value})


def test_the_page_has_vectors_of_every_type_of_key() -> None:
    assert {kind for _, value, _, _ in vectors("Vectors") for kind in value_of(value)} == {"S", "N", "B"}
    assert len(vectors("Vectors of indexes")) >= 3


@pytest.mark.parametrize(("table", "value", "expected_bytes", "expected"), vectors("Vectors"))
def test_a_key_keeps_its_share_for_ever(table: str, value: str, expected_bytes: str, expected: str) -> None:
    assert bytes_of(value_of(value)).hex() == expected_bytes
    assert repr(share(table, bytes_of(value_of(value)))) == expected


@pytest.mark.parametrize(
    ("table", "index", "value", "expected_bytes", "expected"), vectors("Vectors of indexes")
)
def test_a_partition_of_an_index_keeps_its_share_for_ever(
    table: str, index: str, value: str, expected_bytes: str, expected: str
) -> None:
    assert (index.encode() + b"\0" + bytes_of(value_of(value))).hex() == expected_bytes
    assert repr(index_share(table, index, bytes_of(value_of(value)))) == expected


@pytest.mark.parametrize(("table", "_value", "key", "expected"), vectors("Vectors"))
def test_the_page_alone_is_enough_to_reproduce_the_hash(
    table: str, _value: str, key: str, expected: str
) -> None:
    """As the page says it, with nothing of dualstore's."""
    digest = xxh3_64_digest(table.encode("utf-8") + b"\0" + bytes.fromhex(key), seed=0)
    (hashed,) = struct.unpack(">Q", digest)
    assert (hashed >> 11) * 100 / 2**53 == pytest.approx(float(expected), abs=1e-13)
    assert (hashed >> 11) * (100 * 2**-53) == float(expected)


TABLES = st.text(min_size=1, max_size=20)
KEYS = st.binary(max_size=60)
PERCENTS = st.floats(0, 100)


@given(TABLES, KEYS, PERCENTS, PERCENTS)
def test_a_greater_percentage_keeps_every_key_of_a_smaller_one(
    table: str, key: bytes, one: float, other: float
) -> None:
    smaller, greater = sorted((one, other))
    where = share(table, key)
    assert included(where, greater) >= included(where, smaller)


@given(TABLES, KEYS)
def test_nothing_is_covered_at_0_and_everything_at_100(table: str, key: bytes) -> None:
    where = share(table, key)
    assert 0 <= where < 100
    assert not included(where, 0)
    assert included(where, 100)


@given(st.text(min_size=1), st.decimals(-1000, 1000, places=2), st.decimals(-1000, 1000, places=2))
def test_the_sort_key_and_the_spelling_of_a_number_are_no_part_of_it(
    text: str, number: Any, sort: Any
) -> None:
    by_text = KeySchema(KeyAttribute("k", "S"), KeyAttribute("s", "N"))
    with_sort = {"k": {"S": text}, "s": {"N": str(sort)}}
    assert partition_bytes(by_text, with_sort) == bytes_of({"S": text})
    assert key_bytes(by_text, with_sort).startswith(bytes_of({"S": text}))
    assert bytes_of({"N": f"{number}00"}) == bytes_of({"N": str(number)})


@given(st.text(min_size=1, max_size=10), st.text(min_size=1, max_size=10))
def test_keys_that_differ_have_bytes_that_differ(one: str, other: str) -> None:
    assert (bytes_of({"S": one}) == bytes_of({"S": other})) is (one == other)


def test_shares_are_uniform() -> None:
    shares = [share("orders", b"cust-%d" % n) for n in range(20_000)]
    for low, high in pairwise(range(0, 101, 10)):
        # Five standard deviations of a fair draw of 20,000 at 10 percent.
        assert sum(low <= each < high for each in shares) == pytest.approx(2_000, abs=212)


@pytest.mark.parametrize("other", ["carts", "Orders", "orders2", "order"])
def test_tables_do_not_share_their_first_ten_percent(other: str) -> None:
    keys = [b"cust-%d" % n for n in range(20_000)]
    both = sum(share("orders", key) < 10 and share(other, key) < 10 for key in keys)
    assert both == pytest.approx(200, abs=71)


def test_an_index_does_not_share_the_first_ten_percent_of_its_table() -> None:
    keys = [b"cust-%d" % n for n in range(20_000)]
    both = sum(share("orders", key) < 10 and index_share("orders", "by-city", key) < 10 for key in keys)
    assert both == pytest.approx(200, abs=71)
