"""Relays that share the shards of a stream: order, checkpoints, gaps, and what being drained proves."""

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from dualstore.errors import ConfigurationError, MirrorUnavailable
from dualstore.replication.suspects import FAILED_OVER, UNMIRRORED, is_gap, renewed
from dualstore.stages import Dials, Stage
from unit.replication.relays import SERVED, TABLE, TIMES, StreamedRelay, StreamedWorld, stored

DAY = 24 * 60 * 60.0


@pytest.fixture
def world() -> StreamedWorld:
    return StreamedWorld()


@pytest.fixture
def relay(world: StreamedWorld) -> StreamedRelay:
    return world.relay()


def arn(world: StreamedWorld) -> str:
    stream = world.streams.stream_of(TABLE)
    assert stream is not None
    return stream.arn


# Checkpoints


def test_a_stream_is_followed_from_the_oldest_record_kept(world, relay):
    for key in "abcdefgh":
        world.rogue_put("1", key=key)
    relay.round()
    assert world.differing == []


def test_a_relay_goes_on_where_another_one_ended(world, relay):
    world.rogue_put("1")
    with relay.relay:
        relay.round()
    world.rogue_put("2", key="b")
    second = world.relay(holder="second")
    second.round()
    assert world.differing == []
    assert world.verdicts == {"settled": 2}


def test_records_that_were_not_dealt_with_are_read_again(world, relay):
    world.rogue_put("1")
    relay.dynamodb.down = True
    assert not relay.round()
    assert world.differing == ["a"]
    relay.dynamodb.down = False
    assert relay.round()
    assert world.differing == []


def test_a_checkpoint_does_not_pass_the_first_record_that_failed(world, relay):
    for key in "abc":
        world.rogue_put("1", key=key)
    relay.postgres.before = lambda name, args: fail_for("b", name, args)
    assert not relay.round()
    second = world.relay(holder="second")  # the first has died here
    second.round(seconds=TIMES.lease.total_seconds() + 1)
    assert world.differing == []


def fail_for(key, name, args):
    if name == "write_settled" and args[1] == {"id": {"S": key}}:
        raise MirrorUnavailable("simulated")


def test_an_iterator_that_has_expired_is_asked_for_again(world, relay):
    relay.round()
    world.streams.expire_iterators()
    world.rogue_put("1")
    relay.rounds(2)
    assert world.differing == []
    assert world.counted("dualstore.relay.gaps") == {}


def test_one_turn_reads_a_bounded_number_of_pages(world):
    relay = world.relay(times=replace(TIMES, pages=2, page_records=1))
    for key in "abc":
        world.rogue_put("1", key=key)
    relay.round()
    assert world.differing == ["c"]
    relay.round()
    assert world.differing == []


# Shards


def test_children_are_read_after_their_parent(world, relay):
    world.write("1", mirrored=False)
    world.streams.split(TABLE)
    world.rogue_update("2")
    world.streams.split(TABLE)
    world.rogue_put("3", key="b")
    relay.dynamodb.down = True
    relay.round()
    held = {row.shard_id for row in world.checkpoints.rows(TABLE) if row.open}
    assert len(held) == 1 + 2 + 4
    leased = world.checkpoints.lease(TABLE, arn(world), "x", limit=9, duration=timedelta(0))
    assert leased == []  # only the first shard is ready, and the relay has it
    relay.dynamodb.down = False
    relay.rounds(3)
    assert world.differing == []
    assert sum(row.open for row in world.checkpoints.rows(TABLE)) == 4


def test_children_are_recorded_before_their_parent_is_done(world):
    """Else the table would seem drained until its shards are next listed."""
    relay = world.relay(times=replace(TIMES, describe=timedelta(hours=1)))
    relay.round()
    world.streams.split(TABLE)
    world.rogue_put("1")
    relay.rounds(2)
    assert world.differing == []


def test_a_shard_that_ended_stays_until_its_children_are_known(world, relay, caplog):
    world.rogue_put("1")
    relay.round()
    shard = next(iter(world.streams._streams[TABLE].shards.values()))
    shard.closed_at = world.wall_clock()
    relay.rounds(3)
    assert [row.open for row in world.checkpoints.rows(TABLE)] == [True]
    assert caplog.text.count("names none that follows") == 1
    assert not world.checkpoints.drained_since(TABLE, world.wall_clock())


def test_the_shards_of_a_stream_that_is_switched_off_are_read_to_their_end(world, relay, caplog):
    world.rogue_put("1")
    world.streams.disable(TABLE)
    relay.rounds(2)
    assert world.differing == []
    assert not any(row.open for row in world.checkpoints.rows(TABLE))
    assert caplog.text.count("is off") == 1


