"""What all commands share: how errors become exit codes, where results go, and how a store is opened."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, ParamSpec

import click
from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import PynamoDBException
from sqlalchemy.exc import OperationalError

from dualstore.config import DEFAULT_FILE
from dualstore.errors import ConfigurationError, DualStoreError, IllegalTransition, SchemaError, Unavailable
from dualstore.store import DualStore

if TYPE_CHECKING:
    from rich.console import Console

DONE, DIFFERENCES, USAGE, UNAVAILABLE = 0, 1, 2, 3
"""The exit codes of every command."""

_EXIT_CODES: dict[type[Exception], int] = {
    IllegalTransition: DIFFERENCES,
    ConfigurationError: USAGE,
    SchemaError: USAGE,
    Unavailable: UNAVAILABLE,
    OperationalError: UNAVAILABLE,
    ClientError: UNAVAILABLE,
    BotoCoreError: UNAVAILABLE,
    PynamoDBException: UNAVAILABLE,
    DualStoreError: DIFFERENCES,
}
"""The first that fits decides."""

_PLAIN_WIDTH = 200

P = ParamSpec("P")

config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(DEFAULT_FILE),
    show_default=True,
    help="The configuration; DUALSTORE_… variables win over it.",
)


def command(function: Callable[P, bool | None]) -> Callable[P, NoReturn]:
    """Makes a command of a function that returns False for differences; its errors become exit codes."""

    @wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> NoReturn:
        try:
            well = function(*arguments, **options)
        except tuple(_EXIT_CODES) as error:
            code = next(code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))
            # SQLAlchemy quotes the statement and its parameters, which may be values.
            said = str(error.orig) if isinstance(error, OperationalError) else str(error)
            click.echo(f"dualstore: {said.strip()}", err=True)
            sys.exit(code)
        sys.exit(DIFFERENCES if well is False else DONE)

    return run


def console() -> "Console":
    """Where results go: as wide as the terminal, or as wide as tables need where there is none."""
    from rich.console import Console  # noqa: PLC0415 - services that print nothing need none

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=_PLAIN_WIDTH)


def find_models() -> None:
    """Have models found from the working directory."""
    if "" not in sys.path and (here := os.getcwd()) not in sys.path:  # noqa: PTH109 - sys.path has strings
        sys.path.insert(0, here)  # a console script looks in its own folder instead


@contextmanager
def opened(config: Path) -> Iterator[DualStore]:
    """The store of a configuration, whose models are found from the working directory."""
    find_models()
    with DualStore.from_config(config) as store:
        yield store
