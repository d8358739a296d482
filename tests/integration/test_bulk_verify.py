"""The fast comparison on a real PostgreSQL: exactly the planted faults, killed and gone on with anywhere."""

import base64
import json
import random
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from boto3.dynamodb.types import Binary
from psycopg import sql

from bulk_sides import BulkSides, bulk_sides, bulk_sides_at, order
from dualstore.errors import ConfigurationError, SchemaError, Unavailable, UnusableSource
from dualstore.items import Item, Key, KeyAttribute, KeySchema, TableShape, key_hash
from dualstore.mapping.transcoding import transcoder_of
from dualstore.operations import DeleteItem, PutItem
from dualstore.stores import fingerprint_ways, postgres_rules, postgres_transaction
from dualstore.stores.comparison_sql import Scanning, scanning
from dualstore.stores.fingerprint_ways import InsidePostgres, OutsidePostgres, Way, form_of
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres_comparison import PostgresComparison
from dualstore.stores.postgres_findings import PostgresFindings
from dualstore.stores.postgres_fingerprints import PostgresFingerprints
from dualstore.stores.postgres_keys import PostgresKeys
from dualstore.stores.postgres_rules import PostgresRules
from dualstore.stores.postgres_runs import RunState, TakenOver
from dualstore.stores.postgres_unmatched import PostgresUnmatched
from dualstore.telemetry import DiscrepancyLog
from dualstore.verify import Finding, KeyedVerify, Threads, bulk
from dualstore.verify.bulk import BulkVerify
from dualstore.verify.judging import Judge
from transcoding_cases import accelerator_is_built

TABLE = "orders-prod"
SHAPE = TableShape(TABLE, KeySchema(KeyAttribute("customer", "S"), KeyAttribute("number", "N")))
DIGITS = "1." + "7" * 36
WAYS: dict[str, dict[str, Any]] = {
    "at once": {"at_once": True},
    "by hashes": {"at_once": False, "way": InsidePostgres},
    "by fingerprints": {"at_once": False, "way": OutsidePostgres},
}


def built(name: str) -> Any:
    """A way, left out where the accelerator that it needs is not built."""
    missing = WAYS[name].get("way") is OutsidePostgres and not accelerator_is_built()
    mark = pytest.mark.skipif(missing, reason="the accelerator is not built: pip install ./accelerator")
    return pytest.param(WAYS[name], id=name, marks=mark)


EACH_WAY = pytest.mark.parametrize("way", list(map(built, WAYS)))

BY_FINGERPRINTS = pytest.mark.parametrize("way", [built(name) for name in WAYS if "way" in WAYS[name]])


