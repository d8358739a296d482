"""What the proof can do, against just reading both sides: gunzip of an export beside COPY TO of the table.

    python benchmarks/verify.py [--items 1000000] [--rounds 3] [--check]

The physical limit is `gunzip -c` of all files beside one psql that copies the table out, both thrown away.
dualstore reads the same files in two processes that were there before the clock started, compares every item
with its row in both directions, and says so in the ledger. A second table of figures plants damage in one
item of ten thousand first: these are read twice, and every damaged key has to be found. That takes a second
more, the pause between two looks at a key, however many items there are.

All ways run once in each round; a ratio is the median of the ratios within a round. Ratios hold on a busy
machine only as far as all processes get the same share of it; the processor time of all of them together,
the server's included, holds further. Memory is the peak of a worker process, and the private memory of the
largest server process. Goals: 0.2 of the limit in Python, 0.6 with the accelerator.
"""

import argparse
import multiprocessing
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import psycopg
import sqlalchemy as sa
from bulk.processor import seconds_of_ended_children, seconds_of_tree
from bulk.table import MAPPING, TABLE, Base, Files, make_files

from dualstore import schema
from dualstore.backfill.blocks import batches_of, blocks_of_lines, gunzipped
from dualstore.control import PostgresRole
from dualstore.errors import ConfigurationError
from dualstore.items import key_hash
from dualstore.mapping.transcoding import transcoder_of
from dualstore.stores.bulk import keep_freed_memory
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres_comparison import PostgresComparison
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_findings import PostgresFindings
from dualstore.stores.postgres_fingerprints import fingerprints_of, hashes_of
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.testing.servers import PostgresServer
from dualstore.verify import BulkVerify, Judge, Threads, Verification
from dualstore.verify.working import LOOK

LIMIT = "gunzip beside COPY TO"
_SERVER = {"shared_buffers": "1GB", "max_wal_size": "16GB", "autovacuum": "off", "checkpoint_timeout": "1h"}
_COLUMNS = ", ".join(f'"{name}"' for name in MAPPING.column_names)


@dataclass(frozen=True)
class Batch:
    """Some blocks of a file, and where the next begin."""

    blocks: Sequence[bytes]
    position_after: Mapping[str, int] | None


@dataclass(frozen=True)
class GzipFiles:
    """The files of an export, a piece each."""

    paths: tuple[str, ...]
    kind: str = "files"

    def parameters(self) -> Mapping[str, Any]:
        return {"kind": self.kind, "paths": list(self.paths)}

    def pieces(self) -> Sequence[Mapping[str, Any]]:
        return [{"file": path} for path in self.paths]

    def read_raw(
        self, description: Mapping[str, Any], position: Mapping[str, Any] | None, limits: Any
    ) -> Iterator[Batch]:
        with Path(description["file"]).open("rb") as file:
            blocks = blocks_of_lines(gunzipped(file), block_bytes=limits.block_bytes)
            batches = enumerate(batches_of(blocks, batch_bytes=limits.batch_bytes), 1)
            for number, (batch, is_last) in batches:
                if number > (position or {}).get("batch", 0):
                    yield Batch(batch, None if is_last else {"batch": number})


def plan(engine: sa.Engine, paths: tuple[str, ...], *, accelerated: bool) -> BulkVerify:
    """One worker of a verification. DynamoDB is an empty store: it is only asked about what differs."""
    return BulkVerify(
        mapping=MAPPING,
        source=GzipFiles(paths),
        transcoder=transcoder_of(MAPPING, accelerated=accelerated),
        comparison=PostgresComparison(engine, MAPPING),
        findings=PostgresFindings(engine, MAPPING.shape.keys),
        runs=PostgresRuns(engine),
        judge=Judge(
            shape=MAPPING.shape,
            dynamodb=MemoryStore({TABLE: MAPPING.shape}),
            postgres=PostgresStore(engine, {TABLE: MAPPING}),
        ),
        at_once=False,
        fingerprints=(fingerprints_of if accelerated else hashes_of)(engine, MAPPING),
        crew=Threads(1),
        differences_kept=1_000_000,
    )


@dataclass(frozen=True)
class Helped:
    """What the helping process says when no piece is left."""

    cpu_seconds: float
    peak_bytes: int


