"""DynamoDB takes over without PostgreSQL: before its first write nobody acts on PostgreSQL's record."""

from dataclasses import replace
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from dualstore.control import ControlRecord, FailedOver, Phase, PostgresRole
from dualstore.errors import IllegalTransition, Unavailable
from dualstore.flags import Requested
from dualstore.replication.failover import LEAP, fail_over, foresee, look_for_life
from dualstore.replication.suspects import FAILED_OVER
from dualstore.replication.transitions import next_step
from dualstore.stages import Dials, Side, Stage
from dualstore.stores.outbox import OutboxDepth
from unit.replication.processes import (
    TABLE,
    TIMES,
    WRITE_GRANT,
    Killed,
    Process,
    World,
    bring,
    pass_time,
)

DYNAMODB, POSTGRES = Side.DYNAMODB, Side.POSTGRES


@pytest.fixture
def at_live(world: World) -> tuple[Process, Process]:
    """Two processes at `live`; both sides hold "before"."""
    record = ControlRecord(TABLE, stage=Stage.LIVE, loaded=True, verified=True, epoch=5, generation=20)
    world.control.install(replace(record, phase=Phase.MOVED))
    world.postgres_control.install(record)
    processes = world.process(), world.process()
    processes[0].put("before")
    pass_time(world, *processes, seconds=1)
    assert world.agree
    return processes


def homes(process: Process) -> dict[Side, object]:
    return {DYNAMODB: process.control, POSTGRES: process.postgres_control}


def failed_over(process: Process) -> ControlRecord:
    """Fail over from where a process stands, while time passes for nobody else."""
    return fail_over(
        process.control,
        foresee(homes(process), process.notes, TABLE),
        by="kim",
        reason="it burnt",
        at=1.0,
        write_grant=TIMES.write,
        clock=process.world.clock,
    )


def granted(process: Process) -> bool:
    """Whether a process may act on what it knows."""
    return process.agent.is_granted(TABLE, process.agent.view(TABLE).record.epoch)


def postgres_record(world: World) -> ControlRecord:
    return world.postgres_control.read_all()[TABLE]


# The record


def test_a_failover_is_announced_for_longer_than_any_grant_lasts_and_then_opens(
    world: World, at_live: tuple[Process, Process]
) -> None:
    before, phases = world.record, []
    world.clock.after(0.1, lambda: phases.append(world.record.phase))
    world.clock.after(WRITE_GRANT + 0.5, lambda: phases.append(world.record.phase))
    record = failed_over(at_live[0])
    assert phases == [Phase.CLOSED, Phase.CLOSED]
    assert record == world.record
    assert (record.phase, record.stage, record.authority) == (Phase.OPEN, Stage.SHADOW, DYNAMODB)
    assert (record.epoch, record.target) == (before.epoch + LEAP, Stage.LIVE)
    assert record.dials.postgres_read_percent == 0
    assert record.suspects == {f"{FAILED_OVER} (generation {before.generation + LEAP})"}
    assert not record.verified
    assert not record.mirror_readable
    assert record.postgres_role is PostgresRole.PAUSED
    assert record.failed_over == FailedOver("kim", 1.0, "it burnt")


def test_what_may_be_lost_is_what_was_noted_last_at_this_epoch(
    world: World, at_live: tuple[Process, Process]
) -> None:
    process, _ = at_live
    depth = OutboxDepth(entries=9, second_looks=2, refused=0, oldest_age=timedelta(seconds=30))
    process.notes.note_depth(TABLE, epoch=world.record.epoch - 1, at=5_000.0, depth=depth)
    assert foresee(homes(process), process.notes, TABLE).depth is None
    process.notes.note_depth(TABLE, epoch=world.record.epoch, at=5_000.0, depth=depth)
    noted = failed_over(process).failed_over
    assert noted is not None
    assert (noted.recovery_point, noted.rows, noted.rows_at) == (4_970.0, 7, 5_000.0)


