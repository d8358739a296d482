"""The authority moves to the other database and back, step by step: who waits, who refuses, who gives up."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dualstore.control import ControlRecord, Phase, PostgresRole
from dualstore.errors import Unavailable, WritesPaused
from dualstore.replication.suspects import is_unmirrored
from dualstore.stages import Side, Stage
from unit.replication.processes import (
    SERVED,
    TABLE,
    TIMES,
    Process,
    World,
    bring,
    fallen_silent,
    pass_time,
    stored,
)

OPEN, CLOSED, MOVED = Phase.OPEN, Phase.CLOSED, Phase.MOVED
MOVE, PATIENCE = TIMES.move.total_seconds(), TIMES.patience.total_seconds()

WAYS = {"to PostgreSQL": (Stage.SHADOW, Stage.LIVE), "to DynamoDB": (Stage.LIVE, Stage.SHADOW)}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[Stage, Stage]:
    """From a stage to a stage of the other authority."""
    return WAYS[request.param]


@pytest.fixture
def pair(world: World, way: tuple[Stage, Stage]) -> tuple[Process, Process]:
    """Two processes at the stage before the move, and an item that both sides hold."""
    processes = world.process(), world.process()
    bring(way[0], *processes)
    processes[0].put("before")
    pass_time(world, *processes, seconds=1)
    assert world.agree
    return processes


@pytest.fixture
def at_live(world: World) -> tuple[Process, Process]:
    processes = world.process(), world.process()
    bring(Stage.LIVE, *processes)
    processes[0].put("before")
    return processes


def phases(world: World) -> tuple[Phase, Phase]:
    """Of the records in DynamoDB and in PostgreSQL."""
    return world.record.phase, world.postgres_control.read_all()[TABLE].phase


def closed(mover: Process, stage: Stage) -> ControlRecord:
    """Let a process pause the writes for a stage."""
    mover.ask(stage)
    mover.agent.tick()
    assert mover.world.decided.phase is CLOSED
    return mover.world.decided


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        act()
    error = caught.value.response["Error"]
    assert error["Code"] == "ServiceUnavailable"
    return str(error["Message"])


# Step by step


def test_a_move_closes_one_record_and_opens_the_other_at_the_next_epoch(
    world: World, way: tuple[Stage, Stage], pair: tuple[Process, Process]
) -> None:
    mover, other = pair
    old, new = way
    before = world.decided
    assert (before.stage, before.phase) == (old, OPEN)
    pause = closed(mover, new)
    assert (pause.stage, pause.target, pause.epoch) == (old, new, before.epoch)
    other.agent.tick()  # confirms
    mover.agent.tick()
    after = world.decided
    assert (after.stage, after.phase, after.target) == (new, OPEN, None)
    assert after.epoch == before.epoch + 1
    assert after.generation > pause.generation > before.generation
    assert phases(world) == ((OPEN, MOVED) if new.rule.authority is Side.DYNAMODB else (MOVED, OPEN))
    role = PostgresRole.AUTHORITY if new is Stage.LIVE else PostgresRole.MIRROR
    assert world.mirror.fence_of(TABLE) == (after.epoch, role)


def test_what_was_written_before_a_move_is_read_after_it_and_what_is_written_after_it_reaches_both_sides(
    world: World, way: tuple[Stage, Stage], pair: tuple[Process, Process]
) -> None:
    mover, other = pair
    mover.ask(way[1])
    pass_time(world, mover, other, seconds=2)
    assert [each.get() for each in pair] == ["before", "before"]
    assert mover.observed[-1] is way[1].rule.authority
    other.put("after")
    assert world.value(way[1].rule.authority) == "after"
    assert mover.get() == "after"
    pass_time(world, mover, other, seconds=1)
    assert world.agree


def test_a_move_is_followed_whichever_way_it_goes_and_each_counts_an_epoch(world: World) -> None:
    pair = world.process(), world.process()
    epochs = [world.decided.epoch]
    for stage in (*list(Stage)[1:4], Stage.SHADOW, Stage.LIVE, *list(Stage)[4:], Stage.LIVE, Stage.OFF):
        bring(stage, *pair)
        epochs.append(world.decided.epoch)
        pair[0].put(stage)
        assert pair[1].get() == stage
    # off; dualwrite, shadow, live; shadow, live; rampdown, complete; live; off
    assert epochs == [0, 1, 1, 2, 3, 4, 4, 4, 4, 6]


# Writes wait


def test_a_write_waits_while_writes_pause_and_goes_to_the_new_authority(
    world: World, way: tuple[Stage, Stage], pair: tuple[Process, Process]
) -> None:
    mover, writer = pair
    closed(mover, way[1])
    writer.agent.tick()
    began = world.clock.now()
    world.clock.after(0.7, mover.agent.tick)
    world.clock.after(0.9, writer.agent.tick)
    writer.put("waited")
    assert 0.9 <= world.clock.now() - began < 1
    assert world.value(way[1].rule.authority) == "waited"


def test_a_write_waits_while_writes_pause_and_goes_to_the_old_authority_where_the_move_is_given_up(
    world: World, way: tuple[Stage, Stage], pair: tuple[Process, Process]
) -> None:
    mover, writer = pair
    closed(mover, way[1])
    writer.agent.tick()
    mover.ask(way[0])
    world.clock.after(0.7, mover.agent.tick)
    world.clock.after(0.9, writer.agent.tick)
    writer.put("waited")
    assert world.value(way[0].rule.authority) == "waited"


def test_a_write_that_has_waited_long_enough_is_refused_and_nothing_is_written(
    world: World, way: tuple[Stage, Stage], pair: tuple[Process, Process]
) -> None:
    mover, writer = pair
    closed(mover, way[1])
    writer.agent.tick()
    began = world.clock.now()
    assert "try again" in refused(lambda: writer.put("too late"))
    assert world.clock.now() - began == pytest.approx(PATIENCE, abs=0.05)
    assert [world.value(side) for side in Side] == ["before", "before"]
    with pytest.raises(WritesPaused):
        writer.agent._begun(TABLE, writer.agent._known.tables[TABLE])


def test_a_write_of_dynamodb_that_is_under_way_holds_a_move_up(world: World) -> None:
    mover, writer = world.process(), world.process()
    bring(Stage.SHADOW, mover, writer)
    held: list[Phase] = []

    def meanwhile(name: str, args: tuple[Any, ...]) -> None:
        if not held and not args[0].reads:
            held.append(OPEN)
            closed(mover, Stage.LIVE)
            writer.agent.tick()
            for _ in range(8):
                world.clock.advance(0.25)
                mover.agent.tick()
                held.append(world.decided.phase)

    writer.authority.before = meanwhile
    writer.put("under way")
    assert held == [OPEN, *[CLOSED] * 8]
    mover.agent.tick()
    assert world.decided.phase is CLOSED  # it is done, and nobody knows yet
    writer.agent.tick()
    mover.agent.tick()
    assert world.decided.stage is Stage.LIVE
    assert world.value(Side.POSTGRES) == "under way"


def test_a_write_of_postgresql_that_is_under_way_is_refused_there_and_goes_to_dynamodb(
    world: World, at_live: tuple[Process, Process]
) -> None:
    mover, writer = at_live
    pass_time(world, mover, writer, seconds=1)

    def meanwhile(name: str, args: tuple[Any, ...]) -> None:
        if name == "execute_as_authority":
            writer.mirror.before = lambda *_: None
            closed(mover, Stage.SHADOW)
            world.clock.after(0.5, mover.agent.tick)
            world.clock.after(0.6, writer.agent.tick)

    writer.mirror.before = meanwhile
    writer.put("under way")
    assert world.decided.stage is Stage.SHADOW
    assert [world.value(side) for side in Side] == ["under way", "under way"]
    assert world.agree
    assert world.outbox.depth(TABLE).entries == 0


def test_a_move_back_waits_for_the_outbox(world: World, at_live: tuple[Process, Process]) -> None:
    mover, _ = at_live
    closed(mover, Stage.SHADOW)
    world.clock.advance(0.5)
    mover.agent.tick()
    assert world.decided.phase is CLOSED
    mover.hand_over()
    mover.agent.tick()
    assert world.decided.stage is Stage.SHADOW
    assert world.agree


@pytest.mark.parametrize("doubt", ["dirty", "journal"])
def test_a_move_waits_for_what_is_in_doubt(world: World, doubt: str) -> None:
    mover, other = world.process(), world.process()
    bring(Stage.SHADOW, mover, other)
    closed(mover, Stage.LIVE)
    key = {"id": {"S": "a"}}
    if doubt == "dirty":
        world.mirror.mark_dirty(TABLE, key, nonce="n", reason="test")
    else:
        mover.journal.record(SERVED.shape, key)
    for process in (other, mover):
        process.agent.tick()
    assert world.decided.phase is CLOSED
    if doubt == "dirty":
        world.mirror.clear_dirty(TABLE, key, nonce="n")
    else:
        mover._repair._drain_journal(SERVED)
    mover.agent.tick()
    assert world.decided.stage is Stage.LIVE


# Giving up


def given_up(mover: Process, *others: Process, seconds: float = MOVE + 1) -> ControlRecord:
    """Let time pass until a move is given up."""
    world = mover.world
    pass_time(world, mover, *others, seconds=seconds)
    assert world.decided.phase is OPEN
    return world.decided


def test_a_move_to_postgresql_that_a_process_does_not_confirm_is_given_up_and_not_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    mover, other, asleep = (world.process() for _ in range(3))
    bring(Stage.SHADOW, mover, other, asleep)
    for each in (mover, other):
        each.ask(Stage.LIVE)
    pass_time(world, mover, other, seconds=MOVE)
    assert world.decided.phase is CLOSED
    record = given_up(mover, other, seconds=1)
    assert (record.stage, record.target) == (Stage.SHADOW, Stage.LIVE)
    assert "have not seen the pause" in caplog.text
    for _ in range(40):
        world.clock.advance(0.25)
        for each in (mover, other, asleep):
            each.agent.tick()
        assert world.decided == record, "somebody has closed it again"
    for each in (mover, other):
        assert "Ask for shadow, then for live again" in each.agent.refusals()[TABLE]
    other.put("goes on")
    assert world.value(Side.DYNAMODB) == "goes on"


@pytest.mark.parametrize("stage", [None, Stage.SHADOW])
def test_a_move_that_was_given_up_is_taken_back_by_nobody_who_does_not_newly_ask_for_something_else(
    world: World, stage: Stage | None
) -> None:
    """A process whose flags say nothing, or still say what is: they reach processes at different times."""
    mover, other, asleep = (world.process() for _ in range(3))
    bring(Stage.SHADOW, mover, other, asleep)
    other.flags.set("items", stage=stage)
    other.agent.tick()
    mover.ask(Stage.LIVE)
    record = given_up(mover)
    newcomer = world.process()  # asks for nothing
    pass_time(world, mover, other, newcomer, seconds=2 * MOVE)
    # Nothing has been changed since, but that the one that is asleep was taken for dead.
    assert world.decided.generation <= record.generation + len(world.decided.suspects)
    assert (world.decided.phase, world.decided.target) == (OPEN, Stage.LIVE)


def test_asking_for_the_old_stage_takes_back_what_was_given_up_and_then_it_is_tried_again(
    world: World,
) -> None:
    mover, asleep = world.process(), world.process()
    bring(Stage.SHADOW, mover, asleep)
    mover.ask(Stage.LIVE)
    given_up(mover)
    mover.ask(Stage.SHADOW)
    mover.agent.tick()
    assert world.decided.target is None
    mover.agent.tick()
    assert mover.agent.refusals() == {}
    mover.ask(Stage.LIVE)
    pass_time(world, mover, asleep, seconds=1)
    assert world.decided.stage is Stage.LIVE


def test_a_move_back_that_does_not_drain_is_given_up(
    world: World, at_live: tuple[Process, Process], caplog: pytest.LogCaptureFixture
) -> None:
    mover, other = at_live
    world.authority.execute = lambda *_: (_ for _ in ()).throw(mover.authority.failure)  # type: ignore[method-assign]
    mover.ask(Stage.SHADOW)
    record = given_up(mover, other)
    assert (record.stage, record.target) == (Stage.LIVE, Stage.SHADOW)
    assert "the outbox is not empty" in caplog.text
    other.put("goes on")
    assert world.value(Side.POSTGRES) == "goes on"
    assert world.mirror.fence_of(TABLE) == (record.epoch, PostgresRole.AUTHORITY)


def test_a_suspect_ends_a_move_to_postgresql_at_once(world: World) -> None:
    mover, other = world.process(), world.process()
    bring(Stage.SHADOW, mover, other)
    closed(mover, Stage.LIVE)
    world.decide(suspects=frozenset({"dead"}))
    mover.agent.tick()
    record = world.decided
    assert (record.phase, record.stage) == (OPEN, Stage.SHADOW)
    assert "verify --repair" in mover.agent.refusals()[TABLE]


def test_a_process_that_dies_during_the_pause_is_waited_for_until_the_move_is_given_up(world: World) -> None:
    mover, dead = world.process(), world.process()
    bring(Stage.SHADOW, mover, dead)
    mover.ask(Stage.LIVE)
    record = given_up(mover)
    assert record.stage is Stage.SHADOW
    pass_time(world, mover, seconds=15)
    assert fallen_silent(world.decided) == {dead.registry.id}


def test_a_move_back_waits_for_no_process_since_postgresql_refuses_by_itself(
    world: World, at_live: tuple[Process, Process]
) -> None:
    mover, asleep = at_live
    mover.ask(Stage.SHADOW)
    pass_time(world, mover, seconds=1)
    assert world.decided.stage is Stage.SHADOW
    asleep.put("late riser")
    assert world.value(Side.DYNAMODB) == "late riser"


def test_who_did_not_close_the_record_helps_only_after_a_second(
    world: World, way: tuple[Stage, Stage], pair: tuple[Process, Process]
) -> None:
    mover, other = pair
    closed(mover, way[1])
    other.agent.tick()
    world.clock.advance(0.9)
    other.agent.tick()
    assert world.decided.phase is CLOSED
    world.clock.advance(0.2)
    other.agent.tick()
    assert world.decided.stage is way[1]


def test_a_process_that_the_flag_has_not_reached_yet_does_not_end_a_move(
    world: World, way: tuple[Stage, Stage], pair: tuple[Process, Process]
) -> None:
    mover, behind = pair
    behind.ask(way[0])
    behind.agent.tick()
    closed(mover, way[1])
    mover.passage.undrained = lambda _: "not yet"  # type: ignore[method-assign]
    for _ in range(10):
        world.clock.advance(0.25)
        for each in pair:
            each.agent.tick()
        assert world.decided.phase is CLOSED
    del mover.passage.undrained
    mover.agent.tick()
    assert world.decided.stage is way[1]


def test_a_process_that_the_flag_has_not_reached_completes_no_move_and_ends_it_when_nobody_does(
    world: World, way: tuple[Stage, Stage], pair: tuple[Process, Process]
) -> None:
    mover, behind = pair
    behind.ask(way[0])
    behind.agent.tick()
    closed(mover, way[1])
    pass_time(world, behind, seconds=MOVE)
    assert world.decided.phase is CLOSED
    pass_time(world, behind, seconds=2)
    assert (world.decided.phase, world.decided.stage) == (OPEN, way[0])


# Obstacles


def test_the_refusal_of_an_earlier_request_is_not_told_of_a_later_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the way of the later one may take its time to be looked up."""
    mover = world.process()
    bring(Stage.SHADOW, mover)
    mover.passage.found = ["it rains: take a coat"]
    mover.ask(Stage.LIVE)
    mover.agent.tick()
    assert TABLE in mover.agent.refusals()
    told: list[Any] = []

    def look(*_: object) -> tuple[str, ...]:
        told.append(mover.agent.refusals())
        return ()

    monkeypatch.setattr(mover.passage, "obstacles", look)
    mover.ask(Stage.LIVE, shadow_percent=1.0)
    mover.agent.tick()
    assert told == [{}]


