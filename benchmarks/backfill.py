"""What the bulk copy can do, against psql streams that COPY a text which somebody else has prepared.

    python benchmarks/backfill.py [--items 1000000] [--rounds 7] [--check]

The physical limit is two psql streams. Each copies prepared COPY text into a staging table and runs the same
merge, once in pieces as large as dualstore's own and once in one piece for each stream; the faster of the two
counts. Straight copies are held against two psql streams that copy into the table itself. dualstore reads the
gz files of an export, transcodes, stages, merges and writes its checkpoint in the same transaction, in two
processes that were there before the clock started, as psql is a program that is there at once.

All ways run once in each round, the table emptied and a checkpoint made before each; a ratio is the median of
the ratios within a round. Client cost is the processor time of a worker process, gunzip and psycopg included,
a row. Beside them stand what users write by hand, a tenth of the items each.

Ratios hold on a busy machine only as far as all processes get the same share of it; the processor time of all
of them together a row, the server's included, holds further, and says what two busy cores would carry. Goals:
0.6 and 0.9 of the staged limit, 0.45 and 0.7 of the straight one, 8 and 2 µs a row, 8 times boto3's Scan, 8
times SQLAlchemy's executemany, 300 MB a worker.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from bulk.limit import EPOCH, run_streams, staged_script, straight_script
from bulk.processor import seconds_of_ended_children, seconds_of_tree
from bulk.scan import scan_rates
from bulk.table import FILES, MAPPING, TABLE, Base, Files, make_files
from bulk.workers import BY_HAND, Done, Job, Way, Workers

from dualstore import schema
from dualstore.control import PostgresRole
from dualstore.errors import ConfigurationError
from dualstore.mapping.transcoding import transcoder_of
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.testing.servers import PostgresServer

STREAMS = 2
LIMITS = ("psql, staged and merged, in pieces", "psql, staged and merged, at once")
STRAIGHT_LIMIT = "psql, straight"
_SERVER = {"shared_buffers": "1GB", "max_wal_size": "16GB", "autovacuum": "off", "checkpoint_timeout": "1h"}


class Goal(NamedTuple):
    """Something measured, and what it has to be at least, or at most."""

    what: str
    measured: float
    limit: float
    at_most: bool = False

    @property
    def missed(self) -> bool:
        return self.measured > self.limit if self.at_most else self.measured < self.limit


@dataclass
class Rounds:
    """Rows a second of each way, round by round, and what the workers said."""

    rates: dict[str, list[float]] = field(default_factory=dict)
    workers: dict[str, list[Done]] = field(default_factory=dict)
    processor_seconds: dict[str, list[float]] = field(default_factory=dict)
    items: int = 0

    def ratio(self, name: str, *bases: str) -> float:
        base = [max(each) for each in zip(*(self.rates[base] for base in bases), strict=True)]
        return statistics.median(mine / theirs for mine, theirs in zip(self.rates[name], base, strict=True))

    def processor_ratio(self, name: str, *bases: str) -> float:
        """As `ratio`, of the processor time of everything that took part, the server included."""
        base = [min(each) for each in zip(*(self.processor_seconds[base] for base in bases), strict=True)]
        mine = self.processor_seconds[name]
        return statistics.median(theirs / own for own, theirs in zip(mine, base, strict=True))

    def processor_microseconds(self, name: str) -> float:
        return statistics.median(self.processor_seconds[name]) / self.items * 1e6

    def rate(self, name: str) -> float:
        return statistics.median(self.rates[name])

    def microseconds(self, name: str) -> float:
        return statistics.median(done.cpu_seconds / done.items for done in self.workers[name]) * 1e6

    def megabytes(self, name: str) -> float:
        return max(done.peak_bytes for done in self.workers[name]) / 1e6


@dataclass
class Bench:
    """The database, the files, and who loads them."""

    engine: sa.Engine
    files: Files
    workers: Workers
    batch_bytes: int
    psql: str
    server: PostgresServer

    def processor_seconds(self) -> float:
        return seconds_of_tree(self.server.pid or 0) + seconds_of_ended_children()

    @property
    def dsn(self) -> str:
        return self.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")

    def empty(self, role: PostgresRole) -> None:
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("UPDATE dualstore.control SET role = %s", (str(role),))
            connection.exec_driver_sql(f"TRUNCATE {MAPPING.table.name}")
            connection.exec_driver_sql("CHECKPOINT")

    def check(self, items: int) -> None:
        with self.engine.connect() as connection:
            rows = connection.exec_driver_sql(f"SELECT count(*) FROM {MAPPING.table.name}").scalar()
        assert rows == items, f"{rows} rows, not {items}"

    def staged(self, pieces: list[list[Path]]) -> None:
        run_streams(self.psql, self.dsn, [staged_script(each) for each in pieces])

    def straight(self) -> None:
        run_streams(self.psql, self.dsn, [straight_script([half]) for half in self.files.halves])

    def dualstore(self, way: Way, *, accelerated: bool) -> list[Done]:
        run = PostgresRuns(self.engine).start("backfill", TABLE, {}, pieces=STREAMS)
        share = [self.files.exports[number::STREAMS] for number in range(STREAMS)]
        jobs = [
            Job(accelerated, way, run.id, number, exports, self.batch_bytes)
            for number, exports in enumerate(share)
        ]
        return self.workers.do(jobs)


def ways_of(
    bench: Bench, *, accelerated: bool
) -> dict[str, tuple[PostgresRole, Callable[[], list[Done] | None]]]:
    mirror, nobody = PostgresRole.MIRROR, PostgresRole.NONE
    halves = [[half] for half in bench.files.halves]
    ways: dict[str, tuple[PostgresRole, Callable[[], list[Done] | None]]] = {
        LIMITS[0]: (mirror, partial(bench.staged, bench.files.pieces)),
        LIMITS[1]: (mirror, partial(bench.staged, halves)),
        STRAIGHT_LIMIT: (nobody, bench.straight),
    }
    for kind, compiled in {"Python": False, "accelerated": True}.items():
        if accelerated or not compiled:
            ways[f"dualstore, {kind}"] = (mirror, partial(bench.dualstore, "merged", accelerated=compiled))
            ways[f"dualstore, {kind}, straight"] = (
                nobody,
                partial(bench.dualstore, "straight", accelerated=compiled),
            )
    return ways


def run(bench: Bench, rounds: int, *, accelerated: bool) -> Rounds:
    measured = Rounds(items=bench.files.items)
    ways = ways_of(bench, accelerated=accelerated)
    for number in range(rounds + 1):
        for name, (role, load) in ways.items():
            bench.empty(role)
            began, processor = time.perf_counter(), bench.processor_seconds()
            done = load()
            seconds = time.perf_counter() - began
            processor = bench.processor_seconds() - processor + sum(each.cpu_seconds for each in done or ())
            bench.check(bench.files.items)
            if number:  # the first round warms up
                measured.rates.setdefault(name, []).append(bench.files.items / seconds)
                measured.workers.setdefault(name, []).extend(done or ())
                measured.processor_seconds.setdefault(name, []).append(processor)
    tenth = bench.files.items // 10
    for name, by_hand in BY_HAND.items():
        bench.empty(PostgresRole.NONE)
        began = time.perf_counter()
        by_hand(bench.engine, bench.files.exports, tenth)
        measured.rates[name] = [tenth / (time.perf_counter() - began)] * rounds
        bench.check(tenth)
    return measured


def report(measured: Rounds) -> list[Goal]:
    headings = ("rows/s", 9), ("staged", 7), ("straight", 9), ("µs all", 7), ("staged", 7), ("straight", 9)
    columns = " ".join(f"{name:>{width}}" for name, width in (*headings, ("own", 6), ("MB", 5)))
    print(f"\n{'':36} {columns}")
    for name in measured.rates:
        line = f"{name:36} {measured.rate(name):9,.0f} {measured.ratio(name, *LIMITS):7.2f}"
        line += f" {measured.ratio(name, STRAIGHT_LIMIT):9.2f}"
        if name in measured.processor_seconds:
            line += f" {measured.processor_microseconds(name):7.1f}"
            line += f" {measured.processor_ratio(name, *LIMITS):7.2f}"
            line += f" {measured.processor_ratio(name, STRAIGHT_LIMIT):9.2f}"
        if measured.workers.get(name):
            line += f" {measured.microseconds(name):6.2f} {measured.megabytes(name):5.0f}"
        print(line)
    goals = []
    for kind, staged, straight, most in (("Python", 0.6, 0.45, 8.0), ("accelerated", 0.9, 0.7, 2.0)):
        name = f"dualstore, {kind}"
        if name not in measured.rates:
            continue
        goals += [
            Goal(f"{name}, of the staged limit", measured.ratio(name, *LIMITS), staged),
            Goal(
                f"{name}, of the straight limit",
                measured.ratio(f"{name}, straight", STRAIGHT_LIMIT),
                straight,
            ),
            Goal(f"{name}, µs a row", measured.microseconds(name), most, at_most=True),
            Goal(f"{name}, MB a worker", measured.megabytes(name), 300, at_most=True),
            Goal(f"{name}, of SQLAlchemy's executemany", measured.ratio(name, next(iter(BY_HAND))), 8),
        ]
    return goals


def report_scan(rounds: int, *, accelerated: bool) -> list[Goal]:
    rates = scan_rates(rounds, accelerated=accelerated)
    (base, baseline), *others = rates.items()
    print(f"\n{base:36} {statistics.median(baseline):9,.0f} items/s")
    goals = []
    for name, rate in others:
        ratio = statistics.median(mine / theirs for mine, theirs in zip(rate, baseline, strict=True))
        print(f"{name:36} {statistics.median(rate):9,.0f} items/s {ratio:6.1f} times")
        goals.append(Goal(f"Scan, {name}, times boto3", ratio, 8))
    return goals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--piece", type=int, default=25_000, help="items that one transaction loads")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    arguments = parser.parse_args()
    psql = shutil.which("psql")
    if psql is None:
        raise SystemExit("psql is not installed: it is the baseline")
    try:
        transcoder_of(MAPPING, accelerated=True)
        accelerated = True
    except ConfigurationError as error:
        print(f"Without the accelerator: {error}")
        accelerated = False
    with tempfile.TemporaryDirectory() as directory, PostgresServer(settings=_SERVER) as server:
        Path(directory).chmod(0o755)
        engine = sa.create_engine(server.create_database())
        schema.upgrade(engine)
        Base.metadata.create_all(engine)
        PostgresControl(engine).raise_fence(TABLE, epoch=EPOCH, role=PostgresRole.MIRROR)
        files = make_files(Path(directory), arguments.items, min(arguments.piece, arguments.items // FILES))
        size = files.json_bytes / files.items
        print(f"{files.items:,} items of {size:.0f} bytes in {FILES} gz files, {arguments.rounds} rounds")
        url = engine.url.render_as_string(hide_password=False)
        with Workers(url, STREAMS) as workers:
            bench = Bench(engine, files, workers, int(arguments.piece * size), psql, server)
            goals = report(run(bench, arguments.rounds, accelerated=accelerated))
        engine.dispose()
    goals += report_scan(arguments.rounds, accelerated=accelerated)
    print()
    for goal in goals:
        verdict = "missed" if goal.missed else "met"
        print(f"{goal.what:60} {goal.measured:8.2f} {'≤' if goal.at_most else '≥'} {goal.limit:g}: {verdict}")
    if arguments.check and any(goal.missed for goal in goals):
        sys.exit(1)


if __name__ == "__main__":
    main()
