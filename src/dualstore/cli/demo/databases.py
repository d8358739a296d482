"""The two databases of a demonstration: started here, or the user's own."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from botocore.exceptions import BotoCoreError, ClientError

from dualstore.cli.demo.evidence import CONFIGURATION, connected
from dualstore.cli.demo.example import MODEL, ROW, TABLE
from dualstore.config import load
from dualstore.errors import ConfigurationError, Unavailable
from dualstore.stores.dynamo import dynamo_clients
from dualstore.stores.dynamo_streams import DynamoStreams
from dualstore.testing.servers import DynamoDB, DynamoDBServer, Postgres, PostgresServer

BOOKKEEPING_TABLE = "dualstore"
_HASTE: Mapping[str, Mapping[str, float]] = {
    "control": {"poll_interval_seconds": 0.2, "write_grant_seconds": 4.0},
    "flags": {"poll_interval_seconds": 0.1},
    "relay": {"lease_seconds": 8.0},
    "telemetry": {"rollup_seconds": 0.5},
}
"""What is set shorter than usual, as nobody wants to watch a demonstration wait."""

_CONFIGURATION = """\
[postgres]
url = {postgres}

[dynamodb]
endpoint_url = {endpoint}
region = "us-east-1"
bookkeeping_table = "{bookkeeping}"

[flags]
kind = "file"
path = "flags.json"
{flags}

[control]
{control}

[relay]
{relay}

[telemetry]
{telemetry}

[tables.{table}]
model = "{model}"
row = "{row}"
"""


@dataclass(frozen=True, slots=True)
class Databases:
    """Both databases, up and empty.

    Attributes:
        postgres: the PostgreSQL server.
        postgres_url: SQLAlchemy's URL of the database to use.
        dynamodb: the DynamoDB.
        configuration: the `dualstore.toml` that names both.
    """

    postgres: Postgres
    postgres_url: str
    dynamodb: DynamoDB
    configuration: Path

    @property
    def stoppable(self) -> PostgresServer | None:
        """The PostgreSQL server if it is ours to stop."""
        return self.postgres if isinstance(self.postgres, PostgresServer) else None

    @property
    def libpq_url(self) -> str:
        """The database's URL as psql takes it."""
        return self.postgres_url.replace("postgresql+psycopg://", "postgresql://", 1)

    @property
    def suspendable(self) -> DynamoDBServer | None:
        """The DynamoDB if it is ours to put out of reach."""
        return self.dynamodb if isinstance(self.dynamodb, DynamoDBServer) else None

    def keep(self) -> None:
        """Leaves servers of our own running when the context ends."""
        if isinstance(self.postgres, PostgresServer):
            self.postgres.keep()
        if isinstance(self.dynamodb, DynamoDBServer):
            self.dynamodb.keep()

    def pids(self) -> list[int]:
        """The process ids of servers of our own."""
        servers = (self.postgres, self.dynamodb)
        return [
            s.pid for s in servers if isinstance(s, PostgresServer | DynamoDBServer) and s.pid is not None
        ]


@contextmanager
def databases(
    folder: Path, *, postgres_dsn: str | None, dynamodb_endpoint: str | None
) -> Iterator[Databases]:
    """Starts both databases, or takes the user's, and sets the environment by which the example finds them.

    Args:
        folder: takes the configuration.
        postgres_dsn: an empty database of the user's.
        dynamodb_endpoint: a DynamoDB of the user's, without tables of the demo's names.

    Raises:
        ConfigurationError: a package is missing, or the user's database is not empty.
        Unavailable: a database does not start or does not answer.
    """
    with (
        Postgres(postgres_dsn) if postgres_dsn else _postgres_in(folder) as postgres,
        DynamoDB(dynamodb_endpoint) if dynamodb_endpoint else DynamoDBServer() as dynamodb,
    ):
        if ".amazonaws.com" not in dynamodb.endpoint_url:  # a stand-in, which takes any account
            os.environ.update(AWS_ACCESS_KEY_ID="dualstore", AWS_SECRET_ACCESS_KEY="dualstore")  # noqa: S106
        os.environ["AIRPORTS_DYNAMODB_URL"] = dynamodb.endpoint_url
        url = postgres.url if postgres_dsn else postgres.create_database(TABLE)
        configuration = folder / CONFIGURATION
        found = Databases(postgres, url, dynamodb, configuration)
        _require_empty(found)
        text = _CONFIGURATION.format(
            postgres=_toml(found.libpq_url),
            endpoint=_toml(dynamodb.endpoint_url),
            bookkeeping=BOOKKEEPING_TABLE,
            table=TABLE,
            model=MODEL,
            row=ROW,
            **{name: _toml_lines(keys) for name, keys in _HASTE.items()},
        )
        configuration.touch(mode=0o600)
        configuration.write_text(text, encoding="utf-8")
        yield found


