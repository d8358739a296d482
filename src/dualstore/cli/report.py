"""`dualstore report`: what happened in a migration, as one file of HTML."""

from datetime import timedelta
from pathlib import Path

import click

from dualstore.cli.running import command, config_option, opened
from dualstore.rollout.screens import gather, histories_of
from dualstore.rollout.screens.page import report_page


@click.command()
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("dualstore-report.html"),
    show_default=True,
    help="The file to write.",
)
@click.option(
    "--days",
    type=click.FloatRange(0, 30, min_open=True),
    default=14.0,
    show_default=True,
    help="How far back; figures are kept for 30 days.",
)
@config_option
@command
def report(*, config: Path, output: Path, days: float) -> None:
    """Write a report: dials, mismatches, latencies, errors, runs, gates and plan events, with plots.

    The file needs nothing else, follows light and dark, and prints. It holds no item's value; keys are not
    in it.
    """
    with opened(config) as store:
        picture = gather(store)
        histories = histories_of(store, picture, within=timedelta(days=days))
    output.write_text(report_page(picture, histories), encoding="utf-8")
    click.echo(f"{output}: {len(picture.tables)} table(s), {len(picture.plans)} plan(s)")
