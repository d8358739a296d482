"""Mutants of the rules 7 and 8: PostgreSQL is the authority, and the authority moves."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from dualstore.control import Phase, PostgresRole
from dualstore.items import STAMP, items_equal
from dualstore.replication import lane_round, mirroring, sending
from dualstore.replication.agent import Agent
from dualstore.replication.expiry import Expiry, Swept
from dualstore.replication.following import Following
from dualstore.replication.lane_round import LaneRound
from dualstore.replication.lanes import HeldLane
from dualstore.routing.authorities import Authorities
from dualstore.store import obstacles
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory.authority import MemoryAuthority
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.stores.outbox import SECOND_LOOK, Onto
from dualstore.stores.stamps import new_stamp
from replication.bulk import MemoryExpiringRows
from replication.doors import FleetPassage
from replication.mutant import Mutant, Replacement

# Rule 7: PostgreSQL authoritative


def _kept_without_entry(self: MemoryAuthority, place: Any, new: Any) -> None:
    self._keep_plain(place, None if new is None else {**new, STAMP: {"B": self._new_stamp()}})


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


def _begun_without_grant(self: Agent, table: str) -> Any:
    return self._begun(table, self._known.tables[table])


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


def _moved_though_suspect(self: Following, followed: Any, record: Any, requested: Any) -> None:
    _move(self, followed, replace(record, suspects=frozenset()), requested)


_move = Following._move


def _without_proof() -> dict[Any, Any]:
    """The obstacles of each move, but for those of suspects and of what is unverified."""
    left = {obstacles._unsuspected, obstacles._is_verified}
    return {
        move: replace(asked, of_record=[ask for ask in asked.of_record if ask not in left])
        for move, asked in obstacles._MOVES.items()
    }


OUTWARD: tuple[Mutant, ...] = (
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
        within=5_000,
    ),
    Mutant(
        "7",
        "a write in doubt is repeated before anything else for its key",
        "creations",
        ((LaneRound, "_end_doubts", _not_asked_again),),
        within=5_000,
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
        within=5_000,
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
            (Agent, "begin", _begun_without_grant),
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
        ((Authorities, "_require_unmoved", lambda *_: None),),
    ),
    Mutant(
        "8",
        "a move waits until each process has nothing in flight",
        "flipping",
        ((Following, "_unfinished", _nobody_waited_for),),
        within=5_000,
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
    Mutant(
        "7",
        "expired rows are deleted where the revision is the one seen",
        "sweeping",
        ((MemoryExpiringRows, "_is_as_seen", lambda *_: True),),
    ),
    Mutant(
        "7",
        "without a stream, rows whose items DynamoDB let expire are settled",
        "expiring",
        ((Expiry, "_settle_gone", lambda *_: Swept()),),
    ),
    Mutant(
        "7",
        "the sweeper deletes expired rows of the authority",
        "expiring_live",
        ((Expiry, "_delete", lambda *_: Swept()),),
    ),
    Mutant(
        "8",
        "a table that is suspect or unverified is not moved",
        "cut_stream",
        (
            (obstacles, "_MOVES", _without_proof()),
            (Following, "_move", _moved_though_suspect),
        ),
    ),
)
