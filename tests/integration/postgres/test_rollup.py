"""The fleet's figures in PostgreSQL: kept once, added up by dial step, folded and pruned without loss."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from dualstore import schema
from dualstore.control import ControlRecord, Stop
from dualstore.errors import Unavailable
from dualstore.stages import Dials, Side, Stage
from dualstore.store.evidence import evidence, fleet
from dualstore.stores.postgres_rollup import PostgresRollup, step_of
from dualstore.stores.postgres_upkeep import PostgresUpkeep
from dualstore.telemetry import Role, ShadowCompared, Telemetry, Verdict
from dualstore.telemetry.figures import Figures, Work
from dualstore.telemetry.rollup import Window
from dualstore.telemetry.snapshot import Snapshot

TABLE = "orders-prod"
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def module_engine(postgres_server: Any) -> Iterator[sa.Engine]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    schema.upgrade(engine)
    yield engine
    engine.dispose()
    postgres_server.drop_database(url)


@pytest.fixture
def engine(module_engine: sa.Engine) -> sa.Engine:
    with module_engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE dualstore.rollup"))
    return module_engine


@pytest.fixture
def rollup(engine: sa.Engine) -> PostgresRollup:
    return PostgresRollup(engine)


def record(percent: float, generation: int, **changed: Any) -> ControlRecord:
    return ControlRecord(TABLE, Stage.SHADOW, Dials(percent), generation=generation, **changed)


def figures(*, equal: int = 0, mismatches: int = 0, reads: int = 0, seconds: float = 0.01) -> Figures:
    telemetry = Telemetry()
    for verdict, count in ((Verdict.EQUAL, equal), (Verdict.MISMATCH, mismatches)):
        for _ in range(count):
            telemetry.record(ShadowCompared("orders", "GetItem", verdict))
    for _ in range(reads):
        telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, seconds)
        telemetry.operation("orders", "GetItem", Side.POSTGRES, Role.SHADOW, 2 * seconds)
    return Figures.of(telemetry.snapshot().since(Snapshot(0.0, {}, {}, {})), "orders")


def window(
    of: ControlRecord, counted: Figures, *, age: timedelta = timedelta(0), table: str = TABLE
) -> Window:
    ended = time.monotonic() - age.total_seconds()
    return Window(uuid4(), table, step_of(of), ended - 5, ended, counted)


def rows(engine: sa.Engine) -> int:
    with engine.begin() as connection:
        return connection.scalar(sa.text("SELECT count(*) FROM dualstore.rollup"))


def test_figures_of_several_processes_add_up(rollup):
    now = record(10, 7)
    rollup.add([window(now, figures(equal=3, reads=2))], process="a")
    rollup.add([window(now, figures(equal=4, mismatches=1, reads=1))], process="b")
    rolled = rollup.of_step(TABLE, step_of(now))
    assert (rolled.figures.counts, rolled.processes) == ({"equal": 7, "mismatch": 1}, 2)
    assert rolled.figures.by(side=Side.DYNAMODB, works=[Work.READ]).count == 3
    assert rolled.ended_at - rolled.began_at == pytest.approx(timedelta(seconds=5), abs=timedelta(seconds=1))


def test_a_window_that_is_handed_in_twice_is_counted_once(rollup):
    now = record(10, 7)
    once = window(now, figures(equal=3))
    for _ in range(2):
        rollup.add([once, window(now, figures(equal=1))], process="a")
    assert rollup.of_step(TABLE, step_of(now)).figures.counts == {"equal": 5}


def test_evidence_begins_where_the_dials_last_moved(rollup):
    for percent, generation, equal in ((10, 1, 100), (20, 4, 10), (10, 6, 1), (10, 9, 2)):
        rollup.add([window(record(percent, generation), figures(equal=equal))], process="a")
    found = evidence(rollup, "orders", record(10, 9))
    assert (found.comparisons, found.dials) == (3, Dials(10, 100, 100))
    assert evidence(rollup, "orders", record(20, 10)).comparisons == 0, (
        "they moved, and nobody has reported yet"
    )


def test_a_process_that_lags_behind_adds_nothing_to_a_later_step(rollup):
    rollup.add([window(record(20, 4), figures(equal=10))], process="a")
    rollup.add([window(record(10, 1), figures(equal=100, mismatches=1))], process="late")
    assert evidence(rollup, "orders", record(20, 4)).comparisons == 10


def test_reads_that_are_stopped_are_a_step_of_their_own(rollup):
    rollup.add([window(record(10, 1), figures(equal=10))], process="a")
    stopped = record(10, 2, stopped=Stop("anna", 0.0))
    assert evidence(rollup, "orders", stopped).comparisons == 0
    rollup.add([window(stopped, figures(equal=1))], process="a")
    assert evidence(rollup, "orders", record(10, 3)).comparisons == 0


@pytest.mark.parametrize("percent", [0.1, 33.3, 100 / 3, 1e-6, 100])
def test_a_step_is_recognised_whatever_its_percentage(rollup, percent):
    rollup.add([window(record(percent, 1), figures(equal=1))], process="a")
    rollup.add([window(record(percent, 2), figures(equal=1))], process="b")
    assert evidence(rollup, "orders", record(percent, 2)).comparisons == 2


def test_evidence_since_a_moment_asks_for_no_step(rollup):
    rollup.add([window(record(10, 1), figures(equal=100), age=HOUR)], process="a")
    for percent, generation in ((10, 1), (20, 2)):
        rollup.add([window(record(percent, generation), figures(equal=1))], process="a")
    since = datetime.now(UTC) - HOUR / 2
    assert evidence(rollup, "orders", record(20, 2), since=since).comparisons == 2


def test_evidence_holds_the_bound_and_the_ratio_of_latencies(rollup):
    now = record(10, 1)
    rollup.add([window(now, figures(equal=40, reads=120))], process="a")
    found = evidence(rollup, "orders", now)
    assert found.mismatch_bound == pytest.approx(0.0722, abs=1e-4)
    (reads, listings) = found.speeds
    assert (reads.ratio("p50"), reads.ratio("p99")) == (pytest.approx(2, rel=0.07), None)
    assert listings.ratio("p50") is None


def test_a_table_sees_only_its_own_figures(rollup):
    now = record(10, 1)
    rollup.add([window(now, figures(equal=3)), window(now, figures(equal=5), table="carts")], process="a")
    assert rollup.of_step(TABLE, step_of(now)).figures.counts == {"equal": 3}


def test_the_fleet_is_what_was_done_in_the_last_minute(rollup):
    now = record(10, 1)
    rollup.add([window(now, figures(reads=600), age=timedelta(minutes=2))], process="gone")
    rollup.add([window(now, figures(reads=30))], process="a")
    rollup.add([window(now, figures(reads=30), age=timedelta(seconds=30))], process="b")
    seen = fleet(rollup, "orders", TABLE)
    assert seen.processes == 2
    assert [(each.side, each.role, seen.per_second(each)) for each in seen.worked] == [
        (Side.DYNAMODB, Role.AUTHORITATIVE, 1.0),
        (Side.POSTGRES, Role.SHADOW, 1.0),
    ]


def test_windows_of_an_hour_become_a_row_and_nothing_is_lost(engine, rollup):
    first, second = record(10, 1), record(20, 2)
    for n in range(20):
        old = timedelta(hours=3)
        rollup.add([window(first, figures(equal=n), age=old)], process=f"p{n}")
        rollup.add([window(second, figures(mismatches=1, reads=1), age=old)], process=f"p{n}")
    rollup.add([window(second, figures(equal=7))], process="now")
    before = [rollup.since(TABLE, datetime(2020, 1, 1, tzinfo=UTC)), rollup.of_step(TABLE, step_of(second))]
    assert rollup.fold() >= 36
    assert rows(engine) <= 5, "an hour may end among the windows of a step"
    after = [rollup.since(TABLE, datetime(2020, 1, 1, tzinfo=UTC)), rollup.of_step(TABLE, step_of(second))]
    for one, other in zip(before, after, strict=True):
        assert one.figures.counts == other.figures.counts
        assert (
            one.figures.by(side=Side.POSTGRES, works=[Work.READ]).count
            == other.figures.by(side=Side.POSTGRES, works=[Work.READ]).count
        )
        assert (one.began_at, one.ended_at) == (other.began_at, other.ended_at)


def test_windows_that_come_after_their_hour_was_folded_join_it(engine, rollup):
    now = record(10, 1)
    for n in range(4):
        rollup.add([window(now, figures(equal=1), age=timedelta(days=1))], process=f"p{n}")
        rollup.fold()
    assert rows(engine) <= 2
    assert rollup.of_step(TABLE, step_of(now)).figures.counts == {"equal": 4}


def test_what_is_folded_by_many_at_once_is_counted_once(engine, rollup):
    now = record(10, 1)
    for n in range(50):
        rollup.add([window(now, figures(equal=1), age=timedelta(hours=2, minutes=n))], process=f"p{n}")
    threads = [threading.Thread(target=rollup.fold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rollup.of_step(TABLE, step_of(now)).figures.counts == {"equal": 50}
    assert rows(engine) <= 3


def test_young_windows_stay_as_they_are(engine, rollup):
    for n in range(3):
        rollup.add([window(record(10, 1), figures(equal=1))], process=f"p{n}")
    assert rollup.fold() == 0
    assert rows(engine) == 3


def test_upkeep_folds_and_forgets_what_is_past_its_retention(engine, rollup):
    rollup.add([window(record(10, 1), figures(equal=1), age=timedelta(days=31))], process="a")
    for n in range(3):
        rollup.add([window(record(10, 1), figures(equal=1), age=timedelta(hours=5))], process=f"p{n}")
    PostgresUpkeep(engine).prune({})
    assert 1 <= rows(engine) <= 2
    assert rollup.of_step(TABLE, step_of(record(10, 1))).figures.counts == {"equal": 3}


def test_a_lost_connection_is_unavailable(postgres_server):
    engine = sa.create_engine(
        "postgresql+psycopg://nobody@127.0.0.1:9/none", connect_args={"connect_timeout": 1}
    )
    with pytest.raises(Unavailable):
        PostgresRollup(engine).add([window(record(10, 1), figures(equal=1))], process="a")
