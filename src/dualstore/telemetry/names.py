"""Every metric and attribute name that dualstore emits, and what each metric measures.

Names follow the OpenTelemetry semantic conventions for database clients where these have one
(https://opentelemetry.io/docs/specs/semconv/database/); the rest begins with `dualstore.`. No attribute
ever holds an item's value or a plain key.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from dualstore.stages import Side

METER = TRACER = "dualstore"
"""The instrumentation scope of metrics and of spans."""


class Kind(StrEnum):
    """How a metric's values add up."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric.

    Attributes:
        name: as exported.
        kind: how its values add up.
        unit: in UCUM, as OpenTelemetry writes it.
        description: one sentence.
        labels: the event's fields that become attributes, named by `ATTRIBUTES`.
        value: the event's field that holds the value; None counts one per event.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    labels: tuple[str, ...] = ("table",)
    value: str | None = None


ATTRIBUTES = {
    "table": "db.collection.name",  # the logical name
    "operation": "db.operation.name",
    "side": "db.system.name",
    "outcome": "error.type",  # left out where all went well, as the conventions ask
    "role": "dualstore.role",
    "reason": "dualstore.reason",
    "verdict": "dualstore.verdict",
    "grant": "dualstore.grant",
    "flag": "dualstore.flag",
    "kind": "dualstore.kind",
    "problem": "dualstore.problem",
    "step": "dualstore.plan.step",
    "step_event": "dualstore.plan.event",
}
"""The attribute that a label is exported as."""

SYSTEMS = {Side.DYNAMODB: "aws.dynamodb", Side.POSTGRES: "postgresql"}
"""`db.system.name` of each side."""

OK = "ok"
"""The outcome of an operation that was answered without an error."""
DIRTY = "dirty"
"""The outcome of a read of a key that the mirror knows to be in doubt: the authority is asked."""
ANSWERS = frozenset({OK, "ConditionalCheckFailedException", "TransactionCanceledException", DIRTY})
"""The outcomes with which a side has done what it was asked for: a condition's no is an answer, too."""


def attributes_of(labels: Iterable[str], values: Iterable[str]) -> dict[str, str]:
    """Labels with their values as they are exported."""
    return {
        ATTRIBUTES[label]: SYSTEMS[Side(value)] if label == "side" else value
        for label, value in zip(labels, values, strict=True)
    }


_OPERATION = ("table", "operation", "side", "role", "outcome")

DURATION = Metric(
    "db.client.operation.duration",
    Kind.HISTOGRAM,
    "s",
    "Duration of operations as each side answered them.",
    _OPERATION,
    "seconds",
)
DURATION_BOUNDARIES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
"""The bucket boundaries that the conventions ask for, in seconds."""

