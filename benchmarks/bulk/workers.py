"""Workers of a backfill: gz in, merge and checkpoints on, a process each; and what users write by hand."""

import json
import multiprocessing
import queue
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

import psycopg
import sqlalchemy as sa
from boto3.dynamodb.types import TypeDeserializer
from psycopg.types.json import Jsonb

from bulk.limit import EPOCH
from bulk.table import MAPPING, OrderRow
from dualstore.backfill.blocks import batches_of, blocks_of_lines, gunzipped
from dualstore.mapping.transcoding import transcoder_of
from dualstore.stores.bulk import collector_paused
from dualstore.stores.postgres_load import PostgresLoad
from dualstore.stores.postgres_runs import PostgresRuns

Way = Literal["merged", "straight"]


@dataclass(frozen=True)
class Job:
    """What a worker is told to do.

    Attributes:
        accelerated: whether by the compiled transcoder.
        way: how the blocks are loaded.
        run_id: the run.
        number: the piece.
        exports: the files, one after the other.
        batch_bytes: about how much of them a transaction loads.
    """

    accelerated: bool
    way: Way
    run_id: Any
    number: int
    exports: list[Path]
    batch_bytes: int


@dataclass(frozen=True)
class Done:
    """What a worker says when it has done a job."""

    items: int
    cpu_seconds: float
    peak_bytes: int


def work(url: str, jobs: Any, answers: Any) -> None:
    """The main function of a worker process."""
    engine = sa.create_engine(url)
    load, runs = PostgresLoad(engine, MAPPING, epoch=EPOCH), PostgresRuns(engine)
    transcoders = {each: transcoder_of(MAPPING, accelerated=each) for each in (False, True)}
    runs.check()
    answers.put("ready")
    while (job := jobs.get()) is not None:
        began = time.process_time()
        piece = load.piece(runs.claim(job.run_id, job.number))
        step = load.load_blocks if job.way == "merged" else load.load_straight
        transcode = transcoders[job.accelerated].block
        parts = chain.from_iterable(gunzipped(path.open("rb")) for path in job.exports)
        batches = batches_of(blocks_of_lines(parts), batch_bytes=job.batch_bytes)
        with collector_paused():
            for number, (batch, is_last) in enumerate(batches, 1):
                position = None if is_last else {"batch": number}
                blocks = map(transcode, batch)
                piece = step(piece, blocks, position=position, reject=_nothing_rejected)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answers.put(Done(piece.row.items, time.process_time() - began, peak))
    engine.dispose()


def _nothing_rejected(_cursor: Any, rejected: Any) -> None:
    raise SystemExit(f"{len(rejected)} items were rejected: {rejected[0].reason}")


class Workers:
    """Two processes that are there before the clock starts; a context manager."""

    def __init__(self, url: str, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._answers = context.Queue()
        self._jobs = [context.Queue() for _ in range(count)]
        self._processes = [
            context.Process(target=work, args=(url, jobs, self._answers), daemon=True) for jobs in self._jobs
        ]

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        for _ in self._processes:
            assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        for jobs in self._jobs:
            jobs.put(None)
        for process in self._processes:
            process.join(20)

    def do(self, jobs: list[Job]) -> list[Done]:
        for own, job in zip(self._jobs, jobs, strict=True):
            own.put(job)
        return [self._answer() for _ in jobs]

    def _answer(self) -> Any:
        while True:
            try:
                return self._answers.get(timeout=1)
            except queue.Empty:
                if not all(process.is_alive() for process in self._processes):
                    raise SystemExit("a worker has ended; its error stands above") from None


# By hand


def _python_items(exports: list[Path], items: int) -> Iterator[dict[str, Any]]:
    deserialize = TypeDeserializer().deserialize
    left = items
    for path in exports:
        for line in chain.from_iterable(map(bytes.splitlines, blocks_of_lines(gunzipped(path.open("rb"))))):
            if not left:
                return
            left -= 1
            yield {name: deserialize(value) for name, value in json.loads(line)["Item"].items()}


def _json_number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError


def _row(item: dict[str, Any]) -> dict[str, Any]:
    return item | {"tags": list(item["tags"]), "version": int(item["version"])}


def by_core(engine: sa.Engine, exports: list[Path], items: int) -> None:
    """SQLAlchemy Core, `execute(insert, [...])`, a thousand rows at a time."""
    with engine.begin() as connection:
        for rows in _thousands(map(_row, _python_items(exports, items))):
            plain = [
                row | {"meta": json.loads(json.dumps(row["meta"], default=_json_number))} for row in rows
            ]
            connection.execute(sa.insert(OrderRow.__table__), plain)


_COLUMNS = ("pk", "sk", "created", "amount", "tags", "meta", "flag", "version")


def _values(row: dict[str, Any]) -> tuple[Any, ...]:
    meta = Jsonb(row["meta"], dumps=lambda value: json.dumps(value, default=_json_number))
    return tuple(meta if name == "meta" else row[name] for name in _COLUMNS)


def by_executemany(engine: sa.Engine, exports: list[Path], items: int) -> None:
    """psycopg's executemany."""
    insert = f"INSERT INTO orders ({', '.join(_COLUMNS)}) VALUES ({', '.join(['%s'] * len(_COLUMNS))})"
    with _driver(engine) as connection, connection.cursor() as cursor:
        for rows in _thousands(map(_row, _python_items(exports, items))):
            cursor.executemany(insert, map(_values, rows))


def by_write_row(engine: sa.Engine, exports: list[Path], items: int) -> None:
    """psycopg's COPY, row by row."""
    copying = f"COPY orders ({', '.join(_COLUMNS)}) FROM STDIN"
    with _driver(engine) as connection, connection.cursor() as cursor, cursor.copy(copying) as copy:
        copy.set_types(["text", "numeric", "timestamptz", "numeric", "text[]", "jsonb", "bool", "int8"])
        for row in map(_row, _python_items(exports, items)):
            copy.write_row(_values(row))


BY_HAND: dict[str, Callable[[sa.Engine, list[Path], int], None]] = {
    "SQLAlchemy Core executemany": by_core,
    "psycopg executemany": by_executemany,
    "psycopg write_row": by_write_row,
}


def _driver(engine: sa.Engine) -> psycopg.Connection[Any]:
    url = engine.url.render_as_string(hide_password=False).replace("postgresql+psycopg", "postgresql")
    return psycopg.connect(url)


def _thousands(rows: Iterator[Any]) -> Iterator[list[Any]]:
    some: list[Any] = []
    for row in rows:
        some.append(row)
        if len(some) == 1000:
            yield some
            some = []
    if some:
        yield some
