"""Fingerprints: the compiled ones are those of a plain model; equal rows have equal ones, in any notation."""

import json
import random
import re
import struct
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualstore.mapping.transcoding.accelerated import accelerator
from dualstore.mapping.transcoding.fingerprints import Fingerprints, Kind, Taken, kinds_of
from mapping_cases import MAPPINGS, ORDERS, items
from transcoding_cases import TRANSCODERS, accelerator_is_built, line_of
from volume import examples

pytestmark = pytest.mark.skipif(
    not accelerator_is_built(), reason="the accelerator is not built: pip install ./accelerator"
)

KEY = bytes(range(16))
MASK = 2**64 - 1


def siphash(data: bytes, *, each_word: int = 1, at_the_end: int = 3) -> tuple[int, int]:
    """SipHash with 128 bits under `KEY`, as its paper and its reference implementation have it.

    Args:
        data: what is hashed.
        each_word: rounds for each word; the accelerator's are those of SipHash-1-3.
        at_the_end: rounds at the end.
    """
    k0, k1 = struct.unpack("<QQ", KEY)
    v0, v1, v2, v3 = (
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D ^ 0xEE,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    )

    def rotated(value, bits):
        return (value << bits | value >> (64 - bits)) & MASK

    def rounds(count):
        nonlocal v0, v1, v2, v3
        for _ in range(count):
            v0, v2 = (v0 + v1) & MASK, (v2 + v3) & MASK
            v1, v3 = rotated(v1, 13) ^ v0, rotated(v3, 16) ^ v2
            v0 = rotated(v0, 32)
            v2, v0 = (v2 + v1) & MASK, (v0 + v3) & MASK
            v1, v3 = rotated(v1, 17) ^ v2, rotated(v3, 21) ^ v0
            v2 = rotated(v2, 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v3 ^= word
        rounds(each_word)
        v0 ^= word
    v2 ^= 0xEE
    rounds(at_the_end)
    first = v0 ^ v1 ^ v2 ^ v3
    v1 ^= 0xDD
    rounds(at_the_end)
    return first, v0 ^ v1 ^ v2 ^ v3


def test_the_model_is_siphash_as_its_authors_publish_it():
    published = {0: "a3817f04ba25a8e66df67214c7550293", 1: "da87c1d86b99af44347659119b22fc45"}
    for size, expected in published.items():
        found = siphash(bytes(range(size)), each_word=2, at_the_end=4)
        assert struct.pack("<QQ", *found).hex() == expected


def text(content: bytes) -> bytes:
    return b"T" + struct.pack("<I", len(content)) + content


def members(letter: bytes, forms: list[bytes]) -> bytes:
    halves = [siphash(form) for form in forms]
    sums = [sum(each[half] for each in halves) & MASK for half in (0, 1)]
    return letter + struct.pack("<IQQ", len(forms), *sums)


def number(numeral: str) -> bytes:
    sign, digits, exponent = Decimal(numeral).as_tuple()
    written = "".join(map(str, digits)).lstrip("0")
    stripped = written.rstrip("0")
    place = int(exponent) + len(written) - len(stripped) if stripped else 0
    negative = sign and stripped
    return (b"-" if negative else b"+") + struct.pack("<iI", place, len(stripped)) + stripped.encode()


def document(value: object) -> bytes:
    match value:
        case bool():
            return b"t" if value else b"f"
        case None:
            return b"n"
        case str():
            return text(value.encode())
        case Decimal():
            return number(str(value))
        case list():
            return b"[" + b"".join(map(document, value)) + b"]"
        case dict():
            return members(b"O", [text(name.encode()) + document(each) for name, each in value.items()])
    raise AssertionError


def taken(kinds: list[Kind], *lines: bytes) -> list[tuple[int, int]]:
    """What the accelerator says, as numbers without a sign."""
    taking = accelerator().Fingerprints(tuple(map(int, kinds)), KEY)
    for line in lines:
        taking.add(line + b"\n")
    count, first_sum, second_sum, first, second = taking.take()
    pairs = [
        (one & MASK, other & MASK)
        for one, other in Taken(count, (first_sum, second_sum), first, second).pairs()
    ]
    assert sum(pair[0] for pair in pairs) & MASK == first_sum & MASK
    assert sum(pair[1] for pair in pairs) & MASK == second_sum & MASK
    return pairs


def escaped(field: bytes) -> bytes:
    """As COPY writes it."""
    for plain, letter in (
        (b"\\", b"\\\\"),
        (b"\n", b"\\n"),
        (b"\t", b"\\t"),
        (b"\r", b"\\r"),
        (b"\v", b"\\v"),
    ):
        field = field.replace(plain, letter)
    return field


DIGITS = st.text("0123456789", min_size=1, max_size=20)
NUMERALS = st.builds(
    lambda sign, whole, fraction: f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}",
    st.sampled_from(["", "-"]),
    DIGITS,
    st.just("") | DIGITS,
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | TEXTS | NUMERALS.map(Decimal),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def as_json(value: object, chance: random.Random) -> str:
    """JSON with its members in any order, and white space."""
    space = chance.choice(["", " "])
    match value:
        case Decimal():
            return f"{value:f}"
        case list():
            return f"[{space}" + f",{space}".join(as_json(each, chance) for each in value) + "]"
        case dict():
            entries = [
                f"{json.dumps(name, ensure_ascii=False)}:{space}{as_json(each, chance)}"
                for name, each in value.items()
            ]
            chance.shuffle(entries)
            return "{" + f",{space}".join(entries) + space + "}"
    return json.dumps(value, ensure_ascii=False)


@given(TEXTS)
def test_a_text_has_the_fingerprint_of_the_model(content):
    assert taken([Kind.TEXT], escaped(content.encode())) == [siphash(text(content.encode()))]


@given(NUMERALS)
def test_a_number_has_the_fingerprint_of_the_model(numeral):
    assert taken([Kind.NUMBER], numeral.encode()) == [siphash(number(numeral))]


@given(NUMERALS, NUMERALS)
def test_numbers_have_one_fingerprint_where_they_are_equal(one, other):
    first, second = taken([Kind.NUMBER], one.encode(), other.encode())
    assert (first == second) == (Decimal(one) == Decimal(other))


@given(DOCUMENTS, st.randoms(use_true_random=False))
def test_a_document_has_the_fingerprint_of_the_model_in_any_order(value, chance):
    written = [escaped(as_json(value, chance).encode()) for _ in range(2)]
    assert taken([Kind.JSON], *written) == [siphash(document(value))] * 2


@given(DOCUMENTS, DOCUMENTS)
def test_documents_that_differ_have_two_fingerprints(one, other):
    chance = random.Random(1)
    first, second = taken([Kind.JSON], *(escaped(as_json(value, chance).encode()) for value in (one, other)))
    assert (first == second) == (document(one) == document(other))


@given(st.sets(TEXTS, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_a_set_has_one_fingerprint_in_any_order(contents, chance):
    def array(some):
        quoted = [each.replace("\\", "\\\\").replace('"', '\\"') for each in some]
        return escaped(("{" + ",".join(f'"{each}"' for each in quoted) + "}").encode())

    shuffled = list(contents)
    chance.shuffle(shuffled)
    expected = siphash(members(b"S", [text(each.encode()) for each in contents]))
    assert taken([Kind.TEXTS], array(contents), array(shuffled)) == [expected] * 2


@pytest.mark.parametrize(
    ("kind", "one", "other", "same"),
    [
        (Kind.TEXTS, b"{a,b}", b'{"b","a"}', True),
        (Kind.TEXTS, b"{NULL}", b'{"NULL"}', False),
        (Kind.TEXTS, b"{a,a,b}", b"{a,b,b}", False),
        (Kind.NUMBERS, b"{1,2.50}", b"{2.5,1}", True),
        (Kind.NUMBERS, b"{}", b"{0}", False),
        (Kind.MOMENT, b"2020-01-19T04:42:30.089210+0000", b"2020-01-19 04:42:30.08921+00", True),
        (Kind.MOMENT, b"2020-01-19T04:42:30.000000", b"2020-01-19 04:42:30", True),
        (Kind.MOMENT, b"2020-01-19 04:42:30+00", b"2020-01-19 04:42:30+01", False),
        (Kind.MOMENT, b"2020-01-19 04:42:30", b"2020-01-19 04:42:30.000001", False),
        (Kind.NUMBER, b"NaN", b"Infinity", False),
        (Kind.TEXT, b"\\N", b"\\\\N", False),
        (Kind.TEXT, b"\\N", b"", False),
        (Kind.JSON, b'{"a": 1.0}', b'{"a":1}', True),
        (Kind.JSON, b'{"a": 1}', b'{"a":"1"}', False),
        (Kind.JSON, b'["a", "b"]', b'["b","a"]', False),
        (Kind.JSON, b'{"a": {"b": 1}, "c": 2}', b'{"a": {"c": 2}, "b": 1}', False),
        (Kind.JSON, b'"\\\\u0007"', b'"\\\\u0008"', False),
        (Kind.JSON, b'"\\\\u0008"', b'"\\\\b"', True),
        (Kind.LEFT_OUT, b"x", b"y", True),
    ],
)
def test_what_is_equal_depends_on_the_kind(kind, one, other, same):
    first, second = taken([kind], one, other)
    assert (first == second) == same


def test_what_stands_in_which_field_matters():
    first, second, third = taken([Kind.TEXT, Kind.TEXT], b"ab\tc", b"a\tbc", b"c\tab")
    assert len({first, second, third}) == 3


def test_another_key_makes_other_fingerprints():
    one, other = (accelerator().Fingerprints((0,), bytes([n]) * 16) for n in (1, 2))
    one.add(b"a\n")
    other.add(b"a\n")
    assert one.take() != other.take()


@pytest.mark.parametrize("lines", [b"a\n", b"a\tb\tc\n", b"a\tb", b"a\tb\n\n"])
def test_lines_of_another_table_are_an_error(lines):
    with pytest.raises(ValueError, match="not COPY text"):
        accelerator().Fingerprints((0, 0), KEY).add(lines)


@pytest.mark.parametrize(("kinds", "key"), [((), KEY), ((len(Kind),), KEY), ((-1,), KEY), ((0,), b"short")])
def test_what_this_version_does_not_know_is_an_error(kinds, key):
    with pytest.raises(ValueError, match=r"field|key"):
        accelerator().Fingerprints(kinds, key)


@settings(max_examples=examples(300))
@given(st.binary(max_size=60) | st.text('{}[]",:\\tfn0123456789.-+TuN ', max_size=60).map(str.encode))
def test_any_bytes_are_survived_and_have_the_same_fingerprint_each_time(field):
    field = field.replace(b"\n", b"").replace(b"\t", b"")
    for kind in Kind:
        first, second = taken([kind], field, field)
        assert first == second


def test_thousands_of_damaged_documents_are_survived_and_told_from_the_whole_one():
    chance = random.Random(11)
    whole = b'{"a": [1.50, {"b": "c\\\\"d"}, null, true], "e": {"f": -0.25}}'
    (expected,) = taken([Kind.JSON], whole)
    for _ in range(3000):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(damaged))] = chance.choice(b'{}[]",:\\x7 \xff')
        del damaged[: chance.choice([0, 0, 0, 1, 5])]
        (found,) = taken([Kind.JSON], bytes(damaged))
        assert (found == expected) == (_read(bytes(damaged)) == _read(whole))


_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def _read(field: bytes) -> object:
    """What a damaged document says, where it still says anything; else what it is."""
    plain = re.sub(rb"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), field)
    try:
        return document(json.loads(plain, parse_float=Decimal, parse_int=Decimal))
    except (ValueError, AssertionError):
        return plain


@pytest.mark.parametrize("table", MAPPINGS)
@given(data=st.data())
@settings(max_examples=30)
def test_an_item_has_the_fingerprint_of_its_row_whoever_transcodes_it(table, data):
    mapping = MAPPINGS[table]
    if kinds_of(mapping) is None:
        return
    line = line_of(data.draw(items(mapping)))
    found = []
    for transcoder in TRANSCODERS.values():
        fingerprints = Fingerprints(mapping, KEY)
        fingerprints.add(transcoder(mapping).block(line).text)
        found.append(fingerprints.take())
    if all(each.count for each in found):  # one may decline what another takes
        assert found[0] == found[1]


def test_a_column_that_only_postgresql_can_compare_has_no_kind():
    assert kinds_of(ORDERS) is None or len(kinds_of(ORDERS)) == len(ORDERS.column_names)
