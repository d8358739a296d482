"""A compressed file comes as blocks of whole lines and batches of them, whatever its size."""

import gzip
import io
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualstore.backfill import blocks as module
from dualstore.backfill.blocks import batches_of, blocks_of_lines, gunzipped

LINES = b"".join(b'{"Item":%d}\n' % number for number in range(5000))


def decompressors():
    yield pytest.param(zlib.decompressobj, id="zlib")
    if module.isal_zlib is not None:
        yield pytest.param(module.isal_zlib.decompressobj, id="isal")


@pytest.fixture(params=decompressors(), autouse=True)
def decompressor(request, monkeypatch):
    monkeypatch.setattr(module, "_decompressor", request.param)


@pytest.mark.parametrize("read_bytes", [1, 7, 100_000])
def test_a_gzip_file_comes_whole(read_bytes):
    assert b"".join(gunzipped(io.BytesIO(gzip.compress(LINES)), read_bytes=read_bytes)) == LINES


@pytest.mark.parametrize("read_bytes", [1, 7, 100_000])
def test_a_file_of_several_gzip_members_comes_whole(read_bytes):
    compressed = gzip.compress(b"first\n") + gzip.compress(b"") + gzip.compress(LINES)
    assert b"".join(gunzipped(io.BytesIO(compressed), read_bytes=read_bytes)) == b"first\n" + LINES


@pytest.mark.parametrize("cut", [0, 1, 15, -9, -1])
def test_a_file_that_ends_in_the_middle_is_an_error(cut):
    with pytest.raises(EOFError):
        list(gunzipped(io.BytesIO(gzip.compress(LINES)[:cut])))


def test_a_damaged_file_is_an_error():
    compressed = bytearray(gzip.compress(LINES))
    compressed[-6] ^= 1  # the check sum
    with pytest.raises(Exception, match=r"(?i)check|crc|gzip"):
        list(gunzipped(io.BytesIO(compressed)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the same for every example
@given(
    st.lists(st.text("ab\n", max_size=20).map(str.encode), max_size=9),
    st.integers(1, 12),
)
def test_blocks_are_the_content_and_end_where_lines_do(parts, block_bytes):
    blocks = list(blocks_of_lines(parts, block_bytes=block_bytes))

    assert b"".join(blocks) == b"".join(parts)
    for block in blocks[:-1]:
        assert block.find(b"\n", block_bytes - 1) == len(block) - 1
    for block in blocks:
        longest = max(map(len, block.splitlines(keepends=True)))
        assert len(block) < block_bytes + longest


def test_batches_are_bounded_and_the_last_one_is_known():
    blocks = [b"12345"] * 7
    batches = list(batches_of(blocks, batch_bytes=10))
    assert [(len(batch), is_last) for batch, is_last in batches] == [
        (2, False),
        (2, False),
        (2, False),
        (1, True),
    ]
    assert list(batches_of([])) == []