def test_one_that_was_cut_short_is_gone_on_with_and_one_that_is_done_stays_as_it_is(
    world: World, at_live: tuple[Process, Process]
) -> None:
    process, other = at_live

    def die() -> None:
        raise Killed

    world.clock.after(1.0, die)
    with pytest.raises(Killed):
        failed_over(process)
    announced = world.record
    assert announced.phase is Phase.CLOSED
    pass_time(world, process, other, seconds=30)
    assert world.record == announced  # nobody opens it, and nobody gives it up
    opened = failed_over(other)
    assert (opened.epoch, opened.phase) == (announced.epoch, Phase.OPEN)
    assert failed_over(process) == opened


def test_a_copy_that_somebody_renews_meanwhile_shows_that_postgresql_lives(
    world: World, at_live: tuple[Process, Process]
) -> None:
    process, _ = at_live
    foreseen = foresee(homes(process), process.notes, TABLE)
    world.control.install(replace(world.record, generation=world.record.generation + 5))
    with pytest.raises(IllegalTransition, match="PostgreSQL is not gone"):
        fail_over(
            process.control, foreseen, by="kim", reason="", at=1.0, write_grant=TIMES.write, clock=world.clock
        )
    assert not world.record.decides


def test_there_is_nothing_to_fail_over_before_live_and_nothing_to_fail_over_to_after_rampdown(
    world: World,
) -> None:
    process = world.process()
    for stage in (Stage.OFF, Stage.SHADOW):
        bring(stage, process)
        with pytest.raises(IllegalTransition, match="is the authority of items-prod already"):
            foresee(homes(process), process.notes, TABLE)
    bring(Stage.LIVE, process)
    world.control.install(replace(world.record, stage=Stage.COMPLETE, generation=world.record.generation + 9))
    with pytest.raises(IllegalTransition, match="cannot stand in"):
        foresee(homes(process), process.notes, TABLE)


@pytest.mark.parametrize(
    "requested",
    [
        Requested(stage=Stage.LIVE),
        Requested(stage=Stage.DUALWRITE),
        Requested(stage=Stage.SHADOW, postgres_read_percent=1.0),
        Requested(stage=Stage.SHADOW, mirror_percent=50.0),
    ],
)
def test_until_it_is_reconciled_no_flag_moves_anything(requested: Requested) -> None:
    record = ControlRecord(
        TABLE, stage=Stage.SHADOW, loaded=True, verified=True, failed_over=FailedOver("kim", 0.0)
    )
    with pytest.raises(IllegalTransition, match="failed over to DynamoDB by kim at 1970") as refused:
        next_step(record, requested, reads_stopped=True)
    assert refused.value.reason == "failed_over"
    assert next_step(record, Requested(stage=Stage.SHADOW), reads_stopped=True).satisfied


def test_until_it_is_reconciled_no_verification_makes_postgresql_readable() -> None:
    record = ControlRecord(
        TABLE, stage=Stage.SHADOW, loaded=True, verified=True, failed_over=FailedOver("kim", 0.0)
    )
    assert not record.mirror_readable
    assert record.compared_percent == 0
    assert replace(record, failed_over=FailedOver("kim", 0.0, reconciled_at=9.0)).mirror_readable


def test_flags_that_still_ask_for_live_do_not_bring_a_reconciled_table_back() -> None:
    record = ControlRecord(
        TABLE,
        stage=Stage.SHADOW,
        target=Stage.LIVE,
        failed_over=FailedOver("kim", 0.0, reconciled_at=9.0),
        dials=Dials(),
    )
    with pytest.raises(IllegalTransition, match="nobody has asked for live since"):
        next_step(record, Requested(stage=Stage.LIVE), reads_stopped=True)


# Who reaches what


def test_who_cannot_reach_postgresql_follows_and_the_service_goes_on(
    world: World, at_live: tuple[Process, Process]
) -> None:
    for process in at_live:
        process.lose(POSTGRES)
        process.start()
    world.clock.advance(1.0)
    failed_over(at_live[0])
    world.clock.advance(2.0)
    for number, process in enumerate(at_live):
        process.put(f"after {number}")
        assert process.get() == f"after {number}"
    assert world.value(DYNAMODB) == "after 1"
    assert all(entry.confirmed[TABLE] >= world.record.generation for entry in world.control.processes())


