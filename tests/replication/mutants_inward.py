"""Mutants of the rules 1 to 6: DynamoDB is the authority, and PostgreSQL is brought after it."""

import math
from dataclasses import replace
from typing import Any

from dualstore.control import ControlRecord, Gate
from dualstore.replication import authority, mirroring, settle
from dualstore.replication.agent import Agent
from dualstore.replication.journal import Journal
from dualstore.replication.refreshing import Refreshing
from dualstore.replication.repair import Repair
from dualstore.stages import Side
from dualstore.stores.base import NOTHING, MirrorState
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory import store as memory_store
from replication import histories
from replication.histories import History
from replication.mutant import Mutant
from replication.wires import SteppedStore

# Rule 1: stamps


_write_authority = mirroring.Mirroring._write_authority


def _repeating_driver(self: SteppedStore, operation: Any) -> Any:
    """botocore's own retries: the same request again, whatever became of the first."""
    try:
        return _execute(self, operation)
    except Exception as error:
        if operation.reads or not isinstance(error, type(histories.read_timeout())):
            raise
        return _execute(self, operation)


_execute = SteppedStore.execute


def _settled_only_after_stamps(
    self: Any, table: Any, key: Any, view: Any, acknowledged: Any, *, mirrored: Any
) -> None:
    if acknowledged.certain:
        _follow(self, table, key, view, acknowledged, mirrored=mirrored)


_follow = mirroring.Mirroring._follow


# Rule 2: the direct write


def _any_predecessor(state: MirrorState, image: Any, predecessor: bytes | None) -> bool:
    return True


def _newest_stamp(state: MirrorState, image: Any, predecessor: bytes | None) -> bool:
    """'The greater version wins', the usual remedy."""
    held = None if state.item is None else memory_store.stamp_of(state.item)
    new = None if image is None else memory_store.stamp_of(image)
    return held is None or new is None or new > held


def _over_tombstones(state: MirrorState, image: Any, predecessor: bytes | None) -> bool:
    if predecessor is not None:
        return state.item is not None and memory_store.stamp_of(state.item) == predecessor
    return state.item is None


def _over_rows(state: MirrorState, image: Any, predecessor: bytes | None) -> bool:
    if predecessor is not None:
        return state.item is not None and memory_store.stamp_of(state.item) == predecessor
    return state.revision.tombstone is None or image is None


def _deletes_anything(state: MirrorState, image: Any, predecessor: bytes | None) -> bool:
    return image is None or memory_store_is_predecessor(state, image, predecessor)


memory_store_is_predecessor = memory_store._is_predecessor
_write_settled = MemoryStore.write_settled
_write_direct = MemoryStore.write_direct


def _whenever(self: Any, *arguments: Any) -> None:
    self.agent.clock.now()
    *most, _, epoch = arguments
    _write_directly(self, *most, math.inf, epoch)


_write_directly = mirroring.Mirroring._write_directly


# Rule 3: settle


def _authority_first(mirror: Any, authority_: Any, shape: Any, key: Any, *more: Any, **options: Any) -> bool:
    image = settle.read_authority(authority_, shape, key)
    seen = mirror.state(shape.name, key).revision
    return bool(mirror.write_settled(shape.name, key, image, seen=seen, **_epoch_in(more, options)))


