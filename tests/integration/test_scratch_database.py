"""What may be taken for a restored backup: no way to the production database, and no replica."""

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from dualstore.rollout.actions.cleanup import _why_not_scratch

Connecting = Callable[..., sa.Engine]
REPLICA = """
CREATE SCHEMA pretended;
CREATE FUNCTION pretended.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'
"""


@pytest.fixture
def connecting() -> Iterator[Connecting]:
    engines = []

    def connect(url: str, **options: str) -> sa.Engine:
        engines.append(sa.create_engine(url, connect_args=options, poolclass=sa.NullPool))
        return engines[-1]

    yield connect
    for each in engines:
        each.dispose()


def test_the_production_database_under_another_name_is_no_scratch_one(
    postgres_url: str, connecting: Connecting
) -> None:
    url = sa.make_url(postgres_url)
    alias = "localhost" if url.host == "127.0.0.1" else url.host or ""
    scratch = connecting(url.set(host=alias).render_as_string(hide_password=False))

    assert "production database itself" in str(_why_not_scratch(scratch, connecting(postgres_url)))


def test_another_database_of_the_same_server_is_one(
    postgres_url: str, postgres_server: object, connecting: Connecting
) -> None:
    other = postgres_server.create_database()  # type: ignore[attr-defined]
    try:
        assert _why_not_scratch(connecting(other), connecting(postgres_url)) is None
    finally:
        postgres_server.drop_database(other)  # type: ignore[attr-defined]


def test_a_replica_is_none(postgres_url: str, connecting: Connecting) -> None:
    with connecting(postgres_url).begin() as connection:
        connection.exec_driver_sql(REPLICA)
    replica = connecting(postgres_url, options="-c search_path=pretended,pg_catalog")

    assert "names a replica" in str(_why_not_scratch(replica, connecting(postgres_url)))
