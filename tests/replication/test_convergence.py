"""Invariants I1 and I2, under every interleaving that a seeded chooser comes up with."""

import random
from collections.abc import Callable

import pytest

from dualstore.operations import PutItem
from dualstore.replication import authority, mirroring
from dualstore.stores.base import MirrorState
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory import store as memory_store
from replication.histories import KEY, History, random_rogue, random_writer
from replication.simulation import Faults, SteppedAuthority

SCHEDULES = 400


def dense_history(seed: int, *, rogue: bool = True, mirror_type: type[MemoryStore] = MemoryStore) -> History:
    """Two writers, a backfill, a repair and a rogue on one key, with faults on both sides."""
    choose = random.Random(seed).randrange
    history = History(choose, Faults(lost_reply=9, lost_request=9, mirror_down=9), mirror_type=mirror_type)
    if choose(2):
        history.authority_store.execute(
            PutItem({"TableName": "items", "Item": {**KEY, "v": {"S": "before"}}})
        )
    history.scheduler.spawn("writer 1", random_writer(history, choose, 3))
    history.scheduler.spawn("writer 2", random_writer(history, choose, 3))
    history.scheduler.spawn("backfill", history.backfill)
    history.scheduler.spawn("repair", history.repair)
    if rogue and choose(2):
        history.scheduler.spawn("rogue", random_rogue(history, choose))
    return history


def recreation_history(seed: int, *, mirror_type: type[MemoryStore] = MemoryStore) -> History:
    """A deleted item is created and deleted again while somebody settles its key; nothing fails."""
    choose = random.Random(seed).randrange
    history = History(choose, mirror_type=mirror_type)
    history.put("first")
    history.delete()
    history.scheduler.spawn("writer 1", lambda: history.put("second"))
    history.scheduler.spawn("writer 2", history.delete)
    history.scheduler.spawn("relay", history.settle)
    return history


def some_history_differs(make: Callable[[int], History], schedules: int = SCHEDULES) -> bool:
    """Whether one of so many schedules ends with sides that differ."""
    for seed in range(schedules):
        history = make(seed)
        history.run()
        if not history.converged:
            return True
    return False


def test_both_sides_hold_the_same_item_when_everything_recorded_is_repaired() -> None:
    assert not some_history_differs(dense_history)
    assert not some_history_differs(recreation_history)


def counting_history(seed: int) -> History:
    """Three increments whose replies get lost, overtaken by at most one other update.

    Two others would hide that the first attempt was carried out: the item remembers its own stamp and the
    one before.
    """
    choose = random.Random(seed).randrange
    history = History(choose, Faults(lost_reply=4, lost_request=4, mirror_down=9))
    reliable = history.mirroring_through(
        SteppedAuthority(history.authority_store, history.scheduler, Faults())
    )
    history.scheduler.spawn("writer 1", lambda: [history.count() for _ in range(3)])
    history.scheduler.spawn("writer 2", lambda: history.count(reliable))
    history.run()
    return history


def miscounted(history: History) -> bool:
    """Whether the counter tells of a lost acknowledged write, or of one that was carried out twice."""
    item, _ = history.sides()
    counter = int(item["n"]["N"]) if item else 0
    sure = history.counted.acknowledged
    return not sure <= counter <= sure + history.counted.unknown


def test_an_increment_whose_reply_was_lost_counts_once() -> None:
    assert not any(miscounted(counting_history(seed)) for seed in range(SCHEDULES))


def test_a_crash_leaves_at_most_the_keys_of_the_crashed_writer_behind_and_settling_mends_them() -> None:
    for seed in range(SCHEDULES):
        history = dense_history(seed, rogue=False)
        history.run(crashes=1)
        crashed = any(actor.crashed for actor in history.scheduler.actors)
        assert history.converged or crashed
        history.settle()
        assert history.converged


# The same histories, with one mechanism taken out: each must be found.


class ConfirmedSilently(MemoryStore):
    """Takes no new revision where a settle finds what it would write."""

    def write_settled(self, table, key, image, *, seen):
        with self._lock:
            state = self.state(table, key)
            if state.revision == seen and state.item == image and image is None:
                return True
        return super().write_settled(table, key, image, seen=seen)


class RevisionIgnored(MemoryStore):
    """Settles without looking at what has come in between."""

    def write_settled(self, table, key, image, *, seen):
        return super().write_settled(table, key, image, seen=self.state(table, key).revision)


def over_tombstones(state: MirrorState, image: object, predecessor: bytes | None) -> bool:
    if predecessor is not None:
        return state.item is not None and memory_store.stamp_of(state.item) == predecessor
    return state.item is None


MIRROR_MUTANTS = {
    "predecessor check": (dense_history, MemoryStore, {"_is_predecessor": lambda *_: True}),
    "tombstone check on creates": (dense_history, MemoryStore, {"_is_predecessor": over_tombstones}),
    "new revision for a confirmed tombstone": (recreation_history, ConfirmedSilently, {}),
    "revision check of settle": (dense_history, RevisionIgnored, {}),
}


@pytest.mark.parametrize("removed", MIRROR_MUTANTS)
def test_without_a_mechanism_of_the_mirror_the_sides_come_to_differ(
    removed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, mirror_type, replaced = MIRROR_MUTANTS[removed]
    for name, replacement in replaced.items():
        monkeypatch.setattr(memory_store, name, replacement)
    schedules = 3 * SCHEDULES
    assert some_history_differs(lambda seed: make(seed, mirror_type=mirror_type), schedules)


def test_without_the_journal_and_dirty_keys_the_sides_come_to_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring.Mirroring, "doubt", lambda *_: None)
    assert some_history_differs(lambda seed: dense_history(seed, rogue=False))


def test_without_the_guard_against_ones_own_stamps_an_increment_counts_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authority, "guarded", lambda request, _: request)
    assert any(miscounted(counting_history(seed)) for seed in range(SCHEDULES))


def test_a_create_whose_reply_was_lost_is_not_refused_by_its_own_condition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refusals() -> int:
        refused = 0
        for seed in range(50):
            history = History(random.Random(seed).randrange, Faults(lost_reply=2))
            history.scheduler.spawn(
                "writer", lambda h=history: h.put("only", condition="attribute_not_exists(id)")
            )
            history.run()
            refused += history.outcomes.count("refused")
        return refused

    assert refusals() == 0
    monkeypatch.setattr(authority, "carries", lambda *_: False)
    assert refusals() > 0
