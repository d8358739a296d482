"""What keeps a backfill from doing harm, on a real PostgreSQL: refusals, looks, load limits, indexes."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from moto import mock_aws

from bulk_sides import BulkSides, bulk_sides, bulk_sides_at, mapping_of, order
from dualstore.backfill import Threads
from dualstore.backfill.indexes import IndexesAside, WithoutIndexes
from dualstore.backfill.load_limits import LoadAware, LoadLimits, load_aware
from dualstore.backfill.preflight import first_blocks, look
from dualstore.backfill.progress import progress_of
from dualstore.backfill.refusals import Room, drifted, mirrored_since, recorded, without_columns
from dualstore.errors import ConfigurationError, Unavailable
from dualstore.stages import Side, Stage
from dualstore.stores import postgres_runs
from dualstore.stores.free_storage import FreeStorage, free_by_cloudwatch, free_on_this_machine, size_of
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres_indexes import PostgresIndexes
from dualstore.stores.postgres_pressure import LOADER, PostgresPressure
from dualstore.stores.postgres_rollup import PostgresRollup
from dualstore.stores.postgres_runs import PostgresRuns, RunState
from dualstore.stores.postgres_trial import TrialLoad
from dualstore.stores.source_clients import SourceClients

TABLE = "orders-guarded"
AT_ONCE = timedelta(0)

INDEXES = """
CREATE TABLE shop.customers (id text PRIMARY KEY);
CREATE INDEX "by Name" ON shop.orders USING btree (lower(name) DESC NULLS LAST) INCLUDE (total)
    WITH (fillfactor='70') WHERE (name <> ':x'::text);
ALTER INDEX shop."by Name" ALTER COLUMN 1 SET STATISTICS 500;
COMMENT ON INDEX shop."by Name" IS 'it''s: \\ 100 % ours';
CREATE INDEX by_total ON shop.orders USING brin (total) WITH (pages_per_range='16');
CREATE INDEX by_code ON shop.orders USING hash (code);
CREATE UNIQUE INDEX once ON shop.orders (customer, number, name);
CREATE INDEX by_number ON shop.orders USING btree (number);
ALTER TABLE shop.orders CLUSTER ON by_number;
ALTER TABLE shop.orders ADD CONSTRAINT of_customer FOREIGN KEY (code) REFERENCES shop.customers(id)
    ON UPDATE SET NULL ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;
COMMENT ON CONSTRAINT of_customer ON shop.orders IS 'ours, too';
"""
ASIDE = {"by Name", "by_code", "by_number", "by_total", "of_customer"}
DUMPED = """
SELECT pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisclustered,
       obj_description(i.indexrelid, 'pg_class'),
       (SELECT array_agg(attstattarget ORDER BY attnum) FROM pg_attribute WHERE attrelid = i.indexrelid)
  FROM pg_index AS i WHERE i.indrelid = 'shop.orders'::regclass
UNION ALL
SELECT conname || ' ' || pg_get_constraintdef(oid), convalidated, condeferrable,
       obj_description(oid, 'pg_constraint'), NULL
  FROM pg_constraint WHERE conrelid = 'shop.orders'::regclass
