"""Mutants: for each rule of the protocol what it is like to lack it, and where that is found out.

Rules are those of DESIGN, section 3, and of docs/explanation/replication.md.
"""

import math
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from dualstore.control import ControlRecord, Gate, Phase, PostgresRole
from dualstore.items import STAMP, items_equal
from dualstore.replication import authority, lane_round, mirroring, sending, settle
from dualstore.replication.agent import Agent
from dualstore.replication.following import Following
from dualstore.replication.journal import Journal
from dualstore.replication.lane_round import LaneRound
from dualstore.replication.lanes import HeldLane
from dualstore.replication.repair import Repair
from dualstore.router import Router
from dualstore.stages import Side
from dualstore.stores.base import NOTHING, SECOND_LOOK, Lease, MirrorState, Onto
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory import store as memory_store
from dualstore.stores.memory.authority import MemoryAuthority
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.stores.stamps import new_stamp
from replication import histories
from replication.environment import simulated
from replication.fleet import FleetPassage
from replication.histories import History, seeded
from replication.scenarios import SCENARIOS
from replication.simulation import SteppedStore

Replacement = tuple[Any, str, Any]


@dataclass(frozen=True)
class Mutant:
    """The protocol without one of its mechanisms.

    Attributes:
        rule: its number in DESIGN, section 3.
        removed: the mechanism, in words.
        scenario: where its lack is found out.
        replaced: what stands in its place.
        within: so many schedules find it.
    """

    rule: str
    removed: str
    scenario: str
    replaced: tuple[Replacement, ...]
    within: int = 2_000

    def found_after(self, seeds: Iterable[int]) -> int | None:
        """After how many schedules an invariant is broken; None where all hold."""
        with simulated(*self.replaced):
            for number, seed in enumerate(seeds, 1):
                if SCENARIOS[self.scenario](seeded(seed)):
                    return number
        return None


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


def _granted_from_the_answer(self: Agent, records: Any, asked_at: float) -> None:
    _install(self, records, self.clock.now())


def _granted_for_ever(self: Agent, records: Any, asked_at: float) -> None:
    _install(self, records, asked_at)
    self._views = {table: replace(view, read_until=math.inf) for table, view in self._views.items()}


_install = Agent._install


def _gate_shut_without_waiting(self: Agent, table: str) -> None:
    self.homes[Side.DYNAMODB].shut_gate(table)


def _opened_undrained(self: Repair, table: Any) -> Any:
    record = self._control.read_all()[table.physical]
    self._control.change(record, gate=Gate.OPEN)
    return 0, 0, Gate.OPEN


_doubt = mirroring.Mirroring.doubt


# Rule 5: transactions


# Rule 7: PostgreSQL authoritative


def _kept_without_entry(self: MemoryAuthority, place: Any, new: Any) -> None:
    self._keep_plain(place, None if new is None else {**new, STAMP: {"B": self._new_stamp()}})


def _leased_to_all(self: MemoryOutbox, table: str, holder: str, *, lanes: int, duration: Any) -> Any:
    return [Lease(table, 0, holder, 1)]


def _finished_by_key(self: MemoryOutbox, lease: Any, entries: Any) -> bool:
    """As a cursor would: whatever came in meanwhile is passed over with what was seen."""
    for number in [number for number, each in self._waiting.items() if each.reason != SECOND_LOOK]:
        del self._waiting[number]
    return True


def _unconditional(shape: Any, onto: Any) -> dict[str, Any]:
    return {}


def _conditional_on_presence(shape: Any, onto: Any) -> dict[str, Any]:
    return _condition(shape, onto) if isinstance(onto, Onto) else {}


_condition = sending._condition


def _not_asked_again(self: LaneRound, doubtful: Any) -> Any:
    """A write in doubt is given up, and its key settled."""
    for work in doubtful:
        work.sent = None
    return doubtful


