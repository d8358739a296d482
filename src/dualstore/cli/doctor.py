"""`dualstore doctor`: what of a deployment would get in the way of a migration, with the fix of each."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from dualstore.cli.running import DIFFERENCES, UNAVAILABLE, command, config_option, find_models
from dualstore.config import load
from dualstore.errors import ConfigurationError
from dualstore.rollout.doctor import Checklist, Examination, Examined, Patient, Verdict, examine
from dualstore.store import DualStore
from dualstore.stores.describing import DescribingClients

_MARKS = {Verdict.OK: "ok", Verdict.ADVICE: "advice", Verdict.PROBLEM: "PROBLEM", Verdict.UNKNOWN: "?"}
_MARK_COLUMNS = 9


@click.command()
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document with the evidence.")
@click.option(
    "--checklist",
    type=click.Choice([each.value for each in Checklist]),
    help="Make only the checks of this checklist, and print the evidence of each.",
)
@config_option
@command
def doctor(*, tables: tuple[str, ...], config: Path, as_json: bool, checklist: str | None) -> None:
    """See that the deployment is fit for the migration of some tables, or of all.

    Ends with 1 where there are problems, with 3 where a database does not answer. It changes nothing.
    """
    with _patient(config, tables) as patient:
        seen = examine(patient, tables, checklist=None if checklist is None else Checklist(checklist))
    if as_json:
        click.echo(json.dumps(_document(seen), default=str))
    else:
        for line in _lines(seen, with_evidence=checklist is not None):
            click.echo(line)
    if seen.away:
        sys.exit(UNAVAILABLE)
    if seen.count(Verdict.PROBLEM):
        sys.exit(DIFFERENCES)


@contextmanager
def _patient(config: Path, tables: Sequence[str]) -> Iterator[Patient]:
    find_models()
    configuration = load(config)
    for name in tables:
        if name not in configuration.tables:
            raise ConfigurationError(f"no table is called {name}; add a section [tables.{name}] to {config}")
    settings = configuration.dynamodb
    with (
        # It is no process of the fleet: whoever waits for confirmations need not wait for it.
        DualStore.from_config(config, registers=False) as store,
        DescribingClients(endpoint_url=settings.endpoint_url, region=settings.region) as aws,
    ):
        yield Patient(configuration=configuration, store=store, aws=aws)


def _document(seen: Examination) -> dict[str, Any]:
    return {
        "problems": seen.count(Verdict.PROBLEM),
        "advice": seen.count(Verdict.ADVICE),
        "could_not_look": seen.count(Verdict.UNKNOWN),
        "unreachable": sorted(seen.away),
        "findings": [
            {
                "check": each.check,
                "table": each.table,
                "verdict": each.finding.verdict,
                "says": each.finding.says,
                "fix": each.finding.fix or None,
                "evidence": dict(each.finding.evidence),
            }
            for each in seen.found
        ],
    }


def _lines(seen: Examination, *, with_evidence: bool) -> Iterator[str]:
    for each in seen.found:
        yield f"{_MARKS[each.finding.verdict]:{_MARK_COLUMNS}}{_named(each)}: {each.finding.says}"
        if each.finding.fix:
            yield f"{'':{_MARK_COLUMNS}}  fix: {each.finding.fix}"
        if with_evidence and each.finding.evidence:
            facts = ", ".join(f"{name} {value}" for name, value in each.finding.evidence.items())
            yield f"{'':{_MARK_COLUMNS}}  seen: {facts}"
    counts = {verdict: seen.count(verdict) for verdict in Verdict}
    yield (
        f"{counts[Verdict.PROBLEM]} problem(s), {counts[Verdict.ADVICE]} to consider, "
        f"{counts[Verdict.UNKNOWN]} that could not be looked at, {counts[Verdict.OK]} well"
    )


def _named(each: Examined) -> str:
    return each.check if each.table is None else f"{each.check} of {each.table}"