OPERATIONS = Metric(
    "dualstore.operations", Kind.COUNTER, "{operation}", "Operations that a side answered.", _OPERATION
)
MIRROR_FAILURES = Metric(
    "dualstore.mirror.failures",
    Kind.COUNTER,
    "{write}",
    "Acknowledged writes that the mirror did not take at once; a settle follows.",
    ("table", "operation", "reason"),
)
SETTLES = Metric(
    "dualstore.settles",
    Kind.COUNTER,
    "{settle}",
    "Keys that were settled: the authority read again, the mirror made equal.",
    ("table", "reason", "verdict"),
)
FALLBACKS = Metric(
    "dualstore.fallbacks",
    Kind.COUNTER,
    "{read}",
    "Reads that were dialled to the mirror, or sent to a reader endpoint, and answered by the authority.",
    ("table", "operation", "reason"),
)
BREAKER_OPEN = Metric(
    "dualstore.breaker.open",
    Kind.GAUGE,
    "{breaker}",
    "1 where reads leave a side alone because it failed or was slow too often, 0 where not.",
    ("table", "side", "role"),
    "is_open",
)
STALE_READS = Metric(
    "dualstore.stale_reads",
    Kind.COUNTER,
    "{read}",
    "Reads that DynamoDB, the mirror, answered because PostgreSQL, the authority, did not.",
    ("table", "operation", "reason"),
)
GRANTS_EXPIRED = Metric(
    "dualstore.grants.expired",
    Kind.COUNTER,
    "{grant}",
    "Times a grant to read the mirror or to write had run out when it was needed.",
    ("table", "grant"),
)
FLAG_PROBLEMS = Metric(
    "dualstore.flags.problems",
    Kind.COUNTER,
    "{evaluation}",
    "Flags without a usable value; the table stays where it is.",
    ("table", "flag", "problem"),
)
UNMAPPED_ITEMS = Metric(
    "dualstore.items.unmapped",
    Kind.COUNTER,
    "{write}",
    "Writes of items that are of no entity of their table, and went to the SQL table for the rest.",
    ("table",),
)
FLAG_REFUSALS = Metric(
    "dualstore.flags.refusals",
    Kind.COUNTER,
    "{evaluation}",
    "Looks at what the flags ask for that found it not allowed; the table stays where it is.",
    ("table", "reason"),
)
SHADOW_COMPARED = Metric(
    "dualstore.shadow.compared",
    Kind.COUNTER,
    "{read}",
    "Reads that were run on the other side too, by what came of it.",
    ("table", "operation", "verdict"),
)
SHADOW_NOISE = Metric(
    "dualstore.shadow.noise",
    Kind.COUNTER,
    "{read}",
    "Reads that were run on the same side twice, by what comparing them came to; no discrepancies.",
    ("table", "operation", "verdict"),
)
SHADOW_EFFECTIVE = Metric(
    "dualstore.shadow.effective",
    Kind.GAUGE,
    "%",
    "Share of reads that are run on the other side as it bears the load: the dial, or less.",
    value="percent",
)
SHADOW_DROPPED = Metric(
    "dualstore.shadow.dropped",
    Kind.COUNTER,
    "{read}",
    "Reads that were to be compared and were not.",
    ("table", "operation", "reason"),
)
RECORDING_DROPPED = Metric(
    "dualstore.recording.dropped",
    Kind.COUNTER,
    "{operation}",
    "Operations that were to be recorded and were not.",
    ("table", "reason"),
)
JOURNAL_DEPTH = Metric(
    "dualstore.journal.depth",
    Kind.GAUGE,
    "{key}",
    "Keys that wait in the journal to be settled.",
    value="keys",
)
JOURNAL_AGE = Metric(
    "dualstore.journal.age",
    Kind.GAUGE,
    "s",
    "Age of the oldest key in the journal; 0 where it is empty.",
    value="oldest_age_seconds",
)
OUTBOX_DEPTH = Metric(
    "dualstore.outbox.depth",
    Kind.GAUGE,
    "{entry}",
    "Changes in PostgreSQL's outbox that DynamoDB has not been brought after, second looks included.",
    value="entries",
)
OUTBOX_AGE = Metric(
    "dualstore.outbox.age",
    Kind.GAUGE,
    "s",
    "How far DynamoDB is behind: the age of the oldest of them that is no second look; 0 without any.",
    value="oldest_age_seconds",
)
OUTBOX_REFUSED = Metric(
    "dualstore.outbox.refused",
    Kind.GAUGE,
    "{entry}",
    "Those of them that DynamoDB refused to take.",
    value="refused",
)
OUTBOX_LANES = Metric(
    "dualstore.outbox.lanes",
    Kind.GAUGE,
    "{lane}",
    "Lanes of the outbox, of 16, that this process works off.",
    value="lanes",
)
SENT = Metric(
    "dualstore.outbox.sent",
    Kind.COUNTER,
    "{key}",
    "Keys that were to be brought after PostgreSQL in DynamoDB, by what came of it.",
    ("table", "verdict"),
)
RELAY_RECORDS = Metric(
    "dualstore.relay.records",
    Kind.COUNTER,
    "{record}",
    "Records of a DynamoDB stream that the relay has dealt with.",
    ("table", "verdict"),
)
RELAY_LAG = Metric(
    "dualstore.relay.lag",
    Kind.GAUGE,
    "s",
    "Age of the latest record that the relay has dealt with; 0 where it has caught up.",
    value="lag_seconds",
)
RELAY_SHARDS = Metric(
    "dualstore.relay.shards",
    Kind.GAUGE,
    "{shard}",
    "Shards of a DynamoDB stream that this process follows.",
    value="shards",
)
BACKFILL_ITEMS = Metric(
    "dualstore.backfill.items",
    Kind.GAUGE,
    "{item}",
    "Items that the backfill under way has read and loaded, by all who work on it.",
    value="items",
)
BACKFILL_RATE = Metric(
    "dualstore.backfill.rate",
    Kind.GAUGE,
    "{item}/s",
    "Items a second of all who work on the backfill now.",
    value="rows_per_second",
)
BACKFILL_READ_UNITS = Metric(
    "dualstore.backfill.read_units",
    Kind.GAUGE,
    "{unit}",
    "Read capacity units that the backfill under way has consumed.",
    value="read_units",
)
BACKFILL_QUARANTINED = Metric(
    "dualstore.backfill.quarantined",
    Kind.GAUGE,
    "{item}",
    "Items that the backfill under way could neither load nor settle.",
    value="quarantined",
)
BACKFILL_PIECES_LEFT = Metric(
    "dualstore.backfill.pieces_left",
    Kind.GAUGE,
    "{piece}",
    "Pieces of its source that the backfill under way has still to load.",
    value="pieces_left",
)
STREAM_GAPS = Metric(
    "dualstore.relay.gaps",
    Kind.COUNTER,
    "{gap}",
    "Places where changes may be missing from what was read of a stream.",
    ("table", "reason"),
)
ROGUE_CHANGES = Metric(
    "dualstore.rogue.changes",
    Kind.COUNTER,
    "{change}",
    "Changes of items in DynamoDB that did not go through dualstore.",
    ("table", "kind"),
)
PLAN_STEPS = Metric(
    "dualstore.plan.steps",
    Kind.COUNTER,
    "{step}",
    "Steps of migration plans that began, ended, failed or were taken back.",
    ("table", "step", "step_event"),
)
DIRTY_KEYS = Metric(
    "dualstore.dirty.keys", Kind.GAUGE, "{key}", "Keys whose mirrored state is in doubt.", value="keys"
)
GATE_OPEN = Metric(
    "dualstore.gate.open",
    Kind.GAUGE,
    "{gate}",
    "1 where the mirror may be read, 0 where the gate is shut.",
    value="is_open",
)
STAGE = Metric(
    "dualstore.stage",
    Kind.GAUGE,
    "{stage}",
    "The stage as this process sees it: 0 off, 1 dualwrite, 2 shadow, 3 live, 4 rampdown, 5 complete.",
    value="stage_number",
)
POSTGRES_READ_PERCENT = Metric(
    "dualstore.dial.postgres_read",
    Kind.GAUGE,
    "%",
    "Share of partition keys whose reads PostgreSQL serves.",
    value="postgres_read_percent",
)
MIRROR_PERCENT = Metric(
    "dualstore.dial.mirror",
    Kind.GAUGE,
    "%",
    "Share of partition keys whose writes are mirrored.",
    value="mirror_percent",
)
SHADOW_PERCENT = Metric(
    "dualstore.dial.shadow",
    Kind.GAUGE,
    "%",
    "Share of reads that are also run on the other side.",
    value="shadow_percent",
)

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of them."""

SPAN_EVENTS = {
    FALLBACKS: "dualstore.fallback",
    STALE_READS: "dualstore.stale_read",
    MIRROR_FAILURES: "dualstore.mirror.failure",
    BREAKER_OPEN: "dualstore.breaker",
    GRANTS_EXPIRED: "dualstore.grant.expired",
    SHADOW_DROPPED: "dualstore.shadow.dropped",
}
"""What is also told as an event of the caller's span, by which name; its attributes are the metric's."""
