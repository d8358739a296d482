"""`dualstore dev`: both databases on this machine, for development, without Docker."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import sqlalchemy as sa

from dualstore.cli.running import command
from dualstore.config import DEFAULT_FILE
from dualstore.errors import ConfigurationError, Unavailable
from dualstore.flags import StaticFlags
from dualstore.store import DualStore
from dualstore.stores.dynamo import dynamo_clients
from dualstore.testing.servers import DynamoDB, DynamoDBServer, Postgres, PostgresServer

_DATABASE, _REGION = "app", "us-east-1"
_ENDS_WITHIN_SECONDS, _LOOK_SECONDS = 20.0, 0.05
_STATE = "dev.json"

folder_option = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".dualstore-dev"),
    show_default=True,
    help="Where both keep their data.",
)


@dataclass(frozen=True, slots=True)
class _Running:
    """Both servers, as the folder's file remembers them.

    Attributes:
        postgres_url: as `postgres.url` takes it; the password was made for it.
        postgres_pid: of the server.
        dynamodb_url: the endpoint.
        dynamodb_pid: of the server.
    """

    postgres_url: str
    postgres_pid: int
    dynamodb_url: str
    dynamodb_pid: int

    def answering(self) -> dict[int, signal.Signals]:
        """By process id, what ends each server in good order that answers at its address.

        A process id alone may be another's by now.
        """
        found = {}
        with suppress(Unavailable), Postgres(self.postgres_url):
            found[self.postgres_pid] = signal.SIGINT
        with suppress(Unavailable), DynamoDB(self.dynamodb_url):
            found[self.dynamodb_pid] = signal.SIGTERM
        return found


@click.group()
def dev() -> None:
    """Run both databases on this machine, for development, without Docker."""


@dev.command()
@folder_option
@click.option("--detach", is_flag=True, help="Leave both running, until `dualstore dev down`.")
@command
def up(*, folder: Path, detach: bool) -> None:
    """Start PostgreSQL and a DynamoDB, upgrade the schema, and say how to reach them.

    Stays until it is interrupted; what is stored stays in the folder.
    """
    remembered = _remembered(folder)
    if remembered is not None and remembered.answering():
        click.echo(_told(remembered))
        return
    with _started(folder) as (postgres, dynamodb):
        running = _Running(_database(postgres), postgres.pid or 0, dynamodb.endpoint_url, dynamodb.pid or 0)
        _prepare(running)
        _remember(folder, running)
        if detach:
            postgres.keep()
            dynamodb.keep()
            click.echo(_told(running))
            return
        try:
            _wait_for_the_end(_told(running))
        finally:
            _forget(folder)


@dev.command()
@folder_option
@command
def down(*, folder: Path) -> None:
    """End what `dualstore dev up` has started, in good order; what is stored stays."""
    remembered = _remembered(folder)
    ending = {} if remembered is None else remembered.answering()
    for pid, how in ending.items():
        with suppress(ProcessLookupError):
            os.kill(pid, how)
    ends = time.monotonic() + _ENDS_WITHIN_SECONDS
    while any(map(_is_process, ending)):
        if time.monotonic() > ends:
            raise Unavailable(f"processes {list(ending)} have not ended in {_ENDS_WITHIN_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)
    _forget(folder)
    click.echo(f"ended; what is stored is in {folder}" if ending else "nothing runs")


@dev.command()
@folder_option
@command
def status(*, folder: Path) -> bool:
    """Say how to reach them; 1 where they do not both run."""
    remembered = _remembered(folder)
    answering = {} if remembered is None else remembered.answering()
    if remembered is None or not answering:
        click.echo("nothing runs; start it with: dualstore dev up")
        return False
    for name, pid in (("PostgreSQL", remembered.postgres_pid), ("DynamoDB", remembered.dynamodb_pid)):
        click.echo(f"# {name} {'answers' if pid in answering else 'does not answer'}")
    click.echo(_told(remembered))
    return len(answering) > 1


@contextmanager
def _started(folder: Path) -> Iterator[tuple[PostgresServer, DynamoDBServer]]:
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)  # started by root, PostgreSQL runs as nobody
    with (
        PostgresServer(data_directory=folder / "postgres") as postgres,
        DynamoDBServer(data_directory=(folder / "dynamodb").resolve()) as dynamodb,
    ):
        yield postgres, dynamodb


def _database(postgres: PostgresServer) -> str:
    """The URL of the database, which is made where it is not there yet."""
    engine = sa.create_engine(postgres.url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        there = connection.scalar(
            sa.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": _DATABASE}
        )
    if not there:
        postgres.create_database(_DATABASE)
    url = sa.make_url(postgres.url).set(drivername="postgresql", database=_DATABASE)
    return url.render_as_string(hide_password=False)


def _prepare(running: _Running) -> None:
    url = running.postgres_url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    clients = dynamo_clients(
        endpoint_url=running.dynamodb_url,
        region=_REGION,
        access_key_id="dualstore",
        secret_access_key="dualstore",  # noqa: S106 - a stand-in takes any
    )
    with clients, DualStore(engine=engine, dynamodb=clients, flags=StaticFlags()) as store:
        store.prepare()
    engine.dispose()


def _told(running: _Running) -> str:
    return f"""\
# {DEFAULT_FILE}
[postgres]
url = {json.dumps(running.postgres_url)}

[dynamodb]
endpoint_url = "{running.dynamodb_url}"
region = "{_REGION}"

# or in the environment, with the account that the stand-in takes
export DUALSTORE_POSTGRES__URL='{running.postgres_url}'
export DUALSTORE_DYNAMODB__ENDPOINT_URL='{running.dynamodb_url}'
export DUALSTORE_DYNAMODB__REGION='{_REGION}'
export AWS_ACCESS_KEY_ID=dualstore AWS_SECRET_ACCESS_KEY=dualstore"""


def _wait_for_the_end(told: str) -> None:
    ended = threading.Event()
    former = {each: signal.signal(each, lambda *_: ended.set()) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        click.echo(told)
        click.echo("\nBoth run until Ctrl-C.", err=True)
        ended.wait()
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)


# -- what the folder remembers -------------------------------------------------------------------


def _remember(folder: Path, running: _Running) -> None:
    path = folder / _STATE
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(running)), encoding="utf-8")


def _forget(folder: Path) -> None:
    (folder / _STATE).unlink(missing_ok=True)


def _remembered(folder: Path) -> _Running | None:
    path = folder / _STATE
    try:
        return _Running(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise ConfigurationError(f"{path} was not written by `dualstore dev up`; remove it") from None


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
