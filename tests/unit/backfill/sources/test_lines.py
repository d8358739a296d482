"""Lines of other tools become lines of an export; standard input is read once, but for the batch at hand."""

import io
from itertools import islice

import pytest

from dualstore.backfill.sources import Limits, StandardInput
from dualstore.backfill.sources.lines import enveloped
from dualstore.errors import UnusableSource
from dualstore.mapping.transcoding import PureTranscoder, Reason, read_lines
from mapping_cases import ORDERS

BARE = b'{"c":{"S":"a"},"number":{"N":"1"}}'
WRAPPED = b'{"Item":%b}' % BARE
SMALL = Limits(batch_bytes=300, block_bytes=100)


def test_bare_items_and_those_of_exports_may_be_mixed():
    assert enveloped(b"\n".join([BARE, WRAPPED, b"", b"  " + BARE + b"\r"])) == b"\n".join(
        [WRAPPED, WRAPPED, b"", WRAPPED]
    )
    assert enveloped(b'{ "Item" : {}}\n') == b'{ "Item" : {}}\n'


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_block_of_an_export_is_left_as_it_is(end):
    block = b"\n".join([WRAPPED] * 3) + end
    assert enveloped(block) is block


def test_an_attribute_named_item_in_front_is_refused_and_not_lost():
    line = enveloped(b'{"Item":{"S":"x"},"c":{"S":"a"},"number":{"N":"1"}}')
    items, (rejected,) = read_lines(ORDERS.shape, [line])
    assert (items, rejected.reason) == ([], Reason.NO_ITEM)
    items, _ = read_lines(ORDERS.shape, [enveloped(b'{"c":{"S":"a"},"number":{"N":"1"},"Item":{"S":"x"}}')])
    assert items == [{"c": {"S": "a"}, "number": {"N": "1"}, "Item": {"S": "x"}}]


def source_and_batches(lines=40):
    content = b"".join(b'{"c":{"S":"a"},"number":{"N":"%d"}}\n' % number for number in range(lines))
    source = StandardInput(io.BytesIO(content))
    (description,) = source.pieces()
    return source, lambda position=None: source.read_raw(description, position, SMALL)


def numbers(batches):
    items, rejected = read_lines(
        ORDERS.shape, b"".join(block for batch in batches for block in batch.blocks).splitlines()
    )
    assert not rejected
    return [int(item["number"]["N"]) for item in items]


def test_standard_input_is_read_whole():
    _, read = source_and_batches()
    batches = list(read())
    assert len(batches) > 3
    assert numbers(batches) == list(range(40))


def test_the_batch_at_hand_can_be_read_again_and_then_what_follows():
    _, read = source_and_batches()
    first = next(read())
    assert next(read()) == first  # loading the first one failed
    second, third = islice(read(first.position_after), 2)
    assert next(read(second.position_after)) == third  # loading the third one failed
    rest = list(read(third.position_after))  # its commit got through, its reply did not
    assert numbers([first, second, third, *rest]) == list(range(40))
    assert list(read(rest[-2].position_after)) == rest[-1:]


@pytest.mark.parametrize("position", [{"offset": 5}, {"offset": 0}, None])
def test_what_has_gone_by_cannot_be_read_again(position):
    _, read = source_and_batches()
    second = read()
    next(second), next(second)
    with pytest.raises(UnusableSource, match="abandon this run and start a new one"):
        next(read(position))


def test_another_process_cannot_go_on():
    _, read = source_and_batches()
    position = next(read()).position_after
    _, other = source_and_batches()
    with pytest.raises(UnusableSource, match="cannot be read again from the middle"):
        next(other(position))


def test_a_bad_line_is_named_by_its_number_and_never_shown():
    source = StandardInput(io.BytesIO(BARE + b"\n\nsecret\n" + BARE))
    (batch,) = source.read(source.pieces()[0], None, PureTranscoder(ORDERS), Limits())
    (block,) = batch.blocks
    _, (rejected,) = read_lines(ORDERS.shape, block.declined_lines())
    assert batch.place_of(rejected) == "standard input, line 3"
    assert "secret" not in f"{batch.place_of(rejected)} {rejected!r} {rejected.detail}"
