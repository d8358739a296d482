"""What one process may act on: grants, confirmed generations, flags, and processes that fall silent."""

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from dualstore.control import Gate
from dualstore.replication.agent import Agent
from dualstore.stages import Dials, Side, Stage
from unit.replication.processes import (
    READ_GRANT,
    READABLE,
    SERVED,
    TABLE,
    TIMES,
    WRITE_GRANT,
    Process,
    World,
    fallen_silent,
    stored,
)


def confirmed(world: World) -> list[int]:
    return sorted(entry.confirmed[TABLE] for entry in world.process().registry.processes())


# Grants


def test_a_grant_to_read_lapses_where_the_control_record_cannot_be_read(
    world: World, two: tuple[Process, Process]
) -> None:
    _, reader = two
    reader.put("first")
    reader.bookkeeping.down = True
    world.clock.advance(READ_GRANT / 2)
    with pytest.raises(type(reader.bookkeeping.failure)):
        reader.agent.refresh()
    assert reader.get() == "first"
    world.clock.advance(READ_GRANT / 2)
    assert reader.get() == "first"
    assert reader.observed == [Side.POSTGRES, Side.DYNAMODB]
    assert reader.mirror.calls.count("execute_as_mirror") == 1


def test_a_grant_counts_from_before_the_control_record_was_asked_for(world: World, process: Process) -> None:
    asked_at = world.clock.now()
    process.bookkeeping.before = lambda *_: world.clock.advance(0.3)
    process.agent.refresh()
    assert process.agent.view(TABLE).read_until == asked_at + READ_GRANT


def test_a_write_after_the_grant_asks_for_a_new_one_first(world: World, process: Process) -> None:
    world.clock.advance(WRITE_GRANT)
    process.bookkeeping.down = True
    with pytest.raises(type(process.bookkeeping.failure)):
        process.put("never sent")
    assert stored(world.authority) is None
    process.bookkeeping.down = False
    world.decide(stage=Stage.DUALWRITE)
    process.put("mirrored")
    assert stored(world.mirror) is not None


def test_a_grant_to_write_is_good_only_after_a_beat(world: World, process: Process) -> None:
    def no_beat(name: str, args: tuple[object, ...]) -> None:
        if type(args[0]).__name__ == "PutItem":
            raise process.bookkeeping.failure

    before = process.agent.view(TABLE).write_until
    world.clock.advance(WRITE_GRANT / 2)
    process.bookkeeping.before = no_beat
    with pytest.raises(type(process.bookkeeping.failure)):
        process.agent.refresh()
    view = process.agent.view(TABLE)
    assert view.write_until == before
    assert view.read_until == world.clock.now() + READ_GRANT


def test_a_reply_that_comes_after_the_grant_is_acted_on_under_a_new_one(
    world: World, process: Process
) -> None:
    def slow(name: str, args: tuple[object, ...]) -> None:
        if type(args[0]).__name__ == "PutItem":
            world.clock.advance(WRITE_GRANT)
            world.decide(stage=Stage.DUALWRITE)

    process.authority.before = slow
    process.put("late")
    assert stored(world.mirror) == stored(world.authority)