def _token_of_its_own(self: LaneRound, work: Any) -> None:
    work.sent = replace(work.sent, token=new_stamp().hex())
    _send_again(self, work)


_send_again = LaneRound._send_again


def _not_looked_at_again(self: MemoryOutbox, lease: Any, entries: Any, *, again_in: Any = None) -> bool:
    return _resolve(self, lease, entries)


_resolve = MemoryOutbox.resolve


def _postgres_first(self: LaneRound, works: Any) -> Any:
    keys = [work.key for work in works]
    states = self._source.states_as_authority(self._table.physical, keys, epoch=self._epoch)
    self._source = SimpleNamespace(states_as_authority=lambda *_, **__: states)
    return _read_theirs(self, works)


_read_theirs = LaneRound._read_theirs


def _equal_content_left(key: Any, *, theirs: Any, ours: Any) -> Any:
    if theirs is not None and ours is not None and items_equal(ours, theirs, ignore_stamps=True):
        return None
    return _step(key, theirs=theirs, ours=ours)


_step = sending.step


# Rule 8: epochs


def _written_at_any_epoch(self: MemoryAuthority, operation: Any, *, epochs: Any) -> Any:
    fence = self.fence_of("items")
    role = PostgresRole.AUTHORITY if fence is None else fence[1]
    if not operation.reads and role is not PostgresRole.AUTHORITY:
        return self._refused_as_client_error(operation, self._write_stamped)
    return _execute_as_authority(self, operation, epochs={"items": -1 if fence is None else fence[0]})


def _read_at_any_epoch(self: MemoryAuthority, operation: Any, *, epochs: Any) -> Any:
    if operation.reads:
        return MemoryStore.execute(self, operation)
    return _execute_as_authority(self, operation, epochs=epochs)


_execute_as_authority = MemoryAuthority.execute_as_authority


def _states_of_whatever_it_is(self: MemoryAuthority, table: str, keys: Any, *, epoch: int) -> Any:
    return self.items_of(table, keys)


def _enqueued_whatever_it_is(self: MemoryOutbox, table: str, keys: Any, *, reason: str, **_: Any) -> None:
    for key in keys:
        self.add(table, key, reason=reason)


@contextmanager
def _writing_without_grant(self: Agent, table: str) -> Any:
    state = self._tables[table]
    view = self._begun(table, state)
    try:
        yield view
    finally:
        self._end(state, view)


def _nobody_waited_for(self: Following, followed: Any, record: Any) -> Any:
    return followed.passage.undrained(record)


def _opened_without_deciding(self: Following, record: Any) -> None:
    """The new record is opened first, the old one closed for good after it."""
    opened = replace(
        record,
        phase=Phase.OPEN,
        stage=record.target,
        target=None,
        epoch=record.epoch + 1,
        generation=record.generation + 2,
    )
    self._agent.homes[opened.authority].install(opened)
    self._change(record, phase=Phase.MOVED, stage=record.target, target=None, epoch=record.epoch + 1)


def _without(witness: str) -> Replacement:
    """The move is not held up by one of the things that must be drained."""
    return FleetPassage, witness, lambda self: False


