"""Watches a step for a while, and then until its gates are met."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from dualstore.rollout.context import LOOK, REPORT, Context
from dualstore.rollout.evidence import snapshot_of
from dualstore.rollout.gates import judged
from dualstore.rollout.judgement import EvidenceSnapshot, GateResult, Judgement, worst
from dualstore.rollout.registry import Evidence, Step, StepRefused

SOAKING_MARK = "soaking"
"""The mark at which a step's dials stand, and it is watched."""

_Seen: TypeAlias = Mapping[str, tuple[EvidenceSnapshot, Sequence[GateResult]]]


def gates(context: Context, step: Step, *, since: datetime | None = None) -> _Seen:
    """What every gate says of every table of a step, and from which evidence."""
    found = {}
    for name in step.tables:
        seen = snapshot_of(context.store, name, since=since)
        found[name] = (seen, judged(seen, step.limits))
    return found


def soak(context: Context, step: Step, *, since: datetime | None = None) -> Evidence:
    """Watch for a while, then until the gates are met; goes on with a soak that was broken off.

    Args:
        context: the plan that is carried out.
        step: with soak, limits and patience.
        since: from when on evidence counts; None: since stage or dials last changed.

    Raises:
        StepRefused: a gate has evidence against it, or is not met within the step's patience.
    """
    ends = context.mark(step, SOAKING_MARK) + step.soak
    while (left := ends - context.now()) > timedelta(0):
        context.tools.announce(f"{step.id}: watched until {ends:%Y-%m-%d %H:%M:%S %Z}")
        context.pause(left)
    return {"soak_seconds": step.soak.total_seconds(), **meet_gates(context, step, since=since)}


def meet_gates(context: Context, step: Step, *, since: datetime | None = None) -> Evidence:
    """Wait until every gate of a step is met; what is suspect, or proven too long ago, is compared anew.

    Raises:
        StepRefused: a gate has evidence against it, or is not met within the step's patience.
    """
    give_up = time.monotonic() + step.patience.total_seconds()
    report_at = 0.0
    differing: set[str] = set()
    while True:
        seen = gates(context, step, since=since)
        results = {name: said for name, (_, said) in seen.items()}
        judgement = worst(result for said in results.values() for result in said)
        if judgement is Judgement.MET:
            context.tools.announce(f"{step.id}: every gate is met: {_met(results)}")
            return {
                "tables": {
                    name: {"seen": each.to_json(), "gates": [r.to_json() for r in said]}
                    for name, (each, said) in seen.items()
                }
            }
        if judgement is Judgement.NOT_MET or time.monotonic() >= give_up:
            raise StepRefused(_refusal(step, results, judgement), gates=results)
        if _compared_anew(context, step, seen, differing):
            continue
        if time.monotonic() >= report_at:
            context.tools.announce(_refusal(step, results, judgement))
            report_at = time.monotonic() + REPORT.total_seconds()
        context.pause(LOOK)


def _compared_anew(context: Context, step: Step, seen: _Seen, differing: set[str]) -> bool:
    """Compare both sides of the tables that are suspect, or proven too long ago; whether any was compared.

    Again where a doubt has come up meanwhile, but not once differences were found: what one verification
    finds is not found away by another.
    """
    stale = {
        name
        for name, (evidence, said) in seen.items()
        if evidence.suspects
        or any(each.gate == "verification" and each.judgement is Judgement.NOT_YET for each in said)
    } - differing
    for name in sorted(stale):
        context.tools.announce(f"{step.id}: comparing both sides of {name} whole")
        result = context.store.table(name).verify(progress=context.progress_of(step, name))
        if result.difference_count:
            differing.add(name)
    return bool(stale)


def _refusal(step: Step, results: Mapping[str, Sequence[GateResult]], judgement: Judgement) -> str:
    wanting = [
        f"{name}: {result}"
        for name, said in results.items()
        for result in said
        if result.judgement is judgement
    ]
    return f"{step.id}: " + "; ".join(wanting)


def _met(results: Mapping[str, Sequence[GateResult]]) -> str:
    """What the gates saw that were asked."""
    return "; ".join(
        f"{name}: " + ", ".join(each.saw for each in said if each.judgement is Judgement.MET)
        for name, said in results.items()
    )
