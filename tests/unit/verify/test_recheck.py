"""When a key that seemed to differ is judged, and how."""

from datetime import timedelta

import pytest

from dualstore.operations import PutItem
from dualstore.verify import Finding
from dualstore.verify.recheck import Candidate, Sides, recheck

ITEM = {"pk": {"S": "a"}, "sk": {"N": "1"}, "total": {"N": "10"}}
OTHER = ITEM | {"total": {"N": "11"}}
KEY = {"pk": {"S": "a"}, "sk": {"N": "1"}}


@pytest.fixture
def looking(sides):
    return Sides(sides.shape, sides.dynamodb, sides.postgres)


def judged(looking, in_the_pause, *, rounds=3):
    """The verdict on KEY, after a first look and with something done in each pause."""
    ((_, seen),) = looking.observe([KEY])
    pauses = iter(range(1, rounds + 1))

    def sleep(seconds):
        assert seconds == 2
        in_the_pause(next(pauses))

    (verdict,) = recheck(
        looking, [Candidate(KEY, seen)], rounds=rounds, pause=timedelta(seconds=2), sleep=sleep
    )
    return None if verdict.observation is None else verdict.observation.finding


def test_the_same_difference_after_a_pause_is_a_difference(sides, looking):
    sides.put(ITEM, postgres=OTHER)

    assert judged(looking, lambda _: None) is Finding.VALUE


def test_a_write_that_reaches_the_mirror_in_the_pause_is_none(sides, looking):
    sides.put(ITEM, postgres=None)

    assert judged(looking, lambda _: sides.settle(KEY)) is Finding.EQUAL


def test_an_item_that_is_deleted_on_both_sides_in_the_pause_is_none(sides, looking):
    sides.mirror(ITEM, ITEM)

    assert judged(looking, lambda _: sides.mirror(KEY, None)) is Finding.EQUAL


def test_a_row_that_is_rewritten_in_each_pause_is_never_called_different(sides, looking):
    sides.put(ITEM, postgres=OTHER)

    assert judged(looking, lambda _: sides.mirror(KEY, OTHER)) is None


def test_an_item_that_is_rewritten_in_each_pause_is_never_called_different(sides, looking):
    sides.put(ITEM, postgres=None)

    def rewrite(pause):
        changed = ITEM | {"total": {"N": str(100 + pause)}}
        sides.dynamodb.execute(PutItem({"TableName": sides.shape.name, "Item": changed}))

    assert judged(looking, rewrite) is None


def test_a_new_difference_needs_a_second_look_of_its_own(sides, looking):
    sides.put(ITEM, postgres=None)

    assert judged(looking, lambda pause: sides.mirror(KEY, OTHER) if pause == 1 else None) is Finding.VALUE
    assert judged(looking, lambda pause: sides.mirror(KEY, OTHER), rounds=1) is None


def test_a_key_that_was_not_seen_on_both_sides_is_looked_at_at_once_and_after_a_pause(sides, looking):
    sides.mirror(ITEM, ITEM)
    pauses = []

    (verdict,) = recheck(looking, [Candidate(KEY)], rounds=5, pause=timedelta(seconds=2), sleep=pauses.append)

    assert verdict.observation.finding is Finding.MISSING_ON_DYNAMODB
    assert pauses == [2.0]


def test_a_key_that_is_equal_when_it_is_first_seen_on_both_sides_is_waited_for_by_nobody(sides, looking):
    sides.put(ITEM, postgres=ITEM)

    (verdict,) = recheck(looking, [Candidate(KEY)], rounds=5, pause=timedelta(seconds=2), sleep=pytest.fail)

    assert verdict.observation.finding is Finding.EQUAL
