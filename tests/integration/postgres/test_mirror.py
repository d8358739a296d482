"""What PostgreSQL does as a mirror, rule by rule (DESIGN, replication protocol, rules 2, 3 and 6)."""

import random
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from dualstore.errors import MirrorUnavailable
from dualstore.items import items_equal, key_bytes
from dualstore.operations import parse
from dualstore.stores.base import NOTHING, Revision
from dualstore.stores.postgres import PostgresStore
from integration.postgres.orders import EPOCH, NOTE_TABLE, TABLE, TABLES, key, order, stamp

A, B, C, D = map(stamp, range(1, 5))


def put(store: PostgresStore, new: bytes, over: bytes | None, **rest: Any) -> bool:
    return store.write_direct(
        TABLE, key(), order(stamp=new, **rest), stamp=new, predecessor=over, epoch=EPOCH
    )


def delete(store: PostgresStore, old: bytes | None) -> bool:
    return store.write_direct(TABLE, key(), None, stamp=D, predecessor=old, epoch=EPOCH)


def stamp_of(store: PostgresStore) -> bytes | None:
    item = store.state(TABLE, key()).item
    return None if item is None else item["_dsv"]["B"]


def test_a_direct_write_onto_nothing_writes_the_row(store):
    assert put(store, A, None, status="new")
    state = store.state(TABLE, key())
    assert state.item == order(stamp=A, status="new")
    assert state.revision.tombstone is None


def test_a_direct_write_goes_only_onto_its_predecessor(store):
    assert put(store, A, None)
    assert not put(store, C, B)
    assert stamp_of(store) == A
    assert put(store, C, A)
    assert stamp_of(store) == C


def test_a_direct_write_that_replaced_nothing_does_not_replace_a_row(store):
    assert put(store, A, None)
    assert not put(store, B, None)
    assert stamp_of(store) == A


def test_a_direct_write_that_is_repeated_is_done_and_changes_nothing(store):
    assert put(store, A, None)
    assert put(store, B, A)
    seen = store.state(TABLE, key()).revision
    assert put(store, B, A)
    assert put(store, B, None)
    assert store.state(TABLE, key()).revision == seen


def test_a_direct_write_does_not_create_a_row_beside_a_tombstone(store):
    assert put(store, A, None)
    assert delete(store, A)
    assert not put(store, B, None)
    assert store.state(TABLE, key()).item is None


def test_a_direct_write_does_not_go_onto_a_row_beside_a_tombstone(store, engine):
    put(store, A, None)
    delete(store, A)
    bring_back(engine, A)
    assert not put(store, B, A)
    state = store.state(TABLE, key())
    assert state.item is not None
    assert state.tombstone_stamp == A


def test_a_direct_deletion_leaves_a_tombstone_that_names_the_deleted_stamp(store):
    put(store, A, None)
    assert delete(store, A)
    state = store.state(TABLE, key())
    assert state.item is None
    assert state.tombstone_stamp == A
    assert state.revision.row is None
    assert state.revision.tombstone is not None


def test_a_direct_deletion_goes_only_onto_its_predecessor(store):
    put(store, A, None)
    assert not delete(store, B)
    assert not delete(store, None)
    assert stamp_of(store) == A
    assert store.state(TABLE, key()).revision.tombstone is None


def test_a_direct_deletion_that_is_repeated_is_done(store):
    put(store, A, None)
    assert delete(store, A)
    assert delete(store, A)


def test_a_direct_deletion_of_a_row_that_never_came_is_not_done(store):
    assert not delete(store, A)
    assert store.state(TABLE, key()).revision == NOTHING


def test_a_deletion_that_found_nothing_leaves_a_tombstone_without_a_stamp(store):
    assert delete(store, None)
    state = store.state(TABLE, key())
    assert state.tombstone_stamp is None
    assert state.revision.tombstone is not None


