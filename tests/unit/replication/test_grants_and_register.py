"""A grant and the register: nobody writes unseen, nobody who may still write the mirror is forgotten."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError

from dualstore.control import Gate
from dualstore.errors import MirrorFenced, Unavailable
from dualstore.items import KeyAttribute, KeySchema, TableShape
from dualstore.mapping import unmapped_table
from dualstore.operations import PutItem
from dualstore.replication.registry import ProcessEntry
from dualstore.replication.served import ServedTable
from dualstore.stages import Dials, Side, Stage
from dualstore.store.table import MigratedTable
from unit.replication.processes import (
    READABLE,
    SERVED,
    SHAPE,
    TABLE,
    WRITE_GRANT,
    Process,
    World,
    fallen_silent,
    stored,
)

OTHER = ServedTable("other", TableShape("other-prod", KeySchema(KeyAttribute("id", "S"))))
KEY = {"id": {"S": "a"}}


def lagging(watcher: Process, table: str = TABLE) -> list[ProcessEntry]:
    """Whom a backfill would wait for now."""
    generation = watcher.control.read_all()[table].generation
    entries = [entry for entry in watcher.registry.processes() if table in entry.confirmed]
    return [entry for entry in entries if entry.confirmed[table] < generation]


def before_its_beat(process: Process, act: Callable[[], None]) -> list[str]:
    """Let something happen once, right before the next entry of a process; says whether it has."""
    done: list[str] = []

    def check(name: str, args: tuple[Any, ...]) -> None:
        operation = args[0]
        beats = isinstance(operation, PutItem) and operation.item.get("pk") == {"S": "process"}
        if beats and not done:
            done.append(name)
            act()

    process.bookkeeping.before = check
    return done


def begin_to_mirror(watcher: Process, table: str = TABLE) -> Callable[[], None]:
    """Decide `dualwrite`, see that nobody lags, and let the mirror be read: a backfill has ended."""

    def act() -> None:
        control = watcher.world.control
        record = control.read_all()[table]
        decided = control.change(record, stage=Stage.DUALWRITE, mirrored_since=record.generation + 1)
        assert decided is not None
        watcher.agent.refresh()
        assert lagging(watcher, table) == []
        control.change(decided, loaded=True, dials=Dials(postgres_read_percent=100.0))
        watcher.agent.refresh()

    return act


def fall_silent(watcher: Process) -> None:
    """Let time pass with nobody but the watcher alive."""
    for _ in range(20):
        watcher.world.clock.advance(1.0)
        watcher.agent.tick()


# A grant never rests on a read from before the process was in the register.


def test_the_first_grant_rests_on_a_read_made_after_the_process_was_in_the_register(world: World) -> None:
    watcher, newcomer = world.process(), Process(world)
    happened = before_its_beat(newcomer, begin_to_mirror(watcher))
    newcomer.agent.serve(TABLE, logical="items")
    newcomer.put("acknowledged")
    assert happened
    assert stored(world.mirror) == stored(world.authority)
    assert (watcher.get(), watcher.observed) == ("acknowledged", [Side.POSTGRES])


def test_whoever_was_taken_for_dead_reads_again_once_it_is_back_in_the_register(world: World) -> None:
    watcher, sleeper = world.process(), world.process()
    fall_silent(watcher)
    assert len(watcher.registry.processes()) == 1
    happened = before_its_beat(sleeper, begin_to_mirror(watcher))
    sleeper.put("acknowledged")
    assert happened
    assert stored(world.mirror) == stored(world.authority)
    assert (watcher.get(), watcher.observed) == ("acknowledged", [Side.POSTGRES])


def test_a_further_table_is_served_under_a_read_made_after_the_register_named_it() -> None:
    shapes = {TABLE: SHAPE, OTHER.physical: OTHER.shape}
    world = World(shapes)
    watcher, process = world.process(), world.process()
    watcher.agent.serve(OTHER.physical, logical=OTHER.logical)
    happened = before_its_beat(process, begin_to_mirror(watcher, OTHER.physical))
    process.agent.serve(OTHER.physical, logical=OTHER.logical)
    item = {**KEY, "v": {"S": "acknowledged"}}
    with process.agent.writing(OTHER.physical) as view:
        process.mirroring.write(OTHER, PutItem({"TableName": OTHER.physical, "Item": item}), view)
    assert happened
    mirrored = world.mirror.state(OTHER.physical, KEY).item
    assert mirrored is not None
    assert mirrored == world.authority.state(OTHER.physical, KEY).item


def test_a_process_that_is_in_the_register_reads_once_for_each_grant(world: World, process: Process) -> None:
    world.clock.advance(WRITE_GRANT / 2)
    process.bookkeeping.calls.clear()
    process.agent.refresh()
    assert process.bookkeeping.calls == ["execute", "execute"]  # the records, and a beat
    assert process.agent.view(TABLE).write_until == world.clock.now() + WRITE_GRANT


# Who is taken for dead at `off` may still have a write for the mirror on its way.


@pytest.mark.parametrize("confirmed", ["off", "dualwrite"])
def test_a_process_taken_for_dead_at_off_makes_the_table_suspect_unless_it_had_confirmed_off(
    world: World, two: tuple[Process, Process], confirmed: str
) -> None:
    watcher, dead = two
    world.decide(stage=Stage.OFF, dials=Dials(), loaded=False)
    if confirmed == Stage.OFF:
        dead.agent.refresh()
    fall_silent(watcher)
    assert fallen_silent(world.record) == (set() if confirmed == Stage.OFF else {dead.registry.id})
    assert len(watcher.registry.processes()) == 1


def test_a_direct_write_that_slept_through_off_is_not_read_from_the_mirror(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, watcher = two

    def asleep(name: str, args: tuple[Any, ...]) -> None:
        if name != "write_direct":
            return
        writer.mirror.before = lambda *_: None
        world.decide(stage=Stage.OFF, dials=Dials(), loaded=False)
        watcher.agent.refresh()
        watcher.router.execute("DeleteItem", {"TableName": TABLE, "Key": KEY})
        fall_silent(watcher)
        begin_to_mirror(watcher)()

    writer.mirror.before = asleep
    writer.put("deleted meanwhile")
    assert stored(world.mirror) is not None
    assert watcher.get() is None
    assert watcher.observed == [Side.DYNAMODB]


# What is settled too late the fence keeps out.


def flagged_to(watcher: Process, stage: Stage) -> None:
    """Take the table to a neighbouring stage as a flag owner does."""
    watcher.flags.set("items", stage=stage, postgres_read_percent=0.0)
    for _ in range(20):
        watcher.world.clock.advance(0.5)
        watcher.agent.tick()
    assert watcher.world.record.stage is stage


@pytest.mark.parametrize("by", ["repair", "table"])
def test_what_was_to_be_settled_before_mirroring_ended_is_kept_out_when_it_has_begun_again(
    world: World, two: tuple[Process, Process], by: str
) -> None:
    settler, watcher = two
    settler.mirror.store.mark_dirty(TABLE, KEY, nonce="n", reason="test")
    world.authority.execute(PutItem({"TableName": TABLE, "Item": {**KEY, "v": {"S": "old"}}}))

    def overtaken(name: str, args: tuple[Any, ...]) -> None:
        if name == "write_settled":
            settler.mirror.before = lambda *_: None
            for stage in (Stage.OFF, Stage.DUALWRITE):
                flagged_to(watcher, stage)

    settler.mirror.before = overtaken
    if by == "repair":
        settler.repair()
    else:
        table = MigratedTable(
            SERVED,
            unmapped_table("items", SHAPE),
            engine=sa.create_engine("postgresql+psycopg://never-connected"),
            mirroring=settler.mirroring,
            agent=settler.agent,
        )
        with pytest.raises(MirrorFenced):
            table._settling.settle_on_postgres(KEY)
    assert stored(world.mirror) is None


# Closing


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("PutItem", {"TableName": TABLE, "Item": KEY}),
        ("UpdateItem", {"TableName": TABLE, "Key": KEY}),
        ("DeleteItem", {"TableName": TABLE, "Key": KEY}),
        ("BatchWriteItem", {"RequestItems": {TABLE: [{"PutRequest": {"Item": KEY}}]}}),
        ("TransactWriteItems", {"TransactItems": [{"Put": {"TableName": TABLE, "Item": KEY}}]}),
    ],
)
def test_a_write_after_close_is_refused(
    world: World, two: tuple[Process, Process], name: str, body: dict[str, Any]
) -> None:
    process, other = two
    other.put("kept")
    process.agent.close()
    process.authority.calls.clear()
    with pytest.raises(ClientError, match="closed"):
        process.router.execute(name, body)
    assert process.authority.calls == []
    assert (other.get(), process.get()) == ("kept", "kept")


@pytest.mark.parametrize("late", ["refresh", "tick", "refreshed"])
def test_a_refresh_after_close_does_not_come_back_into_the_register(
    world: World, two: tuple[Process, Process], late: str
) -> None:
    watcher, gone = two
    gone.agent.close()
    world.clock.advance(WRITE_GRANT)
    with pytest.raises(Unavailable, match="closed"):
        getattr(gone.agent, late)(*([TABLE] if late == "refreshed" else []))
    fall_silent(watcher)
    assert [entry.id for entry in watcher.registry.processes()] == [watcher.registry.id]
    assert world.record.suspects == frozenset()


def test_a_repair_after_close_leaves_the_doubt_to_others(world: World, two: tuple[Process, Process]) -> None:
    other, gone = two
    gone.mirror.down = True
    gone.put("first")
    gone.mirror.down = False
    gone.agent.close()
    with pytest.raises(Unavailable, match="closed"):
        gone.repair()
    assert gone.journalled() == 1
    assert other.repair().gate is Gate.OPEN
    assert stored(world.mirror) == stored(world.authority)


def test_a_write_that_had_begun_before_close_is_finished_and_mirrored(world: World) -> None:
    process, watcher = world.process(), world.process()
    world.decide(**READABLE)
    watcher.agent.refresh()
    process.agent.refresh()
    entries: list[int] = []

    def closing(name: str, args: tuple[Any, ...]) -> None:
        if name == "write_direct":
            process.agent.close()
            entries.append(len(watcher.registry.processes()))

    process.mirror.before = closing
    process.put("begun before")
    assert entries == [2]
    assert stored(world.mirror) == stored(world.authority)
    assert watcher.get() == "begun before"
