"""`dualstore dashboard`: where a migration stands, as a live page for this machine alone."""

import signal
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import click

from dualstore.cli.running import command, config_option, opened
from dualstore.errors import ConfigurationError
from dualstore.rollout.screens import gather, histories_of
from dualstore.rollout.screens.page import Histories
from dualstore.rollout.screens.picture import Picture
from dualstore.rollout.screens.web import Dashboard
from dualstore.store import DualStore


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free one."
)
@click.option(
    "--every", type=click.FloatRange(min=1), default=5.0, show_default=True, help="Look again, in seconds."
)
@click.option(
    "--hours",
    type=click.FloatRange(0, 720, min_open=True),
    default=24.0,
    show_default=True,
    help="How far back the plots go.",
)
@config_option
@command
def dashboard(*, config: Path, port: int, every: float, hours: float) -> None:
    """Serve a page of where the migration stands, on 127.0.0.1; it only reads.

    However many pages are open, the databases are looked at once in --every seconds. Stop it with SIGINT.
    """

    def look(store: DualStore) -> tuple[Picture, Histories]:
        picture = gather(store)
        return picture, histories_of(store, picture, within=timedelta(hours=hours))

    with opened(config) as store:
        try:
            server = Dashboard(lambda: look(store), port=port, seconds=every)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
        with server, suppress(KeyboardInterrupt):
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.default_int_handler)
            click.echo(f"listening on {server.url}; stop with SIGTERM or SIGINT")
            server.serve_forever()
