"""The backfill on a real PostgreSQL: exactly once, wherever it is killed, and harmless."""

import itertools
import os
import threading
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from bulk_sides import EPOCH, BulkSides, bulk_sides, mapping_of, order
from dualstore.backfill import Phase
from dualstore.backfill.scanning import StoreScan
from dualstore.control import PostgresRole
from dualstore.errors import ConfigurationError, MirrorFenced, SchemaError, Unavailable, UnusableSource
from dualstore.items import Key, key_bytes, without_stamps
from dualstore.operations import Scan
from dualstore.stores import postgres_load, postgres_runs
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_load import PostgresLoad
from dualstore.stores.postgres_runs import RunState, TakenOver
from transcoding_cases import line_of

TABLE = "orders-prod"
AT_ONCE = timedelta(0)
"""The lease of a single worker that is killed: whoever comes next need not wait for it to run out."""


@pytest.fixture
def sides(bulk_url):
    """DynamoDB in memory, PostgreSQL for real."""
    with bulk_sides(bulk_url, MemoryStore({TABLE: mapping_of(TABLE).shape}), TABLE) as both:
        yield both


def blocks_of(sides: BulkSides, *some):
    return [sides.load.transcoder.block(b"".join(map(line_of, some)))]


class Killed(BaseException):
    """Stands for the end of the process: nothing of ours catches it."""


class AfterScan:
    """A source that does something each time after a page was read and before it is handed over."""

    def __init__(self, store, act):
        self._store = store
        self._act = act

    def execute(self, operation):
        answer = self._store.execute(operation)
        if isinstance(operation, Scan):
            self._act(answer)
        return answer


def test_every_item_is_copied_and_counted_once(sides: BulkSides):
    sides.put(*(order(n) for n in range(100)))
    reports = []

    result = sides.backfill(progress=reports.append).run()

    sides.assert_equal()
    assert result.succeeded
    assert (result.totals.items, result.totals.inserted, result.totals.settled) == (100, 100, 0)
    assert (result.totals.pieces_done, result.totals.pieces_total) == (3, 3)
    assert result.totals.bytes > 5000
    assert [report.items for report in reports] == sorted(report.items for report in reports)


def test_what_the_model_does_not_know_is_copied_too(sides: BulkSides):
    raw = order(
        1,
        name={"N": "5"},
        total={"N": "1." + "1" * 37},
        nul={"S": "a\x00b"},
        empty={"S": ""},
        null={"NULL": True},
        set={"NS": ["1", "2"]},
        binary={"B": b"\x00\xff"},
    )
    sides.put(raw)

    sides.backfill().run()

    assert list(sides.rows_on_postgres().values()) == [raw]


def test_an_empty_table_is_copied(sides: BulkSides):
    assert sides.backfill().run().totals.items == 0


def test_a_key_like_name_of_a_column_does_not_disturb(sides: BulkSides):
    sides.put(order(1, dualstore_key={"S": "x"}, dualstore_stamp={"S": "y"}, _dsv={"B": b"1" * 16}))

    sides.backfill().run()

    sides.assert_equal()


def test_rows_that_are_there_already_stay_and_what_differs_is_settled(sides: BulkSides):
    sides.put(*(order(n) for n in range(30)))
    sides.mirror(order(1), order(1))
    sides.mirror(order(2), order(2, name={"S": "an older image"}))

    result = sides.backfill().run()

    sides.assert_equal()
    assert (result.totals.items, result.totals.inserted, result.totals.settled) == (30, 28, 1)


def test_a_row_whose_item_was_deleted_while_nothing_was_mirrored_is_settled(sides: BulkSides):
    sides.put(*(order(n) for n in range(30)))
    sides.backfill().run()
    gone = [order(n) for n in (0, 7, 29)]
    for item in gone:
        sides.delete(sides.key(item))
    sides.put(order(3, name={"S": "changed unmirrored"}), order(30))
    settled = []

    result = sides.backfill(
        confirm_dualwrite=lambda: 2, settle=lambda key: (settled.append(key), sides.settle(key))
    ).run()

    sides.assert_equal()
    assert result.succeeded
    assert (result.totals.rows_looked_up, result.totals.items, result.totals.inserted) == (30, 28, 1)
    assert settled == [*sorted(map(sides.key, gone), key=str), sides.key(order(3))]
    assert result.totals.settled == 4


