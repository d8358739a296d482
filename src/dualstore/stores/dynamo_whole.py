"""Half an answer of DynamoDB's is none: botocore would take it for an answer without an item.

botocore does not compare an answer with its announced length, and what its parser cannot read it reads as an
answer with no members: GetItem without `Item`, GetRecords whose shard has ended. Whoever believes that
deletes an item that is there.
"""

import zlib
from typing import Any

from botocore.exceptions import ClientError

_OK = 200
# botocore sends a read again after this code, and nobody takes a write for refused that ended in it.
_CODE = "RequestTimeout"
_MESSAGE = "the answer is not whole: the connection ended in the middle, or something on the way changed it"


def refuse_half_answers(client: Any) -> None:
    """Have a boto3 client of DynamoDB, or of its streams, raise where an answer is not whole.

    It raises a `ClientError` of code `RequestTimeout`: what was asked for may have been carried out. Other
    hooks that read the answer may have been registered before, or come later.

    Args:
        client: the client; it may have been told before.
    """
    model, events = client.meta.service_model, client.meta.events
    service = model.service_id.hyphenize()
    for operation in model.operation_names:
        for event, hook in (("before-parse", _look), ("after-call", _refuse)):
            name = f"{event}.{service}.{operation}"
            events.register_first(name, hook, unique_id=f"dualstore-whole-{name}")


def _look(*, response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    if response_dict["status_code"] == _OK and not _is_whole(response_dict["body"], response_dict["headers"]):
        response_dict["body"] = b"{}"
        customized_response_dict["Error"] = {"Code": _CODE, "Message": _MESSAGE}


def _refuse(*, parsed: dict[str, Any], model: Any, **_: object) -> None:
    """Raise, once botocore has tried again as often as it may."""
    if parsed.get("Error", {}).get("Message") == _MESSAGE:
        raise ClientError({"Error": parsed["Error"]}, model.name)


def _is_whole(body: bytes, headers: Any) -> bool:
    """Whether it is what was sent, as far as its length and AWS's checksum tell, and looks like JSON."""
    length, checksum = headers.get("content-length"), headers.get("x-amz-crc32")
    return (
        (length is None or int(length) == len(body))
        and (checksum is None or int(checksum) == zlib.crc32(body))
        and body.startswith(b"{")
        and body.rstrip().endswith(b"}")
    )
