"""The mirror protocol: what a mirror may be made to hold, and onto what."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import pytest

from contract.shapes import shape
from contract.tables import N, S, TableUnderTest, comparable
from dualstore.control import PostgresRole
from dualstore.errors import MirrorDirty, MirrorFenced, MirrorUnavailable
from dualstore.items import PREDECESSOR, STAMP, Item, Key, key_bytes
from dualstore.operations import parse
from dualstore.stores import NOTHING, Mirror, MirrorState
from dualstore.stores.base import SettledWrite

KEY = {"pk": S("p"), "sk": N(1)}
EPOCH = 1
"""At which the store is the mirror of every table of these tests."""


def stamp() -> bytes:
    return uuid.uuid4().bytes


def image(of: bytes | None = None, **attributes: Any) -> Item:
    """An item as a write left it, with the stamp of that write."""
    return {**KEY, **attributes, **({} if of is None else {STAMP: {"B": of}})}


@dataclass
class OneKey:
    """One key in one mirror."""

    mirror: Mirror
    table: str

    def direct(self, item: Item | None, *, by: bytes, onto: bytes | None, epoch: int = EPOCH) -> bool:
        return self.mirror.write_direct(self.table, KEY, item, stamp=by, predecessor=onto, epoch=epoch)

    def settle(self, item: Item | None) -> None:
        seen = self.state.revision
        assert self.mirror.write_settled(self.table, KEY, item, seen=seen, epoch=EPOCH)

    @property
    def state(self):
        return self.mirror.state(self.table, KEY)

    @property
    def item(self) -> Item | None:
        item = self.state.item
        return None if item is None else comparable(item)


@pytest.fixture
def key(things: TableUnderTest, subject) -> OneKey:
    subject.fence.raise_fence(things.name, epoch=EPOCH, role=PostgresRole.MIRROR)
    return OneKey(things.store, things.name)


@pytest.fixture
def fence(key: OneKey, subject) -> Callable[..., None]:
    """Raises the fence of the key's table to an epoch, and to a role other than the mirror's where told."""

    def raise_to(epoch: int, role: PostgresRole = PostgresRole.MIRROR) -> None:
        subject.fence.raise_fence(key.table, epoch=epoch, role=role)

    return raise_to


# --- Direct writes: only onto the predecessor --------------------------------------------------


def test_a_first_image_is_written_where_there_is_nothing(key: OneKey):
    first = stamp()
    assert key.state.revision == NOTHING
    assert key.direct(image(first, a=N(1)), by=first, onto=None)
    assert key.item == image(first, a=N(1))
    assert key.state.revision.row is not None
    assert key.state.revision.tombstone is None


def test_an_image_is_written_onto_its_predecessor(key: OneKey):
    first, second = stamp(), stamp()
    key.direct(image(first, a=N(1), b=N(1)), by=first, onto=None)
    before = key.state.revision
    assert key.direct(image(second, a=N(2)), by=second, onto=first)
    assert key.item == image(second, a=N(2))
    assert key.state.revision.row > before.row


def test_an_image_is_not_written_onto_anything_else(key: OneKey):
    first, second = stamp(), stamp()
    key.direct(image(first, a=N(1)), by=first, onto=None)
    before = key.state
    assert not key.direct(image(second, a=N(2)), by=second, onto=stamp())
    assert not key.direct(image(second, a=N(2)), by=second, onto=None)
    assert key.state == before


def test_an_image_is_not_written_where_its_predecessor_is_missing(key: OneKey):
    second = stamp()
    assert not key.direct(image(second), by=second, onto=stamp())
    assert key.state.revision == NOTHING


def test_a_row_without_a_stamp_is_nobodys_predecessor(key: OneKey):
    key.settle(image(a=N(1)))
    by = stamp()
    assert not key.direct(image(by), by=by, onto=None)
    assert not key.direct(image(by), by=by, onto=stamp())
    assert not key.direct(None, by=by, onto=None)
    assert key.item == image(a=N(1))


def test_a_write_that_is_there_already_is_done(key: OneKey):
    first = stamp()
    assert key.direct(image(first, a=N(1)), by=first, onto=None)
    assert key.direct(image(first, a=N(1)), by=first, onto=None)
    assert key.direct(image(first, a=N(1)), by=first, onto=stamp())
    assert key.item == image(first, a=N(1))


def test_a_creation_is_not_written_onto_a_tombstone(key: OneKey):
    first, second = stamp(), stamp()
    key.direct(image(first), by=first, onto=None)
    key.direct(None, by=stamp(), onto=first)
    assert not key.direct(image(second), by=second, onto=None)
    assert not key.direct(image(first), by=first, onto=None)
    assert key.item is None


def test_a_deletion_leaves_a_tombstone_with_the_deleted_stamp(key: OneKey):
    first = stamp()
    key.direct(image(first), by=first, onto=None)
    assert key.direct(None, by=stamp(), onto=first)
    state = key.state
    assert state.item is None
    assert state.tombstone_stamp == first
    assert (state.revision.row, state.revision.tombstone is None) == (None, False)


def test_a_deletion_is_not_applied_to_anything_but_its_predecessor(key: OneKey):
    first = stamp()
    key.direct(image(first), by=first, onto=None)
    assert not key.direct(None, by=stamp(), onto=stamp())
    assert not key.direct(None, by=stamp(), onto=None)
    assert key.item == image(first)


def test_a_deletion_that_was_applied_is_done(key: OneKey):
    first = stamp()
    key.direct(image(first), by=first, onto=None)
    by = stamp()
    assert key.direct(None, by=by, onto=first)
    assert key.direct(None, by=by, onto=first)
    assert not key.direct(None, by=stamp(), onto=stamp())
    assert key.state.tombstone_stamp == first


def test_a_deletion_of_what_the_mirror_never_had_is_not_done(key: OneKey):
    assert not key.direct(None, by=stamp(), onto=stamp())
    assert key.state.revision == NOTHING


def test_a_deletion_that_found_nothing_leaves_a_tombstone(key: OneKey):
    assert key.direct(None, by=stamp(), onto=None)
    assert key.state.revision.row is None
    assert key.state.revision.tombstone is not None
    late = stamp()
    assert not key.direct(image(late), by=late, onto=None)


def test_a_deletion_that_found_nothing_renews_a_tombstone(key: OneKey):
    key.direct(None, by=stamp(), onto=None)
    before = key.state.revision
    assert key.direct(None, by=stamp(), onto=None)
    assert key.state.revision.tombstone > before.tombstone


# --- Settled writes: only while the key is as it was seen --------------------------------------


def test_a_settled_write_replaces_whatever_was_seen(key: OneKey):
    first = stamp()
    key.settle(image(first, a=N(1)))
    assert key.item == image(first, a=N(1))
    key.settle(image(b=N(2)))
    assert key.item == image(b=N(2))
    key.settle(None)
    assert key.item is None
    assert key.state.revision.tombstone is not None
    key.settle(image(a=N(3)))
    assert key.item == image(a=N(3))


def test_a_settled_absence_leaves_a_tombstone_with_the_rows_stamp(key: OneKey):
    first = stamp()
    key.direct(image(first), by=first, onto=None)
    key.settle(None)
    assert key.state.tombstone_stamp == first


def test_an_absence_settled_where_there_was_nothing_leaves_a_tombstone(key: OneKey):
    key.settle(None)
    assert key.state.item is None
    assert key.state.revision.tombstone is not None


@pytest.mark.parametrize("settled", [None, {**KEY, "a": N(1)}], ids=["absence", "item"])
def test_settling_what_is_already_so_takes_a_new_revision(key: OneKey, settled):
    key.settle(settled)
    seen = key.state.revision
    key.settle(settled)
    assert key.state.revision != seen
    assert not key.mirror.write_settled(key.table, KEY, image(z=N(9)), seen=seen, epoch=EPOCH)


@pytest.mark.parametrize("settled", [None, {**KEY, "slow": N(1)}], ids=["absence", "item"])
@pytest.mark.parametrize("meanwhile", ["put", "replace", "delete", "settle"])
def test_a_settled_write_gives_way_to_what_came_between(key: OneKey, meanwhile, settled):
    first, second = stamp(), stamp()
    if meanwhile != "put":
        key.direct(image(first), by=first, onto=None)
    seen = key.state.revision
    match meanwhile:
        case "put":
            key.direct(image(second), by=second, onto=None)
        case "replace":
            key.direct(image(second), by=second, onto=first)
        case "delete":
            key.direct(None, by=second, onto=first)
        case "settle":
            key.settle(image(first))
    expected = key.state
    assert not key.mirror.write_settled(key.table, KEY, settled, seen=seen, epoch=EPOCH)
    assert key.state == expected


def test_a_mirror_that_was_deleted_and_re_created_is_not_as_it_was(key: OneKey):
    first = stamp()
    key.direct(image(first), by=first, onto=None)
    seen = key.state.revision
    key.settle(None)
    key.settle(image(first))
    assert not key.mirror.write_settled(key.table, KEY, None, seen=seen, epoch=EPOCH)


def test_revisions_are_not_shared_by_keys(key: OneKey):
    other = {"pk": S("p"), "sk": N(2)}
    key.settle(image())
    assert key.mirror.write_settled(key.table, other, other, seen=NOTHING, epoch=EPOCH)
    assert key.mirror.state(key.table, other).revision.row != key.state.revision.row


def test_the_predecessor_is_not_kept(key: OneKey):
    first, second = stamp(), stamp()
    key.direct(image(first), by=first, onto=None)
    key.direct({**image(second), PREDECESSOR: {"B": first}}, by=second, onto=first)
    assert key.item == image(second)


def test_a_numeric_key_is_its_number(key: OneKey):
    first = stamp()
    key.direct(image(first), by=first, onto=None)
    written_otherwise = {"pk": S("p"), "sk": N("1.0")}
    assert key.mirror.state(key.table, written_otherwise).item == image(first)
    assert key.mirror.write_direct(
        key.table, written_otherwise, None, stamp=stamp(), predecessor=first, epoch=EPOCH
    )
    assert key.item is None


# --- Settled writes of several keys: all or none --------------------------------------------------


OTHER = {"pk": S("p"), "sk": N(2)}


def together(
    key: OneKey, *keys: Key, epoch: int = EPOCH, table: str | None = None, **attributes: Any
) -> list[SettledWrite]:
    """Writes of these keys, as they are now."""
    table = table or key.table
    return [
        SettledWrite(table, each, {**each, **attributes}, key.mirror.state(table, each).revision, epoch)
        for each in keys
    ]


def test_several_keys_are_settled_together(key: OneKey):
    key.settle(image(a=N(1)))
    present, absent = together(key, KEY, OTHER, a=N(2))
    assert key.mirror.write_settled_together([replace(present, image=None), absent])
    assert key.item is None
    assert key.state.revision.tombstone is not None
    assert key.mirror.state(key.table, OTHER).item == {**OTHER, "a": N(2)}


@pytest.mark.parametrize("order", [1, -1])
def test_where_one_of_several_keys_has_changed_none_is_written(key: OneKey, order):
    writes = together(key, KEY, OTHER)
    key.settle(image(a=N(1)))
    before = key.state
    assert not key.mirror.write_settled_together(writes[::order])
    assert key.state == before
    assert key.mirror.state(key.table, OTHER).revision == NOTHING


def test_where_one_of_several_keys_has_changed_the_lock_of_none_stays(key: OneKey):
    writes = together(key, KEY, OTHER)
    key.settle(image(a=N(1)))
    assert not key.mirror.write_settled_together(writes)
    assert key.mirror.write_settled_together(together(key, KEY, OTHER))


def test_settling_no_keys_together_is_done(key: OneKey):
    assert key.mirror.write_settled_together([])


def test_keys_of_several_tables_are_settled_together(key: OneKey, table, subject):
    other = table("things")
    subject.fence.raise_fence(other.name, epoch=7, role=PostgresRole.MIRROR)
    writes = [*together(key, KEY), *together(key, KEY, epoch=7, table=other.name)]
    assert key.mirror.write_settled_together(writes)
    assert key.item == KEY
    assert key.mirror.state(other.name, KEY).item == KEY


def test_settling_together_waits_for_the_lock_of_every_key(key: OneKey):
    writes = together(key, KEY, OTHER)
    done = threading.Event()

    def write() -> None:
        if key.mirror.write_settled_together(writes):
            done.set()

    with key.mirror.locked(key.table, OTHER):
        writer = threading.Thread(target=write)
        writer.start()
        assert not done.wait(0.3)
    writer.join(30)
    assert done.is_set()


def test_the_locks_of_keys_settled_together_are_taken_in_one_order(key: OneKey):
    """Whoever waits for the first of two locks holds none; taken as asked for, it would hold the other."""
    written_meanwhile = []
    for held, other in ((KEY, OTHER), (OTHER, KEY)):
        both, (alone,) = together(key, other, held), together(key, other, a=N(1))
        with ThreadPoolExecutor(2) as pool:
            with key.mirror.locked(key.table, held):
                pool.submit(key.mirror.write_settled_together, both)
                time.sleep(0.5)  # it waits by now; a store gives up after two seconds
                written = pool.submit(key.mirror.write_settled_together, [alone])
                written_meanwhile.append(bool(wait([written], timeout=0.5).done))
            written.result()
    assert sorted(written_meanwhile) == [False, True]


def test_keys_settled_together_in_opposite_orders_do_not_wait_for_each_other_for_ever(key: OneKey):
    keys = [{"pk": S("p"), "sk": N(number)} for number in range(6)]
    start = threading.Barrier(4)
    done: list[int] = []

    def write(order: int) -> None:
        start.wait()
        for _ in range(10):
            while not key.mirror.write_settled_together(together(key, *keys[::order])):
                pass
        done.append(order)

    writers = [threading.Thread(target=write, args=(order,)) for order in (1, -1, 1, -1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert sorted(done) == [-1, -1, 1, 1]


# --- The fence: only the mirror of this epoch -----------------------------------------------------


FIRST, SECOND = stamp(), stamp()
FENCED: Mapping[str, tuple[Item | None, Callable[[OneKey, int], bool]]] = {
    "first image": (None, lambda key, epoch: key.direct(image(SECOND), by=SECOND, onto=None, epoch=epoch)),
    "next image": (
        image(FIRST),
        lambda key, epoch: key.direct(image(SECOND), by=SECOND, onto=FIRST, epoch=epoch),
    ),
    "deletion": (image(FIRST), lambda key, epoch: key.direct(None, by=SECOND, onto=FIRST, epoch=epoch)),
    "deletion of nothing": (None, lambda key, epoch: key.direct(None, by=SECOND, onto=None, epoch=epoch)),
    "settled item": (image(FIRST), lambda key, epoch: settled(key, image(SECOND), epoch)),
    "settled first item": (None, lambda key, epoch: settled(key, image(SECOND), epoch)),
    "settled absence": (image(FIRST), lambda key, epoch: settled(key, None, epoch)),
    "settled absence of nothing": (None, lambda key, epoch: settled(key, None, epoch)),
    "settled together": (
        image(FIRST),
        lambda key, epoch: key.mirror.write_settled_together(together(key, KEY, OTHER, epoch=epoch)),
    ),
}
"""What a mirror holds, and a write that is right there, at an epoch."""


def settled(key: OneKey, item: Item | None, epoch: int) -> bool:
    return key.mirror.write_settled(key.table, KEY, item, seen=key.state.revision, epoch=epoch)


@pytest.fixture(params=FENCED)
def write(request, key: OneKey) -> Callable[[int], bool]:
    """A write that is right for what the mirror holds, to be made at an epoch."""
    held, make = FENCED[request.param]
    if held is not None:
        key.settle(held)
    return lambda epoch: make(key, epoch)


def both_states(key: OneKey) -> tuple[MirrorState, MirrorState]:
    return key.state, key.mirror.state(key.table, OTHER)


@pytest.mark.parametrize("epoch", [EPOCH, EPOCH + 2], ids=["earlier", "later"])
def test_a_write_of_another_epoch_is_fenced(key: OneKey, write, fence, epoch):
    fence(EPOCH + 1)
    before = both_states(key)
    with pytest.raises(MirrorFenced, match=f"{key.table}.* at epoch {epoch}"):
        write(epoch)
    assert both_states(key) == before
    assert write(EPOCH + 1)
    assert both_states(key) != before


@pytest.mark.parametrize("role", sorted(set(PostgresRole) - {PostgresRole.MIRROR}))
def test_a_write_to_what_is_no_mirror_is_fenced(key: OneKey, write, fence, role):
    fence(EPOCH + 1, role)
    before = both_states(key)
    with pytest.raises(MirrorFenced):
        write(EPOCH + 1)
    assert both_states(key) == before


def test_a_fenced_write_is_told_from_one_that_met_something_else(key: OneKey, fence):
    key.settle(image(FIRST))
    assert not key.direct(image(SECOND), by=SECOND, onto=stamp())
    fence(EPOCH + 1)
    with pytest.raises(MirrorFenced):
        key.direct(image(SECOND), by=SECOND, onto=stamp())
    with pytest.raises(MirrorFenced):
        key.mirror.write_settled(key.table, KEY, image(SECOND), seen=NOTHING, epoch=EPOCH)


def test_a_fence_never_goes_back(key: OneKey, fence):
    fence(EPOCH + 2)
    fence(EPOCH + 1, PostgresRole.NONE)
    fence(EPOCH + 2, PostgresRole.AUTHORITY)
    with pytest.raises(MirrorFenced):
        settled(key, image(), EPOCH + 1)
    assert settled(key, image(), EPOCH + 2)


def test_the_fence_of_one_table_leaves_the_others_alone(key: OneKey, table, subject):
    other = table("things")
    subject.fence.raise_fence(other.name, epoch=EPOCH + 1, role=PostgresRole.NONE)
    key.settle(image())
    with pytest.raises(MirrorFenced):
        key.mirror.write_settled(other.name, KEY, KEY, seen=NOTHING, epoch=EPOCH + 1)


def test_where_one_of_several_tables_is_fenced_none_is_written(key: OneKey, table, subject):
    other = table("things")
    subject.fence.raise_fence(other.name, epoch=EPOCH + 1, role=PostgresRole.MIRROR)
    with pytest.raises(MirrorFenced, match=other.name):
        key.mirror.write_settled_together(
            [*together(key, KEY), *together(key, KEY, table=other.name), *together(key, OTHER)]
        )
    assert key.state.revision == NOTHING
    assert key.mirror.state(key.table, OTHER).revision == NOTHING


def test_under_the_key_lock_the_fence_holds_too(key: OneKey, fence):
    fence(EPOCH + 1)
    with pytest.raises(MirrorFenced), key.mirror.locked(key.table, KEY):
        settled(key, image(), EPOCH)
    assert key.state.revision == NOTHING


def test_doubts_are_recorded_whatever_the_fence(key: OneKey, fence):
    fence(EPOCH + 1, PostgresRole.NONE)
    key.mirror.mark_dirty(key.table, KEY, nonce="one", reason="write failed")
    assert key.mirror.clear_dirty(key.table, KEY, nonce="one")


# --- Locks -------------------------------------------------------------------------------------


def test_a_locked_key_waits_and_its_holder_does_not(key: OneKey):
    first, second = stamp(), stamp()
    key.direct(image(first), by=first, onto=None)
    written = threading.Event()

    def write() -> None:
        if key.direct(image(second), by=second, onto=first):
            written.set()

    with key.mirror.locked(key.table, KEY):
        writer = threading.Thread(target=write)
        writer.start()
        assert not written.wait(0.3)
        key.settle(image(first, a=N(1)))
        assert key.item == image(first, a=N(1))
        other = {"pk": S("p"), "sk": N(2)}
        assert key.mirror.write_settled(key.table, other, other, seen=NOTHING, epoch=EPOCH)
    writer.join(10)
    assert written.is_set()
    assert key.item == image(second)


def test_direct_writes_at_the_same_time_leave_one_chain(key: OneKey):
    """Twenty writers race from one predecessor: exactly one may succeed."""
    first = stamp()
    key.direct(image(first), by=first, onto=None)
    stamps = [stamp() for _ in range(20)]
    outcomes: list[bool] = []
    start = threading.Barrier(4)

    def write(mine: list[bytes]) -> None:
        start.wait()
        outcomes.extend(key.direct(image(by), by=by, onto=first) for by in mine)

    writers = [threading.Thread(target=write, args=(stamps[place::4],)) for place in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert sorted(outcomes) == [False] * 19 + [True]


# --- Doubts ------------------------------------------------------------------------------------


def get(key: OneKey) -> Any:
    return key.mirror.execute_as_mirror(parse("GetItem", {"TableName": key.table, "Key": KEY})).get("Item")


def test_a_mirror_answers_reads(key: OneKey):
    first = stamp()
    key.direct(image(first, a=N(1)), by=first, onto=None)
    assert get(key) == image(first, a=N(1))
    scan = key.mirror.execute_as_mirror(parse("Scan", {"TableName": key.table}))
    assert scan["Items"] == [image(first, a=N(1))]


def test_a_key_in_doubt_is_not_answered(key: OneKey):
    key.settle(image())
    key.mirror.mark_dirty(key.table, KEY, nonce="one", reason="write failed")
    with pytest.raises(MirrorUnavailable):
        get(key)
    assert key.mirror.clear_dirty(key.table, KEY, nonce="one")
    assert get(key) == KEY


def test_a_doubt_about_one_key_leaves_the_others_alone(key: OneKey):
    key.settle(image())
    key.mirror.mark_dirty(key.table, {"pk": S("p"), "sk": N(2)}, nonce="one", reason="write failed")
    assert get(key) == KEY


def of_partition(value: str) -> dict[str, Any]:
    return {"KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": S(value)}}


def in_transaction(table: str) -> dict[str, Any]:
    return {"TransactItems": [{"Get": {"TableName": table, "Key": {"pk": S("elsewhere"), "sk": N(1)}}}]}


@pytest.mark.parametrize("operation", ["Query", "Scan", "TransactGetItems"])
def test_a_doubt_stops_reads_of_many_keys_that_it_may_belong_to(key: OneKey, operation):
    requests = {
        "Query": {"TableName": key.table, **of_partition("p"), "FilterExpression": "attribute_exists(a)"},
        "Scan": {"TableName": key.table, "FilterExpression": "attribute_exists(a)"},
        "TransactGetItems": in_transaction(key.table),
    }
    asked = parse(operation, requests[operation])
    key.mirror.mark_dirty(key.table, KEY, nonce="one", reason="write failed")
    with pytest.raises(MirrorDirty):
        key.mirror.execute_as_mirror(asked)
    key.mirror.clear_dirty(key.table, KEY, nonce="one")
    assert key.mirror.execute_as_mirror(asked) in (
        {"Count": 0, "ScannedCount": 0, "Items": []},
        {"Responses": [{}]},
    )


@pytest.mark.parametrize("elsewhere", ["elsewhere", "pp", "P"])
def test_a_doubt_in_one_partition_leaves_queries_of_others_alone(key: OneKey, elsewhere):
    asked = parse("Query", {"TableName": key.table, **of_partition(elsewhere)})
    key.mirror.mark_dirty(key.table, KEY, nonce="one", reason="write failed")
    assert key.mirror.execute_as_mirror(asked)["Count"] == 0


def test_a_batch_leaves_keys_in_doubt_unprocessed_and_answers_the_others(key: OneKey):
    other = {"pk": S("p"), "sk": N(2)}
    key.settle(image())
    key.mirror.mark_dirty(key.table, other, nonce="one", reason="write failed")
    part = {"Keys": [KEY, other], "ProjectionExpression": "pk, sk"}
    batch = parse("BatchGetItem", {"RequestItems": {key.table: part}})
    answer = key.mirror.execute_as_mirror(batch)
    assert answer["Responses"] == {key.table: [KEY]}
    assert answer["UnprocessedKeys"] == {key.table: {**part, "Keys": [other]}}
    key.mirror.clear_dirty(key.table, other, nonce="one")
    assert key.mirror.execute_as_mirror(batch)["UnprocessedKeys"] == {}


def test_a_batch_of_keys_in_doubt_alone_is_left_unprocessed_whole(key: OneKey):
    key.mirror.mark_dirty(key.table, KEY, nonce="one", reason="write failed")
    batch = parse("BatchGetItem", {"RequestItems": {key.table: {"Keys": [KEY]}}})
    answer = key.mirror.execute_as_mirror(batch)
    assert answer["Responses"] == {key.table: []}
    assert answer["UnprocessedKeys"] == {key.table: {"Keys": [KEY]}}


def test_a_doubt_about_one_table_leaves_the_others_alone(key: OneKey, table):
    other = table("things")
    other.store.mark_dirty(other.name, KEY, nonce="one", reason="write failed")
    assert get(key) is None


def test_a_later_doubt_is_cleared_only_by_its_own_nonce(key: OneKey):
    key.mirror.mark_dirty(key.table, KEY, nonce="one", reason="write failed")
    key.mirror.mark_dirty(key.table, KEY, nonce="two", reason="write failed again")
    assert not key.mirror.clear_dirty(key.table, KEY, nonce="one")
    assert [doubt.nonce for doubt in key.mirror.dirty_keys(key.table)] == ["two"]
    assert key.mirror.clear_dirty(key.table, KEY, nonce="two")
    assert not key.mirror.clear_dirty(key.table, KEY, nonce="two")
    assert list(key.mirror.dirty_keys(key.table)) == []


def test_doubts_are_listed_oldest_first(key: OneKey):
    keys = [{"pk": S("p"), "sk": N(number)} for number in (3, 1, 2)]
    for place, each in enumerate(keys):
        key.mirror.mark_dirty(key.table, each, nonce=str(place), reason="write failed")
    listed = key.mirror.dirty_keys(key.table, limit=2)
    assert [doubt.key for doubt in listed] == keys[:2]
    assert [doubt.table for doubt in listed] == [key.table] * 2
    assert listed[0].since <= listed[1].since


# --- Many keys ---------------------------------------------------------------------------------


def test_the_states_of_many_keys_come_at_once(key: OneKey, things: TableUnderTest):
    shape_keys = [{"pk": S("p"), "sk": N(number)} for number in range(4)]
    first = stamp()
    for number in (0, 1):
        item = {**shape_keys[number], STAMP: {"B": first}}
        key.mirror.write_settled(key.table, shape_keys[number], item, seen=NOTHING, epoch=EPOCH)
    key.mirror.write_direct(key.table, shape_keys[1], None, stamp=stamp(), predecessor=first, epoch=EPOCH)
    raw = [key_bytes(shape("things", things.name).keys, each) for each in shape_keys]
    states = key.mirror.items_of(key.table, [*shape_keys, shape_keys[0]])
    assert set(states) == set(raw[:2])
    assert states[raw[0]] == key.mirror.state(key.table, shape_keys[0])
    assert states[raw[1]] == key.mirror.state(key.table, shape_keys[1])
    assert states[raw[1]].tombstone_stamp == first


def test_all_items_come_in_pages_in_key_order(key: OneKey):
    for number in range(25):
        at = {"pk": S(f"p{number % 2}"), "sk": N(number * 10 % 7 - number)}
        key.mirror.write_settled(key.table, at, {**at, "n": N(number)}, seen=NOTHING, epoch=EPOCH)
    pages = list(key.mirror.all_items(key.table, page_items=10))
    assert [len(page) for page in pages] == [10, 10, 5]
    found = [(item["pk"]["S"], int(item["sk"]["N"])) for page in pages for item in page]
    assert found == sorted(found)
    assert len(set(found)) == 25


def test_all_items_of_an_empty_table_are_none(key: OneKey):
    assert [item for page in key.mirror.all_items(key.table) for item in page] == []
