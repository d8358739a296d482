"""DynamoDB strings as PostgreSQL text: U+0000 escaped so that the order by bytes stays."""

import re

# PostgreSQL refuses U+0000. U+0000 and U+0001 become two characters each, both of which sort below
# U+0002 and in their old order, so `COLLATE "C"` orders the escaped texts as DynamoDB orders the strings.
_ESCAPES = {0: "\x01\x01", 1: "\x01\x02"}
_ESCAPED = re.compile("\x01[\x01\x02]")


def escape(text: str) -> str:
    """The text to store for a DynamoDB string; the same object but for U+0000 and U+0001 in it."""
    if "\x00" in text or "\x01" in text:
        return text.translate(_ESCAPES)
    return text


def unescape(text: str) -> str:
    """The DynamoDB string behind a stored text: the inverse of `escape`."""
    if "\x01" in text:
        return _ESCAPED.sub(_unescaped, text)
    return text


def _unescaped(match: re.Match[str]) -> str:
    return chr(ord(match[0][1]) - 1)


def quoted(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
