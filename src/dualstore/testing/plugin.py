"""The pytest plugin: databases for the equivalence kit and for tests of your own.

pytest loads it by itself where dualstore is installed. A fixture that cannot have its server is an error that
says what to install, never a skip. Override `dualstore_engine` to test on a database that your own migrations
have made.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def dualstore_postgres() -> Iterator[Any]:
    """A PostgreSQL server: the one that DUALSTORE_TEST_POSTGRES_DSN names, else an embedded one."""
    from dualstore.testing.servers import Postgres, PostgresServer  # noqa: PLC0415 - only where it is used
    from dualstore.testing.servers.cluster import DSN_VARIABLE  # noqa: PLC0415 - as above

    dsn = os.environ.get(DSN_VARIABLE)
    # Nothing of a test outlives its server, so nothing need reach the disk.
    with PostgresServer(settings={"fsync": "off"}) if dsn is None else Postgres(dsn) as server:
        yield server


@pytest.fixture(scope="session")
def dualstore_engine(dualstore_postgres: Any) -> Iterator[Any]:
    """A SQLAlchemy engine of a database with the schema `dualstore`, dropped at the end."""
    import sqlalchemy  # noqa: PLC0415 - only where it is used

    from dualstore import schema  # noqa: PLC0415 - as above

    url = dualstore_postgres.create_database()
    engine = sqlalchemy.create_engine(url)
    schema.upgrade(engine)
    yield engine
    engine.dispose()
    dualstore_postgres.drop_database(url)


@pytest.fixture(scope="session")
def dualstore_dynamodb() -> Iterator[Any]:
    """A DynamoDB: the one that DUALSTORE_TEST_DYNAMODB_ENDPOINT names, else dynoxide, else ministack."""
    from dualstore.testing.servers import DynamoDB, DynamoDBServer  # noqa: PLC0415 - only where it is used
    from dualstore.testing.servers.dynamo import ENDPOINT_VARIABLE  # noqa: PLC0415 - as above

    endpoint = os.environ.get(ENDPOINT_VARIABLE)
    with DynamoDBServer() if endpoint is None else DynamoDB(endpoint) as server:
        yield server