def test_a_process_that_slept_through_it_all_does_not_write_postgresql_though_that_was_told_nothing(
    world: World, at_live: tuple[Process, Process]
) -> None:
    awake, sleeper = at_live
    awake.lose(POSTGRES)
    failed_over(awake)
    assert postgres_record(world).decides
    sleeper.put("late")
    assert (world.value(DYNAMODB), world.value(POSTGRES)) == ("late", "before")


def test_a_process_that_slept_through_it_all_does_not_read_postgresql(
    world: World, at_live: tuple[Process, Process]
) -> None:
    awake, sleeper = at_live
    awake.lose(POSTGRES)
    failed_over(awake)
    awake.put("after")
    assert sleeper.get() == "after"


def test_a_write_that_falls_asleep_on_its_way_to_postgresql_is_not_acknowledged(
    world: World, at_live: tuple[Process, Process]
) -> None:
    awake, sleeper = at_live
    awake.lose(POSTGRES)

    def sleep(name: str, _: object) -> None:
        if name == "execute_as_authority":
            sleeper.mirror.before = lambda *_: None
            failed_over(awake)

    sleeper.mirror.before = sleep
    with pytest.raises(ClientError) as unknown:
        sleeper.put("late")
    assert unknown.value.response["Error"]["Code"] == "InternalServerError"
    assert world.value(POSTGRES) == "late"  # it was done, and waits in the outbox to be listed


def test_a_condition_that_is_refused_by_a_lost_postgresql_is_asked_again_of_dynamodb(
    world: World, at_live: tuple[Process, Process]
) -> None:
    awake, sleeper = at_live
    awake.lose(POSTGRES)

    def sleep(name: str, _: object) -> None:
        if name == "execute_as_authority":
            sleeper.mirror.before = lambda *_: None
            failed_over(awake)
            awake.router.execute("DeleteItem", {"TableName": TABLE, "Key": {"id": {"S": "a"}}})

    sleeper.mirror.before = sleep
    sleeper.put("created", ConditionExpression="attribute_not_exists(id)")
    assert world.value(DYNAMODB) == "created"


def test_while_it_is_announced_nobody_who_reaches_dynamodb_writes_postgresql_past_a_grant(
    world: World, at_live: tuple[Process, Process]
) -> None:
    awake, other = at_live
    awake.lose(POSTGRES)
    written: list[float] = []
    other.mirror.before = lambda name, _: (
        written.append(world.clock.now()) if name == "execute_as_authority" else None
    )
    began = world.clock.now()

    def write() -> None:  # its threads starve: only its callers are there
        try:
            other.put("late")
        except ClientError:
            return

    for second in range(1, 10):
        world.clock.after(second, write)
    failed_over(awake)
    assert all(at - began < WRITE_GRANT for at in written)


def test_reading_postgresql_s_record_again_and_again_gives_no_grant_that_outlives_a_look_at_dynamodb(
    world: World, at_live: tuple[Process, Process]
) -> None:
    awake, other = at_live
    awake.lose(POSTGRES)

    def refresh() -> None:  # its thread that looks at DynamoDB hangs
        other.agent.refresh(table=TABLE)

    world.clock.every(0.4, refresh)
    failed_over(awake)
    other.put("late")
    assert (world.value(DYNAMODB), world.value(POSTGRES)) == ("late", "before")


def test_while_it_is_announced_dynamodb_answers_only_who_asks_for_no_latest_write(
    world: World, at_live: tuple[Process, Process]
) -> None:
    awake, other = at_live
    seen: list[str | None] = []

    def read() -> None:
        other.agent.tick()
        awake.put(
            "not in DynamoDB yet"
        )  # it has not heard of the failover, and may write for a grant's length
        seen.append(other.get())
        with pytest.raises(ClientError, match="is taking items-prod over"):
            other.get(ConsistentRead=True)

    world.clock.after(0.1, read)
    failed_over(awake)
    assert seen == ["before"]
    other.agent.tick()
    assert other.get(ConsistentRead=True) == "before"


