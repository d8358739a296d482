"""A doubt is settled or recorded, whatever strikes where: a lapsed grant, an interrupt, a second table."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import stamina
from botocore.exceptions import ReadTimeoutError

from dualstore.control import Gate
from dualstore.errors import MirrorUnavailable
from dualstore.items import PREDECESSOR, KeyAttribute, KeySchema, TableShape
from dualstore.replication import mirroring
from dualstore.replication.served import ServedTable
from dualstore.router import Router
from dualstore.stages import Dials, Side, Stage
from dualstore.stores.memory import MemoryStore
from unit.replication.processes import READABLE, SERVED, SHAPE, TABLE, WRITE_GRANT, Process, World, stored

KEY = {"id": {"S": "a"}}
OTHER = ServedTable("other", TableShape("other-prod", KeySchema(KeyAttribute("id", "S"))))
TABLES = {TABLE: SERVED, OTHER.physical: OTHER}
LOST = ReadTimeoutError(endpoint_url="simulated")


class Interrupted(BaseException):
    """A signal, or a killed greenlet."""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries do not wait."""
    original, no_wait = stamina.retry_context, {"wait_initial": 0, "wait_max": 0, "wait_jitter": 0}
    monkeypatch.setattr(stamina, "retry_context", lambda **options: original(**{**options, **no_wait}))


def write(process: Process, name: str, value: str = "new") -> Any:
    item = {**KEY, "v": {"S": value}}
    request: dict[str, Any] = {
        "PutItem": {"TableName": TABLE, "Item": item},
        "BatchWriteItem": {"RequestItems": {TABLE: [{"PutRequest": {"Item": item}}]}},
        "TransactWriteItems": {"TransactItems": [{"Put": {"TableName": TABLE, "Item": item}}]},
    }[name]
    return process.router.execute(name, request)


def answering(process: Process, act: Callable[[Any, Callable[[Any], Any]], Any]) -> None:
    """Let writes at the authority go through a function that may carry them out, or not."""
    execute = process.world.authority.execute

    class Answering:
        side = process.world.authority.side

        def execute(self, operation: Any) -> Any:
            return execute(operation) if operation.reads else act(operation, execute)

    process.mirroring.authority = Answering()


def refusing(*names: str, failure: BaseException) -> Callable[[str, tuple[Any, ...]], None]:
    def check(name: str, args: tuple[Any, ...]) -> None:
        if name in names:
            raise failure

    return check


def check_equal(world: World, table: str = TABLE) -> None:
    authority, mirror = (each.state(table, KEY).item for each in (world.authority, world.mirror))
    assert authority is not None
    assert mirror == {name: value for name, value in authority.items() if name != PREDECESSOR}


# A grant that lapsed: by now others may mirror.


@pytest.mark.parametrize("name", ["PutItem", "BatchWriteItem", "TransactWriteItems"])
@pytest.mark.parametrize("failure", [LOST, Interrupted()])
@pytest.mark.parametrize("register", ["answers", "is away"])
def test_a_write_of_unknown_outcome_that_outlived_its_grant_is_recorded_where_others_mirror_by_now(
    world: World, name: str, failure: BaseException, register: str
) -> None:
    writer, other = world.process(), world.process()

    def asleep(operation: Any, execute: Callable[[Any], Any]) -> Any:
        if world.record.stage is Stage.OFF:
            for _ in range(20):  # taken for dead before the request leaves; then a backfill finds nothing
                world.clock.advance(1)
                other.agent.tick()
            assert len(other.registry.processes()) == 1
            world.decide(**READABLE, mirrored_since=world.record.generation + 1)
            other.agent.refresh()
            assert other.get() is None
            execute(operation)
            writer.bookkeeping.down = register == "is away"
        raise failure

    answering(writer, asleep)
    with pytest.raises(type(failure)):
        write(writer, name)
    assert [entry.key for entry in world.mirror.dirty_keys(TABLE)] == [KEY]
    assert other.get() == "new"
    other.repair()
    check_equal(world)
    other.agent.refresh()
    assert (other.get(), other.observed[-1]) == ("new", Side.POSTGRES)


