"""What is decided for a table, and who acts on it: values that both databases keep.

At most one database at a time holds a record of a table that *decides* (its phase is not `moved`): the one in
the authority of the moment. After a failover PostgreSQL's may claim to decide too, until it is told: the one
in DynamoDB names the failover, and a later epoch. DESIGN, replication protocol, rules 6 and 8; ADR 24.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from dualstore.stages import Dials, Side, Stage


class Gate(StrEnum):
    """Whether the mirror may be read.

    A shut gate goes through `reopening`: whoever saw it shut, and did not record its failed write at the
    gate again, has finished recording it before `reopening` is a grant's length old.
    """

    OPEN = "open"
    SHUT = "shut"
    REOPENING = "reopening"


class Phase(StrEnum):
    """Whether the record of a database decides, and whether writes go on."""

    OPEN = "open"
    """It decides, and writes go on."""
    CLOSED = "closed"
    """It decides, and writes pause: the authority is about to move, or not after all."""
    MOVED = "moved"
    """The record in the other database decides; this one is a copy, and a fence for late writes."""


class PostgresRole(StrEnum):
    """What PostgreSQL is for a table at an epoch; it refuses every write that takes it for something else."""

    NONE = "none"
    MIRROR = "mirror"
    AUTHORITY = "authority"
    PAUSED = "paused"
    """Authority, but no write passes: it is about to move, or has been lost."""


@dataclass(frozen=True, slots=True)
class Stop:
    """That a person has stopped every read that the authority does not serve, until a person takes it back.

    Attributes:
        by: who it was, as they say.
        at: when, by the clock of the machine they were at, in seconds since the epoch, for people.
        reason: why, in their words; empty where they gave none.
    """

    by: str
    at: float
    reason: str = ""

    def __str__(self) -> str:
        because = f": {self.reason}" if self.reason else ""
        return f"stopped by {self.by} at {moment(self.at)}{because}"


@dataclass(frozen=True, slots=True)
class FailedOver:
    """That DynamoDB has taken over from PostgreSQL without asking it, because it was gone.

    All times are in seconds since the epoch, by the clocks of the machines that noted them, for people.

    Attributes:
        by: who decided it, as they say.
        at: when.
        reason: why, in their words; empty where they gave none.
        recovery_point: every write that was acknowledged before had reached DynamoDB; later ones may be
            lost. None where nobody had noted how far DynamoDB was behind.
        rows: how many changes were known to wait for DynamoDB at `rows_at`; None likewise.
        rows_at: when that was noted.
        reconciled_at: when PostgreSQL, back again, was told, and what was lost was listed; None before that.
    """

    by: str
    at: float
    reason: str = ""
    recovery_point: float | None = None
    rows: int | None = None
    rows_at: float | None = None
    reconciled_at: float | None = None

    def __str__(self) -> str:
        because = f": {self.reason}" if self.reason else ""
        return f"failed over to DynamoDB by {self.by} at {moment(self.at)}{because}"


def moment(at: float) -> str:
    """A moment as people read it."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """What is decided for one table.

    Attributes:
        table: the table's physical DynamoDB name.
        stage: the stage of the migration.
        dials: the percentages.
        gate: whether the mirror may be read.
        gate_sequence: counts the gate's movements, so that shut, open, shut is not taken for one shut.
        generation: counts all changes of this record, across both databases.
        loaded: whether the mirror holds the table's history: a backfill has finished since the stage last
            began to mirror every key.
        mirrored_since: the generation in which every key last began to be mirrored: a backfill that began
            before it does not count.
        verified: whether a verification of the whole table has proved both sides equal since the history was
            copied, or since anything happened after which only a verification can say so.
        suspects: processes that ended without having finished their mirror writes, and gaps in the stream.
        epoch: counts the changes of what PostgreSQL is for the table (see `postgres_role`).
        phase: whether this record decides.
        target: the stage that the authority moves for, while the phase is `closed`.
        deferred: whether some process mirrors after it has answered its callers: no read may be dialled then.
        streamed: whether a relay follows the table's stream: then the stream is the journal (rule 4).
        stopped: who stopped all reads but the authority's, whatever the dials say; None where nobody has.
        failed_over: who had DynamoDB take over without PostgreSQL since that last became the authority; None
            where nobody has. Such a record outranks one of PostgreSQL's that decides too.
    """

    table: str
    stage: Stage = Stage.OFF
    dials: Dials = field(default_factory=Dials)
    gate: Gate = Gate.OPEN
    gate_sequence: int = 0
    generation: int = 0
    loaded: bool = False
    mirrored_since: int = 0
    verified: bool = False
    suspects: frozenset[str] = frozenset()
    epoch: int = 0
    phase: Phase = Phase.OPEN
    target: Stage | None = None
    deferred: bool = False
    streamed: bool = False
    stopped: Stop | None = None
    failed_over: FailedOver | None = None

    def changed(self, **changes: Any) -> "ControlRecord":
        """The record after a change: `generation` and, where the gate moves, `gate_sequence` are counted."""
        wanted = replace(self, generation=self.generation + 1, **changes)
        if wanted.gate is self.gate:
            return wanted
        return replace(wanted, gate_sequence=self.gate_sequence + 1)

    @property
    def authority(self) -> Side:
        """The side whose word is final for writes."""
        return self.stage.rule.authority

    @property
    def decides(self) -> bool:
        """Whether this record is the one to act on."""
        return self.phase is not Phase.MOVED

    @property
    def unreconciled(self) -> bool:
        """Whether DynamoDB has taken over, and PostgreSQL may still hold what was lost by that."""
        return self.failed_over is not None and self.failed_over.reconciled_at is None

    @property
    def takes_over(self) -> bool:
        """Whether a failover to DynamoDB is announced: who has not heard of it may still write PostgreSQL."""
        return self.phase is Phase.CLOSED and self.unreconciled

    @property
    def mirror_readable(self) -> bool:
        """Whether reads may be dialled to PostgreSQL, the mirror, at all."""
        return (
            self.loaded
            and not self.unreconciled
            and self.gate is Gate.OPEN
            and not self.suspects
            and not self.deferred
            and self.stopped is None
            and self.authority is Side.DYNAMODB
            and self.mirrors_every_key
        )

    @property
    def effective_dials(self) -> Dials:
        """The dials as processes act on them: where reads are stopped, the authority alone is read."""
        if self.stopped is None:
            return self.dials
        return replace(self.dials, postgres_read_percent=0.0, shadow_percent=0.0)

    @property
    def comparable(self) -> bool:
        """Whether both sides are meant to hold the same, and both may be read."""
        if self.stopped is not None:
            return False
        if self.authority is Side.POSTGRES:
            return self.stage.rule.mirrored and not self.suspects
        return self.mirror_readable

    @property
    def compared_percent(self) -> float:
        """The share of reads to compare, in percent: none where there is nothing to compare."""
        return self.effective_dials.effective_shadow_percent(self.stage) if self.comparable else 0.0

    @property
    def mirrors_every_key(self) -> bool:
        """Whether the writes of every key go to both sides."""
        return self.stage.rule.mirrored and self.dials.mirror_percent == 100  # noqa: PLR2004 - per cent

    @property
    def postgres_role(self) -> PostgresRole:
        """What PostgreSQL is for the table at this record's epoch.

        After a failover it takes no write at all until what was lost has been listed: a mirror write would
        overwrite it.
        """
        if self.unreconciled:
            return PostgresRole.PAUSED
        if self.authority is Side.DYNAMODB:
            return PostgresRole.MIRROR if self.stage.rule.mirrored else PostgresRole.NONE
        return PostgresRole.AUTHORITY if self.phase is Phase.OPEN else PostgresRole.PAUSED


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A process, as it last described itself in the register.

    Attributes:
        id: names one life of a process.
        beat: counts its entries.
        confirmed: for each table by physical name, the control record's generation under which all its
            unfinished writes began.
        label: host and process id, for people.
        seen_at: its own wall clock at the beat, in seconds since the epoch, for people.
        version: of dualstore, for people.
        deferring: the tables that it may mirror after it has answered.
    """

    id: str
    beat: int
    confirmed: Mapping[str, int]
    label: str
    seen_at: float
    version: str = ""
    deferring: frozenset[str] = frozenset()
