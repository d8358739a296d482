"""Repair: settle what is recorded as doubtful, then let the mirror be read again.

DESIGN, replication protocol, rules 4 and 6. Any number of repairs may run at once, in any process.
"""

import logging
import random
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - one import, not worth a block

from dualstore.control import ControlRecord, Gate, Phase, PostgresRole
from dualstore.errors import MirrorFenced, MirrorUnavailable
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.served import ServedTable
from dualstore.replication.settle import settle
from dualstore.stages import Side
from dualstore.stores.base import DirtyKey
from dualstore.stores.control_homes import ControlHome
from dualstore.stores.streams import Checkpoints

logger = logging.getLogger(__name__)

# Beyond δ by this factor: the clocks that measure it differ, and a request is on its way for a while.
_REOPENING_FACTOR = 1.1
_DIRTY_KEYS_AT_ONCE = 500
_RELAY_PATIENCE_SECONDS, _RELAY_LOOK_SECONDS = 5.0, 0.2


@dataclass(frozen=True, slots=True)
class Repaired:
    """What one repair of a table did.

    Attributes:
        settled: keys settled and cleared.
        failed: keys that stay recorded: the SQL table refuses their item, or a side did not answer.
        gate: the gate as the repair left it.
    """

    settled: int
    failed: int
    gate: Gate


