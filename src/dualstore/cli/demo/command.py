"""Runs the demonstration from the command line: start the databases, show the walk, prove, report."""

import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dualstore.cli.demo.databases import Databases, databases, hastened, remove_demo_tables
from dualstore.cli.demo.evidence import LEDGERS, Evidence, prove
from dualstore.cli.demo.example import chosen_records, example_folder, import_example
from dualstore.cli.demo.ledger import read_ledgers
from dualstore.cli.demo.planned import PLAN
from dualstore.cli.demo.proof import Check, named, pauses
from dualstore.cli.demo.report import write_report
from dualstore.cli.demo.scenario import Demonstration
from dualstore.cli.demo.screen import proof_table, shown, step_table
from dualstore.cli.demo.steps import FAST, FULL, steps
from dualstore.cli.demo.timeline import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the command line asks for.

    Attributes:
        fast: fewer airports and shorter steps.
        keep: leave both databases running.
        report: where the HTML report goes.
        seed: of every random choice.
        postgres_dsn: an empty PostgreSQL database of the user's.
        dynamodb_endpoint: a DynamoDB of the user's.
    """

    fast: bool
    keep: bool
    report: Path
    seed: int
    postgres_dsn: str | None
    dynamodb_endpoint: str | None


def run_demo(options: DemoOptions, console: Console) -> bool:
    """Runs the demonstration.

    Returns:
        Whether everything was proven.

    Raises:
        DualStoreError: something is missing or does not answer.
    """
    folder = Path(tempfile.mkdtemp(prefix="dualstore-demo-"))
    with databases(
        folder, postgres_dsn=options.postgres_dsn, dynamodb_endpoint=options.dynamodb_endpoint
    ) as both:
        proven = _demonstrate(options, console, both, folder)
        if options.keep:
            both.keep()
            _say_how_to_connect(console, both, folder)
        else:
            remove_demo_tables(both)
    if proven and not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    elif not proven:
        console.print(f"Ledgers and logs are in {folder}", highlight=False, soft_wrap=True)
    return proven


def prove_again(folder: Path, console: Console) -> bool:
    """Computes the proof of a demonstration that was kept, on its databases as they are now.

    Raises:
        ConfigurationError: the folder holds none.
        Unavailable: a database no longer answers.
    """
    checks = prove(folder, Evidence.load(folder))
    console.print(proof_table(checks))
    return _say_verdict(console, checks)


def _demonstrate(options: DemoOptions, console: Console, both: Databases, folder: Path) -> bool:
    logging.basicConfig(
        filename=folder / "demo.log",
        level=logging.WARNING,
        format="%(asctime)s %(name)s %(levelname)s %(message)s",
    )
    pace = FAST if options.fast else FULL
    example = import_example()
    records = chosen_records(example, count=pace.airports, seed=options.seed)
    timeline = Timeline()
    demonstration = Demonstration(
        databases=both,
        example=example,
        records=records,
        folder=folder,
        pace=pace,
        seed=options.seed,
        timeline=timeline,
    )
    title = f"{len(records):,} airports move from DynamoDB to PostgreSQL"
    with shown(timeline, console, title=title, steps=list(steps(with_streams=True))):
        timeline.note(f"the plan is examples/airports/migration.yml, {pace.shortened}")
        timeline.note(f"set shorter than usual: {hastened(both.configuration)}")
        evidence = demonstration.run()
        evidence.save(folder)
        timeline.note("the proof is computed from the ledger and from both databases, read raw")
        checks = prove(folder, evidence)
        paused = pauses(read_ledgers(folder / LEDGERS), evidence.moves)
        if paused:
            timeline.note(f"the longest that a write waited in each move of the authority: {named(paused)}")
    console.print(step_table(timeline))
    console.print(proof_table(checks))
    facts = _facts(options, both, timeline, len(records))
    write_report(options.report, timeline, checks, facts=facts, pauses=paused)
    proven = _say_verdict(console, checks)
    console.print(
        f"Took {timeline.now:.0f} s. Report: {options.report.resolve()}", highlight=False, soft_wrap=True
    )
    return proven


def _facts(options: DemoOptions, both: Databases, timeline: Timeline, airports: int) -> dict[str, str]:
    dynamodb = f"{both.dynamodb.engine} {both.dynamodb.version}".strip()
    return {
        "airports": f"{airports:,}",
        "duration": f"{timeline.now:.0f} s",
        "DynamoDB": dynamodb if options.dynamodb_endpoint is None else "an endpoint of the user's",
        "PostgreSQL": both.postgres.version,
        "Python": sys.version.split()[0],
        "seed": str(options.seed),
    }


def _say_verdict(console: Console, checks: Sequence[Check]) -> bool:
    failed = sum(not check.holds for check in checks)
    if failed:
        console.print(f"NOT proven: {failed} of {len(checks)} claims do not hold.", style="bold red")
    else:
        console.print(
            "Proven: every acknowledged write is where it has to be, exactly once, and nothing else is.",
            style="bold green",
        )
    return not failed


def _say_how_to_connect(console: Console, both: Databases, folder: Path) -> None:
    shown = f"dualstore plan show {folder / PLAN} --record --config {both.configuration}"
    lines = (
        "Both databases are still running:",
        f"  psql '{both.libpq_url}'",
        f"  aws dynamodb scan --table-name airports --endpoint-url {both.dynamodb.endpoint_url}",
        "See what every step of the plan did, and what its gates saw:",
        f"  PYTHONPATH={example_folder()} {shown}",
        "Change what you like, and compute the proof again:",
        f"  dualstore demo --prove {folder}",
        f"End them:\n  kill -INT {' '.join(map(str, both.pids()))}; sleep 2; rm -r {folder}"
        if both.pids()
        else "",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
