"""What every store of checkpoints does: leases, fencing, and what being drained means."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

from dualstore import schema
from dualstore.stores.memory.streams import MemoryCheckpoints
from dualstore.stores.postgres_streams import PostgresCheckpoints
from dualstore.stores.streams import NO_SHARD, Checkpoints, RogueSeen, Shard, ShardLease

TABLE, ARN = "items-prod", "arn:aws:dynamodb:test:0:table/items-prod/stream/1"
LONG, SHORT = timedelta(minutes=5), timedelta()
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def engine(postgres_server: Any) -> Iterator[sqlalchemy.Engine]:
    url = postgres_server.create_database()
    engine = sqlalchemy.create_engine(url)
    schema.upgrade(engine)
    yield engine
    engine.dispose()
    postgres_server.drop_database(url)


@pytest.fixture(params=["memory", "postgres"])
def checkpoints(request: pytest.FixtureRequest) -> Checkpoints:
    if request.param == "memory":
        return MemoryCheckpoints()
    engine: sqlalchemy.Engine = request.getfixturevalue("engine")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("TRUNCATE dualstore.stream_shards"))
    return PostgresCheckpoints(engine)


def lease(
    checkpoints: Checkpoints, holder: str = "first", *, limit: int = 100, duration: timedelta = LONG
) -> list[ShardLease]:
    return list(checkpoints.lease(TABLE, ARN, holder, limit=limit, duration=duration))


def names(leases: list[ShardLease]) -> set[str]:
    return {each.shard_id for each in leases}


def test_a_shard_is_leased_to_one_worker(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a")])
    (first,) = lease(checkpoints)
    assert (first.shard_id, first.sequence, first.rogues) == ("a", None, {})
    assert lease(checkpoints, "second") == []


def test_registering_again_changes_nothing(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a")])
    (first,) = lease(checkpoints)
    assert checkpoints.advance(first, "7", {}, caught_up_at=checkpoints.now()) is not None
    checkpoints.register(TABLE, ARN, [Shard("a"), Shard("b", "a")])
    assert [(row.shard_id, row.sequence) for row in checkpoints.rows(TABLE)] == [("a", "7"), ("b", None)]


def test_a_stream_that_lists_no_shard_is_noted_once_and_followed_by_nobody(checkpoints):
    checkpoints.note_unlisted(TABLE, ARN)
    checkpoints.note_unlisted(TABLE, ARN)
    assert [(row.stream_arn, row.shard_id, row.open) for row in checkpoints.rows(TABLE)] == [
        (ARN, NO_SHARD, False)
    ]
    assert lease(checkpoints) == []
    assert not checkpoints.drained_since(TABLE, checkpoints.now() - SECOND)
    checkpoints.register(TABLE, ARN, [Shard("a")])
    assert names(lease(checkpoints)) == {"a"}


def test_the_first_shards_of_a_stream_are_unread_since_it_listed_none(checkpoints):
    """What went into them meanwhile may have been trimmed again."""
    checkpoints.note_unlisted(TABLE, ARN)
    time.sleep(1.5)
    checkpoints.register(TABLE, ARN, [Shard("a")])
    checkpoints.register(TABLE, ARN, [Shard("b")])
    checkpoints.register(TABLE, ARN + "2", [Shard("c")])
    leases = [*lease(checkpoints), *checkpoints.lease(TABLE, ARN + "2", "first", limit=1, duration=LONG)]
    unread = {each.shard_id: each.unread_for for each in leases}
    assert unread["a"] >= 1.5 * SECOND
    assert unread["b"] < 1.5 * SECOND
    assert unread["c"] < 1.5 * SECOND


def test_tables_and_streams_are_kept_apart(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a")])
    checkpoints.register(TABLE, ARN + "2", [Shard("a")])
    checkpoints.register("others", ARN, [Shard("a")])
    assert len(lease(checkpoints)) == 1
    assert len(checkpoints.rows(TABLE)) == 2


def test_a_lease_that_ran_out_passes_to_another_worker(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a")])
    (first,) = lease(checkpoints, duration=SHORT)
    (second,) = lease(checkpoints, "second")
    assert second.token == first.token + 1


def test_a_renewed_lease_keeps_its_token(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a")])
    (first,) = lease(checkpoints, duration=SHORT)
    (again,) = lease(checkpoints)
    assert again.token == first.token
    assert lease(checkpoints, "second") == []


def test_a_worker_that_lost_its_shard_records_nothing(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a")])
    (first,) = lease(checkpoints, duration=SHORT)
    (second,) = lease(checkpoints, "second")
    assert checkpoints.advance(second, "9", {}, caught_up_at=checkpoints.now()) is not None
    before = checkpoints.rows(TABLE)
    assert checkpoints.advance(first, "5", {}, caught_up_at=checkpoints.now()) is None
    assert checkpoints.mark_caught_up(first, checkpoints.now()) is None
    assert checkpoints.restart(first) is None
    assert checkpoints.finish(first) is False
    assert checkpoints.rows(TABLE) == before


def test_a_worker_that_came_back_to_its_shard_cannot_use_its_old_lease(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a")])
    (first,) = lease(checkpoints, duration=SHORT)
    lease(checkpoints, "second", duration=SHORT)
    (again,) = lease(checkpoints)
    assert again.token == first.token + 2
    assert checkpoints.advance(first, "5", {}, caught_up_at=checkpoints.now()) is None


def test_what_is_given_back_is_free_at_once(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a")])
    lease(checkpoints)
    checkpoints.release("first")
    assert names(lease(checkpoints, "second")) == {"a"}


def test_no_worker_takes_more_than_it_may(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard(name) for name in "abc"])
    assert len(lease(checkpoints, limit=2)) == 2
    assert len(lease(checkpoints, limit=2)) == 2


def test_a_worker_without_shards_takes_some_over_until_both_have_the_same(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard(name) for name in "abcd"])
    assert len(lease(checkpoints)) == 4
    for _ in range(5):
        second = lease(checkpoints, "second")
        first = lease(checkpoints)
    assert len(second) == len(first) == 2
    assert names(first) | names(second) == set("abcd")


def test_a_child_is_given_out_after_its_parent_is_done(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a"), Shard("b", "a"), Shard("c", "unknown")])
    leases = lease(checkpoints)
    assert names(leases) == {"a", "c"}
    assert checkpoints.finish(leases[0])
    assert names(lease(checkpoints)) == {"b", "c"}


def test_a_shard_that_is_written_off_is_done(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a"), Shard("b", "a")])
    lease(checkpoints)
    checkpoints.write_off(TABLE, ARN, ["a"])
    assert names(lease(checkpoints)) == {"b"}


def test_a_restarted_shard_begins_anew(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a")])
    (first,) = lease(checkpoints)
    advanced = checkpoints.advance(first, "7", {}, caught_up_at=checkpoints.now() - 3 * SECOND)
    assert advanced is not None
    assert advanced.sequence == "7"
    assert advanced.unread_for >= 3 * SECOND
    restarted = checkpoints.restart(advanced)
    assert restarted is not None
    assert restarted.sequence is None
    assert restarted.unread_for < 2 * SECOND
    assert checkpoints.rows(TABLE)[0].caught_up_at is None


def test_a_table_is_drained_up_to_the_shard_that_is_the_furthest_behind(checkpoints):
    now = checkpoints.now()
    assert not checkpoints.drained_since(TABLE, now)
    checkpoints.register(TABLE, ARN, [Shard("a"), Shard("b")])
    first, second = lease(checkpoints)
    assert checkpoints.mark_caught_up(first, now) is not None
    assert not checkpoints.drained_since(TABLE, now - SECOND)
    assert checkpoints.advance(second, "7", {}, caught_up_at=now - SECOND) is not None
    assert checkpoints.drained_since(TABLE, now - SECOND)
    assert not checkpoints.drained_since(TABLE, now)


def test_what_is_known_to_be_drained_is_not_forgotten(checkpoints):
    now = checkpoints.now()
    checkpoints.register(TABLE, ARN, [Shard("a")])
    (first,) = lease(checkpoints)
    assert checkpoints.mark_caught_up(first, now) is not None
    assert checkpoints.advance(first, "7", {}, caught_up_at=now - SECOND) is not None
    assert checkpoints.mark_caught_up(first, now - SECOND) is not None
    assert checkpoints.drained_since(TABLE, now)


def test_a_child_knows_what_was_known_of_its_parent_and_no_more(checkpoints):
    now = checkpoints.now()
    checkpoints.register(TABLE, ARN, [Shard("a")])
    (first,) = lease(checkpoints)
    assert checkpoints.mark_caught_up(first, now) is not None
    checkpoints.register(TABLE, ARN, [Shard("b", "a")])
    assert checkpoints.finish(first)
    assert checkpoints.drained_since(TABLE, now)
    assert not checkpoints.drained_since(TABLE, now + SECOND)


def test_a_table_all_of_whose_shards_are_done_is_not_drained(checkpoints):
    checkpoints.register(TABLE, ARN, [Shard("a")])
    (first,) = lease(checkpoints)
    assert checkpoints.mark_caught_up(first, checkpoints.now()) is not None
    assert checkpoints.finish(first)
    assert not checkpoints.drained_since(TABLE, checkpoints.now() - LONG)


def test_rogue_changes_of_all_shards_add_up(checkpoints):
    now = checkpoints.now()
    checkpoints.register(TABLE, ARN, [Shard("a"), Shard("b")])
    first, second = lease(checkpoints)
    early, late = RogueSeen(2, "0123", now - SECOND), RogueSeen(3, "4567", now)
    assert checkpoints.advance(first, "1", {"unstamped": late}, caught_up_at=now) is not None
    seen = {"unstamped": early, "deleted": early}
    assert checkpoints.advance(second, "1", seen, caught_up_at=now) is not None
    assert checkpoints.rogues(TABLE) == {"unstamped": RogueSeen(5, "4567", now), "deleted": early}
    assert [each.rogues for each in lease(checkpoints)] == [{"unstamped": late}, seen]
