"""The backfill as it runs: an export read by two processes, claims, checkpoints, merge, progress, closing."""

import multiprocessing
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Literal, Self
from uuid import UUID

import sqlalchemy as sa

from bulk.limit import EPOCH
from bulk.table import MAPPING, TABLE, Files
from dualstore.backfill import Equipment
from dualstore.backfill.load_limits import LoadLimits
from dualstore.backfill.sources import ExportSource
from dualstore.backfill.worker import Worker
from dualstore.cli.copy_progress import shown_as
from dualstore.mapping.transcoding.accelerated import MODULE
from dualstore.store.copying import Copying, CopyOrder
from dualstore.stores.bulk import collector_paused, keep_freed_memory
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.quarantine import Form, seal_of

Kind = Literal["Python", "accelerated"]
_ANSWER_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """What a worker is told to do: help with a run, which reads an export."""

    run_id: UUID
    export: Path
    straight: bool


@dataclass(frozen=True)
class Done:
    """What a worker says when nothing of a run is left."""

    cpu_seconds: float
    peak_bytes: int


@contextmanager
def copying(url: str) -> Iterator[Copying]:
    """The table of the benchmark. DynamoDB is not asked: no key differs, and no row is from before."""
    engine = sa.create_engine(url)
    try:
        yield Copying(
            shape=MAPPING.shape,
            mapping=MAPPING,
            engine=engine,
            authority=MemoryStore({TABLE: MAPPING.shape}),
            mirror=PostgresStore(engine, {TABLE: MAPPING}, statement_timeout=timedelta(seconds=10)),
            seal=seal_of(Form.PLAIN),
            load_limits=LoadLimits(),
        )
    finally:
        engine.dispose()


def source_of(export: Path) -> ExportSource:
    return ExportSource([str(export)], shape=MAPPING.shape, s3=_no_s3)


def _no_s3() -> Any:
    raise AssertionError("the export lies here")


class Standing:
    """A crew of processes that are there before the clock starts, as psql is a program that is there at once.

    Each does what a process of `dualstore backfill` does; a context manager that ends them.

    Args:
        url: of the database.
        count: how many.
        kind: whether the accelerator is there, as far as they can see.
    """

    def __init__(self, url: str, count: int, kind: Kind) -> None:
        context = multiprocessing.get_context("spawn")
        self._answers = context.Queue()
        self._jobs = [context.Queue() for _ in range(count)]
        self._processes = [
            context.Process(target=_main, args=(url, kind, jobs, self._answers), daemon=True)
            for jobs in self._jobs
        ]
        self._export = Path()
        self._done: list[Done] = []

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        for _ in self._processes:
            while self._answer() is None:
                pass
        return self

    def __exit__(self, *_: object) -> None:
        for jobs in self._jobs:
            jobs.put(None)
        for process in self._processes:
            process.join(20)

    def work(self, equipment: Equipment, run_id: UUID, report: Callable[[], None]) -> None:
        """See `Crew.work`."""
        for jobs in self._jobs:
            jobs.put(Job(run_id, self._export, equipment.straight))
        while len(self._done) < len(self._jobs):
            answer = self._answer()
            if answer is not None:
                self._done.append(answer)
            report()

    def backfill(self, table: Copying, files: Files, *, straight: bool) -> list[Done]:
        """Copy the export, from the looks before to the closing; what the workers say."""
        self._export, self._done = files.export, []
        with redirect_stdout(StringIO()), shown_as(TABLE, as_json=False) as shown:
            result = table.copy(
                CopyOrder(
                    source=source_of(files.export),
                    crew=lambda _: self,
                    straight=straight,
                    dual_writes_since=files.taken_at - timedelta(hours=1),
                    progress=shown,
                ),
                epoch=EPOCH,
                confirm_dualwrite=lambda: EPOCH,
                loaded=lambda _: None,
            )
        if not result.succeeded or result.totals.inserted != files.items:
            raise SystemExit(f"the backfill went wrong: {result}")
        return self._done

    def _answer(self) -> Any:
        try:
            return self._answers.get(timeout=_ANSWER_SECONDS)
        except queue.Empty:
            if not all(process.is_alive() for process in self._processes):
                raise SystemExit("a worker has ended; its error stands above") from None
            return None


def _main(url: str, kind: Kind, jobs: Any, answers: Any) -> None:
    """The main function of a worker's process."""
    if kind == "Python":
        sys.modules[MODULE] = None  # type: ignore[assignment] - importing it fails, as where it is not installed
    keep_freed_memory()
    with copying(url) as table:
        answers.put("ready")
        for number, job in enumerate(iter(jobs.get, None)):
            began = time.process_time()
            equipment = table.equipment(epoch=EPOCH, source=source_of(job.export), straight=job.straight)
            name = f"{multiprocessing.current_process().pid}.{number}"
            Worker(equipment, job.run_id, name=name, stop=threading.Event(), resting=collector_paused).work()
            answers.put(Done(time.process_time() - began, _peak_bytes()))


def _peak_bytes() -> int:
    """The most memory this process has had; `ru_maxrss` may be that of the process it was forked from."""
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
    return int(peak) * 1024
