"""The command on one migrated table that mends it: `repair`."""

import time
from pathlib import Path

import click

from dualstore.cli.keys import key_of
from dualstore.cli.running import command, config_option, opened
from dualstore.control import Gate
from dualstore.items import key_hash

_REPAIR_PATIENCE_SECONDS = 30.0

table_argument = click.argument("table")


@click.command()
@table_argument
@click.option(
    "--key", help="Settle this key alone, recorded or not: DynamoDB JSON, plain JSON, or its value."
)
@config_option
@command
def repair(table: str, *, config: Path, key: str | None) -> bool:
    """Settle every key of TABLE that is recorded as doubtful, and open the gate where nothing is left."""
    if key is None:
        return _repair_all(table, config)
    with opened(config) as store:
        migrated = store.table(table)
        keys = migrated.served.shape.keys
        settled = key_of(key, keys)
        migrated.settle([settled])
    click.echo(f"{table}: key {key_hash(keys, settled)} settled")
    return True


def _repair_all(table: str, config: Path) -> bool:
    deadline = time.monotonic() + _REPAIR_PATIENCE_SECONDS
    settled = 0
    with opened(config) as store:
        migrated = store.table(table)
        while True:
            done = migrated.repair()
            settled += done.settled
            if (done.gate is Gate.OPEN and not done.failed) or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        status = migrated.status()
    click.echo(f"{table}: {settled:,} keys settled, {done.failed:,} failed, gate {done.gate}")
    if status.record.suspects:
        click.echo(f"{table}: a process ended unclean; only `dualstore verify {table} --repair` clears that")
    return not status.pending