def test_two_relays_share_the_shards(world):
    world = StreamedWorld(shards=4)
    first, second = world.relay(holder="first"), world.relay(holder="second")
    for _ in range(4):
        first.round(seconds=0.1)
        second.round(seconds=0.1)
    for number in range(20):
        world.rogue_put("1", key=f"key-{number}")
    first.round(seconds=0.1)
    assert world.differing != []
    second.round(seconds=0.1)
    assert world.differing == []
    assert world.counted("dualstore.relay.shards") == {"items": 2}


def test_what_a_relay_records_after_its_shard_was_taken_over_has_no_effect(world, relay):
    world.rogue_put("1")
    relay.round()
    second = world.relay(holder="second")
    world.rogue_put("2", key="b")
    taken: list[bool] = []

    def pause(name, args):
        if name == "items_of" and not taken:
            taken.append(True)
            second.round(seconds=TIMES.lease.total_seconds() + 1)
            world.rogue_put("3", key="c")
            second.round()

    relay.postgres.before = pause
    assert relay.round()
    world.rogue_put("4", key="d")
    (row,) = world.checkpoints.rows(TABLE)
    second.round()
    assert world.differing == []
    assert row.sequence == [r.sequence for r in world.streams._streams[TABLE].shards[row.shard_id].records][2]


# Gaps


def gaps(world: StreamedWorld) -> dict[str, int]:
    assert len([s for s in world.record.suspects if is_gap(s)]) == sum(
        world.counted("dualstore.relay.gaps").values()
    )
    return world.counted("dualstore.relay.gaps")


def test_a_checkpoint_past_its_day_is_a_gap_and_reading_goes_on(world, relay, caplog):
    world.rogue_put("1")
    relay.round()
    world.rogue_put("2", key="b")
    world.clock.advance(DAY)
    world.streams.trim(TABLE)
    world.rogue_put("3", key="c")
    relay.rounds(3)
    assert gaps(world) == {"trimmed": 1}
    assert world.differing == ["b"]
    assert "dualstore verify" in caplog.text


def test_a_shard_that_nobody_has_read_for_a_day_is_a_gap_though_it_has_no_checkpoint(world, relay):
    relay.round()
    world.rogue_put("1")
    world.clock.advance(DAY)
    world.streams.trim(TABLE)
    world.relay(holder="second").rounds(2)
    assert gaps(world) == {"trimmed": 1}


def test_a_trimmed_checkpoint_of_a_shard_that_was_caught_up_today_is_no_gap(world, relay):
    world.rogue_put("1")
    relay.rounds(2)
    world.clock.advance(DAY / 2)
    relay.rounds(2)
    world.streams.trim(TABLE)
    world.streams.expire_iterators()
    world.rogue_put("2", key="b")
    relay.rounds(3)
    assert gaps(world) == {}
    assert world.differing == []


def test_a_shard_that_vanished_unread_is_a_gap(world, relay):
    world.rogue_put("1")
    relay.round()
    world.rogue_put("2", key="b")
    world.streams.split(TABLE)
    world.clock.advance(DAY)
    world.streams.trim(TABLE)
    world.rogue_put("3", key="c")
    relay.rounds(2)
    assert gaps(world)["vanished"] == 1
    assert world.differing == ["b"]


def test_shards_whose_parents_nobody_has_heard_of_are_a_gap(world, relay):
    """The only shard known was finished; its children came and went while nobody looked."""
    relay.round()
    world.streams.split(TABLE)
    relay.rounds(2)
    for row in world.checkpoints.rows(TABLE):
        world.checkpoints.write_off(TABLE, row.stream_arn, [row.shard_id])
    world.streams.split(TABLE)
    world.streams.split(TABLE)
    world.clock.advance(1)
    for _ in range(2):  # all but the youngest generation are closed, and empty
        world.streams.trim(TABLE)
    relay.round()
    assert set(gaps(world)) == {"unlinked"}


def test_a_stream_that_was_switched_off_and_on_again_is_a_gap(world, relay):
    world.rogue_put("1")
    relay.round()
    world.streams.enable(TABLE)
    world.rogue_put("2", key="b")
    relay.rounds(2)
    assert gaps(world) == {"replaced": 1}
    assert world.differing == []


def test_a_stream_that_lists_no_shard_is_one_gap(world, relay):
    """Found anew at each look, it would outlive every verification."""
    relay.round()
    world.streams.replace(TABLE)
    second = world.relay(holder="second")
    for _ in range(3):
        relay.round()
        second.round()
    (gap,) = world.record.suspects
    world.clear_suspects(TABLE, frozenset({gap}))  # by a verification
    world.rogue_put("1", key="b")
    world.relay(holder="third").round()
    world.streams.list_shards(TABLE)
    relay.rounds(3)
    assert world.record.suspects == frozenset()
    assert world.counted("dualstore.relay.gaps") == {"replaced": 1}
    assert world.differing == []