def help_with(url: str, paths: tuple[str, ...], runs: Any, answers: Any) -> None:
    """The main function of the helping process."""
    keep_freed_memory()
    engine = sa.create_engine(url)
    PostgresRuns(engine).check()
    plans = {each: plan(engine, paths, accelerated=each) for each in (False, True) if each in _kinds()}
    answers.put(None)
    while (told := runs.get()) is not None:
        run_id, accelerated = told
        began = time.process_time()
        plans[accelerated].work(run_id, name="helper", stop=threading.Event(), look=LOOK)
        # The most that getrusage(2) tells of a spawned process may have been its parent's.
        peak = _bytes_of("self", "VmHWM")
        answers.put(Helped(time.process_time() - began, peak))
    engine.dispose()


class Helper:
    """A second process; a context manager."""

    def __init__(self, url: str, paths: tuple[str, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self._runs, self._answers = context.Queue(), context.Queue()
        self._process = context.Process(
            target=help_with, args=(url, paths, self._runs, self._answers), daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        self.answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._runs.put(None)
        self._process.join(20)

    def call(self, run_id: Any, *, accelerated: bool) -> None:
        self._runs.put((run_id, accelerated))

    def answer(self) -> Any:
        while True:
            try:
                return self._answers.get(timeout=1)
            except queue.Empty:
                if not self._process.is_alive():
                    raise SystemExit("the helper has ended; its error stands above") from None


@dataclass
class Bench:
    """The database, the files, and the second process."""

    engine: sa.Engine
    files: Files
    paths: tuple[str, ...]
    helper: Helper
    server: PostgresServer
    psql: str
    server_bytes: int = 0
    peak_bytes: int = 0

    @property
    def dsn(self) -> str:
        return self.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")

    def processor_seconds(self) -> float:
        return seconds_of_tree(self.server.pid or 0) + seconds_of_ended_children() + time.process_time()

    def limit(self) -> float:
        copying = [
            self.psql,
            "--no-psqlrc",
            "--quiet",
            "-c",
            f"COPY (SELECT {_COLUMNS} FROM orders) TO STDOUT",
        ]
        reading = subprocess.Popen([*copying, self.dsn], stdout=subprocess.DEVNULL)
        unpacking = subprocess.Popen(["gunzip", "-c", *self.paths], stdout=subprocess.DEVNULL)
        if reading.wait() or unpacking.wait():
            raise SystemExit("psql or gunzip failed")
        return 0.0

    def dualstore(self, *, accelerated: bool, damaged: frozenset[str] = frozenset()) -> float:
        """Verify; the processor time of the second process."""
        verify = plan(self.engine, self.paths, accelerated=accelerated)
        begin = verify.runs.start

        def start(*arguments: Any, **options: Any) -> Any:
            run = begin(*arguments, **options)
            self.helper.call(run.id, accelerated=accelerated)
            return run

        verify.runs.start = start  # type: ignore[method-assign] # the second process is called as one is by hand
        found = verify.run()
        helped: Helped = self.helper.answer()
        self._check(found, damaged)
        self.server_bytes = max(self.server_bytes, _largest_private_bytes(self.server.pid or 0))
        self.peak_bytes = max(self.peak_bytes, helped.peak_bytes)
        return helped.cpu_seconds

    def _check(self, found: Verification, damaged: frozenset[str]) -> None:
        assert found.items_dynamodb == found.rows_postgres == self.files.items, found
        # Against an empty DynamoDB each damaged row is one without an item.
        assert {each.key_hash for each in found.differences} == damaged, found.difference_count
        assert found.equal == self.files.items - len(damaged), found


def _kinds() -> list[bool]:
    try:
        transcoder_of(MAPPING, accelerated=True)
    except ConfigurationError:
        return [False]
    return [False, True]


def _largest_private_bytes(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return max((_bytes_of(child, "RssAnon") for child in children), default=0)


def _bytes_of(process: str, what: str) -> int:
    """What proc(5) tells of a process's memory; 0 where it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = next((line for line in status.splitlines() if line.startswith(what)), f"{what}: 0")
    return int(found.split()[1]) * 1024


@dataclass
class Rounds:
    """Seconds of each way, round by round, and the processor seconds of everything."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, name: str) -> float:
        pairs = zip(self.seconds[LIMIT], self.seconds[name], strict=True)
        return statistics.median(limit / mine for limit, mine in pairs)

    def add(self, name: str, seconds: float, processor: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)
        self.processor.setdefault(name, []).append(processor)


def measure(bench: Bench, rounds: int, *, damage: bool) -> Rounds:
    damaged = _damage(bench) if damage else frozenset()
    measured = Rounds()
    ways: dict[str, Any] = {LIMIT: bench.limit}
    for kind in _kinds():
        ways["dualstore, accelerated" if kind else "dualstore, Python"] = partial(
            bench.dualstore, accelerated=kind, damaged=damaged
        )
    for number in range(rounds + 1):
        for name, way in ways.items():
            began, processor = time.perf_counter(), bench.processor_seconds()
            elsewhere = way()
            seconds = time.perf_counter() - began
            if number:  # the first round warms up
                measured.add(name, seconds, bench.processor_seconds() - processor + elsewhere)
    return measured


def _damage(bench: Bench) -> frozenset[str]:
    """Damage one row of ten thousand."""
    statement = (
        "UPDATE orders SET amount = amount + 1"
        " WHERE sk = ANY(SELECT sk FROM orders ORDER BY random() LIMIT %s) RETURNING pk, sk"
    )
    with bench.engine.begin() as connection:
        rows = connection.exec_driver_sql(statement, (max(1, bench.files.items // 10_000),)).all()
    keys = MAPPING.shape.keys
    return frozenset(key_hash(keys, {"pk": {"S": pk}, "sk": {"N": str(sk)}}) for pk, sk in rows)


def report(title: str, bench: Bench, measured: Rounds) -> None:
    print(f"\n{title:40} {'items/s':>10} {'ratio':>7} {'µs all':>7}")
    for name, seconds in measured.seconds.items():
        rate = bench.files.items / statistics.median(seconds)
        processor = statistics.median(measured.processor[name]) / bench.files.items * 1e6
        print(f"{name:40} {rate:10,.0f} {measured.ratio(name):7.2f} {processor:7.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    arguments = parser.parse_args()
    psql = shutil.which("psql")
    if psql is None:
        raise SystemExit("psql is not installed: it is the baseline")
    keep_freed_memory()  # as the processes of `dualstore verify` do
    with tempfile.TemporaryDirectory() as directory, PostgresServer(settings=_SERVER) as server:
        Path(directory).chmod(0o755)
        url = server.create_database()
        engine = sa.create_engine(url)
        schema.upgrade(engine)
        Base.metadata.create_all(engine)
        PostgresControl(engine).raise_fence(TABLE, epoch=1, role=PostgresRole.MIRROR)
        files = make_files(Path(directory), arguments.items, arguments.items // 8)
        _load(engine, files)
        paths = tuple(map(str, files.exports))
        size = files.json_bytes / files.items
        print(f"{files.items:,} items of {size:.0f} bytes, {arguments.rounds} rounds")
        with Helper(url, paths) as helper:
            bench = Bench(engine, files, paths, helper, server, psql)
            equal = measure(bench, arguments.rounds, damage=False)
            report("equal on both sides", bench, equal)
            report("damage in 0.01 %", bench, measure(bench, 1, damage=True))
            worker, backend = bench.peak_bytes / 1e6, bench.server_bytes / 1e6
            print(f"\na worker process {worker:.0f} MB, a server process {backend:.0f} MB of its own")
        engine.dispose()
    missed = False
    for name, goal in (("dualstore, Python", 0.2), ("dualstore, accelerated", 0.6)):
        if name in equal.seconds:
            verdict = "met" if equal.ratio(name) >= goal else "missed"
            missed |= verdict == "missed"
            print(f"{name}, of the limit: {equal.ratio(name):.2f} ≥ {goal:g}: {verdict}")
    if arguments.check and missed:
        sys.exit(1)


def _load(engine: sa.Engine, files: Files) -> None:
    url = engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        for half in files.halves:
            with connection.cursor().copy(f"COPY orders ({_COLUMNS}) FROM STDIN") as copy:
                copy.write(half.read_bytes())
        connection.execute("VACUUM ANALYZE orders")
        connection.execute("CHECKPOINT")


if __name__ == "__main__":
    main()
