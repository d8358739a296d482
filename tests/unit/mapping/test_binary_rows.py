"""COPY text in binary: compiled rows are those of a plain model, and what is not surely read is refused."""

import random
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dualstore.mapping.transcoding import accelerated
from dualstore.mapping.transcoding.binary_rows import packing
from dualstore.mapping.transcoding.texts import CAREFUL, copy_field
from transcoding_cases import accelerator_is_built
from volume import examples

pytestmark = pytest.mark.skipif(
    not accelerator_is_built(), reason="the accelerator is not built: pip install ./accelerator"
)

BOOL, BYTEA, INT8, INT2, INT4, TEXT, JSON = 16, 17, 20, 21, 23, 25, 114
TEXTS, VARCHARS, VARCHAR, DATE, TIMESTAMP, TIMESTAMPTZ = 1009, 1015, 1043, 1082, 1114, 1184
NUMERICS, NUMERIC, UUID_TYPE, JSONB = 1231, 1700, 2950, 3802
FLOAT8 = 701

NULLS = {count: "\t".join(["\\N"] * count).encode() + b"\n" for count in (1, 2)}
NULL = ("\\N", None)
MILLENNIUM = datetime(2000, 1, 1, tzinfo=UTC)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
numbers = st.decimals(allow_nan=False, allow_infinity=False).filter(
    lambda number: -20 <= int(number.as_tuple().exponent) <= 20
)


