"""Real servers for the tests and the demo, started and ended by context managers."""

from dualstore.testing.servers.dynamo import DynamoDB, DynamoDBServer, dynamodb
from dualstore.testing.servers.dynoxide import find_dynoxide, install_dynoxide
from dualstore.testing.servers.postgresql import Postgres, PostgresServer, postgres

__all__ = [
    "DynamoDB",
    "DynamoDBServer",
    "Postgres",
    "PostgresServer",
    "dynamodb",
    "find_dynoxide",
    "install_dynoxide",
    "postgres",
]
