"""What PostgreSQL writes as the authority, once and only once (DESIGN, replication protocol, rule 7).

A write is one transaction in two round trips: lock and read; then, conditions having been evaluated by the
one evaluator that all stores share, write and commit. Where PostgreSQL can decide, `authority_single` makes
it in one. Where the reply to the COMMIT is lost, or cannot be read, the next attempt, which holds the same
locks, first looks for the stamps of the one before: they tell whether it was carried out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

import stamina
from psycopg import errors as pg

from dualstore.control import PostgresRole
from dualstore.errors import AuthorityMoved, OutcomeUnknown, RequestRejected, Unavailable
from dualstore.items import STAMP, Item, key_bytes, without_stamps
from dualstore.mapping import Unreadable
from dualstore.operations import ConditionalWrite, Operation, Response
from dualstore.stores import semantics
from dualstore.stores.postgres.authority_single import SingleWrite, single_write
from dualstore.stores.postgres.authority_statements import (
    FIND_STAMPS,
    KNOWN_TOKEN,
    LEAVE_RECEIPT,
    REMEMBER_TOKEN,
    VOID_STAMPS,
)
from dualstore.stores.postgres.calm import Calm
from dualstore.stores.postgres.catalog import Catalog, lock_key
from dualstore.stores.postgres.collections import size_statements, sizes_bytes
from dualstore.stores.postgres.deadlines import Deadline, DeadlinePassed
from dualstore.stores.postgres.exchanges import Row, Statement
from dualstore.stores.postgres.faults import CAUGHT, Fault, as_store, driver_error, fault_of
from dualstore.stores.postgres.sessions import BEGIN, COMMIT, Session, Sessions
from dualstore.stores.postgres.split_statements import Statements
from dualstore.stores.postgres.trigger_functions import PAUSED_SQLSTATE
from dualstore.stores.stamps import new_stamp
from dualstore.stores.uptime import uptime

_SURELY_KEPT = timedelta(minutes=10)
"""So long after it was sent a write is known by its stamps; upkeep keeps them for a quarter of an hour."""

_FIRST_WAIT_S = 0.02
_LONGEST_WAIT_S = 1.0


class _Again(Exception):  # noqa: N818 - control flow within this module
    """An attempt was without effect, or its outcome is not known yet."""


@dataclass(frozen=True, slots=True)
class _Doubt:
    """An attempt whose COMMIT was not answered.

    Attributes:
        stamps: of all its changes; any one of them tells for all.
        answer: the answer if it was carried out, from the item that it has made where that is still there;
            None where it is lost.
        began: when the attempt did, by `uptime`: this process may have stood still since.
    """

    stamps: Sequence[bytes]
    answer: Callable[[Item | None], Response | None]
    began: float

    @property
    def would_show(self) -> bool:
        """Whether the write, had it been carried out, would surely have been found by now."""
        return uptime() - self.began < _SURELY_KEPT.total_seconds()


@dataclass(frozen=True)
class AuthorityWrites:
    """The operations that write, where PostgreSQL is the authority.

    Args:
        catalog: the tables.
        sessions: where connections come from.
        patience: how long to ask what has become of a write whose COMMIT was not answered, and how long to
            repeat one that writers who take no lock keep overtaking.
        calm: whether writes may go without a statement that sets their timeout.
    """

    catalog: Catalog
    sessions: Sessions
    patience: timedelta
    calm: Calm = field(default_factory=Calm)

    def write(self, operation: Operation, epochs: Mapping[str, int], *, doing: str) -> Response:
        """Carry out an operation that writes (see `Authority.execute_as_authority`).

        Args:
            operation: the operation.
            epochs: of its tables.
            doing: its name, for errors.

        Raises:
            RequestRejected, AuthorityMoved, OutcomeUnknown, Unavailable: see there.
        """
        plan = semantics.plan_write(operation, self.catalog)
        targets = [
            self._target(write, key, epochs[write.table])
            for write, key in zip(plan.writes, plan.keys, strict=True)
        ]
        attempts = _Attempts(self, operation, plan, targets, doing)
        try:
            return attempts.next()
        except _Again:
            return self._again(attempts)

    def _again(self, attempts: "_Attempts") -> Response:
        try:
            with Deadline(self.patience):
                for retry in stamina.retry_context(
                    on=attempts.may_repeat,
                    attempts=None,
                    timeout=self.patience,
                    wait_initial=_FIRST_WAIT_S,
                    wait_max=_LONGEST_WAIT_S,
                    wait_jitter=_FIRST_WAIT_S,
                ):
                    with retry:
                        return attempts.next()
        except (_Again, Unavailable) as error:
            if not attempts.may_repeat(error):
                raise
            raise attempts.given_up() from None
        raise AssertionError("the retry loop neither returned nor raised")

    def _target(self, write: ConditionalWrite, key: Item, epoch: int) -> "_Target":
        statements = self.catalog.statements(write.table)
        return _Target(
            statements, write.table, str(epoch), key, key_bytes(statements.mapping.shape.keys, key)
        )


class _Attempts:
    """The attempts at one write, the doubt that the last one left, and the answer once there is one."""

    def __init__(
        self,
        writes: AuthorityWrites,
        operation: Operation,
        plan: semantics.WritePlan,
        targets: Sequence["_Target"],
        doing: str,
    ) -> None:
        self._catalog = writes.catalog
        self._sessions = writes.sessions
        self._operation = operation
        self._plan = plan
        self._targets = targets
        self._doing = doing
        self._began = 0.0
        self._doubt: _Doubt | None = None
        self._response: Response | None = None
        self._calm = writes.calm
        self._may_be_single = len(targets) == 1

    def next(self) -> Response:
        """Try, or find out that the attempt before has succeeded."""
        return self._sessions.run(self._carry_out, doing=self._doing, explain=as_store)

    def may_repeat(self, error: Exception) -> bool:
        """Whether to go on after this error.

        While an attempt is in doubt, not being able to ask is a reason to go on. Where the authority has
        moved since, PostgreSQL could be asked, and the attempt had not been carried out. Where its outcome
        stays unknown, PostgreSQL was asked as well.
        """
        unasked = isinstance(error, Unavailable) and not isinstance(error, AuthorityMoved | OutcomeUnknown)
        return isinstance(error, _Again) or (self._doubt is not None and unasked)

    def given_up(self) -> Unavailable:
        """What the caller is told when patience has ended."""
        if self._doubt is None:
            return Unavailable(
                f"PostgreSQL did not carry out {self._doing}: the row kept being changed by others between "
                "reading and writing it; try again"
            )
        return OutcomeUnknown(
            f"PostgreSQL may or may not have carried out {self._doing}: its COMMIT was not answered, and "
            "PostgreSQL could not be asked since; read the item before the write is repeated"
        )

    def _carry_out(self, session: Session) -> Response:
        # The session runs this again if its connection breaks, and it may break when all has been done.
        self._began = uptime()
        if self._response is None and self._may_be_single:
            self._may_be_single = False
            self._response = self._at_once(session)
        if self._response is None:
            self._response = self._transaction(session)
        return self._response

    def _at_once(self, session: Session) -> Response | None:
        """Lock, look and write in one round trip; None where nothing was done, and two are needed."""
        (target,) = self._targets
        lock = lock_key(target.table, target.key)
        if self._calm.lasts_for(target.table, target.epoch) and self._sessions.begins_read_committed:
            response = self._locking(session, target, lock)
            if response is not None:
                return response
        single = self._single(target)
        if single is None:
            return None
        locked = self._sessions.lock(lock, writer="authority")
        stamp = new_stamp()
        try:
            answer = session.under_lock(locked, single.statement(stamp), single.expect)
            outcome = single.outcome(answer)
        except CAUGHT as error:
            self._doubt_if_lost(error, [stamp], single.repeated)
            raise
        self._calm.note(target.table, target.epoch, at_complete=outcome.at_complete)
        return outcome.response

    def _locking(self, session: Session, target: "_Target", lock: int) -> Response | None:
        """As `_at_once`, in one statement (ADR 32)."""
        single = self._single(target, (str(lock), self._sessions.row_patience_ms))
        if single is None:
            return None
        stamp = new_stamp()
        try:
            return single.outcome(session.locking(single.statement(stamp), single.expect)).response
        except pg.ReadOnlySqlTransaction:  # nothing was done; the other way begins one that writes
            return None
        except CAUGHT as error:
            if fault_of(error) is Fault.LATE and not isinstance(driver_error(error), pg.LockNotAvailable):
                self._calm.ended()
            self._doubt_if_lost(error, [stamp], single.repeated)
            raise

    def _single(self, target: "_Target", lock: Sequence[str] = ()) -> SingleWrite | None:
        return single_write(
            self._operation, self._plan, target.statements, key=target.key, epoch=target.epoch, lock=lock
        )

    def _transaction(self, session: Session) -> Response:
        if self._doubt is not None:
            if self._was_carried_out(session, self._doubt):
                return self._answered(session, self._doubt)
            if not self._doubt.would_show:  # asked after the answer: this process may stand still at any time
                raise OutcomeUnknown(
                    f"PostgreSQL may or may not have carried out {self._doing}: its COMMIT was not answered, "
                    "and this process could ask only so much later that PostgreSQL may have forgotten it; "
                    "read the item before the write is repeated"
                )
            # Under these locks it left no trace. But it may be on its way yet, lock and all, and is not to be
            # carried out when it comes; nor where this attempt ends with a refusal, hence its own commit.
            session.batch((VOID_STAMPS, (list(self._doubt.stamps),)), COMMIT)
            self._doubt = None
        known, sizes, states = self._read(session, self._begin)
        for target, state in zip(self._targets, states, strict=True):
            target.check_role(state.role, self._doing)
        olds = [state.item for state in states]
        if known:
            self._plan.check_repetition(known[0][0])
            return self._plan.respond_again(olds)
        outcomes = self._plan.decide_unstamped(olds)
        response = self._plan.respond(outcomes)
        semantics.tell_collections(response, self._operation, self._plan.collections, sizes)
        self._write(session, states, outcomes, response)
        return response

    @property
    def _begin(self) -> Sequence[Statement]:
        """What begins a transaction under the locks of the keys and of the token."""
        locks = [lock_key(target.table, target.key) for target in self._targets]
        if self._plan.token is not None:
            locks.append(lock_key("", self._plan.token.encode()))
        return BEGIN, self._sessions.lock(*locks, writer="authority")

    def _read(
        self, session: Session, begin: Sequence[Statement]
    ) -> tuple[list[Row], list[int], list["_State"]]:
        """Lock, unless that has been done, and read.

        Returns:
            What is known of the token; the sizes of the collections that were asked for; what the keys hold.
        """
        plan = self._plan
        asked: list[Statement] = [] if plan.token is None else [(KNOWN_TOKEN, (plan.token,))]
        first_size = len(asked)
        asked += size_statements(self._catalog, plan.collections)
        answers = session.batch(*begin, *asked, *(target.get for target in self._targets))[len(begin) :]
        states = [
            target.state(row) for target, (row,) in zip(self._targets, answers[len(asked) :], strict=True)
        ]
        known = answers[0] if plan.token is not None else []
        sizes = sizes_bytes(self._catalog, plan.collections, answers[first_size : len(asked)])
        return known, sizes, states

    def _was_carried_out(self, session: Session, doubt: _Doubt) -> bool:
        """Lock, and look for what an attempt has left, whether or not the rows can be read."""
        stamps = list(doubt.stamps)
        stamped = [target.stamped(stamps) for target in self._targets]
        _, _, *found = session.batch(*self._begin, (FIND_STAMPS, (stamps,)), *stamped)
        return any(found)

    def _answered(self, session: Session, doubt: _Doubt) -> Response:
        """The answer of an attempt that was carried out.

        Raises:
            OutcomeUnknown: what it has made of the item is not there any more, or cannot be read.
        """
        try:
            _, _, states = self._read(session, ())
            made = [state.item for state in states if state.stamp in doubt.stamps and state.item is not None]
            response = doubt.answer(without_stamps(made[0]) if made else None)
        except (Unreadable, RequestRejected):
            response = doubt.answer(None)
        # What is found may be here alone, where its commit no longer waited for a synchronous standby. One
        # that leaves something waits for that, and for all before it.
        session.batch((LEAVE_RECEIPT, (new_stamp(),)), COMMIT)
        if response is None:
            raise OutcomeUnknown(
                f"PostgreSQL has carried out {self._doing}, but its answer was lost, and the item has been "
                "changed by others since, or cannot be read: read the item, do not repeat the write"
            )
        return response

    def _write(
        self,
        session: Session,
        states: Sequence["_State"],
        outcomes: Sequence[semantics.Written],
        response: Response,
    ) -> None:
        stamps: list[bytes] = []
        statements: list[Statement] = []
        for target, state, outcome in zip(self._targets, states, outcomes, strict=True):
            if outcome.new_item is not outcome.old_item:
                stamps.append(new_stamp())
                statements.append(target.write(state, outcome.new_item, stamps[-1]))
            elif len(outcomes) > 1:
                statements.append(target.confirm(state))
        if self._plan.token is not None:
            statements.append((REMEMBER_TOKEN, (self._plan.token, self._plan.digest)))
        if not statements:
            return
        try:
            session.batch(*statements, COMMIT)
        except CAUGHT as error:
            self._doubt_if_lost(error, stamps, lambda _: response)
            raise

    def _doubt_if_lost(
        self, error: Exception, stamps: Sequence[bytes], answer: Callable[[Item | None], Response | None]
    ) -> None:
        """Remember what was written, and how it is to be answered, where its reply does not come.

        A reply that cannot be read tells as little.

        Raises:
            _Again: nobody knows yet what has become of the write, or it was without effect.
            AuthorityMoved: writes pause.
        """
        if fault_of(error) is Fault.LOST or isinstance(error, DeadlinePassed | Unreadable):
            self._doubt = _Doubt(stamps, answer, self._began)
            raise _Again from None
        if isinstance(driver_error(error), pg.InvalidArgumentForLogarithm):
            raise _Again from None
        if getattr(driver_error(error), "sqlstate", None) == PAUSED_SQLSTATE:
            raise AuthorityMoved(_moved(self._doing, "its writes pause")) from None


@dataclass(frozen=True, slots=True)
class _State:
    """What was found at a key."""

    item: Item | None
    revision: int | None
    role: str | None

    @property
    def stamp(self) -> bytes | None:
        value = None if self.item is None else self.item.get(STAMP)
        return None if value is None else value.get("B")


class _Target(NamedTuple):
    """One key of one table.

    Attributes:
        statements: of the table.
        table: its physical name.
        epoch: of the table, as text.
        names: the key, normalised.
        key: the same as bytes.
    """

    statements: Statements
    table: str
    epoch: str
    names: Item
    key: bytes

    @property
    def key_values(self) -> tuple[Any, ...]:
        """The key as values of SQL."""
        return self.statements.mapping.encode_key(self.names)

    @property
    def get(self) -> Statement:
        return self.statements.get_as_authority, (*self.key_values, self.table, self.epoch)

    def stamped(self, stamps: Sequence[bytes]) -> Statement:
        """The statement that has a row where the key's row has one of these stamps."""
        return self.statements.stamped, (*self.key_values, stamps)

    def state(self, row: Row) -> _State:
        *stored, revision, role = row
        item = None if revision is None else self.statements.mapping.decode(stored)
        return _State(item, revision, role)

    def check_role(self, role: str | None, doing: str) -> None:
        if role == PostgresRole.AUTHORITY:
            return
        if role == PostgresRole.PAUSED:
            raise AuthorityMoved(
                _moved(doing, f"writes of {self.table!r} pause, its authority is about to move")
            )
        raise AuthorityMoved(
            _moved(doing, f"it is not the authority of {self.table!r} at epoch {self.epoch}")
        )

    def write(self, state: _State, new: Item | None, stamp: bytes) -> Statement:
        """The statement that makes an item of what was found, or removes it."""
        statements, fence = self.statements, (self.table, self.epoch)
        if new is None:
            values = (*self.key_values, *fence, self.key, str(state.revision), stamp.hex())
            return statements.remove, values
        writing = statements.writing(new)
        row = writing.mapping.encode({**new, STAMP: {"B": stamp}})
        if state.revision is None:
            return writing.create, (*row, *fence, self.key)
        return writing.change, (*row, *fence, str(state.revision))

    def confirm(self, state: _State) -> Statement:
        """The statement that makes sure of what was found."""
        if state.revision is None:
            return self.statements.still_absent, self.key_values
        return self.statements.still_there, (*self.key_values, str(state.revision))


def _moved(doing: str, why: str) -> str:
    return f"PostgreSQL did not carry out {doing}: {why}; read the control record, and decide again"
