"""Write the authority, then the mirror: each acknowledged write is mirrored, settled, or known to be missing.

DESIGN, replication protocol, rules 2, 4 and 6.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from time import perf_counter

from dualstore.errors import (
    AuthorityMoved,
    MirrorFenced,
    MirrorRefused,
    MirrorUnavailable,
    OutcomeUnknown,
    RequestRejected,
    Unavailable,
)
from dualstore.items import Key, key_bytes
from dualstore.operations import ConditionalWrite, Operation, Response
from dualstore.replication.agent import Agent
from dualstore.replication.authority import Acknowledged, RetryPolicy, WriteRefused, error_code, write
from dualstore.replication.deferred import Deferred  # noqa: TC001 - one import, not worth a block
from dualstore.replication.health import MirrorHealth
from dualstore.replication.journal import Journal
from dualstore.replication.requests import key_of
from dualstore.replication.served import ServedTable
from dualstore.replication.settle import settle, settle_many, settle_together
from dualstore.replication.views import View
from dualstore.stages import Side
from dualstore.stores.base import Mirror, Store
from dualstore.stores.outbox import Outbox
from dualstore.telemetry import OK, GrantExpired, MirrorFailed, Role, Settled, Telemetry

logger = logging.getLogger(__name__)

_SETTLE = "Settle"
_REMEMBERED_KEYS = 10_000
_RECORDED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class ReplicationTimes:
    """Limits of a mirrored write.

    Attributes:
        retries: how long a write is tried at the authority.
        direct_window: how long after the authority's reply the writer may still write the mirror directly.
        mirror: how long bringing the mirror after one write may take its caller.
        note: how long the note may take, in the mirror itself, that this has failed.
    """

    retries: RetryPolicy = field(default_factory=RetryPolicy)
    direct_window: timedelta = timedelta(seconds=30)
    mirror: timedelta = timedelta(seconds=1)
    note: timedelta = timedelta(seconds=0.5)


Group = tuple[ServedTable, Sequence[Key]]
"""Different keys of one table."""


class Mirroring:
    """Writes on DynamoDB, the authority, and then on PostgreSQL, the mirror.

    Args:
        authority: the store whose word is final.
        mirror: the store that follows.
        agent: what this process may act on.
        journal: where doubts go while the mirror is out of reach.
        health: whether the mirror is worth asking.
        outbox: where doubts go once PostgreSQL is the authority.
        telemetry: told of every mirror write.
        times: limits.
        limited: gives everything that its block asks of the mirror so long, all in all.
    """

    def __init__(  # noqa: PLR0917 - put together in one place
        self,
        authority: Store,
        mirror: Mirror,
        agent: Agent,
        journal: Journal,
        health: MirrorHealth,
        outbox: Outbox,
        *,
        telemetry: Telemetry,
        times: ReplicationTimes | None = None,
        limited: Callable[[timedelta], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> None:
        self.authority = authority
        self.mirror = mirror
        self.agent = agent
        self.journal = journal
        self.health = health
        self.outbox = outbox
        self.deferred: Deferred | None = None
        self._limited = limited
        self._telemetry = telemetry
        self._times = times or ReplicationTimes()
        self._unrecorded: dict[str, dict[bytes, Key]] = {}
        self._overflowed: set[tuple[str, uuid.UUID]] = set()  # each time apart
        self._unrecorded_lock = threading.Lock()

    def write(self, table: ServedTable, operation: ConditionalWrite, view: View) -> Response:
        """Carry out one write of a served table.

        Args:
            table: the table.
            operation: the write, as its caller made it.
            view: from `Agent.writing`, whose block this is called in.

        Returns:
            The response as it would be without stamps.

        Raises:
            botocore.exceptions.ClientError: the authority refuses.
            botocore.exceptions.BotoCoreError: the authority did not answer: the outcome is unknown.
            OutcomeUnknown: it answered too late to be the authority for certain.
            AuthorityMoved: likewise, and it had refused.
        """
        try:
            key = key_of(operation, table.shape.keys)
        except (KeyError, RequestRejected):
            return self.authority.execute(operation)  # refused there, in DynamoDB's own words
        mirrored = mirrors(table, key, view)
        try:
            # A mirror that is down takes no direct write: then nothing need be asked back for one.
            acknowledged = self._write_authority(table, operation, mirrored=mirrored and self.health.up)
            self.require_same_epoch(table, view, OutcomeUnknown)
            self._follow(table, key, view, acknowledged, mirrored=mirrored)
        except WriteRefused as refused:
            if refused.doubtful and (mirrored or self.began_to_mirror(table, key, view)):
                self.doubt(table, [key], "the authority's reply was lost")
            if not refused.doubtful:
                self.require_same_epoch(table, view, AuthorityMoved)
            raise refused.error from None
        except BaseException:  # a signal, a killed greenlet: wherever it struck, the write may be done
            if mirrored or self.began_to_mirror(table, key, view):
                self.doubt(table, [key], "the write was interrupted")
            raise
        return acknowledged.reply.response

    def _write_authority(
        self, table: ServedTable, operation: ConditionalWrite, *, mirrored: bool
    ) -> Acknowledged:
        with self.timed(table, operation):
            return write(self.authority, operation, mirrored=mirrored, policy=self._times.retries)

    def timed(self, table: ServedTable, operation: Operation) -> "Timed":
        """Count what the authority answers within the block, and how long it takes."""
        return Timed(self._telemetry, table.logical, operation.name, self.mirror.side.other)

    def began_to_mirror(self, table: ServedTable, key: Key, view: View) -> bool:
        """Whether, the grant of a view having lapsed, others may by now mirror a key; in doubt: yes."""
        later = self.later_view(table, view)
        return later is None or mirrors(table, key, later)

    def later_view(self, table: ServedTable, view: View) -> View | None:
        """What holds where the grant of a view has lapsed: a view read now, or None where it is not known.

        The view itself, where its grant still stands.
        """
        if self.agent.clock.now() < view.write_until:
            return view
        self._telemetry.record(GrantExpired(table.logical, "write"))
        try:
            return self.agent.refreshed(table.physical)
        except Exception as failure:  # noqa: BLE001 - whatever keeps it from being known
            logger.warning("The stage of %s is not known: %s", table.logical, type(failure).__name__)
            return None

    def require_same_epoch(self, table: ServedTable, view: View, otherwise: type[Unavailable]) -> None:
        """See that who has answered was the authority: where the grant has lapsed, by a view read now.

        DESIGN, rule 8: expired means outcome unknown, never success.

        Args:
            table: the table.
            view: that was acted on.
            otherwise: is raised where the authority may have moved.
        """
        later = self.later_view(table, view)
        if later is None or later.record.epoch != view.record.epoch:
            raise otherwise(
                f"DynamoDB answered a write of {table.logical} when it may have been the authority no more"
            )

    def settle(self, table: ServedTable, keys: Sequence[Key]) -> None:
        """Settle different keys of a table, or record them as doubtful before returning."""
        epoch = self._mirrored_epoch(table)
        if epoch is None:
            self.doubt(table, keys, "the authority has moved")
            return

        def act() -> None:
            if len(keys) == 1:
                settle(self.mirror, self.authority, table.shape, keys[0], epoch=epoch)
            else:
                settle_many(self.mirror, self.authority, table.shape, keys, epoch=epoch)

        self.reach(table, keys, _SETTLE, act)

    def settle_together(self, groups: Sequence[Group], token: str) -> None:
        """Settle the keys that a transaction wrote, all at once, or record them as doubtful before returning.

        Where that cannot be had, because SQL refuses one of the items, say, each table is settled for itself.

        Args:
            groups: the keys by table.
            token: the transaction's ClientRequestToken.
        """
        if self._settled_together(groups, token):
            for table, _ in groups:
                self._telemetry.record(Settled(table.logical, "transaction", "done"))
            return
        with ExitStack() as stack:  # every table, though it fails for one; then raise what was raised last
            for table, keys in groups:
                stack.callback(self.settle, table, keys)

    def _settled_together(self, groups: Sequence[Group], token: str) -> bool:
        shaped = []
        for table, keys in groups:
            epoch = self._mirrored_epoch(table)
            if epoch is None:
                return False
            shaped.append((table.shape, keys, epoch))
        try:
            self.health.require()
            with self._limited(self._times.mirror):
                settle_together(self.mirror, self.authority, shaped, token=token)
        except Exception as failure:  # noqa: BLE001 - whatever it is: settling one by one tells for which key
            logger.info("A transaction is settled key by key: %s", type(failure).__name__)
            self._remember_token(token)
            return False
        return True

    def _remember_token(self, token: str) -> None:
        """Have the mirror recognise a repetition of a transaction, though not with the keys that it wrote.

        A mirror that is down cannot: docs/explanation/protection.md says what that means.
        """
        if not self.health.up:
            return
        try:
            with self._limited(self._times.note):
                self.mirror.write_settled_together((), token=token)
        except Exception as failure:  # noqa: BLE001 - the keys themselves come next, and what keeps them is told
            logger.info("The token of a transaction is not remembered: %s", type(failure).__name__)

    def _mirrored_epoch(self, table: ServedTable) -> int | None:
        """The epoch to settle under; None where PostgreSQL is the authority by now."""
        record = self.agent.view(table.physical).record
        return record.epoch if record.authority is Side.DYNAMODB else None

    def reach(self, table: ServedTable, keys: Sequence[Key], name: str, act: Callable[[], None]) -> None:
        """Do something to the mirror; where it fails, record the keys as doubtful before anybody is answered.

        Args:
            table: the table.
            keys: the keys that it is about.
            name: what it is, in telemetry.
            act: does it.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: not even the doubt could be
                recorded: mirror and authority are both out of reach.
        """
        reason: str | None = "the mirror write was interrupted"
        outcome = "interrupted"
        started = perf_counter()
        try:
            self.health.require()
            with self._limited(self._times.mirror):
                reason, outcome = self._tried(act)
        except MirrorUnavailable as failure:
            reason, outcome = str(failure), type(failure).__name__
        except Exception as failure:  # noqa: BLE001 - the write is acknowledged: only its mirroring failed
            reason = outcome = type(failure).__name__
        finally:
            if name == _SETTLE:
                verdict = "done" if reason is None else "failed"
                self._telemetry.record(Settled(table.logical, "write", verdict))
            self._telemetry.operation(
                table.logical, name, self.mirror.side, Role.MIRROR, perf_counter() - started, outcome
            )
            if reason is not None:
                self._telemetry.record(MirrorFailed(table.logical, name, outcome))
                self.doubt(table, keys, reason)

    def _tried(self, act: Callable[[], None]) -> tuple[str | None, str]:
        """Do something to the mirror, and remember how it bears it."""
        try:
            act()
        except (MirrorRefused, MirrorFenced) as refusal:  # it answers, and refuses one item, or one epoch
            return str(refusal), type(refusal).__name__
        except MirrorUnavailable:
            self.health.strained()
            raise
        self.health.relieved()
        return None, OK

    def doubt(self, table: ServedTable, keys: Sequence[Key], reason: str) -> None:
        """Record keys whose mirrored state is in doubt, so that nobody reads it there.

        Where the mirror takes the note, its own reads see it. Else it goes to the journal, unless the table's
        stream is the journal, and the mirror's reads are stopped for the whole table until that is drained.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: neither could be done; this
                process remembers the keys until it can be (see `record_again`).
        """
        try:
            if self._noted_by_mirror(table, keys, reason):
                return
            self._journal(table, keys)
        except BaseException:
            self._remember(table, keys)
            raise

    def _remember(self, table: ServedTable, keys: Sequence[Key]) -> None:
        """Keep in mind what could not be recorded; of too many keys only that there are too many."""
        with self._unrecorded_lock:
            remembered = self._unrecorded.setdefault(table.physical, {})
            remembered |= {key_bytes(table.shape.keys, key): key for key in keys}
            if len(remembered) > _REMEMBERED_KEYS:
                self._overflowed.add((table.physical, uuid.uuid4()))
                remembered.clear()

    def _journal(self, table: ServedTable, keys: Sequence[Key]) -> None:
        """Leave a doubt where the authority is, and stop the mirror's reads."""
        if self._mirrored_epoch(table) is None:
            # Nobody reads the journal now. What was written to DynamoDB in doubt is PostgreSQL's to undo.
            raise Unavailable(f"a doubt about {table.logical} cannot be recorded in PostgreSQL")
        left_to_the_stream = self._is_streamed(table)
        if not left_to_the_stream:
            self._record_in_journal(table, keys)
        self.agent.wait_until_reads_stopped(table.physical)
        if left_to_the_stream and not self._is_streamed(table):
            self._record_in_journal(table, keys)

    def _record_in_journal(self, table: ServedTable, keys: Sequence[Key]) -> None:
        for key in keys:
            self.journal.record(table.shape, key)

    def _is_streamed(self, table: ServedTable) -> bool:
        """Whether the table's stream is its journal, as was read within a grant's time."""
        view = self.agent.view(table.physical)
        return view.record.streamed and self.agent.clock.now() < view.read_until

    @property
    def unrecorded(self) -> bool:
        """Whether this process alone knows of some doubt: it must not end as if it had finished."""
        return bool(any(self._unrecorded.values()) or self._overflowed)

    def record_again(self, table: ServedTable) -> bool:
        """Record the doubts that could not be recorded when they came up; True where there were any.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: they still cannot be.
        """
        with self._unrecorded_lock:
            overflowed = {each for each in self._overflowed if each[0] == table.physical}
        if overflowed:
            self.agent.suspect(table.physical)
        with self._unrecorded_lock:
            self._overflowed -= overflowed  # and none that has come up meanwhile
            remembered = self._unrecorded.get(table.physical, {})
            keys = [remembered.pop(name) for name in list(remembered)[:_RECORDED_AT_ONCE]]
        if keys:
            self.doubt(table, keys, "it could not be recorded before")
        return bool(keys)

    def _noted_by_mirror(self, table: ServedTable, keys: Sequence[Key], reason: str) -> bool:
        if not self.health.up:
            return False
        try:
            with self._limited(self._times.note):
                for key in keys:
                    self.mirror.mark_dirty(table.physical, key, nonce=uuid.uuid4().hex, reason=reason)
        except MirrorUnavailable:
            self.health.failed()
            return False
        except Exception as failure:  # noqa: BLE001 - a key that SQL cannot hold, say: the journal takes it
            logger.warning(
                "The mirror takes no note of a key of %s: %s", table.logical, type(failure).__name__
            )
            return False
        return True

    def _follow(
        self, table: ServedTable, key: Key, view: View, acknowledged: Acknowledged, *, mirrored: bool
    ) -> None:
        """Bring the mirror after an acknowledged write."""
        replied_at = self.agent.clock.now()
        if replied_at >= view.write_until:
            # The reply came too late to be acted on: others may believe this process dead by now.
            if mirrored or self.began_to_mirror(table, key, view):
                self.settle(table, [key])
        elif mirrored and (self._left_to_the_relay(table) or self._deferred_to_later(table, key, view)):
            pass
        elif mirrored and acknowledged.certain and acknowledged.stamp is not None:
            until = min(view.write_until, replied_at + self._times.direct_window.total_seconds())
            epoch = view.record.epoch
            self.reach(
                table,
                [key],
                "WriteDirect",
                lambda: self._write_directly(table, key, acknowledged, until, epoch),
            )
        elif mirrored:
            self.settle(table, [key])

    def _left_to_the_relay(self, table: ServedTable) -> bool:
        """Whether the mirror is down, nobody reads it, and the relay will settle what the stream tells of.

        DESIGN, rule 4: the stream is the journal. The gate opens once the relay has read it up to then.
        """
        if self.health.up or not self._is_streamed(table):
            return False
        if not self.agent.reads_are_stopped(table.physical):
            return False
        self._telemetry.record(MirrorFailed(table.logical, "WriteDirect", "MirrorDown"))
        return True

    def _deferred_to_later(self, table: ServedTable, key: Key, view: View) -> bool:
        """Whether somebody else of this process settles the key, so that the caller need not wait."""
        if self.deferred is None or not self.agent.may_defer(table.physical):
            return False
        return self.deferred.submit(table, key, generation=view.record.generation)

    def _write_directly(
        self, table: ServedTable, key: Key, acknowledged: Acknowledged, until: float, epoch: int
    ) -> None:
        assert acknowledged.stamp is not None  # noqa: S101 - `_follow` saw to it
        if self.agent.clock.now() >= until or not self.mirror.write_direct(
            table.physical,
            key,
            acknowledged.reply.image,
            stamp=acknowledged.stamp,
            predecessor=acknowledged.reply.predecessor,
            epoch=epoch,
        ):
            settle(self.mirror, self.authority, table.shape, key, epoch=epoch)
            self._telemetry.record(Settled(table.logical, "predecessor", "done"))


class Timed:
    """Counts what the authority answers within a block, and how long it takes."""

    __slots__ = ("_operation", "_side", "_started", "_table", "_telemetry")

    def __init__(self, telemetry: Telemetry, table: str, operation: str, side: Side) -> None:
        self._telemetry = telemetry
        self._table = table
        self._operation = operation
        self._side = side

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        seconds = perf_counter() - self._started
        outcome = OK if error is None else _outcome_of(error)
        self._telemetry.operation(
            self._table, self._operation, self._side, Role.AUTHORITATIVE, seconds, outcome
        )


def _outcome_of(error: BaseException) -> str:
    if isinstance(error, WriteRefused):
        error = error.error
    return error_code(error) or type(error).__name__


def mirrors(table: ServedTable, key: Key, view: View) -> bool:
    """Whether writes of a key go to the mirror under a view."""
    record = view.record
    return record.stage.rule.mirrored and table.mirrors(key, record.dials.mirror_percent)
