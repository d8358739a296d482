"""The ASGI application: reads a request, has it carried out in a thread, writes the answer."""

import asyncio
import ipaddress
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from dualstore.errors import (
    DualStoreError,
    OutcomeUnknown,
    RequestRejected,
    Unavailable,
    UnsupportedOperation,
    client_error,
)
from dualstore.serving import wire
from dualstore.serving.signatures import Claim, Credentials
from dualstore.serving.wire import Answer, WireError

logger = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

THREADS = 20

_HEALTHY = b"healthy: dualstore serves DynamoDB's protocol\n"
_BODY_PATIENCE = timedelta(seconds=30)
# A body is held from its first byte to its answer: so many at a time bound the memory.
_BODIES_PER_THREAD = 2


class Api(Protocol):
    """Carries out DynamoDB's operations."""

    def execute(self, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry out one operation; responses and errors are those of boto3's low-level client.

        Raises:
            UnsupportedOperation: not this one.
        """
        ...


class _GoneError(Exception):
    """The caller has hung up."""


class Application:
    """An ASGI application that speaks DynamoDB's protocol.

    Args:
        api: carries out what is asked.
        credentials: who may call. None: everybody who can connect, and who calls this machine by a name that
            means it: a web page, whose name may be made to lead here, does not.
        threads: how many operations run at a time.
    """

    def __init__(self, api: Api, *, credentials: Credentials | None = None, threads: int = THREADS) -> None:
        self._api = api
        self._credentials = credentials
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="dualstore-serve")
        self._bodies = asyncio.Semaphore(threads * _BODIES_PER_THREAD)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope (ASGI 3)."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self._threads.shutdown)
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in {"GET", "HEAD"}:
            await _send(send, 200, _HEALTHY, (("content-type", "text/plain"),))
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        try:
            async with self._bodies:
                answer = await self._answer(headers, receive)
        except _GoneError:
            return
        await _send(
            send,
            answer.status,
            answer.body,
            (
                ("content-type", "application/x-amz-json-1.0"),
                ("x-amzn-requestid", uuid.uuid4().hex.upper()),
                ("x-amz-crc32", answer.checksum),
            ),
        )

    async def _answer(self, headers: Mapping[str, str], receive: Receive) -> Answer:
        try:
            claim = self._admitted(headers)
            body = await _body(headers, receive)
        except WireError as error:
            return wire.failed(error.code, error.message, status=error.status)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._carried_out, headers, claim, body)

    def _admitted(self, headers: Mapping[str, str]) -> Claim | None:
        if self._credentials is not None:
            return self._credentials.claim(headers)
        if not means_this_machine(headers.get("host", "")):
            raise WireError(
                "AccessDeniedException", "Without credentials only localhost and 127.0.0.1 are served"
            )
        return None

    def _carried_out(self, headers: Mapping[str, str], claim: Claim | None, body: bytes) -> Answer:
        """In a thread: reading 16 MB of JSON would keep everybody else waiting."""
        name = "A request"
        try:
            if self._credentials is not None and claim is not None:
                self._credentials.check(claim, headers, body)
            name = wire.operation_named(headers.get("x-amz-target", ""))
            return wire.encoded(self._api.execute(name, wire.decoded(name, body)))
        except Exception as error:  # noqa: BLE001 - the server lives on; the text may hold a value
            return _refused(name, error)


def _refused(name: str, error: Exception) -> Answer:
    if isinstance(error, RequestRejected):
        error = client_error(name, error)
    if isinstance(error, ClientError):
        return wire.refused(error)
    if isinstance(error, WireError):
        return wire.failed(error.code, error.message, status=error.status)
    for kind, code, status in _ERRORS:
        if isinstance(error, kind):
            return wire.failed(code, _told(name, error), status=status)
    logger.warning("%s failed with %s", name, type(error).__name__)
    return wire.failed("InternalServerError", "Internal server error", status=500)


# The first that fits decides.
_ERRORS: tuple[tuple[type[Exception], str, int], ...] = (
    (UnsupportedOperation, "UnknownOperationException", 400),
    (ParamValidationError, "ValidationException", 400),
    (OutcomeUnknown, "InternalServerError", 500),
    (Unavailable, "ServiceUnavailable", 503),
    (BotoCoreError, "ServiceUnavailable", 503),
)


def _told(name: str, error: Exception) -> str:
    """What may be told of an error: dualstore's own messages hold no value, botocore's may."""
    if isinstance(error, ParamValidationError):
        return f"A parameter of {name} is missing, or of another type"
    return str(error) if isinstance(error, DualStoreError) else type(error).__name__


def means_this_machine(host: str) -> bool:
    """Whether a `Host` header, or the name of a host, is one by which only this machine is called."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _body(headers: Mapping[str, str], receive: Receive) -> bytes:
    """The body of a request.

    Raises:
        WireError: it is larger than 16 MB, or has not come in time.
        _GoneError: the caller has hung up before its end.
    """
    too_large = WireError("RequestEntityTooLargeException", "The request is larger than 16 MB", status=413)
    if int(headers.get("content-length") or 0) > 2 * wire.MAX_REQUEST_BYTES:
        raise too_large
    parts: list[bytes] = []
    size_bytes = 0
    try:
        async with asyncio.timeout(_BODY_PATIENCE.total_seconds()):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                part = message.get("body", b"")
                size_bytes += len(part)
                if size_bytes <= wire.MAX_REQUEST_BYTES:
                    parts.append(part)
                else:
                    parts.clear()  # read on to its end: a caller that is still writing reads no answer
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise WireError("RequestTimeoutException", "The body has not come in time", status=408) from None
    if size_bytes > wire.MAX_REQUEST_BYTES:
        raise too_large
    return b"".join(parts)


async def _send(send: Send, status: int, body: bytes, headers: tuple[tuple[str, str], ...]) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    encoded.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
