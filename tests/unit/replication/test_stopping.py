"""A person stops all reads but the authority's, from whichever database can be reached."""

import logging

import pytest
from botocore.exceptions import BotoCoreError

from dualstore.control import ControlRecord, Phase, Stop
from dualstore.errors import Unavailable
from dualstore.replication.stopping import bring_over, release_reads, stop_reads
from dualstore.stages import Dials, Side, Stage
from unit.replication.processes import READ_GRANT, READABLE, TABLE, Process, World, bring, pass_time

STOP = Stop("kim", 1_000.0, "p99 doubled")
READY = {**READABLE, "stage": Stage.SHADOW, "verified": True}
BOTH = (Side.DYNAMODB, Side.POSTGRES)


def stop(process: Process, by: Stop = STOP) -> ControlRecord | None:
    return stop_reads(process.agent.homes, TABLE, by).record


def read_from(process: Process) -> Side:
    process.get()
    return process.observed[-1]


def test_a_stop_in_the_record_reaches_a_process_no_later_than_its_grant_ends(
    world: World, two: tuple[Process, Process]
) -> None:
    operator, reader = two
    operator.put("first")
    operator.lose(Side.POSTGRES)
    reader.agent.refresh()
    assert stop(operator) is not None
    assert read_from(reader) is Side.POSTGRES  # the grant from before
    world.clock.advance(READ_GRANT)
    assert read_from(reader) is Side.DYNAMODB
    reader.agent.refresh()
    assert read_from(reader) is Side.DYNAMODB


def test_an_answer_that_comes_after_the_stop_was_seen_is_not_given_out(
    world: World, two: tuple[Process, Process]
) -> None:
    operator, reader = two
    operator.put("first")

    def stopped_meanwhile(name: str, _: object) -> None:
        if name == "execute_as_mirror":
            reader.mirror.before = lambda *_: None
            stop(operator)
            reader.agent.refresh()

    reader.mirror.before = stopped_meanwhile
    assert read_from(reader) is Side.DYNAMODB


def test_a_stop_that_only_postgresql_could_be_told_of_holds_for_the_very_next_read(
    world: World, two: tuple[Process, Process]
) -> None:
    operator, reader = two
    operator.put("first")
    operator.lose(Side.DYNAMODB)
    assert stop(operator) is None
    assert world.record.stopped is None
    reader.agent.refresh()
    assert read_from(reader) is Side.DYNAMODB


def test_a_mark_is_brought_over_by_whoever_reaches_both_and_both_say_the_same(
    world: World, two: tuple[Process, Process]
) -> None:
    operator, reader = two
    operator.lose(Side.DYNAMODB)
    stop(operator)
    bring_over(reader.agent, TABLE)
    assert world.record.stopped == STOP
    assert reader.agent.view(TABLE).record.stopped == STOP
    generation = world.record.generation
    bring_over(reader.agent, TABLE)
    assert world.record.generation == generation


def test_neither_database_reached_is_no_stop(two: tuple[Process, Process]) -> None:
    operator, _ = two
    operator.lose(*BOTH)
    with pytest.raises(Unavailable, match="neither database"):
        stop(operator)


def test_a_second_stop_leaves_the_first_one_noted(world: World, process: Process) -> None:
    stop(process)
    record = stop(process, Stop("lee", 2_000.0))
    assert record is not None
    assert record.stopped == STOP
    assert world.postgres_control.stop_marks() == {TABLE: STOP}


@pytest.mark.parametrize("lost", [(), (Side.POSTGRES,), (Side.DYNAMODB,)], ids=str)
def test_a_release_lets_reads_go_where_the_dials_say_again(
    world: World, two: tuple[Process, Process], lost: tuple[Side, ...]
) -> None:
    operator, reader = two
    operator.put("first")
    operator.lose(*lost)
    stop(operator)
    reader.agent.refresh()
    assert read_from(reader) is Side.DYNAMODB
    operator.lose(*lost, lost=False)
    assert release_reads(operator.agent.homes, TABLE).stopped is None
    reader.agent.refresh()
    assert read_from(reader) is Side.POSTGRES


@pytest.mark.parametrize("side", BOTH)
def test_a_release_that_cannot_reach_all_of_it_leaves_the_reads_stopped(
    world: World, two: tuple[Process, Process], side: Side
) -> None:
    operator, reader = two
    operator.put("first")
    stop(operator)
    operator.lose(side)
    with pytest.raises((Unavailable, BotoCoreError)):
        release_reads(operator.agent.homes, TABLE)
    reader.agent.refresh()
    assert read_from(reader) is Side.DYNAMODB


def test_a_release_takes_no_mark_away_where_the_record_is_out_of_reach(
    world: World, two: tuple[Process, Process]
) -> None:
    operator, reader = two
    operator.put("first")
    operator.lose(Side.DYNAMODB)
    stop(operator)
    with pytest.raises(BotoCoreError):
        release_reads(operator.agent.homes, TABLE)
    assert world.postgres_control.stop_marks() == {TABLE: STOP}
    assert read_from(reader) is Side.DYNAMODB


def test_a_release_that_fails_after_the_mark_is_gone_leaves_the_reads_stopped(
    world: World, two: tuple[Process, Process]
) -> None:
    operator, reader = two
    operator.put("first")
    operator.lose(Side.DYNAMODB)
    stop(operator)
    operator.lose(Side.DYNAMODB, lost=False)

    def lost_when_unmarked(*_: object) -> None:
        if "unmark_stopped" in operator.postgres_control.calls:
            operator.lose(Side.DYNAMODB)

    operator.bookkeeping.before = lost_when_unmarked
    with pytest.raises(BotoCoreError):
        release_reads(operator.agent.homes, TABLE)
    assert world.postgres_control.stop_marks() == {}
    reader.agent.refresh()
    assert read_from(reader) is Side.DYNAMODB


