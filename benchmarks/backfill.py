"""What the bulk copy can do, against psql streams that COPY a text which somebody else has prepared.

    python benchmarks/backfill.py [--items 1000000] [--rounds 7] [--check]

The physical limit is two psql streams. Each copies prepared COPY text into a staging table and runs the same
merge, once in pieces as large as dualstore's own and once in one piece for each stream; the faster of the two
counts. Its merge sorts, since the text lies in the order of the export; dualstore's accelerated rows come
sorted, so theirs has no `ORDER BY`, and all else is the same statement. Straight copies are held against two
psql streams that copy into the table itself. dualstore runs a whole backfill of an export: manifests, MD5 and
counts checked, pieces claimed, gz files read, transcoded, staged, merged, each batch in one transaction with
its checkpoint, the ledger asked for wishes and limits after each, progress shown, older transactions waited
for, closed. Its two processes were there before the clock started: psql is a program that is there at once.

All ways run once in each round, the table emptied and a checkpoint made before each; a ratio is the median of
the ratios within a round. Client cost is the processor time of the worker processes a row, gunzip and psycopg
included. Beside them stand what users write by hand, a fiftieth of the items each time, and dlt where it is
installed, a twentieth once.

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
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bulk.by_hand import BY_HAND, READY_MADE, ByHand
from bulk.engine import Done, Kind, Standing, copying
from bulk.limit import EPOCH, run_streams, staged_script, straight_script
from bulk.processor import seconds_of_ended_children, seconds_of_tree
from bulk.scan import scan_rates
from bulk.table import FILES, MAPPING, TABLE, Base, Files, make_files

from dualstore import schema
from dualstore.control import PostgresRole
from dualstore.errors import ConfigurationError
from dualstore.mapping.transcoding import transcoder_of
from dualstore.store.copying import Copying
from dualstore.stores.postgres_control import PostgresControl
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

    items: int
    rates: dict[str, list[float]] = field(default_factory=dict)
    workers: dict[str, list[list[Done]]] = field(default_factory=dict)
    processor_seconds: dict[str, list[float]] = field(default_factory=dict)

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
        each_round = (sum(worker.cpu_seconds for worker in done) for done in self.workers[name])
        return statistics.median(each_round) / self.items * 1e6

    def megabytes(self, name: str) -> float:
        return max(worker.peak_bytes for done in self.workers[name] for worker in done) / 1e6


@dataclass
class Bench:
    """The database, the files, and who loads them."""

    table: Copying
    files: Files
    crews: Mapping[Kind, Standing]
    psql: str
    server: PostgresServer

    def processor_seconds(self) -> float:
        """Of the server, of every psql that has ended, and of this process."""
        return seconds_of_tree(self.server.pid or 0) + seconds_of_ended_children() + time.process_time()

    @property
    def dsn(self) -> str:
        return self.table.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")

    def empty(self, role: PostgresRole) -> None:
        with self.table.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("UPDATE dualstore.control SET role = %s", (str(role),))
            connection.exec_driver_sql(f"TRUNCATE {MAPPING.table.name}, dualstore.runs CASCADE")
            connection.exec_driver_sql("CHECKPOINT")

    def check(self, items: int) -> None:
        with self.table.engine.connect() as connection:
            rows = connection.exec_driver_sql(f"SELECT count(*) FROM {MAPPING.table.name}").scalar()
        assert rows == items, f"{rows} rows, not {items}"

    def staged(self, pieces: list[list[Path]]) -> list[Done]:
        run_streams(self.psql, self.dsn, [staged_script(each) for each in pieces])
        return []

    def straight(self) -> list[Done]:
        run_streams(self.psql, self.dsn, [straight_script([half]) for half in self.files.halves])
        return []

    def dualstore(self, kind: Kind, *, straight: bool) -> list[Done]:
        return self.crews[kind].backfill(self.table, self.files, straight=straight)


class Way(NamedTuple):
    """A way of loading all items, and what PostgreSQL is to the table meanwhile."""

    role: PostgresRole
    load: Callable[[], list[Done]]


def ways_of(bench: Bench) -> dict[str, Way]:
    mirror, nobody = PostgresRole.MIRROR, PostgresRole.NONE
    ways = {
        LIMITS[0]: Way(mirror, partial(bench.staged, bench.files.pieces)),
        LIMITS[1]: Way(mirror, partial(bench.staged, [[half] for half in bench.files.halves])),
        STRAIGHT_LIMIT: Way(nobody, bench.straight),
    }
    for kind in bench.crews:
        ways[f"dualstore, {kind}"] = Way(mirror, partial(bench.dualstore, kind, straight=False))
        ways[f"dualstore, {kind}, straight"] = Way(nobody, partial(bench.dualstore, kind, straight=True))
    return ways


def run(bench: Bench, rounds: int) -> Rounds:
    measured = Rounds(bench.files.items)
    ways = ways_of(bench)
    for number in range(rounds + 1):
        for name, way in ways.items():
            bench.empty(way.role)
            began, processor = time.perf_counter(), bench.processor_seconds()
            done = way.load()
            seconds = time.perf_counter() - began
            processor = bench.processor_seconds() - processor + sum(each.cpu_seconds for each in done)
            bench.check(measured.items)
            if number:  # the first round warms up
                measured.rates.setdefault(name, []).append(measured.items / seconds)
                measured.workers.setdefault(name, []).append(done)
                measured.processor_seconds.setdefault(name, []).append(processor)
        for name, by_hand in BY_HAND.items() if number else ():
            rate = rate_by_hand(bench, by_hand, max(2_000, measured.items // 50))
            measured.rates.setdefault(name, []).append(rate)
    for name, ready_made in READY_MADE.items():
        measured.rates[name] = [rate_by_hand(bench, ready_made, max(2_000, measured.items // 20))] * rounds
    return measured


def rate_by_hand(bench: Bench, by_hand: ByHand, items: int) -> float:
    bench.empty(PostgresRole.NONE)
    began = time.perf_counter()
    by_hand(bench.table.engine, bench.files.exports, items)
    return items / (time.perf_counter() - began)


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
        if any(measured.workers.get(name, ())):
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
            Goal(f"{name}, times SQLAlchemy's executemany", measured.ratio(name, next(iter(BY_HAND))), 8),
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
    parser.add_argument("--piece", type=int, default=25_000, help="items that one transaction of psql loads")
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
    kinds: tuple[Kind, ...] = ("Python", "accelerated") if accelerated else ("Python",)
    with (
        tempfile.TemporaryDirectory() as directory,
        PostgresServer(settings=_SERVER) as server,
        ExitStack() as held,
    ):
        files = make_files(Path(directory), arguments.items, arguments.piece)
        size = files.json_bytes / files.items
        print(f"{files.items:,} items of {size:.0f} bytes in {FILES} gz files, {arguments.rounds} rounds")
        url = server.create_database()
        table = held.enter_context(copying(url))
        schema.upgrade(table.engine)
        Base.metadata.create_all(table.engine)
        PostgresControl(table.engine).raise_fence(TABLE, epoch=EPOCH, role=PostgresRole.MIRROR)
        crews = {kind: held.enter_context(Standing(url, STREAMS, kind)) for kind in kinds}
        goals = report(run(Bench(table, files, crews, psql, server), arguments.rounds))
    goals += report_scan(arguments.rounds, accelerated=accelerated)
    print()
    for goal in goals:
        verdict = "missed" if goal.missed else "met"
        print(f"{goal.what:60} {goal.measured:8.2f} {'≤' if goal.at_most else '≥'} {goal.limit:g}: {verdict}")
    if arguments.check and any(goal.missed for goal in goals):
        sys.exit(1)


if __name__ == "__main__":
    main()
