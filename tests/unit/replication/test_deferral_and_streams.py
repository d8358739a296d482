"""Mirroring after the answer is announced first; a stream is the journal only where a relay follows it."""

from typing import Any

import pytest

from dualstore.control import Gate
from dualstore.replication.deferred import Deferred
from dualstore.stages import Dials, Side, Stage
from unit.replication.processes import READ_GRANT, READABLE, SERVED, TABLE, Process, World, pass_time

D, P = Side.DYNAMODB, Side.POSTGRES


# Deferred


@pytest.fixture
def readable(world: World) -> tuple[World, Process]:
    """A process that reads the mirror."""
    reader = world.process()
    world.decide(**READABLE)
    reader.agent.refresh()
    reader.put("first")
    assert (reader.get(), reader.observed) == ("first", [P])
    reader.observed.clear()
    return world, reader


def deferring(world: World) -> Process:
    process = world.process(deferring=True)
    process.mirroring.deferred = Deferred(process.mirroring.settle, process.agent.unfinished, workers=0)
    return process


def test_deferring_is_announced_before_it_is_done(readable: tuple[World, Process]) -> None:
    world, _ = readable
    lazy = deferring(world)
    assert not lazy.agent.may_defer(TABLE)
    lazy.put("mirrored at once")
    assert world.value(P) == "mirrored at once"
    lazy.agent.tick()
    assert world.record.deferred
    assert not lazy.agent.may_defer(TABLE)  # others may still read under a grant of before
    pass_time(world, lazy, seconds=READ_GRANT)
    assert lazy.agent.may_defer(TABLE)


def test_no_read_is_dialled_while_a_process_defers(readable: tuple[World, Process]) -> None:
    world, reader = readable
    lazy = deferring(world)
    lazy.agent.tick()
    for each in (reader, lazy):
        each.agent.refresh()
        assert each.get() == "first"
        assert each.observed == [D]
    assert not world.record.mirror_readable


def test_a_read_under_a_grant_of_before_the_announcement_is_over_before_a_write_is_put_off(
    readable: tuple[World, Process],
) -> None:
    """The grant to read the mirror that another process still holds ends before anybody defers."""
    world, reader = readable
    lazy = deferring(world)
    reader.agent.refresh()
    lazy.agent.tick()
    for number in range(12):
        lazy.put(str(number))
        assert reader.get() == str(number)
        world.clock.advance(0.1)
        lazy.agent.tick()
    lazy.mirroring.deferred.close()
    assert reader.observed[0] is P
    assert reader.observed[-1] is D
    assert world.value(P) != "11"


def test_a_deferring_process_does_not_defer_once_it_has_not_looked_for_a_grants_length(world: World) -> None:
    lazy = deferring(world)
    world.decide(stage=Stage.DUALWRITE)
    pass_time(world, lazy, seconds=2 * READ_GRANT)
    assert lazy.agent.may_defer(TABLE)
    world.clock.advance(READ_GRANT)
    assert not lazy.agent.may_defer(TABLE)
    lazy.agent.tick()  # who knows what was decided in between
    assert not lazy.agent.may_defer(TABLE)
    pass_time(world, lazy, seconds=READ_GRANT)
    assert lazy.agent.may_defer(TABLE)


def test_deferring_is_taken_back_when_nobody_defers_any_more_and_reads_wait_for_what_was_put_off(
    readable: tuple[World, Process],
) -> None:
    world, reader = readable
    lazy, lazier = deferring(world), deferring(world)
    for each in (lazy, lazier, reader):
        each.agent.tick()
    lazy.agent.close()
    gate = world.record.gate_sequence
    pass_time(world, reader, lazier, seconds=1)
    assert (world.record.deferred, world.record.gate_sequence) == (True, gate)
    lazier.agent.close()
    reader.agent.tick()
    assert (world.record.deferred, world.record.gate) == (False, Gate.SHUT)
    assert reader.get() == "first"
    assert reader.observed[-1] is D
    pass_time(world, reader, seconds=3)
    assert world.record.gate is Gate.OPEN
    assert reader.get() == "first"
    assert reader.observed[-1] is P


