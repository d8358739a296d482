"""Mirror-out: two workers, lost replies, requests that are carried out late, and what keeps them harmless."""

import contextlib
import itertools
import random
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualstore.items import STAMP
from dualstore.replication import sending
from dualstore.replication.sending import Step, Verdict
from dualstore.replication.stamps import new_stamp
from dualstore.stores.outbox import Onto
from unit.replication.processes import SteppedClock
from unit.replication.senders import (
    LEASE_SECONDS,
    OPTIONS,
    SECOND_LOOK_SECONDS,
    SHAPE,
    TABLE,
    Killed,
    Worker,
    World,
    key,
    refusal,
)
from volume import examples


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def worker(world: World) -> Worker:
    return world.worker()


def settled(world: World) -> None:
    """All requests have arrived, all second looks are due and taken."""
    world.deliver()
    world.clock.advance(SECOND_LOOK_SECONDS + LEASE_SECONDS)
    last = world.worker()
    for _ in range(3):
        last.work()
        world.clock.advance(SECOND_LOOK_SECONDS)
    last.work()
    assert world.outbox.depth(TABLE).entries == 0


# A key at a time


def test_a_creation_a_change_and_a_deletion_arrive(world: World, worker: Worker) -> None:
    for value in ("1", "2", None, "3"):
        world.write(value)
        assert worker.work() == 1
        world.assert_equal()
    assert worker.wire.kinds() == ["TransactWriteItems", "PutItem", "DeleteItem", "TransactWriteItems"]
    assert worker.verdicts() == {"created": 2, "replaced": 1, "deleted": 1}


def test_many_changes_of_a_key_are_one_write(world: World, worker: Worker) -> None:
    for value in "1234":
        world.write(value)
    assert worker.work() == 4
    world.assert_equal()
    assert len(worker.wire.sent) == 1


def test_what_is_equal_already_is_not_sent(world: World, worker: Worker) -> None:
    world.write("1")
    worker.work()
    world.outbox.enqueue(TABLE, [key()], epoch=0, reason="verify")
    assert worker.work() == 1
    assert worker.verdicts() == {"created": 1, "equal": 1}
    assert len(worker.wire.sent) == 1


def test_an_item_with_no_room_for_a_stamp_goes_without(world: World, worker: Worker) -> None:
    world.write("x" * (409_600 - len("idav")))
    worker.work()
    ours, theirs = world.pair()
    assert ours is not None
    assert theirs == {name: value for name, value in ours.items() if name != STAMP}
    world.write("small")
    worker.work()
    world.assert_equal()
    assert worker.verdicts() == {"created": 1, "replaced": 1}


def test_what_a_stranger_wrote_between_reading_and_writing_is_not_taken_for_what_was_read(
    world: World, worker: Worker
) -> None:
    world.write("1")
    worker.work()
    world.write("2")
    stranger = {**key(), "v": {"S": "stranger"}, STAMP: {"B": new_stamp()}}
    acts = [lambda: world.stranger_writes(stranger)]
    worker.wire.before = lambda operation: None if operation.reads or not acts else acts.pop()()
    worker.work()
    world.assert_equal()
    assert worker.verdicts()["changed"] == 1


@pytest.mark.parametrize("before", ["nothing", "unstamped"])
def test_a_write_that_expects_no_stamp_does_not_go_over_what_a_stranger_stamped(
    world: World, worker: Worker, before: str
) -> None:
    if before == "unstamped":
        world.write("0", stamped=False)
        worker.work()
    world.write("1")
    stranger = {**key(), "v": {"S": "stranger"}, STAMP: {"B": new_stamp()}}
    acts = [lambda: world.stranger_writes(stranger)]
    worker.wire.before = lambda operation: None if operation.reads or not acts else acts.pop()()
    worker.work()
    assert worker.verdicts()["changed"] == 1
    world.assert_equal()