def test_a_stream_that_is_replaced_once_more_is_another_gap(world, relay):
    relay.round()
    world.streams.replace(TABLE)
    relay.rounds(2)
    world.streams.replace(TABLE)
    relay.rounds(2)
    assert gaps(world) == {"replaced": 2}


def test_what_is_written_until_a_stream_is_on_is_a_gap_as_well(world, relay):
    """It may be in neither, though somebody has compared both sides meanwhile."""
    relay.round()
    world.streams.replace(TABLE, enabling=True)
    relay.rounds(3)
    assert gaps(world) == {"replaced": 1}
    early = world.record.suspects
    world.streams.complete(TABLE)
    relay.rounds(3)
    world.streams.list_shards(TABLE)
    relay.rounds(3)
    assert len(world.record.suspects - early) == 1
    assert world.counted("dualstore.relay.gaps") == {"replaced": 2}


def test_a_stream_that_is_on_once_it_lists_shards_is_a_gap_anew(world, relay):
    relay.round()
    world.streams.replace(TABLE, enabling=True)
    relay.rounds(2)
    early = world.record.suspects
    world.streams.list_shards(TABLE)
    relay.rounds(3)
    assert len(world.record.suspects - early) == 1


def test_a_first_stream_that_lists_no_shard_is_no_gap_and_the_one_after_it_neither(world, relay):
    world.streams.replace(TABLE)
    world.streams.disable(TABLE)
    relay.rounds(2)
    world.streams.enable(TABLE)
    relay.rounds(2)
    assert gaps(world) == {}


def test_a_stream_that_vanishes_before_it_was_followed_leaves_shards_with_unknown_parents(world, relay):
    relay.round()
    world.streams.replace(TABLE)
    relay.round()
    world.streams.split(TABLE)
    world.clock.advance(1)
    world.streams.trim(TABLE)
    world.streams.list_shards(TABLE)
    relay.round()
    assert set(gaps(world)) == {"replaced", "unlinked"}


def test_splits_that_a_relay_follows_leave_no_gap(world, relay):
    for number in range(6):
        world.rogue_put(str(number), key=f"key-{number}")
        world.streams.split(TABLE, into=1)
        relay.rounds(2, seconds=DAY / 6)
        world.streams.trim(TABLE, before=world.wall_clock() - timedelta(days=1))
    assert gaps(world) == {}
    assert world.differing == []


# Drained, and suspects


def test_a_table_is_drained_once_an_answer_asked_for_later_was_empty(world, relay):
    relay.round()
    moment = world.wall_clock()
    assert not world.checkpoints.drained_since(TABLE, moment)
    relay.round(seconds=0.5)
    assert not world.checkpoints.drained_since(TABLE, moment)  # what was written may be on its way
    relay.round(seconds=5)
    assert world.checkpoints.drained_since(TABLE, moment)


def test_empty_pages_before_the_records_do_not_pass_for_the_end(relay):
    world = StreamedWorld(empty_pages=3)
    world.rogue_put("1")
    moment = world.wall_clock()
    world.relay(times=replace(TIMES, pages=1)).rounds(2, seconds=5)
    assert not world.checkpoints.drained_since(TABLE, moment)


def test_a_table_is_not_drained_while_a_child_is_unread(world, relay):
    relay.round(seconds=5)
    world.streams.split(TABLE)
    world.rogue_put("1")
    moment = world.wall_clock()
    relay.dynamodb.down = True
    relay.round(seconds=5)
    relay.round(seconds=5)
    assert not world.checkpoints.drained_since(TABLE, moment)
    relay.dynamodb.down = False
    relay.rounds(2, seconds=5)
    assert world.checkpoints.drained_since(TABLE, moment)


def test_a_table_without_a_stream_is_never_drained(world, relay):
    relay.round()
    world.streams.disable(TABLE)
    relay.rounds(3, seconds=5)
    assert not world.checkpoints.drained_since(TABLE, world.wall_clock() - timedelta(seconds=14))


def test_a_busy_shard_is_drained_up_to_a_minute_before_its_last_record(world):
    relay = world.relay(times=replace(TIMES, pages=1))
    moment = world.wall_clock()
    for number in range(20):
        world.rogue_put(str(number), key=f"key-{number}")
        world.clock.advance(10)
    relay.rounds(3, seconds=0.1)
    assert world.checkpoints.drained_since(TABLE, moment + timedelta(seconds=10))
    assert not world.checkpoints.drained_since(TABLE, moment + timedelta(seconds=90))


