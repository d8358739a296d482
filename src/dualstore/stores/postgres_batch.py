"""Rows on their way into a COPY: text that is still being made, and items that are encoded one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import psycopg

from dualstore.items import Item
from dualstore.mapping import Mapped, TableMapping
from dualstore.mapping.transcoding import Rejected, Transcoded, Unreadable, read_line
from dualstore.mapping.transcoding.binary_rows import END, HEAD, Pack


class Row(NamedTuple):
    """One row to be loaded.

    Attributes:
        text: its line of COPY text, or None where the item is to be encoded.
        item: the item, or None where it is still a line of the source.
        line: the item as it came, where it came as a line.
    """

    text: bytes | None
    item: Item | None
    line: bytes | None


@dataclass(slots=True)
class Batch:
    """Rows that are loaded together.

    Attributes:
        mapping: the table.
        blocks: COPY text that is made while it is asked for.
        rows: rows that stand alone.
        sent: the blocks that were made so far.
        rejected: items that were declined and found to be none.
        declined_are_rows: whether what the blocks declined is among `rows` already.
    """

    mapping: TableMapping
    blocks: Iterator[Transcoded] = field(default_factory=lambda: iter(()))
    rows: list[Row] = field(default_factory=list)
    sent: list[Transcoded] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    declined_are_rows: bool = False

    def by_part(self, mapping: Mapped) -> list[tuple[int, "Batch"]]:
        """The same for each SQL table of a mapped table. Several are known only when all has been made."""
        if len(mapping.parts) == 1:
            return [(0, self)]
        parts = [Batch(part, declined_are_rows=True) for part in mapping.parts]
        for block in self.blocks:
            self.sent.append(block)
            self.rows += self._read(block)
            for place, some in block.by_part():
                parts[place].sent.append(some)
        for row in self.rows:
            parts[mapping.place_of(row.item or {})].rows.append(row)
        for part in parts:
            part.blocks, part.sent = iter(part.sent), []
        return [(place, part) for place, part in enumerate(parts)]

    @property
    def size(self) -> int:
        """The number of rows, once all blocks are made."""
        return sum(block.rows for block in self.sent) + len(self.rows)

    def write(self, copy: psycopg.Copy) -> None:
        """Send everything as text."""
        for block in self._made():
            copy.write(block.text)
        self._write_rows(copy)

    def packed(self, pack: Pack) -> tuple[Sequence[bytes], Sequence[Transcoded]]:
        """The parts of COPY's binary format that hold the blocks; and those that have to be sent as text."""
        blocks = list(self._made())
        rows, left = pack([block.text for block in blocks])
        return (HEAD, *rows, END), [blocks[place] for place in left]

    def write_rest(self, copy: psycopg.Copy, left: Sequence[Transcoded]) -> None:
        """Send as text what `packed` has left, and the rows that stand alone."""
        for block in left:
            copy.write(block.text)
        self._write_rows(copy)

    def alone(self) -> list[Row]:
        """Every row by itself, to find out which of them PostgreSQL refuses."""
        for _ in self._made():  # the rest, where sending them failed
            pass
        pairs = (pair for block in self.sent for pair in block.pairs())
        return [*(Row(text, None, line) for text, line in pairs), *self.rows]

    def _made(self) -> Iterator[Transcoded]:
        """The blocks, while they are made; what they declined is among the rows."""
        for block in self.blocks:
            self.sent.append(block)
            self.rows += self._read(block)
            yield block

    def _write_rows(self, copy: psycopg.Copy) -> None:
        encoded = False
        for row in self.rows:
            if row.text is not None:
                copy.write(row.text)
                continue
            if not encoded:
                copy.set_types(self.mapping.pg_types)
                encoded = True
            copy.write_row(self.mapping.encode(row.item or {}))

    def _read(self, block: Transcoded) -> Iterator[Row]:
        for line in () if self.declined_are_rows else block.declined_lines():
            try:
                yield Row(None, read_line(self.mapping.shape, line), line)
            except Unreadable as unreadable:
                self.rejected.append(Rejected(unreadable.reason, unreadable.detail, line))