def test_a_process_that_does_not_reach_dynamodb_goes_on_with_postgresql_until_it_does(
    world: World, at_live: tuple[Process, Process]
) -> None:
    awake, cut_off = at_live
    awake.lose(POSTGRES)
    cut_off.lose(DYNAMODB)
    cut_off.start()
    failed_over(awake)
    cut_off.put("to be listed")
    assert world.value(POSTGRES) == "to be listed"
    assert world.outbox.depth(TABLE).entries == 1
    cut_off.lose(DYNAMODB, lost=False)
    world.clock.advance(1.0)
    cut_off.put("after")
    assert (world.value(DYNAMODB), world.value(POSTGRES)) == ("after", "to be listed")


def test_while_dynamodb_is_away_grants_go_on_without_a_break(
    world: World, at_live: tuple[Process, Process]
) -> None:
    process, _ = at_live
    process.lose(DYNAMODB)
    for _ in range(200):
        pass_time(world, process, seconds=0.25)
        assert granted(process)


def test_a_dynamodb_that_hangs_for_longer_than_a_grant_does_not_stop_the_authority(
    world: World, at_live: tuple[Process, Process]
) -> None:
    process, _ = at_live
    process.bookkeeping.before = lambda *_: world.clock.advance(WRITE_GRANT + 1)
    process.lose(DYNAMODB)
    for number in range(5):
        world.clock.advance(0.4)
        process.round()
        process.put(str(number))
        assert world.value(POSTGRES) == str(number)


def test_while_a_look_waits_for_its_answer_the_grants_of_postgresql_go_on(
    world: World, at_live: tuple[Process, Process]
) -> None:
    process, _ = at_live
    written = []

    def hang(*_: object) -> None:
        process.bookkeeping.before = lambda *_: None
        for number in range(80):  # twice a grant's length, in which the other threads go on
            world.clock.advance(WRITE_GRANT / 40)
            process.agent.refresh(table=TABLE)
            if granted(process):
                written.append(number)

    process.bookkeeping.before = hang
    process.agent.tick()
    assert written == list(range(80))


def test_a_failover_that_one_thread_has_just_found_gives_no_other_a_grant(
    world: World, at_live: tuple[Process, Process]
) -> None:
    awake, other = at_live
    awake.lose(POSTGRES)
    found = []

    def find() -> None:
        assert other.agent._watch.look().keys() == {TABLE}  # and its thread has not said so yet
        other.agent._refreshing._refresh_side(POSTGRES, beat=True)
        found.append(granted(other))

    world.clock.after(0.1, find)
    failed_over(awake)
    assert found == [False]


def at_complete(world: World, *processes: Process) -> None:
    """Lead a table to `complete`, and have the copy in DynamoDB say so, as a repair does."""
    bring(Stage.COMPLETE, *processes)
    world.control.install(replace(world.decided, phase=Phase.MOVED))
    for process in processes:
        process.agent.tick()


def test_at_complete_nobody_asks_dynamodb_for_anything(world: World) -> None:
    process = world.process()
    at_complete(world, process)
    process.bookkeeping.calls.clear()
    pass_time(world, process, seconds=3 * WRITE_GRANT)
    assert process.bookkeeping.calls == []
    process.put("on and on")


def test_until_the_copy_says_complete_too_failovers_are_looked_out_for(world: World) -> None:
    process = world.process()
    at_complete(world, process)
    assert world.postgres_control.change(world.decided, verified=False) is not None
    process.agent.tick()
    process.bookkeeping.calls.clear()
    process.agent.tick()
    assert process.bookkeeping.calls


def test_a_process_that_slept_from_complete_to_a_failover_at_rampdown_does_not_write_postgresql(
    world: World,
) -> None:
    awake, sleeper = world.process(), world.process()
    at_complete(world, awake, sleeper)
    awake.put("before")
    awake.ask(Stage.RAMPDOWN)
    pass_time(world, awake, seconds=1)
    assert world.is_at(Stage.RAMPDOWN)
    world.control.install(replace(world.decided, phase=Phase.MOVED))
    pass_time(world, awake, seconds=1)
    awake.lose(POSTGRES)
    failed_over(awake)
    sleeper.put("after")
    assert (world.value(DYNAMODB), world.value(POSTGRES)) == ("after", "before")


