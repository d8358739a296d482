"""A run past one machine: each piece is a task of a Spark job, with the same COPY, merge and checkpoint.

Spark runs a task again when it fails or its executor is lost, and twice where it is slow. Nothing is
loaded twice for that: a task claims its piece before it reads it, goes on from the piece's checkpoint, and
every write checks the claim. Where another attempt holds the piece, a task waits until that is done, or dead.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from dualstore.backfill.crew import Ledgered, Working
from dualstore.backfill.crew import copy_pieces as copy_them
from dualstore.errors import ConfigurationError, Unavailable
from dualstore.stores.ledger import PieceRow, PieceState

Opening = Callable[[], AbstractContextManager[Any]]

_LOOK = timedelta(seconds=1)
_UNFINISHED = frozenset({PieceState.PENDING, PieceState.COPYING})

_opened: dict[tuple[UUID, str], Any] = {}
"""What this executor's Python process works with: opened by its first task, closed with the process."""
_until_exit = ExitStack()


@dataclass(frozen=True)
class Spark:
    """A `Crew` of Spark's executors; this process is the driver.

    Attributes:
        context: the SparkContext.
        opening: opens what a task works with, on an executor; is pickled.
        files: sent to every executor; `shipped` finds them there.
        look: how long a task waits before it looks again at a piece that another attempt holds.
        working: what a task does with its piece.
    """

    context: Any
    opening: Opening
    files: tuple[Path, ...] = ()
    look: timedelta = _LOOK
    working: Working = copy_them

    def work(self, equipment: Ledgered, run_id: UUID, report: Callable[[], None]) -> None:
        """See `Crew.work`."""
        for file in self.files:
            self.context.addFile(str(file))
        run = equipment.runs.find(run_id)
        if run is None:
            raise ConfigurationError(f"there is no run {run_id}: was its row deleted? Start a new run")
        left = [
            piece
            for piece in equipment.runs.pieces(run)
            if piece.description is not None and piece.state in _UNFINISHED
        ]
        # Keys of incremental exports are settled when everything else is there.
        for catch_up in (False, True):
            some = [piece.number for piece in left if _is_catch_up(piece) is catch_up]
            if some:
                self._run_job(run_id, some, report)

    def _run_job(self, run_id: UUID, pieces: list[int], report: Callable[[], None]) -> None:
        group = f"dualstore {run_id}"
        task = partial(copy_pieces, self.opening, run_id, self.look, working=self.working)

        def run() -> None:
            self.context.setJobGroup(group, f"{len(pieces):,} pieces", interruptOnCancel=True)
            self.context.parallelize(pieces, len(pieces)).foreachPartition(task)

        with ThreadPoolExecutor(1, thread_name_prefix="dualstore-spark") as thread:
            job = thread.submit(run)
            try:
                while not wait_for([job], timeout=_LOOK.total_seconds()).done:
                    report()
            finally:
                if not job.done():
                    self.context.cancelJobGroup(group)
        _raise_of(job)


def _raise_of(job: "Future[None]") -> None:
    error = job.exception()
    if error is not None:
        # What executors raise may quote values: their logs have it.
        raise Unavailable(
            f"the Spark job has failed ({type(error).__name__}); the log of its executors says why. Run it "
            "again to go on"
        ) from None


def _is_catch_up(piece: PieceRow) -> bool:
    return bool((piece.description or {}).get("catch_up"))


def copy_pieces(
    opening: Opening, run_id: UUID, look: timedelta, pieces: Iterable[int], *, working: Working = copy_them
) -> None:
    """The task: work on the pieces of one partition, on an executor.

    Args:
        opening: opens what it works with.
        run_id: the run.
        look: how long to wait before looking again.
        pieces: their numbers; Spark gives one to each partition.
        working: what is done with each.

    Raises:
        MirrorFenced: PostgreSQL is not the mirror of the table any more.
        Unavailable: a database was away for too long; Spark runs the task again.
    """
    equipment = _equipment(opening, run_id)
    name = f"{socket.gethostname()}:{os.getpid()}-{uuid4().hex[:4]}"
    for number in pieces:
        working(equipment, run_id, name=name, stop=threading.Event(), look=look, only=number)


def _equipment(opening: Opening, run_id: UUID) -> Any:
    """Opened once in a process: Spark has the same one run task after task."""
    key = (run_id, repr(opening))
    if key not in _opened:
        _until_exit.close()
        _opened.clear()
        _opened[key] = _until_exit.enter_context(opening())
    return _opened[key]


def shipped(name: str) -> Path:
    """Where a file is on this executor that the driver has sent."""
    # Optional, as below.
    from pyspark import SparkFiles  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    return Path(SparkFiles.get(name))


@contextmanager
def spark_context(table: str) -> Iterator[Any]:
    """The context of the job that this process is the driver of, or of one on this machine alone.

    `spark-submit`, EMR and Glue say by its configuration where executors run.

    Raises:
        ConfigurationError: PySpark is not installed.
    """
    try:
        from pyspark import (  # noqa: PLC0415 - an optional dependency  # pyright: ignore[reportMissingImports]
            SparkConf,
            SparkContext,
        )
    except ImportError:
        raise ConfigurationError("--engine spark needs PySpark: pip install 'dualstore[spark]'") from None
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # not by `spark-submit`: workers are to be as this process
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # No master is set: `spark-submit` knows it, and takes all cores of the machine where nobody has said it.
    context = SparkContext.getOrCreate(SparkConf().setAppName(f"dualstore {table}"))
    try:
        yield context
    finally:
        context.stop()
