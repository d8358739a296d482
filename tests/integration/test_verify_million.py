"""A million items with random damage in 0.01 %: found exactly, while processes are killed, in bounded memory.

`DUALSTORE_VERIFY_ITEMS` says how many items; `nox -s verify-million` takes a million.
"""

import gzip
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pytest

from bulk_sides import BulkSides, bulk_sides, bulk_sides_at, order
from dualstore.backfill import Processes
from dualstore.backfill.scanning import StoreScan
from dualstore.backfill.sources import LineFiles
from dualstore.items import Item, Key, key_hash
from dualstore.mapping.transcoding import transcoder_of
from dualstore.operations import BatchGetItem, Scan
from dualstore.stages import Side
from dualstore.stores.postgres_fingerprints import fingerprints_of
from dualstore.verify import BulkVerify, Finding, Verification, compare_pieces
from integration.test_bulk_verify import SHAPE, TABLE, found, line, plan

if "DUALSTORE_VERIFY_ITEMS" not in os.environ:
    pytest.skip("takes minutes: nox -s verify-million", allow_module_level=True)

ITEMS = int(os.environ["DUALSTORE_VERIFY_ITEMS"])
FILES = 16
DAMAGED = max(ITEMS // 10_000, 9)
PAGE_ITEMS = 5000
LEASE = timedelta(seconds=20)
MOST_BYTES = 400 * 1024 * 1024
"""What a process may take, however many items there are."""
KILLS = 3


@dataclass(frozen=True)
class Computed:
    """A DynamoDB that holds the orders from 0 on, without holding any."""

    items: int
    side: Side = Side.DYNAMODB

    def execute(self, operation: Any) -> Any:
        body = operation.request
        if isinstance(operation, BatchGetItem):
            keys = body["RequestItems"][TABLE]["Keys"]
            return {"Responses": {TABLE: [item for key in keys if (item := self._item(key)) is not None]}}
        assert isinstance(operation, Scan)
        start = body.get("ExclusiveStartKey")
        step = body["TotalSegments"]
        first = body["Segment"] if start is None else int(start["number"]["N"]) + step
        numbers = list(islice(range(first, self.items, step), PAGE_ITEMS))
        page = {"Items": [order(n) for n in numbers]}
        ended = not numbers or numbers[-1] + step >= self.items
        return page if ended else page | {"LastEvaluatedKey": SHAPE.keys.key_of(order(numbers[-1]))}

    def _item(self, key: Key) -> Item | None:
        number = int(key["number"]["N"])
        return order(number) if number < self.items else None


@contextmanager
def opened(url: str, files: tuple[str, ...]) -> Iterator[BulkVerify]:
    """What a process compares with: an export where there are files, or else a Scan."""
    with bulk_sides_at(url, Computed(ITEMS), TABLE) as sides:  # type: ignore[arg-type]
        at_once = not files
        source: Any = StoreScan(sides.dynamodb, SHAPE, segments=FILES)
        if files:
            source = LineFiles(files, s3=_no_s3)
        taking = None if at_once else fingerprints_of(sides.engine, sides.mapping)
        yield plan(sides, source, at_once=at_once, fingerprints=taking, lease=LEASE)


def _no_s3() -> Any:
    raise AssertionError


def drive(url: str, files: tuple[str, ...], answers: Any) -> None:
    """The main function of a coordinator: two workers, and all that comes after them."""
    opening = partial(opened, url, files)
    with opening() as verification:
        crew = Processes(2, opening, working=compare_pieces)
        answers.put(BulkVerify(**{**_fields(verification), "crew": crew}).run())


def _fields(verification: BulkVerify) -> dict[str, Any]:
    return {name: getattr(verification, name) for name in BulkVerify.__dataclass_fields__}


@dataclass
class Memory:
    """The most that each kind of process has taken: a process that is watched, and its children."""

    process: int
    peaks: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self._note("coordinator", self.process)
            with suppress(OSError):
                children = Path(f"/proc/{self.process}/task/{self.process}/children").read_text().split()
                for child in children:
                    self._note("worker", int(child))

    def _note(self, kind: str, process: int) -> None:
        with suppress(OSError):
            for text in Path(f"/proc/{process}/status").read_text().splitlines():
                if text.startswith("VmHWM"):
                    self.peaks[kind] = max(self.peaks.get(kind, 0), int(text.split()[1]) * 1024)


@pytest.fixture(scope="module")
def sides(postgres_server: Any) -> Iterator[BulkSides]:
    url = postgres_server.create_database()
    with bulk_sides(url, Computed(ITEMS), TABLE) as both:  # type: ignore[arg-type]
        yield both
    postgres_server.drop_database(url)


@pytest.fixture(scope="module")
def files(sides: BulkSides, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """An export of all items, and a row for each."""
    folder = tmp_path_factory.mktemp("export")
    transcoder = transcoder_of(sides.mapping)
    columns = ", ".join(f'"{name}"' for name in sides.mapping.column_names)
    paths = []
    for number in range(FILES):
        lines = b"".join(line(order(n)) for n in range(number, ITEMS, FILES))
        paths.append(folder / f"{number}.jsonl.gz")
        paths[-1].write_bytes(gzip.compress(lines, 1))
        with sides.engine.connect() as connection:
            driver = connection.connection.driver_connection
            with driver.cursor() as cursor, cursor.copy(f"COPY shop.orders ({columns}) FROM STDIN") as copy:
                copy.write(transcoder.block(lines).text)
            driver.commit()
    with sides.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE shop.orders")
    return tuple(map(str, paths))


@pytest.fixture(scope="module")
def damage(sides: BulkSides, files: tuple[str, ...]) -> set[tuple[str, Finding, tuple[str, ...]]]:
    """Rows changed, lost and added at random."""
    assert files
    chance = random.Random(os.environ.get("DUALSTORE_SEED", "7"))
    chosen = chance.sample(range(ITEMS), DAMAGED)
    third = DAMAGED // 3
    changed, lost = chosen[:third], chosen[third : 2 * third]
    extra = range(ITEMS, ITEMS + DAMAGED - 2 * third)
    with sides.engine.begin() as connection:
        for statement, numbers in (
            ("UPDATE shop.orders SET name = name || '.' WHERE number = ANY(%s)", changed),
            ("DELETE FROM shop.orders WHERE number = ANY(%s)", lost),
        ):
            connection.exec_driver_sql(statement, (numbers,))
    for n in extra:
        sides.mirror(order(n), order(n))
    told: Mapping[Finding, Any] = {
        Finding.VALUE: changed,
        Finding.MISSING_ON_POSTGRES: lost,
        Finding.MISSING_ON_DYNAMODB: extra,
    }
    return {
        (key_hash(SHAPE.keys, order(n)), finding, ("name",) if finding is Finding.VALUE else ())
        for finding, numbers in told.items()
        for n in numbers
    }


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("source", ["export", "scan"])
def test_random_damage_is_found_exactly_whatever_is_killed(
    sides: BulkSides, files: tuple[str, ...], damage: Any, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = sides.engine.url.render_as_string(hide_password=False)
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    peaks: dict[str, int] = {}
    runs = set()
    for attempt in range(KILLS + 1):
        answers = context.Queue()
        coordinator = context.Process(target=drive, args=(url, () if source == "scan" else files, answers))
        coordinator.start()
        assert coordinator.pid is not None
        with Memory(coordinator.pid, peaks):
            if attempt < KILLS:
                runs.add(_killed(sides, coordinator, ITEMS * (attempt + 1) // (KILLS + 2), attempt))
            else:
                _until(lambda answers=answers: not answers.empty(), coordinator)
                verification: Verification = answers.get()
            coordinator.join(60)

    assert runs == {verification.run_id}  # it was the same one all the time
    assert found(verification) == damage
    lost = sum(finding is Finding.MISSING_ON_POSTGRES for _, finding, _ in damage)
    changed = sum(finding is Finding.VALUE for _, finding, _ in damage)
    assert (verification.items_dynamodb, verification.equal) == (ITEMS, ITEMS - lost - changed)
    assert verification.moving == 0
    with capsys.disabled():
        taken = ", ".join(f"a {kind} {peak / 1e6:.0f} MB" for kind, peak in sorted(peaks.items()))
        sys.stdout.write(
            f"\n{ITEMS:,} items in {time.monotonic() - began:.0f} s with {KILLS} kills; at most {taken}\n"
        )
    assert max(peaks.values()) < MOST_BYTES


def _killed(sides: BulkSides, coordinator: Any, items: int, attempt: int) -> Any:
    """Kill a process once so many items have been compared: a worker first, then the coordinator."""

    def run() -> Any:
        return sides.runs.latest_unfinished("verify", TABLE)

    def come_so_far() -> bool:
        return run() is not None and sides.runs.totals(run().id).items >= items

    _until(come_so_far, coordinator)
    if attempt == 0:
        children = Path(f"/proc/{coordinator.pid}/task/{coordinator.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        _until(lambda: sides.runs.totals(run().id).items >= items * 3 // 2, coordinator)
    under_way = run()
    os.kill(coordinator.pid, signal.SIGKILL)
    return under_way.id


def _until(reached: Callable[[], bool], coordinator: Any) -> None:
    while not reached():
        assert reached() or coordinator.is_alive(), "the coordinator has ended; its error stands above"
        time.sleep(0.02)