def test_an_entry_that_is_committed_while_its_key_is_sent_stays(world: World, worker: Worker) -> None:
    world.write("1")
    acts = [lambda: world.write("2")]
    worker.wire.before = lambda operation: None if operation.reads or not acts else acts.pop()()
    assert worker.work() == 1
    assert world.outbox.depth(TABLE).entries == 1
    worker.work()
    world.assert_equal()


# Lost replies and late requests


@pytest.mark.parametrize("fault", ["loses_the_request", "loses_the_reply", "delays"])
@pytest.mark.parametrize("before", ["nothing", "stamped", "unstamped"])
@pytest.mark.parametrize("after", ["1", None])
def test_a_write_without_an_answer_comes_to_pass_once(
    world: World, worker: Worker, fault: str, before: str, after: str | None
) -> None:
    if before != "nothing":
        world.write("0", stamped=before == "stamped")
        worker.work()
    elif after is None:
        return
    world.write(after)
    worker.plan(fault)
    worker.work()
    world.clock.advance(1)
    worker.work()
    world.assert_equal()
    settled(world)
    world.assert_equal()


def test_a_late_write_of_another_content_does_not_undo_equal_content(world: World) -> None:
    """A, B, A: nothing seems to have changed, but "B onto the first A" is still under way."""
    first, second = world.worker(), world.worker()
    world.write("A")
    first.work()
    world.write("B")
    first.plan("delays_and_kills")
    first.killed()
    world.write("A")
    world.clock.advance(LEASE_SECONDS)
    second.work()
    settled(world)
    world.assert_equal()


def test_a_creation_in_doubt_is_sent_again_before_its_key_is_deleted(world: World) -> None:
    first, second = world.worker(), world.worker()
    world.write("1")
    first.plan("delays_and_kills")
    first.killed()
    world.write(None)
    world.clock.advance(LEASE_SECONDS)
    second.work()
    assert second.wire.kinds() == ["TransactWriteItems", "DeleteItem"]
    (late,) = world.late
    assert second.wire.sent[0].request == late.request
    world.deliver()
    assert world.pair() == (None, None)  # at once, without the second look


def test_a_creation_that_is_carried_out_after_its_token_is_forgotten_is_found_by_the_second_look(
    world: World,
) -> None:
    first, second = world.worker(), world.worker()
    world.write("1")
    first.plan("delays_and_kills")
    first.killed()
    world.write(None)
    world.clock.advance(LEASE_SECONDS)
    second.work()
    world.clock.advance(601)
    second.work()
    world.deliver()
    assert world.pair()[1] is not None
    depth = world.outbox.depth(TABLE)
    assert (depth.entries, depth.second_looks, depth.oldest_age) == (1, 1, timedelta(0))
    world.clock.advance(300)
    second.work()
    assert world.pair() == (None, None)
    assert world.outbox.depth(TABLE).entries == 0


def test_a_creation_whose_first_copy_is_late_is_looked_at_again_although_the_second_was_answered(
    world: World, worker: Worker
) -> None:
    world.write("1")
    worker.plan("delays")
    worker.work()
    assert worker.wire.kinds() == ["TransactWriteItems"] * 2
    world.write(None)
    worker.work()
    world.clock.advance(601)
    worker.work()
    world.deliver()
    assert world.pair()[1] is not None
    world.clock.advance(300)
    worker.work()
    assert world.pair() == (None, None)


def test_the_second_look_outlives_the_worker_that_ended_the_doubt(world: World) -> None:
    first, second, third = world.worker(), world.worker(), world.worker()
    world.write("1")
    first.plan("delays_and_kills")
    first.killed()
    world.clock.advance(LEASE_SECONDS)
    second.source.before = lambda: (_ for _ in ()).throw(Killed)  # the doubt has ended, nothing else is done
    second.killed()
    world.clock.advance(LEASE_SECONDS)
    world.write(None)
    third.work()
    world.clock.advance(601)
    world.deliver()
    world.clock.advance(SECOND_LOOK_SECONDS)
    third.work()
    assert world.pair() == (None, None)


