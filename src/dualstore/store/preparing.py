"""Both databases are made ready: the bookkeeping table, the `dualstore` schema, triggers of SQL tables."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy
from botocore.exceptions import ClientError

from dualstore import schema
from dualstore.mapping import Mapped, SplitMapping
from dualstore.replication.control import BOOKKEEPING_TABLE
from dualstore.stores.postgres import triggers
from dualstore.stores.postgres.layouts import record_layout


def create_bookkeeping_table(client: Any, name: str) -> None:
    """Create the table of control records, journal and processes in DynamoDB; harmless where it is there."""
    try:
        client.create_table(TableName=name, **BOOKKEEPING_TABLE)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceInUseException":
            raise
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def install_triggers(engine: sqlalchemy.Engine, mappings: Iterable[Mapped]) -> None:
    """Install the triggers of SQL tables that are there; a table of the rest is made beside the others."""
    present = sqlalchemy.inspect(engine)
    for mapping in mappings:
        here = [present.has_table(part.table.name, schema=part.table.schema) for part in mapping.parts]
        if isinstance(mapping, SplitMapping) and all(here[:-1]):
            schema.create_rest(engine, mapping)
            record_layout(engine, mapping)
            triggers.install(engine, mapping)
        elif all(here):
            triggers.install(engine, mapping)
