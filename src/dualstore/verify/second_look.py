"""The second look of a full comparison: at items and rows whose fingerprints have no equal, and no others."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from dualstore.mapping.transcoding import Transcoded
from dualstore.stores.batch_limits import Limits
from dualstore.stores.bulk import each_segment
from dualstore.stores.postgres_fingerprints import ROWS, bounds_of
from dualstore.stores.postgres_unmatched import Marked, PostgresUnmatched
from dualstore.verify.judging import Judge
from dualstore.verify.working import Lines, Source

_PIECES_AT_ONCE = 2

Look = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class SecondLook:
    """Looks at the marked batches of a run, each file of items read once.

    Attributes:
        run_id: the run.
        key: of its fingerprints.
        unmatched: finds what stands alone in a batch, and notes its keys.
        source: of the items.
        transcoded: makes blocks of lines rows, each with the number of its part.
        limits: of a batch.
        judge: waits for PostgreSQL where it is away.
    """

    run_id: UUID
    key: bytes
    unmatched: PostgresUnmatched
    source: Source
    transcoded: Callable[[Sequence[bytes]], Iterable[tuple[int, Transcoded]]]
    limits: Limits
    judge: Judge

    def take(self, described: Mapping[int, Mapping[str, Any]]) -> None:
        """Look at all batches that are marked, and have not been looked at.

        Args:
            described: the run's pieces, by their numbers.
        """
        of_piece: dict[int, list[Marked]] = {}
        for marked in self.unmatched.marked(self.run_id):
            of_piece.setdefault(marked.piece, []).append(marked)

        def look(number: int, stop: threading.Event) -> None:
            looks = self._at_rows if ROWS in described[number] else self._at_items
            for each in looks(described[number], of_piece[number]):
                if stop.is_set():
                    return
                self.judge.patiently(each)

        each_segment(look, of_piece, workers=_PIECES_AT_ONCE)

    def _at_rows(self, piece: Mapping[str, Any], batches: Sequence[Marked]) -> Iterator[Look]:
        for marked in batches:
            first, last, _ = bounds_of(piece[ROWS], marked.position)
            yield partial(self.unmatched.look_at_rows, self.run_id, marked, (first, last), key=self.key)

    def _at_items(self, piece: Mapping[str, Any], batches: Sequence[Marked]) -> Iterator[Look]:
        left = list(batches)
        position = left[0].position
        for lines in self.source.read_raw(piece, position, self.limits):
            for marked in [each for each in left if each.position == position]:
                left.remove(marked)
                yield partial(self._at_batch, piece, marked, lines)
            if not left:
                return
            position = lines.position_after
        # Batches are of another size than those that were read at first.
        for marked in left:
            lines = next(iter(self.source.read_raw(piece, marked.position, self.limits)))
            yield partial(self._at_batch, piece, marked, lines)

    def _at_batch(self, piece: Mapping[str, Any], marked: Marked, lines: Lines) -> None:
        def batches() -> Iterator[Sequence[bytes]]:
            """The batch, and what comes behind it where it was larger at first."""
            yield lines.blocks
            if lines.position_after is not None:
                for more in self.source.read_raw(piece, lines.position_after, self.limits):
                    yield more.blocks

        self.unmatched.look_at_items(self.run_id, marked, batches(), self.transcoded, key=self.key)