def test_a_creation_whose_token_may_be_forgotten_is_not_sent_again(world: World) -> None:
    first, second = world.worker(), world.worker()
    world.write("1")
    first.plan("delays_and_kills")
    first.killed()
    world.write(None)
    world.clock.advance(600)
    second.work()
    assert second.wire.sent == []
    world.deliver()
    assert world.outbox.depth(TABLE).second_looks == 1
    settled(world)
    assert world.pair() == (None, None)


def test_an_item_that_a_stranger_deleted_soon_after_its_creation_is_created_again(
    world: World, worker: Worker
) -> None:
    """The same state of the row, within ten minutes: under the same token it would not be carried out."""
    world.write("1")
    worker.work()
    world.stranger_writes(None)
    worker.work()
    world.assert_equal()


def test_a_late_write_onto_an_item_without_a_stamp_does_not_meet_the_next_such_item(world: World) -> None:
    large = "x" * (409_600 - len("idav"))
    first, second = world.worker(), world.worker()
    world.write("old", stamped=False)
    first.work()
    world.write("1")
    first.plan("delays_and_kills")
    first.killed()
    world.write(large)
    world.clock.advance(LEASE_SECONDS)
    second.work()
    world.deliver()
    ours, theirs = world.pair()
    assert ours is not None
    assert theirs is not None
    assert theirs["v"] == ours["v"]


def test_throttling_leaves_no_doubt_and_no_second_look(world: World, worker: Worker) -> None:
    world.write("1")
    worker.plan("throttles", "throttles")
    worker.work()
    assert worker.verdicts() == {"throttled": 1}
    world.clock.advance(1)
    worker.work()
    world.assert_equal()
    assert world.outbox.depth(TABLE).entries == 0


# Two workers


def test_a_lane_has_one_worker_until_its_lease_ends(world: World) -> None:
    first, second = world.worker(), world.worker()
    first.work()
    world.write("1")
    assert second.work() == 0
    world.clock.advance(LEASE_SECONDS)
    assert second.work() == 1


def test_a_lease_is_renewed_while_its_lane_is_worked(world: World) -> None:
    first, second = world.worker(), world.worker()
    for value in "12345":
        world.write(value)
        assert first.work() == 1
        world.clock.advance(LEASE_SECONDS / 2)
        assert second.work() == 0


def test_a_lease_is_renewed_in_the_middle_of_a_slow_look(world: World, worker: Worker) -> None:
    world.write("1")
    worker.source.before = lambda: world.clock.advance(LEASE_SECONDS + 1)
    assert worker.work() == 1
    assert worker.verdicts() == {"created": 1}


def test_a_worker_whose_lease_ends_while_it_reads_sends_nothing(world: World) -> None:
    first, second = world.worker(), world.worker()
    world.write("0")
    first.work()
    first.wire.sent.clear()
    world.write("1")

    def stand_still() -> None:
        first.source.before = lambda: None
        world.clock.advance(LEASE_SECONDS)
        second.work()
        world.write("2")

    first.source.before = stand_still
    first.work()
    assert first.wire.sent == []
    second.work()
    world.assert_equal()


def test_a_worker_whose_clock_stands_still_cannot_take_the_mirror_back(world: World) -> None:
    """It goes on although another works its lane: only the order of its reads protects."""
    frozen = world.worker(clock=SteppedClock())
    world.write("0")
    frozen.work()
    world.write("1")
    other = world.worker()

    def overtake() -> None:
        frozen.source.before = lambda: None
        world.write("2")
        world.clock.advance(LEASE_SECONDS)
        other.work()

    frozen.source.before = overtake
    frozen.work()
    world.assert_equal()


def test_a_worker_whose_clock_stands_still_cannot_take_the_mirror_back_before_it_reads(world: World) -> None:
    frozen = world.worker(clock=SteppedClock())
    world.write("0")
    frozen.work()
    world.write("1")
    other = world.worker()
    acts = [0]

    def overtake(operation: object) -> None:
        if acts:
            acts.clear()
            world.write("2")
            world.clock.advance(LEASE_SECONDS)
            other.work()

    frozen.wire.before = overtake
    frozen.work()
    world.assert_equal()


