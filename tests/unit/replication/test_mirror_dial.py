"""The share of keys that are mirrored: what it covers, and what raising and lowering it entails."""

from itertools import pairwise

import pytest

from dualstore.control import PostgresRole
from dualstore.flags import Requested
from dualstore.operations import DeleteItem
from dualstore.replication.served import ServedTable
from dualstore.replication.transitions import next_step
from dualstore.stages import Dials, Side, Stage
from unit.replication.processes import READABLE, SERVED, TABLE, Process, World, pass_time, stored

KEYS = [f"k{n}" for n in range(200)]


def inside(percent: float, table: ServedTable = SERVED) -> set[str]:
    return {key for key in KEYS if table.mirrors({"id": {"S": key}}, percent)}


OUTSIDE = min(set(KEYS) - inside(50))
"""A key that a dial of 50 % leaves out."""


def dial(process: Process, percent: float, **also: float) -> None:
    process.flags.set("items", mirror_percent=percent, **also)
    pass_time(process.world, process, seconds=3)
    assert process.world.record.dials.mirror_percent == percent


def test_a_greater_share_contains_the_smaller_one_and_is_about_as_great() -> None:
    shares = [inside(percent) for percent in (0, 10, 25, 50, 75, 100)]
    assert all(smaller <= greater for smaller, greater in pairwise(shares))
    assert (shares[0], shares[-1]) == (set(), set(KEYS))
    assert 70 <= len(inside(50)) <= 130


def test_writes_of_the_share_alone_go_to_both_sides_in_every_process(world: World) -> None:
    first, second = world.process(), world.process()
    world.decide(stage=Stage.DUALWRITE, dials=Dials(mirror_percent=50.0))
    for place, key in enumerate(KEYS):
        process = (first, second)[place % 2]
        process.agent.refresh()
        process.put("v", key=key)
    assert {key for key in KEYS if stored(world.mirror, key)} == inside(50)


def test_while_a_key_is_left_out_dynamodb_answers_for_every_key(world: World, process: Process) -> None:
    world.decide(**READABLE | {"dials": Dials(postgres_read_percent=100.0, mirror_percent=50.0)})
    process.agent.refresh()
    for key in KEYS[:20]:
        process.put("v", key=key)
        process.get(key)
    assert set(process.observed) == {Side.DYNAMODB}


def test_a_dial_that_went_down_and_up_again_withdraws_the_copy_until_a_new_one(
    world: World, process: Process
) -> None:
    world.decide(**READABLE)
    before = world.record
    dial(process, 50.0, postgres_read_percent=0.0)
    assert not world.record.loaded
    dial(process, 100.0)
    after = world.record
    assert not after.loaded
    assert after.mirrored_since > before.mirrored_since
    process.flags.set("items", postgres_read_percent=1.0)
    process.agent.tick()
    assert "dualstore backfill" in process.agent.refusals()[TABLE]


def test_a_mirror_write_that_sleeps_while_its_key_goes_unmirrored_and_back_brings_nothing_back(
    world: World,
) -> None:
    sleeper, other = world.process(), world.process()
    world.decide(stage=Stage.DUALWRITE)
    for process in (sleeper, other):
        process.agent.refresh()

    def asleep(name: str, _: object) -> None:
        if name != "write_direct":
            return
        sleeper.mirror.before = lambda *_: None
        dial(other, 50.0)
        world.authority.execute(
            DeleteItem({"TableName": TABLE, "Key": {"id": {"S": OUTSIDE}}})
        )  # what is not mirrored leaves no tombstone
        dial(other, 100.0)

    sleeper.mirror.before = asleep
    sleeper.put("deleted meanwhile", key=OUTSIDE)
    assert stored(world.mirror, OUTSIDE) is None
    pass_time(world, other, seconds=3)
    assert world.agree


@pytest.mark.parametrize(("before", "asked"), [(100.0, 100.0), (50.0, 75.0), (100.0, 50.0)])
def test_only_the_step_to_every_key_takes_a_new_epoch(
    world: World, process: Process, before: float, asked: float
) -> None:
    world.decide(stage=Stage.DUALWRITE, dials=Dials(mirror_percent=before))
    epoch = world.record.epoch
    dial(process, asked)
    assert world.record.epoch == epoch
    if asked < 100.0:
        dial(process, 100.0)
        assert world.record.epoch == epoch + 1
        assert world.mirror.fence_of(TABLE) == (epoch + 1, "mirror")


def test_a_held_route_reads_no_stale_item_while_mirroring_ends(world: World) -> None:
    writer, reader = world.process(), world.process()
    world.decide(**READABLE)
    for process in (writer, reader):
        process.agent.refresh()
    writer.put("first")
    with reader.router.hold():
        world.decide(dials=Dials(postgres_read_percent=0.0))
        pass_time(world, writer, reader, seconds=3)
        assert (reader.get(), reader.observed[-1]) == ("first", Side.POSTGRES)
        writer.flags.set("items", mirror_percent=0.0)
        while world.record.dials.mirror_percent:
            reader.agent.refresh()
            writer.agent.tick()
            world.clock.advance(0.3)
        writer.agent.refresh()
        writer.put("second")
        assert reader.get() == "second"


def test_a_warm_up_that_begins_with_the_stage_is_fenced_and_looks_for_obstacles(
    world: World, process: Process
) -> None:
    step = next_step(world.record, Requested(stage=Stage.DUALWRITE, mirror_percent=50.0), reads_stopped=True)
    assert (step.towards, step.fence) == (Stage.DUALWRITE, world.record.epoch + 1)
    assert not step.changes.get("mirrored_since")


def test_a_fence_raised_for_a_step_that_nobody_took_is_followed_by_the_record(
    world: World, process: Process
) -> None:
    key = min(inside(50))
    world.decide(stage=Stage.DUALWRITE, dials=Dials(mirror_percent=50.0))
    process.agent.refresh()
    world.postgres_control.raise_fence(TABLE, epoch=world.record.epoch + 1, role=PostgresRole.MIRROR)
    process.put("v", key=key)
    assert stored(world.mirror, key) is None
    for _ in range(2):
        process.repair()
    assert world.mirror.fence_of(TABLE) == (world.record.epoch, "mirror")
    assert world.agree
