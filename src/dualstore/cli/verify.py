"""`dualstore verify`: proves the copy, and writes the report of it."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dualstore.backfill.sources import ExportSource, ScanTuning, SourceContext, source_from
from dualstore.backfill.spark import spark_context
from dualstore.cli.keys import key_of
from dualstore.cli.running import command, config_option, console, opened
from dualstore.errors import ConfigurationError
from dualstore.items import Key, KeySchema
from dualstore.stages import Side
from dualstore.store import DualStore
from dualstore.store.proving import DEFAULT_THRESHOLD, ProofOrder, bound_of, verifying_processes
from dualstore.store.sparking import verifying_spark
from dualstore.store.table import MigratedTable
from dualstore.stores.postgres_comparison import PostgresComparison
from dualstore.stores.postgres_mapped import register
from dualstore.stores.source_clients import SourceClients
from dualstore.verify import Crew, Verification
from dualstore.verify.report import KEY_VARIABLE, is_intact, read, signed, write

_DIFFERENCES_SHOWN = 20
_MOST_DISCREPANCIES = 10_000
_PERCENT = 100.0
_SCAN = ("scan",)
_REPAIRS = {
    "missing_on_postgres": "insert on PostgreSQL",
    "missing_on_dynamodb": "remove on PostgreSQL, once DynamoDB has confirmed that they are gone",
    "value": "write again from the authority",
    "duplicate": "write again from DynamoDB, and leave no other row",
    "misplaced": "write again from DynamoDB into the SQL table of its entity",
    "overflow": "write again from DynamoDB",
    "version": "write again from DynamoDB",
}
_OF_ROWS = frozenset({"duplicate", "misplaced", "overflow", "version"})
"""What is wrong with a row whatever its item is; only DynamoDB tells how it should be, where it decides."""
_CHOICES = ("sample", "recent", "keys", "discrepancies", "counts_only", "against_export")
_WORTH_PROCESSES_BYTES = 64 * 1024 * 1024
"""Of the SQL tables: what a process of its own takes to start, a thread has compared by then."""


@click.command()
@click.argument("tables", metavar="TABLE", nargs=-1)
@click.option(
    "--source",
    "sources",
    multiple=True,
    help="`scan`, exports (s3://… or copied folders), or files of JSON lines; else `scan`.",
)
@click.option(
    "--against-export",
    metavar="EXPORT",
    help="What DynamoDB held at a full export, where PostgreSQL is the authority by now.",
)
@click.option("--sample", type=click.IntRange(min=1), help="Compare so many rows, drawn at random.")
@click.option("--recent", metavar="SINCE", help="Compare what was written since a revision or an ISO moment.")
@click.option(
    "--keys", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Compare the keys of a file."
)
@click.option("--discrepancies", is_flag=True, help="Compare the keys of open discrepancies.")
@click.option("--counts-only", is_flag=True, help="Count items and rows, and compare nothing.")
@click.option("--repair", is_flag=True, help="Settle what differs, and look at it again.")
@click.option("--dry-run", is_flag=True, help="Say what --repair would do, and do nothing.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Processes; threads for a small table. With Spark: how many tasks run at a time.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "spark"]),
    default="local",
    show_default=True,
    help="Workers here, or the executors of the Spark job that this command is the driver of.",
)
@click.option("--segments", type=click.IntRange(min=1), default=8, show_default=True, help="Of the Scan.")
@click.option(
    "--read-units-per-second", type=click.FloatRange(min=0, min_open=True), help="The most, at DynamoDB."
)
@click.option(
    "--items-per-second", type=click.FloatRange(min=0, min_open=True), help="The most to read and compare."
)
@click.option(
    "--rows-per-second", type=click.FloatRange(min=0, min_open=True), help="The most, from PostgreSQL."
)
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, max=100),
    default=DEFAULT_THRESHOLD * _PERCENT,
    show_default=True,
    help="The percentage of keys that have to be equal.",
)
@click.option(
    "--report", type=click.Path(path_type=Path), help="Write a report: a .html or .json file, or a folder."
)
@click.option(
    "--check-report",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="See that a report is as it was written, and do nothing else.",
)
@config_option
@command
def verify(tables: Sequence[str], *, config: Path, check_report: Path | None, **options: Any) -> bool:
    """Compare both sides of every TABLE, or of all tables, whole and in both directions.

    A full comparison that was interrupted is gone on with when it is started again.
    """
    if check_report is not None:
        return _check(check_report)
    if sum(bool(options[each]) for each in _CHOICES) > 1:
        raise ConfigurationError(
            f"choose one of {', '.join('--' + each.replace('_', '-') for each in _CHOICES)}"
        )
    if options["repair"] and options["dry_run"]:
        raise ConfigurationError("--dry-run says what --repair would do: give one of them")
    if options["against_export"] and options["sources"]:
        raise ConfigurationError("--against-export is the source: leave out --source")
    options["config"] = config
    with (
        opened(config) as store,
        store.source_clients() as clients,
        _spark_if(options, ", ".join(tables)) as options["spark"],
    ):
        chosen = [store.table(name) for name in tables] or store.tables()
        verdicts = [_verify(store, table, clients, options) for table in chosen]
    return all(verdicts)


def _spark_if(options: dict[str, Any], tables: str) -> AbstractContextManager[Any]:
    """The SparkContext where the engine is Spark."""
    if options["engine"] == "local":
        return nullcontext()
    partial_choices = [each for each in _CHOICES if options[each] and each != "against_export"]
    if partial_choices or "-" in options["sources"]:
        raise ConfigurationError("--engine spark compares all items of a Scan, exports or files")
    return spark_context(f"verify {tables}".strip())


def _verify(store: DualStore, table: MigratedTable, clients: SourceClients, options: dict[str, Any]) -> bool:
    name = table.served.logical
    if options["counts_only"]:
        return _count(store, table, clients)
    with _progress("items") as bar:
        task = bar.add_task(f"verify {name}", total=None)
        order = replace(
            _order(table, clients, options),
            repair=options["repair"],
            workers=options["workers"],
            items_per_second=options["items_per_second"],
            rows_per_second=options["rows_per_second"],
            progress=lambda done: bar.update(
                task,
                completed=done.items,
                description=f"verify {name}, {done.segments_done}/{done.segments_total} pieces",
            ),
        )
        found = table.prove(replace(order, crew=_crew(table, order, options)))
    _print_differences(found)
    click.echo(
        f"{name}: {found.equal:,} equal, {found.difference_count:,} different, {found.repaired:,} repaired, "
        f"{found.moving:,} in motion; run {found.run_id}"
    )
    for line in _further(name, found, order):
        click.echo(line)
    for line in (*_left_alone(table, found), *_in_doubt(name, found)):
        click.echo(line)
    if options["dry_run"]:
        _tell_repairs(table, found)
    threshold = options["threshold"] / _PERCENT
    if options["report"] is not None:
        _report(table, found, order, threshold, options["report"], clients)
    return found.passes(threshold)


def _crew(table: MigratedTable, order: ProofOrder, options: dict[str, Any]) -> Crew | None:
    """Who compares: Spark's executors, processes where that is faster, or else threads."""
    name = table.served.logical
    if options["spark"] is not None:
        return verifying_spark(options["spark"], options["config"], name, order)
    small = table.proving().size_bytes() < _WORTH_PROCESSES_BYTES
    if order.source is None or order.source.kind == "stdin" or order.workers == 1 or small:
        return None
    return verifying_processes(options["config"], name, order)