def test_a_stale_worker_cannot_forget_what_is_in_doubt(world: World) -> None:
    """Its creation is answered after another worker's creation of the same key has got into doubt."""
    stale = world.worker(clock=SteppedClock())
    other = world.worker()
    world.write("1")

    def overtaken(operation: object) -> None:
        if getattr(operation, "reads", False):
            return
        stale.wire.before = lambda _: None
        world.clock.advance(LEASE_SECONDS)
        other.work()  # ends the doubt
        world.write(None)
        other.work()
        world.write("2")
        other.plan("delays", "delays")
        other.work()  # a creation in doubt, under the other's token
        raise AssertionError from None

    stale.wire.before = overtaken
    with contextlib.suppress(AssertionError):
        stale.work()
    stale.wire.planned.clear()
    stale.work()
    world.write(None)
    world.clock.advance(LEASE_SECONDS)
    other.work()
    settled(world)
    assert world.pair() == (None, None)


def test_a_request_that_left_after_its_lease_was_over_has_its_key_looked_at_again(world: World) -> None:
    """The worker stood still after its last look, for longer than any token lasts."""
    first, second = world.worker(), world.worker()
    world.write("1")

    def stand_still(operation: object) -> None:
        if getattr(operation, "reads", False):
            return
        first.wire.before = lambda _: None
        world.clock.advance(LEASE_SECONDS)
        second.work()
        world.write(None)
        second.work()
        world.clock.advance(2 * SECOND_LOOK_SECONDS)
        second.work()
        assert world.outbox.depth(TABLE).entries == 0

    first.wire.before = stand_still
    first.work()
    assert world.pair()[1] is not None
    second.work()
    assert world.pair() == (None, None)


# What DynamoDB does not take


def test_a_key_that_dynamodb_refuses_does_not_hold_up_its_lane(world: World, worker: Worker) -> None:
    names = [f"k{number}" for number in range(40)]
    for name in names:
        world.write("1", name)
    worker.plan("refuses_the_item")
    assert worker.work() == 39
    depth = world.outbox.depth(TABLE)
    assert (depth.entries, depth.refused) == (1, 1)
    assert worker.verdicts() == {"created": 39, "refused": 1}
    world.clock.advance(1)
    assert worker.work() == 1
    world.assert_equal(*names)