def numeric(number: Decimal) -> bytes:
    """A number as PostgreSQL sends it (numeric_send)."""
    text = f"{number:f}".removeprefix("-")  # `abs` would round it
    whole, _, fraction = text.partition(".")
    padded = whole.zfill(-(-len(whole) // 4) * 4) + fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int(padded[start : start + 4]) for start in range(0, len(padded), 4)]
    weight = -(-len(whole) // 4) - 1
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    sign = 0x4000 if groups and number < 0 else 0
    head = struct.pack(">HhHH", len(groups), weight if groups else 0, sign, len(fraction))
    return head + b"".join(struct.pack(">H", group) for group in groups)


def array(member_type: int, members: list[bytes]) -> bytes:
    """An array of one dimension as PostgreSQL sends it (array_send)."""
    head = struct.pack(">iiIii", 1, 0, member_type, len(members), 1)
    return head + b"".join(struct.pack(">i", len(member)) + member for member in members)


def moment(when: datetime) -> bytes:
    return struct.pack(">q", (when - MILLENNIUM) // timedelta(microseconds=1))


def _without_zone(when: datetime) -> str:
    return when.replace(tzinfo=None).isoformat(timespec="microseconds")


def _integers(bits: int) -> st.SearchStrategy[tuple[str, bytes]]:
    code = {16: ">h", 32: ">i", 64: ">q"}[bits]
    least = -(1 << (bits - 1))
    return st.integers(least, -least - 1).map(lambda number: (str(number), struct.pack(code, number)))


def _texts_array(member_type: int) -> st.SearchStrategy[tuple[str, bytes]]:
    return st.lists(texts, min_size=1, max_size=20).map(
        lambda members: (
            copy_field("{" + ",".join(_member(each) for each in members) + "}"),
            array(member_type, [each.encode() for each in members]),
        )
    )


def _member(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


moments = st.datetimes(timezones=st.just(UTC))
FIELDS: dict[int, st.SearchStrategy[tuple[str, bytes | None]]] = {
    BOOL: st.sampled_from([("t", b"\1"), ("f", b"\0")]),
    BYTEA: st.binary(max_size=20).map(lambda content: (rf"\\x{content.hex()}", content)),
    INT2: _integers(16),
    INT4: _integers(32),
    INT8: _integers(64),
    TEXT: texts.map(lambda text: (copy_field(text), text.encode())),
    VARCHAR: texts.map(lambda text: (copy_field(text), text.encode())),
    JSON: texts.map(lambda text: (copy_field(text), text.encode())),
    JSONB: texts.map(lambda text: (copy_field(text), b"\1" + text.encode())),
    TEXTS: _texts_array(TEXT),
    VARCHARS: _texts_array(VARCHAR),
    DATE: st.dates().map(lambda day: (day.isoformat(), struct.pack(">i", (day - date(2000, 1, 1)).days))),
    TIMESTAMP: moments.map(lambda when: (_without_zone(when), moment(when))),
    TIMESTAMPTZ: st.one_of(
        moments.map(lambda when: (_without_zone(when) + "+0000", moment(when))),
        moments.map(lambda when: (str(when), moment(when))),  # as psycopg dumps it
    ),
    NUMERIC: numbers.map(lambda number: (f"{number:f}", numeric(number))),
    NUMERICS: st.lists(numbers, min_size=1, max_size=20).map(
        lambda each: (
            "{" + ",".join(f"{number:f}" for number in each) + "}",
            array(NUMERIC, list(map(numeric, each))),
        )
    ),
    UUID_TYPE: st.uuids().map(lambda each: (str(each), each.bytes)),
}
TYPES = tuple(FIELDS)


def packed(text: str, *types: int) -> bytes:
    pack = packing(types, keys=0)
    assert pack is not None
    rows, left = pack([text.encode()])
    assert not left
    return b"".join(rows)


def is_left(text: str, *types: int) -> bool:
    """Whether a text is left out, and its good first line with it; others beside it are not."""
    pack = packing(types, keys=0)
    assert pack is not None
    good = NULLS[len(types)]
    rows, left = pack([good, good + text.encode(), good])
    assert left in ([], [1])
    assert not left or b"".join(rows) == model([[None] * len(types)]) * 2
    return bool(left)


def model(rows: list[list[bytes | None]]) -> bytes:
    made = b""
    for row in rows:
        made += struct.pack(">h", len(row))
        for field in row:
            made += struct.pack(">i", -1) if field is None else struct.pack(">i", len(field)) + field
    return made


@settings(max_examples=examples(150))
@given(
    types=st.lists(st.sampled_from(TYPES), min_size=1, max_size=6),
    count=st.integers(0, 5),
    data=st.data(),
)
def test_rows_are_those_of_a_plain_model(types, count, data):
    row = st.tuples(*(st.just(NULL) | FIELDS[type_] for type_ in types))
    rows = [data.draw(row) for _ in range(count)]
    text = "".join("\t".join(field for field, _ in row) + "\n" for row in rows)

    assert packed(text, *types) == model([[content for _, content in row] for row in rows])


@pytest.mark.parametrize("type_", TYPES)
@settings(max_examples=examples(40))
@given(data=st.data())
def test_every_type_is_read_as_its_model_has_it(type_, data):
    field, content = data.draw(FIELDS[type_])
    assert packed(f"{field}\n", type_) == model([[content]])


@settings(max_examples=examples(60))
@given(text=texts)
@example(text="\1\2\\\t\n\r\"'")
def test_strings_as_the_transcoders_write_them_are_read_back(text):
    stored = CAREFUL.text(text)
    assert packed(f"{stored}\n", TEXT) == model([[_unescaped(stored)]])
    assert packed(f"{{{CAREFUL.member(text)}}}\n", TEXTS) == model([[array(TEXT, [_unescaped(stored)])]])


def _unescaped(field: str) -> bytes:
    plain = field.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t")
    return plain.replace("\0", "\\").encode()


def test_numbers_keep_the_digits_behind_their_point():
    for text in ("0", "0.00", "10000", "0.0001", "1.50", "-12345678.9", "99999999999999999999.1"):
        assert packed(f"{text}\n", NUMERIC) == model([[numeric(Decimal(text))]])


REFUSED = [
    *((BOOL, text) for text in ("", "true", "T")),
    *((BYTEA, text) for text in ("", "x00", r"\\x0", r"\\x0g", r"\x00", "abc")),
    *((INT2, text) for text in ("", "-", "32768", "-32769", "1.0", " 1", "+1", "1e1")),
    *((INT8, text) for text in ("9223372036854775808", "-9223372036854775809", "00000000000000000001")),
    *((NUMERIC, text) for text in ("", "-", ".5", "5.", "1e5", "NaN", "Infinity", "+1", "1 ", "9" * 1001)),
    *((TEXT, text) for text in ("\\", "\\.", "\\x41", "\\101", "a\\q")),
    *((DATE, text) for text in ("", "2023-02-29", "0000-01-01", "10000-01-01", "2023-1-01", "2023-01-01 BC")),
    *(
        (TIMESTAMP, text)
        for text in ("2023-01-01", "2023-01-01T00:00:00+0000", "2023-01-01T24:00:00", "infinity")
    ),
    *(
        (TIMESTAMPTZ, text)
        for text in ("2023-01-01T00:00:00", "2023-01-01T00:00:00+01:00", "2023-01-01T00:00:60+0000")
    ),
    *((TIMESTAMPTZ, text) for text in ("2023-01-01T00:00:00.1+0000", "1900-02-29T00:00:00.000000+0000")),
    *(
        (TEXTS, text)
        for text in ("", "{}", "{", '{"a"', '{"a" }', "{a}", "{NULL}", '{"a",}', '{"a"}}', '{"a"x', '{"\\\\')
    ),
    *((NUMERICS, text) for text in ("{}", "{NULL}", "{1,}", "{1,2", "{1;2}", '{"1"}', "{{1}}", "[0:0]={1}")),
    *((UUID_TYPE, text) for text in ("", "0" * 32, f"{{{UUID(int=1)}}}", str(UUID(int=1))[:-1] + "g")),
]


@pytest.mark.parametrize(("type_", "text"), REFUSED)
def test_what_no_transcoder_writes_is_refused(type_, text):
    assert is_left(f"{text}\n", type_)


@pytest.mark.parametrize("text", ["1\n", "1\t2\t3\n", "1\t2", "\n"])
def test_text_of_other_columns_or_without_an_end_is_refused(text):
    assert is_left(text, INT4, INT4)


@settings(max_examples=examples(100))
@given(types=st.lists(st.sampled_from(TYPES), min_size=1, max_size=3), data=st.data())
def test_damaged_text_is_refused_or_read_but_never_beyond_its_end(types, data):
    row = data.draw(st.tuples(*(FIELDS[type_] for type_ in types)))
    text = bytearray(("\t".join(field for field, _ in row) + "\n").encode())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from(b'\\"{},.-0T:+ \t\n\xff'))
    pack = packing(types, keys=1)
    assert pack is not None
    cuts = [bytes(text), bytes(text[: data.draw(st.integers(0, len(text)))])]
    rows, left = pack(cuts)
    lines = sum(cut.count(b"\n") for place, cut in enumerate(cuts) if place not in left)
    assert b"".join(rows).count(struct.pack(">h", len(types))) >= lines


def test_a_type_that_has_no_binary_form_here_keeps_the_table_at_text():
    assert packing((TEXT, FLOAT8), keys=1) is None
    assert packing((), keys=0) is None


@pytest.mark.parametrize("keys", [-1, 3])
def test_a_key_is_made_of_the_columns_there_are(keys):
    assert packing((TEXT, TEXT), keys=keys) is None


def test_without_an_accelerator_everything_stays_text(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(accelerated, "import_module", missing)
    assert packing((TEXT,), keys=1) is None


# Few letters, so that keys begin alike, are each other's beginnings, or equal.
_KEY_TEXTS = st.text(st.sampled_from("ab\xe9\U0001f600"), max_size=12) | st.text("ab", max_size=20).map(
    "customer#".__add__
)


def _number(less: int, size: int, places: int) -> Decimal:
    """One of those that differ in their last digit only, or in their sign."""
    return Decimal((size if less >= 0 else -size) + less).scaleb(-places)


KEYS: dict[int, st.SearchStrategy[Any]] = {
    TEXT: _KEY_TEXTS.map(str.encode),
    BYTEA: st.binary(max_size=12) | st.lists(st.sampled_from([0, 1, 127, 128, 255]), max_size=12).map(bytes),
    NUMERIC: numbers
    | st.builds(_number, st.integers(-3, 3), st.sampled_from((0, 10**4, 10**20)), st.sampled_from((0, 6))),
    INT8: st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-2, 2),
}
WRITTEN: dict[int, Callable[[Any], str]] = {
    TEXT: bytes.decode,
    BYTEA: lambda content: rf"\\x{content.hex()}",
    NUMERIC: "{:f}".format,
    INT8: str,
}


@settings(max_examples=examples(150))
@given(types=st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=2), data=st.data())
def test_rows_come_in_the_order_of_their_keys_and_equal_ones_in_that_of_the_text(types, data):
    few = [data.draw(st.lists(KEYS[type_], min_size=1, max_size=9)) for type_ in types]
    keys = data.draw(st.lists(st.tuples(*map(st.sampled_from, few)), max_size=60))
    lines = [
        "\t".join([*(WRITTEN[type_](part) for type_, part in zip(types, key, strict=True)), str(number)])
        + "\n"
        for number, key in enumerate(keys)
    ]
    pack = packing((*types, INT4), keys=len(types))
    assert pack is not None

    rows, _ = pack(["".join(lines[start : start + 9]).encode() for start in range(0, len(lines), 9)])

    in_order = sorted(range(len(keys)), key=keys.__getitem__)
    assert b"".join(rows) == b"".join(packed(lines[number], *types, INT4) for number in in_order)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 17, 1000, 4099])
def test_any_number_of_rows_is_brought_into_order(count):
    numbers = [(10**20 + number * 7919 % 10_007) * (-1) ** number for number in range(count)]
    pack = packing((NUMERIC,), keys=1)
    assert pack is not None

    rows, _ = pack([f"{number}\n".encode() for number in numbers])

    assert b"".join(rows) == packed("".join(f"{number}\n" for number in sorted(numbers)), NUMERIC)


def test_many_rows_of_keys_far_apart_are_brought_into_order():
    chance = random.Random(28)
    numbers = [chance.randrange(-(1 << 63), 1 << 63) >> chance.randrange(64) for _ in range(3000)]
    pack = packing((INT8, INT4), keys=1)
    assert pack is not None

    rows, _ = pack(["".join(f"{number}\t{place}\n" for place, number in enumerate(numbers)).encode()])

    in_order = sorted(enumerate(numbers), key=lambda each: each[1])
    assert b"".join(rows) == packed("".join(f"{number}\t{place}\n" for place, number in in_order), INT8, INT4)


@pytest.mark.parametrize("places", [1, 2, 3])
def test_many_keys_that_begin_alike_are_brought_into_order_whatever_came_before(places):
    heads = [str(digit) * places + "x" * 8 for digit in (2, 0, 1)]
    keys = [f"{head}{number * 7919 % 1009:04}" for number in range(50) for head in heads]
    pack = packing((TEXT,), keys=1)
    assert pack is not None

    rows, _ = pack(["".join(f"{key}\n" for key in keys).encode()])

    assert b"".join(rows) == packed("".join(f"{key}\n" for key in sorted(keys)), TEXT)


def test_parts_are_small_enough_for_psycopg_and_hold_whole_rows():
    pack = packing((TEXT,), keys=1)
    assert pack is not None
    sizes = [10, 40_000, 200_000, 90_000, 10, 10_000]

    rows, _ = pack([b"x" * size + b"\n" for size in sizes])

    assert [len(part) for part in rows] == [10 + 10 + 10_000 + 40_000 + 4 * 6, 90_000 + 6, 200_000 + 6]
