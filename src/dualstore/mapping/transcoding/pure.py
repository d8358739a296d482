"""Transcoding in Python: msgspec parses, strings are put together by hand."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec

from dualstore.items import PREDECESSOR, STAMP
from dualstore.mapping.tables import TableMapping
from dualstore.mapping.text import escape
from dualstore.mapping.transcoding.documents import BareDocuments, Documents, NotPlain, distinct, numeral
from dualstore.mapping.transcoding.forms import UNLIMITED, Field, Form, fields_of
from dualstore.mapping.transcoding.parsed import Declined, binary
from dualstore.mapping.transcoding.rows import Transcoded, TranscodedPage, lines_of
from dualstore.mapping.transcoding.shapes import Shapes
from dualstore.mapping.transcoding.texts import BARE, CAREFUL, NULL, Strings

_ParsedValue = Annotated[dict[str, Any], msgspec.Meta(min_length=1, max_length=1)]
ParsedItem = dict[str, _ParsedValue]
WriteField = Callable[[Any], str | None]
"""From a content to its field, or None where the overflow holds it."""

_OPENING = '{"Item":'
_OPENING_CHARACTERS = len(_OPENING)
_STAMP_SIZE_BYTES = 16
_NOTHING_LEFT = (NULL, NULL)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    Item: ParsedItem


class _RawPage(msgspec.Struct, gc=False):
    Items: list[msgspec.Raw]


_line = msgspec.json.Decoder(_Line).decode
_item = msgspec.json.Decoder(ParsedItem).decode
_raw_page = msgspec.json.Decoder(_RawPage).decode
_rest = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class PureTranscoder:
    """Transcodes the items of one table; see `Transcoder`.

    Args:
        mapping: the table.
    """

    def __init__(self, mapping: TableMapping) -> None:
        fields = fields_of(mapping)
        self._bare = _RowWriter(fields, BARE, BareDocuments()).write
        self._careful = _RowWriter(fields, CAREFUL, Documents(CAREFUL)).write
        self._shapes = Shapes(fields)

    def block(self, block: bytes) -> Transcoded:
        """See `Transcoder.block`."""
        lines = lines_of(block)
        texts, bare = _texts_of(lines), b"\\" not in block
        rows: list[str] = []
        declined: list[int] = []
        shaped = self._shapes.row
        for number, text in enumerate(texts):
            end = len(text) - 1
            if text[:_OPENING_CHARACTERS] == _OPENING and text[end] == "}":
                row = shaped(text, _OPENING_CHARACTERS, end)
                if row is not None:
                    rows.append(row)
                    continue
            line = lines[number]
            line_is_bare = bare or b"\\" not in line
            try:
                row = self._general(_line(line).Item, bare=line_is_bare)
            except (Declined, *_UNREADABLE):
                declined.append(number)
                continue
            rows.append(row)
            if line_is_bare and self._shapes.wants_another:
                self._shapes.learn(_line(line).Item, text, _OPENING_CHARACTERS, end, row)
        return Transcoded(_copy_text(rows), len(rows), declined, len(block), partial(lines_of, block))

    def page(self, body: bytes) -> TranscodedPage:
        """See `Transcoder.page`."""
        raws = [bytes(raw) for raw in _raw_page(body).Items]
        texts, bare = _texts_of(raws), b"\\" not in body
        rows: list[str] = []
        declined: list[int] = []
        shaped = self._shapes.row
        for number, text in enumerate(texts):
            row = shaped(text, 0, len(text))
            if row is not None:
                rows.append(row)
                continue
            raw = raws[number]
            raw_is_bare = bare or b"\\" not in raw
            try:
                row = self._general(_item(raw), bare=raw_is_bare)
            except (Declined, *_UNREADABLE):
                declined.append(number)
                continue
            rows.append(row)
            if raw_is_bare and self._shapes.wants_another:
                self._shapes.learn(_item(raw), text, 0, len(text), row)
        done = Transcoded(_copy_text(rows), len(rows), declined, len(body), partial(lines_of_page, body))
        return TranscodedPage(done, rest_of_page(body))

    def _general(self, item: ParsedItem, *, bare: bool) -> str:
        return self._bare(item) if bare else self._careful(item)


def _texts_of(lines: list[bytes]) -> list[str]:
    """Lines as texts; one that is not UTF-8 as white space, which has no shape."""
    try:
        return [line.decode() for line in lines]
    except UnicodeDecodeError:
        return [_text_of(line) for line in lines]


def _text_of(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return " "


def lines_of_page(body: bytes) -> Sequence[bytes]:
    """The items of a Scan's answer as lines of an export."""
    return [b'{"Item":' + bytes(raw) + b"}" for raw in _raw_page(body).Items]


