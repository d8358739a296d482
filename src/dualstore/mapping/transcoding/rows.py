"""What comes out of transcoding: COPY text, and which items it does not hold."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Transcoded:
    """A block of items as rows in COPY's text format.

    Attributes:
        text: whole lines, with the columns `mapping.column_names`.
        rows: how many lines.
        declined: the numbers, from 0, of the items that the text does not hold: the exact path takes them.
        json_bytes: the size of the block as it came.
        lines: the items as they came, all of them, each as a line `{"Item":{…}}`; made when it is called.
        parts: where the items go to several SQL tables: the number of each part and what goes there. The
            text is in the parts then, and `text` is empty.
    """

    text: bytes
    rows: int
    declined: Sequence[int]
    json_bytes: int
    lines: Callable[[], Sequence[bytes]]
    parts: Sequence[tuple[int, "Transcoded"]] = ()

    def by_part(self) -> Sequence[tuple[int, "Transcoded"]]:
        """What goes to each SQL table, by the number of its part."""
        return self.parts or ((0, self),)

    def declined_lines(self) -> Sequence[bytes]:
        """The items that the text does not hold."""
        if not self.declined:
            return ()
        lines = self.lines()
        return [lines[number] for number in self.declined]

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """Each line of the text with the item that it was made from."""
        declined = set(self.declined)
        done = (line for number, line in enumerate(self.lines()) if number not in declined)
        return zip(self.text.splitlines(keepends=True), done, strict=True)


@dataclass(frozen=True, slots=True)
class TranscodedPage:
    """What a Scan answered, its items as rows.

    Attributes:
        rows: the items.
        rest: the answer as JSON, its items left out.
    """

    rows: Transcoded
    rest: bytes


class Transcoder(Protocol):
    """Turns blocks of DynamoDB-JSON into COPY text. All of them answer the same, byte by byte."""

    def block(self, block: bytes) -> Transcoded:
        """Transcode lines of a full export.

        Args:
            block: whole lines, each `{"Item":{…}}`; lines of white space count for nothing.
        """
        ...

    def page(self, body: bytes) -> TranscodedPage:
        """Transcode the answer of a Scan.

        Args:
            body: the body of the response, as it came.

        Raises:
            ValueError: it is not an answer of Scan.
        """
        ...


def lines_of(block: bytes) -> list[bytes]:
    """The lines of a block, but those of white space."""
    return [line for line in block.split(b"\n") if line.strip(b" \t\r")]
