"""`dualstore backfill …`: copy the history, watch it from anywhere, and deal with what did not fit."""

import getpass
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from dualstore.backfill import BackfillProgress, BackfillResult, Crew, Threads
from dualstore.backfill.preflight import Prices
from dualstore.backfill.progress import progress_of
from dualstore.backfill.quarantine import QuarantineLimit
from dualstore.backfill.sources import ScanTuning, Source, SourceContext, source_from
from dualstore.backfill.worker import PACE, QUARANTINE_LIMIT
from dualstore.cli.copy_extras import limits_of, say, spark_if, told_of_indexes, without_indexes
from dualstore.cli.copy_progress import Shown, lines_of, shown_as
from dualstore.cli.looking import look_first, report_indexes
from dualstore.cli.running import command, config_option, opened
from dualstore.errors import ConfigurationError
from dualstore.store import DualStore
from dualstore.store.copying import Copying, CopyOrder, processes
from dualstore.store.sparking import spark_crew
from dualstore.stores.ledger import Run, RunState
from dualstore.telemetry import BackfillSeen

_SHOWN_PIECES = 10
_TIMES = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ")


class _TableFirst(click.Group):
    """A group whose command `run` may be left out: `dualstore backfill TABLE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_TableFirst)
def backfill() -> None:
    """Copy the history of a table; `dualstore backfill TABLE` is short for `dualstore backfill run TABLE`."""


table_argument = click.argument("table")


@backfill.command()
@table_argument
@click.option(
    "--source",
    "sources",
    multiple=True,
    default=("scan",),
    help="`scan` (the default), exports (s3://… or folders), files of JSON lines, - for standard input.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes.")
@click.option("--segments", type=click.IntRange(min=1), default=8, show_default=True, help="Of the Scan.")
@click.option(
    "--read-units-per-second", type=click.FloatRange(min=0, min_open=True), help="The most, of all workers."
)
@click.option(
    "--pause-on-alarm",
    "pause_on_alarms",
    multiple=True,
    metavar="NAME",
    help="Read nothing while this CloudWatch alarm rings; may be given again.",
)
@click.option(
    "--max-rows-per-second",
    type=click.FloatRange(min=0, min_open=True),
    help="The most, of all workers on all machines; also changes that of a run that is under way.",
)
@click.option(
    "--max-quarantine",
    help="So many items (or a share, as 0.5%) may be put aside; with more the run stops, to be looked at.",
)
@click.option(
    "--straight",
    is_flag=True,
    help="Copy straight into an empty SQL table whose mirroring has not begun yet.",
)
@click.option(
    "--dual-writes-since",
    type=click.DateTime(_TIMES),
    help="By your word, in UTC: from then on every process has mirrored every write.",
)
@click.option(
    "--taken-at", type=click.DateTime(_TIMES), help="When what files or standard input hold was read, in UTC."
)
@click.option("--dry-run", is_flag=True, help="Read all and try it on temporary tables; write nothing.")
@click.option("--sample", metavar="SHARE", help="The same with a share, as 1%, of the items.")
@click.option(
    "--price-read-units",
    type=float,
    default=Prices().million_read_units,
    show_default=True,
    help="USD for a million read units.",
)
@click.option(
    "--price-s3-requests",
    type=float,
    default=Prices().thousand_s3_requests,
    show_default=True,
    help="USD for a thousand GETs.",
)
@click.option(
    "--max-replication-lag",
    type=float,
    metavar="SECONDS",
    help="Pause while a replica lags by more; 0: never.",
)
@click.option(
    "--max-lock-wait",
    type=float,
    metavar="SECONDS",
    help="Pause while a session waits longer for a lock; 0: never.",
)
@click.option(
    "--max-p99",
    type=float,
    metavar="MS",
    help="Pause while the application's p99 on PostgreSQL is higher; 0: never.",
)
@click.option("--report-indexes", is_flag=True, help="Say what --drop-indexes would save; write nothing.")
@click.option(
    "--drop-indexes",
    is_flag=True,
    help="Drop indexes and foreign keys, and put them back when all is copied.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "spark"]),
    default="local",
    show_default=True,
    help="Processes here, or the executors of the Spark job that this command is the driver of.",
)
@click.option("--json", "as_json", is_flag=True, help="Progress as lines of JSON.")
@config_option
@command
def run(table: str, *, config: Path, as_json: bool, **options: Any) -> bool:
    """Copy the history of TABLE, go on where that was interrupted, or help a run that is under way."""
    settings = {name: value for name in (PACE, QUARANTINE_LIMIT) if (value := options[name]) is not None}
    QuarantineLimit.of(options["max_quarantine"])
    with (
        _terminated_as_interrupted(),
        opened(config) as store,
        store.source_clients() as clients,
        spark_if(options, table) as spark,
    ):
        migrated = store.table(table)
        tuning = ScanTuning(
            segments=options["segments"],
            read_units_per_second=options["read_units_per_second"],
            workers=options["workers"],
            pause_on_alarms=options["pause_on_alarms"],
        )
        context = SourceContext(migrated.served.shape, clients, clients.identity_of(migrated.physical))
        taken_at = _in_utc(options["taken_at"])
        source = source_from(options["sources"], context, scan=tuning, taken_at=taken_at)
        if options["report_indexes"]:
            report_indexes(migrated, source)
            return True
        if options["dry_run"] or options["sample"] is not None:
            return look_first(migrated, source, options, as_json=as_json)
        options["load_limits"] = limits_of(store.options.load_limits, options)
        aside = partial(without_indexes, migrated, drops=options["drop_indexes"])
        with shown_as(table, as_json=as_json) as shown, told_of_indexes(migrated):
            result = migrated.backfill(
                order=CopyOrder(
                    source=source,
                    crew=lambda epoch: aside(_crew(config, table, source, options, epoch=epoch, spark=spark)),
                    workers=options["workers"],
                    load_limits=options["load_limits"],
                    straight=options["straight"],
                    settings=settings,
                    dual_writes_since=_in_utc(options["dual_writes_since"]),
                    progress=_measured(store, table, shown),
                )
            )
    _tell(table, result)
    return result.succeeded


@backfill.command()
@click.argument("table")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@config_option
@command
def status(table: str, *, config: Path, as_json: bool) -> bool:
    """Show how far the latest backfill of TABLE has come, whoever works on it."""
    with opened(config) as store:
        copying = store.table(table).copying
        found = _latest(copying, table)
        totals = copying.runs.totals(found.id)
        done = progress_of(totals)
        for line in lines_of(table, done, run=totals.run, as_json=as_json):
            click.echo(line)
        if not as_json:
            _tell_pieces(copying, found)
    return totals.run.state in {RunState.RUNNING, RunState.FINISHED}


@backfill.command()
@table_argument
@click.option("--reason", default="", help="Shown to whoever finds it paused.")
@config_option
@command
def pause(table: str, *, config: Path, reason: str) -> None:
    """Have all workers on TABLE give their pieces back after the present batch, and wait."""
    with opened(config) as store:
        paused = store.table(table).copying.pause(by=_me(), reason=reason)
    click.echo(f"{table}: run {paused.id} pauses; `dualstore backfill resume {table}` lets it go on")


@backfill.command()
@table_argument
@config_option
@command
def resume(table: str, *, config: Path) -> None:
    """Have the workers on TABLE go on."""
    with opened(config) as store:
        resumed = store.table(table).copying.resume(by=_me())
    click.echo(f"{table}: run {resumed.id} goes on where its workers are")


@backfill.command()
@table_argument
@config_option
@command
def cancel(table: str, *, config: Path) -> None:
    """End the backfill of TABLE; what it has loaded stays, and the next one begins anew."""
    with opened(config) as store:
        ended = store.table(table).copying.cancel(by=_me())
    click.echo(f"{table}: run {ended.id} is cancelled")


@backfill.command()
@table_argument
@config_option
@command
def quarantine(table: str, *, config: Path) -> bool:
    """List the items of TABLE that could not be loaded: key hashes and reasons."""
    with opened(config) as store:
        kept = store.table(table).copying.quarantine
        reasons = kept.reasons()
        for page in kept.entries():
            for entry in page:
                click.echo(f"{entry.key_hash}  {entry.reason}: {entry.detail}")
    for reason, count in reasons.items():
        click.echo(f"{table}: {count:,} {reason}")
    if not reasons:
        click.echo(f"{table}: nothing is in quarantine")
    return not reasons


@backfill.command("retry-quarantine")
@table_argument
@config_option
@command
def retry_quarantine(table: str, *, config: Path) -> bool:
    """Settle the keys in quarantine of TABLE from DynamoDB; those that fit by now come out of it."""
    with opened(config) as store:
        done = store.table(table).retry_quarantine()
    click.echo(f"{table}: {done.closed:,} came out of quarantine, {done.refused:,} do not fit yet")
    if done.without_key:
        click.echo(
            f"{table}: {done.without_key:,} have no key that could be read: mend the source, then backfill"
        )
    return not done.refused and not done.without_key


@backfill.command("restore-indexes")
@table_argument
@config_option
@command
def restore_indexes(table: str, *, config: Path) -> None:
    """Put back the indexes and foreign keys of TABLE that a backfill has set aside, exactly as they were."""
    with opened(config) as store:
        there = store.table(table).indexes_aside.restore(restored=partial(say, table, "put back"))
    if not there:
        click.echo(f"{table}: no index or foreign key is set aside")


def _crew(
    config: Path, table: str, source: Source, options: Mapping[str, Any], *, epoch: int, spark: Any
) -> Crew:
    """Processes or Spark; one worker alone, and one that reads standard input, works in this process."""
    if spark is None and (options["workers"] == 1 or source.kind == "stdin"):
        return Threads(1)
    shared = {
        "epoch": epoch,
        "parameters": dict(source.parameters()),
        "straight": options["straight"],
        "load_limits": options["load_limits"],
    }
    if spark is not None:
        return spark_crew(spark, config, table, **shared)
    return processes(config, table, workers=options["workers"], **shared)


def _measured(store: DualStore, table: str, shown: Shown) -> Shown:
    """Progress that is shown, and counted for whoever collects metrics."""

    def report(done: BackfillProgress) -> None:
        store.telemetry.record(
            BackfillSeen(
                table,
                items=done.items,
                read_units=done.read_units,
                quarantined=done.failed,
                rows_per_second=done.rate,
                pieces_left=done.pieces_total - done.pieces_done,
            )
        )
        shown(done)

    return report


def _tell(table: str, result: BackfillResult) -> None:
    done = result.totals
    click.echo(
        f"{table}: {done.items:,} items read, {done.inserted:,} inserted, {done.settled:,} settled, "
        f"{done.failed:,} failed; run {result.run_id}"
    )
    for piece in result.failed_pieces[:_SHOWN_PIECES]:
        click.echo(f"{table}: piece {piece.number} was given up: {piece.error}")
    if (more := len(result.failed_pieces) - _SHOWN_PIECES) > 0:
        click.echo(f"{table}: and so were {more:,} more")
    if done.failed:
        click.echo(f"{table}: `dualstore backfill quarantine {table}` lists what could not be loaded")


def _tell_pieces(copying: Copying, found: Run) -> None:
    troubled = [piece for piece in copying.runs.pieces(found) if piece.error]
    for piece in troubled[:_SHOWN_PIECES]:
        click.echo(f"  piece {piece.number} ({piece.state}): {piece.error}")


def _latest(copying: Copying, table: str) -> Run:
    found = copying.run()
    if found is None:
        raise ConfigurationError(f"{table} has not been backfilled yet: `dualstore backfill {table}`")
    return found


def _in_utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the command as ^C does: workers give their pieces back first."""

    def interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
