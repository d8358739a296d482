"""`dualstore schema …`: the bookkeeping in both databases."""

from pathlib import Path

import click

from dualstore import schema as bookkeeping
from dualstore.cli.running import command, config_option, opened


@click.group()
def schema() -> None:
    """Create, upgrade or check the bookkeeping in both databases."""


@schema.command()
@config_option
@command
def upgrade(*, config: Path) -> None:
    """Bring the schema `dualstore` to this version, and create the bookkeeping table in DynamoDB."""
    with opened(config) as store:
        store.prepare()
        click.echo(
            f"PostgreSQL: schema {bookkeeping.SCHEMA} is at revision {bookkeeping.current(store.engine)}\n"
            f"DynamoDB: table {store.options.bookkeeping_table} is there"
        )


@schema.command()
@config_option
@command
def check(*, config: Path) -> bool:
    """See that the schema is of this version and as the migrations left it."""
    with opened(config) as store:
        drift = bookkeeping.check(store.engine)
    for sentence in drift:
        click.echo(sentence)
    if not drift:
        click.echo(f"schema {bookkeeping.SCHEMA} is as it should be, at revision {bookkeeping.HEAD}")
    return not drift