MUTANTS: tuple[Mutant, ...] = (
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
        "6",
        "a grant counts from before it was asked for",
        "slow_agents",
        ((Agent, "_install", _granted_from_the_answer),),
    ),
    Mutant(
        "6",
        "a grant lapses after δ",
        "slow_agents",
        ((Agent, "_install", _granted_for_ever),),
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
    Mutant(
        "5",
        "the keys of a transaction are settled after it",
        "transacting",
        ((mirroring.Mirroring, "settle_together", lambda *_: None),),
    ),
    Mutant(
        "7",
        "a change notes itself in its own transaction",
        "outward",
        ((MemoryAuthority, "_keep_noted", _kept_without_entry),),
    ),
    Mutant(
        "7",
        "entries are finished one by one, not up to a cursor",
        "outward",
        ((MemoryOutbox, "finish", _finished_by_key),),
    ),
    Mutant(
        "7",
        "updates and deletes are conditional on the predecessor stamp",
        "outward",
        ((sending, "_condition", _conditional_on_presence),),
    ),
    Mutant(
        "7", "creations are conditional on absence", "outward", ((sending, "_condition", _unconditional),)
    ),
    Mutant("7", "creations go under a token", "outward", ((sending.Step, "repeatable", False),)),
    Mutant(
        "7",
        "a failed condition is settled afresh",
        "sleeping_senders",
        (
            (lane_round, "DONE", sending.DONE | {sending.Verdict.CHANGED}),
            (lane_round, "_to_be_settled_afresh", lambda _: False),
        ),
        within=5_000,
    ),
    Mutant(
        "7",
        "'sent' is committed before sending",
        "creations",
        ((MemoryOutbox, "mark_sent", lambda *_: True),),
    ),
    Mutant(
        "7",
        "a write in doubt is repeated before anything else for its key",
        "creations",
        ((LaneRound, "_end_doubts", _not_asked_again),),
    ),
    Mutant(
        "7",
        "and under the same token (without the second look)",
        "creations",
        (
            (LaneRound, "_send_again", _token_of_its_own),
            (MemoryOutbox, "resolve", _not_looked_at_again),
        ),
    ),
    Mutant(
        "7",
        "a second look, when no request can be under way",
        "forgotten_tokens",
        ((MemoryOutbox, "resolve", _not_looked_at_again),),
    ),
    Mutant(
        "7",
        "DynamoDB is read before PostgreSQL; the last look at the lease",
        "sleeping_senders",
        ((LaneRound, "_read_theirs", _postgres_first), (HeldLane, "holds", lambda _: True)),
    ),
    Mutant(
        "7",
        "equal content under another stamp is written",
        "sleeping_senders",
        ((lane_round, "step", _equal_content_left),),
    ),
    Mutant(
        "8",
        "mirror writes check epoch and role",
        "late_to_live",
        ((MemoryStore, "_pass_fence", lambda *_: None),),
    ),
    Mutant(
        "8",
        "the authority's writes check epoch and role",
        "flipping",
        ((MemoryAuthority, "execute_as_authority", _written_at_any_epoch),),
    ),
    Mutant(
        "8",
        "the authority's reads check epoch and role",
        "late_to_return",
        ((MemoryAuthority, "execute_as_authority", _read_at_any_epoch),),
    ),
    Mutant(
        "8",
        "sender and outbox ask whether PostgreSQL is still the authority",
        "late_to_return",
        (
            (MemoryAuthority, "states_as_authority", _states_of_whatever_it_is),
            (MemoryOutbox, "enqueue", _enqueued_whatever_it_is),
        ),
    ),
    Mutant(
        "8",
        "writes to DynamoDB need a grant, and one that still held when the reply came",
        "given_up",
        (
            (Agent, "writing", _writing_without_grant),
            (mirroring.Mirroring, "require_same_epoch", lambda *_: None),
        ),
    ),
    Mutant(
        "8",
        "a reply that came after the grant is no success",
        "given_up",
        ((mirroring.Mirroring, "require_same_epoch", lambda *_: None),),
    ),
    Mutant(
        "8",
        "a closed record grants no read",
        "late_to_live",
        ((Router, "_require_unmoved", lambda *_: None),),
    ),
    Mutant(
        "8",
        "a move waits until each process has nothing in flight",
        "flipping",
        ((Following, "_unfinished", _nobody_waited_for),),
    ),
    Mutant(
        "8",
        "and until stream, journal and dirty keys are",
        "draining",
        (_without("stream"), _without("journal"), _without("dirty")),
    ),
    Mutant("8", "and until the outbox is drained", "flipping", (_without("outbox"),)),
    Mutant(
        "8",
        "the old record decides the move",
        "flipping",
        ((Following, "_complete", _opened_without_deciding),),
    ),
)
