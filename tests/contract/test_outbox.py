"""What every outbox does: leases, marks, second looks; PostgreSQL's keys in every form that a key has."""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa  # noqa: TC002 - one import, not worth a type-checking block

from contract import models, shapes
from dualstore.control import ControlRecord
from dualstore.errors import AuthorityMoved
from dualstore.items import Item, Key, key_bytes
from dualstore.mapping import unmapped_table
from dualstore.stages import Stage
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.stores.outbox import LANES, SECOND_LOOK, Lease, Onto, Outbox, OutboxEntry, Sending
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_outbox import PostgresOutbox

EPOCH = 3
LONG, SHORT = timedelta(seconds=60), timedelta(seconds=1)
IMAGE: Item = {
    "pk": {"S": "p"},
    "sk": {"N": "1"},
    "text": {"S": "nul \0 \1 ünï"},
    "raw": {"B": b"\0\xff"},
    "numbers": {"NS": ["1", "2.5"]},
    "nested": {"M": {"l": {"L": [{"NULL": True}, {"BOOL": False}]}}},
    "_dsv": {"B": b"s" * 16},
}


def outlast(duration: timedelta) -> None:
    time.sleep(duration.total_seconds() + 0.1)


@dataclass
class Box:
    outbox: Outbox
    table: str

    def lanes(self, holder: str = "one", *, duration: timedelta = LONG, lanes: int = LANES) -> list[Lease]:
        return list(self.outbox.lease(self.table, holder, lanes=lanes, duration=duration))

    def enqueue(self, *keys: Key, **options: Any) -> None:
        self.outbox.enqueue(self.table, keys, epoch=EPOCH, reason="verify", **options)

    def pending(self, leases: list[Lease], *, limit: int = 100) -> list[OutboxEntry]:
        return [entry for lease in leases for entry in self.outbox.pending(lease, limit=limit)]

    def one(self, *, key: Key | None = None, holder: str = "one", duration: timedelta = LONG) -> Any:
        """An entry of a key, with the lease of its lane."""
        self.enqueue(key or thing())
        for lease in self.lanes(holder, duration=duration):
            for entry in self.outbox.pending(lease, limit=100):
                return lease, entry
        raise AssertionError


def thing(number: int = 1) -> Key:
    return {"pk": {"S": "p"}, "sk": {"N": str(number)}}


def marked(entry: OutboxEntry, token: str = "t", image: Item | None = IMAGE) -> OutboxEntry:
    return replace(entry, sent=Sending(image, Onto.NOTHING, token))


Make = Callable[[str], Box]


