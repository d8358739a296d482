"""Items read fast are what botocore would have read; on clients whose answers are made up on a hook."""

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from dualstore.stores.dynamo_replies import read_items_fast

MEMBER = {
    "get_item": "Item",
    "put_item": "Attributes",
    "update_item": "Attributes",
    "delete_item": "Attributes",
    "query": "Items",
}
KEY = {"pk": {"S": "a"}}
REQUEST = {
    "get_item": {"Key": KEY},
    "put_item": {"Item": KEY},
    "update_item": {"Key": KEY},
    "delete_item": {"Key": KEY},
    "query": {"KeyConditionExpression": "pk = :a", "ExpressionAttributeValues": {":a": {"S": "a"}}},
}
REST = {
    "ConsumedCapacity": {"TableName": "things", "CapacityUnits": 1.5, "Table": {"CapacityUnits": 1.5}},
    "ItemCollectionMetrics": {"ItemCollectionKey": KEY, "SizeEstimateRangeGB": [0.0, 1.0]},
    "LastEvaluatedKey": {"pk": {"B": "AP8="}},
    "Count": 1,
    "ScannedCount": 2,
    "Unheard": {"Of": 1},
}


class Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._content


class Answered:
    """A client of its own whose next answer is set."""

    def __init__(self, *, fast: bool) -> None:
        retries = {"mode": "standard", "total_max_attempts": 1}
        self.client = boto3.client(
            "dynamodb",
            region_name="us-east-1",
            aws_access_key_id="unit",
            aws_secret_access_key="unit",
            config=Config(retries=retries, parameter_validation=False),  # type: ignore[arg-type]
        )
        self.answer: tuple[int, bytes] = (200, b"{}")
        self.client.meta.events.register("before-send.dynamodb.*", self._respond)
        if fast:
            read_items_fast(self.client)

    def _respond(self, request: Any, **_: Any) -> AWSResponse:
        status, body = self.answer
        return AWSResponse(request.url, status, {"x-amzn-requestid": "7"}, Body(body))

    def call(self, operation: str, status: int, body: bytes) -> Any:
        """What a call gives, or how it fails."""
        self.answer = (status, body)
        try:
            return getattr(self.client, operation)(TableName="things", **REQUEST[operation])
        except ClientError as error:
            return type(error).__name__, str(error), error.response
        except Exception as error:  # noqa: BLE001 - whatever it is, both are to raise it
            return type(error).__name__


@pytest.fixture(scope="module")
def fast() -> Answered:
    return Answered(fast=True)


@pytest.fixture(scope="module")
def usual() -> Answered:
    return Answered(fast=False)


BINARY = st.binary(max_size=9).map(lambda content: base64.b64encode(content).decode())
TEXT = st.text(max_size=9)
NUMERAL = st.integers().map(str)
LEAVES = st.one_of(
    st.builds(lambda content: {"S": content}, TEXT),
    st.builds(lambda content: {"N": content}, NUMERAL),
    st.builds(lambda content: {"B": content}, BINARY),
    st.builds(lambda content: {"BOOL": content}, st.booleans()),
    st.just({"NULL": True}),
    st.builds(lambda members: {"SS": members}, st.lists(TEXT, min_size=1, max_size=3)),
    st.builds(lambda members: {"NS": members}, st.lists(NUMERAL, min_size=1, max_size=3)),
    st.builds(lambda members: {"BS": members}, st.lists(BINARY, min_size=1, max_size=3)),
)
VALUES = st.recursive(
    LEAVES,
    lambda values: st.one_of(
        st.builds(lambda elements: {"L": elements}, st.lists(values, max_size=3)),
        st.builds(lambda entries: {"M": entries}, st.dictionaries(TEXT, values, max_size=3)),
    ),
    max_leaves=12,
)
ITEMS = st.dictionaries(TEXT, VALUES, max_size=5)
DUMPS = json.dumps


@settings(max_examples=25)
@given(items=st.lists(ITEMS, max_size=3), dumps=st.sampled_from([DUMPS, partial(DUMPS, ensure_ascii=False)]))
def test_every_item_is_read_as_botocore_reads_it(
    fast: Answered, usual: Answered, items: list[dict[str, Any]], dumps: Callable[[Any], str]
) -> None:
    for operation, member in MEMBER.items():
        content = items if member == "Items" else next(iter(items), {})
        body = dumps({member: content, **REST}).encode()
        assert fast.call(operation, 200, body) == usual.call(operation, 200, body)


