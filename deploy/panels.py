"""What the dashboards show."""

from dataclasses import dataclass

from series import Series, quantiles, rate, worst

from dualstore.telemetry import names

_WHO = ("side", "role")


@dataclass(frozen=True)
class Panel:
    """One panel of both dashboards.

    Attributes:
        title: what is seen.
        queries: (in Prometheus, in CloudWatch).
        unit: Grafana's name of the unit.
        what: when to look closer, and at what.
    """

    title: str
    queries: list[tuple[str, str]]
    unit: str
    what: str


PANELS = [
    Panel("Operations", rate(Series(names.OPERATIONS, _WHO)), "ops", "Who answers, as what."),
    Panel(
        "Operations without an answer",
        rate(Series(names.OPERATIONS, (*_WHO, "outcome"), (("outcome", '!=""'),))),
        "ops",
        "By side and class of the error; a condition that does not hold is among them.",
    ),
    Panel(
        "Latency p50, p95, p99",
        quantiles(Series(names.DURATION, _WHO)),
        "s",
        "By side and role. A write on aws.dynamodb includes its mirroring: it is what the caller waited.",
    ),
    Panel(
        "Compared reads by verdict",
        rate(Series(names.SHADOW_COMPARED, ("verdict",))),
        "ops",
        "A mismatch persists: `dualstore discrepancies list`.",
    ),
    Panel(
        "Comparisons dropped",
        rate(Series(names.SHADOW_DROPPED, ("reason",))),
        "ops",
        "More reads than the comparison has room for: lower shadow-percent, or give [shadow] more room.",
    ),
    Panel(
        "Shadow load",
        worst(Series(names.SHADOW_PERCENT), Series(names.SHADOW_EFFECTIVE), how="min"),
        "percent",
        "The dial, and what of it the other side bears.",
    ),
    Panel(
        "Reads that fell back",
        rate(Series(names.FALLBACKS, ("reason",)), Series(names.STALE_READS, ("reason",))),
        "ops",
        "Dialled to PostgreSQL and answered by DynamoDB, and the reverse.",
    ),
    Panel(
        "Breaker",
        worst(Series(names.BREAKER_OPEN, _WHO)),
        "short",
        "1 where reads leave a side alone.",
    ),
    Panel(
        "Mirror writes that failed",
        rate(Series(names.MIRROR_FAILURES, ("reason",)), Series(names.SETTLES, ("reason", "verdict"))),
        "ops",
        "Callers are served; a settle follows.",
    ),
    Panel(
        "Keys in doubt",
        worst(Series(names.DIRTY_KEYS), Series(names.JOURNAL_DEPTH)),
        "short",
        "Noted in PostgreSQL, and in DynamoDB's journal.",
    ),
    Panel(
        "How far each side is behind",
        worst(Series(names.JOURNAL_AGE), Series(names.OUTBOX_AGE), Series(names.RELAY_LAG)),
        "s",
        "The journal and the relay: PostgreSQL behind DynamoDB. The outbox: DynamoDB behind PostgreSQL.",
    ),
    Panel(
        "Outbox",
        [
            *worst(Series(names.OUTBOX_DEPTH), Series(names.OUTBOX_REFUSED)),
            *worst(Series(names.OUTBOX_LANES), how="sum"),
        ],
        "short",
        "Refused entries stay until their rows are corrected. The lanes add up to 16.",
    ),
    Panel(
        "Sent to DynamoDB",
        rate(Series(names.SENT, ("verdict",))),
        "ops",
        "From live on.",
    ),
    Panel(
        "Relay",
        [
            *rate(Series(names.RELAY_RECORDS, ("verdict",)), Series(names.STREAM_GAPS, ("reason",))),
            *worst(Series(names.RELAY_SHARDS), how="sum"),
        ],
        "short",
        "Records of the stream, by what was done; gaps; shards that are followed.",
    ),
    Panel(
        "Changes past dualstore",
        rate(Series(names.ROGUE_CHANGES, ("kind",))),
        "ops",
        "Find who writes before live.",
    ),
    Panel(
        "Backfill",
        worst(
            Series(names.BACKFILL_RATE),
            Series(names.BACKFILL_ITEMS),
            Series(names.BACKFILL_PIECES_LEFT),
            Series(names.BACKFILL_QUARANTINED),
            Series(names.BACKFILL_READ_UNITS),
        ),
        "short",
        "Of the run, by all who work on it; what is in quarantine was not loaded.",
    ),
    Panel(
        "Stage",
        worst(Series(names.STAGE)),
        "short",
        "0 off, 1 dualwrite, 2 shadow, 3 live, 4 rampdown, 5 complete.",
    ),
    Panel(
        "Plans",
        rate(Series(names.PLAN_STEPS, ("step", "step_event"))),
        "ops",
        "Steps that began, ended, failed or were taken back; their record has the evidence.",
    ),
    Panel(
        "Dials and gate",
        [
            *worst(Series(names.POSTGRES_READ_PERCENT), Series(names.MIRROR_PERCENT)),
            *worst(Series(names.GATE_OPEN), how="min"),
        ],
        "short",
        "In percent; the gate is 1 where PostgreSQL, the mirror, may be read.",
    ),
    Panel(
        "Items of no entity",
        rate(Series(names.UNMAPPED_ITEMS)),
        "ops",
        "Of tables in several SQL tables: what nobody has a model for is kept in one for the rest.",
    ),
    Panel(
        "Grants and flags",
        rate(
            Series(names.GRANTS_EXPIRED, ("grant",)),
            Series(names.FLAG_PROBLEMS, ("flag", "problem")),
            Series(names.FLAG_REFUSALS, ("reason",)),
        ),
        "ops",
        "Grants that ran out: long pauses. Flags that are not followed: nothing moves.",
    ),
    Panel(
        "Comparison against itself",
        rate(Series(names.SHADOW_NOISE, ("verdict",))),
        "ops",
        "The same side read twice: what of the mismatches is noise.",
    ),
    Panel(
        "Recording",
        rate(Series(names.RECORDING_DROPPED, ("reason",))),
        "ops",
        "Operations that were to be recorded for a load test and were not; of the reasons, `limit` ends it.",
    ),
]
