"""Brings the other side after the records of a stream, wherever they come from.

While DynamoDB is the authority, a record's key is settled; while PostgreSQL is, it is put in the outbox.
Dealing with a record twice does no harm. DESIGN, replication protocol, rule 4.
"""

import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import stamina
from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord
from dualstore.errors import MirrorFenced, MirrorRefused, Unavailable
from dualstore.items import Key, key_bytes, key_hash
from dualstore.replication.clocks import SYSTEM_CLOCK, Clock
from dualstore.replication.relay_records import (
    KeyRecords,
    Rogue,
    Undone,
    deletion_is_unaccounted_for,
    deletions_can_be_judged,
    rogue_of,
)
from dualstore.replication.served import ServedTable
from dualstore.replication.settle import settle, settle_many
from dualstore.replication.suspects import GAP
from dualstore.stages import Side
from dualstore.stores.base import MirrorAuthority, MirrorState, Store
from dualstore.stores.outbox import Outbox
from dualstore.stores.streams import Gap, RogueSeen, StreamRecord
from dualstore.telemetry import RecordRelayed, RogueChange, StreamGap, Telemetry

logger = logging.getLogger(__name__)

_AT_ONCE = 100  # as many keys as a BatchGetItem takes
# A process that has deleted an item records it within milliseconds; a stream tells of it after some more.
_SECOND_LOOK_SECONDS = 0.25
_FRESH = timedelta(seconds=5)
_PASSING = (Unavailable, ClientError, BotoCoreError)


class Viewed(Protocol):
    """What this process may act on for a table; `replication.views.View` is one."""

    @property
    def record(self) -> ControlRecord:
        """The control record, as last read."""
        ...

    @property
    def write_until(self) -> float:
        """Until when it may be acted on, by the clock of grants."""
        ...


@dataclass(frozen=True, slots=True)
class Carried:
    """What came of some records.

    Attributes:
        done: how many, from the first, have been dealt with.
        failure: why not all, or None.
        rogues: what was seen among those that were dealt with, by kind.
    """

    done: int
    failure: Exception | None = None
    rogues: Mapping[str, RogueSeen] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RetryTimes:
    """How often some records are tried before their caller is told.

    Attributes:
        attempts: at most.
        first_wait: doubled after each attempt, with jitter.
        longest_wait: the limit of that.
    """

    attempts: int = 4
    first_wait: timedelta = timedelta(seconds=0.1)
    longest_wait: timedelta = timedelta(seconds=2)


@dataclass(slots=True)
class _Noticed:
    """What was noticed besides.

    Attributes:
        deleted: the last records of keys whose deletion nobody accounts for.
        echoes: the sequence numbers of records that tell of what was sent from PostgreSQL.
    """

    deleted: dict[bytes, StreamRecord] = field(default_factory=dict)
    echoes: set[str] = field(default_factory=set)


class Suspecting(Protocol):
    """Makes a table suspect."""

    def __call__(self, table: str, kind: str, /, *, once: bool) -> bool:
        """Make it suspect, durably.

        Args:
            table: its physical name.
            kind: of what has happened.
            once: nothing is to be done where that kind is among the suspects; else it is noted anew.

        Returns:
            Whether it was noted.
        """
        ...