@pytest.mark.parametrize("name", ["PutItem", "BatchWriteItem", "TransactWriteItems"])
def test_a_write_of_unknown_outcome_leaves_no_doubt_where_nobody_mirrors(world: World, name: str) -> None:
    writer = world.process()

    def slow(operation: Any, execute: Callable[[Any], Any]) -> Any:
        world.clock.advance(WRITE_GRANT)
        raise LOST

    answering(writer, slow)
    with pytest.raises(ReadTimeoutError):
        write(writer, name)
    assert not world.mirror.dirty_keys(TABLE)
    assert writer.journalled() == 0


def test_whether_others_have_begun_to_mirror_is_answered_with_yes_where_it_cannot_be_known(
    world: World, process: Process
) -> None:
    view = process.agent.view(TABLE)
    process.bookkeeping.down = True
    assert not process.mirroring.began_to_mirror(SERVED, KEY, view)  # the grant stands: nothing is asked
    world.clock.advance(WRITE_GRANT)
    assert process.mirroring.began_to_mirror(SERVED, KEY, view)
    process.bookkeeping.down = False
    assert not process.mirroring.began_to_mirror(SERVED, KEY, view)
    world.decide(stage=Stage.DUALWRITE, dials=Dials())
    assert process.mirroring.began_to_mirror(SERVED, KEY, view)


# Interrupts


@pytest.mark.parametrize("name", ["PutItem", "BatchWriteItem", "TransactWriteItems"])
@pytest.mark.parametrize("mirror_takes", ["writes", "notes", "nothing"])
def test_wherever_an_interrupt_strikes_after_the_reply_the_write_is_mirrored_in_the_end(
    monkeypatch: pytest.MonkeyPatch, name: str, mirror_takes: str
) -> None:
    """One history for each call to a clock or a database after the reply, interrupted there."""
    for strike in itertools.count():
        world = World()
        writer, reader = world.process(), world.process()
        world.decide(**READABLE)
        for each in (writer, reader):
            each.agent.refresh()
        writer.put("old")
        if interrupted_at(strike, writer, mirror_takes, lambda: write(writer, name), monkeypatch):  # noqa: B023
            break
        world.clock.advance(5)
        for each in (writer, reader):
            each.agent.refresh()
        assert reader.get() == "new" or writer.mirroring.unrecorded, strike
        writer.repair()
        check_equal(world)
        reader.agent.refresh()
        assert reader.get() == "new"
        assert reader.observed[-1] is Side.POSTGRES
    assert strike >= 2


