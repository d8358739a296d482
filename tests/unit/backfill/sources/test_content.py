"""A file of lines is read once, whole, wherever reading stopped; and whatever is wrong with it is found."""

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstore.backfill.sources.base import Limits, transcoded
from dualstore.backfill.sources.content import CountingTranscoder, Expected, Tally, line_batches
from dualstore.errors import UnusableSource
from dualstore.mapping.transcoding import PureTranscoder
from exports import md5_of
from mapping_cases import ORDERS

LINES = [b'{"Item":{"id":{"S":"%d"}}}' % number for number in range(500)]
CONTENT = b"".join(line + b"\n" for line in LINES)
FILE = gzip.compress(CONTENT, mtime=0)
EXPECTED = Expected(md5=md5_of(FILE), lines=len(LINES))
SMALL = Limits(batch_bytes=700, block_bytes=100)


def read(file, position=None, limits=SMALL, expected=EXPECTED):
    return line_batches(io.BytesIO(file), position, limits, place="file.json.gz", expected=expected)


def lines_of(batches):
    return b"".join(block for batch in batches for block in batch.blocks).splitlines()


@pytest.mark.parametrize("file", [FILE, CONTENT], ids=["gzip", "plain"])
def test_reading_stopped_after_any_batch_goes_on_with_the_next_line(file):
    whole = list(read(file, expected=Expected(lines=500)))
    assert lines_of(whole) == LINES
    assert [batch.position_after is None for batch in whole] == [False] * (len(whole) - 1) + [True]
    for number, batch in enumerate(whole[:-1], 1):
        rest = list(read(file, batch.position_after, expected=Expected(lines=500)))
        assert lines_of(rest) == lines_of(whole[number:])


contents = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b" ")), max_size=30)


@given(contents, st.booleans(), st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30)), min_size=1))
def test_each_line_is_read_exactly_once_wherever_it_stops_and_however_small_the_batches_become(
    lines, ends_with_newline, sizes
):
    content = b"\n".join(lines) + (b"\n" if ends_with_newline else b"")
    file = gzip.compress(content)
    read_so_far, position, first_line = b"", None, 1
    for batch_bytes, block_bytes in (*sizes, *[(25, 10)] * 999):
        batches = read(file, position, Limits(batch_bytes=batch_bytes, block_bytes=block_bytes), Expected())
        batch = next(batches)
        batches.close()  # killed after each batch
        assert batch.first_line == (first_line if batch.blocks else None)
        part = b"".join(batch.blocks)
        read_so_far += part
        first_line += part.count(b"\n")
        position = batch.position_after
        if position is None:
            break
    assert read_so_far == content


def test_an_empty_file_is_one_empty_batch():
    empty = Expected(lines=0)
    for file in (b"", gzip.compress(b"")):
        (batch,) = read(file, expected=empty)
        assert (batch.blocks, batch.position_after, batch.size_bytes) == ((), None, 0)


def damaged(cut=None, flip=None):
    file = bytearray(FILE[:cut])
    if flip is not None:
        file[flip] ^= 255
    return bytes(file)


FAULTS = {
    "cut off in the middle": (damaged(cut=len(FILE) // 2), EXPECTED, "cut off or damaged"),
    "cut off in its check sum": (damaged(cut=-3), EXPECTED, "cut off or damaged"),
    "damaged in the middle": (damaged(flip=len(FILE) // 2), EXPECTED, "cut off or damaged|not the file"),
    "nothing is there": (b"", EXPECTED, "not the file"),
    "another file": (gzip.compress(CONTENT, mtime=1), EXPECTED, "not the file that its manifest names"),
    "too few lines": (FILE, Expected(lines=501), "has 500 items where its manifest says 501"),
    "too many lines": (FILE, Expected(lines=499), "has 500 items where its manifest says 499"),
}


@pytest.mark.parametrize(("file", "expected", "message"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("limits", [SMALL, Limits()], ids=["small batches", "one batch"])
def test_a_file_that_is_not_what_it_should_be_never_comes_to_its_end(file, expected, message, limits):
    batches = []
    with pytest.raises(UnusableSource, match=message) as raised:
        batches.extend(read(file, None, limits, expected))
    assert all(batch.position_after is not None for batch in batches)
    assert "Item" not in str(raised.value)


@pytest.mark.parametrize(("file", "expected", "message"), FAULTS.values(), ids=FAULTS)
def test_it_is_found_as_well_when_reading_went_on_in_the_middle(file, expected, message):
    position = next(read(FILE)).position_after
    with pytest.raises(UnusableSource):
        list(read(file, position, SMALL, expected))


@pytest.mark.parametrize(
    "offset",
    [
        pytest.param(3, id="no line ends there"),
        pytest.param(len(CONTENT) + 1, id="behind the end"),
    ],
)
def test_reading_goes_on_only_in_the_file_in_which_it_stopped(offset):
    with pytest.raises(UnusableSource, match="not the file that was read before"):
        list(read(FILE, {"offset": offset}, expected=Expected()))


@pytest.mark.parametrize("consumed", ["all", "some", "none"])
def test_lines_are_counted_whether_they_are_transcoded_or_not(consumed):
    tally = Tally()
    transcoder = CountingTranscoder(PureTranscoder(ORDERS), tally)
    raw = line_batches(io.BytesIO(FILE), None, SMALL, place="file.json.gz", expected=EXPECTED, tally=tally)
    first_lines = []
    for batch in transcoded(raw, transcoder):
        first_lines.append(batch.raw.first_line)
        if consumed != "none":
            next(iter(batch.blocks))
        if consumed == "all":
            list(batch.blocks)
    assert first_lines == [batch.first_line for batch in read(FILE)]
    assert first_lines[:3] == [1, 29, 57]


def test_a_line_is_found_again_by_its_number():
    lines = [*LINES[:30], b"", b"not JSON", *LINES[30:]]
    file = gzip.compress(b"\n".join(lines))
    found = {
        line: batch.place_of(line)
        for batch in read(file, expected=Expected())
        for line in lines_of([batch])
        if line
    }
    assert found[b"not JSON"] == "file.json.gz, line 32"
    assert found[LINES[0]] == "file.json.gz, line 1"
    assert found[LINES[30]] == "file.json.gz, line 33"
    assert found[LINES[-1]] == "file.json.gz, line 502"
