"""The ways to read the table on one side, and on both as LaunchDarkly's Migrator does it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import ldclient
import sqlalchemy as sa
from ldclient.integrations.test_data import TestData
from ldclient.migrations import ExecutionOrder, MigratorBuilder
from ldclient.migrations import Stage as MigratorStage

from orders import PlainRow, key_of

Read = Callable[[int], object]
"""Reads the item of a number."""


def by_client(client: Any, table: str) -> Read:
    """The read through boto3's low-level client, or through one that is shaped like it."""

    def read(number: int) -> object:
        return client.get_item(TableName=table, Key=key_of(number))

    return read


def by_core(engine: sa.Engine) -> Read:
    """The read in SQLAlchemy Core, on the engine's pool."""
    table = PlainRow.__table__
    is_key = (table.c.customer == sa.bindparam("of")) & (table.c.number == sa.bindparam("at"))
    select = sa.select(table).where(is_key)

    def read(number: int) -> object:
        with engine.connect() as connection:
            return connection.execute(select, {"of": f"customer-{number % 97}", "at": number}).one()

    return read


@contextlib.contextmanager
def by_migrator(old: Read, new: Read, *, parallel: bool) -> Iterator[Read]:
    """Two reads as the Migrator makes them at its stage shadow; its comparison takes no time."""
    flags = TestData.data_source()
    stages = [stage.value for stage in MigratorStage]
    chosen = stages.index(MigratorStage.SHADOW.value)
    flags.update(flags.flag("orders-stage").variations(*stages).variation_for_all(chosen))
    client = ldclient.LDClient(ldclient.Config("benchmark", update_processor_class=flags, send_events=False))

    def adapted(read: Read) -> Callable[[Any], ldclient.Result]:
        return lambda number: ldclient.Result.success(read(number))

    builder = MigratorBuilder(client)
    builder.read(adapted(old), adapted(new), lambda *_: True).write(adapted(old), adapted(new))
    builder.read_execution_order(ExecutionOrder.PARALLEL if parallel else ExecutionOrder.SERIAL)
    migrator = builder.build()
    context = ldclient.Context.create("orders")

    def read(number: int) -> object:
        result = migrator.read("orders-stage", context, MigratorStage.OFF, number)
        if not result.is_success():
            raise RuntimeError("the Migrator did not read")
        return result.value

    try:
        yield read
    finally:
        client.close()
