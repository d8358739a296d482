"""Transcoding does what the exact way does, byte for byte the same in Python and compiled, or declines."""

import json
import random
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dualstore.errors import ConfigurationError
from dualstore.items import KeyAttribute, KeySchema, TableShape, normalized_item
from dualstore.mapping import unmapped_table
from dualstore.mapping.transcoding import (
    AcceleratedTranscoder,
    PureTranscoder,
    Reason,
    Unreadable,
    accelerated,
    read_line,
    shapes,
    transcoder_of,
)
from mapping_cases import MAPPINGS, ORDERS, READINGS, SESSIONS, items
from transcoding_cases import (
    TRANSCODERS,
    accelerator_is_built,
    fields_of_item,
    fields_of_line,
    line_of,
    meanings,
    page_of,
)
from volume import examples

with_accelerator = pytest.mark.skipif(
    not accelerator_is_built(), reason="the accelerator is not built: pip install ./accelerator"
)
each_table = pytest.mark.parametrize("table", MAPPINGS)
each_transcoder = pytest.mark.parametrize("transcoder", TRANSCODERS)

ORDER = {"c": {"S": "customer"}, "number": {"N": "1"}}
UNDECLINED_NUMBERS = ["0", "1", "-1", "1.5", "-0.25", "12345678901234567890", "9223372036854775807"]


def row_of(mapping, item, transcoder="python"):
    """The one row of an item, or None where it is declined."""
    done = TRANSCODERS[transcoder](mapping).block(line_of(item))
    assert done.rows + len(done.declined) == 1
    return fields_of_line(done.text) if done.rows else None


def field_of(mapping, attribute, value, transcoder="python"):
    """What the column of an attribute holds in an otherwise simple item, and its overflow."""
    key = ORDER if mapping is ORDERS else {"sensor": {"B": b"\x01"}}
    row = row_of(mapping, key | {attribute: value}, transcoder)
    assert row is not None
    place = [column.attribute for column in mapping.columns].index(attribute)
    return row[place], row[-2]


@st.composite
def items_as_they_come(draw, mapping):
    """Items whose attributes stand in any order, as DynamoDB gives them."""
    return dict(draw(st.permutations(list(draw(items(mapping)).items()))))


@each_table
@each_transcoder
@settings(max_examples=examples(60))
@given(data=st.data())
def test_a_row_means_what_the_exact_way_writes(table, transcoder, data):
    mapping = MAPPINGS[table]
    item = normalized_item(data.draw(items(mapping)))

    row = row_of(mapping, item, transcoder)

    if row is not None:
        assert meanings(mapping, row) == meanings(mapping, fields_of_item(mapping, item))


@each_table
@each_transcoder
@settings(max_examples=examples(60))
@given(data=st.data())
def test_json_columns_and_the_overflow_hold_the_very_same_text(table, transcoder, data):
    mapping = MAPPINGS[table]
    item = normalized_item(data.draw(items(mapping)))

    row = row_of(mapping, item, transcoder)

    if row is not None:
        exact = fields_of_item(mapping, item)
        for field, expected, type_ in zip(row, exact, mapping.pg_types, strict=True):
            if type_ in {"json", "jsonb", "text", "varchar"}:
                assert field == expected


@each_table
@each_transcoder
@settings(max_examples=examples(60))
@given(data=st.data())
def test_whatever_is_declined_or_not_the_exact_way_reads_the_item_back(table, transcoder, data):
    mapping = MAPPINGS[table]
    item = normalized_item(data.draw(items(mapping)))
    done = TRANSCODERS[transcoder](mapping).block(line_of(item))
    assert [read_line(mapping.shape, line) for line in done.lines()] == [item]
    assert list(done.declined_lines()) == list(done.lines()) * len(done.declined)