def test_a_deletion_that_found_nothing_renews_the_tombstone_and_keeps_its_stamp(store):
    put(store, A, None)
    delete(store, A)
    before = store.state(TABLE, key())
    assert delete(store, None)
    after = store.state(TABLE, key())
    assert after.tombstone_stamp == A
    assert after.revision.tombstone > before.revision.tombstone


@pytest.mark.parametrize("image", [order(status="new"), None])
def test_a_settled_write_needs_the_revision_that_was_seen(store, image):
    put(store, A, None)
    seen = store.state(TABLE, key()).revision
    put(store, B, A)
    before = store.state(TABLE, key())
    assert not store.write_settled(TABLE, key(), image, seen=seen, epoch=EPOCH)
    assert not store.write_settled(TABLE, key(), image, seen=NOTHING, epoch=EPOCH)
    assert not store.write_settled(TABLE, key(), image, seen=Revision(before.revision.row, 1), epoch=EPOCH)
    assert store.state(TABLE, key()) == before
    assert store.write_settled(TABLE, key(), image, seen=before.revision, epoch=EPOCH)


@pytest.mark.parametrize("image", [order(stamp=A, status="same"), None])
def test_a_settled_write_takes_a_new_revision_even_where_nothing_changes(store, image):
    assert store.write_settled(TABLE, key(), image, seen=NOTHING, epoch=EPOCH)
    before = store.state(TABLE, key())
    assert store.write_settled(TABLE, key(), image, seen=before.revision, epoch=EPOCH)
    after = store.state(TABLE, key())
    assert after.item == before.item
    assert max(filter(None, vars_of(after.revision))) > max(filter(None, vars_of(before.revision)))


def test_a_settled_item_removes_the_tombstone(store):
    put(store, A, None)
    delete(store, A)
    seen = store.state(TABLE, key()).revision
    assert store.write_settled(TABLE, key(), order(stamp=B), seen=seen, epoch=EPOCH)
    state = store.state(TABLE, key())
    assert stamp_of(store) == B
    assert state.tombstone_stamp is None
    assert state.revision.tombstone is None


def test_a_settled_absence_remembers_the_stamp_of_the_row_that_it_removed(store):
    put(store, A, None)
    assert store.write_settled(TABLE, key(), None, seen=store.state(TABLE, key()).revision, epoch=EPOCH)
    state = store.state(TABLE, key())
    assert state.item is None
    assert state.tombstone_stamp == A
    assert store.write_settled(TABLE, key(), None, seen=state.revision, epoch=EPOCH)
    assert store.state(TABLE, key()).tombstone_stamp == A


@pytest.mark.parametrize("image", [order(stamp=B), None])
def test_settling_ends_a_row_beside_a_tombstone(store, engine, image):
    put(store, A, None)
    delete(store, A)
    bring_back(engine, C)
    seen = store.state(TABLE, key()).revision
    assert None not in vars_of(seen)
    assert store.write_settled(TABLE, key(), image, seen=seen, epoch=EPOCH)
    state = store.state(TABLE, key())
    assert state.item == image
    assert state.tombstone_stamp == (C if image is None else None)
    assert (state.revision.row is None) != (state.revision.tombstone is None)


def test_a_doubt_is_cleared_only_by_its_own_nonce(store):
    store.mark_dirty(TABLE, key(number="1.00"), nonce="one", reason="test")
    store.mark_dirty(TABLE, key(), nonce="two", reason="test")
    assert [(dirty.table, dirty.nonce) for dirty in store.dirty_keys(TABLE)] == [(TABLE, "two")]
    assert not store.clear_dirty(TABLE, key(), nonce="one")
    assert store.clear_dirty(TABLE, key(), nonce="two")
    assert not store.clear_dirty(TABLE, key(), nonce="two")
    assert store.dirty_keys(TABLE) == []


