"""A key as people type it, and that no message repeats it."""

import base64

import pytest

from dualstore.cli.keys import key_of
from dualstore.errors import ConfigurationError
from dualstore.items import KeyAttribute, KeySchema

ORDER = KeySchema(KeyAttribute("customer", "S"), KeyAttribute("number", "N"))
NAME = KeySchema(KeyAttribute("id", "S"))
DIGEST = KeySchema(KeyAttribute("digest", "B"))
NUMBER = KeySchema(KeyAttribute("n", "N"))
ADA = {"customer": {"S": "ada"}, "number": {"N": "7"}}
LONG = "12345678901234567890123456789012345678"

TYPED = {
    "DynamoDB JSON": ('{"customer": {"S": "ada"}, "number": {"N": "7"}}', ORDER, ADA),
    "in any order": ('{"number": {"N": "7"}, "customer": {"S": "ada"}}', ORDER, ADA),
    "plain values": ('{"customer": "ada", "number": 7}', ORDER, ADA),
    "a number in quotes": ('{"customer": "ada", "number": "7"}', ORDER, ADA),
    "38 digits": (f'{{"customer": "ada", "number": {LONG}}}', ORDER, {**ADA, "number": {"N": LONG}}),
    "a bare value": ("cust-1", NAME, {"id": {"S": "cust-1"}}),
    "a bare value that looks like a number": ("0042", NAME, {"id": {"S": "0042"}}),
    "a bare number": ("42", NUMBER, {"n": {"N": "42"}}),
    "base64": (base64.b64encode(b"\x00\x01").decode(), DIGEST, {"digest": {"B": b"\x00\x01"}}),
    "base64 in DynamoDB JSON": ('{"digest": {"B": "AAE="}}', DIGEST, {"digest": {"B": b"\x00\x01"}}),
}


@pytest.mark.parametrize("how", TYPED)
def test_a_key_may_be_typed_as(how: str) -> None:
    text, keys, key = TYPED[how]
    assert key_of(text, keys) == key


WRONG = {
    "a bare value where there is a sort key": ("canary", ORDER),
    "a missing attribute": ('{"customer": "canary"}', ORDER),
    "another attribute": ('{"customer": "canary", "number": 1, "total": 2}', ORDER),
    "text that is no number": ('{"customer": "ada", "number": "canary"}', ORDER),
    "a number that is none": ('{"customer": "canary", "number": "NaN"}', ORDER),
    "another type": ('{"id": {"N": "31337"}}', NAME),
    "two types": ('{"id": {"S": "canary", "N": "1"}}', NAME),
    "a number for text": ('{"id": 31337}', NAME),
    "a list": ('{"id": ["canary"]}', NAME),
    "nothing": ("", NAME),
    "what is no base64": ("canary!", DIGEST),
    "a payload that is no text": ('{"id": {"S": null}}', NAME),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_key_is_refused_without_being_repeated(what: str) -> None:
    text, keys = WRONG[what]
    with pytest.raises(ConfigurationError) as refused:
        key_of(text, keys)
    said = str(refused.value)
    assert all(name in said for name in keys.names)
    assert "canary" not in said
    assert "31337" not in said
    assert refused.value.__suppress_context__
