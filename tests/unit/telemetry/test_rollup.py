"""Windows: none is lost, none is counted twice, and none holds what belongs to another dial step."""

from datetime import timedelta

import pytest

from dualstore.stages import Dials, Side, Stage
from dualstore.telemetry import Role, Telemetry
from dualstore.telemetry.figures import Figures, Work
from dualstore.telemetry.rollup import KEPT_WINDOWS, Rollup, Step, Tracked


class Keeper:
    """A sink as PostgreSQL is one: a window that it has is not taken again; it may fail before or after."""

    def __init__(self):
        self.windows = {}
        self.fails = None
        self.asked = 0

    def __call__(self, windows):
        self.asked += 1
        if self.fails == "before":
            raise OSError
        for window in windows:
            self.windows.setdefault(window.id, window)
        if self.fails == "after":
            raise OSError

    def reads(self, **wanted):
        windows = [
            w for w in self.windows.values() if all(getattr(w.step.dials, k) == v for k, v in wanted.items())
        ]
        return Figures.sum(w.figures for w in windows).by(side=Side.DYNAMODB, works=[Work.READ]).count


class Process:
    def __init__(self):
        self.telemetry, self.keeper, self.now = Telemetry(), Keeper(), 100.0
        self.tracked = {}
        self.rollup = Rollup(
            self.telemetry,
            lambda: self.tracked,
            self.keeper,
            pause=timedelta(seconds=5),
            now=lambda: self.now,
        )
        self.dial(0)

    def dial(self, percent, generation=1, *, is_shared=True, table="orders"):
        step = Step(Stage.SHADOW, Dials(percent, 100.0, 100.0), generation)
        self.tracked[f"{table}-prod"] = Tracked(table, step, is_shared)

    def reads(self, count, table="orders"):
        for _ in range(count):
            self.telemetry.operation(table, "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.01)

    def wait(self, seconds=5.0):
        self.now += seconds
        self.rollup.round()


@pytest.fixture
def process():
    return Process()


def test_what_is_counted_is_handed_in_when_it_is_due(process):
    process.reads(3)
    process.wait(4)
    assert process.keeper.reads() == 0
    process.wait(1)
    assert process.keeper.reads() == 3
    process.reads(2)
    process.wait()
    assert process.keeper.reads() == 5
    (first, second) = process.keeper.windows.values()
    assert (first.table, first.began, first.ended, second.began, second.ended) == (
        "orders-prod",
        100,
        105,
        105,
        110,
    )


def test_a_process_that_does_nothing_reports_once_where_the_dials_stand(process):
    for _ in range(3):
        process.wait()
    (window,) = process.keeper.windows.values()
    assert not window.figures
    process.dial(10, 2)
    for _ in range(3):
        process.wait()
    assert [w.step.dials.postgres_read_percent for w in process.keeper.windows.values()] == [0, 10]


def test_what_was_counted_before_the_dials_moved_stays_with_the_earlier_step(process):
    process.wait(1)
    process.reads(3)
    process.dial(10, 2)
    process.wait(1)  # sees that the dials have moved
    process.reads(4)
    process.wait(3)
    assert (
        process.keeper.reads(postgres_read_percent=0),
        process.keeper.reads(postgres_read_percent=10),
    ) == (
        3,
        4,
    )


def test_a_generation_that_leaves_the_dials_alone_begins_no_step(process):
    process.reads(1)
    process.dial(0, 2)
    process.wait()
    assert len(process.keeper.windows) == 1


@pytest.mark.parametrize("fails", ["before", "after"])
def test_nothing_is_lost_and_nothing_counted_twice_while_nobody_takes_it(process, fails):
    process.keeper.fails = fails
    for _ in range(3 * KEPT_WINDOWS):
        process.reads(2)
        process.wait()
    process.dial(10, 2)
    process.wait(1)
    process.reads(5)
    process.wait(5)
    process.keeper.fails = None
    process.wait()
    assert process.keeper.reads(postgres_read_percent=0) == 6 * KEPT_WINDOWS
    assert process.keeper.reads(postgres_read_percent=10) == 5
    assert len(process.keeper.windows) <= KEPT_WINDOWS + 2


def test_so_many_steps_that_they_cannot_be_kept_apart_lose_no_count(process):
    process.keeper.fails = "before"
    for n in range(3 * KEPT_WINDOWS):
        process.dial(n % 100, n)
        process.reads(1)
        process.wait()
    process.keeper.fails = None
    process.wait()
    assert process.keeper.reads() == 3 * KEPT_WINDOWS
    assert len(process.keeper.windows) <= KEPT_WINDOWS + 1


def test_a_table_that_is_not_to_be_shared_is_counted_until_it_is(process):
    process.dial(0, is_shared=False)
    process.reads(3)
    process.wait()
    assert process.keeper.asked == 0
    process.dial(0, is_shared=True)
    process.wait()
    assert process.keeper.reads() == 3


def test_a_table_that_is_not_to_be_shared_is_not_though_its_dials_move(process):
    process.dial(0, is_shared=False)
    process.reads(3)
    process.wait()
    process.dial(10, 2, is_shared=False)
    process.wait()
    assert process.keeper.asked == 0
    process.dial(10, 3)
    process.wait()
    assert process.keeper.reads(postgres_read_percent=0) == 3


def test_what_was_counted_before_a_table_was_tracked_is_counted(process):
    process.wait()
    process.reads(3, table="carts")
    process.dial(0, table="carts")
    process.wait()
    assert process.keeper.reads() == 3


def test_once_started_it_knows_where_the_dials_stood(process):
    process.rollup.start()
    process.reads(3)
    process.dial(10, 2)
    process.rollup.close()
    assert process.keeper.reads(postgres_read_percent=0) == 3


def test_closing_hands_in_what_is_left(process):
    process.reads(3)
    process.rollup.close()
    assert process.keeper.reads() == 3


def test_closing_does_not_wait_for_who_did_not_answer(process):
    process.keeper.fails = "before"
    process.wait()
    process.rollup.close()
    assert process.keeper.asked == 1


def test_that_figures_cannot_be_recorded_is_said_once(process, caplog):
    process.keeper.fails = "before"
    for _ in range(3):
        process.wait()
    process.keeper.fails = None
    for _ in range(2):
        process.wait()
    assert [record.message for record in caplog.records] == [
        "The figures of this process cannot be recorded, and are kept: OSError",
        "The figures of this process are recorded again",
    ]
