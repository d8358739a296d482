"""Reading an item the exact way, and saying in a word what is wrong where it is none."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dualstore.errors import RequestRejected
from dualstore.items import Item, Key, TableShape, validate_item
from dualstore.mapping.transcoding.parsed import Declined, binary


class Reason(StrEnum):
    """Why an item cannot be loaded; never says what it holds."""

    NOT_JSON = "not JSON"
    NO_ITEM = "not an item in DynamoDB-JSON"
    INVALID = "a value that DynamoDB does not store"
    NO_KEY = "without a valid key of the table"
    REFUSED = "refused by the SQL table"


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item that no row was made of.

    Attributes:
        reason: the class of the reason.
        detail: more of it, for a person; holds no value.
        line: the item as it came, `{"Item":{…}}`.
        key: its key, where that could be read.
    """

    reason: Reason
    detail: str
    line: bytes = field(repr=False)
    key: Key | None = field(default=None, repr=False)


class Unreadable(Exception):  # noqa: N818 - says what the line is
    """A line is not an item of the table."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def read_line(shape: TableShape, line: bytes) -> Item:
    """The item of a line of a full export.

    Args:
        shape: the table.
        line: `{"Item":{…}}`, as AWS's full exports have it.

    Raises:
        Unreadable: it is not an item of the table.
    """
    envelope = _parsed(line)
    if type(envelope) is not dict or envelope.keys() != {"Item"}:
        raise Unreadable(Reason.NO_ITEM, "the line is not an object with the one member `Item`")
    try:
        item: Item = _entries(envelope["Item"])
    except (Declined, RecursionError):
        raise Unreadable(Reason.NO_ITEM, "an attribute is not a value in DynamoDB-JSON") from None
    try:
        shape.keys.key_of(item)
    except RequestRejected as rejected:
        raise Unreadable(Reason.NO_KEY, rejected.message) from None
    try:
        validate_item(item)
    except (RequestRejected, RecursionError) as rejected:
        detail = rejected.message if isinstance(rejected, RequestRejected) else "nested too deep"
        raise Unreadable(Reason.INVALID, detail) from None
    return item


def read_lines(shape: TableShape, lines: Sequence[bytes]) -> tuple[list[Item], list[Rejected]]:
    """The items of lines, and the lines that are none."""
    items: list[Item] = []
    rejected: list[Rejected] = []
    for line in lines:
        try:
            items.append(read_line(shape, line))
        except Unreadable as unreadable:
            rejected.append(Rejected(unreadable.reason, unreadable.detail, line))
    return items, rejected


def _parsed(line: bytes) -> Any:
    try:
        return _DECODER.decode(line.decode())
    except RecursionError:
        raise Unreadable(Reason.NOT_JSON, "nested too deep") from None
    except _NameTwice:
        raise Unreadable(Reason.NO_ITEM, "a name stands twice in one object") from None
    except ValueError:  # its message may quote the line
        raise Unreadable(Reason.NOT_JSON, "the line is not JSON in UTF-8") from None


class _NameTwice(ValueError):  # noqa: N818 - named for what happened
    """Which of the values counts is not said anywhere."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise _NameTwice
    return entries


def _no_constant(_: str) -> Any:
    raise ValueError("NaN and infinities are not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _entries(entries: Any) -> dict[str, Any]:
    if type(entries) is not dict:
        raise Declined
    return {name: _value(each) for name, each in entries.items()}


def _each(members: Any, convert: Callable[[Any], Any]) -> list[Any]:
    if type(members) is not list:
        raise Declined
    return [convert(each) for each in members]


def _value(value: Any) -> Any:
    if type(value) is not dict or len(value) != 1:
        raise Declined
    ((kind, content),) = value.items()
    match kind:
        case "B":
            return {kind: binary(content)}
        case "BS":
            return {kind: _each(content, binary)}
        case "L":
            return {kind: _each(content, _value)}
        case "M":
            return {kind: _entries(content)}
        case _:
            return {kind: content}
