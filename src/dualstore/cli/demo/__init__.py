"""`dualstore demo`: a whole migration of real data under live traffic, with faults, and proof at the end."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from dualstore.cli.running import command, console
from dualstore.errors import ConfigurationError

_NEEDED = ("airportsdata", "jinja2", "ldclient", "matplotlib")


@click.command()
@click.option("--fast", is_flag=True, help="Fewer airports and calls, shorter steps.")
@click.option("--keep", is_flag=True, help="Leave both databases running, and say how to connect.")
@click.option(
    "--prove",
    "kept",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Only compute the proof again, on what --keep has left running in this folder.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("dualstore-demo.html"),
    show_default=True,
    help="Where the HTML report goes.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of every random choice.")
@click.option("--postgres-dsn", metavar="DSN", help="An empty PostgreSQL database of yours.")
@click.option("--dynamodb-endpoint", metavar="URL", help="A DynamoDB of yours.")
@command
def demo(*, kept: Path | None, **options: Any) -> bool:
    """Migrate 28,000 airports under live traffic, with faults, and prove the result."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"the demo needs {', '.join(missing)}: pip install 'dualstore[demo]'")
    from dualstore.cli.demo.command import DemoOptions, prove_again, run_demo  # noqa: PLC0415 - needs the extra

    if kept is not None:
        return prove_again(kept, console())
    return run_demo(DemoOptions(**options), console())
