"""What a backfill and a verification ask of a place to read a table's history from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

from dualstore.items import Key
from dualstore.mapping.transcoding import Rejected, Transcoded, Transcoder
from dualstore.stores.batch_limits import Limits

Position = Mapping[str, Any]
"""Where a piece is to be read on, as JSON, in the source's own words."""
Description = Mapping[str, Any]
"""A piece of a source as JSON: enough to read it in another process, or on another machine."""


@dataclass(frozen=True)
class RawBatch:
    """Content as it came, to be handled together.

    Attributes:
        blocks: whole lines of a full export, `{"Item":{…}}`; white space between them counts for nothing.
        position_after: where the next batch begins; None after the last one of the piece. A batch without
            blocks that begins where it ends says that reading pauses: nothing has come meanwhile.
        read_units: what reading it has cost, in DynamoDB's read capacity units.
        size_bytes: of the content, as JSON.
        place: the file or segment, for messages.
        first_line: the number, from 1, of its first line; None where lines are not numbered.
    """

    blocks: Sequence[bytes]
    position_after: Position | None
    read_units: float = 0.0
    size_bytes: int = 0
    place: str = ""
    first_line: int | None = None

    def place_of(self, line: bytes) -> str:
        """Where a line of the content stands, for a person; the first of several equal ones."""
        number = self._numbers.get(line.strip()) if self.first_line is not None else None
        return self.place if number is None else f"{self.place}, line {number}"

    @cached_property
    def _numbers(self) -> Mapping[bytes, int]:
        """Rejected items are rare: what they need is made when the first of a batch asks."""
        numbers: dict[bytes, int] = {}
        number = self.first_line or 1
        for block in self.blocks:
            lines = block.split(b"\n")
            for each, line in enumerate(lines, number):
                numbers.setdefault(line.strip(), each)
            number += len(lines) - 1
        return numbers


@dataclass(frozen=True)
class Batch:
    """What one transaction is to take over.

    Attributes:
        blocks: the items, transcoded while they are asked for, without any I/O; they can be asked for once.
        position_after: see `RawBatch`.
        read_units: see `RawBatch`.
        size_bytes: see `RawBatch`.
        keys: keys to be settled.
        rejected: records that name no key of the table; items are found out while they are loaded.
        raw: the content, where there are items.
    """

    blocks: Iterable[Transcoded]
    position_after: Position | None
    read_units: float = 0.0
    size_bytes: int = 0
    keys: Sequence[Key] = ()
    rejected: Sequence[Rejected] = ()
    raw: RawBatch | None = field(default=None, repr=False)

    def place_of(self, rejected: Rejected) -> str | None:
        """Where an item stands that was rejected, for a person: a file and a line, never content."""
        return None if self.raw is None else self.raw.place_of(rejected.line)


class Source(Protocol):
    """A place to read the history of one table from, in pieces that are read side by side.

    What the constructor takes comes back from `parameters`, so that other processes can make the same
    source: `source_of`. Messages name files and lines, never an item's value.
    """

    @property
    def kind(self) -> str:
        """Which source it is, in a word."""
        ...

    @property
    def expected_items(self) -> int | None:
        """How many items it has, perhaps roughly; None where nobody knows. Known once pieces are planned."""
        ...

    def parameters(self) -> Mapping[str, Any]:
        """What it takes to make this source again, as JSON; how to read, but not what, is in `tuning`."""
        ...

    def pieces(self) -> Sequence[Description]:
        """Plan the pieces, once for a run: looks at all there is, and reads none of the items.

        Returns:
            A description of each; `items` and `bytes` are how much is expected, None where that is unknown.

        Raises:
            UnusableSource: there is something wrong with it as a whole.
            Unavailable: it could not be reached.
        """
        ...

    def read(
        self, description: Description, position: Position | None, transcoder: Transcoder, limits: Limits
    ) -> Iterator[Batch]:
        """Read a piece on, batch by batch.

        Every byte of a batch has been read when it is handed out, and whatever can be checked at the end of a
        piece has been checked before its last batch is: a piece that is damaged or too short never ends.

        Args:
            description: of the piece.
            position: where the batch before ended; None at the beginning of the piece.
            transcoder: of the table.
            limits: how much a batch may be.

        Raises:
            UnusableSource: the piece is not what was planned, or not what its manifest says.
            Unavailable: it could not be read for now.
        """
        ...

    def read_raw(
        self, description: Description, position: Position | None, limits: Limits
    ) -> Iterator[RawBatch]:
        """Read a piece as it came; arguments and errors are those of `read`."""
        ...

    def covers(self, since: datetime, *, tombstones_since: datetime | None = None) -> None:
        """See that no write falls between this source and the dual writes.

        Args:
            since: from then on every process has mirrored every write, with no earlier one in flight.
            tombstones_since: from then on every deletion has left a tombstone that is still there; None where
                no tombstone has been removed since `since`.

        Raises:
            UnusableSource: writes would be missed, or deleted items come back; says what to do.
        """
        ...


class BlockTranscoder(Protocol):
    """The half of a `Transcoder` that lines need."""

    def block(self, block: bytes) -> Transcoded:
        """See `Transcoder.block`."""
        ...


def transcoded(raw: Iterable[RawBatch], transcoder: BlockTranscoder) -> Iterator[Batch]:
    """Batches of lines, transcoded when they are loaded."""
    for each in raw:
        yield Batch(
            map(transcoder.block, each.blocks),
            each.position_after,
            read_units=each.read_units,
            size_bytes=each.size_bytes,
            raw=each,
        )
        del each  # its memory serves the next one
