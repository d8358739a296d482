"""Strings inside COPY text: as a field, in JSON, in an array.

`careful` functions take any string. `bare` ones are for strings that came from JSON without a single
backslash: such a string holds neither quotes nor backslashes nor control characters, so nothing in it needs
an escape anywhere. That is decided once for a whole block, and most blocks are so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

from dualstore.mapping.text import escape
from dualstore.mapping.transcoding.parsed import Declined

NULL = "\\N"

_quote: Callable[[str], str] = encode_basestring


def copy_field(text: str) -> str:
    """A field of COPY's text format (PostgreSQL, "COPY", File Formats)."""
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if text.isprintable():
        return text
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _checked(text: Any) -> str:
    if type(text) is not str:
        raise Declined
    return text


def _careful_text(text: Any) -> str:
    return copy_field(escape(_checked(text)))


def _careful_json(text: Any) -> str:
    return _quote(escape(_checked(text))).replace("\\", "\\\\")


def _careful_member(text: Any) -> str:
    member = escape(_checked(text)).replace("\\", "\\\\").replace('"', '\\"')
    return copy_field(f'"{member}"')


def _quoted(text: Any) -> str:
    return f'"{_checked(text)}"'


@dataclass(frozen=True, slots=True)
class Strings:
    """How strings are written.

    Attributes:
        text: as a field; still to be told from NULL by nobody, since a backslash is always escaped.
        json: in a JSON text that is a field, quoted.
        member: of an array, quoted.
    """

    text: Callable[[Any], str]
    json: Callable[[Any], str]
    member: Callable[[Any], str]


BARE = Strings(_checked, _quoted, _quoted)
CAREFUL = Strings(_careful_text, _careful_json, _careful_member)