def test_rows_from_before_a_run_are_looked_up_page_by_page_and_no_others(sides: BulkSides, monkeypatch):
    monkeypatch.setattr(postgres_load, "_ROW_PAGE_ROWS", 4)
    sides.put(*(order(n) for n in range(20)))
    sides.backfill().run()
    for n in range(0, 20, 3):
        sides.delete(sides.key(order(n)))
    reports = []

    def write_at_the_far_end(progress):
        reports.append(progress)
        sides.dual_write(order(6, customer={"S": "z"}), order(6, customer={"S": "z"}))

    result = sides.backfill(confirm_dualwrite=lambda: 2, progress=write_at_the_far_end).run()

    sides.assert_equal()
    assert result.totals.rows_looked_up == 20
    looked_up = [each.rows_looked_up for each in reports if each.phase is Phase.CLEARING]
    assert looked_up[:2] == [0, 4]
    assert looked_up == sorted(looked_up)
    assert max(later - earlier for earlier, later in itertools.pairwise(looked_up)) == 4


def test_a_unique_value_that_a_row_is_left_with_can_be_taken_by_another_item(sides: BulkSides):
    sides.put(order(1, code={"S": "once"}))
    sides.backfill().run()
    sides.delete(sides.key(order(1)))
    sides.put(order(2, code={"S": "once"}))

    assert sides.backfill(confirm_dualwrite=lambda: 2).run().succeeded

    sides.assert_equal()


def test_a_row_from_before_the_run_that_is_not_yet_committed_is_waited_for(sides: BulkSides):
    waited = threading.Event()

    def report(progress):
        if progress.waiting_for:
            waited.set()

    with sides.engine.connect() as writing:
        writing.exec_driver_sql("INSERT INTO shop.orders (customer, number) VALUES ('gone', 1)")
        copying = threading.Thread(target=sides.backfill(progress=report).run)
        copying.start()
        assert waited.wait(20)
        writing.commit()
    copying.join(20)

    assert not copying.is_alive()
    sides.assert_equal()


def test_a_row_that_is_left_over_and_cannot_be_removed_is_marked_dirty(sides: BulkSides):
    sides.mirror(order(1), order(1))
    with sides.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE shop.lines (customer text, number numeric,"
            " FOREIGN KEY (customer, number) REFERENCES shop.orders)"
        )
        connection.exec_driver_sql("INSERT INTO shop.lines SELECT customer, number FROM shop.orders")

    result = sides.backfill().run()

    assert result.state is RunState.FINISHED_WITH_FAILURES
    assert result.totals.failed == 1
    assert sides.numbers_of_dirty_keys() == {1}


def test_an_item_that_is_deleted_after_its_page_was_read_does_not_come_back(sides: BulkSides):
    sides.put(*(order(n) for n in range(10)))
    held_while_loaded = []

    def delete_one(answer):
        if answer["Items"]:
            sides.dual_write(answer["Items"][0], None)

    def look(progress):
        if progress.phase is Phase.COPYING:
            held_while_loaded.append(sides.rows_on_postgres().keys() - sides.items_on_dynamodb().keys())

    sides.backfill(dynamodb=AfterScan(sides.dynamodb, delete_one), progress=look).run()

    sides.assert_equal()
    assert held_while_loaded
    assert not any(held_while_loaded)


def test_an_item_that_is_written_after_its_page_was_read_keeps_its_new_image(sides: BulkSides):
    sides.put(*(order(n) for n in range(10)))

    def change_one(answer):
        if answer["Items"]:
            sides.dual_write(answer["Items"][0], answer["Items"][0] | {"name": {"S": "new"}})

    sides.backfill(dynamodb=AfterScan(sides.dynamodb, change_one)).run()

    sides.assert_equal()


def test_a_deletion_that_looked_before_the_copy_and_wrote_after_it_is_settled(sides: BulkSides):
    """It has read, and so far has no transaction id: `pg_snapshot_xmin` alone would not wait for it."""
    doomed = order(1)
    sides.put(*(order(n) for n in range(10)))
    waited = threading.Event()

    def report(progress):
        if progress.phase is Phase.WAITING and progress.waiting_for:
            waited.set()

    with sides.engine.connect() as deleting:
        assert deleting.exec_driver_sql("SELECT count(*) FROM shop.orders").scalar() == 0
        backfill = sides.backfill(
            dynamodb=AfterScan(sides.dynamodb, lambda _: sides.delete(sides.key(doomed))),
            progress=report,
            segments=1,
            workers=1,  # a second one might take the piece over, and read it after the deletion
        )
        copying = threading.Thread(target=backfill.run)
        copying.start()
        assert waited.wait(20)
        deleting.exec_driver_sql(
            "INSERT INTO dualstore.tombstones (table_name, key, revision) VALUES (%s, %s, nextval(%s))",
            (TABLE, _key_bytes(sides, doomed), "dualstore.revision"),
        )
        assert _key_bytes(sides, doomed) in sides.rows_on_postgres()
        deleting.commit()
    copying.join(20)

    assert not copying.is_alive()
    sides.assert_equal()