class Carrier:
    """Deals with records of streams.

    Args:
        dynamodb: the store on the DynamoDB side.
        postgres: the store on the PostgreSQL side.
        outbox: takes keys while PostgreSQL is the authority; None where it never is.
        view: what this process may act on for a table, by its physical name. Must not wait while writes
            pause: a move of the authority waits for the relay.
        suspect: makes a table suspect.
        telemetry: told what becomes of records.
        retries: how often to try.
        clock: that of grants.
    """

    def __init__(
        self,
        *,
        dynamodb: Store,
        postgres: MirrorAuthority,
        outbox: Outbox | None,
        view: Callable[[str], Viewed],
        suspect: Suspecting,
        telemetry: Telemetry,
        retries: RetryTimes | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._dynamodb = dynamodb
        self._postgres = postgres
        self._outbox = outbox
        self._view = view
        self._suspect = suspect
        self._telemetry = telemetry
        self._retries = retries or RetryTimes()
        self._clock = clock

    def decided(self, table: str) -> ControlRecord:
        """What is decided for a table, as far as it may be acted on now.

        Raises:
            Unavailable: that is not known at the moment.
        """
        view = self._view(table)
        if self._clock.now() >= view.write_until or not view.record.decides:
            raise Unavailable(f"it is not known where {table} stands; the relay waits")
        return view.record

    def carry(self, table: ServedTable, records: Sequence[StreamRecord]) -> Carried:
        """Deal with records of one shard, in their order, until one cannot be dealt with.

        Returns:
            How far that came. Of the records behind the first failure, some may be dealt with too.
        """
        done, rogues = 0, dict[str, RogueSeen]()
        for start in range(0, len(records), _AT_ONCE):
            carried = self._carry_some(table, records[start : start + _AT_ONCE])
            done += carried.done
            rogues = together(rogues, carried.rogues)
            if carried.failure is not None:
                return Carried(done, carried.failure, rogues)
        return Carried(done, None, rogues)

    def gap(self, table: ServedTable, place: str, reason: Gap, *, once: bool = False) -> None:
        """Some records may be lost: nothing but a verification can say what they were.

        Args:
            table: the table.
            place: where; the same place is the same kind of suspect, of which the latest find stands.
            reason: what is wrong there.
            once: nothing else can happen at this place: it is not noted anew while it is suspect.
        """
        hashed = hashlib.blake2b(f"{table.physical}\0{place}".encode(), digest_size=8).hexdigest()
        name = f"{GAP} {hashed}"
        if not self._suspect(table.physical, name, once=once):
            return
        self._telemetry.record(StreamGap(table.logical, reason))
        logger.error(
            "Changes of %s may be missing from what was read of its stream (%s, %s): the table is suspect "
            "until `dualstore verify` has compared both sides",
            table.logical,
            reason,
            name,
        )

    def _carry_some(self, table: ServedTable, records: Sequence[StreamRecord]) -> Carried:
        undone = Undone(table.shape.keys, records)
        noticed = _Noticed()
        failure: Exception | None = None
        try:
            for attempt in stamina.retry_context(
                on=_PASSING,
                attempts=self._retries.attempts,
                timeout=None,
                wait_initial=self._retries.first_wait.total_seconds(),
                wait_max=self._retries.longest_wait.total_seconds(),
                wait_jitter=self._retries.first_wait.total_seconds(),
            ):
                with attempt:
                    self._bring_after(table, undone, noticed)
        except _PASSING as error:
            failure = error
        done = undone.done
        rogues = self._rogues(table, records[:done], noticed)
        return Carried(done, failure, rogues)

    def _bring_after(self, table: ServedTable, undone: Undone, noticed: _Noticed) -> None:
        """Deal with the keys that wait, each of which is taken out when it is done.

        Raises:
            Unavailable, botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: some still wait.
        """
        record = self.decided(table.physical)
        try:
            if not record.stage.rule.mirrored:
                self._done(table, undone, list(undone.waiting), "passed")
            elif record.authority is Side.DYNAMODB:
                percent = record.dials.mirror_percent
                unmirrored = [n for n, each in undone.waiting.items() if not table.mirrors(each.key, percent)]
                self._done(table, undone, unmirrored, "passed")
                self._bring(table, undone, noticed, record)
            else:
                self._bring(table, undone, noticed, record)
        finally:
            # What was done under another decision may be the wrong thing: once more, all of it.
            if _acted_on(self._view(table.physical).record) != _acted_on(record):
                undone.begin_again()
        if undone.waiting:
            raise Unavailable(f"another stage was decided for {table.physical} meanwhile")

    def _bring(self, table: ServedTable, undone: Undone, noticed: _Noticed, record: ControlRecord) -> None:
        states = self._states(table, undone, record)
        behind = undone.unshown(states, record.authority)
        self._done(table, undone, [name for name in undone.waiting if name not in behind], "shown")
        if deletions_can_be_judged(record):
            noticed.deleted |= self._unaccounted_deletions(table, behind, states)
        if record.authority is Side.DYNAMODB:
            self._settle(table, undone, behind, record.epoch)
        else:
            noticed.echoes |= undone.shown(states, record.authority)
            self._enqueue(table, undone, behind, record.epoch)

    def _states(
        self, table: ServedTable, undone: Undone, record: ControlRecord
    ) -> Mapping[bytes, MirrorState]:
        keys = [each.key for each in undone.waiting.values()]
        try:
            if record.authority is Side.POSTGRES:  # "shown" means something else on a mirror
                return self._postgres.states_as_authority(table.physical, keys, epoch=record.epoch)
            return self._postgres.items_of(table.physical, keys)
        except _PASSING:
            raise
        except Exception as error:  # noqa: BLE001 - a key that SQL cannot even look up: see which one
            logger.warning("Keys of %s cannot be looked up: %s", table.logical, type(error).__name__)
            return {}

    def _settle(
        self, table: ServedTable, undone: Undone, behind: Mapping[bytes, KeyRecords], epoch: int
    ) -> None:
        def many(keys: Sequence[Key]) -> None:
            settle_many(self._postgres, self._dynamodb, table.shape, keys, epoch=epoch)

        def one(key: Key) -> None:
            settle(self._postgres, self._dynamodb, table.shape, key, epoch=epoch)

        self._act(table, undone, behind, many=many, one=one, verdict="settled")

    def _enqueue(
        self, table: ServedTable, undone: Undone, behind: Mapping[bytes, KeyRecords], epoch: int
    ) -> None:
        outbox = self._outbox
        if outbox is None:
            raise Unavailable(f"{table.logical} has no outbox here, and PostgreSQL is its authority")

        def many(keys: Sequence[Key]) -> None:
            outbox.enqueue(table.physical, keys, epoch=epoch, reason="changed in DynamoDB")

        self._act(table, undone, behind, many=many, one=lambda key: many([key]), verdict="enqueued")

    def _act(
        self,
        table: ServedTable,
        undone: Undone,
        behind: Mapping[bytes, KeyRecords],
        *,
        many: Callable[[Sequence[Key]], None],
        one: Callable[[Key], None],
        verdict: str,
    ) -> None:
        """Do something for all keys at once; where that fails, for one after the other: see which one."""
        if not behind:
            return
        try:
            many([each.key for each in behind.values()])
        except MirrorFenced:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, most keys may have nothing to do with it
            logger.info("Keys of %s are dealt with one by one: %s", table.logical, type(error).__name__)
        else:
            self._done(table, undone, list(behind), verdict)
            return
        for name, each in behind.items():
            try:
                one(each.key)
            except Exception as error:
                if _is_passing(error):
                    raise
                self._refused(table, each.key, error)
                self._done(table, undone, [name], "doubtful")
            else:
                self._done(table, undone, [name], verdict)

    def _refused(self, table: ServedTable, key: Key, error: Exception) -> None:
        """A key that cannot be settled must not hold up the others: it is recorded as doubtful."""
        hashed = key_hash(table.shape.keys, key)
        logger.warning("Key %s of %s cannot be settled: %s", hashed, table.logical, type(error).__name__)
        try:
            reason = f"the relay could not settle it: {type(error).__name__}"
            self._postgres.mark_dirty(table.physical, key, nonce=uuid.uuid4().hex, reason=reason)
        except Exception as failure:
            if _is_passing(failure):
                raise
            self.gap(table, f"key {hashed}", Gap.UNRECORDED)

    def _done(self, table: ServedTable, undone: Undone, names: Sequence[bytes], verdict: str) -> None:
        for name in names:
            count = undone.waiting.pop(name).count
            for _ in range(count):
                self._telemetry.record(RecordRelayed(table.logical, verdict))

    def _unaccounted_deletions(
        self, table: ServedTable, behind: Mapping[bytes, KeyRecords], states: Mapping[bytes, MirrorState]
    ) -> dict[bytes, StreamRecord]:
        """The deletions that no process has recorded, now or a moment later."""
        found = {
            name: each
            for name, each in behind.items()
            if deletion_is_unaccounted_for(each.last, states.get(name))
        }
        if not found:
            return {}
        if any(datetime.now(UTC) - each.last.created_at < _FRESH for each in found.values()):
            self._clock.sleep(_SECOND_LOOK_SECONDS)
        later = self._postgres.items_of(table.physical, [each.key for each in found.values()])
        dirty = {
            key_bytes(table.shape.keys, doubt.key) for doubt in self._postgres.dirty_keys(table.physical)
        }
        return {
            name: each.last
            for name, each in found.items()
            if name not in dirty and deletion_is_unaccounted_for(each.last, later.get(name))
        }

    def _rogues(
        self, table: ServedTable, records: Sequence[StreamRecord], noticed: _Noticed
    ) -> dict[str, RogueSeen]:
        deleted = {record.sequence for record in noticed.deleted.values()}
        rogues: dict[str, RogueSeen] = {}
        for record in records:
            kind = Rogue.DELETED if record.sequence in deleted else rogue_of(record)
            if kind is None or record.sequence in noticed.echoes:
                continue
            self._telemetry.record(RogueChange(table.logical, kind))
            seen = RogueSeen(1, key_hash(table.shape.keys, record.key), record.created_at)
            rogues = together(rogues, {kind.value: seen})
        return rogues


def together(earlier: Mapping[str, RogueSeen], later: Mapping[str, RogueSeen]) -> dict[str, RogueSeen]:
    """What was seen, by kind, and what was seen after it."""
    joined = {kind: earlier[kind].and_then(seen) if kind in earlier else seen for kind, seen in later.items()}
    return {**earlier, **joined}


def _acted_on(record: ControlRecord) -> tuple[object, ...]:
    """Those parts of a record that say what to do with a key."""
    return record.epoch, record.stage, record.dials.mirror_percent


def _is_passing(error: Exception) -> bool:
    """Whether trying again may help, whatever the key."""
    return isinstance(error, _PASSING) and not isinstance(error, MirrorRefused)
