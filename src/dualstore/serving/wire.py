"""Requests and responses as DynamoDB speaks them over HTTP: JSON 1.0, binary values as Base64.

The shapes are botocore's own description of the API, so that a request reaches the stores exactly as
boto3's client would have handed it over.
"""

import base64
import binascii
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

TARGET_PREFIX = "DynamoDB_20120810."
STREAMS_PREFIX = "DynamoDBStreams_20120810."
MAX_REQUEST_BYTES = 16 * 1024 * 1024
"""AWS, "BatchWriteItem": the largest request."""

_CORAL_SERVICE = "com.amazon.coral.service#"
_CORAL_VALIDATE = "com.amazon.coral.validate#"
_DYNAMODB = "com.amazonaws.dynamodb.v20120810#"

# The errors that are not DynamoDB's own but of the layer before it; SDKs read what follows the `#`.
_NAMESPACES = {
    "SerializationException": _CORAL_SERVICE,
    "UnknownOperationException": _CORAL_SERVICE,
    "AccessDeniedException": _CORAL_SERVICE,
    "MissingAuthenticationTokenException": _CORAL_SERVICE,
    "IncompleteSignatureException": _CORAL_SERVICE,
    "InvalidSignatureException": _CORAL_SERVICE,
    "UnrecognizedClientException": _CORAL_SERVICE,
    "ValidationException": _CORAL_VALIDATE,
}


class WireError(Exception):
    """A request that does not reach DynamoDB's own checks.

    Args:
        code: the error's code, such as `SerializationException`.
        message: what is wrong; never a value.
        status: the HTTP status.
    """

    def __init__(self, code: str, message: str = "", *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: the HTTP status.
        body: the JSON document.
    """

    status: int
    body: bytes

    @property
    def checksum(self) -> str:
        """The CRC-32 that SDKs compare with the header `x-amz-crc32`."""
        return str(zlib.crc32(self.body))


@cache
def service() -> ServiceModel:
    """Botocore's description of DynamoDB's API."""
    return ServiceModel(Loader().load_service_model("dynamodb", "service-2"), "dynamodb")


@cache
def operation_model(name: str) -> OperationModel:
    """The description of one operation.

    Raises:
        WireError: there is no such operation.
    """
    names: Any = service().operation_names  # botocore's cached properties have no type
    if name not in names:
        raise WireError("UnknownOperationException")
    return service().operation_model(name)


def operation_named(target: str) -> str:
    """The operation that the header `X-Amz-Target` names.

    Raises:
        WireError: it names none of DynamoDB's; those of DynamoDB Streams are told from nonsense.
    """
    if target.startswith(STREAMS_PREFIX):
        raise WireError(
            "UnknownOperationException",
            "dualstore serves no streams: read them at DynamoDB, or follow the tables in PostgreSQL",
        )
    if not target.startswith(TARGET_PREFIX):
        raise WireError("UnknownOperationException")
    return target.removeprefix(TARGET_PREFIX)


def decoded(name: str, body: bytes) -> dict[str, Any]:
    """The parameters of an operation, as boto3's low-level client takes them.

    Args:
        name: the operation.
        body: the JSON document. Members that the operation does not know are passed over, as DynamoDB does.

    Raises:
        WireError: it is no JSON, nests too deep, or something in it has another type.
    """
    shape: Any = operation_model(name).input_shape
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise WireError("SerializationException", "The request nests too deep") from None
    except ValueError:
        raise WireError("SerializationException", "The request is not valid JSON") from None
    if shape is None:
        return {}
    try:
        parameters: dict[str, Any] = _decode(shape, document)
    except RecursionError:
        raise WireError("SerializationException", "The request nests too deep") from None
    return parameters


def _no_constant(_: str) -> NoReturn:
    raise ValueError("JSON has neither NaN nor infinities")


def _decode(described: Shape, value: Any) -> Any:
    shape: Any = described  # as above
    if isinstance(described, StructureShape):
        if not isinstance(value, dict):
            raise _unexpected(value, "object")
        return {
            name: _decode(member, value[name])
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if isinstance(described, ListShape):
        if not isinstance(value, list):
            raise _unexpected(value, "list")
        return [_decode(shape.member, each) for each in value]
    if isinstance(described, MapShape):
        if not isinstance(value, dict):
            raise _unexpected(value, "map")
        return {name: _decode(shape.value, each) for name, each in value.items() if each is not None}
    return _SCALARS.get(shape.type_name, _same)(value)


def _unexpected(value: object, wanted: str) -> WireError:
    """The error for a value of another type; names types, never the value."""
    kinds = {dict: "a structure", list: "a list", str: "a string", bool: "a Boolean"}
    found = kinds.get(type(value), "null" if value is None else "a number")
    return WireError("SerializationException", f"Unexpected value: {found} where a {wanted} is expected")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _unexpected(value, "string")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _unexpected(value, "Boolean")
    return value


def _whole_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unexpected(value, "number")
    if isinstance(value, float) and not math.isfinite(value):
        raise WireError("SerializationException", "A number is too large")
    return int(value)


def _binary(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except binascii.Error:
        raise WireError("SerializationException", "A binary value is not Base64") from None


def _same(value: Any) -> Any:
    return value


_SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "string": _text,
    "boolean": _boolean,
    "integer": _whole_number,
    "long": _whole_number,
    "blob": _binary,
}


def encoded(response: Mapping[str, Any]) -> Answer:
    """A response of boto3's low-level client, for the wire."""
    return Answer(200, _json({name: value for name, value in response.items() if name != "ResponseMetadata"}))


def refused(error: ClientError) -> Answer:
    """A refusal of boto3's low-level client, for the wire, with the details that it carries."""
    response = error.response
    told = {name: value for name, value in response.items() if name not in {"Error", "ResponseMetadata"}}
    code = str(response.get("Error", {}).get("Code", "InternalServerError"))
    message = str(response.get("Error", {}).get("Message", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
    return failed(code, message, status=status, **told)


def failed(code: str, message: str, *, status: int = 400, **details: Any) -> Answer:
    """An error for the wire.

    Args:
        code: the error's code.
        message: what is wrong.
        status: the HTTP status.
        **details: what else the error carries, such as CancellationReasons.
    """
    named = _NAMESPACES.get(code, _DYNAMODB) + code
    text = "Message" if code == "TransactionCanceledException" else "message"
    return Answer(status, _json({"__type": named, text: message, **details}))


def _json(document: object) -> bytes:
    return json.dumps(document, default=_as_json, separators=(",", ":"), ensure_ascii=False).encode(
        errors="replace"
    )


def _as_json(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"a {type(value).__name__} cannot be told over the wire")
