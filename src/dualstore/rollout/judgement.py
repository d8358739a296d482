"""What gates look at, what they are asked for, and what they say: values, and nothing that is done."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from dualstore.control import Gate as ReadGate
from dualstore.rollout.durations import duration_of
from dualstore.stages import Side, Stage
from dualstore.store.evidence import Speeds, upper_bound

QUANTILES = {"p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSnapshot:
    """What is known of one table at one moment; all that a gate looks at.

    Attributes:
        table: the logical name.
        stage: the stage.
        read_percent: the share of keys whose reads PostgreSQL serves while it is the mirror.
        taken_at: the moment, by PostgreSQL's clock.
        since: from when on comparisons, calls and latencies were counted; None where nothing was.
        verified: whether the control record takes both sides for proven equal.
        verified_at: when the last verification that proved it ended.
        dirty_keys: keys in doubt on PostgreSQL; None where it does not answer.
        journal_keys: keys that wait in the journal.
        read_gate: whether failed mirror writes keep the mirror from being read.
        suspects: processes that ended unclean, and gaps in the stream.
        outbox_age: how far DynamoDB is behind PostgreSQL, the authority; None where nobody knows.
        outbox_refused: changes that DynamoDB refuses.
        processes: how many live processes serve the table.
        unconfirmed: those of them that have not taken the last decision.
        comparisons: reads that were compared.
        mismatches: those that differed, and went on to.
        calls: what PostgreSQL was asked for, in whatever role.
        errors: how often it did not answer.
        speeds: of both sides, by class of reads.
    """

    table: str
    stage: Stage
    read_percent: float = 0.0
    taken_at: datetime
    since: datetime | None = None
    verified: bool = False
    verified_at: datetime | None = None
    dirty_keys: int | None = 0
    journal_keys: int = 0
    read_gate: ReadGate = ReadGate.OPEN
    suspects: int = 0
    outbox_age: timedelta | None = timedelta(0)
    outbox_refused: int = 0
    processes: int = 0
    unconfirmed: tuple[str, ...] = ()
    comparisons: int = 0
    mismatches: int = 0
    calls: int = 0
    errors: int = 0
    speeds: tuple[Speeds, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the record; no item's value is among them."""
        return {
            "stage": self.stage.value,
            "read_percent": self.read_percent,
            "taken_at": self.taken_at.isoformat(),
            "since": self.since and self.since.isoformat(),
            "verified": self.verified,
            "verified_at": self.verified_at and self.verified_at.isoformat(),
            "dirty_keys": self.dirty_keys,
            "journal_keys": self.journal_keys,
            "suspects": self.suspects,
            "outbox_age_seconds": None if self.outbox_age is None else self.outbox_age.total_seconds(),
            "outbox_refused": self.outbox_refused,
            "processes": self.processes,
            "unconfirmed": list(self.unconfirmed),
            "comparisons": self.comparisons,
            "mismatches": self.mismatches,
            "mismatch_bound": upper_bound(self.mismatches, self.comparisons),
            "calls": self.calls,
            "errors": self.errors,
            "latencies_ms": {
                each.work.value: {
                    side.value: {
                        name: latencies.quantile_ms(quantile) for name, quantile in QUANTILES.items()
                    }
                    for side, latencies in (
                        (Side.DYNAMODB, each.dynamodb),
                        (Side.POSTGRES, each.postgres),
                    )
                }
                for each in self.speeds
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a step asks of the evidence; None does not ask.

    Attributes:
        verified_within: how long ago a verification may have proved both sides equal.
        mismatch_percent: the 95 % upper bound of the share of reads that differ.
        error_percent: the 95 % upper bound of the share of PostgreSQL's calls that fail.
        latency_increase_percent: how much slower than DynamoDB PostgreSQL may be, at p95 and p99.
        p95_ms: PostgreSQL's 95th percentile, of each class of reads.
        p99_ms: PostgreSQL's 99th percentile, of each class of reads.
        comparisons: how many reads must have been compared at least, whatever the bound says.
        dirty_keys: how many keys may be in doubt.
        journal_keys: how many keys may wait in the journal.
        outbox_age: how far DynamoDB may be behind from `live` on.
    """

    verified_within: timedelta | None = timedelta(hours=24)
    mismatch_percent: float | None = 0.1
    error_percent: float | None = 0.1
    latency_increase_percent: float | None = 20.0
    p95_ms: float | None = None
    p99_ms: float | None = None
    comparisons: int | None = None
    dirty_keys: int | None = 0
    journal_keys: int | None = 0
    outbox_age: timedelta | None = timedelta(seconds=10)

    def overlaid(self, content: Mapping[str, Any]) -> "Limits":
        """These limits with what a section `gates` of a plan says instead."""
        changes: dict[str, Any] = dict(content)
        for name in ("verified_within", "outbox_age"):
            if changes.get(name) is not None:
                changes[name] = duration_of(changes[name])
        return replace(self, **changes)


class Judgement(StrEnum):
    """What a gate says."""

    MET = "met"
    NOT_YET = "not yet"
    """Waiting, or what the result names, may bring it."""
    NOT_MET = "not met"
    """There is evidence against it: waiting alone does not help."""
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one gate says of one table.

    Attributes:
        gate: its name.
        judgement: its answer.
        saw: what there is.
        limit: what there may be.
        remedy: what to do next; empty where it is met.
    """

    gate: str
    judgement: Judgement
    saw: str
    limit: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        limit = f" (asked: {self.limit})" if self.limit else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.gate}: {self.judgement}: {self.saw}{limit}{remedy}"

    def to_json(self) -> dict[str, str]:
        """Plain values, for the record."""
        return {"gate": self.gate, "judgement": self.judgement.value, "saw": self.saw, "limit": self.limit}


def worst(results: Iterable[GateResult]) -> Judgement:
    """The judgement of several gates together."""
    found = {each.judgement for each in results}
    return next((each for each in (Judgement.NOT_MET, Judgement.NOT_YET) if each in found), Judgement.MET)
