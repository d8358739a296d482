"""DynamoDB's JSON over HTTP: what a request says, and what an answer looks like."""

import base64
import json
import zlib
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError

from dualstore.serving import wire
from dualstore.serving.wire import WireError


def decoded(name, document):
    return wire.decoded(name, json.dumps(document).encode())


def test_a_request_reaches_the_stores_as_boto3_would_have_handed_it_over():
    item = {
        "b": {"B": base64.b64encode(b"\0\xff").decode()},
        "bs": {"BS": [base64.b64encode(b"x").decode()]},
        "l": {"L": [{"M": {"deep": {"NULL": True}}}, {"BOOL": False}]},
        "n": {"N": "1.50"},
    }
    request = decoded("PutItem", {"TableName": "things", "Item": item, "Nonsense": 1, "Expected": None})
    assert request == {
        "TableName": "things",
        "Item": {**item, "b": {"B": b"\0\xff"}, "bs": {"BS": [b"x"]}},
    }


def test_a_limit_that_came_as_a_float_is_a_whole_number():
    assert decoded("Scan", {"TableName": "things", "Limit": 2.0, "ConsistentRead": True}) == {
        "TableName": "things",
        "Limit": 2,
        "ConsistentRead": True,
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"\xff\xfe",
        b'{"NoParameter": NaN}',
        b'{"TableName": 5}',
        b'{"TableName": {}}',
        b'{"Key": []}',
        b'{"Key": {"pk": "text"}}',
        b'{"Key": {"pk": {"B": "no base 64!"}}}',
        b'{"Key": {"pk": {"B": 1}}}',
        b'{"ConsistentRead": "yes"}',
        b'{"AttributesToGet": {}}',
        b'{"AttributesToGet": [null]}',
        b'{"Key": {"pk": {"L": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}}",
        b'{"Key": {"pk": ' + b'{"L": [' * 10_000 + b"]}" * 10_000 + b"}}",
    ],
    ids=lambda body: body[:30].decode(errors="replace"),
)
def test_what_is_no_request_is_a_serialization_exception(body):
    with pytest.raises(WireError) as caught:
        wire.decoded("GetItem", body)
    assert (caught.value.code, caught.value.status) == ("SerializationException", 400)


@pytest.mark.parametrize("limit", ["NaN", "Infinity", "1e999", '"1"', "true", "9" * 5_000])
def test_a_number_that_is_none_is_refused(limit):
    with pytest.raises(WireError):
        wire.decoded("Scan", f'{{"Limit": {limit}}}'.encode())


def test_a_message_names_types_and_never_what_was_sent():
    with pytest.raises(WireError) as caught:
        decoded("PutItem", {"Item": {"pk": {"S": ["secret"]}}})
    assert "secret" not in caught.value.message
    assert "a list where a string is expected" in caught.value.message


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("", ""),
        ("DynamoDB_20111205.GetItem", ""),
        ("DynamoDBStreams_20120810.ListStreams", "no streams"),
    ],
)
def test_what_names_no_operation_is_told(target, told):
    with pytest.raises(WireError) as caught:
        wire.operation_named(target)
    assert caught.value.code == "UnknownOperationException"
    assert told in caught.value.message


def test_an_operation_that_dynamodb_does_not_have_is_told():
    with pytest.raises(WireError) as caught:
        decoded("MakeCoffee", {})
    assert caught.value.code == "UnknownOperationException"


def test_an_answer_carries_binary_values_as_base64_times_as_seconds_and_a_checksum():
    answer = wire.encoded(
        {
            "Item": {"b": {"B": b"\0\xff"}, "s": {"S": "é\0"}},
            "At": datetime.fromtimestamp(1.5, UTC),
            "ResponseMetadata": {"HTTPStatusCode": 200},
        }
    )
    assert json.loads(answer.body) == {
        "Item": {"b": {"B": "AP8="}, "s": {"S": "é\0"}},
        "At": 1.5,
    }
    assert (answer.status, answer.checksum) == (200, str(zlib.crc32(answer.body)))


def test_a_refusal_carries_what_boto3_would_read_from_it():
    error = ClientError(
        {
            "Error": {"Code": "ConditionalCheckFailedException", "Message": "no"},
            "Item": {"pk": {"B": b"x"}},
            "ResponseMetadata": {"HTTPStatusCode": 400},
        },
        "PutItem",
    )
    answer = wire.refused(error)
    assert answer.status == 400
    assert json.loads(answer.body) == {
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "no",
        "Item": {"pk": {"B": "eA=="}},
    }


def test_text_that_is_no_unicode_does_not_break_an_answer():
    assert json.loads(wire.failed("ValidationException", "\ud800").body)["message"] == "?"
