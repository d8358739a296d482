"""Attribute values as JSON parsers give them: binary is base64 text there."""

from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Callable
from typing import Any

from dualstore.items import AttributeValue


class Declined(Exception):  # noqa: N818 - said by the fast path, of an item that the exact path takes on
    """An item is not surely one that the fast path does as the exact one would."""


def binary(text: Any) -> bytes:
    """The bytes behind base64.

    Raises:
        Declined: it is not the one base64 text of some bytes (RFC 4648, 4).
    """
    try:
        content = a2b_base64(text, strict_mode=True)
    except (Error, TypeError, ValueError):
        raise Declined from None
    if b2a_base64(content, newline=False).decode() != text:
        raise Declined
    return content


def restored(type_: str, content: Any) -> Any:
    """A content as boto3's client has it, from what a JSON parser gives; it is known to be valid."""
    restore = _RESTORE.get(type_)
    return content if restore is None else restore(content)


def _value(value: AttributeValue) -> AttributeValue:
    ((type_, content),) = value.items()
    return {type_: restored(type_, content)}


_RESTORE: dict[str, Callable[[Any], Any]] = {
    "B": binary,
    "BS": lambda members: list(map(binary, members)),
    "L": lambda elements: list(map(_value, elements)),
    "M": lambda entries: {name: _value(value) for name, value in entries.items()},
}