def test_an_obstacle_refuses_with_its_sentence_and_is_asked_for_once_a_second(world: World) -> None:
    mover = world.process()
    bring(Stage.SHADOW, mover)
    mover.passage.found, mover.passage.asked_at = ("the moon is full: wait", "it rains: take a coat"), []
    mover.ask(Stage.LIVE)
    for _ in range(50):
        mover.agent.tick()
        world.clock.advance(0.1)
    assert world.decided.phase is OPEN
    assert "the moon is full: wait; it rains: take a coat" in mover.agent.refusals()[TABLE]
    asked = mover.passage.asked_at
    assert 4 <= len(asked) <= 6
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(asked))
    mover.passage.found = ()
    pass_time(world, mover, seconds=2)
    assert world.decided.stage is Stage.LIVE
    assert mover.agent.refusals() == {}


def test_a_request_that_has_changed_is_looked_at_at_once(world: World) -> None:
    mover = world.process()
    bring(Stage.SHADOW, mover)
    mover.passage.found = ("no",)
    mover.ask(Stage.LIVE)
    mover.agent.tick()
    mover.ask(Stage.SHADOW)
    mover.agent.tick()
    mover.passage.found = ()
    mover.ask(Stage.LIVE)
    mover.agent.tick()
    assert world.decided.phase is CLOSED


