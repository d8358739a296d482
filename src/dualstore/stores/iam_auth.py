"""Signing in to RDS, Aurora and RDS Proxy with IAM: a token, not a password, for each connection."""

from typing import Any

import boto3
import psycopg
import sqlalchemy
from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy import event

from dualstore.stores.rds_endpoints import endpoint_of

_PORT = 5432


def authenticate(engine: sqlalchemy.Engine, *, region: str | None = None, session: Any | None = None) -> None:
    """Give each new connection of an engine a token as its password.

    A token is good for 15 minutes, or until the credentials end that it was signed with, and only to sign in:
    connections outlive it. It is signed on this machine, so every connection gets one of its own, and none
    has to be kept fresh (Amazon Aurora User Guide, "Connecting to your DB cluster using IAM authentication").
    RDS takes tokens over TLS alone; an `sslmode` of the URL that is stricter than `require` is kept.

    Args:
        engine: of a URL with a user and without a password.
        region: of the database, where its host name does not tell.
        session: a boto3 session; missing: boto3 finds credentials by itself, and renews them.
    """
    url = engine.url
    host, port, user = url.host or "", url.port or _PORT, url.username or ""
    found = endpoint_of(host)
    client: list[Any] = []

    def token() -> str:
        if not client:
            made: Any = session or boto3.Session()
            client.append(made.client("rds", region_name=found.region or region or made.region_name))
        signed: str = client[0].generate_db_auth_token(DBHostname=host, Port=port, DBUsername=user)
        return signed

    def sign_in(_dialect: object, _record: object, _args: object, parameters: dict[str, Any]) -> None:
        try:
            parameters["password"] = token()
        except (BotoCoreError, ClientError) as error:
            # As any other failure to connect: a mirror that cannot be reached must not hurt.
            raise psycopg.OperationalError(
                f"no IAM token could be signed for {host} ({type(error).__name__}): see that the process has "
                "AWS credentials and a region"
            ) from None
        parameters.setdefault("sslmode", "require")

    event.listen(engine, "do_connect", sign_in)
