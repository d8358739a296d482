"""`dualstore stop`: every read goes to the authority, now."""

import getpass
import platform
import time
from collections.abc import Mapping  # noqa: TC003 - one import, not worth a block
from contextlib import suppress
from pathlib import Path

import click
from botocore.exceptions import BotoCoreError, ClientError

from dualstore.cli.running import command, config_option, opened
from dualstore.control import ControlRecord
from dualstore.errors import Unavailable
from dualstore.replication.stopping import Stopping
from dualstore.stages import Side
from dualstore.store import DualStore

_NAMES = {Side.DYNAMODB: "DynamoDB", Side.POSTGRES: "PostgreSQL"}
_LOOK_SECONDS = 0.1
_REASON_CHARACTERS = 200


@click.command()
@click.argument("table")
@click.option("--reason", default="", help="Why, in a few words, for those who find it stopped.")
@click.option("--by", help="Who stops it; else the user and machine at hand.")
@click.option("--release", is_flag=True, help="Take a stop back: reads go where the dials say again.")
@click.option(
    "--wait", type=float, default=5.0, show_default=True, help="Seconds to wait for all processes to confirm."
)
@config_option
@command
def stop(table: str, *, config: Path, reason: str, by: str | None, release: bool, wait: float) -> None:
    """Send every read of TABLE to its authority now, whatever the flags ask for, until it is released.

    Before `live` one reachable database is enough, from `live` on it must be PostgreSQL.
    """
    with opened(config) as store:
        if release:
            record = store.resume(table)
            click.echo(f"{table}: released; {_reads(record)}")
            _print_confirmations(store, record, wait)
            return
        stopped = store.stop(table, by=by or _somebody(), reason=reason[:_REASON_CHARACTERS])
        _print_reached(table, stopped)
        if stopped.record is not None:
            _print_confirmations(store, stopped.record, wait)


def _print_reached(table: str, stopped: Stopping) -> None:
    record = stopped.record
    if record is None:
        click.echo(f"{table}: PostgreSQL answers no read of the mirror any more")
    else:
        click.echo(f"{table}: {_reads(record)}; {record.stopped}")
    for side in Side:
        failure = stopped.failures.get(side)
        if failure is not None:
            click.echo(f"  {_NAMES[side]} did not take it: {_in_words(failure)}")
        elif side is Side.POSTGRES and stopped.marked:
            click.echo("  PostgreSQL took it, and looks at it with every read of the mirror")
        elif record is not None and record.authority is side:
            click.echo(f"  {_NAMES[side]} took it")
    if record is None:
        click.echo(
            "  Comparison reads end, and it shows in the status, once a process reaches both databases"
        )


def _reads(record: ControlRecord) -> str:
    """Where reads go, as a record says."""
    if record.authority is Side.POSTGRES:
        also = " alone: comparison reads have ended" if record.stopped is not None else ""
        return f"PostgreSQL is the authority, and all reads go there{also}"
    if record.stopped is not None:
        return "all reads go to DynamoDB, the authority"
    return f"the share of reads that go to PostgreSQL is {record.dials.postgres_read_percent:g} %"


def _print_confirmations(store: DualStore, record: ControlRecord, wait: float) -> None:
    """What each process has confirmed, after waiting a little for all of them."""
    deadline = time.monotonic() + wait
    processes: Mapping[str, bool] = {}
    with suppress(ClientError, BotoCoreError, Unavailable):
        while not all((processes := store.confirmed(record)).values()) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
    grant = store.options.grants.read.total_seconds()
    for label, confirmed in sorted(processes.items()):
        said = (
            "confirmed" if confirmed else f"not confirmed yet; acts on it within {grant:g} s, or not at all"
        )
        click.echo(f"  {label}: {said}")


def _in_words(failure: Exception) -> str:
    """A failure without what a driver may quote of a request."""
    if isinstance(failure, ClientError):
        return str(failure.response.get("Error", {}).get("Code", type(failure).__name__))
    return str(failure) if isinstance(failure, Unavailable) else type(failure).__name__


def _somebody() -> str:
    """The user and machine at hand; containers may know neither."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # the last two until Python 3.13
        user = "somebody"
    return f"{user}@{platform.node() or 'unknown'}"
