"""What the whole fleet did and saw, for `dualstore status`: in a table, in words, and as plain values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from dualstore.control import ControlRecord
from dualstore.errors import DualStoreError, SchemaError, Unavailable
from dualstore.flags import ProblemKind
from dualstore.flags.sdk import SdkFlags
from dualstore.stages import Side
from dualstore.store import DualStore, TableStatus
from dualstore.store.evidence import Evidence, Fleet, Worked, render

_HEADINGS = ("table", "work", "side", "as", "calls/s", "errors", "p50 ms", "p95 ms", "p99 ms")
_SIDES = {Side.DYNAMODB: "DynamoDB", Side.POSTGRES: "PostgreSQL"}
_QUANTILES = ("p50", "p95", "p99")
_SAME_PERCENT = 1.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A table as `status` shows it.

    Attributes:
        status: where it stands.
        fleet: what all processes did with it lately; None where that cannot be had.
        evidence: what they saw since its dials moved; None where that cannot be had.
        missing: why not.
        flag_problems: why its flags may not be followed, as far as this process sees.
    """

    status: TableStatus
    fleet: Fleet | None = None
    evidence: Evidence | None = None
    missing: str | None = None
    flag_problems: tuple[str, ...] = ()


def looked_at(store: DualStore) -> list[Shown]:
    """Every table of a store, looked at now.

    Raises:
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: DynamoDB does not answer.
        Unavailable: PostgreSQL, the authority, does not answer.
    """
    return [_looked_at(store, table.served.logical, table.status()) for table in store.tables()]


def _looked_at(store: DualStore, name: str, status: TableStatus) -> Shown:
    wrong = flag_problems(store, name)
    try:
        return Shown(status, store.fleet(name), store.evidence(name), flag_problems=wrong)
    except (Unavailable, SchemaError) as error:
        return Shown(status, missing=_in_short(error), flag_problems=wrong)


def flag_problems(store: DualStore, table: str) -> tuple[str, ...]:
    """Why a table's flags may not be followed, as far as this process sees; a missing one need not move."""
    if not isinstance(store.flags, SdkFlags):
        return ()
    present = store.flags.problems.present(table)
    return tuple(str(problem) for problem in present if problem.kind is not ProblemKind.MISSING)


def _in_short(error: DualStoreError) -> str:
    return "PostgreSQL does not answer" if isinstance(error, Unavailable) else str(error)


def fleet_shown(tables: Iterable[Shown]) -> Table:
    """What was done in the last minute, one line for each side, role and class of operations."""
    shown = Table(box=SIMPLE_HEAD, title="the last minute, all processes", title_justify="left")
    for heading in _HEADINGS:
        shown.add_column(heading, justify="left" if heading in _HEADINGS[:4] else "right")
    for each in tables:
        for worked in each.fleet.worked if each.fleet else ():
            shown.add_row(*_row(each.fleet, worked))
    return shown


def _row(fleet: Fleet | None, worked: Worked) -> tuple[str, ...]:
    assert fleet is not None  # noqa: S101 - its own lines
    latencies = worked.done.latencies
    return (
        fleet.table,
        worked.work,
        _SIDES[worked.side],
        worked.role,
        f"{fleet.per_second(worked):,.1f}",
        f"{worked.done.errors:,}",
        *(
            "-" if ms is None else f"{ms:.1f}"
            for ms in (latencies.p50_ms, latencies.p95_ms, latencies.p99_ms)
        ),
    )


def evidence_shown(shown: Shown) -> str:
    """What was seen since the dials moved, in words."""
    if shown.evidence is None:
        return f"{shown.status.logical}: the fleet's figures cannot be shown: {shown.missing}"
    return render(shown.evidence) + _share_shown(shown.fleet, shown.evidence.dials.shadow_percent)


def _share_shown(fleet: Fleet | None, dialled: float | None) -> str:
    """What is compared of what is dialled, where the other side does not bear all of it."""
    share = None if fleet is None else fleet.shadow_share
    if share is None or not dialled or share >= dialled - _SAME_PERCENT:
        return ""
    return (
        f"\n  {share:.0f} % of the reads are compared, not {dialled:g} %: the other side does not bear more"
    )


def document(shown: Shown) -> dict[str, Any]:
    """All of it as plain values; durations in seconds and milliseconds, as their names say."""
    status = shown.status
    return {
        "table": status.logical,
        "position": status.position,
        **_decided(status.record),
        "pending": status.pending,
        "dirty_keys": status.dirty_keys,
        "journal_keys": status.journal_keys,
        "outbox": None
        if status.outbox is None
        else {
            "entries": status.outbox.entries,
            "refused": status.outbox.refused,
            "second_looks": status.outbox.second_looks,
            "oldest_age_seconds": status.outbox.oldest_age.total_seconds(),
        },
        "stream_lag_seconds": None if status.stream_lag is None else status.stream_lag.total_seconds(),
        "rogues": {kind: seen.count for kind, seen in status.rogues.items()},
        "refusal": status.refusal,
        "flag_problems": list(shown.flag_problems),
        "processes": [
            {
                "label": process.label,
                "version": process.version,
                "seen_at": process.seen_at,
                "confirmed": process.confirmed,
            }
            for process in status.processes
        ],
        "fleet": None if shown.fleet is None else _fleet_document(shown.fleet),
        "evidence": None if shown.evidence is None else _evidence_document(shown.evidence),
    }


def _decided(record: ControlRecord) -> Mapping[str, Any]:
    dials = record.effective_dials
    return {
        "stage": record.stage,
        "authority": record.authority,
        "read_percent": dials.postgres_read_percent,
        "mirror_percent": dials.mirror_percent,
        "shadow_percent": dials.effective_shadow_percent(record.stage),
        "stopped": None if record.stopped is None else str(record.stopped),
        "gate": record.gate,
        "loaded": record.loaded,
        "verified": record.verified,
        "suspects": sorted(record.suspects),
        "generation": record.generation,
    }


def _fleet_document(fleet: Fleet) -> dict[str, Any]:
    return {
        "within_seconds": fleet.within.total_seconds(),
        "processes": fleet.processes,
        "counts": dict(fleet.counts),
        "shadow_share_percent": fleet.shadow_share,
        "worked": [
            {
                "work": worked.work,
                "side": worked.side,
                "role": worked.role,
                "calls_per_second": fleet.per_second(worked),
                "errors": worked.done.errors,
                **{f"{name}_ms": getattr(worked.done.latencies, f"{name}_ms") for name in _QUANTILES},
            }
            for worked in fleet.worked
        ],
    }


def _evidence_document(evidence: Evidence) -> dict[str, Any]:
    return {
        "since": evidence.since and evidence.since.isoformat(),
        "until": evidence.until and evidence.until.isoformat(),
        "comparisons": evidence.comparisons,
        "mismatches": evidence.mismatches,
        "mismatch_bound": evidence.mismatch_bound,
        "lagging": evidence.lagging,
        "unusable": evidence.unusable,
        "dropped": evidence.dropped,
        "fallbacks": evidence.fallbacks,
        "mirror_failures": evidence.mirror_failures,
        "latency_ratios": {
            each.work: {name: each.ratio(name) for name in _QUANTILES} for each in evidence.speeds
        },
    }
