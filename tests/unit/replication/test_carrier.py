"""What the relay does about a record, and what it says of whoever made the change."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dualstore.control import Gate, Phase, PostgresRole
from dualstore.errors import MirrorRefused, MirrorUnavailable
from dualstore.items import MAX_ITEM_SIZE_BYTES, STAMP, item_size_bytes
from dualstore.replication.stamps import new_stamp
from dualstore.replication.views import View
from dualstore.stages import Dials, Stage
from dualstore.stores.base import Revision
from unit.replication.relays import (
    SERVED,
    TABLE,
    StreamedRelay,
    StreamedWorld,
    records_of,
    stored,
)


@pytest.fixture
def world() -> StreamedWorld:
    return StreamedWorld()


@pytest.fixture
def relay(world: StreamedWorld) -> StreamedRelay:
    return world.relay()


def at(world: StreamedWorld, **changes: Any) -> None:
    world.record = replace(world.record, epoch=world.record.epoch + 1, **changes)
    world.postgres.set_fence(TABLE, epoch=world.record.epoch, role=world.record.postgres_role)


# DynamoDB is the authority


def test_what_the_mirror_shows_already_is_not_settled_again(world, relay):
    world.write("1")
    world.write("2")
    world.write(None)
    relay.round()
    assert world.verdicts == {"shown": 3}
    assert relay.dynamodb.calls == []


def test_a_write_that_was_never_mirrored_is_settled(world, relay):
    world.write("1", mirrored=False)
    relay.round()
    assert world.differing == []
    assert world.verdicts == {"settled": 1}


def test_a_deletion_that_was_never_mirrored_is_settled(world, relay):
    world.write("1")
    world.write(None, mirrored=False)
    relay.round()
    assert stored(world.postgres) is None


def test_a_write_that_changed_nothing_but_the_stamp_is_settled(world, relay):
    """The next direct write goes onto its predecessor's stamp."""
    world.write("1")
    world.write("1", mirrored=False)
    relay.round()
    assert world.differing == []


def revision(world: StreamedWorld) -> Revision:
    return world.postgres.state(TABLE, {"id": {"S": "a"}}).revision


def test_a_tombstone_of_an_earlier_deletion_does_not_pass_for_a_later_one(world, relay):
    world.write("1")
    world.write(None)
    before = revision(world)
    world.write("2", mirrored=False)
    world.write(None, mirrored=False)
    relay.carrier.carry(SERVED, records_of(world))
    assert revision(world) != before


def test_a_tombstone_without_a_stamp_says_nothing_of_a_deletion_without_one(world, relay):
    world.rogue_put("1")
    relay.round()
    world.rogue_delete()
    relay.round()
    before = revision(world)
    world.rogue_put("2")
    world.rogue_delete()
    relay.round()
    assert revision(world) != before


def test_a_plain_put_is_healed_and_reported(world, relay):
    world.write("1")
    world.rogue_put("2")
    relay.round()
    assert world.differing == []
    assert world.counted("dualstore.rogue.changes") == {"unstamped": 1}


def test_a_plain_update_that_keeps_the_stamp_is_healed_and_reported(world, relay):
    world.write("1")
    relay.round()
    world.rogue_update("2")
    relay.round()
    assert world.differing == []
    assert world.counted("dualstore.rogue.changes") == {"stamp_kept": 1}


def test_a_content_that_came_back_under_its_old_stamp_is_settled_all_the_same(world, relay):
    """A settle that has read what was there in between may yet write it: its revision must not stand."""
    world.write("1")
    relay.round()
    before = revision(world)
    world.rogue_update("2")
    world.rogue_update("1")
    relay.round()
    assert revision(world) != before


def test_an_old_stamp_put_back_with_other_content_is_settled(world, relay):
    world.write("1")
    first = stored(world.dynamodb)
    world.write("2", mirrored=False)
    assert first is not None
    world.change("a", {**first, "v": {"S": "3"}})
    relay.round()
    assert world.differing == []


def test_a_plain_deletion_is_healed_and_reported(world, relay):
    world.write("1")
    world.rogue_delete()
    relay.round()
    assert world.differing == []
    assert world.counted("dualstore.rogue.changes") == {"deleted": 1}


def test_a_deletion_by_dualstore_is_no_rogue(world, relay):
    world.write("1")
    world.write(None)
    relay.round()
    assert world.counted("dualstore.rogue.changes") == {}


def test_a_deletion_that_is_recorded_a_moment_later_is_no_rogue(world, relay):
    world.write("1")
    stamp = world.postgres.state(TABLE, {"id": {"S": "a"}}).item[STAMP]["B"]
    world.rogue_delete()
    world.clock.after(0.1, lambda: mirror_deletion(world, stamp))
    fresh = [replace(record, created_at=datetime.now(UTC)) for record in records_of(world)]
    assert relay.carrier.carry(SERVED, fresh).done == 2
    assert world.counted("dualstore.rogue.changes") == {}