UNUSUAL = {
    "no item": b"{}",
    "the item is null": b'{"%b": null}',
    "the item is a list of texts": b'{"%b": ["a"]}',
    "a value is null": b'{"%b": {"a": null}}',
    "a value has no type": b'{"%b": {"a": {}}}',
    "a value has two types": b'{"%b": {"a": {"S": "x", "N": null}}}',
    "a type nobody knows": b'{"%b": {"a": {"X": "x"}}}',
    "a content is null": b'{"%b": {"a": {"S": null}}}',
    "a truth is null": b'{"%b": {"a": {"BOOL": null}}}',
    "a text is a number": b'{"%b": {"a": {"S": 1}}}',
    "a list is a map": b'{"%b": {"a": {"L": {}}}}',
    "a list is a text": b'{"%b": {"a": {"L": "x"}}}',
    "a set is a text": b'{"%b": {"a": {"SS": "x"}}}',
    "a member of a set is null": b'{"%b": {"a": {"SS": [null]}}}',
    "base64 without padding": b'{"%b": {"a": {"B": "AP8"}}}',
    "base64 with a line break": b'{"%b": {"a": {"B": "AP8=\\n"}}}',
    "half a surrogate": b'{"%b": {"a": {"S": "\\ud800"}}}',
    "a name twice": b'{"%b": {"a": {"S": "x"}}, "%b": {"b": {"S": "y"}}}',
    "half an answer": b'{"%b": {"a": {"S": "x"',
    "no JSON": b'"%b" is not here',
    "a list": b'["%b"]',
    "nothing": b"",
}


@pytest.mark.parametrize("operation", MEMBER)
@pytest.mark.parametrize("body", UNUSUAL.values(), ids=UNUSUAL)
def test_an_unusual_reply_is_left_to_botocore(
    fast: Answered, usual: Answered, operation: str, body: bytes
) -> None:
    member = MEMBER[operation].encode()
    named = body.replace(b"%b", member)
    assert fast.call(operation, 200, named) == usual.call(operation, 200, named)
    listed = named.replace(b'"%b": ' % member, b'"%b": [' % member).replace(b"}}}", b"}}]}")
    assert fast.call(operation, 200, listed) == usual.call(operation, 200, listed)


@pytest.mark.parametrize("operation", MEMBER)
def test_errors_are_botocores(fast: Answered, usual: Answered, operation: str) -> None:
    refused = {
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "The conditional request failed",
        "Item": {"a": {"B": "AP8="}},
        "Attributes": {"a": {"S": "x"}},
        "Items": [],
    }
    for status in (400, 500):
        body = json.dumps(refused).encode()
        error = fast.call(operation, status, body)
        assert error == usual.call(operation, status, body)
        assert error[2]["Item"] == {"a": {"B": b"\x00\xff"}}


def test_hooks_of_the_application_are_shown_what_botocore_shows_them(fast: Answered, usual: Answered) -> None:
    item = {"pk": {"S": "a"}, "b": {"B": "AP8="}}
    for operation, member in MEMBER.items():
        body = json.dumps({member: [item] if member == "Items" else item, **REST}).encode()
        by_fast, by_usual = shown_of(fast, operation, body), shown_of(usual, operation, body)
        assert by_fast == by_usual
        assert [event.partition(".")[0] for event, *_ in by_fast] == list(EVENTS)


EVENTS = ("response-received", "needs-retry", "after-call")


def shown_of(answered: Answered, operation: str, body: bytes) -> list[Any]:
    """What each event shows of one call."""
    shown: list[Any] = []

    def see(**told: Any) -> None:
        shown.append(_told(told))

    events = answered.client.meta.events
    for event in EVENTS:
        events.register(f"{event}.dynamodb.*", see)
    try:
        answered.call(operation, 200, body)
    finally:
        for event in EVENTS:
            events.unregister(f"{event}.dynamodb.*", see)
    return shown


def _told(told: dict[str, Any]) -> Any:
    """The parts of an event that are values."""
    response = told.get("response")
    return (
        told["event_name"],
        told.get("response_dict"),
        told.get("parsed_response"),
        told.get("parsed"),
        None if response is None else response[1],
    )


def test_an_application_that_changes_the_reply_before_it_is_parsed_is_heeded() -> None:
    """Hooks run in the order of their registration; one that was there first is seen by this one."""
    answered = Answered(fast=False)

    def change(response_dict: dict[str, Any], **_: Any) -> None:
        response_dict["body"] = response_dict["body"].replace(b"before", b"after!")

    answered.client.meta.events.register("before-parse.dynamodb.GetItem", change)
    read_items_fast(answered.client)
    response = answered.call("get_item", 200, b'{"Item": {"a": {"S": "before"}}}')
    assert response["Item"] == {"a": {"S": "after!"}}
