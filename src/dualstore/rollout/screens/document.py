"""A picture as plain values, for programs: the shape of `status --json`, which only ever gains keys."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dualstore.control import ControlRecord
from dualstore.rollout.screens import words
from dualstore.rollout.screens.picture import Picture, PlanPicture, Shown, TablePicture
from dualstore.store.evidence import Evidence, Fleet

_QUANTILES = ("p50", "p95", "p99")


def picture_document(picture: Picture) -> dict[str, Any]:
    """All of it, for the dashboard: `databases`, `problems`, `plans` and `tables`."""
    return {
        "taken_at": picture.taken_at.isoformat(),
        "version": picture.version,
        "databases": {side.value: problem for side, problem in picture.databases.items()},
        "problems": list(words.problems(picture)),
        "plans": [_plan_document(each) for each in picture.plans],
        "tables": tables_document(picture),
    }


def tables_document(picture: Picture) -> list[dict[str, Any]]:
    """One document for each table, as `status --json` prints them; durations as their names say."""
    return [_table_document(picture, each) for each in picture.tables]


def _table_document(picture: Picture, table: TablePicture) -> dict[str, Any]:
    record = table.last_known
    base: dict[str, Any] = {"table": table.name, "position": words.position(table)}
    if table.shown is not None:
        base = document(table.shown)
    elif record is not None:
        base |= _decided(record)
    return {
        **base,
        "is_current": table.shown is not None,
        "unreachable": {side.value: said for side, said in picture.databases.items() if said is not None},
        "missing": list(table.missing),
        "gates_of": table.gates_of,
        "gates": [{**each.to_json(), "remedy": each.remedy} for each in table.gates],
        "runs": [
            {
                "id": run.id,
                "kind": run.kind,
                "state": run.state.value,
                "phase": run.phase,
                "wish": run.wish,
                "started_at": run.started_at.isoformat(),
                "finished_at": run.finished_at and run.finished_at.isoformat(),
                "items": run.items,
                "expected_items": run.expected_items,
                "pieces_done": run.pieces_done,
                "pieces": run.pieces,
                "quarantined": run.rejected,
                "in_words": words.run(run),
            }
            for run in table.runs
        ],
        "discrepancies": [
            {**asdict(each), "last_seen": each.last_seen.isoformat()} for each in table.discrepancies
        ],
        "quarantined": table.quarantined,
        "alerts": [
            {
                **asdict(each),
                "opened_at": each.opened_at.isoformat(),
                "closed_at": each.closed_at and each.closed_at.isoformat(),
            }
            for each in table.alerts
        ],
        "rollbacks": [
            {
                "at": each.at.isoformat(),
                "by": each.by,
                "reason": each.reason,
                "outcome": each.outcome,
                "seconds": each.seconds,
            }
            for each in table.rollbacks
        ],
        "plans": [_plan_document(each) for each in picture.plans if table.name in each.tables],
    }


def _plan_document(plan: PlanPicture) -> dict[str, Any]:
    return {
        "name": plan.name,
        "steps_done": plan.steps_done,
        "steps": [{"id": step, "state": state.value} for step, state in plan.steps],
        "current": plan.current,
        "halted_by": plan.halted and plan.halted.by,
        "halted_because": plan.halted and plan.halted.reason,
        "holder": plan.holder,
        "problem": plan.problem,
        "in_words": words.plan(plan),
    }


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