def test_a_sender_that_slept_through_it_all_overwrites_nothing(
    world: World, at_live: tuple[Process, Process]
) -> None:
    awake, sleeper = at_live
    sleeper.put("lost")  # in the outbox; nobody has sent it yet
    awake.lose(POSTGRES)
    failed_over(awake)
    awake.put("after")
    sleeper.hand_over()
    assert world.value(DYNAMODB) == "after"


# PostgreSQL is back


def test_a_sender_whose_process_has_long_followed_the_failover_sends_nothing_of_the_epoch_before(
    world: World, at_live: tuple[Process, Process]
) -> None:
    awake, sleeper = at_live
    awake.put("created", key="b")

    def sleep(name: str, _: object) -> None:
        if name == "mark_sent":  # the thread that sends stands still; the others of its process go on
            sleeper.outbox.before = lambda *_: None
            failed_over(awake)
            sleeper.agent.tick()
            assert sleeper.agent.view(TABLE).record.authority is DYNAMODB

    sleeper.outbox.before = sleep
    world.clock.advance(3)  # for as long as the other's lease
    sleeper.hand_over()
    assert world.record.phase is Phase.OPEN
    assert world.record.authority is DYNAMODB
    assert world.value(DYNAMODB, "b") is None  # it may have been created and deleted there since


def test_who_starts_when_postgresql_is_back_tells_it_before_anything_else(
    world: World, at_live: tuple[Process, Process]
) -> None:
    record = failed_over(at_live[0])
    assert postgres_record(world).decides
    newcomer = world.process()
    assert postgres_record(world) == replace(record, phase=Phase.MOVED)
    newcomer.put("after")
    assert (world.value(DYNAMODB), world.value(POSTGRES)) == ("after", "before")


def test_a_postgresql_that_was_told_takes_neither_writes_of_an_authority_nor_of_a_mirror(
    world: World, at_live: tuple[Process, Process]
) -> None:
    process, _ = at_live
    failed_over(process)
    world.process()
    process.put("after")
    pass_time(world, process, seconds=5)
    assert world.value(POSTGRES) == "before"  # what was lost can still be listed


def test_a_record_that_was_made_anew_is_told_from_one_of_a_failover(
    world: World, at_live: tuple[Process, Process]
) -> None:
    failed_over(at_live[0])
    record = world.record
    world.postgres_control._records[TABLE] = replace(postgres_record(world), epoch=record.epoch + 1)
    with pytest.raises(Unavailable, match="PostgreSQL's is of a later epoch") as refused:
        world.process()
    assert "Delete that one" not in str(refused.value)


# Signs of life


def test_a_process_that_reaches_postgresql_shows_that_it_lives_though_this_machine_does_not_reach_it(
    world: World, at_live: tuple[Process, Process]
) -> None:
    serving, cut_off = at_live
    cut_off.lose(POSTGRES)
    for process in at_live:
        process.start()
    world.clock.advance(5.0)
    operator = Process(world)
    operator.lose(POSTGRES)
    signs = look_for_life(
        homes(operator), operator.notes, TABLE, period=timedelta(seconds=5), clock=world.clock
    )
    assert not signs.postgres_answers
    assert [word.id for word in signs.reaching] == [serving.agent.registries[POSTGRES].id]
    assert [word.id for word in signs.cut_off] == [cut_off.agent.registries[POSTGRES].id]
    assert signs.postgres_lives


def test_a_process_that_says_nothing_is_named_and_proves_nothing(
    world: World, at_live: tuple[Process, Process]
) -> None:
    operator = Process(world)
    operator.lose(POSTGRES)
    signs = look_for_life(
        homes(operator), operator.notes, TABLE, period=timedelta(seconds=5), clock=world.clock
    )
    assert {word.id for word in signs.silent} == {each.agent.registries[POSTGRES].id for each in at_live}
    assert not signs.postgres_lives


def test_where_postgresql_answers_here_nothing_else_is_waited_for(
    world: World, at_live: tuple[Process, Process]
) -> None:
    operator = Process(world)
    began = world.clock.now()
    signs = look_for_life(
        homes(operator), operator.notes, TABLE, period=timedelta(seconds=5), clock=world.clock
    )
    assert signs.postgres_lives
    assert world.clock.now() - began < 1.0
    assert not signs.silent, "nobody was given the time to say anything"
