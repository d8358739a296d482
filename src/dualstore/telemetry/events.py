"""What happens inside dualstore that somebody may want to count or watch, as frozen values.

No event holds an item's value or a plain key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from dualstore.stages import Dials, Side, Stage
from dualstore.telemetry import names
from dualstore.telemetry.names import OK, Metric


class Role(StrEnum):
    """What a side was asked as."""

    AUTHORITATIVE = "authoritative"
    MIRROR = "mirror"
    READER = "reader"
    """PostgreSQL's reader endpoint, while PostgreSQL is the authority."""
    SHADOW = "shadow"


class Verdict(StrEnum):
    """What came of comparing one read with the other side."""

    EQUAL = "equal"
    LAG = "lag"
    """They differed, and no longer did when both were read again."""
    MISMATCH = "mismatch"
    INCOMPARABLE = "incomparable"
    """Both answered, and DynamoDB promises nothing by which the two could be compared."""
    FAILED = "failed"
    """The other side gave no answer to compare with, for want of being reached."""


@dataclass(frozen=True, slots=True)
class OperationFinished:
    """A side answered an operation (or failed to), after so many seconds; `outcome` is `ok` or a code."""

    table: str
    operation: str
    side: Side
    role: Role
    seconds: float
    outcome: str = OK


@dataclass(frozen=True, slots=True)
class MirrorFailed:
    """The mirror did not take an acknowledged write at once."""

    table: str
    operation: str
    reason: str


@dataclass(frozen=True, slots=True)
class Settled:
    """Settling keys was tried: why, and whether it was `done` or `failed`."""

    table: str
    reason: str
    verdict: str


@dataclass(frozen=True, slots=True)
class FellBack:
    """A read that was dialled to the mirror, or sent to a reader endpoint, was answered by the authority."""

    table: str
    operation: str
    reason: str


@dataclass(frozen=True, slots=True)
class BreakerSeen:
    """Whether reads leave a side alone, in some role; recorded by the thread that changes it."""

    table: str
    side: Side
    is_open: bool
    role: Role = Role.MIRROR


@dataclass(frozen=True, slots=True)
class ServedStale:
    """DynamoDB, the mirror, answered a read because PostgreSQL, the authority, did not."""

    table: str
    operation: str
    reason: str


@dataclass(frozen=True, slots=True)
class GrantExpired:
    """A grant (`read` or `write`) had run out when it was needed."""

    table: str
    grant: str


@dataclass(frozen=True, slots=True)
class ItemUnmapped:
    """An item was written that is of no entity of its table: the SQL table for the rest has it."""

    table: str


@dataclass(frozen=True, slots=True)
class FlagUnusable:
    """A flag has no value to follow."""

    table: str
    flag: str
    problem: str


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """What the flags ask for may not be done: `jump`, `not_loaded`, `obstructed`, `stopped` and so on."""

    table: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShadowCompared:
    """A read was run on the other side too."""

    table: str
    operation: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ShadowNoise:
    """A read was run on the same side twice: what comparing says of equal answers."""

    table: str
    operation: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ShadowShare:
    """The share of reads that is compared now, under the load that the other side bears."""

    table: str
    percent: float


@dataclass(frozen=True, slots=True)
class ShadowDropped:
    """A read was to be compared and was not: `queue_full`, `timeout`, `closed`, `normaliser` or `failed`."""

    table: str
    operation: str
    reason: str


@dataclass(frozen=True, slots=True)
class JournalSeen:
    """How much waits in the journal."""

    table: str
    keys: int
    oldest_age_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class OutboxSeen:
    """How far DynamoDB is behind PostgreSQL, and how many entries it refused."""

    table: str
    entries: int
    oldest_age_seconds: float
    refused: int


@dataclass(frozen=True, slots=True)
class LanesSeen:
    """How many lanes of the outbox this process works off."""

    table: str
    lanes: int


@dataclass(frozen=True, slots=True)
class Sent:
    """DynamoDB was brought after PostgreSQL for a key, or that was tried."""

    table: str
    verdict: str


@dataclass(frozen=True, slots=True)
class RecordRelayed:
    """The relay dealt with a record of a stream: `shown`, `settled`, `enqueued`, `passed` or `doubtful`."""

    table: str
    verdict: str


@dataclass(frozen=True, slots=True)
class RogueChange:
    """An item was changed past dualstore: `unstamped`, `stamp_kept` or `deleted`."""

    table: str
    kind: str


@dataclass(frozen=True, slots=True)
class PlanStepSeen:
    """A step of a plan `started`, `finished`, `failed`, was `skipped`, `rolled back` and so on, by its id."""

    table: str
    step: str
    step_event: str


@dataclass(frozen=True, slots=True)
class StreamGap:
    """Changes may be missing from what was read of a stream."""

    table: str
    reason: str