def hastened(configuration: Path) -> str:
    """What the demo's configuration sets shorter than usual, in words."""
    present = load(configuration)
    told = []
    for section, keys in _HASTE.items():
        settings = getattr(present, section)
        usual = type(settings).model_fields
        told += [
            f"{section}.{key} {getattr(settings, key):g} instead of {usual[key].default:g}" for key in keys
        ]
    return ", ".join(told)


@contextmanager
def out_of_reach(server: DynamoDBServer) -> Iterator[None]:
    """Suspends a DynamoDB: as behind a broken network, requests are neither answered nor refused.

    What was sent meanwhile is carried out when it goes on, long after its sender has given up.
    """
    pid = server.pid
    if pid is None:
        raise Unavailable("the DynamoDB to be suspended does not run")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def enable_stream(client: Any, table: str) -> None:
    """Gives a table the stream that stage `live` requires, and waits until it is there."""
    client.update_table(
        TableName=table,
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    client.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1})


def serves_stream(configuration: Path, table: str) -> bool:
    """Whether the stream of a table can be read: not every stand-in of a user's has streams."""
    settings = load(configuration).dynamodb
    with dynamo_clients(endpoint_url=settings.endpoint_url, region=settings.region) as clients:
        try:
            stream = DynamoStreams(clients).stream_of(table)
        except (ClientError, BotoCoreError):
            return False
    return stream is not None and stream.enabled and bool(stream.shards)


def remove_demo_tables(databases: Databases) -> None:
    """Removes what a demonstration created in databases of the user's."""
    if not isinstance(databases.postgres, PostgresServer):
        with connected(databases.postgres_url) as connection:
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {TABLE}"))
            connection.execute(sa.text("DROP SCHEMA IF EXISTS dualstore CASCADE"))
    if not isinstance(databases.dynamodb, DynamoDBServer):
        client = databases.dynamodb.client()
        for table in (TABLE, BOOKKEEPING_TABLE):
            client.delete_table(TableName=table)


def _postgres_in(folder: Path) -> PostgresServer:
    """A server that keeps its data in the folder, so that a demo that is kept is all in one place."""
    folder.chmod(0o711)  # started by root, PostgreSQL runs as somebody else, who has to get there
    return PostgresServer(data_directory=folder / "postgres")


def _require_empty(databases: Databases) -> None:
    with connected(databases.postgres_url) as connection:
        inspector = sa.inspect(connection)
        if inspector.has_table(TABLE) or "dualstore" in inspector.get_schema_names():
            raise ConfigurationError(
                f"PostgreSQL has a table {TABLE} or a schema dualstore there already: name an empty database"
            )
    client = databases.dynamodb.client()
    for table in (TABLE, BOOKKEEPING_TABLE):
        if _exists(client, table):
            raise ConfigurationError(
                f"DynamoDB has a table {table} already: name another endpoint, or remove it"
            )


def _exists(client: Any, table: str) -> bool:
    try:
        client.describe_table(TableName=table)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return False
        raise
    return True


def _toml_lines(keys: Mapping[str, float]) -> str:
    return "\n".join(f"{key} = {value}" for key, value in keys.items())


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
