"""`dualstore relay`: a process that follows DynamoDB's streams and works off PostgreSQL's outbox."""

import signal
import threading
from pathlib import Path

import click

from dualstore.cli.running import command, config_option, opened


@click.command()
@config_option
@command
def relay(*, config: Path) -> None:
    """Bring both databases after each other until SIGTERM or SIGINT; run one, or several for each table.

    It settles what a table's stream tells of, hands what PostgreSQL has written on to DynamoDB, deletes
    expired items, and removes bookkeeping that nothing needs any more.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with opened(config) as store:
        names = sorted(table.served.logical for table in store.tables())
        click.echo(f"relaying {', '.join(names)}; stop with SIGTERM or SIGINT")
        store.relaying().run(stop)
