"""Transcoding for several SQL tables: each item goes to the transcoder of its entity's table."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from dualstore.errors import RequestRejected
from dualstore.mapping.splits import SplitMapping
from dualstore.mapping.transcoding.pure import lines_of_page, rest_of_page
from dualstore.mapping.transcoding.rows import Transcoded, TranscodedPage, Transcoder, lines_of

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, RequestRejected, ValueError)


class SplitTranscoder:
    """Transcodes the items of one table in several SQL tables; see `Transcoder`.

    Of each item it reads the attributes that tell its entity, and no others.

    Args:
        mapping: the table.
        parts: the transcoders of its parts.
    """

    def __init__(self, mapping: SplitMapping, parts: Sequence[Transcoder]) -> None:
        self._mapping = mapping
        self._parts = parts
        entities = [each.entity for each in mapping.entities]
        names = dict.fromkeys(
            name
            for entity in entities
            for name in (*([entity.attribute] if entity.attribute else []), *dict(entity.prefixes))
        )
        # Under names of our own: an attribute may have any name, and a field may not.
        self._fields = {f"f{number}": name for number, name in enumerate(names)}
        item = msgspec.defstruct(
            "Told",
            [(field, dict[str, Any] | None, None) for field in self._fields],
            rename=self._fields,
            gc=False,
        )
        line = msgspec.defstruct("Line", [("item", item)], rename={"item": "Item"}, gc=False)
        self._line = msgspec.json.Decoder(line).decode

    def block(self, block: bytes) -> Transcoded:
        """See `Transcoder.block`."""
        return self._split(lines_of(block), len(block))

    def page(self, body: bytes) -> TranscodedPage:
        """See `Transcoder.page`."""
        return TranscodedPage(self._split(lines_of_page(body), len(body)), rest_of_page(body))

    def _split(self, lines: Sequence[bytes], json_bytes: int) -> Transcoded:
        numbers: dict[int, list[int]] = {}
        for number, line in enumerate(lines):
            numbers.setdefault(self._place_of(line), []).append(number)
        parts = [
            (place, self._parts[place].block(b"\n".join(lines[number] for number in some)))
            for place, some in sorted(numbers.items())
        ]
        declined = [numbers[place][number] for place, part in parts for number in part.declined]
        rows = sum(part.rows for _, part in parts)
        return Transcoded(b"", rows, sorted(declined), json_bytes, partial(_same, lines), parts)

    def _place_of(self, line: bytes) -> int:
        """The part of a line's item; of what is no item, the last: its transcoder declines it."""
        try:
            told: Any = self._line(line)
            values = {name: getattr(told.item, field) for field, name in self._fields.items()}
            item = {name: value for name, value in values.items() if value is not None}
            return self._mapping.place_of(item)
        except _UNREADABLE:
            return len(self._mapping.parts) - 1


def _same(lines: Sequence[bytes]) -> Sequence[bytes]:
    return lines
