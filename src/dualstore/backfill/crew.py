"""Who copies the pieces of a run: threads of this process, or processes of their own."""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol
from uuid import UUID, uuid4

from dualstore.backfill.equipment import Equipment
from dualstore.backfill.worker import Worker
from dualstore.errors import ConfigurationError, DualStoreError, MirrorFenced, Unavailable
from dualstore.stores.bulk import collector_paused, each_segment, keep_freed_memory
from dualstore.stores.ledger import Pulse, RunState, Wish
from dualstore.stores.postgres_runs import PostgresRuns

_LOOK = timedelta(seconds=1)
_PATIENCE_SECONDS = 90.0
_REPLACEMENTS = 3
"""For each process that was killed; a worker that ends by itself with an error is not replaced."""

_RAISED: dict[str, type[DualStoreError]] = {
    each.__name__: each for each in (MirrorFenced, Unavailable, ConfigurationError)
}
"""What is raised again of what a worker's process has ended with; anything else asks for another try."""


class Crew(Protocol):
    """Who copies the pieces of a run."""

    def work(self, equipment: Equipment, run_id: UUID, report: Callable[[], None]) -> None:
        """Copy pieces until none is left to be claimed, or the run is to halt.

        Args:
            equipment: of this process.
            run_id: the run.
            report: called now and then, never by two threads at once.

        Raises:
            MirrorFenced: PostgreSQL is not the mirror of the table any more.
            Unavailable: a database was away for too long, or workers have died.
        """
        ...


@dataclass(frozen=True)
class Threads:
    """Threads of this process, each with a connection and a batch of its own.

    Attributes:
        count: how many.
        look: how long a thread waits before it looks again for a piece.
    """

    count: int = 1
    look: timedelta = _LOOK

    def work(self, equipment: Equipment, run_id: UUID, report: Callable[[], None]) -> None:
        """See `Crew.work`."""
        lock, mark = threading.Lock(), uuid4().hex[:4]

        def advanced() -> None:
            with lock:
                report()

        def copy(number: int, stop: threading.Event) -> None:
            name = f"{_name(os.getpid(), mark)}.{number}"
            Worker(equipment, run_id, name=name, stop=stop, advanced=advanced, look=self.look).work()

        each_segment(copy, range(self.count), workers=self.count)


class Working(Protocol):
    """What a process of its own does with the pieces of a run; is pickled."""

    def __call__(
        self,
        equipment: Any,
        run_id: UUID,
        *,
        name: str,
        stop: threading.Event,
        look: timedelta,
        only: int | None = None,
    ) -> None:
        """Work on pieces until none is left.

        Args:
            equipment: what was opened for it.
            run_id: the run.
            name: the worker's, which no other has.
            stop: set where it is to give its piece back and end.
            look: how long to wait before looking again for a piece.
            only: the piece of this number; None: any.
        """
        ...


def copy_pieces(
    equipment: Any,
    run_id: UUID,
    *,
    name: str,
    stop: threading.Event,
    look: timedelta,
    only: int | None = None,
) -> None:
    """Copy them; see `Working`."""
    worker = Worker(equipment, run_id, name=name, stop=stop, resting=collector_paused, look=look)
    worker.work(only=only)


class Ledgered(Protocol):
    """Whatever works on a run: an `Equipment`, or a verification."""

    @property
    def runs(self) -> PostgresRuns:
        """The ledger of runs."""
        ...


@dataclass(frozen=True)
class Processes:
    """Processes of their own, each with its own connections; they end when this one does.

    Attributes:
        count: how many.
        opening: opens what a process works with; is pickled.
        look: how long a process waits before it looks again for a piece.
        working: what a process does.
    """

    count: int
    opening: Callable[[], AbstractContextManager[Any]]
    look: timedelta = _LOOK
    working: Working = copy_pieces

    def work(self, equipment: Ledgered, run_id: UUID, report: Callable[[], None]) -> None:
        """See `Crew.work`."""
        team = [self._hired(run_id) for _ in range(self.count)]
        replacements = _REPLACEMENTS * self.count
        ended: list[_Hired] = []
        try:
            while team:
                wait([each.process.sentinel for each in team], timeout=_LOOK.total_seconds())
                report()
                for each in [each for each in team if not each.process.is_alive()]:
                    team.remove(each)
                    ended.append(each)
                    if each.was_killed:  # its lease need not run out first
                        equipment.runs.forsake(run_id, worker=each.name)
                    if each.was_killed and replacements:
                        replacements -= 1
                        team.append(self._hired(run_id))
        finally:
            _dismiss(team)
        _raise_of(ended, equipment.runs.pulse(run_id))

    def _hired(self, run_id: UUID) -> "_Hired":
        context = multiprocessing.get_context("spawn")
        receiving, sending = context.Pipe(duplex=False)
        mark = uuid4().hex[:4]
        process = context.Process(target=_main, args=(self, run_id, mark, sending))
        process.start()
        sending.close()
        return _Hired(process, _name(process.pid or 0, mark), receiving)


@dataclass(frozen=True)
class _Hired:
    """A worker's process, and where it says what it has ended with."""

    process: BaseProcess
    name: str
    last_words: Connection

    @property
    def was_killed(self) -> bool:
        return self.process.exitcode is not None and self.process.exitcode < 0

    def error(self) -> DualStoreError | None:
        """What it has ended with, or None where all went well."""
        if self.process.exitcode == 0:
            return None
        if self.was_killed:
            name = signal.Signals(-(self.process.exitcode or 0)).name
            return Unavailable(f"a worker was killed ({name}), and so were those in its place: run it again")
        with suppress(EOFError, OSError):
            kind, text = self.last_words.recv()
            return _RAISED.get(kind, Unavailable)(text)
        return Unavailable("a worker ended with an error that stands in its log: run it again to go on")


def _raise_of(ended: Iterable[_Hired], pulse: Pulse) -> None:
    """Raise what a worker has ended with, where that left work behind which nobody else has done."""
    errors = [error for each in ended if (error := each.error()) is not None]
    if (
        errors
        and pulse.unfinished
        and pulse.run.state is RunState.RUNNING
        and pulse.run.wish is not Wish.HALT
    ):
        raise next((error for error in errors if isinstance(error, MirrorFenced)), errors[-1])


def _dismiss(team: Iterable[_Hired]) -> None:
    """Have workers give their pieces back; those that do not are ended."""
    for each in team:
        each.process.terminate()
    for each in team:
        each.process.join(_PATIENCE_SECONDS)
        if each.process.is_alive():
            each.process.kill()
            each.process.join()


def _main(
    crew: Processes,
    run_id: UUID,
    mark: str,
    last_words: Connection,
) -> None:
    """The main function of a worker's process."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent says what to do
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    keep_freed_memory()
    try:
        with crew.opening() as equipment:
            name = _name(os.getpid(), mark)
            crew.working(equipment, run_id, name=name, stop=stop, look=crew.look)
    except DualStoreError as error:
        last_words.send((_kind_of(error), str(error)))
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - told without its text, which may quote a value
        traceback.print_tb(error.__traceback__)
        last_words.send(("", f"a worker ended with {type(error).__name__}; the log has its traceback"))
        sys.exit(1)


def _kind_of(error: DualStoreError) -> str:
    return next((name for name, kind in _RAISED.items() if isinstance(error, kind)), "")


def _stop_with_parent(stop: threading.Event) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        stop.set()


def _name(process: int, mark: str) -> str:
    """A name that no other worker has, and by which a person finds it."""
    return f"{socket.gethostname()}:{process}-{mark}"