def mirror_deletion(world: StreamedWorld, stamp: bytes) -> None:
    key = {"id": {"S": "a"}}
    assert world.postgres.write_direct(TABLE, key, None, stamp=new_stamp(), predecessor=stamp, epoch=0)


def test_a_deletion_that_its_process_has_noted_as_doubtful_is_no_rogue(world, relay):
    world.write("1")
    world.write(None, mirrored=False)
    world.postgres.mark_dirty(TABLE, {"id": {"S": "a"}}, nonce="n", reason="the mirror was late")
    relay.round()
    assert world.differing == []
    assert world.counted("dualstore.rogue.changes") == {}


@pytest.mark.parametrize(
    "circumstances", [{"deferred": True}, {"gate": Gate.SHUT}, {"suspects": frozenset({"dead"})}]
)
def test_no_deletion_is_judged_while_processes_may_lag(world, relay, circumstances):
    world.record = replace(world.record, **circumstances)
    world.write("1")
    world.write(None, mirrored=False)
    assert relay.carrier.carry(SERVED, records_of(world)).rogues == {}
    assert world.differing == []


def test_a_deletion_of_an_expired_item_is_healed_and_no_rogue(world, relay):
    world.write("1")
    world.rogue_delete(is_ttl_deletion=True)
    relay.round()
    assert stored(world.postgres) is None
    assert world.counted("dualstore.rogue.changes") == {}


def test_a_record_of_a_write_that_changed_nothing_is_no_rogue(world, relay):
    """dynoxide makes such records; AWS does not."""
    world.write("1")
    (record,) = records_of(world)
    noop = replace(record, old_image=record.new_image, change=record.change.MODIFY)
    assert relay.carrier.carry(SERVED, [record, noop]).rogues == {}


def test_keys_that_the_dial_leaves_out_are_passed(world, relay):
    at(world, dials=Dials(mirror_percent=0))
    world.write("1", mirrored=False)
    relay.round()
    assert world.verdicts == {"passed": 1}
    assert stored(world.postgres) is None


@pytest.mark.parametrize("stage", [Stage.OFF, Stage.COMPLETE])
def test_nothing_is_done_where_nothing_is_mirrored(world, relay, stage):
    at(world, stage=stage)
    world.rogue_put("1")
    relay.round()
    assert world.verdicts == {"passed": 1}
    assert stored(world.postgres) is None
    assert world.enqueued == []


# PostgreSQL is the authority


def test_the_echo_of_what_was_sent_is_not_sent_again(world, relay):
    world.write("1")
    at(world, stage=Stage.LIVE)
    relay.round()
    assert world.verdicts == {"shown": 1}
    assert world.enqueued == []


def test_a_rogue_change_is_taken_back_through_the_outbox(world, relay):
    world.write("1")
    world.write("1", key="b")
    at(world, stage=Stage.LIVE)
    world.rogue_put("2")
    world.rogue_update("2", key="b")
    relay.round()
    relay.round()
    assert world.enqueued == ["a", "b"]
    assert world.counted("dualstore.rogue.changes") == {"unstamped": 1, "stamp_kept": 1}


def test_taking_a_rogue_change_back_is_no_rogue_change(world, relay):
    world.write("1")
    at(world, stage=Stage.LIVE)
    world.rogue_update("2")
    world.rogue_update("1")  # what the sender does: PostgreSQL's item, under its stamp
    relay.round()
    assert world.counted("dualstore.rogue.changes") == {"stamp_kept": 1}


def test_taking_a_rogue_change_back_is_none_though_the_row_has_no_stamp(world, relay):
    """As a row that the backfill has loaded, and nobody has written since."""
    world.rogue_put("1")
    relay.round()
    at(world, stage=Stage.LIVE)
    world.rogue_put("2")
    world.rogue_put("1")  # what the sender does: PostgreSQL's item, which has no stamp
    relay.round()
    assert world.counted("dualstore.rogue.changes") == {"unstamped": 2}


def test_taking_a_rogue_change_back_is_none_though_the_item_has_no_room_for_its_stamp(world, relay):
    key, stamp = {"id": {"S": "a"}}, new_stamp()
    value = "x" * (MAX_ITEM_SIZE_BYTES - item_size_bytes({**key, "v": {"S": ""}}))
    item = {**key, "v": {"S": value}, STAMP: {"B": stamp}}
    epoch = world.record.epoch
    world.postgres.write_direct(TABLE, key, item, stamp=stamp, predecessor=None, epoch=epoch)
    at(world, stage=Stage.LIVE)
    world.rogue_put("2")
    world.rogue_put(value)  # what the sender does
    relay.round()
    assert world.counted("dualstore.rogue.changes") == {"unstamped": 1}


