"""A key as people type it: DynamoDB JSON, plain JSON, or a bare value. No message repeats what was typed."""

import base64
import binascii
import json
from decimal import Decimal
from typing import Any

from dualstore.errors import ConfigurationError, RequestRejected
from dualstore.items import Key, KeyAttribute, KeySchema

_TYPES = {"S": "text", "N": "a number", "B": "base64"}


def key_of(text: str, keys: KeySchema) -> Key:
    """The key of an item.

    Args:
        text: `{"id": {"S": "a"}, "n": {"N": "1"}}`, as the AWS command line takes it; `{"id": "a", "n": 1}`,
            with values of the key's own types; or the value alone, where there is no sort key. Binary values
            are in base64.
        keys: the table's key.

    Raises:
        ConfigurationError: it is no key of the table; says what one looks like, and repeats nothing.
    """
    try:
        return keys.exact_key(
            {name: _value(attribute, given) for name, attribute, given in _parts(text, keys)}
        )
    except (RequestRejected, ValueError, ArithmeticError, binascii.Error):
        expected = " and ".join(f"{each.name} ({_TYPES[each.type]})" for each in keys.attributes)
        raise ConfigurationError(
            f"that is no key of the table: give {expected}, as in --key '{_example(keys)}'"
        ) from None


def _parts(text: str, keys: KeySchema) -> list[tuple[str, KeyAttribute, Any]]:
    """Each attribute by name, with what was typed for it."""
    given = _object(text)
    if given is None:
        if keys.sort is not None:
            raise ValueError
        given = {keys.partition.name: text}
    known = {attribute.name: attribute for attribute in keys.attributes}
    if given.keys() != known.keys():
        raise ValueError
    return [(name, known[name], value) for name, value in given.items()]


def _object(text: str) -> dict[str, Any] | None:
    """What is typed as a JSON object, its numbers exact; None where it is something else."""
    try:
        # A key's number has up to 38 digits.
        found = json.loads(text, parse_int=Decimal, parse_float=Decimal)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _value(attribute: KeyAttribute, given: Any) -> Any:
    if isinstance(given, dict):
        ((type_, payload),) = given.items()
    else:
        type_, payload = attribute.type, given
    if type_ != attribute.type or not isinstance(payload, str | Decimal):
        raise ValueError
    if type_ == "S" and isinstance(payload, Decimal):
        raise ValueError  # `1` and `1.0` would be different keys
    if type_ == "B":
        return {"B": base64.b64decode(str(payload), validate=True)}
    return {type_: str(payload) if type_ == "S" else str(Decimal(payload))}


def _example(keys: KeySchema) -> str:
    values = {"S": "...", "N": "1", "B": "AAE="}
    return json.dumps({each.name: {each.type: values[each.type]} for each in keys.attributes})
