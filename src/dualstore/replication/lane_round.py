"""One look at what is due in a lane of the outbox: each of its keys brought after PostgreSQL once."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import stamina

from dualstore.errors import Unavailable
from dualstore.items import Item, Key, key_bytes, key_hash
from dualstore.operations import BatchGetItem, Operation
from dualstore.replication.authority import RetryPolicy
from dualstore.replication.lanes import HeldLane
from dualstore.replication.sending import (
    DONE,
    STRAINED,
    Step,
    Verdict,
    conditional,
    reason_of,
    step,
    transaction,
    verdict_of,
)
from dualstore.replication.served import ServedTable
from dualstore.stores.base import Authority, Store, is_unreadable
from dualstore.stores.dynamo_sending import LeaseOver, checked_last
from dualstore.stores.outbox import Outbox, OutboxEntry, Sending
from dualstore.telemetry import Sent, Telemetry

logger = logging.getLogger(__name__)

SECOND_LOOK_AFTER = timedelta(minutes=15)
"""No request is carried out so long after it was sent.

AWS refuses a request whose signature's time stamp is more than five minutes off ("Signature Version 4 request
elements"), and a client's clock is off by less than that, or AWS takes nothing from it at all.
"""
RESENT_FOR = timedelta(minutes=9)
"""A token is forgotten ten minutes after its first use was completed (API Reference, TransactWriteItems)."""

Granted = Callable[[str, int], bool]
"""Whether PostgreSQL may still be taken for the authority of a table, by its physical name, at an epoch."""

_PASSES = 3
_STRAINED_AFTER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingLimits:
    """How a lane's keys are sent.

    Attributes:
        batch_entries: the most entries of one look; DynamoDB reads no more keys at once than 100.
        retry: how often one request is sent in a row.
        second_look_after: when a key is settled once more whose request may still be carried out.
        resent_for: how long a write in doubt is sent again under its token.
        refused_pause: the shortest wait of a key that DynamoDB refuses; it grows with the time it has waited.
        longest_refused_pause: the longest.
    """

    batch_entries: int = 100
    retry: RetryPolicy = field(
        default_factory=lambda: RetryPolicy(
            attempts=3, timeout=timedelta(seconds=5), longest_wait=timedelta(milliseconds=400)
        )
    )
    second_look_after: timedelta = SECOND_LOOK_AFTER
    resent_for: timedelta = RESENT_FOR
    refused_pause: timedelta = timedelta(seconds=1)
    longest_refused_pause: timedelta = timedelta(minutes=10)


@dataclass(slots=True)
class _Work:
    """A key and its entries, and what has come of it in this round."""

    key: Key
    entries: list[OutboxEntry]
    step: Step | None = None
    sent: Sending | None = None
    verdict: Verdict = Verdict.UNKNOWN
    doubted: bool = False
    unreadable: bool = False
    reason: str = ""

    @property
    def mark(self) -> OutboxEntry:
        """The entry that carries the mark."""
        return replace(self.entries[0], sent=self.sent)


class LaneRound:
    """Brings some keys of one lane after PostgreSQL; used once.

    Args:
        lane: the lane.
        table: whose it is.
        outbox: what waits.
        source: PostgreSQL.
        epoch: at which PostgreSQL is the authority of the table.
        granted: whether that may still be acted on; looked at last of all before a request leaves.
        mirror: DynamoDB; its writes are sent once.
        telemetry: counts what comes of the keys.
        limits: how they are sent.
        map_all: `map`, or that of a pool of threads.
    """

    def __init__(
        self,
        lane: HeldLane,
        table: ServedTable,
        *,
        outbox: Outbox,
        source: Authority,
        epoch: int,
        mirror: Store,
        telemetry: Telemetry,
        limits: SendingLimits,
        granted: Granted = lambda _table, _epoch: True,
        map_all: Callable[[Callable[[_Work], None], Iterable[_Work]], Iterable[Any]] = map,
    ) -> None:
        self._lane = lane
        self._table = table
        self._outbox = outbox
        self._source = source
        self._epoch = epoch
        self._mirror = mirror
        self._telemetry = telemetry
        self._limits = limits
        self._granted = granted
        self._map = map_all
        self._finished = 0
        self._strains: list[Verdict] = []

    def work(self) -> tuple[int, bool]:
        """Do it.

        Returns:
            How many entries are finished, and whether DynamoDB seems to need a pause.

        Raises:
            Unavailable: PostgreSQL could not be asked.
            botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: DynamoDB could not be read.
        """
        entries = self._outbox.pending(self._lane.lease, limit=self._limits.batch_entries)
        works = self._grouped(entries)
        waiting = [work for work in works if work.sent is None]
        if doubtful := [work for work in works if work.sent is not None]:
            waiting += self._end_doubts(doubtful)
        for _ in range(_PASSES):
            if not waiting or self._is_strained or not self._lane.holds():
                break
            waiting = self._settle(waiting)
        return self._finished, bool(self._strains)

    @property
    def _is_strained(self) -> bool:
        """Whether to leave it at that: where DynamoDB is away, each further key would wait for a timeout."""
        return len(self._strains) >= _STRAINED_AFTER

    def _grouped(self, entries: Sequence[OutboxEntry]) -> Sequence[_Work]:
        works: dict[bytes, _Work] = {}
        for entry in entries:
            name = key_bytes(self._table.shape.keys, entry.key)
            work = works.setdefault(name, _Work(entry.key, []))
            work.entries.append(entry)
            work.sent = entry.sent or work.sent
        return list(works.values())

    # -- writes in doubt ----------------------------------------------------------------------------

    def _end_doubts(self, doubtful: Sequence[_Work]) -> Sequence[_Work]:
        """Send again what had no answer, as it was and under its token, until it has one.

        Where the token may be forgotten it is not sent again: it would count as another request. Either way
        the key is settled now, and once more when no copy of the request can be under way any longer.

        Returns:
            The keys that may be settled.
        """
        list(self._map(self._send_again, doubtful))
        ended = [work for work in doubtful if work.verdict not in STRAINED | {Verdict.STALE}]
        if ended and not self._resolve(ended, look_again=True):
            return []
        for work in ended:
            work.sent = None
        return ended

    def _send_again(self, work: _Work) -> None:
        assert work.sent is not None  # noqa: S101 - only such are passed
        work.doubted = True
        if work.sent.age < self._limits.resent_for:
            work.step = Step(work.key, work.sent.image, work.sent.onto)
            self._send(work)
        else:
            work.verdict = Verdict.CHANGED

    # -- settling -----------------------------------------------------------------------------------

    def _settle(self, works: Sequence[_Work]) -> list[_Work]:
        """Read both sides and make DynamoDB equal; those that have to be read again are given back.

        DynamoDB first: what is then read in PostgreSQL is no older than what DynamoDB held, and is written
        only where DynamoDB still holds that. So DynamoDB never goes back. PostgreSQL says that it was still
        the authority when it was read: what DynamoDB held before is not of a later epoch.
        """
        theirs = self._read_theirs(works)
        read = [work for work in works if self._name(work) in theirs]
        keys = [work.key for work in read]
        ours = self._source.states_as_authority(self._table.physical, keys, epoch=self._epoch)
        for work in read:
            name = self._name(work)
            state = ours.get(name)
            item = None if state is None else state.item
            work.unreadable = is_unreadable(item)
            work.step = None if work.unreadable else step(work.key, theirs=theirs[name], ours=item)
            work.sent = work.step.marked() if work.step is not None and work.step.repeatable else None
            work.doubted = False
        marked = [work for work in read if work.sent is not None]
        if marked and not self._kept(
            self._outbox.mark_sent(self._lane.lease, [work.mark for work in marked])
        ):
            return []
        list(self._map(self._send, read))
        return [*self._concluded(read), *(work for work in works if self._name(work) not in theirs)]

    def _concluded(self, works: Sequence[_Work]) -> Sequence[_Work]:
        if not self._forget_marks(works):
            return []
        finished = [entry for work in works if work.verdict in DONE for entry in work.entries]
        if finished and self._kept(self._outbox.finish(self._lane.lease, finished)):
            self._finished += len(finished)
        for work in works:
            if work.verdict is Verdict.REFUSED:
                self._postpone(work)
        return [work for work in works if _to_be_settled_afresh(work)]

    def _forget_marks(self, works: Sequence[_Work]) -> bool:
        """Take the marks from what has a definite answer; done without a doubt they go with the entries."""
        marked = [work for work in works if work.sent is not None]
        doubted = [work for work in marked if work.doubted and work.verdict not in STRAINED | {Verdict.STALE}]
        certain = [work for work in marked if not work.doubted and work.verdict not in DONE]
        kept = True
        if doubted:
            kept = self._resolve(doubted, look_again=True)
        if certain and kept:
            kept = self._resolve(certain, look_again=False)
        return kept

    def _resolve(self, works: Sequence[_Work], *, look_again: bool) -> bool:
        marks = [work.mark for work in works]
        again_in = self._limits.second_look_after if look_again else None
        return self._kept(self._outbox.resolve(self._lane.lease, marks, again_in=again_in))

    def _postpone(self, work: _Work) -> None:
        logger.warning(
            "DynamoDB cannot take an item of %s (key hash %s, %s); the row in PostgreSQL has to be corrected",
            self._table.logical,
            key_hash(self._table.shape.keys, work.key),
            work.reason,
        )
        self._kept(
            self._outbox.postpone(
                self._lane.lease,
                work.entries,
                reason=work.reason,
                at_least=self._limits.refused_pause,
                at_most=self._limits.longest_refused_pause,
            )
        )

    def _kept(self, kept: bool) -> bool:  # noqa: FBT001 - what the outbox answered
        if not kept:
            self._lane.lost()
        return kept

    # -- one key ------------------------------------------------------------------------------------

    def _send(self, work: _Work) -> None:
        if self._is_strained:
            work.verdict = Verdict.THROTTLED  # not sent, and not counted
            return
        if work.unreadable:
            work.verdict, work.reason = Verdict.REFUSED, "the row makes no item"
        else:
            work.verdict = Verdict.EQUAL if work.step is None else self._answer(work, work.step)
        if work.sent is not None and not self._lane.certain:
            self._sent_too_late(work)
        if work.verdict in STRAINED:
            self._strains.append(work.verdict)
        self._telemetry.record(Sent(self._table.logical, work.verdict))

    def _answer(self, work: _Work, step: Step) -> Verdict:
        shape, retry = self._table.shape, self._limits.retry
        operation: Operation = (
            conditional(shape, step) if work.sent is None else transaction(shape, work.key, work.sent)
        )

        def worth_repeating(error: Exception) -> bool:
            if not isinstance(error, Exception):  # stamina asks about the end of the process, too
                return False
            verdict = self._understood(work, error)
            return verdict is Verdict.THROTTLED or (verdict is Verdict.UNKNOWN and work.sent is not None)

        try:
            for attempt in stamina.retry_context(
                on=worth_repeating,
                attempts=retry.attempts,
                timeout=retry.timeout,
                wait_initial=retry.first_wait,
                wait_max=retry.longest_wait,
                wait_jitter=retry.first_wait,
            ):
                with attempt:
                    self._send_once(operation)
        except Exception as error:  # noqa: BLE001 - `verdict_of` says what it means; one key, not the lane
            return self._understood(work, error)
        return step.done

    @staticmethod
    def _understood(work: _Work, error: Exception) -> Verdict:
        verdict = Verdict.STALE if isinstance(error, LeaseOver) else verdict_of(error)
        work.doubted |= verdict is Verdict.UNKNOWN
        work.reason = reason_of(error)
        return verdict

    def _send_once(self, operation: Operation) -> None:
        def check() -> None:
            if not (self._lane.holds() and self._granted(self._table.physical, self._epoch)):
                raise LeaseOver

        check()
        with checked_last(check):
            self._mirror.execute(operation)

    def _sent_too_late(self, work: _Work) -> None:
        """This worker stood still between its last look at the lease and the answer: have others settle."""
        looks = [timedelta(0)] if work.verdict in DONE else []
        looks += [self._limits.second_look_after] if work.doubted else []
        try:
            for due_in in looks:
                self._outbox.enqueue(
                    self._table.physical,
                    [work.key],
                    epoch=self._epoch,
                    reason="sent when its lease was over",
                    due_in=due_in,
                )
        except Unavailable:
            logger.warning("A request of %s that outlived its lease could not be noted", self._table.logical)

    # -- reading ------------------------------------------------------------------------------------

    def _name(self, work: _Work) -> bytes:
        return key_bytes(self._table.shape.keys, work.key)

    def _read_theirs(self, works: Sequence[_Work]) -> Mapping[bytes, Item | None]:
        """What DynamoDB holds now; keys that one BatchGetItem did not answer are left out."""
        shape = self._table.shape
        keys = [work.key for work in works]
        request = {shape.name: {"Keys": keys, "ConsistentRead": True}}
        response = self._mirror.execute(BatchGetItem({"RequestItems": request}))
        unprocessed = response.get("UnprocessedKeys", {}).get(shape.name, {}).get("Keys", ())
        left_out = {key_bytes(shape.keys, key) for key in unprocessed}
        found: dict[bytes, Item | None] = {self._name(work): None for work in works}
        found |= {key_bytes(shape.keys, item): item for item in response["Responses"].get(shape.name, ())}
        return {name: item for name, item in found.items() if name not in left_out}


def _to_be_settled_afresh(work: _Work) -> bool:
    """Whether reading again is the way on; a write in doubt under a token is sent again first, next round."""
    return work.verdict is Verdict.CHANGED or (work.verdict is Verdict.UNKNOWN and work.sent is None)
