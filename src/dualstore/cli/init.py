"""`dualstore init`: the first version of a migration's two files."""

from pathlib import Path

import click

from dualstore.cli.running import command, config_option
from dualstore.config import load
from dualstore.errors import ConfigurationError
from dualstore.rollout import draft_configuration, draft_plan


@click.command()
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("migration.yml"),
    show_default=True,
    help="Where the plan goes.",
)
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="NAME=MODEL[,ROW]",
    help="For a new configuration: a table with its import paths, as orders=app:Order,app:OrderRow.",
)
@click.option("--name", default="migration", show_default=True, help="Of the plan, in the record.")
@config_option
@command
def init(*, config: Path, plan_file: Path, tables: tuple[str, ...], name: str) -> None:
    """Write a migration plan for the configured tables, and a configuration where there is none."""
    if plan_file.exists():
        raise ConfigurationError(f"{plan_file} is there already: name another file with --plan, or remove it")
    if config.exists():
        if tables:
            raise ConfigurationError(f"{config} is there already: add its tables there")
        names = sorted(load(config).tables)
        if not names:
            raise ConfigurationError(f"{config} names no table: add a section [tables.<name>]")
    else:
        models = dict(_model(table) for table in tables)
        config.write_text(draft_configuration(models), encoding="utf-8")
        click.echo(f"{config}: written; complete it")
        names = sorted(models)
    if not names:
        click.echo(f"add your tables to {config}, and run `dualstore init` again for the plan")
        return
    plan_file.write_text(draft_plan(names, name=name, file=plan_file.name), encoding="utf-8")
    click.echo(f"{plan_file}: written; `dualstore plan show {plan_file}` says what it will do")


def _model(text: str) -> tuple[str, tuple[str, str | None]]:
    name, equals, paths = text.partition("=")
    model, _, row = paths.partition(",")
    if not (name and equals and model):
        raise ConfigurationError(
            f"--table {text}: write NAME=package.module:Model, or with ,package.module:Row"
        )
    return name, (model, row or None)
