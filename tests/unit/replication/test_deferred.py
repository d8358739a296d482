"""Deferred mirroring: what is put off is bounded, coalesced, counted as unfinished, and never forgotten."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import pytest

from dualstore.items import Key, KeyAttribute, KeySchema, TableShape
from dualstore.replication.deferred import Deferred
from dualstore.replication.served import ServedTable

SOON = timedelta(seconds=5)
AT_ONCE = timedelta(milliseconds=1)


def table(name: str = "orders") -> ServedTable:
    return ServedTable(name, TableShape(f"{name}-prod", KeySchema(KeyAttribute("id", "S"))))


ORDERS, NOTES = table(), table("notes")


def key(name: str) -> Key:
    return {"id": {"S": name}}


class Sides:
    """What the two databases do here: settle, after a while or not at all, and count what is unfinished."""

    def __init__(self) -> None:
        self.settled: list[tuple[str, tuple[str, ...]]] = []
        self.unfinished: Counter[tuple[str, int]] = Counter()
        self.away = False
        self._lock = threading.Lock()
        self._may_settle = threading.Event()
        self._may_settle.set()
        self.began = threading.Event()

    def settle(self, table: ServedTable, keys: Sequence[Key]) -> None:
        self.began.set()
        assert self._may_settle.wait(5)
        if self.away:
            raise ConnectionError
        with self._lock:
            self.settled.append((table.logical, tuple(each["id"]["S"] for each in keys)))

    @contextmanager
    def writing(self, table: str, generation: int) -> Iterator[None]:
        with self._lock:
            self.unfinished[table, generation] += 1
        try:
            yield
        finally:
            with self._lock:
                self.unfinished[table, generation] -= 1

    @property
    def open(self) -> dict[tuple[str, int], int]:
        with self._lock:
            return {name: count for name, count in self.unfinished.items() if count}

    @contextmanager
    def held_up(self) -> Iterator[None]:
        self._may_settle.clear()
        yield
        self._may_settle.set()


@pytest.fixture
def sides() -> Sides:
    return Sides()


def deferred(sides: Sides, **options: object) -> Deferred:
    settings = {"workers": 1, "retry_pause": AT_ONCE} | options
    return Deferred(sides.settle, sides.writing, **settings)


def test_a_key_is_settled_after_its_caller_has_gone_on(sides):
    with sides.held_up(), deferred(sides) as queue:
        assert queue.submit(ORDERS, key("a"), generation=1)
        assert not sides.settled
        sides._may_settle.set()
        assert queue.drain(timeout=SOON)
    assert sides.settled == [("orders", ("a",))]
    assert sides.open == {}


def test_a_key_counts_as_an_unfinished_write_until_it_is_settled(sides):
    with deferred(sides) as queue:
        with sides.held_up():
            queue.submit(ORDERS, key("a"), generation=7)
            assert sides.began.wait(5)
            queue.submit(ORDERS, key("b"), generation=8)
            assert sides.open == {("orders-prod", 7): 1, ("orders-prod", 8): 1}
        assert queue.drain(timeout=SOON)
        assert sides.open == {}


def test_a_key_is_counted_until_after_it_is_settled(sides):
    seen: list[dict[tuple[str, int], int]] = []

    def settle(_table: ServedTable, _keys: Sequence[Key]) -> None:
        seen.append(sides.open)

    with Deferred(settle, sides.writing, workers=1) as queue:
        queue.submit(ORDERS, key("a"), generation=3)
    assert seen == [{("orders-prod", 3): 1}]


def test_writes_of_a_key_that_waits_are_settled_once(sides):
    with deferred(sides) as queue:
        with sides.held_up():
            queue.submit(ORDERS, key("first"), generation=1)
            assert sides.began.wait(5)
            assert all(queue.submit(ORDERS, key("a"), generation=1) for _ in range(5))
            seen = queue.seen()
        assert queue.drain(timeout=SOON)
    assert (seen.waiting, seen.coalesced) == (2, 4)
    assert sides.settled == [("orders", ("first",)), ("orders", ("a",))]


def test_a_write_of_a_key_that_is_being_settled_has_it_settled_again(sides):
    """The settle at work may have read the authority before that write."""
    with deferred(sides) as queue:
        with sides.held_up():
            queue.submit(ORDERS, key("a"), generation=1)
            assert sides.began.wait(5)
            queue.submit(ORDERS, key("a"), generation=1)
        assert queue.drain(timeout=SOON)
    assert sides.settled == [("orders", ("a",)), ("orders", ("a",))]


def test_equal_keys_of_two_tables_are_two_keys(sides):
    with deferred(sides) as queue:
        queue.submit(ORDERS, key("a"), generation=1)
        queue.submit(NOTES, key("a"), generation=1)
    assert sorted(sides.settled) == [("notes", ("a",)), ("orders", ("a",))]


def test_a_key_that_waits_keeps_the_oldest_generation_of_its_writes(sides):
    with deferred(sides) as queue:
        with sides.held_up():
            queue.submit(NOTES, key("first"), generation=1)
            assert sides.began.wait(5)
            for generation in (6, 4, 5):
                queue.submit(ORDERS, key("a"), generation=generation)
            assert sides.open == {("notes-prod", 1): 1, ("orders-prod", 4): 1}
        assert queue.drain(timeout=SOON)
        assert sides.open == {}


def test_a_full_queue_refuses_and_its_caller_is_not_counted(sides):
    with deferred(sides, capacity_keys=2) as queue:
        with sides.held_up():
            assert queue.submit(ORDERS, key("a"), generation=1)
            assert sides.began.wait(5)
            assert queue.submit(ORDERS, key("b"), generation=1)
            assert not queue.submit(ORDERS, key("c"), generation=1)
            assert queue.submit(ORDERS, key("b"), generation=1)  # takes no room
            assert queue.seen().refused == 1
            assert sides.open == {("orders-prod", 1): 2}
        assert queue.drain(timeout=SOON)
        assert queue.submit(ORDERS, key("c"), generation=1)


def test_keys_of_one_table_are_settled_together_within_bounds(sides):
    with deferred(sides, batch_keys=3) as queue, sides.held_up():
        queue.submit(NOTES, key("first"), generation=1)
        assert sides.began.wait(5)
        for name in "abcd":
            queue.submit(ORDERS, key(name), generation=1)
        queue.submit(NOTES, key("last"), generation=1)
    assert sides.settled == [
        ("notes", ("first",)),
        ("orders", ("a", "b", "c")),
        ("orders", ("d",)),
        ("notes", ("last",)),
    ]


def test_what_can_neither_be_settled_nor_recorded_stays_counted_and_is_tried_again(sides, caplog):
    with deferred(sides) as queue:
        sides.away = True
        queue.submit(ORDERS, key("a"), generation=2)
        assert not queue.drain(timeout=timedelta(milliseconds=50))
        assert sides.open == {("orders-prod", 2): 1}
        sides.away = False
        assert queue.drain(timeout=SOON)
    assert sides.settled == [("orders", ("a",))]
    assert sides.open == {}
    assert "ConnectionError" in caplog.text


def test_a_key_written_again_while_its_settle_fails_waits_once_under_the_older_generation(sides):
    with deferred(sides) as queue:
        sides.away = True
        with sides.held_up():
            queue.submit(ORDERS, key("a"), generation=5)
            assert sides.began.wait(5)
            queue.submit(ORDERS, key("a"), generation=4)
        while queue.seen().waiting == 2:
            time.sleep(0.001)
        assert queue.seen().waiting == 1
        assert sides.open == {("orders-prod", 4): 1}
        sides.away = False
        assert queue.drain(timeout=SOON)
    assert sides.open == {}


def test_closing_settles_what_waits_and_takes_nothing_more(sides):
    queue = deferred(sides, workers=2)
    for name in "abcdef":
        queue.submit(ORDERS, key(name), generation=1)
    assert queue.close(timeout=SOON)
    assert sorted(name for _, names in sides.settled for name in names) == list("abcdef")
    assert not queue.submit(ORDERS, key("late"), generation=1)
    assert sides.open == {}
    assert not any(thread.is_alive() for thread in queue._threads)


def test_closing_says_when_keys_are_left_and_they_stay_counted(sides):
    queue = deferred(sides)
    with sides.held_up():
        queue.submit(ORDERS, key("a"), generation=1)
        assert not queue.close(timeout=timedelta(milliseconds=20))
        assert sides.open == {("orders-prod", 1): 1}
    assert queue.close(timeout=SOON)


def test_a_queue_that_was_never_used_starts_no_thread_and_closes(sides):
    queue = deferred(sides)
    assert queue.close(timeout=AT_ONCE)
    assert not any(thread.is_alive() for thread in queue._threads)


class Hands:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_the_age_of_the_oldest_key_is_told_while_it_waits_and_while_it_is_at_work(sides):
    clock = Hands()
    with deferred(sides, clock=clock) as queue:
        assert queue.seen().oldest_age == timedelta(0)
        with sides.held_up():
            queue.submit(ORDERS, key("a"), generation=1)
            assert sides.began.wait(5)
            clock.time += 2
            queue.submit(ORDERS, key("b"), generation=1)
            clock.time += 1
            assert queue.seen().oldest_age == timedelta(seconds=3)
        assert queue.drain(timeout=SOON)
        assert queue.seen().settled == 2


def test_many_writers_and_workers_lose_no_key(sides):
    names = [f"{number}" for number in range(300)]

    def write(some: Sequence[str]) -> None:
        for name in some:
            while not queue.submit(ORDERS, key(name), generation=1):
                time.sleep(0.001)

    with deferred(sides, workers=3, capacity_keys=20, batch_keys=4) as queue:
        threads = [threading.Thread(target=write, args=(names[n::4],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(name for _, some in sides.settled for name in some) == sorted(names)
    assert sides.open == {}
