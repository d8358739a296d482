"""The authority moves while processes die, databases are away, views are old: nothing is lost."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import Phase
from dualstore.errors import MirrorFenced, Unavailable
from dualstore.operations import PutItem
from dualstore.replication.first_record import bring_decisions_over
from dualstore.stages import Side, Stage
from dualstore.stores.memory import MemoryStore
from unit.replication.processes import (
    BOOKKEEPING,
    READABLE,
    SERVED,
    TABLE,
    WRITE_GRANT,
    Process,
    World,
    bring,
    fallen_silent,
    pass_time,
)
from unit.replication.test_flip import CLOSED, MOVE, MOVED, PATIENCE, WAYS, closed, refused
from volume import every

D, P = Side.DYNAMODB, Side.POSTGRES
LONG = 12.0
KEY = {"id": {"S": "a"}}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[Stage, Stage]:
    return WAYS[request.param]


def moving(way: tuple[Stage, Stage]) -> tuple[World, Process, Process]:
    """A world in which two processes ask for a move from now on, and go on as time passes."""
    world = World()
    mover, other = world.process(), world.process()
    bring(way[0], mover, other)
    mover.put("0")
    pass_time(world, mover, other, seconds=2)
    assert world.agree
    for process in (mover, other):
        process.ask(way[1])
        process.start()
    return world, mover, other


def write_on(process: Process, *, seconds: float) -> Iterator[int]:
    """Write and read one key for some time; gives each number that was acknowledged."""
    world = process.world
    until, last = world.clock.now() + seconds, None
    for number in itertools.count(1):
        if world.clock.now() >= until:
            return
        try:
            process.put(str(number))
        except (ClientError, BotoCoreError):
            last = None  # it may have been carried out, or not
        else:
            last = number
            yield number
        try:
            found = process.get()
        except (ClientError, BotoCoreError):
            pass
        else:
            assert last is None or found == str(last), "an acknowledged write is not read"
        assert len(world.deciding) <= 1
        world.clock.advance(0.4)


def come_to_rest(world: World, *processes: Process) -> None:
    """Let all that is left to do be done, and check that it was."""
    world.clock.advance(LONG)
    record = world.decided
    assert record.phase is Phase.OPEN
    assert world.agree
    for number, process in enumerate(processes):
        process.put(f"last {number}")
        assert {each.get() for each in processes} == {f"last {number}"}
        assert world.value(record.authority) == f"last {number}"


def goes_down_at_the_opening(mover: Process, side: Side) -> None:
    """Let a process lose the control records of the database that is to decide when it writes there."""
    link = mover.links(side)[1]

    def check(name: str, args: tuple[Any, ...]) -> None:
        if name == "install" or (name == "execute" and not args[0].reads):
            link.before, link.down = (lambda *_: None), True

    link.before = check


# A process dies


def test_wherever_the_process_that_moves_the_authority_dies_another_takes_over_or_gives_up(
    way: tuple[Stage, Stage],
) -> None:
    """One history for each call for bookkeeping that it makes during the move."""
    outcomes = set()
    for call in every(itertools.count(), nth=3):
        world, mover, other = moving(way)
        mover.at_call(call, mover.die, within=lambda: not world.is_at(way[1]))  # noqa: B023
        acknowledged = list(write_on(other, seconds=LONG))
        if not mover.dead:
            break
        assert len(acknowledged) > LONG / 2, call
        come_to_rest(world, other)
        record = world.decided
        assert record.stage is way[1] or record.target is way[1], call
        outcomes.add(record.stage)
    assert call > 5
    assert way[1] in outcomes
    # DynamoDB cannot refuse what a process may yet send: the dead is waited for, unless it has confirmed.
    assert (way[0] in outcomes) is (way[0].rule.authority is D)


@pytest.mark.parametrize("died", ["closed", "moved"])
def test_a_move_is_completed_by_another_process_after_the_first_died(
    way: tuple[Stage, Stage], died: str
) -> None:
    world = World()
    mover, other = world.process(), world.process()
    bring(way[0], mover, other)
    pass_time(world, mover, other, seconds=1)
    closed(mover, way[1])
    other.agent.tick()
    if died == "moved":
        goes_down_at_the_opening(mover, way[1].rule.authority)
        mover.round()
        assert not world.deciding
    mover.dead = True
    if died == "moved":
        for _ in range(2):  # at once: what was decided is only to be completed, and then found
            other.agent.tick()
    else:
        pass_time(world, other, seconds=1.5)
    assert world.decided.stage is way[1]
    other.put("goes on")
    assert world.value(way[1].rule.authority) == "goes on"


# Databases go away


def outages(
    way: tuple[Stage, Stage], *away: tuple[Side, float, float]
) -> Iterator[tuple[World, Process, Process]]:
    """One history for each call for bookkeeping that is made in a move: there the first database goes away.

    Args:
        way: the move.
        away: databases, how long after that call they go away, and for how long.
    """
    for call in every(itertools.count(), nth=3):
        world, mover, other = moving(way)
        struck: list[int] = []

        def lose(side: Side, lost: bool, both: tuple[Process, ...] = (mover, other)) -> None:  # noqa: FBT001
            for process in both:
                process.lose(side, lost=lost)

        def strike(
            world: World = world, struck: list[int] = struck, lose: Any = lose, call: int = call
        ) -> None:
            struck.append(call)
            for side, after, seconds in away:
                if after:
                    world.clock.after(after, partial(lose, side, lost=True))
                else:
                    lose(side, lost=True)
                world.clock.after(after + seconds, partial(lose, side, lost=False))

        mover.at_call(call, strike, within=lambda world=world: not world.is_at(way[1]))  # type: ignore[misc]
        yield world, mover, other
        if not struck:
            assert call > 5
            return


@pytest.mark.parametrize("away", Side)
@pytest.mark.parametrize("seconds", [1.0, MOVE + 2])
def test_wherever_a_database_goes_away_during_a_move_one_record_decides_in_the_end(
    way: tuple[Stage, Stage], away: Side, seconds: float
) -> None:
    for world, mover, other in outages(way, (away, 0.0, seconds)):
        assert len(list(write_on(other, seconds=seconds + 5))) > 5
        come_to_rest(world, mover, other)


@pytest.mark.parametrize("first", Side)
def test_wherever_both_databases_go_away_one_after_the_other_one_record_decides_in_the_end(
    way: tuple[Stage, Stage], first: Side
) -> None:
    for world, mover, other in outages(way, (first, 0.0, 3.0), (first.other, 2.0, 3.0)):
        list(write_on(other, seconds=6))
        come_to_rest(world, mover, other)


# Nobody acts on `moved`


def test_nobody_acts_on_a_record_that_has_moved(world: World, way: tuple[Stage, Stage]) -> None:
    mover, other = world.process(), world.process()
    bring(way[0], mover, other)
    mover.put("before")
    pass_time(world, mover, other, seconds=1)
    closed(mover, way[1])
    other.agent.tick()
    goes_down_at_the_opening(mover, way[1].rule.authority)
    other.links(way[1].rule.authority)[1].down = True
    mover.round()
    assert not world.deciding
    other.round()
    assert other.agent.view(TABLE).record.phase is MOVED
    began = world.clock.now()
    refused(lambda: other.put("never"))
    refused(other.get)
    assert world.clock.now() - began == pytest.approx(2 * PATIENCE, abs=0.1)
    assert [world.value(side) for side in Side] == ["before", "before"]
    for each in (mover, other):
        each.links(way[1].rule.authority)[1].down = False
    pass_time(world, other, seconds=0.5)
    assert other.get() == "before"
    other.put("after")
    assert world.value(way[1].rule.authority) == "after"


# Starts


@pytest.mark.parametrize(
    ("stage", "away"),
    [
        (Stage.OFF, P),
        (Stage.DUALWRITE, P),
        (Stage.SHADOW, P),
        (Stage.LIVE, D),
        (Stage.RAMPDOWN, D),
        (Stage.COMPLETE, D),
    ],
)
def test_a_process_starts_reads_and_writes_while_the_database_that_does_not_decide_is_away(
    world: World, stage: Stage, away: Side
) -> None:
    old = world.process()
    bring(stage, old)
    old.put("before")
    pass_time(world, old, seconds=1)
    old.agent.close()
    new = Process(world)
    new.lose(away)
    new.serve()
    assert new.get() == "before"
    for number in range(30):
        new.put(str(number))
        assert new.get() == str(number)
        new.round()
        world.clock.advance(1)
    assert world.value(away.other) == "29"
    assert world.decided.stage is stage
    assert world.decided.suspects == frozenset()
    new.lose(away, lost=False)
    pass_time(world, new, seconds=5)
    assert world.agree or stage in {Stage.OFF, Stage.COMPLETE}


def test_at_complete_the_bookkeeping_table_of_dynamodb_may_go_too(world: World) -> None:
    bring(Stage.COMPLETE, world.process())
    world.bookkeeping = MemoryStore({})
    new = world.process()
    new.put("after")
    assert (new.get(), world.value(P)) == ("after", "after")


@pytest.mark.parametrize("stage", [Stage.LIVE, Stage.RAMPDOWN, Stage.COMPLETE])
def test_a_second_record_is_not_made_where_postgresql_decides(world: World, stage: Stage) -> None:
    bring(stage, world.process())
    world.bookkeeping = MemoryStore({"dualstore": BOOKKEEPING})  # emptied, or made anew
    new = world.process()
    assert world.record.phase is Phase.MOVED
    new.put("after")
    assert world.value(P) == "after"
    assert new.agent.view(TABLE).record.stage is stage


def test_no_record_is_made_where_postgresql_which_may_decide_does_not_answer(world: World) -> None:
    """Not to know is not "no"; a bookkeeping table that knew of every decision once knows for good."""
    bring(Stage.COMPLETE, world.process())
    world.bookkeeping = MemoryStore({"dualstore": BOOKKEEPING})  # emptied, or made anew
    early = Process(world)
    early.lose(P)
    with pytest.raises(Unavailable, match="PostgreSQL, which may hold the one that decides"):
        early.serve()
    assert world.control.read_all() == {}
    early.lose(P, lost=False)
    early.serve()
    early.put("after")
    assert world.value(P) == "after"


def test_a_first_record_is_made_without_postgresql_once_the_bookkeeping_table_knew_it(world: World) -> None:
    bring_decisions_over({D: world.control, P: world.postgres_control})  # as `prepare` does
    first = Process(world)
    first.lose(P)
    first.serve()
    first.put("1")
    assert (world.value(D), world.decided.stage) == ("1", Stage.OFF)


def test_a_first_record_is_made_where_postgresql_has_never_kept_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks_its_schema() -> None:
        raise Unavailable("the database lacks something")

    monkeypatch.setattr(world.postgres_control, "read_all", lacks_its_schema)
    monkeypatch.setattr(world.postgres_control, "is_prepared", lambda: False)
    world.process()
    assert world.record.stage is Stage.OFF


# Late writes of an old epoch


def verified(world: World) -> None:
    """A verification has ended all suspicions."""
    world.decide(suspects=frozenset(), verified=True)


@pytest.mark.parametrize("late", ["write_direct", "write_settled"])
def test_a_mirror_write_that_slept_through_a_move_to_postgresql_is_kept_out(world: World, late: str) -> None:
    sleeper, mover = world.process(), world.process()
    bring(Stage.SHADOW, sleeper, mover)

    def asleep(name: str, args: tuple[Any, ...]) -> None:
        if name != late:
            return
        sleeper.mirror.before = lambda *_: None
        if late == "write_direct":
            # The whole process sleeps: it is taken for dead; the relay settles, and a verification says so.
            pass_time(world, mover, seconds=2 * WRITE_GRANT)
            assert sleeper.registry.id in fallen_silent(world.decided)
            mover.mirroring.settle(SERVED, [KEY])
            verified(world)
            bring(Stage.LIVE, mover)
        else:
            mover.mirroring.settle(SERVED, [KEY])
            bring(Stage.LIVE, mover, sleeper)  # a settle is not waited for: its process confirms
        mover.put("of the new epoch")

    sleeper.mirror.before = asleep
    if late == "write_direct":
        sleeper.put("of the old epoch")
    else:
        world.authority.execute(
            PutItem({"TableName": TABLE, "Item": {**KEY, "v": {"S": "of the old epoch"}}})
        )
        sleeper.mirroring.settle(SERVED, [KEY])
    assert world.decided.stage is Stage.LIVE
    assert world.value(P) == "of the new epoch"
    pass_time(world, sleeper, mover, seconds=2)
    assert world.agree
    assert {each.get() for each in (sleeper, mover)} == {"of the new epoch"}


def test_a_write_of_an_old_epoch_is_refused_by_the_fence_itself(world: World) -> None:
    process = world.process()
    bring(Stage.SHADOW, process)
    epoch = world.decided.epoch
    bring(Stage.LIVE, process)
    bring(Stage.SHADOW, process)
    for wrong in (epoch, epoch + 1):
        with pytest.raises(MirrorFenced):
            world.mirror.write_direct(TABLE, KEY, None, stamp=b"s" * 16, predecessor=None, epoch=wrong)
    assert world.mirror.write_direct(
        TABLE, KEY, None, stamp=b"s" * 16, predecessor=None, epoch=world.decided.epoch
    )


# Old views


def test_a_process_that_still_takes_postgresql_for_the_authority_is_refused_looks_again_and_goes_on(
    world: World,
) -> None:
    mover, stale = world.process(), world.process()
    bring(Stage.LIVE, mover, stale)
    mover.put("before")
    bring(Stage.SHADOW, mover)
    assert stale.agent.view(TABLE).record.stage is Stage.LIVE
    stale.put("after")
    assert [world.value(side) for side in Side] == ["after", "after"]
    assert stale.agent.view(TABLE).record.stage is Stage.SHADOW


@pytest.mark.parametrize("act", ["put", "get"])
def test_a_process_whose_epoch_has_passed_at_the_same_authority_looks_again_and_goes_on(
    world: World, act: str
) -> None:
    mover, stale = world.process(), world.process()
    bring(Stage.LIVE, mover, stale)
    bring(Stage.SHADOW, mover)
    pass_time(world, mover, seconds=2 * WRITE_GRANT)
    if world.decided.suspects:
        verified(world)
    bring(Stage.LIVE, mover)
    mover.put("newer")
    assert stale.agent.view(TABLE).record.epoch < world.decided.epoch
    if act == "get":
        assert stale.get() == "newer"
    else:
        stale.put("newest")
        assert mover.get() == "newest"
    assert stale.agent.view(TABLE).record.epoch == world.decided.epoch


# Reads


@pytest.fixture
def reading(world: World) -> tuple[Process, Process]:
    """One that moves the authority, and one that reads and whose agent is slow."""
    processes = world.process(), world.process()
    bring(Stage.SHADOW, *processes)
    processes[0].put("old")
    return processes


def moved_and_written(mover: Process) -> None:
    mover.agent.tick()
    assert mover.world.decided.stage is Stage.LIVE
    mover.put("new")
    assert mover.world.value(D) == "old"


def test_no_stale_read_under_a_view_of_the_pause(reading: tuple[Process, Process]) -> None:
    """The move waits for writes that are under way, and for no grant to read."""
    mover, reader = reading
    closed(mover, Stage.LIVE)
    reader.agent.tick()
    moved_and_written(mover)
    assert reader.agent.view(TABLE).record.phase is CLOSED
    assert reader.agent.view(TABLE).write_until > reader.agent.clock.now()
    assert reader.get() == "new"


def test_a_read_goes_on_while_writes_pause(reading: tuple[Process, Process]) -> None:
    mover, reader = reading
    closed(mover, Stage.LIVE)
    reader.agent.tick()
    began = reader.agent.clock.now()
    assert reader.get() == "old"
    assert reader.agent.clock.now() == began


@pytest.mark.parametrize("lapses", ["before the read", "during the read"])
def test_no_stale_read_under_a_grant_that_has_lapsed(
    world: World, reading: tuple[Process, Process], lapses: str
) -> None:
    mover, reader = reading

    def meanwhile(*_: object) -> None:
        reader.authority.before = lambda *_: None
        pass_time(world, mover, seconds=2 * WRITE_GRANT)
        verified(world)
        closed(mover, Stage.LIVE)
        moved_and_written(mover)

    if lapses == "before the read":
        meanwhile()
    else:
        asked = reader.authority.store.execute

        def answered(operation: Any) -> Any:
            answer = asked(operation)
            if reader.authority.store.execute is answered:
                reader.authority.store.execute = asked
                meanwhile()
            return answer

        reader.authority.store.execute = answered
    assert reader.get() == "new"
    assert reader.observed[-1] is P


def test_a_mirror_read_under_a_grant_of_before_a_move_is_not_given_out(world: World) -> None:
    """At the next epoch the mirror may be what is behind, though loaded and gate say nothing new."""
    mover, reader = world.process(), world.process()
    bring(Stage.SHADOW, mover, reader)
    world.decide(**{**READABLE, "stage": Stage.SHADOW})
    for each in (mover, reader):
        each.agent.tick()
    mover.put("old")

    def meanwhile(name: str, args: tuple[Any, ...]) -> None:
        if name == "execute_as_mirror":
            reader.mirror.before = lambda *_: None
            world.decide(epoch=world.record.epoch + 1)
            reader.agent.refresh()

    reader.mirror.before = meanwhile
    assert reader.get() == "old"
    assert reader.observed == [D]


def test_a_read_waits_where_the_record_has_moved_and_the_other_is_not_open_yet(
    world: World, reading: tuple[Process, Process]
) -> None:
    mover, reader = reading
    closed(mover, Stage.LIVE)
    reader.agent.tick()
    mover.postgres_control.down = reader.postgres_control.down = True
    mover.round()
    reader.round()
    assert reader.agent.view(TABLE).record.phase is MOVED

    def back() -> None:
        mover.postgres_control.down = reader.postgres_control.down = False
        pass_time(world, mover, reader, seconds=0.5)
        mover.put("new")

    world.clock.after(1.0, back)
    began = world.clock.now()
    assert reader.get() == "new"
    assert 1.5 <= world.clock.now() - began < 1.6
