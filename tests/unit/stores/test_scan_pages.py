"""Scan pages are read as bytes, errors as botocore's; on a client that gets its answers from a hook."""

import json

import boto3
import botocore.awsrequest
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from dualstore.errors import Unavailable
from dualstore.mapping.transcoding import PureTranscoder
from dualstore.stores.scan_pages import ScanPages
from mapping_cases import ORDERS
from transcoding_cases import page_of

ORDER = {"c": {"S": "customer"}, "number": {"N": "1"}}


class Raw:
    def __init__(self, body):
        self._body = body

    def stream(self, *_, **__):
        yield self._body


def pages_answered(*answers):
    """Pages of a client whose requests are answered in turn, and the requests."""
    client = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        aws_access_key_id="dualstore",
        aws_secret_access_key="dualstore",
        config=Config(retries={"total_max_attempts": 1}),
    )
    requests, left = [], list(answers)

    def answer(request, **_):
        requests.append(json.loads(request.body))
        status, body = left.pop(0)
        return botocore.awsrequest.AWSResponse(request.url, status, {}, Raw(body))

    client.meta.events.register("before-send.dynamodb.Scan", answer)
    return ScanPages(client, PureTranscoder(ORDERS), "orders-prod"), requests


def test_a_page_comes_as_rows_with_where_the_next_one_begins():
    last = {"c": {"S": "é"}, "number": {"N": "2"}}
    body = page_of(ORDER, ORDER, LastEvaluatedKey=last, ConsumedCapacity={"CapacityUnits": 12.5})
    pages, requests = pages_answered((200, body), (200, page_of()))

    page = pages.read(segment=1, segments=4, page_items=2)
    end = pages.read(segment=1, segments=4, start=page.next_start)

    assert page.rows.text == b"customer\t1" + b"\t\\N" * (len(ORDERS.column_names) - 2) + b"\n" + (
        b"customer\t1" + b"\t\\N" * (len(ORDERS.column_names) - 2) + b"\n"
    )
    assert (page.rows.rows, page.next_start, page.read_units) == (2, last, 12.5)
    assert (end.rows.rows, end.next_start, end.read_units) == (0, None, None)
    assert requests[0] == {
        "TableName": "orders-prod",
        "ConsistentRead": True,
        "Segment": 1,
        "TotalSegments": 4,
        "ReturnConsumedCapacity": "TOTAL",
        "Limit": 2,
    }
    assert requests[1]["ExclusiveStartKey"] == last


def test_the_key_behind_a_page_has_its_binary_back():
    pages, requests = pages_answered((200, page_of(LastEvaluatedKey={"k": {"B": "AP8="}})), (200, page_of()))
    start = pages.read().next_start
    assert start == {"k": {"B": b"\x00\xff"}}
    pages.read(start=start)
    assert requests[1]["ExclusiveStartKey"] == {"k": {"B": "AP8="}}


def test_throttling_is_unavailable_and_a_refusal_is_not():
    prefix = "com.amazonaws.dynamodb.v20120810#"
    throttled = json.dumps({"__type": f"{prefix}ThrottlingException", "message": "slower"}).encode()
    refused = json.dumps({"__type": f"{prefix}ResourceNotFoundException", "message": "where?"}).encode()
    pages, _ = pages_answered((400, throttled), (400, refused), (500, b""))

    with pytest.raises(Unavailable, match="ThrottlingException"):
        pages.read()
    with pytest.raises(ClientError) as raised:
        pages.read()
    assert raised.value.response["Error"]["Code"] == "ResourceNotFoundException"
    with pytest.raises(Unavailable):
        pages.read()


@pytest.mark.parametrize("body", [b"", b'{"Items":[', b'{"Items":[],"LastEvaluatedKey":5}'])
def test_half_an_answer_is_unavailable(body):
    pages, _ = pages_answered((200, body))
    with pytest.raises(Unavailable, match="not one of Scan"):
        pages.read()