def test_doubts_come_oldest_first_and_no_more_than_asked_for(store):
    for number in (3, 1, 2):
        store.mark_dirty(TABLE, key(number=number), nonce="n", reason="test")
    assert [dirty.key for dirty in store.dirty_keys(TABLE, limit=2)] == [key(number=3), key(number=1)]


def read(store: PostgresStore, operation: str, **request: Any) -> dict[str, Any]:
    return store.execute_as_mirror(parse(operation, {"TableName": TABLE, **request}))


LIST = {"KeyConditionExpression": "customer = :c", "ExpressionAttributeValues": {":c": {"S": "bob"}}}
BATCH = {"RequestItems": {TABLE: {"Keys": [key("bob")]}}}


def test_a_dirty_key_sends_its_readers_scans_and_transactions_to_the_authority(store):
    put(store, A, None)
    store.mark_dirty(TABLE, key(), nonce="n", reason="test")
    with pytest.raises(MirrorUnavailable):
        read(store, "GetItem", Key=key())
    with pytest.raises(MirrorUnavailable):
        read(store, "Scan")
    with pytest.raises(MirrorUnavailable):
        store.execute_as_mirror(parse("TransactGetItems", TRANSACTION))


TRANSACTION = {"TransactItems": [{"Get": {"TableName": TABLE, "Key": key("bob")}}]}


def test_a_dirty_key_leaves_other_keys_and_tables_alone(store):
    store.mark_dirty(TABLE, key(), nonce="n", reason="test")
    assert read(store, "GetItem", Key=key("bob")) == {}
    assert read(store, "Scan", TableName=NOTE_TABLE)["Count"] == 0


def test_a_mirror_in_order_answers_every_read(store):
    store.write_settled(TABLE, key("bob"), order("bob", stamp=A), seen=NOTHING, epoch=EPOCH)
    item = order("bob", stamp=A)
    assert read(store, "GetItem", Key=key("bob")) == {"Item": item}
    assert read(store, "Query", **LIST)["Items"] == [item]
    assert read(store, "Scan")["Items"] == [item]
    assert store.execute_as_mirror(parse("BatchGetItem", BATCH))["Responses"] == {TABLE: [item]}
    assert store.execute_as_mirror(parse("TransactGetItems", TRANSACTION))["Responses"] == [{"Item": item}]


def test_the_states_of_many_keys_come_by_their_bytes_and_only_where_there_is_something(store):
    put(store, A, None)
    store.write_settled(TABLE, key("bob", 2), None, seen=NOTHING, epoch=EPOCH)
    found = store.items_of(TABLE, [key(), key("bob", 2), key("nobody")])
    keys = store._catalog[TABLE].keys
    assert found == {key_bytes(keys, each): store.state(TABLE, each) for each in (key(), key("bob", "2.0"))}
    assert store.items_of(TABLE, []) == {}


def test_items_come_in_the_order_of_their_keys_with_a_place_for_those_that_are_not_there(store):
    ann, bob = order(stamp=A), order("bob", 2, stamp=B)
    for each in (ann, bob):
        store.write_settled(TABLE, each, each, seen=NOTHING, epoch=EPOCH)
    asked = [key("bob", 2), key("nobody"), key(), key("bob", "2.0")]
    assert list(store.items_in_order(TABLE, asked)) == [bob, None, ann, bob]
    assert list(store.items_in_order(TABLE, [])) == []


@pytest.mark.parametrize("count", [0, 1, 5, 6])
def test_all_items_come_once_in_the_order_of_the_key(store, count):
    for number in reversed(range(count)):
        each = order("ann\x00" if number % 2 else "ann", number)
        store.write_settled(TABLE, each, each, seen=NOTHING, epoch=EPOCH)
    pages = list(store.all_items(TABLE, page_items=3))
    found = [(item["customer"]["S"], item["number"]["N"]) for page in pages for item in page]
    assert found == sorted(found)
    assert len(found) == count
    assert all(len(page) <= 3 for page in pages)


