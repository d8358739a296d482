"""What a check finds, and what a check is."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dualstore.stages import Side

if TYPE_CHECKING:
    from dualstore.rollout.doctor.patient import Patient
    from dualstore.store.table import MigratedTable


class Verdict(StrEnum):
    """What a finding means."""

    OK = "ok"
    ADVICE = "advice"
    """It works, and would be safer or faster otherwise."""
    PROBLEM = "problem"
    """It fails, or loses something, now or at a later stage."""
    UNKNOWN = "could not look"


class Checklist(StrEnum):
    """A view of the checks."""

    DATA_INTEGRITY = "data-integrity"
    PERFORMANCE = "performance"
    SECURITY = "security"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check has seen.

    Attributes:
        verdict: what it means.
        says: what was seen, in a sentence; no item's value, no secret.
        fix: the exact command or setting; empty where there is nothing to mend.
        evidence: the facts, as plain values.
    """

    verdict: Verdict
    says: str
    fix: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


def ok(says: str, **evidence: Any) -> Finding:
    """All is well."""
    return Finding(Verdict.OK, says, evidence=evidence)


def advice(says: str, fix: str, **evidence: Any) -> Finding:
    """It could be better."""
    return Finding(Verdict.ADVICE, says, fix, evidence)


def problem(says: str, fix: str, **evidence: Any) -> Finding:
    """It has to be mended."""
    return Finding(Verdict.PROBLEM, says, fix, evidence)


def unknown(says: str, fix: str = "", **evidence: Any) -> Finding:
    """It could not be seen."""
    return Finding(Verdict.UNKNOWN, says, fix, evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question about a whole deployment.

    Attributes:
        name: in lower case, with hyphens.
        asks: what it sees to, in words.
        of: the databases that it asks; it is left out where one of them does not answer.
        on: the checklists that it is part of.
        look: finds out; it may raise whatever the databases' drivers do.
        allow: the permissions that looking takes, beyond those of a service.
    """

    name: str
    asks: str
    of: frozenset[Side]
    on: frozenset[Checklist]
    look: "Callable[[Patient], Iterator[Finding]]"
    allow: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCheck:
    """One question about each table; the attributes are those of `Check`."""

    name: str
    asks: str
    of: frozenset[Side]
    on: frozenset[Checklist]
    look: "Callable[[Patient, MigratedTable], Iterator[Finding]]"
    allow: str = ""