def test_a_copy_is_not_done_while_an_older_transaction_is_open(sides: BulkSides):
    sides.put(*(order(n) for n in range(10)))
    impatient = {"closing_patience": timedelta(milliseconds=50), "patience": timedelta(milliseconds=50)}

    with sides.engine.connect() as older:
        older.exec_driver_sql("SELECT FROM dualstore.tombstones")
        with pytest.raises(Unavailable, match="older than the copy"):
            sides.backfill(**impatient).run()

    assert sides.runs.latest_unfinished("backfill", TABLE) is not None
    assert sides.backfill().run().totals.items == 10


def test_a_row_that_the_table_refuses_is_marked_dirty_and_the_run_goes_on(sides: BulkSides):
    sides.put(*(order(n) for n in range(40)))
    sides.put(order(7, name={"S": "forbidden"}), order(20, name={"S": "forbidden"}))
    sides.put(order(11, code={"S": "secret-code"}), order(18, code={"S": "secret-code"}))

    result = sides.backfill(page_items=None).run()

    assert result.state is RunState.FINISHED_WITH_FAILURES
    assert not result.succeeded
    assert (result.totals.items, result.totals.inserted, result.totals.failed) == (40, 37, 3)
    dirty = sides.numbers_of_dirty_keys()
    assert dirty in ({7, 20, 11}, {7, 20, 18})
    missing = sides.items_on_dynamodb().keys() - sides.rows_on_postgres().keys()
    assert len(missing) == 3
    with sides.engine.connect() as connection:
        reasons = connection.exec_driver_sql("SELECT reason FROM dualstore.dirty").scalars().all()
    assert all("ck_" in reason or "check" in reason or "orders_code_key" in reason for reason in reasons)
    assert not any("forbidden" in reason or "secret" in reason for reason in reasons)


def test_a_key_that_cannot_be_settled_is_marked_dirty_and_the_run_goes_on(sides: BulkSides):
    sides.put(*(order(n) for n in range(10)))
    sides.put(order(3, name={"S": "forbidden"}))
    sides.mirror(order(3), order(3, name={"S": "an older image"}))

    result = sides.backfill().run()

    assert result.totals.failed == 1
    assert sides.numbers_of_dirty_keys() == {3}


def test_a_missing_schema_or_table_is_refused(sides: BulkSides, postgres_server):
    with sides.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE shop.orders")
    with pytest.raises(SchemaError, match="shop"):
        sides.backfill().run()

    empty = sa.create_engine(postgres_server.create_database())
    with pytest.raises(SchemaError, match="dualstore schema upgrade"):
        sides.backfill(runs=postgres_runs.PostgresRuns(empty)).run()
    empty.dispose()


def test_nothing_is_written_before_dual_writes_are_confirmed(sides: BulkSides):
    sides.put(order(1))

    def refuse():
        raise ConfigurationError("a process is still at stage off")

    with pytest.raises(ConfigurationError, match="stage off"):
        sides.backfill(confirm_dualwrite=refuse).run()

    assert not sides.rows_on_postgres()
    assert sides.runs.latest_unfinished("backfill", TABLE) is None


def test_a_source_that_misses_writes_is_refused_before_a_run_is_started(sides: BulkSides):
    asked = []

    class Older(StoreScan):
        def covers(self, since, *, tombstones_since=None):
            asked.append((since, tombstones_since))
            raise UnusableSource("it was read before dual writes began")

    older = Older(sides.dynamodb, sides.mapping.shape)

    with pytest.raises(UnusableSource, match="before dual writes"):
        sides.backfill(source=older).run()
    assert sides.runs.latest("backfill", TABLE) is None

    first = sides.backfill().run()
    with pytest.raises(UnusableSource):
        sides.backfill(source=older).run()
    with pytest.raises(UnusableSource):
        sides.backfill(source=older, confirm_dualwrite=lambda: 2).run()
    assert asked[1][0] == sides.runs.find(first.run_id).started_at
    assert asked[2][0] > asked[0][0] > asked[1][0] - timedelta(days=1)


