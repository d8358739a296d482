"""What a full comparison reads from, how much at a time and how fast, and who works on its pieces."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from dualstore.stores.bulk import each_segment

LOOK = timedelta(seconds=0.2)
"""How long a worker waits at most before it looks again for a piece that somebody else holds, who may die."""
_REPORT = timedelta(seconds=0.25)


class Lines(Protocol):
    """Some of a piece, as it came.

    Attributes:
        blocks: whole lines, each `{"Item":{…}}`.
        position_after: where the next begin; None where the piece ends.
    """

    @property
    def blocks(self) -> Sequence[bytes]: ...  # noqa: D102 - see above
    @property
    def position_after(self) -> Mapping[str, Any] | None: ...  # noqa: D102


class Source(Protocol):
    """Where items are read from, in pieces: a Scan, an export, files. See `backfill.sources`."""

    def pieces(self) -> Sequence[Mapping[str, Any]]:
        """Plan the pieces, once for a run."""
        ...

    def parameters(self) -> Mapping[str, Any]:
        """What makes this source this one, as JSON; how it is read, but not what, is in `tuning`."""
        ...

    def read_raw(
        self, description: Mapping[str, Any], position: Mapping[str, Any] | None, limits: Any
    ) -> Iterator[Lines]:
        """Read a piece on from a position."""
        ...


class Crew(Protocol):
    """Who works on the pieces of a run: a crew of `backfill`, or `Threads`."""

    def work(self, equipment: Any, run_id: UUID, report: Callable[[], None]) -> None:
        """Compare pieces until none is left to be claimed.

        Args:
            equipment: the `BulkVerify` of this process.
            run_id: the run.
            report: called now and then, never by two threads at once.
        """
        ...


@dataclass(frozen=True)
class Threads:
    """Threads of this process, each with a connection and a batch of its own.

    Attributes:
        count: how many.
    """

    count: int = 2

    def work(self, equipment: Any, run_id: UUID, report: Callable[[], None]) -> None:
        """See `Crew.work`."""
        lock, due = threading.Lock(), 0.0

        def advanced() -> None:
            nonlocal due
            with lock:
                if time.monotonic() >= due:
                    report()
                    due = time.monotonic() + _REPORT.total_seconds()

        def compare(number: int, stop: threading.Event) -> None:
            name = f"{socket.gethostname()}:{os.getpid()}.{number}"
            equipment.work(run_id, name=name, stop=stop, look=LOOK, advanced=advanced)

        each_segment(compare, range(self.count), workers=self.count)
        report()


def compare_pieces(
    equipment: Any,
    run_id: UUID,
    *,
    name: str,
    stop: threading.Event,
    look: timedelta,
    only: int | None = None,
) -> None:
    """What a process of a crew of `backfill` does with pieces: compare them.

    Args:
        equipment: a `BulkVerify`.
        run_id: the run.
        name: the worker's, which no other has.
        stop: set where it is to give its piece back and end.
        look: how long to wait before looking again.
        only: the piece of this number; None: any.
    """
    equipment.work(run_id, name=name, stop=stop, look=look, only=only)


@dataclass
class Pace:
    """Keeps a worker from going faster than it may; None: it may go as fast as it can."""

    per_second: float | None
    free_at: float = field(default_factory=time.monotonic)

    def keep(self, done: int, stop: threading.Event) -> None:
        """Wait until so many more may have been done, or `stop` is set."""
        if self.per_second is not None:
            self.free_at = max(self.free_at, time.monotonic()) + done / self.per_second
            stop.wait(self.free_at - time.monotonic())


def interleaved(
    items: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Both in turn, so that one worker reads files while another has PostgreSQL write."""
    placed = [
        ((number + 0.5) / len(some), piece) for some in (items, rows) for number, piece in enumerate(some)
    ]
    return [piece for _, piece in sorted(placed, key=lambda each: each[0])]
