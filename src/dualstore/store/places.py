"""Where a table is, on both sides: told to people before a load test, and hashed in recordings."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy
from botocore.exceptions import BotoCoreError, ClientError

_NOBODY = ":000000000000:"
"""The account of a stand-in's tables, which are told apart by their server."""
_DEFAULT_PORT = 5432


@dataclass(frozen=True, slots=True)
class Places:
    """Where a table is.

    Attributes:
        dynamodb: the table's ARN, which names account and region; a stand-in's URL and the table's name;
            None: DynamoDB does not tell.
        postgres: host, port and database.
        host: of PostgreSQL alone.
    """

    dynamodb: str | None
    postgres: str
    host: str

    @property
    def known(self) -> tuple[str, ...]:
        """All that are known, in words that are stable: recordings keep hashes of them."""
        return tuple(place for place in (self.dynamodb, self.postgres) if place is not None)


def places_of(engine: sqlalchemy.Engine, client: Any, physical: str) -> Places:
    """Where a table is.

    Args:
        engine: of PostgreSQL.
        client: boto3's of DynamoDB.
        physical: the table's name there.
    """
    url = engine.url
    host = (url.host or str(url.query.get("host") or "") or "localhost").lower()
    return Places(
        _dynamodb(client, physical),
        f"postgresql://{host}:{url.port or _DEFAULT_PORT}/{url.database or ''}",
        host,
    )


def _dynamodb(client: Any, physical: str) -> str | None:
    try:
        arn: str | None = client.describe_table(TableName=physical)["Table"].get("TableArn")
    except (ClientError, BotoCoreError):
        return None
    if arn is None or _NOBODY in arn:
        return f"{client.meta.endpoint_url.rstrip('/')}/{physical}"
    return arn