def line(item: Item) -> bytes:
    """An item as exports have it."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes | Binary):
            return base64.b64encode(bytes(value)).decode()
        raise TypeError

    return json.dumps({"Item": item}, default=plain).encode() + b"\n"


@dataclass(frozen=True)
class Lines:
    blocks: Sequence[bytes]
    position_after: dict[str, Any] | None


@dataclass
class Export:
    """Items in pieces, read some lines at a time."""

    lines: Sequence[bytes]
    pieces_count: int = 3
    batch: int = 20
    before_batch: Callable[[], None] = lambda: None

    def parameters(self) -> dict[str, Any]:
        return {"kind": "test", "tuning": {"batch": self.batch}}

    def pieces(self) -> list[dict[str, Any]]:
        return [{"piece": number} for number in range(self.pieces_count)]

    def read_raw(
        self, description: dict[str, Any], position: dict[str, Any] | None, _limits: object
    ) -> Iterator[Lines]:
        mine = self.lines[description["piece"] :: self.pieces_count]
        for start in range((position or {}).get("line", 0), max(len(mine), 1), self.batch):
            self.before_batch()
            end = start + self.batch
            yield Lines(
                [b"".join(mine[start:end])] if mine else [], {"line": end} if end < len(mine) else None
            )


@pytest.fixture(scope="module")
def module_sides(postgres_server) -> Iterator[BulkSides]:
    url = postgres_server.create_database()
    with bulk_sides(url, MemoryStore({TABLE: SHAPE}), TABLE) as both:
        yield both
    postgres_server.drop_database(url)


@pytest.fixture
def sides(module_sides: BulkSides) -> BulkSides:
    module_sides.empty()
    for item in list(module_sides.items_on_dynamodb().values()):
        module_sides.delete(module_sides.key(item))
    return module_sides


def plan(sides: BulkSides, source: Export, **options: Any) -> BulkVerify:
    judging: dict[str, Any] = {"pause": timedelta(milliseconds=1), "patience": timedelta(seconds=10)}
    for name in ("repair", "settle", "record", "pause"):
        if name in options:
            judging[name] = options.pop(name)
    way: Callable[..., Way] | None = options.pop("way", None)
    if way is not None:
        taken = PostgresFingerprints(sides.engine, sides.mapping, way(sides.mapping), batch_bytes=8192)
        options["fingerprints"] = taken
    return BulkVerify(
        mapping=sides.mapping,
        source=source,
        transcoder=transcoder_of(sides.mapping),
        comparison=PostgresComparison(sides.engine, sides.mapping),
        findings=PostgresFindings(sides.engine, sides.mapping.shape.keys),
        runs=sides.runs,
        judge=Judge(shape=sides.mapping.shape, dynamodb=sides.dynamodb, postgres=sides.postgres, **judging),
        crew=Threads(options.pop("workers", 1)),
        **options,
    )


def load(sides: BulkSides, items: Sequence[Item]) -> None:
    """The same items on both sides, quickly."""
    sides.put(*items)
    rows = [sides.mapping.encode(item) for item in items]
    columns = ", ".join(f'"{name}"' for name in sides.mapping.column_names)
    with sides.engine.connect() as connection:
        driver = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY shop.orders ({columns}) FROM STDIN") as copy:
            copy.set_types(sides.mapping.pg_types)
            for row in rows:
                copy.write_row(row)
        driver.commit()


def export_of(sides: BulkSides, **options: Any) -> Export:
    items = sides.items_on_dynamodb()
    return Export([line(items[key]) for key in sorted(items)], **options)


@dataclass
class Planted:
    """Faults, and what a verification has to say of each."""

    expected: set[tuple[str, Finding, tuple[str, ...]]] = field(default_factory=set)

    def fault(self, sides: BulkSides, item: Item, finding: Finding, *paths: str) -> None:
        self.expected.add((key_hash(SHAPE.keys, item), finding, paths))


def plant(sides: BulkSides) -> Planted:
    """Every kind of fault, and what looks like one."""
    items = [order(n, code={"S": f"c{n}"}) for n in range(150)]
    load(sides, items)
    planted = Planted()
    changed = {
        "changed in the 38th digit": (
            2,
            {"total": {"N": DIGITS + "1"}},
            {"total": {"N": DIGITS + "2"}},
            "total",
        ),
        "swapped, one": (3, {"name": {"S": "three"}}, {"name": {"S": "four"}}, "name"),
        "swapped, other": (4, {"name": {"S": "four"}}, {"name": {"S": "three"}}, "name"),
        "null for missing": (5, {"note": {"NULL": True}}, {}, "note"),
        "missing for null": (6, {}, {"note": {"NULL": True}}, "note"),
        "NUL": (8, {"name": {"S": "a\x00b"}}, {"name": {"S": "ab"}}, "name"),
        "cut": (9, {"name": {"S": "abcdef"}}, {"name": {"S": "abcde"}}, "name"),
        "deep": (10, {}, {"lines": {"L": [{"M": {"price": {"N": "10.50001"}}}]}}, "lines"),
        "another type": (11, {"name": {"N": "7"}}, {"name": {"S": "7"}}, "name"),
    }
    for n, here, there, path in changed.values():
        sides.put(order(n) | here)
        sides.mirror(order(n), order(n) | there)
        planted.fault(sides, order(n), Finding.VALUE, path)
    harmless = {
        20: ({"tags": {"SS": ["a", "b"]}}, {"tags": {"SS": ["b", "a"]}}),
        21: ({"total": {"N": "1"}}, {"total": {"N": "1.0"}}),
        22: ({"name": {"S": 'tab\there \\ "\n'}}, {"name": {"S": 'tab\there \\ "\n'}}),
        23: ({"_dsv": {"B": b"x" * 16}}, {"_dsv": {"B": b"y" * 16}}),
    }
    for n, (here, there) in harmless.items():
        sides.put(order(n) | here)
        sides.mirror(order(n), order(n) | there)
    sides.mirror(order(1), None)
    planted.fault(sides, order(1), Finding.MISSING_ON_POSTGRES)
    sides.mirror(order(1000), order(1000))
    planted.fault(sides, order(1000), Finding.MISSING_ON_DYNAMODB)
    last = sides.items_on_dynamodb()[max(sides.items_on_dynamodb())]
    sides.mirror(last, last | {"name": {"S": "damaged"}})
    planted.fault(sides, last, Finding.VALUE, "name")
    return planted


def found(verification: Any) -> set[tuple[str, Finding, tuple[str, ...]]]:
    return {(each.key_hash, each.finding, each.paths) for each in verification.differences}


@EACH_WAY
def test_exactly_the_planted_faults_are_found(sides: BulkSides, way):
    planted = plant(sides)

    verification = plan(sides, export_of(sides), **way).run()

    assert found(verification) == planted.expected
    assert verification.difference_count == len(planted.expected)
    assert (verification.items_dynamodb, verification.rows_postgres) == (150, 150)
    assert verification.equal == 150 - (len(planted.expected) - 1)  # one is no item
    assert (verification.moving, verification.unreadable, verification.proven) == (0, 0, False)


def unlike(number: int, **changed: Any) -> Callable[[BulkSides], None]:
    """Makes one row another than its item."""
    return lambda sides: sides.mirror(order(number), order(number) | changed)


def swap(sides: BulkSides) -> None:
    unlike(3, name={"S": "order 4"})(sides)
    unlike(4, name={"S": "order 3"})(sides)


def shift(sides: BulkSides) -> None:
    with sides.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE shop.orders SET name = 'order ' || mod(number + 1, 30)")


def add_ghost(sides: BulkSides) -> None:
    with sides.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO shop.orders (customer, number, name, total, dualstore_overflow, dualstore_revision)"
            " SELECT customer, -number, name, total, dualstore_overflow, dualstore_revision"
            " FROM shop.orders WHERE number = 3"
        )


# Of PostgreSQL's own hashes of values each is the same for both sides, or their sums are.
ALONE: dict[str, tuple[Item, Callable[[BulkSides], None], set[int]]] = {
    "a swap": ({}, swap, {3, 4}),
    "names that have all moved on by one": ({}, shift, set(range(30))),
    "a sign": ({"total": {"N": "7"}}, unlike(3, total={"N": "-7"}), {3}),
    "a sign in a key": ({"total": {"N": "7"}}, add_ghost, {-3}),
    "what a list holds": (
        {"extra": {"L": [{"L": [{"N": "1"}]}, {"N": "2"}]}},
        unlike(3, extra={"L": [{"L": [{"N": "1"}, {"N": "2"}]}]}),
        {3},
    ),
}


@EACH_WAY
@pytest.mark.parametrize(("beside", "fault", "numbers"), ALONE.values(), ids=list(ALONE))
def test_a_fault_alone_is_found(sides: BulkSides, way, beside, fault, numbers):
    load(sides, [order(n) | beside for n in range(30)])
    fault(sides)

    verification = plan(sides, export_of(sides), **way).run()

    keys = {key_hash(SHAPE.keys, order(abs(n), number={"N": str(n)})) for n in numbers}
    assert {each.key_hash for each in verification.differences} == keys
    assert not verification.proven


class Killed(BaseException):
    """The process ends here."""


class KilledAt:
    """Ends the process at its n-th exchange with PostgreSQL, before or after it."""

    def __init__(self, engine: sa.Engine, exchange: int) -> None:
        self._engine = engine
        self._left = exchange

    def __enter__(self) -> None:
        sa.event.listen(self._engine, "begin", self._begin)
        sa.event.listen(self._engine, "commit", self._commit)

    def __exit__(self, *_: object) -> None:
        sa.event.remove(self._engine, "begin", self._begin)
        sa.event.remove(self._engine, "commit", self._commit)

    def _begin(self, _connection: object) -> None:
        self._count()

    def _commit(self, _connection: object) -> None:
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed


@EACH_WAY
def test_a_verification_killed_anywhere_goes_on_and_counts_nothing_twice(sides: BulkSides, way):
    planted = plant(sides)
    source = export_of(sides)
    exchange, kills, whole = 1, 0, None
    while whole is None:
        # Each attempt goes a little further into the same run, and is killed there.
        try:
            with KilledAt(sides.engine, exchange):
                whole = plan(sides, source, **way).run()
        except Killed:
            kills += 1
        exchange += 3

    assert kills > 8
    assert found(whole) == planted.expected
    assert (whole.items_dynamodb, whole.equal) == (150, 150 - (len(planted.expected) - 1))
    with sides.engine.connect() as connection:
        states = connection.exec_driver_sql("SELECT state FROM dualstore.runs").scalars().all()
        # Killed when all is done but the tidying up, there is nothing to go on with: a new one begins.
        assert len(states) < kills / 2
        assert set(states) == {RunState.FINISHED_WITH_FAILURES}
        assert connection.exec_driver_sql("SELECT count(*) FROM dualstore.verify_seen").scalar() == 0


@EACH_WAY
def test_writers_at_work_are_never_called_different_and_hide_no_fault(sides: BulkSides, way):
    load(sides, [order(n) for n in range(120)])
    sides.mirror(order(7), order(7, name={"S": "damaged"}))
    stop, failures = threading.Event(), []

    def write() -> None:
        try:
            while not stop.is_set():
                for n in range(10, 120, 9):
                    sides.dual_write(order(n), None)
                    sides.dual_write(order(n), order(n, name={"S": f"again {stop.is_set()}"}))
        except BaseException as error:
            failures.append(error)
            raise

    source = export_of(sides, before_batch=lambda: stop.wait(0.02))
    writer = threading.Thread(target=write)
    writer.start()
    try:
        during = plan(sides, source, **way, pause=timedelta(seconds=0.5)).run()
    finally:
        stop.set()
        writer.join()

    assert not failures
    assert found(during) == {(key_hash(SHAPE.keys, order(7)), Finding.VALUE, ("name",))}


@EACH_WAY
def test_random_damage_is_found_key_by_key(sides: BulkSides, way):
    chance = random.Random(7)
    load(sides, [order(n) for n in range(900)])
    damaged = chance.sample(range(900), 5)
    damage(sides, damaged)

    verification = plan(sides, export_of(sides, batch=130), **way, workers=2).run()

    assert {hashed for hashed, _, _ in found(verification)} == {
        key_hash(SHAPE.keys, order(n)) for n in damaged
    }
    assert (verification.difference_count, verification.equal) == (5, 895)


BROKEN = {
    1: ('dualstore_overflow = dualstore_overflow || \'{"name": {"S": "order 1"}}\'', Finding.OVERFLOW),
    3: ("dualstore_revision = 1000000000", Finding.VERSION),
    4: ("dualstore_stamp = 'short'", Finding.VERSION),
    5: ("dualstore_overflow = '[]'", Finding.VALUE),
    6: ('dualstore_overflow = \'{"lines": {"B": 5}}\'', Finding.VALUE),
    7: ("dualstore_overflow = '{\"lines\": 5}'", Finding.VALUE),
    8: ("dualstore_overflow = '{\"lines\": []}'", Finding.VALUE),
    9: ("dualstore_overflow = '{\"lines\": {}}'", Finding.VALUE),
}


def break_rules(sides: BulkSides) -> set[tuple[str, Finding]]:
    """Rows that no write of dualstore leaves; what is to be said of them."""
    with sides.engine.begin() as connection:
        for number, (change, _) in BROKEN.items():
            connection.exec_driver_sql(f"UPDATE shop.orders SET {change} WHERE number = {number}")
    return {(key_hash(SHAPE.keys, order(number)), finding) for number, (_, finding) in BROKEN.items()}


def test_rows_that_break_the_rules_of_the_bookkeeping_are_found(sides: BulkSides):
    load(sides, [order(n) for n in range(10)])
    planted = break_rules(sides)

    verification = plan(sides, export_of(sides)).run()

    assert {(hashed, finding) for hashed, finding, _ in found(verification)} == planted
    assert (verification.equal, verification.repaired) == (10 - len(BROKEN), 0)


@EACH_WAY
def test_repair_writes_rows_that_break_a_rule_anew(sides: BulkSides, way):
    load(sides, [order(n) for n in range(10)])
    planted = break_rules(sides)
    repairing = {**way, "repair": True, "settle": sides.settle_all}

    verification = plan(sides, export_of(sides), **repairing).run()

    assert {(hashed, finding) for hashed, finding, _ in found(verification)} == planted
    assert (verification.repaired, verification.proven) == (len(BROKEN), True)
    again = plan(sides, export_of(sides), **repairing).run()
    assert (again.difference_count, again.equal, again.rows_postgres) == (0, 10, 10)


def test_a_row_whose_rule_stays_broken_is_not_called_repaired(sides: BulkSides):
    load(sides, [order(n) for n in range(10)])
    planted = break_rules(sides)

    verification = plan(sides, export_of(sides), repair=True, settle=lambda _keys: None).run()

    assert {(hashed, finding) for hashed, finding, _ in found(verification)} == planted
    assert (verification.repaired, verification.proven) == (0, False)


@EACH_WAY
def test_a_repair_of_broken_rules_killed_anywhere_is_gone_on_with(sides: BulkSides, way):
    load(sides, [order(n) for n in range(10)])
    break_rules(sides)
    source, exchange, whole = export_of(sides), 1, None
    while whole is None:
        try:
            with KilledAt(sides.engine, exchange):
                whole = plan(sides, source, **way, repair=True, settle=sides.settle_all).run()
        except Killed:
            exchange += 3

    # What was mended before a kill, and not noted, is equal now.
    assert whole.proven
    assert plan(sides, source, **way).run().difference_count == 0


@EACH_WAY
def test_lines_that_are_no_items_are_counted_as_differences(sides: BulkSides, way):
    load(sides, [order(n) for n in range(10)])
    export = export_of(sides)
    export.lines = [*export.lines, b'{"Item": {"customer": {"S": "nobody"}}}\n']

    verification = plan(sides, export, **way).run()

    assert (verification.unreadable, verification.difference_count, verification.equal) == (1, 1, 10)
    assert not verification.proven


@EACH_WAY
def test_repair_settles_what_differs_and_removes_a_row_only_where_its_item_is_gone(sides: BulkSides, way):
    load(sides, [order(n) for n in range(30)])
    export = export_of(sides)
    sides.mirror(order(1), None)
    sides.mirror(order(2), order(2, name={"S": "damaged"}))
    sides.mirror(order(1000), order(1000))  # on PostgreSQL alone
    sides.dynamodb.execute(PutItem({"TableName": TABLE, "Item": order(1001)}))  # after the export
    sides.mirror(order(1001), order(1001))
    log = DiscrepancyLog()

    verification = plan(sides, export, **way, repair=True, settle=sides.settle_all, record=log).run()

    assert (verification.difference_count, verification.repaired, verification.proven) == (3, 3, True)
    assert {each.repaired for each in log.records()} == {True}
    assert {int(item["number"]["N"]) for item in sides.rows_on_postgres().values()} == {*range(30), 1001}


def test_an_item_deleted_since_the_export_is_no_difference(sides: BulkSides):
    load(sides, [order(n) for n in range(10)])
    export = export_of(sides)
    key: Key = sides.key(order(3))
    sides.dynamodb.execute(DeleteItem({"TableName": TABLE, "Key": key}))
    sides.mirror(order(3), None)

    assert plan(sides, export, at_once=False).run().proven


@pytest.fixture
def short_names(sides: BulkSides) -> Iterator[None]:
    """A rule of the team's own, which goes wherever the type of the column does."""
    with sides.engine.begin() as connection:
        connection.exec_driver_sql("CREATE DOMAIN shop.short AS text CHECK (length(value) < 20)")
        connection.exec_driver_sql("ALTER TABLE shop.orders ALTER name TYPE shop.short")
    yield
    with sides.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE shop.orders ALTER name TYPE text")
        connection.exec_driver_sql("DROP DOMAIN shop.short")


