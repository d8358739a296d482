"""Connections to both databases, as a configuration asks for them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy

from dualstore.config import Configuration, PostgresSettings
from dualstore.stores.dynamo import DynamoClients, dynamo_clients
from dualstore.stores.iam_auth import authenticate


@dataclass(frozen=True, slots=True)
class Connections:
    """What both databases are reached by; whoever made it closes it.

    Attributes:
        dynamodb: DynamoDB's clients.
        postgres: the pool of PostgreSQL's primary.
        readers: the pool of its read replicas, where there are any.
    """

    dynamodb: DynamoClients
    postgres: sqlalchemy.Engine
    readers: sqlalchemy.Engine | None

    def close(self) -> None:
        """Close all of them."""
        self.dynamodb.__exit__()
        self.postgres.dispose()
        if self.readers is not None:
            self.readers.dispose()


def connect(configuration: Configuration) -> Connections:
    """Clients and pools; nothing is opened before the first of them is used."""
    postgres, dynamo = configuration.postgres, configuration.dynamodb
    reader_url = postgres.sqlalchemy_reader_url
    return Connections(
        postgres=_engine(postgres, postgres.sqlalchemy_url, region=dynamo.region),
        readers=None if reader_url is None else _engine(postgres, reader_url, region=dynamo.region),
        dynamodb=dynamo_clients(
            endpoint_url=dynamo.endpoint_url,
            region=dynamo.region,
            connect_timeout=timedelta(seconds=dynamo.connect_timeout_seconds),
            read_timeout=timedelta(seconds=dynamo.read_timeout_seconds),
            max_pool_connections=dynamo.max_pool_connections,
        ),
    )


def _engine(settings: PostgresSettings, url: str, *, region: str | None) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(
        url,
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_timeout=settings.pool_timeout_seconds,
        pool_use_lifo=True,  # one caller after another meets the same warm server process
        connect_args=_connect_args(settings),
    )
    if settings.iam:
        authenticate(engine, region=region)
    return engine


def _connect_args(settings: PostgresSettings) -> dict[str, Any]:
    timeout = {"connect_timeout": max(1, round(settings.connect_timeout_seconds))}
    return timeout if settings.prepared_statements else {**timeout, "prepare_threshold": None}
