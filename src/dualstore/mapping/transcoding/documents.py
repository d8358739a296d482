"""Parsed attribute values as JSON texts inside COPY text, every part of them checked.

What is written is what `mapping.documents` writes for the same value, to the byte. Anything that is not
surely valid is declined: the exact path says what is wrong with it, or finds that nothing is.
"""

import re
from collections.abc import Callable
from typing import Any

from dualstore.items import MAX_NESTING_LEVELS
from dualstore.mapping.transcoding.parsed import Declined, binary
from dualstore.mapping.transcoding.texts import BARE, Strings

Write = Callable[[Any, int], str]


class NotPlain(Exception):  # noqa: N818 - control flow
    """A value holds binary or a set, which plain JSON cannot tell from other values."""


# Texts that DynamoDB gives back as they are, and that are surely within its limits: nearly all numbers. Those
# of 38 digits are not among them: to bound repetitions is cheaper than to ask for the length as well.
NUMERAL = r"-?[1-9][0-9]{0,36}|0|-?(?:[1-9][0-9]{0,17}|0)\.[0-9]{0,17}[1-9]"
is_numeral = re.compile(NUMERAL).fullmatch


def numeral(text: Any) -> str:
    """A number in the text that DynamoDB gives back.

    Raises:
        Declined: it is not surely one.
    """
    if type(text) is not str or is_numeral(text) is None:
        raise Declined
    return text


def distinct(members: Any) -> list[Any]:
    """The members of a set.

    Raises:
        Declined: it is empty, or two are equal.
    """
    if type(members) is not list or not members:
        raise Declined
    try:
        alone = len(set(members)) == len(members)
    except TypeError:
        raise Declined from None
    if not alone:
        raise Declined
    return members


def _numeral_text(text: Any) -> str:
    return f'"{numeral(text)}"'


def _binary_text(text: Any) -> str:
    binary(text)  # the one text of some bytes, or declined
    return f'"{text}"'


def _truth(content: Any, _: int) -> str:
    if type(content) is not bool:
        raise Declined
    return "true" if content else "false"


def _null(content: Any, text: str) -> str:
    if content is not True:
        raise Declined
    return text


def _members(write: Callable[[Any], str]) -> Write:
    return lambda content, _: f"[{','.join([write(each) for each in distinct(content)])}]"


class Documents:
    """Writes values as JSON.

    Args:
        strings: how strings are written.
    """

    def __init__(self, strings: Strings) -> None:
        string = self._string = strings.json
        self._plain: dict[str, Write] = {
            "S": lambda content, _: string(content),
            "N": lambda content, _: numeral(content),
            "BOOL": _truth,
            "NULL": lambda content, _: _null(content, "null"),
            "L": self.plain_list,
            "M": self.plain_map,
        }
        self._typed: dict[str, Write] = {
            "S": lambda content, _: string(content),
            "N": lambda content, _: _numeral_text(content),
            "B": lambda content, _: _binary_text(content),
            "BOOL": _truth,
            "NULL": lambda content, _: _null(content, "true"),
            "SS": _members(string),
            "NS": _members(_numeral_text),
            "BS": _members(_binary_text),
            "L": self._typed_list,
            "M": self._typed_map,
        }

    def plain_list(self, elements: Any, levels: int = MAX_NESTING_LEVELS - 1) -> str:
        """The plain JSON of an `L`.

        Args:
            elements: what the list holds.
            levels: how many levels of values there may be in it.

        Raises:
            NotPlain: binary or a set is in it, or what is no value at all.
            Declined: something in it is not surely valid.
        """
        if type(elements) is not list:
            raise Declined
        write = self._plain_value
        return f"[{','.join([write(each, levels) for each in elements])}]"

    def plain_map(self, entries: Any, levels: int = MAX_NESTING_LEVELS - 1) -> str:
        """The plain JSON of an `M`; arguments and errors as for `plain_list`."""
        if type(entries) is not dict:
            raise Declined
        string, write = self._string, self._plain_value
        return (
            "{" + ",".join([f"{string(name)}:{write(each, levels)}" for name, each in entries.items()]) + "}"
        )

    def typed(self, value: Any, levels: int = MAX_NESTING_LEVELS) -> str:
        """The DynamoDB-JSON of a value.

        Raises:
            Declined: something in it is not surely valid.
        """
        if not levels or type(value) is not dict or len(value) != 1:
            raise Declined
        ((kind, content),) = value.items()
        write = self._typed.get(kind)
        if write is None:
            raise Declined
        return f'{{"{kind}":{write(content, levels - 1)}}}'

    def overflow(self, attributes: dict[str, Any]) -> str:
        """The DynamoDB-JSON of some of an item's attributes; errors as for `typed`."""
        if "" in attributes:
            raise Declined
        string, write = self._string, self.typed
        return "{" + ",".join([f"{string(name)}:{write(each)}" for name, each in attributes.items()]) + "}"

    def plain_other(self, kind: str, content: Any, levels: int) -> str:
        """The plain JSON of a value, from its type and content; errors as for `plain_list`."""
        write = self._plain.get(kind)
        if write is None:
            raise NotPlain
        return write(content, levels - 1)

    def _plain_value(self, value: Any, levels: int) -> str:
        if not levels or type(value) is not dict or len(value) != 1:
            raise Declined
        ((kind, content),) = value.items()
        write = self._plain.get(kind)
        if write is None:
            raise NotPlain
        return write(content, levels - 1)

    def _typed_list(self, elements: Any, levels: int) -> str:
        if type(elements) is not list:
            raise Declined
        return f"[{','.join([self.typed(each, levels) for each in elements])}]"

    def _typed_map(self, entries: Any, levels: int) -> str:
        if type(entries) is not dict:
            raise Declined
        return (
            "{"
            + ",".join([f"{self._string(name)}:{self.typed(each, levels)}" for name, each in entries.items()])
            + "}"
        )


class BareDocuments(Documents):
    """Writes values of which every string is bare: the same in half the time."""

    def __init__(self) -> None:
        super().__init__(BARE)

    def plain_map(self, entries: Any, levels: int = MAX_NESTING_LEVELS - 1) -> str:
        """See `Documents.plain_map`."""
        if type(entries) is not dict or (entries and not levels):
            raise Declined
        parts: list[str] = []
        append = parts.append
        for name, value in entries.items():
            if type(value) is not dict or len(value) != 1:
                raise Declined
            for kind, content in value.items():
                if kind == "S" and type(content) is str:
                    append(f'"{name}":"{content}"')
                elif kind == "N" and type(content) is str and is_numeral(content):
                    append(f'"{name}":{content}')
                elif kind == "M":
                    append(f'"{name}":{self.plain_map(content, levels - 1)}')
                else:
                    append(f'"{name}":{self.plain_other(kind, content, levels)}')
        return f"{{{','.join(parts)}}}"