def test_a_read_dial_is_refused_while_a_process_defers(world: World) -> None:
    lazy = deferring(world)
    world.decide(stage=Stage.DUALWRITE, loaded=True)
    lazy.agent.tick()
    lazy.flags.set("items", postgres_read_percent=10.0)
    pass_time(world, lazy, seconds=1)
    assert world.record.dials == Dials()
    assert 'mirroring = "inline"' in lazy.agent.refusals()[TABLE]


# The stream as the journal


class Stream:
    """How far a relay has come: what `MemoryCheckpoints` would say of shards that have been read."""

    def __init__(self, world: World) -> None:
        self.drained = False
        self.asked = 0
        self.now = world.checkpoints.now

    def drained_since(self, table: str, moment: Any) -> bool:
        self.asked += 1
        return self.drained


@pytest.fixture
def failing(world: World) -> tuple[Process, Process]:
    """One whose way to the mirror is broken, and one that reads it."""
    writer, reader = world.process(), world.process()
    world.decide(**READABLE)
    for each in (writer, reader):
        each.agent.refresh()
    writer.mirror.down = True
    world.clock.every(0.25, writer.agent.refresh)
    return writer, reader


@pytest.mark.parametrize("streamed", [True, False])
def test_a_doubt_skips_the_journal_only_where_the_stream_is_followed(
    world: World, failing: tuple[Process, Process], *, streamed: bool
) -> None:
    writer, reader = failing
    if streamed:
        world.decide(streamed=True)
    writer.agent.refresh()
    writer.put("missed")
    assert writer.journalled() == (0 if streamed else 1)
    assert world.record.gate is Gate.SHUT
    reader.agent.refresh()
    assert (reader.get(), reader.observed) == ("missed", [D])


@pytest.mark.parametrize("streamed", [True, False])
def test_while_the_gate_is_shut_a_write_is_left_to_the_relay_only_where_it_follows(
    world: World, failing: tuple[Process, Process], *, streamed: bool
) -> None:
    writer, _ = failing
    if streamed:
        world.decide(streamed=True)
    writer.agent.refresh()
    writer.put("missed")
    world.clock.advance(READ_GRANT)
    writer.agent.refresh()
    calls = writer.bookkeeping.calls
    calls.clear()
    before = world.clock.now()
    writer.router.execute("PutItem", {"TableName": TABLE, "Item": {"id": {"S": "b"}, "v": {"S": "too"}}})
    assert world.clock.now() == before
    assert len(calls) == (0 if streamed else 1)
    assert writer.journalled() == (0 if streamed else 2)


def test_the_gate_opens_only_when_the_relay_has_read_the_stream_up_to_then(
    world: World, failing: tuple[Process, Process]
) -> None:
    writer, reader = failing
    stream = Stream(world)
    reader._repair._streams = stream  # type: ignore[assignment]
    world.decide(streamed=True)
    writer.agent.refresh()
    writer.put("missed")
    assert reader.repair().gate is Gate.REOPENING
    assert stream.asked
    reader.mirroring.settle(SERVED, [{"id": {"S": "a"}}])  # the relay comes to it
    stream.drained = True
    assert reader.repair().gate is Gate.OPEN
    reader.agent.refresh()
    assert (reader.get(), reader.observed[-1]) == ("missed", P)


def test_the_gate_stays_shut_where_no_relay_is_known_to_follow(
    world: World, failing: tuple[Process, Process]
) -> None:
    """By the checkpoints themselves: no shard has been read."""
    writer, reader = failing
    world.decide(streamed=True)
    writer.agent.refresh()
    writer.put("missed")
    assert reader.repair().gate is Gate.REOPENING
    reader._repair._streams = None
    assert reader.repair().gate is Gate.REOPENING


def test_without_a_stream_the_gate_opens_once_the_journal_is_empty(
    world: World, failing: tuple[Process, Process]
) -> None:
    writer, reader = failing
    writer.put("missed")
    assert reader.repair().gate is Gate.OPEN
    assert world.value(P) == "missed"
