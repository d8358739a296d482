"""Fixtures of the tests that run a whole `DualStore`."""

from collections.abc import Iterator
from typing import Any

import pytest

from dualstore.testing.servers import DynamoDB, Postgres
from integration.deployment import Deployment, deployed


@pytest.fixture(scope="module")
def deployment(postgres_server: Postgres, dynamodb_server: DynamoDB, dynamodb: Any) -> Iterator[Deployment]:
    """Both databases, for all tests of a module; each makes tables of its own."""
    url = postgres_server.create_database()
    with deployed(url, dynamodb, dynamodb_server.endpoint_url) as both:
        yield both
    postgres_server.drop_database(url)
