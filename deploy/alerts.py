"""What somebody is woken, or told, for."""

from dataclasses import dataclass

from series import Series, label

from dualstore.telemetry import names
from dualstore.telemetry.names import Metric


@dataclass(frozen=True)
class Alert:
    """One alert rule.

    Attributes:
        name: in CamelCase.
        rule: in PromQL.
        lasts: for how long.
        severity: `page` or `ticket`.
        says: what it means.
        do: what to do.
        alarm: CloudWatch's condition: metric, dimensions besides the table's, statistic, threshold, minutes.
    """

    name: str
    rule: str
    lasts: str
    severity: str
    says: str
    do: str
    alarm: tuple[Metric, dict[str, str], str, float, int] | None


def grew(metric: Metric, window: str, *where: tuple[str, str]) -> str:
    """Whether a counter grew, or has only come to be: of a first event `increase` says nothing."""
    counter = Series(metric, where=where).selected("")
    of_table = f"sum by ({label('table')})"
    return (
        f"{of_table} (increase({counter}[{window}])) > 0 "
        f"or {of_table} ({counter} unless {counter} offset {window}) > 0"
    )


def above(metric: Metric, threshold: float) -> str:
    """Whether a gauge of any process is above something."""
    return f"{Series(metric).worst('')} > {threshold:g}"


_MISMATCH = ("verdict", '="mismatch"')
_DIALLED = (
    f"{above(names.POSTGRES_READ_PERCENT, 0)} and {Series(names.STAGE).worst('')} < 3 "
    f"and {Series(names.GATE_OPEN).worst('', 'min')} == 0"
)
_DROPPED_SHARE = (
    f"sum by ({label('table')}) (rate({Series(names.SHADOW_DROPPED).selected('')}[10m])) > "
    f"0.1 * sum by ({label('table')}) (rate({Series(names.SHADOW_COMPARED).selected('')}[10m]))"
)

ALERTS = [
    Alert(
        "DualstoreSidesDiffer",
        grew(names.SHADOW_COMPARED, "10m", _MISMATCH),
        "0m",
        "page",
        "Reads of {table} differ between the sides, and go on to.",
        "Dial no further. `dualstore discrepancies list`, then `dualstore verify`.",
        (names.SHADOW_COMPARED, {"verdict": "mismatch"}, "Sum", 0, 1),
    ),
    Alert(
        "DualstoreGateShut",
        _DIALLED,
        "5m",
        "ticket",
        "Reads of {table} are dialled to PostgreSQL, and DynamoDB answers them.",
        "`dualstore status` says why: a shut gate, something suspect.",
        None,
    ),
    Alert(
        "DualstoreBreakerOpen",
        above(names.BREAKER_OPEN, 0),
        "5m",
        "page",
        "PostgreSQL fails reads of {table}, or is slow: they are answered elsewhere.",
        "Look at PostgreSQL.",
        None,
    ),
    Alert(
        "DualstoreKeysStayInDoubt",
        above(names.DIRTY_KEYS, 0),
        "15m",
        "ticket",
        "PostgreSQL refuses items of {table}.",
        "Look for a constraint of yours: SELECT reason, count(*) FROM dualstore.dirty GROUP BY 1.",
        (names.DIRTY_KEYS, {}, "Maximum", 0, 15),
    ),
    Alert(
        "DualstoreMirrorFails",
        grew(names.MIRROR_FAILURES, "5m"),
        "10m",
        "ticket",
        "Writes of {table} are not mirrored at once.",
        "Callers are served. Look at PostgreSQL.",
        (names.MIRROR_FAILURES, {}, "Sum", 0, 10),
    ),
    Alert(
        "DualstoreJournalGrowsOld",
        above(names.JOURNAL_AGE, 300),
        "5m",
        "page",
        "PostgreSQL has been behind DynamoDB for five minutes for {table}.",
        "Mend PostgreSQL; repair follows by itself.",
        (names.JOURNAL_AGE, {}, "Maximum", 300, 5),
    ),
    Alert(
        "DualstoreOutboxGrowsOld",
        above(names.OUTBOX_AGE, 60),
        "5m",
        "page",
        "DynamoDB is more than a minute behind PostgreSQL for {table}.",
        "See that `dualstore relay` runs; see dualstore.outbox.sent by verdict.",
        (names.OUTBOX_AGE, {}, "Maximum", 60, 5),
    ),
    Alert(
        "DualstoreOutboxRefused",
        above(names.OUTBOX_REFUSED, 0),
        "15m",
        "ticket",
        "DynamoDB refuses rows of {table}.",
        "Correct the rows: SELECT reason, count(*) FROM dualstore.outbox WHERE done_at IS NULL GROUP BY 1.",
        (names.OUTBOX_REFUSED, {}, "Maximum", 0, 15),
    ),
    Alert(
        "DualstoreRelayLags",
        above(names.RELAY_LAG, 600),
        "10m",
        "page",
        "The relay of {table} is ten minutes behind its stream, which keeps a day.",
        "Run `dualstore relay`, or another one beside it.",
        (names.RELAY_LAG, {}, "Maximum", 600, 10),
    ),
    Alert(
        "DualstoreStreamGap",
        grew(names.STREAM_GAPS, "10m"),
        "0m",
        "page",
        "Changes of {table} may be missing from what was read of its stream.",
        "`dualstore verify`; reads go to DynamoDB until it is done.",
        (names.STREAM_GAPS, {}, "Sum", 0, 1),
    ),
    Alert(
        "DualstoreRogueWriter",
        grew(names.ROGUE_CHANGES, "1h"),
        "0m",
        "ticket",
        "Something writes {table} past dualstore.",
        "Find it before live: from then on what it writes is taken back.",
        (names.ROGUE_CHANGES, {}, "Sum", 0, 1),
    ),
    Alert(
        "DualstoreComparisonsDropped",
        _DROPPED_SHARE,
        "15m",
        "ticket",
        "More than a tenth of the comparisons of {table} are dropped: evidence grows slowly.",
        "Lower shadow-percent, or give [shadow] more room.",
        None,
    ),
    Alert(
        "DualstoreWriteGrantsRunOut",
        grew(names.GRANTS_EXPIRED, "10m", ("grant", '="write"')),
        "0m",
        "ticket",
        "A process that serves {table} stood still for seconds.",
        "Look for long pauses: a stopped machine, a starved container.",
        (names.GRANTS_EXPIRED, {"grant": "write"}, "Sum", 0, 1),
    ),
    Alert(
        "DualstoreFlagUnusable",
        grew(names.FLAG_PROBLEMS, "10m", ("problem", '!="missing"')),
        "0m",
        "ticket",
        "A flag of {table} has no usable value: nothing moves.",
        "Correct it.",
        (names.FLAG_PROBLEMS, {}, "Sum", 0, 1),
    ),
]
