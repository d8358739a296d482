"""`dualstore serve`: DynamoDB's wire protocol over either database, or over the router."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal, NoReturn

import click
import sqlalchemy as sa

from dualstore import schema
from dualstore.cli.running import command, config_option, opened
from dualstore.errors import ConfigurationError
from dualstore.items import TableShape  # noqa: TC001 - one import, not worth a block
from dualstore.mapping import TableMapping  # noqa: TC001 - one import, not worth a block
from dualstore.serving import Application, Credentials
from dualstore.serving.apis import ClientApi, ReadingApi, StoreApi
from dualstore.serving.app import THREADS, Api, means_this_machine
from dualstore.serving.tables import ServedTables
from dualstore.serving.upkeep import Upkeep
from dualstore.stages import Side
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres_upkeep import PostgresUpkeep

TOMBSTONE_RETENTION = timedelta(minutes=1)
# Clients keep connections for as long as DynamoDB does; one that this side closes first fails a call.
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 30

ACCESS_KEY_ID, SECRET_ACCESS_KEY = "DUALSTORE_SERVE_ACCESS_KEY_ID", "DUALSTORE_SERVE_SECRET_ACCESS_KEY"

Answering = Literal["postgres", "dynamodb", "routed"]


@click.command()
@config_option
@click.option(
    "--side",
    type=click.Choice(["routed", "postgres", "dynamodb"]),
    default="routed",
    show_default=True,
    help="Who answers: the router, as stage and dials say, or one database alone, for reads only.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one."
)
@click.option(
    "--embedded",
    is_flag=True,
    help="Start an embedded PostgreSQL; its tables go when it stops. Implies --auto-create.",
)
@click.option(
    "--auto-create",
    is_flag=True,
    help="Let CreateTable, DeleteTable and the like make tables on PostgreSQL alone; needs --side postgres.",
)
@command
def serve(*, config: Path, side: Answering, host: str, port: int, embedded: bool, auto_create: bool) -> None:
    """Speak DynamoDB's protocol, so that any SDK in any language can use a table that is being migrated.

    Callers must sign with the credentials in DUALSTORE_SERVE_ACCESS_KEY_ID and
    DUALSTORE_SERVE_SECRET_ACCESS_KEY. Without those nothing but this machine may connect.
    """
    credentials = _credentials(os.environ.get(ACCESS_KEY_ID), os.environ.get(SECRET_ACCESS_KEY))
    if credentials is None and not means_this_machine(host):
        raise ConfigurationError(
            f"--host {host} can be reached from other machines, and no credentials are set: set "
            f"{ACCESS_KEY_ID} and {SECRET_ACCESS_KEY}, or listen on 127.0.0.1"
        )
    if (auto_create or embedded) and side != "postgres":
        raise ConfigurationError("--auto-create and --embedded are of PostgreSQL alone: add --side postgres")
    # uvicorn ends in order at these signals and raises them anew; what is open is then to be closed, too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    with suppress(_Interrupted), _api(config, side, embedded=embedded, auto_create=auto_create) as api:
        _run(api, credentials, host, port)


class _Interrupted(Exception):  # noqa: N818 - not a fault
    """SIGTERM or SIGINT, before uvicorn looks after them or after it has."""


def _interrupt(*_: object) -> NoReturn:
    raise _Interrupted


def _credentials(access_key_id: str | None, secret_access_key: str | None) -> Credentials | None:
    if bool(access_key_id) != bool(secret_access_key):
        raise ConfigurationError(f"set both {ACCESS_KEY_ID} and {SECRET_ACCESS_KEY}, or neither")
    return Credentials(access_key_id, secret_access_key) if access_key_id and secret_access_key else None


@contextlib.contextmanager
def _api(config: Path, side: Answering, *, embedded: bool, auto_create: bool) -> Iterator[Api]:
    """What answers, with everything it needs open until the block ends."""
    with contextlib.ExitStack() as stack:
        if auto_create or embedded:
            engine = stack.enter_context(_engine(config, embedded=embedded))
            yield stack.enter_context(_postgres_alone(engine, upgrade=embedded))
            return
        store = stack.enter_context(opened(config))
        shapes: dict[str, TableShape] = {}
        for table in store.tables():
            shapes[table.served.physical] = table.mapping.shape
            click.echo(f"serving {table.served.physical} ({table.served.logical}) at stage {table.stage}")
        yield ClientApi(store.client()) if side == "routed" else ReadingApi(store.side(Side(side)), shapes)


@contextlib.contextmanager
def _postgres_alone(engine: sa.Engine, *, upgrade: bool) -> Iterator[Api]:
    if upgrade:
        schema.upgrade(engine)
    else:
        schema.require_current(engine)
    mappings: dict[str, TableMapping] = {}
    tables = ServedTables(engine, mappings)
    tables.reload()
    store = PostgresStore(engine, mappings)
    upkeep = PostgresUpkeep(engine, tombstone_retention=TOMBSTONE_RETENTION)
    with Upkeep(store, tables, upkeep):
        yield StoreApi(store, tables)


@contextlib.contextmanager
def _engine(config: Path, *, embedded: bool) -> Iterator[sa.Engine]:
    from dualstore.config import load  # noqa: PLC0415 - an embedded server needs no configuration
    from dualstore.testing.servers import PostgresServer  # noqa: PLC0415 - an optional dependency

    with contextlib.ExitStack() as stack:
        if embedded:
            url = stack.enter_context(PostgresServer()).create_database()
        else:
            url = load(config).postgres.sqlalchemy_url
        engine = sa.create_engine(url, pool_size=THREADS, max_overflow=5)
        stack.callback(engine.dispose)
        yield engine


def _run(api: Api, credentials: Credentials | None, host: str, port: int) -> None:
    try:
        import uvicorn  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise ConfigurationError("dualstore serve needs uvicorn: pip install 'dualstore[serve]'") from None
    try:
        listening = socket.create_server((host, port), family=_family(host), backlog=256)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    click.echo(f"listening on http://{host}:{listening.getsockname()[1]}; stop with SIGTERM or SIGINT")
    settings = uvicorn.Config(
        Application(api, credentials=credentials),
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    uvicorn.Server(settings).run(sockets=[listening])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