@pytest.fixture
def altered(sides: BulkSides) -> Iterator[Callable[[str], None]]:
    """Alters columns of the SQL table, which are afterwards as they were."""

    def alter(changes: str) -> None:
        with sides.engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE shop.orders {changes}")

    yield alter
    sides.empty()
    alter("ALTER name TYPE varchar, ALTER total TYPE numeric, ALTER number TYPE numeric")


@EACH_WAY
def test_what_a_narrower_column_has_lost_is_found(sides: BulkSides, way, altered):
    altered("ALTER name TYPE varchar(6), ALTER total TYPE numeric(8, 2)")
    load(sides, [order(n, name={"S": f"n{n}" + n % 3 // 2 * "      "}) for n in range(30)])
    load(sides, [order(n, name={"S": f"n{n}"}, total={"N": f"{n}.125"}) for n in range(30, 40)])

    verification = plan(sides, export_of(sides), **way).run()

    expected = dict.fromkeys(range(2, 30, 3), "name") | dict.fromkeys(range(30, 40), "total")
    assert found(verification) == {
        (key_hash(SHAPE.keys, order(n)), Finding.VALUE, (path,)) for n, path in expected.items()
    }


@EACH_WAY
def test_a_key_that_a_narrower_column_has_rounded_is_found(sides: BulkSides, way, altered):
    altered("ALTER number TYPE numeric(8, 1)")
    load(sides, [order(n, number={"N": f"{n}.{25 if n == 7 else 5}"}) for n in range(20)])

    for verification in (plan(sides, export_of(sides), **way).run(), sides.verify().run()):
        assert sorted(each.finding for each in verification.differences) == [
            Finding.MISSING_ON_DYNAMODB,
            Finding.MISSING_ON_POSTGRES,
        ]


@EACH_WAY
def test_a_column_of_another_type_is_compared_with_nothing(sides: BulkSides, way, altered):
    altered("ALTER name TYPE char(20)")

    with pytest.raises(SchemaError, match='"name" is character\\(20\\), and the model says VARCHAR'):
        plan(sides, export_of(sides), **way).run()


def lose_blanks(altered: Callable[[str], None]) -> None:
    """A remedy that loses more than the mistake."""
    altered("ALTER name TYPE char(20)")
    altered("ALTER name TYPE varchar")


@EACH_WAY
def test_a_run_that_was_interrupted_before_a_column_was_altered_is_not_gone_on_with(
    sides: BulkSides, way, altered
):
    load(sides, [order(n, name={"S": f"n{n} "}) for n in range(30)])
    source = export_of(sides)
    with pytest.raises(Killed), KilledAt(sides.engine, 40):
        plan(sides, source, **way).run()
    lose_blanks(altered)

    assert len(found(plan(sides, source, **way).run())) == 30
    assert states(sides)[0] == RunState.ABANDONED


@BY_FINGERPRINTS
def test_a_column_that_is_altered_meanwhile_leaves_nothing_proven(sides: BulkSides, way, altered):
    load(sides, [order(n) for n in range(30)])

    with pytest.raises(UnusableSource, match=r"was altered.* SET DEFAULT, .* and a GRANT on"):
        agreed(plan(sides, export_of(sides), **way), sides, way, lambda: lose_blanks(altered)).run()

    assert states(sides) == [RunState.ABANDONED]


@EACH_WAY
@pytest.mark.usefixtures("short_names")
def test_an_item_that_no_row_can_hold_is_missing_and_hides_nothing_beside_it(sides: BulkSides, way):
    load(sides, [order(n) for n in range(10)])
    sides.put(order(4, name={"S": "too long for a name of ours"}))
    sides.mirror(order(4), None)
    sides.mirror(order(5), order(5, name={"S": "damaged"}))

    verification = plan(sides, export_of(sides, pieces_count=1), **way).run()

    assert found(verification) == {
        (key_hash(SHAPE.keys, order(4)), Finding.MISSING_ON_POSTGRES, ()),
        (key_hash(SHAPE.keys, order(5)), Finding.VALUE, ("name",)),
    }
    assert verification.equal == 8


@EACH_WAY
def test_a_worker_whose_piece_was_taken_over_notes_nothing(sides: BulkSides, way):
    load(sides, [order(n) for n in range(5)])
    sides.mirror(order(2), order(2, name={"S": "damaged"}))
    verify, source = plan(sides, export_of(sides, pieces_count=1), **way), export_of(sides)
    run = sides.runs.start("verify", TABLE, {}, planned=source.pieces())
    late = sides.runs.claim(run.id, 0)
    sides.runs.claim(run.id, 0)
    blocks = [(0, verify.transcoder.block(b"".join(source.lines)))]

    compare = verify.comparison.compare
    if verify.taking is not None:
        compare = partial(verify.taking.take_items, key=bytes(16))
    with pytest.raises(TakenOver):
        compare(late, blocks, position=None, lease=timedelta(0))

    with sides.engine.connect() as connection:
        for table in ("verify_seen", "verify_findings"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM dualstore.{table}").scalar() == 0


class Waits(threading.Event):
    """Waits for nothing, notes for how long it was to wait, and does something after so many waits."""

    def __init__(self, count: int, then: Callable[[], object]) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._count = count
        self._then = then

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0)
        if len(self.seconds) == self._count:
            self._then()
        return False


def test_a_worker_looks_soon_at_first_for_a_piece_and_then_as_often_as_it_was_told(sides: BulkSides):
    load(sides, [order(n) for n in range(5)])
    source = export_of(sides, pieces_count=1)
    run = sides.runs.start("verify", TABLE, {}, planned=source.pieces())
    held = sides.runs.claim_next(run.id, worker="another", lease=timedelta(hours=1))
    waits = Waits(80, then=lambda: sides.runs.release(held))

    plan(sides, source).work(run.id, name="waiting", stop=waits, look=timedelta(hours=1))

    assert waits.seconds[:3] == [0.005, 0.01, 0.02]
    assert set(waits.seconds[25:]) == {3600}
    assert [piece.items for piece in sides.runs.pieces(run)] == [5]


def test_a_sample_is_of_different_rows_and_all_of_a_small_table_are_in_it(sides: BulkSides):
    load(sides, [order(n) for n in range(300)])
    chosen = PostgresKeys(sides.engine, sides.mapping)

    some = chosen.sample(50, chance=random.Random(1))
    others = chosen.sample(50, chance=random.Random(2))

    numbers = [{int(key["number"]["N"]) for key in keys} for keys in (some, others)]
    assert [len(each) for each in numbers] == [50, 50]
    assert numbers[0] != numbers[1]
    assert len(chosen.sample(1000, chance=random.Random(3))) == 300


def test_recent_keys_are_those_written_and_deleted_since_a_revision(sides: BulkSides):
    load(sides, [order(n) for n in range(20)])
    since = sides.load.draw_revision()
    sides.dual_write(order(3), order(3, name={"S": "again"}))
    sides.dual_write(order(4), None)

    pages = list(PostgresKeys(sides.engine, sides.mapping).changed_since(since))

    assert {int(key["number"]["N"]) for page in pages for key in page} == {3, 4}


def test_recent_keys_are_told_by_the_time_in_their_stamps(sides: BulkSides):
    load(sides, [order(n) for n in range(20)])
    moment = datetime(2026, 1, 31, tzinfo=UTC)
    for n, hours in ((5, -1), (6, 1)):
        milliseconds = int((moment + timedelta(hours=hours)).timestamp() * 1000)
        stamp = milliseconds.to_bytes(6, "big") + b"\x70" + b"\x00" * 9
        sides.mirror(order(n), order(n, _dsv={"B": stamp}))

    pages = list(PostgresKeys(sides.engine, sides.mapping).changed_since(moment))

    assert {int(key["number"]["N"]) for page in pages for key in page} == {6}


def test_an_empty_source_and_an_empty_table_are_equal(sides: BulkSides):
    verification = plan(sides, Export([])).run()

    assert (verification.items_dynamodb, verification.equal, verification.success_rate) == (0, 0, 1.0)
    assert verification.proven


def test_no_key_and_no_value_stays_behind(sides: BulkSides):
    load(sides, [order(n) for n in range(10)])
    sides.mirror(order(2), order(2, name={"S": "secret"}))

    plan(sides, export_of(sides)).run()

    with sides.engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT * FROM dualstore.verify_findings").all()
        result = connection.exec_driver_sql("SELECT result FROM dualstore.runs").scalar()
    assert len(kept) == 1
    for text in ("secret", "customer", "order 2"):
        assert text not in str(kept)
        assert text not in str(result)


class Interrupted(PostgresFingerprints):
    """Somebody does something after the fingerprints were joined, before the second look."""

    then: Callable[[], object]

    @property
    def unmatched(self) -> PostgresUnmatched:
        class Joined(PostgresUnmatched):
            def mark(joined, run_id: UUID) -> None:  # noqa: N805 - `self` is the outer one
                super().mark(run_id)
                self.then()

        return Joined(self._engine, self._mapping, self._way)


def interrupted(verify: BulkVerify, sides: BulkSides, way: Any, then: Callable[[], object]) -> BulkVerify:
    taking = Interrupted(sides.engine, sides.mapping, way["way"](sides.mapping), batch_bytes=8192)
    taking.then = then
    return replace(verify, fingerprints=taking)


@BY_FINGERPRINTS
def test_a_row_without_an_item_that_is_written_between_the_two_looks_is_found(sides: BulkSides, way):
    load(sides, [order(n) for n in range(60)])
    sides.mirror(order(1000), order(1000))

    def write() -> None:
        sides.mirror(order(1000), order(1000) | {"name": {"S": "another"}})

    found = interrupted(plan(sides, export_of(sides), **way), sides, way, write).run()

    assert [each.finding for each in found.differences] == [Finding.MISSING_ON_DYNAMODB]
    assert (found.items_dynamodb, found.equal) == (60, 60)


@BY_FINGERPRINTS
def test_rows_that_stand_elsewhere_when_they_are_looked_at_again_are_found(sides: BulkSides, way):
    load(sides, [order(n) for n in range(60)])
    sides.mirror(order(1000), order(1000))
    damage(sides, [30, 59])

    def write() -> None:
        for n in (31, 58):  # the latter stands in the last block, in front of what stands alone
            sides.dual_write(order(n), order(n, name={"S": "again"}))

    found = interrupted(plan(sides, export_of(sides), **way), sides, way, write).run()

    assert {(each.key_hash, each.finding) for each in found.differences} == {
        (key_hash(SHAPE.keys, order(30)), Finding.VALUE),
        (key_hash(SHAPE.keys, order(59)), Finding.VALUE),
        (key_hash(SHAPE.keys, order(1000)), Finding.MISSING_ON_DYNAMODB),
    }
    assert (found.items_dynamodb, found.equal) == (60, 58)


def damage(sides: BulkSides, numbers: Sequence[int]) -> None:
    with sides.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE shop.orders SET name = name || '.' WHERE number = ANY(%s)", (list(numbers),)
        )


def agreed(verify: BulkVerify, sides: BulkSides, way: Any, then: Callable[[], object]) -> BulkVerify:
    """Somebody does something after the sums of both sides were found to agree."""

    class Agreed(PostgresFingerprints):
        @property
        def unmatched(self) -> PostgresUnmatched:
            class Summed(PostgresUnmatched):
                def agree(summed, run_id: UUID) -> bool:  # noqa: N805 - `self` is the outer one
                    agree = super().agree(run_id)
                    then()
                    return agree

            return Summed(self._engine, self._mapping, self._way)

    return replace(verify, fingerprints=Agreed(sides.engine, sides.mapping, way["way"](sides.mapping)))


def states(sides: BulkSides) -> list[str]:
    with sides.engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT state FROM dualstore.runs").scalars())


@BY_FINGERPRINTS
def test_items_that_are_not_met_again_leave_nothing_proven(sides: BulkSides, way):
    load(sides, [order(n) for n in range(50)])
    sides.put(order(60))  # without a row
    export, whole = export_of(sides), export_of(sides)

    def change() -> None:
        export.lines = [each for each in export.lines if b"order 60" not in each]

    with pytest.raises(UnusableSource, match="start a new verification"):
        interrupted(plan(sides, export, **way), sides, way, change).run()

    assert states(sides) == [RunState.ABANDONED]
    assert found(plan(sides, whole, **way).run()) == {
        (key_hash(SHAPE.keys, order(60)), Finding.MISSING_ON_POSTGRES, ())
    }


@BY_FINGERPRINTS
def test_an_item_that_no_row_can_hold_hides_none_that_is_looked_at_beside_it(
    sides: BulkSides, way, short_names
):
    lines = [line(order(n)) for n in range(40)]
    load(sides, [order(n) for n in range(40)])
    lines[14] = line(order(14, name={"S": "too long for a name of ours"}))
    sides.put(order(14, name={"S": "too long for a name of ours"}))
    for n in (3, 14):
        sides.mirror(order(n), None)

    class Ends(Exception):  # noqa: N818
        pass

    def end() -> None:
        raise Ends

    with pytest.raises(Ends):
        interrupted(plan(sides, Export(lines, pieces_count=1, batch=10), **way), sides, way, end).run()
    verification = plan(sides, Export(lines, pieces_count=1, batch=15), **way).run()

    assert found(verification) == {
        (key_hash(SHAPE.keys, order(n)), Finding.MISSING_ON_POSTGRES, ()) for n in (3, 14)
    }


@EACH_WAY
def test_a_run_of_another_form_is_abandoned_and_begun_anew(sides: BulkSides, way, monkeypatch):
    load(sides, [order(n) for n in range(50)])
    sides.mirror(order(3), None)
    with pytest.raises(Killed), KilledAt(sides.engine, 14):
        plan(sides, export_of(sides), **way).run()
    monkeypatch.setattr(fingerprint_ways, "_FORM", fingerprint_ways._FORM + 1)

    verification = plan(sides, export_of(sides), **way).run()

    assert sorted(states(sides)) == [RunState.ABANDONED, RunState.FINISHED_WITH_FAILURES]
    assert (verification.difference_count, verification.equal) == (1, 49)


def test_the_form_tells_mappings_apart_and_whoever_has_another_does_not_help(sides: BulkSides):
    mapping = sides.mapping
    forms = {form_of(mapping), form_of(replace(mapping, columns=mapping.columns[:-1]))}
    run = sides.runs.start("verify", TABLE, {"form": "another"}, planned=[{"piece": 0}])

    with pytest.raises(ConfigurationError, match="another mapping"):
        plan(sides, Export([])).work(run.id, name="helper", stop=threading.Event(), look=timedelta(seconds=1))

    assert len(forms) == 2
    assert form_of(sides.mapping) in forms


@BY_FINGERPRINTS
def test_where_both_sides_agree_a_key_that_was_written_meanwhile_is_looked_at(sides: BulkSides, way):
    load(sides, [order(n) for n in range(30)])

    def write() -> None:
        sides.mirror(order(3), order(3, name={"S": "on one side alone"}))

    verification = agreed(plan(sides, export_of(sides), **way), sides, way, write).run()

    assert found(verification) == {(key_hash(SHAPE.keys, order(3)), Finding.VALUE, ("name",))}


@BY_FINGERPRINTS
def test_rows_that_differ_and_are_not_met_again_leave_nothing_proven(sides: BulkSides, way):
    load(sides, [order(n) for n in range(30)])
    sides.mirror(order(1000), order(1000))

    with pytest.raises(UnusableSource, match="Start a new one"):  # the row gets no revision
        interrupted(plan(sides, export_of(sides), **way), sides, way, partial(damage, sides, [1000])).run()

    assert states(sides) == [RunState.ABANDONED]


@BY_FINGERPRINTS
def test_counts_that_nothing_explains_leave_nothing_proven(sides: BulkSides, way):
    load(sides, [order(n) for n in range(30)])

    def delete() -> None:
        with sides.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM shop.orders WHERE number = 3")

    with pytest.raises(UnusableSource, match="30 items and 29 rows"):
        agreed(plan(sides, export_of(sides), **way), sides, way, delete).run()

    assert states(sides) == [RunState.ABANDONED]


def test_counts_that_nothing_explains_leave_nothing_proven_of_a_scan_either(sides: BulkSides):
    load(sides, [order(n) for n in range(30)])
    first, batches = json.loads(export_of(sides).lines[0])["Item"]["number"]["N"], []

    def delete() -> None:
        batches.append(1)
        if len(batches) == 2:  # the row was compared with its item in the first
            with sides.engine.begin() as connection:
                connection.exec_driver_sql(f"DELETE FROM shop.orders WHERE number = {first}")

    with pytest.raises(UnusableSource, match="30 items and 29 rows"):
        plan(sides, export_of(sides, pieces_count=1, before_batch=delete)).run()

    assert states(sides) == [RunState.ABANDONED]


COUNTED_NOTHING = (
    f"{TABLE}: transactions that have written before the verification began go on; it does not compare "
    "how many items and rows there are"
)


@pytest.fixture
def become(sides: BulkSides) -> Iterator[Callable[[str, int], None]]:
    """Makes PostgreSQL something else for the table, so many epochs later; afterwards it is the mirror."""

    def set_fence(role: str, later: int) -> None:
        with sides.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE dualstore.control SET role = %s, epoch = epoch + %s", (role, later)
            )

    with sides.engine.connect() as connection:
        before = connection.exec_driver_sql("SELECT epoch FROM dualstore.control").scalar_one()
    yield set_fence
    with sides.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE dualstore.control SET role = 'mirror', epoch = %s", (before,))


def delete_by_sql(sides: BulkSides, number: int) -> None:
    """As the team does where PostgreSQL decides; DynamoDB is brought after it."""
    with sides.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM shop.orders WHERE number = %s", (number,))
    sides.delete(sides.key(order(number)))


@EACH_WAY
def test_what_sql_deletes_where_postgres_decides_needs_no_explanation(sides: BulkSides, way, become):
    become("authority", 0)
    load(sides, [order(n) for n in range(30)])
    lines, batches = [line(order(n)) for n in range(30)], []

    def delete() -> None:
        batches.append(1)
        if len(batches) == 2:  # the row was compared with its item in the first
            delete_by_sql(sides, 0)

    verify = plan(sides, Export(lines, pieces_count=1, before_batch=delete), **way)
    if "way" in way:
        verify = agreed(plan(sides, Export(lines), **way), sides, way, lambda: delete_by_sql(sides, 0))

    verification = verify.run()

    assert verification.proven
    assert (verification.items_dynamodb, verification.rows_postgres) == (30, 29)


MOVES = {"there": [("authority", 1)], "there and back": [("authority", 1), ("mirror", 1)]}


@pytest.mark.parametrize("moves", MOVES.values(), ids=list(MOVES))
def test_nothing_is_counted_where_the_authority_moved_before_a_run_was_gone_on_with(
    sides: BulkSides, become, moves
):
    load(sides, [order(n) for n in range(30)])
    export, batches = Export([line(order(n)) for n in range(30)], pieces_count=1), []

    def end() -> None:
        batches.append(1)
        if len(batches) == 2:  # the row was compared with its item in the first
            raise Killed

    export.before_batch = end
    with pytest.raises(Killed):
        plan(sides, export).run()
    for role, later in moves:
        become(role, later)
        if role == "authority":
            delete_by_sql(sides, 0)

    assert plan(sides, export).run().proven
    assert states(sides) == [RunState.FINISHED]


@BY_FINGERPRINTS
def test_a_row_without_an_item_that_sql_deletes_where_postgres_decides_is_no_contradiction(
    sides: BulkSides, way, become
):
    become("authority", 0)
    load(sides, [order(n) for n in range(30)])
    export = export_of(sides)
    load(sides, [order(1000)])  # after the export

    found = interrupted(plan(sides, export, **way), sides, way, lambda: delete_by_sql(sides, 1000)).run()

    assert found.proven
    assert (found.items_dynamodb, found.rows_postgres) == (30, 30)


@BY_FINGERPRINTS
def test_a_row_without_an_item_that_is_moved_where_postgres_decides_is_found(sides: BulkSides, way, become):
    load(sides, [order(1000)])
    sides.delete(sides.key(order(1000)))
    load(sides, [order(n) for n in range(400)])
    become("authority", 0)

    def move() -> None:
        with sides.engine.begin() as connection:  # into another block, the first being full
            connection.exec_driver_sql("UPDATE shop.orders SET name = name WHERE number = 1000")

    verification = interrupted(plan(sides, export_of(sides), **way), sides, way, move).run()

    assert found(verification) == {(key_hash(SHAPE.keys, order(1000)), Finding.MISSING_ON_DYNAMODB, ())}


GUIDE = Path(__file__).parents[2] / "docs/how-to/check-a-deployment.md"


@pytest.fixture
def as_documented(sides: BulkSides) -> Iterator[BulkSides]:
    """Both sides, as a role sees them with the grants that the guide lists, and no others."""
    role, url = f"service_{uuid.uuid4().hex[:8]}", sides.engine.url
    (listed,) = re.findall(
        r"^CREATE ROLE service LOGIN;\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE
    )
    grants = [grant for grant in listed.splitlines() if "rds_iam" not in grant]
    assert len(grants) == 6
    text = (
        "\n".join(grants)
        .replace("ON orders", "ON shop.orders")
        .replace("DATABASE app", f"DATABASE {url.database}")
    )
    with sides.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'aVerySecretWord'")
        connection.exec_driver_sql(text.replace("TO service;", f"TO {role};"))
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA shop TO {role}")
    with bulk_sides_at(url.set(username=role, password="aVerySecretWord"), sides.dynamodb, TABLE) as both:
        yield both
    with sides.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {role}")
        connection.exec_driver_sql(f"DROP ROLE {role}")


@EACH_WAY
def test_the_grants_of_the_guide_are_enough_for_a_full_verification(
    sides: BulkSides, as_documented: BulkSides, way
):
    load(sides, [order(n) for n in range(30)])
    damage(sides, [7])
    batches = []

    def delete() -> None:
        batches.append(1)
        if len(batches) == 2:
            as_documented.dual_write(order(0), None)

    export = Export([line(order(n)) for n in range(30)], pieces_count=1, before_batch=delete)
    repairing = {**way, "repair": True, "settle": as_documented.settle_all}

    verification = plan(as_documented, export, **repairing).run()

    assert verification.proven
    assert {each.key_hash for each in verification.differences} == {key_hash(SHAPE.keys, order(7))}


def test_rows_are_looked_through_for_broken_rules_in_parallel(sides: BulkSides):
    load(sides, [order(n) for n in range(30)])
    costs_nothing = ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size")

    with sides.engine.begin() as connection:
        for setting in costs_nothing:
            connection.exec_driver_sql(f"SET LOCAL {setting} = 0")
        driver = connection.connection.driver_connection
        census = scanning(sides.mapping).census(5)
        planned = driver.execute(sql.SQL("EXPLAIN ") + census).fetchall()

    assert any("Gather" in text for (text,) in planned)


def test_a_row_that_is_written_behind_the_look_at_the_last_revision_breaks_no_rule(
    sides: BulkSides, monkeypatch
):
    load(sides, [order(n) for n in range(30)])

    class Writing(Scanning):
        def census(self, last_revision: int) -> sql.Composed:
            sides.dual_write(order(3), order(3, name={"S": "again"}))
            return super().census(last_revision)

    monkeypatch.setattr(postgres_rules, "scanning", Writing)
    rules = PostgresRules(PostgresComparison(sides.engine, sides.mapping))

    assert rules._census(sides.mapping) == (30, False)
    assert sides.rows_on_postgres() == sides.items_on_dynamodb()


@pytest.mark.parametrize("table", ["shop.orders", "dualstore.tombstones"])
def test_a_look_for_what_has_changed_has_the_time_that_a_large_table_takes(
    sides: BulkSides, monkeypatch, table
):
    load(sides, [order(n) for n in range(20)])
    since = sides.load.draw_revision()
    sides.dual_write(order(3), order(3, name={"S": "again"}))
    sides.dual_write(order(4), None)
    defaults = postgres_transaction.transaction.__wrapped__.__kwdefaults__
    monkeypatch.setitem(defaults, "patience", timedelta(seconds=0.3))

    with sides.engine.connect() as slow:
        slow.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        ending = threading.Timer(1, slow.rollback)
        ending.start()
        pages = list(PostgresKeys(sides.engine, sides.mapping).changed_since(since))
        ending.join()

    assert {int(key["number"]["N"]) for page in pages for key in page} == {3, 4}


@pytest.mark.parametrize("patience", [timedelta(seconds=30), timedelta()])
def test_who_wrote_before_the_run_and_commits_during_it_is_waited_for_and_else_not_counted(
    sides: BulkSides, monkeypatch, caplog, patience
):
    monkeypatch.setattr(bulk, "_WRITERS_PATIENCE", patience)
    load(sides, [order(n) for n in range(30)])
    first, batches = json.loads(export_of(sides).lines[0])["Item"]["number"]["N"], []

    def commit() -> None:
        batches.append(1)
        if len(batches) == 2:  # the row was compared with its item in the first
            writer.commit()

    with sides.engine.connect() as writer:
        writer.exec_driver_sql(f"DELETE FROM shop.orders WHERE number = {first}")
        ending = threading.Timer(0.5 if patience else 60, writer.commit)
        ending.start()
        verification = plan(sides, export_of(sides, pieces_count=1, before_batch=commit)).run()
        ending.cancel()

    assert len(verification.differences) == (1 if patience else 0)
    said = [record.getMessage() for record in caplog.records if record.name == bulk.__name__]
    assert said == ([] if patience else [COUNTED_NOTHING])


@EACH_WAY
def test_an_item_that_the_source_has_twice_is_explained_by_that(sides: BulkSides, way):
    load(sides, [order(n) for n in range(30)])
    export = export_of(sides)
    export.lines = [*export.lines, export.lines[3]]

    assert plan(sides, export, **way).run().proven


def noting(way: Any, sides: BulkSides, seen: list[int]) -> Any:
    """A way of taking fingerprints that notes how many items each second look took, and 0 for one at rows."""

    class Noting(way["way"]):  # type: ignore[misc]
        def items_among(self, cursor: Any, place: int, blocks: Any, *rest: Any, **key: Any) -> Any:
            blocks = list(blocks)
            seen.append(sum(block.rows + len(block.declined) for block in blocks))
            return super().items_among(cursor, place, blocks, *rest, **key)

        def rows_among(self, *rest: Any, **key: Any) -> Any:
            seen.append(0)
            return super().rows_among(*rest, **key)

    return PostgresFingerprints(sides.engine, sides.mapping, Noting(sides.mapping))


@BY_FINGERPRINTS
def test_of_what_stands_alone_no_neighbour_is_looked_at_again(sides: BulkSides, way):
    load(sides, [order(n) for n in range(200)])
    damage(sides, [3, 57, 120])
    seen: list[int] = []
    source = export_of(sides, batch=100, pieces_count=1)

    verify = replace(plan(sides, source, **way), fingerprints=noting(way, sides, seen))

    assert verify.run().difference_count == 3
    assert sum(seen) == 3
    assert seen.count(0) == 1  # the rows are one batch


ODD_LINES = {
    "a blank line": lambda lines: [b" \n", *lines],
    "no end of the last line": lambda lines: [*lines[:-1], lines[-1].rstrip()],
    "an item that goes the exact way": lambda lines: [lines[0].replace(b'"0"', b'"0e1"'), *lines[1:]],
}


@BY_FINGERPRINTS
@pytest.mark.parametrize("change", ODD_LINES.values(), ids=list(ODD_LINES))
def test_items_that_stand_elsewhere_than_their_rows_do_are_found(sides: BulkSides, way, change):
    load(sides, [order(n) for n in range(40)])
    damage(sides, [5, 39])
    source = Export(change([line(order(n)) for n in range(40)]), pieces_count=1)

    verification = plan(sides, source, **way).run()

    assert {each.key_hash for each in verification.differences} == {
        key_hash(SHAPE.keys, order(n)) for n in (5, 39)
    }
    assert (verification.items_dynamodb, verification.equal) == (40, 38)


@BY_FINGERPRINTS
@pytest.mark.parametrize("size", [7, 15])
def test_batches_of_another_size_than_at_first_are_looked_at_again(sides: BulkSides, way, size):
    load(sides, [order(n) for n in range(60)])
    damage(sides, [3, 33])
    for n in (28, 59):
        sides.mirror(order(n), None)  # no row tells of these

    class Ends(Exception):  # noqa: N818
        pass

    def end() -> None:
        raise Ends

    with pytest.raises(Ends):
        interrupted(plan(sides, export_of(sides, batch=10), **way), sides, way, end).run()
    verification = plan(sides, export_of(sides, batch=size), **way).run()

    assert {each.key_hash for each in verification.differences} == {
        key_hash(SHAPE.keys, order(n)) for n in (3, 28, 33, 59)
    }
    assert verification.equal == 56


@BY_FINGERPRINTS
def test_whoever_helps_takes_fingerprints_in_the_way_of_the_run(sides: BulkSides, way):
    load(sides, [order(n) for n in range(60)])
    damage(sides, [3])
    source = export_of(sides)
    helper = plan(sides, source, at_once=False)  # as PostgreSQL takes them, where nobody says otherwise

    class Helped:
        def work(self, _equipment: object, run_id: UUID, report: Callable[[], None]) -> None:
            helper.work(run_id, name="helper", stop=threading.Event(), look=timedelta(seconds=1))
            report()

    verification = replace(plan(sides, source, **way), crew=Helped()).run()

    assert [each.key_hash for each in verification.differences] == [key_hash(SHAPE.keys, order(3))]
    assert (verification.rows_postgres, verification.equal) == (60, 59)


def test_a_full_verification_leaves_one_of_certain_keys_alone(sides: BulkSides):
    load(sides, [order(n) for n in range(20)])
    full = []

    def keys() -> Iterator[Key]:
        for n in range(3):
            full.append(plan(sides, export_of(sides)).run())
            yield sides.key(order(n))

    some = KeyedVerify(judge=plan(sides, Export([])).judge, runs=sides.runs, keys=keys(), mode="keys").run()

    assert (some.equal, [each.proven for each in full]) == (3, [True] * 3)
    assert sides.runs.find(some.run_id).state is RunState.FINISHED


def test_after_pieces_that_could_not_be_compared_a_new_verification_begins(sides: BulkSides):
    load(sides, [order(n) for n in range(20)])
    broken = export_of(sides)
    broken.before_batch = lambda: (_ for _ in ()).throw(UnusableSource("the export is damaged"))

    with pytest.raises(Unavailable, match="the export is damaged"):
        plan(sides, broken).run()

    assert plan(sides, export_of(sides)).run().proven