@with_accelerator
@each_table
@settings(max_examples=examples(150))
@given(data=st.data(), ascii_only=st.booleans())
def test_both_transcoders_write_the_same_bytes_and_decline_the_same_items(table, data, ascii_only):
    mapping = MAPPINGS[table]
    some = data.draw(st.lists(items_as_they_come(mapping), max_size=4))
    block = b"".join(line_of(item, ascii_only=ascii_only) for item in some) * 3

    python, compiled = (make(mapping).block(block) for make in TRANSCODERS.values())

    assert (python.text, python.rows, list(python.declined)) == (
        compiled.text,
        compiled.rows,
        list(compiled.declined),
    )


@with_accelerator
@each_table
@settings(max_examples=examples(100))
@given(data=st.data())
def test_both_transcoders_answer_the_same_for_a_page(table, data):
    mapping = MAPPINGS[table]
    body = page_of(
        *data.draw(st.lists(items_as_they_come(mapping), max_size=4)),
        LastEvaluatedKey={"Items": {"S": "[]"}},
    )

    python, compiled = (make(mapping).page(body) for make in TRANSCODERS.values())

    assert python.rows.text == compiled.rows.text
    assert list(python.rows.declined) == list(compiled.rows.declined)
    assert list(python.rows.lines()) == list(compiled.rows.lines())
    assert json.loads(python.rest) == json.loads(compiled.rest)
    assert "Items" not in json.loads(python.rest)


def _same_answer(mapping, block):
    python, compiled = (make(mapping).block(block) for make in TRANSCODERS.values())
    if (python.text, list(python.declined)) == (compiled.text, list(compiled.declined)):
        return True
    return any(_names_a_thing_twice(line) for line in python.lines())


def _names_a_thing_twice(line):
    """DynamoDB never does; msgspec takes the last of the values, the accelerator writes or declines both."""
    try:
        read_line(SESSIONS.shape, line)
    except Unreadable as unreadable:
        return "twice" in unreadable.detail
    return False