def test_a_rogue_deletion_is_taken_back_through_the_outbox(world, relay):
    world.write("1")
    at(world, stage=Stage.LIVE)
    world.rogue_delete()
    relay.round()
    assert world.enqueued == ["a"]
    assert world.counted("dualstore.rogue.changes") == {"deleted": 1}


def test_the_echo_of_a_deletion_is_not_sent_again(world, relay):
    world.write("1")
    world.write(None)
    at(world, stage=Stage.LIVE)
    relay.round()
    assert world.enqueued == []


def test_an_expired_item_is_left_to_the_sweeper(world, relay):
    world.write("1")
    at(world, stage=Stage.LIVE)
    world.rogue_delete(is_ttl_deletion=True)
    relay.round()
    assert world.enqueued == []


def test_an_item_that_expired_and_was_written_again_is_sent_again(world, relay):
    world.write("1", mirrored=False)
    at(world, stage=Stage.LIVE)
    world.rogue_delete(is_ttl_deletion=True)
    key = {"id": {"S": "a"}}
    item = {**key, STAMP: {"B": new_stamp()}}
    epoch = world.record.epoch
    world.postgres.set_fence(TABLE, epoch=epoch, role=PostgresRole.MIRROR)
    world.postgres.write_direct(TABLE, key, item, stamp=item[STAMP]["B"], predecessor=None, epoch=epoch)
    world.postgres.set_fence(TABLE, epoch=epoch, role=PostgresRole.AUTHORITY)
    relay.round()
    assert world.enqueued == ["a"]


# Failures


def test_a_key_that_the_mirror_refuses_is_noted_and_does_not_hold_up_the_others(world, relay):
    for key in "abc":
        world.write("1", key=key, mirrored=False)
    refuse(relay, "b")
    assert relay.round()
    assert stored(world.postgres, "a") is not None
    assert stored(world.postgres, "c") is not None
    assert [doubt.key["id"]["S"] for doubt in world.postgres.dirty_keys(TABLE)] == ["b"]
    assert world.verdicts == {"settled": 2, "doubtful": 1}


def refuse(relay: StreamedRelay, key: str, failure: Exception | None = None) -> None:
    """Let the mirror refuse every write of a key."""

    def before(name: str, args: tuple[Any, ...]) -> None:
        if name == "write_settled" and args[1] == {"id": {"S": key}}:
            raise failure or MirrorRefused("a constraint of the team's own")

    relay.postgres.before = before


def test_a_key_that_cannot_even_be_noted_makes_the_table_suspect(world, relay):
    world.write("1", mirrored=False)

    def before(name: str, _: tuple[Any, ...]) -> None:
        if name in {"write_settled", "mark_dirty"}:
            raise ValueError("SQL cannot hold it")

    relay.postgres.before = before
    assert relay.round()
    assert len(world.record.suspects) == 1
    assert world.counted("dualstore.relay.gaps") == {"unrecorded": 1}


def test_a_failure_stops_at_the_first_key_that_was_not_dealt_with(world, relay):
    for key in "abca":
        world.write(key, key=key, mirrored=False)
    refuse(relay, "b", MirrorUnavailable("simulated"))
    carried = relay.carrier.carry(SERVED, records_of(world))
    assert carried.done == 1
    assert isinstance(carried.failure, MirrorUnavailable)


def test_no_record_is_dealt_with_while_it_is_not_known_what_is_decided(world, relay):
    world.rogue_put("1")
    records = records_of(world)
    at(world, phase=Phase.MOVED)
    assert relay.carrier.carry(SERVED, records).done == 0
    at(world, phase=Phase.OPEN)
    lapsed = View(record=world.record, read_until=0, write_until=world.clock.time)
    world.view = lambda _: lapsed  # type: ignore[method-assign]
    assert world.relay().carrier.carry(SERVED, records).done == 0
    assert stored(world.postgres) is None


def test_what_was_done_before_the_authority_moved_is_done_again_after_it(world, relay):
    """A key that was settled although PostgreSQL had become the authority has to be sent."""
    world.write("1")
    world.rogue_put("2")
    records = records_of(world)

    def moves(name: str, _: tuple[Any, ...]) -> None:
        if name == "write_settled" and world.record.stage is Stage.SHADOW:
            at(world, stage=Stage.LIVE)

    relay.postgres.before = moves
    assert relay.carrier.carry(SERVED, records).done == 2
    assert world.enqueued == ["a"]


def test_writes_that_pause_do_not_stop_the_relay(world, relay):
    """A move of the authority waits until the relay has drained."""
    world.rogue_put("1")
    at(world, phase=Phase.CLOSED, target=Stage.LIVE)
    relay.round()
    assert world.differing == []
