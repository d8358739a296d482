"""Fixtures of the tests that run a whole `DualStore`, and of those that copy and compare in bulk."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from bulk_sides import prepare
from dualstore.testing.servers import DynamoDB, Postgres
from integration.deployment import Deployment, deployed


@pytest.fixture(scope="module")
def deployment(postgres_server: Postgres, dynamodb_server: DynamoDB, dynamodb: Any) -> Iterator[Deployment]:
    """Both databases, for all tests of a module; each makes tables of its own."""
    url = postgres_server.create_database()
    with deployed(url, dynamodb, dynamodb_server.endpoint_url) as both:
        yield both
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def bulk_template(postgres_server: Postgres) -> Iterator[str]:
    """The name of a database that is prepared for `bulk_sides`; nobody stays connected to it."""
    url = sa.make_url(postgres_server.create_database())
    engine = sa.create_engine(url)
    prepare(engine)
    engine.dispose()
    yield str(url.database)
    postgres_server.drop_database(url.render_as_string(hide_password=False))


@pytest.fixture
def bulk_url(postgres_server: Postgres, bulk_template: str) -> Iterator[str]:
    """The SQLAlchemy URL of a new database for `bulk_sides`: to copy one takes a fifth of making it."""
    url = postgres_server.create_database(template=bulk_template)
    yield url
    postgres_server.drop_database(url)