ORDER BY 1
"""


@pytest.fixture
def sides(bulk_url) -> Iterator[BulkSides]:
    with bulk_sides(bulk_url, MemoryStore({TABLE: mapping_of(TABLE).shape}), TABLE) as both:
        yield both


def run(sides: BulkSides, statements: str) -> None:
    with sides.engine.begin() as connection:
        for statement in statements.split(";\n"):
            connection.exec_driver_sql(statement.replace("%", "%%"))


# Load limits


@contextmanager
def blocked(sides: BulkSides, *, application: str) -> Iterator[None]:
    """A session that waits for a lock which a transaction of this application holds."""
    with sides.engine.connect() as holder, sides.engine.connect() as waiting:
        holder.exec_driver_sql(f"SET application_name = '{application}'")
        holder.exec_driver_sql("LOCK TABLE shop.orders IN SHARE MODE")
        pid = waiting.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        waiting.exec_driver_sql("SET application_name = 'the service'")

        def write() -> None:
            waiting.exec_driver_sql("UPDATE shop.orders SET name = name")

        thread = threading.Thread(target=write)
        thread.start()
        try:
            until(sides, f"SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {pid}")
            yield
        finally:
            holder.rollback()
            thread.join(10)
            waiting.rollback()
            holder.exec_driver_sql("RESET application_name")
            holder.commit()


def until(sides: BulkSides, question: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        with sides.engine.connect() as connection:
            if connection.exec_driver_sql(question).scalar():
                return
        assert time.monotonic() < deadline, question
        time.sleep(0.02)


def aware(sides: BulkSides, **limits: Any) -> LoadAware:
    none = {"replication_lag": None, "lock_wait": None, "latency_p99": None}
    return load_aware(sides.engine, sides.table, LoadLimits(**(none | limits)), look=AT_ONCE)


def test_whoever_waits_for_a_lock_of_ours_counts_sooner_than_who_waits_for_others(sides: BulkSides) -> None:
    with blocked(sides, application=LOADER):
        time.sleep(0.1)
        (wait,) = PostgresPressure(sides.engine).lock_waits()
        ours = aware(sides, lock_wait=timedelta(seconds=wait.seconds * 4))()
        long = aware(sides, lock_wait=timedelta(minutes=10))()
    with blocked(sides, application="a deployment"):
        (other,) = PostgresPressure(sides.engine).lock_waits()
        others = aware(sides, lock_wait=timedelta(minutes=10))()

    assert (wait.ours, other.ours) == (True, False)
    assert "for a lock of the backfill's" in ours
    assert (long, others) == (None, None)


def test_a_lock_wait_holds_a_backfill_back_until_it_is_over_and_says_why(sides: BulkSides) -> None:
    sides.put(*(order(n) for n in range(30)))
    gauge = aware(sides, lock_wait=timedelta(milliseconds=10))
    equipment = sides.equipment(admission=gauge)
    ended: list[Any] = []
    thread = threading.Thread(
        target=lambda: ended.append(sides.backfill(equipment=equipment, workers=1).run())
    )
    with blocked(sides, application="a deployment"):
        # The copy takes locks of its own that the holder is in the way of: it must not come so far.
        thread.start()
        until(sides, "SELECT count(*) > 0 FROM dualstore.run_pieces WHERE error LIKE 'waiting: %%'")
        run_id = sides.runs.latest_unfinished("backfill", sides.table).id
        seen = progress_of(sides.runs.totals(run_id))
        assert seen.items == 0
        assert "waits" in seen.waits_for
        assert seen.waits_for == seen.workers[0].waits_for
    thread.join(60)

    assert ended[0].succeeded
    sides.assert_equal()


def test_a_run_that_is_held_back_can_be_paused_and_cancelled(sides: BulkSides) -> None:
    from dualstore.stores.ledger import RunState, Wish  # noqa: PLC0415

    sides.put(order(1))
    equipment = sides.equipment(admission=lambda: "the replica lags")
    ended: list[Any] = []

    def work() -> None:
        try:
            ended.append(sides.backfill(equipment=equipment, workers=1).run())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(sides, "SELECT count(*) > 0 FROM dualstore.run_pieces WHERE error LIKE 'waiting: %%'")
    run_id = sides.runs.latest_unfinished("backfill", sides.table).id
    sides.runs.ask(run_id, Wish.HALT, by="somebody", reason="enough")
    thread.join(20)

    assert "enough" in str(ended[0])
    assert sides.runs.find(run_id).state is RunState.RUNNING


def test_the_lag_of_aurora_is_that_of_its_slowest_reader(sides: BulkSides) -> None:
    assert PostgresPressure(sides.engine).lag() is None  # a server without replicas
    run(
        sides,
        """CREATE FUNCTION public.aurora_replica_status(OUT server_id text, OUT session_id text,
            OUT replica_lag_in_msec double precision) RETURNS SETOF record LANGUAGE sql AS
        $$ VALUES ('writer', 'MASTER_SESSION_ID', 99000.0), ('reader-1', 'a', 20.0),
                  ('reader-2', 'b', 12000.0), ('reader-3', 'c', NULL) $$""",
    )
    lag = PostgresPressure(sides.engine).lag()

    assert (lag.replica, lag.seconds) == ("reader-2", 12.0)
    assert "reader-2 lags 12.0 s" in aware(sides, replication_lag=timedelta(seconds=10))()
    assert aware(sides, replication_lag=timedelta(seconds=20))() is None


def test_the_latency_of_the_service_holds_a_backfill_back(sides: BulkSides) -> None:
    windows = [latency_window(sides.table, seconds=0.2, count=200)]
    PostgresRollup(sides.engine).add(windows, process="p1")

    assert "p99 on PostgreSQL is 2" in aware(sides, latency_p99=timedelta(milliseconds=100))()
    assert aware(sides, latency_p99=timedelta(milliseconds=500))() is None


def latency_window(table: str, *, seconds: float, count: int) -> Any:
    from dualstore.stages import Dials  # noqa: PLC0415
    from dualstore.telemetry import Role  # noqa: PLC0415
    from dualstore.telemetry.figures import Doer, Done, Figures, Work  # noqa: PLC0415
    from dualstore.telemetry.latency import LatencyCell  # noqa: PLC0415
    from dualstore.telemetry.rollup import Step, Window  # noqa: PLC0415

    cell = LatencyCell()
    for _ in range(count):
        cell.add(seconds)
    figures = Figures({Doer(Work.READ, Side.POSTGRES, next(iter(Role))): Done(cell.read(), 0)})
    now = time.monotonic()
    return Window(uuid4(), table, Step(Stage.DUALWRITE, Dials(shadow_percent=0.0), 1), now - 2, now, figures)


# Looks


def test_a_look_tells_what_would_not_fit_and_writes_nothing(sides: BulkSides) -> None:
    sides.put(*(order(n, code={"S": f"c{n}"}) for n in range(100)))
    sides.put(*(order(n, name={"S": "forbidden"}) for n in range(3)), order(50, code={"S": "c51"}))
    before = sides.engine.connect().exec_driver_sql("SELECT pg_current_snapshot()").scalar()

    found = look(sides.equipment(segments=1, page_items=None).source, TrialLoad(sides.engine, sides.mapping))

    assert before is not None
    assert (found.items, found.fitting, found.expected_items) == (100, 96, 100)
    assert sorted(found.problems.values()) == [1, 3]
    assert any("ck_orders" in problem or "CheckViolation" in problem for problem in found.problems)
    assert any("UniqueViolation" in problem for problem in found.problems)
    assert not any("trial" in problem for problem in found.problems)
    assert not any("forbidden" in problem or "c51" in problem for problem in found.problems)
    assert not found.fits
    assert sides.rows_on_postgres() == {}
    assert found.table_bytes > 0 < found.index_bytes
    assert found.expected_time > timedelta(0)


def test_a_sample_reads_a_share_of_every_piece_and_counts_up_from_it(sides: BulkSides) -> None:
    sides.put(*(order(n) for n in range(400)))
    source = Told(sides.equipment(segments=4, page_items=5).source, items=400)

    found = look(source, TrialLoad(sides.engine, sides.mapping), share=0.05, workers=2)

    assert 20 <= found.items <= 40
    assert found.expected_items == 400
    assert found.source_bytes == pytest.approx(found.json_bytes * 400 / found.items, rel=0.01)
    assert len(source.read_pieces) == 4


class Told:
    """A source that says how many items it has."""

    def __init__(self, source: Any, *, items: int) -> None:
        self._source, self.expected_items = source, items
        self.read_pieces: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def pieces(self) -> Any:
        pieces = self._source.pieces()
        return [{**piece, "items": self.expected_items // len(pieces)} for piece in pieces]

    def read(self, description: Any, *arguments: Any) -> Any:
        self.read_pieces.add(description["segment"])
        return self._source.read(description, *arguments)


def test_a_look_says_which_rules_it_could_not_try(sides: BulkSides) -> None:
    run(sides, INDEXES)

    assert TrialLoad(sides.engine, sides.mapping).left_out() == ["foreign key of_customer"]


# Refusals


def test_the_time_of_the_dual_writes_is_that_at_which_they_were_first_confirmed(sides: BulkSides) -> None:
    assert recorded(sides.runs, sides.table, 7) is None
    first = mirrored_since(sides.runs, sides.table, 7)

    assert mirrored_since(sides.runs, sides.table, 7) == first
    assert datetime.now(UTC) - first < timedelta(minutes=1)
    assert mirrored_since(sides.runs, sides.table, 8) > first
    assert recorded(sides.runs, sides.table, 7) is None  # mirroring was interrupted since


def test_a_schema_that_was_changed_by_hand_is_found(sides: BulkSides) -> None:
    assert list(drifted(sides.engine)) == []
    run(sides, "ALTER TABLE dualstore.run_pieces DROP COLUMN rate")

    (reason,) = drifted(sides.engine)
    assert "rate" in reason


def test_columns_that_are_missing_or_nobody_fills_are_found(sides: BulkSides) -> None:
    assert list(without_columns(sides.engine, sides.mapping)) == []
    run(
        sides,
        "ALTER TABLE shop.orders DROP COLUMN total;\nALTER TABLE shop.orders ADD region text NOT NULL;\n"
        "ALTER TABLE shop.orders ADD at timestamptz NOT NULL DEFAULT now()",
    )

    missing, unfilled = without_columns(sides.engine, sides.mapping)
    assert "no column total" in missing
    assert "column region" in unfilled


def test_a_column_that_would_lose_what_is_copied_is_found(sides: BulkSides) -> None:
    run(sides, "ALTER TABLE shop.orders ALTER total TYPE numeric(8, 2)")

    (reason,) = without_columns(sides.engine, sides.mapping)
    assert '"shop"."orders": column "total" is numeric(8,2), and the model says NUMERIC' in reason
    assert 'ALTER TABLE "shop"."orders" ALTER COLUMN "total" TYPE NUMERIC' in reason


def test_a_copy_that_does_not_fit_on_the_disk_is_found(sides: BulkSides) -> None:
    free = free_on_this_machine(sides.engine)

    assert free is None or free.size_bytes > 0
    (reason,) = Room(rows_bytes=10**12, temporary_bytes=0).lacks(FreeStorage(10**11, "somebody"))
    assert "1,100.00 GB" in reason
    assert list(Room(10**12, 10**6).lacks(FreeStorage(10**9, "somebody", temporary=True))) == []
    assert list(Room(0, 10**10).lacks(FreeStorage(10**9, "somebody", temporary=True))) != []
    assert list(Room(10**12, 0).lacks(None)) == []
    assert Room.of(10**9, workers=0, there=2 * 10**9).rows_bytes == 2 * 10**8
    assert Room.of(10**9, workers=0, there=10**10).rows_bytes == 0


def test_rows_that_are_there_already_need_no_room(sides: BulkSides) -> None:
    empty = size_of(sides.engine, [sides.mapping.table])
    run(sides, "INSERT INTO shop.orders (customer, number) SELECT 'c', generate_series(1, 5000)")

    assert 0 < empty < 100_000 < size_of(sides.engine, [sides.mapping.table])
    assert size_of(sides.engine, [sa.Table("nowhere", sa.MetaData())]) == 0


@pytest.mark.parametrize("metric", ["FreeStorageSpace", "FreeLocalStorage"])
def test_cloudwatch_tells_how_much_room_an_instance_has(metric: str) -> None:
    with mock_aws(), SourceClients(region="us-east-1") as clients:
        cloudwatch = clients.cloudwatch()
        dimensions = [{"Name": "DBInstanceIdentifier", "Value": "orders-1"}]
        cloudwatch.put_metric_data(
            Namespace="AWS/RDS",
            MetricData=[
                {"MetricName": metric, "Dimensions": dimensions, "Value": value} for value in (5e9, 4e9)
            ],
        )

        free = free_by_cloudwatch(cloudwatch, "orders-1")
        assert (free.size_bytes, free.temporary) == (4 * 10**9, metric == "FreeLocalStorage")
        with pytest.raises(ConfigurationError, match="neither FreeStorageSpace nor FreeLocalStorage"):
            free_by_cloudwatch(cloudwatch, "orders-2")


# Indexes


def dumped(sides: BulkSides) -> list[Any]:
    with sides.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(DUMPED)]


def aside(sides: BulkSides) -> IndexesAside:
    return IndexesAside(PostgresIndexes(sides.engine), sides.runs, sides.mapping)


def test_a_copy_without_indexes_puts_back_exactly_what_was_there(sides: BulkSides) -> None:
    run(sides, INDEXES)
    sides.put(*(order(n) for n in range(50)))
    before, during = dumped(sides), []

    class Looking(Threads):
        def work(self, *arguments: Any) -> None:
            during.extend(dumped(sides))
            super().work(*arguments)

    names: list[str] = []
    crew = WithoutIndexes(
        Looking(1), aside(sides), drops=True, dropped=lambda each: names.append(each.name), restored=print
    )
    assert sides.backfill(crew=crew).run().succeeded

    assert set(names) == ASIDE
    # The primary key, and the unique rule that decides what fits, stay.
    assert {row[0] for row in before} - {row[0] for row in during} == {
        row[0] for row in before if row[0].startswith(("CREATE INDEX", "of_customer"))
    }
    assert dumped(sides) == before
    assert aside(sides).written_down() is None
    sides.assert_equal()


KILLED_AT = ("DROP INDEX", "ALTER TABLE", "CREATE INDEX", "COMMENT ON INDEX", "VALIDATE")


@pytest.mark.parametrize("statement", KILLED_AT if "DUALSTORE_KILL_ITEMS" in os.environ else KILLED_AT[2:3])
def test_indexes_come_back_exactly_after_a_kill(sides: BulkSides, statement: str) -> None:
    run(sides, INDEXES)
    before = dumped(sides)
    url = sides.engine.url.render_as_string(hide_password=False)
    process = multiprocessing.get_context("spawn").Process(target=set_aside_and_die, args=(url, statement))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert dumped(sides) != before

    restored = aside(sides).restore()

    assert {each.name for each in restored} == ASIDE
    assert dumped(sides) == before
    assert aside(sides).restore() == ()


def set_aside_and_die(url: str, statement: str) -> None:
    """Set indexes aside, and die where the second of these statements would be sent."""
    left = [2 if statement == "CREATE INDEX" else 1]

    def look_at(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if statement in text:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    with bulk_sides_at(url, MemoryStore({TABLE: mapping_of(TABLE).shape}), TABLE) as sides:
        if statement in {"DROP INDEX", "ALTER TABLE"}:
            left[0] = 2 if statement == "DROP INDEX" else 1
            sa.event.listen(sides.engine, "after_cursor_execute", look_at)
            aside(sides).drop()
        aside(sides).drop()
        sa.event.listen(sides.engine, "before_cursor_execute", look_at)
        aside(sides).restore()


def test_the_remains_of_an_index_that_was_not_finished_are_replaced(sides: BulkSides) -> None:
    run(sides, INDEXES)
    before = dumped(sides)
    aside(sides).drop()
    run(
        sides,
        "CREATE INDEX by_code ON shop.orders USING hash (code);\n"
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shop.by_code'::regclass",
    )

    aside(sides).restore()

    assert dumped(sides) == before


def test_an_index_that_somebody_made_under_the_same_name_is_left_and_told(sides: BulkSides) -> None:
    run(sides, INDEXES)
    aside(sides).drop()
    run(sides, "CREATE INDEX by_code ON shop.orders USING btree (code)")

    with pytest.raises(ConfigurationError, match="USING hash"):
        aside(sides).restore()

    assert aside(sides).written_down() is not None
    assert "by_total" in str(dumped(sides))


def test_a_foreign_key_that_copied_rows_break_is_told_without_values_and_put_back_later(
    sides: BulkSides,
) -> None:
    run(sides, INDEXES)
    before = dumped(sides)
    aside(sides).drop()
    sides.mirror(order(1), order(1, code={"S": "secret"}))

    for _ in range(2):
        with pytest.raises(ConfigurationError, match="foreign key of_customer") as refused:
            aside(sides).restore()
        assert "secret" not in "".join(traceback.format_exception(refused.value))
    run(sides, "INSERT INTO shop.customers VALUES ('secret')")
    aside(sides).restore()

    assert dumped(sides) == before
    assert aside(sides).written_down() is None


def test_an_index_that_a_row_does_not_fit_is_told_without_values(sides: BulkSides) -> None:
    run(sides, "CREATE INDEX by_share ON shop.orders USING btree ((1 / (total - 777)))")
    aside(sides).drop()
    sides.mirror(order(1), order(1, total={"N": "777"}))

    with pytest.raises(ConfigurationError, match=r"by_share .* could not be put back") as refused:
        aside(sides).restore()

    assert "division" not in "".join(traceback.format_exception(refused.value))


def test_nothing_is_copied_straight_beside_an_ordinary_backfill(sides: BulkSides) -> None:
    sides.put(*(order(n) for n in range(30)))
    ordinary = sides.runs.start("backfill", sides.table, {"epoch": 1, "source": {}}, planned=[{}])

    with pytest.raises(ConfigurationError, match=f"under way .{ordinary.id}"):
        sides.backfill(straight=True).run()

    assert sides.runs.find(ordinary.id).state is RunState.RUNNING
    assert not sides.rows_on_postgres()


def test_dropping_indexes_is_measured(sides: BulkSides) -> None:
    run(sides, INDEXES)
    sides.put(*(order(n) for n in range(100)))
    trial = TrialLoad(sides.engine, sides.mapping)

    costs = trial.index_costs(first_blocks(sides.equipment(page_items=None, segments=1).source, trial))

    assert costs.items == 100
    assert min(costs.kept_us, costs.dropped_us, costs.rebuilt_us) > 0
    assert sides.rows_on_postgres() == {}


def test_two_do_not_set_indexes_aside_at_once(sides: BulkSides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_runs, "_EXCLUSIVE_WAIT", "50ms")
    run(sides, INDEXES)
    with PostgresRuns(sides.engine).exclusive("indexes", sides.table):
        thread_error: list[Any] = []

        def drop() -> None:
            try:
                aside(sides).drop()
            except Unavailable as error:
                thread_error.append(error)

        thread = threading.Thread(target=drop)
        thread.start()
        thread.join(20)
    assert thread_error