def _order(table: MigratedTable, clients: SourceClients, options: dict[str, Any]) -> ProofOrder:
    shape = table.served.shape
    if options["sample"]:
        return ProofOrder(sample=options["sample"])
    if options["recent"]:
        return ProofOrder(since=_since(options["recent"]))
    if options["keys"]:
        return ProofOrder(keys=_keys_of(options["keys"], shape.keys))
    if options["discrepancies"]:
        return ProofOrder(keys=_keys_of_discrepancies(table))
    if options["against_export"]:
        export = ExportSource([options["against_export"]], shape=shape, s3=clients.s3)
        return ProofOrder(source=export, against=export.taken_at)
    tuning = ScanTuning(segments=options["segments"], read_units_per_second=options["read_units_per_second"])
    return ProofOrder(
        source=source_from(options["sources"] or _SCAN, SourceContext(shape, clients), scan=tuning)
    )


def _since(text: str) -> int | datetime:
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            "--recent takes a revision, as in --recent 81234, or a moment, as in --recent 2026-01-31T12:00Z"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _keys_of(path: Path, keys: KeySchema) -> Iterator[Key]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if text := line.strip():
                yield key_of(text, keys)


def _keys_of_discrepancies(table: MigratedTable) -> list[Key]:
    recorded = table.discrepancies.recorded(limit=_MOST_DISCREPANCIES)
    keys = [table.discrepancies.key_of(each) for each in recorded if not each.discrepancy.of_request]
    if None in keys:
        raise ConfigurationError(
            f"{table.served.logical}: discrepancies are recorded without their keys: switch "
            "`[shadow] plain_keys` on, or compare the table whole"
        )
    return [key for key in keys if key is not None]