def test_a_reply_that_comes_after_the_direct_window_is_settled_instead(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, other = two
    other.put("first")

    def paused(name: str, args: tuple[object, ...]) -> None:
        if name == "write_direct":
            raise AssertionError("a direct write after its window")

    class Pausing:
        """The process is suspended between the authority's reply and the mirror."""

        up = True

        def require(self) -> None:
            world.clock.advance(31)

    writer.mirror.before = paused
    writer.mirroring.health = Pausing()  # type: ignore[assignment]
    writer.agent.refresh()
    writer.put("second")
    assert stored(world.mirror) == stored(world.authority)


# Confirmed generations


def test_an_unfinished_write_holds_the_confirmed_generation_back(world: World, process: Process) -> None:
    with process.agent.writing(TABLE):
        world.decide(stage=Stage.DUALWRITE)
        process.agent.refresh()
        assert process.agent.view(TABLE).record.generation == 1
        with process.agent.writing(TABLE):
            assert process.agent.confirmed() == {TABLE: 0}
        assert process.agent.confirmed() == {TABLE: 0}
    assert process.agent.confirmed() == {TABLE: 1}
    assert process.registry.processes()[0].confirmed == {TABLE: 0}
    process.agent.refresh()
    assert process.registry.processes()[0].confirmed == {TABLE: 1}


def test_a_write_that_failed_is_finished(process: Process, world: World) -> None:
    with pytest.raises(RuntimeError), process.agent.writing(TABLE):
        raise RuntimeError
    world.decide(loaded=True)
    process.agent.refresh()
    assert process.agent.confirmed() == {TABLE: 1}


def test_a_process_that_ends_with_a_write_unfinished_stays_registered(world: World, process: Process) -> None:
    with process.agent.writing(TABLE):
        process.agent.close(timeout=timedelta(seconds=1))
        assert len(process.registry.processes()) == 1
    process.agent.close()
    assert process.registry.processes() == []


def test_a_process_that_alone_knows_of_a_doubt_stays_registered(process: Process) -> None:
    process.agent.close(finish=lambda: False)
    assert len(process.registry.processes()) == 1


def test_closing_is_quiet_where_the_authority_is_out_of_reach(process: Process) -> None:
    process.bookkeeping.down = True
    process.agent.close()


def test_a_table_that_could_not_be_served_does_not_take_the_grants_of_the_others_away(
    world: World, process: Process
) -> None:
    process.bookkeeping.down = True
    with pytest.raises(type(process.bookkeeping.failure)):
        process.agent.serve("another", logical="another")
    process.bookkeeping.down = False
    process.agent.refresh()
    assert process.agent.views().keys() == {TABLE}


def test_tables_may_be_served_while_others_are_refreshed(world: World) -> None:
    process = world.process()
    failures: list[BaseException] = []
    done = threading.Event()

    def refresh() -> None:
        while not done.is_set():
            try:
                process.agent.tick()
            except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
                failures.append(error)
                return

    thread = threading.Thread(target=refresh)
    thread.start()
    for number in range(100):
        process.agent.serve(f"table-{number}", logical=f"table-{number}")
    done.set()
    thread.join()
    assert not failures


# The wait for readers


def test_the_wait_for_readers_is_one_grant_long_and_nobody_waits_twice(
    world: World, process: Process
) -> None:
    process.agent.wait_until_reads_stopped(TABLE)
    assert world.clock.slept == [READ_GRANT]
    assert world.record.gate is Gate.SHUT
    process.agent.wait_until_reads_stopped(TABLE)
    world.clock.advance(5)
    process.agent.wait_until_reads_stopped(TABLE)
    assert world.clock.slept == [READ_GRANT]


def test_the_wait_ends_where_a_repair_opened_the_gate_meanwhile(world: World, process: Process) -> None:
    def reopen() -> None:
        world.decide(gate=Gate.OPEN)
        process.agent.refresh()

    world.clock.after(0.5, reopen)
    process.agent.wait_until_reads_stopped(TABLE)
    assert world.record.gate is Gate.OPEN


def test_a_gate_that_was_opened_and_shut_again_during_the_wait_is_waited_for_anew(
    world: World, process: Process
) -> None:
    def again() -> None:
        world.decide(gate=Gate.OPEN)
        world.control.shut_gate(TABLE)
        process.agent.refresh()

    world.clock.after(0.5, again)
    started = world.clock.now()
    process.agent.wait_until_reads_stopped(TABLE)
    assert world.clock.now() - started == pytest.approx(0.5 + READ_GRANT)


# Flags


def test_a_flag_is_followed_once_and_not_fought_over(world: World, process: Process) -> None:
    process.flags.set("items", stage=Stage.DUALWRITE)
    process.agent.tick()
    assert world.record.stage is Stage.DUALWRITE
    world.decide(stage=Stage.SHADOW)
    for _ in range(3):
        process.agent.tick()
    assert world.record.stage is Stage.SHADOW
    process.flags.set("items", shadow_percent=1.0)
    process.agent.tick()
    assert world.record.stage is Stage.DUALWRITE


def test_two_processes_follow_the_same_flag_with_one_change(world: World) -> None:
    first, second = world.process(), world.process()
    for each in (first, second):
        each.flags.set("items", stage=Stage.DUALWRITE)
    first.agent.tick()
    second.agent.tick()
    first.agent.tick()
    assert (world.record.stage, world.record.generation) == (Stage.DUALWRITE, 1)


def test_a_refused_flag_says_why_and_is_followed_when_it_may_be(world: World, process: Process) -> None:
    world.decide(stage=Stage.DUALWRITE)
    process.flags.set("items", postgres_read_percent=5.0)
    process.agent.tick()
    assert "backfill" in process.agent.refusals()[TABLE]
    world.decide(loaded=True)
    process.agent.tick()
    assert process.agent.refusals() == {}
    assert world.record.dials.postgres_read_percent == 5.0


def test_mirroring_is_ended_no_sooner_than_a_grant_after_reads_were_stopped(
    world: World, two: tuple[Process, Process]
) -> None:
    process, _ = two
    process.flags.set("items", stage=Stage.OFF, postgres_read_percent=0.0)
    process.agent.tick()
    assert world.record.dials.postgres_read_percent == 0.0
    started = world.clock.now()
    while world.record.stage is not Stage.OFF:
        world.clock.advance(0.25)
        process.agent.tick()
    assert READ_GRANT < world.clock.now() - started < 2 * READ_GRANT


def test_reads_dialled_and_undialled_between_two_looks_still_delay_the_end_of_mirroring(
    world: World, process: Process
) -> None:
    world.decide(stage=Stage.DUALWRITE, loaded=True)
    process.agent.tick()
    world.clock.advance(5)
    process.agent.tick()
    world.decide(**READABLE)  # a third party's reader takes a grant here
    world.decide(dials=Dials())
    process.flags.set("items", stage=Stage.OFF)
    for _ in range(2):
        process.agent.tick()
        assert world.record.stage is Stage.DUALWRITE
    assert not world.record.loaded
    world.clock.advance(READ_GRANT + 0.1)
    process.agent.tick()
    assert world.record.stage is Stage.OFF


# Silence


def fall_silent(world: World, watcher: Process) -> None:
    """Let time pass with nobody but the watcher alive."""
    for _ in range(20):
        world.clock.advance(1.0)
        watcher.agent.tick()


def test_a_silent_process_makes_its_tables_suspect_and_stops_their_mirror_reads(
    world: World, two: tuple[Process, Process]
) -> None:
    watcher, dead = two
    watcher.put("first")
    assert watcher.get() == "first"
    dead_id = dead.registry.id
    fall_silent(world, watcher)
    assert fallen_silent(world.record) == {dead_id}
    assert not world.record.mirror_readable
    assert [entry.id for entry in watcher.registry.processes()] == [watcher.registry.id]
    assert watcher.get() == "first"
    assert watcher.observed == [Side.POSTGRES, Side.DYNAMODB]


def test_a_process_that_leaves_makes_nothing_suspect(world: World, two: tuple[Process, Process]) -> None:
    watcher, leaver = two
    leaver.agent.close()
    fall_silent(world, watcher)
    assert world.record.suspects == frozenset()


def test_nothing_is_suspect_where_nothing_is_mirrored(world: World) -> None:
    watcher, _ = world.process(), world.process()
    fall_silent(world, watcher)
    assert world.record.suspects == frozenset()
    assert len(watcher.registry.processes()) == 1


def test_a_process_that_was_only_asleep_goes_on_under_a_new_name_and_stays_suspect_under_the_old(
    world: World, two: tuple[Process, Process]
) -> None:
    watcher, sleeper = two
    old = sleeper.registry.id
    fall_silent(world, watcher)
    sleeper.put("awake")
    assert sleeper.registry.id != old
    assert fallen_silent(world.record) == {old}
    assert len(watcher.registry.processes()) == 2


def test_a_process_that_falls_silent_twice_under_one_name_is_suspect_anew(
    world: World, two: tuple[Process, Process]
) -> None:
    """A verification that began between the two clears the first only."""
    watcher, sleeper = two
    name, woken = sleeper.registry.id, []

    def wake(_call: str, arguments: Sequence[Any]) -> None:
        if type(arguments[0]).__name__ == "DeleteItem" and not woken:  # its entry is about to be taken out
            woken.append(name)
            sleeper.agent.refresh(beat=True)

    watcher.bookkeeping.before = wake
    fall_silent(world, watcher)
    assert (woken, sleeper.registry.id) == ([name], name)
    first = world.record.suspects
    fall_silent(world, watcher)
    assert first < world.record.suspects
    assert fallen_silent(world.record) == {name}


def test_what_a_process_forgets_after_a_verification_began_is_not_cleared_by_that(
    world: World, two: tuple[Process, Process]
) -> None:
    process, _ = two
    process.agent.suspect(TABLE)
    seen = world.record.suspects
    process.agent.suspect(TABLE)
    assert world.record.suspects - seen == world.record.suspects
    assert len(world.record.suspects) == 1


def test_a_process_may_not_write_any_more_when_it_is_taken_for_dead(
    world: World, two: tuple[Process, Process]
) -> None:
    watcher, sleeper = two
    until = sleeper.agent.view(TABLE).write_until
    while not world.record.suspects:
        world.clock.advance(0.25)
        watcher.agent.tick()
    assert world.clock.now() > until


def test_a_dead_process_that_recorded_a_failure_but_did_not_shut_the_gate_is_repaired(
    world: World, two: tuple[Process, Process]
) -> None:
    watcher, dead = two
    dead.put("first")
    dead.mirror.down = True

    class Killed(BaseException):
        pass

    def killed(name: str, args: tuple[object, ...]) -> None:
        if "gate <> :shut" in args[0].request.get("ConditionExpression", ""):  # type: ignore[attr-defined]
            raise Killed

    dead.bookkeeping.before = killed
    with pytest.raises(Killed):
        dead.put("second")
    fall_silent(world, watcher)
    watcher.repair()
    assert stored(world.mirror) == stored(world.authority)
    assert watcher.journalled() == 0


# In the background


def test_the_agents_thread_keeps_grants_fresh_and_ends_with_close(world: World) -> None:
    process = world.process()
    quick = Agent(
        process.agent.homes,
        process.flags,
        times=type(TIMES)(poll=timedelta(milliseconds=1), read=TIMES.read, write=TIMES.write),
        clock=world.clock,
    )
    quick.serve(TABLE, logical=SERVED.logical)
    quick.start()
    quick.start()
    world.decide(loaded=True)
    deadline = threading.Event()
    for _ in range(2000):
        if quick.view(TABLE).record.loaded:
            break
        deadline.wait(0.005)
    quick.close()
    assert quick.view(TABLE).record.loaded
    assert not [thread for thread in threading.enumerate() if thread.name == "dualstore-agent"]
