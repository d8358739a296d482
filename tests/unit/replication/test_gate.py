"""Invariant I6, across processes: a mirror that missed an acknowledged write answers nobody."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from dualstore.control import Gate
from dualstore.operations import PutItem
from dualstore.stages import Side
from unit.replication.processes import READ_GRANT, TABLE, Process, World, stored

EPSILON = 0.001


def test_both_processes_read_the_mirror_while_nothing_has_failed(two: tuple[Process, Process]) -> None:
    writer, reader = two
    writer.put("first")
    assert (reader.get(), writer.get()) == ("first", "first")
    assert reader.observed == writer.observed == [Side.POSTGRES]


@pytest.mark.parametrize("age", [0.0, 0.5, READ_GRANT - EPSILON])
@pytest.mark.parametrize("refreshes_at", [None, 0.0, 0.4, READ_GRANT - EPSILON, READ_GRANT])
def test_a_process_with_a_grant_from_before_does_not_show_what_a_failed_mirror_write_missed(
    world: World, two: tuple[Process, Process], age: float, refreshes_at: float | None
) -> None:
    writer, reader = two
    writer.put("first")
    reader.agent.refresh()
    world.clock.advance(age)
    writer.agent.refresh()
    assert reader.get() == "first"
    if refreshes_at is not None:
        world.clock.after(refreshes_at, reader.agent.refresh)
    writer.mirror.down = True

    writer.put("second")

    assert stored(world.mirror)["v"] == {"S": "first"}
    assert reader.get() == "second"
    reader.agent.refresh()
    assert reader.get() == "second"


def test_an_answer_that_a_process_got_too_late_is_not_given_out(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, reader = two
    writer.put("first")
    writer.mirror.down = True

    def overtaken(name: str, args: tuple[object, ...]) -> None:
        if name == "execute_as_mirror" and stored(world.authority)["v"] == {"S": "first"}:
            writer.put("second")

    reader.mirror.before = overtaken
    assert reader.get() == "second"


def test_an_answer_from_before_the_gate_was_shut_and_opened_again_is_not_given_out(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, reader = two
    writer.put("first")
    asked: list[str] = []

    def paused(name: str, args: tuple[object, ...]) -> None:
        if name != "execute_as_mirror" or asked:
            return
        asked.append(name)
        writer.mirror.down = True
        writer.put("second")
        writer.mirror.down = False
        assert writer.repair().gate is Gate.OPEN
        reader.agent.refresh()

    reader.mirror.before = paused
    assert reader.get() == "second"
    # The mirror answered with what the repair brought, and it was still asked again at the authority.
    assert reader.observed == [Side.DYNAMODB]


def test_whoever_knows_the_gate_shut_for_long_enough_waits_no_more(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, _ = two
    writer.mirror.down = True
    writer.put("first")
    assert world.clock.slept == [pytest.approx(READ_GRANT)]
    for number in range(5):
        writer.agent.refresh()
        writer.put(f"again {number}")
    assert len(world.clock.slept) == 1
    assert writer.journalled() == 1


def test_a_second_process_waits_once_too_since_it_cannot_know_how_long_the_gate_has_been_shut(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, other = two
    writer.mirror.down = other.mirror.down = True
    writer.put("first")
    other.put("second")
    other.put("third")
    assert len(world.clock.slept) == 2


def test_a_dirty_key_is_read_at_the_authority_by_everybody_and_the_gate_stays_open(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, reader = two
    writer.put("first")

    def refuses(name: str, args: tuple[object, ...]) -> None:
        if name in {"write_direct", "write_settled"}:
            raise writer.mirror.failure

    writer.mirror.before = refuses
    writer.put("second")

    assert not world.clock.slept
    assert reader.get() == "second"
    assert reader.observed == [Side.DYNAMODB]
    reader.put("else", key="b")
    assert reader.get("b") == "else"
    assert reader.observed[-1] is Side.POSTGRES
    assert world.record.gate is Gate.OPEN


def test_a_write_that_can_be_recorded_nowhere_is_not_acknowledged(two: tuple[Process, Process]) -> None:
    writer, _ = two
    writer.put("first")
    writer.mirror.down = writer.bookkeeping.down = True
    with pytest.raises(type(writer.bookkeeping.failure)):
        writer.put("second")


# Reopening


def shut(writer: Process, reader: Process) -> None:
    """Shut the gate by a failed write of key "a"; everybody knows."""
    writer.mirror.down = True
    writer.put("first")
    writer.agent.refresh()
    reader.agent.refresh()


def test_a_repair_settles_the_journal_and_opens_the_gate(world: World, two: tuple[Process, Process]) -> None:
    writer, repairer = two
    shut(writer, repairer)
    repaired = repairer.repair()
    assert (repaired.settled, repaired.failed, repaired.gate) == (1, 0, Gate.OPEN)
    repairer.agent.refresh()
    assert repairer.get() == "first"
    assert repairer.observed == [Side.POSTGRES]


@pytest.mark.parametrize("after", [0.0, 0.5, READ_GRANT - EPSILON])
def test_a_failure_of_one_who_knew_the_gate_shut_from_before_the_reopening_is_settled_by_it(
    world: World, two: tuple[Process, Process], after: float
) -> None:
    writer, repairer = two
    shut(writer, repairer)
    writer.agent.refresh()
    world.clock.after(after, lambda: writer.put("second"))

    repairer.repair()

    world.clock.advance(READ_GRANT)
    repairer.agent.refresh()
    assert repairer.get() == "second"


def test_a_failure_between_the_last_look_at_the_journal_and_the_opening_keeps_the_gate_shut(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, repairer = two
    shut(writer, repairer)
    written: list[str] = []

    def overtaken(name: str, args: tuple[object, ...]) -> None:
        operation = args[0]
        opening = isinstance(operation, PutItem) and operation.item.get("gate") == {"S": Gate.OPEN}
        if opening and not written:
            written.append("second")
            writer.put("second")

    repairer.bookkeeping.before = overtaken
    repaired = repairer.repair()

    assert written
    assert repaired.gate is Gate.SHUT
    assert world.record.gate is Gate.SHUT
    repairer.agent.refresh()
    assert repairer.get() == "second"
    assert repairer.repair().gate is Gate.OPEN
    repairer.agent.refresh()
    assert repairer.get() == "second"
    assert repairer.observed[-1] is Side.POSTGRES


def test_a_repair_that_begins_while_another_reopens_does_not_open_early(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, repairer = two
    shut(writer, repairer)
    third = world.process()
    world.clock.after(0.2, third.repair)
    writer.agent.refresh()
    world.clock.after(0.3, lambda: writer.put("second"))
    repairer.repair()
    world.clock.advance(READ_GRANT)
    repairer.agent.refresh()
    assert repairer.get() == "second"


def test_a_gate_opens_though_the_rest_of_the_record_changes_again_and_again(
    world: World, two: tuple[Process, Process]
) -> None:
    """Dials, suspects, what the relay notes: each change would begin the wait, and the drain, anew."""
    writer, repairer = two
    shut(writer, repairer)
    percent = itertools.count()
    world.clock.every(READ_GRANT / 2, lambda: _dial_shadow(world, next(percent) % 100))

    def overtaken(name: str, args: tuple[Any, ...]) -> None:
        if isinstance(args[0], PutItem) and args[0].item.get("gate") == {"S": Gate.OPEN}:
            repairer.bookkeeping.before = lambda *_: None
            _dial_shadow(world, next(percent) % 100)

    repairer.bookkeeping.before = overtaken
    assert repairer.repair().gate is Gate.OPEN
    assert world.record.gate is Gate.OPEN


def test_the_stream_is_drained_before_the_gate_opens_though_the_record_changes_meanwhile(
    world: World, two: tuple[Process, Process]
) -> None:
    """It became the journal only after the gate was seen reopening."""
    writer, repairer = two
    shut(writer, repairer)

    def becomes_the_journal(name: str, args: tuple[Any, ...]) -> None:
        if isinstance(args[0], PutItem) and args[0].item.get("gate") == {"S": Gate.OPEN}:
            repairer.bookkeeping.before = lambda *_: None
            world.decide(streamed=True)

    repairer.bookkeeping.before = becomes_the_journal
    assert repairer.repair().gate is Gate.REOPENING


def _dial_shadow(world: World, percent: float) -> None:
    world.decide(dials=replace(world.record.dials, shadow_percent=percent))


def test_an_entry_in_the_journal_of_one_that_failed_to_shut_the_gate_is_settled_all_the_same(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, _ = two
    writer.put("first")
    writer.mirror.down = True

    def breaks(name: str, args: tuple[object, ...]) -> None:
        if "gate <> :shut" in args[0].request.get("ConditionExpression", ""):
            raise writer.bookkeeping.failure

    writer.bookkeeping.before = breaks
    with pytest.raises(type(writer.bookkeeping.failure)):
        writer.put("second")
    assert writer.journalled() == 1

    writer.mirror.down = False
    writer.bookkeeping.before = lambda *_: None
    writer.repair()

    assert stored(world.mirror) == stored(world.authority)
    assert writer.journalled() == 0


def test_a_key_that_could_be_recorded_nowhere_is_settled_once_it_can_be(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, _ = two
    writer.put("first")
    writer.mirror.down = writer.bookkeeping.down = True
    with pytest.raises(type(writer.bookkeeping.failure)):
        writer.put("second")
    writer.mirror.down = writer.bookkeeping.down = False

    writer.repair()

    assert stored(world.mirror) == stored(world.authority)


def test_the_reader_of_a_table_whose_mirror_is_broken_in_an_unforeseen_way_gets_the_authoritys_answer(
    two: tuple[Process, Process],
) -> None:
    writer, reader = two
    writer.put("first")
    reader.mirror.failure, reader.mirror.down = ValueError("a row that cannot be decoded"), True
    assert reader.get() == "first"
    assert reader.observed == [Side.DYNAMODB]


def test_a_write_whose_mirror_breaks_in_an_unforeseen_way_is_acknowledged_and_repaired(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, reader = two
    writer.put("first")
    writer.mirror.failure, writer.mirror.down = ValueError("a key that no column can hold"), True
    writer.put("second")
    assert reader.get() == "second"
    writer.mirror.down = False
    reader.repair()
    assert stored(world.mirror) == stored(world.authority)
    assert TABLE in reader.agent.views()