def test_nul_and_the_character_beside_it_are_different_keys(store):
    for name in ("a", "a\x00", "a\x01", "a\x00\x01", "a\x01\x00"):
        assert store.write_direct(
            TABLE, key(name), order(name, stamp=A), stamp=A, predecessor=None, epoch=EPOCH
        )
        store.mark_dirty(TABLE, key(name), nonce="n", reason="test")
    assert sum(len(page) for page in store.all_items(TABLE)) == 5
    assert len({dirty.key["customer"]["S"] for dirty in store.dirty_keys(TABLE)}) == 5


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"price": -1}, "price_not_negative"),
        ({"code": "taken"}, "orders_code_key"),
        ({"price": 7}, "one_price"),  # deferred: found at COMMIT
    ],
)
@pytest.mark.parametrize(
    "how",
    [
        lambda store, image: store.write_direct(TABLE, image, image, stamp=A, predecessor=None, epoch=EPOCH),
        lambda store, image: store.write_settled(TABLE, image, image, seen=NOTHING, epoch=EPOCH),
    ],
    ids=["direct", "settled"],
)
def test_a_broken_constraint_is_named_without_any_value(store, values, constraint, how):
    other = order("bob", code="taken", price=7)
    assert store.write_settled(TABLE, other, other, seen=NOTHING, epoch=EPOCH)
    image = order("secret-customer", stamp=A, **values)
    with pytest.raises(MirrorUnavailable, match=constraint) as caught:
        how(store, image)
    assert "secret" not in str(caught.value)
    assert "taken" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert store.state(TABLE, image).item is None


def test_a_missing_schema_names_the_command_that_creates_it(postgres_url):
    engine = sa.create_engine(postgres_url)
    with pytest.raises(MirrorUnavailable, match="dualstore schema upgrade"):
        PostgresStore(engine, TABLES).state(TABLE, key())
    engine.dispose()


def test_an_unmapped_table_is_named(store):
    with pytest.raises(MirrorUnavailable, match="'nowhere'"):
        store.state("nowhere", key())


def test_every_item_comes_back_from_a_table_without_columns(store):
    item = {
        "id": {"B": b"\x00\xff"},
        "text\x00": {"S": "\x00\x01é"},
        "deep": {"M": {"l": {"L": [{"NS": ["1", "2"]}, {"NULL": True}]}}},
        "_dsv": {"B": A},
    }
    assert store.write_direct(NOTE_TABLE, item, item, stamp=A, predecessor=None, epoch=EPOCH)
    found = store.state(NOTE_TABLE, {"id": item["id"]}).item
    assert items_equal(found, item, ignore_stamps=False)


def vars_of(revision: Revision) -> tuple[int | None, int | None]:
    return revision.row, revision.tombstone


def bring_back(engine: sa.Engine, old: bytes) -> None:
    """Insert a row beside the tombstone, as a backfill that did not see it does."""
    with psycopg.connect(engine.url.set(drivername="postgresql").render_as_string(hide_password=False)) as c:
        c.execute("INSERT INTO orders (customer, number, dualstore_stamp) VALUES ('ann', 1, %s)", (old,))


def test_a_key_too_long_for_an_index_of_postgresql_can_be_in_doubt_and_hurts_no_other(store):
    """DynamoDB takes 2,048 + 1,024 bytes of key, an index entry of PostgreSQL 2,704."""
    long = {**key(), "customer": {"S": random.Random(1).randbytes(1400).hex()}}
    with pytest.raises(MirrorUnavailable, match="breaks a rule of its SQL table"):
        store.write_direct(TABLE, long, {**order(), **long}, stamp=A, predecessor=None, epoch=EPOCH)
    store.mark_dirty(TABLE, long, nonce="n", reason="too long")
    assert [doubt.key for doubt in store.dirty_keys(TABLE)] == [long]
    assert put(store, A, None)
    assert store.clear_dirty(TABLE, long, nonce="n")