class Repair:
    """Drains the dirty keys and the journal of a table.

    Args:
        mirroring: how the two sides are reached.
        control: the control records of DynamoDB.
        streams: how far the streams of tables have been followed; None where none ever is.
    """

    def __init__(
        self, mirroring: Mirroring, control: ControlHome, streams: Checkpoints | None = None
    ) -> None:
        self._mirroring = mirroring
        self._control = control
        self._streams = streams
        self._suspects_seen: frozenset[str] = frozenset()
        self._reopening: tuple[int, float] | None = None
        self._drained_after: tuple[int, datetime] | None = None
        self._reasons: Counter[str] = Counter()
        self._fenced = False

    def run(self, table: ServedTable) -> Repaired:
        """Settle every recorded key of a table once; reopen its gate where the journal is then empty.

        Raises:
            MirrorUnavailable: the mirror does not answer at all.
        """
        record = self._mirroring.agent.view(table.physical).record
        if record.authority is Side.POSTGRES:
            return self._hand_over(table, record.epoch)
        left_over = self._mirroring.record_again(table)
        settled, failed = self._drain_dirty(table)
        record = self._mirroring.agent.view(table.physical).record
        gate = record.gate
        # Who died, or lost its connection, between its entry in the journal and the gate left the gate open.
        if left_over or gate is not Gate.OPEN or record.suspects - self._suspects_seen:
            more_settled, more_failed, gate = self._drain_and_reopen(table)
            settled, failed = settled + more_settled, failed + more_failed
            if not more_failed:
                self._suspects_seen = record.suspects
        for reason, keys in self._reasons.items():
            logger.warning("%d keys of %s could not be settled: %s", keys, table.logical, reason)
        self._reasons.clear()
        if self._fenced:
            self._fenced = False
            self._follow_the_fence(table)
        return Repaired(settled, failed, gate)

    def _follow_the_fence(self, table: ServedTable) -> None:
        """Take over the epoch of a fence that is ahead of the record.

        It was raised for a step that was then not taken: its process died, or nobody asks for it any more.
        A fence is never lowered, and until the record follows it no mirror write passes.
        """
        agent = self._mirroring.agent
        fence = agent.homes[Side.POSTGRES].read_all().get(table.physical)
        if fence is None or fence.decides:
            return

        def caught_up(record: ControlRecord) -> Mapping[str, object]:
            is_behind = record.postgres_role is PostgresRole.MIRROR and record.epoch < fence.epoch
            return {"epoch": fence.epoch} if is_behind and record.phase is Phase.OPEN else {}

        agent.decide(table.physical, caught_up)

    def _hand_over(self, table: ServedTable, epoch: int) -> Repaired:
        """Where PostgreSQL is the authority, a doubt is settled by whoever works off the outbox."""
        self._mirroring.record_again(table)
        mirror = self._mirroring.mirror
        entries = mirror.dirty_keys(table.physical, limit=_DIRTY_KEYS_AT_ONCE)
        if entries:
            keys = [entry.key for entry in entries]
            self._mirroring.outbox.enqueue(table.physical, keys, epoch=epoch, reason="it was in doubt")
        for entry in entries:
            mirror.clear_dirty(table.physical, entry.key, nonce=entry.nonce)
        return Repaired(len(entries), 0, Gate.OPEN)

    def _drain_dirty(self, table: ServedTable) -> tuple[int, int]:
        mirror = self._mirroring.mirror
        entries = mirror.dirty_keys(table.physical, limit=_DIRTY_KEYS_AT_ONCE)
        settled = 0
        for entry in random.sample(entries, len(entries)):  # other processes are at the same ones
            if self._settled(table, entry):
                mirror.clear_dirty(table.physical, entry.key, nonce=entry.nonce)
                settled += 1
            elif len(entries) == _DIRTY_KEYS_AT_ONCE:
                # To the end of the queue: the keys behind those that SQL refuses must come up too.
                mirror.mark_dirty(
                    table.physical, entry.key, nonce=uuid.uuid4().hex, reason="it could not be settled"
                )
        return settled, len(entries) - settled

    def _drain_journal(self, table: ServedTable) -> tuple[int, int]:
        settled = failed = 0
        for entries in self._mirroring.journal.entries(table.shape):
            done = [entry for entry in entries if self._settled_or_moved(table, entry)]
            for entry in done:
                self._mirroring.journal.clear(table.shape, entry)
            settled, failed = settled + len(done), failed + len(entries) - len(done)
        return settled, failed

    def _drain_and_reopen(self, table: ServedTable) -> tuple[int, int, Gate]:
        """Drain the journal; open the gate if nothing can have come in behind our back.

        Whoever knew the gate shut before it was `reopening` has recorded its failure within a grant's
        length of then, where the last look at the journal sees it; whoever knows it `reopening` shuts it,
        and the gate's movements are counted. Any number of processes may be at it: the record is changed once
        each way.
        """
        settled, failed = self._drain_journal(table)
        record = self._control.read_all()[table.physical]
        # A record that is closed, or decides nothing, is left alone: moves go by its generation.
        if failed or record.phase is not Phase.OPEN or record.gate is Gate.OPEN:
            return settled, failed, record.gate
        reopening = record
        if record.gate is Gate.SHUT:
            changed = self._control.change(record, gate=Gate.REOPENING)
            if changed is None:
                return settled, failed, Gate.SHUT
            reopening = changed
        self._wait_for_grants(reopening)
        more_settled, more_failed = self._drain_journal(table)
        settled, failed = settled + more_settled, failed + more_failed
        return settled, failed, Gate.REOPENING if failed else self._open(table, reopening)

    def _open(self, table: ServedTable, reopening: ControlRecord) -> Gate:
        """Open a gate that this process has seen reopening for long enough; how it is then.

        Whatever else of the record others change meanwhile: a busy table would else never get its gate open.
        """
        record: ControlRecord | None = reopening
        while record is not None and record.gate_sequence == reopening.gate_sequence:
            if record.phase is not Phase.OPEN:
                return Gate.REOPENING
            if record.streamed and not self._stream_is_drained(table, record):
                return Gate.REOPENING
            if self._control.change(record, gate=Gate.OPEN) is not None:
                return Gate.OPEN
            record = self._control.read_all().get(table.physical)
        return Gate.SHUT if record is None else record.gate

    def _wait_for_grants(self, reopening: ControlRecord) -> None:
        """Wait until a grant's length has passed since this process first saw the gate reopening."""
        clock = self._mirroring.agent.clock
        if self._reopening is None or self._reopening[0] != reopening.gate_sequence:
            self._reopening = (reopening.gate_sequence, clock.now())
        grant = self._mirroring.agent.read_grant.total_seconds() * _REOPENING_FACTOR
        remaining = self._reopening[1] + grant - clock.now()
        if remaining > 0:
            clock.sleep(remaining)

    def _stream_is_drained(self, table: ServedTable, reopening: ControlRecord) -> bool:
        """Whether the relay has settled all that the stream tells of up to when grants had ended.

        Waits a little for it; the next round goes on waiting for the same moment.
        """
        if self._streams is None:
            return False
        if self._drained_after is None or self._drained_after[0] != reopening.gate_sequence:
            self._drained_after = (reopening.gate_sequence, self._streams.now())
        clock = self._mirroring.agent.clock
        give_up = clock.now() + _RELAY_PATIENCE_SECONDS
        while not self._streams.drained_since(table.physical, self._drained_after[1]):
            if clock.now() >= give_up:
                return False
            clock.sleep(_RELAY_LOOK_SECONDS)
        return True

    def _settled_or_moved(self, table: ServedTable, entry: DirtyKey) -> bool:
        """Settle a journal entry's key, or hand its doubt over to the mirror that refuses the item.

        A refused item must not keep the gate shut for the whole table: the mirror's own note of the key
        is enough, since its reads look there.
        """
        if self._settled(table, entry):
            return True
        try:
            self._mirroring.mirror.mark_dirty(
                table.physical,
                entry.key,
                nonce=uuid.uuid4().hex,  # the journal's could replace that of a newer failure
                reason="found in the journal; could not be settled",
            )
        except Exception:  # noqa: BLE001 - as below; the gate stays shut for this key
            return False
        return True

    def _settled(self, table: ServedTable, entry: DirtyKey) -> bool:
        try:
            # Not counted as a write: what comes too late the fence keeps out, and a pause needs it settled.
            epoch = self._mirroring.agent.view(table.physical).record.epoch
            settle(self._mirroring.mirror, self._mirroring.authority, table.shape, entry.key, epoch=epoch)
        except MirrorUnavailable as failure:
            self._fenced |= isinstance(failure, MirrorFenced)
            self._reasons[str(failure)] += 1
            return False
        except Exception as failure:  # noqa: BLE001 - one key must not keep the others from being settled
            self._reasons[type(failure).__name__] += 1
            return False
        return True