# Complete and back


def test_coming_back_from_complete_makes_the_table_suspect_each_time_anew(world: World) -> None:
    process = world.process()
    bring(Stage.COMPLETE, process)
    assert world.decided.suspects == frozenset()
    assert world.mirror.fence_of(TABLE) == (world.decided.epoch, PostgresRole.AUTHORITY)
    bring(Stage.RAMPDOWN, process)
    (first,) = world.decided.suspects
    assert is_unmirrored(first)
    assert not world.decided.verified
    bring(Stage.COMPLETE, process)
    bring(Stage.RAMPDOWN, process)
    (second,) = world.decided.suspects
    assert is_unmirrored(second)
    assert second != first


# Who may write


def test_a_process_that_is_not_registered_may_read_and_settle_but_not_write(
    world: World, way: tuple[Stage, Stage], pair: tuple[Process, Process]
) -> None:
    relay = world.process(registers=False)
    assert relay.get() == "before"
    assert "not registered to write" in refused(lambda: relay.put("never"))
    assert [world.value(side) for side in Side] == ["before", "before"]
    assert len(relay.agent.registries[way[0].rule.authority].processes()) == 2
    with pytest.raises(Unavailable):
        relay.agent._begun(TABLE, relay.agent._known.tables[TABLE])
    pair[0].ask(way[1])
    pass_time(world, *pair, seconds=2)  # nobody waits for it
    assert world.decided.stage is way[1]
    relay.agent.refresh()
    assert relay.get() == "before"


def test_a_process_registers_where_the_authority_is(
    world: World, way: tuple[Stage, Stage], pair: tuple[Process, Process]
) -> None:
    def registered() -> list[int]:
        return [len(pair[0].agent.registries[side].processes()) for side in Side]

    for stage in way:
        bring(stage, *pair)
        pass_time(world, *pair, seconds=1)
        assert registered() == ([2, 0] if stage.rule.authority is Side.DYNAMODB else [0, 2])


def test_both_sides_hold_the_item_of_the_fixture(world: World, pair: tuple[Process, Process]) -> None:
    assert stored(world.mirror) is not None