def test_whoever_is_about_to_bring_a_mark_over_when_it_is_released_does_not_stop_the_reads_again(
    world: World, two: tuple[Process, Process]
) -> None:
    operator, slow = two
    operator.lose(Side.DYNAMODB)
    stop(operator)
    operator.lose(Side.DYNAMODB, lost=False)

    def released_meanwhile(name: str, _: object) -> None:
        if name == "execute" and "stop_marks" in slow.postgres_control.calls[1:]:
            slow.bookkeeping.before = lambda *_: None
            release_reads(operator.agent.homes, TABLE)

    slow.postgres_control.calls.clear()
    slow.bookkeeping.before = released_meanwhile
    bring_over(slow.agent, TABLE)
    assert slow.bookkeeping.before("", ()) is None
    assert world.record.stopped is None
    assert world.postgres_control.stop_marks() == {}


# What flags ask for meanwhile


def test_flags_leave_a_stop_alone_and_it_leaves_the_dials_alone(world: World, process: Process) -> None:
    world.decide(**READABLE)
    process.flags.set("items", postgres_read_percent=100.0)
    process.agent.tick()
    stop(process)
    for _ in range(3):
        process.agent.tick()
    assert (world.record.stopped, world.record.dials.postgres_read_percent) == (STOP, 100.0)
    assert world.record.effective_dials == Dials(shadow_percent=0.0)
    assert process.agent.refusals() == {}
    newcomer = world.process()
    newcomer.flags.set("items", postgres_read_percent=100.0)
    newcomer.agent.tick()
    assert world.record.stopped == STOP


@pytest.mark.parametrize("before", [25.0, 0.0])
def test_a_stopped_read_dial_may_go_down_but_not_up(world: World, process: Process, before: float) -> None:
    world.decide(**{**READABLE, "dials": Dials(postgres_read_percent=before)})
    stop(process)
    process.flags.set("items", postgres_read_percent=50.0)
    process.agent.tick()
    assert "dualstore stop --release" in process.agent.refusals()[TABLE]
    assert world.record.dials.postgres_read_percent == before
    process.flags.set("items", postgres_read_percent=0.0)
    process.agent.tick()
    assert process.agent.refusals() == {}
    assert world.record.dials.postgres_read_percent == 0.0


def test_a_stopped_table_does_not_go_live(world: World, process: Process) -> None:
    bring(Stage.SHADOW, process)
    world.decide(**READY)
    stop(process)
    process.ask(Stage.LIVE)
    pass_time(world, process, seconds=2)
    assert "kim" in process.agent.refusals()[TABLE]
    assert world.decided.stage is Stage.SHADOW
    release_reads(process.agent.homes, TABLE)
    pass_time(world, process, seconds=5)
    assert world.decided.stage is Stage.LIVE


def test_a_stop_during_the_pause_has_the_move_given_up(
    world: World, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    bring(Stage.SHADOW, process)
    world.decide(**READY)
    process.passage.undrained = lambda record: "not yet"  # type: ignore[method-assign]
    process.ask(Stage.LIVE)
    process.agent.tick()
    assert world.record.phase is Phase.CLOSED
    stop(process)
    pass_time(world, process, seconds=0.5)
    assert (world.record.phase, world.record.stage) == (Phase.OPEN, Stage.SHADOW)
    assert "was given up: reads from PostgreSQL were stopped by kim" in caplog.text


def test_at_live_a_stop_is_harmless_and_holds_when_dynamodb_decides_again(
    world: World, process: Process
) -> None:
    bring(Stage.SHADOW, process)
    world.decide(**READY)
    bring(Stage.LIVE, process)
    process.put("at live")
    process.lose(Side.DYNAMODB)
    record = stop(process)
    process.lose(Side.DYNAMODB, lost=False)
    assert record is not None
    assert (record.stage, record.stopped) == (Stage.LIVE, STOP)
    assert process.get() == "at live"
    bring(Stage.SHADOW, process)
    assert world.decided.stopped == STOP
    assert read_from(process) is Side.DYNAMODB


# Refusals are told


def test_a_refusal_is_logged_once_for_each_request_and_counted_at_each_look(
    world: World, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[tuple[str, str]] = []
    process.agent._following._refused = lambda *told: counted.append(told)
    world.decide(**READY)

    def logged() -> int:
        return sum("not followed" in line for line in caplog.messages)

    with caplog.at_level(logging.WARNING):
        process.ask(Stage.COMPLETE)
        for _ in range(3):
            process.agent.tick()
        assert (logged(), counted) == (1, [("items", "jump")] * 3)
        for keys in (3, 2, 1):  # it is the same reason, though its figures move
            process.passage.found = [f"{keys} key(s) are in doubt"]
            process.ask(Stage.LIVE)
            world.clock.advance(1.0)
            process.agent.tick()
        assert logged() == 2
        assert counted[3:] == [("items", "obstructed")] * 3
        process.passage.found = ["the relay does not run"]
        world.clock.advance(1.0)
        process.agent.tick()
        assert logged() == 3


def test_a_process_that_has_followed_nothing_yet_can_say_what_would_be_refused(
    world: World, process: Process
) -> None:
    process.ask(Stage.COMPLETE)
    assert process.agent.refusals() == {}
    assert "not next to it" in str(process.agent.refusal_of(TABLE))
    process.ask(Stage.DUALWRITE)
    assert process.agent.refusal_of(TABLE) is None
    process.passage.found = ["the table is not active"]
    assert "not active" in str(process.agent.refusal_of(TABLE))
    assert world.record.stage is Stage.OFF
