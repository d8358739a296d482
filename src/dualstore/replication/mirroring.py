"""Write the authority, then the mirror: each acknowledged write is mirrored, settled, or known to be missing.

DESIGN, replication protocol, rules 2, 4 and 6.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import perf_counter

from dualstore.errors import MirrorRefused, MirrorUnavailable, RequestRejected
from dualstore.items import Key
from dualstore.operations import ConditionalWrite, Operation, Response
from dualstore.replication.agent import Agent, View
from dualstore.replication.authority import Acknowledged, RetryPolicy, WriteRefused, error_code, write
from dualstore.replication.health import MirrorHealth
from dualstore.replication.journal import Journal
from dualstore.replication.requests import key_of
from dualstore.replication.served import ServedTable
from dualstore.replication.settle import settle, settle_many
from dualstore.stores.base import Mirror, Store
from dualstore.telemetry import OK, GrantExpired, MirrorFailed, Role, Settled, Telemetry

logger = logging.getLogger(__name__)

_SETTLE = "Settle"


@dataclass(frozen=True, slots=True)
class ReplicationTimes:
    """Limits of a mirrored write.

    Attributes:
        retries: how long a write is tried at the authority.
        direct_window: how long after the authority's reply the writer may still write the mirror directly.
    """

    retries: RetryPolicy = field(default_factory=RetryPolicy)
    direct_window: timedelta = timedelta(seconds=30)


class Mirroring:
    """Writes of single items, on both sides.

    Args:
        authority: the store whose word is final.
        mirror: the store that follows.
        agent: what this process may act on.
        journal: where doubts go while the mirror is out of reach.
        health: whether the mirror is worth asking.
        telemetry: told of every mirror write.
        times: limits.
    """

    def __init__(
        self,
        authority: Store,
        mirror: Mirror,
        agent: Agent,
        journal: Journal,
        health: MirrorHealth,
        *,
        telemetry: Telemetry,
        times: ReplicationTimes | None = None,
    ) -> None:
        self.authority = authority
        self.mirror = mirror
        self.agent = agent
        self.journal = journal
        self.health = health
        self._telemetry = telemetry
        self._times = times or ReplicationTimes()
        self._unrecorded: dict[str, list[Key]] = {}
        self._unrecorded_lock = threading.Lock()

    def write(self, table: ServedTable, operation: ConditionalWrite) -> Response:
        """Carry out one write of a served table.

        Returns:
            The response as it would be without stamps.

        Raises:
            botocore.exceptions.ClientError: the authority refuses.
            botocore.exceptions.BotoCoreError: the authority did not answer: the outcome is unknown.
        """
        try:
            key = key_of(operation, table.shape.keys)
        except (KeyError, RequestRejected):
            return self.authority.execute(operation)  # refused there, in DynamoDB's own words
        with self.agent.writing(table.physical) as view:
            mirrored = mirrors(table, key, view)
            try:
                acknowledged = self._write_authority(table, operation, mirrored=mirrored)
                self._follow(table, key, view, acknowledged, mirrored=mirrored)
            except WriteRefused as refused:
                if refused.doubtful and (mirrored or self.began_to_mirror(table, key, view)):
                    self.doubt(table, [key], "the authority's reply was lost")
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

    @contextmanager
    def timed(self, table: ServedTable, operation: Operation) -> Iterator[None]:
        """Count what the authority answers within the block, and how long it takes."""
        outcome = OK
        started = perf_counter()
        try:
            yield
        except WriteRefused as refused:
            outcome = error_code(refused.error) or type(refused.error).__name__
            raise
        except BaseException as error:
            outcome = error_code(error) or type(error).__name__
            raise
        finally:
            seconds = perf_counter() - started
            side, role = self.mirror.side.other, Role.AUTHORITATIVE
            self._telemetry.operation(table.logical, operation.name, side, role, seconds, outcome)

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

    def settle(self, table: ServedTable, keys: Sequence[Key]) -> None:
        """Settle different keys of a table, or record them as doubtful before returning."""
        if len(keys) == 1:
            self.reach(
                table, keys, _SETTLE, lambda: settle(self.mirror, self.authority, table.shape, keys[0])
            )
        else:
            self.reach(
                table, keys, _SETTLE, lambda: settle_many(self.mirror, self.authority, table.shape, keys)
            )

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
        except MirrorRefused as refusal:  # it answers, and refuses one item
            return str(refusal), type(refusal).__name__
        except MirrorUnavailable:
            self.health.strained()
            raise
        self.health.relieved()
        return None, OK

    def doubt(self, table: ServedTable, keys: Sequence[Key], reason: str) -> None:
        """Record keys whose mirrored state is in doubt, so that nobody reads it there.

        Where the mirror takes the note, its own reads see it. Else it goes to the journal, and the mirror's
        reads are stopped for the whole table until the journal is drained.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: neither could be done; this
                process remembers the keys until it can be (see `record_again`).
        """
        try:
            if self._noted_by_mirror(table, keys, reason):
                return
            for key in keys:
                self.journal.record(table.shape, key)
            self.agent.wait_until_reads_stopped(table.physical)
        except BaseException:
            with self._unrecorded_lock:
                self._unrecorded.setdefault(table.physical, []).extend(keys)
            raise

    @property
    def unrecorded(self) -> bool:
        """Whether this process alone knows of some doubt: it must not end as if it had finished."""
        return bool(self._unrecorded)

    def record_again(self, table: ServedTable) -> bool:
        """Record the doubts that could not be recorded when they came up; True where there were any.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: they still cannot be.
        """
        with self._unrecorded_lock:
            keys = self._unrecorded.pop(table.physical, [])
        if keys:
            self.doubt(table, keys, "it could not be recorded before")
        return bool(keys)

    def _noted_by_mirror(self, table: ServedTable, keys: Sequence[Key], reason: str) -> bool:
        if not self.health.up:
            return False
        try:
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
        elif mirrored and acknowledged.certain and acknowledged.stamp is not None:
            until = min(view.write_until, replied_at + self._times.direct_window.total_seconds())
            self.reach(
                table, [key], "WriteDirect", lambda: self._write_directly(table, key, acknowledged, until)
            )
        elif mirrored:
            self.settle(table, [key])

    def _write_directly(self, table: ServedTable, key: Key, acknowledged: Acknowledged, until: float) -> None:
        assert acknowledged.stamp is not None  # noqa: S101 - `_follow` saw to it
        if self.agent.clock.now() >= until or not self.mirror.write_direct(
            table.physical,
            key,
            acknowledged.reply.image,
            stamp=acknowledged.stamp,
            predecessor=acknowledged.reply.predecessor,
        ):
            settle(self.mirror, self.authority, table.shape, key)
            self._telemetry.record(Settled(table.logical, "predecessor", "done"))


def mirrors(table: ServedTable, key: Key, view: View) -> bool:
    """Whether writes of a key go to the mirror under a view."""
    record = view.record
    return record.stage.rule.mirrored and table.mirrors(key, record.dials.mirror_percent)
