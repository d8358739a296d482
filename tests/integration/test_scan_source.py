"""A live table is scanned whole, in segments, by processes that take turns."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from dualstore.backfill.sources import Limits, ScanTuning, SourceContext, source_from, source_of
from dualstore.mapping.transcoding import PureTranscoder, read_lines
from dualstore.stores.source_clients import SourceClients
from mapping_cases import ORDERS


def numbers_of_lines(blocks):
    items, rejected = read_lines(ORDERS.shape, b"".join(blocks).splitlines())
    assert not rejected
    return [int(item["number"]["N"]) for item in items]


def numbers_of_rows(blocks):
    return [int(line.split(b"\t")[1]) for block in blocks for line in block.text.splitlines()]


NUMBERS = {"raw": numbers_of_lines, "transcoded": numbers_of_rows}
READ = {
    "raw": lambda source, *where: source.read_raw(*where),
    "transcoded": lambda source, piece, position, limits: source.read(
        piece, position, PureTranscoder(ORDERS), limits
    ),
}


def order(number):
    return {"c": {"S": f"é{number % 7}"}, "number": {"N": str(number)}, "photo": {"B": bytes([number])}}


@pytest.fixture
def orders(dynamodb, table_name):
    dynamodb.create_table(
        TableName=table_name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": "c", "KeyType": "HASH"},
            {"AttributeName": "number", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "c", "AttributeType": "S"},
            {"AttributeName": "number", "AttributeType": "N"},
        ],
    )
    for begin in range(0, 75, 25):
        puts = [{"PutRequest": {"Item": order(number)}} for number in range(begin, begin + 25)]
        dynamodb.batch_write_item(RequestItems={table_name: puts})
    return table_name


@pytest.mark.parametrize("how", ["raw", "transcoded"])
def test_a_live_table_is_scanned_whole_and_gone_on_with(dynamodb_server, orders, how):
    shape = replace(ORDERS.shape, name=orders)
    with SourceClients(endpoint_url=dynamodb_server.endpoint_url, region="us-east-1") as clients:
        context = SourceContext(shape, clients)
        planned = source_from(["scan"], context, scan=ScanTuning(segments=3))
        pieces = json.loads(json.dumps(planned.pieces()))
        parameters = json.loads(json.dumps(planned.parameters()))
        limits = Limits(batch_bytes=300, page_items=4)
        seen: Counter[int] = Counter()
        stops = 0
        for piece in pieces:
            position = None
            while True:
                source = source_of(parameters, context)
                batch = next(READ[how](source, piece, position, limits))
                seen.update(NUMBERS[how](batch.blocks))
                if batch.position_after is None:
                    break
                position = json.loads(json.dumps(batch.position_after))
                stops += 1
    assert seen == dict.fromkeys(range(75), 1)
    assert stops > 6