def rest_of_page(body: bytes) -> bytes:
    """A Scan's answer without its items."""
    rest = _rest(body)
    rest.pop("Items", None)
    return msgspec.json.encode(rest)


def _copy_text(rows: list[str]) -> bytes:
    return ("\n".join(rows) + "\n").encode() if rows else b""


class _RowWriter:
    """Writes rows of one table.

    Args:
        fields: its columns.
        strings: how strings are written.
        documents: how JSON is written.
    """

    def __init__(self, fields: Sequence[Field], strings: Strings, documents: Documents) -> None:
        self._typed, self._overflow = documents.typed, documents.overflow
        self._columns = tuple(
            (field.attribute, field.type, _writer(field, strings, documents)) for field in fields
        )
        self._key_columns = range(sum(field.key_bytes > 0 for field in fields))

    def write(self, item: ParsedItem) -> str:
        """The row of an item, without the end of the line; takes the item apart.

        Raises:
            Declined: the item is not surely valid.
        """
        row: list[str] = []
        append, get = row.append, item.get
        left = len(item)
        for attribute, type_, write in self._columns:
            field = None
            value = get(attribute)
            if value is not None:
                content = value.get(type_)
                if content is not None:
                    field = write(content)
            if field is None:
                append(NULL)
            else:
                append(field)
                left -= 1
        for number in self._key_columns:
            if row[number] is NULL:
                raise Declined
        if left:
            row += self._rest(item, row)
        else:
            row += _NOTHING_LEFT
        return "\t".join(row)

    def _rest(self, item: ParsedItem, row: Sequence[str]) -> tuple[str, str]:
        """The fields of the bookkeeping columns, for what no column holds; takes the item apart."""
        for (attribute, _, _), field in zip(self._columns, row, strict=True):
            if field is not NULL:
                del item[attribute]
        stamp = NULL
        content = item.get(STAMP, {}).get("B")
        if content is not None and len(payload := binary(content)) == _STAMP_SIZE_BYTES:
            del item[STAMP]
            stamp = f"\\\\x{payload.hex()}"
        if PREDECESSOR in item:
            self._typed(item.pop(PREDECESSOR))  # dropped, but looked at
        return self._overflow(item) if item else NULL, stamp


# Fields


def _writer(field: Field, strings: Strings, documents: Documents) -> WriteField:
    return _WRITERS[field.form](field, strings, documents)


def _text(field: Field, strings: Strings, _: Documents) -> WriteField:
    if field.key_bytes:
        return _key_text(strings.text, field.key_bytes)
    return strings.text if field.limit == UNLIMITED else _short_text(strings.text, field.limit)


def _key_text(write: Callable[[Any], str], most_bytes: int) -> WriteField:
    surely_short = most_bytes // 4  # characters, of four bytes at most

    def key(content: Any) -> str:
        if type(content) is not str or not content:
            raise Declined
        if len(content) > surely_short and len(content.encode()) > most_bytes:
            raise Declined
        return write(content)

    return key


def _short_text(write: Callable[[Any], str], most_characters: int) -> WriteField:
    def short(content: Any) -> str | None:
        text = write(content)
        return text if len(escape(content)) <= most_characters else None

    return short