def _count(store: DualStore, table: MigratedTable, clients: SourceClients) -> bool:
    """Rows by count, items by DynamoDB's own, which is up to six hours behind."""
    register(store.engine, table.mapping)
    rows = sum(PostgresComparison(store.engine, table.mapping).row_counts())
    items = clients.scan().describe_table(TableName=table.physical)["Table"]["ItemCount"]
    click.echo(
        f"{table.served.logical}: {rows:,} rows; DynamoDB says {items:,} items, as of up to six hours ago"
    )
    return bool(rows == items)


def _further(name: str, found: Verification, order: ProofOrder) -> Iterator[str]:
    if order.mode == "sample":
        yield (
            f"{name}: with 95 % confidence at most {bound_of(found):.4%} of the rows differ; items without a "
            "row are in no sample of rows"
        )
    if order.against is not None:
        yield (
            f"{name}: compared with what DynamoDB held at {order.against.isoformat()}; {found.later:,} "
            "key(s) changed since, of which it says nothing"
        )
    if found.undecided:
        yield (
            f"{name}: {found.undecided:,} key(s) are other than they were, and nothing tells whether they "
            "were changed or damaged"
        )
    if found.unreadable:
        yield f"{name}: {found.unreadable:,} lines of the source are no items of the table"
    if found.unmapped:
        yield f"{name}: {found.unmapped:,} items are of no entity, and stand in the table for the rest"
    if found.expired:
        yield (
            f"{name}: {found.expired:,} expired on PostgreSQL and gone from DynamoDB, which is no "
            "difference: the relay deletes them"
        )


def _left_alone(table: MigratedTable, found: Verification) -> Iterator[str]:
    """What no repair can mend."""
    if table.stage.rule.authority is not Side.POSTGRES:
        return
    counted = Counter(each.finding for each in found.differences if each.finding in _OF_ROWS)
    for finding, count in sorted(counted.items()):
        yield (
            f"{table.served.logical}: {count:,} row(s) are {finding}, which --repair leaves as they are: "
            "PostgreSQL decides, and nothing tells what else they should hold; write the items again"
        )


def _in_doubt(name: str, found: Verification) -> Iterator[str]:
    """Why both sides are not proven equal, whatever was compared, and what to do."""
    if found.suspects:
        yield (
            f"{name}: still suspect: {', '.join(sorted(found.suspects))}. A verification clears what was so "
            f"when it began, where it knows every key to be equal: run `dualstore verify {name}` again"
        )
    if found.disturbed:
        yield (
            f"{name}: nothing is proven: the history was copied anew meanwhile, or writes passed PostgreSQL "
            f"by. Once every write is mirrored and the copy has ended, run `dualstore verify {name}` again"
        )


def _tell_repairs(table: MigratedTable, found: Verification) -> None:
    name, decides = table.served.logical, table.stage.rule.authority
    for finding, count in sorted(Counter(each.finding for each in found.differences).items()):
        if finding not in _OF_ROWS or decides is Side.DYNAMODB:
            click.echo(f"{name}: --repair would {_REPAIRS.get(finding, 'settle')}: {count:,} key(s)")
    if (more := found.difference_count - len(found.differences)) > 0:
        click.echo(f"{name}: and settle {more:,} more")


def _report(  # noqa: PLR0917 - all of it is in the report
    table: MigratedTable,
    found: Verification,
    order: ProofOrder,
    threshold: float,
    place: Path,
    clients: SourceClients,
) -> None:
    secret = os.environ.get(KEY_VARIABLE)
    described = clients.scan().describe_table(TableName=table.physical)["Table"]
    unsigned = table.proving().report(found, order, threshold=threshold, table_arn=described.get("TableArn"))
    for path in write(signed(unsigned, key=None if secret is None else secret.encode()), place):
        click.echo(f"{table.served.logical}: report in {path}")


def _check(path: Path) -> bool:
    report, secret = read(path), os.environ.get(KEY_VARIABLE)
    intact = is_intact(report, key=None if secret is None else secret.encode())
    verdict = "is as it was written" if intact else "has been changed since it was written"
    click.echo(
        f"{path}: the report of run {report['run_id']} {verdict} ({report['signature'].split(':')[0]})"
    )
    return intact


def _progress(unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=console(),
        disable=not console().is_terminal,
        transient=True,
    )


def _print_differences(found: Verification) -> None:
    if not found.differences:
        return
    shown = Table(box=SIMPLE_HEAD)
    for heading in ("key hash", "finding", "paths", "repaired"):
        shown.add_column(heading)
    for difference in found.differences[:_DIFFERENCES_SHOWN]:
        repaired = "yes" if difference.repaired else "no"
        shown.add_row(difference.key_hash, difference.finding, ", ".join(difference.paths), repaired)
    console().print(shown)
    if (more := found.difference_count - _DIFFERENCES_SHOWN) > 0:
        click.echo(f"and {more:,} more")
