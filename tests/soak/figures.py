"""The figures of a soak."""

import collections
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from soak.judge import Verdict
from soak.recording import Ledger
from soak.walk import Tally

if TYPE_CHECKING:
    from soak.run import Plan

_SHOWN = 30
_AFTERMATH_NS = 10_000_000_000
_SETTLED_NS = 1_000_000_000


def figures_of(
    plan: "Plan", ledger: Ledger, verdict: Verdict, tally: Tally, converged: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything worth telling, as plain values."""
    writes = ledger.writes
    acknowledged = [written for written in writes if written.outcome == "acknowledged"]
    waits = [((written.ended_ns or 0) - written.began_ns) / 1e9 for written in acknowledged]
    proven = converged["verification proved both sides equal"]
    equal = converged["seconds until both sides were equal"] is not None
    return {
        "plan": asdict(plan),
        "clean": verdict.clean and bool(proven) and equal and not _died(ledger),
        "writes": _counted(written.outcome for written in writes),
        "acknowledged by kind": _counted(written.kind for written in acknowledged),
        "acknowledged by stage": _counted(written.stage for written in acknowledged),
        "errors of writes": _counted(written.error for written in writes if written.error),
        "errors of reads": _counted(e["error"] for e in ledger.events if e["event"] == "failed"),
        "slowest acknowledged write, s": round(max(waits, default=0), 2),
        "median acknowledged write, s": round(statistics.median(waits), 4) if waits else None,
        "longest wait of a write in a move of the authority without a fault, s": _longest_pause(ledger),
        "seconds until even again after a fault": _evened(ledger),
        "faults": _counted(e["fault"] for e in ledger.events if e["event"] == "mended"),
        "faults injected into requests": _injected(ledger),
        "replies lost by acknowledged writes": sum(written.lost for written in acknowledged),
        "requests given up by acknowledged writes": sum(written.late for written in acknowledged),
        "walk": asdict(tally),
        "keys judged": verdict.keys,
        "reads judged": verdict.reads,
        "answers to conditions judged": verdict.answers,
        "counted twice, as documented": verdict.double,
        "processes that died by themselves": _died(ledger),
        "lost": len(verdict.lost),
        "differing": len(verdict.differing),
        "stale": len(verdict.stale),
        "wrong": len(verdict.wrong),
        "convergence": dict(converged),
        "findings": {
            name: getattr(verdict, name)[:_SHOWN] for name in ("lost", "differing", "stale", "wrong")
        },
    }


def _longest_pause(ledger: Ledger) -> float | None:
    """Of the acknowledged writes of a table while its authority moved and nothing was broken."""
    broken = [
        (e["since"] - _AFTERMATH_NS, e["at"] + _AFTERMATH_NS) for e in ledger.events if e["event"] == "mended"
    ]
    longest = None
    for move in ledger.events:
        if move["event"] != "stage" or not move["moved"]:
            continue
        since, until = move["since"], move["at"]
        if any(began < until and since < ended for began, ended in broken):
            continue
        for written in ledger.writes:
            ended = written.ended_ns
            if (
                ended is None
                or written.outcome != "acknowledged"
                or written.effects[0].place.table != move["table"]
            ):
                continue
            if written.began_ns < until and since < ended:
                longest = max(longest or 0.0, (ended - written.began_ns) / 1e9)
    return None if longest is None else round(longest, 2)


def _evened(ledger: Ledger) -> dict[str, Any]:
    """For each kind of fault, how long after it was mended nothing waited to be brought after any more."""
    looks = sorted((e["at"], e["event"]) for e in ledger.events if e["event"] in {"even", "behind"})
    waits: dict[str, list[float]] = collections.defaultdict(list)
    for fault in ledger.events:
        if fault["event"] == "mended":
            wait = _wait(looks, fault["at"])
            if wait is not None:
                waits[fault["fault"]].append(wait)
    return {
        fault: {"median": round(statistics.median(each), 1), "longest": round(max(each), 1)}
        for fault, each in sorted(waits.items())
    }


def _wait(looks: list[tuple[int, str]], since_ns: int) -> float | None:
    """Until the first look from a moment on that showed both sides even; None where the soak ended before."""
    state = "even"
    for at, seen in looks:
        if at <= since_ns:
            state = seen
        elif state == "even" and at - since_ns > _SETTLED_NS:
            return 0.0
        else:
            state = seen
            if state == "even":
                return (at - since_ns) / 1e9
    return 0.0 if state == "even" else None


def _injected(ledger: Ledger) -> dict[str, int]:
    """What each process counted last, together; a killed process has counted up to two seconds before."""
    last = {e["by"]: e["counts"] for e in ledger.events if "counts" in e}
    together: collections.Counter[str] = collections.Counter()
    for counts in last.values():
        together.update(counts)
    return dict(together.most_common())


def _died(ledger: Ledger) -> list[str]:
    return [e["name"] for e in ledger.events if e["event"] == "died by itself"]


def _counted(names: Iterable[str | None]) -> dict[str, int]:
    return {str(name): count for name, count in collections.Counter(names).most_common()}
