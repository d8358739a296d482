"""Tokens of IAM in the place of passwords: signed here by botocore, and taken by a real PostgreSQL."""

import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
import sqlalchemy as sa

from dualstore.errors import Unavailable
from dualstore.stores.iam_auth import authenticate
from dualstore.stores.postgres import PostgresStore
from dualstore.testing.servers import Postgres

REGION = "eu-west-1"


@pytest.fixture
def session() -> Any:
    return boto3.Session(aws_access_key_id="key", aws_secret_access_key="aVerySecretWord")


@pytest.fixture
def signed_in(
    postgres_server: Postgres, postgres_url: str, session: Any
) -> Iterator[tuple[sa.Engine, list[str]]]:
    """An engine with tokens on a server that takes just these, as RDS would, and the tokens."""
    tokens: list[str] = []
    role = f"service_{uuid.uuid4().hex[:8]}"
    admin = sa.create_engine(postgres_server.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
    url = sa.make_url(postgres_url)
    url = sa.URL.create(url.drivername, role, None, url.host, url.port, url.database, {"sslmode": "disable"})
    engine = sa.create_engine(url, pool_size=2)
    authenticate(engine, region=REGION, session=session)

    @sa.event.listens_for(engine, "do_connect")
    def taken_by_the_server(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
        tokens.append(parameters["password"])
        password = parameters["password"].replace("%", "%%")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"ALTER ROLE {role} PASSWORD '{password}'")

    yield engine, tokens
    engine.dispose()
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP ROLE {role}")


def test_each_connection_of_the_pool_signs_in_with_a_token_of_its_own(
    signed_in: tuple[sa.Engine, list[str]],
) -> None:
    engine, tokens = signed_in
    with engine.connect() as one, engine.connect() as other:
        assert one.exec_driver_sql("SELECT 1").scalar() == other.exec_driver_sql("SELECT 1").scalar() == 1
    with engine.connect() as again:  # one that is open already needs none
        again.exec_driver_sql("SELECT 1")
    assert len(tokens) == 2
    engine.dispose()
    time.sleep(1.1)  # a token tells the second in which it was signed
    with engine.connect():
        assert tokens[2] not in tokens[:2]


def test_a_token_is_for_the_host_port_and_user_of_the_url_and_for_15_minutes(
    signed_in: tuple[sa.Engine, list[str]],
) -> None:
    engine, tokens = signed_in
    with engine.connect():
        parts = urlsplit(f"https://{tokens[0]}")
    asked = {name: value for name, (value,) in parse_qs(parts.query).items()}
    assert (parts.hostname, parts.port) == (engine.url.host, engine.url.port)
    assert (asked["Action"], asked["DBUser"]) == ("connect", engine.url.username)
    assert asked["X-Amz-Expires"] == "900"
    assert f"/{REGION}/rds-db/" in asked["X-Amz-Credential"]
    assert "aVerySecretWord" not in tokens[0]


def test_the_region_is_that_of_the_host_name_and_tls_is_asked_for(session: Any) -> None:
    host = "main.cluster-c0ffee.us-east-2.rds.amazonaws.com"
    engine = sa.create_engine(f"postgresql+psycopg://me@{host}/app")
    authenticate(engine, region=REGION, session=session)
    given: dict[str, Any] = {}

    @sa.event.listens_for(engine, "do_connect")
    def seen(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
        given.update(parameters)
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        engine.connect()
    assert given["sslmode"] == "require"
    assert "%2Fus-east-2%2Frds-db%2F" in given["password"]


def test_a_token_that_cannot_be_signed_is_a_connection_that_fails_as_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a mirror behind it is away, and no caller gets an error of botocore."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    engine = sa.create_engine("postgresql+psycopg://me@127.0.0.1:9/app")
    authenticate(engine, region=REGION, session=boto3.Session())
    with pytest.raises(sa.exc.OperationalError, match="no IAM token could be signed for 127"):
        engine.connect()
    store = PostgresStore(engine, {}, statement_timeout=timedelta(seconds=1))
    with pytest.raises(Unavailable):
        list(store.dirty_keys("orders", limit=1))
