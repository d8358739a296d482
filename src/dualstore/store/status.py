"""Where a migrated table stands at one moment, as operators see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from dualstore.control import ControlRecord, Gate, Phase, moment
from dualstore.stages import Side
from dualstore.stores.outbox import OutboxDepth
from dualstore.stores.streams import Checkpoints, RogueSeen

_AUTHORITIES = {Side.DYNAMODB: "DynamoDB", Side.POSTGRES: "PostgreSQL"}


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A live process that serves the table.

    Attributes:
        label: host, process id and the beginning of its name in the register.
        version: of dualstore.
        seen_at: its own wall clock when it last showed itself, in seconds since the epoch.
        confirmed: whether it has taken every decision, with no earlier operation under way.
    """

    label: str
    version: str
    seen_at: float
    confirmed: bool


@dataclass(frozen=True, slots=True)
class TableStatus:
    """Where a table stands at one moment.

    Attributes:
        logical: the name in flags and metrics.
        record: what is decided for it.
        processes: the live processes.
        dirty_keys: keys in doubt by PostgreSQL's own notes, or None where it does not answer.
        journal_keys: keys waiting in the journal; nothing enters it while PostgreSQL is the authority, and
            DynamoDB is not asked then.
        mirror_up: whether this process can reach the mirror.
        refusal: why the flags' request is not followed, or None.
        outbox: what waits for DynamoDB, or None where PostgreSQL does not answer.
        stream_lag: every change that DynamoDB made so long ago has been dealt with; None where no relay
            follows the stream, or PostgreSQL does not answer.
        rogues: changes of the last days that did not go through dualstore, by kind.
    """

    logical: str
    record: ControlRecord
    processes: Sequence[ProcessStatus]
    dirty_keys: int | None
    journal_keys: int
    mirror_up: bool
    refusal: str | None
    outbox: OutboxDepth | None = None
    stream_lag: timedelta | None = None
    rogues: Mapping[str, RogueSeen] = field(default_factory=dict)

    @property
    def pending(self) -> bool:
        """Whether something is still to be brought after: doubts, a shut gate, a suspect process."""
        return bool(
            self.dirty_keys or self.journal_keys or self.record.suspects or self.record.gate is not Gate.OPEN
        )

    @property
    def confirmed(self) -> Mapping[str, bool]:
        """The live processes, by their label, and whether each has taken every decision."""
        return {process.label: process.confirmed for process in self.processes}

    @property
    def position(self) -> str:
        """The stage and who is authoritative, in words."""
        record = self.record
        if record.takes_over:
            return f"{record.stage}, writes pause: DynamoDB takes over without PostgreSQL"
        if record.phase is Phase.CLOSED and record.target is not None:
            return f"{record.stage}, writes pause: {_AUTHORITIES[record.target.rule.authority]} takes over"
        if record.phase is Phase.MOVED:
            return f"{record.stage}, about to begin: {_AUTHORITIES[record.authority]} takes over"
        return f"{record.stage} ({_AUTHORITIES[record.authority]} authoritative){failover_in_words(record)}"


def failover_in_words(record: ControlRecord) -> str:
    """What is to be said of a failover that has not been reconciled, behind where a table stands."""
    if record.failed_over is None or not record.unreconciled:
        return ""
    return f", failed over at {moment(record.failed_over.at)}, not reconciled"


def stream_lag(checkpoints: Checkpoints, table: str) -> timedelta | None:
    """How far the relay is behind a table's stream, or None where nobody has followed it to its end yet.

    Raises:
        Unavailable: PostgreSQL does not answer.
    """
    now = checkpoints.now()
    reached = [row.caught_up_at for row in checkpoints.rows(table) if row.open]
    known = [at for at in reached if at is not None]
    if not known or len(known) < len(reached):
        return None
    return max(now - min(known), timedelta(0))