def _decimal(most_before: int, most_behind: int) -> WriteField:
    def decimal(content: Any) -> str | None:
        before, _, behind = numeral(content).lstrip("-").partition(".")
        fits = len(before.lstrip("0")) <= most_before and len(behind) <= most_behind
        return str(content) if fits else None

    return decimal


def _integer(bits: int) -> WriteField:
    limit = 1 << (bits - 1)
    surely_fits = len(str(limit)) - 1  # characters

    def integer(content: Any) -> str | None:
        text = numeral(content)
        if "." in text:
            return None
        return text if len(text) <= surely_fits or -limit <= int(text) < limit else None

    return integer


def _binary(most_key_bytes: int) -> WriteField:
    def field(content: Any) -> str:
        payload = binary(content)
        if most_key_bytes and not 0 < len(payload) <= most_key_bytes:
            raise Declined
        return f"\\\\x{payload.hex()}"

    return field


def _boolean(content: Any) -> str:
    if type(content) is not bool:
        raise Declined
    return "t" if content else "f"


# The years whose days psycopg reads back in every time zone; `mapping.codecs` knows about the others.
_BEFORE_YEARS, _BEHIND_YEARS = "0002", "9998"
_SEPARATORS = "--T::."  # every third character of 0001-01-01T00:00:00.000000+0000, from the fifth on
_MOMENT_CHARACTERS = 31


def _moment(step_microseconds: int, *, has_zone: bool) -> WriteField:
    read = datetime.fromisoformat

    def moment(content: Any) -> str | None:
        if type(content) is not str:
            raise Declined
        if (
            len(content) != _MOMENT_CHARACTERS
            or content[4:20:3] != _SEPARATORS
            or content[-5:] != "+0000"
            or content[11:13] == "24"  # from Python 3.13 on: the end of a day, which is written otherwise
        ):
            return None
        try:
            read(content)
        except ValueError:
            return None
        if not _BEFORE_YEARS < content < _BEHIND_YEARS:
            raise Declined
        if step_microseconds > 1 and int(content[20:26]) % step_microseconds:
            return None
        return content if has_zone else content[:-5]

    return moment


def _json(field: Field, _: Strings, documents: Documents) -> WriteField:
    write: Callable[[Any], str] = documents.plain_map if field.type == "M" else documents.plain_list

    def plain(content: Any) -> str | None:
        try:
            return write(content)
        except NotPlain:
            return None

    return plain


def _texts(content: Any) -> str:
    return f"{{{','.join(map(CAREFUL.member, distinct(content)))}}}"


def _bare_texts(content: Any) -> str:
    try:
        return '{"' + '","'.join(distinct(content)) + '"}'
    except TypeError:  # a member is no string
        raise Declined from None


def _numbers(content: Any) -> str:
    return f"{{{','.join(map(numeral, distinct(content)))}}}"


def _called(field: Field, _: Strings, documents: Documents) -> WriteField:
    call, type_ = field.call, field.type
    assert call is not None  # noqa: S101 - the form says so

    def called(content: Any) -> str | None:
        documents.typed({type_: content})  # valid, or declined
        return call(content)

    return called


_WRITERS: dict[Form, Callable[[Field, Strings, Documents], WriteField]] = {
    Form.TEXT: _text,
    Form.NUMERIC: lambda *_: numeral,
    Form.DECIMAL: lambda field, *_: _decimal(field.limit, field.scale),
    Form.INTEGER: lambda field, *_: _integer(field.limit),
    Form.BOOLEAN: lambda *_: _boolean,
    Form.BINARY: lambda field, *_: _binary(field.key_bytes),
    Form.MOMENT: lambda field, *_: _moment(field.limit, has_zone=bool(field.scale)),
    Form.JSON: _json,
    Form.TEXTS: lambda _, strings, __: _bare_texts if strings is BARE else _texts,
    Form.NUMBERS: lambda *_: _numbers,
    Form.CALLED: _called,
}
