"""A PostgreSQL store with a mapped and an unmapped table, both empty."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from dualstore.stores.postgres import PostgresStore
from integration.postgres.orders import TABLES, become_mirror, create


@pytest.fixture(scope="module")
def module_engine(postgres_server: Any) -> Iterator[sa.Engine]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    create(engine)
    yield engine
    engine.dispose()
    postgres_server.drop_database(url)


@pytest.fixture
def engine(module_engine: sa.Engine) -> sa.Engine:
    """The engine of a database with empty tables, of which it is the mirror."""
    with module_engine.begin() as connection:
        bookkeeping = ", ".join(f"dualstore.{name}" for name in ("tombstones", "dirty", "tokens", "control"))
        connection.execute(sa.text(f"TRUNCATE orders, notes, {bookkeeping}"))
    become_mirror(module_engine)
    return module_engine


@pytest.fixture
def store(engine: sa.Engine) -> PostgresStore:
    return PostgresStore(engine, TABLES)