def test_a_second_backfill_of_the_table_is_refused(sides: BulkSides, monkeypatch):
    monkeypatch.setattr(postgres_runs, "_EXCLUSIVE_WAIT", "20ms")

    with sides.runs.exclusive("backfill", TABLE), pytest.raises(Unavailable, match="another backfill"):
        sides.backfill().run()

    assert sides.backfill().run().succeeded


def test_a_worker_whose_piece_was_taken_over_loads_nothing_more(sides: BulkSides):
    run = sides.runs.start("backfill", TABLE, {}, pieces=1)
    mine = sides.load.piece(sides.runs.claim(run.id, 0))
    sides.runs.claim(run.id, 0)

    with pytest.raises(TakenOver):
        sides.load.load_blocks(mine, blocks_of(sides, order(1)), position=None, reject=pytest.fail)

    assert not sides.rows_on_postgres()


def test_a_worker_that_outlives_its_run_loads_nothing_more(sides: BulkSides):
    run = sides.runs.start("backfill", TABLE, {"epoch": 1}, pieces=1)
    outliving = sides.load.piece(sides.runs.claim(run.id, 0))
    sides.backfill(confirm_dualwrite=lambda: 2).run()

    with pytest.raises(TakenOver):
        sides.load.load_blocks(outliving, blocks_of(sides, order(1)), position=None, reject=pytest.fail)

    assert not sides.rows_on_postgres()


def test_a_run_of_an_earlier_epoch_is_not_resumed(sides: BulkSides):
    sides.put(*(order(n) for n in range(30)))
    first = _killed(sides, progress=_raise_on(2))
    sides.delete(sides.key(order(0)))  # unseen by the mirror: dual writes were off
    sides.put(order(30))

    result = sides.backfill(confirm_dualwrite=lambda: 2).run()

    assert result.run_id != first
    assert result.totals.items == 30
    assert sides.runs.find(first).state is RunState.ABANDONED


def test_a_run_can_be_resumed_by_its_id_and_only_then(sides: BulkSides):
    sides.put(*(order(n) for n in range(30)))
    first = _killed(sides, progress=_raise_on(2))

    result = sides.backfill(resume=first, segments=17).run()

    assert (result.run_id, result.totals.items, result.totals.pieces_total) == (first, 30, 3)
    with pytest.raises(ConfigurationError, match="not an unfinished backfill"):
        sides.backfill(resume=first).run()


def test_a_finished_run_is_not_resumed_but_done_again_without_doubles(sides: BulkSides):
    sides.put(*(order(n) for n in range(30)))
    first = sides.backfill().run()

    second = sides.backfill().run()

    assert second.run_id != first.run_id
    assert (second.totals.items, second.totals.inserted, second.totals.settled) == (30, 0, 0)


class Steps:
    """Counts every call that a backfill makes of what it is given, and ends it at one of them."""

    METHODS = {  # noqa: RUF012
        "source": {"execute"},
        "load": {
            *("draw_revision", "wait_for_writers", "row_page", "pass_rows"),
            *("load_blocks", "pass_settled", "wait_for_older_writers", "tombstoned_keys"),
        },
        "runs": {"start", "claim_next", "done", "finish"},
        "mirror": {"items_of"},
        "quarantine": {"put", "without_key"},
    }

    def __init__(self, *, die_at=None):
        self.names = []
        self._die_at = die_at

    def step(self, name):
        self.names.append(name)
        if len(self.names) == self._die_at:
            raise Killed(name)

    def watched(self, part, thing):
        steps = self

        class Watched:
            def __getattr__(self, name):
                method = getattr(thing, name)
                if name not in steps.METHODS[part]:
                    return method

                def call(*args, **kwargs):
                    steps.step(f"before {name}")
                    answer = method(*args, **kwargs)
                    steps.step(f"after {name}")
                    return answer

                return call

        return Watched()

    def settle(self, sides):
        def settle(key):
            self.step("before settle")
            sides.settle(key)
            self.step("after settle")

        return settle

    def backfill(self, sides):
        return sides.backfill(
            dynamodb=self.watched("source", sides.dynamodb),
            load=self.watched("load", PostgresLoad(sides.engine, sides.mapping, epoch=EPOCH, lease=AT_ONCE)),
            lease=AT_ONCE,
            runs=self.watched("runs", sides.runs),
            quarantine=self.watched("quarantine", sides.quarantine),
            mirror=self.watched("mirror", sides.postgres),
            settle=self.settle(sides),
            workers=1,
            segments=2,
            page_items=8,
        )


