"""Half an answer of DynamoDB's is none."""

import json
import zlib

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ChecksumError, ClientError

from dualstore.stores.dynamo import Outcome, dynamo_clients, outcome
from dualstore.stores.dynamo_whole import refuse_half_answers

WHOLE = json.dumps({"Item": {"id": {"S": "x" * 50}}}).encode()
ACCOUNT = {"region_name": "eu-west-1", "aws_access_key_id": "nobody", "aws_secret_access_key": "nobody"}


class Sent:
    """What comes over a line, once."""

    def __init__(self, body):
        self._body = body

    def stream(self):
        yield self._body


def answered(client, operation, *answers):
    """Have the client get these answers, headers and body, one after the other; how many it asked for."""
    asked = []

    def answer(request, **_):
        headers, body = answers[min(len(asked), len(answers) - 1)]
        asked.append(request)
        return AWSResponse(request.url, 200, headers, Sent(body))

    client.meta.events.register(f"before-send.*.{operation}", answer)
    return asked


def length(body):
    return {"content-length": str(len(body))}


HALVES = {
    "shorter than announced": (length(WHOLE), WHOLE[: len(WHOLE) // 2]),
    "cut after a brace": (length(WHOLE), WHOLE[:-1]),
    "cut, of unknown length": ({}, WHOLE[: len(WHOLE) // 2]),
    "empty": (length(b""), b""),
    "a page of a proxy": ({}, b"<html></html>"),
}


@pytest.fixture
def once():
    client = boto3.client("dynamodb", config=Config(retries={"total_max_attempts": 1}), **ACCOUNT)
    refuse_half_answers(client)
    refuse_half_answers(client)
    return client


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_half_an_answer_raises_where_botocore_would_say_that_there_is_no_item(once, half):
    answered(once, "GetItem", half)

    with pytest.raises(ClientError, match="not whole") as raised:
        once.get_item(TableName="orders", Key={"id": {"S": "1"}})

    assert outcome(raised.value) is Outcome.UNKNOWN


def test_an_answer_of_another_checksum_raises_here_or_in_botocore(once):
    answered(once, "GetItem", ({"x-amz-crc32": str(zlib.crc32(WHOLE))}, WHOLE.replace(b"x", b"y")))

    with pytest.raises((ClientError, ChecksumError), match=r"not whole|crc32") as raised:
        once.get_item(TableName="orders", Key={"id": {"S": "1"}})

    assert outcome(raised.value) is Outcome.UNKNOWN


def test_a_whole_answer_is_given_as_it_is(once):
    answered(once, "GetItem", (length(WHOLE) | {"x-amz-crc32": str(zlib.crc32(WHOLE))}, WHOLE))

    assert once.get_item(TableName="orders", Key={"id": {"S": "1"}})["Item"] == {"id": {"S": "x" * 50}}


def test_a_read_is_sent_again_and_a_write_is_not():
    half, whole = HALVES["shorter than announced"], (length(WHOLE), WHOLE)
    made = dynamo_clients(region="eu-west-1", access_key_id="nobody", secret_access_key="nobody")
    with made as clients:
        read, written = (
            answered(clients.reads, "GetItem", half, whole),
            answered(clients.writes, "PutItem", half),
        )

        assert clients.reads.get_item(TableName="orders", Key={"id": {"S": "1"}})["Item"]
        with pytest.raises(ClientError, match="not whole"):
            clients.writes.put_item(TableName="orders", Item={"id": {"S": "1"}})

    assert (len(read), len(written)) == (2, 1)


def test_half_an_answer_of_a_stream_does_not_end_its_shard():
    client = boto3.client("dynamodbstreams", config=Config(retries={"total_max_attempts": 1}), **ACCOUNT)
    refuse_half_answers(client)
    answered(client, "GetRecords", HALVES["shorter than announced"])

    with pytest.raises(ClientError, match="not whole"):
        client.get_records(ShardIterator="i")