def _epoch_in(more: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    return options | ({"epoch": more[0]} if more else {})


def _inconsistent(store: Any, shape: Any, key: Any) -> Any:
    response = store.execute(histories.GetItem({"TableName": shape.name, "Key": key}))
    return settle._image(response.get("Item"))


def _revision_ignored(
    self: MemoryStore, table: str, key: Any, image: Any, *, seen: Any, **options: Any
) -> bool:
    return _write_settled(self, table, key, image, seen=self.state(table, key).revision, **options)


def _confirmed_silently(
    self: MemoryStore, table: str, key: Any, image: Any, *, seen: Any, **options: Any
) -> bool:
    state = self.state(table, key)
    if image is None and state.item is None and state.revision == seen:
        return True
    return _write_settled(self, table, key, image, seen=seen, **options)


def _reburied_silently(self: MemoryStore, table: str, key: Any, image: Any, **options: Any) -> bool:
    state = self.state(table, key)
    if image is None and state.item is None and options["predecessor"] is None:
        return True
    return _write_direct(self, table, key, image, **options)


def _stamps_compared(
    self: MemoryStore, table: str, key: Any, image: Any, *, seen: Any, **options: Any
) -> bool:
    state = self.state(table, key)
    if image is not None and state.item is not None and state.revision == seen:
        stamp = memory_store.stamp_of(image)
        if stamp is not None and stamp == memory_store.stamp_of(state.item):
            return True
    return _write_settled(self, table, key, image, seen=seen, **options)


def _no_tombstones(self: Any, key: bytes) -> None:
    self._take_out(key)


# Rule 4: nothing is forgotten


def _cleared_anyway(self: Journal, shape: Any, entry: Any) -> bool:
    for entries in self.entries(shape):
        for present in entries:
            return _clear(self, shape, replace(entry, nonce=present.nonce))
    return False


_clear = Journal.clear


def _dirty_cleared_anyway(self: MemoryStore, table: str, key: Any, *, nonce: str) -> bool:
    for entry in self.dirty_keys(table):
        nonce = entry.nonce
    return _clear_dirty(self, table, key, nonce=nonce)


_clear_dirty = MemoryStore.clear_dirty


def _loaded_over_tombstones(self: History) -> None:
    image = self.authority_store.execute(_READ).get("Item")
    self.scheduler.step()
    if image is not None:
        state = self.mirror_store.state("items", histories.KEY)
        if state.item is None:
            _write_settled(
                self.mirror_store, "items", histories.KEY, image, seen=state.revision, epoch=histories.EPOCH
            )


def _differing_rows_left(self: History) -> None:
    image = self.authority_store.execute(_READ).get("Item")
    self.scheduler.step()
    if image is not None:
        _write_settled(self.mirror_store, "items", histories.KEY, image, seen=NOTHING, epoch=histories.EPOCH)


_READ = histories.GetItem({"TableName": "items", "Key": histories.KEY, "ConsistentRead": True})


# Rule 6: reading the mirror


def _granted_from_the_answer(self: Refreshing, records: Any, asked_at: Any) -> None:
    _install(self, records, dict.fromkeys(asked_at, self._clock.now()))


def _granted_for_ever(self: Refreshing, records: Any, asked_at: Any) -> None:
    _install(self, records, asked_at)
    known = self._known
    known.views = {table: replace(view, read_until=math.inf) for table, view in known.views.items()}


_install = Refreshing._install


def _gate_shut_without_waiting(self: Agent, table: str) -> None:
    self.homes[Side.DYNAMODB].shut_gate(table)


def _opened_undrained(self: Repair, table: Any) -> Any:
    record = self._control.read_all()[table.physical]
    self._control.change(record, gate=Gate.OPEN)
    return 0, 0, Gate.OPEN


_doubt = mirroring.Mirroring.doubt


INWARD: tuple[Mutant, ...] = (
    Mutant(
        "1",
        "own retries, a stamp each, in place of botocore's",
        "counting",
        ((SteppedStore, "execute", _repeating_driver),),
    ),
    Mutant(
        "1",
        "`NOT _dsv IN (my stamps)` on a retry",
        "counting",
        ((authority, "guarded", lambda request, _: request),),
    ),
    Mutant(
        "1",
        "one's own stamp recognised in a refusal",
        "creating",
        ((authority, "carries", lambda *_: False),),
    ),
    Mutant(
        "1",
        "settle after a retry, an answer without stamp, a repeated delete",
        "dense",
        ((mirroring.Mirroring, "_follow", _settled_only_after_stamps),),
    ),
    Mutant(
        "2",
        "the predecessor, before a direct write",
        "dense",
        ((memory_store, "_is_predecessor", _any_predecessor),),
    ),
    Mutant(
        "2", "'newer' is no reason to write", "dense", ((memory_store, "_is_predecessor", _newest_stamp),)
    ),
    Mutant(
        "2", "no tombstone under a creation", "dense", ((memory_store, "_is_predecessor", _over_tombstones),)
    ),
    Mutant("2", "no row under a creation", "dense", ((memory_store, "_is_predecessor", _over_rows),)),
    Mutant(
        "2",
        "the predecessor, before a direct deletion",
        "dense",
        ((memory_store, "_is_predecessor", _deletes_anything),),
    ),
    Mutant(
        "2",
        "a deletion that found nothing rewrites the tombstone",
        "rewriting",
        ((MemoryStore, "write_direct", _reburied_silently),),
    ),
    Mutant(
        "2",
        "only within the grant, and 30 s after the reply",
        "pruning",
        ((mirroring.Mirroring, "_write_directly", _whenever),),
    ),
    Mutant("3", "the mirror is read before the authority", "dense", ((settle, "_once", _authority_first),)),
    Mutant("3", "the authority is read consistently", "dense", ((settle, "read_authority", _inconsistent),)),
    Mutant("3", "the revision still holds", "dense", ((MemoryStore, "write_settled", _revision_ignored),)),
    Mutant(
        "3",
        "a new revision for a confirmed tombstone",
        "recreation",
        ((MemoryStore, "write_settled", _confirmed_silently),),
    ),
    Mutant(
        "3",
        "content is compared, not stamps",
        "streamed",
        ((MemoryStore, "write_settled", _stamps_compared),),
    ),
    Mutant(
        "4", "a failed mirror write is recorded", "dense", ((mirroring.Mirroring, "doubt", lambda *_: None),)
    ),
    Mutant(
        "4",
        "the relay settles every change in the stream",
        "streamed",
        ((History, "relay", lambda self: None), (History, "relay_the_rest", lambda self: None)),
    ),
    Mutant(
        "4",
        "the journal's entry is cleared only by its nonce",
        "journalled",
        ((Journal, "clear", _cleared_anyway),),
    ),
    Mutant(
        "4",
        "a dirty key is cleared only by its nonce",
        "dense",
        ((MemoryStore, "clear_dirty", _dirty_cleared_anyway),),
    ),
    Mutant(
        "4",
        "a process that dies makes its tables suspect",
        "crashing",
        ((History, "verify", lambda self: None),),
    ),
    Mutant("4", "deletions leave tombstones", "dense", ((memory_store.Table, "bury", _no_tombstones),)),
    Mutant(
        "4",
        "tombstones outlive whatever may depend on them",
        "pruning",
        ((histories, "_TOMBSTONE_SECONDS", 3.0),),
    ),
    Mutant(
        "4",
        "backfill loads no row over a tombstone",
        "dense",
        ((History, "backfill", _loaded_over_tombstones),),
    ),
    Mutant(
        "4",
        "backfill settles the keys that differ",
        "preloaded",
        ((History, "backfill", _differing_rows_left),),
    ),
    Mutant(
        "5",
        "the keys of a transaction are settled after it",
        "transacting",
        ((mirroring.Mirroring, "settle_together", lambda *_: None),),
    ),
    Mutant(
        "6",
        "a grant counts from before it was asked for",
        "slow_agents",
        ((Refreshing, "_install", _granted_from_the_answer),),
    ),
    Mutant(
        "6",
        "a grant lapses after δ",
        "slow_agents",
        ((Refreshing, "_install", _granted_for_ever),),
    ),
    Mutant(
        "6",
        "a failed mirror write is published",
        "dialled",
        ((mirroring.Mirroring, "doubt", lambda *_: None),),
    ),
    Mutant(
        "6",
        "dirty keys are looked up by the read itself",
        "dialled",
        ((MemoryStore, "execute_as_mirror", MemoryStore.execute),),
    ),
    Mutant(
        "6",
        "the gate is shut where the mirror takes no note",
        "outage",
        ((Agent, "wait_until_reads_stopped", lambda *_: None),),
    ),
    Mutant(
        "6",
        "and δ is waited for",
        "outage",
        ((Agent, "wait_until_reads_stopped", _gate_shut_without_waiting),),
    ),
    Mutant("6", "a shut gate forbids mirror reads", "outage", ((ControlRecord, "mirror_readable", True),)),
    Mutant(
        "6",
        "the gate reopens when nothing is pending",
        "outage",
        ((Repair, "_drain_and_reopen", _opened_undrained),),
    ),
)