@with_accelerator
@each_table
@settings(max_examples=examples(150))
@given(data=st.data())
def test_both_transcoders_agree_on_damaged_lines_too(table, data):
    mapping = MAPPINGS[table]
    line = bytearray(line_of(data.draw(items_as_they_come(mapping)), ascii_only=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(line) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                line[place] = data.draw(
                    st.sampled_from(b'{}[]",:\\ntu0019-+.eE/= \n\x00\x7f\x80\xc3\xed\xff')
                )
            case 1:
                del line[place:]
                line += b"}"
            case _:
                line[place:place] = data.draw(st.binary(max_size=3))

    assert _same_answer(mapping, bytes(line))


@with_accelerator
@given(block=st.binary(max_size=200))
@example(b"")
@example(b"\n \r\n\t\n")
@example(b'{"Item":{}}')
@example(b'{"Item":{"c":{"S":"\\')
@example(b'{"Item":{"c":{"S":"\\u12')
@example(b'{"Item":{"c":{"S":"\xf0\x9f')
def test_both_transcoders_survive_any_bytes(block):
    assert _same_answer(ORDERS, block)


@with_accelerator
@pytest.mark.parametrize("table", MAPPINGS)
def test_thousands_of_mutated_lines_are_taken_the_same_way(table):
    """Longer lines and more damage than Hypothesis makes; seeded, so that a failure can be repeated."""
    mapping, chance = MAPPINGS[table], random.Random(6)
    key = {
        "orders": ORDER,
        "readings": {"sensor": {"B": b"\x01"}},
        "sessions": {"user": {"N": "1"}, 'odd "name"': {"S": "x"}},
        "wares": {"name": {"S": "x"}},
    }[table]
    whole = line_of(
        key
        | {
            "address": {"M": {"a": {"S": 'x"\\\n\t\x00é😀'}, "b": {"L": [{"N": "1.5"}, {"NULL": True}]}}},
            "tags": {"SS": ["a", "b\\", "c"]},
            "thumbs": {"BS": [b"\x00\xff", b"abc"]},
            "placed": {"S": "2024-02-29T07:08:09.123456+0000"},
            "words": {"L": [{"S": "a"}]},
            "_dsv": {"B": b"0123456789abcdef"},
        }
    )
    alphabet = bytes(range(256)) + b'{}[]",:\\' * 20
    for _ in range(1500):
        line = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            place = chance.randrange(len(line))
            line[place : place + chance.randrange(3)] = bytes(chance.choices(alphabet, k=chance.randrange(3)))
        assert _same_answer(mapping, bytes(line)), bytes(line)


@each_transcoder
def test_a_usual_item_is_not_declined(transcoder):
    item = ORDER | {
        "status": {"S": "open"},
        "total": {"N": "12.5"},
        "n": {"S": 'a "quoted"\\ text\twith\nnul \x00 and \x01'},
        "photo": {"B": b"\x00\xff"},
        "paid": {"BOOL": False},
        "placed": {"S": "2024-02-29T07:08:09.123456+0000"},
        "expires": {"N": "1700000000"},
        "version": {"N": "3"},
        "address": {"M": {"street": {"S": "x"}, "n": {"N": "5"}, "none": {"NULL": True}}},
        "lines": {"L": [{"M": {"price": {"N": "1.5"}}}, {"L": []}]},
        "tags": {"SS": ["a", 'b"\\']},
        "sizes": {"NS": ["1", "2.5"]},
        "unknown": {"BS": [b"a", b"bc"]},
        "_dsv": {"B": bytes(range(16))},
        "_dsp": {"B": bytes(16)},
    }

    row = row_of(ORDERS, item, transcoder)

    assert row is not None
    assert meanings(ORDERS, row) == meanings(ORDERS, fields_of_item(ORDERS, item))
    assert json.loads(row[-2]) == {"unknown": {"BS": ["YQ==", "YmM="]}}
    assert row[-1] == rf"\x{bytes(range(16)).hex()}"


@each_transcoder
@pytest.mark.parametrize("number", UNDECLINED_NUMBERS)
def test_usual_numbers_are_not_declined(transcoder, number):
    assert field_of(ORDERS, "total", {"N": number}, transcoder) == (number, None)


@each_transcoder
@pytest.mark.parametrize(
    ("mapping", "attribute", "value", "field"),
    [
        (ORDERS, "version", {"N": "9223372036854775807"}, "9223372036854775807"),
        (ORDERS, "version", {"N": "9223372036854775808"}, None),
        (ORDERS, "version", {"N": "-9223372036854775808"}, "-9223372036854775808"),
        (ORDERS, "version", {"N": "99999999999999999999"}, None),
        (ORDERS, "version", {"N": "1.5"}, None),
        (ORDERS, "version", {"S": "1"}, None),
        (ORDERS, "placed", {"S": "2023-02-29T07:08:09.123456+0000"}, None),
        (ORDERS, "placed", {"S": "2024-05-06T24:00:00.000000+0000"}, None),
        (ORDERS, "placed", {"S": "0000-05-06T01:00:00.000000+0000"}, None),
        (ORDERS, "address", {"M": {"a": {"B": b"x"}}}, None),
        (ORDERS, "lines", {"L": [{"SS": ["a"]}]}, None),
        (READINGS, "small", {"N": "-32768"}, "-32768"),
        (READINGS, "small", {"N": "32768"}, None),
        (READINGS, "label", {"S": "abcde"}, "abcde"),
        (READINGS, "label", {"S": "abcdef"}, None),
        (READINGS, "label", {"S": "\x00\x00é"}, "\x01\x01\x01\x01é"),
        (READINGS, "label", {"S": "\x00\x00\x00"}, None),
        (READINGS, "price", {"N": "12345678.91"}, "12345678.91"),
        (READINGS, "price", {"N": "123456789"}, None),
        (READINGS, "price", {"N": "1.234"}, None),
        (READINGS, "at", {"S": "2024-05-06T07:08:09.123456+0000"}, "2024-05-06T07:08:09.123456"),
        (READINGS, "coarse", {"S": "2024-05-06T07:08:09.123000+0000"}, "2024-05-06T07:08:09.123000+0000"),
        (READINGS, "coarse", {"S": "2024-05-06T07:08:09.123456+0000"}, None),
        (READINGS, "status", {"S": "open"}, "OPEN"),
        (READINGS, "status", {"S": "ajar"}, None),
        (READINGS, "words", {"L": [{"S": "a"}, {"N": "1"}]}, None),
    ],
)
def test_a_value_is_in_its_column_or_else_in_the_overflow(transcoder, mapping, attribute, value, field):
    column, overflow = field_of(mapping, attribute, value, transcoder)

    assert column == field
    assert (overflow is None) == (field is not None)
    if overflow is not None:
        assert list(json.loads(overflow)) == [attribute]


@each_transcoder
@pytest.mark.parametrize(
    "value",
    [
        {"S": 1}, {"N": 1}, {"N": "1e5"}, {"N": "01"}, {"N": "-0"}, {"N": "1.0"}, {"N": ""}, {"N": "१"},
        {"N": "1" * 39}, {"B": "YQ"}, {"B": "YR=="}, {"B": "Y Q="}, {"BOOL": "true"}, {"NULL": False},
        {"SS": []}, {"SS": ["a", "a"]}, {"SS": ["a", 1]}, {"NS": ["1", "1"]}, {"BS": ["YQ==", "YQ=="]},
        {"S": "a", "N": "1"}, {}, {"X": "a"}, None, "a", {"L": {}}, {"M": []}, {"L": [None]}, {"M": {"a": 1}},
        {"SS": [str(number) for number in range(40)] + ["7"]},
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize(
    "attribute", ["n", "total", "photo", "paid", "tags", "sizes", "address", "lines", "x"]
)
def test_what_is_no_value_is_declined(transcoder, attribute, value):
    assert row_of(ORDERS, ORDER | {attribute: value}, transcoder) is None


NUMBER = b'"number":{"N":"1"}'


@each_transcoder
@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b'{"Item":{}}',
        b'{"Item":{"c":{"S":"a"}}}',
        b'{"Item":{"c":{"S":""},%s}}' % NUMBER,
        b'{"Item":{"c":{"N":"1"},%s}}' % NUMBER,
        b'{"Item":{"c":{"S":"a"},%s},"X":1}' % NUMBER,
        b'{"Item":{"c":{"S":"a"},%s}} {}' % NUMBER,
        b'{"Item":{"c":{"S":"a"},%s,"":{"S":"x"}}}' % NUMBER,
        b'{"Item":{"c":{"S":"%s"},%s}}' % (b"a" * 2049, NUMBER),
        b'{"Item":{"c":{"S":"\xff"},%s}}' % NUMBER,
        b'{"Item":{"c":{"S":"\\ud800"},%s}}' % NUMBER,
        b'{"Item":{"c":{"S":"a\x01"},%s}}' % NUMBER,
        b'\xef\xbb\xbf{"Item":{"c":{"S":"a"},%s}}' % NUMBER,
    ],
)
def test_what_is_no_item_of_the_table_is_declined_and_rejected_for_a_reason(transcoder, line):
    done = TRANSCODERS[transcoder](ORDERS).block(line + b"\n")

    assert done.text == b""
    if line:
        assert list(done.declined) == [0]
        with pytest.raises(Unreadable) as raised:
            read_line(ORDERS.shape, line)
        assert raised.value.reason in Reason
        assert "aaa" not in str(raised.value)


@each_transcoder
@pytest.mark.parametrize(("size", "fits"), [(2048, True), (2049, False)])
@pytest.mark.parametrize("character", ["a", "é", "\\"])
def test_a_key_is_as_long_as_dynamodb_lets_it_be(transcoder, size, fits, character):
    width = len(character.encode())
    item = ORDER | {"c": {"S": character * (size // width) + "a" * (size % width)}}
    assert (row_of(ORDERS, item, transcoder) is not None) is fits


@each_transcoder
def test_a_binary_key_is_never_empty(transcoder):
    assert row_of(READINGS, {"sensor": {"B": b""}}, transcoder) is None
    assert row_of(READINGS, {"sensor": {"B": b"\x00"}}, transcoder)[0] == r"\x00"


@each_transcoder
@pytest.mark.parametrize("attribute", ["address", "unknown"])
@pytest.mark.parametrize(("levels", "fits"), [(32, True), (33, False)])
def test_values_nest_as_deep_as_dynamodb_lets_them(transcoder, attribute, levels, fits):
    value = {"S": "x"}
    for _ in range(levels - 1):
        value = {"M": {"a": value}}
    assert (row_of(ORDERS, ORDER | {attribute: value}, transcoder) is not None) is fits


@each_transcoder
def test_large_sets_are_told_apart_whole(transcoder):
    members = [f"member {number}" for number in range(3000)]
    assert field_of(ORDERS, "tags", {"SS": members}, transcoder)[1] is None
    assert row_of(ORDERS, ORDER | {"tags": {"SS": [*members, members[1500]]}}, transcoder) is None


@each_transcoder
def test_white_space_and_blank_lines_change_nothing(transcoder):
    line = line_of(ORDER)
    spaced = b' { "Item" : {"c" : { "S" :"customer" } , "number":{"N":"1"}\t} } \r\n'
    done = TRANSCODERS[transcoder](ORDERS).block(b"\n" + line + b" \t\r\n" + spaced + line[:-1])
    assert (done.rows, list(done.declined)) == (3, [])
    assert set(done.text.splitlines()) == {done.text.splitlines()[0]}


@each_transcoder
def test_rows_stand_beside_the_lines_they_were_made_from(transcoder):
    good = [line_of(ORDER | {"number": {"N": str(number)}}) for number in range(4)]
    block = good[0] + b"not JSON\n" + good[1] + b"\n" + good[2] + b"{}\n" + good[3]

    done = TRANSCODERS[transcoder](ORDERS).block(block)

    assert list(done.declined) == [1, 4]
    assert list(done.declined_lines()) == [b"not JSON", b"{}"]
    pairs = list(done.pairs())
    assert [line + b"\n" for _, line in pairs] == good
    assert [fields_of_line(row)[1] for row, _ in pairs] == ["0", "1", "2", "3"]


@each_transcoder
def test_a_page_that_is_none_is_an_error(transcoder):
    for body in (b"", b"[]", b'{"Items":5}', b'{"Items":[{}', b'{"Items":[{}]', b'{"Items":[{} {}]}'):
        with pytest.raises(ValueError):
            TRANSCODERS[transcoder](ORDERS).page(body)


@each_transcoder
def test_a_page_that_is_damaged_inside_an_item_is_an_error_too(transcoder):
    whole = page_of(ORDER | {"n": {"S": "note"}})
    for damaged in (whole.replace(b'"N"', b"N"), whole.replace(b"note", b"\\ud83d")):
        with pytest.raises(ValueError):
            TRANSCODERS[transcoder](ORDERS).page(damaged)


@each_transcoder
def test_an_item_of_a_page_with_a_text_that_is_not_utf8_is_declined(transcoder):
    body = page_of(ORDER | {"n": {"S": "note"}}, ORDER).replace(b"note", b"no\xff")
    done = TRANSCODERS[transcoder](ORDERS).page(body).rows
    assert (done.rows, list(done.declined)) == (1, [0])


@each_transcoder
def test_an_item_of_a_page_that_is_none_is_declined(transcoder):
    done = (
        TRANSCODERS[transcoder](ORDERS).page(b'{"Items":[{"c":5},{"c":{"S":"a"},"number":{"N":"1"}},7]}').rows
    )
    assert (done.rows, list(done.declined)) == (1, [0, 2])
    assert list(done.declined_lines()) == [b'{"Item":{"c":5}}', b'{"Item":7}']


def test_an_accelerator_of_another_version_is_not_used(monkeypatch):
    class Other:
        INTERFACE = accelerated.INTERFACE + 1

    monkeypatch.setattr(accelerated, "import_module", lambda _: Other)
    assert isinstance(transcoder_of(ORDERS), PureTranscoder)
    with pytest.raises(ConfigurationError, match="another version"):
        transcoder_of(ORDERS, accelerated=True)


def test_without_an_accelerator_python_does_the_work(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(accelerated, "import_module", missing)
    assert isinstance(transcoder_of(ORDERS), PureTranscoder)
    with pytest.raises(ConfigurationError, match="pip install"):
        transcoder_of(ORDERS, accelerated=True)


@with_accelerator
def test_the_accelerator_is_used_where_it_is_and_may_be():
    assert isinstance(transcoder_of(ORDERS), AcceleratedTranscoder)
    assert isinstance(transcoder_of(ORDERS, accelerated=False), PureTranscoder)


@each_transcoder
def test_a_key_of_numbers_is_declined_where_its_text_is_not_the_one(transcoder):
    mapping = unmapped_table("n", TableShape("n", KeySchema(KeyAttribute("k", "N"))))
    assert row_of(mapping, {"k": {"N": "1.00"}}, transcoder) is None
    assert row_of(mapping, {"k": {"N": "100"}}, transcoder)[0] == "100"


def _alike(count=60):
    return [
        ORDER
        | {
            "number": {"N": str(number)},
            "status": {"S": f"100% {number}"},
            "total": {"N": f"{number}.5"},
            "placed": {"S": f"2024-02-{number % 28 + 1:02}T07:08:09.123456+0000"},
            "version": {"N": str(number)},
            "paid": {"BOOL": number % 2 == 0},
            "photo": {"B": bytes([number])},
            "expires": {"N": str(1_700_000_000 + number)},
            "address": {"M": {"a.b": {"S": f"x{number}"}, "m": {"M": {"none": {"NULL": True}}}}},
            "tags": {"SS": ["a", f"b{number}"]},
            "%s": {"M": {"t": {"SS": ["a,b", str(number)]}, "b": {"B": bytes([number])}}},
            "_dsv": {"B": bytes([number]) * 16},
            "_dsp": {"B": bytes(16)},
            "x.y": {"N": str(number)},
        }
        for number in range(count)
    ]


_ODD = [
    {"x.y": None, "xZy": {"N": "1"}},
    {"version": {"N": "9223372036854775808"}},
    {"version": {"N": "1.5"}},
    {"total": {"N": "1e5"}},
    {"placed": {"S": "2024-02-30T07:08:09.123456+0000"}},
    {"placed": {"S": "2024-02-29T07:08:09.123456+0000"}},
    {"paid": {"BOOL": "true"}},
    {"photo": {"B": "YR=="}},
    {"expires": {"N": "1e5"}},
    {"expires": {"N": "99999999999999999999"}},
    {"tags": {"SS": ["a", "a"]}},
    {"tags": {"SS": []}},
    {"tags": {"SS": ['","', "b"]}},
    {"status": {"S": "tab\t"}},
    {"status": {"S": "\x00"}},
    {"status": {"S": "é\x7f😀"}},
    {"c": {"S": ""}},
    {"c": {"S": "é" * 1024}},
    {"c": {"S": "é" * 1025}},
    {"_dsv": {"B": bytes(15)}},
    {"_dsp": {"S": "x"}},
    {"address": {"M": {"a.b": {"S": "x"}, "m": {"M": {"none": {"NULL": False}}}}}},
    {"address": {"M": {"aXb": {"S": "x"}, "m": {"M": {"none": {"NULL": True}}}}}},
]


@with_accelerator
@pytest.mark.parametrize("odd", _ODD, ids=repr)
@pytest.mark.parametrize("as_page", [False, True], ids=["lines", "page"])
def test_an_odd_item_among_many_alike_is_taken_as_if_it_stood_alone(odd, as_page):
    some = _alike()
    some[50] = {name: value for name, value in (some[50] | odd).items() if value is not None}
    if as_page:
        python, compiled = (make(ORDERS).page(page_of(*some)).rows for make in TRANSCODERS.values())
    else:
        block = b"".join(map(line_of, some))
        python, compiled = (make(ORDERS).block(block) for make in TRANSCODERS.values())
        alone = PureTranscoder(ORDERS).block(line_of(some[50]))
        assert (alone.text or b"\n") in python.text
        assert (50 in python.declined) is (alone.rows == 0)

    assert python.text == compiled.text
    assert list(python.declined) == list(compiled.declined)
    assert set(python.declined) <= {50}


@with_accelerator
@each_table
@settings(max_examples=examples(100))
@given(data=st.data())
def test_items_of_one_shape_are_taken_as_any_others(table, data):
    """The first lines teach the shape; what stands in the last one varies, damage included."""
    mapping = MAPPINGS[table]
    first, varied = (line_of(data.draw(items_as_they_come(mapping))) for _ in range(2))
    texts = re.findall(rb'"(?:[^"\\]|\\.)*"', varied) or [b'""']
    places = [match.span() for match in re.finditer(rb'(?<=:)"(?:[^"\\]|\\.)*"', first)]
    block = first * 40
    for start, end in places:
        block += first[:start] + data.draw(st.sampled_from(texts)) + first[end:]

    assert _same_answer(mapping, block)


@each_transcoder
def test_in_whatever_order_attributes_stand_the_row_is_the_same(transcoder):
    (item,), chance = _alike(1), random.Random(6)
    item = {name: value for name, value in item.items() if name not in {"x.y", "_dsp"}}
    orders = [chance.sample(list(item.items()), len(item)) for _ in range(30)]
    block = b"".join(line_of(dict(order)) * chance.randrange(1, 4) for order in orders)

    done = TRANSCODERS[transcoder](ORDERS).block(block)

    assert (done.rows, list(done.declined)) == (block.count(b"\n"), [])
    assert set(done.text.splitlines()) == {done.text.splitlines()[0]}


@each_transcoder
def test_an_item_that_lacks_what_those_before_it_had_is_taken_as_if_it_stood_alone(transcoder):
    (item,), chance, transcode = _alike(1), random.Random(6), TRANSCODERS[transcoder](ORDERS).block
    key = list(ORDER.items())
    others = [each for each in item.items() if each[0] not in ORDER]
    lines = [line_of(item) * 2]
    for _ in range(60):
        some = key + chance.sample(others, chance.randrange(len(others)))
        lines.append(line_of(dict(chance.sample(some, len(some)))))

    assert transcode(b"".join(lines)).text == b"".join(transcode(line).text for line in lines)


@with_accelerator
@pytest.mark.parametrize("name", ["c", "version", "x.y"])
def test_an_attribute_that_stands_twice_never_makes_a_row_of_two_fields(name):
    lines = list(map(line_of, _alike()))
    value = json.dumps(json.loads(lines[50])["Item"][name])
    lines[50] = lines[50].removesuffix(b"}}\n") + f',"{name}":{value}}}}}\n'.encode()

    done = TRANSCODERS["accelerated"](ORDERS).block(b"".join(lines))

    assert {len(fields_of_line(line)) for line in done.text.splitlines(keepends=True)} == {
        len(ORDERS.columns) + 2
    }
    assert list(done.declined) == ([] if name == "x.y" else [50])


@each_transcoder
def test_a_quote_in_a_name_has_to_be_escaped(transcoder):
    line = line_of({"user": {"N": "1"}, 'odd "name"': {"S": "x"}})
    unescaped = line.replace(rb"\"", b'"')

    done = TRANSCODERS[transcoder](SESSIONS).block(line + unescaped + line)

    assert unescaped != line
    assert list(done.declined) == [1]


def test_a_line_that_is_not_utf8_leaves_the_others_alone():
    block = b"".join(map(line_of, _alike()))
    lines = block.splitlines(keepends=True)
    lines[50] = lines[50].replace(b"x50", b"x\xff")
    done = PureTranscoder(ORDERS).block(b"".join(lines))
    assert list(done.declined) == [50]


def test_shapes_that_do_not_pay_are_forgotten(monkeypatch):
    monkeypatch.setattr(shapes, "_TRIAL_LINES", 50)
    transcoder = PureTranscoder(ORDERS)
    different = [ORDER | {f"attribute {number}": {"S": "x"}} for number in range(200)]
    for _ in range(3):
        assert transcoder.block(b"".join(map(line_of, different))).rows == 200
    assert transcoder._shapes._shapes == []
    assert transcoder._shapes._learned <= shapes._MOST_LEARNED
