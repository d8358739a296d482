"""Who waits, and for how long: for readers of the mirror, and for a mirror that is slow."""

import itertools
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from dualstore.control import Gate
from dualstore.errors import MirrorRefused, MirrorUnavailable
from dualstore.operations import PutItem
from dualstore.replication.health import MirrorHealth
from dualstore.stages import Side
from unit.replication.processes import READ_GRANT, TABLE, Process, SteppedClock, World, stored

LOCKED_SECONDS = 2.5
PAUSES_SECONDS = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


# The wait for readers


def test_a_gate_that_is_seen_open_in_the_middle_of_the_look_at_it_is_shut_again(
    world: World, two: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's thread puts a new view in place of one that says shut and has lapsed."""
    writer, reader = two
    writer.put("old")
    reader.mirror.down = True
    reader.put("else", key="b")
    writer.agent.refresh()
    reader.mirror.down = False
    assert reader.repair().gate is Gate.OPEN
    assert writer.agent.view(TABLE).record.gate is Gate.SHUT
    assert writer.agent.view(TABLE).read_until <= world.clock.now()
    now = world.clock.now

    def after_a_switch_of_threads() -> Any:
        monkeypatch.setattr(world.clock, "now", now)
        writer.agent.refresh()
        return now()

    def journalled(name: str, args: tuple[Any, ...]) -> None:
        operation = args[0]
        if isinstance(operation, PutItem) and operation.item["pk"]["S"].startswith("journal"):
            monkeypatch.setattr(world.clock, "now", after_a_switch_of_threads)

    writer.bookkeeping.before = journalled
    writer.mirror.down = True
    reader.agent.refresh()
    writer.put("new")
    assert stored(world.mirror)["v"] == {"S": "old"}
    assert reader.get() == "new"
    assert world.record.gate is Gate.SHUT


@pytest.mark.parametrize("movements", [1, 2, 7])
def test_a_gate_that_moves_below_open_is_waited_for_once(
    world: World, two: tuple[Process, Process], movements: int
) -> None:
    writer, reader = two
    writer.mirror.down = True
    for number in range(movements):
        gate = Gate.SHUT if number % 2 else Gate.REOPENING

        def move(gate: Gate = gate) -> None:
            world.decide(gate=gate)
            writer.agent.refresh()

        world.clock.after(0.9 * READ_GRANT * (number + 1), move)
    writer.put("first")
    assert world.clock.slept == [pytest.approx(READ_GRANT)]
    assert reader.get() == "first"


# A mirror whose writes fail


def slow(process: Process, failure: Exception) -> None:
    """Let every write of the mirror take long and then fail; notes of doubts are taken at once."""

    def check(name: str, args: tuple[Any, ...]) -> None:
        if name in {"write_direct", "write_settled"}:
            process.world.clock.advance(LOCKED_SECONDS)
            raise failure

    process.mirror.before = check


def waits(process: Process, writes: int, *, apart: float = 0.0) -> list[float]:
    """How long each of several writes of one row takes."""
    clock, spent = process.world.clock, []
    for number in range(writes):
        started = clock.now()
        process.put(str(number))
        spent.append(clock.now() - started)
        process.agent.refresh()
        clock.advance(apart)
    return spent


def test_the_second_write_of_a_locked_row_does_not_wait_again(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, reader = two
    slow(writer, MirrorUnavailable("simulated"))
    assert waits(writer, 5) == [LOCKED_SECONDS, 0, 0, 0, 0]
    assert writer.health.up
    assert len(world.mirror.dirty_keys(TABLE)) == 1
    assert world.record.gate is Gate.OPEN
    reader.agent.refresh()
    assert (reader.get(), reader.observed) == ("4", [Side.DYNAMODB])


def test_a_slow_mirror_is_tried_again_after_pauses_that_grow(two: tuple[Process, Process]) -> None:
    writer, _ = two
    slow(writer, MirrorUnavailable("simulated"))
    tried = [number for number, spent in enumerate(waits(writer, 70, apart=0.125)) if spent]
    assert [later - earlier for earlier, later in itertools.pairwise(tried)] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    "failure", [MirrorRefused("a constraint"), EndpointConnectionError(endpoint_url="of the authority")]
)
def test_a_refused_item_and_an_authority_that_cannot_be_read_give_the_mirror_no_pause(
    world: World, two: tuple[Process, Process], failure: Exception
) -> None:
    writer, _ = two
    slow(writer, failure)
    assert waits(writer, 3) == [LOCKED_SECONDS] * 3
    writer.mirror.before = lambda *_: None
    writer.repair()
    writer.put("taken")
    assert stored(world.mirror) == stored(world.authority)


def test_a_write_that_succeeds_ends_the_growth_of_the_pauses(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, _ = two
    slow(writer, MirrorUnavailable("simulated"))
    waits(writer, 40, apart=0.125)
    writer.mirror.before = lambda *_: None
    world.clock.advance(PAUSES_SECONDS[-1])
    writer.agent.refresh()
    writer.put("succeeds")
    assert stored(world.mirror) == stored(world.authority)
    slow(writer, MirrorUnavailable("simulated"))
    assert waits(writer, 4, apart=0.125) == [LOCKED_SECONDS, 0, LOCKED_SECONDS, 0]


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def health(clock: SteppedClock) -> MirrorHealth:
    return MirrorHealth(lambda: None, clock=clock)


def pause(health: MirrorHealth, clock: SteppedClock) -> float:
    """How long the mirror is left alone from now on, in steps of 1/8 s; the time passes."""
    started = clock.now()
    while True:
        try:
            health.require()
        except MirrorUnavailable:
            clock.advance(0.125)
        else:
            return clock.now() - started


def test_each_failure_in_a_row_doubles_the_pause_up_to_eight_seconds(
    health: MirrorHealth, clock: SteppedClock
) -> None:
    assert pause(health, clock) == 0
    pauses = []
    for _ in PAUSES_SECONDS:
        health.strained()
        pauses.append(pause(health, clock))
    assert pauses == PAUSES_SECONDS


@pytest.mark.parametrize("ending", ["relieved", "probed"])
def test_a_success_or_a_probe_that_answers_after_it_was_down_ends_the_pause(
    health: MirrorHealth, clock: SteppedClock, ending: str
) -> None:
    for _ in range(4):
        health.strained()
    if ending == "probed":
        health.failed()
        with pytest.raises(MirrorUnavailable, match="not answered"):
            health.require()
        assert health.probe()
    else:
        health.relieved()
    assert pause(health, clock) == 0
    health.strained()
    assert pause(health, clock) == PAUSES_SECONDS[0]


def test_a_probe_of_a_mirror_that_is_only_slow_does_not_end_its_pause(
    health: MirrorHealth, clock: SteppedClock
) -> None:
    health.strained()
    assert health.probe()
    assert pause(health, clock) == PAUSES_SECONDS[0]
