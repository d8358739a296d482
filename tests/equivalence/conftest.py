"""The kit's own fixtures, on the servers that all tests share."""

from typing import Any

import pytest


@pytest.fixture(scope="session")
def dualstore_postgres(postgres_server: Any) -> Any:
    return postgres_server


@pytest.fixture(scope="session")
def dualstore_dynamodb(dynamodb_server: Any) -> Any:
    return dynamodb_server
