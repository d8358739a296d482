"""DynamoStore on real clients whose answers are made up on botocore's event hook: nothing is sent."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import boto3
import botocore
import botocore.exceptions as raised
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from dualstore.errors import RequestRejected, client_error
from dualstore.operations import OPERATIONS, parse
from dualstore.stages import Side
from dualstore.stores import DynamoClients, DynamoStore, Outcome, dynamo_clients, outcome


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._content


def answering(client: Any, answer: Callable[[Any], tuple[int, dict] | Exception]) -> list[dict]:
    """Let a client get made-up answers; gives the list that its requests are put into."""
    asked: list[dict] = []

    def respond(request: Any, **_: Any) -> AWSResponse:
        asked.append({"operation": request.headers["X-Amz-Target"].decode().rpartition(".")[2]})
        asked[-1]["request"] = json.loads(request.body)
        given = answer(request)
        if isinstance(given, Exception):
            raise given
        status, body = given
        return AWSResponse(request.url, status, {}, _Body(json.dumps(body).encode()))

    client.meta.events.register("before-send.dynamodb.*", respond)
    return asked


@pytest.fixture
def clients() -> Iterator[DynamoClients]:
    with dynamo_clients(
        endpoint_url="http://127.0.0.1:1",
        region="us-east-1",
        access_key_id="unit",
        secret_access_key="unit",
        connect_timeout=timedelta(seconds=0.5),
        read_timeout=timedelta(seconds=2),
    ) as clients:
        yield clients


@pytest.fixture
def store(clients) -> DynamoStore:
    return DynamoStore(reads=clients.reads, writes=clients.writes)


def test_it_is_the_dynamodb_side(store):
    assert store.side is Side.DYNAMODB


def test_a_request_is_passed_on_as_it_is_and_the_answer_too(store, clients):
    asked = answering(clients.reads, lambda _: (200, {"Item": {"pk": {"S": "a"}, "b": {"B": "AP8="}}}))
    request = {"TableName": "things", "Key": {"pk": {"S": "a"}}, "ConsistentRead": True}
    response = store.execute(parse("GetItem", request))
    assert asked == [{"operation": "GetItem", "request": request}]
    assert response["Item"] == {"pk": {"S": "a"}, "b": {"B": b"\x00\xff"}}


@pytest.mark.parametrize("name", OPERATIONS)
def test_reads_and_writes_go_through_their_own_clients(store, clients, name):
    reads = answering(clients.reads, lambda _: (200, {}))
    writes = answering(clients.writes, lambda _: (200, {}))
    store.execute(parse(name, {"RequestItems": {}} if name.startswith("Batch") else {}))
    asked, silent = (reads, writes) if OPERATIONS[name].reads else (writes, reads)
    assert [each["operation"] for each in asked] == [name]
    assert silent == []


FAULTS = {
    "throttled": (400, {"__type": "com.amazonaws#ThrottlingException", "message": "slow down"}),
    "internal error": (500, {"__type": "com.amazonaws#InternalServerError", "message": "oops"}),
    "timeout": raised.ReadTimeoutError(endpoint_url="x"),
    "closed": raised.ConnectionClosedError(endpoint_url="x"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_write_is_sent_once_whatever_happens(store, clients, fault):
    asked = answering(clients.writes, lambda _: fault)
    with pytest.raises((raised.ClientError, raised.BotoCoreError)):
        store.execute(parse("PutItem", {"TableName": "things", "Item": {}}))
    assert len(asked) == 1


def test_a_read_is_sent_again(store, clients, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    asked = answering(clients.reads, lambda _: FAULTS["throttled"] if len(asked) < 3 else (200, {}))
    store.execute(parse("GetItem", {"TableName": "things", "Key": {}}))
    assert len(asked) == 3


def test_both_clients_have_timeouts(clients):
    for client in (clients.reads, clients.writes):
        config = client.meta.config
        assert (config.connect_timeout, config.read_timeout) == (0.5, 2)


def test_validating_requests_is_left_to_the_server(store, clients):
    answer = (400, {"__type": "com.amazonaws#ValidationException", "message": "no"})
    for client, name in ((clients.reads, "GetItem"), (clients.writes, "PutItem")):
        answering(client, lambda _: answer)
        with pytest.raises(ClientError):
            store.execute(parse(name, {}))


def test_requests_name_boto3_and_the_application_as_ever(monkeypatch):
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", "orders-service")
    with dynamo_clients(region="us-east-1", access_key_id="unit", secret_access_key="unit") as clients:
        named = []
        clients.writes.meta.events.register_first(
            "before-send.dynamodb.*", lambda request, **_: named.append(request.headers["User-Agent"])
        )
        answering(clients.writes, lambda _: (200, {}))
        clients.writes.put_item(TableName="things", Item={})
    (name,) = named
    products = name.decode().split()
    assert products[0] == f"Boto3/{boto3.__version__}"
    assert products.count(f"Botocore/{botocore.__version__}") == 1
    assert "app/orders-service" in products


def test_describe_gives_the_shape(store, clients):
    answer = {
        "Table": {
            "TableName": "things",
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        }
    }
    answering(clients.reads, lambda _: (200, answer))
    shape = store.describe("things")
    assert (shape.name, shape.keys.names) == ("things", ("pk",))


# --- Outcomes ----------------------------------------------------------------------------------


def refused(code: str, status: int = 400, reasons: list[str] | None = None) -> ClientError:
    told = None if reasons is None else [{"Code": reason} for reason in reasons]
    error = client_error("PutItem", RequestRejected(code, "", reasons=told))
    error.response["ResponseMetadata"]["HTTPStatusCode"] = status
    return error


CANCELLED = "TransactionCanceledException"
OUTCOMES = [
    (refused("ConditionalCheckFailedException"), Outcome.REFUSED),
    (refused("ValidationException"), Outcome.REFUSED),
    (refused("ResourceNotFoundException"), Outcome.REFUSED),
    (refused("ItemCollectionSizeLimitExceededException"), Outcome.REFUSED),
    (refused("IdempotentParameterMismatchException"), Outcome.REFUSED),
    (refused("AccessDeniedException"), Outcome.REFUSED),
    (refused("ExpiredTokenException"), Outcome.REFUSED),
    (refused(CANCELLED, reasons=["None", "ConditionalCheckFailed"]), Outcome.REFUSED),
    (refused(CANCELLED, reasons=["TransactionConflict", "ConditionalCheckFailed"]), Outcome.REFUSED),
    (refused(CANCELLED, reasons=["ValidationError"]), Outcome.REFUSED),
    (refused(CANCELLED), Outcome.REFUSED),
    (refused(CANCELLED, reasons=["None", "TransactionConflict"]), Outcome.RETRY),
    (refused(CANCELLED, reasons=["ThrottlingError", "ProvisionedThroughputExceeded"]), Outcome.RETRY),
    (refused("ProvisionedThroughputExceededException"), Outcome.RETRY),
    (refused("ThrottlingException"), Outcome.RETRY),
    (refused("RequestLimitExceeded"), Outcome.RETRY),
    (refused("LimitExceededException"), Outcome.RETRY),
    (refused("TransactionConflictException"), Outcome.RETRY),
    (refused("ReplicatedWriteConflictException"), Outcome.RETRY),
    (refused("TransactionInProgressException"), Outcome.RETRY),
    (refused("InternalServerError", 500), Outcome.UNKNOWN),
    (refused("ServiceUnavailable", 503), Outcome.UNKNOWN),
    (refused("500", 502), Outcome.UNKNOWN),
    (refused("RequestTimeout"), Outcome.UNKNOWN),
    (raised.EndpointConnectionError(endpoint_url="x"), Outcome.RETRY),
    (raised.ConnectTimeoutError(endpoint_url="x"), Outcome.RETRY),
    (raised.NoCredentialsError(), Outcome.REFUSED),
    (raised.ParamValidationError(report="x"), Outcome.REFUSED),
    (raised.ReadTimeoutError(endpoint_url="x"), Outcome.UNKNOWN),
    (raised.ConnectionClosedError(endpoint_url="x"), Outcome.UNKNOWN),
    (raised.IncompleteReadError(actual_bytes=1, expected_bytes=2), Outcome.UNKNOWN),
    (raised.ResponseStreamingError(error="x"), Outcome.UNKNOWN),
    (raised.HTTPClientError(error="x"), Outcome.UNKNOWN),
    (raised.SSLError(endpoint_url="x", error="y"), Outcome.UNKNOWN),
    (ClientError({}, "PutItem"), Outcome.UNKNOWN),
    (KeyboardInterrupt(), Outcome.UNKNOWN),
]


@pytest.mark.parametrize(
    ("error", "expected"), OUTCOMES, ids=[f"{type(error).__name__} {error}"[:70] for error, _ in OUTCOMES]
)
def test_an_outcome_is_certain_or_unknown(error, expected):
    assert outcome(error) is expected


def test_a_refused_connection_was_never_used(store):
    with pytest.raises(raised.EndpointConnectionError) as caught:
        store.execute(parse("PutItem", {"TableName": "things", "Item": {}}))
    assert outcome(caught.value) is Outcome.RETRY