@dataclass(frozen=True, slots=True)
class RelaySeen:
    """How far this process's relay is behind, and how many shards it follows."""

    table: str
    lag_seconds: float
    shards: int


@dataclass(frozen=True, slots=True)
class BackfillSeen:
    """How far a backfill has come, over all who work on it."""

    table: str
    items: int
    rows_per_second: float
    read_units: float
    quarantined: int
    pieces_left: int


@dataclass(frozen=True, slots=True)
class RecordingDropped:
    """An operation was to be recorded and was not: `queue_full`, `malformed`, `limit` or `failed`."""

    table: str
    reason: str


@dataclass(frozen=True, slots=True)
class DirtySeen:
    """How many keys are in doubt."""

    table: str
    keys: int


@dataclass(frozen=True, slots=True)
class GateSeen:
    """Whether the mirror may be read."""

    table: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class StageSeen:
    """The stage and dials that this process now follows."""

    table: str
    stage: Stage
    dials: Dials

    @property
    def stage_number(self) -> int:
        """The stage's place in the order of stages, from 0."""
        return list(Stage).index(self.stage)

    @property
    def postgres_read_percent(self) -> float:
        """Share of partition keys whose reads PostgreSQL serves, by stage and dial."""
        if self.stage.rule.read_dial:
            return self.dials.postgres_read_percent
        return 100.0 if self.stage.rule.read_side is Side.POSTGRES else 0.0

    @property
    def mirror_percent(self) -> float:
        """Share of partition keys whose writes are mirrored, by stage and dial."""
        return self.dials.mirror_percent if self.stage.rule.mirrored else 0.0

    @property
    def shadow_percent(self) -> float:
        """Share of reads that are compared, by stage and dial."""
        return self.dials.effective_shadow_percent(self.stage)


Event: TypeAlias = (
    OperationFinished
    | MirrorFailed
    | Settled
    | FellBack
    | BreakerSeen
    | ServedStale
    | GrantExpired
    | FlagUnusable
    | ItemUnmapped
    | RequestRefused
    | ShadowCompared
    | ShadowNoise
    | ShadowShare
    | ShadowDropped
    | JournalSeen
    | OutboxSeen
    | LanesSeen
    | Sent
    | RecordRelayed
    | RogueChange
    | PlanStepSeen
    | StreamGap
    | RelaySeen
    | BackfillSeen
    | RecordingDropped
    | DirtySeen
    | GateSeen
    | StageSeen
)

MEASURED: Mapping[type[Event], tuple[Metric, ...]] = {
    OperationFinished: (names.OPERATIONS, names.DURATION),
    MirrorFailed: (names.MIRROR_FAILURES,),
    Settled: (names.SETTLES,),
    FellBack: (names.FALLBACKS,),
    BreakerSeen: (names.BREAKER_OPEN,),
    ServedStale: (names.STALE_READS,),
    GrantExpired: (names.GRANTS_EXPIRED,),
    FlagUnusable: (names.FLAG_PROBLEMS,),
    ItemUnmapped: (names.UNMAPPED_ITEMS,),
    RequestRefused: (names.FLAG_REFUSALS,),
    ShadowCompared: (names.SHADOW_COMPARED,),
    ShadowNoise: (names.SHADOW_NOISE,),
    ShadowShare: (names.SHADOW_EFFECTIVE,),
    ShadowDropped: (names.SHADOW_DROPPED,),
    JournalSeen: (names.JOURNAL_DEPTH, names.JOURNAL_AGE),
    OutboxSeen: (names.OUTBOX_DEPTH, names.OUTBOX_AGE, names.OUTBOX_REFUSED),
    LanesSeen: (names.OUTBOX_LANES,),
    Sent: (names.SENT,),
    RecordRelayed: (names.RELAY_RECORDS,),
    RogueChange: (names.ROGUE_CHANGES,),
    PlanStepSeen: (names.PLAN_STEPS,),
    StreamGap: (names.STREAM_GAPS,),
    RelaySeen: (names.RELAY_LAG, names.RELAY_SHARDS),
    BackfillSeen: (
        *(names.BACKFILL_ITEMS, names.BACKFILL_RATE, names.BACKFILL_READ_UNITS),
        *(names.BACKFILL_QUARANTINED, names.BACKFILL_PIECES_LEFT),
    ),
    RecordingDropped: (names.RECORDING_DROPPED,),
    DirtySeen: (names.DIRTY_KEYS,),
    GateSeen: (names.GATE_OPEN,),
    StageSeen: (names.STAGE, names.POSTGRES_READ_PERCENT, names.MIRROR_PERCENT, names.SHADOW_PERCENT),
}
"""The metrics that an event feeds."""