def test_a_refused_key_is_tried_again_after_growing_pauses(world: World, worker: Worker) -> None:
    world.write("1")
    tried = []
    for second in range(4000):
        worker.plan("refuses_the_item")
        before = len(worker.wire.sent)
        worker.work()
        tried += [second] * (len(worker.wire.sent) > before)
        world.clock.advance(1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert gaps[:4] == [1, 1, 2, 4]
    assert max(gaps) == 600


def test_a_throttled_lane_gets_growing_pauses_until_a_write_succeeds(world: World, worker: Worker) -> None:
    world.write("1")
    tried = []
    for step in range(80):
        worker.plan("throttles", "throttles")
        before = len(worker.wire.sent)
        worker.work()
        tried += [step] * (len(worker.wire.sent) > before)
        worker.wire.planned.clear()
        world.clock.advance(0.25)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert gaps == [1, 2, 4, 8, 16, 32]
    assert worker.sender.status()[TABLE].failure is not None
    world.clock.advance(8)
    worker.work()
    world.assert_equal()
    assert worker.sender.status()[TABLE].failure is None


def test_while_dynamodb_is_away_only_a_few_keys_wait_for_a_timeout(world: World, worker: Worker) -> None:
    for number in range(500):
        world.write("1", f"k{number}")
    worker.plan(*["loses_the_request"] * 1000)
    worker.work()
    assert len(worker.wire.sent) <= 16 * 3 * 2


# All at once


@settings(max_examples=examples(300))
@given(st.integers(0, 2**32))
def test_the_sides_come_to_hold_the_same_whatever_happens(seed: int) -> None:  # noqa: C901 - a list of acts
    """Killed and frozen workers, lost and late requests, strangers; then one worker ends it."""
    world, chance = World(), random.Random(seed)
    frozen = SteppedClock()
    workers = [world.worker(), world.worker(), world.worker(clock=frozen)]
    faults = ("loses_the_request", "loses_the_reply", "delays", "delays_and_kills", "throttles")
    depth = 0

    def act() -> None:
        match chance.randrange(9):
            case 0 | 1 | 2:
                world.write(chance.choice("AB\0").replace("\0", "") or None, stamped=chance.random() < 0.9)
            case 3 | 4 | 5:
                worker = chance.choice(workers)
                if chance.random() < 0.6:
                    worker.plan(*chance.choices(faults, k=chance.randrange(1, 3)))
                with contextlib.suppress(Killed):
                    worker.work()
                worker.wire.planned.clear()
            case 6:
                chance.shuffle(world.late)
                world.deliver()
            case 7:
                world.stranger_writes(chance.choice([None, {**key(), "v": {"S": "stranger"}}]))
            case 8:
                world.clock.advance(chance.choice([1, 10, LEASE_SECONDS]))

    def meanwhile(*_: object) -> None:
        nonlocal depth
        if depth < 2 and chance.random() < 0.2:
            depth += 1
            act()
            depth -= 1

    for worker in workers:
        worker.wire.before = worker.source.before = meanwhile
    for _ in range(14):
        act()
    for worker in workers:
        worker.wire.before = worker.source.before = lambda *_: None
    settled(world)
    world.assert_equal()


# The loop


def test_run_works_until_it_is_told_to_stop_and_gives_its_lanes_back(world: World) -> None:
    worker = world.worker(options=replace(OPTIONS, idle=timedelta(milliseconds=5)))
    for number in range(50):
        world.write("1", f"k{number}")
    stop = threading.Event()
    thread = threading.Thread(target=worker.sender.run, args=(stop,))
    thread.start()
    try:
        for _ in range(1000):
            if not world.outbox.depth(TABLE).entries:
                break
            stop.wait(0.005)
            world.clock.advance(0.005)
    finally:
        stop.set()
        thread.join()
    world.assert_equal(*[f"k{number}" for number in range(50)])
    other = world.worker()
    world.write("2")
    assert other.work() == 1


def test_drain_ends_when_nothing_waits_or_when_its_time_is_over(world: World, worker: Worker) -> None:
    for number in range(50):
        world.write("1", f"k{number}")
    assert worker.sender.drain(TABLE, timedelta(seconds=5))
    world.write("1")
    worker.plan("refuses_the_item", *["refuses_the_item"] * 50)
    assert not worker.sender.drain(TABLE, timedelta(seconds=5))


# Decisions


def test_stamps_decide_what_is_equal() -> None:
    ours = {**key(), STAMP: {"B": b"1"}}
    assert sending.step(key(), theirs=dict(ours), ours=ours) is None
    other = {**key(), STAMP: {"B": b"2"}}
    assert sending.step(key(), theirs=other, ours=ours) == Step(key(), ours, {"B": b"2"})
    assert sending.step(key(), theirs=key(), ours=ours) == Step(key(), ours, Onto.UNSTAMPED)
    assert sending.step(key(), theirs=None, ours=None) is None


def test_each_write_under_a_token_has_one_of_its_own() -> None:
    step = Step(key(), key(), Onto.NOTHING)
    assert step.marked().token != step.marked().token
    assert len(sending.transaction(SHAPE, key(), step.marked()).request["ClientRequestToken"]) == 36


def test_what_dynamodb_answers_is_understood() -> None:
    told = {
        "ConditionalCheckFailedException": Verdict.CHANGED,
        "ValidationException": Verdict.REFUSED,
        "ThrottlingException": Verdict.THROTTLED,
        "AccessDeniedException": Verdict.DENIED,
        "ResourceNotFoundException": Verdict.DENIED,
        "TransactionInProgressException": Verdict.THROTTLED,
    }
    assert {code: sending.verdict_of(refusal(code)) for code in told} == told
    assert sending.verdict_of(refusal("InternalServerError", 500)) is Verdict.UNKNOWN
