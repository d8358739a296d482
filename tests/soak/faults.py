"""Faults of DynamoDB, injected on botocore's events in whichever process imports this and calls `infect`."""

import collections
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, ConnectTimeoutError, ReadTimeoutError
from botocore.httpsession import URLLib3Session

_BUSY_CODES = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")
_WRITES = ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems")
_TYPE = "com.amazonaws.dynamodb.v20120810#"


class _Injected:
    """A failure of ours, not of the connection."""


class _RequestLostError(_Injected, ConnectionClosedError):  # type: ignore[misc]
    """The request was never sent, but nobody told the client."""


class _ReplyLostError(_Injected, ReadTimeoutError):  # type: ignore[misc]
    """The request was carried out, and its answer thrown away."""


class _NoConnectionError(_Injected, ConnectTimeoutError):  # type: ignore[misc]
    """There never was a connection."""


@dataclass
class Toll:
    """What the requests of one call of one thread went through; see `recording.Written`."""

    late: int = 0
    lost: int = 0


class Faults:
    """The faults of one process.

    Args:
        seed: of its choices.
        rates: a file with the share of requests to harm, such as `0.02`; looked at while requests go by.
    """

    def __init__(self, seed: int, rates: Path) -> None:
        self._random = random.Random(seed)
        self._rates = rates
        self._lock = threading.Lock()
        self._session = URLLib3Session(timeout=(1, 5))
        self._thread = threading.local()
        self.injected: collections.Counter[str] = collections.Counter()
        self._kinds: dict[str, Callable[[str, AWSPreparedRequest], AWSResponse]] = {
            "throttled": self._throttle,
            "request lost": self._lose_request,
            "reply lost": self._lose_reply,
            "no connection": self._refuse_connection,
            "server error": self._fail,
            "server error afterwards": self._fail_afterwards,
            "unprocessed items": self._leave_unprocessed,
            "transaction conflict": self._conflict,
        }

    def infect(self) -> None:
        """Let every DynamoDB client that this process makes from now on suffer."""
        make = boto3.Session.client

        def client(session: Any, service_name: str, *args: Any, **options: Any) -> Any:
            made = make(session, service_name, *args, **options)
            if service_name == "dynamodb":
                # The least specific name is called last: after every other look at the request.
                made.meta.events.register_last("before-send", self._harm)
                made.meta.events.register_first("needs-retry", self._note)
            return made

        boto3.Session.client = client

    @contextmanager
    def toll(self) -> Iterator[Toll]:
        """Count what the requests of this thread go through."""
        counted = self._thread.toll = Toll()
        try:
            yield counted
        finally:
            self._thread.toll = Toll()

    def _rate(self) -> float:
        try:
            return float(self._rates.read_text())
        except (OSError, ValueError):
            return 0.0

    def _harm(self, request: AWSPreparedRequest, event_name: str, **_: Any) -> AWSResponse | None:
        operation = event_name.rpartition(".")[2]
        with self._lock:
            if self._random.random() >= self._rate():
                return None
            kind = self._random.choice(_possible(operation))
            self.injected[kind] += 1
        return self._kinds[kind](operation, request)

    def _note(self, event_name: str, caught_exception: Exception | None, **_: Any) -> None:
        """A request whose answer did not come in time may be carried out whenever the server gets to it."""
        toll = getattr(self._thread, "toll", None)
        if toll is None or caught_exception is None or event_name.rpartition(".")[2] not in _WRITES:
            return
        if isinstance(caught_exception, _ReplyLostError):
            toll.lost += 1
        elif isinstance(caught_exception, ReadTimeoutError | ConnectionClosedError) and not isinstance(
            caught_exception, _Injected
        ):
            toll.late += 1

    def _throttle(self, _: str, request: AWSPreparedRequest) -> AWSResponse:
        return _error(request, 400, self._random.choice(_BUSY_CODES))

    def _lose_request(self, _: str, request: AWSPreparedRequest) -> AWSResponse:
        raise _RequestLostError(endpoint_url=request.url)

    def _lose_reply(self, _: str, request: AWSPreparedRequest) -> AWSResponse:
        self._session.send(request)
        raise _ReplyLostError(endpoint_url=request.url)

    def _refuse_connection(self, _: str, request: AWSPreparedRequest) -> AWSResponse:
        raise _NoConnectionError(endpoint_url=request.url)

    def _fail(self, _: str, request: AWSPreparedRequest) -> AWSResponse:
        return _error(request, 500, "InternalServerError")

    def _fail_afterwards(self, _: str, request: AWSPreparedRequest) -> AWSResponse:
        self._session.send(request)
        if (toll := getattr(self._thread, "toll", None)) is not None:
            toll.lost += 1
        return _error(request, 500, "InternalServerError")

    def _leave_unprocessed(self, _: str, request: AWSPreparedRequest) -> AWSResponse:
        """All of a batch, or the first half of its tables' requests, is left."""
        body = json.loads(request.body)
        left, sent = {}, {}
        for table, entries in body["RequestItems"].items():
            half = self._random.choice((0, len(entries) // 2))
            left[table] = entries[half:]
            if half:
                sent[table] = entries[:half]
        if sent:
            answer = self._session.send(_with_body(request, {**body, "RequestItems": sent}))
            if answer.status_code != 200:
                return answer
            for table, entries in json.loads(answer.content).get("UnprocessedItems", {}).items():
                left.setdefault(table, []).extend(entries)
        return _answer(request, 200, {"UnprocessedItems": left})

    def _conflict(self, operation: str, request: AWSPreparedRequest) -> AWSResponse:
        if operation != "TransactWriteItems":
            return _error(request, 400, "TransactionConflictException")
        actions = json.loads(request.body)["TransactItems"]
        reasons = [{"Code": "None"} for _ in actions]
        reasons[self._random.randrange(len(actions))] = {"Code": "TransactionConflict", "Message": "injected"}
        return _error(request, 400, "TransactionCanceledException", CancellationReasons=reasons)


def _possible(operation: str) -> list[str]:
    kinds = ["throttled", "request lost", "reply lost", "no connection", "server error"]
    kinds.append("server error afterwards")
    if operation == "BatchWriteItem":
        kinds += ["unprocessed items"] * 3
    elif operation in _WRITES:
        kinds.append("transaction conflict")
    return kinds


def _with_body(request: AWSPreparedRequest, body: dict[str, Any]) -> AWSPreparedRequest:
    headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
    made: AWSPreparedRequest = AWSRequest(
        method=request.method, url=request.url, headers=headers, data=json.dumps(body).encode()
    ).prepare()
    return made


def _error(request: AWSPreparedRequest, status: int, code: str, **more: Any) -> AWSResponse:
    return _answer(request, status, {"__type": _TYPE + code, "message": "injected", **more})


def _answer(request: AWSPreparedRequest, status: int, body: dict[str, Any]) -> AWSResponse:
    return AWSResponse(request.url, status, {"content-type": "application/x-amz-json-1.0"}, _Raw(body))


class _Raw:
    """A body as urllib3 would stream it."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = json.dumps(body).encode()

    def stream(self) -> Iterator[bytes]:
        yield self._body