def interrupted_at(
    strike: int,
    writer: Process,
    mirror_takes: str,
    act: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> bool:
    """Interrupt a write at a step after the authority's reply; True where it has no such step."""
    world = writer.world
    steps = itertools.count()
    now = world.clock.now

    def step() -> None:
        item = stored(world.authority)
        if item is not None and item["v"] == {"S": "new"} and next(steps) == strike:
            raise Interrupted

    def stepped_now() -> Any:
        step()
        return now()

    def stepped_call(name: str, args: tuple[Any, ...]) -> None:
        step()
        if name in {"write_direct", "write_settled"} and mirror_takes != "writes":
            raise MirrorUnavailable("simulated")
        if name == "mark_dirty" and mirror_takes == "nothing":
            raise MirrorUnavailable("simulated")

    with monkeypatch.context() as patch:
        patch.setattr(world.clock, "now", stepped_now)
        patch.setattr(writer.mirror, "before", stepped_call)
        patch.setattr(writer.bookkeeping, "before", lambda *_: step())
        try:
            act()
        except Interrupted:
            return False
    return True


@pytest.mark.parametrize("name", ["PutItem", "BatchWriteItem", "TransactWriteItems"])
def test_an_interrupt_while_the_stage_is_asked_for_after_a_late_reply_leaves_the_key_in_doubt(
    world: World, name: str
) -> None:
    writer, other = world.process(), world.process()

    def slow(operation: Any, execute: Callable[[Any], Any]) -> Any:
        response = execute(operation)
        world.clock.advance(WRITE_GRANT)
        world.decide(**READABLE)  # the table was empty a moment ago
        writer.bookkeeping.before = struck
        return response

    def struck(call: str, args: tuple[Any, ...]) -> None:
        writer.bookkeeping.before = lambda *_: None
        raise Interrupted

    answering(writer, slow)
    with pytest.raises(Interrupted):
        write(writer, name)
    assert [entry.key for entry in world.mirror.dirty_keys(TABLE)] == [KEY]
    other.agent.refresh()
    assert other.get() == "new"


def test_an_interrupt_while_a_doubt_is_noted_leaves_it_with_the_process(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, _ = two
    writer.put("old")

    def struck(name: str, args: tuple[Any, ...]) -> None:
        if name == "write_direct":
            raise MirrorUnavailable("simulated")
        if name == "mark_dirty":
            raise Interrupted

    writer.mirror.before = struck
    with pytest.raises(Interrupted):
        writer.put("new")
    assert writer.mirroring.unrecorded
    writer.mirror.before = lambda *_: None
    writer.repair()
    assert not writer.mirroring.unrecorded
    check_equal(world)


def test_more_doubts_than_are_remembered_make_the_table_suspect_however_often_that_comes_up(
    world: World, two: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, _ = two
    monkeypatch.setattr(mirroring, "_REMEMBERED_KEYS", 0)
    writer.put("old")

    def forget_a_doubt() -> None:
        writer.mirror.down = writer.bookkeeping.down = True
        with pytest.raises(type(writer.bookkeeping.failure)):
            writer.mirroring.doubt(SERVED, [KEY], "simulated")

    forget_a_doubt()
    with pytest.raises(type(writer.bookkeeping.failure)):
        writer.mirroring.record_again(SERVED)
    assert writer.mirroring.unrecorded
    writer.mirror.down = writer.bookkeeping.down = False
    suspect = writer.agent.suspect

    def overtaken(table: str) -> None:
        suspect(table)
        forget_a_doubt()
        writer.mirror.down = writer.bookkeeping.down = False

    monkeypatch.setattr(writer.agent, "suspect", overtaken)
    writer.mirroring.record_again(SERVED)
    (first,) = world.record.suspects
    assert writer.mirroring.unrecorded
    monkeypatch.setattr(writer.agent, "suspect", suspect)
    writer.mirroring.record_again(SERVED)
    assert not writer.mirroring.unrecorded
    assert world.record.suspects
    assert world.record.suspects != {first}


# Several tables


@pytest.fixture
def pair() -> tuple[World, Process]:
    """A process that serves two tables, whose mirror answers every read."""
    shapes = {table: served.shape for table, served in TABLES.items()}
    world = World(shapes)
    process = world.process()
    process.agent.serve(OTHER.physical, logical=OTHER.logical)
    for record in world.control.read_all().values():
        assert world.control.change(record, **READABLE)
    process.agent.refresh()
    process.router = Router(
        process.mirroring, process.mirror, TABLES, telemetry=process.telemetry, observe=lambda *_: None
    )
    write_both(process, "BatchWriteItem", "old")
    return world, process


def write_both(process: Process, name: str, value: str) -> Any:
    item = {**KEY, "v": {"S": value}}
    request: dict[str, Any] = {
        "BatchWriteItem": {"RequestItems": {table: [{"PutRequest": {"Item": item}}] for table in TABLES}},
        "TransactWriteItems": {
            "TransactItems": [{"Put": {"TableName": each, "Item": item}} for each in TABLES]
        },
    }[name]
    return process.router.execute(name, request)


def value_of(store: MemoryStore, table: str) -> str | None:
    item = store.state(table, KEY).item
    return None if item is None else item["v"]["S"]


def repair_both(process: Process) -> None:
    process.health.probe()
    process.agent.refresh()
    for table in TABLES.values():
        process._repair.run(table)


@pytest.mark.parametrize("name", ["BatchWriteItem", "TransactWriteItems"])
@pytest.mark.parametrize("reply", ["lost", "received"])
def test_every_table_of_one_write_is_remembered_where_no_doubt_can_be_recorded(
    pair: tuple[World, Process], name: str, reply: str
) -> None:
    world, process = pair
    process.mirror.down = process.bookkeeping.down = True

    def carried_out(operation: Any, execute: Callable[[Any], Any]) -> Any:
        response = execute(operation)
        if reply == "lost":
            raise LOST
        return response

    answering(process, carried_out)
    with pytest.raises((ReadTimeoutError, type(process.bookkeeping.failure))):
        write_both(process, name, "new")
    process.mirror.down = process.bookkeeping.down = False
    repair_both(process)
    for table in TABLES:
        assert value_of(world.mirror, table) == value_of(world.authority, table) == "new"


@pytest.mark.parametrize("name", ["BatchWriteItem", "TransactWriteItems"])
@pytest.mark.parametrize("broken", TABLES)
def test_a_table_is_settled_though_the_doubt_of_another_cannot_be_recorded(
    pair: tuple[World, Process], name: str, broken: str
) -> None:
    world, process = pair
    sound = next(table for table in TABLES if table != broken)

    def breaks(name: str, args: tuple[Any, ...]) -> None:
        if args[0] == broken:
            raise ValueError("a row of one table that nothing can be done with")

    process.mirror.before = breaks
    process.bookkeeping.down = True
    with pytest.raises(type(process.bookkeeping.failure)):
        write_both(process, name, "new")
    assert (value_of(world.mirror, sound), value_of(world.mirror, broken)) == ("new", "old")
    assert process.mirroring.unrecorded
    process.mirror.before = lambda *_: None
    process.bookkeeping.down = False
    repair_both(process)
    assert value_of(world.mirror, broken) == "new"


# From the journal to the mirror


def test_a_journal_entry_handed_to_the_mirror_does_not_stand_in_for_a_newer_doubt(world: World) -> None:
    """Two repairs hand the same entry over; between them the writer fails again."""
    writer, first, second = (world.process() for _ in range(3))
    world.decide(**READABLE)
    for each in (writer, first, second):
        each.agent.refresh()
    refused = refusing("write_direct", "write_settled", failure=MirrorUnavailable("simulated"))
    writer.mirror.down = True
    writer.put("n1")
    writer.mirror.down = False
    writer.health.probe()
    (entry,) = next(second.journal.entries(SHAPE))  # read, and then second is slow

    first.mirror.before = refused
    assert first.repair().gate is Gate.OPEN
    writer.agent.refresh()

    def overtaken(name: str, args: tuple[Any, ...]) -> None:
        if name == "clear_dirty":
            writer.mirror.before = second.mirror.before = refused
            writer.put("n2")
            assert second._repair._settled_or_moved(SERVED, entry)

    first.mirror.before = overtaken
    first.repair()
    assert stored(world.mirror)["v"] == {"S": "n1"}
    assert [each.key for each in world.mirror.dirty_keys(TABLE)] == [KEY]
    for each in (writer, first, second):
        each.mirror.before = lambda *_: None
        each.agent.refresh()
        assert each.get() == "n2"
    first.repair()
    check_equal(world)


# What is mirrored


def test_the_image_of_a_put_goes_to_the_mirror_as_dynamodb_stores_it(
    world: World, two: tuple[Process, Process]
) -> None:
    writer, _ = two
    images: list[Any] = []

    def note(name: str, args: tuple[Any, ...]) -> None:
        if name == "write_direct":
            images.append(args[2])

    writer.mirror.before = note
    item = {
        **KEY,
        "one": {"N": "1.0"},
        "zero": {"N": "-0"},
        "numbers": {"NS": ["2", "1.00"]},
        "bytes": {"B": bytearray(b"x")},
        "inside": {"L": [{"M": {"n": {"N": "1e2"}}}]},
    }
    writer.router.execute("PutItem", {"TableName": TABLE, "Item": item})
    assert images == [stored(world.authority)]
    assert images[0]["one"] == {"N": "1"}
    assert images[0]["zero"] == {"N": "0"}
    assert images[0]["numbers"] == {"NS": ["1", "2"]}
    assert images[0]["inside"] == {"L": [{"M": {"n": {"N": "100"}}}]}