def _prepare_both(sides):
    """Rows that are equal, older, gone since, forbidden, left over; and most not there yet."""
    sides.empty()
    for n in range(30):
        sides.put(order(n))
    sides.put(order(29, name={"S": "forbidden"}))
    sides.mirror(order(1), order(1))
    sides.mirror(order(2), order(2, name={"S": "an older image"}))
    sides.mirror(order(3), None)
    sides.mirror(order(30), order(30))


def test_killed_at_any_step_it_resumes_without_loss_or_doubles(sides: BulkSides):
    _prepare_both(sides)
    clean = Steps()
    clean.backfill(sides).run()
    assert {
        "before load_blocks",
        "after load_blocks",
        "before settle",
        "after put",
        "after pass_rows",
    } <= set(clean.names)
    assert len(clean.names) > 40

    # All of them take a quarter of a minute: they are behind `nox -s backfill-kill`.
    stride = 1 if "DUALSTORE_KILL_ITEMS" in os.environ else 4
    for die_at in range(1, len(clean.names) + 1, stride):
        _prepare_both(sides)
        steps = Steps(die_at=die_at)
        with pytest.raises(Killed):
            steps.backfill(sides).run()
        sides.dual_write(order(4), None)
        sides.dual_write(order(5), order(5, name={"S": "changed while it was down"}))

        result = Steps().backfill(sides).run()

        place = f"killed {steps.names[-1]} (step {die_at})"
        dynamodb, postgres = sides.items_on_dynamodb(), sides.rows_on_postgres()
        assert dynamodb.keys() - postgres.keys() == {_key_bytes(sides, order(29))}, place
        assert not postgres.keys() - dynamodb.keys(), place
        assert all(_content(dynamodb[key]) == _content(item) for key, item in postgres.items()), place
        assert sides.numbers_of_dirty_keys() == {29}, place
        assert result.state is RunState.FINISHED_WITH_FAILURES, place
        # Exactly once: what was deleted meanwhile may or may not have been read before.
        assert result.totals.items in {29, 30}, place
        sides.put(order(4))


def _key_bytes(sides, item):
    return key_bytes(sides.mapping.shape.keys, item)


def _content(item):
    return without_stamps(item)


def _raise_on(nth):
    reports = itertools.count(1)

    def report(_):
        if next(reports) == nth:
            raise Killed

    return report


def _killed(sides, **options):
    """The id of a run that was killed."""
    with pytest.raises(Killed):
        sides.backfill(workers=1, **options).run()
    return sides.runs.latest_unfinished("backfill", TABLE).id


@pytest.mark.parametrize("pages", [0, 2])
def test_a_run_ends_at_once_where_postgresql_is_no_mirror_any_more(sides: BulkSides, pages):
    sides.put(*(order(n) for n in range(100)))
    scanned = itertools.count()

    def fence(_answer: object) -> None:
        if next(scanned) == pages:
            PostgresControl(sides.engine).raise_fence(TABLE, epoch=EPOCH + 1, role=PostgresRole.NONE)

    started = time.monotonic()
    with pytest.raises(MirrorFenced, match="start the backfill again"):
        sides.backfill(dynamodb=AfterScan(sides.dynamodb, fence), workers=1).run()

    assert time.monotonic() - started < 10  # the patience for a database that is away is 20 seconds
    assert len(sides.rows_on_postgres()) == pages * 10
    assert sides.numbers_of_dirty_keys() == set()


def test_a_key_that_cannot_be_settled_for_the_fence_ends_the_run_and_is_not_called_dirty(sides: BulkSides):
    sides.put(order(1))
    sides.mirror(order(1), order(1, name={"S": "another"}))

    def settle(key: Key) -> None:
        PostgresControl(sides.engine).raise_fence(TABLE, epoch=EPOCH + 1, role=PostgresRole.NONE)
        sides.settle(key)

    with pytest.raises(MirrorFenced):
        sides.backfill(settle=settle).run()

    assert sides.numbers_of_dirty_keys() == set()


def test_a_run_that_the_fence_ended_is_gone_on_with_at_the_later_epoch(sides: BulkSides):
    sides.put(*(order(n) for n in range(30)))
    control = PostgresControl(sides.engine)
    control.raise_fence(TABLE, epoch=EPOCH + 1, role=PostgresRole.MIRROR)
    with pytest.raises(MirrorFenced):
        sides.backfill().run()

    later = PostgresLoad(sides.engine, sides.mapping, epoch=EPOCH + 1)
    assert sides.backfill(load=later, confirm_dualwrite=lambda: 2).run().succeeded

    sides.assert_equal()
