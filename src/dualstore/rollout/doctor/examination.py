"""Makes the checks, each within its time; one that fails says so, and stops no other."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from botocore.exceptions import ClientError
from sqlalchemy.exc import DBAPIError

from dualstore.errors import DualStoreError
from dualstore.rollout.doctor.checks import CHECKS, REACHING
from dualstore.rollout.doctor.findings import Check, Checklist, Finding, TableCheck, Verdict, unknown
from dualstore.rollout.doctor.patient import Patient
from dualstore.stages import Side
from dualstore.stores.postgres.deadlines import Deadline
from dualstore.stores.postgres.faults import driver_error

PATIENCE = timedelta(seconds=10)
"""How long one check may take."""

_NAMES = {Side.POSTGRES: "PostgreSQL", Side.DYNAMODB: "DynamoDB"}


@dataclass(frozen=True, slots=True)
class Examined:
    """A finding, and what found it.

    Attributes:
        check: by name.
        table: the table's logical name, or None where the whole deployment is meant.
        finding: what was seen.
    """

    check: str
    table: str | None
    finding: Finding


@dataclass(frozen=True, slots=True)
class Examination:
    """All that was seen.

    Attributes:
        found: in the order of the checks.
        away: the databases that did not answer.
    """

    found: Sequence[Examined]
    away: frozenset[Side]

    def count(self, verdict: Verdict) -> int:
        """How many findings are of a kind."""
        return sum(each.finding.verdict is verdict for each in self.found)


class _Overdue(Exception):  # noqa: N818 - of a check, not an error of ours
    """A check has not ended in time; its thread goes on, and nobody waits for it."""


def examine(
    patient: Patient,
    tables: Sequence[str] = (),
    *,
    checklist: Checklist | None = None,
    checks: Sequence[Check | TableCheck] = CHECKS,
    patience: timedelta = PATIENCE,
) -> Examination:
    """Make every check.

    Args:
        patient: what is looked at.
        tables: logical names; none means every table of the configuration.
        checklist: only the checks that are on it, and whether both databases answer.
        checks: which there are.
        patience: how long one may take.

    Returns:
        What they found; a check that failed has found that it could not look.
    """
    names = tables or sorted(patient.configuration.tables)
    away: set[Side] = set()
    found: list[Examined] = []
    for side, reaching in REACHING.items():
        seen = list(_made(reaching, None, partial(reaching.look, patient), patience))
        if any(each.finding.verdict is Verdict.UNKNOWN for each in seen):
            away.add(side)
        found += seen
    for check in checks:
        if check in REACHING.values() or (checklist is not None and checklist not in check.on):
            continue
        for table, look in _looks(check, patient, names):
            if missing := check.of & away:
                which = " and ".join(sorted(_NAMES[side] for side in missing))
                found.append(Examined(check.name, table, unknown(f"not asked: {which} does not answer")))
                continue
            found += _made(check, table, look, patience)
    return Examination(found, frozenset(away))


def _looks(
    check: Check | TableCheck, patient: Patient, names: Iterable[str]
) -> Iterator[tuple[str | None, Callable[[], Iterator[Finding]]]]:
    if isinstance(check, Check):
        yield None, partial(check.look, patient)
    else:
        for name in names:
            yield name, partial(_of_table, check, patient, name)


def _of_table(check: TableCheck, patient: Patient, name: str) -> Iterator[Finding]:
    yield from check.look(patient, patient.store.table(name))


def _made(
    check: Check | TableCheck,
    table: str | None,
    look: Callable[[], Iterator[Finding]],
    patience: timedelta,
) -> Iterator[Examined]:
    seen: list[Finding] = []
    try:
        _within(patience, look, seen)
        findings = list(seen)
    except _Overdue:
        late = unknown(f"it did not end within {patience.total_seconds():g} s", "try again at a quieter time")
        findings = [*seen, late]
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        findings = [
            *seen,
            unknown(f"it failed: {_said(error)}", f"allow {check.allow}" if check.allow else ""),
        ]
    return (Examined(check.name, table, finding) for finding in findings)


def _within(patience: timedelta, look: Callable[[], Iterator[Finding]], seen: list[Finding]) -> None:
    """Look in a thread that nobody has to wait for: an answer may never come."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            with Deadline(patience):
                for finding in look():
                    seen.append(finding)  # noqa: PERF402 - as far as it got is worth telling
        except Exception as error:  # noqa: BLE001 - it is raised again in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="dualstore-doctor", daemon=True)
    thread.start()
    thread.join(patience.total_seconds())
    if thread.is_alive():
        raise _Overdue
    if failures:
        raise failures[0]


def _said(error: Exception) -> str:
    """An error of ours in its words; one of a driver by its class and code, for its text may hold values."""
    if isinstance(error, DualStoreError):
        return str(error)
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", type(error).__name__))
    cause = driver_error(error) if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None)
    return type(cause).__name__ + (f", SQLSTATE {state}" if state else "")