@pytest.fixture(params=["memory", "postgres", "postgres_mapped"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    if request.param == "memory":
        known: dict[str, Any] = {}

        def in_memory(kind: str) -> Box:
            name = f"{kind}-{uuid.uuid4().hex[:8]}"
            known[name] = shapes.shape(kind, name)
            return Box(MemoryOutbox(known, takes_notes=lambda _, epoch: epoch == EPOCH), name)

        yield in_memory
        return
    engine: sa.Engine = request.getfixturevalue("postgres_engine")
    mappings: dict[str, Any] = {}

    def in_postgres(kind: str) -> Box:
        name = f"{kind}-{uuid.uuid4().hex[:8]}"
        mappings[name] = (
            models.mapping(kind, name)
            if request.param == "postgres_mapped"
            else unmapped_table(name, shapes.shape(kind, name))
        )
        PostgresControl(engine).install(ControlRecord(name, stage=Stage.LIVE, epoch=EPOCH, generation=1))
        return Box(PostgresOutbox(engine, mappings), name)

    yield in_postgres


@pytest.fixture
def box(make: Make) -> Box:
    return make("things")


def test_keys_are_taken_only_at_the_epoch_of_the_authority(box: Box) -> None:
    with pytest.raises(AuthorityMoved):
        box.outbox.enqueue(box.table, [thing()], epoch=EPOCH - 1, reason="stale")
    assert box.outbox.depth(box.table).entries == 0


# Leases


def test_each_lane_has_one_holder(box: Box) -> None:
    first = box.lanes("one", lanes=10)
    second = box.lanes("two")
    assert len(first) == 10
    assert sorted(lease.lane for lease in first + second) == list(range(LANES))


def test_leases_taken_at_once_do_not_overlap(box: Box) -> None:
    box.lanes("nobody", lanes=0)
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(lambda n: box.lanes(f"w{n}", lanes=5), range(4)))
    lanes = [lease.lane for leases in taken for lease in leases]
    assert len(lanes) == len(set(lanes))


def test_a_holder_keeps_its_lanes_and_their_tokens(box: Box) -> None:
    assert box.lanes("one") == box.lanes("one")


def test_a_lane_whose_lease_is_over_passes_on_with_another_token(box: Box) -> None:
    first = box.lanes("one", duration=SHORT)
    assert box.lanes("two") == []
    outlast(SHORT)
    second = box.lanes("two")
    assert [lease.lane for lease in second] == [lease.lane for lease in first]
    assert all(new.token > old.token for old, new in zip(first, second, strict=True))
    assert not box.outbox.renew(first[0], duration=LONG)
    box.outbox.release(first[0])  # no longer its to give back
    assert box.outbox.renew(second[0], duration=LONG)


def test_a_renewed_lease_lasts_longer(box: Box) -> None:
    (lease,) = box.lanes("one", duration=SHORT, lanes=1)
    assert box.outbox.renew(lease, duration=LONG)
    outlast(SHORT)
    assert lease.lane not in [other.lane for other in box.lanes("two")]


def test_a_lane_that_is_given_back_is_free_at_once(box: Box) -> None:
    (lease,) = box.lanes("one", lanes=1)
    box.outbox.release(lease)
    assert lease.lane in [other.lane for other in box.lanes("two")]


# Entries


KEYS: dict[str, list[Key]] = {
    "things": [
        {"pk": {"S": "a\0\1b"}, "sk": {"N": "1"}},
        {"pk": {"S": "p,\"'{}\\ \t"}, "sk": {"N": "1" * 38}},
        {"pk": {"S": "NULL"}, "sk": {"N": "-2.5E-7"}},
    ],
    "binaries": [{"pk": {"B": b"\0\xff\\"}, "sk": {"B": b"x" * 1000}}],
    "numbered": [{"pk": {"N": "1E125"}}, {"pk": {"N": "0"}}],
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_come_back_as_they_went(make: Make, kind: str) -> None:
    box = make(kind)
    schema = shapes.shape(kind, box.table).keys
    box.enqueue(*KEYS[kind])
    found = {key_bytes(schema, entry.key) for entry in box.pending(box.lanes())}
    assert found == {key_bytes(schema, key) for key in KEYS[kind]}


def test_one_key_is_in_one_lane_however_its_number_is_written(box: Box) -> None:
    for text in ("100", "100.00", "1E2"):
        box.enqueue({"pk": {"S": "p"}, "sk": {"N": text}})
    per_lane = [len(box.outbox.pending(lease, limit=100)) for lease in box.lanes()]
    assert max(per_lane) == 3


def test_many_keys_are_spread_over_the_lanes(box: Box) -> None:
    box.enqueue(*map(thing, range(400)))
    per_lane = [len(box.outbox.pending(lease, limit=1000)) for lease in box.lanes()]
    assert sum(per_lane) == 400
    assert min(per_lane) > 5


def test_what_is_not_due_is_not_reported_but_counted(box: Box) -> None:
    box.enqueue(thing(), due_in=SHORT)
    leases = box.lanes()
    assert box.pending(leases) == []
    assert box.outbox.depth(box.table).entries == 1
    outlast(SHORT)
    assert len(box.pending(leases)) == 1


def test_finished_entries_are_gone(box: Box) -> None:
    lease, entry = box.one()
    assert box.outbox.finish(lease, [entry])
    assert box.pending([lease]) == []
    assert box.outbox.depth(box.table).entries == 0


def test_the_oldest_come_first(box: Box) -> None:
    for _ in range(3):
        box.enqueue(thing())
    leases = box.lanes()
    everything = box.pending(leases)
    assert [entry.id for entry in everything] == sorted(entry.id for entry in everything)
    assert box.pending(leases, limit=2) == everything[:2]


def test_refused_entries_wait_as_long_again_and_are_shown(box: Box) -> None:
    lease, entry = box.one()
    postponed = {"reason": "ValidationException", "at_least": SHORT, "at_most": LONG}
    assert box.outbox.postpone(lease, [entry], **postponed)
    assert box.pending([lease]) == []
    assert box.outbox.depth(box.table).refused == 1
    outlast(SHORT)
    (again,) = box.pending([lease])
    assert again.reason == "refused: ValidationException"
    box.outbox.postpone(lease, [again], **{**postponed, "at_least": timedelta(0)})
    assert box.pending([lease]) == []  # it had waited for more than a second


def test_the_depth_tells_the_age_of_the_oldest(box: Box) -> None:
    assert box.outbox.depth(box.table).oldest_age == timedelta(0)
    box.enqueue(thing())
    time.sleep(0.05)
    assert timedelta(seconds=0.04) < box.outbox.depth(box.table).oldest_age < timedelta(seconds=30)


# Writes in doubt


@pytest.mark.parametrize(("image", "onto"), [(IMAGE, Onto.NOTHING), (None, Onto.UNSTAMPED)])
def test_a_write_in_doubt_comes_back_exactly_with_every_entry_of_its_key(
    box: Box, image: Item | None, onto: Onto
) -> None:
    lease, entry = box.one()
    sent = Sending(image, onto, "token")
    assert box.outbox.mark_sent(lease, [replace(entry, sent=sent)])
    box.enqueue(thing())
    box.enqueue(thing(2))
    found = box.pending(box.lanes())
    doubts = [each.sent for each in found if each.key["sk"] == {"N": "1"}]
    assert len(doubts) == 2
    for doubt in doubts:
        assert doubt is not None
        assert replace(doubt, age=timedelta(0)) == sent
        assert timedelta(0) <= doubt.age < timedelta(seconds=30)
    assert [each.sent for each in found if each.key["sk"] == {"N": "2"}] == [None]


def test_a_write_in_doubt_is_reported_with_entries_that_are_asked_for_without_its_own(box: Box) -> None:
    box.enqueue(thing())
    lease, first = box.one()
    last = max(box.pending([lease]), key=lambda entry: entry.id)
    box.outbox.mark_sent(lease, [marked(last)])
    (found,) = box.pending([lease], limit=1)
    assert (found.id, found.sent is not None) == (first.id, True)


def test_what_is_resolved_is_forgotten(box: Box) -> None:
    lease, entry = box.one()
    box.outbox.mark_sent(lease, [marked(entry)])
    assert box.outbox.resolve(lease, [marked(entry)])
    (again,) = box.pending([lease])
    assert again.sent is None
    assert box.outbox.depth(box.table).entries == 1


def test_a_second_look_is_noted_in_the_moment_in_which_the_doubt_is_forgotten(box: Box) -> None:
    lease, entry = box.one()
    box.outbox.mark_sent(lease, [marked(entry)])
    box.outbox.resolve(lease, [marked(entry)], again_in=SHORT)
    box.outbox.finish(lease, [entry])
    assert box.pending([lease]) == []
    depth = box.outbox.depth(box.table)
    assert (depth.entries, depth.second_looks, depth.oldest_age) == (1, 1, timedelta(0))
    outlast(SHORT)
    (look,) = box.pending([lease])
    assert (look.key, look.reason, look.sent) == (thing(), SECOND_LOOK, None)


def test_only_the_doubt_that_was_answered_is_forgotten(box: Box) -> None:
    lease, entry = box.one()
    box.outbox.mark_sent(lease, [marked(entry, "newer")])
    box.outbox.resolve(lease, [marked(entry, "older")], again_in=SHORT)
    (again,) = box.pending([lease])
    assert again.sent is not None
    assert box.outbox.depth(box.table).entries == 1


def test_an_entry_that_is_finished_cannot_be_marked(box: Box) -> None:
    lease, entry = box.one()
    box.outbox.finish(lease, [entry])
    assert not box.outbox.mark_sent(lease, [marked(entry)])


# Stale workers


def test_a_worker_whose_lane_has_passed_on_changes_nothing(box: Box) -> None:
    lease, entry = box.one(duration=SHORT)
    outlast(SHORT)
    (now,) = [each for each in box.lanes("two") if each.lane == lease.lane]
    assert not box.outbox.mark_sent(lease, [marked(entry, "stale")])
    assert box.outbox.mark_sent(now, [marked(entry, "new")])
    assert not box.outbox.resolve(lease, [marked(entry, "new")], again_in=SHORT)
    assert not box.outbox.finish(lease, [entry])
    assert not box.outbox.postpone(lease, [entry], reason="x", at_least=LONG, at_most=LONG)
    assert box.outbox.pending(lease, limit=10) == []
    (still,) = box.outbox.pending(now, limit=10)
    assert still.sent is not None
    assert still.sent.token == "new"
    assert still.reason == entry.reason


def test_a_worker_that_comes_back_after_another_is_as_stale(box: Box) -> None:
    lease, entry = box.one(duration=SHORT)
    outlast(SHORT)
    for other in box.lanes("two"):
        box.outbox.release(other)
    (again,) = [each for each in box.lanes("one") if each.lane == lease.lane]
    assert again.token > lease.token
    assert not box.outbox.finish(lease, [entry])
    assert box.outbox.finish(again, [entry])