def die(world: StreamedWorld) -> None:
    world.write("1", mirrored=False)
    world.die("dead")


def test_a_dead_process_is_no_longer_suspect_once_the_relay_has_passed_its_death(world, relay):
    world.clock.advance(3600)
    relay.round()
    die(world)
    relay.round()
    assert world.differing == []
    relay.rounds(2, seconds=5)
    assert world.record.suspects == {"dead"}  # its last request may still be on its way
    relay.rounds(3, seconds=5)
    assert world.record.suspects == frozenset()


@pytest.mark.parametrize("kind", ["stream gap 1234", UNMIRRORED, FAILED_OVER])
def test_what_only_a_verification_can_clear_is_cleared_by_no_relay(world, relay, kind):
    world.clock.advance(3600)
    relay.round()
    suspects = {
        kind,
        *renewed(frozenset(), kind, 7),
    }  # as the version before has noted it, and as this one does
    world.record = replace(world.record, suspects=frozenset(suspects))
    relay.rounds(6, seconds=10)
    assert world.record.suspects == suspects


def test_a_process_that_died_before_the_stream_was_followed_leaves_a_gap(world, relay):
    world.clock.advance(3600)
    die(world)
    relay.rounds(6, seconds=10)
    assert gaps(world) == {"began_late": 1}
    assert "dead" not in world.record.suspects


def test_a_process_that_died_soon_after_the_stream_began_leaves_a_gap(world, relay):
    relay.round()
    die(world)
    relay.rounds(6, seconds=10)
    assert gaps(world) == {"began_late": 1}


def test_a_dead_process_is_one_gap_however_many_relays_see_it_and_how_often(world, relay):
    world.streams.replace(TABLE)
    die(world)
    relay.rounds(3)
    world.relay(holder="second").rounds(3)
    world.streams.list_shards(TABLE)
    relay.rounds(3)
    world.relay(holder="third").rounds(3)
    assert gaps(world) == {"began_late": 1}
    world.die("another")
    relay.rounds(3)
    assert gaps(world) == {"began_late": 2}


@pytest.mark.parametrize("passing", [{"dials": Dials(mirror_percent=50)}, {"stage": Stage.OFF}])
def test_nobody_is_cleared_by_a_relay_that_passes_records_over(world, relay, passing):
    world.clock.advance(3600)
    relay.round()
    world.record = replace(world.record, **passing)
    die(world)
    relay.rounds(6, seconds=10)
    assert world.record.suspects == {"dead"}


# What operators see


def test_the_lag_is_the_age_of_the_last_record_and_none_once_caught_up(world):
    relay = world.relay(times=replace(TIMES, pages=1))
    for number in range(6):
        world.rogue_put("1", key=f"key-{number}")
    relay.round(seconds=100)
    assert world.counted("dualstore.relay.lag") == {"items": 100}
    relay.rounds(2, seconds=1)
    assert world.counted("dualstore.relay.lag") == {"items": 0}


def test_rogue_changes_are_logged_once_an_interval_with_a_hashed_key(world, relay, caplog):
    caplog.set_level(logging.WARNING)
    for number in range(5):
        world.rogue_put("secret", key=f"plain-key-{number}")
        relay.round()
    lines = [line for line in caplog.messages if "did not go through dualstore" in line]
    assert len(lines) == 1
    assert "plain-key" not in caplog.text
    assert "secret" not in caplog.text
    world.rogue_put("secret", key="plain-key")
    relay.round(seconds=61)
    assert "5 changes of items in DynamoDB" in caplog.text


def test_every_relay_can_tell_of_the_rogue_changes_that_any_has_seen(world, relay):
    for number in range(5):
        world.rogue_put("1", key=f"key-{number}")
    relay.round()
    world.streams.split(TABLE)
    world.rogue_put("1", key="another")
    relay.rounds(2)
    seen = world.relay(holder="second").relay.rogues(TABLE)
    assert {kind: rogue.count for kind, rogue in seen.items()} == {"unstamped": 6}
    assert seen["unstamped"].last_at > world.wall_clock() - timedelta(seconds=3)


def test_a_table_without_a_stream_is_left_alone(world, relay, caplog):
    world.streams._streams.clear()
    relay.rounds(3)
    assert caplog.text.count("is off") == 1
    assert stored(world.postgres) is None


def test_records_of_a_table_that_is_not_served_are_refused(world, relay):
    with pytest.raises(ConfigurationError, match="items-prod"):
        relay.relay.carry("elsewhere", [])
    assert relay.relay.carry(SERVED.physical, []).done == 0
