"""Attribute values as JSON texts: plain for columns that SQL users read, typed for the overflow.

Plain JSON holds maps, lists, strings, numbers, Booleans and nulls as themselves, and nothing else;
`jsonb` keeps its numbers exactly. Typed JSON is DynamoDB's own, `{"S": "a"}`, with binary as base64.
Both escape U+0000 in strings and names (see `text.escape`).
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

from dualstore.items import AttributeValue, Item, number, number_text, text_size_bytes, value_size_bytes
from dualstore.mapping.text import escape, unescape

_quote: Callable[[str], str] = encode_basestring
_JSON_NUMERAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")


def decimal_text(value: Decimal) -> str:
    """The canonical text of a DynamoDB number (`items.number_text`) that is known to be within its limits."""
    return _trimmed(format(value, "f"))


def numeral_text(text: str) -> str:
    """The canonical text of a number read from JSON."""
    if _JSON_NUMERAL.fullmatch(text) is None:
        return number_text(Decimal(text))
    return _trimmed(text)


def _trimmed(digits: str) -> str:
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return "0" if digits == "-0" else digits


class _NotPlain(Exception):  # noqa: N818 - control flow within this module
    """A value has no plain JSON form that could be told from another value's."""


def _string(text: str) -> str:
    return _quote(escape(text))


def _json_number(text: str) -> str:
    return text if _JSON_NUMERAL.fullmatch(text) else number_text(number(text))


def _json_truth(truth: object) -> str:
    return "true" if truth else "false"


def _plain(value: AttributeValue) -> str:
    ((kind, content),) = value.items()
    write = _WRITE_PLAIN.get(kind)
    if write is None:
        raise _NotPlain
    return write(content)


def _plain_list(elements: Any) -> str:
    return f"[{','.join(map(_plain, elements))}]"


def _plain_map(entries: Any) -> str:
    return "{" + ",".join([f"{_string(name)}:{_plain(value)}" for name, value in entries.items()]) + "}"


_WRITE_PLAIN: dict[str, Callable[[Any], str]] = {
    "S": _string,
    "N": _json_number,
    "BOOL": _json_truth,
    "NULL": lambda _: "null",
    "L": _plain_list,
    "M": _plain_map,
}


def plain_list(elements: Any) -> str | None:
    """The plain JSON of an `L`, or None where it holds binary or a set."""
    try:
        return _plain_list(elements)
    except _NotPlain:
        return None


def plain_map(entries: Any) -> str | None:
    """The plain JSON of an `M`, or None where it holds binary or a set."""
    try:
        return _plain_map(entries)
    except _NotPlain:
        return None


# The parser calls back for numbers and objects, innermost first, so a dictionary that it hands over is
# an attribute value already; the other types are told apart by their Python types.
def _parsed_number(text: str) -> AttributeValue:
    return {"N": numeral_text(text)}


def _parsed_map(entries: dict[str, Any]) -> AttributeValue:
    return {"M": {unescape(name): _parsed(value) for name, value in entries.items()}}


def _parsed(value: Any) -> AttributeValue:
    match value:
        case dict():
            return value
        case str():
            return {"S": unescape(value)}
        case bool():
            return {"BOOL": value}
        case None:
            return {"NULL": True}
        case _:
            return {"L": [_parsed(element) for element in value]}


_parse: Callable[[str], Any] = json.JSONDecoder(
    object_hook=_parsed_map, parse_float=_parsed_number, parse_int=_parsed_number
).decode


def plain_value(text: str) -> AttributeValue:
    """The attribute value behind a plain JSON text: the inverse of `plain_list` and `plain_map`."""
    return _parsed(_parse(text))


_numerals: Callable[[str], list[str]] = re.compile(r"[-.0-9]+").findall
_SURELY_EXACT_CHARACTERS = 38


def jsonb_size_bytes(text: str) -> int:
    """What a document counts for: `items.value_size_bytes` of `plain_value`, in a third of its time or less.

    Of an item that a filter leaves out nothing else is asked.

    Args:
        text: an object or array as PostgreSQL writes `jsonb`: numerals without exponents, `{}` and `[]` where
            they are empty.
    """
    pieces = text.split('"')
    frame = '"'.join(pieces[::2])  # what is left without the strings and names
    numerals = _numerals(frame)
    if "\\" in text or any(len(each) > _SURELY_EXACT_CHARACTERS for each in numerals):
        return value_size_bytes(plain_value(text))
    containers, empty = frame.count("{") + frame.count("["), frame.count("{}") + frame.count("[]")
    flags = frame.count("r") + frame.count("f") + frame.count("n")  # of true, false and null
    # A list or map counts for 3, and each element for 1 more than itself: one more than there are commas.
    size = 4 * containers - empty + frame.count(",") + flags + text_size_bytes("".join(pieces[1::2]))
    return size + sum([value_size_bytes({"N": numeral}) for numeral in numerals])


def _typed(value: AttributeValue) -> str:
    ((kind, content),) = value.items()
    return f'{{"{kind}":{_WRITE_TYPED[kind](content)}}}'


def _typed_map(entries: Any) -> str:
    return "{" + ",".join([f"{_string(name)}:{_typed(value)}" for name, value in entries.items()]) + "}"


def _binary(content: Any) -> str:
    return f'"{b64encode(content).decode("ascii")}"'


def _array(write: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda members: f"[{','.join(map(write, members))}]"


_WRITE_TYPED: dict[str, Callable[[Any], str]] = {
    "S": _string,
    "N": _quote,
    "B": _binary,
    "BOOL": _json_truth,
    "NULL": lambda _: "true",
    "SS": _array(_string),
    "NS": _array(_quote),
    "BS": _array(_binary),
    "L": _array(_typed),
    "M": _typed_map,
}


def typed_json(item: Item) -> str:
    """An item as DynamoDB-JSON.

    Args:
        item: an item, or some of an item's attributes.
    """
    return _typed_map(item)


def typed_item(text: str) -> Item:
    """The item behind a DynamoDB-JSON text: the inverse of `typed_json`.

    Raises:
        ValueError: it is no JSON.
        TypeError: it is JSON, but no object.
    """
    parsed: Item = json.loads(text)
    if not isinstance(parsed, dict):
        raise TypeError("an item is a JSON object")
    # Most overflows hold neither binary nor an escaped character, and so are items as they are parsed.
    if '"B"' in text or '"BS"' in text or "\\u0001" in text:
        return _restored_entries(parsed)
    return parsed


def _restored(value: Mapping[str, Any]) -> AttributeValue:
    ((kind, content),) = value.items()
    return {kind: _RESTORE[kind](content)} if kind in _RESTORE else dict(value)


def _restored_entries(entries: Mapping[str, Any]) -> Item:
    return {unescape(name): _restored(value) for name, value in entries.items()}


_RESTORE: dict[str, Callable[[Any], Any]] = {
    "S": unescape,
    "B": b64decode,
    "SS": lambda members: [unescape(member) for member in members],
    "BS": lambda members: [b64decode(member) for member in members],
    "L": lambda elements: [_restored(element) for element in elements],
    "M": _restored_entries,
}
